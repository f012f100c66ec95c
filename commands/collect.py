"""The command that collects: stretches of the history of a node, or of many, become datasets to train on."""

from __future__ import annotations

import argparse
import shlex

from commands.collect_nodes import run_collect_nodes
from commands.collect_one import short_lines, write_collected
from commands.options import TRAIN, words_for
from commands.stores import edge_source
from common.files import UserError, is_there
from edge.source import SampleSource
from nodes.node import Node, load_node


def run_collect(options: argparse.Namespace) -> None:
    """Run --mode collect: write stretches of a node's history as a dataset, or add them to one.

    With --node, each node's dataset is in its folder.
    """
    if options.node:
        run_collect_nodes(options)
        return
    if not options.output:
        raise UserError("--mode collect needs --output FILE.csv")
    count, lines = write_collected(
        options,
        *_one_node(options),
        options.output,
        options.stretch,
        options.leave_out,
        options.add,
        options.plot,
    )
    print(*lines, sep="\n")
    _print_next(options, count * options.interval)


def collect_first(options: argparse.Namespace) -> None:
    """Write the newest --since of the history as the training set, for --mode train."""
    if is_there(options.trainset):
        raise UserError(
            f"{options.trainset}: is there already; name a new file with --trainset, or train without --since"
        )
    _, lines = write_collected(options, *_one_node(options), options.trainset)
    print(*lines, sep="\n")


def _one_node(options: argparse.Namespace) -> tuple[Node, SampleSource]:
    node = load_node(options.node_file)
    return node, edge_source(options, node)


def _print_next(options: argparse.Namespace, seconds: float) -> None:
    """Print what to do with a dataset of so many seconds."""
    for line in short_lines(seconds):
        print(line)
    values = {"trainset": options.output, "interval": options.interval, "node_file": options.node_file}
    words = ["--mode", "train", "--evaluate", *words_for(TRAIN, values)]
    print(f"next: python find_anomalies.py {shlex.join(words)}")
