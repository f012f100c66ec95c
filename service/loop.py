"""The loop of a service: one job that runs again and again, until a signal ends the process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.systemd import Ending, notify_systemd, watchdog_seconds

# Pauses before a server that is away is asked again: they double, and each is cut at random by up to half.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 4.0


@dataclass(frozen=True)
class Turn:
    """The result of one run of a job.

    status: one line for `systemctl status`. next_seconds: time to the next run; None if there is none.
    is_away: a server that the job needs is away, so it runs again within LAST_RETRY_SECONDS instead.
    """

    status: str
    next_seconds: float | None
    is_away: bool = False


def run(job: Callable[[], Turn], ending: Ending) -> None:
    """Run a job until a turn is the last one, or `ending` ends the process.

    After the first run, systemd is told that the service is ready; after each run and during waits, that it
    is alive. SIGHUP ends a wait.
    """
    backoff = Backoff()
    words = ["READY=1"]
    while True:
        turn = job()
        notify_systemd("\n".join([*words, "WATCHDOG=1", f"STATUS={turn.status}"]))
        words = []
        if turn.next_seconds is None:
            return
        if turn.is_away:
            _wait(backoff.next_seconds(), ending)
        else:
            backoff.reset()
            _wait(turn.next_seconds, ending)


def _wait(seconds: float, ending: Ending) -> None:
    deadline = time.monotonic() + seconds
    # An hourly job waits longer than a watchdog does.
    longest = watchdog_seconds() / 2 or seconds
    left = seconds
    while left > 0 and not ending.wait(min(left, longest)):
        left = deadline - time.monotonic()
        if left > 0:
            notify_systemd("WATCHDOG=1")


class Backoff:
    """How long to wait before a server that is away is asked again; random, so clients do not ask in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_RETRY_SECONDS

    def next_seconds(self) -> float:
        """The pause after one more failed attempt."""
        pause = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(2 * self._seconds, LAST_RETRY_SECONDS)
        return pause

    def reset(self) -> None:
        """The server has answered."""
        self._seconds = FIRST_RETRY_SECONDS
