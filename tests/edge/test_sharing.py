"""Many nodes trained together: what they share, what is their own, and that a fault of one stops no other."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge import network, sharing
from edge.bundle import load_bundle
from edge.datasets import load_records
from edge.networks import Networks, PartOfNetwork
from edge.scores import score_dataset
from edge.shared_network import networks_there, node_files
from edge.sharing import NodeTask, Outcome, train_nodes
from edge.thresholds import load_thresholds, read_proposals
from nodes.metrics import METRICS
from parallel.cluster import Cluster
from simulators.fleet import fleet
from tests.support.dask_cluster import dask_cluster

pytestmark = pytest.mark.long

START = 1_772_438_400.0  # 2026-03-02T08:00:00Z
HOUR = 3600
FIRST, QUIET, CONSTANT, NEW = (one.name for one in fleet(4, seed=1))


def write(folder: Path, place: int, hours: float, **levels: float) -> None:
    """The dataset of a simulated node, with some columns at a constant level."""
    one = fleet(4, seed=1)[place]
    frame = one.frame(START, hours * HOUR)
    for column, level in levels.items():
        frame[column] = level
    dataset = node_files(folder, one.name).trainset
    dataset.parent.mkdir(parents=True)
    frame.to_csv(dataset)


def task(folder: Path, name: str) -> NodeTask:
    """A node to train on all of its records."""
    return NodeTask(name, str(folder), learn_all=True)


@contextlib.contextmanager
def small_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(network, "UNITS", (16,))
        patch.setattr(sharing, "NODE_TRIES", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nodes that were trained together, except one that is new."""
    folder = tmp_path_factory.mktemp("nodes")
    write(folder, 0, 2)
    write(folder, 1, 2, dl_bytes=0.0, dl_bytes_rate=0.0)
    write(folder, 2, 2, **dict.fromkeys([*METRICS.features, *METRICS.stored], 1.0))
    write(folder, 3, 1)
    tasks = [task(folder, name) for name in (FIRST, QUIET, CONSTANT, "nowhere")]
    with small_network():
        outcomes = train_nodes(tasks, Cluster(1), 10)
    (folder / "outcomes.json").write_text(
        json.dumps({one.name: [one.fault, one.network] for one in outcomes})
    )
    return folder


def outcome(folder: Path, name: str) -> tuple[str, str]:
    """Why a node has no new model, and the network that it has."""
    return tuple(json.loads((folder / "outcomes.json").read_text())[name])


def test_nodes_that_are_trained_together_have_one_network_file(folder: Path) -> None:
    for ending in (".h5", ".tflite"):
        first, second = (
            os.stat(node_files(folder, name).model.with_suffix(ending)) for name in (FIRST, QUIET)
        )
        assert first.st_ino == second.st_ino
        assert first.st_nlink == 2
    assert outcome(folder, FIRST) == outcome(folder, QUIET)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(
        [FIRST, QUIET, CONSTANT, NEW]
    )


def test_each_node_has_its_own_statistics_means_and_thresholds(folder: Path) -> None:
    for name in (FIRST, QUIET):
        files = node_files(folder, name)
        metrics = METRICS if name == FIRST else METRICS.without(["net_5g_down"])
        bundle = load_bundle(files.model, METRICS)
        assert bundle.metrics == metrics
        records = load_records(files.trainset)[list(metrics.features)]
        low, high = records.min(), records.max()
        assert bundle.stats == {
            f"{feature}_{end}": of[feature]
            for feature in metrics.features
            for end, of in (("min", low), ("max", high))
        }
        # A tenth of the records is held out.
        assert bundle.means == pytest.approx(((records - low) / (high - low)).mean().to_numpy(), abs=0.06)
        (proposal,) = read_proposals(files.thresholds, metrics)
        assert proposal.values == load_thresholds(files.thresholds, metrics)
        assert proposal.model == bundle.identity == outcome(folder, name)[1]
    first, second = (load_thresholds(node_files(folder, name).thresholds) for name in (FIRST, QUIET))
    assert first["cpu_threshold"] != second["cpu_threshold"]


def test_a_node_that_lacks_a_metric_is_predicted_with_that_at_its_mean(folder: Path) -> None:
    networks = Networks()
    first, quiet = (load_bundle(node_files(folder, name).model, networks=networks) for name in (FIRST, QUIET))
    assert isinstance(quiet.predictor, PartOfNetwork)
    place = first.features.index("dl_bytes_rate")
    mean = json.loads(node_files(folder, QUIET).model.with_suffix(".json").read_text())["network"]["means"]
    records = np.random.default_rng(1).random((5, 3, 12)).astype(np.float32)
    records[:, :, place] = mean["dl_bytes_rate"]
    expected = np.delete(first.predictor(records), place, axis=1)
    assert np.array_equal(quiet.predictor(np.delete(records, place, axis=2)), expected)


def test_bundles_with_one_network_have_one_predictor(folder: Path) -> None:
    networks = Networks()
    first, again = (load_bundle(node_files(folder, FIRST).model, networks=networks) for _ in range(2))
    assert first.predictor is again.predictor
    assert load_bundle(node_files(folder, FIRST).model).predictor is not first.predictor


def test_nodes_that_cannot_be_trained_are_named_and_the_others_go_on(folder: Path) -> None:
    dataset = node_files(folder, CONSTANT).trainset
    assert outcome(folder, CONSTANT) == (
        f"{dataset} has the constant value 1 for cpu_user_percentage, which cannot be learnt; collect a"
        " longer time in which it changes",
        "",
    )
    missing = node_files(folder, "nowhere").trainset
    assert outcome(folder, "nowhere") == (f"{missing}: no such file; check the path", "")
    assert not node_files(folder, CONSTANT).model.exists()


def train_new(folder: Path, name: str) -> Outcome:
    """Train a node with the network that is there; nothing may be fitted."""
    (there,) = networks_there(folder, [name], 15.0)
    with small_network(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "fitted", None)
        (found,) = train_nodes([task(folder, name)], Cluster(1), None, [there])
    return found


def test_a_node_with_an_hour_of_records_gets_the_network_that_is_there(folder: Path) -> None:
    found = train_new(folder, NEW)
    assert (found.fault, found.network) == outcome(folder, FIRST)
    files = node_files(folder, NEW)
    assert os.stat(files.model).st_ino == os.stat(node_files(folder, FIRST).model).st_ino
    bundle = load_bundle(files.model)
    values = load_records(files.trainset)["mem_percentage"]
    assert bundle.stats["mem_percentage_min"] == values.min()
    assert bundle.stats["mem_percentage_max"] == values.max()
    assert bundle.habits is not None
    # The thresholds of the first day are twice what one in a hundred of its windows exceeds.
    window = score_dataset(bundle, load_records(files.trainset)).window
    assert load_thresholds(files.thresholds)["mem_threshold"] == pytest.approx(
        2 * np.nanpercentile(window[:, list(METRICS).index("mem")], 99), abs=1e-6
    )
    # What a person sets stays.
    given = json.loads(files.thresholds.read_text())
    files.thresholds.write_text(json.dumps({**given, "mem_threshold": 0.7}))
    train_new(folder, NEW)
    assert json.loads(files.thresholds.read_text()) == {**given, "mem_threshold": 0.7}


def test_a_worker_of_a_dask_cluster_trains_a_node_as_this_process_does(folder: Path, tmp_path: Path) -> None:
    for place in ("here", "there"):
        shutil.copytree(folder / NEW, tmp_path / place / NEW, ignore=shutil.ignore_patterns("model*", "thr*"))
    networks = networks_there(folder, [NEW], 15.0)
    (here,) = train_nodes([task(tmp_path / "here", NEW)], Cluster(1), None, networks)
    with dask_cluster(1, tmp_path) as address:
        (there,) = train_nodes([task(tmp_path / "there", NEW)], Cluster(1, address), None, networks)
    assert (here.fault, there.fault) == ("", "")
    # What its log would have said comes back, with the paths of its own files.
    reworded = [(level, line.replace("/here/", "/there/")) for level, line in here.notes]
    assert list(there.notes) == reworded
    assert reworded
    for name in ("model.json", "model_normalization_stats.json", "thresholds.json"):
        written, expected = (tmp_path / place / NEW / name for place in ("there", "here"))
        assert written.read_bytes() == expected.read_bytes()


def test_a_mistake_of_ours_is_a_fault_of_one_node(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "prepare", None)
    (found,) = train_nodes([task(folder, NEW)], Cluster(1), None, networks_there(folder, [NEW], 15.0))
    assert found.fault == (
        "it cannot be read or learnt (TypeError(\"'NoneType' object is not callable\")); report this line"
    )


def test_a_network_for_records_further_apart_does_not_count(folder: Path) -> None:
    assert networks_there(folder, [], 30.0) == []
    assert networks_there(folder / "nowhere", [], 15.0) == []
