"""The command that looks into a database and prints a node file for what is there."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from commands.options import SERVER_GROUPS, TRAIN, options_of, words_for
from commands.stores import surveyor
from common.files import UserError, is_there, loadDictJson, saveDictJson
from common.times import format_time
from nodes.recognition import Recognition, recognise
from nodes.stacks import Stack, load_stacks, pinned_tags_of, wanted_series
from nodes.survey import SURVEY_SECONDS, Survey, Surveyor, describe_others, example_metric

# More of a line says nothing to a person.
LINE_LETTERS = 500


def run_describe(options: argparse.Namespace) -> None:
    """Run --mode describe: the node file goes to --output or standard output, remarks to standard error."""
    if options.output and is_there(options.output):
        raise UserError(f"{options.output} is there already, and may be edited; give --output another name")
    pins = _read_pins(options.node_file) if options.node_file else {}
    looker = surveyor(options)
    try:
        survey, recognition = look(looker, load_stacks(), pins)
        if not survey.measurements:
            raise UserError(looker.why_empty())
    except looker.errors as error:
        raise UserError(looker.describe_error(error)) from None
    lines = [*recognition.remarks, *recognition.choices]
    if (newest := survey.newest) and time.time() - newest / 1e9 > SURVEY_SECONDS:
        lines.append(f"the newest sample is of {format_time(newest)}; check that samples still come")
    if others := describe_others(survey, recognition.used):
        lines += ["what else is there:", *(f"  {line}" for line in others)]
    for line in lines:
        _print_remark(line)
    if not recognition.node:
        raise UserError(f"{looker.place} has no current samples of a stack that is known; {_by_hand(survey)}")
    if options.output:
        saveDictJson(recognition.node, options.output)
        _print_remark(f"{options.output} was written")
        _print_remark(_next_command(options))
    else:
        print(json.dumps(recognition.node, indent=2))


def _next_command(options: argparse.Namespace) -> str:
    """What to type next, with where the samples are; a password is not repeated."""
    places = {
        option.name: getattr(options, option.name)
        for option in options_of(TRAIN)
        if option.group in SERVER_GROUPS and not option.name.endswith("_pass")
    }
    words = ["--mode", "train", "--evaluate", "--node_file", options.output, "--since", "3d"]
    words += words_for(TRAIN, places)
    return f"next: python find_anomalies.py {shlex.join(words)}"


def look(looker: Surveyor, stacks: Sequence[Stack], pins: Mapping[str, Any]) -> tuple[Survey, Recognition]:
    """What a database holds, and what that makes of the stacks. pins: as in recognise()."""
    wanted = wanted_series(stacks)
    survey = looker.survey(wanted, {})
    if not survey.cut:
        return survey, recognise(survey, stacks, pins)
    # There are too many series to read all, so only those of one node are read.
    first = recognise(survey, stacks) if not pins else Recognition(pinned=pinned_tags_of(stacks, pins))
    survey = looker.survey(wanted, first.pinned)
    recognition = recognise(survey, stacks, pins)
    recognition.choices = first.choices or recognition.choices
    return survey, recognition


def _read_pins(filename: str) -> dict[str, Any]:
    """What a node file chooses among several: its cell, instances and tags. Raises UserError."""
    pins = {}
    for key, value in loadDictJson(filename).items():
        is_tags = key.endswith("_tags")
        if not (is_tags or key == "cell_id" or key.endswith("_instance")) or value is None:
            continue
        texts = value.values() if is_tags and isinstance(value, dict) else [value]
        if is_tags != isinstance(value, dict) or not all(isinstance(text, str) for text in texts):
            example = '{"job": "node"}' if is_tags else '"2"' if key == "cell_id" else '"edge:9100"'
            raise UserError(f"{filename}: '{key}' must be like {example}")
        pins[key] = value
    return pins


def _by_hand(survey: Survey) -> str:
    """How to describe a metric of what is there by hand."""
    example = example_metric(survey)
    if example is None:
        return "nothing else that is shown is a number"
    return f"describe the metrics by hand (docs/describe.md), like {json.dumps({'metrics': example})}"


def _print_remark(line: str) -> None:
    # Names in a database are chosen by others.
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    print(shown if len(shown) <= LINE_LETTERS else f"{shown[:LINE_LETTERS]}...", file=sys.stderr)
