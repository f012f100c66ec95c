"""Baselines: what each predicts, and that they are judged as the network is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from benchmarks.baselines import (
    PREDICTORS,
    Judge,
    fit_forest,
    fit_mean,
    fit_pca,
    fit_previous,
    make_judges,
    smallest_changes,
)
from edge.bundle import Bundle, load_bundle
from edge.datasets import load_records
from edge.detector import detect
from edge.evaluation import learnt_thresholds
from edge.paths import DEFAULT_MODEL, trainset
from edge.scores import score_dataset


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped model."""
    return load_bundle(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The first half day of the shipped training set."""
    return load_records(trainset)[:2880]


@pytest.fixture(scope="module")
def judges(bundle: Bundle, frame: pd.DataFrame) -> dict[tuple[str, bool], Judge]:
    """Those of the shipped model; no test changes them."""
    return make_judges(bundle, frame)


@pytest.fixture
def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Inputs (200, 3, 12) and targets (200, 12) in which every value follows from one number a sequence."""
    rng = np.random.default_rng(5)
    shape = rng.random((4, 12))
    whole = 0.2 + rng.random((200, 1, 1)) * shape
    return whole[:, :3], whole[:, 3]


def test_the_previous_record_and_the_mean_do_not_look_at_the_record(
    bundle: Bundle, sequences: tuple[np.ndarray, np.ndarray]
) -> None:
    inputs, targets = sequences
    nothing = np.full_like(targets, np.nan)
    assert (fit_previous(bundle, inputs, targets)(inputs, nothing) == inputs[:, 2]).all()
    assert (fit_mean(bundle, inputs, targets)(inputs, nothing) == bundle.means).all()


def test_pca_reconstructs_what_is_like_the_training_set_and_nothing_else(
    bundle: Bundle, sequences: tuple[np.ndarray, np.ndarray]
) -> None:
    inputs, targets = sequences
    predict = fit_pca(bundle, inputs, targets)
    assert predict(inputs, targets) == pytest.approx(targets)
    attacked = targets.copy()
    attacked[:, 7] += 10.0
    # One component cannot hold a change of one value.
    assert (np.abs(predict(inputs, attacked) - attacked)[:, 7] > 5.0).all()
    missing = targets.copy()
    missing[:, 7] = np.nan
    assert np.isfinite(predict(inputs, missing)).all()


def test_a_forest_makes_an_error_of_what_is_easy_to_isolate_in_its_own_metric_alone(
    bundle: Bundle, sequences: tuple[np.ndarray, np.ndarray]
) -> None:
    inputs, targets = sequences
    predict = fit_forest(bundle, inputs, targets)
    usual = np.median(targets, axis=0)[None]
    attacked = usual.copy()
    cpu = bundle.metrics.feature_places["cpu"]
    attacked[:, cpu] += 10.0
    error = attacked - predict(inputs[:1], attacked)
    others = [place for place in range(12) if place not in cpu]
    assert (error[:, cpu] > 4 * np.abs(usual - predict(inputs[:1], usual))[:, cpu]).all()
    assert error[:, others] == pytest.approx((usual - predict(inputs[:1], usual))[:, others])


def test_the_network_among_the_baselines_is_the_detector_itself(
    bundle: Bundle, frame: pd.DataFrame, judges: dict[tuple[str, bool], Judge]
) -> None:
    judge = judges["network", True]
    thresholds = learnt_thresholds(bundle, frame)
    assert judge.thresholds == thresholds
    expected = detect(thresholds, frame, score_dataset(judge.bundle, frame))
    assert [one.to_json() for one in judge.judge(frame)] == [one.to_json() for one in expected]
    assert any(verdict.is_anomaly for verdict in expected)


def test_each_predictor_has_thresholds_of_its_own_with_and_without_habits(
    frame: pd.DataFrame, judges: dict[tuple[str, bool], Judge]
) -> None:
    assert list(judges) == [(name, has_habits) for name in PREDICTORS for has_habits in (False, True)]
    for (name, has_habits), judge in judges.items():
        assert (judge.bundle.habits is not None) == has_habits, name
        share = np.mean([verdict.is_anomaly for verdict in judge.judge(frame)])
        assert share < 0.02, name
    own = {name: judges[name, False].thresholds["cpu_threshold"] for name in PREDICTORS}
    assert len(set(own.values())) == len(PREDICTORS)


def test_a_model_of_an_older_version_has_no_habits(bundle: Bundle, frame: pd.DataFrame) -> None:
    judges = make_judges(dataclasses.replace(bundle, habits=None), frame)
    assert list(judges) == [(name, False) for name in PREDICTORS]


def test_habits_find_smaller_changes_than_a_predictor_without(
    bundle: Bundle, frame: pd.DataFrame, judges: dict[tuple[str, bool], Judge]
) -> None:
    found = {
        key: smallest_changes(judge, frame) for key, judge in judges.items() if key[0] == "previous record"
    }
    assert list(found["previous record", True]) == list(bundle.metrics)
    # A CPU level that alternates hides a change from the previous record, but not from habits.
    assert found["previous record", True]["cpu"] < found["previous record", False]["cpu"]
