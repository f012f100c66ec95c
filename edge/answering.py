"""From an incident to an answer that it is normal: the pattern that it makes, and what that would hide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.alerts import ALERT
from common.answers import MORE_IN_BURSTS, LevelRange, widened
from edge.detector import Verdict
from edge.quiet import LASTING_RECORDS, NodeQuiet, lasting_ends
from nodes.series import RECORD_SECONDS

# Two records with a time between them in which there is room for no other.
_CONSECUTIVE_NS = int(1.5 * RECORD_SECONDS * 1e9)


def pattern_of(metrics: Mapping[str, Any], anomalies: Sequence[Verdict]) -> dict[str, LevelRange]:
    """Metric -> its levels that are normal if an incident is.

    metrics: of the incident's entry in the log (service/incident_log.py), of which a metric without known
    levels is left out. anomalies: those of the incident that are known; they may be more than when it opened.
    """
    return {
        name: _range(metric, [one.levels[name] for one in anomalies if name in one.levels])
        for name, metric in metrics.items()
        if None not in (metric["lowest"], metric["highest"], *metric["expected"])
    }


def _range(metric: Mapping[str, Any], levels: Sequence[float]) -> LevelRange:
    expected = (float(metric["expected"][0]), float(metric["expected"][1]))
    known = np.array([level for level in levels if np.isfinite(level)])
    low, high = min([metric["lowest"], *known]), max([metric["highest"], *known])
    if len(known) < LASTING_RECORDS:
        return widened(low, high, expected)
    windows = np.lib.stride_tricks.sliding_window_view(known, LASTING_RECORDS)
    lows, highs = zip(*map(lasting_ends, windows), strict=True)
    single = widened(low, high, expected, MORE_IN_BURSTS)
    return LevelRange(single.low, single.high, widened(min(lows), max(highs), expected))


@dataclass
class Hidden:
    """What an answer would have kept quiet: anomalies, and alerts among them."""

    anomalies: int = 0
    alerts: int = 0
    first: int = 0
    last: int = 0


def hidden_by(quiet: NodeQuiet, zone: str, verdicts: Iterable[Verdict]) -> Hidden:
    """What something would have kept quiet of the verdicts on a node, in order of time, as far as levels are
    known. What lasts counts where LASTING_RECORDS of them follow each other.
    """
    found = Hidden()
    run: list[Verdict] = []
    for verdict in verdicts:
        if not verdict.is_loud or not verdict.levels:
            run = []
            continue
        if run and verdict.time - run[-1].time > _CONSECUTIVE_NS:
            run = []
        run = [*run[1 - LASTING_RECORDS :], verdict]
        causes = verdict.causes or (max(verdict.levels, key=lambda name: verdict.shares.get(name, 0.0)),)
        recent = {name: np.array([one.levels.get(name, np.nan) for one in run]) for name in causes}
        if quiet.covers(verdict.time, zone, causes, verdict.levels, recent):
            found.anomalies += 1
            found.alerts += verdict.status == ALERT
            found.first, found.last = found.first or verdict.time, verdict.time
    return found
