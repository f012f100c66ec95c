"""Why series have no samples: looked up in the database whenever other series than before have none."""

from __future__ import annotations

from collections.abc import Mapping

from common.alerts import WINDOW_RECORDS
from edge.selection import NO_SAMPLE, Selection, shown
from edge.source import Asking, LaterError, NamesOf, SampleSource, WrongTypesOf
from nodes.node import Node
from nodes.series import monitored_series


class Explanations:
    """What the database tells about the monitored series that have no samples.

    Faults: series name -> why it has no usable sample.
    """

    def __init__(self, source: SampleSource, node: Node) -> None:
        self._source = source
        self._node = node
        # The series that were last looked up.
        self._missing: frozenset[str] = frozenset()
        self._found: dict[str, str] = {}
        self._records_without_total = 0

    def look_up(self, faults: Mapping[str, str], selection: Selection) -> Asking[None]:
        """Ask the database if other series than before have no samples, or the total still has none."""
        missing = frozenset(name for name, fault in faults.items() if fault == NO_SAMPLE)
        totals = [
            name for name, metric in self._node.metrics.measurements.items() if name != metric.measurements[0]
        ]
        is_total_gone = any(name in faults for name in totals)
        self._records_without_total = self._records_without_total + 1 if is_total_gone else 0
        if missing == self._missing and self._records_without_total != WINDOW_RECORDS:
            return
        try:
            self._found = (yield from self._ask(sorted(missing), selection)) if missing else {}
            if is_total_gone and not (yield WrongTypesOf(self._node, frozenset(totals))):
                selection.forget_total_fault()
        except (*self._source.errors, LaterError):
            # The next poll asks again, and logs what is wrong with the server.
            return
        self._missing = missing
        self._records_without_total = 0

    def _ask(self, missing: list[str], selection: Selection) -> Asking[dict[str, str]]:
        series = monitored_series(self._node)
        types = yield WrongTypesOf(self._node, frozenset(series[name][0] for name in missing))
        there: dict[str, str] = {}
        found = {}
        for name in missing:
            measurement, part = series[name]
            if measurement in types:
                found[name] = (
                    f"{NO_SAMPLE}: {self._source.product} holds {types[measurement]} for it, which may keep"
                    " other values out; check its exporter, then DELETE them or DROP MEASUREMENT"
                )
            elif part is not None and name not in selection.ever_seen:
                tag = self._node.metrics.part_tag(measurement)
                exporter = self._node.metrics.measurements[measurement].exporter
                if measurement not in there:
                    names = yield NamesOf(self._node, measurement, tag)
                    if part in names and self._node.instance_of(exporter):
                        # The part is there, but not of this instance.
                        tag = "instance"
                        names = yield NamesOf(self._node, measurement, tag)
                    there[measurement] = f"{tag} {', '.join(map(shown, names)) or 'none'}"
                held = f"{self._source.product} has {there[measurement]}"
                found[name] = f"{NO_SAMPLE}: {held}; check --node_file"
        return found

    def explained(self, faults: Mapping[str, str]) -> dict[str, str]:
        """The faults, with the explanations that were found for them."""
        return {
            name: self._found.get(name, fault) if fault == NO_SAMPLE else fault
            for name, fault in faults.items()
        }
