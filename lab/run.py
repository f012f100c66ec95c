"""One run of the lab: ordinary life, training, test mode, attacks, report. `python -m lab` runs it.

Standard input is a leash: once it is closed, the run ends.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from find_anomalies import make_parser as make_program_parser
from lab import parts, report
from lab.attacks import ATTACKS, SHORT, Attack, Attacked
from lab.edge import PROJECT, Edge, LabError, stop, wait_until
from utils import UserError

logger = logging.getLogger("lab")

NODE_FILE = "--node_file=node.json"


@dataclass(frozen=True)
class Plan:
    """How long each part of a run takes, in records; `before_seconds` at least, of judged ordinary life."""

    recorded: int = 420
    tested: int = 45
    before_seconds: float = 600.0
    settle: int = 30
    attack: int = 15
    calm: int = 25
    epochs: int = 110
    attacks: tuple[Attack, ...] = ATTACKS


SHORT_PLAN = Plan(
    recorded=60, tested=12, settle=4, before_seconds=5.0, attack=10, calm=10, epochs=60, attacks=SHORT
)


class Program:
    """find_anomalies.py, as a user runs it, in the folder of the run, with the defaults for all files."""

    def __init__(self, edge: Edge, interval_seconds: float) -> None:
        self._edge = edge
        self._interval_seconds = interval_seconds

    def _start(self, mode: str, *options: str, **settings: Any) -> subprocess.Popen:
        options = ("--mode", mode, f"--interval={self._interval_seconds:g}", *options)
        logger.info("python find_anomalies.py %s", " ".join(options))
        command = [sys.executable, str(PROJECT / "find_anomalies.py"), *options]
        # Its options may also stand in the environment, where the lab's user may have some of another node.
        named = {name.upper() for name in re.findall(r"--(\w+)", make_program_parser().format_help())}
        environment = {name: value for name, value in parts.environment().items() if name not in named}
        return self._edge.start(mode, command, cwd=self._edge.folder, env=environment, **settings)

    def run(self, mode: str, *options: str) -> None:
        """Run to the end; LabError with its last words if it fails. What it prints goes to `<mode>.log`."""
        process = self._start(mode, *options)
        if process.wait():
            raise LabError(f"--mode {mode} failed, see {self._edge.last_words(mode)}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[report.Log]:
        """Test mode against the live database, for as long as the `with` lasts, and what it says."""
        said = report.Log(self._edge.folder / "test_mode.log")
        process = self._start("test", NODE_FILE, stderr=subprocess.PIPE)
        assert process.stderr is not None
        reader = threading.Thread(target=said.read, args=(process.stderr,))
        reader.start()
        try:
            yield said
            if process.poll() is not None:
                raise LabError(f"test mode ended by itself, see {said.path}: {said.last_line}")
        finally:
            stop(process)
            reader.join()


def run(output: Path, interval_seconds: float, seed: int, plan: Plan) -> None:
    """The whole run, its files in `output`; raises LabError."""
    with Edge(output, interval_seconds, seed) as edge:
        program = Program(edge, interval_seconds)
        edge.write_node_file(output / "node.json")
        for name in ("data", "model", "plots"):
            (output / name).mkdir()
        _learn(edge, program, interval_seconds, plan)
        # Training, and the start of test mode, take more of the CPU than ordinary life does.
        _wait("calm", plan.settle * interval_seconds)
        with program.watching() as said:
            wait_until(lambda: bool(said.verdicts or said.has_ended), "test mode", 60 + 40 * interval_seconds)
            _wait("calm", plan.settle * interval_seconds)
            begin = time.time()
            _wait("ordinary life, judged", plan.before_seconds)
            attacked = _attack(edge, interval_seconds, plan, random.Random(seed))
        lasted = time.time() - begin
        program.run("collect", NODE_FILE, "--output=data/run.csv", f"--since={lasted:.0f}s")
        database = _look(edge)
        # Drawn live, pictures would take CPU of the host that is watched.
        program.run("test", "--replay=data/run.csv", "--plot=run.png", "--plot_dir=alerts")
    for servers_data in ("influxdb", "prometheus"):
        shutil.rmtree(output / servers_data)
    # The report names its files as find_anomalies.py does, from the folder of the run.
    os.chdir(output)
    report.write(said, begin, attacked, database, interval_seconds)


def _learn(edge: Edge, program: Program, interval_seconds: float, plan: Plan) -> None:
    """Record ordinary life and train on it; two shorter stretches make the thresholds honest."""
    # What training reads stays in the page cache, and would be missing from the free memory afterwards.
    edge.start("warm", [sys.executable, "-c", "import tensorflow, pandas, matplotlib.figure"]).wait()
    wait_until(lambda: _has_all(edge), "the first sample of each series", 60 + 2 * interval_seconds)
    for name, records in (("normal", plan.recorded), ("normal_2", plan.tested), ("normal_3", plan.tested)):
        seconds = records * interval_seconds
        _wait(f"ordinary life, recorded into {name}.csv", seconds)
        program.run("collect", NODE_FILE, f"--output=data/{name}.csv", f"--since={seconds:.0f}s")
    testsets = ("--cpu_testset=data/normal_2.csv", "--iperf_testset=data/normal_3.csv")
    program.run("train", "--evaluate", *testsets, f"--epochs={plan.epochs}")


def _has_all(edge: Edge) -> bool:
    stored = {row["name"] for row in edge.client.get_list_measurements()}
    return {
        "node_cpu_seconds_total",
        "node_network_receive_bytes_total",
        "rx_cpu_time",
        "dl_bitrate",
    } <= stored


def _attack(edge: Edge, interval_seconds: float, plan: Plan, rng: random.Random) -> list[Attacked]:
    """All attacks of the plan, each followed by calm; their true windows."""
    attacked = []
    for attack in plan.attacks:
        edge.check()
        start = time.time()
        with attack.launch(edge):
            _wait(attack.name, plan.attack * interval_seconds)
        attacked.append(Attacked(attack.name, attack.causes, attack.kills_exporter, start, time.time()))
        # An attack begins at any moment between two scrapes.
        _wait("calm", (plan.calm + rng.random()) * interval_seconds)
    return attacked


def _look(edge: Edge) -> dict[str, Any]:
    """What InfluxDB holds."""
    counted = edge.client.query("SELECT count(cpu_usage) FROM detected_anomalies").get_points()
    return {
        "anomalies_stored": next((int(point["count"]) for point in counted), 0),
        "measurements": sorted(row["name"] for row in edge.client.get_list_measurements()),
    }


def _wait(what: str, seconds: float) -> None:
    logger.info("%s: %.0f s", what, seconds)
    time.sleep(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lab in the namespaces that this process has; 0 done, 1 a fault that the user can mend."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    # What a shell runs in the background ignores SIGINT otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    output = Path(options.output_dir).resolve() / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    plan = SHORT_PLAN if options.short else Plan()
    try:
        threading.Thread(target=_end_with_leash, daemon=True).start()
        run(output, options.interval, options.seed, plan)
    except (LabError, UserError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted, all that it had started is ended", file=sys.stderr)
        return 130
    return 0


def _end_with_leash() -> None:
    while os.read(0, 4096):
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # The kernel counts CPU time in hundredths of a second.
    if not 1 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 60")
    return seconds


def make_parser() -> argparse.ArgumentParser:
    """The options of `python -m lab`."""
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Run the detector against a real edge on this machine."
    )
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        help="seconds between scrapes, and between records, 1 or more (default: %(default)g)",
    )
    parser.add_argument(
        "--short", action="store_true", help="little training and two attacks only: under 4 minutes"
    )
    parser.add_argument(
        "--output_dir", default="plots/lab", help="each run has a folder in it (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of ordinary life (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
