"""One run of the lab: ordinary life, training, test mode, attacks, report. `python -m lab` runs it.

Standard input is a leash: once it is closed, the run ends.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
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

from lab import report
from lab.attacks import ATTACKS, SHORT, Attack, Attacked
from lab.edge import PROJECT, Edge, LabError, stop, wait_until

logger = logging.getLogger("lab")

TRAINING_STEPS = 3000
BATCH = 16
NODE_FILE = "--node_file=node.json"


@dataclass(frozen=True)
class Plan:
    """How long each part of a run takes, in records; `before_seconds` at least, of judged ordinary life."""

    recorded: int = 420
    tested: int = 45
    before_seconds: float = 600.0
    attack: int = 16
    calm: int = 30
    attacks: tuple[Attack, ...] = ATTACKS


SHORT_PLAN = Plan(recorded=75, tested=15, before_seconds=10.0, attack=12, calm=15, attacks=SHORT)


class Program:
    """find_anomalies.py, as a user runs it, in the folder of the run, with the defaults for all files."""

    def __init__(self, edge: Edge, interval_seconds: float) -> None:
        self._edge = edge
        self._interval_seconds = interval_seconds

    def _command(self, mode: str, *options: str) -> list[str]:
        options = ("--mode", mode, f"--interval={self._interval_seconds:g}", *options)
        logger.info("python find_anomalies.py %s", " ".join(options))
        return [sys.executable, str(PROJECT / "find_anomalies.py"), *options]

    def run(self, mode: str, *options: str) -> None:
        """Run to the end; LabError with its last words if it fails. What it prints goes to `<mode>.log`."""
        process = self._edge.start(mode, self._command(mode, *options), cwd=self._edge.folder)
        if process.wait():
            raise LabError(f"--mode {mode} failed, see {self._edge.last_words(mode)}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[report.Log]:
        """Test mode against the live database, for as long as the `with` lasts, and what it says."""
        command = self._command("test", NODE_FILE, "--plot_dir=alerts")
        folder = self._edge.folder
        said = report.Log(folder / "test_mode.log")
        process = self._edge.start("test", command, cwd=folder, stderr=subprocess.PIPE)
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
        with program.watching() as said:
            wait_until(lambda: bool(said.verdicts), "the first verdict", 60 + 40 * interval_seconds)
            begin = time.time()
            _wait("ordinary life, judged", plan.before_seconds)
            attacked = _attack(edge, interval_seconds, plan)
        lasted = time.time() - begin
        program.run("collect", NODE_FILE, "--output=data/run.csv", f"--since={lasted:.0f}s")
        database = _look(edge)
    for servers_data in ("influxdb", "prometheus"):
        shutil.rmtree(output / servers_data)
    report.write(output, said, begin, attacked, database, interval_seconds)


def _learn(edge: Edge, program: Program, interval_seconds: float, plan: Plan) -> None:
    """Record ordinary life and train on it; two shorter stretches make the thresholds honest."""
    # What training reads stays in the page cache, and would be missing from the free memory afterwards.
    edge.start("warm", [sys.executable, "-c", "import tensorflow, pandas, matplotlib.figure"]).wait()
    wait_until(lambda: _has_all(edge), "the first sample of each series", 60 + 2 * interval_seconds)
    for name, records in (("normal", plan.recorded), ("normal_2", plan.tested), ("normal_3", plan.tested)):
        seconds = records * interval_seconds
        _wait(f"ordinary life, recorded into {name}.csv", seconds)
        program.run("collect", NODE_FILE, f"--output=data/{name}.csv", f"--since={seconds:.0f}s")
    epochs = max(TRAINING_STEPS * BATCH // plan.recorded, 10)
    testsets = ("--cpu_testset=data/normal_2.csv", "--iperf_testset=data/normal_3.csv")
    program.run("train", "--evaluate", *testsets, f"--epochs={epochs}")


def _has_all(edge: Edge) -> bool:
    stored = {row["name"] for row in edge.client.get_list_measurements()}
    return {
        "node_cpu_seconds_total",
        "node_network_receive_bytes_total",
        "rx_cpu_time",
        "dl_bitrate",
    } <= stored


def _attack(edge: Edge, interval_seconds: float, plan: Plan) -> list[Attacked]:
    """All attacks of the plan, each followed by calm; their true windows."""
    attacked = []
    for attack in plan.attacks:
        start = time.time()
        with attack.launch(edge):
            _wait(attack.name, plan.attack * interval_seconds)
        attacked.append(Attacked(attack.name, attack.causes, attack.kills_exporter, start, time.time()))
        _wait("calm", plan.calm * interval_seconds)
    return attacked


def _look(edge: Edge) -> dict[str, Any]:
    """What InfluxDB holds."""
    counted = edge.client.query("SELECT count(cpu_usage) FROM detected_anomalies").get_points()
    return {
        "anomalies_stored": next((int(point["count"]) for point in counted), 0),
        "measurements": sorted(row["name"] for row in edge.client.get_list_measurements()),
    }


def _wait(what: str, seconds: float) -> None:
    logger.info("%s: %g s", what, seconds)
    time.sleep(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lab in the namespaces that this process has; 0 done, 1 a fault that the user can mend."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    threading.Thread(target=_end_with_leash, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = Path(options.output_dir).resolve() / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    plan = SHORT_PLAN if options.short else Plan()
    try:
        os.chdir(PROJECT)
        run(output, options.interval, options.seed, plan)
    except (LabError, FileNotFoundError) as error:
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


def make_parser() -> argparse.ArgumentParser:
    """The options of `python -m lab`."""
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Run the detector against a real edge on this machine."
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=1.0,
        help="seconds between scrapes, and between records (default: %(default)g)",
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
