"""Stores raw samples in InfluxDB the way Prometheus does: through its remote write endpoint."""

from __future__ import annotations

from influxdb import InfluxDBClient

from lab.remote_write import HEADERS, encode
from nodes.series import Record

# Prometheus sends at most so many samples in one request.
BATCH_SAMPLES = 2000


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
            data=encode(batch),
            expected_response_code=204,
            headers=HEADERS,
        )
