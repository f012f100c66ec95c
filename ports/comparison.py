"""`--evaluate`: how well each detector does on series with known anomalies, and how long it takes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.alerts import ALERT
from common.files import UserError, saveDictJson
from common.times import DAY_SECONDS, last_midnight
from parallel.cluster import Cluster, in_parallel
from ports import comparison_picture, detectors, pictures, tables
from ports.detection import Detection, are_met, detection
from ports.faults import Fault, Lines, faults_of
from ports.kinds import ANOMALY_SIZES, Size, shares_left, size_of
from ports.preparation import PREPARATIONS
from ports.sensitivity import PARTS, Sensitivity, middle
from ports.series import KnownAnomaly, Series
from ports.sources import Loaded, Source, known_of, samples_of
from ports.training import TrainingSettings, fit_series, load_days, note_too_short, training_buckets
from ports.verdicts import Verdicts, judge, statuses

logger = logging.getLogger("find_anomalies")

TRAINING_SHARE = 0.8
# The best detector of a series alerts on most of its known anomalies; a false alert a month costs this share.
FALSE_ALERT_COST = 0.1


@dataclass(frozen=True)
class Compared:
    """How one detector does on one series. seconds: to fit one model, and to judge the test part with it.
    alerted: whether each known anomaly was, with a model trained each night. sensitivity: of the one model.
    """

    fit_seconds: float
    score_seconds: float
    at_once: Detection
    iterative: Detection
    alerted: tuple[bool, ...]
    sensitivity: Sensitivity

    @property
    def merit(self) -> float:
        """The share of known anomalies that is alerted, less the cost of false alerts; trained each night."""
        rates = self.iterative.rates()
        return (rates["alert_recall"] or 0.0) - FALSE_ALERT_COST * (rates["false_alerts"] or 0.0)


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
    """The result for one series. results: detector -> how well it does, without those that cannot be trained.
    sizes: of its known anomalies in the test part.
    """

    name: str
    results: dict[str, Compared]
    sizes: tuple[Size, ...]
    fault: Fault


def compare_series(task: ComparisonTask) -> ComparedSeries:
    """Train each detector on the first TRAINING_SHARE, judge the rest, and draw it.

    A fault of one detector costs no other its comparison.
    """
    results: dict[str, Compared] = {}
    sizes: tuple[Size, ...] = ()
    settings, faults = task.settings, []
    with faults_of(task.name) as fault:
        series = samples_of(task.loaded, task.name)
        series = series.between(0, settings.until) if settings.until else series
        if not len(series.times):
            raise UserError(f"{task.name}: has no samples before --until")
        # Imported here, so that the time of the import does not count for the first fit.
        import sklearn.ensemble  # noqa: F401
        import sklearn.svm  # noqa: F401
        import statsmodels.tsa.statespace.sarimax  # noqa: F401

        windows, zone = settings.calendar.of(task.name), settings.zone_of(task.name)
        split = _split(series, zone)
        late = [one for one in task.known if one.start >= split and one.end <= series.times[-1]]
        late = [one for one in late if not windows.excuses(one, zone)]
        sizes = _sizes(task, series, split, late)
        for detector in settings.detectors:
            with faults_of(task.name) as of_detector:
                results[detector] = _compare(task, series, detector, split, late)
            if of_detector.text:
                faults.append(f"{of_detector.text} ({detector})")
        # The picture has the model's scale, which is legible only if it is logarithmic.
        if task.plot_dir and settings.preparation == "default":
            _plot_decomposition(
                series, replace(settings, until=split), Path(task.plot_dir) / f"{task.name}.stl-parts.png"
            )
    text = "; ".join([*faults, *([fault.text] if fault.text else [])]) or None
    return ComparedSeries(task.name, results, sizes, Fault(text, fault.is_too_short))


def _split(series: Series, zone: str) -> int:
    """The midnight at which training ends."""
    first, last = int(series.times[0]), int(series.times[-1])
    return last_midnight(first + int(TRAINING_SHARE * (last - first)), zone)


def _sizes(
    task: ComparisonTask, series: Series, split: int, late: Sequence[KnownAnomaly]
) -> tuple[Size, ...]:
    """The sizes of the known anomalies, by the usual week of the default detector."""
    trained = fit_series(series, task.settings.detectors[0], replace(task.settings, until=split))
    buckets = judge(trained, series, split).buckets
    return tuple(map(size_of, shares_left(trained.model, buckets, late, task.known)))


def _compare(
    task: ComparisonTask, series: Series, detector: str, split: int, late: Sequence[KnownAnomaly]
) -> Compared:
    begin = time.perf_counter()
    trained = fit_series(series, detector, replace(task.settings, until=split))
    fitted = time.perf_counter()
    together = judge(trained, series, split, task.settings.calendar)
    scored = time.perf_counter()
    after = together.after(split)
    if task.plot_dir:
        pictures.plot_series(after, task.known, Path(task.plot_dir) / f"{series.name}.{detector}.png")
    excused = [one for one in task.known if one not in late]
    nightly = iterative_statuses(series, detector, task.settings, split, after)
    starts, bucket_seconds = after.buckets.starts, trained.minutes * 60
    return Compared(
        fit_seconds=fitted - begin,
        score_seconds=scored - fitted,
        at_once=detection(starts, bucket_seconds, after.statuses, late, excused),
        iterative=detection(starts, bucket_seconds, nightly, late, excused),
        alerted=tuple(are_met(starts, bucket_seconds, nightly == ALERT, late)),
        sensitivity=trained.sensitivity,
    )


def iterative_statuses(
    series: Series, detector: str, settings: TrainingSettings, split: int, at_once: Verdicts
) -> np.ndarray:
    """As in service: from `split` on, a model is trained each midnight and judges the day that follows.

    at_once: verdicts after `split` of the model that was trained until then; the statuses are those of its
    buckets. If a model cannot be trained in a night, the last one goes on.
    """
    # If samples are missing before midnight, the last buckets are unknown, and only the next day shows them.
    scores, trained = np.full(len(at_once.times), np.nan), at_once.trained
    zone, midnights = settings.zone_of(series.name), [split]
    while midnights[-1] < series.times[-1]:
        # A day may have 23 or 25 hours.
        midnights.append(last_midnight(midnights[-1] + DAY_SECONDS + DAY_SECONDS // 2, zone))
    for midnight, until in zip(midnights, midnights[1:], strict=False):
        # That of the first night has judged all at once.
        if midnight != split:
            with contextlib.suppress(UserError):
                trained = fit_series(series, detector, replace(settings, until=midnight))
        day = judge(trained, series.between(0, until), midnight, settings.calendar).after(midnight)
        # If the sampling changes, the buckets of one night may be longer than those of another.
        is_judged = (at_once.times > midnight) & (at_once.times <= day.times.max(initial=0))
        scores[is_judged] = day.scored.score[np.searchsorted(day.times, at_once.times[is_judged])]
    return statuses(scores, records=trained.alert_records, is_quiet=at_once.buckets.is_quiet)


def _plot_decomposition(series: Series, settings: TrainingSettings, filename: Path) -> None:
    """Draw the parts into which STL splits the training span."""
    preparation, zone = PREPARATIONS[settings.preparation], settings.zone_of(series.name)
    buckets, _ = training_buckets(series, settings)
    parts = detectors.decompose_buckets(buckets, preparation)
    pictures.plot_decomposition(series.name, zone, buckets.starts, *parts, filename)


# --- all of them ---------------------------------------------------------------------------------


def compare(source: Source, settings: TrainingSettings, cluster: Cluster, plot_dir: str) -> set[str]:
    """Compare all detectors on all series; print tables, write comparison.json and pictures into `plot_dir`.

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
        if found.results:
            per_series.append(found)
    faults.end()
    note_too_short(too_short, len(names), "compared")
    if per_series:
        comparison = summarise(sorted(per_series, key=lambda found: found.name), settings)
        comparison["zone"] = ", ".join(settings.zones_of(names))
        print("\n" + tables.all_tables(comparison))
        saveDictJson(comparison, Path(plot_dir) / "comparison.json")
        comparison_picture.plot_comparison(comparison, Path(plot_dir) / "comparison.png")
        print(f"\n{plot_dir}: comparison.json, comparison.png and a picture for each series and detector")
    return failed


def summarise(per_series: Sequence[ComparedSeries], settings: TrainingSettings) -> dict[str, Any]:
    """For each detector, over the series on which it could be trained: seconds per model, recall (also by
    size), false alerts per series and month, and what it would miss. Then the best detector of each series.
    """
    summary: dict[str, Any] = {
        "preparation": settings.preparation,
        "minutes": settings.minutes,
        "zone": settings.zone,
        "train_days": settings.train_days,
        "series": len(per_series),
        "detectors": {},
    }
    by_series = {found.name: _of_series(found) for found in per_series}
    summary["known_anomalies"] = sum(len(one.sizes) for one in per_series)
    months = sum(max(one.at_once.months for one in found.results.values()) for found in per_series)
    summary["months"] = round(months, 2)
    for detector in dict.fromkeys(
        name for name in settings.detectors for one in per_series if name in one.results
    ):
        found = [one.results[detector] for one in per_series if detector in one.results]
        at_once = sum((one.at_once for one in found), Detection())
        iterative = sum((one.iterative for one in found), Detection())
        summary["detectors"][detector] = {
            "series": len(found),
            "fit_seconds": round(float(np.median([one.fit_seconds for one in found])), 5),
            "score_seconds": round(float(np.median([one.score_seconds for one in found])), 5),
            **at_once.rates(),
            "iterative": iterative.rates(),
            "sizes": _by_size(per_series, detector),
            "smallest_alerted": _middle_parts([one.sensitivity for one in found]),
            "blind": sum(one.sensitivity.blind is not None for one in found),
            "best": sum(detector in one["best"] for one in by_series.values()),
        }
    return {**summary, "by_series": by_series}


def _of_series(found: ComparedSeries) -> dict[str, Any]:
    """All detectors on one series. Those that are equally good are all best."""
    merits = {detector: round(one.merit, 4) for detector, one in found.results.items()}
    return {
        "known_anomalies": len(found.sizes),
        "best": [detector for detector, merit in merits.items() if merit == max(merits.values())],
        "detectors": {
            detector: {
                "merit": merits[detector],
                **one.iterative.rates(),
                "smallest_alerted": one.sensitivity.parts(),
                "blind": one.sensitivity.blind,
            }
            for detector, one in found.results.items()
        },
    }


def _by_size(per_series: Sequence[ComparedSeries], detector: str) -> list[dict[str, Any]]:
    """How many anomalies of each size there were, and the share that was alerted; trained each night."""
    found = [
        pair
        for one in per_series
        if detector in one.results
        for pair in zip(one.sizes, one.results[detector].alerted, strict=True)
    ]
    rows = []
    for size in ANOMALY_SIZES:
        alerted = [is_alerted for of, is_alerted in found if of == size]
        recall = round(sum(alerted) / len(alerted), 4) if alerted else None
        rows.append({"kind": size.kind, "size": size.name, "known": len(alerted), "alert_recall": recall})
    return rows


def _middle_parts(found: Sequence[Sensitivity]) -> dict[str, tuple[float | None, ...]]:
    """For each part of the week the drop and the flood that are alerted on half of the series."""
    per_series = [one.parts() for one in found]
    return {
        part: tuple(
            middle(np.array([one[part][which] for one in per_series], dtype=float)) for which in (0, 1)
        )
        for part in PARTS
    }
