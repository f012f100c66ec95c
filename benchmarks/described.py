"""SKAB by the commands alone: `python -m benchmarks.described --skab DIR`.

Each recording is written into a real InfluxDB as eight gauges that a node file describes, one sample each
second. Then `--mode collect`, `--mode train --evaluate` and `--mode test --replay` do what
benchmarks.strangers does with the functions: learn the first 400 records and judge the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import influx_utils
from benchmarks.strangers import TRAIN_RECORDS, Counts, Recording, load_recording, recordings
from common.files import UserError
from common.times import format_time, parse_time
from lab.influxd import Influxd

COMMAND_FILE = Path(__file__).resolve().parent.parent / "find_anomalies.py"
SKAB_DATABASE = "skab"


def write(server: Influxd, recording: Recording) -> None:
    """Write the sensors of a recording, one measurement for each."""
    client = influx_utils.initializeConnection(server.host, server.port, "", "")
    client.query(f"DROP DATABASE {SKAB_DATABASE}", is_form=True)
    client.create_database(SKAB_DATABASE)
    times = recording.frame.index.as_unit("ns").asi8.tolist()
    for name in recording.metrics:
        points = [
            {"measurement": name, "time": time, "fields": {"value": value}, "tags": {"instance": "bench"}}
            for time, value in zip(times, recording.frame[name].tolist(), strict=True)
        ]
        for first in range(0, len(points), 5000):
            client.write(points[first : first + 5000], SKAB_DATABASE)


def run(folder: Path, *arguments: str) -> str:
    """What the program prints. Raises UserError, with what it logs, if it fails."""
    done = subprocess.run(
        [sys.executable, str(COMMAND_FILE), *arguments, "--interval", "1", "--node_file", "node.json"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"{' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def judged(server: Influxd, recording: Recording) -> Counts:
    """The records after those learnt, by what they are and by what the commands found."""
    write(server, recording)
    times = recording.frame.index.as_unit("ns").asi8
    first, last_learnt, last = (format_time(int(times[place])) for place in (0, TRAIN_RECORDS - 1, -1))
    place = ["--influx_host", server.host, "--influx_port", str(server.port), "--influx_db", SKAB_DATABASE]
    files = ["--model", "skab.h5", "--thresholds_file", "thresholds.json"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "node.json").write_text(json.dumps({"metrics": {name: {} for name in recording.metrics}}))
        for output, end in (("normal.csv", last_learnt), ("whole.csv", last)):
            until = format_time(parse_time(end) + 10**9)
            stretch = ["--stretch", f"{first}/{until}"]
            run(folder, "--mode", "collect", "--output", output, *stretch, *place)
        run(folder, "--mode", "train", "--evaluate", "--trainset", "normal.csv", *files)
        lines = run(folder, "--mode", "test", "--replay", "whole.csv", *files).splitlines()
    anomalies = [parse_time(json.loads(line)["time"]) for line in lines]
    found = np.isin(times, anomalies)[TRAIN_RECORDS:]
    return Counts.of(found, recording.is_anomaly[TRAIN_RECORDS:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result over all recordings; 0 done, 1 an error that the user can fix."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.described", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--skab", metavar="DIR", required=True, help="folder with recordings of SKAB")
    options = parser.parse_args(arguments)
    total = Counts(0, 0, 0, 0)
    try:
        paths = recordings(options.skab)
        with tempfile.TemporaryDirectory() as folder, Influxd(Path(folder)) as server:
            server.start()
            for number, path in enumerate(paths, 1):
                total += judged(server, load_recording(path))
                print(f"{number} of {len(paths)}, {path.name}: {total.describe()} so far", file=sys.stderr)
    except UserError as error:
        print(f"benchmarks.described: {error}", file=sys.stderr)
        return 1
    print(f"by the commands: {total.describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
