"""Results of a lab run: compares what test mode published with what was done to the edge.

Polls are counted as in evaluation.py: the first record of an attack is poll 1 after its onset, the first
record after it is poll 1 after its end. Seconds are wall-clock time up to the poll that brought the verdict.
For an exporter that dies, what counts is when its metrics became unknown, and known again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.alerts import ALERT, UNKNOWN
from common.files import saveDictJson
from common.times import format_time
from edge import evaluation
from edge.bundle import load_bundle
from edge.datasets import loadDataset, resample_records
from edge.detector import Verdict, detect
from edge.poll_log import PollLog
from edge.scores import Scores, score_dataset
from edge.thresholds import load_thresholds
from lab import timeline
from lab.attacks import Attacked
from nodes.metrics import METRICS

# In the folder of a run, with all other files of the bundle beside it.
MODEL = "model/lab.h5"

_HEADINGS = (
    "attack",
    "polls to first",
    "s to anomaly",
    "s to alert",
    "polls to silence",
    "s to silence",
    "causes given",
    "true causes",
    "found",
)


class Published:
    """What test mode published, by record time: `verdicts`, and `polled_at` in seconds since 1970."""

    def __init__(self, poll_log: PollLog) -> None:
        self.verdicts: dict[int, Verdict] = {}
        self.polled_at: dict[int, float] = {}
        for poll in poll_log.read():
            for one in poll.judged:
                self.verdicts[one.verdict.time] = one.verdict
                self.polled_at.setdefault(one.verdict.time, poll.polled_at)


def judge_attack(
    attacked: Attacked, verdicts: Sequence[Verdict], next_start: float, polled_at: dict[int, float]
) -> tuple[dict[str, Any], set[int]]:
    """The row of one attack, and the times of the records after it that are still anomalies because of it.

    An anomaly counts if it names a true cause; after the end, if it names a cause that was given during
    the attack. If a true cause was alerted before the onset, the attack is not found. Numbers are None where
    there was no anomaly.
    """
    start, end = attacked.window
    true = set(attacked.causes)
    before = next((v for v in reversed(verdicts) if v.time < start), None)
    during = [v for v in verdicts if start <= v.time < end]
    after = [v for v in verdicts if end <= v.time < next_start * 1e9]
    given = {name for v in during for name in v.causes}
    unknown = {name for v in during for name in v.unknown}
    is_up = before is not None and before.status == ALERT and bool(true & set(before.causes))

    def counts(verdict: Verdict, causes: set[str]) -> bool:
        return bool(causes & set(verdict.unknown if attacked.kills_exporter else verdict.causes))

    if attacked.kills_exporter:
        first = _first(during, lambda v: true <= set(v.unknown))
        alert = None
        is_found = first is not None and unknown == true and not given
        effects = true
    else:
        first = None if is_up else _first(during, lambda v: counts(v, true))
        alert = None if is_up else _first(during, lambda v: v.status == ALERT and counts(v, true))
        is_found = first is not None and true <= given
        effects = given
    own = np.array([counts(v, effects) for v in after], dtype=bool)
    tail = evaluation.records_to_last_anomaly(own)
    last = after[tail - 1] if tail else next((v for v in reversed(during) if counts(v, effects)), None)

    def seconds(verdict: Verdict | None, since: float) -> float | None:
        return None if verdict is None else round(polled_at.get(verdict.time, verdict.time / 1e9) - since, 1)

    row = {
        "attack": attacked.name,
        "start": format_time(start),
        "end": format_time(end),
        "true_causes": list(attacked.causes),
        "causes": [name for name in METRICS if name in given],
        "unknown": [name for name in METRICS if name in unknown],
        "kills_exporter": attacked.kills_exporter,
        "polls_to_first": None if first is None else first + 1,
        "seconds_to_first": seconds(None if first is None else during[first], attacked.start),
        "seconds_to_alert": seconds(None if alert is None else during[alert], attacked.start),
        "polls_to_silence": tail,
        "seconds_to_silence": None if last is None else max(seconds(last, attacked.end), 0.0),
        "records": len(during),
        "anomalies": sum(v.is_anomaly for v in during),
        "is_found": is_found,
    }
    return row, {v.time for v, is_own in zip(after[:tail], own[:tail], strict=True) if is_own}


def _first(verdicts: Sequence[Verdict], is_it: Callable[[Verdict], bool]) -> int | None:
    return next((i for i, verdict in enumerate(verdicts) if is_it(verdict)), None)


def judge(
    attacked: Sequence[Attacked],
    verdicts: Sequence[Verdict],
    begin: float,
    polled_at: dict[int, float],
) -> dict[str, Any]:
    """All attacks, and the anomalies in ordinary life: before the first attack, and between them.

    Records before `begin` (seconds since 1970), which still show the load of training and of test mode's own
    start, are counted as `settling`.
    """
    rows, own = [], set()
    for one, next_start in zip(attacked, [*(one.start for one in attacked[1:]), math.inf], strict=True):
        row, tail = judge_attack(one, verdicts, next_start, polled_at)
        rows.append(row)
        own |= tail
    windows = [one.window for one in attacked]
    calm = [
        v for v in verdicts if v.time not in own and not any(start <= v.time < end for start, end in windows)
    ]
    polls = [row["polls_to_first"] for row in rows if not row["kills_exporter"]]
    found = [count for count in polls if count is not None]
    first_start = attacked[0].window[0]
    return {
        "attacks": rows,
        "found": sum(row["is_found"] for row in rows),
        "polls_to_first_median": float(np.median(found)) if found else None,
        "polls_to_first_worst": max(found) if found and len(found) == len(polls) else None,
        "polls_to_silence_worst": max(
            (row["polls_to_silence"] for row in rows if not row["kills_exporter"]), default=None
        ),
        "settling": _count([v for v in calm if v.time < begin * 1e9]),
        "ordinary_before": _count([v for v in calm if begin * 1e9 <= v.time < first_start]),
        "calm_between": _count([v for v in calm if v.time >= first_start]),
    }


def _count(calm: Sequence[Verdict]) -> dict[str, int]:
    return {
        "records": len(calm),
        "false_anomalies": sum(v.is_anomaly for v in calm),
        "false_alerts": evaluation.count_alerts(
            np.array([v.status == ALERT for v in calm], dtype=bool),
            np.array([v.is_alert_up for v in calm], dtype=bool),
        ),
        "unknown": sum(v.status == UNKNOWN for v in calm),
    }


def table(judged: dict[str, Any]) -> str:
    """One row for each attack, columns aligned; `-` where there is nothing to count."""
    rows = [_HEADINGS]
    for row in judged["attacks"]:
        causes = " | ".join(row["causes"])
        if row["kills_exporter"]:
            causes = f"unknown: {', '.join(row['unknown'])}" + (f"; wrongly {causes}" if causes else "")
        numbers = ("polls_to_first", "seconds_to_first", "seconds_to_alert", "polls_to_silence")
        cells = ["-" if row[key] is None else str(row[key]) for key in (*numbers, "seconds_to_silence")]
        true = " | ".join(row["true_causes"])
        rows.append((row["attack"], *cells, causes or "-", true, "yes" if row["is_found"] else "NO"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < i < 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for key, words in (
        ("settling", "while settling (not judged)"),
        ("ordinary_before", "ordinary life before"),
        ("calm_between", "calm between"),
    ):
        calm = judged[key]
        lines.append(
            f"{words}: {calm['records']} records, {calm['false_anomalies']} false anomalies,"
            f" {calm['false_alerts']} false alerts, {calm['unknown']} unknown"
        )
    lines.append(
        f"found with the true causes: {judged['found']} of {len(judged['attacks'])}; polls to the first"
        f" anomaly: median {_or_dash(judged['polls_to_first_median'])}, worst"
        f" {_or_dash(judged['polls_to_first_worst'])}; polls to silence: worst"
        f" {_or_dash(judged['polls_to_silence_worst'])}"
    )
    return "\n".join(lines)


def _or_dash(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"


def write(
    folder: Path,
    published: Published,
    begin: float,
    attacked: Sequence[Attacked],
    database: dict[str, Any],
    interval_seconds: float,
) -> None:
    """Print the tables of the run in `folder`; write them to its lab.json, and draw its timeline.png.

    database: what InfluxDB holds at the end: `anomalies_stored`, a number, and `measurements`, a list.
    """
    verdicts = [published.verdicts[when] for when in sorted(published.verdicts)]
    ours = judge(attacked, verdicts, begin, published.polled_at)
    bundle = load_bundle(folder / MODEL)
    thresholds = load_thresholds(folder / "data/thresholds.json")
    frame = resample_records(loadDataset(folder / "data/run.csv"), interval_seconds)
    by_window = detect(thresholds, frame, window_alone(score_dataset(bundle, frame)))
    documented = judge(attacked, by_window, begin, published.polled_at)
    is_judged = frame.index.as_unit("ns").asi8 >= begin * 1e9
    timeline.draw(frame[is_judged], verdicts, attacked, folder / "timeline.png")
    anomalies_published = sum(v.is_anomaly for v in verdicts)
    print(table(ours))
    print("\nThe same records by the documented rule, window RMSE over its threshold alone:\n")
    print(table(documented))
    print(f"\nanomalies published: {anomalies_published}, stored in InfluxDB: {database['anomalies_stored']}")
    saveDictJson(
        {
            "interval_seconds": interval_seconds,
            "begin": format_time(int(begin * 1e9)),
            "ours": ours,
            "documented_rule": documented,
            "anomalies_published": anomalies_published,
            **database,
        },
        folder / "lab.json",
    )


def window_alone(scores: Scores) -> Scores:
    """Scores whose records are all over their thresholds, so that the window decides alone."""
    return replace(scores, record=np.where(np.isnan(scores.record), np.nan, np.inf))
