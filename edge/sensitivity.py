"""What a model would miss: how large a change must be to be found, for each metric in its own unit.

A curve has the error that changes of each size reach in nearly all tries (`changes.py` measures it): a
change is found with any threshold below that. So the price of a threshold is known at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.alerts import ALERT_RECORDS, WINDOW_RECORDS
from common.values import mapping, number
from nodes.metrics import DOWN, Metric, MetricTable

# A change is looked at when it is so many records old: an alert's, and a window's.
AGES = (ALERT_RECORDS, WINDOW_RECORDS)
# A metric in percent is blind if no change of so many points is found, another one if no doubling is.
BLIND_POINTS = 30.0


@dataclass(frozen=True)
class Curve:
    """The errors that changes of one metric reach.

    sizes: of the changes, growing, in the unit of its level. errors: for each of AGES, the error that one of
    the last ALERT_RECORDS records up to that age reaches in 95 % of the tries, for each size. blind_above:
    the metric is blind if no smaller change is found.
    """

    sizes: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...]
    blind_above: float

    def smallest(self, threshold: float, age: int = ALERT_RECORDS) -> float:
        """The smallest size that is found at this `age`, one of AGES; infinite if none is."""
        found = (
            size
            for size, error in zip(self.sizes, self.errors[AGES.index(age)], strict=True)
            if error > threshold
        )
        return next(found, math.inf)

    def is_blind(self, threshold: float) -> bool:
        """Whether not even a doubling, or 30 points, is found at any of AGES."""
        return self.smallest_at_any_age(threshold) > self.blind_above

    def smallest_at_any_age(self, threshold: float) -> float:
        """The smallest size that is found at one of AGES at least; infinite if none is."""
        return min(self.smallest(threshold, age) for age in AGES)

    def to_json(self) -> dict[str, Any]:
        """The content for `curves_from_json`."""
        errors = [[round(error, 5) for error in row] for row in self.errors]
        return {"sizes": list(self.sizes), "errors": errors, "blind_above": self.blind_above}


def curves_from_json(content: Any) -> dict[str, Curve]:
    """Metric -> its curve. Raises KeyError, TypeError or ValueError for anything else."""
    curves = {}
    for name, given in mapping(content).items():
        sizes = tuple(map(number, mapping(given)["sizes"]))
        errors = tuple(tuple(map(number, row)) for row in given["errors"])
        if [len(row) for row in errors] != [len(sizes)] * len(AGES):
            raise ValueError("errors of other sizes")
        curves[name] = Curve(sizes, errors, number(given["blind_above"]))
    return curves


def blind_metrics(
    curves: Mapping[str, Curve], thresholds: Mapping[str, float], metrics: MetricTable
) -> list[str]:
    """The metrics of which not even a doubling, or a change of 30 points, is found."""
    return [name for name, curve in curves.items() if curve.is_blind(thresholds[metrics[name].threshold_key])]


def describe_blind(
    curves: Mapping[str, Curve], thresholds: Mapping[str, float], metrics: MetricTable
) -> str | None:
    """One line that names the blind metrics, and what is found of them; None if there are none."""
    found = blind_words(curves, thresholds, metrics)
    return f"blind: {'; '.join(found)}; lower the threshold, or train on steadier records" if found else None


def blind_words(
    curves: Mapping[str, Curve], thresholds: Mapping[str, float], metrics: MetricTable
) -> list[str]:
    """What is missed and what is found of each blind metric, as `describe_blind` says it."""
    found = []
    for name in blind_metrics(curves, thresholds, metrics):
        curve, threshold = curves[name], thresholds[metrics[name].threshold_key]
        smallest = describe_size(curve.smallest_at_any_age(threshold), metrics[name])
        missed = describe_size(float(f"{curve.blind_above:.2g}"), metrics[name])
        found.append(f"{name} misses {missed}, and finds {smallest}")
    return found


def describe_size(size: float, metric: Metric) -> str:
    """Such as `+4 points`, or `+1500 B/s`; `nothing` for an infinite size."""
    if not math.isfinite(size):
        return "nothing"
    unit = "points" if metric.unit == "%" else metric.unit
    sign = "-" if metric.direction == DOWN else "+"
    return f"{sign}{size:g} {unit}".rstrip()
