"""What `--evaluate` prints: the tables from which a person chooses a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ports.sensitivity import size_text

# So many series have a line; the file has all of them.
MOST_SERIES = 10
LETTERS = 18


def all_tables(comparison: Mapping[str, Any]) -> str:
    """The comparison as text: in total, by size of anomaly, what would be missed, and by series."""
    tables = (totals, by_size, smallest_alerted, by_series)
    return "\n\n".join(table(comparison) for table in tables)


def totals(comparison: Mapping[str, Any]) -> str:
    """Time, recall and false alerts, one line per detector."""
    lines = [
        f"{comparison['series']} series, {comparison['known_anomalies']} known anomalies in the last"
        f" fifth ({comparison['months']:g} months); seconds per model;"
        " false alerts per series and month",
        "",
        f"{'':<18} {'execution time':^17}  {'at once, one model':^29}  {'trained each night':^29}",
        f"{'detector':<18} {'fit':>8} {'score':>8}"
        + f"  {'anomaly':>8} {'alert':>8} {'false alert':>11}" * 2,
    ]
    for detector, figures in comparison["detectors"].items():
        cells = [f"{figures['fit_seconds']:>7.3f}s {figures['score_seconds']:>7.3f}s"]
        for rates in (figures, figures["iterative"]):
            anomaly, alert, false = rates["anomaly_recall"], rates["alert_recall"], rates["false_alerts"]
            cells.append(f"{_cell(anomaly, '.1%'):>8} {_cell(alert, '.1%'):>8} {_cell(false, '.2f'):>11}")
        # A detector that could not be trained on all series has figures of the others.
        some = "" if figures["series"] == comparison["series"] else f"  on {figures['series']} series"
        lines.append(f"{detector:<18} " + "  ".join(cells) + some)
    return "\n".join(lines)


def by_size(comparison: Mapping[str, Any]) -> str:
    """The share of the anomalies of each size that are alerted; sizes that did not occur are left out."""
    detectors = comparison["detectors"]
    most = max(detectors.values(), key=lambda figures: figures["series"])["sizes"]
    columns = [number for number, size in enumerate(most) if size["known"]]
    if not columns:
        return "no known anomaly in the last fifth, so there is nothing to say of their sizes"
    lines = [
        "alerted, by kind and size of anomaly (its traffic against what was expected), trained each night",
        "",
        *(
            f"{name:<18}" + "".join(f"  {most[number][key]!s:>12}" for number in columns)
            for name, key in (("", "kind"), ("detector", "size"), ("(known anomalies)", "known"))
        ),
    ]
    for detector, figures in detectors.items():
        recalls = (figures["sizes"][number]["alert_recall"] for number in columns)
        lines.append(f"{detector:<18}" + "".join(f"  {_cell(recall, '.0%'):>12}" for recall in recalls))
    return "\n".join(lines)


def smallest_alerted(comparison: Mapping[str, Any]) -> str:
    """The smallest drop and flood that each detector alerts on half of the series, and where it is blind."""
    detectors = comparison["detectors"]
    parts = list(next(iter(detectors.values()))["smallest_alerted"])
    lines = [
        "smallest drop and flood that are alerted, on half of the series (of an hour with 15-minute buckets)",
        "",
        f"{'detector':<18}" + "".join(f"  {part:>16}" for part in parts) + f"  {'blind on':>10}",
    ]
    for detector, figures in detectors.items():
        cells = (f"  {size_text(*figures['smallest_alerted'][part]):>16}" for part in parts)
        blind = f"{figures['blind']} of {figures['series']}"
        lines.append(f"{detector:<18}" + "".join(cells) + f"  {blind:>10}")
    lines.append("(blind: a loss of half is missed in most of the traffic)")
    return "\n".join(lines)


def by_series(comparison: Mapping[str, Any]) -> str:
    """How many series each detector is best on, and the series on which the choice matters most."""
    detectors, series = comparison["detectors"], comparison["by_series"]
    default = next(iter(detectors))
    best = ", ".join(f"{detector} {figures['best']}" for detector, figures in detectors.items())
    shown = sorted(series, key=lambda name: (-_gain(series[name], default), name))[:MOST_SERIES]
    lines = [
        f"on how many of {len(series)} series each detector is best, or as good as the best",
        best,
        "",
        f"{'':<18}  {'':>5}  {'best, trained each night':^46}  {default:^19}",
        f"{'series':<18}  {'known':>5}  {'detector':<25}" + f"  {'alert':>6}  {'false alert':>11}" * 2,
    ]
    for name in shown:
        one, short = series[name], name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..."
        cells = "".join(
            f"  {_cell(rates.get('alert_recall'), '.0%'):>6}  {_cell(rates.get('false_alerts'), '.2f'):>11}"
            for rates in (one["detectors"][one["best"][0]], one["detectors"].get(default, {}))
        )
        more = f" and {len(one['best']) - 1} more" if len(one["best"]) > 1 else ""
        lines.append(f"{short:<18}  {one['known_anomalies']:>5}  {one['best'][0] + more:<25}" + cells)
    if more := len(series) - len(shown):
        lines.append(f"{more} more series, on which the choice matters less, are in comparison.json")
    return "\n".join(lines)


def _gain(one: Mapping[str, Any], default: str) -> float:
    """By how much the best detector of a series is better than the default; no model at all is worst."""
    of_default = one["detectors"].get(default, {"merit": -np.inf})
    return one["detectors"][one["best"][0]]["merit"] - of_default["merit"]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
