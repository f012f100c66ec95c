"""The hourly job as a service: it judges what is new, once or for ever, also after a server was away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from common.files import UserError
from ports import jobs
from ports.parallel import Cluster
from ports.sources import Source, UnavailableError
from service.log import Notices
from service.loop import Backoff
from service.systemd import Ending

logger = logging.getLogger("find_anomalies")


@dataclass(frozen=True)
class Settings:
    """What the hourly job is told. models: folder of the models. until: no later sample counts, seconds since
    1970. judged_file: keeps up to when each series was judged; without it all is judged since training.
    plot_dir: folder for a picture of each series with anomalies. once: run once and end.
    """

    models: str
    detectors: tuple[str, ...]
    until: int | None
    cluster: Cluster
    judged_file: Path | None = None
    plot_dir: str | None = None
    once: bool = False


def run(
    settings: Settings,
    open_source: Callable[[], Source],
    faults_of_server: Callable[[], AbstractContextManager[None]],
) -> None:
    """Run the job two minutes past every hour; while a server is away, within seconds until it is back.

    open_source: lists the series. faults_of_server: inside it, what a server raises is an UnavailableError.
    Raises UserError with `once` alone.
    """
    ending = Ending()
    job = _Job(settings, open_source, faults_of_server, ending)
    if settings.once:
        if faults := job.run():
            raise UserError(_describe(faults))
        return
    ending.install()
    notices, backoff = Notices(), Backoff()
    while True:
        try:
            faults = job.run()
        except UserError as error:
            notices.fault("job", str(error))
            if isinstance(error, UnavailableError):
                ending.wait(backoff.next_seconds())
                continue
        else:
            notices.mended("job", "ports are judged again")
            backoff.reset()
            if faults:
                logger.error("%s", _describe(faults))
        ending.wait(max(job.next_run - time.monotonic(), 0.0))


def _describe(count: int) -> str:
    return f"{count} series could not be judged; the log says why"


class _Job:
    """Judges what is new and stores it; if the server goes away in between, the next run only stores.

    next_run: when there is more to judge than was there when it last judged, by time.monotonic().
    """

    def __init__(
        self,
        settings: Settings,
        open_source: Callable[[], Source],
        faults_of_server: Callable[[], AbstractContextManager[None]],
        ending: Ending,
    ) -> None:
        self._settings, self._ending = settings, ending
        self._open_source, self._faults_of_server = open_source, faults_of_server
        self._judged = jobs.load_judged(settings.judged_file) if settings.judged_file else {}
        self._waiting: tuple[Source, jobs.Report] | None = None
        self.next_run = 0.0

    def run(self) -> int:
        """Of how many series there is a fault. Raises UserError for what concerns all of them."""
        found, self._waiting = self._waiting or self._judge(), None
        source, report = found
        try:
            with self._faults_of_server(), self._ending.deferred():
                # If this is cut short the same points are written once more, which changes nothing.
                source.store(report.anomalies)
                if self._settings.judged_file:
                    jobs.save_judged(report.judged, self._settings.judged_file)
        except UnavailableError:
            self._waiting = found
            raise
        self._judged = report.judged
        return report.faults

    def _judge(self) -> tuple[Source, jobs.Report]:
        self.next_run = time.monotonic() + jobs.seconds_to_next(time.time())
        settings = self._settings
        testing = jobs.Testing(
            settings.models,
            settings.detectors,
            settings.until,
            self._judged,
            # Workers may have another working directory.
            str(Path(settings.plot_dir).resolve()) if settings.plot_dir else None,
        )
        with self._faults_of_server():
            source = self._open_source()
            return source, jobs.test(source, testing, settings.cluster)
