"""The thresholds file that people edit, and the record of values that this program proposed."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.files import UserError, is_there, loadDictJson, saveDictJson, shortened
from common.values import is_number
from edge.bundle import Bundle
from edge.scores import Scores
from nodes.metrics import CPU_ATTACK, IPERF_ATTACK, METRICS, OVERALL, MetricTable

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.1


def load_thresholds(filename: str | Path, metrics: MetricTable = METRICS) -> dict[str, float]:
    """Read a thresholds file; a missing key gets DEFAULT_THRESHOLD, with a warning in the log.

    Raises UserError, naming file and key, for an unknown key or a value that is not a number of 0 or more.
    """
    given = read_thresholds(filename, metrics)
    missing = [key for key in metrics.threshold_keys.values() if key not in given]
    if missing:
        logger.warning("%s: has no %s; %s is used", filename, ", ".join(missing), DEFAULT_THRESHOLD)
    return {key: given.get(key, DEFAULT_THRESHOLD) for key in metrics.threshold_keys.values()}


def read_thresholds(filename: str | Path, metrics: MetricTable = METRICS) -> dict[str, float]:
    """The thresholds in a file, checked as load_thresholds does."""
    given = loadDictJson(filename)
    _check_thresholds(filename, given, metrics)
    return given


def check_thresholds_files(filename: str | Path, metrics: MetricTable = METRICS) -> None:
    """Raise UserError if a thresholds file, or what is remembered beside it, cannot be used later."""
    if is_there(filename):
        read_thresholds(filename, metrics)
    read_proposals(filename, metrics)


def _check_thresholds(filename: str | Path, given: dict[str, Any], metrics: MetricTable) -> None:
    keys = metrics.known_threshold_keys
    for key, value in given.items():
        if key not in keys:
            raise UserError(f"{filename}: unknown key {shortened(repr(key))}; the keys are {', '.join(keys)}")
        if not is_number(value) or value < 0:
            raise UserError(
                f"{filename}: {key} is {shortened(json.dumps(value))}; it must be a number, 0 or more"
            )


def propose_thresholds(
    cpu: Scores | None, iperf: Scores | None, normal: Scores, percentile: float
) -> dict[str, float]:
    """Thresholds: the given percentile of the window RMSEs, over the datasets that may count for each.

    The iperf attack does not affect the CPU, and the CPU attack does not affect the network; the table of
    metrics says so. `overall` pools all three datasets. A dataset that is None is left out.
    """
    attacks = {IPERF_ATTACK: iperf, CPU_ATTACK: cpu}
    proposed = {}
    for index, (name, key) in enumerate(normal.metrics.threshold_keys.items()):
        unaffected_by = None if name == OVERALL else normal.metrics[name].unaffected_by
        pooled = [
            normal,
            *(scores for attack, scores in attacks.items() if scores is not None and attack != unaffected_by),
        ]
        errors = np.concatenate([scores.window[:, index] for scores in pooled])
        proposed[key] = round(float(np.percentile(errors[np.isfinite(errors)], percentile)), 6)
    return proposed


def update_thresholds(
    filename: str | Path,
    proposed: dict[str, float],
    model: str | None = None,
    metrics: MetricTable = METRICS,
) -> list[str]:
    """Write `proposed` into a thresholds file, except over values that a person set; returns their keys.

    model: identity of the bundle that they were proposed for. What this program wrote is remembered beside
    the file: a value that still equals it is refreshed; any other was set by a person and stays.
    """
    given, before = _given(filename, metrics), read_proposals(filename, metrics)
    by_person = _set_by_person(given, before, metrics)
    standing = {key: value for key, value in given.items() if key not in by_person}
    newest = Proposal(model, proposed)
    if standing:
        # If this is interrupted, the values in the file are still known to be this program's.
        origins = [_origin(key, value, before) for key, value in standing.items()]
        _save_proposals(filename, newest, *(one for one in before if one in origins))
    else:
        _save_proposals(filename, newest)
    keys = metrics.threshold_keys.values()
    absent = {key: value for key, value in given.items() if key not in keys}
    saveDictJson({key: (given if key in by_person else proposed)[key] for key in keys} | absent, filename)
    if standing:
        _save_proposals(filename, newest)
    return by_person


def compare_thresholds(
    filename: str | Path, metrics: MetricTable = METRICS
) -> tuple[dict[str, float], list[str]]:
    """The values that this program proposed last for a thresholds file, and the keys that a person set."""
    proposals = read_proposals(filename, metrics)
    by_person = _set_by_person(_given(filename, metrics), proposals, metrics)
    return proposals[0].values if proposals else {}, by_person


def fill_thresholds(filename: str | Path, metrics: MetricTable = METRICS) -> list[str]:
    """Write DEFAULT_THRESHOLD for the keys that are missing in a thresholds file; returns these keys."""
    given = _given(filename, metrics)
    keys = metrics.threshold_keys.values()
    missing = {key: DEFAULT_THRESHOLD for key in keys if key not in given}
    if missing:
        # A default belongs to no model.
        _save_proposals(filename, *read_proposals(filename, metrics), Proposal(None, missing))
        saveDictJson({**given, **missing}, filename)
    return list(missing)


def _given(filename: str | Path, metrics: MetricTable) -> dict[str, float]:
    return read_thresholds(filename, metrics) if is_there(filename) else {}


@dataclass(frozen=True)
class Proposal:
    """Thresholds that this program wrote. model: identity of their bundle, None if it is not known."""

    model: str | None
    values: dict[str, float]


def proposals_path(filename: str | Path) -> Path:
    """The file that remembers the proposals: `thresholds.proposed.json` beside `thresholds.json`."""
    return Path(f"{os.path.splitext(filename)[0]}.proposed.json")


def read_proposals(filename: str | Path, metrics: MetricTable = METRICS) -> list[Proposal]:
    """What this program wrote into a thresholds file, newest first; empty if nothing is remembered.

    Earlier proposals are remembered only while the file is being replaced; filled-in defaults come last.
    Raises UserError with a remedy.
    """
    path = proposals_path(filename)
    if not is_there(path):
        return []
    try:
        content = loadDictJson(path)
        if content.keys() <= set(metrics.threshold_keys.values()):
            # It was written before models were remembered.
            content = {"proposed": content}
        proposals = []
        while content is not None:
            proposals.append(_proposal(path, content, metrics))
            content = content.get("before")
    except UserError as error:
        raise UserError(
            f"{error}, or delete the file: all thresholds then count as set by a person"
        ) from None
    return proposals


def _proposal(path: Path, content: Any, metrics: MetricTable) -> Proposal:
    model = content.get("model") if isinstance(content, dict) else None
    values = content.get("proposed") if isinstance(content, dict) else None
    if not isinstance(values, dict) or not isinstance(model, str | None):
        raise UserError(f"{path}: has no proposed thresholds; restore it")
    _check_thresholds(path, values, metrics)
    return Proposal(model, values)


def _save_proposals(filename: str | Path, *proposals: Proposal) -> None:
    """Save proposals in the order in which read_proposals returns them."""
    content: dict[str, Any] = {}
    for one in reversed(proposals):
        before = {"before": content} if content else {}
        content = {"model": one.model, "proposed": one.values, **before}
    saveDictJson(content, proposals_path(filename))


def _set_by_person(given: dict[str, float], proposals: list[Proposal], metrics: MetricTable) -> list[str]:
    keys = metrics.threshold_keys.values()
    return [key for key in keys if key in given and not _origin(key, given[key], proposals)]


def _origin(key: str, value: float, proposals: list[Proposal]) -> Proposal | None:
    """The proposal that a threshold comes from; None for one that a person set."""
    return next((one for one in proposals if one.values.get(key) == value), None)


def describe_foreign(
    filename: str | Path,
    thresholds: dict[str, float],
    proposals: list[Proposal],
    bundle: Bundle,
    model_filename: str | Path,
) -> str | None:
    """One line that warns of thresholds in force that were proposed for another model; None without any."""
    keys = bundle.metrics.threshold_keys.values()
    origins = {key: _origin(key, thresholds[key], proposals) for key in keys}
    models = {key: origin.model for key, origin in origins.items() if origin}
    foreign = [key for key, model in models.items() if model and bundle.identity not in ("", model)]
    if not foreign:
        return None
    named = "all" if len(foreign) == len(keys) else ", ".join(foreign)
    return (
        f"{filename}: has thresholds that were proposed for another model than {model_filename} ({named});"
        " run --mode train --evaluate, or set them by hand"
    )
