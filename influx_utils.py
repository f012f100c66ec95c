"""All that the program asks InfluxDB and writes there, and what the errors mean; influx_client.py sends it.

Times are integer nanoseconds since 1970, UTC, in queries, answers and points.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, TypeVar

import numpy as np

import influx_versions
from common.files import UserError
from common.times import DAY_SECONDS
from common.web import TIMEOUT, TLS, WebConnection, WebError
from influx_client import (
    NOT_INFLUXDB,
    InfluxClient,
    InfluxClientError,
    InfluxServerError,
    identifier,
)
from influx_versions import LongTimeError, NoDatabaseError
from nodes.metrics import METRICS
from nodes.series import Record, series_tags

logger = logging.getLogger(__name__)

# A hung server must not block a poll for ever. One attempt is enough: the next poll is the retry.
TIMEOUT_SECONDS = 4.0
# Longer statements are sent to 1.x as the content of a request: what stands between may limit an address.
_LONG_CHARACTERS = 1_000
# The measurement of what is expected and allowed, of both halves.
EXPECTED = "expected"
CUT_SHORT = "it was cut short; raise max-row-limit in InfluxDB's configuration"
# What a request may raise when the server is away, hangs, restarts or refuses.
INFLUX_ERRORS = (InfluxClientError, InfluxServerError, WebError)
# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+(%\w+)?\]")
# What InfluxDB answers about points that it refuses.
_DROPPED = re.compile(r" dropped=(\d+)( for database: .*)?$")
_TOO_OLD = re.compile(r"partial write: (points beyond|dropped \d+ points outside) retention policy")
_TYPE_CONFLICT = re.compile(
    r'^partial write: field type conflict: input field "(?P<field>.*)" on measurement "(?P<measurement>.*)"'
    r" is type (?P<ours>\w+), already exists as type (?P<theirs>\w+)"
)
# Where InfluxDB 3 Core refuses to read a longer time at once, it is read in pieces of this length, and the
# newest sample is looked for in so many of them.
PIECE_SECONDS = 2 * DAY_SECONDS
PIECES_BACK = 14
# What such a server lists databases by.
_NAME_COLUMNS = ("name", "iox::database")
_T = TypeVar("_T")
# What is raised for an answer that is not from InfluxDB.
_ODD_ANSWER = (AttributeError, KeyError, IndexError, TypeError, ValueError)


def initializeConnection(
    influx_host: str,
    influx_port: int,
    influx_user: str,
    influx_pass: str,
    is_encrypted: bool = False,
    ca_file: str | None = None,
    timeout_seconds: float | None = None,
) -> InfluxClient:
    """A client with a time limit that talks to the server directly, without any proxy.

    timeout_seconds: time limit of an answer, by default TIMEOUT_SECONDS. is_encrypted: use TLS, and only with
    a server whose certificate is signed by an authority in `ca_file` (PEM), without it by one that this
    machine trusts. Nothing is sent yet: the first request shows whether the server is there.
    """
    if not _HOST.fullmatch(influx_host):
        # The value is not shown: if it is not a name, it may contain a password.
        raise UserError(
            "--influx_host must be a host name or an address; give that alone, without anything else"
        )
    connection = WebConnection(
        influx_host, int(influx_port), is_encrypted, ca_file, timeout_seconds or TIMEOUT_SECONDS
    )
    return InfluxClient(connection, influx_user, influx_pass)


def check_names(db_name: str, measurement: str) -> None:
    """Raise UserError for names that InfluxDB would refuse, but only at the first request."""
    if not db_name.isprintable() or db_name in (".", "..") or set(db_name) & set("/\\"):
        raise UserError(f"--influx_db {db_name!r} is not a valid database name; use letters, digits and _")
    if not measurement.isprintable() or measurement.endswith("\\"):
        raise UserError(
            f"--influx_measurement {measurement!r} is not a valid measurement name; use letters, digits and _"
        )


def checkDatabase(client: InfluxClient, db_name: str) -> None:
    """Select the database for all further requests, creating it if it does not exist.

    A user without the right to list databases may still use one that exists. A refusal to list or create
    databases is therefore ignored; the first query shows whether the database can be used. InfluxDB 2 and 3
    create none: raises NoDatabaseError.
    """
    names = database_names(client)
    if names is not None and db_name not in names:
        try:
            _create_database(client, db_name)
            logger.info("created the database %s", db_name)
        except InfluxClientError as error:
            if error.code != 403:
                raise
    client.switch_database(db_name)


def database_names(client: InfluxClient) -> set[str] | None:
    """The names of all databases; None if the server does not list them for this user."""
    try:
        with answers():
            (answer,) = results(client, ["SHOW DATABASES"])
            names = set()
            for series in answer["series"]:
                # 3 may say more of each than its name.
                place = [column in _NAME_COLUMNS for column in series["columns"]].index(True)
                names.update(row[place] for row in series["values"])
            return names
    except InfluxClientError as error:
        # A refusal of the statement, not of the request, has no code.
        if error.code not in (403, None):
            raise
        return None


def _create_database(client: InfluxClient, db_name: str) -> None:
    """Create a database in InfluxDB 1.x. Raises NoDatabaseError if it is another version."""
    try:
        with answers():
            client.create_database(db_name)
    except InfluxClientError as error:
        version = influx_versions.version_of(str(error), client.server_version)
        if error.code in (401, 403) or version == 1 and client.server_version:
            raise
        # Only 3 refuses it in words of which nothing is known.
        raise NoDatabaseError(str(error), version if version > 1 else 3, db_name) from None


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Turn an answer that is not from InfluxDB, but from a proxy or another program, into a server error."""
    try:
        yield
    except _ODD_ANSWER:
        raise InfluxServerError(NOT_INFLUXDB) from None


def describe_error(error: Exception, server: str, db_name: str) -> str:
    """One line for the user: what went wrong with InfluxDB at `server` (host:port), and what to do."""
    server = f"InfluxDB at {server}"
    if isinstance(error, WebError):
        if error.kind == TIMEOUT:
            return f"{server} did not answer within {TIMEOUT_SECONDS:g} s; check the server"
        if error.kind == TLS:
            reason = _one_line(error)
            return (
                f"{server} did not prove its identity by TLS ({reason}); check --influx_ssl and --influx_ca"
            )
        return f"{server} cannot be reached; check --influx_host, --influx_port and that it runs"
    code = getattr(error, "code", None)
    reason = _one_line(error)
    is_token = influx_versions.is_about_token(reason)
    if code == 401 and is_token:
        return f"{server} refused the credentials; give a token as --influx_pass, with any --influx_user"
    if code == 401:
        return f"{server} refused the credentials; check --influx_user and --influx_pass"
    if is_token:
        return f"{server}: the token has no right to the database {db_name}; let it read and write there"
    if code == 403:
        return f"{server}: the user has no right to the database {db_name}; grant it READ and WRITE"
    if isinstance(error, LongTimeError):
        return f"{server} refuses to read so many files at once; start it with a higher --query-file-limit"
    if influx_versions.is_no_database(reason) or isinstance(error, NoDatabaseError):
        version = getattr(error, "version", None) or influx_versions.version_of(reason)
        missing = getattr(error, "database", None) or db_name
        creation = influx_versions.how_to_create(version, missing)
        return f"{server} has no database {missing}; check --influx_db, or {creation}"
    return (
        f"{server} answered with an error ({reason});"
        " check --influx_db, --influx_measurement and the server's log"
    )


def kind_of(error: Exception) -> str:
    """One word for a label: unreachable, timeout, credentials, rights, database or error."""
    if isinstance(error, WebError):
        return "timeout" if error.kind == TIMEOUT else "unreachable"
    if influx_versions.is_no_database(str(error)) or isinstance(error, NoDatabaseError):
        return "database"
    return {401: "credentials", 403: "rights"}.get(getattr(error, "code", None), "error")


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200]


def getLastRecords(
    client: InfluxClient, queries: Sequence[str], measurements: Sequence[str]
) -> tuple[Record, int | None]:
    """Run all queries in one request and keep the newest point of every series.

    queries: one InfluxQL statement for each of `measurements`, selecting a column `value`. Returns `data`
    (measurement -> JSON array, as in formatters.py) and `timestamp`: the time of the newest point of all in
    ns, None if there is no point.

    Part of the documented interface; the program itself does not call it.
    """
    data = _run(client, queries, measurements)
    for measurement, points in data.items():
        oldest_first = sorted(points, key=lambda point: point["time"])
        data[measurement] = list({series_tags(point): point for point in oldest_first}.values())
    times = [point["time"] for points in data.values() for point in points]
    return data, max(times, default=None)


def insertAnomalies(
    client: InfluxClient,
    influx_measurement: str,
    timestamps: Sequence[int],
    anomaly_np: np.ndarray,
    tag_msg: str,
    severity: str = "anomaly",
    instance: str | None = None,
) -> None:
    """Store anomalies, one point for each of `timestamps` (ns), with the possible cause `tag_msg`.

    anomaly_np: (n, 8), the columns of getAnomalyColumns(). Values that are not finite are left out, since
    InfluxDB refuses them. Writing the same anomaly again changes nothing.

    Part of the documented interface; the program itself does not call it.
    """
    named = [dict(zip(METRICS.stored.values(), row, strict=True)) for row in np.atleast_2d(anomaly_np)]
    points = [
        point
        for timestamp, values in zip(timestamps, named, strict=True)
        if (point := anomaly_point(influx_measurement, timestamp, values, tag_msg, severity, instance))
    ]
    if points:
        client.write(points)


def anomaly_point(
    influx_measurement: str,
    timestamp: int,
    values: Mapping[str, float],
    tag_msg: str,
    severity: str,
    instance: str | None,
    node: str = "",
) -> dict[str, Any] | None:
    """The point of one anomaly; None if no value is finite.

    values: name of a field -> value. node: of one of many nodes, or empty.
    """
    tags = {"possible_cause": tag_msg, "severity": severity}
    if instance is not None:
        # InfluxDB refuses a tag that ends in a backslash.
        tags["instance"] = instance.rstrip("\\")
    if node:
        tags["node"] = node.rstrip("\\")
    fields = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    if not fields:
        return None
    return {"measurement": influx_measurement, "time": int(timestamp), "tags": tags, "fields": fields}


@dataclass(frozen=True)
class Refusal:
    """Why InfluxDB refuses points, in one line.

    points: how many it refuses at least, 0 if it does not say. conflict: measurement, field, type of the
    field in the points and in InfluxDB, if these types differ.
    """

    reason: str
    points: int = 0
    conflict: tuple[str, ...] | None = None

    @property
    def is_too_old(self) -> bool:
        """Whether the refused points are the oldest ones, too old for the retention policy to keep.

        Nothing else is wrong with any of the points then, and all others are stored.
        """
        return bool(_TOO_OLD.match(self.reason))

    @property
    def is_unreadable(self) -> bool:
        """Whether InfluxDB would refuse the points whatever is changed in the database."""
        return self.reason.removeprefix("partial write: ").startswith("unable to parse")


def write_points(client: InfluxClient, db_name: str, points: Sequence[dict[str, Any]]) -> Refusal | None:
    """Write points, oldest first. Returns why InfluxDB refuses some of them, None if it accepts all.

    If it refuses one point, the others may be stored or not. Raises one of INFLUX_ERRORS if the points must
    be sent again, for example because the database was missing (1.x then creates it). Sending a stored point
    again changes nothing.
    """
    return _written(client, db_name, lambda: client.write(points, db_name))


def write_lines(client: InfluxClient, db_name: str, lines: bytes) -> Refusal | None:
    """As write_points, of lines of InfluxDB's protocol: each point as `line_start` begins it, with fields and
    time (ns).
    """
    return _written(client, db_name, lambda: client.write_lines(lines, db_name))


def _written(client: InfluxClient, db_name: str, write: Callable[[], None]) -> Refusal | None:
    try:
        with answers():
            write()
    except InfluxClientError as error:
        if error.code == 404:
            _create_database(client, db_name)
        if error.code not in (400, 413, 422):
            raise
        return _refusal(error)
    return None


def _refusal(error: InfluxClientError) -> Refusal:
    answer, count = influx_versions.refused_points(error.content)
    dropped, conflict = _DROPPED.search(answer), _TYPE_CONFLICT.search(answer)
    reason = re.sub(r"\s+", " ", answer).strip()[:200]
    return Refusal(
        reason,
        int(dropped[1]) if dropped else count,
        conflict.group("measurement", "field", "ours", "theirs") if conflict else None,
    )


def any_of(tag: str, names: Sequence[str]) -> str:
    """The InfluxQL condition that a tag has one of these values."""
    # `::tag`, since somebody may write a field with the name of the tag.
    return "(" + " OR ".join(f"{identifier(tag)}::tag = {quote(name)}" for name in names) + ")"


def one_of(tag: str, names: Sequence[str]) -> str:
    """As any_of, for many names: InfluxDB takes seconds for a thousand that are compared one by one."""
    if len(names) == 1:
        return any_of(tag, names)
    # The slash ends an expression.
    expression = "|".join(map(re.escape, names)).replace("/", "\\/")
    return f"{identifier(tag)}::tag =~ /^({expression})$/"


def quote(text: str) -> str:
    """A text, quoted for InfluxQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def run(client: InfluxClient, statements: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Run InfluxQL statements in one request; returns the series of each statement.

    A series is a dict of `name`, `tags`, `columns` and `values`. Raises one of INFLUX_ERRORS, which include
    AnswerTooLargeError, for an answer that is not complete.
    """
    found = []
    for result in results(client, statements):
        # A complete answer of more than 10,000 rows is "partial" as well, but no query asks for so many.
        if is_cut(result):
            raise InfluxServerError(CUT_SHORT)
        found.append(result["series"])
    return found


def results(client: InfluxClient, statements: Sequence[str]) -> list[dict[str, Any]]:
    """The checked result of each statement; every result has `series`.

    A server that takes only one statement a request is asked for each from then on.
    """
    if len(statements) == 1:
        return _ask(client, statements)
    if client.takes_one_statement:
        return [result for statement in statements for result in _ask(client, [statement])]
    try:
        return _ask(client, statements)
    except (InfluxClientError, InfluxServerError) as error:
        if getattr(error, "code", None) == 414:
            half = len(statements) // 2
            return [*results(client, statements[:half]), *results(client, statements[half:])]
        if not influx_versions.wants_single_statements(error):
            raise
    client.takes_one_statement = True
    return results(client, statements)


def _ask(client: InfluxClient, statements: Sequence[str]) -> list[dict[str, Any]]:
    """The checked results of one request."""
    with answers(), _told(client):
        text = ";".join(statements)
        is_1 = (client.server_version or "").startswith("1.")
        answer = client.query(text, is_form=is_1 and len(text) > _LONG_CHARACTERS)
        if client.takes_one_statement and answer is None:
            # What such a server answers if there are no rows.
            return [{"series": []}]
        found = [{"series": [], **result} for result in answer["results"]]
        # The first failure also ends the other statements, and their errors say only that.
        if errors := [result["error"] for result in found if "error" in result]:
            if "not executed" in errors[0] and len(statements) > 1:
                # InfluxDB gives the reason that concerns all statements only if one is sent alone.
                _ask(client, statements[:1])
            raise InfluxClientError(errors[0])
        for series in (series for result in found for series in result["series"]):
            width = len(series["columns"])
            # A series without rows has no `values`.
            if any(len(row) != width for row in series.setdefault("values", [])):
                raise ValueError("a row that is not whole")
    if len(found) != len(statements):
        raise InfluxServerError(CUT_SHORT if any(map(is_cut, found)) else NOT_INFLUXDB)
    return found


@contextlib.contextmanager
def _told(client: InfluxClient) -> Iterator[None]:
    """Raise a refusal that only InfluxDB 2 or 3 knows, or that needs another remedy there, as its class."""
    try:
        yield
    except (InfluxClientError, InfluxServerError) as error:
        if (told := influx_versions.told(error, client.server_version)) is error:
            raise
        raise told from None


def is_cut(result: dict[str, Any]) -> bool:
    """Whether InfluxDB cut the result: it marks the cut series, or the result if it cut between two."""
    return any(part.get("partial") for part in (result, *result["series"]))


def run_newest(client: InfluxClient, queries: Callable[[str], Sequence[str]]) -> list[list[dict[str, Any]]]:
    """As run, of statements that ask for the newest rows, however old these are.

    queries: from a condition of the time to the statements. InfluxDB 3 Core is asked for two days, and then
    for the two days before, until there is a row.
    """
    if not client.reads_in_pieces:
        try:
            return run(client, queries("time > 0"))
        except LongTimeError:
            client.reads_in_pieces = True
    piece_ns = PIECE_SECONDS * 10**9
    end = time_ns()
    found = run(client, queries(f"time > {end - piece_ns}"))
    for _ in range(1, PIECES_BACK):
        if any(found):
            break
        end -= piece_ns
        found = run(client, queries(f"time > {end - piece_ns} AND time <= {end}"))
    return found


def in_pieces(client: InfluxClient, start: int, end: int, read: Callable[[int, int], _T]) -> list[_T]:
    """What `read` returns of the time after `start` and up to `end` (seconds): of all at once, or, where
    InfluxDB 3 Core refuses that, of pieces of two days, the newest first.
    """
    if not client.reads_in_pieces:
        try:
            return [read(start, end)]
        except LongTimeError:
            client.reads_in_pieces = True
    ends = range(end, start, -PIECE_SECONDS) or (end,)
    return [read(max(until - PIECE_SECONDS, start), until) for until in ends]


def _run(
    client: InfluxClient, queries: Sequence[str], measurements: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Answers of all queries, one request: measurement -> points with `time`, `value` and their tags."""
    points: dict[str, list[dict[str, Any]]] = {}
    for measurement, answer in zip(measurements, run(client, queries), strict=True):
        points[measurement] = [
            {**(series.get("tags") or {}), **dict(zip(series["columns"], row, strict=True))}
            for series in answer
            for row in series["values"]
        ]
    return points
