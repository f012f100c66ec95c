"""Why there is an incident, in one line: what a person needs first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.times import format_duration, format_time
from common.values import mapping, number, whole
from edge.bundle import Bundle
from edge.detector import UNKNOWN_CAUSE, Verdict
from edge.levels import Level, describe_band, describe_level, lasting_levels, levels_of
from nodes.metrics import Metric, MetricTable


@dataclass(frozen=True)
class Deviation:
    """One metric of an incident, over the anomalies that it makes.

    first: time of the first of them (ns). lowest, highest: its levels. share: the largest error, in multiples
    of what makes an anomaly. actual, low, high: its level there, and what was allowed. lasted_low,
    lasted_high: what may last for a whole window then.
    """

    first: int
    lowest: float
    highest: float
    share: float
    actual: float
    low: float
    high: float
    lasted_low: float
    lasted_high: float

    @classmethod
    def seen(cls, time: int, share: float, level: Level, lasting: tuple[float, float]) -> Deviation:
        """That of one anomaly."""
        return cls(time, level.actual, level.actual, share, level.actual, level.low, level.high, *lasting)

    def and_then(self, later: Deviation) -> Deviation:
        """This one with that of a later anomaly."""
        larger = later if later.share > self.share else self
        return replace(
            larger,
            first=self.first,
            lowest=min(self.lowest, later.lowest),
            highest=max(self.highest, later.highest),
        )

    @classmethod
    def restored(cls, state: Any) -> Deviation:
        """The inverse of `dataclasses.asdict`. Raises KeyError, TypeError or ValueError if it is invalid."""
        numbers = {key: number(mapping(state)[key]) for key in cls.__dataclass_fields__ if key != "first"}
        return cls(whole(state["first"]), **numbers)

    def entry(self, metric: Metric) -> dict[str, Any]:
        """As other programs read it."""
        low, high = self._expected
        return {
            "unit": metric.unit,
            "first": format_time(self.first),
            "lowest": _rounded(self.lowest),
            "highest": _rounded(self.highest),
            "expected": [_rounded(low), _rounded(high)],
            "share": round(self.share, 2),
        }

    @property
    def _expected(self) -> tuple[float, float]:
        """What was expected there: of a level that is wrong only since it lasts, what may last."""
        has_lasted = not self.lasted_low <= self.actual <= self.lasted_high
        return (
            (self.lasted_low, self.lasted_high) if self._is_allowed and has_lasted else (self.low, self.high)
        )

    @property
    def _is_allowed(self) -> bool:
        return self.low <= self.actual <= self.high

    def describe(self, metric: Metric) -> str:
        """Such as `cpu 98 % (expected 5-9)`."""
        low, high = self._expected
        words = f"expected {describe_band(metric, self.actual, low, high)}"
        if self._is_allowed:
            is_inside = low <= self.actual <= high
            words = f"{words}, but it changes too fast" if is_inside else f"for so long, {words}"
        return f"{metric.name} {describe_level(metric, self.actual)} ({words})"


def deviations(bundle: Bundle, thresholds: Mapping[str, float], anomaly: Verdict) -> dict[str, Deviation]:
    """Metric -> what an anomaly shows of it: of its causes, or else of the metrics behind `overall`."""
    levels = levels_of(bundle, thresholds, anomaly)
    lasting = lasting_levels(bundle, thresholds, anomaly.time)
    nearest = max(bundle.metrics, key=lambda name: _known(anomaly.shares[name]))
    return {
        name: Deviation.seen(
            anomaly.time,
            anomaly.shares[name],
            levels[name],
            lasting.get(name, (levels[name].low, levels[name].high)),
        )
        for name in anomaly.causes or anomaly.behind or (nearest,)
    }


def _known(share: float) -> float:
    return share if math.isfinite(share) else 0.0


def describe(
    found: Mapping[str, Deviation], metrics: MetricTable, causes: tuple[str, ...], node: str, until: int
) -> str:
    """What came first and how far it was from what was expected, where, for how long, and what came with it.

    found: metric -> its deviation. causes: empty if no metric alone is the cause. until: the newest anomaly.
    """
    named = {name: found[name] for name in causes or found if name in found}
    if not named:
        return f"{' | '.join(causes) or UNKNOWN_CAUSE}{f' on {node}' if node else ''}"
    begun = min(one.first for one in named.values())
    main = max((name for name in named if named[name].first == begun), key=lambda name: named[name].share)
    lasted = format_duration((until - begun) / 1e9)
    text = f"{named[main].describe(metrics[main])}{f' on {node}' if node else ''} for {lasted}"
    if not causes:
        return f"all metrics together, most of all {text}"
    others = sorted((name for name in named if name != main), key=lambda name: named[name].first)
    at_once = [name for name in others if named[name].first == begun]
    *most, last = at_once or [""]
    parts = [f"{', '.join(most)} and {last}".removeprefix(" and ") + " came with it"] if at_once else []
    parts += [
        f"{name} followed after {format_duration((named[name].first - begun) / 1e9)}"
        for name in others
        if name not in at_once
    ]
    return "; ".join([text, ", ".join(parts)]) if parts else text


def state_of(found: Mapping[str, Deviation]) -> dict[str, Any]:
    """The deviations of metrics, as JSON."""
    return {name: asdict(one) for name, one in found.items()}


def restored(state: Any, metrics: MetricTable) -> dict[str, Deviation]:
    """The inverse of `state_of`. Raises KeyError, TypeError or ValueError if it is invalid."""
    found = {name: Deviation.restored(one) for name, one in mapping(state).items()}
    return {name: found[name] for name in metrics if name in found}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
