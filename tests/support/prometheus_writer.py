"""Stores raw samples by remote write, as Prometheus does: in InfluxDB, Prometheus or VictoriaMetrics."""

from __future__ import annotations

import struct

import requests
from influxdb import InfluxDBClient

from nodes.series import Point, Record, series_tags

# Prometheus sends at most so many samples in one request.
BATCH_SAMPLES = 2000
SNAPPY_LITERAL_BYTES = 65536
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def write_samples(client: InfluxDBClient, samples: Record) -> None:
    """Write samples (measurement -> points with `time` in ns, `value` and labels) into the selected database.

    The labels of a point, with `__name__` added, become its tags; Prometheus gives every series `instance`
    and `job`, so should the points. InfluxDB drops NaN, and with it the marker of a series that ends.
    """
    everything = [(measurement, point) for measurement, points in samples.items() for point in points]
    for first in range(0, len(everything), BATCH_SAMPLES):
        batch = everything[first : first + BATCH_SAMPLES]
        client.request(
            "api/v1/prom/write",
            method="POST",
            params={"db": client._database},
            data=_snappy(_write_request(batch)),
            expected_response_code=204,
            headers=_HEADERS,
        )


def remote_write(url: str, samples: Record, auth: tuple[str, str] | None = None) -> None:
    """Write samples into the Prometheus or VictoriaMetrics at `url`, where they are found at once."""
    everything = [(measurement, point) for measurement, points in samples.items() for point in points]
    # Prometheus refuses samples that are older than others of their series.
    everything.sort(key=lambda one: one[1]["time"])
    content = _snappy(_write_request(everything))
    answer = requests.post(f"{url}/api/v1/write", data=content, headers=_HEADERS, auth=auth, timeout=5)
    assert answer.status_code == 204, answer.text
    # VictoriaMetrics shows them a second later by itself. Prometheus does not know this.
    requests.get(f"{url}/internal/force_flush", auth=auth, timeout=5)


def _write_request(batch: list[tuple[str, Point]]) -> bytes:
    """The message prometheus.WriteRequest, with the samples of one series together."""
    series: dict[tuple[tuple[str, str], ...], bytes] = {}
    for measurement, point in batch:
        # Labels go sorted by name, and `__name__` sorts before all others.
        labels = (("__name__", measurement), *series_tags(point))
        milliseconds = point["time"] // 1_000_000
        sample = b"\x09" + struct.pack("<d", point["value"]) + b"\x10" + _varint(milliseconds)
        series[labels] = series.get(labels, b"") + _field(2, sample)
    return b"".join(
        _field(
            1,
            b"".join(
                _field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels
            )
            + s,
        )
        for labels, s in series.items()
    )


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _snappy(content: bytes) -> bytes:
    """Snappy's block format with nothing compressed: the length, then literals of up to 64 KiB."""
    literals = (
        b"\xf4" + struct.pack("<H", len(part) - 1) + part
        for part in (
            content[i : i + SNAPPY_LITERAL_BYTES] for i in range(0, len(content), SNAPPY_LITERAL_BYTES)
        )
    )
    return _varint(len(content)) + b"".join(literals)
