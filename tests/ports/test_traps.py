"""Each trap that was measured on port traffic: what falls into it does worse than ours on the same ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.alerts import ALERT_RECORDS, alert_records
from ports import detectors
from ports.comparison import Detection, detection
from ports.preparation import PREPARATIONS, Preparation, standard_scaler, workshop_sums
from ports.series import KnownAnomaly, Series
from ports.verdicts import LEAD_MINUTES, statuses
from ports.weeks import usual_week
from simulators.ports import BRIEF, TIMEZONE, SimulatedPort, simulate_port

DEFAULT = PREPARATIONS["default"]
TRAIN_DAYS = 63
# In buckets of the default preparation.
HOUR, DAY = 4, 96
SEEDS = range(50, 56)


@pytest.fixture(scope="module")
def ports() -> list[SimulatedPort]:
    """Ports without holidays, so that what alerts are false is the trap's."""
    return [simulate_port(seed, holidays=()) for seed in SEEDS]


def found(
    ports: list[SimulatedPort],
    preparation: Preparation = DEFAULT,
    zone: str = TIMEZONE,
    records: int = ALERT_RECORDS,
) -> Detection:
    """What the median week finds in all of them after TRAIN_DAYS. records: as in Row."""
    total = Detection()
    for port in ports:
        series = Series("1_1_out", port.times, port.traffic)
        buckets = preparation.buckets(series, preparation.minutes, zone)
        split = int(np.searchsorted(buckets.starts, buckets.starts[0] + TRAIN_DAYS * 86_400))
        model = detectors.fit("profile", buckets[:split], preparation)
        lead = LEAD_MINUTES // preparation.minutes
        said = statuses(model.judge(buckets[split - lead :]).score[lead:], records=records)
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


# --- what is not learnt --------------------------------------------------------------------------


def widened(ports: list[SimulatedPort], change: Callable[[np.ndarray], None]) -> np.ndarray:
    """How many times as wide the limit of each hour is after a change of TRAIN_DAYS (ports, 24).

    change: changes the traffic of all buckets in place.
    """
    ratios = []
    for port in ports:
        series = Series("1_1_out", port.times, port.traffic)
        buckets = DEFAULT.buckets(series, DEFAULT.minutes, TIMEZONE)[: TRAIN_DAYS * DAY]
        traffic = buckets.traffic.copy()
        change(traffic)
        models = [
            detectors.fit("profile", one, DEFAULT) for one in (buckets, replace(buckets, traffic=traffic))
        ]
        limits, changed = (model.limits * model.reach.max() for model in models)
        ratios.append(changed / limits)
    return np.array(ratios)


def flood_nights(traffic: np.ndarray) -> None:
    """Three hours of each of the last fourteen days."""
    for day in range(1, 15):
        first = len(traffic) - day * DAY + 10 * HOUR
        traffic[first : first + 3 * HOUR] *= 4.0


def celebrate(traffic: np.ndarray) -> None:
    """A fortnight that is quieter, and each hour at another level, until a week before the end."""
    hours = np.exp(np.random.default_rng(1).normal(-1.0, 0.7, 14 * 24))
    traffic[-21 * DAY : -7 * DAY] *= np.repeat(hours, HOUR)


def test_anomalies_of_the_nights_before_do_not_widen_the_band(
    ports: list[SimulatedPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert widened(ports, flood_nights)[:, 10:13].max() < 1.1
    # Found in a first pass, they are left out of the second one. If they are not, the band is twice as wide.
    followed = detectors._Service.followed

    def overlooked(service: detectors._Service, drift_minutes: int) -> tuple[np.ndarray, ...]:
        is_anomalous, errors, wider = followed(service, drift_minutes)
        return np.zeros_like(is_anomalous), errors, wider

    monkeypatch.setattr(detectors._Service, "followed", overlooked)
    assert (widened(ports, flood_nights)[:, 11] > 1.8).all()


def test_a_christmas_fortnight_does_not_widen_the_band(
    ports: list[SimulatedPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = widened(ports, celebrate).mean(axis=1)
    # Of a third less errors, by chance a tenth more or less.
    assert ours.max() < 1.12
    monkeypatch.setattr(detectors, "different", lambda errors, weeks: np.zeros(weeks[-1] + 1, dtype=bool))
    learnt = widened(ports, celebrate).mean(axis=1)
    assert (learnt > ours + 0.05).all()
    assert learnt.mean() > 1.15


# --- what brings false alerts, or finds less -----------------------------------------------------


def zeroed(samples: np.ndarray, minutes: int) -> np.ndarray:
    """A bucket of nothing where nothing was measured."""
    return np.nan_to_num(DEFAULT.fill(samples, minutes))


@pytest.mark.parametrize(
    ("change", "zone"),
    [
        pytest.param({"fill": zeroed}, TIMEZONE, id="gaps as zeroes"),
        pytest.param({"fill": workshop_sums}, TIMEZONE, id="sums of what there is"),
        # The training ends before the change to summer time, and the judging goes over it.
        pytest.param({}, "UTC", id="UTC"),
    ],
)
def test_what_brings_false_alerts(change: dict, zone: str, ports: list[SimulatedPort]) -> None:
    assert found(ports, replace(DEFAULT, **change), zone).false_alerts >= 5


def test_without_a_log_scale_more_is_missed(ports: list[SimulatedPort]) -> None:
    raw = found(ports, replace(DEFAULT, fit_scaler=standard_scaler))
    assert found(ports).with_alert > raw.with_alert


def test_four_buckets_of_half_an_hour_are_too_long(ports: list[SimulatedPort]) -> None:
    halves = replace(DEFAULT, minutes=30)
    ours, four, an_hour = found(ports), found(ports, halves), found(ports, halves, records=alert_records(30))
    assert ours.with_alert - four.with_alert >= 0.25 * ours.known
    assert ours.with_alert - an_hour.with_alert <= 0.05 * ours.known
    assert an_hour.false_alerts == 0


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
    usual, _ = usual_week(values[:-1])
    one_step = np.abs(np.diff(flooded - usual))[300:329]
    ours = np.abs(flooded - usual)[301:330]
    limit = 4 * 0.05
    assert (one_step > limit).mean() < 0.2
    assert (ours > limit).all()
