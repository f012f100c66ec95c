"""The hourly job: it judges what is new and stores it, even if a server was away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from common.answers import TRAFFIC_METRIC
from common.files import UnavailableError, UserError
from ports.calendars import Calendar
from ports.exporter import PortMetrics
from ports.judging import JudgingSettings, Report, judge_new
from ports.notices import PortNotices
from ports.page import PortsPage
from ports.series import port_tags
from ports.sources import Source
from ports.state import JobState, load_state, save_state
from service.answer_files import PORTS, AnswerFiles
from service.idle_answers import note_idle
from service.incident_log import IncidentLog
from service.log import Notices
from service.loop import Turn
from service.systemd import Ending, watchdog_seconds

logger = logging.getLogger("find_anomalies")

HOUR_SECONDS = 3600
# A sample may be stored this much later than its own time.
LATENESS_SECONDS = 120
# One step of a run may take this long: a query, the start of the workers, one series with all detectors.
LONGEST_STEP_SECONDS = 60


def seconds_to_next(now: float) -> float:
    """Seconds until LATENESS_SECONDS past the hour, when its last sample is there; now: since 1970."""
    return HOUR_SECONDS - (now - LATENESS_SECONDS) % HOUR_SECONDS


def check_steps() -> None:
    """Raise UserError if systemd's watchdog would end the job in the middle of a run."""
    seconds = watchdog_seconds()
    if 0 < seconds < LONGEST_STEP_SECONDS:
        raise UserError(
            f"the watchdog's {seconds:g} s are too short for one step of the hourly job;"
            f" set WatchdogSec={3 * LONGEST_STEP_SECONDS} in the unit"
        )


class HourlyJob:
    """Judges what is new and stores it. If the server goes away in between, the next run only stores.

    open_source: lists the series. faults_of_server: turns what a server raises into an UnavailableError.
    state_file: keeps the time up to which each series was judged, and open incidents; without it, judging
    starts at the end of training. Beside it is the log of incidents. calendar_file: windows without alerts,
    answers_file: what people said of incidents; both are read again when they change. store_expected: stores
    what was expected, if the settings keep it; returns why the server refuses some. clock: seconds since
    1970. monotonic: seconds that a correction of the clock does not change. page: shown to browsers.

        job = HourlyJob(settings, lambda: Folder("data/ports"), contextlib.nullcontext)
        loop.run(job.turn, ending)    # two minutes past every hour
    """

    def __init__(
        self,
        settings: JudgingSettings,
        open_source: Callable[[], Source],
        faults_of_server: Callable[[], AbstractContextManager[None]],
        state_file: Path | None = None,
        calendar_file: str | None = None,
        answers_file: str | None = None,
        metrics: PortMetrics | None = None,
        store_expected: Callable[[Sequence[bytes]], str | None] | None = None,
        ending: Ending | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        page: PortsPage | None = None,
    ) -> None:
        self._settings = settings
        self._open_source, self._faults_of_server = open_source, faults_of_server
        self._state_file = state_file
        self._store_expected = store_expected
        self._metrics, self._ending = metrics or PortMetrics(), ending or Ending()
        self._clock, self._monotonic = clock, monotonic
        self._page = page
        self._state = load_state(state_file) if state_file else JobState()
        # As it was read last.
        self._calendar = Calendar()
        self._incident_log = IncidentLog(state_file.parent) if state_file else None
        # What was judged but could not be stored.
        self._waiting: tuple[Source, Report] | None = None
        self._port_notices, self._notices = PortNotices(settings), Notices()
        self._files = AnswerFiles(PORTS, answers_file, calendar_file, self._notices, needs_calendar=True)
        self._next_run = 0.0

    def run_once(self) -> None:
        """Run once, and raise UserError for any fault."""
        if count := len(self._run().faults):
            raise UserError(f"{count} series could not be judged; the log says why")

    def turn(self) -> Turn:
        """Run once and log a fault once. The next run is at the next hour, or within seconds if a server is
        away.
        """
        self._metrics.runs.inc()
        begin = self._monotonic()
        try:
            report = self._run()
        except UserError as error:
            is_away = isinstance(error, UnavailableError)
            self._metrics.failures.labels(error.kind if is_away else "refused").inc()
            self._notices.fault("run", str(error))
            if self._page is not None:
                self._page.fail(str(error))
            return Turn(str(error), self._seconds_left(), is_away)
        self._notices.mended("run", "ports are judged again")
        self._metrics.good_run(report, self._monotonic() - begin)
        if self._page is not None:
            self._page.take(report, self._calendar)
        return Turn(report.summary(), self._seconds_left())

    def _seconds_left(self) -> float:
        """Seconds until there are new samples to judge."""
        return max(self._next_run - self._monotonic(), 0.0)

    def _run(self) -> Report:
        """Judge and store. Raises UserError for a fault that concerns all series."""
        found, self._waiting = self._waiting or self._judge(), None
        source, report = found
        try:
            with self._faults_of_server(), self._ending.deferred():
                # If this is cut short, the next run writes the same points again, which changes nothing.
                source.store(report.anomalies, [incident for _, incident in report.changes])
                self._send_expected(report.expected)
                if self._state_file:
                    save_state(report.state, self._state_file)
                    self._publish(report)
        except UnavailableError:
            self._waiting = found
            raise
        self._state = report.state
        return report

    def _send_expected(self, texts: Sequence[bytes] | None) -> None:
        """Store what was expected, after the anomalies; what the server refuses for good is dropped."""
        if not texts or not self._store_expected:
            return
        if reason := self._store_expected(texts):
            line = f"InfluxDB refuses points of `expected` ({reason}); they are dropped"
            self._notices.fault("expected", line, subject="")
        else:
            self._notices.mended("expected", "InfluxDB takes the points of `expected` again")

    def _judge(self) -> tuple[Source, Report]:
        self._next_run = self._monotonic() + seconds_to_next(self._clock())
        with self._faults_of_server():
            source = self._open_source()
            report = judge_new(source, self._settings, self._state, self._read_calendar())
        self._note_idle(source.names())
        self._port_notices.show(report)
        return source, report

    def _read_calendar(self) -> Calendar:
        """The calendar and the answers as they are now, or the last good ones."""
        self._files.refresh()
        self._calendar = Calendar(self._files.windows, self._files.answers)
        return self._calendar

    def _note_idle(self, series: Sequence[str]) -> None:
        """Log answers and windows of what is not there."""
        names = {*series, *(port_tags(one)["device"] for one in series)}
        answers, windows = self._files.answers, self._files.windows
        if series:
            note_idle(self._notices, PORTS, answers, windows, names, (TRAFFIC_METRIC,))

    def _publish(self, report: Report) -> None:
        """Tell other programs which incidents have opened and closed."""
        if not self._incident_log:
            return
        members = report.state.shared.members
        entries = [one.entry(members.get(one, {}).values()) for _, one in report.changes]
        try:
            self._incident_log.add(entries)
        except OSError as error:
            self._notices.fault(
                "incident log",
                f"{self._incident_log.path}: cannot be written ({error.strerror}); free some space, or give"
                " the service's user the right. Until then other programs do not know of new incidents",
            )
        else:
            self._notices.mended("incident log", f"{self._incident_log.path} can be written again")
