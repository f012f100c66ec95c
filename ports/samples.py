"""The ports' queries: lists ports, reads their samples and stores their anomalies, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import influx_utils
from common.files import UserError
from common.times import format_time
from influx_client import AnswerTooLargeError, InfluxClient
from nodes.series import NO_NUMBERS
from ports.rivals import CELL_SECONDS, LIVE_SECONDS, cell_seconds, cells_of, describe_rivals, side_by_side
from service.systemd import notify_systemd

POINTS_PER_WRITE = 5000
# The measurements of bytes per sample, and of incidents.
PORT_TRAFFIC = "port_traffic"
PORT_INCIDENTS = "port_incidents"
_PORT_TAGS = ("device", "port", "direction")
_PortKey = tuple[str, ...]
MAX_TAG_LETTERS = 200
# At most this many ports that several series write have these series named.
NAMED_PORTS = 20
_SHORT = f"/^(?s:.{{0,{MAX_TAG_LETTERS}}})$/"


@dataclass(frozen=True)
class Limits:
    """How much is read. page_samples, page_ports: rows per answer. port_samples: of one port in all."""

    # InfluxDB marks an answer of more than 10,000 rows as partial.
    page_samples: int = 10_000
    # An answer stays within MAX_ANSWER_BYTES even if all tags have MAX_TAG_LETTERS and JSON writes each
    # letter as six bytes. Other tags and fields of a port are never part of an answer.
    page_ports: int = 4000
    # 63 days have 18,144 samples, or 90,720 with one each minute.
    port_samples: int = 1_000_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Port:
    """A port in one direction, by its tags `device`, `port`, `direction` (empty where it has none).

    newest: time of its newest value, seconds since 1970. fault: why its samples cannot be used, or None.
    """

    tags: dict[str, str]
    newest: int
    fault: str | None = None


@influx_utils.answers()
def list_ports(client: InfluxClient, start: int, end: int, limits: Limits = DEFAULT_LIMITS) -> list[Port]:
    """All ports that have a value between `start` and `end` (seconds since 1970).

    It takes a few requests with answers of bounded size, however many ports there are. A label that is added
    to a port starts a new series, in which the port goes on. Two series at the same time are a fault, and so
    is a newest value that is not a number. Ports with tags longer than MAX_TAG_LETTERS are left out.
    """
    pieces = influx_utils.in_pieces(client, start, end, partial(_ports_of, client, limits))
    # What the newest piece shows of a port counts.
    return list({key: port for found in reversed(pieces) for key, port in found.items()}.values())


def _ports_of(client: InfluxClient, limits: Limits, start: int, end: int) -> dict[_PortKey, Port]:
    """list_ports of a time that the server reads at once."""
    span = f"time > {start}s AND time <= {end}s"
    are_short = " AND ".join(f'"{tag}"::tag =~ {_SHORT}' for tag in _PORT_TAGS)
    conditions = f"{span} AND {are_short}"
    ends = _series_times(client, 'last("value"::float)', conditions, limits)
    newest = {key: times[-1] for key, times in ends.items()}
    faults: dict[_PortKey, str] = {}
    if any(len(times) > 1 for times in ends.values()):
        begins = _series_times(client, 'first("value"::float)', conditions, limits)
        live = LIVE_SECONDS * 10**9
        rivals = {key: side_by_side(begins.get(key, []), times, live) for key, times in ends.items()}
        several = sorted(key for key, count in rivals.items() if count)
        for number, key in enumerate(several):
            two = _rivals(client, key, newest[key]) if number < NAMED_PORTS else []
            faults[key] = describe_rivals(rivals[key], two)
    for influx_type, words in NO_NUMBERS.items():
        wrong = _series_times(client, f'last("value"::{influx_type})', conditions, limits)
        for key, times in wrong.items():
            if times[-1] > newest.get(key, 0):
                newest[key] = times[-1]
                faults[key] = _wrong_type(words, times[-1])
    return {
        key: Port(dict(zip(_PORT_TAGS, key, strict=True)), time // 10**9, faults.get(key))
        for key, time in newest.items()
    }


@influx_utils.answers()
def count_unlisted_ports(client: InfluxClient, start: int, end: int) -> int:
    """How many ports list_ports leaves out because their tags are too long, at least."""
    return max(influx_utils.in_pieces(client, start, end, partial(_count_unlisted, client)), default=0)


def _count_unlisted(client: InfluxClient, start: int, end: int) -> int:
    is_long = " OR ".join(f'"{tag}"::tag !~ {_SHORT}' for tag in _PORT_TAGS)
    tags = ", ".join(f'"{tag}"' for tag in _PORT_TAGS)
    ports = (
        f'SELECT count("value") AS "n" FROM "{PORT_TRAFFIC}" WHERE time > {start}s AND time <= {end}s'
        f" AND ({is_long}) GROUP BY {tags}"
    )
    (answer,) = influx_utils.run(client, [f'SELECT count("n") FROM ({ports})'])
    return sum(count for series in answer for _, count in series["values"])


def _series_times(
    client: InfluxClient, selector: str, conditions: str, limits: Limits
) -> dict[_PortKey, list[int]]:
    """Port -> the times (ns) of the point that `selector` picks in each of its series, ascending.

    Only the time and the port's own tags are read: other tags, and text values, may be of any length.
    """
    found: dict[_PortKey, list[int]] = {}
    count, is_whole = 0, False
    while not is_whole:
        rows, is_cut = _port_rows(client, _series_page(selector, conditions, limits, count))
        for time, *texts in rows:
            found.setdefault(tuple(text or "" for text in texts), []).append(time)
        count += len(rows)
        is_whole = not rows or len(rows) < limits.page_ports and not is_cut
    return {key: sorted(times) for key, times in found.items()}


def _series_page(selector: str, conditions: str, limits: Limits, offset: int = 0) -> str:
    """The query of one page of _series_times."""
    tags = ", ".join(f'"{tag}"' for tag in _PORT_TAGS)
    selected = f'SELECT {selector} FROM "{PORT_TRAFFIC}" WHERE {conditions} GROUP BY *'
    return f"SELECT {tags} FROM ({selected}) LIMIT {limits.page_ports} OFFSET {offset}"


def _rivals(client: InfluxClient, port: _PortKey, newest: int) -> list[dict[str, str]]:
    """The tags of a port's first two live series; empty if they are too long to be read."""
    where = _port_condition(dict(zip(_PORT_TAGS, port, strict=True)))
    since = newest - LIVE_SECONDS * 10**9
    query = (
        f'SELECT last("value"::float) FROM "{PORT_TRAFFIC}" WHERE time > {since} AND time <= {newest}'
        f" AND {where} GROUP BY *"
    )
    try:
        (answer,) = influx_utils.run(client, [query])
    except AnswerTooLargeError:
        return []
    return [series["tags"] for series in answer[:2]] if len(answer) > 1 else []


def insert_port_points(
    client: InfluxClient,
    db_name: str,
    found: Sequence[tuple[str, int, dict[str, str], Mapping[str, float | str]]],
) -> str | None:
    """Store anomalies and incidents: measurement, time (ns), tags and fields. Returns why InfluxDB refuses
    some for good, or None.

    Fields that are not finite are left out. Raises what write_points raises; writing again changes nothing.
    """
    points = [
        {
            "measurement": measurement,
            "time": time,
            "tags": {tag: text.rstrip("\\") for tag, text in tags.items()},
            "fields": {
                name: value
                for name, value in fields.items()
                if isinstance(value, str) or math.isfinite(value)
            },
        }
        for measurement, time, tags, fields in found
    ]
    firsts = range(0, len(points), POINTS_PER_WRITE)
    batches = (points[first : first + POINTS_PER_WRITE] for first in firsts)
    refusals = []
    for batch in batches:
        refusals.append(influx_utils.write_points(client, db_name, batch))
        notify_systemd("WATCHDOG=1")
    return next((refusal.reason for refusal in refusals if refusal), None)


@influx_utils.answers()
def get_port_samples(
    client: InfluxClient,
    tags: dict[str, str],
    start: int,
    end: int,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) after `start` and up to `end`, seconds since 1970, and bytes (n,), of one port.

    The last of several samples within one second counts. Samples in a cell in which two series wrote are NaN:
    nobody knows which of them are right. Raises UserError, without the port's name, for a value that is not a
    number and for more samples than the limits allow.
    """
    count = 0

    def read(begin: int, until: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal count
        found = _samples_of(client, tags, begin, until, limits)
        count += len(found[0])
        if count > limits.port_samples:
            raise UserError(_too_many(limits, begin))
        return found

    pieces = influx_utils.in_pieces(client, start, end, read)
    if len(pieces) == 1:
        return pieces[0]
    times, traffic = (np.concatenate(parts) for parts in zip(*reversed(pieces), strict=True))
    return times, traffic


def _samples_of(
    client: InfluxClient, tags: dict[str, str], start: int, end: int, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """get_port_samples of a time that the server reads at once."""
    is_port = _port_condition(tags)
    conditions = f"time > {start}s AND time <= {end}s AND {is_port}"
    samples: dict[int, float] = {}
    last, count = start * 10**9, 0

    def page() -> str:
        return (
            f'SELECT "value"::float FROM "{PORT_TRAFFIC}" WHERE time > {last} AND time <= {end}s'
            f" AND {is_port} LIMIT {limits.page_samples}"
        )

    # Each shard has its own type. If types are mixed, a plain `value` returns the numbers and drops the rest.
    types = [_series_page(f'first("value"::{one})', conditions, limits) for one in NO_NUMBERS]
    *wrong, (rows, is_cut) = _answers(client, [*types, page()])
    for words, (found, _) in zip(NO_NUMBERS.values(), wrong, strict=True):
        if found:
            raise UserError(_wrong_type(words, min(time for time, *_ in found)))
    while rows:
        samples.update((time // 10**9, float(number)) for time, number in rows)
        count += len(rows)
        if count > limits.port_samples:
            raise UserError(_too_many(limits, start))
        if len(rows) < limits.page_samples and not is_cut:
            break
        last = rows[-1][0]
        rows, is_cut = _port_rows(client, page())
    times = np.array(list(samples), dtype=np.int64)
    traffic = np.array(list(samples.values()), dtype=float)
    # Queried after the samples, so that a series that begins in between is seen.
    seconds, shared = _shared_cells(client, conditions, limits)
    traffic[np.isin(cells_of(times, seconds), shared)] = np.nan
    return times, traffic


def _shared_cells(client: InfluxClient, conditions: str, limits: Limits) -> tuple[int, list[int]]:
    """Length of a cell in seconds; and the cells, counted from 1970, in which several series have samples."""
    series = _series_times(client, 'last("value"::float)', conditions, limits)
    if all(len(times) == 1 for times in series.values()):
        return CELL_SECONDS, []
    seconds = _cell_seconds(client, conditions)
    cells = f"time({seconds}s, {seconds // 2}s)"
    each = f'SELECT count("value"::float) AS "n" FROM "{PORT_TRAFFIC}" WHERE {conditions}'
    together = f'SELECT count("n"::integer) AS "n" FROM ({each} GROUP BY {cells}, * fill(none))'
    shared = f'SELECT "n"::integer FROM ({together} GROUP BY {cells} fill(none)) WHERE "n"::integer > 1'
    found: list[int] = []
    is_whole = False
    while not is_whole:
        rows, is_cut = _port_rows(client, f"{shared} LIMIT {limits.page_samples} OFFSET {len(found)}")
        found += [time // 10**9 // seconds for time, _ in rows]
        is_whole = not rows or len(rows) < limits.page_samples and not is_cut
    return seconds, found


def _cell_seconds(client: InfluxClient, conditions: str) -> int:
    """The usual distance between samples of that series of a port in which it is the shortest."""
    distances = f'SELECT elapsed("value"::float, 1s) AS "n" FROM "{PORT_TRAFFIC}" WHERE {conditions}'
    usual = f'SELECT median("n"::integer) AS "n" FROM ({distances} GROUP BY *) GROUP BY *'
    rows, _ = _port_rows(client, f'SELECT min("n"::float) FROM ({usual})')
    return cell_seconds(rows[0][1] if rows else CELL_SECONDS)


def _port_condition(tags: dict[str, str]) -> str:
    return " AND ".join(influx_utils.any_of(tag, [name]) for tag, name in tags.items())


def _port_rows(client: InfluxClient, query: str) -> tuple[list[list[Any]], bool]:
    """As _answers, of one statement."""
    (answer,) = _answers(client, [query])
    return answer


def _answers(client: InfluxClient, queries: Sequence[str]) -> list[tuple[list[list[Any]], bool]]:
    """The rows of each statement, and whether InfluxDB has more of them. A request feeds the watchdog."""
    answers = influx_utils.results(client, queries)
    notify_systemd("WATCHDOG=1")
    return [
        ([row for series in answer["series"] for row in series["values"]], influx_utils.is_cut(answer))
        for answer in answers
    ]


def _too_many(limits: Limits, start: int) -> str:
    return (
        f"has more than {limits.port_samples:,} samples since {format_time(start * 10**9)}; write one every"
        " five minutes, and delete the others"
    )


def _wrong_type(words: str, time: int) -> str:
    return f"has {words} at {format_time(time)} instead of a number of bytes; delete that sample"
