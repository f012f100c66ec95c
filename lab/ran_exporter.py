"""A RAN exporter: the gNB model of simulators/edge.py, served to Prometheus as the Amarisoft exporter does.

`python -m lab.ran_exporter` serves http://127.0.0.1:9099/metrics. Each line of standard input says what
happens to the gNB: `flood` (20-60 Mbit/s of 5G traffic), `overload` (other work takes the CPU of its
receiving and sending side), both, or `calm`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nodes.metrics import DOWNLINK, RX_CPU, TX_CPU, UPLINK
from nodes.node import DEFAULT_NODE
from nodes.series import RECORD_SECONDS
from simulators.edge import flooded, gnb_life, iperf_bytes_per_second

LIFE_RECORDS = 50_000
OVERLOAD_PERCENT = 60.0


class Gnb(Collector):
    """The gNB at this moment; a record of the model lasts `record_seconds`."""

    def __init__(self, seed: int, record_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seed = seed
        self._record_seconds = record_seconds
        self._clock = clock
        self._life = gnb_life(seed, LIFE_RECORDS)
        self._start = clock()
        self._since: dict[str, float] = {}

    def tell(self, line: str) -> None:
        """Set what happens to the gNB from now on; ValueError for an unknown word."""
        words = line.split()
        unknown = set(words) - {"flood", "overload", "calm"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; the words are flood, overload and calm")
        now = self._clock()
        self._since = {word: self._since.get(word, now) for word in words if word != "calm"}

    def state(self) -> dict[str, float]:
        """The gNB's values now: `rx`, `tx` in percent, `down`, `up` in bytes per 15 s."""
        now = self._clock()
        record = int((now - self._start) / self._record_seconds) % LIFE_RECORDS
        gnb = {key: float(values[record]) for key, values in self._life.items()}
        if (start := self._since.get("flood")) is not None:
            gnb = flooded(gnb, float(iperf_bytes_per_second(now, start, self._seed)) * RECORD_SECONDS)
        if "overload" in self._since:
            noise = np.random.default_rng(record).normal(0, 2, 2)
            gnb["rx"], gnb["tx"] = gnb["rx"] + OVERLOAD_PERCENT + noise[0], gnb["tx"] + OVERLOAD_PERCENT / 2
            gnb["tx"] += noise[1]
        return gnb

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The four series, as one scrape sees them."""
        gnb = self.state()
        for name, key, text in (
            (RX_CPU, "rx", "CPU of the receiving side, percent"),
            (TX_CPU, "tx", "CPU of the sending side, percent"),
        ):
            yield GaugeMetricFamily(name, text, value=round(gnb[key], 2))
        for name, key, text in (
            (DOWNLINK, "down", "to the UEs of the cell, bit/s"),
            (UPLINK, "up", "from the UEs of the cell, bit/s"),
        ):
            family = GaugeMetricFamily(name, text, labels=["cellId"])
            family.add_metric([DEFAULT_NODE.cell_id], round(gnb[key] * 8 / RECORD_SECONDS))
            yield family


def main() -> None:
    """Serve the metrics of the gNB model until killed."""
    parser = argparse.ArgumentParser(description="Serve a simulated gNB to Prometheus.")
    parser.add_argument("--port", type=int, default=9099, help="port on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the gNB's life (default: %(default)s)")
    parser.add_argument(
        "--record_seconds",
        type=float,
        default=RECORD_SECONDS,
        help="how long a record of the model lasts, in seconds (default: %(default)s)",
    )
    options = parser.parse_args()
    gnb = Gnb(options.seed, options.record_seconds)
    registry = CollectorRegistry()
    registry.register(gnb)
    try:
        _, thread = start_http_server(options.port, "127.0.0.1", registry)
    except OSError as error:
        parser.exit(1, f"ran_exporter: port {options.port}: {error.strerror}; name another --port\n")
    try:
        for line in sys.stdin:
            try:
                gnb.tell(line)
            except ValueError as error:
                print(f"ran_exporter: {error}", file=sys.stderr)
        thread.join()
    except KeyboardInterrupt:
        parser.exit(130)


if __name__ == "__main__":
    main()
