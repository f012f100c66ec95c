"""Publishes incidents of either half: one line of JSON when one opens, and one when it closes.

`incidents.jsonl` in the state folder is read by the page, by `--mode answer`, and by any other program:

    {"id": "20260306T120014Z", "half": "edge", "node": "", "cause": "cpu", "began": "2026-03-06T12:00:14Z",
     "opened": ..., "last": ..., "ended": null, "why": "cpu 98 % (expected 5-9) for 45 s", "metrics": {...}}
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from service.json_lines import JsonLines

INCIDENTS_NAME = "incidents.jsonl"
# Some thousand incidents.
_MOST_BYTES = 4_000_000
# What each entry has; the lines of somebody else may lack some of it.
_TEXTS = ("id", "half", "node", "cause", "began", "opened", "last", "why")


class IncidentLog:
    """Keeps the newest incidents, also over restarts: one process writes them, any may read them."""

    def __init__(self, folder: str | Path, most_bytes: int = _MOST_BYTES) -> None:
        self._lines = JsonLines(Path(folder) / INCIDENTS_NAME, most_bytes)

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._lines.path

    def add(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write incidents that open or close. Raises OSError if the file cannot be written."""
        for entry in entries:
            self._lines.add(entry)

    def read(self) -> dict[str, dict[str, Any]]:
        """Id -> the newest entry of the incident, the one that opened first at the beginning.

        What lacks something that each entry has is left out.
        Raises UserError for what is not a regular file, or cannot be read.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in self._lines.read():
            if _is_whole(entry):
                found[entry["id"]] = entry
        return found


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether an entry has all that each one has; only an incident of many has members."""
    members = entry.get("members", [])
    return (
        all(isinstance(entry.get(key), str) for key in _TEXTS)
        and isinstance(entry.get("ended", 0), str | None)
        and isinstance(entry.get("metrics"), dict)
        and isinstance(members, list)
        and all(isinstance(one, str) for one in members)
    )
