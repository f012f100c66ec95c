"""Estimates, from the samples, how far the clock that stamps them is ahead of this host's or behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

# Prometheus sends a sample up to 5 s after its scrape; a third of a slot is left for that.
SETTLE_SHARE = 1 / 3
# If the clock is right, the newest sample is at most one slot plus the sending delay and a bit old.
RIGHT_SLOTS = 1.5
# Samples with at most this many slots between them are one stretch.
GAP_SLOTS = 2
# The first two of every this many polls look for samples that are dated later than now.
LOOK_POLLS = 20
# Samples that are equally late for this many polls are not catching up: their clock is behind.
STEADY_POLLS = 4


class SampleClock:
    """How far the samples' clock is ahead of this host's (`offset_ns`; below zero it is behind).

    Samples that are dated later than now do not count yet, unless their clock is ahead: then each poll brings
    more of them, in more than half of the series. A lone sample that is dated later does not move the clock.
    """

    def __init__(self, interval_ns: int, clock: Callable[[], float] = time.time) -> None:
        self._interval_ns = interval_ns
        self._clock = clock
        self.offset_ns = 0
        # Ends of the stretches of samples, if the last poll looked ahead; time of the last look ahead (ns).
        self._ends: list[int] = []
        self._looked_at = 0
        # The first poll is number 0, and looks ahead.
        self._polls = -1
        self._is_silent = False
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

    def looks_ahead(self) -> bool:
        """Whether this poll has to look for samples that are dated later than now.

        It takes two polls in a row to see that they become more. Normally that is done now and then.
        """
        self._polls += 1
        is_time = self._polls % LOOK_POLLS < 2
        return is_time or self._is_silent or self.offset_ns > 0

    def see(self, slots: Sequence[tuple[int, Mapping[str, int]]]) -> None:
        """Note the samples of a poll that are dated up to now; `slots` as in `limit`."""
        self._ends = []
        self._note(self._full(slots), self.now())

    def limit(self, slots: Sequence[tuple[int, Mapping[str, int]]]) -> int:
        """The time from which on samples do not count yet (ns), in a poll that looks ahead.

        slots: for each slot with samples, oldest first, its start and the time of each series' newest sample
        by series name (ns).
        """
        full = self._full(slots)
        gap_ns = GAP_SLOTS * self._interval_ns
        stretches: list[tuple[int, int]] = []
        for start, end in full.items():
            if stretches and start - stretches[-1][1] <= gap_ns:
                stretches[-1] = stretches[-1][0], end
            else:
                stretches.append((start, end))
        limit = self.now()
        # No exporter gets further than this in the time that has passed: more was written all at once.
        most_ns = max(self.here() - self._looked_at, 0) + gap_ns
        self._looked_at = self.here()
        for start, end in stretches:
            grows = any(start - gap_ns <= before < end <= before + most_ns for before in self._ends)
            if end >= limit and grows:
                # The first samples of the next slot show that this one is over.
                limit = end + self._interval_ns
        self._ends = [end for _, end in stretches]
        self._note(full, limit)
        return limit

    @staticmethod
    def _full(slots: Sequence[tuple[int, Mapping[str, int]]]) -> dict[int, int]:
        """Start of each slot with more than half of the series -> its newest sample; a few set no clock."""
        names = {name for _, times in slots for name in times}
        return {start: max(times.values()) for start, times in slots if 2 * len(times) > len(names)}

    def _note(self, full: Mapping[int, int], limit: int) -> None:
        newest = max((time for time in full.values() if time < limit), default=None)
        self._is_silent = newest is None or self._newest is not None and newest <= self._newest
        self._newest = newest if newest is not None else self._newest

    def follow(self) -> None:
        """Set the clock by what has come in this poll, for the next one."""
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

    def start_again(self, newest: int) -> None:
        """Set the clock by a sample that has just come (ns), and forget what came before it."""
        self.set_by(newest)
        self._newest, self._ends = None, []

    def set_by(self, newest: int) -> None:
        """Set the clock by a sample that has just come (ns)."""
        self._followed = newest
        lag_ns = self.here() - newest
        if 0 <= lag_ns <= RIGHT_SLOTS * self._interval_ns:
            self.offset_ns = 0
        else:
            self.offset_ns = int((1 - SETTLE_SHARE) * self._interval_ns) - lag_ns


def seconds_to_next_poll(interval_seconds: float, clock: Callable[[], float] = time.time) -> float:
    """Time to the next poll, SETTLE_SHARE of a slot after a slot's end by the clock: polls do not drift."""
    pause = interval_seconds - (clock() - interval_seconds * SETTLE_SHARE) % interval_seconds
    # The process woke a moment early: the poll of this deadline is done already.
    return pause if pause > 0.05 * interval_seconds else pause + interval_seconds
