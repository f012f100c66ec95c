"""`--evaluate`: how well each detector does on series with known anomalies, and how long it takes."""

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
from ports.faults import Fault, Lines, faults_of
from ports.parallel import Cluster, in_parallel
from ports.preparation import PREPARATIONS
from ports.series import KnownAnomaly, Series
from ports.sources import Loaded, Source, known_of, samples_of
from ports.training import TrainingSettings, fit_series, load_days, note_too_short
from ports.verdicts import Verdicts, judge, statuses

logger = logging.getLogger("find_anomalies")

TRAINING_SHARE = 0.8
MONTH_SECONDS = 30.4 * DAY_SECONDS
# An alert this soon after a known anomaly belongs to it; one this soon after another alert is the same alert.
SAME_ALERT_SECONDS = 3600


@dataclass(frozen=True)
class Detection:
    """known: how many known anomalies there were; with_anomaly, with_alert: how many of them had an anomaly,
    an alert. false_alerts: alerts that belong to no known anomaly. months: length of the judged time.
    """

    known: int = 0
    with_anomaly: int = 0
    with_alert: int = 0
    false_alerts: int = 0
    months: float = 0.0

    def __add__(self, other: Detection) -> Detection:
        return Detection(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def rates(self) -> dict[str, float | None]:
        """Shares of the known anomalies, None without any; false alerts per series and month."""
        return {
            "anomaly_recall": round(self.with_anomaly / self.known, 4) if self.known else None,
            "alert_recall": round(self.with_alert / self.known, 4) if self.known else None,
            "false_alerts": round(self.false_alerts / self.months, 2) if self.months else None,
        }


def detection(
    starts: np.ndarray,
    bucket_seconds: int,
    judged: np.ndarray,
    known: Sequence[KnownAnomaly],
    excused: Sequence[KnownAnomaly],
) -> Detection:
    """Compare the statuses of consecutive buckets (n,) with the known anomalies.

    Alerts during `excused` anomalies do not count as false, and excused anomalies need not be found.
    """
    ends = starts + bucket_seconds
    is_alert = judged == ALERT
    is_anomaly = is_alert | (judged == ANOMALY)
    inside = [(ends > one.start) & (starts < one.end) for one in known]
    explained = np.zeros(len(starts), dtype=bool)
    for one in (*known, *excused):
        explained |= (ends > one.start - bucket_seconds) & (starts < one.end + SAME_ALERT_SECONDS)
    false = starts[is_alert & ~explained]
    alerts = len(false) and 1 + int((np.diff(false) > SAME_ALERT_SECONDS).sum())
    return Detection(
        known=len(known),
        with_anomaly=sum(bool(is_anomaly[part].any()) for part in inside),
        with_alert=sum(bool(is_alert[part].any()) for part in inside),
        false_alerts=alerts,
        months=len(starts) * bucket_seconds / MONTH_SECONDS,
    )


@dataclass(frozen=True)
class Compared:
    """How one detector does on one series. seconds: to fit one model, and to judge the test part with it."""

    fit_seconds: float
    score_seconds: float
    at_once: Detection
    iterative: Detection


# --- one series ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparisonTask:
    """One series on which all detectors are compared. known: its known anomalies."""

    name: str
    loaded: Loaded
    settings: TrainingSettings
    known: Sequence[KnownAnomaly]
    plot_dir: str | None


@dataclass(frozen=True)
class ComparedSeries:
    """The result for one series. results: detector -> how well it does, up to the first fault."""

    name: str
    results: dict[str, Compared]
    fault: Fault


def compare_series(task: ComparisonTask) -> ComparedSeries:
    """Train each detector on the first TRAINING_SHARE, judge the rest, and draw it."""
    results: dict[str, Compared] = {}
    settings = task.settings
    with faults_of(task.name) as fault:
        series = samples_of(task.loaded, task.name)
        series = series.between(0, settings.until) if settings.until else series
        if not len(series.times):
            raise UserError(f"{task.name}: has no samples before --until")
        # Imported here, so that the time of the import does not count for the first fit.
        import sklearn.ensemble  # noqa: F401
        import sklearn.svm  # noqa: F401
        import statsmodels.tsa.statespace.sarimax  # noqa: F401

        split = _split(series, settings.zone)
        for detector in settings.detectors:
            results[detector] = _compare(task, series, detector, split)
        # The picture has the model's scale, which is legible only if it is logarithmic.
        if task.plot_dir and settings.preparation == "default":
            _plot_decomposition(
                series, replace(settings, until=split), Path(task.plot_dir) / f"{task.name}.stl-parts.png"
            )
    return ComparedSeries(task.name, results, fault)


def _split(series: Series, zone: str) -> int:
    """The midnight at which training ends."""
    first, last = int(series.times[0]), int(series.times[-1])
    return last_midnight(first + int(TRAINING_SHARE * (last - first)), zone)


def _compare(task: ComparisonTask, series: Series, detector: str, split: int) -> Compared:
    begin = time.perf_counter()
    trained = fit_series(series, detector, replace(task.settings, until=split))
    fitted = time.perf_counter()
    together = judge(trained, series, split, task.settings.calendar)
    scored = time.perf_counter()
    after = together.after(split)
    if task.plot_dir:
        pictures.plot_series(after, task.known, Path(task.plot_dir) / f"{series.name}.{detector}.png")
    windows = task.settings.calendar.of(series.name)
    late = [
        one
        for one in task.known
        if one.start >= split and one.end <= series.times[-1] and not windows.excuses(one, task.settings.zone)
    ]
    excused = [one for one in task.known if one not in late]
    at_once, iterative = (
        detection(after.buckets.starts, trained.minutes * 60, judged, late, excused)
        for judged in (after.statuses, iterative_statuses(series, detector, task.settings, split, after))
    )
    return Compared(fitted - begin, scored - fitted, at_once, iterative)


def iterative_statuses(
    series: Series, detector: str, settings: TrainingSettings, split: int, at_once: Verdicts
) -> np.ndarray:
    """As in service: from `split` on, a model is trained each midnight and judges the day that follows.

    at_once: the verdicts on the same buckets with one model.
    """
    # A day that ends with a gap has no verdict on it.
    score = np.full(len(at_once.times), np.nan)
    midnights = [split]
    while midnights[-1] < series.times[-1]:
        # A day may have 23 or 25 hours.
        midnights.append(last_midnight(midnights[-1] + DAY_SECONDS + DAY_SECONDS // 2, settings.zone))
    for midnight, until in zip(midnights, midnights[1:], strict=False):
        trained = fit_series(series, detector, replace(settings, until=midnight))
        day = judge(trained, series.between(0, until), midnight, settings.calendar).after(midnight)
        score[np.isin(at_once.times, day.times)] = day.scored.score
    records = PREPARATIONS[settings.preparation].alert_records(trained.minutes)
    return statuses(score, records=records, is_quiet=at_once.buckets.is_quiet)


def _plot_decomposition(series: Series, settings: TrainingSettings, filename: Path) -> None:
    """Draw the parts into which STL splits the training span."""
    preparation = PREPARATIONS[settings.preparation]
    span = series.between(settings.until - settings.train_days * DAY_SECONDS, settings.until)
    buckets = preparation.buckets(span, settings.minutes, settings.zone)
    parts = detectors.decompose_buckets(buckets, preparation)
    pictures.plot_decomposition(series.name, settings.zone, buckets.starts, *parts, filename)


# --- all of them ---------------------------------------------------------------------------------


def compare(source: Source, settings: TrainingSettings, cluster: Cluster, plot_dir: str) -> set[str]:
    """Compare all detectors on all series; print a table, write comparison.json and pictures into `plot_dir`.

    Returns the names of the series with a fault. The log has a line for each of the first MOST_LINES of them,
    and one line for all series whose history is still too short.
    """
    settings = replace(settings, detectors=tuple(detectors.DETECTORS))
    names = source.names()
    days = int(settings.train_days / TRAINING_SHARE)
    # Workers may have another working directory.
    absolute_plot_dir = str(Path(plot_dir).resolve())
    tasks = (
        ComparisonTask(
            name,
            load_days(source, name, days, settings.until),
            settings,
            known_of(source, name),
            absolute_plot_dir,
        )
        for name in names
    )
    per_series, failed, too_short = [], set(), []
    faults = Lines(logging.ERROR, "that could not be compared")
    for found in in_parallel(compare_series, tasks, len(names), cluster, "comparing"):
        if found.fault.is_too_short:
            too_short.append(found.name)
        elif found.fault.text:
            failed.add(found.name)
            faults.add(found.fault.text)
        else:
            per_series.append(found.results)
    faults.end()
    note_too_short(too_short, len(names), "compared")
    if per_series:
        comparison = summarise(per_series, settings)
        print("\n" + table(comparison))
        saveDictJson(comparison, Path(plot_dir) / "comparison.json")
        pictures.plot_comparison(comparison, Path(plot_dir) / "comparison.png")
        print(f"\n{plot_dir}: comparison.json, comparison.png and a picture for each series and detector")
    return failed


def summarise(per_series: Sequence[dict[str, Compared]], settings: TrainingSettings) -> dict[str, Any]:
    """Totals for each detector: seconds per model, recall, false alerts per series and month."""
    summary: dict[str, Any] = {
        "preparation": settings.preparation,
        "minutes": settings.minutes,
        "zone": settings.zone,
        "train_days": settings.train_days,
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
    """The comparison as text, one line per detector."""
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
        lines.append(f"{detector:<18} " + "  ".join(cells))
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
