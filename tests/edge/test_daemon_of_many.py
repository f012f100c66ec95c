"""One daemon of many nodes: what one lacks or suffers touches no other; nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import formatters
from edge.bundle import bundle_paths, load_bundle
from edge.daemon import Daemon, Settings
from edge.detector import Detector
from edge.exporter import EdgeMetrics
from edge.paths import DEFAULT_MODEL
from edge.samples import InfluxSource
from edge.thresholds import load_thresholds
from influx_utils import initializeConnection
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.metrics import RX_CPU
from nodes.series import Record, record_time
from service.incident_log import IncidentLog
from service.store import Store
from service.systemd import Ending
from simulators.edge import Attack
from simulators.fleet import fleet
from tests.support.edge_daemon import said
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
INTERVAL = 15
SLOTS, FIRST = 40, 13
ATTACKED = range(16, 24)


class ManyEdges:
    """Six nodes of one server, three of them attacked, and the daemon that watches them; a slot at a time."""

    def __init__(self, server: Influxd, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.begin = int(time.time()) // INTERVAL * INTERVAL - SLOTS * INTERVAL
        self.simulated = fleet(6, seed=5, differ=False)
        self.names = [one.name for one in self.simulated]
        attack = Attack("cpu", self.begin + 16 * INTERVAL, self.begin + 24 * INTERVAL)
        self.samples = {
            one.name: one.samples(self.begin, SLOTS * INTERVAL, [attack] * (place < 3))
            for place, one in enumerate(self.simulated)
        }
        self.client = connect(server, timeout=2, database="edge")
        self.client.create_database("edge")
        self.nodes_dir = folder / "nodes"
        for name in self.names:
            self.give_model(name)
        self.watched: Sequence[str] = self.names
        self.metrics = EdgeMetrics(nodes=["node-0001"])
        self.now = float(self.begin)
        self.store: Store | None = None
        self.start()

    def give_model(self, name: str) -> None:
        """Let a node have the shipped model, as a link, and thresholds."""
        folder = self.nodes_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        shipped, own = bundle_paths(ROOT / DEFAULT_MODEL), bundle_paths(folder / "model.h5")
        shutil.copy(shipped.litert, own.litert)
        shutil.copy(ROOT / "data/normalization_stats.json", own.stats)
        shutil.copy(ROOT / "data/thresholds.json", folder / "thresholds.json")
        shutil.copy(shipped.identity, own.identity)

    def start(self) -> None:
        """Start the daemon, in place of the one that ran."""
        self.stop()
        self.store = Store(self.folder / "state", 10_000)
        settings = Settings(
            server=f"127.0.0.1:{self.server.port}",
            database="edge",
            measurement="detected_anomalies",
            interval_seconds=INTERVAL,
            catch_up_seconds=3600.0,
            drift_seconds=21600.0,
            thresholds_file="",
            model="",
            nodes_dir=str(self.nodes_dir),
        )
        client = initializeConnection("127.0.0.1", self.server.port, "", "", timeout_seconds=2.0)
        source = InfluxSource(client, settings.server, "edge")
        nodes = [Named(one.name, one.node) for one in self.simulated if one.name in self.watched]
        self.daemon = Daemon(
            settings, source, client, nodes, self.store, self.metrics, Ending(), lambda: self.now
        )

    def stop(self) -> None:
        """End the daemon."""
        if self.store is not None:
            self.store.__exit__()

    def feed(self, *slots: int, lost: Sequence[tuple[str, str]] = ()) -> None:
        """The samples of these slots reach the server, but for those of (node, measurement) that are lost."""
        self.now = self.begin + (max(slots) + 4 / 3) * INTERVAL
        begin, end = ((self.begin + slot * INTERVAL) * SECOND for slot in (min(slots), max(slots) + 1))
        for name, samples in self.samples.items():
            part: Record = {
                measurement: [point for point in points if begin <= point["time"] < end]
                for measurement, points in samples.items()
                if (name, measurement) not in lost
            }
            write_samples(self.client, part)

    def live(self, *slots: int, lost: Sequence[tuple[str, str]] = ()) -> None:
        """Slot after slot is fed and judged."""
        for slot in slots:
            self.feed(slot, lost=lost)
            assert self.daemon.poll() is False

    def expected(self) -> list[tuple[str, int, str, str]]:
        """Node, time, severity and cause of all anomalies, by a detector for each node alone."""
        bundle = load_bundle(DEFAULT_MODEL)
        thresholds = load_thresholds(ROOT / "data/thresholds.json")
        found = []
        for one in self.simulated:
            judge, last_record = Detector(bundle, thresholds, INTERVAL), {}
            for start, record in formatters.slot_records(self.samples[one.name], INTERVAL):
                columns, last_record = formatters.format_record(record, last_record, one.node)
                verdict = judge.observe(record_time(record), columns)
                if verdict.is_anomaly and (start // SECOND - self.begin) // INTERVAL >= FIRST - 1:
                    found.append((one.name, verdict.time, verdict.status, verdict.possible_cause))
        assert {name for name, *_ in found} >= set(self.names[:3])
        return sorted(found)

    def stored(self) -> list[tuple[str, int, str, str]]:
        """What InfluxDB holds; a point twice would be here twice."""
        points = self.client.query('SELECT * FROM "detected_anomalies"', epoch="ns").get_points()
        return sorted((p["node"], p["time"], p["severity"], p["possible_cause"]) for p in points)


@pytest.fixture
def edges(tmp_path: Path) -> Iterator[ManyEdges]:
    """A server of its own, the first slots judged; the next slot is FIRST."""
    with Influxd(tmp_path / "influxd") as server:
        edges = ManyEdges(server, tmp_path)
        edges.feed(*range(FIRST))
        assert edges.daemon.poll() is False
        yield edges
        edges.stop()


def test_an_attack_on_three_is_one_incident_and_stored_of_each(
    edges: ManyEdges, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edges.live(*range(FIRST, SLOTS))
    assert edges.stored() == edges.expected()
    incidents = [line for line in said(caplog) if "incident" in line]
    assert len(incidents) == 2
    assert " incident of 3 of 6 nodes opens: cpu: node-0000, node-0001, node-0002" in incidents[0]
    assert " incident of 3 nodes closes: cpu for " in incidents[1]
    *ours, together = IncidentLog(edges.folder / "state").read().values()
    assert [entry["node"] for entry in ours] == ["node-0000", "node-0001", "node-0002"]
    assert together["members"] == [entry["id"] for entry in ours]
    assert together["id"].startswith("many@") and f" [{together['id']}]" in incidents[0]
    # That of the node whose record came first.
    first = together["why"].removesuffix("; likewise 2 more nodes")
    # As it was when the incident opened; those of the nodes say by now how far each went, and for how long.
    assert first.startswith("cpu 8") and first.partition(" on ")[2].split()[0] in edges.names[:3]
    assert f"; {first} [" in incidents[0]
    assert all(entry["ended"] for entry in (*ours, together))
    # One line a poll, whatever comes of it.
    polls = [line for line in said(caplog, logging.INFO) if line.startswith("6 nodes: ")]
    assert len(polls) == SLOTS - FIRST
    assert polls[0] == "6 nodes: 6 normal"
    assert "6 nodes: 3 alert, 3 normal" in polls


def test_a_server_that_is_killed_in_the_middle_and_restarts_at_every_poll_lose_and_double_nothing(
    edges: ManyEdges, caplog: pytest.LogCaptureFixture
) -> None:
    edges.live(*range(FIRST, 18))
    edges.server.kill()
    assert [edges.daemon.poll() for _ in range(2)] == [True, True]
    assert len([line for line in said(caplog) if "cannot be reached" in line]) == 1
    edges.server.start()
    for slot in range(18, SLOTS):
        edges.start()
        edges.live(slot)
    assert edges.stored() == edges.expected()
    assert len([line for line in said(caplog) if "incident" in line]) == 2


def test_what_one_lacks_is_its_own_affair(edges: ManyEdges, caplog: pytest.LogCaptureFixture) -> None:
    lost = [("node-0000", RX_CPU), *(("node-0005", name) for name in edges.samples["node-0005"])]
    edges.live(*range(FIRST, SLOTS), lost=lost)
    others = [found for found in edges.expected() if found[0] not in ("node-0000", "node-0005")]
    assert [found for found in edges.stored() if found[0] not in ("node-0000", "node-0005")] == others
    assert [line for line in said(caplog) if line.startswith("node-0005: unknown: no new record since")]
    assert [line for line in said(caplog) if line.startswith("node-0000: unknown: cpu_rx (")]
    shown = edges.metrics.registry.get_sample_value
    assert shown("find_anomalies_nodes", {"status": "silent"}) == 1


def test_a_node_without_a_model_waits_and_begins_once_it_has_one(
    edges: ManyEdges, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = bundle_paths(edges.nodes_dir / "node-0002" / "model.h5").identity
    identity.rename(identity.with_suffix(".away"))
    edges.start()
    edges.live(FIRST)
    (line,) = [line for line in said(caplog) if line.startswith("not watched")]
    assert line.startswith("not watched, since there is no model: node-0002; train them")
    assert edges.metrics.registry.get_sample_value("find_anomalies_nodes", {"status": "without a model"}) == 1
    identity.with_suffix(".away").rename(identity)
    monkeypatch.setattr("edge.daemon.RETRY_SECONDS", 0.0)
    edges.live(*range(14, SLOTS))
    assert "all nodes are watched" in said(caplog)
    assert {name for name, *_ in edges.stored()} >= {"node-0000", "node-0001", "node-0002"}


def test_files_and_a_state_that_are_damaged_are_those_of_one_node(
    edges: ManyEdges, caplog: pytest.LogCaptureFixture
) -> None:
    edges.live(*range(FIRST, 18))
    (edges.nodes_dir / "node-0004" / "thresholds.json").write_text("{")
    edges.stop()
    with Store(edges.folder / "state", 10_000) as store:
        parts = store.states()["node-0003"]
        store.add({"node-0003": json.dumps(parts | {"reader": 5})}, {}, "edge", [])
    edges.store = None
    caplog.clear()
    edges.start()
    assert [line for line in said(caplog) if "starts over" in line] == [
        line for line in said(caplog) if line.startswith("node-0003: --state_dir holds no state of this node")
    ]
    edges.live(*range(18, SLOTS))
    assert edges.stored() == edges.expected()
    (line,) = [line for line in said(caplog) if "not valid JSON" in line]
    assert line.startswith("node-0004: ")
    assert line.endswith("Until then the last good thresholds stay in force")


def test_series_of_their_own_have_only_the_nodes_that_are_named(edges: ManyEdges) -> None:
    edges.live(FIRST)
    families = {family.name: family for family in edges.metrics.registry.collect()}
    for name in ("rmse", "value", "threshold", "drift", "clock_offset_seconds"):
        nodes = {sample.labels["node"] for sample in families[f"find_anomalies_{name}"].samples}
        assert nodes == {"node-0001"}
    everything = [sample for family in families.values() for sample in family.samples]
    assert {sample.labels.get("node") for sample in everything} == {None, "node-0001"}
    counts = {s.labels["status"]: s.value for s in families["find_anomalies_nodes"].samples}
    assert counts == {
        "normal": 6,
        "anomaly": 0,
        "alert": 0,
        "unknown": 0,
        "silent": 0,
        "failing": 0,
        "without a model": 0,
    }


def test_nodes_that_are_new_in_the_database_are_watched(
    edges: ManyEdges, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edges.watched = edges.names[:5]
    edges.start()
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("edge.daemon.LOOK_SECONDS", 0.0)
    edges.daemon._find_nodes = lambda: [Named(one.name, one.node) for one in edges.simulated]
    edges.live(FIRST, 14)
    polls = [line for line in said(caplog, logging.INFO) if " nodes: " in line]
    assert polls == ["5 nodes: 5 normal", "6 nodes: 6 normal"]


def received(systemd: socket.socket) -> list[bytes]:
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(systemd.recv(100))
    return messages


def test_a_long_poll_tells_systemd_that_the_service_lives(
    edges: ManyEdges, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edge.daemon.ALIVE_SECONDS", 0.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    edges.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        edges.live(FIRST)
        # The first poll of a process may take longer than TimeoutStartSec.
        # Before and after each request, and after the verdicts.
        messages = received(systemd)
        assert len(messages) >= 3
        assert set(messages) == {b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000"}
        edges.live(14)
        messages = received(systemd)
        assert len(messages) >= 3
        assert set(messages) == {b"WATCHDOG=1"}
