"""What is an anomaly: records and windows by hand, with a predictor of one line in place of the network."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import formatters
from common.files import UserError
from edge.bundle import Bundle
from edge.datasets import resample_records
from edge.detector import Detector, Verdict, detect
from edge.levels import expected_levels
from edge.scores import Scores, normalised, physical, score
from edge.sequences import normalization_stats
from edge.thresholds import (
    fill_thresholds,
    load_thresholds,
    propose_thresholds,
    read_thresholds,
    update_thresholds,
)
from nodes.metrics import METRICS, getFeatures
from simulators.edge import Attack, simulate
from tests.support.metrics import RAN_MEASUREMENTS

SECOND = 10**9
SLOT = 15 * SECOND
START = 1_772_409_600 * SECOND  # 2026-03-02T00:00:00Z, the start of a slot
# Where each metric's features stand in getFeatures().
METRIC_FEATURES = {
    "cpu": [0, 8],
    "cpu_rx": [1, 9],
    "cpu_tx": [2, 10],
    "net_down": [3],
    "net_up": [4],
    "net_5g_down": [5],
    "net_5g_up": [6],
    "mem": [7, 11],
}
NAMES = [*METRIC_FEATURES, "overall"]
KEYS = [
    "cpu_threshold",
    "cpu_rx_threshold",
    "cpu_tx_threshold",
    "net_down_threshold",
    "net_up_threshold",
    "net_5g_down_threshold",
    "net_5g_up_threshold",
    "mem_threshold",
    "overall_threshold",
]
NET_DOWN, NET_UP = 3, 4
NAN = math.nan

Predict = Callable[[np.ndarray], np.ndarray]


def last_input(inputs: np.ndarray) -> np.ndarray:
    return inputs[:, -1]


def always_half(inputs: np.ndarray) -> np.ndarray:
    return np.full((len(inputs), inputs.shape[2]), 0.5)


class Spy:
    """Predicts the last input, and keeps what it was shown."""

    def __init__(self) -> None:
        self.inputs = np.empty((0, 3, 12))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        self.inputs = inputs.copy()
        return inputs[:, -1]


def bundle(predictor: Predict, low: float = 0.0, high: float = 1.0) -> Bundle:
    """Every feature was trained on low to high, 0.5 of it in the mean."""
    stats = {
        f"{feature}_{end}": value for feature in getFeatures() for end, value in (("min", low), ("max", high))
    }
    return Bundle(METRICS, 4, stats, np.full(12, 0.5), predictor)


def thresholds(default: float = 0.1, **others: float) -> dict[str, float]:
    return {key: others.get(key.removesuffix("_threshold"), default) for key in KEYS}


def records(count: int, level: float = 0.5) -> np.ndarray:
    return np.full((count, 12), level)


def frame_of(values: np.ndarray) -> pd.DataFrame:
    """A dataset of one record a slot; the stored columns that are no features hold 1, 2, 3, 4."""
    times = pd.to_datetime(START + np.arange(len(values)) * SLOT, utc=True)
    frame = pd.DataFrame(values, columns=getFeatures(), index=times)
    stored = {"bytes_received": 1.0, "bytes_transmitted": 2.0, "dl_bytes": 3.0, "ul_bytes": 4.0}
    return frame.assign(**stored)


def judge(
    values: np.ndarray, limits: dict[str, float] | None = None, predictor: Predict = always_half
) -> list[Verdict]:
    scores = score(bundle(predictor), values)
    return detect(limits or thresholds(), frame_of(values), scores)


def anomalous(verdicts: Sequence[Verdict]) -> list[int]:
    return [i for i, verdict in enumerate(verdicts) if verdict.is_anomaly]


# --- RMSE ----------------------------------------------------------------------------------------


def twin_scores(
    values: list[list[float]], low: float, high: float, predict: Callable
) -> list[list[list[float]]]:
    """score() in loops: window and record RMSE of each record, overall last."""
    actual = [[(x - low) / (high - low) for x in row] for row in values]
    squares: list[list[float]] = []
    for i, row in enumerate(actual):
        errors = []
        for f, x in enumerate(row):
            seen = [actual[j][f] for j in (i - 3, i - 2, i - 1) if j >= 0]
            if len(seen) < 3 or all(math.isnan(s) for s in seen) or math.isnan(x):
                errors.append(NAN)
                continue
            usable = [None if math.isnan(s) or not -0.25 <= s <= 1.25 else min(max(s, 0), 1) for s in seen]
            for step in (1, 2):
                if usable[step] is None:
                    usable[step] = usable[step - 1]
            for step in (1, 0):
                if usable[step] is None:
                    usable[step] = usable[step + 1]
            errors.append((predict([0.5 if u is None else u for u in usable]) - x) ** 2)
        pooled = [[errors[f] for f in columns] for columns in METRIC_FEATURES.values()] + [errors]
        squares.append([sum(some) / len(some) for some in pooled])
    scores = []
    for i in range(len(actual)):
        windows = []
        for m in range(9):
            known = [squares[j][m] for j in range(max(0, i - 26), i + 1) if not math.isnan(squares[j][m])]
            windows.append(math.sqrt(sum(known) / len(known)) if len(known) >= 9 else NAN)
        scores.append([windows, [math.sqrt(x) for x in squares[i]]])
    return scores


def test_window_and_record_rmse_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(1)
    values = 20.0 + 10.0 * rng.uniform(-0.5, 1.5, (150, 12))
    values[rng.random(values.shape) < 0.03] = NAN
    values[60:85, 5] = NAN
    values[100:135] = NAN

    def weighted(inputs: np.ndarray) -> np.ndarray:
        return 0.2 * inputs[:, 0] + 0.3 * inputs[:, 1] + 0.5 * inputs[:, 2]

    scores = score(bundle(weighted, 20.0, 30.0), values)
    expected = np.array(
        twin_scores(values.tolist(), 20.0, 30.0, lambda x: 0.2 * x[0] + 0.3 * x[1] + 0.5 * x[2])
    )
    assert scores.window.shape == scores.record.shape == (150, 9)
    # Every metric is known in some windows and unknown in others.
    assert np.isfinite(expected[:, 0]).any(axis=0).all()
    assert np.isnan(expected[20:, 0]).any(axis=0).all()
    np.testing.assert_allclose(scores.window, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(scores.record, expected[:, 1], rtol=1e-9)


def test_a_metric_pools_its_features_and_overall_all_of_them() -> None:
    values = records(30)
    values[-1] = 0.5 + 0.1 * np.arange(12)
    record = score(bundle(always_half), values).record[-1]
    # cpu: 0.0 and 0.8, cpu_rx: 0.1 and 0.9, cpu_tx: 0.2 and 1.0, mem: 0.7 and 1.1.
    squares = [0.32, 0.41, 0.52, 0.09, 0.16, 0.25, 0.36, 0.85, 5.06 / 12]
    assert record.tolist() == pytest.approx([math.sqrt(square) for square in squares])


def test_a_window_is_27_predictions_and_needs_9_known_ones() -> None:
    values = records(40)
    values[11:] = 0.8
    window = score(bundle(always_half), values).window[:, NET_DOWN]
    # The first prediction is that of record 3.
    assert np.isnan(window[:11]).all()
    assert window[11] == pytest.approx(0.3 / math.sqrt(9))
    assert window[12] == pytest.approx(0.3 * math.sqrt(2 / 10))
    assert window[29] == pytest.approx(0.3 * math.sqrt(19 / 27))
    assert window[36] == pytest.approx(0.3 * math.sqrt(26 / 27))
    assert window[37] == pytest.approx(0.3)


def test_unknown_predictions_leave_the_mean_of_the_known_ones() -> None:
    values = records(40, 0.8)
    values[20:38, NET_DOWN] = NAN
    window = score(bundle(always_half), values).window
    # In the window of record 36 stand 10-19 and 20-36, in that of 37 one fewer of the former.
    assert window[36, NET_DOWN] == pytest.approx(0.3)
    assert window[37, NET_DOWN] == pytest.approx(0.3)
    assert np.isnan(window[38, NET_DOWN])
    assert window[38, NET_UP] == pytest.approx(0.3)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_records_have_no_window(count: int) -> None:
    scores = score(bundle(last_input), records(count))
    assert scores.window.shape == scores.record.shape == (count, 9)
    assert np.isnan(scores.window).all()
    assert np.isfinite(scores.record).all(axis=1).tolist() == [i >= 3 for i in range(count)]


# --- what the predictor is shown -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (0.0, 0.0),
        (0.3, 0.3),
        (1.0, 1.0),
        (-0.1, 0.0),
        (-0.25, 0.0),
        (1.1, 1.0),
        (1.25, 1.0),
        # Further outside than a quarter of the range: as if it were missing, so its neighbour stands in.
        (-0.26, 0.7),
        (1.26, 0.7),
        (130_000.0, 0.7),
        (NAN, 0.7),
    ],
)
def test_an_input_is_clipped_to_the_trained_range_and_a_far_one_is_left_out(
    value: float, seen: float
) -> None:
    spy = Spy()
    values = records(4, 0.7)
    values[1, NET_DOWN] = value
    score(bundle(spy), values)
    assert spy.inputs[0, :, NET_DOWN].tolist() == [0.7, seen, 0.7]
    assert (np.delete(spy.inputs, NET_DOWN, axis=2) == 0.7).all()


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        ([0.2, NAN, 0.4], [0.2, 0.2, 0.4]),
        ([0.2, NAN, NAN], [0.2, 0.2, 0.2]),
        ([0.2, 0.3, NAN], [0.2, 0.3, 0.3]),
        ([NAN, 0.3, 0.4], [0.3, 0.3, 0.4]),
        ([NAN, NAN, 0.4], [0.4, 0.4, 0.4]),
        ([NAN, 0.3, NAN], [0.3, 0.3, 0.3]),
        ([9.0, 0.3, -9.0], [0.3, 0.3, 0.3]),
        ([NAN, 9.0, 0.3], [0.3, 0.3, 0.3]),
        ([9.0, 9.0, 9.0], [0.5, 0.5, 0.5]),
        ([NAN, NAN, NAN], [0.5, 0.5, 0.5]),
    ],
)
def test_a_gap_in_the_inputs_is_bridged(inputs: list[float], seen: list[float]) -> None:
    spy = Spy()
    values = records(4, 0.7)
    values[:3, NET_DOWN] = inputs
    score(bundle(spy), values)
    assert spy.inputs[0, :, NET_DOWN].tolist() == seen


def test_the_predictor_is_shown_normalised_values() -> None:
    spy = Spy()
    score(bundle(spy, low=200.0, high=600.0), records(6, 300.0))
    assert spy.inputs.shape == (3, 3, 12)
    assert (spy.inputs == 0.25).all()


def test_the_actual_values_are_not_clipped() -> None:
    values = records(30)
    values[-1, NET_DOWN] = 80.5
    scores = score(bundle(last_input), values)
    assert scores.actual[-1, NET_DOWN] == 80.5
    assert scores.record[-1, NET_DOWN] == 80.0


# --- what is expected, and what is allowed -------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "value", "expected"),
    [
        (100.0, 500.0, 500.0, 1.0),
        (100.0, 500.0, 900.0, 2.0),
        (100.0, 500.0, 300.0, 0.5),
        (100.0, 500.0, 100.0, 0.0),
        # A hundredth of the range, 4, is as good as zero: ln(54 / 104), ln(4 / 104).
        (100.0, 500.0, 50.0, -0.655407),
        (100.0, 500.0, 0.0, -3.258097),
        # Where the range is narrow, the plain distance is the further one.
        (100.0, 101.0, 90.0, -10.0),
        # What came near zero in training, and what may be below it, has no log scale.
        (0.0, 500.0, -50.0, -0.1),
        (-100.0, 300.0, -200.0, -0.25),
        (1e-6, 500.0, 0.0, -2e-7),
        (100.0, 500.0, NAN, NAN),
    ],
)
def test_values_in_units_of_the_trained_range(low: float, high: float, value: float, expected: float) -> None:
    values = normalised(bundle(always_half, low, high), np.full((2, 12), value))
    np.testing.assert_allclose(values, np.full((2, 12), expected), atol=1e-6)


def test_normalised_values_have_an_inverse() -> None:
    trained = bundle(always_half, 10.0, 30.0)
    values = np.linspace(0.0, 100.0, 24).reshape(2, 12)
    np.testing.assert_allclose(physical(trained, normalised(trained, values)), values, atol=1e-9)


def test_every_metric_has_a_level() -> None:
    assert {name: metric.level for name, metric in METRICS.items()} == {
        "cpu": "cpu_user_percentage",
        "cpu_rx": "cpu_rx_percentage",
        "cpu_tx": "cpu_tx_percentage",
        "net_down": "bytes_received_rate",
        "net_up": "bytes_transmitted_rate",
        "net_5g_down": "dl_bytes_rate",
        "net_5g_up": "ul_bytes_rate",
        "mem": "mem_percentage",
    }


def test_the_allowed_band_by_hand() -> None:
    # Trained on 10 to 30: predicted is 20, in the second record 28.
    predicted = np.array([[0.5] * 12, [0.9] * 12])
    limits = thresholds(0.125, net_up=0.01, mem=0.05, net_5g_up=0.25, overall=9.0)
    levels = expected_levels(bundle(always_half, 10.0, 30.0), limits, predicted)
    assert list(levels) == list(METRIC_FEATURES)
    # Of one feature: 4 x threshold x 20.
    for metric, margin in (("net_down", 10.0), ("net_5g_down", 10.0), ("net_up", 0.8)):
        low, expected, high = levels[metric]
        assert expected.tolist() == pytest.approx([20.0, 28.0])
        assert low.tolist() == pytest.approx([20.0 - margin, 28.0 - margin])
        assert high.tolist() == pytest.approx([20.0 + margin, 28.0 + margin])
    # Of two features: 4 x 0.05 x sqrt(2) = 0.2828427 of the range of 20.
    low, _, high = levels["mem"]
    assert (low.tolist(), high.tolist()) == (
        pytest.approx([14.343146, 22.343146]),
        pytest.approx([25.656854, 33.656854]),
    )
    # Half a range below the trained one, on its log scale: (10 + 0.2) / e^0.5 - 0.2; linear it would be 0.
    assert levels["net_5g_up"][0].tolist() == pytest.approx([5.98661277, 10.2 * math.exp(-0.1) - 0.2])


def test_no_level_below_zero_is_expected_and_no_threshold_is_too_high() -> None:
    predicted = np.array([[0.3] * 12, [-0.1] * 12, [NAN] * 12])
    trained = bundle(always_half, 0.0, 100.0)
    low, expected, high = expected_levels(trained, thresholds(0.125), predicted)["net_up"]
    np.testing.assert_allclose(low, [0.0, 0.0, NAN])
    np.testing.assert_allclose(expected, [30.0, 0.0, NAN])
    np.testing.assert_allclose(high, [80.0, 40.0, NAN])
    for huge in (1e307, 1e308):
        for metric, (low, _, high) in expected_levels(trained, thresholds(huge), predicted).items():
            np.testing.assert_array_equal(low, [0.0, 0.0, NAN], metric)
            np.testing.assert_array_equal(high, [math.inf, math.inf, NAN], metric)


@pytest.mark.parametrize("metric", METRIC_FEATURES)
@pytest.mark.parametrize(("end", "inside"), [(0, 0.001), (2, -0.001)])
def test_the_band_ends_where_a_record_is_over_four_thresholds(metric: str, end: int, inside: float) -> None:
    trained, limits = bundle(always_half, 10.0, 30.0), thresholds(0.3, **{metric: 0.1})
    bound = expected_levels(trained, limits, np.full((1, 12), 0.5))[metric][end][0]
    values = records(5, 20.0)
    values[3:, METRIC_FEATURES[metric][-1]] = [bound + inside, bound - inside]
    record = score(trained, values).record[3:, NAMES.index(metric)]
    assert (record > 0.4).tolist() == [False, True]


# --- both conditions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "causes"),
    [
        # Errors of net_down with a threshold of 0.1: the record must be over 0.4, the window over 0.1.
        ([], 0.45, ()),  # window 0.45 / sqrt(27) = 0.087
        ([], 0.55, ("net_down",)),  # 0.106
        ([0.45], 0.45, ("net_down",)),  # 0.122
        ([0.45] * 26, 0.35, ()),  # 0.446, but the record is not
        ([0.45] * 26, 0.0, ()),
        ([0.45] * 26, 0.41, ("net_down",)),
        ([-0.45] * 26, -0.41, ("net_down",)),
        ([0.09] * 26, 0.09, ()),
    ],
)
def test_a_metric_is_a_cause_if_window_and_record_are_over(
    before: list[float], now: float, causes: tuple[str, ...]
) -> None:
    values = records(40)
    values[39 - len(before) : 39, NET_DOWN] += before
    values[39, NET_DOWN] += now
    verdict = judge(values, thresholds(net_up=9.0, overall=9.0))[-1]
    assert verdict.causes == causes
    assert verdict.status in (("normal",) if not causes else ("anomaly", "alert"))


@pytest.mark.parametrize(("count", "status"), [(27, "anomaly"), (28, "normal")])
def test_a_window_that_equals_its_threshold_is_not_over(count: int, status: str) -> None:
    # One error of 5/16 among 24 or 25 predictions; the root mean square of the latter is 1/16.
    values = records(count)
    values[-1, NET_DOWN] += 5 / 16
    assert judge(values, thresholds(net_down=1 / 16, overall=9.0))[-1].status == status


@pytest.mark.parametrize(("error", "status"), [(0.5, "normal"), (0.5078125, "anomaly")])
def test_a_record_that_equals_four_thresholds_is_not_over(error: float, status: str) -> None:
    values = records(40)
    values[30, NET_DOWN] += 10.0
    values[39, NET_DOWN] += error
    assert judge(values, thresholds(net_down=0.125, overall=9.0))[-1].status == status


def test_one_spike_flags_one_record_though_27_windows_hold_it() -> None:
    values = records(90)
    values[40, NET_DOWN] = 50.0
    scores = score(bundle(last_input), values)
    assert np.flatnonzero(scores.window[:, NET_DOWN] > 0.1).tolist() == list(range(40, 67))
    verdicts = judge(values, predictor=last_input)
    assert anomalous(verdicts) == [40]
    assert {verdict.status for verdict in verdicts[11:40] + verdicts[41:]} == {"normal"}


@pytest.mark.parametrize("level", [1.9, 21.0, -1.2])
def test_an_attack_is_flagged_in_its_middle_as_at_its_edges_and_what_follows_is_not(level: float) -> None:
    # Who predicts the last record would predict the attack if shown it.
    values = records(160, 0.3)
    values[50:120, 8] = values[50:120, 0] = level
    verdicts = judge(values, predictor=last_input)
    assert anomalous(verdicts) == list(range(50, 120))
    assert {verdict.possible_cause for verdict in verdicts[50:120]} == {"cpu"}


@pytest.mark.parametrize(
    ("low", "expected"),
    [
        (100.0, list(range(50, 120))),
        # What was next to nothing in training may be so again: only the edges show.
        (0.0, [50, 120]),
    ],
)
def test_traffic_that_stops_is_flagged_for_as_long_as_it_is_gone(low: float, expected: list[int]) -> None:
    values = records(160, 350.0)
    values[50:120, [NET_DOWN, NET_UP]] = 0.0
    scores = score(bundle(last_input, low, 500.0), values)
    verdicts = detect(thresholds(), frame_of(values), scores)
    assert anomalous(verdicts) == expected
    assert {verdicts[i].possible_cause for i in expected} == {"net_down | net_up"}


@pytest.mark.parametrize("level", [1.2, 2.0, 1e7])
def test_the_records_after_an_attack_are_predicted_without_it(level: float) -> None:
    values = records(80, 0.3)
    values[40:60, NET_DOWN] = level
    predicted = score(bundle(last_input), values).predicted[:, NET_DOWN]
    if level > 1.25:
        # Three far inputs: the mean. From the next on, the normal record stands in for the far ones.
        assert predicted[40:62].tolist() == [0.3, 0.3, 0.3] + [0.5] * 18 + [0.3]
    else:
        assert predicted[40:62].tolist() == [0.3] + [1.0] * 20 + [0.3]


# --- causes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "cause"),
    [
        ([0], "cpu"),
        ([8], "cpu"),
        ([1], "cpu_rx"),
        ([9], "cpu_rx"),
        ([2], "cpu_tx"),
        ([10], "cpu_tx"),
        ([3], "net_down"),
        ([4], "net_up"),
        ([5], "net_5g_down"),
        ([6], "net_5g_up"),
        ([7], "mem"),
        ([11], "mem"),
        ([4, 0], "cpu | net_up"),
        ([11, 6, 3, 2], "cpu_tx | net_down | net_5g_up | mem"),
        (range(12), "cpu | cpu_rx | cpu_tx | net_down | net_up | net_5g_down | net_5g_up | mem"),
    ],
)
def test_the_cause_names_the_metrics_in_order(features: Sequence[int], cause: str) -> None:
    values = records(40)
    values[39, features] = 5.0
    verdict = judge(values)[39]
    assert verdict.possible_cause == cause
    assert verdict.causes == tuple(cause.split(" | "))


def test_over_the_overall_threshold_alone_the_cause_is_unknown() -> None:
    values = records(40, 0.9)
    verdict = judge(values, thresholds(0.5, overall=0.09))[39]
    assert (verdict.status, verdict.causes, verdict.possible_cause) == ("alert", (), "unknown cause")


def test_overall_is_no_cause_beside_a_metric() -> None:
    values = records(40, 0.9)
    verdict = judge(values, thresholds(0.5, overall=0.09, mem=0.09))[39]
    assert verdict.possible_cause == "mem"


# --- alerts and unknown --------------------------------------------------------------------------

PATTERN = {"n": (0.5, 0.5), "a": (9.0, 0.5), "?": (0.5, NAN), "A": (9.0, NAN)}
SHORT = {"normal": "n", "anomaly": "a", "alert": "!", "unknown": "?"}


def statuses(pattern: str) -> str:
    """Of verdicts_of: n, a, ! (alert), ? (unknown)."""
    return "".join(SHORT[verdict.status] for verdict in verdicts_of(pattern))


def verdicts_of(pattern: str) -> list[Verdict]:
    """Those on n normal, a anomaly of net_down, ? memory missing, A both; a few records stand before them."""
    values = records(12 + len(pattern))
    values[12:, NET_DOWN] = [PATTERN[letter][0] for letter in pattern]
    values[12:, 11] = [PATTERN[letter][1] for letter in pattern]
    verdicts = judge(values, thresholds(0.01, overall=99.0))
    assert [verdict.status for verdict in verdicts[:12]] == ["unknown"] * 11 + ["normal"]
    return verdicts[12:]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("nannaan", "nannaan"),
        ("aaan", "aaan"),
        ("aaaa", "aaa!"),
        ("aaaaaaanaaaa", "aaa!!!!naaa!"),
        ("aanaaa", "aanaaa"),
        # Unknown neither counts nor breaks the row.
        ("a?a?a?a?a", "a?a?a?!?!"),
        ("aaa??a", "aaa??!"),
        ("a??n", "a??n"),
        # An anomaly is one whatever else is missing.
        ("aAAAA", "aaa!!"),
    ],
)
def test_an_alert_is_the_fourth_anomaly_in_a_row(pattern: str, expected: str) -> None:
    assert statuses(pattern) == expected


@pytest.mark.parametrize(("unknowns", "last"), [(29, "!"), (30, "a"), (31, "a")])
def test_a_window_of_unknown_records_breaks_the_row(unknowns: int, last: str) -> None:
    assert statuses("aaa" + "?" * unknowns + "A") == "aaa" + "?" * unknowns + last


@pytest.mark.parametrize(
    ("pattern", "counts"),
    [
        ("naanaaaaan", [0, 1, 2, 0, 1, 2, 3, 4, 5, 0]),
        ("?a??a?An?", [0, 1, 1, 1, 2, 2, 3, 0, 0]),
        # Of 30 unknown records the last one ends the row.
        ("aaaa" + "?" * 31 + "A", [1, 2, 3, 4] + [4] * 29 + [0, 0, 1]),
    ],
)
def test_a_verdict_says_how_many_anomalies_stand_in_a_row(pattern: str, counts: list[int]) -> None:
    assert [verdict.in_a_row for verdict in verdicts_of(pattern)] == counts


def test_what_comes_and_goes_is_an_alert_and_a_verdict_says_how_many_there_are() -> None:
    verdicts = verdicts_of("aan" * 12 + "aaaaaa")
    assert "".join(SHORT[verdict.status] for verdict in verdicts) == "aan" * 3 + "a!n" + "!!n" * 8 + "!" * 6
    assert [verdict.recent for verdict in verdicts[:12]] == [1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]
    # Those of a row that is an alert are not among them.
    assert [verdict.recent for verdict in verdicts[-6:]] == [20, 20, 21, 17, 16, 16]
    assert [verdict.flurry for verdict in verdicts[-6:]] == [20, 20, 21, 4, 5, 6]


def test_unknown_records_are_counted_anew_after_a_known_one() -> None:
    quiet = "?" * 20
    assert statuses(f"aa{quiet}A{quiet}A") == f"aa{quiet}a{quiet}!"


@pytest.mark.parametrize("metric", METRIC_FEATURES)
@pytest.mark.parametrize("position", [0, -1])
def test_a_missing_value_makes_its_metric_and_overall_unknown_and_the_record_never_normal(
    metric: str, position: int
) -> None:
    values = records(45, 0.6)
    values[40, METRIC_FEATURES[metric][position]] = NAN
    verdicts = judge(values, thresholds(0.3))
    assert [verdict.status for verdict in verdicts[39:42]] == ["normal", "unknown", "normal"]
    verdict = verdicts[40]
    assert verdict.unknown == (metric,)
    assert not verdict.is_anomaly
    assert {name for name, rmse in verdict.rmse.items() if math.isnan(rmse)} == {metric, "overall"}
    assert [rmse for rmse in verdict.rmse.values() if rmse == rmse] == pytest.approx([0.1] * 7)
    # The next record is known again: its inputs are bridged, and its window has 26 predictions.
    assert verdicts[41].unknown == ()
    assert verdicts[41].rmse == pytest.approx(dict.fromkeys(NAMES, 0.1))


def test_a_record_without_any_value_is_unknown_in_all_metrics() -> None:
    values = records(41)
    values[40] = NAN
    verdict = judge(values)[40]
    assert verdict.status == "unknown"
    assert verdict.unknown == tuple(METRIC_FEATURES)
    assert all(math.isnan(rmse) for rmse in verdict.rmse.values())


def test_too_few_records_are_unknown_not_normal() -> None:
    verdicts = judge(records(13))
    assert [verdict.status for verdict in verdicts] == ["unknown"] * 11 + ["normal"] * 2
    assert verdicts[10].unknown == tuple(METRIC_FEATURES)


def test_after_three_missed_samples_nothing_is_known_of_the_next_record() -> None:
    values = records(44)
    values[36:38, NET_DOWN] = NAN
    values[40:43, NET_UP] = NAN
    unknown = {i: verdict.unknown for i, verdict in enumerate(judge(values)) if i >= 11 and verdict.unknown}
    assert unknown == {36: ("net_down",), 37: ("net_down",)} | dict.fromkeys(range(40, 44), ("net_up",))


def test_a_missed_sample_is_bridged_by_its_neighbour() -> None:
    values = np.repeat(np.linspace(0.3, 0.7, 40)[:, None], 12, axis=1)
    values[30] = NAN
    predicted = score(bundle(last_input), values).predicted
    assert predicted[30].tolist() == values[29].tolist()
    assert predicted[31].tolist() == values[29].tolist()
    assert predicted[32].tolist() == values[31].tolist()


# --- one by one and at once ----------------------------------------------------------------------


def observe_all(detector: Detector, frame: pd.DataFrame) -> list[Verdict]:
    times = frame.index.as_unit("ns").asi8.tolist()
    return [detector.observe(time, row) for time, row in zip(times, frame.to_dict("records"), strict=True)]


def comparable(verdict: Verdict) -> tuple:
    numbers = (verdict.rmse.values(), verdict.values.values(), verdict.actual, verdict.predicted)
    rounded = [[round(float(x), 9) if x == x else None for x in some] for some in numbers]
    return (
        verdict.time,
        verdict.status,
        verdict.causes,
        verdict.unknown,
        verdict.in_a_row,
        verdict.recent,
        verdict.is_alert_up,
        *rounded,
    )


def test_records_one_by_one_get_the_verdicts_that_they_get_at_once() -> None:
    start = START / SECOND
    # Three hours: a cpu attack with a hole of one slot, all away for 5 slots and for 50, the RAN for 12.
    attack = Attack("cpu", start + 3600, start + 4500)
    samples = simulate(5, start, 3 * 3600, [attack])
    away = [(3900, 3915), (5400, 5475), (7200, 7950)]
    for measurement, points in samples.items():
        is_ran = measurement in RAN_MEASUREMENTS
        gaps = [*away, (9000, 9180)] if is_ran else away
        samples[measurement] = [
            point
            for point in points
            if not any(begin <= point["time"] / SECOND - start < end for begin, end in gaps)
        ]
    rows = list(formatters.format_records(formatters.slot_records(samples, 15.0)))
    frame = pd.DataFrame(rows)
    frame = frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame.pop("time"), utc=True), name="time"))
    stats = normalization_stats(frame[: 60 * 4 - 5], getFeatures())
    trained = Bundle(METRICS, 4, stats, np.full(12, 0.4), last_input)
    limits = thresholds(0.2)

    filled = resample_records(frame)
    at_once = detect(limits, filled, score(trained, filled[getFeatures()].to_numpy(dtype=float)))
    # Of a long gap, a window's worth is filled.
    assert (len(frame), len(at_once)) == (720 - 56, 720 - 56 + 1 + 5 + 30)
    times = set(frame.index.as_unit("ns").asi8.tolist())
    at_once = [verdict for verdict in at_once if verdict.time in times]
    one_by_one = observe_all(Detector(trained, limits), frame)
    assert {verdict.status for verdict in one_by_one} == {"normal", "anomaly", "alert", "unknown"}
    assert [comparable(v) for v in one_by_one] == [comparable(v) for v in at_once]


def feed(
    detector: Detector, slots: Sequence[int], levels: Sequence[float], slot_ns: int = SLOT
) -> list[Verdict]:
    """Records of net_down at these levels, all else at rest, each somewhere in its slot."""
    row = frame_of(records(1)).iloc[0].to_dict()
    return [
        detector.observe(START + slot * slot_ns + slot_ns // 2, row | {"bytes_received_rate": level})
        for slot, level in zip(slots, levels, strict=True)
    ]


@pytest.mark.parametrize("slot_ns", [SLOT, SECOND, SECOND // 2])
@pytest.mark.parametrize(
    ("skipped", "after"),
    [
        (0, "nnnn"),
        (1, "nnnn"),
        (2, "nnnn"),
        # With none of the last three records there, nothing is known of this one.
        (3, "?nnn"),
        (17, "?nnn"),
        # Eight predictions of before are left, and they leave the window one by one as new ones come.
        (18, "?????????n"),
        (1000, "?????????n"),
    ],
)
def test_skipped_slots_count_as_missing_records(skipped: int, after: str, slot_ns: int) -> None:
    detector = Detector(bundle(always_half), thresholds(), interval_seconds=slot_ns / SECOND)
    slots = [*range(30), *range(30 + skipped, 30 + skipped + len(after))]
    verdicts = feed(detector, slots, [0.5] * len(slots), slot_ns)
    assert "".join(SHORT[verdict.status] for verdict in verdicts) == "?" * 11 + "n" * 19 + after


@pytest.mark.parametrize(("skipped", "status"), [(17, "!"), (20, "!"), (21, "a"), (500, "a")])
def test_skipped_slots_break_a_row_as_unknown_records_do(skipped: int, status: str) -> None:
    # From 18 skipped slots on, nine more records are unknown, so 21 make the 30 that break a row.
    detector = Detector(bundle(always_half), thresholds(0.01, overall=99.0))
    blind = 1 if skipped < 18 else 9
    slots = [*range(33), *range(33 + skipped, 34 + skipped + blind)]
    verdicts = feed(detector, slots, [0.5] * 30 + [9.0] * (4 + blind))
    expected = "?" * 11 + "n" * 19 + "aaa" + "?" * blind + status
    assert "".join(SHORT[verdict.status] for verdict in verdicts) == expected
    assert verdicts[-1].in_a_row == {"!": 4, "a": 1}[status]


def test_a_verdict_keeps_the_records_own_time_and_stored_fields() -> None:
    verdict = feed(Detector(bundle(always_half), thresholds()), [7], [0.5])[0]
    assert verdict.time == START + 7 * SLOT + SLOT // 2
    assert list(verdict.values.items()) == [
        ("cpu_usage", 0.5),
        ("mem_usage", 0.5),
        ("net_down_usage", 1.0),
        ("net_up_usage", 2.0),
        ("cpu_rx_usage", 0.5),
        ("cpu_tx_usage", 0.5),
        ("net_down_5g_usage", 3.0),
        ("net_up_5g_usage", 4.0),
    ]


def test_a_verdict_keeps_what_was_measured_and_what_was_predicted() -> None:
    detector = Detector(bundle(last_input, 0.0, 10.0), thresholds())
    verdicts = feed(detector, range(5), [5.0, 6.0, 7.0, 8.0, 90.0])
    assert verdicts[4].actual[NET_DOWN] == 9.0
    assert verdicts[4].predicted[NET_DOWN] == 0.8
    assert verdicts[4].actual.shape == verdicts[4].predicted.shape == (12,)
    assert np.isnan(verdicts[2].predicted).all()
    # Not as a part of what it is compared by, nor of a whole window.
    assert verdicts[4] == dataclasses.replace(verdicts[4], actual=np.zeros(12), predicted=np.zeros(12))
    assert "predicted" not in repr(verdicts[4])
    assert [array.base for v in verdicts for array in (v.actual, v.predicted)] == [None] * 10


# --- the JSON line -------------------------------------------------------------------------------


def test_a_verdict_as_json() -> None:
    rmse = [2.93456, 0.1, 0.25, 0.0, 1.0, 0.00004, 13.0, 0.5, 1.23456]
    stored = [98.34567, 88.7, 6920.0, 14696.0, 13.74, 5.46, 0.0, 1e6]
    columns = list(feed(Detector(bundle(always_half), thresholds()), [0], [0.5])[0].values)
    verdict = Verdict(
        START + 1_500_000_000,
        "alert",
        ("cpu", "net_up"),
        (),
        dict(zip(NAMES, rmse, strict=True)),
        dict(zip(columns, stored, strict=True)),
    )
    assert verdict.to_json() == (
        '{"time": "2026-03-02T00:00:01.500Z", "possible_cause": "cpu | net_up", "severity": "alert", '
        '"rmse": {"cpu": 2.9346, "cpu_rx": 0.1, "cpu_tx": 0.25, "net_down": 0.0, "net_up": 1.0, '
        '"net_5g_down": 0.0, "net_5g_up": 13.0, "mem": 0.5, "overall": 1.2346}, '
        '"values": {"cpu_usage": 98.3457, "mem_usage": 88.7, "net_down_usage": 6920.0, '
        '"net_up_usage": 14696.0, "cpu_rx_usage": 13.74, "cpu_tx_usage": 5.46, '
        '"net_down_5g_usage": 0.0, "net_up_5g_usage": 1000000.0}}'
    )


def test_what_is_unknown_is_null_in_json() -> None:
    values = records(40)
    values[39, NET_DOWN] = 9.5
    values[39, [7, 11]] = NAN
    line = judge(values)[39].to_json()
    # 9 / sqrt(27) = 1.7321.
    assert line == (
        '{"time": "2026-03-02T00:09:45Z", "possible_cause": "net_down", "severity": "anomaly", '
        '"rmse": {"cpu": 0.0, "cpu_rx": 0.0, "cpu_tx": 0.0, "net_down": 1.7321, "net_up": 0.0, '
        '"net_5g_down": 0.0, "net_5g_up": 0.0, "mem": null, "overall": null}, '
        '"values": {"cpu_usage": 0.5, "mem_usage": null, "net_down_usage": 1.0, "net_up_usage": 2.0, '
        '"cpu_rx_usage": 0.5, "cpu_tx_usage": 0.5, "net_down_5g_usage": 3.0, "net_up_5g_usage": 4.0}}'
    )


# --- thresholds: reading -------------------------------------------------------------------------


def test_a_complete_thresholds_file_is_taken_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {key: i / 8 for i, key in enumerate(reversed(KEYS))}
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(given | {"mem_threshold": 2}))
    with caplog.at_level(logging.DEBUG):
        assert load_thresholds(path) == given | {"mem_threshold": 2}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "given", "missing"),
    [
        ("{}", {}, KEYS),
        ('{"cpu_threshold": 0, "net_5g_up_threshold": 1e3}', {"cpu": 0, "net_5g_up": 1000.0}, None),
    ],
)
def test_a_missing_threshold_is_a_tenth_and_the_log_says_so(
    text: str,
    given: dict[str, float],
    missing: list[str] | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    assert load_thresholds(path) == thresholds(0.1, **given)
    missing = missing or [key for key in KEYS if key not in ("cpu_threshold", "net_5g_up_threshold")]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{path}: has no {', '.join(missing)}; 0.1 is used")
    ]
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"cpu_treshold": 0.1}', f": unknown key 'cpu_treshold'; the keys are {', '.join(KEYS)}"),
        ('{"cpu_threshold": -0.1}', ": cpu_threshold is -0.1; it must be a number, 0 or more"),
        ('{"mem_threshold": "0.1"}', ': mem_threshold is "0.1"; it must be a number, 0 or more'),
        ('{"mem_threshold": true}', ": mem_threshold is true; it must be a number, 0 or more"),
        ('{"mem_threshold": null}', ": mem_threshold is null; it must be a number, 0 or more"),
        ('{"mem_threshold": [0.1]}', ": mem_threshold is [0.1]; it must be a number, 0 or more"),
        ('{"overall_threshold": NaN}', ": overall_threshold is NaN; it must be a number, 0 or more"),
        (
            '{"overall_threshold": Infinity}',
            ": overall_threshold is Infinity; it must be a number, 0 or more",
        ),
        ('{"overall_threshold": 1e999}', ": overall_threshold is Infinity; it must be a number, 0 or more"),
        (
            '{"cpu_threshold": 0.1,\n "mem_threshold": }',
            ", line 2: not valid JSON (Expecting value); fix that line",
        ),
        (
            '{"cpu_threshold": 0.1, "cpu_threshold": 0.2}',
            ": the key 'cpu_threshold' occurs twice; keep one of them",
        ),
        ("[0.1]", ': must hold one JSON object, like {"key": 1.0}'),
    ],
)
@pytest.mark.parametrize("read", [load_thresholds, read_thresholds])
def test_a_threshold_that_cannot_be_meant_is_refused_in_one_line(
    text: str, fault: str, read: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}{fault}')}$"):
        read(path)


def test_a_thresholds_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(UserError, match=f"^{re.escape(f'{path}: no such file; check the path')}$"):
        load_thresholds(path)


# --- thresholds: proposing -----------------------------------------------------------------------


def scores_of(window: Sequence[float]) -> Scores:
    """Scores with the same window RMSEs in all columns."""
    columns = np.repeat(np.array(window, dtype=float)[:, None], 9, axis=1)
    nothing = np.full((len(columns), 12), NAN)
    return Scores(nothing, nothing, columns, np.full(columns.shape, NAN), np.zeros(columns.shape))


def test_each_threshold_is_the_true_99th_percentile_of_the_datasets_it_may_depend_on() -> None:
    normal = scores_of([NAN] * 11 + list(range(50)))
    cpu = scores_of([*range(50, 101), NAN])
    iperf = scores_of(range(500, 1001, 10))
    proposed = propose_thresholds(cpu, iperf, normal, 99.0)
    # cpu: of 0, 1 ... 100 the value at 0.99 x 100. net: 0 ... 49, 500, 510 ... 1000 at the same place.
    # mem, overall: 152 values, place 0.99 x 151 = 149.49 between 980 and 990.
    assert list(proposed) == KEYS
    assert proposed == {
        "cpu_threshold": 99.0,
        "cpu_rx_threshold": 99.0,
        "cpu_tx_threshold": 99.0,
        "net_down_threshold": 990.0,
        "net_up_threshold": 990.0,
        "net_5g_down_threshold": 990.0,
        "net_5g_up_threshold": 990.0,
        "mem_threshold": 984.9,
        "overall_threshold": 984.9,
    }


@pytest.mark.parametrize(
    ("has_cpu", "has_iperf", "cpu", "net", "mem"),
    [
        # 0 ... 49 alone: 48.51.
        (False, False, 48.51, 48.51, 48.51),
        (True, False, 99.0, 48.51, 99.0),
        (False, True, 48.51, 990.0, 990.0),
    ],
)
def test_a_dataset_that_is_left_out_makes_no_threshold(
    has_cpu: bool, has_iperf: bool, cpu: float, net: float, mem: float
) -> None:
    attacked = scores_of(range(50, 101)), scores_of(range(500, 1001, 10))
    given = [scores if there else None for scores, there in zip(attacked, (has_cpu, has_iperf), strict=True)]
    proposed = propose_thresholds(*given, scores_of(range(50)), 99.0)
    assert proposed == dict(zip(KEYS, [cpu] * 3 + [net] * 4 + [mem] * 2, strict=True))


@pytest.mark.parametrize(
    ("percentile", "expected"), [(50.0, 50.0), (90.0, 90.0), (99.5, 99.5), (100.0, 100.0)]
)
def test_another_percentile_can_be_asked_for(percentile: float, expected: float) -> None:
    none = scores_of([])
    proposed = propose_thresholds(none, none, scores_of(range(101)), percentile)
    assert proposed == dict.fromkeys(KEYS, expected)


def test_a_proposal_has_six_decimals() -> None:
    some = scores_of([1 / 3, 1 / 3])
    assert propose_thresholds(some, some, some, 99.0) == dict.fromkeys(KEYS, 0.333333)


# --- thresholds: writing -------------------------------------------------------------------------


def proposals(value: float) -> dict[str, float]:
    return {key: round(value + i / 100, 6) for i, key in enumerate(KEYS)}


def test_an_update_writes_a_flat_file_of_the_nine_keys(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    assert update_thresholds(path, proposals(0.5)) == []
    assert path.read_text() == (
        "{\n"
        '  "cpu_threshold": 0.5,\n'
        '  "cpu_rx_threshold": 0.51,\n'
        '  "cpu_tx_threshold": 0.52,\n'
        '  "net_down_threshold": 0.53,\n'
        '  "net_up_threshold": 0.54,\n'
        '  "net_5g_down_threshold": 0.55,\n'
        '  "net_5g_up_threshold": 0.56,\n'
        '  "mem_threshold": 0.57,\n'
        '  "overall_threshold": 0.58\n'
        "}\n"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["thresholds.json", "thresholds.proposed.json"]


def edit(path: Path, **values: float | None) -> None:
    """What a person does to a flat file."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        content[f"{name}_threshold"] = value
        if value is None:
            del content[f"{name}_threshold"]
    path.write_text(json.dumps(content))


def test_a_persons_thresholds_are_kept_and_proposed_ones_are_refreshed_each_time(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    update_thresholds(path, proposals(0.5))
    edit(path, mem=0.05, cpu_rx=7)
    for value in (0.6, 0.7, 0.8):
        assert update_thresholds(path, proposals(value)) == ["cpu_rx_threshold", "mem_threshold"]
        written = json.loads(path.read_text())
        assert list(written) == KEYS
        assert written == proposals(value) | {"mem_threshold": 0.05, "cpu_rx_threshold": 7}


def test_all_thresholds_of_a_file_without_a_memory_of_proposals_are_a_persons(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text('{"overall_threshold": 0.3, "cpu_threshold": 0.2}')
    assert update_thresholds(path, proposals(0.5)) == ["cpu_threshold", "overall_threshold"]
    assert json.loads(path.read_text()) == proposals(0.5) | {"cpu_threshold": 0.2, "overall_threshold": 0.3}
    # The seven that were proposed are known from here on.
    assert update_thresholds(path, proposals(0.6)) == ["cpu_threshold", "overall_threshold"]
    assert json.loads(path.read_text()) == proposals(0.6) | {"cpu_threshold": 0.2, "overall_threshold": 0.3}


def test_a_threshold_that_a_person_removed_is_proposed_anew(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    update_thresholds(path, proposals(0.5))
    edit(path, mem=0.05)
    update_thresholds(path, proposals(0.6))
    edit(path, mem=None)
    assert update_thresholds(path, proposals(0.7)) == []
    assert json.loads(path.read_text()) == proposals(0.7)


def test_two_thresholds_files_in_a_folder_do_not_share_a_memory(tmp_path: Path) -> None:
    update_thresholds(tmp_path / "a.json", proposals(0.5))
    update_thresholds(tmp_path / "b.json", proposals(0.6))
    assert update_thresholds(tmp_path / "a.json", proposals(0.7)) == []
    assert json.loads((tmp_path / "a.json").read_text()) == proposals(0.7)


@pytest.mark.parametrize("write", [fill_thresholds, lambda path: update_thresholds(path, proposals(0.5))])
def test_a_faulty_thresholds_file_is_refused_and_left_as_it_is(write: Callable, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text('{"cpu_threshold": -1}')
    with pytest.raises(UserError):
        write(path)
    assert path.read_text() == '{"cpu_threshold": -1}'
    assert [file.name for file in tmp_path.iterdir()] == ["thresholds.json"]


def test_missing_thresholds_are_filled_with_a_tenth_and_refreshed_by_an_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text('{"mem_threshold": 0.3}')
    filled = [key for key in KEYS if key != "mem_threshold"]
    assert fill_thresholds(path) == filled
    assert json.loads(path.read_text()) == dict.fromkeys(filled, 0.1) | {"mem_threshold": 0.3}
    assert load_thresholds(path) == thresholds(0.1, mem=0.3)
    assert update_thresholds(path, proposals(0.5)) == ["mem_threshold"]
    assert json.loads(path.read_text()) == proposals(0.5) | {"mem_threshold": 0.3}


def test_filling_keeps_what_an_evaluation_proposed_refreshable(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    update_thresholds(path, proposals(0.5))
    edit(path, cpu=None, mem=0.2)
    assert fill_thresholds(path) == ["cpu_threshold"]
    assert json.loads(path.read_text()) == proposals(0.5) | {"cpu_threshold": 0.1, "mem_threshold": 0.2}
    assert update_thresholds(path, proposals(0.6)) == ["mem_threshold"]
    assert json.loads(path.read_text()) == proposals(0.6) | {"mem_threshold": 0.2}


def test_a_complete_thresholds_file_is_not_filled(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text := json.dumps(thresholds(0.25)))
    assert fill_thresholds(path) == []
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["thresholds.json"]


def test_a_file_that_does_not_exist_is_filled_whole(tmp_path: Path) -> None:
    path = tmp_path / "data" / "thresholds.json"
    assert fill_thresholds(path) == KEYS
    assert json.loads(path.read_text()) == dict.fromkeys(KEYS, 0.1)
