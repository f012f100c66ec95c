"""The network, its one training here, and the bundle: what belongs together is loaded, nothing else is."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import formatters
from common.files import UserError
from edge import network
from edge.bundle import Bundle, BundlePaths, Predictor, bundle_paths, load_bundle, save_bundle
from edge.datasets import loadDataset
from edge.network import check_not_collapsed
from edge.sequences import normalize
from edge.training import _check_learnt, _forecast_report, train
from nodes.metrics import METRICS, MetricTable, getFeatures
from simulators.edge import simulate

ROOT = Path(__file__).resolve().parents[2]
START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
FEATURES = getFeatures()
UNITS = [64, 32, 16, 8, 4, 8, 16, 32, 64]
FILES = ("edge.h5", "edge.tflite", "edge.json", "edge_normalization_stats.json")
# A collapsed network stays below the first, one that uses its input is above the second.
COLLAPSED_STD, LIVING_STD = 1e-3, 0.1


def spread(model: Any, seed: int = 3) -> np.ndarray:
    """Standard deviation of each predicted feature over random inputs."""
    noise = np.random.default_rng(seed).random((128, 3, 12), dtype=np.float32)
    return np.std(np.asarray(model(noise)), axis=0)


@pytest.fixture(scope="module")
def keras() -> Any:
    keras = network.import_keras()
    keras.utils.set_random_seed(3)
    return keras


@pytest.fixture(scope="module")
def untrained(keras: Any) -> Any:
    """As Keras initialises it; no test changes it."""
    return network.build(3, 12)


class Trained(NamedTuple):
    """What one short training left."""

    model: Any
    folder: Path
    frame: pd.DataFrame
    printed: str

    @property
    def model_file(self) -> Path:
        return self.folder / "edge.h5"


@pytest.fixture(scope="module")
def trained(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    samples = simulate(5, START, 360 * 60)
    frame = pd.DataFrame(list(formatters.format_records(formatters.slot_records(samples, 15.0))))
    frame = frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame.pop("time"), utc=True)))
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        # The plots go to plots/ of the working directory.
        patch.chdir(folder)
        model = train(frame, 4, 12, 2, 0.1, 0, str(folder / "model" / "edge.h5"))
    yield Trained(model, folder / "model", frame, printed.getvalue())


@pytest.fixture
def bundle_copy(trained: Trained, tmp_path: Path) -> Path:
    """The model file of a copy of the trained bundle."""
    shutil.copytree(trained.folder, tmp_path / "model")
    return tmp_path / "model" / "edge.h5"


@pytest.mark.parametrize(("network", "is_refused"), [(0.2, True), (0.191, True), (0.189, False)])
def test_a_network_hardly_better_than_the_mean_is_refused(network: float, is_refused: bool) -> None:
    # 0.95 x 0.2 = 0.19
    report = {"overall": {"network": network, "training_mean": 0.2}}
    if not is_refused:
        _check_learnt(report)
        return
    with pytest.raises(UserError, match="predicts hardly better than the mean.*nothing was saved"):
        _check_learnt(report)


def refusal(text: str) -> str:
    return f"^{re.escape(text)}$"


# --- the network ---------------------------------------------------------------------------------


def test_the_network_is_the_documented_one(untrained: Any) -> None:
    assert untrained.input_shape == (None, 3, 12)
    assert untrained.output_shape == (None, 12)
    assert [type(layer).__name__ for layer in untrained.layers] == ["Bidirectional"] * 9 + ["Dense"]
    sides = [(layer.forward_layer, layer.backward_layer) for layer in untrained.layers[:-1]]
    assert {type(side).__name__ for both in sides for side in both} == {"LSTM"}
    assert [[side.units for side in both] for both in sides] == [[units] * 2 for units in UNITS]
    assert {side.activation.__name__ for both in sides for side in both} == {"relu"}
    assert [both[0].return_sequences for both in sides] == [True] * 8 + [False]
    assert {layer.merge_mode for layer in untrained.layers[:-1]} == {"concat"}
    assert untrained.layers[-1].activation.__name__ == "linear"


def test_the_network_has_as_many_weights_as_the_documented_layers(untrained: Any) -> None:
    weights, inputs = 0, 12
    for units in UNITS:
        # Both directions; four gates, each with a kernel, a recurrent kernel and a bias.
        weights += 2 * 4 * (inputs * units + units * units + units)
        inputs = 2 * units
    assert untrained.count_params() == weights + inputs * 12 + 12


def test_the_default_initialisation_collapses_to_a_constant(untrained: Any) -> None:
    assert spread(untrained).max() < COLLAPSED_STD


def test_a_collapsed_network_is_refused_in_one_line(untrained: Any) -> None:
    with pytest.raises(UserError) as refused:
        check_not_collapsed(untrained, 3, 12)
    assert re.fullmatch(
        r"the trained network ignores its input \(standard deviation \d\.\de-\d\d over random inputs\):"
        r" nothing was saved; train on more varied records or for more epochs",
        str(refused.value),
    )


def test_initialised_by_layer_the_network_uses_its_input(keras: Any) -> None:
    model = network.build(3, 12)
    inputs = np.random.default_rng(7).random((256, 3, 12), dtype=np.float32)
    targets = np.linspace(0.1, 0.9, 12) + np.random.default_rng(8).normal(0, 0.01, (256, 12))
    assert spread(model).max() < COLLAPSED_STD
    network.initialise(model, inputs, targets)
    # On inputs that it was not initialised with.
    assert spread(model, seed=9).min() > LIVING_STD
    check_not_collapsed(model, 3, 12)
    outputs: Any = inputs
    for layer in model.layers[:-1]:
        outputs = layer(outputs)
        assert np.std(np.asarray(outputs)) == pytest.approx(1.0, abs=0.05)
    assert np.asarray(model.layers[-1].bias) == pytest.approx(targets.mean(axis=0), abs=1e-6)


# --- training ------------------------------------------------------------------------------------


def test_the_optimizer_is_the_documented_one_made_stable(trained: Trained) -> None:
    settings = trained.model.optimizer.get_config()
    assert settings["name"] == "sgd"
    assert settings["nesterov"] is True
    assert settings["learning_rate"] == pytest.approx(0.01)
    assert 0.9 <= settings["momentum"] < 1
    # Without clipping it diverges.
    assert settings["clipnorm"] == 1.0


def test_the_trained_network_uses_its_input(trained: Trained) -> None:
    assert spread(trained.model).max() > LIVING_STD
    check_not_collapsed(trained.model, 3, 12)


def test_the_statistics_are_minimum_and_maximum_of_the_training_set(trained: Trained) -> None:
    stats = json.loads((trained.folder / "edge_normalization_stats.json").read_text())
    assert list(stats) == [f"{feature}_{end}" for feature in FEATURES for end in ("min", "max")]
    for feature in FEATURES:
        assert stats[f"{feature}_min"] == trained.frame[feature].min()
        assert stats[f"{feature}_max"] == trained.frame[feature].max()


def sequences(trained: Trained) -> list[tuple[np.ndarray, np.ndarray]]:
    """Normalised inputs (3, 12) and target (12,) of every four records without a missing value."""
    values = trained.frame[FEATURES].to_numpy()
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    values = (values - low) / (high - low)
    runs = [values[i : i + 4] for i in range(len(values) - 3)]
    return [(run[:3], run[3]) for run in runs if np.isfinite(run).all()]


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

    every = sequences(trained)
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
            "all records, too few to hold some out",
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
    drawn = sorted(path.name for path in (trained.folder.parent / "plots").iterdir())
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
        path = trained.folder.parent / "plots" / name
        assert path.read_bytes().startswith(starts[path.suffix])


def constant(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(mem_percentage=88.7)


def without_value(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ul_bytes_rate=np.nan)


def with_gaps(frame: pd.DataFrame, whole: int) -> pd.DataFrame:
    """Every fourth record missing, but for the last `whole` ones."""
    here = np.arange(len(frame)) - (len(frame) - whole)
    gapped = frame.copy()
    gapped[(here < 0) & (here % 4 == 3)] = np.nan
    return gapped


TOO_FEW = (
    "the training set (--trainset) has only {} sequences of 4 records without a gap;"
    " collect at least a day of records"
)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"n_features": 8}, "the network has 12 features, not 8"),
        (None, {"val_split": 1.0}, "val_split is 1.0; it must be at least 0 and below 1"),
        (None, {"val_split": -0.1}, "val_split is -0.1; it must be at least 0 and below 1"),
        (None, {"val_split": math.nan}, "val_split is nan; it must be at least 0 and below 1"),
        (
            constant,
            {},
            "the training set (--trainset) has the constant 88.7 in mem_percentage,"
            " so nothing can be learnt of it;"
            " collect a longer stretch in which it changes",
        ),
        (
            without_value,
            {},
            "the training set (--trainset) has no value in ul_bytes_rate; collect records that have it",
        ),
        (lambda frame: with_gaps(frame, 0), {}, TOO_FEW.format(0)),
        (lambda frame: with_gaps(frame, 42), {}, TOO_FEW.format(39)),
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


# --- the predictor -------------------------------------------------------------------------------


def test_the_predictor_gives_what_keras_gives(trained: Trained) -> None:
    predictor = Predictor((trained.folder / "edge.tflite").read_bytes())
    inputs = np.array([inputs for inputs, _ in sequences(trained)])
    assert len(inputs) > 400
    expected = np.asarray(trained.model(inputs.astype(np.float32)))
    assert expected.std() > 0.1
    assert np.abs(predictor(inputs) - expected).max() < 1e-4


@pytest.mark.parametrize("count", [1, 2, 4096, 4097])
def test_the_predictor_takes_any_number_of_windows(count: int, trained: Trained) -> None:
    predictor = Predictor((trained.folder / "edge.tflite").read_bytes())
    inputs = np.random.default_rng(12).random((count, 3, 12))
    predicted = predictor(inputs)
    assert predicted.shape == (count, 12)
    last = np.asarray(trained.model(inputs[-2:].astype(np.float32)))
    # A network of one epoch predicts large numbers for noise.
    assert predicted[-2:] == pytest.approx(last, abs=1e-4, rel=1e-4)
    assert predictor(inputs[:0]).shape == (0, 12)


def test_a_prediction_is_not_changed_by_the_next_one(trained: Trained) -> None:
    predictor = Predictor((trained.folder / "edge.tflite").read_bytes())
    first = predictor(np.zeros((1, 3, 12)))
    kept = first.copy()
    assert (predictor(np.ones((1, 3, 12))) != kept).any()
    assert (first == kept).all()


# --- the bundle ----------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("model", "paths"),
    [
        (
            "model/5g_edge_autoencoder.h5",
            (
                "model/5g_edge_autoencoder.h5",
                "model/5g_edge_autoencoder.tflite",
                "model/5g_edge_autoencoder.json",
                "data/normalization_stats.json",
            ),
        ),
        ("/a/edge.h5", ("/a/edge.h5", "/a/edge.tflite", "/a/edge.json", "/a/edge_normalization_stats.json")),
    ],
)
def test_the_files_of_a_bundle(model: str, paths: tuple[str, ...]) -> None:
    assert bundle_paths(model) == BundlePaths(*map(Path, paths))


def test_a_bundle_is_loaded_as_it_was_saved(trained: Trained) -> None:
    assert sorted(contents(trained.folder)) == sorted(FILES)
    bundle = load_bundle(trained.model_file)
    assert (bundle.features, bundle.n_steps) == (FEATURES, 4)
    assert bundle.stats == json.loads((trained.folder / "edge_normalization_stats.json").read_text())
    identity = json.loads((trained.folder / "edge.json").read_text())
    assert bundle.means.tolist() == list(identity["means"].values())
    inputs = np.random.default_rng(13).random((10, 3, 12))
    assert bundle.predictor(inputs) == pytest.approx(
        np.asarray(trained.model(inputs.astype(np.float32))), abs=1e-4, rel=1e-4
    )


def test_the_edge_node_needs_no_keras_model(bundle_copy: Path) -> None:
    bundle_copy.unlink()
    assert load_bundle(bundle_copy).features == FEATURES


def test_statistics_that_were_reformatted_by_hand_are_accepted(bundle_copy: Path) -> None:
    path = bundle_copy.with_name("edge_normalization_stats.json")
    stats = json.loads(path.read_text())
    path.write_text("\n\n" + json.dumps(dict(reversed(stats.items())), indent=8))
    assert load_bundle(bundle_copy).stats == stats


def change_statistic(folder: Path) -> None:
    path = folder / "edge_normalization_stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps(stats | {"cpu_user_percentage_max": stats["cpu_user_percentage_max"] + 0.001}))


def drop_statistic(folder: Path) -> None:
    path = folder / "edge_normalization_stats.json"
    stats = json.loads(path.read_text())
    del stats["cpu_user_percentage_max"]
    path.write_text(json.dumps(stats))


def shipped_statistics(folder: Path) -> None:
    shutil.copy(ROOT / "data/normalization_stats.json", folder / "edge_normalization_stats.json")


def shipped_network(folder: Path) -> None:
    shutil.copy(ROOT / "model/5g_edge_autoencoder.tflite", folder / "edge.tflite")


def torn_network(folder: Path) -> None:
    os.truncate(folder / "edge.tflite", 100_000)


def shipped_model(folder: Path) -> None:
    shutil.copy(ROOT / "model/5g_edge_autoencoder.h5", folder / "edge.h5")


def shipped_identity(folder: Path) -> None:
    shutil.copy(ROOT / "model/5g_edge_autoencoder.json", folder / "edge.json")


RESTORE = "restore all files of one training, or train again with --mode train --model {folder}/edge.h5"


@pytest.mark.parametrize(
    ("mix", "culprits"),
    [
        (change_statistic, ["edge_normalization_stats.json"]),
        (drop_statistic, ["edge_normalization_stats.json"]),
        (shipped_statistics, ["edge_normalization_stats.json"]),
        (shipped_network, ["edge.tflite"]),
        (torn_network, ["edge.tflite"]),
        (shipped_model, ["edge.h5"]),
        (shipped_identity, ["edge.h5", "edge.tflite", "edge_normalization_stats.json"]),
    ],
)
def test_a_mixture_is_refused_in_one_line(mix: Callable, culprits: list[str], bundle_copy: Path) -> None:
    folder = bundle_copy.parent
    mix(folder)
    with pytest.raises(UserError) as refused:
        load_bundle(bundle_copy)
    assert str(refused.value) in {
        f"{folder}/{culprit}: does not belong to {folder}/edge.json; {RESTORE.format(folder=folder)}"
        for culprit in culprits
    }


@pytest.mark.parametrize("name", ["edge.tflite", "edge.json", "edge_normalization_stats.json"])
def test_a_missing_file_is_named(name: str, bundle_copy: Path) -> None:
    path = bundle_copy.with_name(name)
    path.unlink()
    with pytest.raises(
        UserError, match=refusal(f"{path}: no such file; --mode train --model {bundle_copy} writes it")
    ):
        load_bundle(bundle_copy)


NO_IDENTITY = (
    "{folder}/edge.json: is not the identity of a trained model; --mode train --model {folder}/edge.h5"
    " writes it"
)
OTHER_FEATURES = "{folder}/edge.h5: was trained for other features or steps; train it again"
OTHER_METRICS = "{{folder}}/edge.h5: was trained for other metrics ({}); train it again"
DESCRIPTION = METRICS.description


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"sha256": None}, NO_IDENTITY),
        ({"sha256": {"model": "0", "litert": "0"}}, NO_IDENTITY),
        ({"sha256": "0"}, NO_IDENTITY),
        ({"features": None}, NO_IDENTITY),
        ({"n_steps": None}, NO_IDENTITY),
        ({"means": None}, NO_IDENTITY),
        ({"means": {FEATURES[0]: 0.5}}, NO_IDENTITY),
        ({"means": dict.fromkeys(FEATURES, "half")}, NO_IDENTITY),
        ({"features": FEATURES[::-1]}, OTHER_FEATURES),
        ({"features": FEATURES[:8]}, OTHER_FEATURES),
        ({"n_steps": 5}, OTHER_FEATURES),
        ({"metrics": 5}, NO_IDENTITY),
        ({"metrics": {"cpu": 5}}, NO_IDENTITY),
        (
            {"metrics": {name: features for name, features in DESCRIPTION.items() if name != "mem"}},
            OTHER_METRICS.format("it has no mem"),
        ),
        ({"metrics": DESCRIPTION | {"disk": ["disk_rate"]}}, OTHER_METRICS.format("it has disk")),
        (
            {"metrics": DESCRIPTION | {"cpu": ["cpu_user_rate"]}},
            OTHER_METRICS.format("its cpu is cpu_user_rate, not cpu_user_rate and cpu_user_percentage"),
        ),
    ],
)
def test_an_edited_identity_is_refused_in_one_line(
    edits: dict[str, Any], message: str, bundle_copy: Path
) -> None:
    path = bundle_copy.with_name("edge.json")
    identity = json.loads(path.read_text()) | edits
    path.write_text(json.dumps({key: value for key, value in identity.items() if value is not None}))
    with pytest.raises(UserError, match=refusal(message.format(folder=bundle_copy.parent))):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("part", ["model", "litert", "stats"])
def test_a_checksum_that_is_edited_is_refused(part: str, bundle_copy: Path) -> None:
    path = bundle_copy.with_name("edge.json")
    identity = json.loads(path.read_text())
    identity["sha256"][part] = "0" * 64
    path.write_text(json.dumps(identity))
    with pytest.raises(UserError, match="does not belong to"):
        load_bundle(bundle_copy)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_an_identity_that_is_no_json_object_is_refused(text: str, bundle_copy: Path) -> None:
    bundle_copy.with_name("edge.json").write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(bundle_copy.with_name('edge.json')))}[^\n]*$"):
        load_bundle(bundle_copy)


def test_a_program_of_other_steps_refuses_the_bundle(bundle_copy: Path) -> None:
    with pytest.raises(UserError, match=refusal(OTHER_FEATURES.format(folder=bundle_copy.parent))):
        load_bundle(bundle_copy, n_steps=5)


def test_a_node_of_other_metrics_refuses_the_bundle(bundle_copy: Path) -> None:
    disk = replace(METRICS["cpu_rx"], name="disk", features=("disk_rate", "disk_percentage"))
    metrics = MetricTable((*(row for row in METRICS.values() if row.name != "mem"), disk))
    message = OTHER_METRICS.format("it has no disk, it has mem").format(folder=bundle_copy.parent)
    with pytest.raises(UserError, match=refusal(message)):
        load_bundle(bundle_copy, metrics)


def test_a_bundle_of_before_is_one_of_the_documented_metrics(bundle_copy: Path) -> None:
    path = bundle_copy.with_name("edge.json")
    identity = json.loads(path.read_text())
    assert identity.pop("metrics") == METRICS.description
    path.write_text(json.dumps(identity))
    assert load_bundle(bundle_copy).metrics == METRICS


def test_a_twin_that_differs_from_the_model_is_not_saved_over_a_good_bundle(
    untrained: Any, bundle_copy: Path
) -> None:
    before = contents(bundle_copy.parent)
    # What cannot be compared does not agree.
    unknown = np.full((2, 3, 12), np.nan, dtype=np.float32)
    message = (
        f"{bundle_copy.with_suffix('.tflite')}: differs from the Keras model by nan: nothing was saved;"
        " train on more records (--trainset) or for more --epochs"
    )
    with pytest.raises(UserError, match=refusal(message)):
        save_bundle(untrained, bundle_copy, {}, {}, unknown)
    assert contents(bundle_copy.parent) == before


def test_what_a_training_makes_on_the_way_lies_beside_the_model(
    trained: Trained, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A training that is killed leaves what the next one removes, and nothing elsewhere.
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    inputs = np.random.default_rng(15).random((10, 3, 12), dtype=np.float32)
    save_bundle(trained.model, bundle_copy, {}, {}, inputs)
    assert sorted(contents(bundle_copy.parent)) == sorted(FILES)


def test_a_bundle_of_which_one_file_cannot_be_written_leaves_the_good_one_whole(
    untrained: Any, bundle_copy: Path
) -> None:
    before = contents(bundle_copy.parent)
    stats = json.loads(bundle_copy.with_name("edge_normalization_stats.json").read_text())
    # JSON has no NaN, so the statistics cannot be written.
    stats["cpu_user_rate_min"] = math.nan
    with pytest.raises((UserError, ValueError)):
        save_bundle(untrained, bundle_copy, stats, {}, np.zeros((2, 3, 12), dtype=np.float32))
    assert [name for name, content in contents(bundle_copy.parent).items() if content != before[name]] == []


# --- what is shipped -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return load_bundle("model/5g_edge_autoencoder.h5")


@pytest.fixture(scope="module")
def shipped_inputs(shipped: Bundle) -> np.ndarray:
    """Windows of the shipped normal records."""
    frame = loadDataset(ROOT / "data/normal.csv")
    values = normalize(frame[FEATURES].to_numpy(), shipped.stats, FEATURES)
    windows = np.lib.stride_tricks.sliding_window_view(values, 3, axis=0).swapaxes(1, 2)
    return windows[np.isfinite(windows).all(axis=(1, 2))]


def test_the_shipped_network_is_not_collapsed(shipped: Bundle) -> None:
    noise = np.random.default_rng(14).random((256, 3, 12))
    assert shipped.predictor(noise).std(axis=0).max() > 0.01


def test_the_shipped_network_follows_the_level_of_each_metric(
    shipped: Bundle, shipped_inputs: np.ndarray
) -> None:
    assert len(shipped_inputs) > 10_000
    spreads = dict(zip(FEATURES, shipped.predictor(shipped_inputs).std(axis=0), strict=True))
    levels = [name for name in FEATURES if "bytes" in name or "percentage" in name]
    assert len(levels) == 8
    assert min(spreads[name] for name in levels) > 0.01, spreads


def test_the_shipped_twins_agree(keras: Any, shipped: Bundle, shipped_inputs: np.ndarray) -> None:
    model = keras.models.load_model(ROOT / "model/5g_edge_autoencoder.h5", compile=False)
    assert [type(layer).__name__ for layer in model.layers] == ["Bidirectional"] * 9 + ["Dense"]
    inputs = shipped_inputs[::50].astype(np.float32)
    assert np.abs(np.asarray(model(inputs)) - shipped.predictor(inputs)).max() < 1e-4


def test_the_shipped_means_lie_in_the_trained_range(shipped: Bundle) -> None:
    assert shipped.means.shape == (12,)
    assert ((shipped.means > 0) & (shipped.means < 1)).all()
