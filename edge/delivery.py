"""Delivers anomalies to InfluxDB, and keeps them on the disk until it has them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import influx_utils
from edge.exporter import EdgeMetrics
from influx_client import InfluxClient, InfluxClientError
from service.log import Notices
from service.store import Batch, Store, StoreError
from service.systemd import Ending

logger = logging.getLogger("find_anomalies")

# Points in one request.
BATCH_POINTS = 500
# Most time for sending in one poll, so that a long spool does not delay the next record.
SENDING_SECONDS = 10.0
# Refused points are sent again after this time.
REFUSED_RETRY_SECONDS = 120.0


class Delivery:
    """Keeps points in the store and sends them, the oldest first; refused ones are sent again now and then.

    client: of the server that stores points; None if none does. retry_seconds: how long refused points wait
    before they are sent again.
    """

    def __init__(
        self,
        client: InfluxClient | None,
        database: str,
        measurement: str,
        store: Store,
        exporter: EdgeMetrics,
        notices: Notices,
        ending: Ending,
        retry_seconds: float = REFUSED_RETRY_SECONDS,
    ) -> None:
        self._client = client
        self._database = database
        self._measurement = measurement
        self._store = store
        self._exporter = exporter
        self._notices = notices
        self._ending = ending
        self._retry_seconds = retry_seconds
        self._retry_refused_at = time.monotonic() + retry_seconds
        # The refusals that were logged: measurement and field, None for all others.
        self._refusals: set[tuple[str, ...] | None] = set()
        self._is_refused = False
        self._damaged_rows = 0

    def look_after_store(self) -> None:
        """Put the file of the store back if somebody deleted it."""
        try:
            with self._ending.deferred():
                is_new = self._store.make_again()
        except StoreError as error:
            self._notices.fault("place", str(error))
            return
        if is_new:
            self._notices.fault("place", f"{self._store.path}, or its log, was deleted")
            self._notices.mended("place", f"{self._store.path} was made again, with all that was in it")
        else:
            self._notices.mended("place", f"{self._store.path} is back in its place")

    def keep(
        self, states: Mapping[str, str], changes: Mapping[str, str], points: Sequence[dict[str, Any]]
    ) -> bool:
        """Write points to the disk, together with the states after finding them, in one step.

        states, changes: as Store.add takes them. Returns whether they could be written.
        """
        dropped = self._store.dropped
        is_kept = False
        try:
            self._store.add(states, changes, self._database, points if self._client else [])
        except StoreError as error:
            self._notices.fault("store", str(error))
        else:
            is_kept = True
            self._notices.mended("store", f"{self._store.path} can be written again")
        if dropped := self._store.dropped - dropped:
            self._exporter.dropped.inc(dropped)
            self._notices.fault(
                "spool", "the spool is full: its oldest anomalies are dropped, see --spool_limit"
            )
        return is_kept

    def send(self) -> bool:
        """Send what InfluxDB does not have yet. Raises one of INFLUX_ERRORS while it is away.

        Returns whether there was time for all.
        """
        if self._client is None:
            return True
        is_all = True
        try:
            is_all = self._send()
        except StoreError as error:
            self._notices.fault("spool file", str(error))
        else:
            self._notices.mended("spool file", f"{self._store.path} can be read again")
        return is_all

    def show(self) -> None:
        """Export how many points wait, and log damaged rows."""
        if found := self._store.damaged - self._damaged_rows:
            self._damaged_rows += found
            self._exporter.damaged.inc(found)
            logger.error(
                "%s: %d damaged rows of the spool were moved to its table 'damaged' (%s), all others are"
                " sent; look at them with sqlite3, and check the disk",
                self._store.path,
                found,
                self._store.damage,
            )
        # A store that cannot be read is logged by `send`.
        with contextlib.suppress(StoreError):
            self._exporter.spool_depth.set(self._store.depth)
            self._exporter.spool_refused.set(self._store.refused)

    def _send(self) -> bool:
        deadline = time.monotonic() + SENDING_SECONDS
        try:
            is_all = self._deliver(self._store.oldest, deadline)
            is_due = time.monotonic() >= self._retry_refused_at
            if is_due and self._deliver(self._next_refused, deadline):
                self._retry_refused_at = time.monotonic() + self._retry_seconds
        finally:
            self.show()
        if self._refusals and not self._store.refused:
            self._refusals.clear()
            if self._notices.has("spool"):
                logger.warning(
                    "no refused anomaly waits any more; the oldest anomalies of the spool were dropped"
                )
            else:
                logger.warning("InfluxDB accepts all anomalies again")
        if not self._store.depth:
            self._notices.mended(
                "spool",
                f"InfluxDB has all anomalies but the {self._store.dropped} oldest, which were dropped",
            )
        return is_all

    def _next_refused(self, count: int) -> Batch | None:
        """Refused points, for the current --influx_measurement: naming another one is one of the remedies."""
        batch = self._store.oldest_refused(count)
        return batch and batch.renamed(self._measurement)

    def _deliver(self, next_batch: Callable[[int], Batch | None], deadline: float) -> bool:
        """Send batch after batch. Returns whether there was time for all."""
        size = BATCH_POINTS
        while batch := next_batch(size):
            if time.monotonic() >= deadline:
                return False
            with self._ending.deferred():
                refusal = self._write(batch)
                if refusal is None:
                    self._store.sent(batch)
                    if self._is_refused:
                        # Somebody has fixed the cause: the refused points are tried at once.
                        self._is_refused, self._retry_refused_at = False, 0.0
                    self._notices.mended("too old", "InfluxDB stores anomalies again")
                elif not self._take_refusal(batch, refusal):
                    size = len(batch.points) // 2
                    continue
            size = min(2 * size, BATCH_POINTS)
        return True

    def _write(self, batch: Batch) -> influx_utils.Refusal | None:
        """Write a batch. Raises one of INFLUX_ERRORS if it must be sent again before all others."""
        try:
            return influx_utils.write_points(self._client, batch.database, batch.points)
        except InfluxClientError as error:
            # A database of a former --influx_db, to which the user has no right, must not hold up the rest.
            if batch.database == self._database or error.code != 403:
                raise
            return influx_utils.Refusal(f"no right to the database {batch.database}", len(batch.points))

    def _take_refusal(self, batch: Batch, refusal: influx_utils.Refusal) -> bool:
        """Handle a refusal. Returns False if it does not tell which points are refused."""
        # A refusal of a single point can only mean that one.
        refused = 1 if len(batch.points) == 1 else refusal.points
        if refusal.is_too_old and refused:
            self._store.sent(batch.earliest(refused))
            self._exporter.refused.inc(refused)
            self._notices.fault(
                "too old",
                f"InfluxDB refuses anomalies that are older than the retention policy of {batch.database}"
                " allows; they are dropped: lengthen that policy, or check the samples' clock",
            )
            return True
        if refused < len(batch.points):
            return False
        if refusal.is_unreadable:
            self._store.set_aside(batch, refusal.reason)
            return True
        self._store.refuse(batch)
        self._is_refused = True
        self._log_refusal(refusal)
        return True

    def _log_refusal(self, refusal: influx_utils.Refusal) -> None:
        """Log once for each field in conflict, and once for all else, until InfluxDB accepts everything."""
        topic = refusal.conflict and refusal.conflict[:2]
        if topic in self._refusals:
            return
        self._refusals.add(topic)
        reason, remedy = refusal.reason, "check the user's rights and the server's log"
        if refusal.conflict:
            measurement, field, ours, theirs = refusal.conflict
            reason = f"{measurement} holds {field} as {theirs}, not {ours}"
            remedy = f'DROP MEASUREMENT "{measurement}", or name another --influx_measurement'
        logger.error("InfluxDB refuses anomalies (%s); %s. Until then they wait in the spool", reason, remedy)
