"""The dashboards of deploy/grafana, and their queries as Grafana fills in what they leave open."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "deploy/grafana"
DASHBOARDS = FOLDER / "provisioning/dashboards/find_anomalies"


class Query(NamedTuple):
    """A query of a panel, a variable or an annotation; `name` is how the result is shown."""

    title: str
    name: str
    text: str
    is_table: bool = False


def dashboard(name: str) -> dict[str, Any]:
    return json.loads((DASHBOARDS / name).read_text())


def panels(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a dashboard, without the titles of rows."""
    return [one for one in content["panels"] if one["type"] != "row"]


def queries(name: str) -> list[Query]:
    """All queries of a dashboard: of variables, of annotations, and of panels."""
    return list(_queries(dashboard(name)))


def _queries(content: dict[str, Any]) -> Iterator[Query]:
    for one in content["templating"]["list"]:
        query = one["query"]
        yield Query("variable", one["name"], query if isinstance(query, str) else query["query"], True)
    for one in content.get("annotations", {}).get("list", ()):
        yield Query("annotation", one["name"], one["query"], True)
    for panel in panels(content):
        for one in panel["targets"]:
            is_table = one.get("resultFormat") == "table" or one.get("format") == "table"
            text = one["query"] if "query" in one else one["expr"]
            name = one.get("alias") or one.get("legendFormat") or ""
            yield Query(panel["title"], name, text, is_table)


def filled(text: str, variables: Mapping[str, str], begin: float = 0, end: float = 0) -> str:
    """The query with its variables, for a time (seconds since 1970) and steps of 15 s."""
    values = {
        "timeFilter": f"time >= {begin * 1000:.0f}ms and time <= {end * 1000:.0f}ms",
        "__interval": "15s",
        **variables,
    }
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], text)
