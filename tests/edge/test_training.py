"""One training here: what it learns, what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from common.files import UserError
from common.times import parse_time
from edge.bundle import load_bundle
from edge.detector import detect
from edge.evaluation import learnt_thresholds
from edge.habits import DailyJob, Habits
from edge.recording import Stretch, Study, study
from edge.scores import score_dataset, slot_times
from edge.training import _forecast_report, check_learnt, enough_epochs, train
from edge.training_set import _report_study, held_out
from nodes.metrics import METRICS
from tests.support.refusals import refusal
from tests.support.training import FEATURES, Trained, contents, quickly

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("network", "is_refused"), [(0.2, True), (0.191, True), (0.189, False)])
def test_a_network_hardly_better_than_the_mean_is_refused(network: float, is_refused: bool) -> None:
    # 0.95 x 0.2 = 0.19
    report = {"overall": {"network": network, "training_mean": 0.2}}
    if not is_refused:
        check_learnt(report)
        return
    with pytest.raises(UserError, match="predicts hardly better than the mean.*nothing was saved"):
        check_learnt(report)


@pytest.mark.parametrize(
    ("sequences", "epochs"),
    [
        # Two days, and a day of 15 s each: as documented.
        (11_520, 10),
        (5_760, 10),
        # 100 steps of 16 sequences an epoch, and one less.
        (1_600, 10),
        (1_584, 11),
        # 23 steps an epoch, the last with fewer sequences.
        (360, 44),
        (1, 1_000),
    ],
)
def test_a_short_training_set_is_gone_over_more_often(sequences: int, epochs: int) -> None:
    assert enough_epochs(sequences) == epochs


def test_the_optimizer_is_the_documented_one_made_stable(trained: Trained) -> None:
    settings = trained.optimizer
    # Keras numbers the others of a process.
    assert settings["name"].partition("_")[0] == "sgd"
    assert settings["nesterov"] is True
    assert settings["learning_rate"] == pytest.approx(0.01)
    assert 0.9 <= settings["momentum"] < 1
    # Without clipping it diverges.
    assert settings["clipnorm"] == 1.0


def test_the_statistics_are_minimum_and_maximum_of_the_training_set(trained: Trained) -> None:
    stats = json.loads((trained.folder / "edge_normalization_stats.json").read_text())
    assert list(stats) == [f"{feature}_{end}" for feature in FEATURES for end in ("min", "max")]
    for feature in FEATURES:
        assert stats[f"{feature}_min"] == trained.frame[feature].min()
        assert stats[f"{feature}_max"] == trained.frame[feature].max()


def test_the_identity_says_what_was_trained_and_how_well_it_predicts_what_it_has_not_seen(
    trained: Trained,
) -> None:
    identity = json.loads((trained.folder / "edge.json").read_text())
    assert identity["features"] == FEATURES
    assert identity["n_steps"] == 4
    assert identity["records"] == len(trained.frame) == 1440
    assert pd.Timestamp(identity["first_record"]) == trained.frame.index[0]
    assert pd.Timestamp(identity["last_record"]) == trained.frame.index[-1]
    assert sorted(identity["versions"]) == ["keras", "numpy", "tensorflow"]
    for part, name in (("model", "edge.h5"), ("litert", "edge.tflite")):
        assert identity["sha256"][part] == hashlib.sha256((trained.folder / name).read_bytes()).hexdigest()

    every = trained.sequences()
    known, held_out = every[: -(len(every) // 10)], every[-(len(every) // 10) :]
    mean = np.mean([target for _, target in known], axis=0)
    assert list(identity["means"]) == FEATURES
    assert list(identity["means"].values()) == pytest.approx(mean.tolist(), abs=1e-5)
    report = identity["held_out_rmse"]
    actual = np.array([target for _, target in held_out])
    network = np.asarray(trained.model(np.array([inputs for inputs, _ in held_out], dtype=np.float32)))
    for metric, columns in {"cpu": [0, 8], "net_up": [4], "mem": [7, 11], "overall": range(12)}.items():
        columns = list(columns)
        for name, forecast in (
            ("training_mean", np.tile(mean, (len(actual), 1))),
            ("previous_record", np.array([inputs[2] for inputs, _ in held_out])),
            ("network", network),
        ):
            rmse = math.sqrt(((forecast - actual)[:, columns] ** 2).mean())
            assert report[metric][name] == pytest.approx(rmse, abs=2e-5), (metric, name)


def test_the_training_prints_the_errors_that_it_notes(trained: Trained) -> None:
    report = json.loads((trained.folder / "edge.json").read_text())["held_out_rmse"]
    lines = trained.printed.splitlines()
    assert lines[:3] == [
        "",
        "RMSE on the held-out records (normalised units)",
        "metric        network  training mean  previous record",
    ]
    assert [line.split()[0] for line in lines[3:]] == list(report)
    for line in lines[3:]:
        name, *numbers = line.split()
        assert [float(n) for n in numbers] == pytest.approx(list(report[name].values()), abs=6e-5)


@pytest.mark.parametrize(
    ("held_out", "title", "network", "mean"),
    [
        (100, "the held-out records", 3.0, 2.0),
        # Of 199 records 100 are 1 and 99 are 3: the mean of the first is 1.
        (
            99,
            "all records, since too few are held out",
            math.sqrt((100 + 99 * 9) / 199),
            math.sqrt(99 * 4 / 199),
        ),
    ],
)
def test_a_network_is_judged_on_all_records_where_few_are_held_out(
    held_out: int, title: str, network: float, mean: float, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = np.zeros((100 + held_out, 3, 12), dtype=np.float32)
    targets = np.full((100 + held_out, 12), 1.0, dtype=np.float32)
    targets[100:] = 3.0

    def previous(batch: np.ndarray, training: bool) -> np.ndarray:
        return batch[:, -1]

    report = _forecast_report(previous, inputs, targets, 100)
    assert f"\nRMSE on {title} (normalised units)\n" in capsys.readouterr().out
    for metric in ("cpu", "mem", "overall"):
        assert report[metric]["network"] == report[metric]["previous_record"]
        assert report[metric]["network"] == pytest.approx(network, abs=1e-5)
        assert report[metric]["training_mean"] == pytest.approx(mean, abs=1e-5)


def test_the_training_is_drawn(trained: Trained) -> None:
    starts = {".eps": b"%!PS", ".png": b"\x89PNG", ".tiff": b"II*\x00"}
    drawn = sorted(path.name for path in (trained.plots).iterdir())
    assert drawn == [
        "acc_loss_plot.eps",
        "acc_loss_plot.png",
        "acc_loss_plot.tiff",
        "accuracy_plot.eps",
        "accuracy_plot.png",
        "loss_plot.eps",
        "loss_plot.png",
    ]
    for name in drawn:
        path = trained.plots / name
        assert path.read_bytes().startswith(starts[path.suffix])


def without_value(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ul_bytes_rate=np.nan)


def with_gaps(frame: pd.DataFrame, whole: int) -> pd.DataFrame:
    """Every fourth record missing, but for the last `whole` ones."""
    here = np.arange(len(frame)) - (len(frame) - whole)
    gapped = frame.copy()
    gapped[(here < 0) & (here % 4 == 3)] = np.nan
    return gapped


# Ten minutes of six hours.
ONCE = slice(700, 740)


def with_attack(frame: pd.DataFrame) -> pd.DataFrame:
    """A busy CPU, and the only changes of the memory; so little is whole that nothing is trained."""
    attacked = frame.assign(mem_rate=0.0)
    attacked.iloc[ONCE, attacked.columns.get_loc("mem_rate")] = 0.5
    attacked.iloc[ONCE, attacked.columns.get_loc("cpu_user_percentage")] = 98.0
    return with_gaps(attacked, 0)


TOO_FEW = (
    "the training set (--trainset) has only {} sequences of 4 records without gaps;"
    " collect at least a day of records"
)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"n_features": 8}, "n_features must be 12, not 8"),
        (None, {"val_split": 1.0}, "val_split is 1.0; it must be at least 0 and below 1"),
        (None, {"val_split": -0.1}, "val_split is -0.1; it must be at least 0 and below 1"),
        (None, {"val_split": math.nan}, "val_split is nan; it must be at least 0 and below 1"),
        (
            lambda frame: frame.assign(**dict.fromkeys(METRICS.features, 88.7)),
            {},
            "the training set (--trainset) has the constant value 88.7 for cpu_user_percentage,"
            " which cannot be learnt;"
            " collect a longer time in which it changes",
        ),
        (
            without_value,
            {},
            "the training set (--trainset) has no value of ul_bytes_rate; collect records that have it,"
            ' or switch net_5g_up off ("off": ["net_5g_up"] in --node_file)',
        ),
        (lambda frame: with_gaps(frame, 0), {}, TOO_FEW.format(0)),
        (lambda frame: with_gaps(frame, 42), {"learn_all": True}, TOO_FEW.format(39)),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_and_the_earlier_bundle_stays(
    change: Callable | None, options: dict[str, Any], message: str, trained: Trained, bundle_copy: Path
) -> None:
    before = contents(bundle_copy.parent)
    frame = change(trained.frame) if change else trained.frame
    settings = {"n_steps": 4, "n_features": 12, "train_epochs": 1, "train_verbose": 0} | options
    with pytest.raises(UserError, match=refusal(message)):
        train(frame, model_filename=str(bundle_copy), **settings)
    assert contents(bundle_copy.parent) == before


def test_what_is_unlike_the_rest_is_not_learnt_named_and_found_again(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    frame = trained.frame.copy()
    attack = slice(600, 640)
    frame.iloc[attack, frame.columns.get_loc("cpu_user_percentage")] = 98.0
    frame.iloc[600, frame.columns.get_loc("cpu_user_rate")] = 92.0
    frame.iloc[640, frame.columns.get_loc("cpu_user_rate")] = -92.0
    times = frame.index.as_unit("ns").asi8
    # A person knows of something that does not look unlike the rest.
    window = (int(times[900]), int(times[910]))
    model = str(tmp_path / "model" / "edge.h5")
    train(frame, 4, 12, 2, 0.1, 0, model, plot_dir=tmp_path, excluded=[window])

    stats = json.loads((tmp_path / "model" / "edge_normalization_stats.json").read_text())
    assert stats["cpu_user_percentage_max"] <= trained.frame["cpu_user_percentage"].max()
    assert stats["cpu_user_rate_max"] <= trained.frame["cpu_user_rate"].max()
    unlike, by_person = json.loads((tmp_path / "model" / "edge.json").read_text())["left_out"]
    assert (unlike["metrics"], by_person["metrics"]) == (["cpu"], [])
    start, end = (parse_time(unlike[key]) for key in ("start", "end"))
    # A part of the windows before and after belongs to it.
    assert times[570] <= start <= times[600] and times[639] <= end <= times[660]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(
        line.startswith("left out of the training set, because it is unlike the rest: ")
        and line.endswith("cpu")
        for line in warnings
    )
    assert any(
        line.startswith("if what was left out is normal, train with --learn_all;") for line in warnings
    )

    bundle = load_bundle(model)
    assert bundle.left_out[0] == (start, end + 1)
    verdicts = detect(learnt_thresholds(bundle, frame), frame, score_dataset(bundle, frame))
    assert all(verdict.causes == ("cpu",) for verdict in verdicts[attack])


NAMED = (
    "the training set (--trainset) has the constant value 0 for mem_rate apart from what is left out, which"
    " cannot be learnt; mem is not watched: collect a longer time in which it changes"
)
CONSTANT = (
    "the training set (--trainset) has the constant value 0 for mem_rate apart from what is left out, which"
    " cannot be learnt; mem is not watched: if that is normal, train with --learn_all; or collect a longer"
    " time in which it changes"
)


@pytest.mark.parametrize(
    ("named", "learn_all", "said"),
    [
        # Without the attack, whoever leaves it out, the memory never changes; gaps are the fault then.
        (False, False, [CONSTANT]),
        (True, True, [NAMED]),
        (False, True, []),
    ],
)
def test_what_is_unlike_the_rest_and_what_a_person_named_is_not_learnt_unless_all_is(
    named: bool,
    learn_all: bool,
    said: list[str],
    trained: Trained,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = with_attack(trained.frame)
    times = frame.index.as_unit("ns").asi8[ONCE]
    options = {"train_verbose": 0, "model_filename": str(tmp_path / "edge.h5"), "learn_all": learn_all}
    excluded = [(int(times[0]) - 15 * 10**9, int(times[-1]) + 1)] if named else []
    with pytest.raises(UserError, match=refusal(TOO_FEW.format(0))):
        train(frame, 4, 12, excluded=excluded, **options)
    assert list(tmp_path.iterdir()) == []
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "constant value" in line] == said


@pytest.mark.parametrize(
    ("sequences", "share", "parts"),
    [
        # A short recording has one stretch, at its end; three days have 9, one in each 8 hours.
        (1797, 0.1, 1),
        (17_277, 0.1, 9),
        (17_277, 0.0, 0),
        (9, 0.1, 0),
    ],
)
def test_what_is_held_out_comes_from_several_times_of_day(sequences: int, share: float, parts: int) -> None:
    is_held = held_out(sequences, share)
    assert is_held.shape == (sequences,)
    places = np.flatnonzero(is_held)
    stretches = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    assert len(stretches) == parts
    for number, stretch in enumerate(stretches):
        assert sequences * number / parts - parts <= stretch[0]
        assert stretch[-1] < sequences * (number + 1) / parts + parts
        assert len(stretch) == pytest.approx(sequences * share / parts, abs=1)
        # Two tries of a change, of 89 records each.
        assert len(stretch) >= 178
    if parts:
        assert is_held[-1]
    # No two begin within half an hour of the same time of day.
    begins = np.sort([stretch[0] * 15 % 86_400 for stretch in stretches])
    assert (np.diff(begins) > 1800).all()


def test_the_training_says_what_it_leaves_out_and_what_to_do(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = with_attack(trained.frame)
    with pytest.raises(UserError, match=refusal(TOO_FEW.format(0))):
        train(frame, 4, 12, train_verbose=0, model_filename=str(tmp_path / "edge.h5"))
    constant, stretch, remedy = (record.getMessage() for record in caplog.records)
    assert constant == CONSTANT
    assert re.fullmatch(
        r"left out of the training set, because it is unlike the rest: 2026-03-02T02:5\d:\d\dZ"
        r" to 2026-03-02T03:0\d:\d\dZ \(1\d min( \d+ s)?\): cpu",
        stretch,
    )
    assert remedy == (
        "if what was left out is normal, train with --learn_all; what else is not normal can be listed in"
        " attacks.json beside the training set"
    )


# Five records, an hour apart.
TIMES = np.arange(5) * 3600 * 10**9


def test_the_training_names_twenty_stretches_and_counts_the_others(caplog: pytest.LogCaptureFixture) -> None:
    minute = 60 * 10**9
    stretches = [Stretch(i * 100 * minute, (i * 100 + 5) * minute, ("cpu",)) for i in range(23)]
    jobs = (DailyJob("cpu", 85_230.0, 1230.0, {8: (50.0, 90.0)}), DailyJob("mem", 7200.0, 9000.0, {}))
    nothing = np.zeros((24, 0))
    habits = Habits("Europe/Rome", (), *[nothing] * 6, False, nothing, jobs)
    with caplog.at_level("INFO"):
        _report_study(Study(np.ones(5, dtype=bool), [Stretch(0, minute, ()), *stretches], habits), TIMES, [])
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == [
        "daily job: cpu from 23:40 to 00:20 Europe/Rome",
        "daily job: mem from 02:00 to 02:30 Europe/Rome",
    ]
    left_out = "left out of the training set, because it is unlike the rest: "
    assert messages[2] == f"{left_out}1970-01-01T00:00:00Z to 1970-01-01T00:05:00Z (5 min): cpu"
    assert sum(message.startswith(left_out) for message in messages) == 20
    assert messages[22] == "and 3 more"
    assert len(messages) == 24


def test_the_training_says_which_records_attacks_json_leaves_out(caplog: pytest.LogCaptureFixture) -> None:
    nothing = np.zeros((24, 0))
    studied = Study(np.ones(5, dtype=bool), [], Habits("UTC", (), *[nothing] * 6, False, nothing))
    hour = 3600 * 10**9
    with caplog.at_level("INFO"):
        _report_study(studied, TIMES, [(hour, 3 * hour), (5 * hour, 9 * hour)])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "INFO",
            "left out of the training set by attacks.json: 1970-01-01T01:00:00Z to 1970-01-01T03:00:00Z,"
            " 2 records",
        ),
        (
            "WARNING",
            "the training set has no record from 1970-01-01T05:00:00Z to 1970-01-01T09:00:00Z; correct"
            " attacks.json beside it",
        ),
    ]


def test_the_habits_of_a_bundle_are_those_of_its_recording_in_units_of_its_network(trained: Trained) -> None:
    bundle = load_bundle(trained.model_file)
    identity = json.loads((trained.folder / "edge.json").read_text())
    assert (identity["left_out"], bundle.left_out) == ([], ())
    times = slot_times(bundle, trained.frame)
    found = study(trained.frame[FEATURES].to_numpy(dtype=float), times, METRICS)
    window = score_dataset(bundle, trained.frame).window[:, :-1]
    expected = found.habits.in_units_of(np.nanpercentile(window, 99, axis=0)).to_json()
    assert identity["habits"].pop("rmse") == pytest.approx(expected.pop("rmse"), rel=1e-3)
    assert identity["habits"] == expected
