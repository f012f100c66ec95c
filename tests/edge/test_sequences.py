"""Normalisation, sequences and their errors, against values made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.files import loadDictJson
from edge.sequences import (
    metric_square_errors,
    normalize,
    normalizeFeature,
    printPredictionErrors,
    saveNormalizationStats,
    split_sequences,
)

NAN = math.nan


# --- normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.0, 6.0, [0.0, 0.5, 1.0, 1.5, -0.5, NAN]),
        # A constant column has no width: its distance from the constant is kept, nothing is divided by 0.
        (2.0, 2.0, [0.0, 2.0, 4.0, 6.0, -2.0, NAN]),
    ],
)
def test_min_max_normalisation(low: float, high: float, expected: list[float]) -> None:
    frame = pd.DataFrame({"mem_rate": [2.0, 4.0, 6.0, 8.0, 0.0, NAN], "other": 1.0})
    normalised = normalizeFeature(frame, "mem_rate", low, high)
    assert isinstance(normalised, pd.Series)
    assert normalised.tolist() == pytest.approx(expected, nan_ok=True)
    assert frame["mem_rate"].tolist()[:2] == [2.0, 4.0]


def test_normalise_treats_each_feature_by_its_own_range() -> None:
    stats = {"a_min": 0.0, "a_max": 10.0, "b_min": -1.0, "b_max": 1.0, "c_min": 3.0, "c_max": 3.0}
    values = np.array([[5.0, 1.0, 3.0], [20.0, NAN, 2.5]])
    # (5 - 0) / 10, (1 + 1) / 2, (3 - 3) / 1; (20 - 0) / 10, unknown, (2.5 - 3) / 1
    expected = [[0.5, 1.0, 0.0], [2.0, NAN, -0.5]]
    assert normalize(values, stats, ["a", "b", "c"]) == pytest.approx(np.array(expected), nan_ok=True)
    swapped = normalize(values[:1, ::-1], stats, ["c", "b", "a"])
    assert swapped.tolist() == [[0.0, 1.0, 0.5]]


def test_statistics_are_returned_and_written_where_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"mem_rate": [1.0, NAN, 3.0, -1.5, 0.0], "dl_bytes": 7.0, "ul_bytes": 0.0})
    expected = {"mem_rate_min": -1.5, "mem_rate_max": 3.0, "dl_bytes_min": 7.0, "dl_bytes_max": 7.0}
    assert saveNormalizationStats(frame, ["mem_rate", "dl_bytes"]) == expected
    assert loadDictJson("data/normalization_stats.json") == expected
    saveNormalizationStats(frame, ["ul_bytes"], tmp_path / "other.json")
    assert loadDictJson(tmp_path / "other.json") == {"ul_bytes_min": 0.0, "ul_bytes_max": 0.0}
    assert loadDictJson("data/normalization_stats.json") == expected


# --- sequences and errors ------------------------------------------------------------------------


def test_three_records_predict_the_fourth() -> None:
    records = np.array([[0, 10], [1, 11], [2, 12], [3, 13], [4, 14]])
    inputs, targets = split_sequences(records, 4)
    assert inputs.tolist() == [[[0, 10], [1, 11], [2, 12]], [[1, 11], [2, 12], [3, 13]]]
    assert targets.tolist() == [[3, 13], [4, 14]]


@pytest.mark.parametrize(("records", "sequences"), [(0, 0), (1, 0), (3, 0), (4, 1), (5, 2), (30, 27)])
def test_number_of_sequences(records: int, sequences: int) -> None:
    inputs, targets = split_sequences(np.zeros((records, 2)), 4)
    assert inputs.shape == (sequences, 3, 2)
    assert targets.shape == (sequences, 2)


# Errors 1 to 12 of the twelve features, in their order; a perfect prediction in the second row.
ACTUAL = np.array([[0.0] * 12, [5.0] * 12])
PREDICTED = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [5.0] * 12])
SQUARES = {
    "cpu": (1 + 81) / 2,  # cpu_user_rate 1, cpu_user_percentage 9
    "cpu_rx": (4 + 100) / 2,  # 2 and 10
    "cpu_tx": (9 + 121) / 2,  # 3 and 11
    "net_down": 16,
    "net_up": 25,
    "net_5g_down": 36,
    "net_5g_up": 49,
    "mem": (64 + 144) / 2,  # mem_rate 8, mem_percentage 12
    "overall": 650 / 12,  # 1 + 4 + ... + 144 = 650
}


@pytest.mark.parametrize("sign", [1, -1])
def test_squared_errors_are_pooled_per_metric(sign: int) -> None:
    squares = metric_square_errors(sign * ACTUAL, sign * PREDICTED)
    assert squares.tolist() == [pytest.approx(list(SQUARES.values())), [0.0] * 9]


def test_missing_value_makes_its_metric_and_the_overall_error_unknown() -> None:
    actual = ACTUAL.copy()
    actual[0, 9] = NAN  # cpu_rx_percentage
    squares = metric_square_errors(actual, PREDICTED)
    expected = list((SQUARES | {"cpu_rx": NAN, "overall": NAN}).values())
    assert squares[0].tolist() == pytest.approx(expected, nan_ok=True)
    assert squares[1].tolist() == [0.0] * 9


def test_rmse_of_each_metric_and_overall(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge.sequences")
    errors = printPredictionErrors(ACTUAL, PREDICTED)
    # Two sequences, the second without an error: half of the squares above.
    assert errors == pytest.approx({name: math.sqrt(square / 2) for name, square in SQUARES.items()})
    assert list(errors) == list(SQUARES)
    # sqrt(82 / 4) = 4.5277, sqrt(650 / 24) = 5.2042
    assert "cpu 4.5277" in caplog.text
    assert "overall 5.2042" in caplog.text


def test_rmse_over_a_missing_value_is_unknown() -> None:
    predicted = PREDICTED.copy()
    predicted[1, 3] = NAN  # bytes_received_rate
    errors = printPredictionErrors(ACTUAL, predicted)
    assert [name for name, error in errors.items() if math.isnan(error)] == ["net_down", "overall"]
    assert errors["net_up"] == pytest.approx(math.sqrt(25 / 2))
