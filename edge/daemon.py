"""Test mode as a service: runs for a year, survives faults of what it depends on, and logs each once.

What a poll found, and where judging stopped, is on the disk before it is logged or sent. The next process
continues there. One poll reads, judges, keeps and sends for all nodes; what one of them lacks touches no
other.
"""

from __future__ import annotations

import gc
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import influx_utils
from common.files import UserError
from edge import pictures
from edge.delivery import REFUSED_RETRY_SECONDS, Delivery
from edge.expected import ROOM_BYTES, ROOM_BYTES_OF_MANY, Expectation, ExpectedDelivery
from edge.exporter import FAILING, SILENT, STATUSES_OF_NODES, WITHOUT_MODEL, EdgeMetrics
from edge.gathered import GatheredNotices
from edge.incidents import Alert
from edge.levels import levels_of
from edge.many_nodes import ManyNodes
from edge.monitor import Judged
from edge.poll_log import MOST_BYTES, MOST_BYTES_OF_MANY, Polled, PollLog
from edge.polling import poll_all
from edge.quiet import QuietFiles
from edge.source import SampleSource
from edge.timing import seconds_to_next_poll
from edge.watch import Found, Watch, WatchSettings
from edge.watched_nodes import WatchedNodes
from influx_client import InfluxClient
from nodes.fleet import Named
from nodes.names import listed_names
from service import loop
from service.file_queue import FileQueue
from service.incident_log import IncidentLog
from service.log import ABOUT_NODE, Notices
from service.store import Store, StoreError
from service.systemd import Ending, notify_systemd

if TYPE_CHECKING:
    from edge.page import EdgePage

logger = logging.getLogger("find_anomalies")

# The name of the state of all nodes together.
MANY = "*"
# New nodes are looked for, and nodes without a model tried again, every so often.
LOOK_SECONDS, RETRY_SECONDS = 300.0, 60.0
# How often a poll tells systemd that the service is alive, and how long a part of the first one may take.
ALIVE_SECONDS, START_PART_SECONDS = 5.0, 120


@dataclass(frozen=True, kw_only=True)
class Settings(WatchSettings):
    """How nodes are watched, and the daemon's own settings.

    server, database, measurement: where anomalies go; `server` is host:port. thresholds_file, model: of the
    only node. stores_expected: whether what is expected in each record goes there, too. nodes_dir: has a
    folder for each of many. answers_file, calendar: what keeps anomalies quiet.
    """

    server: str
    database: str
    measurement: str
    plot_dir: str | None = None
    refused_retry_seconds: float = REFUSED_RETRY_SECONDS
    stores_expected: bool = False
    nodes_dir: str = ""
    answers_file: str = ""
    calendar: str | None = None


class Daemon:
    """Polls until it is ended; survives faults of the database and of files, and logs each once.

    source: of the samples. client: of the InfluxDB that stores anomalies; None if they are to be in the
    metrics of `exporter` alone. nodes: those that are watched; the only one has no name. find_nodes: finds
    them again, new ones among them; raises one of the source's errors, or UserError. page: shown to browsers.
    """

    def __init__(
        self,
        settings: Settings,
        source: SampleSource,
        client: InfluxClient | None,
        nodes: Sequence[Named],
        store: Store,
        exporter: EdgeMetrics,
        ending: Ending,
        clock: Callable[[], float] = time.time,
        find_nodes: Callable[[], Sequence[Named]] | None = None,
        page: EdgePage | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        # The server that stores anomalies may be the one that samples are read from.
        self._store_name = f"InfluxDB at {settings.server}"
        self._store = store
        self._exporter = exporter
        self._ending = ending
        self._find_nodes = find_nodes
        self._page = page
        self._notices = Notices()
        self._gathered = GatheredNotices()
        self._quiet = QuietFiles(settings.answers_file, settings.calendar, self._notices)
        states = self._kept_states()
        self.nodes = WatchedNodes(settings, settings.nodes_dir, source, nodes, states, self._gathered, clock)
        self._has_one = [one.name for one in nodes] == [""]
        self._many = ManyNodes()
        # Name -> status of its newest record, or what it is instead.
        self._newest_statuses: dict[str, str] = {}
        self._restore_many(states.get(MANY))
        self.delivery = Delivery(
            client=client,
            database=settings.database,
            measurement=settings.measurement,
            store=store,
            exporter=exporter,
            notices=self._notices,
            ending=ending,
            retry_seconds=settings.refused_retry_seconds,
        )
        self._expected = None
        if settings.stores_expected and client is not None:
            room = ROOM_BYTES if self._has_one else ROOM_BYTES_OF_MANY
            queue = FileQueue(store.path.with_name(influx_utils.EXPECTED), room)
            self._expected = ExpectedDelivery(client, settings.database, queue, exporter, self._notices)
        self.poll_log = PollLog(store.path.parent, MOST_BYTES if self._has_one else MOST_BYTES_OF_MANY)
        self._incident_log = IncidentLog(store.path.parent)
        self._is_connected = self._is_source_away = False
        self._is_first_poll = True
        self._is_frozen = False
        self._status = ""
        self._looked_at = self._tried_at = self._told_alive_at = time.monotonic()
        self._show_standing()

    @property
    def watch(self) -> Watch:
        """The watch of the only node."""
        return self.nodes.watches[""]

    def _kept_states(self) -> dict[str, dict[str, Any]]:
        """The states of the previous process."""
        try:
            return self._store.states()
        except StoreError as error:
            logger.warning("%s; judging starts over", error)
            return {}

    def _restore_many(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            try:
                self._many.restore(state)
            except (KeyError, TypeError, ValueError) as error:
                logger.warning("--state_dir holds no state of many nodes (%r)", error)

    # --- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Poll until a signal ends it, or once. Raises UserError for what only the user can fix."""
        number = len(self.nodes.watches)
        count = "" if self._has_one else f"{number} node{'s' * (number != 1)} in "
        logger.info("watching %s%s, every %g s", count, self._source.place, self._settings.interval_seconds)
        loop.run(self._turn, self._ending)

    def _turn(self) -> loop.Turn:
        begin = time.monotonic()
        is_away = self.poll()
        if not is_away and any(one.monitor.reader.has_more for one in self.nodes.watches.values()):
            return loop.Turn(self._status, 0.0)
        if self._settings.once:
            if not self.nodes.watches:
                raise UserError(
                    "no node is watched; the log says why. Train them first (--mode train --node NAME)"
                )
            return loop.Turn(self._status, None)
        if not is_away:
            self._note_slowness(time.monotonic() - begin)
        return loop.Turn(self._status, seconds_to_next_poll(self._settings.interval_seconds), is_away)

    def _note_slowness(self, lasted_seconds: float) -> None:
        interval = self._settings.interval_seconds
        if skipped := int(lasted_seconds // interval):
            self._exporter.skipped.inc(skipped)
            self._notices.fault(
                "slow",
                f"a poll took longer than the {interval:g} s between polls: some polls are skipped, but no"
                f" records; check how quickly {self._source.name} answers",
                logging.WARNING,
            )
        else:
            self._notices.mended("slow", "polls are quick enough again")

    # --- one poll --------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Do one poll, whatever comes of it. Returns whether a server is away."""
        is_away = self._poll()
        if self._page is not None:
            self._show(self._page)
        return is_away

    def _poll(self) -> bool:
        self._exporter.polls.inc()
        self._is_first_poll, was_first_poll = False, self._is_first_poll
        self.delivery.look_after_store()
        quiet = self._quiet.refresh()
        self._quiet.check(self.nodes.watches, self._metric_names)
        for name, watch in self.nodes.watches.items():
            watch.monitor.judge.quiet = quiet.of(name)
            with ABOUT_NODE.node(name):
                if watch.refresh():
                    bundle, thresholds = watch.bundle, watch.thresholds
                    self._exporter.show_thresholds(thresholds, bundle.metrics, name)
                    self._exporter.show_sensitivity(bundle.curves, thresholds, bundle.metrics, name)
                    self._exporter.show_foreign_thresholds(watch.has_foreign_thresholds, name)
        is_one_server = self._source.name == self._store_name
        is_away = self._is_source_away = not self._read(was_first_poll)
        self._gathered.log()
        if is_away and is_one_server:
            return True
        if not is_away:
            self._look_for_nodes()
            if not is_one_server:
                self._notices.mended(self._source.name, f"{self._source.name} is reachable again")
        return not self._send() or is_away

    def _metric_names(self) -> set[str]:
        return {name for watch in self.nodes.watches.values() for name in watch.bundle.metrics}

    def _read(self, is_first_poll: bool) -> bool:
        """Read and judge what has come. Returns whether the source could be read."""
        watches = self.nodes.watches
        try:
            if not self._is_connected:
                self._source.prepare()
                self._is_connected = True
            monitors = [watch.monitor for watch in watches.values()]
            results = poll_all(self._source, monitors, lambda: self._tell_alive(is_first_poll))
            # One by one: all verdicts on the histories of a thousand nodes are many.
            found: dict[str, Found | Exception] = {}
            for (name, watch), result in zip(watches.items(), results, strict=True):
                found[name] = self._found(name, watch, result, is_first_poll)
            errors = [one for one in found.values() if isinstance(one, self._source.errors)]
            if errors and len(errors) == len(found):
                raise errors[0]
        except self._source.errors as error:
            self._note_away(
                self._source.name, self._source.describe_error(error), self._source.kind_of(error)
            )
            self._publish([], self._status)
            return False
        for name, one in found.items():
            if isinstance(one, Exception):
                self._note_error(name, one)
            else:
                watches[name].notices.mended("poll", "records are judged again")
        good = {name: one for name, one in found.items() if isinstance(one, Found)}
        if good or not found:
            self._exporter.good_poll()
        # What is saved must also be logged.
        with self._ending.deferred():
            self._take(good)
        if good and not self._is_frozen:
            # What is there now stays; the collector of reference cycles need not go through it again.
            # (Python counts what is frozen one by one, for milliseconds.)
            self._is_frozen = True
            gc.freeze()
        return True

    def _tell_alive(self, is_first_poll: bool) -> None:
        """Feed the watchdog: the first poll of a thousand nodes reads an hour of records."""
        now = time.monotonic()
        if now >= self._told_alive_at + ALIVE_SECONDS:
            self._told_alive_at = now
            more = f"\nEXTEND_TIMEOUT_USEC={START_PART_SECONDS * 10**6}" if is_first_poll else ""
            notify_systemd(f"WATCHDOG=1{more}")

    def _found(
        self, name: str, watch: Watch, result: list[Judged] | Exception, is_first_poll: bool
    ) -> Found | Exception:
        """What a node's result adds up to. Raises it if only the user can help, who is watching."""
        if not isinstance(result, Exception):
            with ABOUT_NODE.node(name):
                return watch.take(result)
        # At the start somebody is watching; later the service waits until it is fixed.
        is_start = is_first_poll and not watch.monitor.reader.has_begun
        is_for_user = isinstance(result, UserError) and not name
        if is_for_user and (self._settings.once or is_start):
            raise result
        return result

    def _note_error(self, name: str, error: Exception) -> None:
        is_server = isinstance(error, self._source.errors)
        line = self._source.describe_error(error) if is_server else str(error)
        self._exporter.failures.labels(self._source.kind_of(error) if is_server else "refused").inc()
        self._newest_statuses[name] = FAILING
        self.nodes.watches[name].notices.fault("poll", line)
        self._status = line

    def _send(self) -> bool:
        """Send the anomalies. Returns whether the server that stores them could be reached."""
        try:
            if self.delivery.send() and self._expected:
                self._expected.send()
        except influx_utils.INFLUX_ERRORS as error:
            line = influx_utils.describe_error(error, self._settings.server, self._settings.database)
            self._note_away(self._store_name, line, influx_utils.kind_of(error))
            return False
        self._notices.mended(self._store_name, f"{self._store_name} is reachable again")
        return True

    def _note_away(self, name: str, line: str, kind: str) -> None:
        self._is_connected = False
        if self._settings.once:
            raise UserError(line) from None
        self._exporter.failures.labels(kind).inc()
        self._notices.fault(name, line)
        self._status = line

    def _look_for_nodes(self) -> None:
        """Begin with nodes that are new in the database, or have a model by now."""
        now = time.monotonic()
        if now >= self._tried_at + RETRY_SECONDS:
            self._tried_at = now
            self.nodes.try_waiting()
        if self._find_nodes is None or now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            self.nodes.add(self._find_nodes())
        except (*self._source.errors, UserError) as error:
            logger.warning("new nodes cannot be looked for (%s)", error)

    def _take(self, found: dict[str, Found]) -> None:
        """Save what a poll found, then log it."""
        watches = self.nodes.watches
        silences = {name: watches[name].silence for name, one in found.items() if not one.judged}
        # Published first: after a crash, a record published twice does no harm, a missing one is a gap.
        silence = silences.get("")
        self._publish(list(found.items()), silence and f"unknown: {silence}")
        changes = [change for one in found.values() for change in one.incidents]
        are_open = [name for name, watch in watches.items() if watch.incidents.is_open]
        lines = [] if self._has_one else self._many.observe(changes, len(watches), are_open)
        entries = [entry for one in found.values() for entry in one.entries]
        entries += [] if self._has_one else self._many.entries
        self._publish_incidents(entries)
        if self._expected:
            records = [one for name in found for one in self._expectations(name, found[name].judged)]
            self._expected.keep(records, entries)
        whole, changed = self.nodes.states()
        if not self._has_one:
            whole[MANY] = json.dumps(self._many.state())
        points = [
            point
            for name, one in found.items()
            for point in watches[name].points(one, self._settings.measurement)
        ]
        if not self.delivery.keep(whole, changed, points):
            self.nodes.not_kept((*whole, *changed))
        self._log(found, silences, lines)
        if self._page is not None:
            polled = [(name, watches[name], one) for name, one in found.items()]
            page, words = self._page, "the page has gaps"
            self._write("history", page.history.folder, words, lambda: page.add(polled))
        for name, one in found.items():
            for judged in one.judged:
                self._exporter.show(judged.verdict, judged.faults, name)
            if one.judged and self._exporter.is_read and self._exporter.shows(name):
                watch = watches[name]
                levels = levels_of(watch.bundle, watch.thresholds, one.judged[-1].verdict)
                self._exporter.show_levels(levels, name)
            if silences.get(name):
                self._exporter.show_silence(watches[name].metrics, name)
        if self._settings.plot_dir:
            self._draw({name: one.alerts for name, one in found.items() if one.alerts})
        self._show_standing()

    def _expectations(self, name: str, judged: Sequence[Judged]) -> Iterator[Expectation]:
        """The records of a node that were judged, with what they were compared with."""
        watch = self.nodes.watches[name]
        for one in judged:
            yield Expectation(name, watch.monitor.instance, watch.bundle, watch.thresholds, one.verdict)

    def _log(self, found: dict[str, Found], silences: dict[str, str | None], lines: list[str]) -> None:
        for name, one in found.items():
            with ABOUT_NODE.node(name):
                self.nodes.watches[name].log(one)
        for line in lines:
            logger.warning("%s", line)
        newest = {name: one.judged[-1].verdict for name, one in found.items() if one.judged}
        self._newest_statuses |= {name: verdict.status for name, verdict in newest.items()}
        self._newest_statuses |= dict.fromkeys((name for name, why in silences.items() if why), SILENT)
        if self._has_one:
            self._status = self.watch.status or self._status if found else self._status
            return
        counts = Counter(self._newest_statuses.values())
        without_model = self.nodes.without_model
        counts[WITHOUT_MODEL] = len(without_model)
        counts[FAILING] += len(self.nodes.waiting) - counts[WITHOUT_MODEL]
        told = ", ".join(f"{counts[status]} {status}" for status in STATUSES_OF_NODES if counts[status])
        number = len(self.nodes.watches) + len(self.nodes.waiting)
        self._status = f"{number} node{'s' * (number != 1)}: {told or 'no record yet'}"
        logger.info("%s", self._status)
        self._exporter.show_nodes(counts, max((one.time for one in newest.values()), default=None))
        self._note_waiting(without_model)

    def _note_waiting(self, names: list[str]) -> None:
        if names:
            line = (
                f"not watched, since there is no model: {listed_names(names)}; train them (--mode train"
                " --node NAME, for a new one with --since 1h)"
            )
            self._notices.fault("waiting", line, logging.WARNING, frozenset(names))
        elif not self.nodes.waiting:
            self._notices.mended("waiting", "all nodes are watched")

    def _show(self, page: EdgePage) -> None:
        """Show how things stand after a poll."""
        statuses = self._newest_statuses
        nodes = {
            name: page.standing_of(name, watch, statuses.get(name))
            for name, watch in self.nodes.watches.items()
        }
        without_model = set(self.nodes.without_model)
        waiting = {name: WITHOUT_MODEL if name in without_model else FAILING for name in self.nodes.waiting}
        fault = self._status if self._is_source_away or statuses.get("") == FAILING else ""
        page.show(nodes, waiting, self._many.open_entries, fault)

    def _draw(self, alerts: dict[str, list[Alert]]) -> None:
        watches = self.nodes.watches
        wanted = {
            name: (watches[name].bundle.identity, watches[name].picture_begins(ended))
            for name, ended in alerts.items()
        }
        # The process that draws reads the file once.
        read = cache(partial(self.poll_log.verdicts_of, wanted))
        drawings = [
            pictures.Drawing(
                ended,
                lambda name=name: read()[name],
                watches[name].bundle,
                watches[name].thresholds,
                Path(self._settings.plot_dir) / name,
            )
            for name, ended in alerts.items()
        ]
        if drawings:
            pictures.draw_alerts(drawings)

    def _publish(self, found: Sequence[tuple[str, Found]], fault: str | None) -> None:
        polled = []
        for name, one in found:
            watch = self.nodes.watches[name]
            monitor = watch.monitor
            judged = [Judged(each.verdict, monitor.explained(each.faults)) for each in one.judged]
            polled.append(Polled(name, judged, monitor.instance, watch.bundle.identity))
        words = "pictures of alerts have gaps"
        self._write("poll log", self.poll_log.path, words, lambda: self.poll_log.publish(polled, fault))

    def _publish_incidents(self, entries: list[dict[str, Any]]) -> None:
        words = "other programs do not know of new incidents"
        self._write("incident log", self._incident_log.path, words, lambda: self._incident_log.add(entries))

    def _write(self, topic: str, path: Path, harm: str, write: Callable[[], None]) -> None:
        """Write what other programs read; a fault is logged, and the service goes on."""
        try:
            write()
        except OSError as error:
            if self._notices.has("place"):
                # The whole folder is gone, which is logged already.
                return
            self._notices.fault(
                topic,
                f"{path}: cannot be written ({error.strerror}); free some space, or give the service's user"
                f" the right. Until then {harm}",
            )
        else:
            self._notices.mended(topic, f"{path} can be written again")

    def _show_standing(self) -> None:
        """Export how things stand, with or without a poll."""
        watches = self.nodes.watches
        are_open = {
            name: watch.incidents.newest.entry(watch.metrics)
            for name, watch in watches.items()
            if watch.incidents.is_open
        }
        self._exporter.incident.set(len(are_open))
        self._exporter.quiet_nodes.set(sum(bool(watch.kept_quiet) for watch in watches.values()))
        self._exporter.open_incidents.show(self._many.with_shared(are_open))
        for name, watch in watches.items():
            self._exporter.show_clock(watch.monitor.reader.clock_offset_seconds, name)
            self._exporter.show_drift(watch.drift.drifting, watch.metrics, name)
        self.delivery.show()
