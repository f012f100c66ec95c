"""What a model would miss: sizes worked out by hand, and found again with changes put into real samples."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import find_anomalies
from common.alerts import ALERT_RECORDS
from parallel.cluster import Cluster
from ports import models
from ports.detectors import Model, ScoreCurve
from ports.judging import JudgingSettings, Report
from ports.levels import Memory
from ports.notices import PortNotices
from ports.preparation import Buckets, Scaler
from ports.sensitivity import Sensitivity, describe_blind, sensitivity, size_text
from ports.series import Series
from ports.state import JobState
from ports.training import TrainingSettings, fit_series
from ports.verdicts import judge
from simulators.ports import TIMEZONE, simulate_port
from tests.support.port_series import DAY, moment, samples, write

NAN = np.nan
# 999 bytes lie at log 1000.
SCALER = Scaler("log", 1.0, 1.0)
USUAL = np.full(672, np.log(1000.0))
# Known at the ages 1, 2, 4, 8 and 16: the fourth value of a row is judged by limits half as wide again.
MEMORY = Memory(np.zeros(5), np.array([1.0, 1.2, 1.5, 3.0, 4.0]))
MODEL = Model(SCALER, USUAL, np.full(24, 0.4), np.ones(2), MEMORY)
STEADY = replace(MODEL, memory=Memory(np.zeros(5), np.ones(5)))
# Nights are those of all days.
NIGHT = np.isin(np.arange(168) % 24, [22, 23, 0, 1, 2, 3, 4, 5])


@pytest.fixture(autouse=True)
def spreads(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes are worked out by hand for limits of 4.5 spreads."""
    monkeypatch.setattr("ports.sensitivity.SPREADS", 4.5)


def buckets(*days: float) -> Buckets:
    """Full days of steady traffic, in bytes, that begin on a Monday."""
    traffic = np.repeat(np.array(days), 96)
    count = np.arange(len(traffic))
    return Buckets(15, 900 * count, traffic, count % 672)


def told(model: Model, *days: float) -> Sensitivity:
    return sensitivity(model, buckets(*(days or (999.0,))), ALERT_RECORDS)


def same(values: np.ndarray, one: float) -> bool:
    return values.shape == (168,) and np.allclose(values, one, atol=5e-4, equal_nan=True)


# --- sizes ---------------------------------------------------------------------------------------


def test_a_size_is_beyond_the_limit_of_the_fourth_value_by_what_errors_may_hinder() -> None:
    # An error is below 1.9432 spreads in 0.9 ** (1 / 4) = 97.4 % of the cases; a limit is 4.5.
    # 1.5 x 0.4 x (1 + 1.9432 / 4.5) = 0.8591, a factor of 2.3610: 422.5 of 999 bytes remain.
    found = told(MODEL)
    assert same(found.drop, 0.577)
    assert same(found.flood, 2.3624)


def test_each_side_reaches_as_far_as_it_does() -> None:
    # 1.5 x 0.4 + 0.1727 = 0.7727 below, 2 x 0.4 + 0.1727 = 0.9727 above: factors of 2.1657 and 2.6452.
    found = told(replace(STEADY, reach=np.array([1.5, 2.0])))
    assert same(found.drop, 0.5388)
    assert same(found.flood, 2.6468)


def test_limits_that_do_not_widen_and_each_hour_has_its_own() -> None:
    # 0.5 x 1.4318 = 0.7159, a factor of 2.0460; 0.26 x 1.4318 = 0.3723, a factor of 1.4510.
    found = told(replace(STEADY, limits=np.where(np.arange(24) == 7, 0.5, 0.26)))
    is_seven = np.arange(168) % 24 == 7
    assert np.allclose(found.drop, np.where(is_seven, 0.5118, 0.3111), atol=6e-4)
    assert np.allclose(found.flood, np.where(is_seven, 2.0471, 1.4515), atol=6e-4)


def test_nothing_nearer_than_the_least_limit_is_found() -> None:
    # 0.25 + 1.9432 x 0.01 / 4.5 = 0.2543.
    found = told(replace(STEADY, limits=np.full(24, 0.01)))
    assert same(found.drop, 0.2248)
    assert same(found.flood, 1.2899)


def test_a_curve_has_its_own_bounds_to_either_side() -> None:
    curve = ScoreCurve(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([3.0, 1.5, 0.0, 0.5, 1.5]))
    # A score of 1 lies at -2/3 and 1.5 limits: 0.2667 + 0.1727 = 0.4394 and 0.6 + 0.1727 = 0.7727.
    found = told(replace(STEADY, curve=curve))
    assert same(found.drop, 0.3559)
    assert same(found.flood, 2.1668)


def test_a_linear_scale_has_sizes_in_bytes() -> None:
    # Values of 4, at 500 + 4 x 100 = 900 bytes. 0.4 x 1.4318 = 0.5727: 57.27 bytes.
    model = replace(STEADY, scaler=Scaler("standard", 500.0, 100.0), usual=np.full(672, 4.0))
    found = told(model, 900.0)
    assert same(found.drop, 0.0636)
    assert same(found.flood, 1.0636)


def test_where_even_no_traffic_is_ordinary_no_loss_is_alerted() -> None:
    # One byte lies at log 2 = 0.6931 above nothing, which is nearer than 0.7159.
    found = told(replace(STEADY, usual=np.full(672, np.log(2.0)), limits=np.full(24, 0.5)), 1.0)
    assert same(found.drop, NAN)
    # 2 x 2.0460 - 1.
    assert same(found.flood, 3.0921)


def test_the_level_is_that_of_the_last_day() -> None:
    # An offset that matters: of 3 bytes, 4 / 2.0460 - 1 = 0.9550 remain, which is a loss of 68.2 %.
    model = replace(STEADY, limits=np.full(24, 0.5))
    assert same(told(model, 999.0, 999.0, 3.0).drop, 0.6817)
    # A day without samples shows no level.
    assert same(told(model, 999.0, 3.0, NAN).drop, 0.6817)
    assert same(told(model, 3.0, 3.0, 999.0).drop, 0.5118)


# --- blind ports ---------------------------------------------------------------------------------


def test_a_port_that_spreads_too_far_is_blind() -> None:
    # Half of rows of four are beyond what is 0.9981 spreads further than the limit: 0.5 ** (1 / 4) = 84.1 %.
    # 0.56 x (1 + 0.9981 / 4.5) = 0.6842 is a loss of 49.6 %, 0.58 x 1.2218 = 0.7086 one of 50.8 %.
    assert told(replace(STEADY, limits=np.full(24, 0.56))).blind is None
    assert told(replace(STEADY, limits=np.full(24, 0.58))).blind == (
        "its ordinary traffic at the same time of the week spreads by a factor of 3.2"
    )


def test_what_is_missed_counts_by_its_traffic() -> None:
    night = np.isin(np.arange(24), [22, 23, *range(6)])
    # At night limits of a factor of 20, in a third of the hours: (1000 x e^3 - 1) / (1000 / e^3 - 1) = 411.7.
    wide = replace(STEADY, limits=np.where(night, 3.0, 0.4))
    usual = np.repeat(np.where(NIGHT, np.log(1000.0), np.log(100.0)), 4)
    # 999 bytes at night and 99 by day: three quarters of the traffic are at night.
    busy_nights = replace(wide, usual=usual)
    traffic = np.exp(usual) - 1
    span = replace(buckets(*[0.0] * 7), traffic=traffic)
    assert sensitivity(wide, buckets(*[999.0] * 7), ALERT_RECORDS).blind is None
    assert sensitivity(busy_nights, span, ALERT_RECORDS).blind == (
        "its ordinary traffic at the same time of the week spreads by a factor of 411.7"
    )


def test_a_port_with_next_to_no_traffic_is_blind_and_says_so() -> None:
    # Three bytes in the week, of an offset of one: a loss of half is 4 / 2.5, a factor of 1.6.
    model = replace(STEADY, usual=np.full(672, np.log(4.0)))
    assert told(model, 3.0).blind == "it has next to no traffic in 168 of 168 hours of the week"
    # Silent for the whole week.
    silent = told(replace(STEADY, usual=np.zeros(672)), 0.0)
    assert silent.blind == "it has next to no traffic in 168 of 168 hours of the week"
    assert same(silent.drop, NAN) and same(silent.flood, NAN)


def test_a_port_on_which_nothing_is_ordinary_is_blind() -> None:
    # A tenth of 900 bytes lies 810 bytes below; limits are 1000 bytes.
    model = Model(
        Scaler("standard", 0.0, 1.0), np.full(672, 900.0), np.full(24, 1000.0), np.ones(2), STEADY.memory
    )
    assert (
        told(model, 900.0).blind
        == "its ordinary traffic at the same time of the week reaches down to nothing"
    )


# --- what is said --------------------------------------------------------------------------------


def test_parts_of_the_week_have_the_size_of_half_of_their_hours() -> None:
    hour, day = np.arange(168) % 24, np.arange(168) // 24
    drop = np.where((hour < 6) | (hour >= 22), 0.8, np.where(day < 5, 0.3, 0.4))
    # Not the mean: one hour of sixteen on working days.
    drop[hour == 12] = 0.99
    flood = np.where(day < 5, 1.5, NAN)
    found = Sensitivity(drop, flood)
    assert found.parts() == {
        "on working days": (0.3, 1.5),
        "at night": (0.8, 1.5),
        "at weekends": (0.4, None),
    }
    assert found.describe(60) == (
        "alerts an hour of -30 % or x1.5 on working days, -80 % or x1.5 at night, -40 % at weekends"
    )


@pytest.mark.parametrize(
    ("minutes", "span"), [(20, "20 minutes"), (60, "an hour"), (90, "1.5 hours"), (240, "4 hours")]
)
def test_the_line_names_how_long_a_row_is(minutes: int, span: str) -> None:
    found = Sensitivity(np.full(168, 0.25), np.full(168, 12.34), "it is blind")
    assert found.describe(minutes) == f"alerts {span} of -25 % or x12.3 at any time; blind: it is blind"


def test_what_cannot_be_alerted_is_said() -> None:
    assert size_text(None, 3.0) == "no loss or x3.0"
    assert size_text(None, None) == "no loss"


def test_blind_models_have_one_line() -> None:
    assert describe_blind([("1_2_in", "it is silent")]) == (
        "1 model is blind, so that a loss of half raises no alert in most of the traffic: 1_2_in;"
        " on the first one, it is silent"
    )
    many = [(f"1_{number}_in", f"reason {number}") for number in (5, 4, 3, 2, 1, 1)]
    assert describe_blind(many) == (
        "6 models are blind, so that a loss of half raises no alert in most of the traffic:"
        " 1_1_in, 1_2_in, 1_3_in and 2 more; on the first one, reason 1"
    )


# --- the model's file ----------------------------------------------------------------------------


def test_the_model_file_keeps_it_and_stays_small(tmp_path: Path) -> None:
    times, traffic = samples(63)
    trained = fit_series(
        Series("1_1_out", times, traffic),
        "profile",
        TrainingSettings(("profile",), "default", 15, "UTC", 63, None),
    )
    # Gaps in what is known stay gaps.
    drop = trained.sensitivity.drop.copy()
    drop[3] = NAN
    trained = replace(trained, sensitivity=Sensitivity(drop, trained.sensitivity.flood, "it is silent"))
    content = models.pack(trained)
    assert len(content) < 8192
    models.save(content, path := models.model_path(tmp_path, "1_1_out", "profile"))
    read = models.load(path).sensitivity
    assert np.array_equal(read.drop, drop, equal_nan=True)
    assert np.array_equal(read.flood, trained.sensitivity.flood)
    assert read.blind == "it is silent"


@pytest.mark.parametrize(
    "wrong",
    [
        {"drop": [0.5] * 167},
        {"drop": [1.5] * 168},
        {"drop": [-0.1] * 168},
        {"flood": [0.9] * 168},
        {"flood": [float("inf")] * 168},
        {"blind": 3},
        {"drop": ["much"] * 168},
    ],
)
def test_a_damaged_one_is_refused(wrong: dict) -> None:
    whole = Sensitivity(np.full(168, 0.5), np.full(168, 2.0), None).to_json()
    assert np.array_equal(Sensitivity.from_json(whole).drop, np.full(168, 0.5))
    with pytest.raises(ValueError):
        Sensitivity.from_json({**whole, **wrong})


# --- found again ---------------------------------------------------------------------------------


def alerted_share(seed: int, detector: str, part: float) -> tuple[float, float]:
    """Of drops and of floods of this part of the size that is said, one each 26 hours: the share alerted."""
    port = simulate_port(seed, days=84, holidays=(), anomalies_per_week=0.0)
    series = Series("1_1_out", port.times, port.traffic)
    end = int(port.times[0]) + 63 * DAY
    trained = fit_series(series, detector, TrainingSettings((detector,), "default", 15, TIMEZONE, 63, end))
    times = judge(trained, series, trained.end).after(trained.end).buckets
    shares = []
    for change in (
        1 - part * trained.sensitivity.drop,
        1 + part * (trained.sensitivity.flood - 1),
    ):
        found = []
        for offset in range(0, 104, 26):
            traffic, places = series.traffic.copy(), range(96 + offset, len(times.starts) - 4, 104)
            for place in places:
                start = int(times.starts[place])
                during = (series.times > start) & (series.times <= start + 3600)
                traffic[during] *= change[times.slots[place] // 4]
            said = judge(trained, Series("1_1_out", series.times, traffic), trained.end).after(trained.end)
            found += [
                "alert" in said.statuses[place : place + 4].tolist()
                for place in places
                if "unknown" not in said.statuses[place : place + 4].tolist()
            ]
        shares.append(sum(found) / len(found))
    return shares[0], shares[1]


@pytest.mark.parametrize("detector", ["profile", "one-class-svm"])
@pytest.mark.parametrize("seed", [7001, 7003])
def test_changes_of_the_size_that_is_said_are_alerted_and_much_smaller_ones_are_not(
    seed: int, detector: str
) -> None:
    for share in alerted_share(seed, detector, 1.1):
        assert share >= 0.9
    for share in alerted_share(seed, detector, 0.55):
        assert share <= 0.3


# --- the jobs ------------------------------------------------------------------------------------

TOLD = "blind, so that a loss of half raises no alert in most of the traffic"


def test_both_jobs_say_how_many_models_are_blind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    times, traffic = samples(36)
    write(tmp_path / "ports", "1_1_out", times, traffic)
    # A port that varies by a factor of e^0.7 from bucket to bucket.
    wild = np.exp(0.7 * np.repeat(np.random.default_rng(1).standard_normal(len(times) // 3), 3))
    write(tmp_path / "ports", "1_2_out", times, np.round(traffic * wild))
    options = ["--target", "ports", "--ports_dir", "ports", "--jobs", "1", "--ports_models", "models"]
    training = ["--mode", "train", "--until", "2023-02-06", "--timezone", "UTC"]
    caplog.set_level(logging.INFO)
    assert find_anomalies.main([*options, *training]) == 0
    assert [record.getMessage().partition("; on the first one, ")[0] for record in caplog.records][-1] == (
        f"1 model is {TOLD}: 1_2_out"
    )
    caplog.clear()
    assert find_anomalies.main([*options, "--mode", "test", "--once"]) == 0
    assert sum(f"1 model is {TOLD}: 1_2_out;" in record.getMessage() for record in caplog.records) == 1


def test_the_hourly_job_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    notices = PortNotices(JudgingSettings("models", ("profile",), None, Cluster(1)))
    now = moment("2023-02-06T00:00")
    caplog.set_level(logging.WARNING)
    notices.show(Report(2, now, JobState()))
    assert caplog.messages == []
    for count in (1, 2):
        notices.show(Report(2, now, JobState(), blind=[("1_2_out", "it is silent")] * count))
    assert caplog.messages == [f"1 model is {TOLD}: 1_2_out; on the first one, it is silent"]
