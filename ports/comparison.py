"""How well each detector does on series whose anomalies are known, and what it costs: `--evaluate`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.alerts import ALERT, ANOMALY
from common.files import UserError, saveDictJson
from common.times import DAY_SECONDS, last_midnight
from ports import detectors, pictures
from ports.jobs import Fault, Lines, Training, faults_of, fit_series, load_days, note_too_short
from ports.parallel import Cluster, in_parallel
from ports.preparation import PREPARATIONS
from ports.series import KnownAnomaly, Series
from ports.sources import Loaded, Source, known_of, samples_of
from ports.verdicts import Verdicts, judge, statuses

logger = logging.getLogger("find_anomalies")

TRAINING_SHARE = 0.8
MONTH_SECONDS = 30.4 * DAY_SECONDS
# Red so soon after a known anomaly is its end, and red again so soon is the same alert.
SAME_ALERT_SECONDS = 3600


@dataclass(frozen=True)
class Detection:
    """known: anomalies that there were; yellow, red: those with an anomaly, with an alert. false_reds: alerts
    that belong to none. months: how long was judged.
    """

    known: int = 0
    yellow: int = 0
    red: int = 0
    false_reds: int = 0
    months: float = 0.0

    def __add__(self, other: Detection) -> Detection:
        return Detection(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def rates(self) -> dict[str, float | None]:
        """Shares of what was known, None where nothing was; alerts a series and month."""
        return {
            "yellow_recall": round(self.yellow / self.known, 4) if self.known else None,
            "red_recall": round(self.red / self.known, 4) if self.known else None,
            "false_reds": round(self.false_reds / self.months, 2) if self.months else None,
        }


def detection(
    starts: np.ndarray,
    bucket_seconds: int,
    said: np.ndarray,
    known: Sequence[KnownAnomaly],
    excused: Sequence[KnownAnomaly],
) -> Detection:
    """Compare the statuses of consecutive buckets (n,) with the anomalies that are known.

    Alerts in what is `excused` are not counted as false; what is excused need not be found.
    """
    ends = starts + bucket_seconds
    is_red = said == ALERT
    is_yellow = is_red | (said == ANOMALY)
    inside = [(ends > one.start) & (starts < one.end) for one in known]
    explained = np.zeros(len(starts), dtype=bool)
    for one in (*known, *excused):
        explained |= (ends > one.start - bucket_seconds) & (starts < one.end + SAME_ALERT_SECONDS)
    false = starts[is_red & ~explained]
    alerts = len(false) and 1 + int((np.diff(false) > SAME_ALERT_SECONDS).sum())
    return Detection(
        known=len(known),
        yellow=sum(bool(is_yellow[part].any()) for part in inside),
        red=sum(bool(is_red[part].any()) for part in inside),
        false_reds=alerts,
        months=len(starts) * bucket_seconds / MONTH_SECONDS,
    )


@dataclass(frozen=True)
class Compared:
    """Of one series and detector. seconds: to fit one model, and to judge all of the test part by it."""

    fit_seconds: float
    score_seconds: float
    at_once: Detection
    iterative: Detection


# --- one series ----------------------------------------------------------------------------------


def compare_series(
    name: str, loaded: Loaded, training: Training, known: Sequence[KnownAnomaly], plot_dir: str | None
) -> tuple[str, dict[str, Compared], Fault]:
    """Train each detector on the first TRAINING_SHARE, judge the rest, and draw it; name, results, fault."""
    results: dict[str, Compared] = {}
    with faults_of(name) as fault:
        series = samples_of(loaded, name)
        series = series.between(0, training.until) if training.until else series
        if not len(series.times):
            raise UserError(f"{name}: has no samples before --until")
        # The first fit of a detector would be timed with the import of its library.
        import sklearn.ensemble  # noqa: F401
        import sklearn.svm  # noqa: F401
        import statsmodels.tsa.statespace.sarimax  # noqa: F401

        split = _split(series, training.zone)
        late = [one for one in known if one.start >= split and one.end <= series.times[-1]]
        for detector in training.detectors:
            results[detector] = _compare(series, detector, training, split, known, late, plot_dir)
        # Its scale is that of the model, which only a logarithm makes legible.
        if plot_dir and training.preparation == "default":
            _plot_decomposition(
                series, replace(training, until=split), Path(plot_dir) / f"{name}.stl-parts.png"
            )
    return name, results, fault


def _split(series: Series, zone: str) -> int:
    """The midnight at which training ends."""
    first, last = int(series.times[0]), int(series.times[-1])
    return last_midnight(first + int(TRAINING_SHARE * (last - first)), zone)


def _compare(
    series: Series,
    detector: str,
    training: Training,
    split: int,
    known: Sequence[KnownAnomaly],
    late: Sequence[KnownAnomaly],
    plot_dir: str | None,
) -> Compared:
    begin = time.perf_counter()
    trained = fit_series(series, detector, replace(training, until=split))
    fitted = time.perf_counter()
    together = judge(trained, series, split)
    scored = time.perf_counter()
    after = together.after(split)
    if plot_dir:
        pictures.plot_series(after, known, Path(plot_dir) / f"{series.name}.{detector}.png")
    excused = [one for one in known if one not in late]
    bucket_seconds = trained.minutes * 60
    return Compared(
        fitted - begin,
        scored - fitted,
        detection(after.buckets.starts, bucket_seconds, after.statuses, late, excused),
        detection(
            after.buckets.starts,
            bucket_seconds,
            iterative_statuses(series, detector, training, split, after),
            late,
            excused,
        ),
    )


def iterative_statuses(
    series: Series, detector: str, training: Training, split: int, at_once: Verdicts
) -> np.ndarray:
    """As in service: trained each midnight from `split` on, each day judged by the model of its midnight."""
    scores = []
    midnights = [split]
    while midnights[-1] < series.times[-1]:
        # A day may have 23 or 25 hours.
        midnights.append(last_midnight(midnights[-1] + DAY_SECONDS + DAY_SECONDS // 2, training.zone))
    for midnight, until in zip(midnights, midnights[1:], strict=False):
        trained = fit_series(series, detector, replace(training, until=midnight))
        part = (at_once.buckets.starts >= midnight) & (at_once.buckets.starts < until)
        scores.append(trained.model.judge(at_once.buckets[part]).score)
    return statuses(np.concatenate(scores))


def _plot_decomposition(series: Series, training: Training, filename: Path) -> None:
    """The parts that STL makes of the training span."""
    preparation = PREPARATIONS[training.preparation]
    span = series.between(training.until - training.train_days * DAY_SECONDS, training.until)
    buckets = preparation.buckets(span, training.minutes, training.zone)
    parts = detectors.decompose_buckets(buckets, preparation)
    pictures.plot_decomposition(series.name, training.zone, buckets.starts, *parts, filename)


# --- all of them ---------------------------------------------------------------------------------


def compare(source: Source, training: Training, cluster: Cluster, plot_dir: str) -> set[str]:
    """Compare all detectors on all series; print a table, write comparison.json and pictures into `plot_dir`.

    Returns the names of those with a fault; the log has a line for each of the first of these, and one for
    all that have too short a history yet.
    """
    training = replace(training, detectors=tuple(detectors.DETECTORS))
    names = source.names()
    days = int(training.train_days / TRAINING_SHARE)
    tasks = (
        (
            name,
            load_days(source, name, days, training.until),
            training,
            known_of(source, name),
            # Workers may have another working directory.
            str(Path(plot_dir).resolve()),
        )
        for name in names
    )
    per_series, failed, too_short = [], set(), []
    faults = Lines(logging.ERROR, "that could not be compared")
    for name, results, fault in in_parallel(compare_series, tasks, len(names), cluster, "comparing"):
        if fault.is_too_short:
            too_short.append(name)
        elif fault.text:
            failed.add(name)
            faults.add(fault.text)
        else:
            per_series.append(results)
    faults.end()
    note_too_short(too_short, len(names), "compared")
    if per_series:
        comparison = summarise(per_series, training)
        print("\n" + table(comparison))
        saveDictJson(comparison, Path(plot_dir) / "comparison.json")
        pictures.plot_comparison(comparison, Path(plot_dir) / "comparison.png")
        print(f"\n{plot_dir}: comparison.json, comparison.png and a picture for each series and detector")
    return failed


def summarise(per_series: Sequence[dict[str, Compared]], training: Training) -> dict[str, Any]:
    """Of all series together, per detector: seconds a model, recall, false alerts a series and month."""
    summary: dict[str, Any] = {
        "preparation": training.preparation,
        "minutes": training.minutes,
        "zone": training.zone,
        "train_days": training.train_days,
        "series": len(per_series),
        "detectors": {},
    }
    for detector in per_series[0]:
        found = [results[detector] for results in per_series]
        at_once = sum((one.at_once for one in found), Detection())
        iterative = sum((one.iterative for one in found), Detection())
        summary["known_anomalies"] = at_once.known
        summary["months"] = round(at_once.months, 2)
        summary["detectors"][detector] = {
            "fit_seconds": round(float(np.median([one.fit_seconds for one in found])), 5),
            "score_seconds": round(float(np.median([one.score_seconds for one in found])), 5),
            **at_once.rates(),
            "iterative": iterative.rates(),
        }
    return summary


def table(comparison: dict[str, Any]) -> str:
    """The comparison, a line for each detector."""
    lines = [
        f"{comparison['series']} series, {comparison['known_anomalies']} known anomalies in"
        f" {comparison['months']:g} months of the last fifth; seconds a model;"
        " false reds a series and month",
        "",
        f"{'':<18} {'execution time':^17}  {'at once, one model':^28}  {'trained each night':^28}",
        f"{'detector':<18} {'fit':>8} {'score':>8}" + f"  {'yellow':>8} {'red':>8} {'false reds':>10}" * 2,
    ]
    for detector, figures in comparison["detectors"].items():
        cells = [f"{figures['fit_seconds']:>7.3f}s {figures['score_seconds']:>7.3f}s"]
        for rates in (figures, figures["iterative"]):
            yellow, red, false = rates["yellow_recall"], rates["red_recall"], rates["false_reds"]
            cells.append(f"{_cell(yellow, '.1%'):>8} {_cell(red, '.1%'):>8} {_cell(false, '.2f'):>10}")
        lines.append(f"{detector:<18} " + "  ".join(cells))
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
