"""Raw series in a real InfluxDB, the daemon as a real process, a second for a slot: does it find the attack?

All samples are in the database from the start, those of the coming seconds too: test mode sees a sample
once the server's clock has reached it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.influxd import Influxd
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
)
from nodes.series import Point, Record
from simulators.edge import Attack, simulate
from tests.support.influx import Database
from tests.support.load import seconds_to_start
from tests.support.metrics import NODE_MEASUREMENTS, RAN_MEASUREMENTS
from tests.support.prometheus_writer import write_samples

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
SECOND = 10**9
HISTORY_SECONDS = 60
AHEAD_SECONDS = 45
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) (?P<message>.*)")
TIME = re.compile(r'(?:{"time": ")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z)')


class Line(NamedTuple):
    level: str
    message: str

    @property
    def slot(self) -> int | None:
        """The second of the record that a verdict is about, None for what is no verdict."""
        found = TIME.match(self.message)
        return int(datetime.fromisoformat(found[1]).timestamp()) if found else None

    @property
    def is_unknown(self) -> bool:
        return "unknown:" in self.message

    @property
    def is_normal(self) -> bool:
        return " normal (" in self.message


class Daemon:
    """`--mode test --interval 1` on a database; the log is read while it runs."""

    def __init__(self, server: Influxd, db_name: str, log: Path) -> None:
        self._log = log
        options = {
            "influx_host": server.host,
            "influx_port": server.port,
            "influx_db": db_name,
            "interval": 1,
            "state_dir": log.with_suffix(""),
        }
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "find_anomalies.py", "--mode", "test"),
                    *(str(word) for name, value in options.items() for word in (f"--{name}", value)),
                ],
                cwd=ROOT,
                # The environment of the test run may set options.
                env={
                    name: os.environ[name]
                    for name in ("PATH", "HOME", "LD_LIBRARY_PATH")
                    if name in os.environ
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def lines(self) -> list[Line]:
        """What it has logged; every line must be one of the log's own."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        found = [(LOG_LINE.fullmatch(line), line) for line in whole.splitlines()]
        assert [line for match, line in found if match is None] == []
        return [Line(match["level"], match["message"]) for match, _ in found if match]

    def wait_for(self, wanted: Callable[[list[Line]], Any], seconds: float = 120) -> list[Line]:
        """The lines, once `wanted` of them is true."""
        deadline = time.monotonic() + seconds
        while not wanted(lines := self.lines()):
            assert self.process.poll() is None, lines
            assert time.monotonic() < deadline, lines
            time.sleep(0.05)
        return lines

    def end(self) -> None:
        """SIGTERM must end it in order, with nothing on standard output."""
        self.process.send_signal(signal.SIGTERM)
        stdout, _ = self.process.communicate(timeout=60)
        assert (self.process.returncode, stdout) == (0, b"")
        assert self.lines()


StartDaemon = Callable[[Influxd, str], Daemon]


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    daemons: list[Daemon] = []

    def start(server: Influxd, db_name: str) -> Daemon:
        daemons.append(Daemon(server, db_name, tmp_path / f"daemon{len(daemons)}.log"))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.communicate()


def verdicts(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line.slot is not None]


def life(now: int, attack: tuple[int, int] | None = None) -> Record:
    """Samples from a minute before until soon after, none missed; an attack on the CPU in these seconds."""
    start, seconds = now - HISTORY_SECONDS, HISTORY_SECONDS + AHEAD_SECONDS
    attacks = [Attack("cpu", now + attack[0], now + attack[1])] if attack else []
    lives = (simulate(seed, start, seconds, attacks, interval_seconds=1) for seed in range(100))
    return next(samples for samples in lives if len(samples[MEMORY_FREE]) == len(samples[RX_CPU]) == seconds)


def until(samples: Record, measurements: tuple[str, ...], end: int) -> Record:
    """The samples without those of some measurements from `end` on."""
    return {
        name: [point for point in points if name not in measurements or point["time"] < end * SECOND]
        for name, points in samples.items()
    }


def in_slot(samples: Record, measurement: str, slot: int) -> list[Point]:
    return [p for p in samples[measurement] if slot * SECOND <= p["time"] < (slot + 1) * SECOND]


def stored_point(samples: Record, slot: int) -> dict[str, Any]:
    """Time and fields of the anomaly of a slot, worked out from the raw samples."""

    def increase(measurement: str) -> list[tuple[float, float]]:
        """Growth and seconds since the slot before, of each series."""
        pairs = zip(in_slot(samples, measurement, slot - 1), in_slot(samples, measurement, slot), strict=True)
        return [(new["value"] - old["value"], (new["time"] - old["time"]) / SECOND) for old, new in pairs]

    def value(measurement: str) -> float:
        (point,) = in_slot(samples, measurement, slot)
        return point["value"]

    cpus = [100 * growth / seconds for growth, seconds in increase(CPU_SECONDS)]
    assert len(cpus) == 2
    total, free = value(MEMORY_TOTAL), value(MEMORY_FREE)
    seconds = increase(DOWNLINK)[0][1]
    return {
        "time": max(p["time"] for name in samples for p in in_slot(samples, name, slot)),
        "cpu_usage": pytest.approx(sum(cpus) / 2),
        "mem_usage": pytest.approx(100 * (total - free) / total),
        "net_down_usage": pytest.approx(sum(growth for growth, _ in increase(RECEIVED))),
        "net_up_usage": pytest.approx(sum(growth for growth, _ in increase(TRANSMITTED))),
        "cpu_rx_usage": pytest.approx(value(RX_CPU)),
        "cpu_tx_usage": pytest.approx(value(TX_CPU)),
        "net_down_5g_usage": pytest.approx(value(DOWNLINK) / 8 * seconds),
        "net_up_5g_usage": pytest.approx(value(UPLINK) / 8 * seconds),
    }


def stored_points(database: Database) -> list[dict[str, Any]]:
    return list(database.client.query("SELECT * FROM detected_anomalies", epoch="ns").get_points())


def test_an_attack_is_found_as_it_happens_and_stands_in_influxdb(
    influxd: Influxd, database: Database, start_daemon: StartDaemon
) -> None:
    # So that the first poll comes before the attack on a busy machine, too.
    later = seconds_to_start(12) - 12
    began = int(time.time())
    now = began + later
    samples = life(now, attack=(12, 30))
    write_samples(database.client, samples)
    daemon = start_daemon(influxd, database.name)
    first, *_ = verdicts(daemon.wait_for(verdicts))
    assert not first.is_unknown
    assert first.slot in range(began - 1, now + 12)

    lines = daemon.wait_for(lambda lines: any('"severity": "alert"' in line.message for line in lines))
    # The verdict is logged before it is stored.
    deadline = time.monotonic() + 60
    while "alert" not in {point["severity"] for point in stored_points(database)}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    daemon.end()

    stored = stored_points(database)
    attacked = [point for point in stored if point["time"] // SECOND >= now + 12]
    assert attacked[3]["severity"] == "alert"
    assert {point["severity"] for point in attacked} == {"anomaly", "alert"}
    for point in attacked:
        slot = point["time"] // SECOND
        tags = {name: point.pop(name) for name in ("possible_cause", "severity", "instance")}
        assert tags["instance"] == "edge:9100"
        assert "cpu" in tags["possible_cause"].split(" | ")
        assert point == stored_point(samples, slot)
        # The log has the same, in the same words.
        logged = [json.loads(line.message) for line in lines if line.slot == slot and line.level == "INFO"]
        if logged:
            assert (logged[0]["possible_cause"], logged[0]["severity"]) == (
                tags["possible_cause"],
                tags["severity"],
            )
            assert list(logged[0]["values"].values()) == [
                pytest.approx(point[name], abs=1e-4) for name in logged[0]["values"]
            ]
    slots = [point["time"] // SECOND for point in attacked]
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    assert slots[0] in (now + 12, now + 13)


def test_when_the_exporters_end_the_verdict_is_unknown_and_never_normal(
    influxd: Influxd, database: Database, start_daemon: StartDaemon
) -> None:
    later = seconds_to_start(9) - 9
    now = int(time.time()) + later
    samples = until(life(now), RAN_MEASUREMENTS, now + 9)
    samples = until(samples, NODE_MEASUREMENTS, now + 13)
    write_samples(database.client, samples)
    newest = max(point["time"] for points in samples.values() for point in points)
    daemon = start_daemon(influxd, database.name)
    milliseconds = newest // 10**6 % 1000
    since = datetime.fromtimestamp(newest // SECOND, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds:03d}Z")
    silence = Line("WARNING", f"unknown: no new record since {since}")
    daemon.wait_for(lambda lines: silence in lines)
    # Polls go on, and it is not said again.
    time.sleep(3)
    lines = daemon.lines()
    daemon.end()

    by_slot = {line.slot: line for line in verdicts(lines)}
    assert max(by_slot) == now + 12
    lacking = [by_slot[slot] for slot in range(now + 9, now + 13)]
    assert not any(line.is_normal for line in lacking)
    unknown = [line for line in lacking if line.is_unknown]
    assert unknown
    words = (
        "unknown: cpu_rx, cpu_tx, net_5g_down, net_5g_up (no sample of dl_bitrate{cellId=2},"
        " ul_bitrate{cellId=2}, rx_cpu_time, tx_cpu_time)"
    )
    for line in unknown:
        assert (line.level, line.message.partition(" ")[2]) == ("INFO", words)
    said = [line.message for line in lines if line.level == "WARNING"]
    assert [message for message in said if "unknown:" in message] == [words, silence.message]
    # After the last record nothing is said but that nothing is known.
    after = lines[lines.index(by_slot[now + 12]) + 1 :]
    assert {line.message for line in after} <= {words, silence.message}
    assert after[-1] == silence
