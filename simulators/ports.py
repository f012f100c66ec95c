"""Simulated traffic of network device ports: 5-minute counts as a monitoring system stores them, with labels.

`python -m simulators.ports` writes the datasets shipped in data/ports. No data is copied from elsewhere: a
port has a weekly shape in local time, growth, noise that lasts, spikes, and all the faults of counters.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from ports.series import SAMPLE_SECONDS

SAMPLES_PER_DAY = 288
TIMEZONE = "Europe/Rome"
# Sixteen weeks, with the change to summer time and three public holidays.
SHIPPED_START = date(2023, 1, 9)
SHIPPED_DAYS = 112
HOLIDAYS = (date(2023, 4, 10), date(2023, 4, 25), date(2023, 5, 1))
SHIPPED_SEED = 1
SHIPPED_PORTS = tuple(f"1_{number}_out" for number in (4, 8, 12, 17, 23))
# Kinds of anomalies; the brief ones last one to three hours.
BRIEF = ("drop", "flood", "shape", "outage")
LEAK = "leak"


@dataclass(frozen=True)
class SimulatedAnomaly:
    """What is wrong with a port from `start` to `end` (seconds since 1970)."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class SimulatedPort:
    """times: seconds since 1970 (n,), the end of the 5 minutes that a sample counts. traffic: bytes (n,), NaN
    if the counter gave nothing. A sample that was never taken is absent.
    """

    times: np.ndarray
    traffic: np.ndarray
    anomalies: tuple[SimulatedAnomaly, ...]


def simulate_port(
    seed: int,
    start: date = SHIPPED_START,
    days: int = SHIPPED_DAYS,
    holidays: Sequence[date] = HOLIDAYS,
    anomalies_per_week: float = 1.5,
) -> SimulatedPort:
    """Simulate one port. The seed sets its character; the same arguments give the same samples."""
    rng = np.random.default_rng(seed)
    zone = ZoneInfo(TIMEZONE)
    begin = int(datetime(start.year, start.month, start.day, tzinfo=zone).timestamp())
    times = begin + SAMPLE_SECONDS * np.arange(1, days * SAMPLES_PER_DAY + 1)
    shape = _Shape(rng)
    expected = shape.level(times, zone, holidays) * _growth(rng, days, len(times))
    traffic = expected * _noise(rng, len(times)) * _spikes(rng, len(times))
    anomalies = _place(rng, times, anomalies_per_week)
    for one in anomalies:
        _apply(rng, one, times, traffic, expected, shape, zone)
    traffic = np.round(traffic)
    _break_counters(rng, traffic)
    taken = _taken(rng, len(times), anomalies, times)
    return SimulatedPort(times[taken], traffic[taken], anomalies)


class _Shape:
    """A usual week of traffic in local time: that of an office, homes, a machine room, or a backup line."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._scale = 10 ** rng.uniform(6.5, 8.5)
        self._base = rng.uniform(0.05, 0.4)
        self._peak_hour = rng.uniform(10, 21)
        self._width = rng.uniform(2.5, 5.5)
        self._second = rng.uniform(0, 0.6)
        self._weekend = rng.uniform(0.15, 1.3)
        self._backup_hour = rng.integers(0, 6)
        self._backup = rng.choice([0.0, 0.0, 1.5])
        self._days = rng.uniform(0.9, 1.1, 7)

    def level(self, times: np.ndarray, zone: ZoneInfo, holidays: Sequence[date]) -> np.ndarray:
        """Bytes in the 5 minutes before each of `times` (n,)."""
        hours, weekdays, is_holiday = _calendar(times, zone, holidays)
        weekdays = np.where(is_holiday, 6, weekdays)
        weekend = np.where(weekdays >= 5, self._weekend, 1.0)
        humps = _hump(hours, self._peak_hour, self._width)
        humps += self._second * _hump(hours, (self._peak_hour + 7) % 24, 2.0)
        backup = self._backup * ((hours >= self._backup_hour) & (hours < self._backup_hour + 1.5))
        return self._scale * (self._base + humps * weekend * self._days[weekdays] + backup)


def _hump(hours: np.ndarray, peak: float, width: float) -> np.ndarray:
    distance = np.abs((hours - peak + 12) % 24 - 12)
    return np.exp(-0.5 * (distance / width) ** 2)


def _calendar(
    times: np.ndarray, zone: ZoneInfo, holidays: Sequence[date]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local hour and weekday at the middle of each sample, and whether that is a holiday, each (n,)."""
    moments = [datetime.fromtimestamp(int(time) - SAMPLE_SECONDS // 2, zone) for time in times]
    hours = np.array([moment.hour + moment.minute / 60 for moment in moments])
    weekdays = np.array([moment.weekday() for moment in moments])
    return hours, weekdays, np.array([moment.date() in holidays for moment in moments])


def _growth(rng: np.random.Generator, days: int, count: int) -> np.ndarray:
    """Linear growth or decline over the whole time, by a third at most."""
    return np.linspace(1.0, 1.0 + rng.uniform(-0.15, 0.35) * days / SHIPPED_DAYS, count)


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """Factors around 1, log-normal: part of the noise lasts an hour, part changes with each sample."""
    keep = np.exp(-1 / 12)
    steps = rng.standard_normal(count) * np.sqrt(1 - keep**2)
    slow = np.empty(count)
    value = 0.0
    for i in range(count):
        value = keep * value + steps[i]
        slow[i] = value
    return np.exp(rng.uniform(0.06, 0.14) * slow + rng.uniform(0.05, 0.2) * rng.standard_normal(count))


def _spikes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Factors for transfers of five or ten minutes, a few a day, which are normal."""
    factors = np.ones(count)
    for first in np.flatnonzero(rng.random(count) < rng.uniform(0.5, 3) / SAMPLES_PER_DAY):
        factors[first : first + rng.integers(1, 3)] = 10 ** rng.uniform(0.3, 1.2)
    return factors


def _place(rng: np.random.Generator, times: np.ndarray, per_week: float) -> tuple[SimulatedAnomaly, ...]:
    """Anomalies more than 12 hours apart; most are brief, and one in ten is a leak."""
    weeks = (times[-1] - times[0]) / (7 * 86400)
    found: list[SimulatedAnomaly] = []
    for _ in range(rng.poisson(per_week * weeks)):
        is_leak = rng.random() < 0.1
        kind = LEAK if is_leak else BRIEF[rng.integers(len(BRIEF))]
        length = int(rng.integers(8, 24) if is_leak else rng.integers(12, 37)) * SAMPLE_SECONDS
        length = length * 6 if is_leak else length
        start = int(
            times[0] + rng.integers(0, (times[-1] - times[0] - length) // SAMPLE_SECONDS) * SAMPLE_SECONDS
        )
        if all(start - one.end > 12 * 3600 or one.start - start - length > 12 * 3600 for one in found):
            found.append(SimulatedAnomaly(kind, start, start + length))
    return tuple(sorted(found, key=lambda one: one.start))


def _apply(
    rng: np.random.Generator,
    anomaly: SimulatedAnomaly,
    times: np.ndarray,
    traffic: np.ndarray,
    expected: np.ndarray,
    shape: _Shape,
    zone: ZoneInfo,
) -> None:
    """Change the traffic during the anomaly in place."""
    during = np.flatnonzero((times > anomaly.start) & (times <= anomaly.end))
    if anomaly.kind == "drop":
        traffic[during] *= rng.uniform(0.05, 0.35)
    elif anomaly.kind == "flood":
        traffic[during] += expected[during].mean() * rng.uniform(2, 10) * rng.uniform(0.8, 1.2, len(during))
    elif anomaly.kind == "shape":
        # The level of half a day earlier.
        shifted = shape.level(times[during] - 12 * 3600, zone, ())
        ratio = shifted / shape.level(times[during], zone, ())
        far = np.where(np.abs(np.log(ratio)) < np.log(2.5), np.where(ratio < 1, 0.4, 2.5), ratio)
        traffic[during] *= far
    elif anomaly.kind == "outage":
        traffic[during] = 0.0
    else:
        traffic[during] *= 1 + np.linspace(0, rng.uniform(1.5, 4), len(during))


def _break_counters(rng: np.random.Generator, traffic: np.ndarray) -> None:
    """Resets of counters: one sample is missing, zero, or what remained of a 32-bit counter."""
    for index in np.flatnonzero(rng.random(len(traffic)) < 0.1 / SAMPLES_PER_DAY):
        traffic[index] = (np.nan, 0.0, float(2**32 - rng.integers(1, 10**6)))[rng.integers(3)]


def _taken(
    rng: np.random.Generator, count: int, anomalies: Sequence[SimulatedAnomaly], times: np.ndarray
) -> np.ndarray:
    """Which samples were taken (n,): once in three weeks there is a gap of half an hour to six hours."""
    taken = np.ones(count, dtype=bool)
    for first in np.flatnonzero(rng.random(count) < 1 / (21 * SAMPLES_PER_DAY)):
        taken[first : first + rng.integers(6, 73)] = False
    for one in anomalies:
        # What nobody measured cannot be labelled.
        taken[(times > one.start - 1800) & (times <= one.end + 1800)] = True
    return taken


def write_port(folder: Path, name: str, port: SimulatedPort) -> None:
    """Write a CSV as a monitoring system exports it: index, `ts` in UTC, `traffic` in bytes per 5 minutes."""
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "ts", "traffic"])
        for index, (time, traffic) in enumerate(zip(port.times.tolist(), port.traffic.tolist(), strict=True)):
            cell = "" if traffic != traffic else int(traffic)
            writer.writerow([index, f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}", cell])


def write_anomalies(folder: Path, ports: dict[str, SimulatedPort]) -> None:
    """Write anomalies.txt, with a line `start,end,series` for each anomaly."""
    lines = [
        f"{datetime.fromtimestamp(one.start, UTC):%Y-%m-%d %H:%M:%S},"
        f"{datetime.fromtimestamp(one.end, UTC):%Y-%m-%d %H:%M:%S},{name}\n"
        for name, port in ports.items()
        for one in port.anomalies
    ]
    (folder / "anomalies.txt").write_text("".join(sorted(lines)), encoding="utf-8")


def main() -> None:
    """Write the datasets that ship in data/ports."""
    parser = argparse.ArgumentParser(description="Write simulated ports into a folder.")
    parser.add_argument(
        "folder", nargs="?", default="data/ports", help="where to write (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=SHIPPED_SEED, help="seed of the ports (default: %(default)s)"
    )
    parser.add_argument(
        "--ports", type=int, default=len(SHIPPED_PORTS), help="number of ports (default: %(default)s)"
    )
    options = parser.parse_args()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [*SHIPPED_PORTS, *(f"2_{number}_out" for number in range(1, options.ports + 1))][: options.ports]
    ports = {name: simulate_port(1000 * options.seed + number) for number, name in enumerate(names)}
    for name, port in ports.items():
        write_port(folder, name, port)
    write_anomalies(folder, ports)


if __name__ == "__main__":
    main()
