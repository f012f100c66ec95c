"""Says now and then how far many tasks are, where nobody sees a progress bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from common.times import format_duration

logger = logging.getLogger("find_anomalies")

# There is a line at most this often.
PROGRESS_SECONDS = 60.0


class ProgressLines:
    """Counts tasks that are done, and logs how many of how many, and how long the others will take.

    what: is done with them. count: how many there are.
    """

    def __init__(self, what: str, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._count, self._clock = what, count, clock
        self._done = 0
        self._begin = self._told = clock()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = self._clock()
        if now - self._told < PROGRESS_SECONDS or self._done >= self._count:
            return
        self._told = now
        left = (now - self._begin) / self._done * (self._count - self._done)
        logger.info(
            "%s: %d of %d done, about %s left", self._what, self._done, self._count, format_duration(left)
        )
