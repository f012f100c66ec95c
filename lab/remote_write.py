"""Writes raw samples as Prometheus does: its remote write protocol, without any package for it."""

from __future__ import annotations

import struct

import requests

from nodes.series import Point, Record, series_tags

SNAPPY_LITERAL_BYTES = 65536
HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def remote_write(url: str, samples: Record, auth: tuple[str, str] | None = None) -> None:
    """Write samples into the Prometheus or VictoriaMetrics at `url`, where they are found at once."""
    everything = [(measurement, point) for measurement, points in samples.items() for point in points]
    # Prometheus refuses samples that are older than others of their series.
    everything.sort(key=lambda one: one[1]["time"])
    answer = requests.post(
        f"{url}/api/v1/write", data=encode(everything), headers=HEADERS, auth=auth, timeout=5
    )
    if answer.status_code != 204:
        raise OSError(f"{url} refuses samples: {answer.text}")
    # VictoriaMetrics shows them a second later by itself. Prometheus does not know this.
    requests.get(f"{url}/internal/force_flush", auth=auth, timeout=5)


def encode(batch: list[tuple[str, Point]]) -> bytes:
    """The content of a request that writes these samples, each with its measurement."""
    return _snappy(_write_request(batch))


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
