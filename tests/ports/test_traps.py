"""Each trap that was measured on port traffic: what falls into it does worse than ours on the same ports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ports import detectors
from ports.comparison import Detection, detection
from ports.preparation import PREPARATIONS, Preparation, standard_scaler, workshop_sums
from ports.series import KnownAnomaly, Series
from ports.verdicts import statuses
from simulators.ports import BRIEF, TIMEZONE, SimulatedPort, simulate_port

DEFAULT = PREPARATIONS["default"]
TRAIN_DAYS = 63
SEEDS = range(50, 56)


@pytest.fixture(scope="module")
def ports() -> list[SimulatedPort]:
    """Ports without holidays, so that what alerts are false is the trap's."""
    return [simulate_port(seed, holidays=()) for seed in SEEDS]


def found(ports: list[SimulatedPort], preparation: Preparation = DEFAULT, zone: str = TIMEZONE) -> Detection:
    """What the median week finds in all of them after TRAIN_DAYS."""
    total = Detection()
    for port in ports:
        series = Series("1_1_out", port.times, port.traffic)
        buckets = preparation.buckets(series, preparation.minutes, zone)
        split = int(np.searchsorted(buckets.starts, buckets.starts[0] + TRAIN_DAYS * 86_400))
        model = detectors.fit("profile", buckets[:split], preparation)
        said = statuses(model.judge(buckets[split:]).score)
        start = int(buckets.starts[split])
        known: dict[bool, list[KnownAnomaly]] = {True: [], False: []}
        for a in port.anomalies:
            known[a.kind in BRIEF and a.start >= start].append(KnownAnomaly(a.start, a.end))
        total += detection(buckets.starts[split:], preparation.minutes * 60, said, known[True], known[False])
    return total


def test_ours_finds_nearly_all_and_wakes_nobody_for_nothing(ports: list[SimulatedPort]) -> None:
    ours = found(ports)
    assert ours.known > 25
    assert ours.with_alert / ours.known >= 0.9
    assert ours.with_anomaly / ours.known >= 0.97
    assert ours.false_alerts == 0


def zeroed(samples: np.ndarray, minutes: int) -> np.ndarray:
    """A bucket of nothing where nothing was measured."""
    return np.nan_to_num(DEFAULT.fill(samples, minutes))


@pytest.mark.parametrize(
    ("change", "zone"),
    [
        pytest.param({"fill": zeroed}, TIMEZONE, id="gaps as zeroes"),
        pytest.param({"fill": workshop_sums}, TIMEZONE, id="sums of what there is"),
        pytest.param({"fit_scaler": standard_scaler}, TIMEZONE, id="no log scale"),
        # The training ends before the change to summer time, and the judging goes over it.
        pytest.param({}, "UTC", id="UTC"),
    ],
)
def test_what_brings_false_alerts(change: dict, zone: str, ports: list[SimulatedPort]) -> None:
    assert found(ports, replace(DEFAULT, **change), zone).false_alerts >= 5


def test_four_buckets_of_half_an_hour_are_too_long(ports: list[SimulatedPort]) -> None:
    ours, halves = found(ports), found(ports, replace(DEFAULT, minutes=30))
    assert ours.with_alert - halves.with_alert >= 0.25 * ours.known


def test_the_z_score_takes_the_beginning_of_a_flood_for_a_spike() -> None:
    # Twelve hours of about 100, then 300: of five-minute sums the first ones are wiped out.
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(100, 5, 144), rng.normal(300, 5, 24)])[:, None]
    kept = workshop_sums(samples, 5)
    assert (kept[144:147] == 0).all()
    assert (kept[150:] > 0).all()


def test_a_bucket_that_has_not_ended_is_not_judged(ports: list[SimulatedPort]) -> None:
    port = ports[0]
    cut = int(np.searchsorted(port.times, port.times[0] + 70 * 86_400 + 300))
    series = Series("1_1_out", port.times[:cut], port.traffic[:cut])
    buckets = DEFAULT.buckets(series, 15, TIMEZONE)
    assert buckets.starts[-1] + 900 <= series.times[-1]
    assert buckets.starts[-1] + 1800 > series.times[-1]


def test_a_forecast_that_follows_the_newest_points_is_content_with_an_anomaly() -> None:
    """One step ahead, errors are as small within an anomaly as outside; ours are not."""
    rng = np.random.default_rng(1)
    week = np.tile(np.sin(np.arange(672) / 672 * 14 * np.pi), (9, 1))
    values = week + rng.normal(0, 0.05, week.shape)
    flooded = values[-1].copy()
    flooded[300:330] += 2.0
    usual, _ = detectors.usual_week(values[:-1])
    one_step = np.abs(np.diff(flooded - usual))[300:329]
    ours = np.abs(flooded - usual)[301:330]
    limit = 4 * 0.05
    assert (one_step > limit).mean() < 0.2
    assert (ours > limit).all()
