"""Looks into Prometheus or VictoriaMetrics: which measurements and series it has now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import prometheus_utils
from nodes.metrics import RawSeries
from nodes.survey import (
    MOST_FOUND,
    MOST_INSTANCES,
    MOST_MEASUREMENTS,
    SHOWN_OTHERS,
    SURVEY_SECONDS,
    FoundSeries,
    Survey,
    in_order,
)
from prometheus_utils import Prometheus, PrometheusError, TooMuchError, range_text, selector

# All that a series has beside its labels.
VALUE_FIELD = "value"
_PLACE = "place_of_series"


class PrometheusSurveyor:
    """Looks into a server that answers as Prometheus; a Surveyor."""

    errors = (PrometheusError,)

    def __init__(self, client: Prometheus) -> None:
        self._client = client
        self.place = f"Prometheus at {client.url}"

    def describe_error(self, error: Exception) -> str:
        """One line for the user: what went wrong, and what to do."""
        assert isinstance(error, PrometheusError)
        return prometheus_utils.describe_prometheus_error(error, self._client.url)

    def why_empty(self) -> str:
        """What to do if there are no measurements."""
        return f"{self.place} is empty; check that it scrapes the exporters, and --prometheus_url"

    def survey(self, wanted: Sequence[RawSeries], pinned: Mapping[str, Mapping[str, str]]) -> Survey:
        """See Surveyor. Only what has samples in the last SURVEY_SECONDS counts."""
        names = self._client.label_values("__name__", '{__name__!=""}')[:MOST_MEASUREMENTS]
        asked = {one.measurement for one in wanted}
        known, others = in_order(names, asked)
        shown = others[:SHOWN_OTHERS]
        found: dict[str, tuple[FoundSeries, ...]] = {}
        cut = set()
        for one in wanted:
            if one.measurement in known and one.value_field == VALUE_FIELD:
                matchers = [(tag, [text]) for tag, text in {**one.tags, **pinned.get(one.key, {})}.items()]
                series, is_cut = self._series(selector([one.measurement], matchers))
                found[one.key] = tuple(series)
                cut |= {one.key} if is_cut else set()
        return Survey(
            measurements=(*known, *others),
            fields={name: {VALUE_FIELD: "float"} for name in (*known, *shown)},
            tags={name: self._tags(name) for name in shown},
            series=found,
            cut=frozenset(cut),
        )

    def instances(self, wanted: Sequence[RawSeries], seconds: float = SURVEY_SECONDS) -> list[list[str]]:
        """See Surveyor."""
        span = range_text(int(seconds * 10**9))
        counted = []
        for place, one in enumerate(wanted):
            chosen = selector([one.measurement], [(tag, [text]) for tag, text in one.tags.items()])
            by_instance = f"topk({MOST_INSTANCES}, count by (instance) (last_over_time({chosen}{span})))"
            # The label tells the answers to one question from those to the others.
            counted.append(f'label_replace({by_instance}, "{_PLACE}", "{place}", "", "")')
        found: list[list[str]] = [[] for _ in wanted]
        for labels, _ in prometheus_utils.rows_of(self._client.query(" or ".join(counted), time.time_ns())):
            found[int(labels[_PLACE])].append(labels.get("instance", ""))
        return [sorted(names) for names in found]

    def _series(self, chosen: str) -> tuple[list[FoundSeries], bool]:
        """The series that a selector picks, and whether there are more."""
        now = time.time_ns()
        # Another survey looks for those of one node.
        some = f"topk({MOST_FOUND}, {chosen})"
        counted = prometheus_utils.rows_of(self._client.query(f"count({chosen})", now))
        is_cut = any(count > MOST_FOUND for _, rows in counted for _, count in rows)
        try:
            answer = self._client.query(some if is_cut else chosen + range_text(SURVEY_SECONDS * 10**9), now)
        except TooMuchError:
            answer, is_cut = self._client.query(some, now), True
        found = []
        for labels, rows in prometheus_utils.rows_of(answer):
            if rows:
                values = [value for _, value in rows]
                tags = {label: text for label, text in labels.items() if text}
                (first, _), (last, value) = rows[0], rows[-1]
                found.append(FoundSeries(tags, len(rows), first, last, min(values), max(values), value))
        return found[:MOST_FOUND], is_cut or len(found) > MOST_FOUND

    def _tags(self, name: str) -> tuple[str, ...]:
        answer = self._client.query(f"topk({MOST_FOUND}, {selector([name])})", time.time_ns())
        labels = {label for labels, _ in prometheus_utils.rows_of(answer) for label in labels}
        return tuple(sorted(labels))
