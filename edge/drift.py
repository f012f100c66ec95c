"""What has changed for good: a changed normal, which is drift, and a model that is another node's."""

from __future__ import annotations

from typing import Any

from common.alerts import UNKNOWN, WINDOW_RECORDS
from common.values import mapping, text, whole
from edge.detector import Verdict
from nodes.metrics import METRICS, MetricTable

# A model is not doubted before it has judged this many records; this share of them must be anomalies.
FIRST_RECORDS = 10
NEARLY_ALL = 0.9


class FirstRecords:
    """Whether the first records that a model judges show that it was trained on another node.

    They do if nearly all of them are anomalies of the memory: hosts differ in how much of it they use, while
    most attacks leave it alone. FIRST_RECORDS are enough if another metric is wrong as well. If the memory
    alone is wrong, it may be under attack: that takes a whole window of records.
    """

    def __init__(self, metrics: MetricTable = METRICS) -> None:
        self._metrics = metrics
        self._model: str | None = None
        self._records = 0
        self._blamed: dict[str, int] = {}

    def observe(self, verdict: Verdict, model: str) -> list[str]:
        """The metrics that show it, once for each model, by its identity; else none."""
        if model != self._model:
            self._model, self._records, self._blamed = model, 0, {}
        if verdict.status == UNKNOWN or verdict.quiet or self._records >= WINDOW_RECORDS:
            return []
        self._records += 1
        for name in verdict.causes:
            self._blamed[name] = self._blamed.get(name, 0) + 1
        if self._records < FIRST_RECORDS:
            return []
        strange = [name for name in self._metrics if self._blamed.get(name, 0) >= NEARLY_ALL * self._records]
        steady = [name for name in strange if self._metrics[name].is_steady]
        if not steady or (steady == strange and self._records < WINDOW_RECORDS):
            return []
        self._records = WINDOW_RECORDS
        return strange

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON."""
        return {"model": self._model, "records": self._records, "blamed": self._blamed}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        model = None if state["model"] is None else text(state["model"])
        records = whole(state["records"])
        blamed = {text(name): whole(count) for name, count in mapping(state["blamed"]).items()}
        self._model, self._records, self._blamed = model, records, blamed


class Drift:
    """Which metrics were over their threshold for most of the last `records` records.

    That is a changed normal rather than an attack. Drift ends once a metric was over in less than a quarter.
    """

    def __init__(self, records: int, metrics: MetricTable = METRICS) -> None:
        self._records = records
        self._metrics = metrics
        # A bit for each record, the newest last.
        self._over = dict.fromkeys(metrics.threshold_keys, 0)
        self.drifting: list[str] = []

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> tuple[list[str], list[str]]:
        """The metrics whose drift begins with this verdict, and those whose drift ends."""
        begun, ended = [], []
        for name, key in self._metrics.threshold_keys.items():
            # An unknown record has an RMSE of NaN, over no threshold; a quiet one is known to be normal.
            is_over = bool(verdict.rmse[name] > thresholds[key]) and not verdict.quiet
            self._over[name] = self._newest(self._over[name] << 1 | is_over)
            count = self._over[name].bit_count()
            if name not in self.drifting and 2 * count > self._records:
                begun.append(name)
            elif name in self.drifting and 4 * count < self._records:
                ended.append(name)
        self.drifting = [
            name for name in self._over if (name in self.drifting or name in begun) and name not in ended
        ]
        return begun, ended

    def _newest(self, over: int) -> int:
        return over & ((1 << self._records) - 1)

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes, as JSON: a hexadecimal digit stands for four records."""
        return {"drifting": self.drifting, "over": {name: f"{over:x}" for name, over in self._over.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where another process stopped; only the newest part of a longer history counts.

        Raises KeyError, TypeError or ValueError if the state is invalid, and then changes nothing.
        """
        over = {name: self._newest(int(text(bits), 16)) for name, bits in mapping(state["over"]).items()}
        drifting = [text(name) for name in state["drifting"]]
        if not {*over, *drifting} <= self._over.keys():
            raise ValueError("not the name of a metric")
        self._over |= over
        self.drifting = drifting
