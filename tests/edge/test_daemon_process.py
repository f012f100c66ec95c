"""The daemon as a process: signals, crashes, deadlines, systemd, what it may write."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import formatters
from edge.bundle import load_bundle
from edge.detector import Detector
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from lab import parts
from lab.influxd import Influxd
from nodes.metrics import MEMORY_FREE, RX_CPU
from nodes.series import Record, record_time
from service.store import FILE_NAME, Store
from simulators.edge import Attack, simulate
from tests.support.influx import Database, connect
from tests.support.load import seconds_to_start
from tests.support.prometheus_writer import write_samples
from tests.support.proxy import Proxy

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9


def lives(begin: int, seconds: int, attack: tuple[int, int] | None = None) -> Record:
    """Samples of every second, none missed; an attack on the CPU between these seconds."""
    attacks = [Attack("cpu", begin + attack[0], begin + attack[1])] if attack else []
    for seed in range(1000):
        samples = simulate(seed, begin, seconds, attacks, interval_seconds=1)
        if len(samples[MEMORY_FREE]) == len(samples[RX_CPU]) == seconds:
            return samples
    raise AssertionError("no whole life")


class Process:
    """`--mode test --interval 1` with its state in a folder of its own."""

    def __init__(
        self,
        port: int,
        database: str,
        folder: Path,
        *options: str,
        within: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        self.log = folder / "daemon.log"
        self.state = folder / "state"
        words = ["--mode=test", "--interval=1", f"--influx_port={port}", "--influx_host=127.0.0.1"]
        words += [f"--influx_db={database}", f"--state_dir={self.state}", *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "find_anomalies.py", *words],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, wanted: Callable[[str], Any], seconds: float = 120) -> str:
        """The log, once `wanted` of it is true."""
        deadline = time.monotonic() + seconds
        while not wanted(said := self.said()):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        return said

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts daemons; none outlives the test."""
    started: list[Process] = []

    def start(port: int, database: str, *options: str, **settings: Any) -> Process:
        started.append(Process(port, database, tmp_path, *options, **settings))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def stored(client: Any) -> list[tuple[int, str, str]]:
    points = client.query('SELECT * FROM "detected_anomalies"', epoch="ns").get_points()
    return sorted((p["time"], p["severity"], p["possible_cause"]) for p in points)


def expected(samples: Record, since: int) -> list[tuple[int, str, str]]:
    """Anomalies from a second on, by the detector alone."""
    bundle = load_bundle(DEFAULT_MODEL)
    judge = Detector(bundle, load_thresholds(ROOT / "data/thresholds.json"), 1)
    found, last_record = [], {}
    for start, record in formatters.slot_records(samples, 1):
        columns, last_record = formatters.format_record(record, last_record)
        verdict = judge.observe(record_time(record), columns)
        if verdict.is_anomaly and start >= since * SECOND:
            found.append((verdict.time, verdict.status, verdict.possible_cause))
    return found


# --- crashes -------------------------------------------------------------------------------------


def test_twenty_crashes_of_daemon_and_server_lose_no_anomaly_and_store_none_twice(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    rng = random.Random(7)
    with Influxd(tmp_path / "influxd") as server, connect(server, timeout=30) as client:
        client.create_database("edge")
        client.switch_database("edge")
        # From then on, anomalies come every second: the first poll must come before.
        attack = 60 + seconds_to_start(16)
        begin = int(time.time()) - 60
        samples = lives(begin, attack + 32, attack=(attack, attack + 32))
        write_samples(client, samples)
        daemon = run(server.port, "edge")
        daemon.wait_for(lambda said: " normal (" in said)
        for _ in range(20):
            time.sleep(rng.uniform(0.2, 1.8))
            if rng.random() < 0.5:
                daemon.process.kill()
                daemon.process.wait()
                time.sleep(rng.uniform(0, 0.5))
                daemon = run(server.port, "edge")
            else:
                server.kill()
                time.sleep(rng.uniform(0, 1.0))
                server.start()
        time.sleep(max(0.0, begin + attack + 34 - time.time()))
        daemon.wait_for(lambda said: "no new record" in said)
        wanted = expected(samples, begin + 61)
        assert len(wanted) > 30
        deadline = time.monotonic() + 60
        while stored(client) != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        assert stored(client) == wanted
        assert daemon.end() == 0


def test_a_thousand_anomalies_are_delivered_within_five_seconds_of_the_server(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    points = [
        {
            "measurement": "detected_anomalies",
            "time": number * SECOND,
            "tags": {"severity": "anomaly"},
            "fields": {"cpu_usage": 1.0},
        }
        for number in range(1, 1001)
    ]
    with Store(tmp_path / "state", 100_000) as store:
        store.add({}, {}, "edge", points)
    with Influxd(tmp_path / "influxd") as server, connect(server, timeout=30, database="edge") as client:
        client.create_database("edge")
        server.kill()
        daemon = run(server.port, "edge")
        daemon.wait_for(lambda said: "cannot be reached" in said)
        # By then the daemon asks as rarely as it ever does: after 0.5, 1, 2 and then every 4 s at the latest.
        time.sleep(8)
        # Five seconds, or more on a busy machine.
        limit = 3 + seconds_to_start(2)
        server.start()
        begin = time.monotonic()
        while len(list(client.query("SELECT cpu_usage FROM detected_anomalies").get_points())) < 1000:
            assert time.monotonic() - begin < limit
            time.sleep(0.05)
        assert daemon.end() == 0
    with sqlite3.connect(tmp_path / "state" / FILE_NAME) as left:
        assert left.execute("SELECT count(*) FROM spool").fetchone() == (0,)
    left.close()


def test_a_full_disk_stops_nothing_and_is_said_once(
    tmp_path: Path, influxd: Influxd, database: Database, run: Callable[..., Process]
) -> None:
    attack = 60 + seconds_to_start(7)
    now = int(time.time())
    samples = lives(now - 60, attack + 23, attack=(attack, attack + 10))
    write_samples(database.client, samples)
    (tmp_path / "state").mkdir()
    mount = f'mount -t tmpfs -o size=8m tmpfs \'{tmp_path / "state"}\' && exec "$0" "$@"'
    within = (parts.find("unshare"), "--mount", "sh", "-c", mount)
    daemon = run(influxd.port, database.name, within=within)
    daemon.wait_for(lambda said: " normal (" in said)
    filler = Path(f"/proc/{daemon.process.pid}/root{tmp_path}/state/filler")
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    daemon.wait_for(lambda said: "incident opens" in said)
    filler.unlink()
    daemon.wait_for(lambda said: "can be written again" in said)
    said = daemon.wait_for(lambda said: "incident closes" in said)
    assert daemon.end() == 0
    assert said.count(f"{FILE_NAME}: cannot be written") == 1
    # A shorter line may still fit into the last page of the file: it is said again after that only.
    polls = re.findall(r"polls\.jsonl:? (cannot|can) be written", said)
    assert polls == (["cannot", "can"] * len(polls))[: len(polls)]
    assert "free some space. Until then a crash loses what InfluxDB does not have yet" in said
    assert "Traceback" not in said
    assert stored(database.client) == expected(samples, now)


# --- deadlines -----------------------------------------------------------------------------------


def test_answers_slower_than_the_interval_skip_polls_not_records_and_are_said_once(
    tmp_path: Path, influxd: Influxd, database: Database, run: Callable[..., Process]
) -> None:
    write_samples(database.client, lives(int(time.time()) - 60, 100))
    proxy = Proxy(influxd.port)
    daemon = run(proxy.port, database.name)
    daemon.wait_for(lambda said: " normal (" in said)
    proxy.delay_seconds = 1.2
    daemon.wait_for(lambda said: "a poll took longer than the 1 s between polls" in said)
    time.sleep(6)
    proxy.delay_seconds = 0
    daemon.wait_for(lambda said: "polls are quick enough again" in said)
    time.sleep(2)
    assert daemon.end() == 0
    proxy.close()
    said = daemon.said()
    assert said.count("a poll took longer") == 1
    # On a busy machine, several records may be judged at once, and are then one line.
    many = r"(?:caught up: \d+ records from \S+:(\d\d)\.\d+Z to )?"
    lines = re.findall(many + r"\S+:(\d\d)\.\d+Z:?(?: \d+)? normal", said)
    spans = [(int(first or last), int(last)) for first, last in lines]
    seconds = [(first + i) % 60 for first, last in spans for i in range((last - first) % 60 + 1)]
    assert len(seconds) > 8
    assert [second % 60 for second in range(seconds[0], seconds[0] + len(seconds))] == seconds


def test_while_the_server_is_away_it_is_asked_every_few_seconds_and_never_in_step(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    asked: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as closing:
        closing.settimeout(0.1)
        daemon = run(closing.getsockname()[1], "edge")
        # A process takes its time to start.
        assert select.select([closing], [], [], 60)[0]
        deadline = time.monotonic() + 14
        while time.monotonic() < deadline:
            try:
                connection, _ = closing.accept()
            except TimeoutError:
                continue
            asked.append(time.monotonic())
            connection.close()
        assert daemon.end() == 0
    # Each attempt asks twice at most; attempts come 0.25 to 4 s after another.
    pauses = [later - before for before, later in itertools.pairwise(asked) if later - before > 0.2]
    assert 4 <= len(pauses) <= 11
    # A second more on a busy machine.
    assert max(pauses) < 5.5
    assert len({round(pause, 2) for pause in pauses[3:]}) > 1
    assert len(asked) <= 2 * (len(pauses) + 1)
    assert daemon.said().count("cannot be reached") == 1


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_poll_ends_it_within_five_seconds(
    number: int, tmp_path: Path, run: Callable[..., Process]
) -> None:
    with Influxd(tmp_path / "influxd") as server, connect(server, database="edge") as client:
        client.create_database("edge")
        write_samples(client, lives(int(time.time()) - 60, 100))
        daemon = run(server.port, "edge")
        daemon.wait_for(lambda said: " normal (" in said)
        server.pause()
        time.sleep(1.5)
        assert daemon.end(number, 5) == 0
        server.resume()
    assert "Traceback" not in daemon.said()


def test_hangup_has_the_thresholds_read_at_once(
    tmp_path: Path, influxd: Influxd, database: Database, run: Callable[..., Process]
) -> None:
    file = tmp_path / "thresholds.json"
    shutil.copy(ROOT / "data/thresholds.json", file)
    daemon = run(influxd.port, database.name, f"--thresholds_file={file}", "--interval=60")
    daemon.wait_for(lambda said: "no recent sample" in said)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mem_threshold": 7}))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda said: "mem_threshold changed from" in said, 30)
    assert daemon.end() == 0


def test_a_storm_of_hangups_stops_nothing(
    influxd: Influxd, database: Database, run: Callable[..., Process]
) -> None:
    write_samples(database.client, lives(int(time.time()) - 60, 90))
    daemon = run(influxd.port, database.name)
    daemon.wait_for(lambda said: " normal (" in said)
    for _ in range(20_000):
        daemon.process.send_signal(signal.SIGHUP)
    count = daemon.said().count(" normal (")
    daemon.wait_for(lambda said: said.count(" normal (") > count + 2)
    assert daemon.end() == 0
    assert "Traceback" not in daemon.said()


# --- systemd and Prometheus ------------------------------------------------------------------------


def test_systemd_hears_of_the_first_poll_and_of_each_later_one(
    tmp_path: Path, influxd: Influxd, database: Database, run: Callable[..., Process]
) -> None:
    write_samples(database.client, lives(int(time.time()) - 60, 90))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        daemon = run(influxd.port, database.name, NOTIFY_SOCKET=str(tmp_path / "notify"))
        told = [systemd.recv(4096).decode().split("\n") for _ in range(3)]
        assert daemon.end() == 0
    assert [words[0] for words in told] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert told[0][1] == "WATCHDOG=1"
    assert all(words[-1].startswith("STATUS=") for words in told)
    assert " normal (nearest to an anomaly: " in told[2][-1]


@pytest.mark.parametrize(
    ("service", "timers"),
    [
        ("find-anomalies", []),
        ("find-anomalies@", []),
        ("find-anomalies-ports-train", ["find-anomalies-ports-train"]),
        ("find-anomalies-ports-test", ["find-anomalies-ports-test"]),
        ("find-anomalies-ports", []),
    ],
)
def test_systemd_accepts_the_units_and_finds_little_exposed(service: str, timers: list[str]) -> None:
    analyze = parts.find("systemd-analyze")
    folder = ROOT / ".cache" / "units"
    folder.mkdir(parents=True, exist_ok=True)
    copies = [folder / f"{service}.service", *(folder / f"{timer}.timer" for timer in timers)]
    for copy in copies:
        # It looks whether the program is there.
        text = (ROOT / "deploy" / copy.name).read_text()
        text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text)
        copy.write_text(text.replace("WorkingDirectory=/opt/find_anomalies", f"WorkingDirectory={ROOT}"))
    copy = copies[0]
    environment = parts.environment()
    checked = subprocess.run([analyze, "verify", *copies], capture_output=True, text=True, env=environment)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", copy],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert rated.returncode == 0, rated.stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert exposure
    assert float(exposure[1]) <= 2.0


# --- what it may write -----------------------------------------------------------------------------


def test_it_writes_to_its_state_folder_alone_and_not_for_everyone(
    tmp_path: Path, influxd: Influxd, database: Database
) -> None:
    write_samples(database.client, lives(int(time.time()) - 60, 90))
    state = tmp_path / "state"
    state.mkdir()
    command = [sys.executable, "find_anomalies.py", "--mode=test", "--once", "--interval=1"]
    command += [f"--influx_port={influxd.port}", f"--influx_db={database.name}", f"--state_dir={state}"]
    # A folder that was entered before is still that of the file system beneath.
    script = """
        mount --bind / / && mount --bind "$0" "$0" && mount -o remount,bind,ro / &&
        cd / && cd "$1" && ! touch data/touched && shift && exec "$@"
    """
    done = subprocess.run(
        [parts.find("unshare"), "--mount", "sh", "-c", script, str(state), str(ROOT), *command],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in state.iterdir()}
    assert modes
    assert all(int(mode, 8) & 0o027 == 0 for mode in modes.values()), modes
