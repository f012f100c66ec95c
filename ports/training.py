"""The nightly job: it trains a model for each series and detector, all series in parallel."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from common.files import UserError
from common.times import DAY_SECONDS, last_midnight
from ports import detectors, models
from ports.calendars import Calendar
from ports.faults import Fault, Lines, faults_of, some_of
from ports.parallel import Cluster, in_parallel
from ports.preparation import PREPARATIONS
from ports.series import Series
from ports.sources import Loaded, Source, describe_no_ports, samples_of
from ports.special_days import SpecialDays, special_days

logger = logging.getLogger("find_anomalies")

YEAR_SECONDS = 366 * DAY_SECONDS
# The libraries that train each detector.
_LIBRARIES = {
    "stl": ("statsmodels",),
    "sarimax": ("statsmodels",),
    "random-forest": ("scikit-learn",),
    "isolation-forest": ("scikit-learn",),
    "one-class-svm": ("scikit-learn",),
}


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. minutes: length of a bucket. zone: the ports' time zone. train_days: days of history up
    to the last midnight there. until: later samples do not count, seconds since 1970. holidays: the country
    or subdivision whose public holidays the ports keep, None for no holidays. calendar: windows that are not
    learnt.
    """

    detectors: tuple[str, ...]
    preparation: str
    minutes: int
    zone: str
    train_days: int
    until: int | None
    holidays: str | None = None
    calendar: Calendar = Calendar()


@dataclass(frozen=True)
class TrainingTask:
    """One series to train."""

    name: str
    loaded: Loaded
    settings: TrainingSettings


@dataclass(frozen=True)
class TrainedSeries:
    """The result for one series. contents: (detector, content of its model's file)."""

    name: str
    contents: tuple[tuple[str, bytes], ...]
    fault: Fault


def train(source: Source, settings: TrainingSettings, cluster: Cluster, folder: str | Path) -> set[str]:
    """Train all series and replace their models in `folder`; returns the names of those with a fault.

    The log has a line for each of the first MOST_LINES of these, and one line for all series whose history is
    still too short. Raises UserError for a folder that cannot be written to.
    """
    _make_folder(folder)
    names, failed, too_short = source.names(), set(), []
    if unused := settings.calendar.unused(names):
        logger.warning("%d windows of --calendar concern no series: %s", len(unused), some_of(unused))
    faults = Lines(logging.ERROR, "that could not be trained")
    tasks = (
        TrainingTask(name, load_days(source, name, settings.train_days, settings.until), settings)
        for name in names
    )
    for found in in_parallel(train_series, tasks, len(names), cluster, "training"):
        fault = _save(found, folder)
        if fault.is_too_short:
            too_short.append(found.name)
        elif fault.text:
            failed.add(found.name)
            faults.add(fault.text)
    faults.end()
    if source.no_ports:
        logger.warning("%s", describe_no_ports(source.no_ports))
    note_too_short(too_short, len(names), "trained")
    count = len(names) - len(failed) - len(too_short)
    trained = f"{', '.join(settings.detectors)} trained for {count} of {len(names)} series"
    logger.info("%s: %s, in the time zone %s", folder, trained, settings.zone)
    return failed


def _make_folder(folder: str | Path) -> None:
    """Report a folder that is wrong for all series before the work begins."""
    with contextlib.suppress(FileExistsError, PermissionError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK) or not Path(folder).is_dir():
        raise UserError(
            f"{folder}: cannot be written to; allow this user to write there, or name another --ports_models"
        )


def _save(found: TrainedSeries, folder: str | Path) -> Fault:
    """Save the models of a series. Returns its fault, which may be that they cannot be saved."""
    try:
        for detector, content in found.contents:
            models.save(content, models.model_path(folder, found.name, detector))
    except UserError as error:
        return Fault(str(error))
    return found.fault


def note_too_short(names: Sequence[str], count: int, done: str) -> None:
    """Log one line for all series whose history is still too short."""
    if names:
        logger.warning(
            "%d of %d series have fewer than %d days of history and are not %s yet: %s",
            len(names),
            count,
            detectors.MIN_DAYS,
            done,
            some_of(sorted(names)),
        )


def load_days(source: Source, name: str, days: int, until: int | None) -> Loaded:
    """The samples of the last `days` days before the newest sample, and of one more day."""
    end = until or source.now() or 0
    newest = source.newest(name) or end
    return source.load(name, newest - (days + 1) * DAY_SECONDS, end)


def train_series(task: TrainingTask) -> TrainedSeries:
    """Train the detectors of one series; a fault of one detector costs no other its model."""
    contents: list[tuple[str, bytes]] = []
    faults = []
    with faults_of(task.name) as fault:
        series = samples_of(task.loaded, task.name)
        for detector in task.settings.detectors:
            with faults_of(task.name) as of_detector:
                contents.append((detector, models.pack(fit_series(series, detector, task.settings))))
            faults.append(of_detector)
    found = [one for one in (fault, *faults) if one.text]
    # A fault of all detectors is reported once.
    text = "; ".join(dict.fromkeys(one.text for one in found)) or None
    is_too_short = bool(found) and all(one.is_too_short for one in found)
    return TrainedSeries(task.name, tuple(contents), Fault(text, is_too_short))


def fit_series(series: Series, detector: str, settings: TrainingSettings) -> models.Trained:
    """Train one detector on the `train_days` before the last midnight in its time zone.

    Raises TooShortError, or another UserError, that names the series.
    """
    newest = int(series.times[-1]) if len(series.times) else 0
    end = last_midnight(min(newest, settings.until or newest), settings.zone)
    span = series.between(end - settings.train_days * DAY_SECONDS, end)
    if not len(span.times):
        raise detectors.TooShortError(f"{series.name}: has no full day of history; record it for longer")
    preparation = PREPARATIONS[settings.preparation]
    buckets = preparation.buckets(span, settings.minutes, settings.zone)
    buckets = settings.calendar.of(series.name).mark(buckets, settings.zone)
    special = _special_days(settings.holidays, settings.zone, int(buckets.starts[0]), end)
    buckets = special.mark(buckets, settings.zone) if special else buckets
    try:
        model = detectors.fit(detector, buckets, preparation, special.weekend if special else None)
    except UserError as error:
        raise type(error)(f"{series.name}: {error}") from None
    libraries = ("numpy", *_LIBRARIES.get(detector, ()), *(("holidays",) if special else ()))
    return models.Trained(
        series=series.name,
        detector=detector,
        preparation=settings.preparation,
        minutes=settings.minutes,
        zone=settings.zone,
        start=int(buckets.starts[0]),
        end=end,
        versions={library: importlib.metadata.version(library) for library in libraries},
        model=model,
        special=special,
    )


def _special_days(country: str | None, zone: str, start: int, end: int) -> SpecialDays | None:
    """Those of a training span (seconds since 1970) and of the year after; None without a country."""
    if not country:
        return None
    first, last = (
        datetime.fromtimestamp(time, ZoneInfo(zone)).date() for time in (start, end + YEAR_SECONDS)
    )
    return special_days(country, first, last)
