"""Judging what is new in each series since it was last judged, all series in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from common.files import UserError, is_there, loadDictJson, saveDictJson
from common.times import format_time, parse_time
from ports import models, pictures
from ports.calendars import Calendar
from ports.faults import faults_of
from ports.parallel import Cluster, in_parallel
from ports.series import KnownAnomaly
from ports.sources import Loaded, Source, known_of, samples_of
from ports.verdicts import NO_WINDOWS, PortAnomaly, Verdicts, judge, judged_from

# The file of judged times is no larger, even with a million series.
JUDGED_BYTES = 100_000_000
# A series without a sample for this long is unknown.
SILENCE_SECONDS = 2 * 3600

# (series, detector) -> the end of the last judged bucket, seconds since 1970.
JudgedUntil = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class JudgingSettings:
    """How to judge. models: folder of the models. until: later samples do not count, seconds since 1970.
    plot_dir: folder for a picture of each series with anomalies.
    """

    models: str
    detectors: tuple[str, ...]
    until: int | None
    cluster: Cluster
    plot_dir: str | None = None


@dataclass(frozen=True)
class JudgingTask:
    """One series to judge.

    loaded: its samples; None if no model can be applied. models: each with the time up to which it has judged
    the series, seconds since 1970. known: its known anomalies. model_fault: why a model cannot be applied, in
    one line. calendar: windows without alerts.
    """

    name: str
    loaded: Loaded | None
    models: tuple[tuple[models.Trained, int], ...]
    until: int | None
    plot_dir: str | None
    known: Sequence[KnownAnomaly]
    model_fault: str | None
    calendar: Calendar


@dataclass(frozen=True)
class JudgedSeries:
    """The result for one series. newest: time of its newest sample, seconds since 1970; None without one.
    verdicts: one per model, with the buckets that lead up to the new ones. fault: one line, None without one.
    """

    name: str
    newest: int | None
    verdicts: tuple[Verdicts, ...]
    fault: str | None


@dataclass
class Report:
    """What one run found.

    count: number of series. now: seconds since 1970; None for samples recorded at another time. judged: the
    times of before, updated by this run. anomalies: the new ones, by time. newest: series judged without a
    fault -> time of the newest sample, None without one. silent: those of them that have stopped -> one line.
    faults: series -> one line. untrained: series without a model. no_ports: tags of series that belong to no
    port. statuses: status -> how many new buckets have it. trained_until: end of training of the newest
    model, seconds since 1970; 0 without one.
    """

    count: int
    now: int | None
    judged: dict[tuple[str, str], int]
    anomalies: list[PortAnomaly] = field(default_factory=list)
    newest: dict[str, int | None] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)
    no_ports: Sequence[str] = ()
    statuses: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((NORMAL, ANOMALY, ALERT, UNKNOWN), 0)
    )
    trained_until: int = 0

    def add(self, found: JudgedSeries) -> None:
        """Add the result for one series."""
        if found.fault:
            self.faults[found.name] = found.fault
        else:
            self.newest[found.name] = found.newest
        for verdicts in found.verdicts:
            key = found.name, verdicts.trained.detector
            new = verdicts.after(self.judged.get(key, verdicts.trained.end))
            self.anomalies += new.anomalies()
            for status in self.statuses:
                self.statuses[status] += int((new.statuses == status).sum())
            if len(new.times):
                self.judged[key] = int(new.times[-1])
            self.trained_until = max(self.trained_until, verdicts.trained.end)

    def summary(self) -> str:
        """The number of series and of new buckets by status, in one line."""
        statuses = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"{self.count} series, {sum(self.statuses.values())} buckets: {statuses}"


def judge_new(
    source: Source, settings: JudgingSettings, judged: JudgedUntil, calendar: Calendar = NO_WINDOWS
) -> Report:
    """Judge each series from where it was last judged, or from the end of its training.

    No sample is read of a series without a model. calendar: windows without alerts.
    """
    names = source.names()
    report = Report(len(names), source.now(), dict(judged), no_ports=source.no_ports)
    kept = models.file_names(settings.models)
    with_model: dict[str, list[Path]] = {}
    refusals: dict[str, str] = {}
    for name in names:
        paths = [models.model_path(settings.models, name, detector) for detector in settings.detectors]
        # With all detectors asked for, the trained ones are applied.
        paths = [path for path in paths if path.name in kept]
        if refusal := source.refusal(name):
            refusals[name] = str(refusal)
        elif paths:
            with_model[name] = paths
        else:
            report.untrained.append(name)
    tasks = _tasks(source, settings, judged, with_model, calendar)
    for found in in_parallel(judge_series, tasks, len(with_model), settings.cluster, "judging"):
        report.add(found)
    report.faults |= refusals
    report.silent = silent_series(report.newest, settings.until or source.now())
    report.anomalies.sort(key=lambda anomaly: (anomaly.time, anomaly.series, anomaly.detector))
    return report


def silent_series(newest: Mapping[str, int | None], now: int | None) -> dict[str, str]:
    """Series that have stopped -> one line. They are unknown, and must not pass for normal.

    newest: time of the newest sample of each series, None without one. now: seconds since 1970; None stands
    for the newest sample of all series.
    """
    now = now or max((time for time in newest.values() if time), default=0)
    silent = {}
    for name, time in newest.items():
        if time is None:
            silent[name] = f"{name}: has no sample to judge, so it is unknown"
        elif time < now - SILENCE_SECONDS:
            silent[name] = f"{name}: has had no sample since {format_time(time * 10**9)}, so it is unknown"
    return silent


def _tasks(
    source: Source,
    settings: JudgingSettings,
    judged: JudgedUntil,
    with_model: dict[str, list[Path]],
    calendar: Calendar,
) -> Iterator[JudgingTask]:
    # Workers may have another working directory.
    plot_dir = str(Path(settings.plot_dir).resolve()) if settings.plot_dir else None
    for name, paths in with_model.items():
        trained, fault = _load_models(name, paths)
        since = [judged.get((name, one.detector), one.end) for one in trained]
        starts = (judged_from(one, time) - one.minutes * 60 for one, time in zip(trained, since, strict=True))
        start = min(starts, default=0)
        end = settings.until or source.now() or 0
        yield JudgingTask(
            name=name,
            loaded=source.load(name, start, end) if trained else None,
            models=tuple(zip(trained, since, strict=True)),
            until=settings.until,
            plot_dir=plot_dir,
            known=known_of(source, name),
            model_fault=fault,
            calendar=calendar.of(name),
        )


def _load_models(name: str, paths: Sequence[Path]) -> tuple[list[models.Trained], str | None]:
    """The models that can be applied, and why the others cannot."""
    trained, faults = [], []
    for path in paths:
        try:
            trained.append(models.load(path))
        except UserError as error:
            faults.append(str(error))
    return trained, f"{name}: {'; '.join(faults)}" if faults else None


def judge_series(task: JudgingTask) -> JudgedSeries:
    """Judge one series with its models, and draw it for each model that finds anomalies."""
    newest, verdicts = None, []
    with faults_of(task.name) as fault:
        if task.loaded is not None:
            series = samples_of(task.loaded, task.name)
            series = series.between(0, task.until) if task.until else series
            newest = int(series.times[-1]) if len(series.times) else None
            verdicts = [judge(one, series, since, task.calendar) for one, since in task.models if newest]
            # Drawn after judging: a picture that cannot be drawn costs no verdict.
            for of_one, (one, since) in zip(verdicts, task.models, strict=False):
                if task.plot_dir and any(of_one.after(since).anomalies()):
                    picture = Path(task.plot_dir) / f"{task.name}.{one.detector}.png"
                    pictures.plot_series(of_one, task.known, picture)
    return JudgedSeries(task.name, newest, tuple(verdicts), fault.text or task.model_fault)


# --- where judging stopped -----------------------------------------------------------------------


def load_judged(filename: Path) -> dict[tuple[str, str], int]:
    """The time up to which each detector judged each series; empty if there is no such file yet."""
    if not is_there(filename):
        return {}
    judged = {}
    for key, text in loadDictJson(filename, JUDGED_BYTES).items():
        series, _, detector = key.rpartition(" ")
        try:
            judged[series, detector] = parse_time(text) // 10**9
        except (ValueError, AttributeError):
            raise UserError(
                f"{filename}: {key!r} has no valid time; delete the file, and all is judged since training"
            ) from None
    return judged


def save_judged(judged: JudgedUntil, filename: Path) -> None:
    """Write the file that load_judged reads."""
    saveDictJson({" ".join(key): format_time(time * 10**9) for key, time in sorted(judged.items())}, filename)
