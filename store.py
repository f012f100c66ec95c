"""What outlives the process: points that InfluxDB does not have yet, and where judging stopped.

One SQLite file in the state folder. What a poll found and where it stopped are written in one transaction,
which is on the disk before anything is sent: whenever the process dies, the next one skips no record, judges
none twice with another verdict, and what it sends twice is the same point.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Self

from utils import UserError

logger = logging.getLogger(__name__)

FILE_NAME = "find_anomalies.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, database TEXT, point TEXT);
CREATE TABLE IF NOT EXISTS state (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT);
"""
# SQLite says so of a file that is no database, or was torn by the disk.
_BROKEN = ("file is not a database", "malformed")


class StoreError(Exception):
    """What was given is not on the disk; the message is one line and names the remedy."""


@dataclass(frozen=True)
class Batch:
    """The oldest points of the spool, all of one database; `last_id` is None if they are in memory only."""

    database: str
    points: list[dict[str, Any]]
    last_id: int | None


class Store:
    """The spool, oldest first, and the state; at most `limit` points are kept, the newest.

    What cannot be written to the disk is kept in memory until it can, or has been sent. Raises UserError
    where the folder cannot be used at all, or another process uses it.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.path = Path(folder) / FILE_NAME
        self.dropped = 0
        self._limit = limit
        self._unsaved: deque[tuple[str, dict[str, Any]]] = deque()
        # What was sent, though the disk refused to note it, is not sent again by this process.
        self._sent_up_to = 0
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            if "locked" in str(error):
                raise UserError(
                    f"{folder}: in use by another process; give each its own --state_dir"
                ) from None
            raise UserError(
                f"{folder}: cannot be used ({reason}); give its user the right, free some space,"
                " or name another --state_dir"
            ) from None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not any(words in str(error) for words in _BROKEN):
                raise
            aside = self.path.with_suffix(f".broken-{int(time.time())}")
            self.path.rename(aside)
            for ending in ("-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
            logger.error("%s is broken (%s) and was moved to %s; starting anew", self.path, error, aside.name)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=1.0)
        try:
            # The lock is held as long as the process lives, so that two never share a folder.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
            if (found := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"malformed: {found}")
        except BaseException:
            database.close()
            raise
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    # --- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any] | None:
        """What the newest `add` was given; None before the first."""
        rows = self._read("SELECT content FROM state")
        try:
            return json.loads(rows[0][0]) if rows else None
        except ValueError as error:
            raise StoreError(f"{self.path}: holds no state ({error})") from None

    def add(self, state: dict[str, Any], database: str, points: Sequence[dict[str, Any]]) -> None:
        """Keep the state, and points for a database of InfluxDB behind those that wait already.

        Raises StoreError if the disk refuses; the points then wait in memory.
        """
        self._unsaved.extend((database, point) for point in points)
        try:
            with self._database:
                self._database.executemany(
                    "INSERT INTO spool (database, point) VALUES (?, ?)",
                    [(name, json.dumps(point)) for name, point in self._unsaved],
                )
                self._database.execute(
                    "INSERT OR REPLACE INTO state (only, content) VALUES (1, ?)", (json.dumps(state),)
                )
                self._database.execute("DELETE FROM spool WHERE id <= ?", (self._sent_up_to,))
                excess = self._count() - self._limit if self._unsaved else 0
                if excess > 0:
                    self._database.execute(
                        "DELETE FROM spool WHERE id IN (SELECT id FROM spool ORDER BY id LIMIT ?)", (excess,)
                    )
        except (sqlite3.Error, StoreError) as error:
            excess = len(self._unsaved) - self._limit
            for _ in range(excess):
                self._unsaved.popleft()
            self.dropped += max(excess, 0)
            raise StoreError(
                f"{self.path}: cannot be written ({error}); free some space. Until then a crash loses what"
                " InfluxDB does not have yet"
            ) from None
        self._unsaved.clear()
        self.dropped += max(excess, 0)

    # --- spool -----------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many points wait."""
        return self._count() + len(self._unsaved)

    def _count(self) -> int:
        return self._read("SELECT count(*) FROM spool WHERE id > ?", self._sent_up_to)[0][0]

    def _read(self, query: str, *parameters: int) -> list[tuple]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be read ({error}); check the disk") from None

    def oldest(self, count: int) -> Batch | None:
        """The next points to send, at most `count`; None if none waits."""
        query = "SELECT id, database, point FROM spool WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._read(query, self._sent_up_to, count)
        if rows:
            name = rows[0][1]
            rows = list(takewhile(lambda row: row[1] == name, rows))
            return Batch(name, [json.loads(point) for _, _, point in rows], rows[-1][0])
        if self._unsaved:
            name = self._unsaved[0][0]
            waiting = takewhile(lambda pair: pair[0] == name, islice(self._unsaved, count))
            return Batch(name, [point for _, point in waiting], None)
        return None

    def sent(self, batch: Batch) -> None:
        """InfluxDB has this batch, the newest that `oldest` returned; it is forgotten."""
        if batch.last_id is None:
            for _ in batch.points:
                self._unsaved.popleft()
            return
        self._sent_up_to = batch.last_id
        try:
            with self._database:
                self._database.execute("DELETE FROM spool WHERE id <= ?", (batch.last_id,))
        except sqlite3.Error as error:
            # The next `add` tries again; a crash before sends the same points once more.
            logger.debug("%s: %s", self.path, error)
