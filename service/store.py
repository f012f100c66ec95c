"""What outlives the process: points that InfluxDB does not have yet, and where judging stopped.

It is one SQLite file in the state folder. What a poll found and where it stopped are written in one
transaction, which is on the disk before anything is sent. Whenever the process dies, the next one skips no
record and gives none a second, different verdict; a point that is sent twice is the same point.

A state belongs to a name, and is an object of parts. It is written whole now and then; in between, only the
parts that changed are, for all names in one row.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from common.files import UserError
from common.values import mapping, number, text, whole

logger = logging.getLogger(__name__)

FILE_NAME = "find_anomalies.db"
# This many of the newest damaged rows are kept for a person to look at.
DAMAGED_ROWS = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, database TEXT, point TEXT);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, after INTEGER, content TEXT);
CREATE TABLE IF NOT EXISTS changes (id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT);
CREATE TABLE IF NOT EXISTS damaged (id INTEGER PRIMARY KEY, database TEXT, point TEXT, reason TEXT);
"""
# The version before had one state, without a name.
_RENEW_STATE = """
BEGIN IMMEDIATE;
ALTER TABLE state RENAME TO state_before;
CREATE TABLE state (name TEXT PRIMARY KEY, after INTEGER, content TEXT);
INSERT INTO state SELECT '', 0, content FROM state_before;
DROP TABLE state_before;
COMMIT;
"""
# The nodes with the most points give the first ones, each its oldest; what is damaged has no node.
_DROP = """
DELETE FROM spool WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (
            PARTITION BY CASE WHEN json_valid(point) THEN json_extract(point, '$.tags.node') END
            ORDER BY id DESC
        ) AS place FROM spool
    ) ORDER BY place DESC, id LIMIT ?
)
"""
# To choose them reads the whole spool, so at least this share of it is dropped at once.
_DROPPED_SHARE = 0.01
# As bytes, since SQLite raises for a text that is not UTF-8. Cut, since a damaged row may be huge.
_ROW = "id, substr(CAST(database AS BLOB), 1, 1000), substr(CAST(point AS BLOB), 1, 65537)"
_NAME_LETTERS = 255
_POINT_BYTES = 65_536
# From SQLite's messages for a file that is not a database, is damaged, or has other tables.
_BROKEN = ("file is not a database", "malformed", "no such column")
# Ids count up from 1; no spool ever gets as far as this.
_LAST_ID = 1 << 62


class StoreError(Exception):
    """The store cannot be read or written; the message is one line and names the remedy."""


def _json_object(content: bytes | None) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError for anything else."""
    if content is None:
        raise ValueError("it is empty")
    try:
        return mapping(json.loads(content.decode()))
    except RecursionError:
        raise ValueError("too deeply nested") from None


def read_row(database: bytes | None, point: bytes | None) -> tuple[str, dict[str, Any]]:
    """The database and the point of one row of the spool, if they can be sent to InfluxDB.

    The point must be like those of influx_utils.anomaly_point: a measurement, a time (ns), tags that are
    texts, and at least one field, all finite numbers. Raises ValueError, with the reason, for any other row.
    """
    name = (database or b"").decode()
    if not 0 < len(name) <= _NAME_LETTERS or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("not the name of a database")
    if point is not None and len(point) > _POINT_BYTES:
        raise ValueError("too long")
    content = _json_object(point)
    try:
        measurement, moment = text(content["measurement"]), whole(content["time"])
        tags = {text(tag): text(value) for tag, value in mapping(content["tags"]).items()}
        fields = {text(field): number(value) for field, value in mapping(content["fields"]).items()}
    except KeyError as error:
        raise ValueError(f"no {error.args[0]}") from None
    if not measurement or not fields or not all(map(math.isfinite, fields.values())):
        raise ValueError("no measurement, or no finite fields")
    return name, {"measurement": measurement, "time": moment, "tags": tags, "fields": fields}


@dataclass(frozen=True)
class Batch:
    """Points of the spool, all of one database, oldest first; `ids` are their rows."""

    database: str
    points: list[dict[str, Any]]
    ids: list[int]

    def earliest(self, count: int) -> Batch:
        """The points with the `count` earliest times."""
        order = sorted(range(len(self.ids)), key=lambda i: self.points[i]["time"])[:count]
        return Batch(self.database, [self.points[i] for i in order], [self.ids[i] for i in order])

    def renamed(self, measurement: str) -> Batch:
        """The same points for another measurement."""
        points = [point | {"measurement": measurement} for point in self.points]
        return Batch(self.database, points, self.ids)


class Store:
    """The spool, oldest first, and the state; at most `limit` points are kept: of each node its newest, and
    of each node as many as of any other that has more.

    Points that cannot be written to the disk stay in memory until they can, or have been sent. Points that
    InfluxDB refuses stay in the spool but do not delay others: `oldest` skips them, `oldest_refused` returns
    them. `dropped` counts the points for which there was no room, `damaged` the rows that are not points;
    those are moved to a table of their own.

    Raises UserError if the folder cannot be used at all, or another process uses it.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.path = Path(folder) / FILE_NAME
        self.dropped = 0
        self.damaged = 0
        self.damage = ""
        self._limit = limit
        # Rows that are not on the disk yet.
        self._unsaved: dict[int, tuple[str, str]] = {}
        # Sent, but still on the disk.
        self._gone: set[int] = set()
        # Damaged ones, and why.
        self._aside: dict[int, str] = {}
        # Ids up to the first were refused once; up to the second, twice.
        self._tried_up_to = 0
        self._retried_up_to = 0
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._database = self._open()
            self._next_id = self._first_free_id()
        except (OSError, sqlite3.Error) as error:
            if "locked" in str(error):
                raise UserError(
                    f"{folder}: in use by another process; give each its own --state_dir"
                ) from None
            raise UserError(
                f"{folder}: cannot be used ({_reason(error)}); give the service's user the right, free some"
                " space, or name another --state_dir"
            ) from None
        self._place = self._files()

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
            logger.error("%s is broken (%s) and was moved to %s; starting over", self.path, error, aside.name)
            return self._connect()

    def _connect(self, content: sqlite3.Connection | None = None) -> sqlite3.Connection:
        """Open the file; `content` is copied into it."""
        database = sqlite3.connect(self.path, timeout=1.0)
        try:
            # The lock is held as long as the process lives, so that two never share a folder.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            if content is not None:
                # Without the lock, backup would wait for it forever.
                database.execute("BEGIN EXCLUSIVE")
                database.rollback()
                content.backup(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            if ("only",) in database.execute("SELECT name FROM pragma_table_info('state')").fetchall():
                database.executescript(_RENEW_STATE)
            database.executescript(_SCHEMA)
            if (found := database.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"malformed: {found}")
            for query in (
                f"SELECT {_ROW} FROM spool",
                "SELECT name, after, content FROM state",
                "SELECT id, content FROM changes",
            ):
                database.execute(f"{query} LIMIT 0")
        except BaseException:
            database.close()
            raise
        return database

    def _first_free_id(self) -> int:
        odd = self._database.execute("SELECT id FROM spool WHERE id < 1 OR id > ?", (_LAST_ID,))
        for (row,) in odd.fetchall():
            self._set_aside(row, "not an id of ours")
        query = "SELECT coalesce(max(id), 0) + 1 FROM spool WHERE id BETWEEN 1 AND ?"
        return self._database.execute(query, (_LAST_ID,)).fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # What was committed is on the disk already.
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    # --- the file's place ------------------------------------------------------------------------

    def make_again(self) -> bool:
        """Make the whole file again if somebody deleted it. Returns whether that was so.

        A deleted file that is still open takes all writes without an error, and is gone with the process.
        Raises StoreError while it cannot be made again.
        """
        ours, log = self._place
        file_now, log_now = self._files()
        if file_now == ours and log in (log_now, None):
            self._place = ours, log_now
            return False
        try:
            if file_now == ours:
                # Only the log is gone: its content is also in memory, and goes into the file.
                self._database.execute("PRAGMA journal_mode = DELETE")
                self._database.execute("PRAGMA journal_mode = WAL")
            elif file_now is None:
                self._copy_to_place()
            else:
                raise FileExistsError(None, "another file is there")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path}: was deleted and cannot be made again ({_reason(error)}); remove what is in its"
                " way. Until then a crash loses what InfluxDB does not have yet"
            ) from None
        self._place = self._files()
        return True

    def _copy_to_place(self) -> None:
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        # Another process may be quicker; its file is not ours to overwrite.
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640))
        try:
            copy = self._connect(self._database)
        except sqlite3.Error as error:
            if "locked" not in str(error):
                self.path.unlink(missing_ok=True)
            raise
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        self._database = copy

    def _files(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Which files are now at the paths of the database and of its log."""
        return _identity(self.path), _identity(Path(f"{self.path}-wal"))

    # --- state -----------------------------------------------------------------------------------

    def states(self) -> dict[str, dict[str, Any]]:
        """Name -> the state that `add` was last given, with all its changes; damaged ones are absent.

        Called once, before the first `add`. Raises StoreError if the file cannot be read.
        """
        found: dict[str, dict[str, Any]] = {}
        after = {}
        query = "SELECT CAST(name AS BLOB), after, CAST(content AS BLOB) FROM state"
        for name, last, content in self._read(query):
            try:
                found[name.decode()] = _json_object(content)
            except (AttributeError, ValueError) as error:
                logger.error("%s: a state in it is damaged (%s); judging starts over", self.path, error)
            else:
                after[name.decode()] = last
        try:
            # One by one, since all of them together are large.
            query = "SELECT id, CAST(content AS BLOB) FROM changes ORDER BY id"
            with contextlib.closing(self._database.execute(query)) as rows:
                for row, content in rows:
                    for name, change in _json_object(content).items():
                        if row > after.get(name, _LAST_ID):
                            found[name].update(mapping(change))
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        except (TypeError, ValueError) as error:
            # What came after it is found again in the database.
            logger.error("%s: a change of states in it is damaged (%s)", self.path, error)
        # No change follows a state whose name does not come again.
        with contextlib.suppress(sqlite3.Error), self._database:
            self._database.executemany(
                "UPDATE state SET after = ?, content = ? WHERE name = ?",
                [(_LAST_ID, json.dumps(state), name) for name, state in found.items()],
            )
            self._database.execute("DELETE FROM changes")
        return found

    def add(
        self,
        states: Mapping[str, str],
        changes: Mapping[str, str],
        database: str,
        points: Sequence[dict[str, Any]],
    ) -> None:
        """Write states, and append points for a database of InfluxDB to the spool.

        states: name -> the whole state, an object as JSON. changes: name -> the parts of a state that have
        changed since it was last given, likewise. Raises StoreError if the disk cannot be written; the points
        then wait in memory, and no state was written.
        """
        for point in points:
            self._unsaved[self._next_id] = (database, json.dumps(point))
            self._next_id += 1
        try:
            with self._database:
                if self._unsaved:
                    self._database.executemany(
                        "INSERT INTO spool (id, database, point) VALUES (?, ?, ?)",
                        [(row, *content) for row, content in self._unsaved.items()],
                    )
                self._write_states(states, changes)
                self._clear()
                excess = 0
                if self._unsaved:
                    count = self._database.execute("SELECT count(*) FROM spool").fetchone()[0]
                    excess = max(count - self._limit, 0)
                if excess:
                    excess = max(excess, int(_DROPPED_SHARE * self._limit))
                    self._database.execute(_DROP, (excess,))
                else:
                    # This, too, shows whether the disk can be written.
                    self._database.execute("DELETE FROM spool WHERE 0")
        except sqlite3.Error as error:
            excess = max(len(self._unsaved) - self._limit, 0)
            for row in list(self._unsaved)[:excess]:
                del self._unsaved[row]
                self._aside.pop(row, None)
            self.dropped += excess
            raise StoreError(
                f"{self.path}: cannot be written ({error}); free some space. Until then a crash loses what"
                " InfluxDB does not have yet"
            ) from None
        self._cleared()
        self._unsaved.clear()
        self.dropped += excess

    def _write_states(self, states: Mapping[str, str], changes: Mapping[str, str]) -> None:
        """Write states and changes, and delete the changes that all states include, within a transaction."""
        if changes:
            parts = ", ".join(f"{json.dumps(name)}: {content}" for name, content in changes.items())
            self._database.execute("INSERT INTO changes (content) VALUES (?)", (f"{{{parts}}}",))
        if not states:
            return
        number = "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes')"
        self._database.executemany(
            f"INSERT OR REPLACE INTO state (name, after, content) VALUES (?, {number}, ?)", states.items()
        )
        self._database.execute("DELETE FROM changes WHERE id <= (SELECT min(after) FROM state)")

    def _clear(self) -> None:
        """Delete rows that were sent, and set aside those that are damaged, within a transaction."""
        if self._gone:
            self._database.executemany("DELETE FROM spool WHERE id = ?", [(row,) for row in self._gone])
        if not self._aside:
            return
        self._database.executemany(
            "INSERT INTO damaged (database, point, reason) SELECT database, point, ? FROM spool WHERE id = ?",
            [(reason, row) for row, reason in self._aside.items()],
        )
        self._database.executemany("DELETE FROM spool WHERE id = ?", [(row,) for row in self._aside])
        newest = f"SELECT id FROM damaged ORDER BY id DESC LIMIT {DAMAGED_ROWS}"
        lost = self._database.execute(f"DELETE FROM damaged WHERE id NOT IN ({newest})").rowcount
        if lost:
            logger.error(
                "%s: its table 'damaged' is full; the %d oldest rows are deleted, %d are kept",
                self.path,
                lost,
                DAMAGED_ROWS,
            )

    def _cleared(self) -> None:
        self._gone.clear()
        self._aside.clear()

    def _try_to_clear(self) -> None:
        if self._unsaved:
            # The disk cannot be written; the next `add` tries again.
            return
        try:
            with self._database:
                self._clear()
        except sqlite3.Error as error:
            # A crash before the next `add` sends the same points once more.
            logger.debug("%s: %s", self.path, error)
        else:
            self._cleared()

    # --- spool -----------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many points wait, including those that InfluxDB refuses."""
        return self._count(_LAST_ID)

    @property
    def refused(self) -> int:
        """How many waiting points InfluxDB refused when they were last sent."""
        return self._count(self._tried_up_to)

    def _count(self, up_to: int) -> int:
        hidden = sum(row <= up_to for rows in (self._gone, self._aside) for row in rows)
        on_disk = self._read("SELECT count(*) FROM spool WHERE id <= ?", up_to)[0][0]
        return on_disk + sum(row <= up_to for row in self._unsaved) - hidden

    def _read(self, query: str, *parameters: int) -> list[tuple]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"{self.path}: cannot be read ({error}); check the disk")

    def oldest(self, count: int) -> Batch | None:
        """The next points that were not tried yet, at most `count`; None if there are none."""
        return self._batch(count, self._tried_up_to, _LAST_ID)

    def oldest_refused(self, count: int) -> Batch | None:
        """The next points that InfluxDB refused; None after the last ones, then the first ones again."""
        batch = self._batch(count, self._retried_up_to, self._tried_up_to)
        if batch is None:
            self._retried_up_to = 0
        return batch

    def _batch(self, count: int, after: int, up_to: int) -> Batch | None:
        """The first points with ids above `after`, up to `up_to`; damaged rows among them are set aside."""
        damaged, names, points, ids = self.damaged, [], [], []
        for row, database, content in self._rows(after, up_to):
            if row in self._gone or row in self._aside:
                continue
            try:
                name, point = read_row(database, content)
            except ValueError as error:
                self._set_aside(row, str(error))
                continue
            # Rows in memory are a batch of their own, which can be sent although the disk cannot be written.
            if ids and (name != names[0] or (row in self._unsaved) != (ids[0] in self._unsaved)):
                break
            names.append(name)
            points.append(point)
            ids.append(row)
            if len(ids) == count:
                break
        if self.damaged > damaged:
            self._try_to_clear()
        return Batch(names[0], points, ids) if ids else None

    def _rows(self, after: int, up_to: int) -> Iterator[tuple[int, bytes | None, bytes | None]]:
        query = f"SELECT {_ROW} FROM spool WHERE id > ? AND id <= ? ORDER BY id"
        try:
            with contextlib.closing(self._database.execute(query, (after, up_to))) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        for row, (database, content) in self._unsaved.items():
            if after < row <= up_to:
                yield row, database.encode(), content.encode()

    def sent(self, batch: Batch) -> None:
        """Forget these points: InfluxDB has them, or can never take them."""
        for row in batch.ids:
            if self._unsaved.pop(row, None) is None:
                self._gone.add(row)
        self._try_to_clear()

    def refuse(self, batch: Batch) -> None:
        """Keep a batch that InfluxDB refused, the last one from `oldest` or `oldest_refused`."""
        last = batch.ids[-1]
        if last > self._tried_up_to:
            self._tried_up_to = last
        else:
            self._retried_up_to = last

    def set_aside(self, batch: Batch, reason: str) -> None:
        """Set aside points that InfluxDB cannot read, as if they were damaged."""
        for row in batch.ids:
            self._set_aside(row, reason)
        self._try_to_clear()

    def _set_aside(self, row: int, reason: str) -> None:
        self._aside[row] = reason
        self.damaged += 1
        self.damage = reason


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
