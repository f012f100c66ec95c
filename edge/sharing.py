"""One network for many nodes, each with statistics, habits and thresholds of its own: docs/sharing.md.

Some nodes teach a network. All nodes whose metrics it has get it, as links to one file; those with other
metrics teach the next one. A node that is new gets a network that is there, and nothing is fitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.files import UserError, read_file, working_folder
from edge import network
from edge.bundle import Predictor, bundle_paths, convert, link_bundle, trained_by
from edge.changes import measure
from edge.datasets import load_records
from edge.defaults import DEFAULT_PERCENTILE
from edge.evaluation import load_attacks
from edge.gathered import taking_notes
from edge.networks import NETWORK_BYTES, PartOfNetwork
from edge.recording import outside
from edge.sensitivity import describe_blind
from edge.sequences import N_STEPS
from edge.shared_network import MODEL_NAME, NodeFiles, SharedNetwork, node_files
from edge.thresholds import check_thresholds_files, load_thresholds, propose_thresholds, update_thresholds
from edge.training import (
    bundle_and_scores,
    check_learnt,
    enough_epochs,
    fitted,
    forecast_rmse,
    identity_of,
)
from edge.training_set import ENOUGH_SECONDS, TrainingSet, prepare
from edge.unlearnt import NOTHING_UNLEARNT, Unlearnt
from nodes.metrics import METRICS, MetricTable
from nodes.series import RECORD_SECONDS
from parallel.cluster import Cluster, in_parallel

logger = logging.getLogger("find_anomalies")

# So many nodes teach a network at most, and all of them together with so many sequences: three days of one.
MOST_TEACHERS = 32
SHARED_SEQUENCES = 17_280
# What it would miss is tried less often than for a single node, where that is a tenth of the training.
NODE_TRIES = 10
# Thresholds from less than a day are so many times higher: half as many false alerts, for few attacks missed.
FIRST_DAY_FACTOR = 2.0


@dataclass(frozen=True)
class NodeTask:
    """A node to train. sequences: with how many it teaches. shared: the network that it gets."""

    name: str
    nodes_dir: str
    metrics: MetricTable = METRICS
    interval_seconds: float = RECORD_SECONDS
    learn_all: bool = False
    zone: str = "UTC"
    unlearnt: Unlearnt = NOTHING_UNLEARNT
    percentile: float = DEFAULT_PERCENTILE
    sequences: int = 0
    shared: SharedNetwork | None = None

    @property
    def files(self) -> NodeFiles:
        """Its files."""
        return node_files(self.nodes_dir, self.name)


@dataclass(frozen=True)
class Lesson:
    """What a node teaches: inputs (n, steps, features), targets (n, features); from `split` on, held out."""

    metrics: MetricTable
    inputs: np.ndarray
    targets: np.ndarray
    split: int


@dataclass(frozen=True)
class Outcome:
    """What became of a node.

    notes: lines for the log, and their levels. network: SHA-256 of the one that it has now. fault: why it has
    no new model. lacking: metrics that the network has not learnt.
    """

    name: str
    notes: tuple[tuple[int, str], ...] = ()
    network: str = ""
    fault: str = ""
    lacking: tuple[str, ...] = ()
    lesson: Lesson | None = field(default=None, repr=False)


def train_nodes(
    tasks: Sequence[NodeTask], cluster: Cluster, epochs: int | None, there: Sequence[SharedNetwork] = ()
) -> list[Outcome]:
    """Train nodes, and write what belongs to each into its folder; returns what became of each, by name.

    epochs: None for as many as enough_epochs() says. there: networks that nodes may have; without any, the
    nodes teach one. A node that cannot be trained keeps what it has, and the others go on.
    """
    done: list[Outcome] = []
    groups: dict[str, list[NodeTask]] = {}
    for task in tasks:
        groups.setdefault(repr(task.metrics.description), []).append(task)
    for waiting in groups.values():
        if there:
            shared = min(there, key=lambda one: len(one.lacks(waiting[0].metrics)))
            done += _finish_all(waiting, shared, cluster)
            continue
        while waiting:
            found, waiting = _taught(waiting, cluster, epochs)
            done += found
    return sorted(done, key=lambda one: one.name)


# --- teaching ------------------------------------------------------------------------------------


def _taught(
    tasks: Sequence[NodeTask], cluster: Cluster, epochs: int | None
) -> tuple[list[Outcome], list[NodeTask]]:
    """Teach a network, and give it to the nodes whose metrics it has; returns them, and which are left."""
    places = np.unique(np.linspace(0, len(tasks) - 1, min(len(tasks), MOST_TEACHERS)).astype(int))
    teachers = [replace(tasks[place], sequences=SHARED_SEQUENCES // len(places)) for place in places]
    outcomes = {
        one.name: one for one in in_parallel(lesson_of, teachers, len(teachers), cluster, "preparing", "node")
    }
    failed = [one for one in outcomes.values() if one.fault]
    lessons = [outcomes[task.name].lesson for task in teachers if outcomes[task.name].lesson]
    left = [task for task in tasks if task.name not in {one.name for one in failed}]
    if not lessons:
        return failed, left
    # A node in which a metric never changes has fewer; it cannot teach the others.
    most = max((lesson.metrics for lesson in lessons), key=len)
    lessons = [lesson for lesson in lessons if lesson.metrics == most]
    with working_folder(Path(tasks[0].nodes_dir, "network")) as folder:
        try:
            shared = _teach(lessons, folder / MODEL_NAME, epochs)
        except UserError as error:
            fault = str(error).replace("the training set (--trainset)", "the training sets")
            return failed + [Outcome(task.name, fault=fault) for task in left], []
        found = _finish_all(left, shared, cluster)
    lacking = {one.name for one in found if one.lacking}
    return failed + [one for one in found if not one.lacking], [t for t in left if t.name in lacking]


def lesson_of(task: NodeTask) -> Outcome:
    """What a node teaches: some of its sequences, from all of its recording."""
    with taking_notes(_reworded(task)) as (notes, faults):
        prepared = _prepared(task)
    if faults:
        return Outcome(task.name, tuple(notes), fault=_reworded(task)(str(faults[0])))
    count, held = len(prepared.inputs), len(prepared.inputs) - prepared.split
    share = min(task.sequences / count, 1.0)
    places = np.concatenate(
        [
            np.linspace(0, prepared.split - 1, int(prepared.split * share)).astype(int),
            np.linspace(prepared.split, count - 1, int(held * share)).astype(int),
        ]
    )
    lesson = Lesson(
        prepared.metrics, prepared.inputs[places], prepared.targets[places], int(prepared.split * share)
    )
    return Outcome(task.name, lesson=lesson)


def _teach(lessons: Sequence[Lesson], model_filename: Path, epochs: int | None) -> SharedNetwork:
    """Fit a network on lessons, and write it. Raises UserError if it has learnt nothing."""
    inputs, targets = (
        np.concatenate(
            [part(one)[: one.split] for one in lessons] + [part(one)[one.split :] for one in lessons]
        )
        for part in (lambda one: one.inputs, lambda one: one.targets)
    )
    split = sum(one.split for one in lessons)
    metrics = lessons[0].metrics
    logger.info("fitting a network to %d sequences of %d nodes", len(inputs), len(lessons))
    model, _ = fitted(inputs, targets, enough_epochs(split) if epochs is None else epochs, split, 1)
    check_learnt(forecast_rmse(lambda given: network.predict(model, given), inputs, targets, split, metrics))
    paths = bundle_paths(model_filename)
    paths.litert.write_bytes(convert(model, model_filename, inputs[-2000:]))
    model.save(model_filename, include_optimizer=False)
    means = targets[:split].mean(axis=0).astype(float).round(6)
    return SharedNetwork(
        str(model_filename),
        metrics.description,
        dict(zip(metrics.features, means.tolist(), strict=True)),
        trained_by(),
    )


# --- each node -----------------------------------------------------------------------------------


def _finish_all(tasks: Sequence[NodeTask], shared: SharedNetwork, cluster: Cluster) -> list[Outcome]:
    chosen = (replace(task, shared=shared) for task in tasks)
    return list(in_parallel(finish, chosen, len(tasks), cluster, "training", "node"))


def finish(task: NodeTask) -> Outcome:
    """Write the bundle and the thresholds of a node that has the shared network of its task."""
    lacking: list[str] = []
    checksum = ""
    with taking_notes(_reworded(task)) as (notes, faults):
        prepared = _prepared(task)
        lacking = task.shared.lacks(prepared.metrics)
        if not lacking:
            check_thresholds_files(task.files.thresholds, prepared.metrics)
            checksum = _write(task, prepared)
    fault = _reworded(task)(str(faults[0])) if faults else ""
    if lacking:
        fault = f"the network has not learnt {', '.join(lacking)}; train with --node all"
    return Outcome(task.name, tuple(notes), checksum, fault, tuple(lacking))


def _write(task: NodeTask, prepared: TrainingSet) -> str:
    files, shared, metrics = task.files, task.shared, prepared.metrics
    predictor = Predictor(read_file(bundle_paths(shared.model).litert, NETWORK_BYTES))
    if list(shared.means) != list(metrics.features):
        predictor = PartOfNetwork(predictor, metrics.features, shared.means)
    bundle, scores = bundle_and_scores(prepared, predictor)
    report = forecast_rmse(predictor, prepared.inputs, prepared.targets, prepared.split, metrics)
    if report["overall"]["network"] > report["overall"]["training_mean"]:
        logger.warning("the shared network predicts it worse than the mean of its records")
    curves = measure(bundle, prepared.learnt, prepared.times, prepared.held_records, tries=NODE_TRIES)
    identity = {
        **identity_of(prepared, bundle, report, curves),
        "network": {"metrics": shared.metrics, "means": shared.means},
        "versions": shared.versions,
    }
    checksum = link_bundle(shared.model, files.model, prepared.stats, identity)
    is_learnt = outside(prepared.times, bundle.left_out)
    learnt = replace(scores, window=np.where(is_learnt[:, None], scores.window, np.nan))
    proposed = propose_thresholds(None, None, learnt, task.percentile)
    if len(prepared.times) * task.interval_seconds < ENOUGH_SECONDS:
        proposed = {key: round(FIRST_DAY_FACTOR * value, 6) for key, value in proposed.items()}
    update_thresholds(files.thresholds, proposed, checksum, metrics)
    if line := describe_blind(curves, load_thresholds(files.thresholds, metrics), metrics):
        logger.warning("%s", line)
    return checksum


def _prepared(task: NodeTask) -> TrainingSet:
    """The node's training set. Raises UserError if it cannot be learnt from."""
    trainset = task.files.trainset
    frame = load_records(trainset, task.interval_seconds, task.metrics)
    return prepare(
        frame,
        N_STEPS,
        task.interval_seconds,
        task.metrics,
        excluded=load_attacks(trainset),
        learn_all=task.learn_all,
        zone=task.zone,
        unlearnt=task.unlearnt,
    )


def _reworded(task: NodeTask) -> Callable[[str], str]:
    """A node's training set is not that of --trainset."""
    return lambda text: text.replace("the training set (--trainset)", str(task.files.trainset))
