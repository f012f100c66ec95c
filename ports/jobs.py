"""The nightly job that trains, the hourly job that applies: all series in parallel, none stops another."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from common.files import UserError, is_there, loadDictJson, saveDictJson
from common.times import DAY_SECONDS, format_time, last_midnight, parse_time
from ports import detectors, models, pictures
from ports.parallel import Cluster, in_parallel
from ports.preparation import PREPARATIONS
from ports.series import KnownAnomaly, Series
from ports.sources import Loaded, Source, known_of, note_no_ports, samples_of, some_of
from ports.verdicts import CONTEXT_BUCKETS, PortAnomaly, Verdicts, judge

logger = logging.getLogger("find_anomalies")

HOUR_SECONDS = 3600
# A sample may be stored so much later than its time.
LATENESS_SECONDS = 120
# A series without a sample for so long is unknown, and said to be.
SILENCE_SECONDS = 2 * HOUR_SECONDS
# The nightly job has not run for some nights.
STALE_SECONDS = 4 * DAY_SECONDS
# Up to when a million series were judged is no larger.
JUDGED_BYTES = 100_000_000
# So many series with a fault have a line each.
MOST_LINES = 20
# What a detector is made of.
_LIBRARIES = {
    "stl": ("statsmodels",),
    "sarimax": ("statsmodels",),
    "random-forest": ("scikit-learn",),
    "isolation-forest": ("scikit-learn",),
    "one-class-svm": ("scikit-learn",),
}


@dataclass(frozen=True)
class Training:
    """What the nightly job is told. until: no later sample counts, seconds since 1970."""

    detectors: tuple[str, ...]
    preparation: str
    minutes: int
    zone: str
    train_days: int
    until: int | None


@dataclass
class Fault:
    """Why a series has no result: one line, None if it has one. is_too_short: for want of history alone."""

    text: str | None = None
    is_too_short: bool = False


class Lines:
    """Logs a line for each of the first MOST_LINES series, and one that counts the others."""

    def __init__(self, level: int, what: str) -> None:
        self._level, self._what = level, what
        self.count = 0

    def add(self, line: str) -> None:
        """Of one more series."""
        self.count += 1
        if self.count <= MOST_LINES:
            logger.log(self._level, "%s", line)

    def end(self) -> None:
        """There are no more."""
        if self.count > MOST_LINES:
            logger.log(self._level, "and %d more series %s", self.count - MOST_LINES, self._what)


def train(source: Source, training: Training, cluster: Cluster, folder: str | Path) -> set[str]:
    """Train all series and replace their models in `folder`; the names of those with a fault.

    The log has a line for each of the first of these, and one for all that have too short a history yet.
    """
    # What holds for all of them is said before the work.
    with contextlib.suppress(FileExistsError, PermissionError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK) or not Path(folder).is_dir():
        raise UserError(
            f"{folder}: cannot be written to; give its user the right, or name another --ports_models"
        )
    names, failed, too_short = source.names(), set(), []
    faults = Lines(logging.ERROR, "that could not be trained")
    tasks = ((name, load_days(source, name, training.train_days, training.until), training) for name in names)
    for name, packed, fault in in_parallel(train_series, tasks, len(names), cluster, "training"):
        try:
            for detector, content in packed:
                models.save(content, models.model_path(folder, name, detector))
        except UserError as error:
            fault = Fault(str(error))
        if fault.is_too_short:
            too_short.append(name)
        elif fault.text:
            failed.add(name)
            faults.add(fault.text)
    faults.end()
    note_no_ports(source)
    note_too_short(too_short, len(names), "trained")
    count = len(names) - len(failed) - len(too_short)
    trained = f"{', '.join(training.detectors)} trained for {count} of {len(names)} series"
    logger.info("%s: %s, with the days of %s", folder, trained, training.zone)
    return failed


def note_too_short(names: Sequence[str], count: int, done: str) -> None:
    """One line for all series of which there is too little history yet."""
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
    """The samples of so many days and the day before them, up to the newest one."""
    end = until or source.now() or 0
    newest = source.newest(name) or end
    return source.load(name, newest - (days + 1) * DAY_SECONDS, end)


def train_series(name: str, loaded: Loaded, training: Training) -> tuple[str, list[tuple[str, bytes]], Fault]:
    """Its name, each detector with the content of its model's file, and what went wrong, if something did."""
    packed: list[tuple[str, bytes]] = []
    faults = []
    with faults_of(name) as fault:
        series = samples_of(loaded, name)
        for detector in training.detectors:
            with faults_of(name) as of_detector:
                packed.append((detector, models.pack(fit_series(series, detector, training))))
            faults.append(of_detector)
    found = [one for one in (fault, *faults) if one.text]
    # What holds for all detectors is said once.
    text = "; ".join(dict.fromkeys(one.text for one in found)) or None
    return name, packed, Fault(text, bool(found) and all(one.is_too_short for one in found))


def fit_series(series: Series, detector: str, training: Training) -> models.Trained:
    """Train one detector on the `train_days` before the last midnight of its time zone.

    Raises TooShortError, or another UserError, that names the series.
    """
    newest = int(series.times[-1]) if len(series.times) else 0
    end = last_midnight(min(newest, training.until or newest), training.zone)
    span = series.between(end - training.train_days * DAY_SECONDS, end)
    if not len(span.times):
        raise detectors.TooShortError(f"{series.name}: has no day of history; record it for longer")
    preparation = PREPARATIONS[training.preparation]
    buckets = preparation.buckets(span, training.minutes, training.zone)
    try:
        model = detectors.fit(detector, buckets, preparation)
    except UserError as error:
        raise type(error)(f"{series.name}: {error}") from None
    libraries = ("numpy", *_LIBRARIES.get(detector, ()))
    return models.Trained(
        series.name,
        detector,
        training.preparation,
        training.minutes,
        training.zone,
        int(buckets.starts[0]),
        end,
        {library: importlib.metadata.version(library) for library in libraries},
        model,
    )


@dataclass(frozen=True)
class Tested:
    """Of one series: its newest sample, each detector's verdicts with what leads up to them, a fault."""

    name: str
    newest: int | None
    verdicts: tuple[Verdicts, ...]
    fault: str | None


@dataclass(frozen=True)
class Testing:
    """What the hourly job is told. judged: (series, detector) -> end of the last bucket that was judged."""

    folder: str
    detectors: tuple[str, ...]
    until: int | None
    judged: dict[tuple[str, str], int]
    plot_dir: str | None = None


@dataclass(frozen=True)
class Report:
    """What the hourly job found. judged: as in Testing, with this run. faults: of so many series."""

    anomalies: list[PortAnomaly]
    judged: dict[tuple[str, str], int]
    faults: int


def test(source: Source, testing: Testing, cluster: Cluster) -> Report:
    """Judge what is new in each series since it was last judged, or since its training.

    Of a series without a model nothing is read: one line counts them all.
    """
    names = source.names()
    kept = models.file_names(testing.folder)
    faults = Lines(logging.ERROR, "that could not be judged")
    with_model: dict[str, list[Path]] = {}
    without_model, refusals = [], []
    for name in names:
        paths = [models.model_path(testing.folder, name, detector) for detector in testing.detectors]
        # Asked for all, those are applied that were trained.
        paths = [path for path in paths if path.name in kept]
        if refusal := source.refusal(name):
            refusals.append(str(refusal))
        elif paths:
            with_model[name] = paths
        else:
            without_model.append(name)
    found: list[PortAnomaly] = []
    judged, newest = dict(testing.judged), {}
    counts = dict.fromkeys((NORMAL, ANOMALY, ALERT, UNKNOWN), 0)
    trained = 0
    tasks = _test_tasks(source, testing, with_model)
    for tested in in_parallel(test_series, tasks, len(with_model), cluster, "judging"):
        if tested.fault:
            faults.add(tested.fault)
        else:
            newest[tested.name] = tested.newest
        for verdicts in tested.verdicts:
            key = tested.name, verdicts.trained.detector
            new = verdicts.after(judged.get(key, verdicts.trained.end))
            found += new.anomalies()
            for status in counts:
                counts[status] += int((new.statuses == status).sum())
            if len(new.times):
                judged[key] = int(new.times[-1])
        trained = max([trained, *(one.trained.end for one in tested.verdicts)])
    now = testing.until or source.now()
    # What is known before the work is said after it: a job whose server goes away is tried every few seconds.
    for line in refusals:
        faults.add(line)
    faults.end()
    note_no_ports(source)
    _warn_of_silence(newest, now)
    _note_untrained(without_model, len(names), testing)
    if source.now() and 0 < trained < now - STALE_SECONDS:
        newest_model = format_time(trained * 10**9)
        logger.warning("the newest model was trained up to %s; does the nightly job run?", newest_model)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    logger.info("%d series, %d buckets: %s", len(names), sum(counts.values()), summary)
    found.sort(key=lambda verdict: (verdict.time, verdict.series, verdict.detector))
    return Report(found, judged, faults.count)


def load_judged(filename: Path) -> dict[tuple[str, str], int]:
    """Up to when each series was judged by each detector; nothing if there is no such file yet."""
    if not is_there(filename):
        return {}
    judged = {}
    for key, text in loadDictJson(filename, JUDGED_BYTES).items():
        series, _, detector = key.rpartition(" ")
        try:
            judged[series, detector] = parse_time(text) // 10**9
        except (ValueError, AttributeError):
            raise UserError(
                f"{filename}: {key!r} is no time; delete the file, and all is judged since training"
            ) from None
    return judged


def save_judged(judged: dict[tuple[str, str], int], filename: Path) -> None:
    """Write what load_judged reads."""
    saveDictJson({" ".join(key): format_time(time * 10**9) for key, time in sorted(judged.items())}, filename)


def seconds_to_next(now: float) -> float:
    """Until the newest bucket of this hour has its last sample."""
    return HOUR_SECONDS - (now - LATENESS_SECONDS) % HOUR_SECONDS


def _test_tasks(source: Source, testing: Testing, with_model: dict[str, list[Path]]) -> Iterator[tuple]:
    for name, paths in with_model.items():
        trained, fault = _load_models(name, paths)
        since = [testing.judged.get((name, one.detector), one.end) for one in trained]
        context = max((CONTEXT_BUCKETS + 1) * one.minutes * 60 for one in trained) if trained else 0
        start = min(since, default=0) - context
        end = testing.until or source.now() or 0
        loaded = source.load(name, start, end) if trained else None
        known = known_of(source, name)
        yield (
            name,
            loaded,
            list(zip(trained, since, strict=True)),
            testing.until,
            testing.plot_dir,
            known,
            fault,
        )


def _load_models(name: str, paths: Sequence[Path]) -> tuple[list[models.Trained], str | None]:
    """What can be applied, and why the rest cannot."""
    trained, faults = [], []
    for path in paths:
        try:
            trained.append(models.load(path))
        except UserError as error:
            faults.append(str(error))
    return trained, f"{name}: {'; '.join(faults)}" if faults else None


def test_series(
    name: str,
    loaded: Loaded | None,
    trained: Sequence[tuple[models.Trained, int]],
    until: int | None,
    plot_dir: str | None,
    known: Sequence[KnownAnomaly],
    fault_before: str | None,
) -> Tested:
    """Judge one series by its models, each with the time up to which it has judged."""
    newest, verdicts = None, []
    with faults_of(name) as fault:
        if loaded is not None:
            series = samples_of(loaded, name)
            series = series.between(0, until) if until else series
            newest = int(series.times[-1]) if len(series.times) else None
            verdicts = [judge(one, series, since) for one, since in trained if newest]
            # A picture that cannot be drawn costs no verdict.
            for of_one, (one, since) in zip(verdicts, trained, strict=False):
                if plot_dir and any(of_one.after(since).anomalies()):
                    pictures.plot_series(of_one, known, Path(plot_dir) / f"{name}.{one.detector}.png")
    return Tested(name, newest, tuple(verdicts), fault.text or fault_before)


def _warn_of_silence(newest: dict[str, int | None], now: int | None) -> None:
    """A series that has stopped is unknown, which must not pass for normal."""
    now = now or max((time for time in newest.values() if time), default=0)
    silent = Lines(logging.WARNING, "without a sample: unknown")
    for name, time in newest.items():
        if time is None:
            silent.add(f"{name}: has no sample that could be judged: unknown")
        elif time < now - SILENCE_SECONDS:
            silent.add(f"{name}: has no sample since {format_time(time * 10**9)}: unknown")
    silent.end()


def _note_untrained(names: Sequence[str], count: int, testing: Testing) -> None:
    """One line for all series without a model, which are unknown."""
    if not names:
        return
    detector = testing.detectors[0] if len(testing.detectors) == 1 else "all"
    remedy = (
        f"--target ports --mode train --detector {detector} trains each series that has {detectors.MIN_DAYS}"
        " days of history"
    )
    if len(names) == count:
        logger.warning("none of %d series has a model in %s yet; %s", count, testing.folder, remedy)
    else:
        logger.warning(
            "%d of %d series have no model in %s yet and are not judged: %s; %s",
            len(names),
            count,
            testing.folder,
            some_of(names),
            remedy,
        )


@contextlib.contextmanager
def faults_of(name: str) -> Iterator[Fault]:
    """What goes wrong inside the `with` becomes one line that names the series."""
    fault = Fault()
    try:
        yield fault
    except UserError as error:
        fault.text, fault.is_too_short = str(error), isinstance(error, detectors.TooShortError)
    # Whatever a library does with one series in hundreds, the others must have their models.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        fault.text = f"{name}: failed ({type(error).__name__}: {reason}); report it with the samples"
