"""A thousand nodes in one process: an attack on fifty with the server killed, then an hour to catch up.

    python -m benchmarks.outages [--nodes 1000] [--attacked 50] [--hour 240]

Samples of simulated nodes go to a real InfluxDB, slot by slot. What must be stored is worked out by a
detector for each attacked node alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import urllib.request
from pathlib import Path

import formatters
import influx_utils
from benchmarks.processes import server
from benchmarks.speed import give_networks
from edge.bundle import load_bundle
from edge.daemon import Daemon, Settings
from edge.detector import Detector
from edge.exporter import EdgeMetrics
from edge.paths import DEFAULT_MODEL
from edge.samples import InfluxSource
from edge.thresholds import load_thresholds
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.series import RECORD_SECONDS, record_time
from service.store import Store
from service.systemd import Ending
from simulators.edge import Attack
from simulators.fleet import FleetSamples, SimulatedNode, fleet

# So many records fill the windows; the attack begins so many slots later, and lasts so long.
HISTORY_SLOTS, BEFORE, ATTACKED_SLOTS, AFTER = 66, 3, 8, 9
# The server is killed when so many slots of the attack are in it, for so many slots.
KILLED_AT, AWAY_SLOTS = 2, 3
MEASUREMENT = "found"
Anomalies = set[tuple[str, int, str]]


class SimulatedFleet:
    """The nodes, what they report, and the daemon that watches them."""

    def __init__(self, place: Influxd, folder: Path, count: int, attacked: int, later_slots: int) -> None:
        self._place, self._folder = place, folder
        slots = HISTORY_SLOTS + BEFORE + ATTACKED_SLOTS + AFTER + later_slots
        self.begin = int(time.time() // RECORD_SECONDS - slots) * RECORD_SECONDS
        self.nodes = fleet(count, seed=1, differ=False)
        start = self.begin + (HISTORY_SLOTS + BEFORE) * RECORD_SECONDS
        attack = Attack("cpu", start, start + ATTACKED_SLOTS * RECORD_SECONDS)
        step = max(count // attacked, 1)
        self.attacks = {one.name: [attack] for one in self.nodes[::step][:attacked]}
        self._seconds = slots * RECORD_SECONDS
        self._samples = FleetSamples(self.nodes, self.begin, self._seconds, self.attacks)
        self.now = 0.0

    def feed(self, first: int, end: int) -> None:
        """Write the samples of these slots, and let it be the time after them."""
        address = f"http://{self._place.host}:{self._place.port}/write?db=edge"
        for text in self._samples.lines(first, end):
            urllib.request.urlopen(urllib.request.Request(address, text.encode())).close()
        self.now = self.begin + (end + 1 / 3) * RECORD_SECONDS

    def daemon(self, store: Store) -> Daemon:
        """A daemon that continues from what the store has."""
        client = influx_utils.initializeConnection(self._place.host, self._place.port, "", "")
        client.create_database("edge")
        settings = Settings(
            server=f"{self._place.host}:{self._place.port}",
            database="edge",
            measurement=MEASUREMENT,
            interval_seconds=RECORD_SECONDS,
            catch_up_seconds=86400.0,
            drift_seconds=21600.0,
            thresholds_file="",
            model="",
            nodes_dir=str(self._folder / "nodes"),
        )
        client.switch_database("edge")
        named = [Named(one.name, one.node) for one in self.nodes]
        source = InfluxSource(client, settings.server, "edge")
        return Daemon(
            settings, source, client, named, store, EdgeMetrics(nodes=[]), Ending(), lambda: self.now
        )

    def expected(self, last: int) -> Anomalies:
        """Node, time and severity of the anomalies of attacked nodes that are reported up to this slot."""
        bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds("data/thresholds.json")
        found = set()
        for one in self.nodes:
            if one.name in self.attacks:
                found |= self._expected(one, Detector(bundle, thresholds), last)
        return found

    def _expected(self, one: SimulatedNode, judge: Detector, last: int) -> Anomalies:
        found, last_record = set(), {}
        samples = one.samples(self.begin, self._seconds, self.attacks[one.name])
        for start, record in formatters.slot_records(samples, RECORD_SECONDS)[:last]:
            columns, last_record = formatters.format_record(record, last_record, one.node)
            verdict = judge.observe(record_time(record), columns)
            if verdict.is_anomaly and start / 1e9 >= self.begin + (HISTORY_SLOTS - 1) * RECORD_SECONDS:
                found.add((one.name, verdict.time, verdict.status))
        return found


def stored(place: Influxd) -> list[tuple[str, int, str]]:
    """Node, time and severity of the points in the database; a point twice would be here twice."""
    client = influx_utils.initializeConnection(place.host, place.port, "", "")
    client.switch_database("edge")
    ((found,),) = influx_utils.run(client, [f'SELECT * FROM "{MEASUREMENT}"'])
    points = [dict(zip(found["columns"], row, strict=True)) for row in found["values"]]
    return [(point["node"], point["time"], point["severity"]) for point in points]


def attack(place: Influxd, nodes: SimulatedFleet, store: Store) -> int:
    """The attack, with the server killed meanwhile; returns the slot after it."""
    daemon = nodes.daemon(store)
    nodes.feed(0, HISTORY_SLOTS)
    daemon.poll()
    killed = HISTORY_SLOTS + BEFORE + KILLED_AT
    end = HISTORY_SLOTS + BEFORE + ATTACKED_SLOTS + AFTER
    for slot in range(HISTORY_SLOTS, end):
        if killed <= slot < killed + AWAY_SLOTS:
            if slot == killed:
                place.kill()
            daemon.poll()
            continue
        if slot == killed + AWAY_SLOTS:
            place.start()
            # As remote write does: what waited comes first.
            nodes.feed(killed, slot)
        nodes.feed(slot, slot + 1)
        daemon.poll()
    return end


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--attacked", type=int, default=50)
    parser.add_argument("--hour", type=int, default=240, metavar="SLOTS", help="length of the outage")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server() as place:
        folder = Path(name)
        nodes = SimulatedFleet(place, folder, options.nodes, options.attacked, options.hour)
        give_networks(folder / "nodes", [one.name for one in nodes.nodes])
        with Store(folder / "state", 100_000) as store:
            slot = attack(place, nodes, store)
        ours = [one for one in stored(place) if one[0] in nodes.attacks]
        wanted = nodes.expected(slot)
        alerted = {node for node, _, severity in ours if severity == "alert"}
        print(
            f"attack on {len(nodes.attacks)} of {options.nodes} nodes, server killed for {AWAY_SLOTS} slots:"
            f" {len(alerted)} alerted, {len(wanted - set(ours))} of {len(wanted)} anomalies lost,"
            f" {len(set(ours) - wanted)} others, {len(ours) - len(set(ours))} twice"
        )
        nodes.feed(slot, slot + options.hour)
        wall, cpu, polls = time.perf_counter(), time.process_time(), 0
        with Store(folder / "state", 100_000) as store:
            daemon = nodes.daemon(store)
            has_more = True
            while has_more:
                daemon.poll()
                polls += 1
                has_more = any(one.monitor.reader.has_more for one in daemon.nodes.watches.values())
        print(
            f"{options.nodes} nodes catch up {options.hour} records each, from the start of the process:"
            f" {time.perf_counter() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU, {polls} polls"
        )


if __name__ == "__main__":
    main()
