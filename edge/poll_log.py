"""Publishes each poll: when it ran, and its verdicts.

`polls.jsonl` in the state folder has one JSON object a line:

    {"polled_at": "2026-03-06T12:00:20.104Z", "fault": null, "verdicts": [{"time": ..., "status": ...}]}

`fault` tells in one line why a poll could not judge: the server is away, or the node has no new samples.
Pictures of alerts are drawn from this file, also after a restart. Any other program may read it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.times import format_time, parse_time
from common.values import mapping, number, text, whole
from edge.detector import Verdict
from edge.life_before import LifeBefore
from edge.monitor import Judged
from service.json_lines import JsonLines

POLLS_NAME = "polls.jsonl"
# About a day of a poll every 15 s.
MOST_BYTES = 4_000_000
# About an hour of an alert of 150 nodes.
MOST_BYTES_OF_MANY = 40_000_000
# Decimals of published numbers.
DIGITS = 5


class Poll(NamedTuple):
    """One poll: when it ran (seconds since 1970), why it could not judge, and what it judged."""

    polled_at: float
    fault: str | None
    judged: list[Judged]


class Polled(NamedTuple):
    """What a poll judged of one node. name: of one node of many, or empty. instance: of the node exporter.
    model: identity of the bundle that judged.
    """

    name: str
    judged: list[Judged]
    instance: str | None
    model: str


class PollLog:
    """Writes what each poll found, and reads it back."""

    def __init__(
        self, folder: str | Path, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._lines = JsonLines(Path(folder) / POLLS_NAME, most_bytes)
        self._clock = clock
        # Of each node of many.
        self._lives: dict[str, LifeBefore] = {}

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._lines.path

    def publish(self, polled: Sequence[Polled], fault: str | None = None) -> None:
        """Write one poll. Raises OSError if that fails.

        Of many nodes, normal records are left out, but for those around an alert. Those before it have only
        what its picture needs.
        """
        verdicts = []
        for node in polled:
            about = {"instance": node.instance, "model": node.model}
            if node.name:
                about["node"] = node.name
            for one in node.judged:
                for verdict in self._chosen(node, one.verdict):
                    faults = one.faults if verdict is one.verdict else {}
                    verdicts.append({**_content(verdict), **about, "faults": faults})
        now = format_time(int(self._clock() * 1e9))
        self._lines.add({"polled_at": now, "fault": fault, "verdicts": verdicts})

    def _chosen(self, node: Polled, verdict: Verdict) -> list[Verdict]:
        """What is published now that this record was judged."""
        if not node.name:
            return [verdict]
        return self._lives.setdefault(node.name, LifeBefore()).observe(verdict, node.model)

    def read(self) -> Iterator[Poll]:
        """All polls, the oldest first; damaged ones are left out."""
        for content in self._lines.read():
            try:
                polled_at = parse_time(text(content["polled_at"])) / 1e9
                fault = None if content["fault"] is None else text(content["fault"])
                judged = [Judged(_verdict(one), mapping(one["faults"])) for one in content["verdicts"]]
            except (KeyError, TypeError, ValueError):
                continue
            yield Poll(polled_at, fault, judged)

    def verdicts(self, model: str | None, since: int = 0, node: str = "") -> list[Verdict]:
        """The verdicts of one model, or of any, on a node's records from `since` (ns) on, in order of time.

        A record that was judged again after a crash comes once.
        """
        return self.verdicts_of({node: (model, since)})[node]

    def verdicts_of(self, wanted: Mapping[str, tuple[str | None, int]]) -> dict[str, list[Verdict]]:
        """The same of several nodes, for which the file is read once: name -> its verdicts.

        wanted: name -> the model, and since when.
        """
        found: dict[str, dict[int, Verdict]] = {name: {} for name in wanted}
        for content in self._lines.read():
            for one in content.get("verdicts", ()):
                with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                    moment, name = whole(one["time_ns"]), one.get("node", "")
                    if name in wanted and moment not in found[name]:
                        model, since = wanted[name]
                        if model in (None, one["model"]) and moment >= since:
                            found[name][moment] = _verdict(one)
        return {name: [some[moment] for moment in sorted(some)] for name, some in found.items()}


def _content(verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is published; unknown values are null."""
    return {
        "time": format_time(verdict.time),
        "time_ns": verdict.time,
        "status": verdict.status,
        "possible_cause": verdict.possible_cause if verdict.is_anomaly else None,
        "causes": list(verdict.causes),
        "unknown": list(verdict.unknown),
        "rmse": _finite(verdict.rmse),
        "values": _finite(verdict.values),
        "shares": _finite(verdict.shares),
        "in_a_row": verdict.in_a_row,
        "recent": verdict.recent,
        "is_alert_up": verdict.is_alert_up,
        # Of an anomaly alone.
        **({"levels": _finite(verdict.levels)} if verdict.levels else {}),
        **({"behind": list(verdict.behind)} if verdict.behind else {}),
        **({"quiet": verdict.quiet} if verdict.quiet else {}),
        "actual": _numbers(verdict.actual.tolist()),
        "predicted": _numbers(verdict.predicted.tolist()),
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return dict(zip(values, _numbers(list(values.values())), strict=True))


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [round(value, DIGITS) if math.isfinite(value) else None for value in map(float, values)]


def _verdict(content: Any) -> Verdict:
    """Read a published verdict. Raises KeyError, TypeError or ValueError if it is invalid."""
    one = mapping(content)
    return Verdict(
        time=int(one["time_ns"]),
        status=text(one["status"]),
        causes=tuple(one["causes"]),
        unknown=tuple(one["unknown"]),
        rmse=_known(one["rmse"]),
        values=_known(one["values"]),
        shares=_known(one["shares"]),
        in_a_row=int(one["in_a_row"]),
        recent=int(one["recent"]),
        is_alert_up=bool(one["is_alert_up"]),
        actual=_array(one["actual"]),
        predicted=_array(one["predicted"]),
        quiet=text(one.get("quiet", "")),
        levels=_known(one.get("levels", {})),
        behind=tuple(map(text, one.get("behind", ()))),
    )


def _known(values: Any) -> dict[str, float]:
    return {name: math.nan if value is None else number(value) for name, value in mapping(values).items()}


def _array(values: Any) -> np.ndarray:
    return np.array([math.nan if value is None else number(value) for value in values])
