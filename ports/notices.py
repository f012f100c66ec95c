"""What the hourly job logs: a fault or an incident once when it begins, and once when it has ended."""

from __future__ import annotations

import logging

from common.times import DAY_SECONDS, format_duration, format_time
from ports.detectors import MIN_DAYS
from ports.faults import MOST_LINES, SeriesNotices, some_of
from ports.incidents import ANSWERED, LEVELS, OF_ALL, OF_DEVICE, OF_PORT, UNSEEN, PortIncident
from ports.judging import JudgingSettings, Report
from ports.sensitivity import describe_blind
from service.log import Notices

logger = logging.getLogger("find_anomalies")

# A newest model this old means that the nightly job has not run for some nights.
STALE_SECONDS = 4 * DAY_SECONDS


class PortNotices:
    """Logs the faults of the hourly job, run by run."""

    def __init__(self, settings: JudgingSettings) -> None:
        self._settings = settings
        self._notices = Notices()
        self._faults = SeriesNotices(logging.ERROR, "that could not be judged", "can be judged again")
        self._has_told_blind = False
        self._silence = SeriesNotices(logging.WARNING, "have no sample and are unknown", "have samples again")

    def show(self, report: Report) -> None:
        """Log the faults of one run that are new or have ended, and the run itself in one line."""
        self._faults.show(report.faults, report.newest)
        self._note("no ports", report.no_ports, "all series now belong to a port")
        self._silence.show(report.silent, report.newest)
        self._tell(report)
        self._note("untrained", self._untrained(report), "every series has a model now")
        self._tell_blind(report)
        self._note("stale", _stale(report), "the newest model is no longer too old")
        logger.info("%s", report.summary())

    def _tell(self, report: Report) -> None:
        """Log what has opened and closed: a line for many ports at once, and for each other series."""
        belonging = report.state.shared.belonging
        of_many = [change for change in report.changes if change[1].scope != OF_PORT]
        # A new level has a line of its own, which also says that the incident is over.
        of_one = [
            (time, one)
            for time, one in report.changes
            if one.scope == OF_PORT and one.key not in belonging and one.end not in LEVELS
        ]
        told = [(time, f"{describe_incident(time, one)}{self._by(one.detector)}") for time, one in of_one]
        told += [(one.time, f"{one}{self._by(one.detector)}") for one in report.new_levels]
        lines = [f"{describe_incident(time, one)}{self._by(one.detector)}" for time, one in of_many]
        lines += [line for _, line in sorted(told, key=lambda one: one[0])]
        for line in lines[:MOST_LINES]:
            logger.warning("%s", line)
        if len(lines) > MOST_LINES:
            logger.warning("and %d more lines about incidents", len(lines) - MOST_LINES)

    def _by(self, detector: str) -> str:
        return f" ({detector})" if len(self._settings.detectors) > 1 else ""

    def _note(self, topic: str, line: str | None, mended: str) -> None:
        if line:
            self._notices.fault(topic, line, logging.WARNING)
        else:
            self._notices.mended(topic, mended)

    def _tell_blind(self, report: Report) -> None:
        """Log once how many models are blind: this is no fault, and changes little from night to night."""
        if report.blind and not self._has_told_blind:
            logger.warning("%s", describe_blind(report.blind))
            self._has_told_blind = True

    def _untrained(self, report: Report) -> str | None:
        """One line for all series without a model, which are unknown."""
        names, detectors = report.untrained, self._settings.detectors
        if not names:
            return None
        remedy = (
            f"--target ports --mode train --detector {detectors[0] if len(detectors) == 1 else 'all'}"
            f" trains each series that has {MIN_DAYS} days of history"
        )
        if len(names) == report.count:
            return f"none of {len(names)} series has a model in {self._settings.models} yet; {remedy}"
        return (
            f"{len(names)} of {report.count} series have no model in {self._settings.models} yet and are not"
            f" judged: {some_of(names)}; {remedy}"
        )


def describe_incident(time: int, incident: PortIncident) -> str:
    """The line to log when an incident opens or closes, with the end of the bucket that did it (seconds since
    1970).
    """
    subject = {OF_PORT: incident.name, OF_DEVICE: f"device {incident.name}", OF_ALL: "all devices"}[
        incident.scope
    ]
    ports = "" if incident.scope == OF_PORT else f", {incident.ports} ports at once"
    moment, since = (format_time(seconds * 10**9) for seconds in (time, incident.since))
    peak = f"{_amount(incident.traffic)} instead of {_amount(incident.expected)}"
    if not incident.end:
        return f"{moment} incident opens: {incident.why} [{incident.id}]"
    lasted = format_duration(incident.until - incident.since)
    balance = "lost" if incident.surplus_bytes < 0 else "surplus"
    unseen = {UNSEEN: "; it is unknown now", ANSWERED: "; an answer keeps it quiet"}.get(incident.end, "")
    return (
        f"{moment} incident closes: {subject}{ports}, for {lasted} since {since};"
        f" {balance} {_amount(abs(incident.surplus_bytes))}; peak score {incident.score:.1f}: {peak}{unseen}"
        f" [{incident.id}]"
    )


def _amount(count: float) -> str:
    """Such as 2.88 MB."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.3g} {units[0]}"


def _stale(report: Report) -> str | None:
    if not report.now or not 0 < report.trained_until < report.now - STALE_SECONDS:
        return None
    newest = format_time(report.trained_until * 10**9)
    return f"the newest model was trained up to {newest}; check that the nightly job runs"
