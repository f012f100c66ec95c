"""What is expected and allowed in every record, as points of InfluxDB that any dashboard can draw.

A point of the measurement `expected` has the tags `metric`, `node` (of one of many) and `instance`, the time
of the record, and the fields `actual`, `low`, `expected` and `high` in the unit of the metric, `rmse` and
`threshold`, and `anomaly` if the record is one because of this metric: 2 if it is an alert, or else 1. The
metric `overall` has the last three only. What is unknown is left out.

A point of the measurement `edge_incidents` is an incident, at the time when it opened. Its fields are texts:
`id`, `state` (open or closed), `cause`, `why`, `began` and `last`. It is written again when it closes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import influx_utils
from common.alerts import ALERT
from common.times import parse_time
from edge.bundle import Bundle
from edge.detector import Verdict
from edge.exporter import EdgeMetrics
from edge.levels import levels_of_all
from influx_client import line_start
from nodes.metrics import OVERALL, MetricTable
from service.file_queue import FileQueue
from service.log import Notices

if TYPE_CHECKING:
    from influx_client import InfluxClient

INCIDENTS_MEASUREMENT = "edge_incidents"
# Room for the points that wait: more than two days of one node, and an hour and a half of 1,000.
ROOM_BYTES, ROOM_BYTES_OF_MANY = 64_000_000, 512_000_000
# Points in one file, bytes in one request of several files, and the time for all requests of one poll.
FILE_POINTS, REQUEST_BYTES, _SENDING_SECONDS = 5000, 1_000_000, 3.0
# Nine digits are more than is measured.
_FIELDS = "%s actual=%.9g,low=%.9g,expected=%.9g,high=%.9g,rmse=%.9g,threshold=%.9g%s %d"
_FIELD_NAMES = ("actual", "low", "expected", "high", "rmse", "threshold")


class Expectation(NamedTuple):
    """A record that was judged, and with what. node: its name, or empty. instance: of the node exporter."""

    node: str
    instance: str | None
    bundle: Bundle
    thresholds: Mapping[str, float]
    verdict: Verdict


class ExpectedLines:
    """Makes the points of records, as lines of InfluxDB's protocol."""

    def __init__(self) -> None:
        # Equal tables of metrics -> the first of them: to compare two takes longer than to judge a record.
        self._tables: dict[MetricTable, MetricTable] = {}
        # Name of a node -> what its lines begin with, for an instance and a table of metrics.
        self._starts: dict[str, tuple[str | None, MetricTable, MetricTable, list[str]]] = {}

    def of(self, records: Sequence[Expectation]) -> Iterator[str]:
        """The lines of these records."""
        alike: dict[int, list[Expectation]] = {}
        starts: dict[int, list[list[str]]] = {}
        for one in records:
            table, begun = self._start(one)
            alike.setdefault(id(table), []).append(one)
            starts.setdefault(id(table), []).append(begun)
        for key, found in alike.items():
            yield from _lines(found, starts[key])

    def _start(self, one: Expectation) -> tuple[MetricTable, list[str]]:
        kept = self._starts.get(one.node)
        metrics = one.bundle.metrics
        if kept is None or kept[0] != one.instance or kept[1] is not metrics:
            tags = {"instance": one.instance} if one.instance is not None else {}
            tags |= {"node": one.node} if one.node else {}
            begun = [
                line_start(influx_utils.EXPECTED, {**tags, "metric": name}) for name in (*metrics, OVERALL)
            ]
            table = self._tables.setdefault(metrics, metrics)
            kept = self._starts[one.node] = (one.instance, metrics, table, begun)
        return kept[2], kept[3]


def _lines(records: Sequence[Expectation], starts: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of n records of nodes with the same metrics. starts: of each record, those of its metrics."""
    metrics = records[0].bundle.metrics
    names = tuple(metrics)
    keys = list(metrics.threshold_keys.values())
    bundles, thresholds, verdicts = zip(
        *((one.bundle, one.thresholds, one.verdict) for one in records), strict=True
    )
    levels = levels_of_all(bundles, thresholds, verdicts)
    rmse = np.array([list(one.rmse.values()) for one in verdicts])
    limits = np.array([[each[key] for key in keys] for each in thresholds])
    figures = np.concatenate([levels, rmse[:, :-1, None], limits[:, :-1, None]], axis=2)
    are_known = np.isfinite(figures).all(axis=2).tolist()
    overall = np.stack([rmse[:, -1], limits[:, -1]], axis=1).tolist()
    for place, (begun, rows, verdict) in enumerate(zip(starts, figures.tolist(), verdicts, strict=True)):
        status = f",anomaly={2 if verdict.status == ALERT else 1}" if verdict.is_anomaly else ""
        for name, start, row, is_known in zip(names, begun, rows, are_known[place], strict=False):
            anomaly = status if status and verdict.blames(name) else ""
            if is_known:
                yield _FIELDS % (start, *row, anomaly, verdict.time)
            elif fields := _known(_FIELD_NAMES, row):
                yield f"{start} {fields}{anomaly} {verdict.time}"
        anomaly = status if status and verdict.blames(OVERALL) else ""
        if fields := _known(_FIELD_NAMES[-2:], overall[place]):
            yield f"{begun[-1]} {fields}{anomaly} {verdict.time}"


def _known(names: Sequence[str], values: Sequence[float]) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join(f"{name}={value:.9g}" for name, value in pairs if math.isfinite(value))


def _incident_line(entry: Mapping[str, Any]) -> str:
    start = line_start(INCIDENTS_MEASUREMENT, {"node": entry["node"]} if entry["node"] else {})
    texts = {key: entry[key] for key in ("id", "cause", "why", "began", "last")}
    texts["state"] = "closed" if entry["ended"] else "open"
    fields = ",".join(f"{key}={_quoted(text)}" for key, text in texts.items())
    return f"{start} {fields} {parse_time(entry['opened'])}"


def _quoted(text: str) -> str:
    """A text as the value of a field, on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


class ExpectedDelivery:
    """Keeps the points of records on the disk until InfluxDB has them, in a place of their own.

    Anomalies are sent before them, and wait elsewhere. What there is no room for, and what InfluxDB refuses,
    is dropped, which is logged once. client: of the server that stores them.
    """

    def __init__(
        self,
        client: InfluxClient,
        database: str,
        queue: FileQueue,
        exporter: EdgeMetrics,
        notices: Notices,
    ) -> None:
        self._client, self._database = client, database
        self._queue, self._exporter, self._notices = queue, exporter, notices
        self._lines = ExpectedLines()
        self._counted = 0

    def keep(self, records: Sequence[Expectation], entries: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write the points of these records to the disk, and of incidents that open or close."""
        lines: list[str] = []
        dropped = self._queue.dropped
        try:
            for line in itertools.chain(self._lines.of(records), map(_incident_line, entries)):
                lines.append(line)
                if len(lines) == FILE_POINTS:
                    self._add(lines)
            if lines:
                self._add(lines)
        except OSError as error:
            self._exporter.expected_dropped.inc()
            self._notices.fault(
                "expected",
                f"{self._queue.folder}: cannot be written ({error.strerror or error}); free some space, or"
                " give the service's user the right. Until then no points of `expected` are stored",
            )
        else:
            self._notices.mended("expected", f"{self._queue.folder} can be written again")
        if self._queue.dropped > dropped:
            self._notices.fault(
                "expected room", f"{self._queue.folder} is full: the oldest points of `expected` are dropped"
            )
        self._show()

    def _add(self, lines: list[str]) -> None:
        text = "\n".join([*lines, ""]).encode()
        lines.clear()
        self._queue.add(text)

    def send(self) -> None:
        """Send what waits, the oldest first. Raises one of INFLUX_ERRORS while InfluxDB is away."""
        deadline = time.monotonic() + _SENDING_SECONDS
        try:
            while (found := self._queue.oldest(REQUEST_BYTES)) and time.monotonic() < deadline:
                refusal = influx_utils.write_lines(self._client, self._database, b"".join(found))
                self._queue.remove(len(found))
                if refusal is None:
                    self._notices.mended("expected refused", "InfluxDB takes the points of `expected` again")
                    continue
                self._exporter.expected_dropped.inc(len(found))
                self._notices.fault(
                    "expected refused",
                    f"InfluxDB refuses points of `expected` ({refusal.reason}); they are dropped",
                    subject=refusal.conflict or "",
                )
        finally:
            self._show()
        if not self._queue:
            self._notices.mended(
                "expected room", "InfluxDB has all points of `expected` that there was room for"
            )

    def _show(self) -> None:
        self._exporter.expected_waiting.set(len(self._queue))
        self._exporter.expected_dropped.inc(self._queue.dropped - self._counted)
        self._counted = self._queue.dropped
