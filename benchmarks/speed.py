"""The product beside the documented design, in one run: `python -m benchmarks.speed [--short]`.

Both do the same work in turn, each in processes of its own, against one real InfluxDB. CPU is the user and
system time of the process, without the server's. Prints the tables of docs/speed.md; every single figure goes
to plots/speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Figures, all_lines, line_of, live, peak_megabytes, process, server
from common.files import saveDictJson
from edge.paths import trainset
from lab.influxd import Influxd
from simulators import edge

THEIRS, OURS = "documented", "product"
DAY_RECORDS = 5760
# A record each second, so that a poll can be measured each second.
POLL_SECONDS = 1.0
# Before these, a process is still busy with what it does once.
FIRST_POLLS = 3
# The records that a process reads when it starts, with some to spare.
HISTORY_SECONDS = 120
FLEET_INTERVAL_SECONDS = 15.0
FLEET_HISTORY_RECORDS = 70
FLEET_SECONDS = 2400.0
FLEET_POLLS = 4


@dataclass
class Comparison:
    """One row of the table: what was measured, once for each repetition. decimals: of what is printed."""

    what: str
    decimals: int
    documented: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """How many times as much the documented design takes, smallest first."""
        return sorted(a / b for a, b in zip(self.documented, self.product, strict=True))

    def row(self) -> str:
        """A line of the table, in Markdown."""
        ratios = self.ratios()
        cells = [f"{statistics.median(one):.{self.decimals}f}" for one in (self.documented, self.product)]
        spread = f"{statistics.median(ratios):.3g} ({ratios[0]:.3g}-{ratios[-1]:.3g})"
        return f"| {self.what} | {' | '.join(cells)} | {spread} |"


TABLE_HEADING = "| what | documented | product | ratio: median (lowest-highest) |\n| --- | --- | --- | --- |"


# --- one node --------------------------------------------------------------------------------------


def measure_test_mode(place: Influxd, folder: Path, polls: int) -> dict[str, Figures]:
    """Start each of the two, let it poll, and end it: design -> its figures."""
    commands = {
        THEIRS: ("benchmarks.documented", "test", "--folder", str(folder), "--interval", "1"),
        OURS: ("benchmarks.product", "test", "--mode", "test", "--interval", "1"),
    }
    figures = {}
    for design, command in commands.items():
        with tempfile.TemporaryDirectory() as state:
            kept = ("--state_dir", state) * (design == OURS)
            begin = time.perf_counter()
            with process(*command, "--influx_port", str(place.port), *kept) as started:
                first = line_of(started)
                seconds = time.perf_counter() - begin
                figures[design] = {
                    "start": seconds,
                    "start_cpu": first["cpu"],
                    **polled(started, polls),
                    "memory": peak_megabytes(started.pid),
                }
    return figures


def polled(started: subprocess.Popen[str], polls: int) -> Figures:
    """Milliseconds of CPU, of the whole process, and of wall time that a poll takes."""
    for _ in range(FIRST_POLLS):
        before = line_of(started)
    lines = [line_of(started) for _ in range(polls)]
    return {
        "poll_cpu": 1000 * (lines[-1]["cpu"] - before["cpu"]) / polls,
        "poll_wall": 1000 * statistics.median(line["wall"] for line in lines),
    }


def compare_test_mode(folder: Path, repetitions: int, polls: int) -> dict[str, Comparison]:
    """Start, memory and polls of one node."""
    rows = {
        "start": Comparison("start to first verdict, s", 2),
        "start_cpu": Comparison("start to first verdict, s of CPU", 2),
        "memory": Comparison("memory, MB", 0),
        "poll_cpu": Comparison("CPU of a poll, ms", 1),
        "poll_wall": Comparison("wall time of a poll, ms", 1),
    }
    # The first start compiles, and reads from the disk.
    for repetition in range(-1, repetitions):
        seconds = HISTORY_SECONDS + 2 * (polls + FIRST_POLLS) + 180
        samples = edge.simulate(7, int(time.time()) - HISTORY_SECONDS, seconds, interval_seconds=POLL_SECONDS)
        with server() as place, live(place, samples):
            figures = measure_test_mode(place, folder, polls if repetition >= 0 else 1)
        if repetition >= 0:
            for key, row in rows.items():
                row.documented.append(figures[THEIRS][key])
                row.product.append(figures[OURS][key])
    return rows


# --- evaluation and training -----------------------------------------------------------------------


def compare_evaluation(folder: Path, repetitions: int, windows: int) -> list[Comparison]:
    """Evaluation of a day of records; of the documented one, so many windows, counted as a whole day's."""
    day = folder / "day.csv"
    with open(trainset, encoding="utf-8") as file:
        day.write_text("".join(line for line, _ in zip(file, range(DAY_RECORDS + 1), strict=False)))
    rows = [Comparison(f"evaluation of a day, s of {name}", 2) for name in ("CPU", "wall time")]
    drawn = Comparison("evaluation of a day, with its picture, s of CPU", 2)
    command = ("benchmarks.documented", "evaluate", "--folder", str(folder), "--dataset", str(day))
    for _ in range(repetitions):
        begin, first, end = all_lines(*command, "--windows", str(windows))
        ours = all_lines("benchmarks.product", "evaluate", str(day))
        for row, clock in zip(rows, ("cpu", "wall"), strict=True):
            each = (end[clock] - first[clock]) / windows
            row.documented.append(first[clock] - begin[clock] + each * (first["windows"] - 1))
            row.product.append(ours[1][clock] - ours[0][clock])
        drawn.documented.append(rows[0].documented[-1])
        drawn.product.append(ours[2]["cpu"] - ours[0]["cpu"])
    return [*rows, drawn]


def evaluation_of_shipped(repetitions: int) -> str:
    """One line: evaluate() of the three shipped datasets, with and without pictures."""
    steps = [all_lines("benchmarks.product", "evaluate_shipped") for _ in range(repetitions)]
    with_pictures, without = (
        {clock: statistics.median(one[i + 1][clock] - one[i][clock] for one in steps) for clock in one_step}
        for i, one_step in enumerate(steps[0][:2])
    )
    return (
        f"Evaluation of the three shipped datasets: {without['cpu']:.2f} s of CPU ({without['wall']:.2f} s)"
        f" without pictures, {with_pictures['cpu']:.2f} s ({with_pictures['wall']:.2f} s) with them."
    )


def compare_training(folder: Path, repetitions: int, epochs: int) -> str:
    """Both learn the same records: the time that each takes to a held-out RMSE, and what became of both.

    The documented training takes all its epochs. The product stops after the first that predicts as well as
    the best of those; it is as good as the documented network ever is, or better.
    """
    command = ("benchmarks.documented", "train", "--folder", str(folder), "--dataset", trainset)
    theirs, ours = [], []
    for _ in range(repetitions):
        theirs.append(all_lines(*command, "--epochs", str(epochs)))
        best = min(step["rmse"] for step in theirs[-1][:-1])
        for count in range(1, epochs + 1):
            (trained,) = all_lines("benchmarks.product", "train", trainset, str(count))
            if trained["rmse"] <= best:
                break
        ours.append(trained)
    *steps, end = theirs[0]
    reached = ours[0]["rmse"]
    # The numbers of a training are the same each time, but not its seconds.
    soonest = next(place for place, step in enumerate(steps) if step["rmse"] < 1.001 * best)
    never = min(step["rmse"] for step in steps) > reached
    same = Comparison(f"training to a held-out RMSE of {best:.3f}, s of CPU", 0)
    better = Comparison(f"training to a held-out RMSE of {reached:.3f}, s of CPU", 0)
    for row, place in ((same, soonest), (better, len(steps) - 1)):
        row.documented += [one[place]["cpu"] for one in theirs]
        row.product += [one["cpu"] for one in ours]
    rows = [same.row(), better.row()]
    words = (
        f"After {epochs} epochs the documented network has a held-out RMSE of {steps[-1]['rmse']:.4f}; the"
        f" mean of the learnt records has {end['mean_rmse']:.4f}. Its answers to random inputs have a"
        f" standard deviation of {end['spread']:.1e}. After {ours[0]['epochs']:g} epoch(s) ours has"
        f" {reached:.4f}."
        + " The documented network never reached that: its seconds are those of all its epochs."
        * never
    )
    return "\n".join([*rows, "", words])


# --- many nodes ------------------------------------------------------------------------------------


def fleet_table(counts: Sequence[int], one: Figures) -> str:
    """What a poll of so many nodes costs, beside as many documented processes. one: figures of one."""
    headings = [
        "nodes",
        "CPU of a poll, ms",
        "for each node",
        "wall time, ms",
        "memory, MB",
        "for each node",
        "documented: CPU, ms",
        "memory, MB",
        "CPU ratio",
        "memory ratio",
    ]
    lines = [f"| {' | '.join(headings)} |", "|" + " ---: |" * len(headings)]
    for count in counts:
        ours = fleet_cost(count)
        cpu, memory = ours["poll_cpu"], ours["memory"]
        theirs_cpu, theirs_memory = count * one["poll_cpu"], count * one["memory"]
        cells = [
            f"{count:,}",
            f"{cpu:.1f}",
            f"{cpu / count:.2f}",
            f"{ours['poll_wall']:.0f}",
            f"{memory:.0f}",
            f"{memory / count:.2f}",
            f"{theirs_cpu:,.0f}",
            f"{theirs_memory:,.0f}",
            f"{theirs_cpu / cpu:.0f}",
            f"{theirs_memory / memory:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fleet_cost(count: int) -> Figures:
    """CPU and wall time of a poll in ms, and memory in MB, of one process that watches so many nodes."""
    names = [f"site-{number}" for number in range(count)]
    begin = int(time.time()) - FLEET_HISTORY_RECORDS * FLEET_INTERVAL_SECONDS
    # The history of a thousand nodes takes a minute or two to write.
    samples = edge.simulate(7, begin, FLEET_SECONDS)
    with server() as place, live(place, samples, names), tempfile.TemporaryDirectory() as state:
        every = ("--node", "all") * (count > 1)
        command = ("benchmarks.product", "test", "--mode", "test", "--influx_port", str(place.port), *every)
        with process(*command, "--state_dir", state) as started:
            return {**polled(started, FLEET_POLLS), "memory": peak_megabytes(started.pid)}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer repetitions: some minutes")
    parser.add_argument(
        "--nodes", type=int, nargs="+", metavar="N", help="how many nodes one process watches"
    )
    options = parser.parse_args()
    repetitions, trainings, polls, windows, epochs = (
        (2, 1, 10, 50, 2) if options.short else (5, 3, 20, 300, 10)
    )
    counts = options.nodes or ((1, 10) if options.short else (1, 10, 100, 1000))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trained = compare_training(folder, trainings, epochs)
        evaluated = compare_evaluation(folder, repetitions, windows)
        tested = compare_test_mode(folder, repetitions, polls)
    rows = [*tested.values(), *evaluated]
    print("\n".join([TABLE_HEADING, *(row.row() for row in rows), trained]), flush=True)
    print(f"\n{evaluation_of_shipped(repetitions)}\n", flush=True)
    one = {key: statistics.median(tested[key].documented) for key in ("poll_cpu", "memory")}
    print(fleet_table(counts, one), flush=True)
    content = {row.what: {THEIRS: row.documented, OURS: row.product} for row in rows}
    saveDictJson(content, "plots/speed.json")


if __name__ == "__main__":
    main()
