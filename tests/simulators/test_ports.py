"""The simulated ports: the same each time, in local time, with the faults and anomalies that they name."""

from __future__ import annotations

import functools
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from ports.series import KnownAnomaly, list_series, read_anomalies, read_series
from simulators.ports import (
    BRIEF,
    HOLIDAYS,
    LEAK,
    SHIPPED_DAYS,
    SHIPPED_PORTS,
    SHIPPED_START,
    SimulatedAnomaly,
    SimulatedPort,
    simulate_port,
    write_anomalies,
    write_port,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "ports"
ROME = ZoneInfo("Europe/Rome")
HOUR, DAY = 3600, 86_400
MONDAY = date(2023, 1, 9)
SEEDS = range(1, 9)
# Where chance is counted.
MANY = range(1, 13)
# What is left of a 32-bit counter by a reset.
WRAPPED = (2**32 - 10**6, 2**32)


@functools.cache
def life(
    seed: int, start: date = MONDAY, days: int = 112, holidays: tuple = (), per_week: float = 0
) -> SimulatedPort:
    return simulate_port(seed, start, days, holidays, per_week)


def whole_life(seed: int) -> SimulatedPort:
    return life(seed, per_week=1.5)


def same(one: SimulatedPort, other: SimulatedPort) -> bool:
    return (
        np.array_equal(one.times, other.times)
        and np.array_equal(one.traffic, other.traffic, equal_nan=True)
        and one.anomalies == other.anomalies
    )


def midnight(day: date) -> int:
    """Seconds since 1970 of the local midnight at which a day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=ROME).timestamp())


def on(port: SimulatedPort, start: date, number: int) -> np.ndarray:
    """Traffic of all 288 samples of the day so many days after the start, NaN where one was not taken."""
    places = (port.times - midnight(start)) // 300 - 1
    traffic = np.full(288, np.nan)
    of_day = places // 288 == number
    traffic[places[of_day] % 288] = port.traffic[of_day]
    return traffic


def is_fault(traffic: np.ndarray) -> np.ndarray:
    """A port of these is never quite without traffic."""
    return np.isnan(traffic) | (traffic == 0) | ((traffic > WRAPPED[0]) & (traffic < WRAPPED[1]))


# --- the same port -------------------------------------------------------------------------------


def test_same_seed_same_port() -> None:
    assert same(simulate_port(7), simulate_port(7))
    other = simulate_port(8)
    assert not np.isin(simulate_port(7).traffic[:100], other.traffic[:100]).any()


def test_samples_are_five_minutes_apart_from_local_midnight_on() -> None:
    for start in (MONDAY, date(2023, 7, 3)):
        port = life(3, start, 28)
        elapsed = port.times - midnight(start)
        assert (elapsed % 300 == 0).all()
        assert (np.diff(elapsed) > 0).all()
        assert (elapsed[0], elapsed[-1]) == (300, 28 * DAY)
        assert len(elapsed) > 0.95 * 28 * 288


def test_traffic_is_whole_bytes_and_never_negative() -> None:
    for seed in SEEDS:
        traffic = whole_life(seed).traffic
        known = traffic[~np.isnan(traffic)]
        assert (known == np.round(known)).all()
        assert known.min() >= 0


# --- a week --------------------------------------------------------------------------------------


def test_every_week_has_the_same_shape() -> None:
    for seed in SEEDS:
        later = life(seed, MONDAY + timedelta(7), 14)
        np.testing.assert_array_equal(life(seed, days=14).traffic, later.traffic)


def test_days_of_the_week_differ() -> None:
    for seed in SEEDS:
        later = life(seed, MONDAY + timedelta(1), 14)
        assert not np.allclose(life(seed, days=14).traffic, later.traffic, rtol=0.01, equal_nan=True)


def profile(port: SimulatedPort, part: np.ndarray, zone: str) -> pd.Series:
    """The usual working day by quarters of an hour, in logarithms and around 0."""
    moments = pd.to_datetime(port.times - 150, unit="s", utc=True).tz_convert(zone)
    traffic = np.where(is_fault(port.traffic), np.nan, port.traffic)
    is_used = part & (moments.day_of_week < 5)
    quarters = moments.hour * 4 + moments.minute // 15
    usual = pd.Series(np.log(traffic[is_used])).groupby(quarters[is_used]).median()
    return usual - usual.median()


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (date(2023, 2, 27), datetime(2023, 3, 26, 1, tzinfo=UTC)),
        (date(2023, 10, 2), datetime(2023, 10, 29, 1, tzinfo=UTC)),
    ],
    ids=["summer time", "winter time"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_day_keeps_its_shape_in_local_time_when_the_clocks_change(
    seed: int, start: date, change: datetime
) -> None:
    port = life(seed, start, 56)
    before = port.times <= change.timestamp()
    moved = {
        zone: np.sqrt(((profile(port, before, zone) - profile(port, ~before, zone)) ** 2).mean())
        for zone in ("Europe/Rome", "UTC")
    }
    # Four weeks of noise leave a few percent; an hour makes twelve and more.
    assert moved["Europe/Rome"] < 0.12
    assert moved["UTC"] > 1.5 * moved["Europe/Rome"]


def test_a_holiday_is_a_sunday() -> None:
    holiday = MONDAY + timedelta(8)
    sunday_start = MONDAY - timedelta(2)
    assert (sunday_start + timedelta(8)).weekday() == 6
    for seed in SEEDS:
        usual, with_holiday = life(seed, days=14), life(seed, days=14, holidays=(holiday,))
        # The same noise, so that nothing but the calendar differs.
        sunday = on(life(seed, sunday_start, 14), sunday_start, 8)
        np.testing.assert_array_equal(on(with_holiday, MONDAY, 8), sunday)
        assert not np.allclose(on(usual, MONDAY, 8), sunday, rtol=0.01, equal_nan=True)
        for number in (*range(8), *range(9, 14)):
            np.testing.assert_array_equal(on(with_holiday, MONDAY, number), on(usual, MONDAY, number))


def test_a_holiday_lasts_from_midnight_to_midnight_local_time() -> None:
    # After the change to summer time midnight is at 22:00 UTC.
    start, holiday = date(2023, 3, 20), date(2023, 4, 10)
    changed = np.zeros(0, dtype=np.int64)
    for seed in SEEDS:
        usual, with_holiday = life(seed, start, 28), life(seed, start, 28, (holiday,))
        differs = ~np.isclose(usual.traffic, with_holiday.traffic, rtol=1e-4, equal_nan=True)
        changed = np.union1d(changed, usual.times[differs])
    assert changed[0] == midnight(holiday) + 300
    assert changed[-1] == midnight(holiday + timedelta(1))
    assert len(changed) == 288


def test_growth_is_a_third_at_most() -> None:
    grown = []
    for seed in MANY:
        port = life(seed)
        weeks = (port.times - port.times[0]) // (7 * DAY)
        first, last = (np.nanmedian(port.traffic[weeks == week]) for week in (0, 15))
        grown.append(last / first)
    # A few percent are noise.
    assert 0.8 < min(grown) < 0.95
    assert 1.2 < max(grown) < 1.4


# --- anomalies -----------------------------------------------------------------------------------


def test_anomalies_are_of_every_kind_and_length_and_hours_apart() -> None:
    found = [whole_life(seed).anomalies for seed in MANY]
    brief = [one for anomalies in found for one in anomalies if one.kind != LEAK]
    leaks = [one for anomalies in found for one in anomalies if one.kind == LEAK]
    assert {one.kind for one in brief} == set(BRIEF) == {"drop", "flood", "shape", "outage"}
    lengths = {one.end - one.start for one in brief}
    assert lengths == set(range(HOUR, 3 * HOUR + 1, 300))
    assert {(one.end - one.start) / HOUR for one in leaks} <= {4 + number / 2 for number in range(16)}
    # 1.5 a week, a tenth of them leaks, less those that would have been too close to another.
    assert 1.2 < (len(brief) + len(leaks)) / (12 * 16) < 1.6
    assert 0.05 < len(leaks) / (len(brief) + len(leaks)) < 0.15
    for seed, anomalies in enumerate(found, start=1):
        times = whole_life(seed).times
        assert all(times[0] <= one.start < one.end <= times[-1] for one in anomalies)
        assert all((one.start - times[0]) % 300 == 0 for one in anomalies)
        for one, following in pairwise(anomalies):
            assert following.start - one.end > 12 * HOUR


def test_without_anomalies_there_are_none() -> None:
    assert life(1).anomalies == ()
    assert len(simulate_port(1, anomalies_per_week=5).anomalies) > 2 * len(whole_life(1).anomalies)


@functools.cache
def changes(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, traffic without anomalies and with them, where both were taken."""
    usual, port = life(seed), whole_life(seed)
    times, *places = np.intersect1d(usual.times, port.times, assume_unique=True, return_indices=True)
    return times, usual.traffic[places[0]], port.traffic[places[1]]


@pytest.mark.parametrize("seed", SEEDS)
def test_outside_its_labels_a_port_is_as_it_would_be(seed: int) -> None:
    times, usual, traffic = changes(seed)
    outside = np.ones(len(times), dtype=bool)
    for one in whole_life(seed).anomalies:
        outside &= (times <= one.start) | (times > one.end)
    # The counters fail at other moments, and that is no anomaly.
    sound = outside & ~is_fault(usual) & ~is_fault(traffic)
    assert 0.93 * len(times) < sound.sum() < len(times)
    np.testing.assert_array_equal(traffic[sound], usual[sound])


@pytest.mark.parametrize("kind", [*BRIEF, LEAK])
def test_inside_its_label_every_sample_is_changed_as_the_kind_says(kind: str) -> None:
    judged = 0
    for seed in SEEDS:
        times, usual, traffic = changes(seed)
        for one in whole_life(seed).anomalies:
            if one.kind != kind:
                continue
            during = (times > one.start) & (times <= one.end)
            if kind == "outage":
                broken = is_fault(traffic[during]) & (traffic[during] != 0)
                assert broken.sum() <= 1
                assert (traffic[during][~broken] == 0).all()
            else:
                sound = during & ~is_fault(usual) & ~is_fault(traffic)
                place = (times[sound] - one.start) / 300 - 1
                check_change(kind, usual[sound], traffic[sound], place / ((one.end - one.start) / 300 - 1))
            judged += 1
    assert judged >= 3


def check_change(kind: str, usual: np.ndarray, traffic: np.ndarray, elapsed: np.ndarray) -> None:
    """elapsed: from 0 at the first sample to 1 at the last."""
    ratio = traffic / usual
    # Bytes are whole: of some thousands the ratio is known to a thousandth.
    if kind == "drop":
        assert 0.05 * 0.999 < ratio.min() <= ratio.max() < 0.35 * 1.001
        np.testing.assert_allclose(ratio, ratio[0], rtol=2e-3)
    elif kind == "flood":
        added = traffic - usual
        # Twice to ten times what is usual in these hours, each sample a fifth more or less.
        assert 1.2 * np.median(usual) < added.min()
        assert added.max() < 16 * np.median(usual)
        assert added.max() / added.min() < 1.5 * 1.001
    elif kind == "shape":
        assert (np.abs(np.log(ratio)) > np.log(2.5) - 1e-3).all()
    else:
        slope = (ratio[-1] - 1) / elapsed[-1]
        assert 1.5 * 0.999 < slope < 4 * 1.001
        np.testing.assert_allclose(ratio, 1 + slope * elapsed, rtol=2e-3)


# --- faults of counters and of the monitoring ----------------------------------------------------


def test_counters_fail_for_one_sample_in_three_ways() -> None:
    counts = {"nothing": 0, "nought": 0, "wrapped": 0}
    for seed in SEEDS:
        port = life(seed)
        faults = np.flatnonzero(is_fault(port.traffic))
        traffic = port.traffic[faults]
        counts["nothing"] += int(np.isnan(traffic).sum())
        counts["nought"] += int((traffic == 0).sum())
        counts["wrapped"] += int((traffic > WRAPPED[0]).sum())
        assert (np.diff(faults) > 1).all()
    # 0.1 a day in 8 x 112 days, a third each: 30, give or take 5.
    assert all(15 < count < 45 for count in counts.values()), counts


def gaps(port: SimulatedPort) -> list[tuple[int, int]]:
    """Start of each gap, and how many samples were not taken."""
    missing = np.diff(port.times) // 300 - 1
    return [(int(port.times[place]), int(missing[place])) for place in np.flatnonzero(missing)]


def test_gaps_of_half_an_hour_to_six_come_once_in_three_weeks() -> None:
    lengths = [length for seed in MANY for _, length in gaps(life(seed))]
    assert 6 <= min(lengths) <= 12
    assert 60 <= max(lengths) <= 72
    # 12 x 112 days / 21: 64, give or take 8.
    assert 40 < len(lengths) < 90


@pytest.mark.parametrize("seed", SEEDS)
def test_no_gap_hides_a_labelled_anomaly_nor_the_half_hour_around_it(seed: int) -> None:
    port = whole_life(seed)
    assert gaps(port)
    taken = set(port.times.tolist())
    for one in port.anomalies:
        first, last = max(one.start - 1500, midnight(MONDAY) + 300), min(one.end + 1800, port.times[-1])
        assert taken.issuperset(range(first, last + 1, 300))


# --- files ---------------------------------------------------------------------------------------


def test_the_file_of_a_port_by_hand(tmp_path: Path) -> None:
    # 2023-01-09T00:05 in Rome, and a sample between the last two that was never taken.
    times = 1_673_218_800 + 300 * np.array([1, 2, 3, 5])
    port = SimulatedPort(times, np.array([120.0, np.nan, 0.0, 4294967290.0]), ())
    write_port(tmp_path, "1_4_out", port)
    assert (tmp_path / "1_4_out.csv").read_bytes() == (
        b",ts,traffic\n"
        b"0,2023-01-08 23:05:00,120\n"
        b"1,2023-01-08 23:10:00,\n"
        b"2,2023-01-08 23:15:00,0\n"
        b"3,2023-01-08 23:25:00,4294967290\n"
    )


def test_the_file_of_anomalies_by_hand(tmp_path: Path) -> None:
    late = SimulatedAnomaly("drop", 1_673_222_400, 1_673_226_000)
    early = SimulatedAnomaly("leak", 1_673_218_800, 1_673_220_600)
    nothing = np.zeros(0)
    ports = {
        "1_4_out": SimulatedPort(nothing, nothing, (late,)),
        "1_8_out": SimulatedPort(nothing, nothing, (early, late)),
    }
    write_anomalies(tmp_path, ports)
    assert (tmp_path / "anomalies.txt").read_bytes() == (
        b"2023-01-08 23:00:00,2023-01-08 23:30:00,1_8_out\n"
        b"2023-01-09 00:00:00,2023-01-09 01:00:00,1_4_out\n"
        b"2023-01-09 00:00:00,2023-01-09 01:00:00,1_8_out\n"
    )
    write_anomalies(tmp_path, {"1_4_out": SimulatedPort(nothing, nothing, ())})
    assert (tmp_path / "anomalies.txt").read_bytes() == b""


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    ports = {f"1_{seed}_out": whole_life(seed) for seed in (1, 2)}
    for name, port in ports.items():
        write_port(tmp_path, name, port)
        found = read_series(tmp_path / f"{name}.csv")
        np.testing.assert_array_equal(found.times, port.times)
        np.testing.assert_array_equal(found.traffic, port.traffic)
    write_anomalies(tmp_path, ports)
    known = [KnownAnomaly(one.start, one.end, name) for name, port in ports.items() for one in port.anomalies]
    found = read_anomalies(tmp_path / "anomalies.txt")
    assert sorted(found, key=repr) == sorted(known, key=repr)
    assert [one.start for one in found] == sorted(one.start for one in found)


# --- what is shipped -----------------------------------------------------------------------------


def command(folder: Path, *options: object) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "simulators.ports", str(folder), *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes without options, into a folder that there was not."""
    return command(tmp_path_factory.mktemp("shipped") / "data" / "ports")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shipped_files_are_what_the_command_writes(shipped: Path) -> None:
    written, kept = content(shipped), content(DATA)
    assert sorted(kept) == sorted(written)
    # Not one comparison of bytes: on a difference pytest would take minutes to show it.
    assert [name for name in written if written[name] != kept[name]] == []


def test_five_outbound_ports_of_sixteen_weeks_in_six_megabytes(shipped: Path) -> None:
    assert len(SHIPPED_PORTS) == 5
    assert sorted(content(shipped)) == sorted([*(f"{name}.csv" for name in SHIPPED_PORTS), "anomalies.txt"])
    assert all(name.endswith("_out") for name in SHIPPED_PORTS)
    assert list(list_series(shipped)) == sorted(SHIPPED_PORTS)
    assert sum(map(len, content(shipped).values())) <= 6_000_000
    for path in list_series(shipped).values():
        times = read_series(path).times
        assert (times[-1] - times[0]) / DAY == pytest.approx(112, abs=0.5)
        assert len(times) >= 0.97 * 112 * 288


def test_shipped_ports_have_a_change_of_the_clocks_a_holiday_and_all_faults(shipped: Path) -> None:
    end = SHIPPED_START + timedelta(SHIPPED_DAYS)
    offsets = {
        datetime(day.year, day.month, day.day, tzinfo=ROME).utcoffset() for day in (SHIPPED_START, end)
    }
    assert len(offsets) == 2
    assert sum(SHIPPED_START <= day < end for day in HOLIDAYS) >= 2
    ports = [read_series(path) for path in list_series(shipped).values()]
    assert all((np.diff(port.times) > 300).any() for port in ports)
    assert all(is_fault(port.traffic).any() for port in ports)
    together = np.concatenate([port.traffic for port in ports])
    assert np.isnan(together).any()
    assert (together == 0).any()
    assert ((together > WRAPPED[0]) & (together < WRAPPED[1])).any()


def test_shipped_anomalies_are_those_of_the_shipped_ports(shipped: Path) -> None:
    known = read_anomalies(shipped / "anomalies.txt")
    assert {one.series for one in known} == set(SHIPPED_PORTS)
    for name in SHIPPED_PORTS:
        times = read_series(shipped / f"{name}.csv").times
        for one in (one for one in known if one.series == name):
            during = (times > one.start) & (times <= one.end)
            assert during.sum() == (one.end - one.start) / 300


def test_a_port_is_the_same_whatever_other_ports_there_are(shipped: Path, tmp_path: Path) -> None:
    five, six = content(shipped), content(command(tmp_path, "--ports", 6))
    assert set(six) - set(five) == {"2_1_out.csv"}
    assert six.pop("2_1_out.csv") not in five.values()
    lines, more = (files.pop("anomalies.txt").splitlines() for files in (five, six))
    assert [line for line in more if not line.endswith(b",2_1_out")] == lines
    assert len(more) > len(lines)
    assert [name for name in five if five[name] != six[name]] == []


def test_another_seed_is_another_port(shipped: Path, tmp_path: Path) -> None:
    other = content(command(tmp_path, "--seed", 2, "--ports", 1))
    assert sorted(other) == [f"{SHIPPED_PORTS[0]}.csv", "anomalies.txt"]
    ports = list(content(shipped).values())
    assert len(set(ports)) == 6
    assert not set(other.values()) & set(ports)
