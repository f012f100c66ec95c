"""Processes that print what they measure, and the samples in a real InfluxDB that they poll."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

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


def write(place: Influxd, samples: Record, names: Sequence[str] | None = None) -> None:
    """Write samples, once for each of these nodes; without names, with the instances that they have."""
    client = influx_utils.initializeConnection(place.host, place.port, "", "", timeout_seconds=60.0)
    lines = []
    for name in names or [None]:
        for measurement, points in samples.items():
            for point in points:
                tags = dict(series_tags(point))
                if name is not None:
                    tags["instance"] = f"{name}:{3333 if tags['job'] == 'ran' else 9100}"
                tagged = ",".join(f"{key}={value}" for key, value in sorted(tags.items()))
                lines.append(f"{measurement},{tagged} value={float(point['value'])!r} {point['time']}")
        if len(lines) > 100_000 or name == (names or [None])[-1]:
            client.write_points(lines, database="metrics_db", batch_size=10_000, protocol="line")
            lines = []
