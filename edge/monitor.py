"""One node, poll by poll: new samples -> records -> verdicts, none twice and none skipped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import formatters
import influx_utils
from common.alerts import ALERT_RECORDS, WINDOW_RECORDS
from common.times import format_duration, format_time
from common.values import mapping, number, text, whole
from edge import samples
from edge.detector import Detector, Verdict, describe_verdict
from edge.selection import NO_SAMPLE, Choice, Selection, Slot, in_slots, shown
from edge.timing import SampleClock
from nodes.metrics import MEMORY_TOTAL
from nodes.node import Node
from nodes.series import Point, Record, monitored_series
from service.log import Notices

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

logger = logging.getLogger("find_anomalies")

# Enough for a full window on each of the records that decide whether the first verdict is an alert.
HISTORY_RECORDS = WINDOW_RECORDS + ALERT_RECORDS
# A poll that has much to catch up takes this much of it; InfluxDB answers that in a second.
CHUNK_RECORDS, CHUNK_SECONDS = 240, 3600.0
# Behind by more slots than a late exporter explains there was an outage. What waited for its end need not
# come in step: remote write has shards, and each sends by itself. For a while, what lacks may still come.
BEHIND_RECORDS = 4
PATIENCE_RECORDS = 4


@dataclass(frozen=True)
class Judged:
    """A record's verdict. faults: name of a series -> why it has no sample that can be used."""

    verdict: Verdict
    faults: dict[str, str]


class Monitor:
    """New samples of one node -> records -> verdicts.

    A slot is judged once it is over and all series have a sample in it; what has not come when other
    samples are half a slot further is missing. Slots are told from the samples' own times; `clock` only
    adds that a slot is over where no newer sample shows it.

    Records that were missed are judged too, as far back as `catch_up_seconds` before the newest sample, and
    for a while one that lacks series waits for them: what comes after an outage does not come in step.
    `silent_polls` counts the polls since the last verdict; `has_more` asks for the next poll at once;
    `history` is what the first poll judged before the verdict that it returned.
    """

    def __init__(
        self,
        client: InfluxDBClient,
        node: Node,
        judge: Detector,
        interval_seconds: float,
        catch_up_seconds: float,
        patience_records: float = PATIENCE_RECORDS,
        clock: Callable[[], float] = time.time,
        notices: Notices | None = None,
    ) -> None:
        self._client = client
        self._node = node
        self._judge = judge
        self._interval_seconds = interval_seconds
        self._interval_ns = int(interval_seconds * 1e9)
        self._catch_up_ns = int(catch_up_seconds * 1e9)
        self._patience_seconds = patience_records * interval_seconds
        self._clock = clock
        self._notices = notices or Notices()
        self._sample_clock = SampleClock(self._interval_ns, lambda: self._clock())
        self._selection = Selection(node)
        self._last_record: Record = {}
        # Records before the first are read; those before the second fill the window and are not reported.
        self._judged_before: int | None = None
        self._reported_from: int | None = None
        self._newest: int | None = None
        self._newest_in_silence: int | None = None
        self._stale_polls = 0
        self._polled_at: float | None = None
        self._is_behind = False
        self._is_failing = False
        self._patient_until = -math.inf
        # What was last looked up about series without samples.
        self._lacking: frozenset[str] = frozenset()
        self._explanations: dict[str, str] = {}
        self._unexplained_records = 0
        # How many samples there were in a span that was still to come.
        self._counted, self._counted_span = 0, (0, 0)
        self.silent_polls = 0
        self.has_more = False
        # Verdicts on the records of the history that the first poll reads, which are not reported.
        self.history: list[Verdict] = []

    @property
    def instance(self) -> str | None:
        """The node exporter whose samples are judged, once known."""
        return self._selection.watched.get("node_instance") or None

    @property
    def newest_sample(self) -> int | None:
        """Time of the newest sample seen (ns)."""
        return self._newest

    @property
    def has_begun(self) -> bool:
        """Whether any record was judged, by this process or the one before."""
        return self._judged_before is not None

    @property
    def clock_offset_seconds(self) -> float:
        """How far the samples' clock is ahead of this host's, by estimate; below 0 it is behind."""
        return self._sample_clock.offset_ns / 1e9

    def poll(self) -> list[Judged]:
        """Judge what has come since the last poll: verdicts, each with what its record lacked.

        The very first poll fills the window from history and returns the newest verdict alone. Raises one
        of INFLUX_ERRORS or UserError; the next poll then takes up where the last good one stopped.
        """
        self.has_more = False
        if self._judged_before is not None and self._now() - self._judged_before > self._catch_up_ns:
            self._limit_catch_up()
        since = self._judged_before
        end = self._end_of_chunk()
        self._note_outage()
        self._is_failing = True
        slots = self._read(self._now() - self._history_ns if since is None else since, end)
        if since is None and not slots and self._find_late_samples():
            slots = self._read(self._now() - self._history_ns, None)
        self._is_failing = False
        if since is None:
            self._selection.refuse_several(slots)
        if end is not None and not slots and (self._newest_in_history() or 0) >= end:
            # Nothing was recorded in this part.
            self._judged_before = end
        newest = max(
            [time for slot in slots for time in self._selection.newest_times(slot).values()],
            default=self._newest,
        )
        is_due = self._is_due()
        self._stale_polls = self._stale_polls + is_due if newest == self._newest else 0
        self._newest = newest
        judged = []
        for slot in slots:
            choice = self._selection.choose(slot)
            if not self._is_settled(slot.start, choice.lacks_samples):
                break
            judged += self._judge_record(choice)
            self._judged_before = slot.start + self._interval_ns
        self.has_more = end is not None and self._judged_before != since
        self.silent_polls = 0 if judged or self.has_more else self.silent_polls + is_due
        if self._stale_polls > 2 and not judged:
            self._look_for_clock_step()
        if judged:
            self._notices.mended("step", "records are judged again")
            self._explain(judged[-1].faults)
        self._sample_clock.follow()
        self._note_offset()
        self.history = [one.verdict for one in judged[:-1]] if since is None else []
        return judged[-1:] if since is None else judged

    def _read(self, start: int, end: int | None) -> list[Slot]:
        """The slots from `start` to before `end` that have samples, as far as they have come."""
        looks_ahead = end is None and self._sample_clock.looks_ahead()
        now = self._now()
        found = samples.get_samples(
            self._client,
            self._node,
            start,
            now + self._interval_ns if looks_ahead else min(now, end or now),
            self._interval_seconds,
            looks_ahead,
            self._selection.known_tags(),
        )
        self._note_flood(found)
        if not looks_ahead:
            slots = in_slots(found.points, self._node, self._interval_ns)
            self._sample_clock.see(self._times_of(slots))
            return slots
        times = self._times_of(in_slots(found.points, self._node, self._interval_ns))
        if found.has_later:
            # What was read of them ends anywhere.
            times = [(slot, newest) for slot, newest in times if slot + self._interval_ns <= now]
            newest = samples.newest_samples(self._client, self._watched_node())
            times += self._times_of(in_slots(newest, self._node, self._interval_ns))
        limit = self._sample_clock.limit(times)
        return in_slots(found.points, self._node, self._interval_ns, limit)

    def _times_of(self, slots: Sequence[Slot]) -> list[tuple[int, dict[str, int]]]:
        return [(slot.start, self._selection.newest_times(slot)) for slot in slots]

    def _judge_record(self, choice: Choice) -> list[Judged]:
        """The verdict on one record; none if it only fills the window."""
        columns, self._last_record = formatters.format_record(choice.record, self._last_record, self._node)
        verdict = self._judge.observe(choice.time, columns)
        self._selection.keep(choice)
        is_reported = self._reported_from is None or choice.slot.start >= self._reported_from
        return [Judged(verdict, choice.faults)] if is_reported else []

    def _end_of_chunk(self) -> int | None:
        """Where this poll stops reading; None if it reads all there is."""
        if self._judged_before is None:
            return None
        length = min(CHUNK_RECORDS, max(int(CHUNK_SECONDS / self._interval_seconds), 1)) * self._interval_ns
        end = self._judged_before + length
        return end if end < self._now() - self._interval_ns else None

    def _note_outage(self) -> None:
        """From its end on, what lacks is waited for."""
        was_behind = self._is_behind
        lag_ns = 0 if self._judged_before is None else self._now() - self._judged_before
        self._is_behind = lag_ns > BEHIND_RECORDS * self._interval_ns
        # Patience itself lets the records lag.
        begins_to_lag = self._is_behind and not was_behind and self._clock() >= self._patient_until
        if self._is_failing or begins_to_lag:
            self._patient_until = self._clock() + self._patience_seconds

    def _is_due(self) -> bool:
        """Whether a new record may be expected: not right after another poll, as when a server is back."""
        now, before = self._clock(), self._polled_at
        self._polled_at = now
        return before is None or not 0 <= now - before < 0.5 * self._interval_seconds

    @property
    def _history_ns(self) -> int:
        return math.ceil((HISTORY_RECORDS + 2) * self._interval_seconds) * 10**9

    def _now(self) -> int:
        """By the samples' clock (ns)."""
        return self._sample_clock.now()

    def _slot_of(self, nanoseconds: int) -> int:
        return nanoseconds // self._interval_ns * self._interval_ns

    def _newest_in_history(self) -> int | None:
        """Time of the newest sample of those that are watched, whenever it came (ns)."""
        return samples.newest_sample_time(self._client, self._watched_node())

    def _find_late_samples(self) -> bool:
        """Before the first record: whether samples come, though none that is recent by this host's clock."""
        newest = self._newest_in_history()
        before, self._newest_in_silence = self._newest_in_silence, newest
        if newest is None or before is None or newest <= before:
            return False
        self._sample_clock.set_by(newest)
        return True

    def _limit_catch_up(self) -> None:
        """Give up the records that are too old, and read the window that comes before the others."""
        if self._reported_from is not None and self._judged_before < self._reported_from:
            # That is done; the window before it is being read.
            return
        newest = self._newest_in_history()
        begin = self._slot_of((newest or 0) - self._catch_up_ns)
        if begin <= self._judged_before:
            return
        logger.warning(
            "the records from %s to %s are not judged: they are more than --catch_up before the newest",
            format_time(self._judged_before),
            format_time(begin),
        )
        self._begin_anew(begin)

    def _begin_anew(self, reported_from: int) -> None:
        """The next poll reads the window that comes before this time, too."""
        self._judge.forget()
        self._last_record = {}
        self._judged_before = reported_from - self._history_ns
        self._reported_from = reported_from

    def _look_for_clock_step(self) -> None:
        """Samples that come with times before those judged already: the clock that stamps them went back."""
        if self._judged_before is None:
            return
        if self._sample_clock.here() < self._judged_before <= self._now():
            self._look_for_clock_put_right()
            return
        newest = self._newest_in_history()
        if newest is None:
            return
        before, self._newest_in_silence = self._newest_in_silence, newest
        if before is not None and before < newest < self._judged_before - self._interval_ns:
            # What came in the silence is judged now.
            begin = self._slot_of(newest) - (self.silent_polls - 1) * self._interval_ns
            logger.warning(
                "the clock of the samples went back by %s; judging begins anew at %s",
                format_duration((self._judged_before - newest) / 1e9),
                format_time(begin),
            )
            self._sample_clock.start_again(newest)
            self._begin_anew(begin)
            self._newest = None

    def _look_for_clock_put_right(self) -> None:
        """By a clock that was ahead there are samples with times still to come: more of them are news."""
        here = self._sample_clock.here()
        before, (start, end) = self._counted, self._counted_span
        is_counted = start < here <= end + self._interval_ns
        count = samples.count_samples(self._client, self._watched_node(), start, end) if is_counted else 0
        self._counted_span = here, here + self._interval_ns
        self._counted = samples.count_samples(self._client, self._watched_node(), *self._counted_span)
        if not is_counted or count <= before:
            return
        went_back = format_duration((self._judged_before - here) / 1e9)
        if before and not self._notices.has("step"):
            self._notices.fault(
                "step",
                f"the samples' clock went back by about {went_back}: new samples come between those dated up"
                f" to {format_time(self._judged_before)}, and cannot be told apart. Nothing is judged until"
                " then, or until those are deleted: DELETE WHERE time > now()",
            )
        if before:
            # The next record is no change since the one before it.
            self._last_record = {}
            return
        begin = self._slot_of(start) - (self.silent_polls - 1) * self._interval_ns
        logger.warning(
            "the clock of the samples went back by %s; judging begins anew at %s",
            went_back,
            format_time(begin),
        )
        self._sample_clock.start_again(here)
        self._begin_anew(begin)
        self._newest = None

    def _watched_node(self) -> Node:
        return replace(self._node, **self._selection.watched)

    def _is_settled(self, slot_start: int, lacks_series: bool) -> bool:
        # A clock that went back makes no patience longer.
        if lacks_series and 0 < self._patient_until - self._clock() <= self._patience_seconds:
            return False
        now = self._newest or 0
        # Samples may all come late by more than a slot: while any come, the clock says nothing of the rest.
        if not lacks_series or self._stale_polls >= 2:
            now = max(now, self._now())
        return now >= slot_start + self._interval_ns * (1.5 if lacks_series else 1)

    # --- what is worth saying --------------------------------------------------------------------

    def _note_flood(self, found: samples.Samples) -> None:
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
                else "behind this host's, or they come late; check the time (NTP) of both, and remote write"
            )
            self._notices.fault(
                "clock", f"the samples' clock is about {format_duration(abs(seconds))} {way}", logging.WARNING
            )

    def _explain(self, faults: Mapping[str, str]) -> None:
        """Look once into the database for the reason why series have no samples, and put it into `faults`."""
        lacking = frozenset(name for name, fault in faults.items() if fault == NO_SAMPLE)
        is_total_gone = MEMORY_TOTAL in faults
        self._unexplained_records = self._unexplained_records + 1 if is_total_gone else 0
        if lacking == self._lacking and self._unexplained_records != WINDOW_RECORDS:
            return
        try:
            self._explanations = self._look_up(sorted(lacking)) if lacking else {}
            if is_total_gone and not samples.wrong_types(self._client, [MEMORY_TOTAL]):
                self._selection.forget_total_fault()
        except influx_utils.INFLUX_ERRORS:
            # The next poll says what is wrong with the server.
            return
        self._lacking = lacking
        self._unexplained_records = 0

    def _look_up(self, lacking: list[str]) -> dict[str, str]:
        """Name of a series that has no sample -> NO_SAMPLE and what the database tells about it."""
        series = monitored_series(self._node)
        types = samples.wrong_types(self._client, {series[name][0] for name in lacking})
        there: dict[str, str] = {}
        found = {}
        for name in lacking:
            measurement, part = series[name]
            if measurement in types:
                found[name] = (
                    f"{NO_SAMPLE}: InfluxDB holds values of it that are {types[measurement]} and may keep"
                    " others out; check its exporter, then DELETE them or DROP MEASUREMENT"
                )
            elif part is not None and name not in self._selection.ever_seen:
                tag = self._node.metrics.part_tag(measurement)
                if measurement not in there:
                    names = map(shown, samples.names_there(self._client, measurement, tag))
                    there[measurement] = ", ".join(names) or "none"
                found[name] = f"{NO_SAMPLE}: InfluxDB has {tag} {there[measurement]}; check --node_file"
        return found

    def describe(self, judged: Judged) -> str:
        """The line of one record in the log."""
        return describe_verdict(judged.verdict, self.explained(judged.faults), self._node.metrics)

    def explained(self, faults: Mapping[str, str]) -> dict[str, str]:
        """Faults with what was found out about them."""
        return {
            name: self._explanations.get(name, fault) if fault == NO_SAMPLE else fault
            for name, fault in faults.items()
        }

    # --- over a restart --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {
            "judged_before": self._judged_before,
            "newest": self._newest,
            "reported_from": self._reported_from,
            "last_record": self._last_record,
            "selection": self._selection.state(),
            "clock_offset_ns": self._sample_clock.offset_ns,
            "judge": self._judge.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        times = [
            None if state[key] is None else whole(state[key])
            for key in ("judged_before", "reported_from", "newest")
        ]
        offset_ns = whole(state.get("clock_offset_ns", 0))
        last_record = {
            name: [_kept_point(point) for point in points]
            for name, points in mapping(state["last_record"]).items()
        }
        selection = Selection(self._node)
        # A state of the version before knows the instances alone.
        selection.restore(state.get("selection") or selection.state() | {"watched": state["instances"]})
        self._judge.restore(state["judge"])
        self._selection = selection
        self._judged_before, self._reported_from, self._newest = times
        self._last_record = last_record
        self._sample_clock.offset_ns = offset_ns


def _kept_point(point: Any) -> Point:
    """A sample of the record before the next. Raises KeyError or ValueError if it is none."""
    numbers = {key: number(value) for key, value in mapping(point).items() if key in ("value", "percentage")}
    tags = {text(tag): text(value) for tag, value in point.items() if tag != "time" and tag not in numbers}
    return {"time": whole(point["time"]), "value": numbers["value"], **numbers, **tags}
