"""Tells systemd how a service is, and ends the service on signals."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from types import FrameType

from common.files import UserError


def notify_systemd(words: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send `READY=1`, `WATCHDOG=1`, `STATUS=...` (sd_notify(3)), if systemd listens."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    # An abstract socket's name begins with a zero byte.
    address = "\0" + address[1:] if address.startswith("@") else address
    # Whether systemd listens or not, the node is watched.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(words.encode(), address)


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """How long systemd's watchdog waits for a sign of life; 0 if there is none."""
    return int(environment.get("WATCHDOG_USEC", "0")) / 1e6


def check_watchdog(interval_seconds: float, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError if polls are too rare for systemd's watchdog, which would kill the daemon."""
    seconds = watchdog_seconds(environment)
    if 0 < seconds < 2 * interval_seconds:
        raise UserError(
            f"--interval {interval_seconds:g} is more than half of the watchdog's {seconds:g} s;"
            f" set WatchdogSec={math.ceil(3 * interval_seconds)} or more in the unit"
        )


class Ending:
    """Ends the process on SIGTERM or SIGINT: at once while it reads or waits, after a write while it writes.

    SIGHUP ends a wait, so that changed files take effect at once.
    """

    def __init__(self) -> None:
        self._is_asked = False
        self._is_deferred = False
        # The reading end of a pipe, once `install` was called.
        self._reading: tuple[int, ...] = ()

    def install(self) -> None:
        """Handle the signals of this process from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        # Python writes each signal to the pipe; a handler that took a lock could wait for itself.
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        self._reading = (reading,)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True
        if not self._is_deferred:
            raise SystemExit(0)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the body of the `with` finish before a signal ends the process."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
            # Also after a write that failed: the loop would try it forever.
            if self._is_asked:
                raise SystemExit(0)

    def wait(self, seconds: float) -> bool:
        """Wait, at most until SIGHUP comes. Returns whether it came."""
        woken = select.select(self._reading, [], [], seconds)[0]
        for pipe in woken:
            # Many signals end one wait; the pipe holds no more than this.
            os.read(pipe, 1 << 20)
        return bool(woken)
