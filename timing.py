"""The clock that stamps the samples, told from the samples: it may be ahead of this host's, or behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

# Prometheus sends a sample up to 5 s after its scrape; a third of a slot is left for that.
SETTLE_SHARE = 1 / 3
# By a right clock the newest sample of a poll is at most a slot and what is left for sending old, and a bit.
RIGHT_SLOTS = 1.5
# Samples that were late by the same for so many polls do not catch up: their clock is behind.
STEADY_POLLS = 4


class SampleClock:
    """How far the samples' clock is ahead of this host's (`offset_ns`; below zero it is behind).

    Samples that are dated later than now are the node's if they come without a gap after those before, or for
    slot after slot, in more than half of its series. A few that somebody dated later are not there yet.
    """

    def __init__(self, interval_ns: int, clock: Callable[[], float] = time.time) -> None:
        self._interval_ns = interval_ns
        self._clock = clock
        self.offset_ns = 0
        self._newest: int | None = None
        self._followed: int | None = None
        self._lag_ns = 0
        self._steady_polls = 0

    def here(self) -> int:
        """This host's time (ns)."""
        return int(self._clock() * 1e9)

    def now(self) -> int:
        """The time by the samples' clock (ns)."""
        return self.here() + self.offset_ns

    def last_slot(self, slots: Sequence[tuple[int, Mapping[str, int]]], judged: int | None) -> int:
        """Start of the newest slot whose samples have come by now (ns).

        slots: start, and the time of the newest sample of each series by its name, oldest first. judged:
        start of the slot that was judged last.
        """
        last = (self.now() + self._interval_ns) // self._interval_ns * self._interval_ns
        names = {name for _, times in slots for name in times}
        full = {start: max(times.values()) for start, times in slots if 2 * len(times) > len(names)}
        before = judged
        for start in full:
            if start > last:
                follows = before is not None and start - before <= 2 * self._interval_ns
                if not follows and start + self._interval_ns not in full:
                    break
                # The first sample of the next slot shows that this one is over.
                last = start + self._interval_ns
            before = start
        # A few series alone do not set the clock.
        self._newest = max((time for start, time in full.items() if start <= last), default=None)
        return last

    def follow(self) -> None:
        """Set the clock by what has come in this poll; the next poll goes by it."""
        newest, before = self._newest, self._followed
        if newest is None or before is not None and newest <= before:
            return
        self._followed = newest
        lag_ns = self.here() - newest
        is_steady = abs(lag_ns - self._lag_ns) <= self._interval_ns
        self._steady_polls = self._steady_polls + 1 if is_steady else 0
        self._lag_ns = lag_ns
        if lag_ns <= RIGHT_SLOTS * self._interval_ns or self._steady_polls >= STEADY_POLLS:
            self.set_by(newest)

    def set_by(self, newest: int) -> None:
        """Set the clock by a sample that has just come, at the time of a poll (ns)."""
        self._followed = newest
        lag_ns = self.here() - newest
        if 0 <= lag_ns <= RIGHT_SLOTS * self._interval_ns:
            self.offset_ns = 0
        else:
            self.offset_ns = int((1 - SETTLE_SHARE) * self._interval_ns) - lag_ns
