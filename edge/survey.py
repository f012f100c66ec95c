"""Looks into an InfluxDB, in bounded memory: which measurements, fields and series it has now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import time_ns
from typing import Any

import influx_utils
from common.values import is_number
from edge.source import LISTED_NAMES
from influx_client import InfluxClient
from influx_utils import identifier
from nodes.metrics import RawSeries
from nodes.survey import (
    MOST_FOUND,
    MOST_INSTANCES,
    MOST_MEASUREMENTS,
    NUMBER_TYPES,
    SHOWN_OTHERS,
    SURVEY_SECONDS,
    SURVEY_TIMEOUT_SECONDS,
    FoundSeries,
    Survey,
    in_order,
)


class InfluxSurveyor:
    """Looks into a database of InfluxDB; a Surveyor.

    client: has the database selected, and a time limit of `timeout_seconds`. server: host:port, and db_name,
    as messages name them.
    """

    errors = influx_utils.INFLUX_ERRORS

    def __init__(
        self,
        client: InfluxClient,
        server: str,
        db_name: str,
        timeout_seconds: float = SURVEY_TIMEOUT_SECONDS,
    ) -> None:
        self._client, self._server, self._db_name = client, server, db_name
        self._timeout_seconds = timeout_seconds
        self.place = f"InfluxDB at {server}: database {db_name}"

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        if influx_utils.kind_of(error) == "timeout":
            return f"{self.place} did not answer within {self._timeout_seconds:g} s; check the server"
        return influx_utils.describe_error(error, self._server, self._db_name)

    @influx_utils.answers()
    def survey(self, wanted: Sequence[RawSeries], pinned: Mapping[str, Mapping[str, str]]) -> Survey:
        """See Surveyor. What ended more than SURVEY_SECONDS before now counts only if nothing is newer."""
        names = self._column(f"SHOW MEASUREMENTS LIMIT {MOST_MEASUREMENTS}", 0)
        asked = {one.measurement for one in wanted}
        known, others = in_order(names, asked)
        shown = others[:SHOWN_OTHERS]
        fields = self._keys("FIELD", known + shown)
        there = [
            one for one in wanted if fields.get(one.measurement, {}).get(one.value_field) in NUMBER_TYPES
        ]
        span = f"time > now() - {SURVEY_SECONDS}s AND time <= now()"
        found = self._all_series(there, span, pinned)
        if not any(found.values()) and (newest := self._newest(there)):
            span = f"time > {newest - SURVEY_SECONDS * 10**9} AND time <= {newest}"
            found = self._all_series(there, span, pinned)
        tags = {name: tuple(keys) for name, keys in self._keys("TAG", shown).items()}
        return Survey(
            measurements=(*known, *others),
            fields=fields,
            tags=tags,
            series={key: tuple(series[:MOST_FOUND]) for key, series in found.items()},
            cut=frozenset(key for key, series in found.items() if len(series) > MOST_FOUND),
        )

    @influx_utils.answers()
    def instances(self, wanted: Sequence[RawSeries], seconds: float = SURVEY_SECONDS) -> list[list[str]]:
        """See Surveyor. What ended before then counts only if nothing is newer."""

        def read(start: int, end: int) -> list[list[str]]:
            return self._instances(wanted, f"time > {start}s AND time <= {end}s")

        now = time_ns() // 10**9
        found = influx_utils.in_pieces(self._client, int(now - seconds), now, read)
        if not any(map(any, found)) and (newest := self._newest(wanted)):
            end = newest // 10**9 + 1
            found = influx_utils.in_pieces(self._client, int(end - seconds), end, read)
        return [sorted({name for names in of_one for name in names}) for of_one in zip(*found, strict=True)]

    def _instances(self, wanted: Sequence[RawSeries], span: str) -> list[list[str]]:
        statements = []
        for one in wanted:
            tags = [influx_utils.any_of(tag, [text]) for tag, text in one.tags.items()]
            statements.append(
                f"SELECT last({identifier(one.value_field)}::field) FROM {identifier(one.measurement)}"
                f" WHERE {' AND '.join([span, *tags])} GROUP BY instance SLIMIT {MOST_INSTANCES}"
            )
        return [
            [series["tags"]["instance"] or "" for series in answer]
            for answer in influx_utils.run(self._client, statements)
        ]

    def why_empty(self) -> str:
        """Why there is nothing: InfluxDB lists no measurements, and no error, if the database is missing."""
        try:
            names = influx_utils.database_names(self._client)
        except self.errors:
            names = None
        # A user may have no right to list them.
        if names is None or self._db_name in names:
            return f"{self.place} is empty; check that Prometheus or Telegraf writes there, and --influx_db"
        others = sorted(names - {"_internal"})[:LISTED_NAMES]
        there = f"there is {', '.join(others)}" if others else "there is none"
        return f"{self.place} does not exist; check --influx_db ({there})"

    def _column(self, statement: str, place: int) -> list[str]:
        (answer,) = influx_utils.run(self._client, [statement])
        return [row[place] for series in answer for row in series["values"]]

    def _keys(self, what: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Measurement -> its fields and their types, or its tags."""
        if not (sources := ", ".join(map(identifier, names))):
            return {}
        (answer,) = influx_utils.run(self._client, [f"SHOW {what} KEYS FROM {sources}"])
        found: dict[str, dict[str, str]] = {}
        for series in answer:
            for key, *kind in series["values"]:
                of_name = found.setdefault(series["name"], {})
                # A field may have several types, each for a time.
                if of_name.get(key) not in NUMBER_TYPES:
                    of_name[key] = kind[0] if kind else ""
        return found

    def _newest(self, wanted: Iterable[RawSeries]) -> int | None:
        """Time of the newest sample of all up to now (ns)."""
        queries = [
            f"SELECT last({identifier(name)}::field) FROM {identifier(measurement)} WHERE time <= now() AND "
            for measurement, name in dict.fromkeys((one.measurement, one.value_field) for one in wanted)
        ]
        if not queries:
            return None
        answers = influx_utils.run_newest(self._client, lambda span: [query + span for query in queries])
        return max(
            (row[0] for answer in answers for series in answer for row in series["values"]), default=None
        )

    def _all_series(
        self, wanted: Iterable[RawSeries], span: str, pinned: Mapping[str, Mapping[str, str]]
    ) -> dict[str, list[FoundSeries]]:
        return {one.key: self._series(one, span, {**one.tags, **pinned.get(one.key, {})}) for one in wanted}

    def _series(self, one: RawSeries, span: str, tags: Mapping[str, str]) -> list[FoundSeries]:
        """The series of a measurement with these tags that have samples in a span of time."""
        name = f"{identifier(one.value_field)}::field"
        conditions = " AND ".join([span, *(influx_utils.any_of(tag, [text]) for tag, text in tags.items())])
        last, *more = (
            f"SELECT {what} FROM {identifier(one.measurement)} WHERE {conditions}"
            f" GROUP BY * SLIMIT {MOST_FOUND + 1}"
            # Only a selector alone gives the time of its sample.
            for what in (f"last({name})", f"first({name})", f"count({name}), min({name}), max({name})")
        )
        lasts = self._by_tags(last)
        # Among so many series, another survey looks for those of one node.
        firsts, numbers = ({}, {}) if len(lasts) > MOST_FOUND else map(self._by_tags, more)
        found = []
        for tags_there, (time, value) in lasts.items():
            first, *_ = firsts.get(tags_there, [time])
            _, count, low, high = numbers.get(tags_there, [time, 1, value, value])
            if all(map(is_number, (value, low, high))):
                own = {tag: text for tag, text in tags_there if text}
                found.append(FoundSeries(own, count, first, time, low, high, value))
        return found

    def _by_tags(self, statement: str) -> dict[tuple[tuple[str, str], ...], list[Any]]:
        """The tags of each series -> its row of the answer."""
        (answer,) = influx_utils.run(self._client, [statement])
        return {tuple(sorted((series.get("tags") or {}).items())): series["values"][0] for series in answer}
