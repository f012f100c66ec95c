"""What an answer "normal" keeps quiet: the same pattern never alerts again, twice the load always does.

python -m benchmarks.answers --seeds 3

Each pattern is a load on a simulated node (simulators/edge.py) with the shipped model. Its incident is
answered with `normal`; on later days the node has the pattern again, as it was or otherwise, and the alerts
that are left are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import formatters
from common.answers import Answer, daily_around
from common.times import DAY_SECONDS
from edge.answering import pattern_of
from edge.bundle import Bundle, load_bundle
from edge.detector import Detector, Verdict
from edge.incidents import Incidents
from edge.paths import DEFAULT_MODEL
from edge.quiet import NodeQuiet, Quiet
from edge.thresholds import load_thresholds
from edge.why import deviations
from nodes.series import RECORD_SECONDS
from simulators.edge import Attack, simulate

MINUTE = 60.0
# A Monday at midnight.
FIRST_DAY = 1_772_409_600.0
ZONE = "Europe/Rome"
LEAD_SECONDS = 60 * MINUTE
# Kind, size (None: what it takes without one), hour of the day, and minutes.
PATTERNS = (
    ("cpu", 98.5, 11, 18),
    ("cpu", 40.0, 3, 60),
    ("cpu", 20.0, 15, 30),
    ("memory", 4.0, 12, 20),
    ("memory", 1.0, 9, 40),
    ("upload", 2e6, 2, 45),
    ("upload", 60e3, 13, 30),
    ("upload", 20e3, 20, 40),
    ("iperf", None, 10, 17),
    ("flood", None, 18, 25),
)
# Another load, and its size: for those that are not the CPU's.
OTHERS = {"cpu": ("upload", 2e6), "iperf": ("memory", 4.0), "flood": ("memory", 4.0)}
AS_BEFORE, TWICE, AT_OTHER_TIME, OTHER_METRIC = "the same", "twice as large", "other time", "other metric"
VARIANTS = (AS_BEFORE, "jittered", TWICE, AT_OTHER_TIME, OTHER_METRIC)


def load_of(kind: str, size: float | None, start: float, minutes: float, times: float = 1.0) -> list[Attack]:
    """A load, so many times as large."""
    if size is None:
        return [Attack(kind, start, start + minutes * MINUTE)] * round(times)
    # What the node does by itself is not part of the load.
    usual = 6.0 if kind == "cpu" else 0.0
    return [Attack(kind, start, start + minutes * MINUTE, usual + times * (size - usual))]


def judged(
    bundle: Bundle,
    thresholds: dict[str, float],
    seed: int,
    start: float,
    seconds: float,
    loads: Sequence[Attack],
    quiet: NodeQuiet | None = None,
) -> tuple[list[Verdict], Incidents, list[str]]:
    """The verdicts on a simulated node, its incidents and their lines."""
    detector = Detector(bundle, thresholds)
    detector.quiet = quiet
    samples = simulate(seed, start, seconds, loads)
    verdicts, lines, incidents = [], [], Incidents(bundle.metrics)
    for columns in formatters.format_records(formatters.slot_records(samples, RECORD_SECONDS)):
        verdict = detector.observe(int(columns["time"]), columns)
        reasons = deviations(bundle, thresholds, verdict) if verdict.is_loud else None
        lines += incidents.observe(verdict, thresholds, reasons)
        verdicts.append(verdict)
    return verdicts, incidents, lines


def answer_to(verdicts: Sequence[Verdict], incidents: Incidents, bundle: Bundle) -> Answer | None:
    """The answer that the incident of a day was normal; None if there was none."""
    incident = incidents.newest
    if incident is None:
        return None
    anomalies = [one for one in verdicts if one.is_loud and incident.began <= one.time <= incident.last]
    metrics = pattern_of(incident.entry(bundle.metrics)["metrics"], anomalies)
    daily = daily_around(incident.began, incident.last, ZONE)
    return Answer(incident.id, "normal", ("*",), incident.began, incident.last, metrics, daily, ZONE)


def tried(
    bundle: Bundle, thresholds: dict[str, float], pattern: tuple[str, float | None, int, int], seed: int
) -> dict[str, tuple[int, int]]:
    """Variant -> how many records of its day were alerts, and how many were anomalies; nothing without an
    incident.
    """
    kind, size, hour, minutes = pattern
    begin = FIRST_DAY + hour * 3600.0
    seconds = LEAD_SECONDS + minutes * MINUTE + 60 * MINUTE
    first, incidents, _ = judged(
        bundle, thresholds, seed, begin - LEAD_SECONDS, seconds, load_of(kind, size, begin, minutes)
    )
    answer = answer_to(first, incidents, bundle)
    if answer is None:
        return {}
    quiet = Quiet([answer]).of("")
    rng = np.random.default_rng(seed)
    found = {}
    for place, variant in enumerate(VARIANTS):
        start = begin + DAY_SECONDS * (1 + place)
        shift, times, length, loads = 0.0, 1.0, minutes, None
        if variant == "jittered":
            shift, times = rng.uniform(-20, 20) * MINUTE, rng.uniform(0.9, 1.1) if size else 1.0
            length = minutes * rng.uniform(0.7, 1.1)
        elif variant == TWICE:
            times = 2.0
        elif variant == AT_OTHER_TIME:
            shift = 4 * 3600.0
        elif variant == OTHER_METRIC:
            other, more = OTHERS.get(kind, ("cpu", 60.0))
            loads = load_of(other, more, start, minutes)
        loads = loads or load_of(kind, size, start + shift, length, times)
        verdicts, _, _ = judged(
            bundle, thresholds, seed + 1 + place, start + shift - LEAD_SECONDS, seconds, loads, quiet
        )
        alerts = [one for one in verdicts if one.status == "alert"]
        found[variant] = len(alerts), sum(one.is_anomaly for one in verdicts)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many nodes for each pattern (default: 3)")
    parser.add_argument("--first", type=int, default=700, help="seed of the first node (default: 700)")
    options = parser.parse_args()
    bundle = load_bundle(DEFAULT_MODEL)
    thresholds = load_thresholds("data/thresholds.json", bundle.metrics)
    print(f"| {' | '.join(('load', 'incidents', *VARIANTS))} |\n|{' --- |' * (len(VARIANTS) + 2)}")
    for pattern in PATTERNS:
        days = [
            tried(bundle, thresholds, pattern, options.first + 10 * number) for number in range(options.seeds)
        ]
        days = [day for day in days if day]
        kind, size, hour, minutes = pattern
        name = f"{kind}{'' if size is None else f' {size:g}'}, {hour}:00, {minutes} min"
        cells = [str(sum(day[variant][0] > 0 for day in days)) for variant in VARIANTS]
        print(f"| {' | '.join((name, str(len(days)), *cells))} |", flush=True)


if __name__ == "__main__":
    main()
