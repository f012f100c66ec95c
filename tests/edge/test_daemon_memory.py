"""A long time in fast motion: what the daemon holds does not grow."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from influxdb import InfluxDBClient

from lab.influxd import Influxd
from nodes.series import Record
from simulators.edge import simulate
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
POLLS = 3000
# The libraries' own caches of freed memory are not full before.
WARM_POLLS = 2000
# How many polls in a row are compared: in one of them, samples of the next record are there already.
IN_A_ROW = 5


class Held(NamedTuple):
    """Memory of the daemon after a poll, and what of it has been given out and not been given back."""

    resident_bytes: int
    malloc_bytes: int
    python_blocks: int


def test_three_thousand_polls_need_no_more_memory_than_the_first_ones(
    tmp_path: Path, influxd: Influxd
) -> None:
    with connect(influxd, database="year") as client:
        client.create_database("year")
        try:
            held, log = fast_motion(client, influxd.port, tmp_path)
        finally:
            client.drop_database("year")
    assert len(held) == POLLS
    assert held[-1].resident_bytes <= 1.02 * held[99].resident_bytes
    before, after = least(held[:WARM_POLLS]), least(held)
    polls = POLLS - WARM_POLLS
    # One object kept by every fourth poll would be seen, and 50 bytes kept by each.
    assert after.python_blocks - before.python_blocks < polls / 4
    assert after.malloc_bytes - before.malloc_bytes < polls * 50
    assert "Traceback" not in log
    # One line a poll at INFO, at most; those of one that saw two slots are two.
    assert log.count("INFO:") <= POLLS


def least(held: list[Held]) -> Held:
    """The least of each that was held after the last few polls."""
    return Held(*map(min, zip(*held[-IN_A_ROW:], strict=True)))


def fast_motion(client: InfluxDBClient, port: int, folder: Path) -> tuple[list[Held], str]:
    """What is held after each poll, and the log. Garbage is collected before what is compared."""
    begin = int(time.time()) - POLLS - 100
    command = [sys.executable, "tests/support/fast_motion.py", str(port), "year"]
    command += [str(folder / "state"), str(begin * SECOND), "1"]
    pipe = subprocess.PIPE
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, text=True)
    held = []
    try:
        for number, chunk in enumerate(lives_in_chunks(begin, POLLS), 1):
            # The next samples are written while a poll goes on.
            write_samples(client, chunk)
            if number > 1:
                held.append(read(child))
            is_compared = any(0 <= end - number < IN_A_ROW for end in (WARM_POLLS, POLLS))
            child.stdin.write("collect\n" if is_compared else "\n")
            child.stdin.flush()
        held.append(read(child))
    finally:
        child.stdin.close()
        child.wait(60)
        child.stdout.close()
    return held, (folder / "log").read_text()


def read(child: subprocess.Popen) -> Held:
    return Held(*map(int, child.stdout.readline().split()))


def lives_in_chunks(begin: int, seconds: int) -> list[Record]:
    """The samples of each second by themselves."""
    chunks: list[Record] = [{} for _ in range(seconds)]
    for name, points in simulate(3, begin, seconds, interval_seconds=1).items():
        for point in points:
            chunks[min(point["time"] // SECOND - begin, seconds - 1)].setdefault(name, []).append(point)
    return chunks
