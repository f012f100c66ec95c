"""The hourly job without --once: a server that is away is asked again within seconds, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import find_anomalies
import influx_utils
from lab.influxd import Influxd
from ports import hourly
from ports.parallel import Cluster
from ports.sources import Folder, UnavailableError
from service.systemd import Ending
from tests.support.influx import connect
from tests.support.port_series import change, samples, write
from tests.support.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
FLOOD = ("2023-02-01T10:00", "2023-02-01T12:00")
AGAIN = "ports are judged again"
# What the program is, but for how long it waits for an answer.
PATIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import find_anomalies, influx_utils
influx_utils.TIMEOUT_SECONDS = float(sys.argv[2])
sys.exit(find_anomalies.main(sys.argv[3:]))
"""
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

    waits_seconds: for an answer of InfluxDB.
    """

    def __init__(
        self, port: int, folder: Path, *options: str, waits_seconds: float = influx_utils.TIMEOUT_SECONDS
    ) -> None:
        self.log = folder / "hourly.log"
        self.state = folder / "state/ports.json"
        words = ["--target=ports", "--mode=test", "--jobs=1", f"--influx_port={port}", "--influx_db=ports"]
        words += [f"--ports_models={folder / 'models'}", "--until=2023-02-02", *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PATIENT, str(ROOT), str(waits_seconds), *words],
                cwd=folder,
                env={"PATH": os.environ["PATH"]},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def wait_for(self, wanted: Callable[[str], Any], seconds: float = 30) -> str:
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
        return self.process.wait(30)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts hourly jobs; none outlives the test."""
    started: list[Process] = []

    def start(port: int, *options: str, **settings: float) -> Process:
        started.append(Process(port, tmp_path, *options, **settings))
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
        job = run(proxy.port, waits_seconds=600)
        assert proxy.is_hanging.wait(30)
        assert job.end() == 0


def test_a_signal_while_a_write_hangs_ends_it_even_if_the_write_fails(
    server: Influxd, run: Callable[..., Process]
) -> None:
    with contextlib.closing(Proxy(server.port, hangs="write")) as proxy:
        job = run(proxy.port)
        assert proxy.is_hanging.wait(30)
        job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(10) == 0
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
    assert json.loads(job.state.read_text()) == {"core_1_in profile": "2023-02-02T00:00:00Z"}


def test_a_database_that_is_missing_is_said_once_and_judged_when_it_is_there(
    server: Influxd, run: Callable[..., Process]
) -> None:
    job = run(server.port, "--influx_db=later")
    job.wait_for(lambda said: "has no database later" in said)
    with connect(server, database="later") as client:
        client.create_database("later")
        job.wait_for(lambda said: "has no port_traffic of the last 28 days" in said)
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
    assert job.process.wait(30) == 1
    assert job.log.read_text() == (
        f"find_anomalies.py: InfluxDB at localhost:{server.port} cannot be reached;"
        " check --influx_host, --influx_port and that it runs\n"
    )


def test_after_a_server_was_away_for_hours_the_next_run_is_that_of_the_next_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr(hourly, "time", clock)
    times, traffic = samples(1)
    write(tmp_path, "1_1_in", times, traffic)
    is_away = True

    def open_source() -> Folder:
        if is_away:
            raise UnavailableError("away")
        return Folder(tmp_path)

    settings = hourly.Settings(str(tmp_path / "models"), ("profile",), None, Cluster(1))
    job = hourly._Job(settings, open_source, contextlib.nullcontext, Ending())
    # Two minutes past an hour, and two hours and a half later.
    now = 7320.0
    with pytest.raises(UnavailableError):
        job.run()
    now, is_away = now + 9000.0, False
    assert job.run() == 0
    assert job.next_run == now + 1800.0
