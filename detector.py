"""Window, RMSE, thresholds, causes, alerts: the one place that decides what is an anomaly.

A record is an anomaly when, for some metric or for all together, both hold:

- the RMSE over the window's predictions is above the threshold (something is wrong lately), and
- the record's own RMSE is above RECORD_FACTOR times the threshold (it is wrong now).

The second keeps one spike from flagging the 26 records after it. It needs a factor because a threshold
is made for RMSEs over a window and single records spread wider: the surprises of normal life (a UE that
attaches, a burst of traffic) reach about 4 thresholds, attacks tens to hundreds.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoencoder import Bundle

# Whoever reads verdicts finds their statuses here.
from common.alerts import (  # noqa: F401
    ALERT,
    ALERT_RECORDS,
    ANOMALY,
    NORMAL,
    UNKNOWN,
    WINDOW_RECORDS,
    Row,
)
from common.files import UserError, is_there, loadDictJson, saveDictJson, shown
from store import mapping, number, whole
from utils import (
    ANOMALY_FIELDS,
    METRICS,
    N_STEPS,
    RECORD_SECONDS,
    feature_ranges,
    format_time,
    getAnomalyColumns,
    metric_square_errors,
    normalize,
    split_sequences,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.1
RECORD_FACTOR = 4.0
UNKNOWN_CAUSE = "unknown cause"

THRESHOLD_KEYS = tuple(f"{name}_threshold" for name in (*METRICS, "overall"))
# The feature of each metric that says how much of it there is; one that comes before it says how it changes.
LEVELS = {metric: features[-1] for metric, features in METRICS.items()}
PREDICTIONS = WINDOW_RECORDS - N_STEPS + 1
# With fewer known predictions than this an RMSE over the window says too little.
MIN_PREDICTIONS = PREDICTIONS // 3
# Values further outside the trained range than this share of its width are no input at all.
FAR_OUTSIDE = 0.25
# Below the trained range levels count on a log scale; this share of the range is as good as zero there.
NEXT_TO_ZERO = 0.01
# In trained ranges; no quantity gets there, and the squares of what is cut to it stay finite.
FURTHEST = 1e12


# --- scores --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Of n consecutive records, in normalised units; NaN is unknown.

    actual, predicted: (n, features), in the units of `normalised` and not clipped. window: RMSE over the last
    predictions (n, metrics + 1), overall last. record: RMSE of the record alone, likewise.
    """

    actual: np.ndarray
    predicted: np.ndarray
    window: np.ndarray
    record: np.ndarray


def score(bundle: Bundle, values: np.ndarray) -> Scores:
    """Score consecutive records (n, features) in physical units, NaN where a value is missing.

    What the network sees is clipped to the trained range: shown an attack, it would predict the attack.
    A missed sample is bridged by its neighbour among the inputs, and so is one far outside the range, or
    the records after an attack would be measured against it. A feature without any usable input is shown
    at its mean; where its inputs are all missing, its metric is unknown.
    """
    actual = normalised(bundle, values)
    is_far = (actual < -FAR_OUTSIDE) | (actual > 1.0 + FAR_OUTSIDE)
    inputs, _ = split_sequences(np.where(is_far, np.nan, np.clip(actual, 0.0, 1.0)), bundle.n_steps)
    predicted = np.full(actual.shape, np.nan)
    predicted[bundle.n_steps - 1 :] = bundle.predictor(_bridge(inputs, bundle.means))
    seen, _ = split_sequences(actual, bundle.n_steps)
    judged = actual.copy()
    judged[bundle.n_steps - 1 :][np.isnan(seen).all(axis=1)] = np.nan
    squares = metric_square_errors(judged, predicted)
    return Scores(actual, predicted, np.sqrt(_window_means(squares)), np.sqrt(squares))


def normalised(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """Values (n, features) in units of the trained range: 0 is its lower end, 1 its upper.

    Below the range, what never came near zero in training counts on a log scale, as far as that is the
    further: traffic that stops is next to nothing on the scale of its bursts, but no small change.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    zero = NEXT_TO_ZERO * widths
    with np.errstate(invalid="ignore", over="ignore"):
        linear = np.clip(normalize(values, bundle.stats, bundle.features), -FURTHEST, FURTHEST)
        shortfall = np.log((np.maximum(values, 0.0) + zero) / (np.abs(lows) + zero))
    return np.where((values < lows) & (lows > 0), np.minimum(linear, shortfall), linear)


def physical(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """The inverse of `normalised`: (n, features) in the units of the trained range -> physical units.

    What no quantity can be, less than zero, becomes zero for features that were above it in training.
    """
    lows, widths = feature_ranges(bundle.stats, bundle.features)
    linear = lows + values * widths
    zero = NEXT_TO_ZERO * widths
    level = np.maximum(np.exp(np.minimum(values, 0.0)) * (np.abs(lows) + zero) - zero, 0.0)
    return np.where((values < 0) & (lows > 0), np.maximum(linear, level), linear)


def expected_levels(
    bundle: Bundle, thresholds: dict[str, float], predicted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each metric's level (LEVELS), in its physical unit: low, expected, high, (n,) each.

    predicted: (n, features), normalised. A level between low and high keeps the record's own RMSE within
    RECORD_FACTOR thresholds if it is all that the metric is off by: of m features one alone, off by
    RECORD_FACTOR * threshold * sqrt(m), makes the root mean square of them RECORD_FACTOR * threshold.
    """
    margins = np.zeros(len(bundle.features))
    for metric, level in LEVELS.items():
        limit = RECORD_FACTOR * thresholds[f"{metric}_threshold"]
        margins[bundle.features.index(level)] = limit * math.sqrt(len(METRICS[metric]))
    # A threshold may be set so high that nothing is over it; there is also nothing below zero.
    with np.errstate(over="ignore"):
        bounds = [
            np.maximum(physical(bundle, values), 0.0)
            for values in (predicted - margins, predicted, predicted + margins)
        ]
    return {
        metric: tuple(bound[:, bundle.features.index(level)] for bound in bounds)
        for metric, level in LEVELS.items()
    }


def score_dataset(bundle: Bundle, frame: pd.DataFrame) -> Scores:
    """Score all records of a resampled dataset."""
    return score(bundle, frame[bundle.features].to_numpy(dtype=float))


def _bridge(inputs: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Fill the gaps in (n, steps, features) forward, then backward, then with the means (features,)."""
    filled = inputs.copy()
    steps = filled.shape[1]
    for step, neighbour in [(i, i - 1) for i in range(1, steps)] + [
        (i, i + 1) for i in range(steps - 2, -1, -1)
    ]:
        filled[:, step] = np.where(np.isnan(filled[:, step]), filled[:, neighbour], filled[:, step])
    return np.where(np.isnan(filled), means, filled)


def _window_means(squares: np.ndarray) -> np.ndarray:
    """Mean of each column over the last PREDICTIONS rows; NaN with fewer than MIN_PREDICTIONS known ones."""
    padded = np.concatenate([np.full((PREDICTIONS - 1, squares.shape[1]), np.nan), squares])
    windows = np.lib.stride_tricks.sliding_window_view(padded, PREDICTIONS, axis=0)
    known = np.isfinite(windows)
    count = known.sum(axis=-1)
    total = np.where(known, windows, 0.0).sum(axis=-1)
    return np.where(count >= MIN_PREDICTIONS, total / np.maximum(count, 1), np.nan)


# --- verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What is said of one record.

    time: ns. status: normal, anomaly, alert (by the rule of common/alerts.py) or unknown.
    causes: metrics over their thresholds. unknown: metrics of which nothing can be said, with any
    status. rmse: over the window, per metric and overall. values: the stored columns, in their units.
    shares: how much of what makes an anomaly there is, per metric and overall; above 1 it is one.
    in_a_row: anomalies in a row up to this record, 0 where there is none or the row ends; unknown records
    among them do not count. recent: anomalies among the last WINDOW_RECORDS records; is_alert_up: whether an
    alert is up after it, both as in Row.
    actual, predicted: (features,), as in Scores.
    """

    time: int
    status: str
    causes: tuple[str, ...]
    unknown: tuple[str, ...]
    rmse: dict[str, float]
    values: dict[str, float]
    shares: dict[str, float] = field(default_factory=dict)
    in_a_row: int = 0
    recent: int = 0
    is_alert_up: bool = False
    actual: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)

    @property
    def is_anomaly(self) -> bool:
        """Whether it is an anomaly, alerted or not."""
        return self.status in (ANOMALY, ALERT)

    @property
    def flurry(self) -> int:
        """How many anomalies make an alert of this one: a row of them, or the recent ones."""
        return self.in_a_row if self.in_a_row >= ALERT_RECORDS else self.recent

    def blames(self, name: str) -> bool:
        """Whether this metric makes it an anomaly; `overall` does where no metric does alone."""
        return name in self.causes or (name == "overall" and self.is_anomaly and not self.causes)

    @property
    def possible_cause(self) -> str:
        """`cpu | net_up`, in the order of METRICS."""
        return " | ".join(self.causes) or UNKNOWN_CAUSE

    def to_json(self) -> str:
        """One line for a program to read; what is unknown is null."""
        return json.dumps(
            {
                "time": format_time(self.time),
                "possible_cause": self.possible_cause,
                "severity": self.status,
                "rmse": _finite(self.rmse),
                "values": _finite(dict(zip(ANOMALY_FIELDS, self.values.values(), strict=True))),
            }
        )


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}


def _judge(
    time: int,
    values: dict[str, float],
    scores: Scores,
    index: int,
    thresholds: dict[str, float],
    row: Row,
) -> Verdict:
    """Verdict on the record that has this index in the scores."""
    window, record = scores.window[index], scores.record[index]
    limits = np.array([thresholds[key] for key in THRESHOLD_KEYS])
    unknown = np.isnan(window) | np.isnan(record)
    over = ~unknown & (window > limits) & (record > RECORD_FACTOR * limits)
    shares = np.minimum(window, record / RECORD_FACTOR) / np.maximum(limits, 1e-9)
    status = row.status(bool(over.any()), bool(unknown.any()))
    names = np.array([*METRICS, "overall"])
    return Verdict(
        time=time,
        status=status,
        causes=tuple(names[:-1][over[:-1]].tolist()),
        unknown=tuple(names[:-1][unknown[:-1]].tolist()),
        rmse=dict(zip(names.tolist(), np.where(unknown, np.nan, window).tolist(), strict=True)),
        values=values,
        shares=dict(zip(names.tolist(), shares.tolist(), strict=True)),
        in_a_row=row.anomalies,
        recent=row.recent,
        is_alert_up=row.is_up,
        # A verdict that is kept must not keep the scores of its whole window.
        actual=scores.actual[index].copy(),
        predicted=scores.predicted[index].copy(),
    )


class Detector:
    """Judges records one by one, as test mode receives them."""

    def __init__(
        self, bundle: Bundle, thresholds: dict[str, float], interval_seconds: float = RECORD_SECONDS
    ) -> None:
        self.thresholds = thresholds
        self._bundle = bundle
        self._interval_ns = int(interval_seconds * 1e9)
        self._window: deque[np.ndarray] = deque(maxlen=WINDOW_RECORDS)
        self._row = Row()
        self._last_slot: int | None = None

    def replace_bundle(self, bundle: Bundle) -> None:
        """Judge by another model from now on; the window, in physical units, stays."""
        self._bundle = bundle

    def forget(self) -> None:
        """Begin anew: what comes next has nothing to do with what was."""
        self._window.clear()
        self._row = Row()
        self._last_slot = None

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {
            "window": [values.tolist() for values in self._window],
            **self._row.state(),
            "last_slot": self._last_slot,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state, or of other features.
        """
        window = [np.array([number(value) for value in values]) for values in mapping(state)["window"]]
        if any(values.shape != (len(self._bundle.features),) for values in window):
            raise ValueError("a window of other features")
        row = Row()
        row.restore({key: whole(state[key]) for key in row.state().keys() & state.keys()})
        last_slot = None if state["last_slot"] is None else whole(state["last_slot"])
        self.forget()
        self._window.extend(window)
        self._row, self._last_slot = row, last_slot

    def observe(self, time: int, columns: dict[str, float]) -> Verdict:
        """Verdict on the record of `time` (ns), later than all before; skipped slots count as missing."""
        slot = time // self._interval_ns
        missing = np.full(len(self._bundle.features), np.nan)
        if self._last_slot is not None:
            for _ in range(min(slot - self._last_slot - 1, WINDOW_RECORDS)):
                self._window.append(missing)
                self._row.status(False, True)
        self._last_slot = slot
        self._window.append(np.array([columns[feature] for feature in self._bundle.features]))
        scores = score(self._bundle, np.array(self._window))
        values = {column: columns[column] for column in getAnomalyColumns()}
        return _judge(time, values, scores, -1, self.thresholds, self._row)


def detect(thresholds: dict[str, float], frame: pd.DataFrame, scores: Scores) -> list[Verdict]:
    """Verdicts on all records of a resampled dataset, the same as Detector gives one by one."""
    row = Row()
    columns = getAnomalyColumns()
    stored = frame[columns].to_numpy(dtype=float).tolist()
    times = frame.index.as_unit("ns").asi8.tolist()
    return [
        _judge(time, dict(zip(columns, values, strict=True)), scores, index, thresholds, row)
        for index, (time, values) in enumerate(zip(times, stored, strict=True))
    ]


# --- thresholds ----------------------------------------------------------------------------------


def load_thresholds(filename: str | Path) -> dict[str, float]:
    """Read a thresholds file; a key that it lacks has DEFAULT_THRESHOLD, and the log says so.

    Raises UserError, naming file and key, for an unknown key or a value that is not a number of 0 or more.
    """
    given = read_thresholds(filename)
    missing = [key for key in THRESHOLD_KEYS if key not in given]
    if missing:
        logger.warning("%s: no %s; %s is used", filename, ", ".join(missing), DEFAULT_THRESHOLD)
    return {key: given.get(key, DEFAULT_THRESHOLD) for key in THRESHOLD_KEYS}


def read_thresholds(filename: str | Path) -> dict[str, float]:
    """The thresholds that stand in a file, checked as load_thresholds does."""
    given = loadDictJson(filename)
    _check_thresholds(filename, given)
    return given


def _check_thresholds(filename: str | Path, given: dict[str, Any]) -> None:
    for key, value in given.items():
        if key not in THRESHOLD_KEYS:
            raise UserError(
                f"{filename}: unknown key {shown(repr(key))}; the keys are {', '.join(THRESHOLD_KEYS)}"
            )
        # An integer of hundreds of digits is less than infinity, and no float.
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= sys.float_info.max:
            raise UserError(
                f"{filename}: {key} is {shown(json.dumps(value))}; it must be a number, 0 or more"
            )


def propose_thresholds(
    cpu: Scores | None, iperf: Scores | None, normal: Scores, percentile: float
) -> dict[str, float]:
    """The given percentile of the window RMSEs, each threshold from the datasets it may depend on.

    CPU features are not affected by the iperf dataset, network features not by the CPU dataset; memory
    and overall pool all three. A dataset that is None is left out.
    """
    proposed = {}
    for index, key in enumerate(THRESHOLD_KEYS):
        pooled = [normal]
        if iperf is not None and not key.startswith("cpu"):
            pooled.append(iperf)
        if cpu is not None and not key.startswith("net"):
            pooled.append(cpu)
        errors = np.concatenate([scores.window[:, index] for scores in pooled])
        proposed[key] = round(float(np.percentile(errors[np.isfinite(errors)], percentile)), 6)
    return proposed


def update_thresholds(
    filename: str | Path, proposed: dict[str, float], model: str | None = None
) -> list[str]:
    """Write `proposed` into a thresholds file, but for the values that a person set; returns those keys.

    model: identity of the bundle that they were proposed for. What this program wrote is remembered beside
    the file: a value that still equals it is refreshed, any other is a person's and stays.
    """
    given, before = _given(filename), read_proposals(filename)
    by_person = _set_by_person(given, before)
    standing = {key: value for key, value in given.items() if key not in by_person}
    newest = Proposal(model, proposed)
    if standing:
        # Whenever this is cut short, what stands in the file is known to be this program's.
        origins = [_origin(key, value, before) for key, value in standing.items()]
        _save_proposals(filename, newest, *(one for one in before if one in origins))
    else:
        _save_proposals(filename, newest)
    saveDictJson({key: (given if key in by_person else proposed)[key] for key in THRESHOLD_KEYS}, filename)
    if standing:
        _save_proposals(filename, newest)
    return by_person


def compare_thresholds(filename: str | Path) -> tuple[dict[str, float], list[str]]:
    """What this program proposed last for a thresholds file, and the keys that a person set."""
    proposals = read_proposals(filename)
    return proposals[0].values if proposals else {}, _set_by_person(_given(filename), proposals)


def fill_thresholds(filename: str | Path) -> list[str]:
    """Write DEFAULT_THRESHOLD for the keys that a thresholds file lacks; returns them."""
    given = _given(filename)
    missing = {key: DEFAULT_THRESHOLD for key in THRESHOLD_KEYS if key not in given}
    if missing:
        # A default is of no model.
        _save_proposals(filename, *read_proposals(filename), Proposal(None, missing))
        saveDictJson({**given, **missing}, filename)
    return list(missing)


def _given(filename: str | Path) -> dict[str, float]:
    return read_thresholds(filename) if is_there(filename) else {}


# --- which thresholds this program wrote, and for which model --------------------------------------


@dataclass(frozen=True)
class Proposal:
    """Thresholds that this program wrote. model: identity of their bundle, None where it is not known."""

    model: str | None
    values: dict[str, float]


def proposals_path(filename: str | Path) -> Path:
    """Where the proposals of a thresholds file are remembered: `thresholds.proposed.json` beside it."""
    return Path(f"{os.path.splitext(filename)[0]}.proposed.json")


def read_proposals(filename: str | Path) -> list[Proposal]:
    """What this program wrote into a thresholds file, the newest first; nothing where none is remembered.

    Those before the newest are remembered while the file is being replaced; defaults that were filled in come
    last. Raises UserError with a remedy.
    """
    path = proposals_path(filename)
    if not is_there(path):
        return []
    try:
        content = loadDictJson(path)
        if set(content) <= set(THRESHOLD_KEYS):
            # So it was written before models were remembered.
            content = {"proposed": content}
        proposals = []
        while content is not None:
            proposals.append(_proposal(path, content))
            content = content.get("before")
    except UserError as error:
        raise UserError(
            f"{error}, or delete the file: all thresholds then count as set by a person"
        ) from None
    return proposals


def _proposal(path: Path, content: Any) -> Proposal:
    model = content.get("model") if isinstance(content, dict) else None
    values = content.get("proposed") if isinstance(content, dict) else None
    if not isinstance(values, dict) or not isinstance(model, str | None):
        raise UserError(f"{path}: holds no proposed thresholds; restore it")
    _check_thresholds(path, values)
    return Proposal(model, values)


def _save_proposals(filename: str | Path, *proposals: Proposal) -> None:
    """As read_proposals gives them."""
    content: dict[str, Any] = {}
    for one in reversed(proposals):
        before = {"before": content} if content else {}
        content = {"model": one.model, "proposed": one.values, **before}
    saveDictJson(content, proposals_path(filename))


def _set_by_person(given: dict[str, float], proposals: list[Proposal]) -> list[str]:
    return [key for key in THRESHOLD_KEYS if key in given and not _origin(key, given[key], proposals)]


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
    """One line if thresholds in force were proposed for another model than the bundle; None if none is known
    to be.
    """
    origins = {key: _origin(key, thresholds[key], proposals) for key in THRESHOLD_KEYS}
    models = {key: origin.model for key, origin in origins.items() if origin}
    foreign = [key for key, model in models.items() if model and bundle.identity not in ("", model)]
    if not foreign:
        return None
    named = "all" if len(foreign) == len(THRESHOLD_KEYS) else ", ".join(foreign)
    return (
        f"{filename}: holds thresholds that were proposed for another model than {model_filename} ({named});"
        " run --mode train --evaluate, or set them by hand"
    )
