"""An incident says in one line what a person needs first, and the same to programs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from common.alerts import ALERT, ANOMALY
from edge.bundle import load_bundle
from edge.detector import Verdict
from edge.incidents import Incidents
from edge.levels import Level, describe_band, describe_level
from edge.paths import DEFAULT_MODEL
from edge.why import Deviation, describe, deviations
from nodes.metrics import METRICS
from tests.support.metrics import NAMES, THRESHOLD_KEYS

SECOND = 10**9
START = 1_772_798_400 * SECOND  # 2026-03-06T12:00:00Z
THRESHOLDS = dict.fromkeys(THRESHOLD_KEYS, 0.5)
# What may last for a whole window: anything, unless a test says otherwise.
ANY = (0.0, 1e12)
CPU, TRAFFIC = Level(98.0, 5.2, 7.0, 9.0), Level(12.34e6, 0.0, 900.0, 2.1e6)


def seen(seconds: int, level: Level, share: float = 2.0, lasting: tuple[float, float] = ANY) -> Deviation:
    return Deviation.seen(START + seconds * SECOND, share, level, lasting)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("cpu", 98.31, "98 %"),
        ("cpu", 5.55, "5.5 %"),
        ("cpu", 0.123, "0.12 %"),
        ("net_up", 999.0, "999 B/s"),
        ("net_up", 12_345_678.0, "12 MB/s"),
        ("net_up", 1_234.0, "1.2 kB/s"),
        ("net_up", 2.5e9, "2.5 GB/s"),
    ],
)
def test_a_level_has_the_unit_that_is_easy_to_read(metric: str, value: float, text: str) -> None:
    assert describe_level(METRICS[metric], value) == text


def test_a_band_has_the_unit_of_its_level() -> None:
    assert describe_band(METRICS["net_up"], 12.34e6, 0.0, 2.1e6) == "0-2.1"
    assert describe_band(METRICS["cpu"], 98.0, 5.2, 9.04) == "5.2-9"
    # In a unit of its own, if that is another, and with more digits where they are all that differs.
    assert describe_band(METRICS["net_up"], 5.6e6, 0.0, 12_345.0) == "0-12 kB/s"
    assert describe_band(METRICS["mem"], 100.0, 88.7416, 88.8798) == "88.7-88.9"
    assert describe_band(METRICS["mem"], 88.7, 88.7, 88.7) == "89-89"
    assert describe_band(replace(METRICS["cpu"], unit="dBm"), -90.0, -80.0, -70.5) == "-80 to -70"


def test_what_came_first_is_told_first_and_what_followed_with_its_delay() -> None:
    found = {"net_up": seen(30, TRAFFIC, 50.0), "cpu": seen(0, CPU), "mem": seen(45, Level(90, 80, 81, 82))}
    assert describe(found, METRICS, ("cpu", "net_up", "mem"), "edge-7", START + 120 * SECOND) == (
        "cpu 98 % (expected 5.2-9) on edge-7 for 2 min; net_up followed after 30 s, mem followed after 45 s"
    )


def test_of_what_came_at_once_the_farthest_is_told() -> None:
    found = {"cpu": seen(0, CPU, 3.0), "net_up": seen(0, TRAFFIC, 9.0), "mem": seen(0, CPU, 2.0)}
    assert describe(found, METRICS, ("cpu", "net_up", "mem"), "", START + 45 * SECOND) == (
        "net_up 12 MB/s (expected 0-2.1) for 45 s; cpu and mem came with it"
    )


@pytest.mark.parametrize(
    ("lasting", "words"),
    [
        ((4.0, 7.8), "cpu 8.5 % (for so long, expected 4-7.8) for 7 min"),
        ((4.0, 9.5), "cpu 8.5 % (expected 5.2-9, but it changes too fast) for 7 min"),
    ],
)
def test_a_level_inside_the_band_is_told_by_what_else_is_wrong_with_it(
    lasting: tuple[float, float], words: str
) -> None:
    found = {"cpu": seen(0, Level(8.5, 5.2, 7.0, 9.0), lasting=lasting)}
    assert describe(found, METRICS, ("cpu",), "", START + 420 * SECOND) == words


def test_without_a_cause_the_metric_nearest_to_an_anomaly_is_told() -> None:
    found = {"cpu": seen(0, Level(8.9, 5.2, 7.0, 9.0), 0.9)}
    assert describe(found, METRICS, (), "edge-7", START) == (
        "all metrics together, most of all cpu 8.9 % (expected 5.2-9, but it changes too fast) on edge-7"
        " for 0 s"
    )
    assert describe({}, METRICS, (), "edge-7", START) == "unknown cause on edge-7"


def test_several_anomalies_are_told_by_the_largest_and_by_their_range() -> None:
    whole = seen(0, Level(60.0, 5.0, 7.0, 9.0), 4.0).and_then(seen(15, CPU, 12.345))
    whole = whole.and_then(seen(30, Level(40.0, 6.0, 8.0, 10.0), 3.0))
    assert whole.entry(METRICS["cpu"]) == {
        "unit": "%",
        "first": "2026-03-06T12:00:00Z",
        "lowest": 40.0,
        "highest": 98.0,
        "expected": [5.2, 9.0],
        "share": 12.35,
    }


def alarm(seconds: int, status: str, row: int, causes: tuple[str, ...] = ("cpu",)) -> Verdict:
    rmse = dict.fromkeys(NAMES, 0.1) | dict.fromkeys(causes, 2.0)
    counts = {"in_a_row": row, "recent": row, "is_alert_up": status == ALERT}
    return Verdict(START + seconds * SECOND, status, causes, (), rmse, {}, **counts)


def test_an_incident_keeps_its_reason_and_its_id_from_beginning_to_end_also_over_a_restart() -> None:
    incidents, lines = Incidents(node="edge-7"), []
    steps = [alarm(15 * place, ALERT if place >= 3 else ANOMALY, place + 1) for place in range(6)]
    quiet = [Verdict(START + (90 + 15 * n) * SECOND, "normal", (), (), steps[0].rmse, {}) for n in range(4)]
    for place, verdict in enumerate([*steps, *quiet]):
        lines += incidents.observe(
            verdict, THRESHOLDS, {"cpu": seen(15 * place, CPU)} if verdict.is_loud else None
        )
        state = json.loads(json.dumps(incidents.state()))
        # The incident that has closed is known to the process alone.
        incidents_then, incidents = incidents, Incidents(node="edge-7")
        incidents.restore(state)
    why = "cpu 98 % (expected 5.2-9) on edge-7 for 45 s"
    assert lines == [
        f"2026-03-06T12:00:45Z incident opens: {why} [edge-7@20260306T120000Z]",
        "2026-03-06T12:01:15Z incident closes: cpu for 1 min 15 s since 2026-03-06T12:00:00Z;"
        " peak RMSE / threshold: cpu 4.0 [edge-7@20260306T120000Z]",
    ]
    entry = incidents_then.newest.entry(METRICS)
    assert entry.pop("metrics").keys() == {"cpu"}
    assert entry == {
        "id": "edge-7@20260306T120000Z",
        "half": "edge",
        "node": "edge-7",
        "cause": "cpu",
        "began": "2026-03-06T12:00:00Z",
        "opened": "2026-03-06T12:00:45Z",
        "last": "2026-03-06T12:01:15Z",
        "ended": "2026-03-06T12:01:15Z",
        # How long it has lasted is known by then.
        "why": "cpu 98 % (expected 5.2-9) on edge-7 for 1 min 15 s",
    }


def test_what_is_kept_quiet_opens_no_incident_and_holds_none_open() -> None:
    incidents = Incidents()
    opened = [alarm(15 * place, ALERT if place >= 3 else ANOMALY, place + 1) for place in range(4)]
    lines = [line for verdict in opened for line in incidents.observe(verdict, THRESHOLDS)]
    for place in range(4, 8):
        lines += incidents.observe(
            replace(alarm(15 * place, ANOMALY, 0), quiet="answer", recent=0, is_alert_up=False), THRESHOLDS
        )
    assert [line.split()[2] for line in lines] == ["opens:", "closes:"]
    assert not incidents.is_open


def test_an_anomaly_without_a_cause_is_told_by_the_metrics_behind_it_and_not_by_the_nearest() -> None:
    shipped = load_bundle(DEFAULT_MODEL)
    names = [*shipped.metrics, "overall"]
    shares = dict.fromkeys(names, 0.1) | {"mem": 0.95, "cpu": 0.8}
    middle = np.full(len(shipped.features), 0.5)
    anomaly = Verdict(
        START, ANOMALY, (), (), {}, {}, shares=shares, actual=middle, predicted=middle, behind=("cpu",)
    )
    thresholds = dict.fromkeys(shipped.metrics.threshold_keys.values(), 0.1)
    assert list(deviations(shipped, thresholds, anomaly)) == ["cpu"]
    assert list(deviations(shipped, thresholds, replace(anomaly, behind=()))) == ["mem"]
