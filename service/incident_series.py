"""Open incidents for Prometheus: a series for each, with what a person needs first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.exporter import Exporter

# An alert for each of more than so many helps nobody.
MOST_INCIDENTS = 20
_LABELS = ("incident", "node", "cause", "since", "why")
_MOST_LETTERS = 500


class IncidentSeries:
    """Shows the incidents that are open as `<name>{incident, node, cause, since, why} 1`.

    series = IncidentSeries(exporter, "open_incident")
    series.show(entries)    # as service/incident_log.py keeps them

    At most MOST_INCIDENTS have a series, those that opened first; `<name>s_not_shown` counts the others.
    """

    def __init__(self, exporter: Exporter, name: str) -> None:
        self._gauge = exporter.gauge(name, "1 for each incident that is open", *_LABELS)
        self._not_shown = exporter.gauge(f"{name}s_not_shown", "Open incidents without a series of their own")
        self._shown: set[tuple[str, ...]] = set()

    def show(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Show these, and no others any more."""
        found = sorted(entries, key=lambda one: (str(one["opened"]), str(one["id"])))
        shown = {
            tuple(_safe(str(one[key])) for key in ("id", "node", "cause", "began", "why"))
            for one in found[:MOST_INCIDENTS]
        }
        # The new one first: a scrape in between must not miss an incident of which more is known now.
        for labels in shown - self._shown:
            self._gauge.labels(*labels).set(1)
        for labels in self._shown - shown:
            self._gauge.remove(*labels)
        self._shown = shown
        self._not_shown.set(len(found) - min(len(found), MOST_INCIDENTS))


def _safe(text: str) -> str:
    """The text as a label: not endless, and without halves of characters, which cannot be sent."""
    return text[:_MOST_LETTERS].encode(errors="replace").decode()
