"""The nightly job: it trains a model for each series and detector, all series in parallel."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from common.files import UserError
from common.times import DAY_SECONDS, last_midnight
from parallel.cluster import Cluster, in_parallel
from ports import detectors, models, sensitivity
from ports.calendars import Calendar
from ports.devices import Device, unused_devices
from ports.faults import Fault, Lines, faults_of, some_of
from ports.levels import DRIFT_MINUTES
from ports.preparation import PREPARATIONS, Buckets, bucket_minutes
from ports.sampling import Sampling, as_sums, find_sampling
from ports.series import Series, port_tags
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
    """How to train. minutes: least length of a bucket. zone: the ports' time zone. train_days: local days of
    history up to the last midnight there. until: later samples do not count, seconds since 1970.
    drift_minutes: a deviation that lasts so long is the new level. devices: those with something of their
    own, by name. are_minutes_given: a user gave `minutes`. holidays: the country or subdivision whose public
    holidays the ports keep, None for no holidays. calendar: windows that are not learnt.
    """

    detectors: tuple[str, ...]
    preparation: str
    minutes: int
    zone: str
    train_days: int
    until: int | None
    drift_minutes: int = DRIFT_MINUTES
    devices: Mapping[str, Device] = field(default_factory=dict)
    are_minutes_given: bool = False
    holidays: str | None = None
    calendar: Calendar = Calendar()

    def zone_of(self, series: str) -> str:
        """The time zone of the device of a series."""
        device = self.devices.get(port_tags(series)["device"]) if self.devices else None
        return device.timezone if device and device.timezone else self.zone

    def zones_of(self, names: Sequence[str]) -> list[str]:
        """The time zones of these series, in alphabetical order."""
        return sorted({self.zone_of(name) for name in names})

    def holidays_of(self, series: str) -> str | None:
        """The country or subdivision whose holidays the device of a series keeps."""
        device = self.devices.get(port_tags(series)["device"]) if self.devices else None
        return device.holidays if device and device.holidays else self.holidays


@dataclass(frozen=True)
class TrainingTask:
    """One series to train."""

    name: str
    loaded: Loaded
    settings: TrainingSettings


@dataclass(frozen=True)
class TrainedSeries:
    """The result for one series. contents: (detector, content of its model's file). blind: why each
    blind model is. is_counter: as in models.Trained. has_longer: its buckets are longer than was asked for.
    """

    name: str
    contents: tuple[tuple[str, bytes], ...]
    fault: Fault
    blind: tuple[str, ...]
    is_counter: bool = False
    has_longer: bool = False


def train(source: Source, settings: TrainingSettings, cluster: Cluster, folder: str | Path) -> set[str]:
    """Train all series and replace their models in `folder`; returns the names of those with a fault.

    The log has a line for each of the first MOST_LINES of these, and one line for all series whose history is
    still too short. Raises UserError for a folder that cannot be written to.
    """
    _make_folder(folder)
    names, failed, too_short, blind = source.names(), set(), [], []
    if unused := unused_devices(settings.devices, names):
        logger.warning("no series is of these devices in --devices: %s", some_of(unused))
    counters, longer = [], []
    if unused := settings.calendar.unused(names):
        logger.warning("no series is in these windows of --calendar: %s", some_of(unused))
    _note_answers(settings.calendar, names)
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
        blind += [(found.name, why) for why in found.blind]
        counters += [found.name] if found.is_counter else []
        longer += [found.name] if found.has_longer else []
    faults.end()
    _note_samples(counters, longer, settings)
    if line := describe_no_ports(source):
        logger.warning("%s", line)
    note_too_short(too_short, len(names), "trained")
    count = len(names) - len(failed) - len(too_short)
    trained = f"{', '.join(settings.detectors)} trained for {count} of {len(names)} series"
    zones = settings.zones_of(names)
    logger.info("%s: %s, in the time zone%s %s", folder, trained, "s" * (len(zones) > 1), ", ".join(zones))
    if blind:
        logger.warning("%s", sensitivity.describe_blind(blind))
    return failed


def _note_answers(calendar: Calendar, names: Sequence[str]) -> None:
    """Log what is left out because of answers, one line for each kind."""
    kinds = ({one.kind for one in calendar.of(name).answers} for name in names)
    concerned = Counter(itertools.chain.from_iterable(kinds))
    for kind, count in concerned.items():
        logger.info("left out by an answer: %s, of %d series", kind, count)


def _note_samples(counters: Sequence[str], longer: Sequence[str], settings: TrainingSettings) -> None:
    """Log what was found in the samples and the user may not know of."""
    if counters:
        logger.info(
            "%d series hold a counter, whose differences are judged: %s",
            len(counters),
            some_of(sorted(counters)),
        )
    if longer and settings.are_minutes_given:
        logger.warning(
            "%d series have buckets longer than --bucket_minutes %d, because they are sampled too seldom: %s",
            len(longer),
            settings.minutes,
            some_of(sorted(longer)),
        )


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
    """The samples of the last `days` days before the newest sample, and of two more days.

    A part of the newest day does not count, and a day may have 25 hours.
    """
    end = until or source.now() or 0
    newest = source.newest(name) or end
    return source.load(name, newest - (days + 2) * DAY_SECONDS, end)


def train_series(task: TrainingTask) -> TrainedSeries:
    """Train the detectors of one series; a fault of one detector costs no other its model."""
    contents: list[tuple[str, bytes]] = []
    faults, blind = [], []
    is_counter = has_longer = False
    with faults_of(task.name) as fault:
        series = samples_of(task.loaded, task.name)
        for detector in task.settings.detectors:
            with faults_of(task.name) as of_detector:
                trained = fit_series(series, detector, task.settings)
                contents.append((detector, models.pack(trained)))
                if trained.sensitivity.blind:
                    blind.append(trained.sensitivity.blind)
                is_counter, has_longer = trained.is_counter, trained.minutes > task.settings.minutes
            faults.append(of_detector)
    found = [one for one in (fault, *faults) if one.text]
    # A fault of all detectors is reported once.
    text = "; ".join(dict.fromkeys(one.text for one in found)) or None
    is_too_short = bool(found) and all(one.is_too_short for one in found)
    faulty = Fault(text, is_too_short)
    return TrainedSeries(task.name, tuple(contents), faulty, tuple(blind), is_counter, has_longer)


def _training_end(series: Series, settings: TrainingSettings) -> int:
    """The last midnight in the time zone of the series, seconds since 1970."""
    newest = int(series.times[-1]) if len(series.times) else 0
    return last_midnight(min(newest, settings.until or newest), settings.zone_of(series.name))


def training_buckets(series: Series, settings: TrainingSettings) -> tuple[Buckets, Sampling]:
    """The buckets of the `train_days` before the last midnight in the time zone of the series.

    Raises TooShortError, or another UserError, that names the series.
    """
    zone = settings.zone_of(series.name)
    end = _training_end(series, settings)
    start = last_midnight(end, zone, settings.train_days)
    within = series.between(start, end)
    if not len(within.times):
        raise detectors.TooShortError(f"{series.name}: has no full day of history; record it for longer")
    try:
        sampling = find_sampling(within)
    except UserError as error:
        raise UserError(f"{series.name}: {error}") from None
    # The first difference of a counter needs the reading before the span, and the last bucket ends with a
    # sample that may be some seconds late.
    span = as_sums(series, sampling).between(start, end + 60 * sampling.minutes)
    preparation = PREPARATIONS[settings.preparation]
    minutes = bucket_minutes(settings.minutes, sampling.minutes)
    buckets = preparation.buckets(span, minutes, zone, replace(sampling, is_counter=False))
    return settings.calendar.of(series.name).mark_unlearnt(buckets[buckets.starts < end], zone), sampling


def fit_series(series: Series, detector: str, settings: TrainingSettings) -> models.Trained:
    """Train one detector on what training_buckets returns. Raises the same, and what detectors.fit raises."""
    zone = settings.zone_of(series.name)
    preparation = PREPARATIONS[settings.preparation]
    buckets, sampling = training_buckets(series, settings)
    end = _training_end(series, settings)
    special = _special_days(settings.holidays_of(series.name), zone, int(buckets.starts[0]), end)
    buckets = special.mark(buckets, zone) if special else buckets
    weekend = special.weekend if special else None
    try:
        model = detectors.fit(detector, buckets, preparation, zone, settings.drift_minutes, weekend)
    except UserError as error:
        raise type(error)(f"{series.name}: {error}") from None
    libraries = ("numpy", *_LIBRARIES.get(detector, ()), *(("holidays",) if special else ()))
    return models.Trained(
        series=series.name,
        detector=detector,
        preparation=settings.preparation,
        minutes=buckets.minutes,
        zone=zone,
        start=int(buckets.starts[0]),
        end=end,
        versions={library: importlib.metadata.version(library) for library in libraries},
        model=model,
        sensitivity=sensitivity.sensitivity(model, buckets, preparation.alert_records(buckets.minutes)),
        sample_minutes=sampling.minutes,
        is_counter=sampling.is_counter,
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
