"""The cost of a poll with each kind of database: InfluxDB, Prometheus and VictoriaMetrics in one run.

python -m benchmarks.stores
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from influxdb import InfluxDBClient

import influx_utils
from common.files import saveDictJson
from edge.bundle import load_bundle
from edge.detector import Detector
from edge.monitor import Monitor
from edge.paths import DEFAULT_MODEL
from edge.prometheus_samples import PrometheusSource
from edge.samples import InfluxSource
from edge.source import SampleSource
from edge.thresholds import load_thresholds
from lab.influxd import Influxd
from lab.prometheus import PrometheusServer
from lab.remote_write import HEADERS, encode, remote_write
from nodes.node import DEFAULT_NODE
from nodes.series import Record
from prometheus_utils import Prometheus
from simulators import edge

INTERVAL = 15
HISTORY, MEASURED_POLLS = 40, 200
SECOND = 10**9
Write = Callable[[Record], None]


def poll_cost(source: SampleSource, write: Write) -> dict[str, float]:
    """Median wall and mean CPU of a poll of one new record (ms), without the server's own CPU.

    source: the samples that `write` has written.
    """
    begin = int(time.time()) // INTERVAL * INTERVAL - (HISTORY + MEASURED_POLLS) * INTERVAL
    samples = edge.simulate(7, begin, (HISTORY + MEASURED_POLLS) * INTERVAL)
    now = float(begin)
    judge = Detector(load_bundle(DEFAULT_MODEL), load_thresholds("data/thresholds.json"), INTERVAL)
    monitor = Monitor(source, DEFAULT_NODE, judge, INTERVAL, 3600.0, clock=lambda: now)
    walls, cpu = [], 0.0
    for slot in range(HISTORY, HISTORY + MEASURED_POLLS):
        first, last = (0 if slot == HISTORY else slot, slot + 1)
        span = range(*((begin + one * INTERVAL) * SECOND for one in (first, last)))
        write({name: [p for p in points if p["time"] in span] for name, points in samples.items()})
        now = begin + (slot + 4 / 3) * INTERVAL
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        monitor.poll()
        if slot > HISTORY:
            walls.append(time.perf_counter() - wall_before)
            cpu += time.process_time() - cpu_before
    return {
        "wall_milliseconds": round(1000 * statistics.median(walls), 2),
        "cpu_milliseconds": round(1000 * cpu / len(walls), 2),
    }


def _with_influx(folder: Path) -> dict[str, float]:
    with Influxd(folder) as server:
        client = influx_utils.initializeConnection(server.host, server.port, "", "")
        influx_utils.checkDatabase(client, "edge")
        writer = InfluxDBClient(server.host, server.port)

        def write(samples: Record) -> None:
            batch = [(name, point) for name, points in samples.items() for point in points]
            writer.request(
                "api/v1/prom/write",
                method="POST",
                params={"db": "edge"},
                data=encode(batch),
                expected_response_code=204,
                headers=HEADERS,
            )

        return poll_cost(InfluxSource(client, f"{server.host}:{server.port}", "edge"), write)


def _with_prometheus(folder: Path, program: str) -> dict[str, float]:
    with PrometheusServer(folder, program) as server:
        source = PrometheusSource(Prometheus(server.url))
        return poll_cost(source, lambda samples: remote_write(server.url, samples))


def main() -> None:
    """Measure and print all figures."""
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        figures = {"InfluxDB": _with_influx(Path(folder, "influxdb"))}
        for program in ("prometheus", "victoria-metrics"):
            figures[program] = _with_prometheus(Path(folder, program), program)
    for name, row in figures.items():
        for key in ("wall", "cpu"):
            row[f"{key}_ratio"] = round(
                row[f"{key}_milliseconds"] / figures["InfluxDB"][f"{key}_milliseconds"], 2
            )
        print(name.ljust(18), row)
    saveDictJson(figures, "plots/stores.json")


if __name__ == "__main__":
    main()
