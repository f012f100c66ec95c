"""What a model would miss: changes put into records, the curves of what is found, and how they are told."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.changes import measure, with_change
from edge.habits import DURATIONS, HOURS, Habits
from edge.sensitivity import (
    Curve,
    blind_metrics,
    curves_from_json,
    describe_blind,
    describe_size,
)
from nodes.metrics import METRICS, MetricTable

SLOT = 15_000_000_000
FEATURES = list(METRICS.features)


def some(*names: str) -> MetricTable:
    """A node of which only these metrics are watched: each takes as long to measure as any other."""
    return MetricTable(tuple(METRICS[name] for name in names))


CPU, RECEIVED = some("cpu"), some("net_down")


def habits(limit: float, rmse: float, metrics: MetricTable) -> Habits:
    """A level may last up to `limit` above and below 0.5; there its error is `rmse`."""
    places = tuple(metrics.features.index(metric.level) for metric in metrics.values())
    shape = (len(DURATIONS), len(places))
    middle = np.full(len(places), 0.5)
    hours = np.zeros((HOURS, len(places)))
    ends = np.full(shape, 0.5 + limit), middle, np.full(shape, 0.5 - limit), middle
    return Habits("UTC", places, hours, hours + 1, *ends, False, np.full(len(places), rmse))


def bundle(limit: float, rmse: float, metrics: MetricTable = METRICS) -> Bundle:
    """Every feature was trained on 0 to 1, and is predicted to be 0.5."""
    count = len(metrics.features)
    ends = (("min", 0.0), ("max", 1.0))
    stats = {f"{feature}_{end}": value for feature in metrics.features for end, value in ends}

    def half(inputs: np.ndarray) -> np.ndarray:
        return np.full((len(inputs), count), 0.5)

    return Bundle(metrics, 4, stats, np.full(count, 0.5), half, habits=habits(limit, rmse, metrics))


def normal(count: int, metrics: MetricTable = METRICS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, times, and that all records are held out."""
    shape = (count, len(metrics.features))
    return np.full(shape, 0.5), np.arange(count) * SLOT, np.ones(count, dtype=bool)


# --- a change ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "level", "rate"),
    [
        ("cpu", 5.0, ("cpu_user_percentage", 5.0), ("cpu_user_rate", 5.0)),
        # Percent of the bytes that were used before: 1 of 80 is 1.25 %.
        ("mem", 1.0, ("mem_percentage", 1.0), ("mem_rate", 1.25)),
        ("net_down", 700.0, ("bytes_received_rate", 700.0), None),
    ],
)
def test_a_change_moves_the_level_for_good_and_its_rate_once(
    name: str, size: float, level: tuple[str, float], rate: tuple[str, float] | None
) -> None:
    values = np.full((6, 12), 80.0)
    changed = with_change(METRICS, METRICS[name], values, 4, size) - values
    expected = np.zeros((6, 12))
    expected[4:, FEATURES.index(level[0])] = level[1]
    if rate:
        expected[4, FEATURES.index(rate[0])] = rate[1]
    assert changed == pytest.approx(expected)
    assert (values == 80.0).all()


# --- measuring -----------------------------------------------------------------------------------


def test_a_curve_has_the_errors_that_changes_reach() -> None:
    # Nothing lasts too long, so only the network counts. A change of s has an error of s in each record; the
    # window has 27 of them, and the record's own error counts a quarter.
    curves = measure(bundle(limit=0.2, rmse=0.03), *normal(200))
    assert list(curves) == list(METRICS)
    curve = curves["net_down"]
    assert curve.sizes[:9] == (0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    for size, in_4, in_30 in zip(curve.sizes, *curve.errors, strict=True):
        assert in_4 == pytest.approx(min(math.sqrt(4 / 27), 1 / 4) * size)
        assert in_30 == pytest.approx(size / 4)
        if size == 0.5:
            break
    # What is larger than the busiest level, and far above any threshold, is not tried.
    assert curve.sizes[-1] == 1.0
    # The busiest level of the CPU is 30 points, although 1.0 is found with any threshold.
    assert curves["cpu"].sizes[-1] == 30.0


def test_a_change_that_is_found_only_when_it_begins_is_not_still_found() -> None:
    # The CPU's rate is predicted well, and its level not at all: only the first record of a change shows.
    model = bundle(limit=1e9, rmse=0.0, metrics=CPU)
    place = CPU.features.index("cpu_user_percentage")

    def follows(inputs: np.ndarray) -> np.ndarray:
        predicted = np.full((len(inputs), 2), 0.5)
        predicted[:, place] = inputs[:, -1, place]
        return predicted

    curve = measure(dataclasses.replace(model, predictor=follows), *normal(200, CPU))["cpu"]
    size = curve.sizes.index(0.2)
    # Of two features, each has an error of 0.2 in the first record; inputs are known up to 1.25.
    assert curve.errors[0][size] == pytest.approx(min(0.2 / 4, 0.2 * math.sqrt(1 / 27)), rel=0.01)
    assert curve.errors[1][size] == pytest.approx(0.0, abs=1e-9)


def test_a_level_that_lasts_counts_from_its_third_record() -> None:
    # The limit is 0.1 away; a change of s that lasts has an error of 10 s.
    curve = measure(bundle(limit=0.1, rmse=1.0, metrics=RECEIVED), *normal(200, RECEIVED))["net_down"]
    assert curve.errors[0] == pytest.approx([10 * size for size in curve.sizes])


def test_a_metric_in_percent_is_blind_above_30_points_and_others_above_their_busiest_level() -> None:
    metrics = some("cpu", "net_down", "net_up")
    values, times, held_out = normal(400, metrics)
    received, sent = (metrics.features.index(f"bytes_{kind}_rate") for kind in ("received", "transmitted"))
    # Busy before, and what is held out is idle; or busy in one record only.
    held_out[:200] = False
    values[:, [received, sent]] = 0.0
    values[:200, received] = 0.7123
    values[7, sent] = 0.6
    curves = measure(bundle(limit=0.1, rmse=1.0, metrics=metrics), values, times, held_out)
    assert curves["cpu"].blind_above == 30.0
    assert curves["net_down"].blind_above == 0.712
    assert 0.712 in curves["net_down"].sizes
    assert curves["net_up"].blind_above == 0.6


def test_changes_are_put_into_records_that_are_held_out_if_enough_of_them_are_in_a_row() -> None:
    values, times, _ = normal(400, RECEIVED)
    values[:200] = 0.45
    model = bundle(limit=0.1, rmse=1.0, metrics=RECEIVED)

    def found(held_out: np.ndarray) -> float:
        curve = measure(model, values, times, held_out)["net_down"]
        return dict(zip(curve.sizes, curve.errors[0], strict=True))[0.1]

    # 0.5 + 0.1 is at the limit, 0.45 + 0.1 half as far. Two held-out stretches are as good as one.
    places = np.arange(400)
    assert found(places >= 200) == pytest.approx(1.0)
    assert found((places >= 200) & (places != 300)) == pytest.approx(1.0)
    assert found(places < 200) == pytest.approx(0.5)
    # No 89 of them in a row.
    assert found(places // 88 % 2 == 0) == pytest.approx(0.5)
    assert found(places < 0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values, times: (values[:88], times[:88]),
        lambda values, times: (values[:0], times[:0]),
        # No 89 records in a row are whole, or evenly apart.
        lambda values, times: (np.where(np.arange(len(values))[:, None] % 88 == 87, np.nan, values), times),
        lambda values, times: (values, times + SLOT * (np.arange(len(times)) // 88)),
    ],
)
def test_nothing_is_measured_without_enough_records_in_a_row(spoil: Callable) -> None:
    values, times, held_out = normal(200, RECEIVED)
    values, times = spoil(values, times)
    assert measure(bundle(limit=0.1, rmse=1.0, metrics=RECEIVED), values, times, held_out[: len(times)]) == {}
    assert measure(bundle(limit=0.1, rmse=1.0, metrics=RECEIVED), *normal(89, RECEIVED)) != {}


@pytest.mark.parametrize(("low_tries", "error"), [(1, 1.0), (3, 0.5)])
def test_what_is_found_in_fewer_than_95_percent_of_the_tries_is_not_found(
    low_tries: int, error: float
) -> None:
    # There are exactly 40 places for the 40 tries. In the last ones the level is lower: 0.45 + 0.1 is 0.05
    # above the middle, half as far as the limit.
    values, times, held_out = normal(40 * 90, RECEIVED)
    values[89::90] = math.nan
    values[(40 - low_tries) * 90 :] -= 0.05
    curve = measure(bundle(limit=0.1, rmse=1.0, metrics=RECEIVED), values, times, held_out)["net_down"]
    assert dict(zip(curve.sizes, curve.errors[0], strict=True))[0.1] == pytest.approx(error)


# --- what a curve says ---------------------------------------------------------------------------

CURVE = Curve((1.0, 2.0, 4.0), ((0.05, 0.1, 0.3), (0.1, 0.2, 0.4)), 3.0)


@pytest.mark.parametrize(
    ("threshold", "in_4", "in_30", "is_blind"),
    [
        (0.04, 1.0, 1.0, False),
        (0.05, 2.0, 1.0, False),
        (0.19, 4.0, 2.0, False),
        # An error must be above the threshold.
        (0.2, 4.0, 4.0, True),
        (0.4, math.inf, math.inf, True),
    ],
)
def test_a_threshold_has_its_price(threshold: float, in_4: float, in_30: float, is_blind: bool) -> None:
    assert (CURVE.smallest(threshold), CURVE.smallest(threshold, 30)) == (in_4, in_30)
    assert CURVE.is_blind(threshold) is is_blind


def test_blind_metrics_are_named_in_one_line_with_what_is_found() -> None:
    curves = {"cpu": CURVE, "net_up": CURVE, "mem": CURVE}
    limits = {"cpu_threshold": 0.05, "net_up_threshold": 0.3, "mem_threshold": 9.0}
    assert blind_metrics(curves, limits, METRICS) == ["net_up", "mem"]
    assert describe_blind(curves, limits, METRICS) == (
        "blind: net_up misses +3 B/s, and finds +4 B/s; mem misses +3 points, and finds nothing; lower the"
        " threshold, or train on steadier records"
    )
    assert describe_blind({"cpu": CURVE}, limits, METRICS) is None


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [("cpu", 4.0, "+4 points"), ("net_up", 15000.0, "+15000 B/s"), ("mem", math.inf, "nothing")],
)
def test_a_size_in_words(name: str, size: float, words: str) -> None:
    assert describe_size(size, METRICS[name]) == words


def test_curves_are_read_back_from_json() -> None:
    content = json.loads(json.dumps({"cpu": CURVE.to_json()}))
    assert curves_from_json(content) == {"cpu": CURVE}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"cpu": 1},
        {"cpu": {"sizes": [1.0], "errors": [[0.1]], "blind_above": 3.0}},
        {"cpu": {"sizes": [1.0], "errors": [[0.1], [0.1, 0.2]], "blind_above": 3.0}},
        {"cpu": {"sizes": ["1"], "errors": [[0.1], [0.1]], "blind_above": 3.0}},
        {"cpu": {"sizes": [1.0], "errors": [[0.1], [0.1]]}},
    ],
)
def test_other_json_is_refused(content: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        curves_from_json(content)
