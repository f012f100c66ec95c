"""What the page shows of ports: how things stand after the newest run, and the last week of one series."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.alerts import UNKNOWN
from common.times import DAY_SECONDS
from ports import models
from ports.calendars import Calendar
from ports.judging import JudgingSettings, Report
from ports.pictures import SUMMED
from ports.sources import Source, samples_of
from ports.verdicts import Verdicts, judge, read_from
from service.incident_log import IncidentLog
from service.json_text import STATUS_DIGITS, json_digits, json_numbers, json_object, json_whole
from service.page import ShownIncidents, notes_json

SHOWN_SECONDS = 7 * DAY_SECONDS
# What a series is instead of its newest bucket.
UNTRAINED, FAULT, SILENT_PORT = "without a model", "fault", "silent"
_LARGEST = 3e38


@dataclass(frozen=True)
class PortsStanding:
    """How ports stand after a run.

    judged_at: seconds since 1970. statuses: series -> that of its newest bucket, or what it is instead.
    silent, faults: series -> why, in one line. blind: series -> why, in one line. fault: why the run could
    not judge; empty if it could.
    """

    judged_at: float
    statuses: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    blind: Mapping[str, str] = field(default_factory=dict)
    calendar: Calendar = field(default_factory=Calendar)
    fault: str = ""


class PortsPage:
    """Keeps what the page shows of ports, and makes the answers of its routes.

    open_source, faults_of_server: as in HourlyJob; called in the server's thread. incidents: None where no
    state is kept.
    """

    def __init__(
        self,
        settings: JudgingSettings,
        open_source: Callable[[], Source],
        faults_of_server: Callable[[], AbstractContextManager[None]],
        incidents: IncidentLog | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._open_source, self._faults_of_server = open_source, faults_of_server
        self._incidents = ShownIncidents(incidents, "ports")
        self._standing = PortsStanding(clock(), fault="there was no run yet")
        # The source, opened once for each run.
        self._source: tuple[PortsStanding, Source] | None = None

    @property
    def routes(self) -> dict[str, Callable[[dict[str, str]], bytes]]:
        """Path -> what makes its answer."""
        return {"/now": self.now, "/port": self.port}

    def version(self) -> Any:
        """Another one after each run."""
        return self._standing

    # --- from the job ----------------------------------------------------------------------------

    def take(self, report: Report, calendar: Calendar) -> None:
        """Show what a run found."""
        before = self._standing.statuses
        statuses = {
            name: report.newest_statuses.get(name, before.get(name, UNKNOWN)) for name in report.newest
        }
        statuses |= dict.fromkeys(report.untrained, UNTRAINED)
        statuses |= dict.fromkeys(report.silent, SILENT_PORT) | dict.fromkeys(report.faults, FAULT)
        self._standing = PortsStanding(
            self._clock(),
            statuses,
            dict(report.silent),
            dict(report.faults),
            dict(report.blind),
            calendar,
        )

    def fail(self, fault: str) -> None:
        """Show that nothing is judged at the moment, and why."""
        before = self._standing
        self._standing = PortsStanding(
            before.judged_at,
            before.statuses,
            before.silent,
            before.faults,
            before.blind,
            before.calendar,
            fault,
        )

    # --- for browsers ----------------------------------------------------------------------------

    def now(self, words: Mapping[str, str]) -> bytes:
        """How things stand, as JSON."""
        standing = self._standing
        untrained = [name for name, status in standing.statuses.items() if status == UNTRAINED]
        content = {
            "half": "ports",
            "polled": round(standing.judged_at * 1000),
            "every": 3600,
            "fault": standing.fault,
            **self._incidents.content(),
            "notes": [
                *notes_json(FAULT, _reasons(standing.faults)),
                *notes_json(SILENT_PORT, _reasons(standing.silent)),
                *notes_json("blind", _reasons(standing.blind)),
                *notes_json(UNTRAINED, dict.fromkeys(untrained, ("",))),
            ],
            "nodes": list(standing.statuses.items()),
        }
        return json.dumps(content, separators=(",", ":")).encode()

    def port(self, words: Mapping[str, str]) -> bytes:
        """The last week of a series, its `name`, as JSON: judged by the model of now.

        Raises LookupError for a series without a model, and UserError if it cannot be judged.
        """
        standing, name = self._standing, words.get("name", "")
        if name not in standing.statuses:
            raise LookupError(f"{name} is not among the ports")
        verdicts = self._judge(standing, name)
        trained, scored = verdicts.trained, verdicts.scored
        seconds = 60 * (trained.minutes if trained.preparation == SUMMED else trained.sample_minutes)
        rates = {
            "traffic": verdicts.buckets.traffic,
            "expected": scored.expected,
            "low": scored.low,
            "high": scored.high,
        }
        parts = {
            "name": json.dumps(name),
            "status": json.dumps(standing.statuses[name]),
            "detector": json.dumps(trained.detector),
            "step": str(trained.minutes * 60_000),
            "times": json_whole(verdicts.times * 1000),
            "statuses": json_digits(
                np.array([STATUS_DIGITS.index(one) for one in verdicts.statuses], dtype=int)
            ),
            # Bits per second.
            **{
                word: json_numbers(np.clip(8 * values / seconds, -_LARGEST, _LARGEST))
                for word, values in rates.items()
            },
        }
        return json_object(parts).encode()

    def _judge(self, standing: PortsStanding, name: str) -> Verdicts:
        settings = self._settings
        kept = models.file_names(settings.models)
        paths = [models.model_path(settings.models, name, detector) for detector in settings.detectors]
        found = next((path for path in paths if path.name in kept), None)
        if found is None:
            raise LookupError(f"{name} has no model; train it (--target ports --mode train)")
        trained = models.load(found)
        with self._faults_of_server():
            if self._source is None or self._source[0] is not standing:
                self._source = standing, self._open_source()
            source = self._source[1]
            end = settings.until or source.now() or 0
            since = end - SHOWN_SECONDS
            loaded = source.load(name, read_from(trained, since), end)
        series = samples_of(loaded, name)
        series = series.between(0, settings.until) if settings.until else series
        if not end and len(series.times):
            # A folder may have been recorded at any time.
            since = int(series.times[-1]) - SHOWN_SECONDS
        return judge(trained, series, since, standing.calendar.of(name)).after(since)


def _reasons(lines: Mapping[str, str]) -> dict[str, tuple[str]]:
    """The lines about series, which begin with their names, without these."""
    return {name: (line.removeprefix(f"{name}: "),) for name, line in lines.items()}
