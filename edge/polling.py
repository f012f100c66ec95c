"""Polls many nodes at once."""

from __future__ import annotations

from collections.abc import Sequence

from common.files import UserError
from edge.monitor import Judged, Monitor
from edge.source import SampleSource


def poll_all(source: SampleSource, monitors: Sequence[Monitor]) -> list[list[Judged] | Exception]:
    """What each node's monitor judges, or why it cannot."""
    results: list[list[Judged] | Exception] = []
    for monitor in monitors:
        try:
            results.append(monitor.poll())
        except (*source.errors, UserError) as error:
            results.append(error)
    return results
