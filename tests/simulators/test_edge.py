"""The simulated edge node: the same each time, at the levels it claims, with the attacks it names."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import formatters
from edge.datasets import loadDataset
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
)
from nodes.node import DEFAULT_NODE
from nodes.series import Point, Record
from simulators.edge import Attack, cpu_attack, iperf_attack, simulate
from tests.support.metrics import MEASUREMENTS, NODE_MEASUREMENTS, RAN_MEASUREMENTS, series_without_sample

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
HOUR = 3600.0

# What a normal record shows, in percent and in bytes per 15 s.
NORMAL = {
    "cpu_user_percentage": (4.4, 9.0),
    "cpu_user_0_percentage": (4.4, 9.0),
    "cpu_user_1_percentage": (4.4, 9.0),
    "mem_percentage": (88.67, 88.82),
    "cpu_rx_percentage": (13.6, 14.7),
    "cpu_tx_percentage": (5.4, 5.75),
    "bytes_received_rate": (5e3, 200e3),
    "bytes_transmitted_rate": (10e3, 200e3),
    "dl_bytes_rate": (0.0, 1e6),
    "ul_bytes_rate": (0.0, 50e3),
}


def per_record(frame: pd.DataFrame, column: str) -> pd.Series:
    """Known values; byte rates as bytes per 15 s, so that a record after a missed scrape compares."""
    return frame[column].dropna() * (15.0 if "bytes" in column else 1.0)


def assert_normal(frame: pd.DataFrame, column: str) -> None:
    low, high = NORMAL[column]
    values = per_record(frame, column)
    assert len(values) > 0
    # Samples come 2 ms early or late and counters are whole numbers: a thousandth to either side.
    assert low * 0.999 <= values.min()
    assert values.max() <= high * 1.001


def rows_of(samples: Record, interval_seconds: float = 15.0) -> pd.DataFrame:
    rows = list(formatters.format_records(formatters.slot_records(samples, interval_seconds)))
    frame = pd.DataFrame(rows)
    return frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame.pop("time"), utc=True)))


def series_of(samples: Record, measurement: str) -> dict[str, list[Point]]:
    """Points of each series of a measurement, by its CPU, interface or cell."""
    series: dict[str, list[Point]] = {}
    for point in samples[measurement]:
        name = point.get("cpu") or point.get("device") or point.get("cellId") or ""
        series.setdefault(name, []).append(point)
    return series


# --- the samples ---------------------------------------------------------------------------------


def test_same_seed_same_samples() -> None:
    def life(seed: int) -> Record:
        return simulate(seed, START, HOUR, cpu_attack(START + 600), reboot_at=START + 3000)

    assert life(7) == life(7)
    other = life(8)
    for measurement, points in life(7).items():
        if measurement != MEMORY_TOTAL:
            assert points != other[measurement]


def test_samples_are_tagged_and_timed_as_prometheus_stores_them() -> None:
    samples = simulate(7, START, HOUR)
    assert set(samples) == set(MEASUREMENTS)
    assert set(series_of(samples, CPU_SECONDS)) == set(DEFAULT_NODE.cpus)
    assert set(series_of(samples, RECEIVED)) == set(DEFAULT_NODE.interfaces)
    assert set(series_of(samples, TRANSMITTED)) == set(DEFAULT_NODE.interfaces)
    assert set(series_of(samples, DOWNLINK)) == set(series_of(samples, UPLINK)) == {DEFAULT_NODE.cell_id}
    for measurements, job in (
        (NODE_MEASUREMENTS, "node"),
        (RAN_MEASUREMENTS, "ran"),
    ):
        points = [point for measurement in measurements for point in samples[measurement]]
        assert {point["job"] for point in points} == {job}
        assert len({point["instance"] for point in points}) == 1
    assert {point["time"] % 1_000_000 for points in samples.values() for point in points} == {0}
    for _, record in formatters.slot_records(samples, 15.0):
        assert series_without_sample(record) == set()


def test_the_two_exporters_are_scraped_at_different_moments_of_a_slot() -> None:
    samples = simulate(7, START, HOUR)
    node, ran = (np.array([p["time"] for p in samples[name]]) for name in (MEMORY_FREE, RX_CPU))
    assert len(node) == len(ran) == 240
    assert (node // (15 * 10**9) == ran // (15 * 10**9)).all()
    assert ((ran - node) / 1e9).min() > 3.0


@pytest.mark.parametrize("attacks", [cpu_attack(START + 1200), iperf_attack(START + 1200)])
def test_attacks_change_nothing_outside_their_windows(attacks: list[Attack]) -> None:
    quiet, attacked = simulate(7, START, HOUR), simulate(7, START, HOUR, attacks)
    first, last = attacks[0].start, attacks[-1].end
    assert quiet[MEMORY_FREE] == attacked[MEMORY_FREE]
    for measurement in (RX_CPU, TX_CPU, DOWNLINK, UPLINK):
        pairs = list(zip(quiet[measurement], attacked[measurement], strict=True))
        outside = [(a, b) for a, b in pairs if not first <= a["time"] / 1e9 < last]
        assert 150 < len(outside) < len(pairs)
        assert all(a == b for a, b in outside)
    for measurement, digit in ((CPU_SECONDS, 2e-4), (RECEIVED, 1.0), (TRANSMITTED, 1.0)):
        for name, points in series_of(quiet, measurement).items():
            values, other = (
                np.array([p["value"] for p in array])
                for array in (points, series_of(attacked, measurement)[name])
            )
            times = np.array([p["time"] for p in points]) / 1e9
            outside = (times[1:] <= first) | (times[:-1] >= last)
            assert 150 < outside.sum() < len(outside)
            assert np.abs(np.diff(values) - np.diff(other))[outside].max() <= digit


@pytest.mark.parametrize("interval_seconds", [5.0, 30.0])
def test_other_intervals_show_the_same_levels(interval_seconds: float) -> None:
    samples = simulate(7, START, 6 * HOUR, interval_seconds=interval_seconds)
    rows = rows_of(samples, interval_seconds)
    assert len(rows) == 6 * HOUR / interval_seconds
    # Jitter of 2 ms counts for more in a shorter interval: 0.2 % of 5 s.
    for column, (low, high) in NORMAL.items():
        values = per_record(rows, column)
        assert low * 0.998 <= values.min()
        assert values.max() <= high * 1.002


REBOOT_AT = START + 1802.0


def test_reboot_takes_the_node_away_for_a_minute() -> None:
    samples = simulate(7, START, HOUR, reboot_at=REBOOT_AT)
    for points in samples.values():
        times = np.array([point["time"] for point in points]) / 1e9
        assert not ((times >= REBOOT_AT) & (times < REBOOT_AT + 60)).any()
        assert ((times >= REBOOT_AT - 15) & (times < REBOOT_AT)).any()
        assert ((times >= REBOOT_AT + 60) & (times < REBOOT_AT + 75)).any()


@pytest.mark.parametrize(
    ("measurement", "at_most"),
    # What five records can make: 9 % of 75 s, 200 kB each.
    [(CPU_SECONDS, 0.09 * 75), (RECEIVED, 5 * 200e3), (TRANSMITTED, 5 * 200e3)],
)
def test_reboot_starts_every_counter_from_zero_once(measurement: str, at_most: float) -> None:
    samples = simulate(7, START, HOUR, reboot_at=REBOOT_AT)
    for points in series_of(samples, measurement).values():
        falls = [after for before, after in pairwise(points) if after["value"] < before["value"]]
        assert len(falls) == 1
        assert REBOOT_AT + 60 <= falls[0]["time"] / 1e9 < REBOOT_AT + 75
        assert 0 < falls[0]["value"] < at_most
    without = simulate(7, START, HOUR)
    for points in series_of(without, measurement).values():
        assert all(before["value"] <= after["value"] for before, after in pairwise(points))


@pytest.mark.parametrize("column", NORMAL)
def test_reboot_leaves_every_rate_in_range(column: str) -> None:
    rows = rows_of(simulate(7, START, HOUR, reboot_at=REBOOT_AT))
    # Of 240 records four are lost; the next one knows its rates from the samples before.
    assert len(rows) == 236
    assert rows[column].isna().sum() == (0 if column.startswith(("mem", "cpu_rx", "cpu_tx")) else 1)
    assert_normal(rows, column)


# --- the shipped datasets ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normal() -> pd.DataFrame:
    return loadDataset(DATA / "normal.csv")


def test_shipped_files_are_what_the_model_writes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulators.edge", "--output_dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = ["attacks.json", "cpu_attack.csv", "iperf_attack.csv", "normal.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    # Not one comparison of bytes: on a difference pytest would take minutes to show it.
    assert [name for name in names if (tmp_path / name).read_bytes() != (DATA / name).read_bytes()] == []
    lines = {name: (tmp_path / name).read_text().count("\n") - 1 for name in names[1:]}
    assert sorted(done.stdout.splitlines()) == [
        f"{tmp_path / name}: {lines[name]} records" for name in names[1:]
    ]


def test_normal_dataset_is_about_three_days_in_at_most_five_megabytes(normal: pd.DataFrame) -> None:
    # Three days are 17280 slots; a reboot and missed scrapes take a few.
    assert 17_200 <= len(normal) <= 17_280
    assert 2.99 <= (normal.index[-1] - normal.index[0]) / pd.Timedelta(days=1) <= 3.0
    assert (DATA / "normal.csv").stat().st_size <= 5_000_000


@pytest.mark.parametrize("column", NORMAL)
def test_normal_dataset_is_at_the_levels_of_the_testbed(normal: pd.DataFrame, column: str) -> None:
    assert_normal(normal, column)
    low, high = NORMAL[column]
    values = per_record(normal, column)
    # And lives in them: it spreads over the range, and few values are missing.
    assert values.max() - values.min() > 0.5 * (high - low)
    assert len(values) >= len(normal) - 10


@pytest.mark.parametrize("column", ["dl_bytes_rate", "ul_bytes_rate"])
def test_nobody_is_attached_for_long_spells(normal: pd.DataFrame, column: str) -> None:
    silent = normal[column] == 0
    spells = silent.groupby((silent != silent.shift()).cumsum()).sum()
    assert 0.2 < silent.mean() < 0.8
    # A quarter of an hour is 60 records.
    assert (spells >= 60).sum() >= 20


def test_normal_dataset_has_one_reboot_and_no_negative_rate(normal: pd.DataFrame) -> None:
    seconds = normal.index.to_series().diff().dt.total_seconds()
    gaps = seconds[seconds > 45]
    assert len(gaps) == 1
    assert 60 < gaps.iloc[0] <= 90
    after = normal.loc[gaps.index[0]]
    for column in NORMAL:
        assert_normal(after.to_frame().T.astype(float), column)
    counted = [column for column in normal if "bytes" in column]
    assert normal[counted].min().min() >= 0


@pytest.mark.parametrize("name", ["normal.csv", "cpu_attack.csv", "iperf_attack.csv"])
def test_times_rise_and_every_record_keeps_its_own(name: str) -> None:
    frame = loadDataset(DATA / name)
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    slots = frame.index.as_unit("ns").asi8 // (15 * 10**9)
    assert len(np.unique(slots)) == len(slots)
    # Not snapped to the slot: the jitter of the scrapes is still there.
    assert len({time.microsecond for time in frame.index[:200]}) > 5


# --- the attacks ---------------------------------------------------------------------------------


def windows(name: str) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    attacks = json.loads((DATA / "attacks.json").read_text())[name]
    return [(pd.Timestamp(attack["start"]), pd.Timestamp(attack["end"])) for attack in attacks]


def split(values: pd.Series, name: str) -> tuple[pd.Series, pd.Series]:
    """Values of the records that are wholly inside an attack, and of those wholly outside.

    A record spans the time since the one before; the node's samples are up to 5 s older than its time.
    """
    values = values.dropna()
    end = values.index.to_series()
    begin = end.shift()
    slack = pd.Timedelta(seconds=5)
    inside = pd.Series(False, values.index)
    outside = pd.Series(True, values.index)
    for attack_start, attack_end in windows(name):
        inside |= (begin - slack >= attack_start) & (end <= attack_end)
        outside &= (end <= attack_start) | (begin - slack >= attack_end)
    return values[inside], values[outside]


def test_named_attacks() -> None:
    attacks = json.loads((DATA / "attacks.json").read_text())
    causes = {name: [attack["cause"] for attack in listed] for name, listed in attacks.items()}
    assert causes == {"normal.csv": [], "cpu_attack.csv": ["cpu"], "iperf_attack.csv": ["iperf", "iperf"]}
    ((start, end),) = windows("cpu_attack.csv")
    assert end - start == pd.Timedelta(minutes=18)
    (first_start, first_end), (second_start, second_end) = windows("iperf_attack.csv")
    assert second_end - first_start == pd.Timedelta(minutes=17)
    assert second_start - first_end >= pd.Timedelta(seconds=45)


@pytest.mark.parametrize("column", ["cpu_user_percentage", "cpu_user_0_percentage", "cpu_user_1_percentage"])
def test_cpu_attack_holds_the_cpu_at_98_to_99_percent(column: str) -> None:
    frame = loadDataset(DATA / "cpu_attack.csv")
    inside, outside = split(frame[column], "cpu_attack.csv")
    assert len(inside) >= 68  # of 18 x 4
    assert inside.min() >= 98.0
    assert inside.max() <= 99.0
    assert len(outside) >= 1800
    assert_normal(outside.to_frame(), column)


@pytest.mark.parametrize("column", [column for column in NORMAL if not column.startswith("cpu_user")])
def test_cpu_attack_leaves_the_other_metrics_normal(column: str) -> None:
    assert_normal(loadDataset(DATA / "cpu_attack.csv"), column)


@pytest.mark.parametrize("column", ["bytes_received_rate", "bytes_transmitted_rate", "dl_bytes_rate"])
def test_iperf_attack_floods_with_20_to_60_megabits(column: str) -> None:
    frame = loadDataset(DATA / "iperf_attack.csv")
    inside, outside = split(frame[column], "iperf_attack.csv")
    assert len(inside) >= 55  # of 1.5 x 4 + 14 x 4
    megabits = inside * 8 / 1e6
    # Up to 1 MB in 15 s, 0.53 Mbit/s, is the traffic of every day.
    assert megabits.min() >= 20.0
    assert megabits.max() <= 60.6
    assert megabits.max() - megabits.min() > 10.0
    assert len(outside) >= 1800
    assert_normal(outside.to_frame(), column)


def test_iperf_attack_pauses() -> None:
    frame = loadDataset(DATA / "iperf_attack.csv")
    (_, pause_start), (pause_end, _) = windows("iperf_attack.csv")
    _, outside = split(frame["bytes_received_rate"], "iperf_attack.csv")
    paused = outside[(outside.index > pause_start) & (outside.index <= pause_end)]
    assert len(paused) >= 3
    assert_normal(paused.to_frame(), "bytes_received_rate")


@pytest.mark.parametrize("column", [column for column in NORMAL if column.startswith(("mem", "cpu", "ul"))])
def test_iperf_attack_leaves_the_rest_normal_outside_its_windows(column: str) -> None:
    _, outside = split(loadDataset(DATA / "iperf_attack.csv")[column], "iperf_attack.csv")
    assert len(outside) >= 1800
    assert_normal(outside.to_frame(), column)
