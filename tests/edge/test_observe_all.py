"""Many nodes judged at once: each gets the verdicts that it gets alone; only new records are predicted."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from common.times import parse_time
from edge.bundle import Bundle, load_bundle
from edge.detector import Detector, Verdict, detect, observe_all
from edge.habits import DailyJob, Habits
from edge.paths import DEFAULT_MODEL
from edge.scores import score_dataset
from nodes.metrics import METRICS, MetricTable

SECOND = 10**9
# Before the clocks change in Berlin, and after midnight in Kolkata.
START = parse_time("2026-03-29T00:30:00Z")
HOUR = 3600.0
RECORDS = 130
NAN = math.nan
# A table without the memory, and one in which only more downlink counts, and only 5 points of the CPU.
WITHOUT_MEMORY = METRICS.without(["mem"])
DIRECTED = MetricTable(
    tuple(
        dataclasses.replace(row, **{"net_down": {"direction": "up"}, "cpu": {"least": 5.0}}.get(row.name, {}))
        for row in METRICS.values()
    )
)
Columns = dict[str, float]


class Counting:
    """Predicts with another predictor, and counts the records that it is given."""

    def __init__(self, predictor: Callable[[np.ndarray], np.ndarray]) -> None:
        self._predictor = predictor
        self.counts: list[int] = []

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        self.counts.append(len(inputs))
        return self._predictor(inputs)


def last_input(inputs: np.ndarray) -> np.ndarray:
    return inputs[:, -1]


def habits_of(metrics: MetricTable, rng: np.random.Generator) -> Habits:
    """Around a level of 50, with limits, a course of the day, a zone and jobs that differ."""
    levels = len(metrics)
    places = tuple(metrics.features.index(row.level) for row in metrics.values())
    is_low_by_hour = bool(rng.random() < 0.5)
    ends = np.sort(rng.uniform(1.5, 5.0, (3, levels)), axis=0)[::-1]
    course = rng.normal(0, 1, (24, levels)) if rng.random() < 0.7 else np.zeros((24, levels))
    begin = rng.uniform(0, 3) * HOUR
    job = DailyJob("cpu", begin, begin + HOUR, {places[0]: (51.0, 60.0), 0: (40.0, 60.0)})
    return Habits(
        zone=str(rng.choice(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"])),
        places=places,
        by_hour=course,
        spread=rng.uniform(0.5, 1.5, (24, levels)),
        high=50 + ends,
        high_middle=np.full(levels, 50.0),
        low=50 - ends,
        low_middle=np.full(levels, 50.0),
        is_low_by_hour=is_low_by_hour,
        rmse=rng.uniform(0.05, 0.5, levels),
        jobs=(job,) if rng.random() < 0.5 else (),
    )


def bundle_of(
    metrics: MetricTable, rng: np.random.Generator, predictor: Callable, identity: str = "shared"
) -> Bundle:
    """Statistics, means and habits of a node's own."""
    ends = {"min": 48 - rng.uniform(0, 2), "max": 52 + rng.uniform(0, 2)}
    stats = {f"{feature}_{end}": value for feature in metrics.features for end, value in ends.items()}
    means = rng.uniform(0.4, 0.6, len(metrics.features))
    habits = habits_of(metrics, rng) if rng.random() < 0.8 else None
    return Bundle(metrics, 4, stats, means, predictor, identity=identity, habits=habits)


def thresholds_of(metrics: MetricTable, rng: np.random.Generator) -> dict[str, float]:
    return {key: rng.uniform(0.1, 0.6) for key in metrics.threshold_keys.values()}


def life(rng: np.random.Generator, interval: int, count: int = RECORDS) -> pd.DataFrame:
    """Records around 50, with changes of all kinds, and missing values."""
    values = 50 + rng.normal(0, 0.4, (count, 12))
    for _ in range(5):
        first, length = rng.integers(0, count), rng.integers(1, 50)
        values[first : first + length, rng.choice(12)] += rng.choice([3.0, -4.0, 9.0, -45.0, NAN])
    times = pd.to_datetime(START + np.arange(count) * interval * SECOND, utc=True)
    frame = pd.DataFrame(values, columns=METRICS.features, index=times)
    return frame.assign(bytes_received=1.0, bytes_transmitted=2.0, dl_bytes=3.0, ul_bytes=4.0)


def rows_of(frame: pd.DataFrame) -> list[tuple[int, Columns]]:
    return list(zip(frame.index.as_unit("ns").asi8.tolist(), frame.to_dict("records"), strict=True))


def exact(verdict: Verdict) -> str:
    """All of a verdict, to the bit; NaN equals NaN."""
    fields = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}
    arrays = {name: fields[name].tolist() for name in ("actual", "predicted")}
    return json.dumps({**fields, **arrays})


def observe(detectors: Sequence[Detector], records: Sequence[tuple[int, Mapping[str, float]]]) -> list[str]:
    times, columns = zip(*records, strict=True)
    return [exact(verdict) for verdict in observe_all(detectors, times, columns)]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle(DEFAULT_MODEL)


def test_nodes_that_differ_in_all_things_get_together_the_verdicts_that_each_gets_alone(
    shipped: Bundle,
) -> None:
    rng = np.random.default_rng(17)
    nodes = 14
    makers, lives = [], []
    for node in range(nodes):
        # Two networks of all metrics, and one of fewer.
        metrics = (METRICS, DIRECTED, WITHOUT_MEMORY)[node % 3]
        has_network = metrics is not WITHOUT_MEMORY and node % 2
        predictor, identity = (
            (shipped.predictor, "network") if has_network else (last_input, str(metrics.absent))
        )
        bundle, other = (bundle_of(metrics, rng, predictor, identity) for _ in range(2))
        limits, interval = thresholds_of(metrics, rng), int(rng.choice([15, 60]))
        makers.append((bundle, other, limits, interval))
        is_there = rng.random(RECORDS) > 0.02
        # A gap of fewer records than a window, or of more.
        gap = rng.integers(20, 90)
        is_there[gap : gap + rng.integers(1, 45)] = False
        lives.append(
            [row if here else None for row, here in zip(rows_of(life(rng, interval)), is_there, strict=True)]
        )

    def detector_of(node: int) -> Detector:
        bundle, _, limits, interval = makers[node]
        return Detector(bundle, limits, interval)

    def disturbed(node: int, record: int, detector: Detector) -> Detector:
        """What happens to a node while it is watched."""
        if record == 60 + node:
            detector.replace_bundle(makers[node][1])
        if record == 100 - node:
            state = json.loads(json.dumps(detector.state()))
            detector = Detector(
                makers[node][1 if record > 60 + node else 0], makers[node][2], makers[node][3]
            )
            detector.restore(state)
        if node % 7 == 0 and record == 70:
            detector.forget()
        return detector

    alone: list[list[str]] = []
    for node in range(nodes):
        detector, found = detector_of(node), []
        for record in range(RECORDS):
            detector = disturbed(node, record, detector)
            if lives[node][record]:
                found += observe([detector], [lives[node][record]])
        alone.append(found)

    together: list[list[str]] = [[] for _ in range(nodes)]
    detectors = [detector_of(node) for node in range(nodes)]
    for record in range(RECORDS):
        detectors = [disturbed(node, record, one) for node, one in enumerate(detectors)]
        here = [node for node in range(nodes) if lives[node][record]]
        # In another order each time.
        rng.shuffle(here)
        found = observe([detectors[node] for node in here], [lives[node][record] for node in here])
        for node, verdict in zip(here, found, strict=True):
            together[node].append(verdict)
    for node in range(nodes):
        assert together[node] == alone[node], f"node {node}"
    statuses = {json.loads(verdict)["status"] for found in alone for verdict in found}
    assert statuses == {"normal", "anomaly", "alert", "unknown"}


def test_nodes_together_get_the_verdicts_of_their_datasets_to_the_bit(shipped: Bundle) -> None:
    rng = np.random.default_rng(4)
    bundles = [bundle_of(METRICS, rng, shipped.predictor, "network") for _ in range(12)]
    limits = [thresholds_of(METRICS, rng) for _ in bundles]
    frames = [life(rng, 15, 90) for _ in bundles]
    detectors = [Detector(*of_node) for of_node in zip(bundles, limits, strict=True)]
    rounds = [observe(detectors, records) for records in zip(*map(rows_of, frames), strict=True)]
    for node, (bundle, of_node, frame) in enumerate(zip(bundles, limits, frames, strict=True)):
        expected = [exact(verdict) for verdict in detect(of_node, frame, score_dataset(bundle, frame))]
        assert [found[node] for found in rounds] == expected


def test_what_one_node_lacks_or_floods_touches_no_other() -> None:
    rng = np.random.default_rng(8)
    bundles = [bundle_of(METRICS, rng, last_input) for _ in range(4)]
    limits = thresholds_of(METRICS, rng)
    lives = [rows_of(life(rng, 15, 60)) for _ in bundles]
    usual = [Detector(bundle, limits) for bundle in bundles]
    broken = [Detector(bundle, limits) for bundle in bundles]
    for record in range(60):
        records = [of_node[record] for of_node in lives]
        time, columns = records[1]
        value = (NAN, 1e300, -1e300, math.inf)[record % 4]
        others = [*records[:1], (time, dict.fromkeys(columns, value)), *records[2:]]
        before, after = observe(usual, records), observe(broken, others)
        assert (after[0], *after[2:]) == (before[0], *before[2:])
        assert json.loads(after[1])["status"] != "normal"


def test_only_new_records_are_predicted_and_those_of_one_network_in_one_batch() -> None:
    rng = np.random.default_rng(2)
    first, second = Counting(last_input), Counting(last_input)
    # The network is told by its identity; each node has loaded its own copy.
    bundles = [bundle_of(METRICS, rng, first, "one") for _ in range(5)]
    bundles += [bundle_of(METRICS, rng, second, "two") for _ in range(2)]
    bundles = [dataclasses.replace(bundle, habits=bundles[0].habits) for bundle in bundles]
    limits = thresholds_of(METRICS, rng)
    detectors = [Detector(bundle, limits) for bundle in bundles]
    rows = rows_of(life(rng, 15, 80))
    for record in range(70):
        observe(detectors, [rows[record]] * 7)
    # The first three records have no inputs.
    assert [count for count in first.counts if count] == [5] * 67
    assert [count for count in second.counts if count] == [2] * 67

    # A window that is restored, or judged by another model, is predicted once: the 26 records that count.
    state = detectors[0].state()
    detectors[0] = Detector(bundles[0], limits)
    detectors[0].restore(state)
    detectors[6].replace_bundle(dataclasses.replace(bundles[6], means=bundles[0].means))
    first.counts, second.counts = [], []
    for record in (70, 71):
        observe(detectors, [rows[record]] * 7)
    assert (first.counts, second.counts) == ([26, 5, 5], [26, 2, 2])
    # Skipped records cost nothing.
    observe(detectors, [rows[79]] * 7)
    assert first.counts == [26, 5, 5, 5]


def test_bundles_without_an_identity_are_of_one_network_if_their_predictor_is_the_same() -> None:
    rng = np.random.default_rng(3)
    counting, other = Counting(last_input), Counting(last_input)
    bundles = [bundle_of(METRICS, rng, one, "") for one in (counting, other, counting)]
    bundles = [dataclasses.replace(bundle, habits=None) for bundle in bundles]
    detectors = [Detector(bundle, thresholds_of(METRICS, rng)) for bundle in bundles]
    for row in rows_of(life(rng, 15, 5)):
        observe(detectors, [row] * 3)
    assert [count for count in counting.counts if count] == [2, 2]
    assert [count for count in other.counts if count] == [1, 1]


def test_no_node_is_no_verdict() -> None:
    assert observe_all([], [], []) == []


def test_a_record_without_a_column_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    detectors = [Detector(bundle_of(METRICS, rng, last_input), thresholds_of(METRICS, rng)) for _ in range(2)]
    rows = rows_of(life(rng, 15, 8))
    for row in rows[:6]:
        observe(detectors, [row] * 2)
    before = json.dumps([detector.state() for detector in detectors])
    time, columns = rows[6]
    with pytest.raises(KeyError):
        observe_all(detectors, [time, time], [columns, {}])
    assert json.dumps([detector.state() for detector in detectors]) == before
