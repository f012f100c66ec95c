"""A node, its server and the daemon that watches it, slot by slot, for tests of the daemon.

All slots are past, so that nothing waits; what must be stored is worked out without the daemon, by showing
the same records to a detector.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import formatters
from edge.bundle import load_bundle
from edge.daemon import Daemon, Settings
from edge.delivery import REFUSED_RETRY_SECONDS
from edge.detector import Detector
from edge.exporter import EdgeMetrics
from edge.page import EdgePage
from edge.paths import DEFAULT_MODEL
from edge.samples import InfluxSource
from edge.thresholds import load_thresholds
from influx_utils import initializeConnection
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.metrics import MEMORY_FREE, RX_CPU
from nodes.node import DEFAULT_NODE
from nodes.series import Point, Record, record_time
from service.store import Store
from service.systemd import Ending
from simulators.edge import Attack, simulate
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
INTERVAL = 15
# All slots are within the history that a first poll reads; the attack takes the middle ones.
SLOTS = 30
FIRST = 13
ATTACKED = range(16, 24)

# What becomes of a sample of a measurement on its way; None if it gets lost.
Change = Callable[[str, Point], Point | None]


def lives(begin: int, slots: int, attacked: Sequence[float]) -> Record:
    """Samples of so many slots, none missed, with an attack on the CPU in some."""
    attacks = [Attack("cpu", begin + slot * INTERVAL, begin + (slot + 1) * INTERVAL) for slot in attacked]
    for seed in range(100):
        samples = simulate(seed, begin, slots * INTERVAL, attacks, interval_seconds=INTERVAL)
        if len(samples[MEMORY_FREE]) == len(samples[RX_CPU]) == slots:
            return samples
    raise AssertionError("no whole life")


class Edge:
    """A node, its server, and the daemon that watches it; a slot at a time."""

    def __init__(
        self,
        server: Influxd,
        folder: Path,
        user: str = "",
        password: str = "",
        slots: int = SLOTS,
        attacked: Sequence[float] = ATTACKED,
        ahead_seconds: int = 0,
    ) -> None:
        self.server = server
        self.folder = folder
        self.thresholds_file = folder / "thresholds.json"
        shutil.copy(ROOT / "data/thresholds.json", self.thresholds_file)
        self.ahead_seconds = ahead_seconds
        self.begin = int(time.time()) // INTERVAL * INTERVAL - slots * INTERVAL + ahead_seconds
        self.samples = lives(self.begin, slots, attacked)
        self.client = connect(server, timeout=30, database="edge", username=user, password=password)
        self.client.create_database("edge")
        self.port = server.port
        self.user, self.password = user, password
        self.model = DEFAULT_MODEL
        self.drift_seconds = 21600.0
        self.spool_limit = 10_000
        self.refused_retry_seconds = REFUSED_RETRY_SECONDS
        self.measurement = "detected_anomalies"
        self.plot_dir: str | None = None
        self.stores_expected = False
        self.metrics = EdgeMetrics()
        # As if what is fed came just now.
        self.now = float(self.begin - ahead_seconds)
        self.node = DEFAULT_NODE
        self.store: Store | None = None
        self.page: EdgePage | None = None
        self.start()

    def start(self) -> None:
        """Start the daemon, in place of the one that ran; what it kept is all it knows."""
        self.stop()
        self.store = Store(self.folder / "state", self.spool_limit)
        settings = Settings(
            server=f"127.0.0.1:{self.port}",
            database="edge",
            measurement=self.measurement,
            interval_seconds=INTERVAL,
            catch_up_seconds=3600.0,
            drift_seconds=self.drift_seconds,
            thresholds_file=str(self.thresholds_file),
            model=str(self.model),
            plot_dir=self.plot_dir,
            refused_retry_seconds=self.refused_retry_seconds,
            answers_file=str(self.folder / "answers.json"),
            stores_expected=self.stores_expected,
        )
        client = initializeConnection("127.0.0.1", self.port, self.user, self.password, timeout_seconds=1.0)
        clock = lambda: self.now  # noqa: E731
        source = InfluxSource(client, settings.server, "edge")
        nodes = [Named("", self.node)]
        self.daemon = Daemon(
            settings, source, client, nodes, self.store, self.metrics, Ending(), clock, page=self.page
        )

    def stop(self) -> None:
        if self.store is not None:
            self.store.__exit__()

    def kept(self) -> dict[str, Any]:
        """What the daemon, which this stops, has kept of the node."""
        self.stop()
        self.store = None
        with Store(self.folder / "state", self.spool_limit) as store:
            return store.states()[""]

    def keep(self, state: object, points: Sequence[dict[str, Any]] = ()) -> None:
        """Let the next daemon, after this one is stopped, find this state."""
        self.stop()
        self.store = None
        with Store(self.folder / "state", self.spool_limit) as store:
            store.add({"": json.dumps(state)}, {}, "edge", points)

    def feed(self, *slots: int, change: Change | None = None) -> None:
        """The exporters' samples of these slots reach the server, each as `change` makes it, if it does."""
        self.now = self.begin - self.ahead_seconds + (max(slots) + 4 / 3) * INTERVAL
        part: Record = {}
        for name, point in self.in_slots(min(slots), max(slots)):
            if (changed := change(name, point) if change else point) is not None:
                part.setdefault(name, []).append(changed)
        write_samples(self.client, part)

    def in_slots(self, first: int, last: int) -> list[tuple[str, Point]]:
        """Each sample from the beginning of one slot to the end of another, with its measurement."""
        begin, end = (self.begin + first * INTERVAL) * SECOND, (self.begin + (last + 1) * INTERVAL) * SECOND
        return [
            (n, point)
            for n, points in self.samples.items()
            for point in points
            if begin <= point["time"] < end
        ]

    def poll_without_sending(self) -> None:
        """One poll by a process that dies before it sends what it has kept."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.daemon.delivery, "send", lambda: None)
            assert self.daemon.poll() is False

    def live(self, *slots: int) -> None:
        """Slot after slot is fed and judged."""
        for slot in slots:
            self.feed(slot)
            assert self.daemon.poll() is False

    def expected(self, first: int = FIRST, last: int = SLOTS) -> list[tuple[int, str, str]]:
        """Time, severity and cause of the anomalies in these slots, by the detector alone."""
        bundle = load_bundle(DEFAULT_MODEL)
        judge = Detector(bundle, load_thresholds(ROOT / "data/thresholds.json"), INTERVAL)
        found, last_record = [], {}
        for start, record in formatters.slot_records(self.samples, INTERVAL):
            columns, last_record = formatters.format_record(record, last_record)
            verdict = judge.observe(record_time(record), columns)
            slot = (start // SECOND - self.begin) // INTERVAL
            if verdict.is_anomaly and first - 1 <= slot < last:
                found.append((verdict.time, verdict.status, verdict.possible_cause))
        assert len(found) >= 4 or last < ATTACKED[-1]
        return found

    def stored(self) -> list[tuple[int, str, str]]:
        """What InfluxDB holds, oldest first; a point twice would be here twice."""
        points = self.client.query('SELECT * FROM "detected_anomalies"', epoch="ns").get_points()
        return sorted((p["time"], p["severity"], p["possible_cause"]) for p in points)


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """What was logged, without the line about the metrics that the shipped model is blind to."""
    messages = [record.getMessage() for record in caplog.records if record.levelno >= level]
    return [message for message in messages if not message.startswith("blind: ")]
