"""Everything that speaks to InfluxDB, and nothing else does.

Times are integer nanoseconds since 1970, UTC, in queries, answers and points.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError

import formatters
from utils import ANOMALY_FIELDS, Node, UserError, format_time

logger = logging.getLogger(__name__)

# A hung server must not hold a poll for ever; one attempt, since the next poll is the retry.
TIMEOUT_SECONDS = 4.0
ATTEMPTS = 1

# What a request may raise when the server is away, hung, restarting or refuses.
INFLUX_ERRORS = (InfluxDBClientError, InfluxDBServerError, requests.RequestException)

# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+(%\w+)?\]")
# What the client raises for an answer of something that is not InfluxDB.
_ODD_ANSWER = (AttributeError, KeyError, IndexError, TypeError, ValueError)

BATCH_POINTS = 5000
# Of more than 10,000 rows InfluxDB says that they are but a part.
PORT_PAGE_SAMPLES = 10_000
# What is read of one port at once: 63 days have 18,144 samples, or 90,720 of every minute.
MAX_PORT_SAMPLES = 1_000_000
# Series of one port that both have a sample so near to its newest go on side by side.
LIVE_SECONDS = 2 * 3600
# Bytes per five minutes, and what was found in them.
PORT_TRAFFIC = "port_traffic"
PORT_ANOMALIES = "detected_port_anomalies"
_PORT_TAGS = ("device", "port", "direction")
_PortKey = tuple[str, ...]
_Series = tuple[tuple[str, str], ...]
# What a field may hold beside numbers: its type in InfluxDB, and in words.
_WRONG_TYPES = {"string": "text", "boolean": "a boolean"}

# What tells the series of one measurement apart.
_SERIES_TAGS = {
    formatters.CPU_SECONDS: ("cpu", "instance"),
    formatters.RECEIVED: ("device", "instance"),
    formatters.TRANSMITTED: ("device", "instance"),
    formatters.DOWNLINK: ("cellId", "instance"),
    formatters.UPLINK: ("cellId", "instance"),
}


def initializeConnection(
    influx_host: str,
    influx_port: int,
    influx_user: str,
    influx_pass: str,
    is_encrypted: bool = False,
    ca_file: str | None = None,
) -> InfluxDBClient:
    """A client that gives up after TIMEOUT_SECONDS and speaks to the server directly, past any proxy.

    is_encrypted: speak TLS, and only to a server whose certificate is signed by one that `ca_file` (PEM)
    holds, or by a public one. Nothing is sent yet: the first request shows whether the server is there.
    """
    if not _HOST.fullmatch(influx_host):
        # Not repeated: what is no name may hold a password.
        raise UserError(
            "--influx_host is no name of a host; give a name or an address, without anything else"
        )
    session = requests.Session()
    # An empty `proxies` alone still lets requests take HTTP_PROXY and .netrc from the environment.
    session.trust_env = False
    return InfluxDBClient(
        host=influx_host,
        port=influx_port,
        # As text, requests would take them for latin-1.
        username=influx_user.encode(),
        password=influx_pass.encode(),
        timeout=TIMEOUT_SECONDS,
        retries=ATTEMPTS,
        proxies={},
        ssl=is_encrypted,
        verify_ssl=ca_file or True,
        session=session,
    )


def check_names(db_name: str, measurement: str) -> None:
    """Raise UserError for names that InfluxDB refuses, which it would say of every request only."""
    if not db_name.isprintable() or db_name in (".", "..") or set(db_name) & set("/\\"):
        raise UserError(f"--influx_db {db_name!r} is no name for a database; use letters, digits and _")
    if not measurement.isprintable() or measurement.endswith("\\"):
        raise UserError(
            f"--influx_measurement {measurement!r} is no name for a measurement; use letters, digits and _"
        )


def checkDatabase(client: InfluxDBClient, db_name: str) -> None:
    """Select the database for all further requests, creating it if it does not exist.

    Whoever may not list databases may still use one that exists, so a refusal to list or create says
    nothing yet; the first query does.
    """
    try:
        with _answers():
            if db_name not in {database["name"] for database in client.get_list_database()}:
                client.create_database(db_name)
                logger.info("created the database %s", db_name)
    except InfluxDBClientError as error:
        if error.code != 403:
            raise
    client.switch_database(db_name)


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    """An answer that is not InfluxDB's, of a proxy or another program, is an error of the server."""
    try:
        yield
    except requests.exceptions.JSONDecodeError:
        raise InfluxDBServerError("not an answer of InfluxDB") from None
    except requests.RequestException:
        # Some of these are a ValueError, too.
        raise
    except _ODD_ANSWER:
        raise InfluxDBServerError("not an answer of InfluxDB") from None


def describe_error(error: Exception, server: str, db_name: str) -> str:
    """One line for the user: what went wrong with InfluxDB at `server` (host:port) and what to do."""
    server = f"InfluxDB at {server}"
    if isinstance(error, requests.Timeout):
        return f"{server} did not answer within {TIMEOUT_SECONDS:g} s; check the server"
    if isinstance(error, requests.exceptions.SSLError):
        reason = _one_line(_innermost(error))
        return f"{server} did not prove who it is by TLS ({reason}); check --influx_ssl and --influx_ca"
    if isinstance(error, requests.RequestException):
        return f"{server} cannot be reached; check --influx_host, --influx_port and that it runs"
    code = getattr(error, "code", None)
    if code == 401:
        return f"{server} refused the credentials; check --influx_user and --influx_pass"
    if code == 403:
        return f"{server}: the user has no right to the database {db_name}; grant it READ and WRITE"
    reason = _one_line(error)
    if "database not found" in reason:
        return f"{server} has no database {db_name}; check --influx_db"
    return (
        f"{server} answered with an error ({reason});"
        " check --influx_db, --influx_measurement and the server's log"
    )


def kind_of(error: Exception) -> str:
    """A few words for a label: unreachable, timeout, credentials, rights, database, error."""
    if isinstance(error, requests.Timeout):
        return "timeout"
    if isinstance(error, requests.RequestException):
        return "unreachable"
    if "database not found" in str(error):
        return "database"
    return {401: "credentials", 403: "rights"}.get(getattr(error, "code", None), "error")


def _innermost(error: BaseException) -> BaseException:
    """The reason that libraries have wrapped into their own errors."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = inner
    return error


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200]


def getLastRecords(
    client: InfluxDBClient, queries: Sequence[str], measurements: Sequence[str]
) -> tuple[formatters.Record, int | None]:
    """Run all queries in one request and keep the newest point of every series.

    queries: one InfluxQL statement for each of `measurements`, that selects a column `value`.
    Returns data (measurement -> JSON array, as formatters.py takes it) and timestamp: the time of the
    newest point of all, None if there is none.
    """
    data = _run(client, queries, measurements)
    for measurement, points in data.items():
        oldest_first = sorted(points, key=lambda point: point["time"])
        data[measurement] = list({formatters.series_tags(point): point for point in oldest_first}.values())
    times = [point["time"] for points in data.values() for point in points]
    return data, max(times, default=None)


def get_samples(
    client: InfluxDBClient, node: Node, start: int | str, end: int | str = "now()"
) -> formatters.Record:
    """All samples of a node from `start` (ns, or InfluxQL like `now() - 60s`) to before `end`: one request.

    By default a sample that the server's clock has not reached is not there yet.
    Raises UserError if more than one instance of an exporter has samples there and the node file pins none.
    """
    span = f"time >= {start} AND time < {end}"
    queries = [_select(measurement, node, span) for measurement in formatters.MEASUREMENTS]
    samples = _run(client, queries, formatters.MEASUREMENTS)
    refuse_many(instances_of(samples))
    return samples


def instances_of(samples: formatters.Record) -> dict[str, set[str]]:
    """The `instance` tags of each exporter's samples, by the key that pins it in a node file."""
    exporters = {
        "node_instance": formatters.NODE_MEASUREMENTS,
        "ran_instance": formatters.RAN_MEASUREMENTS,
    }
    return {
        key: {point.get("instance", "") for m in measurements for point in samples.get(m, [])}
        for key, measurements in exporters.items()
    }


def refuse_many(instances: dict[str, set[str]]) -> None:
    """Raise UserError if an exporter has more than one instance: they would be mixed into one node."""
    for key, names in instances.items():
        if len(names) > 1:
            raise UserError(
                f"the database holds more than one instance: {', '.join(sorted(names))};"
                f" name the one to watch as '{key}' in a file given with --node_file"
            )


def newest_sample_time(client: InfluxDBClient, node: Node) -> int | None:
    """Time of the newest sample of the node in the whole history, None if there is none."""
    queries = [
        _select(measurement, node, "time > 0 AND time < now()", 'last("value")')
        for measurement in formatters.MEASUREMENTS
    ]
    return getLastRecords(client, queries, formatters.MEASUREMENTS)[1]


def insertAnomalies(
    client: InfluxDBClient,
    influx_measurement: str,
    timestamps: Sequence[int],
    anomaly_np: np.ndarray,
    tag_msg: str,
    severity: str = "anomaly",
    instance: str | None = None,
) -> None:
    """Store anomalies, one point for each of `timestamps` (ns), with the possible cause `tag_msg`.

    anomaly_np: (n, 8), the columns of getAnomalyColumns(); values that are not finite are left out, as
    InfluxDB refuses them. Writing the same anomaly again changes nothing.
    """
    points = [
        point
        for timestamp, values in zip(timestamps, np.atleast_2d(anomaly_np), strict=True)
        if (point := anomaly_point(influx_measurement, timestamp, values, tag_msg, severity, instance))
    ]
    if points:
        client.write_points(points, time_precision="n")


def anomaly_point(
    influx_measurement: str,
    timestamp: int,
    values: Sequence[float],
    tag_msg: str,
    severity: str,
    instance: str | None,
) -> dict[str, Any] | None:
    """The point that insertAnomalies writes for one anomaly; None if none of its values is finite."""
    tags = {"possible_cause": tag_msg, "severity": severity}
    if instance is not None:
        # InfluxDB refuses a tag that ends in a backslash.
        tags["instance"] = instance.rstrip("\\")
    named = zip(ANOMALY_FIELDS, values, strict=True)
    fields = {name: float(value) for name, value in named if math.isfinite(value)}
    if not fields:
        return None
    return {"measurement": influx_measurement, "time": int(timestamp), "tags": tags, "fields": fields}


def write_points(client: InfluxDBClient, db_name: str, points: Sequence[dict[str, Any]]) -> str | None:
    """Write points, oldest first; why InfluxDB will never take one of them, None if it took all.

    Of points of which it refuses one, the others may be stored or not. Raises one of INFLUX_ERRORS if the
    points are to be sent again, for one because their database was gone (it is created then); those that
    were written change nothing when they are sent twice.
    """
    try:
        with _answers():
            client.write_points(list(points), time_precision="n", database=db_name)
    except InfluxDBClientError as error:
        if error.code == 404:
            client.create_database(db_name)
        if error.code != 400:
            raise
        return _one_line(error)
    return None


# --- ports ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Port:
    """A port in one direction, by its tags `device`, `port`, `direction` (empty where it has none).

    newest: time of its newest number, seconds since 1970. fault: why its samples cannot be used, if so.
    """

    tags: dict[str, str]
    newest: int
    fault: str | None = None


@_answers()
def list_ports(client: InfluxDBClient, start: int, end: int) -> list[Port]:
    """All ports that have a value between `start` and `end` (seconds since 1970).

    A few requests, however many ports there are. A label that is added to a port begins a series in which it
    goes on; two series that go on side by side are a fault, and so is a newest value that is no number.
    """
    span = f"time > {start}s AND time <= {end}s"
    ends = _series_times(client, 'last("value"::float)', span)
    ports: dict[_PortKey, list[_Series]] = {}
    for series in ends:
        ports.setdefault(_port_key(series), []).append(series)
    newest = {key: max(ends[one] for one in series) for key, series in ports.items()}
    live = {
        key: [one for one in series if ends[one] > newest[key] - LIVE_SECONDS * 10**9]
        for key, series in ports.items()
    }
    faults: dict[_PortKey, str] = {}
    if any(len(series) > 1 for series in live.values()):
        begins = _series_times(client, 'first("value"::float)', span)
        faults = {
            key: fault for key, series in live.items() if (fault := _side_by_side(series, begins, ends))
        }
    for influx_type, words in _WRONG_TYPES.items():
        for series, time in _series_times(client, f'last("value"::{influx_type})', span).items():
            key = _port_key(series)
            if time > newest.get(key, 0):
                newest[key] = time
                faults[key] = _wrong_type(words, time)
    return [
        Port(dict(zip(_PORT_TAGS, key, strict=True)), time // 10**9, faults.get(key))
        for key, time in newest.items()
    ]


def _series_times(client: InfluxDBClient, selector: str, span: str) -> dict[_Series, int]:
    """Time (ns) of the point that is selected of each series of `port_traffic`."""
    rows, is_cut = _port_rows(client, f'SELECT {selector} FROM "{PORT_TRAFFIC}" WHERE {span} GROUP BY *')
    if is_cut:
        raise InfluxDBServerError("it was cut short; raise max-row-limit in InfluxDB's configuration")
    return {tuple(sorted(tags.items())): row[0] for tags, row in rows}


def _port_key(series: _Series) -> _PortKey:
    tags = dict(series)
    return tuple(tags.get(tag, "") for tag in _PORT_TAGS)


def _side_by_side(
    series: Sequence[_Series], begins: dict[_Series, int], ends: dict[_Series, int]
) -> str | None:
    """Why a port of these series cannot be judged: two of them overlap, and may be different ports."""
    # A series that was not there when `begins` was asked for begins now.
    starts = {one: begins.get(one, ends[one]) for one in series}
    for one, other in itertools.pairwise(sorted(series, key=starts.__getitem__)):
        if starts[other] < ends[one]:
            tags, others = dict(one), dict(other)
            tag = min(tag for tag in {*tags, *others} if tags.get(tag, "") != others.get(tag, ""))
            differing = " and ".join(repr(found.get(tag, "")[:40]) for found in (tags, others))
            return (
                f"is written by {len(series)} series at once (their {tag[:40]!r}: {differing}); write one of"
                " them, or give each its own device or port"
            )
    return None


def insert_port_anomalies(
    client: InfluxDBClient,
    db_name: str,
    measurement: str,
    anomalies: Sequence[tuple[int, dict[str, str], dict[str, float]]],
) -> str | None:
    """Store the time (ns), tags and fields of each; why InfluxDB refuses some for good, None if it took all.

    Fields that are not finite are left out. Raises as write_points does; writing them again changes nothing.
    """
    points = [
        {
            "measurement": measurement,
            "time": time,
            "tags": {tag: text.rstrip("\\") for tag, text in tags.items()},
            "fields": {name: value for name, value in fields.items() if math.isfinite(value)},
        }
        for time, tags, fields in anomalies
    ]
    batches = (points[first : first + BATCH_POINTS] for first in range(0, len(points), BATCH_POINTS))
    refusals = [write_points(client, db_name, batch) for batch in batches]
    return next(filter(None, refusals), None)


@_answers()
def get_port_samples(
    client: InfluxDBClient, tags: dict[str, str], start: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) after `start` and up to `end`, seconds since 1970, and bytes (n,), of one port.

    Of samples within one second the last one counts. Raises UserError, without the port's name, for a value
    that is no number and for more than MAX_PORT_SAMPLES samples.
    """
    where = " AND ".join(_any_of(tag, [name]) for tag, name in tags.items())
    # A shard has a type of its own; of several types `value` alone gives the numbers and drops the rest.
    columns = ", ".join(f'"value"::{kind}' for kind in ("float", "string", "boolean"))
    samples: dict[int, float] = {}
    last, count, is_whole = start * 10**9, 0, False
    while not is_whole:
        page = (
            f'SELECT {columns} FROM "{PORT_TRAFFIC}" WHERE time > {last} AND time <= {end}s AND {where}'
            f" LIMIT {PORT_PAGE_SAMPLES}"
        )
        rows, is_cut = _port_rows(client, page)
        for _, (time, number, text, _) in rows:
            if number is None:
                raise UserError(_wrong_type(_WRONG_TYPES["boolean" if text is None else "string"], time))
            samples[time // 10**9] = float(number)
        count += len(rows)
        if count > MAX_PORT_SAMPLES:
            raise UserError(
                f"has more than {MAX_PORT_SAMPLES:,} samples since {format_time(start * 10**9)}; write one"
                " every five minutes, and delete those between"
            )
        is_whole = not rows or len(rows) < PORT_PAGE_SAMPLES and not is_cut
        last = rows[-1][1][0] if rows else last
    return np.array(list(samples), dtype=np.int64), np.array(list(samples.values()), dtype=float)


def _port_rows(client: InfluxDBClient, query: str) -> tuple[list[tuple[dict[str, str], list[Any]]], bool]:
    """The rows of one statement, each with its series' tags, and whether InfluxDB has more of them."""
    answer = client.query(query, epoch="ns").raw
    found = answer.get("series", [])
    rows = [(series.get("tags", {}), row) for series in found for row in series["values"]]
    # It says so of the series that it cut, or of the answer if it cut between two.
    return rows, any(part.get("partial") for part in (answer, *found))


def _wrong_type(words: str, time: int) -> str:
    return f"has {words} at {format_time(time)}, where bytes are a number; delete that sample"


def _select(measurement: str, node: Node, span: str, column: str = '"value"') -> str:
    """Statement for one measurement of a node, grouped by what tells its series apart."""
    conditions = [span]
    if measurement == formatters.CPU_SECONDS:
        conditions += ["\"mode\" = 'user'", _any_of("cpu", node.cpus)]
    elif measurement in (formatters.RECEIVED, formatters.TRANSMITTED):
        conditions.append(_any_of("device", node.interfaces))
    elif measurement in (formatters.DOWNLINK, formatters.UPLINK):
        conditions.append(_any_of("cellId", [node.cell_id]))
    pinned = node.node_instance if measurement in formatters.NODE_MEASUREMENTS else node.ran_instance
    if pinned is not None:
        conditions.append(_any_of("instance", [pinned]))
    tags = ", ".join(f'"{tag}"' for tag in _SERIES_TAGS.get(measurement, ("instance",)))
    return f'SELECT {column} AS "value" FROM "{measurement}" WHERE {" AND ".join(conditions)} GROUP BY {tags}'


def _any_of(tag: str, names: Sequence[str]) -> str:
    return "(" + " OR ".join(f'"{tag}" = {_quote(name)}' for name in names) + ")"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _run(
    client: InfluxDBClient, queries: Sequence[str], measurements: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Answers of all queries, one request: measurement -> points with `time`, `value` and their tags."""
    try:
        with _answers():
            answers = client.query(";".join(queries), epoch="ns")
    except InfluxDBClientError as error:
        if "not executed" not in str(error):
            raise
        # Of several statements InfluxDB tells what went wrong with the first only if it is asked alone.
        client.query(queries[0], epoch="ns")
        raise
    # The client answers a single statement without the list.
    answers = answers if isinstance(answers, list) else [answers]
    # InfluxDB also says "partial" of more than 10,000 rows that are all there; nobody asks for as many.
    if any(series.get("partial") for answer in answers for series in answer.raw.get("series", [])):
        raise InfluxDBServerError("it was cut short; raise max-row-limit in InfluxDB's configuration")
    if len(answers) < len(queries):
        raise InfluxDBServerError("not an answer of InfluxDB")
    return {
        measurement: [
            {"time": point["time"], "value": point["value"], **(tags or {})}
            for (_, tags), points in answer.items()
            for point in points
        ]
        for measurement, answer in zip(measurements, answers, strict=True)
    }
