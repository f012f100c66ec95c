"""Decides what to read next for a node, and which of its slots are settled."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.alerts import ALERT_RECORDS, WINDOW_RECORDS
from common.times import format_duration, format_time
from common.values import mapping, whole
from edge.scores import SCORE_RECORDS
from edge.selection import Choice, Selection, Slot, in_slots
from edge.source import Asking, CountOf, NewestOf, NewestTimeOf, Samples, SamplesOf, SampleSource
from edge.timing import SampleClock
from nodes.node import Node
from service.log import Notices

# Enough for whole scores of each of the records that decide whether the first verdict is an alert.
HISTORY_RECORDS = SCORE_RECORDS + ALERT_RECORDS

# A poll that has much to catch up on reads this much of it; InfluxDB answers that in a second.
CHUNK_RECORDS, CHUNK_SECONDS = 240, 3600.0
# Records that are further behind than a late exporter explains mean an outage. Samples that waited for its
# end may come out of step, since each shard of remote write sends by itself: for a while, missing ones may
# still come.
BEHIND_RECORDS = 4
PATIENCE_RECORDS = 4


@dataclass
class Reading:
    """What one poll has read.

    records: those of the settled slots, oldest first. reported_from: records of slots before it (ns) only
    fill the window; None if all are reported. is_history: these are the very first records; only the newest
    counts. is_cut_off: they do not continue what was judged before. is_no_change: they cannot be compared
    with the record before them.
    """

    records: list[Choice] = field(default_factory=list)
    reported_from: int | None = None
    is_history: bool = False
    is_cut_off: bool = False
    is_no_change: bool = False

    @property
    def reported(self) -> list[Choice]:
        """The records whose verdicts are reported."""
        return [one for one in self.records if self.is_reported(one)]

    def is_reported(self, record: Choice) -> bool:
        """Whether a record does more than fill the window."""
        return self.reported_from is None or record.slot.start >= self.reported_from


class Reader:
    """Reads the new samples of one node as records of settled slots, none twice and none skipped.

    A slot is settled once it is over and all series have a sample in it. A sample that has not come when
    other samples are half a slot further is missing. The samples' own times tell the slots; `clock` only
    shows that a slot is over if no newer sample does.

    Missed records are read too, as far back as `catch_up_seconds` before the newest sample. After an outage,
    an incomplete record waits for its series for `patience_records`, since they may come out of step.
    `silent_polls` counts the polls since the last record; `has_more` asks for the next poll at once.
    """

    def __init__(
        self,
        source: SampleSource,
        node: Node,
        interval_seconds: float,
        catch_up_seconds: float,
        patience_records: float = PATIENCE_RECORDS,
        clock: Callable[[], float] = time.time,
        notices: Notices | None = None,
    ) -> None:
        self._source = source
        self._node = node
        self._interval_seconds = interval_seconds
        self._interval_ns = int(interval_seconds * 1e9)
        self._catch_up_ns = int(catch_up_seconds * 1e9)
        self._patience_seconds = patience_records * interval_seconds
        self._clock = clock
        self._notices = notices or Notices()
        self._sample_clock = SampleClock(self._interval_ns, clock)
        self.selection = Selection(node)
        # Records before the first time have been read; those before the second only fill the window.
        self._read_before: int | None = None
        self._reported_from: int | None = None
        self._newest: int | None = None
        self._newest_in_silence: int | None = None
        self._stale_polls = 0
        self._polled_at: float | None = None
        self._is_behind = False
        self._is_failing = False
        self._patient_until = -math.inf
        # How many samples there were in a span that was still in the future, and that span (ns).
        self._counted, self._counted_span = 0, (0, 0)
        self._reading = Reading()
        # Series whose silence tells nothing, as in Samples.
        self._doubtful: Mapping[str, str] = {}
        self.silent_polls = 0
        self.has_more = False

    @property
    def newest_sample(self) -> int | None:
        """Time of the newest sample seen (ns)."""
        return self._newest

    @property
    def has_begun(self) -> bool:
        """Whether any record was read, by this process or the previous one."""
        return self._read_before is not None

    @property
    def clock_offset_seconds(self) -> float:
        """Estimate of how far the samples' clock is ahead of this host's; below 0 it is behind."""
        return self._sample_clock.offset_ns / 1e9

    def expected_records(self, chunk_records: int = CHUNK_RECORDS) -> int:
        """About how many records the next poll reads, at most."""
        if self._read_before is None:
            return HISTORY_RECORDS + 2
        return min(max((self._now() - self._read_before) // self._interval_ns, 1), chunk_records)

    def poll(self, chunk_records: int = CHUNK_RECORDS) -> Asking[Reading]:
        """Read what has come since the last poll; the very first poll reads the history.

        chunk_records: at most so many later records are read at once. Raises one of the source's errors, if
        a question has it, or UserError; the next poll then goes on where the last good one stopped.
        """
        self.has_more = False
        if self._read_before is not None and self._now() - self._read_before > self._catch_up_ns:
            yield from self._limit_catch_up()
        since = self._read_before
        end = self._end_of_chunk(chunk_records)
        self._note_outage()
        self._is_failing = True
        slots, newest = yield from self._read(self._now() - self._history_ns if since is None else since, end)
        if since is None and not slots and (yield from self._find_late_samples()):
            slots, newest = yield from self._read(self._now() - self._history_ns, None)
        self._is_failing = False
        if since is None:
            self.selection.refuse_several(slots, self._source.place)
        if end is not None and not slots and ((yield from self._newest_in_history()) or 0) >= end:
            # Nothing was recorded in this chunk.
            self._read_before = end
        newest = self._newest if newest is None else newest
        is_due = self._is_due()
        self._stale_polls = self._stale_polls + is_due if newest == self._newest else 0
        self._newest = newest
        reading, self._reading = self._reading, Reading()
        reading.reported_from, reading.is_history = self._reported_from, since is None
        reading.records = self._settled(slots)
        is_silent = not reading.reported
        self.has_more = end is not None and self._read_before != since
        self.silent_polls = self.silent_polls + is_due if is_silent and not self.has_more else 0
        if self._stale_polls > 2 and is_silent:
            # What this reading has must not be lost to a question that the next poll can ask again.
            with contextlib.suppress(*self._source.errors):
                yield from self._look_for_clock_step()
        if not is_silent:
            self._notices.mended("step", "records are judged again")
        self._sample_clock.follow()
        self._note_offset()
        return reading

    def _settled(self, slots: Sequence[Slot]) -> list[Choice]:
        records = []
        for slot in slots:
            if self._read_before and slot.start - self._read_before > WINDOW_RECORDS * self._interval_ns:
                self.selection.forget_levels()
            choice = self.selection.choose(slot, self._doubtful)
            if not self._is_settled(slot.start, choice.lacks_samples):
                break
            self.selection.keep(choice)
            self._read_before = slot.start + self._interval_ns
            records.append(choice)
        return records

    def _read(self, start: int, end: int | None) -> Asking[tuple[list[Slot], int | None]]:
        """The slots from `start` to before `end` (ns; None: up to now) that have samples, and the time of the
        newest sample in them.
        """
        looks_ahead = end is None and self._sample_clock.looks_ahead()
        now = self._now()
        found = yield SamplesOf(
            self._node,
            start,
            now + self._interval_ns if looks_ahead else min(now, end or now),
            self._interval_seconds,
            looks_ahead,
            self.selection.known_tags(),
        )
        self._note_flood(found)
        self._doubtful = found.doubtful
        if not looks_ahead:
            slots = in_slots(found.lines, self._node, self._interval_ns)
            times = self._times_of(slots)
            self._sample_clock.see(times)
            return slots, _newest(times)
        times = self._times_of(in_slots(found.lines, self._node, self._interval_ns))
        if found.has_later:
            # What was read of the later samples may end anywhere.
            times = [(slot, newest) for slot, newest in times if slot + self._interval_ns <= now]
            newest = yield NewestOf(self._watched_node())
            times += self._times_of(in_slots(newest, self._node, self._interval_ns))
        limit = self._sample_clock.limit(times)
        slots = in_slots(found.lines, self._node, self._interval_ns, limit)
        return slots, _newest(self._times_of(slots))

    def _times_of(self, slots: Sequence[Slot]) -> list[tuple[int, dict[str, int]]]:
        return [(slot.start, self.selection.newest_times(slot)) for slot in slots]

    def _end_of_chunk(self, chunk_records: int) -> int | None:
        """Where this poll stops reading; None if it reads all there is."""
        if self._read_before is None:
            return None
        length = min(chunk_records, max(int(CHUNK_SECONDS / self._interval_seconds), 1)) * self._interval_ns
        end = self._read_before + length
        return end if end < self._now() - self._interval_ns else None

    def _note_outage(self) -> None:
        """Notice an outage; once it is over, missing samples are waited for."""
        was_behind = self._is_behind
        lag_ns = 0 if self._read_before is None else self._now() - self._read_before
        self._is_behind = lag_ns > BEHIND_RECORDS * self._interval_ns
        # Waiting for missing samples lets the records lag, too.
        begins_to_lag = self._is_behind and not was_behind and self._clock() >= self._patient_until
        if self._is_failing or begins_to_lag:
            self._patient_until = self._clock() + self._patience_seconds

    def _is_due(self) -> bool:
        """Whether a new record may be expected: not right after another poll, as when a server comes back."""
        now, before = self._clock(), self._polled_at
        self._polled_at = now
        return before is None or not 0 <= now - before < 0.5 * self._interval_seconds

    @property
    def _history_ns(self) -> int:
        return math.ceil((HISTORY_RECORDS + 2) * self._interval_seconds) * 10**9

    def _now(self) -> int:
        """The time by the samples' clock (ns)."""
        return self._sample_clock.now()

    def _slot_of(self, nanoseconds: int) -> int:
        return nanoseconds // self._interval_ns * self._interval_ns

    def _newest_in_history(self) -> Asking[int | None]:
        """Time of the newest sample of the watched instances, however old (ns)."""
        return (yield NewestTimeOf(self._watched_node()))

    def _find_late_samples(self) -> Asking[bool]:
        """Before the first record: whether samples come that are old by this host's clock."""
        newest = yield from self._newest_in_history()
        before, self._newest_in_silence = self._newest_in_silence, newest
        if newest is None or before is None or newest <= before:
            return False
        self._sample_clock.set_by(newest)
        return True

    def _limit_catch_up(self) -> Asking[None]:
        """Give up the records that are too old, and read the window before the remaining ones."""
        if self._reported_from is not None and self._read_before < self._reported_from:
            # That is done already; the window before them is being read.
            return
        newest = yield from self._newest_in_history()
        begin = self._slot_of((newest or 0) - self._catch_up_ns)
        if begin <= self._read_before:
            return
        self._notices.tell(
            "catch up",
            f"the records from {format_time(self._read_before)} to {format_time(begin)} are not judged: they"
            " are further back than --catch_up allows",
        )
        self._start_over(begin)

    def _start_over(self, reported_from: int) -> None:
        """Let the next poll also read the window before this time (ns)."""
        self._reading.is_cut_off = True
        self.selection.forget_levels()
        self._read_before = reported_from - self._history_ns
        self._reported_from = reported_from

    def _look_for_clock_step(self) -> Asking[None]:
        """Start over if new samples are dated before those already judged: their clock went back."""
        if self._read_before is None:
            return
        if self._sample_clock.here() < self._read_before <= self._now():
            yield from self._look_for_clock_put_right()
            return
        newest = yield from self._newest_in_history()
        if newest is None:
            return
        before, self._newest_in_silence = self._newest_in_silence, newest
        if before is not None and before < newest < self._read_before - self._interval_ns:
            # What came during the silence is judged now.
            begin = self._slot_of(newest) - (self.silent_polls - 1) * self._interval_ns
            went_back = format_duration((self._read_before - newest) / 1e9)
            self._notices.tell("step back", _describe_step(went_back, begin))
            self._sample_clock.start_again(newest)
            self._start_over(begin)
            self._newest = None

    def _look_for_clock_put_right(self) -> Asking[None]:
        """Start over if the clock was ahead and is right now: samples left in the future then become more."""
        here = self._sample_clock.here()
        before, (start, end) = self._counted, self._counted_span
        is_counted = start < here <= end + self._interval_ns
        count = (yield CountOf(self._watched_node(), start, end)) if is_counted else 0
        self._counted_span = here, here + self._interval_ns
        self._counted = yield CountOf(self._watched_node(), *self._counted_span)
        if not is_counted or count <= before:
            return
        went_back = format_duration((self._read_before - here) / 1e9)
        if before and not self._notices.has("step"):
            self._notices.fault(
                "step",
                f"the samples' clock went back by about {went_back}: new samples cannot be told from old ones"
                f" that are dated up to {format_time(self._read_before)}. Nothing is judged until then, or"
                f" until the old ones are deleted: {self._source.deletion}",
            )
        if before:
            self._reading.is_no_change = True
            return
        begin = self._slot_of(start) - (self.silent_polls - 1) * self._interval_ns
        self._notices.tell("step back", _describe_step(went_back, begin))
        self._sample_clock.start_again(here)
        self._start_over(begin)
        self._newest = None

    def _watched_node(self) -> Node:
        return self._node.watching(self.selection.watched)

    def _is_settled(self, slot_start: int, lacks_series: bool) -> bool:
        # A host clock that went back must not prolong the patience.
        if lacks_series and 0 < self._patient_until - self._clock() <= self._patience_seconds:
            return False
        now = self._newest or 0
        # All samples may be late by more than a slot: while any come, the clock does not rule out the others.
        if not lacks_series or self._stale_polls >= 2:
            now = max(now, self._now())
        return now >= slot_start + self._interval_ns * (1.5 if lacks_series else 1)

    def _note_flood(self, found: Samples) -> None:
        if not found.flooded:
            self._notices.mended("flood", "no series has too many samples any more")
            return
        unread = f", and {', '.join(found.unread)} cannot be read at all" if found.unread else ""
        self._notices.fault(
            "flood",
            f"too many samples of {', '.join(found.flooded)}: the newest of each record counts{unread};"
            " find out what writes them",
            logging.WARNING,
        )

    def _note_offset(self) -> None:
        seconds = self.clock_offset_seconds
        if seconds == 0:
            self._notices.mended("clock", "the samples' clock is right again")
        elif abs(seconds) > self._interval_seconds and not self._notices.has("clock"):
            way = (
                "ahead of this host's; check the time (NTP) of both"
                if seconds > 0
                else "behind this host's, or samples are late; check the time (NTP) of both, and remote write"
            )
            self._notices.fault(
                "clock", f"the samples' clock is about {format_duration(abs(seconds))} {way}", logging.WARNING
            )

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {
            "judged_before": self._read_before,
            "newest": self._newest,
            "reported_from": self._reported_from,
            "is_cut_off": self._reading.is_cut_off,
            "is_no_change": self._reading.is_no_change,
            "selection": self.selection.state(),
            "clock_offset_ns": self._sample_clock.offset_ns,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        times = [
            None if mapping(state)[key] is None else whole(state[key])
            for key in ("judged_before", "reported_from", "newest")
        ]
        offset_ns = whole(state.get("clock_offset_ns", 0))
        selection = Selection(self._node)
        # A state of an older version has only the instances.
        selection.restore(state.get("selection") or selection.state() | {"watched": state["instances"]})
        self.selection = selection
        self._read_before, self._reported_from, self._newest = times
        # A state of an older version has neither: it was written after both had been acted on.
        self._reading.is_cut_off = bool(state.get("is_cut_off"))
        self._reading.is_no_change = bool(state.get("is_no_change"))
        self._sample_clock.offset_ns = offset_ns


def _newest(slots: Sequence[tuple[int, dict[str, int]]]) -> int | None:
    return max((time for _, times in slots for time in times.values()), default=None)


def _describe_step(went_back: str, begin: int) -> str:
    return f"the samples' clock went back by {went_back}; judging starts over at {format_time(begin)}"
