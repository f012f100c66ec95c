"""Judging what is new in each series since it was last judged, all series in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from common.files import UserError
from common.times import format_time
from parallel.cluster import Cluster, in_parallel
from ports import models, pictures
from ports.calendars import Calendar
from ports.expected import expected_lines
from ports.faults import faults_of
from ports.incidents import NewLevel, Watched, observe, unseen
from ports.series import KnownAnomaly, port_tags
from ports.shared import Change
from ports.sources import Loaded, Source, describe_no_ports, known_of, samples_of
from ports.state import JobState, ModelKey
from ports.verdicts import NO_WINDOWS, PortAnomaly, Verdicts, judge, read_from

WORST_FIRST = (ALERT, ANOMALY, UNKNOWN, NORMAL)
# A series is unknown without a sample for this long, and for so many intervals between samples.
SILENCE_SECONDS = 2 * 3600
SILENT_SAMPLES = 2.5


@dataclass(frozen=True)
class JudgingSettings:
    """How to judge. models: folder of the models. until: later samples do not count, seconds since 1970.
    plot_dir: folder for a picture of each series with anomalies. keeps_expected: whether a report has what
    was expected in each bucket.
    """

    models: str
    detectors: tuple[str, ...]
    until: int | None
    cluster: Cluster
    plot_dir: str | None = None
    keeps_expected: bool = False


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

    count: number of series. now: seconds since 1970; None for samples recorded at another time. state: the
    one of before, updated by this run. anomalies: the new ones, by time. changes: what opened and closed, by
    time. new_levels: those that were taken. newest: series judged without a fault -> time of the newest
    sample, None without one. silent: those of them that have stopped -> one line. faults: series -> one line.
    untrained: series without a model. no_ports: one line about series of no port. blind: series and why,
    of each blind model. sample_minutes: series -> minutes between samples. statuses: status -> how many new
    buckets have it. trained_until: end of training of the newest model, seconds since 1970; 0 without one.
    expected: lines of InfluxDB, of each new bucket; None if nobody wants them.
    """

    count: int
    now: int | None
    state: JobState
    anomalies: list[PortAnomaly] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    new_levels: list[NewLevel] = field(default_factory=list)
    newest: dict[str, int | None] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)
    no_ports: str | None = None
    blind: list[tuple[str, str]] = field(default_factory=list)
    sample_minutes: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((NORMAL, ANOMALY, ALERT, UNKNOWN), 0)
    )
    trained_until: int = 0
    # Series with new buckets -> the status of the newest one, the worst of all detectors.
    newest_statuses: dict[str, str] = field(default_factory=dict)
    expected: list[bytes] | None = None
    # Detector -> device and port of all series with new buckets.
    _ports: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def add(self, found: JudgedSeries) -> None:
        """Add the result for one series."""
        if found.fault:
            self.faults[found.name] = found.fault
        else:
            self.newest[found.name] = found.newest
        for verdicts in found.verdicts:
            self._add_verdicts(verdicts)

    def _add_verdicts(self, verdicts: Verdicts) -> None:
        trained, state = verdicts.trained, self.state
        watch = trained.series, trained.detector
        since = state.judged.get(watch, trained.end)
        observed = observe(verdicts, since, state.watched.get(watch, Watched()))
        new = verdicts.after(since).without_alerts(observed.no_alerts)
        state.watched[watch] = observed.watched
        self.changes += observed.changes
        self.new_levels += observed.new_levels
        self.anomalies += new.anomalies()
        if self.expected is not None:
            self.expected.append(expected_lines(new))
        for status in self.statuses:
            self.statuses[status] += int((new.statuses == status).sum())
        if len(new.times):
            state.judged[watch] = int(new.times[-1])
            found = str(new.statuses[-1]), self.newest_statuses.get(trained.series, NORMAL)
            self.newest_statuses[trained.series] = min(found, key=WORST_FIRST.index)
            tags = port_tags(trained.series)
            self._ports.setdefault(trained.detector, set()).add((tags["device"], tags["port"]))
        if trained.sensitivity and trained.sensitivity.blind:
            self.blind.append((trained.series, trained.sensitivity.blind))
        self.trained_until = max(self.trained_until, trained.end)
        self.sample_minutes[trained.series] = trained.sample_minutes

    def finish(self, now: int) -> None:
        """Close what is no longer seen, and find what many ports have in common, once all series are added.

        now: seconds since 1970.
        """
        for watch, watched in self.state.watched.items():
            closed = unseen(watched, self.state.judged.get(watch, 0), now)
            if closed:
                self.changes.append(closed)
                self.state.watched[watch] = replace(watched, open=None, quiet=0, closed=closed[1].until)
        self.changes += self.state.shared.observe(self.changes, self._ports)
        self.changes.sort(key=lambda change: (change[0], change[1].key, change[1].end is not None))
        self.anomalies.sort(key=lambda anomaly: (anomaly.time, anomaly.series, anomaly.detector))

    def summary(self) -> str:
        """The number of series and of new buckets by status, in one line."""
        statuses = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"{self.count} series, {sum(self.statuses.values())} buckets: {statuses}"


def judge_new(
    source: Source, settings: JudgingSettings, before: JobState, calendar: Calendar = NO_WINDOWS
) -> Report:
    """Judge each series from where it was last judged, or from the end of its training.

    No sample is read of a series without a model. calendar: windows without alerts.
    """
    names = source.names()
    report = Report(len(names), source.now(), before.copy(), no_ports=describe_no_ports(source))
    report.expected = [] if settings.keeps_expected else None
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
    tasks = _tasks(source, settings, before.judged, with_model, calendar)
    for found in in_parallel(judge_series, tasks, len(with_model), settings.cluster, "judging"):
        report.add(found)
    report.faults |= refusals
    now = settings.until or source.now() or max((time for time in report.newest.values() if time), default=0)
    report.silent = silent_series(report.newest, now, report.sample_minutes)
    report.finish(now)
    return report


def silent_series(
    newest: Mapping[str, int | None], now: int, sample_minutes: Mapping[str, int]
) -> dict[str, str]:
    """Series that have stopped -> one line. They are unknown, and must not pass for normal.

    newest: time of the newest sample of each series, None without one. now: seconds since 1970.
    sample_minutes: between the samples of a series.
    """
    silent = {}
    for name, time in newest.items():
        seconds = max(SILENCE_SECONDS, SILENT_SAMPLES * 60 * sample_minutes.get(name, 0))
        if time is None:
            silent[name] = f"{name}: has no sample to judge, so it is unknown"
        elif time < now - seconds:
            silent[name] = f"{name}: has had no sample since {format_time(time * 10**9)}, so it is unknown"
    return silent


def _tasks(
    source: Source,
    settings: JudgingSettings,
    judged: Mapping[ModelKey, int],
    with_model: dict[str, list[Path]],
    calendar: Calendar,
) -> Iterator[JudgingTask]:
    # Workers may have another working directory.
    plot_dir = str(Path(settings.plot_dir).resolve()) if settings.plot_dir else None
    for name, paths in with_model.items():
        trained, fault = _load_models(name, paths)
        since = [judged.get((name, one.detector), one.end) for one in trained]
        starts = (read_from(one, time) for one, time in zip(trained, since, strict=True))
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
