"""One node, poll by poll: new samples -> records -> verdicts, none twice and none skipped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import detector
import formatters
import influx_utils
from utils import WINDOW_RECORDS, Node, UserError, format_duration, format_time

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

logger = logging.getLogger("find_anomalies")

# Prometheus sends a sample up to 5 s after its scrape; a third of a slot is left for that.
SETTLE_SHARE = 1 / 3
# Enough for a full window on each of the records that decide whether the first verdict is an alert.
HISTORY_RECORDS = 2 * WINDOW_RECORDS + detector.ALERT_RECORDS

# A poll that has much to catch up takes this much of it; InfluxDB answers that in a second.
CHUNK_RECORDS, CHUNK_SECONDS = 240, 3600.0
# Behind by more slots than a late exporter explains there was an outage. What waited for its end need not
# come in step: remote write has shards, and each sends by itself. For a while, what lacks may still come.
BEHIND_RECORDS = 4
PATIENCE_RECORDS = 4

Judged = tuple[detector.Verdict, list[str]]


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
        judge: detector.Detector,
        interval_seconds: float,
        catch_up_seconds: float,
        patience_records: float = PATIENCE_RECORDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._node = node
        self._judge = judge
        self._interval_seconds = interval_seconds
        self._interval_ns = int(interval_seconds * 1e9)
        self._catch_up_ns = int(catch_up_seconds * 1e9)
        self._patience_seconds = patience_records * interval_seconds
        self._clock = clock
        self._last_record: formatters.Record = {}
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
        self.silent_polls = 0
        self.has_more = False
        self.history: list[detector.Verdict] = []
        pinned = {"node_instance": node.node_instance, "ran_instance": node.ran_instance}
        self._instances = {key: name for key, name in pinned.items() if name is not None}

    @property
    def instance(self) -> str | None:
        """The node exporter whose samples are judged, once known."""
        return self._instances.get("node_instance") or None

    @property
    def newest_sample(self) -> int | None:
        """Time of the newest sample seen (ns)."""
        return self._newest

    @property
    def has_begun(self) -> bool:
        """Whether any record was judged, by this process or the one before."""
        return self._judged_before is not None

    def poll(self) -> list[Judged]:
        """Judge what has come since the last poll: verdicts, each with the series that its record lacked.

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
        try:
            samples = influx_utils.get_samples(
                self._client,
                self._node,
                f"now() - {self._history_ns // 10**9}s" if since is None else since,
                "now()" if end is None else end,
            )
        except UserError:
            # What cannot be told apart now is given up, or every later poll would meet it again.
            if since is not None:
                self._give_up(self._slot_of(self._now()))
            self._is_failing = False
            raise
        self._is_failing = False
        self._note_instances(influx_utils.instances_of(samples))
        slots = formatters.slot_records(samples, self._interval_seconds)
        if (
            end is not None
            and not slots
            and (influx_utils.newest_sample_time(self._client, self._node) or 0) >= end
        ):
            # Nothing was recorded in this part.
            self._judged_before = end
        newest = formatters.record_time(slots[-1][1]) if slots else self._newest
        is_due = self._is_due()
        self._stale_polls = self._stale_polls + is_due if newest == self._newest else 0
        self._newest = newest
        judged = []
        for start, record in slots:
            missing = formatters.missing_series(record, self._node)
            if not self._is_settled(start, bool(missing)):
                break
            columns, self._last_record = formatters.format_record(record, self._last_record, self._node)
            verdict = self._judge.observe(formatters.record_time(record), columns)
            if self._reported_from is None or start >= self._reported_from:
                judged.append((verdict, missing))
            self._judged_before = start + self._interval_ns
        self.has_more = end is not None and self._judged_before != since
        self.silent_polls = 0 if judged or self.has_more else self.silent_polls + is_due
        if self._stale_polls > 2 and not judged:
            self._look_for_clock_step()
        self.history = [verdict for verdict, _ in judged[:-1]] if since is None else []
        return judged[-1:] if since is None else judged

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

    def _give_up(self, until: int) -> None:
        if self._judged_before < until - self._interval_ns:
            logger.warning(
                "the records from %s to %s are not judged",
                format_time(self._judged_before),
                format_time(until),
            )
        self._judged_before = until

    def _is_due(self) -> bool:
        """Whether a new record may be expected: not right after another poll, as when a server is back."""
        now, before = self._clock(), self._polled_at
        self._polled_at = now
        return before is None or not 0 <= now - before < 0.5 * self._interval_seconds

    @property
    def _history_ns(self) -> int:
        return math.ceil((HISTORY_RECORDS + 2) * self._interval_seconds) * 10**9

    def _now(self) -> int:
        return int(self._clock() * 1e9)

    def _slot_of(self, nanoseconds: int) -> int:
        return nanoseconds // self._interval_ns * self._interval_ns

    def _limit_catch_up(self) -> None:
        """Give up the records that are too old, and read the window that comes before the others."""
        if self._reported_from is not None and self._judged_before < self._reported_from:
            # That is done; the window before it is being read.
            return
        newest = influx_utils.newest_sample_time(self._client, self._node)
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
        newest = influx_utils.newest_sample_time(self._client, self._node)
        if newest is None or self._judged_before is None:
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
            self._begin_anew(begin)
            self._newest = None

    def _note_instances(self, instances: dict[str, set[str]]) -> None:
        """Remember which exporters are watched, and say when another one takes the place of one."""
        for key, names in instances.items():
            for name in names:
                before = self._instances.get(key, name)
                if name != before:
                    logger.warning(
                        "samples now come from %s, before from %s; pin '%s' in --node_file if that is wrong",
                        name,
                        before,
                        key,
                    )
                self._instances[key] = name

    def _is_settled(self, slot_start: int, lacks_series: bool) -> bool:
        # A clock that went back makes no patience longer.
        if lacks_series and 0 < self._patient_until - self._clock() <= self._patience_seconds:
            return False
        now = self._newest or 0
        # Samples may all come late by more than a slot: while any come, the clock says nothing of the rest.
        if not lacks_series or self._stale_polls >= 2:
            now = max(now, self._now())
        return now >= slot_start + self._interval_ns * (1.5 if lacks_series else 1)

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {
            "judged_before": self._judged_before,
            "newest": self._newest,
            "reported_from": self._reported_from,
            "last_record": self._last_record,
            "instances": self._instances,
            "judge": self._judge.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped. Raises KeyError, TypeError, ValueError if it is no state."""
        self._judge.restore(state["judge"])
        self._last_record = state["last_record"]
        self._instances = {**state["instances"], **self._instances}
        self._judged_before, self._reported_from = state["judged_before"], state["reported_from"]
        self._newest = state["newest"]


def describe_verdict(verdict: detector.Verdict, missing: Sequence[str]) -> str:
    """The line of one record in the log."""
    if verdict.is_anomaly:
        return verdict.to_json()
    when = format_time(verdict.time)
    if verdict.status == detector.UNKNOWN:
        return f"{when} {describe_unknown(verdict, missing)}"
    nearest = max(verdict.shares, key=lambda name: verdict.shares[name])
    return f"{when} normal (nearest to an anomaly: {nearest}, {verdict.shares[nearest]:.0%})"


def describe_unknown(verdict: detector.Verdict, missing: Sequence[str]) -> str:
    """Of which metrics nothing can be said, and why."""
    reason = f"no sample of {', '.join(missing)}" if missing else "too few usable records before it"
    return f"unknown: {', '.join(verdict.unknown) or 'overall'} ({reason})"


def seconds_to_next_poll(interval_seconds: float, clock: Callable[[], float] = time.time) -> float:
    """A poll comes SETTLE_SHARE of a slot after the end of each; counted from the clock, none drifts."""
    pause = interval_seconds - (clock() - interval_seconds * SETTLE_SHARE) % interval_seconds
    # Woken a moment early, the poll of this deadline is done already.
    return pause if pause > 0.05 * interval_seconds else pause + interval_seconds
