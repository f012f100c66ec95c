"""One run of the lab: ordinary life, training, test mode, attacks, report. `python -m lab` runs it.

Standard input is a leash: once it is closed, the run ends.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import influx_utils
from commands.options import environment_names
from common.alerts import ALERT_RECORDS, WINDOW_RECORDS
from common.files import UserError
from edge.poll_log import PollLog
from lab import parts, report
from lab.attacks import ATTACKS, SHORT, Attacked, AttackKind
from lab.edge import PROJECT, Edge, LabError, wait_until
from lab.options import make_parser
from nodes.metrics import METRICS

logger = logging.getLogger("lab")

NODE_FILE = "--node_file=node.json"
_MODEL = f"--model={report.MODEL}"


@dataclass(frozen=True)
class Plan:
    """How long each part of a run takes, in records: `recorded` to train on, twice `tested` for --evaluate,
    twice `settle` around the start of test mode, each attack and the calm after it. before_seconds: how long
    ordinary life is judged before the first attack.
    """

    recorded: int = 420
    tested: int = 45
    before_seconds: float = 600.0
    settle: int = 30
    attack: int = 15
    # So long that a rule on the window alone falls silent, too.
    calm: int = WINDOW_RECORDS + ALERT_RECORDS
    epochs: int = 110
    attacks: tuple[AttackKind, ...] = ATTACKS


SHORT_PLAN = Plan(
    recorded=90, tested=5, settle=4, before_seconds=4.0, attack=10, calm=8, epochs=40, attacks=SHORT
)


class Program:
    """find_anomalies.py, as a user runs it, in the folder of the run, with the default name of most files."""

    def __init__(self, edge: Edge, interval_seconds: float) -> None:
        self._edge = edge
        self._interval_seconds = interval_seconds

    def _start(self, name: str, mode: str, *options: str, is_part: bool = False) -> subprocess.Popen:
        options = ("--mode", mode, f"--interval={self._interval_seconds:g}", *options)
        logger.info("python find_anomalies.py %s", " ".join(options))
        command = [sys.executable, str(PROJECT / "find_anomalies.py"), *options]
        # Its options may also stand in the environment, where the lab's user may have some of another node.
        names = environment_names()
        environment = {key: value for key, value in parts.environment().items() if key not in names}
        environment["TZ"] = "UTC"
        return self._edge.start(name, command, is_part, cwd=self._edge.folder, env=environment)

    def run(self, name: str, mode: str, *options: str) -> None:
        """Run to the end, with the output in `<name>.log`; LabError with its last words if it fails."""
        if self._start(name, mode, *options).wait():
            raise LabError(f"--mode {mode} failed, see {self._edge.last_words(name)}")

    def watch(self) -> None:
        """Start test mode against the live database as the part `test_mode`."""
        self._start("test_mode", "test", NODE_FILE, _MODEL, "--plot_dir=alerts", is_part=True)


def run(output: Path, interval_seconds: float, seed: int, plan: Plan) -> None:
    """The whole run, its files in `output`; raises LabError."""
    for name in ("data", "model", "plots"):
        (output / name).mkdir(parents=True)
    try:
        with Edge(output, interval_seconds, seed) as edge:
            begin, attacked, database = _live(edge, interval_seconds, seed, plan)
    finally:
        for servers_data in ("influxdb", "prometheus"):
            shutil.rmtree(output / servers_data, ignore_errors=True)
    published = report.Published(PollLog(output / "state"))
    report.write(output, published, begin, attacked, database, interval_seconds)


def _live(
    edge: Edge, interval_seconds: float, seed: int, plan: Plan
) -> tuple[float, list[Attacked], dict[str, Any]]:
    """From the first record to the last: when judging began, the attacks, and what InfluxDB then holds."""
    program = Program(edge, interval_seconds)
    edge.write_node_file(edge.folder / "node.json")
    _learn(edge, program, interval_seconds, plan)
    # Training and the start of test mode take more CPU than ordinary life does.
    _wait(edge, "calm", plan.settle * interval_seconds)
    program.watch()
    _wait(edge, "calm", plan.settle * interval_seconds)
    begin = time.time()
    _wait(edge, "ordinary life, judged", plan.before_seconds)
    attacked = _attack(edge, interval_seconds, plan, random.Random(seed))
    edge.end("test_mode")
    # It includes the window before, so that all of it can be judged again.
    lasted = time.time() - begin + WINDOW_RECORDS * interval_seconds
    program.run("collect_run", "collect", NODE_FILE, "--output=data/run.csv", f"--since={lasted:.0f}s")
    return begin, attacked, _look(edge)


def _learn(edge: Edge, program: Program, interval_seconds: float, plan: Plan) -> None:
    """Record ordinary life and train on it; --evaluate judges two more stretches of it."""
    # What training reads stays in the page cache, and would be missing from the free memory afterwards.
    edge.start("warm", [sys.executable, "-c", "import tensorflow, pandas, matplotlib.figure"]).wait()
    wait_until(lambda: _has_all(edge), "the first sample of each series", 60 + 2 * interval_seconds)
    for name, records in (("normal", plan.recorded), ("normal_2", plan.tested), ("normal_3", plan.tested)):
        seconds, output = records * interval_seconds, f"data/{name}.csv"
        _wait(edge, f"ordinary life, recorded into {output}", seconds)
        program.run(f"collect_{name}", "collect", NODE_FILE, f"--output={output}", f"--since={seconds:.0f}s")
    testsets = ("--cpu_testset=data/normal_2.csv", "--iperf_testset=data/normal_3.csv")
    program.run("train", "train", _MODEL, "--evaluate", *testsets, f"--epochs={plan.epochs}")


def _has_all(edge: Edge) -> bool:
    return set(METRICS.measurements) <= set(_measurements(edge))


def _measurements(edge: Edge) -> list[str]:
    (answer,) = influx_utils.run(edge.client, ["SHOW MEASUREMENTS"])
    return sorted(name for series in answer for (name,) in series["values"])


def _attack(edge: Edge, interval_seconds: float, plan: Plan, rng: random.Random) -> list[Attacked]:
    """Carry out all attacks of the plan, each followed by calm. Returns them with their true times."""
    attacked = []
    for attack in plan.attacks:
        start = time.time()
        with attack.launch(edge):
            _wait(edge, attack.name, plan.attack * interval_seconds)
        attacked.append(Attacked(attack.name, attack.causes, attack.kills_exporter, start, time.time()))
        # An attack begins at any moment between two scrapes.
        _wait(edge, "calm", (plan.calm + rng.random()) * interval_seconds)
    return attacked


def _look(edge: Edge) -> dict[str, Any]:
    """What InfluxDB holds."""
    (counted,) = influx_utils.run(edge.client, ["SELECT count(cpu_usage) FROM detected_anomalies"])
    return {
        "anomalies_stored": counted[0]["values"][0][1] if counted else 0,
        "measurements": _measurements(edge),
    }


def _wait(edge: Edge, what: str, seconds: float) -> None:
    """Let time pass; LabError if a part ends meanwhile."""
    logger.info("%s: %.0f s", what, seconds)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        edge.check()
        time.sleep(min(left, 0.5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lab in the namespaces that this process has; 0 done, 1 a fault that the user can fix."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    # A process that a shell runs in the background otherwise ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    output = Path(options.output_dir).resolve() / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    plan = SHORT_PLAN if options.short else Plan()
    try:
        threading.Thread(target=_end_with_leash, daemon=True).start()
        run(output, options.interval, options.seed, plan)
    except (LabError, UserError, parts.MissingPart) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"lab: {error}; free some space, or name another --output_dir", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; everything it had started was ended", file=sys.stderr)
        return 130
    return 0


def _end_with_leash() -> None:
    while os.read(0, 4096):
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
