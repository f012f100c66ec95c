"""Processes that print what they measure, and the samples in a real InfluxDB that they poll."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from influxdb import InfluxDBClient

import influx_utils
from lab.influxd import Influxd
from nodes.series import Record, series_tags

Figures = dict[str, float]


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A module of this folder, as a process that prints lines of JSON; it is ended at the end."""
    # Services start from compiled files: the first process writes them, the others read them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", *arguments]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as started,
    ):
        try:
            yield started
        finally:
            started.terminate()
            started.communicate()
        if started.returncode > 0:
            log.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: {log.read().decode(errors='replace')[-2000:]}")


def line_of(started: subprocess.Popen[str]) -> Figures:
    """The next line that a process prints. Raises RuntimeError if there is none."""
    assert started.stdout is not None
    if not (line := started.stdout.readline()):
        raise RuntimeError(f"{started.args}: ended")
    return json.loads(line)


def all_lines(*arguments: str) -> list[Figures]:
    """All lines of a process that ends by itself."""
    with process(*arguments) as started:
        assert started.stdout is not None
        return [json.loads(line) for line in started.stdout]


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had, resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


@contextlib.contextmanager
def server() -> Iterator[Influxd]:
    """A real InfluxDB with an empty database."""
    with tempfile.TemporaryDirectory() as folder, Influxd(Path(folder) / "influxd") as started:
        influx_utils.initializeConnection(started.host, started.port, "", "").create_database("metrics_db")
        yield started


@contextlib.contextmanager
def live(place: Influxd, samples: Record, names: Sequence[str] | None = None) -> Iterator[None]:
    """Write what is past at once, and inside the `with` each sample when its time comes, as exporters do.

    names: each of these hosts has the samples; without names, they keep the hosts that they have.
    """
    lines = sorted(_lines(samples))
    times = [time_ns for time_ns, *_ in lines]
    client = InfluxDBClient(place.host, place.port, timeout=60.0, retries=1)
    written = 0
    ended = threading.Event()

    def write_due() -> None:
        nonlocal written
        due = bisect.bisect(times, time.time_ns())
        while written < due:
            part = lines[written : min(due, written + 1000)]
            hosts = names or [None]
            texts = [
                f"{before}{host or its_host}{after}" for _, before, its_host, after in part for host in hosts
            ]
            client.write_points(texts, database="metrics_db", batch_size=10_000, protocol="line")
            written += len(part)

    def write_on() -> None:
        while not ended.wait(0.05):
            write_due()

    write_due()
    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _lines(samples: Record) -> Iterator[tuple[int, str, str, str]]:
    """Of each sample: its time in ns, and the line that InfluxDB takes, cut before and after its host."""
    for measurement, points in samples.items():
        for point in points:
            tags = dict(series_tags(point))
            host = tags.pop("instance").partition(":")[0]
            tagged = "".join(f"{key}={value}," for key, value in sorted(tags.items()))
            port = 3333 if tags["job"] == "ran" else 9100
            after = f":{port} value={float(point['value'])!r} {point['time']}"
            yield point["time"], f"{measurement},{tagged}instance=", host, after
