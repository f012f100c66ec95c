"""What a run of the lab showed: what test mode said, against what was done to the edge.

Polls are counted as in evaluation.py: the first record of an attack is poll 1 after its onset, the first
record after it poll 1 after its end. Seconds are those of the wall clock, up to the line that test mode
wrote.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

import autoencoder
import detector
import evaluation
from detector import ALERT, NORMAL, UNKNOWN, Verdict
from lab import timeline
from lab.attacks import Attacked
from utils import (
    METRICS,
    N_STEPS,
    format_time,
    getFeatures,
    loadDataset,
    parse_time,
    resample_records,
    saveDictJson,
)

_NORMAL = re.compile(r"INFO (\S+Z) normal \(")
_UNKNOWN = re.compile(r"WARNING (\S+Z) unknown: ([\w, ]+) \(")
_ANOMALY = re.compile(r"WARNING (\{.*\})$")
_HEADINGS = (
    "attack",
    "polls to anomaly",
    "s to anomaly",
    "s to alert",
    "polls to silence",
    "s to silence",
    "causes given",
    "true",
)


class Log:
    """What test mode says, as it says it: `verdicts` by the record's time, and when (`said_at`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verdicts: dict[int, Verdict] = {}
        self.said_at: dict[int, float] = {}
        self.last_line = ""
        self.has_ended = False

    def read(self, lines: IO[bytes]) -> None:
        """Take in all lines, and keep them in the file `path`."""
        with self.path.open("wb") as copy:
            for line in lines:
                copy.write(line)
                copy.flush()
                self.last_line = line.decode(errors="replace").rstrip()
                self._take(self.last_line)
        self.has_ended = True

    def _take(self, line: str) -> None:
        status, causes, unknown = NORMAL, (), ()
        if found := _NORMAL.search(line):
            when = parse_time(found[1])
        elif found := _UNKNOWN.search(line):
            when, status = parse_time(found[1]), UNKNOWN
            unknown = tuple(found[2].split(", "))
            # An anomaly of which something is unknown takes two lines, the anomaly first.
            if when in self.verdicts:
                status, causes = self.verdicts[when].status, self.verdicts[when].causes
        elif found := _ANOMALY.search(line):
            anomaly = json.loads(found[1])
            when, status = parse_time(anomaly["time"]), anomaly["severity"]
            causes = tuple(name for name in METRICS if name in anomaly["possible_cause"].split(" | "))
        else:
            return
        self.said_at.setdefault(when, time.time())
        self.verdicts[when] = Verdict(when, status, causes, unknown, {}, {})


def judge_attack(
    attacked: Attacked,
    verdicts: Sequence[Verdict],
    next_start: float,
    said_at: dict[int, float] | None = None,
) -> dict[str, Any]:
    """The row of one attack; numbers are None where nothing was flagged."""
    start, end = attacked.window
    during = [v for v in verdicts if start <= v.time < end]
    after = [v for v in verdicts if end <= v.time < next_start * 1e9]
    tail = evaluation.records_to_last_flag(np.array([v.is_anomaly for v in after], dtype=bool))
    given = [name for name in METRICS if any(name in v.causes for v in during)]
    unknown = [name for name in METRICS if any(name in v.unknown for v in during)]
    said = said_at or {v.time: v.time / 1e9 for v in verdicts}

    def first(chosen: Iterable[bool]) -> int | None:
        return next((i for i, is_chosen in enumerate(chosen) if is_chosen), None)

    # An alert that is already up at the onset finds nothing.
    before = next((v for v in reversed(verdicts) if v.time < start), None)
    is_up = before is not None and before.status == ALERT
    anomaly = None if is_up else first(v.is_anomaly for v in during)
    alert = None if is_up else first(v.status == ALERT for v in during)
    unseen = first(set(attacked.causes) <= set(v.unknown) for v in during)
    row = {
        "attack": attacked.name,
        "start": format_time(start),
        "end": format_time(end),
        "true_causes": list(attacked.causes),
        "causes": given,
        "unknown": unknown,
        "polls_to_anomaly": None if anomaly is None else anomaly + 1,
        "seconds_to_anomaly": None if anomaly is None else said[during[anomaly].time] - attacked.start,
        "seconds_to_alert": None if alert is None else said[during[alert].time] - attacked.start,
        "polls_to_silence": tail,
        "seconds_to_silence": max(said[after[tail - 1].time] - attacked.end, 0.0) if tail else 0.0,
        "records": len(during),
        "flagged": sum(v.is_anomaly for v in during),
    }
    if attacked.kills_exporter:
        row["polls_to_unknown"] = None if unseen is None else unseen + 1
        row["is_found"] = unseen is not None and set(unknown) == set(attacked.causes) and not given
    else:
        row["is_found"] = anomaly is not None and set(attacked.causes) <= set(given)
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()}


def judge(
    attacked: Sequence[Attacked],
    verdicts: Sequence[Verdict],
    begin: float,
    said_at: dict[int, float] | None = None,
) -> dict[str, Any]:
    """All attacks, and what was flagged in ordinary life: before the first attack, and between them."""
    verdicts = [v for v in verdicts if v.time >= begin * 1e9]
    bounds = [one.start for one in attacked] + [float("inf")]
    rows = [
        judge_attack(one, verdicts, following, said_at)
        for one, following in zip(attacked, bounds[1:], strict=True)
    ]
    is_calm = np.ones(len(verdicts), dtype=bool)
    times = np.array([v.time for v in verdicts])
    for one, row in zip(attacked, rows, strict=True):
        start, end = one.window
        after = int(np.searchsorted(times, end))
        is_calm[(times >= start) & (times < end)] = False
        is_calm[after : after + row["polls_to_silence"]] = False
    before = times < attacked[0].window[0]
    delays = [row["polls_to_anomaly"] for row in rows if "polls_to_unknown" not in row]
    found = [delay for delay in delays if delay is not None]
    return {
        "attacks": rows,
        "found": sum(row["is_found"] for row in rows),
        "polls_to_anomaly_median": float(np.median(found)) if found else None,
        "polls_to_anomaly_worst": max(found) if found and len(found) == len(delays) else None,
        "polls_to_silence_worst": max(row["polls_to_silence"] for row in rows),
        "ordinary_before": _calm_flags(verdicts, is_calm & before),
        "calm_between": _calm_flags(verdicts, is_calm & ~before),
    }


def _calm_flags(verdicts: Sequence[Verdict], chosen: np.ndarray) -> dict[str, int]:
    anomalies = np.array([v.is_anomaly for v in verdicts]) & chosen
    alerts = np.array([v.status == ALERT for v in verdicts]) & chosen
    unknown = np.array([v.status == UNKNOWN for v in verdicts]) & chosen
    return {
        "records": int(chosen.sum()),
        "false_anomalies": int(anomalies.sum()),
        "false_alerts": evaluation.episodes(alerts),
        "unknown": int(unknown.sum()),
    }


def table(judged: dict[str, Any]) -> str:
    """One row for each attack, columns aligned; `-` where nothing was flagged."""
    rows = [_HEADINGS]
    for row in judged["attacks"]:
        dies = "polls_to_unknown" in row
        polls = row["polls_to_unknown"] if dies else row["polls_to_anomaly"]
        causes = f"unknown: {', '.join(row['unknown']) or '-'}" if dies else " | ".join(row["causes"])
        if dies and row["causes"]:
            causes += f"; wrongly {' | '.join(row['causes'])}"
        cells = [polls, row["seconds_to_anomaly"], row["seconds_to_alert"]]
        cells += [row["polls_to_silence"], row["seconds_to_silence"], causes or None]
        verdict = "yes" if row["is_found"] else f"NO, it is {' | '.join(row['true_causes'])}"
        rows.append((row["attack"], *("-" if cell is None else str(cell) for cell in cells), verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < i < 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for key, words in (
        ("ordinary_before", "ordinary life before"),
        ("calm_between", "calm between"),
    ):
        calm = judged[key]
        lines.append(
            f"{words}: {calm['records']} records, {calm['false_anomalies']} false anomalies,"
            f" {calm['false_alerts']} false alerts, {calm['unknown']} unknown"
        )
    lines.append(
        f"found with the true cause: {judged['found']} of {len(judged['attacks'])}; polls to the first"
        f" anomaly: median {_or_dash(judged['polls_to_anomaly_median'])}, worst"
        f" {_or_dash(judged['polls_to_anomaly_worst'])}; polls to silence: worst"
        f" {judged['polls_to_silence_worst']}"
    )
    return "\n".join(lines)


def _or_dash(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"


def write(
    said: Log,
    begin: float,
    attacked: Sequence[Attacked],
    database: dict[str, Any],
    interval_seconds: float,
) -> None:
    """Print the table of the run; write it to lab.json and timeline.png.

    database: what InfluxDB holds at the end, `anomalies_stored` (their number) and `measurements`.
    """
    verdicts = [said.verdicts[when] for when in sorted(said.verdicts)]
    ours = judge(attacked, verdicts, begin, said.said_at)
    bundle = autoencoder.load_bundle(autoencoder.DEFAULT_MODEL, getFeatures(), N_STEPS)
    thresholds = detector.load_thresholds("data/thresholds.json")
    frame = resample_records(loadDataset("data/run.csv"), interval_seconds)
    scores = detector.score_dataset(bundle, frame)
    documented = judge(attacked, detector.detect(thresholds, frame, window_alone(scores)), begin)
    timeline.draw(frame, verdicts, attacked, Path("timeline.png"))
    said_anomalies = sum(v.is_anomaly for v in verdicts)
    print(
        f"{table(ours)}\n\nThe same records by the documented rule, window RMSE over its threshold alone:\n"
    )
    print(
        f"{table(documented)}\n\nanomalies said: {said_anomalies},"
        f" stored in InfluxDB: {database['anomalies_stored']}"
    )
    saveDictJson(
        {
            "interval_seconds": interval_seconds,
            "begin": format_time(int(begin * 1e9)),
            "ours": ours,
            "documented_rule": documented,
            "anomalies_said": said_anomalies,
            **database,
        },
        "lab.json",
    )


def window_alone(scores: detector.Scores) -> detector.Scores:
    """Scores whose records are all over their thresholds, so that the window decides alone."""
    return replace(scores, record=np.where(np.isnan(scores.record), np.nan, np.inf))
