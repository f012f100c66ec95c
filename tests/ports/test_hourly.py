"""The hourly job without --once: a server that is away is asked again within seconds, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import find_anomalies
import influx_utils
from common.files import UnavailableError
from lab.influxd import Influxd, free_port
from parallel.cluster import Cluster
from ports.faults import SeriesNotices
from ports.hourly import LONGEST_STEP_SECONDS, HourlyJob
from ports.judging import JudgingSettings
from ports.sources import Folder
from service.loop import Turn
from tests.support.influx import connect
from tests.support.port_series import change, moment, samples, write
from tests.support.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
FLOOD = ("2023-02-01T10:00", "2023-02-01T12:00")
AGAIN = "ports are judged again"
# The longest pause between two attempts, and time for the job itself.
WITHIN_SECONDS = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Influxd]:
    """A server of its own, with a port that is flooded after four weeks, and a model of it."""
    with Influxd(tmp_path / "influxd") as server, connect(server) as client:
        client.create_database("ports")
        client.switch_database("ports")
        times, traffic = samples(31)
        change(times, traffic, *FLOOD, 5.0)
        tags = "port_traffic,device=core,port=1,direction=in"
        lines = [f"{tags} value={value} {time}" for time, value in zip(times, traffic, strict=True)]
        client.write_points(lines, protocol="line", time_precision="s", batch_size=5_000)
        options = ("--target=ports", "--mode=train", "--jobs=1", "--timezone=UTC", "--until=2023-02-01")
        influx = (
            f"--influx_port={server.port}",
            "--influx_db=ports",
            f"--ports_models={tmp_path / 'models'}",
        )
        assert find_anomalies.main([*options, *influx]) == 0
        yield server


class Process:
    """`--target ports --mode test`, as if it were a day after training.

    environment: of the process, beside PATH.
    """

    def __init__(self, port: int, folder: Path, *options: str, **environment: str) -> None:
        self.log = folder / "hourly.log"
        self.state = folder / "state/ports.json"
        words = ["--target=ports", "--mode=test", "--jobs=1", f"--influx_port={port}", "--influx_db=ports"]
        words += [f"--ports_models={folder / 'models'}", "--until=2023-02-02", *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "find_anomalies.py"), *words],
                cwd=folder,
                env={"PATH": os.environ["PATH"], **environment},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def wait_for(self, wanted: Callable[[str], Any], seconds: float = 120) -> str:
        """The log, once `wanted` of it is true."""
        deadline = time.monotonic() + seconds
        while not wanted(said := self.log.read_text()):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        return said

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts hourly jobs; none outlives the test."""
    started: list[Process] = []

    def start(port: int, *options: str, **environment: str) -> Process:
        started.append(Process(port, tmp_path, *options, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def stored(server: Influxd) -> list[tuple[str, str]]:
    """Time and severity of each anomaly."""
    with connect(server, database="ports") as client:
        points = client.query('SELECT * FROM "detected_port_anomalies"').get_points()
        return [(point["time"][11:16], point["severity"]) for point in points]


EXPECTED = [
    *((f"10:{minute}", "anomaly") for minute in (15, 30, 45)),
    *((f"{minute // 60}:{minute % 60:02d}", "alert") for minute in range(660, 721, 15)),
]


def test_a_server_that_is_away_is_asked_again_within_seconds_and_said_once(
    server: Influxd, run: Callable[..., Process]
) -> None:
    server.kill()
    job = run(server.port)
    away = "cannot be reached"
    job.wait_for(lambda said: away in said)
    server.start()
    begin = time.monotonic()
    job.wait_for(lambda said: AGAIN in said)
    assert time.monotonic() - begin < WITHIN_SECONDS
    assert stored(server) == EXPECTED
    # It goes away once more, before the next hour; a hangup ends the wait for that.
    server.kill()
    job.process.send_signal(signal.SIGHUP)
    job.wait_for(lambda said: said.count(away) == 2)
    # Three attempts more, which are not said.
    with socket.create_server((server.host, server.port)) as closing:
        closing.settimeout(WITHIN_SECONDS)
        for _ in range(3):
            closing.accept()[0].close()
    assert job.end() == 0
    said = job.log.read_text()
    assert (said.count(away), said.count(AGAIN), said.count("ERROR")) == (2, 1, 2)


def test_a_signal_ends_it_at_once_while_a_query_hangs(server: Influxd, run: Callable[..., Process]) -> None:
    with contextlib.closing(Proxy(server.port, hangs="read")) as proxy:
        job = run(proxy.port)
        assert proxy.is_hanging.wait(120)
        begin = time.monotonic()
        assert job.end() == 0
        # The query would have hung for longer.
        assert time.monotonic() - begin < influx_utils.TIMEOUT_SECONDS - 1


def test_a_signal_while_a_write_hangs_ends_it_even_if_the_write_fails(
    server: Influxd, run: Callable[..., Process]
) -> None:
    with contextlib.closing(Proxy(server.port, hangs="write")) as proxy:
        job = run(proxy.port)
        assert proxy.is_hanging.wait(120)
        job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(60) == 0
    assert proxy.writes == 1
    assert not job.state.exists()


def test_a_server_that_goes_away_between_reading_and_storing_has_each_anomaly_once(
    server: Influxd, run: Callable[..., Process]
) -> None:
    with contextlib.closing(Proxy(server.port, lost=2)) as proxy:
        job = run(proxy.port)
        job.wait_for(lambda said: AGAIN in said)
        assert job.end() == 0
    assert proxy.writes == 3
    said = job.log.read_text()
    # What was judged waits to be stored; it is not judged at every attempt.
    assert (said.count("ERROR"), said.count("1 series, 96 buckets")) == (1, 1)
    assert stored(server) == EXPECTED
    # Where judging stopped is kept once all is stored, not before.
    kept = json.loads(job.state.read_text())
    assert kept["core_1_in profile"] == "2023-02-02T00:00:00Z"
    # The incident is over. Its line and its point are there once.
    assert kept["incidents"]["series"]["core_1_in profile"]["open"] is None
    assert (said.count("incident opens"), said.count("incident closes")) == (1, 1)
    with connect(server, database="ports") as client:
        (incident,) = client.query('SELECT * FROM "port_incidents"').get_points()
    assert (incident["state"], incident["time"]) == ("closed", "2023-02-01T11:00:00Z")


def test_a_database_that_is_missing_is_said_once_and_judged_when_it_is_there(
    server: Influxd, run: Callable[..., Process]
) -> None:
    job = run(server.port, "--influx_db=later")
    job.wait_for(lambda said: "has no database later" in said)
    with connect(server, database="later") as client:
        client.create_database("later")
        job.wait_for(lambda said: "has no port_traffic from the last 28 days" in said)
        everything = 'SELECT "value" INTO later..port_traffic FROM ports..port_traffic GROUP BY *'
        client.query(everything)
        job.wait_for(lambda said: AGAIN in said, WITHIN_SECONDS)
    assert job.end() == 0
    said = job.log.read_text()
    assert (said.count("has no database later"), said.count("has no port_traffic")) == (1, 1)


def test_a_server_that_is_away_is_one_line_and_the_end_with_once(
    server: Influxd, run: Callable[..., Process]
) -> None:
    server.kill()
    job = run(server.port, "--once")
    assert job.process.wait(60) == 1
    assert job.log.read_text() == (
        f"find_anomalies.py: InfluxDB at localhost:{server.port} cannot be reached;"
        " check --influx_host, --influx_port and that it runs\n"
    )


class Clock:
    """Both clocks of a job, which stand still until they are set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_after_a_server_was_away_for_hours_the_next_run_is_that_of_the_next_hour(tmp_path: Path) -> None:
    times, traffic = samples(1)
    write(tmp_path, "1_1_in", times, traffic)
    is_away = True

    def open_source() -> Folder:
        if is_away:
            raise UnavailableError("away", "unreachable")
        return Folder(tmp_path)

    # Two minutes past an hour, and two hours and a half later.
    clock = Clock(7320.0)
    settings = JudgingSettings(str(tmp_path / "models"), ("profile",), None, Cluster(1))
    job = HourlyJob(settings, open_source, contextlib.nullcontext, clock=clock, monotonic=clock)
    assert job.turn() == Turn("away", 3600.0, is_away=True)
    clock.now, is_away = clock.now + 9000.0, False
    assert job.turn() == Turn("1 series, 0 buckets: 0 normal, 0 anomaly, 0 alert, 0 unknown", 1800.0)


# --- faults of single series ---------------------------------------------------------------------


def said_of(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """What has been logged since the last call."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= level]
    caplog.clear()
    return said


def test_faults_of_series_are_logged_once_and_their_end_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, kept = tmp_path / "ports", tmp_path / "models"
    times, traffic = samples(31)
    for number in (1, 2, 3):
        write(folder, f"1_{number}_in", times, traffic)
    write(folder, "1_4_in", times[:-60], traffic[:-60])
    common = ("--target=ports", "--mode=train", "--jobs=1", "--timezone=UTC", "--train_days=28")
    assert find_anomalies.main([*common, f"--ports_dir={folder}", f"--ports_models={kept}"]) == 0
    settings = JudgingSettings(str(kept), ("profile",), None, Cluster(1))
    job = HourlyJob(settings, lambda: Folder(folder), contextlib.nullcontext)
    model = kept / "1_1_in.profile.npz"
    content = model.read_bytes()
    model.write_bytes(b"no archive")
    (kept / "1_2_in.profile.npz").rename(kept / "away")
    caplog.clear()
    job.turn()
    silent = "1_4_in: has had no sample since 2023-02-01T19:00:00Z, so it is unknown"
    untrained = f"1 of 4 series have no model in {kept} yet and are not judged: 1_2_in; "
    first = said_of(caplog)
    assert first[:2] == [f"1_1_in: {model}: is damaged, or not a model; train it again", silent]
    assert first[2].startswith(untrained)
    assert len(first) == 3
    # Nothing has changed, and it is not logged again.
    for _ in range(2):
        job.turn()
        assert said_of(caplog) == []
    # One more is new, and two are over.
    (folder / "1_3_in.csv").write_text("")
    model.write_bytes(content)
    write(folder, "1_4_in", times, traffic)
    (kept / "away").rename(kept / "1_2_in.profile.npz")
    job.turn()
    assert said_of(caplog) == [
        f"{folder / '1_3_in.csv'}: has no samples; check how it is recorded",
        "1 series can be judged again: 1_1_in",
        "1 series have samples again: 1_4_in",
        "every series has a model now",
    ]
    # A port that has gone is not mended.
    (folder / "1_3_in.csv").unlink()
    job.turn()
    assert said_of(caplog) == []


def test_a_fault_is_the_same_one_while_only_its_numbers_change(caplog: pytest.LogCaptureFixture) -> None:
    notices = SeriesNotices(logging.ERROR, "that could not be judged", "can be judged again")
    for line in ("a_1_in: has text at 10:05", "a_1_in: has text at 10:10", "a_1_in: has a boolean at 10:15"):
        notices.show({"a_1_in": line}, set())
    assert said_of(caplog) == ["a_1_in: has text at 10:05", "a_1_in: has a boolean at 10:15"]
    # As many as there may be: some are named, the others counted.
    notices.show({f"a_{number}_in": f"a_{number}_in: torn" for number in range(30)}, set())
    assert said_of(caplog)[-1] == "and 10 more series that could not be judged"
    notices.show({}, {f"a_{number}_in" for number in range(30)})
    assert said_of(caplog) == ["30 series can be judged again: a_0_in, a_10_in, a_11_in and 27 more"]


def test_a_fault_of_all_series_is_logged_once_until_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = JudgingSettings(str(tmp_path / "models"), ("profile",), None, Cluster(1))
    job = HourlyJob(settings, lambda: Folder(tmp_path / "ports"), contextlib.nullcontext)
    line = f"{tmp_path / 'ports'}: no such folder; check --ports_dir"
    for _ in range(3):
        turn = job.turn()
        assert (turn.status, turn.is_away) == (line, False)
        assert 0 < turn.next_seconds <= 3600
    assert said_of(caplog) == [line]
    write(tmp_path / "ports", "1_1_in", *samples(1))
    job.turn()
    assert said_of(caplog)[-1] == AGAIN


# --- a service -----------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def told(systemd: socket.socket, wanted: Callable[[str], Any]) -> list[str]:
    """All that systemd is told, up to a message of which `wanted` is true."""
    messages = [systemd.recv(1000).decode()]
    while not wanted(messages[-1]):
        messages.append(systemd.recv(1000).decode())
    return messages


def test_systemd_is_told_that_it_works_is_ready_and_waits(
    server: Influxd, run: Callable[..., Process], systemd: socket.socket, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    job = run(server.port, **environment)
    messages = told(systemd, lambda message: "READY=1" in message)
    # The answers of InfluxDB and the series that were judged.
    assert len(messages) > 5
    assert set(messages[:-1]) == {"WATCHDOG=1"}
    status = "STATUS=1 series, 96 buckets: 88 normal, 3 anomaly, 5 alert, 0 unknown"
    assert messages[-1] == f"READY=1\nWATCHDOG=1\n{status}"
    # SIGHUP runs it now, and there is nothing new.
    job.process.send_signal(signal.SIGHUP)
    messages = told(systemd, lambda message: "STATUS=" in message)
    status = "STATUS=1 series, 0 buckets: 0 normal, 0 anomaly, 0 alert, 0 unknown"
    assert messages[-1] == f"WATCHDOG=1\n{status}"
    assert job.end() == 0


def test_a_watchdog_that_would_end_a_run_is_refused(server: Influxd, run: Callable[..., Process]) -> None:
    job = run(server.port, WATCHDOG_USEC="59000000")
    assert job.process.wait(60) == 1
    assert job.log.read_text() == (
        "find_anomalies.py: the watchdog's 59 s are too short for one step of the hourly job;"
        f" set WatchdogSec={3 * LONGEST_STEP_SECONDS} in the unit\n"
    )


def test_a_signal_ends_it_while_workers_judge(tmp_path: Path) -> None:
    folder = tmp_path / "ports"
    write(folder, "1_0_in", *samples(31))
    for number in range(1, 120):
        (folder / f"1_{number}_in.csv").hardlink_to(folder / "1_0_in.csv")
    words = ("--target=ports", f"--ports_dir={folder}", f"--ports_models={tmp_path / 'models'}")
    train = ("--mode=train", "--jobs=1", "--timezone=UTC", "--train_days=28")
    assert find_anomalies.main([*words, *train]) == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(120)
        job = subprocess.Popen(
            [sys.executable, str(ROOT / "find_anomalies.py"), *words, "--mode=test", "--jobs=2"],
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(tmp_path / "notify")},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        # The first result of the first run.
        assert systemd.recv(1000) == b"WATCHDOG=1"
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=60)[1]
    assert (job.returncode, said) == (0, "")


def test_what_a_signal_leaves_of_the_workers_is_cleared_away_without_a_word() -> None:
    # A semaphore of which joblib's own process knows, and that nobody removes.
    script = """
from joblib.externals.loky.backend import resource_tracker
from parallel.cluster import Cluster, in_parallel
assert list(in_parallel(abs, [-3, -3], 2, Cluster(jobs=2), "numbers")) == [3, 3]
resource_tracker.register("/left-over", "semlock")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def scrape(port: int) -> dict[str, float]:
    """What the job shows of itself, without the times at which counters were made."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        if "_created" not in name
    }


def test_what_prometheus_scrapes_of_the_hourly_job(server: Influxd, run: Callable[..., Process]) -> None:
    with connect(server, database="ports") as client:
        # One without a model, and one that two series write at once.
        port, day = "port_traffic,device=core,direction=out,port", moment("2023-02-01")
        lines = [f"{port}=2 value=1 {day}"]
        lines += [f"{port}=3,site={site} value=1 {day + second}" for site in "ab" for second in (0, 300)]
        client.write_points(lines, protocol="line", time_precision="s")
    server.kill()
    port = free_port("127.0.0.1")
    job = run(server.port, f"--metrics_port={port}")
    job.wait_for(lambda said: "cannot be reached" in said)
    before = scrape(port)
    assert before['find_anomalies_ports_run_failures_total{kind="unreachable"}'] >= 1
    assert before["find_anomalies_ports_runs_total"] >= 1
    assert not [name for name in before if name.startswith("find_anomalies_ports_series")]
    server.start()
    job.wait_for(lambda said: AGAIN in said)
    labels = '{detector="profile",direction="in"}'
    expected = {
        f"find_anomalies_ports_anomalies_total{labels}": 8,
        f"find_anomalies_ports_alerts_total{labels}": 5,
        'find_anomalies_ports_incidents_open{detector="profile",scope="port"}': 0,
        'find_anomalies_ports_series{state="judged"}': 1,
        'find_anomalies_ports_series{state="unknown"}': 0,
        'find_anomalies_ports_series{state="without model"}': 1,
        'find_anomalies_ports_series{state="fault"}': 1,
    }
    found = scrape(port)
    # It is logged just before it is counted.
    while expected.keys() - found.keys():
        found = scrape(port)
    assert {name: found[name] for name in expected} == expected
    assert 0 < found["find_anomalies_ports_last_good_run_seconds"] < 30
    assert found["find_anomalies_ports_seconds_since_last_good_run"] < 30
    failures = 'find_anomalies_ports_run_failures_total{kind="unreachable"}'
    assert found["find_anomalies_ports_runs_total"] == found[failures] + 1
    assert job.end() == 0


def test_a_port_of_metrics_that_is_taken_is_one_line(server: Influxd, run: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        job = run(server.port, f"--metrics_port={taken.getsockname()[1]}")
        assert job.process.wait(60) == 1
    assert "cannot listen on" in job.log.read_text()
