"""The command that trains: the model of one node, or those of many nodes that share a network."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from commands.collect import collect_first
from commands.collect_nodes import collect_nodes
from commands.fleet import nodes_with_folder, selected_nodes
from common.answers import Answer, load_answers
from common.calendars import Window, load_windows
from common.files import UserError, is_there
from edge import evaluation, sharing
from edge.bundle import bundle_paths, check_model_name, load_bundle
from edge.gathered import GatheredNotices
from edge.paths import cpu_testset, iperf_testset, plots_prefix
from edge.sensitivity import describe_blind
from edge.sequences import N_STEPS
from edge.shared_network import networks_there
from edge.thresholds import DEFAULT_THRESHOLD, check_thresholds_files, fill_thresholds, load_thresholds
from edge.training import train
from edge.unlearnt import Unlearnt
from nodes.fleet import Named
from nodes.metrics import METRICS, MetricTable
from nodes.names import ALL_NODES
from nodes.node import load_node
from parallel.cluster import Cluster
from service.answer_files import EDGE

logger = logging.getLogger("find_anomalies")


def run_train(options: argparse.Namespace) -> None:
    """Run --mode train: train the network, and set or propose thresholds; or train many nodes."""
    if options.node:
        train_nodes(options, selected_nodes(options) if options.since else nodes_with_folder(options))
        return
    metrics = load_node(options.node_file).metrics
    check_thresholds_files(options.thresholds_file, metrics)
    check_model_name(options.model)
    taken = (bundle_paths(options.model).identity, bundle_paths(options.model).stats)
    if options.node_file and os.path.realpath(options.node_file) in map(os.path.realpath, taken):
        raise UserError(
            f"{options.node_file}: the model {options.model} has a file of this name; rename one of them"
        )
    for folder in (Path(options.model).parent, Path(options.thresholds_file).parent, Path(plots_prefix)):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: cannot be written to; change its permissions, or name another file")
    if options.since:
        collect_first(options)
    testsets = _testsets(options, metrics) if options.evaluate else ()
    for name in filter(None, testsets):
        evaluation.load_attacks(name)
    excluded = evaluation.load_attacks(options.trainset)
    evaluation.warn_of_names(options.trainset)
    datasets = evaluation.load_datasets(testsets, options.trainset, options.interval, metrics)
    *_, (_, frame) = datasets.values()
    unlearnt = Unlearnt.of("", *_answers(options), options.timezone)
    train(
        frame,
        N_STEPS,
        len(metrics.features),
        train_epochs=options.epochs,
        model_filename=options.model,
        interval_seconds=options.interval,
        metrics=metrics,
        excluded=excluded,
        learn_all=options.learn_all,
        zone=options.timezone,
        unlearnt=unlearnt,
    )
    if options.evaluate:
        evaluation.evaluate_datasets(
            options.thresholds_file,
            testsets,
            datasets,
            options.model,
            options.threshold_percentile,
            metrics=metrics,
            unlearnt=unlearnt,
        )
        return
    bundle = load_bundle(options.model, metrics)
    if filled := fill_thresholds(options.thresholds_file, bundle.metrics):
        print(
            f"{options.thresholds_file}: {', '.join(filled)} set to {DEFAULT_THRESHOLD};"
            " --evaluate proposes better ones"
        )
    else:
        print(f"{options.thresholds_file} is unchanged; --evaluate proposes thresholds for this model")
    thresholds = load_thresholds(options.thresholds_file, bundle.metrics)
    if line := describe_blind(bundle.curves, thresholds, bundle.metrics):
        logger.warning("%s", line)


def _answers(options: argparse.Namespace) -> tuple[tuple[Answer, ...], tuple[Window, ...]]:
    """What people said of incidents, and the windows of the calendar."""
    windows = load_windows(options.calendar) if options.calendar else ()
    return load_answers(options.answers_file, EDGE), windows


def _testsets(options: argparse.Namespace, metrics: MetricTable) -> tuple[str | None, str | None]:
    """The recorded attacks on the CPU and with iperf; None for one that this node does not have."""
    return (
        options.cpu_testset or _shipped_testset("cpu_testset", cpu_testset, metrics),
        options.iperf_testset or _shipped_testset("iperf_testset", iperf_testset, metrics),
    )


def _shipped_testset(option: str, shipped: str, metrics: MetricTable) -> str | None:
    """The test set that counts if a person names none; None, and a line in the log, if it is of no use."""
    if not set(metrics) <= set(METRICS):
        why = "its metrics are the documented ones, not those of --node_file"
    elif not is_there(shipped):
        why = "there is no such file"
    else:
        return shipped
    logger.info("%s: plays no part, since %s; --%s names another", shipped, why, option)
    return None


def train_nodes(options: argparse.Namespace, nodes: Sequence[Named]) -> None:
    """Train many nodes: each gets its own statistics, habits and thresholds, and a network that others have.

    All nodes teach a network; those that are named get the one of the other nodes, if there is one. A node
    that cannot be trained keeps what it has. Raises UserError in the end, if there is any.
    """
    faults = collect_nodes(options, nodes, adds=True) if options.since else {}
    names = [one.name for one in nodes]
    answers, windows = _answers(options)
    tasks = [
        sharing.NodeTask(
            one.name,
            options.nodes_dir,
            one.node.metrics,
            options.interval,
            options.learn_all,
            options.timezone,
            Unlearnt.of(one.name, answers, windows, options.timezone),
        )
        for one in nodes
        if one.name not in faults
    ]
    there = [] if ALL_NODES in options.node else networks_there(options.nodes_dir, names, options.interval)
    cluster = Cluster(options.jobs, options.scheduler)
    networks, gathered = set(), GatheredNotices()
    for outcome in sharing.train_nodes(tasks, cluster, options.epochs, there):
        for level, line in outcome.notes:
            gathered.add(outcome.name, level, line)
        if outcome.fault:
            faults[outcome.name] = outcome.fault
            gathered.add(outcome.name, logging.ERROR, outcome.fault)
        else:
            networks.add(outcome.network)
    gathered.log()
    share = ""
    if networks:
        is_one = len(networks) == 1
        before = f" that {'was' if is_one else 'were'} there before" * bool(there)
        share = f"; they share {len(networks)} network{'s' * (not is_one)}{before}"
    print(f"{options.nodes_dir}: {len(nodes) - len(faults)} of {len(nodes)} nodes were trained{share}")
    if faults:
        raise UserError(f"{len(faults)} of {len(nodes)} nodes could not be trained; the log says why")
