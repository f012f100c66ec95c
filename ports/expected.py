"""What is expected and allowed in every bucket of a port, as points of InfluxDB that any dashboard can draw.

A point of the measurement `expected` has the tags `device`, `port`, `direction` and `detector`, and `metric`
with the value `traffic`. Its time is the end of the bucket, as that of an anomaly. Its fields are `actual`,
`low`, `expected` and `high` in bytes per sample, `score`, and `anomaly`: 2 for an alert, 1 for another
anomaly. What is unknown, and a bound that does not exist, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import influx_utils
from common.alerts import ALERT, ANOMALY
from influx_client import line_start
from ports.series import port_tags
from ports.verdicts import Verdicts
from service.systemd import notify_systemd

if TYPE_CHECKING:
    from influx_client import InfluxClient

_BYTES_PER_WRITE = 1_000_000
_ANOMALY_FIELD = {ANOMALY: ",anomaly=1", ALERT: ",anomaly=2"}


def expected_lines(verdicts: Verdicts) -> bytes:
    """The points of these buckets, as lines of InfluxDB's protocol."""
    trained = verdicts.trained
    tags = {**port_tags(trained.series), "detector": trained.detector, "metric": "traffic"}
    start = line_start(influx_utils.EXPECTED, tags)
    scored = verdicts.scored
    named = {
        "actual": verdicts.buckets.traffic,
        "low": scored.low,
        "expected": scored.expected,
        "high": scored.high,
        "score": scored.score,
    }
    lines = []
    rows = zip(*(values.tolist() for values in named.values()), strict=True)
    for time, status, row in zip(verdicts.times.tolist(), verdicts.statuses, rows, strict=True):
        pairs = zip(named, row, strict=True)
        if fields := ",".join(f"{name}={value:.9g}" for name, value in pairs if math.isfinite(value)):
            lines.append(f"{start} {fields}{_ANOMALY_FIELD.get(status, '')} {time}000000000\n")
    return "".join(lines).encode()


def store_expected(client: InfluxClient, db_name: str, texts: Iterable[bytes]) -> str | None:
    """Write what expected_lines() made. Returns why InfluxDB refuses some for good, or None.

    Raises what influx_utils.write_lines raises; writing again changes nothing.
    """
    reason = None
    for part in _parts(texts):
        refusal = influx_utils.write_lines(client, db_name, part)
        reason = reason or (refusal and refusal.reason)
        notify_systemd("WATCHDOG=1")
    return reason


def _parts(texts: Iterable[bytes]) -> Iterable[bytes]:
    """The same, in parts of about _BYTES_PER_WRITE."""
    part: list[bytes] = []
    size = 0
    for text in texts:
        for line in text.splitlines(keepends=True):
            part.append(line)
            size += len(line)
            if size >= _BYTES_PER_WRITE:
                yield b"".join(part)
                part, size = [], 0
    if part:
        yield b"".join(part)
