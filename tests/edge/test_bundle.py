"""The bundle: what belongs together is loaded, nothing else is."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.files import UserError
from common.times import parse_time
from edge.bundle import Bundle, BundlePaths, Predictor, bundle_paths, convert, load_bundle, save_bundle
from edge.datasets import loadDataset
from edge.recording import Stretch
from edge.scores import score_dataset
from edge.sequences import normalize
from nodes.metrics import METRICS, MetricTable
from tests.support.refusals import one_line, refusal
from tests.support.training import FEATURES, Trained, contents

ROOT = Path(__file__).resolve().parents[2]
FILES = ("edge.h5", "edge.tflite", "edge.json", "edge_normalization_stats.json")


# --- the predictor -------------------------------------------------------------------------------


def test_the_predictor_gives_what_keras_gives(trained: Trained) -> None:
    predictor = Predictor((trained.folder / "edge.tflite").read_bytes())
    inputs = np.array([inputs for inputs, _ in trained.sequences()])
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


def test_a_record_is_predicted_alike_to_the_bit_in_a_batch_of_any_size(trained: Trained) -> None:
    predictor = Predictor((trained.folder / "edge.tflite").read_bytes())
    inputs = np.random.default_rng(12).random((600, 3, 12))
    at_once = predictor(inputs)
    for size in (1, 2, 3, 7, 256, 257, 599):
        parts = [predictor(inputs[start : start + size]) for start in range(0, 600, size)]
        assert (np.concatenate(parts) == at_once).all(), size


@pytest.mark.parametrize("closed", [False, True])
def test_a_process_that_predicts_writes_nothing_of_its_own_accord_to_stderr(closed: bool) -> None:
    program = f"""if True:
        import os, sys
        if {closed}:
            os.close(2)
        import numpy
        from edge.bundle import Predictor
        network = open("model/5g_edge_autoencoder.tflite", "rb").read()
        for count in (5, 1):
            print(Predictor(network)(numpy.zeros((count, 3, 12))).shape)
        if not {closed}:
            os.write(2, b"ours")
    """
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("(5, 12)\n(1, 12)\n", "" if closed else "ours")
    assert ended.returncode == 0


# --- the bundle ----------------------------------------------------------------------------------


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
    # --model is refused with --node.
    with pytest.raises(
        UserError, match=refusal(f"{path}: no such file; --mode train --node 'a b' writes it")
    ):
        load_bundle(bundle_copy, node="a b")


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
    disk = replace(
        METRICS["cpu_rx"],
        name="disk",
        measurement="disk_used",
        columns={"disk_rate": "change", "disk_percentage": "value"},
        features=("disk_rate", "disk_percentage"),
        stored="disk_percentage",
        stored_field="disk_usage",
    )
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


def test_a_bundle_of_before_has_no_habits_says_so_and_judges_by_the_network_alone(
    bundle_copy: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle_copy.with_name("edge.json")
    identity = json.loads(path.read_text())
    del identity["habits"], identity["left_out"]
    path.write_text(json.dumps(identity))
    before, now = load_bundle(bundle_copy), load_bundle(trained.model_file)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: has no habits, so a change that lasts is found only when it begins; train again"
    ]
    assert (before.habits, before.left_out) == (None, ())
    assert before.identity == now.identity
    found = score_dataset(before, trained.frame)
    assert not found.lasting.any()
    again = score_dataset(replace(now, habits=None), trained.frame)
    for name in ("actual", "predicted", "window", "record"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert score_dataset(now, trained.frame).lasting.any()


LEVELS = len(METRICS)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ({"rmse": [0.1] * (LEVELS - 1)}, "no usable rmse"),
        ({"high_middle": ["x"] * LEVELS}, "could not convert string to float: 'x'"),
        ({"by_hour": [[0.0] * LEVELS] * 23}, "no usable by_hour"),
        ({"high": [[math.inf] * LEVELS] * 3}, "no usable high"),
        ({"low": [[1e15] * LEVELS] * 3}, "limits that do not enclose the middle"),
        ({"durations": [4, 8, 29]}, "other durations"),
        ({"zone": 5}, "not a text: 5"),
        ({"zone": "Mars/Olympus"}, "'No time zone found with key Mars/Olympus'"),
        ({"zone": "Europe"}, None),
        ({"daily_jobs": 5}, "'int' object is not iterable"),
        (
            {"daily_jobs": [{"metric": "cpu", "begin": 0, "end": 9, "features": {"12": [0, 1]}}]},
            "a daily job of an unknown feature",
        ),
        (None, "not a JSON object: None"),
    ],
    ids=repr,
)
def test_damaged_habits_are_refused_in_one_line(
    damage: dict[str, Any] | None, fault: str | None, bundle_copy: Path
) -> None:
    path = bundle_copy.with_name("edge.json")
    identity = json.loads(path.read_text())
    identity["habits"] = damage and identity["habits"] | damage
    path.write_text(json.dumps(identity))
    with pytest.raises(UserError) as refused:
        load_bundle(bundle_copy)
    before, _, after = one_line(refused).partition(" (")
    assert before == f"{path}: has unusable contents"
    assert after.endswith(f"); {RESTORE.format(folder=bundle_copy.parent)}")
    if fault:
        assert after.startswith(f"{fault})")


@pytest.mark.parametrize(
    "left_out", [5, [5], [{"start": "2026-03-02T00:00:00Z"}], [{"start": "x", "end": "y"}]]
)
def test_stretches_that_are_no_times_are_refused_in_one_line(left_out: Any, bundle_copy: Path) -> None:
    path = bundle_copy.with_name("edge.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"left_out": left_out}))
    with pytest.raises(UserError, match=refusal(NO_IDENTITY.format(folder=bundle_copy.parent))):
        load_bundle(bundle_copy)


def test_a_bundle_knows_what_was_left_out(bundle_copy: Path) -> None:
    path = bundle_copy.with_name("edge.json")
    stretch = Stretch(parse_time("2026-03-02T12:00:00Z"), parse_time("2026-03-02T12:18:00Z"), ("cpu",))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"left_out": [stretch.to_json()]}))
    assert load_bundle(bundle_copy).left_out == ((stretch.start, stretch.end + 1),)


def test_a_twin_that_differs_from_the_model_is_not_saved_over_a_good_bundle(
    small: Any, bundle_copy: Path
) -> None:
    before = contents(bundle_copy.parent)
    # What cannot be compared does not agree.
    unknown = np.full((2, 3, 12), np.nan, dtype=np.float32)
    message = (
        f"{bundle_copy.with_suffix('.tflite')}: differs from the Keras model by nan, so nothing was saved;"
        " train on more records (--trainset) or for more --epochs"
    )
    with pytest.raises(UserError, match=refusal(message)):
        convert(small, bundle_copy, unknown)
    assert contents(bundle_copy.parent) == before


def test_what_a_training_makes_on_the_way_lies_beside_the_model(
    small: Any, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A training that is killed leaves what the next one removes, and nothing elsewhere.
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    inputs = np.random.default_rng(15).random((10, 3, 12), dtype=np.float32)
    save_bundle(small, convert(small, bundle_copy, inputs), bundle_copy, {}, {})
    assert sorted(contents(bundle_copy.parent)) == sorted(FILES)


def test_a_bundle_of_which_one_file_cannot_be_written_leaves_the_good_one_whole(
    small: Any, bundle_copy: Path
) -> None:
    before = contents(bundle_copy.parent)
    stats = json.loads(bundle_copy.with_name("edge_normalization_stats.json").read_text())
    # JSON has no NaN, so the statistics cannot be written.
    stats["cpu_user_rate_min"] = math.nan
    with pytest.raises((UserError, ValueError)):
        save_bundle(small, b"", bundle_copy, stats, {})
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
