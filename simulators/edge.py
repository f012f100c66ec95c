"""A deterministic model of an edge node and its gNB, and the datasets that ship in data/.

`python -m simulators.edge` rewrites data/normal.csv, data/cpu_attack.csv, data/iperf_attack.csv and
data/attacks.json, byte for byte the same each time. The levels are those of the edge node in a public
recording of a 5G testbed at rest (per 15 s: user CPU 4.4-9 %, RAM used 88.67-88.82 %, RX CPU 13.7-14.6 %,
TX CPU 5.4-5.7 %, 5-20 kB received and 10-35 kB sent, with an occasional burst of 50-200 kB).

The model makes what the exporters would report (cumulative CPU seconds, free bytes, interface counters,
bit rates), with each exporter scraped at its own moment. formatters.py turns this into columns, as it does
for the daemon.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import formatters
from common.files import saveDictJson
from common.times import DAY_SECONDS
from edge.datasets import write_dataset
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
from nodes.node import DEFAULT_NODE, Node
from nodes.series import RECORD_SECONDS, Record, series_tags

NODE_INSTANCE = "edge:9100"
RAN_INSTANCE = "gnb:9099"
# The two exporters are scraped at different moments of a slot, as fractions of the interval.
NODE_PHASE = 0.70
RAN_PHASE = 0.94
INTERFACE_SHARES = (0.55, 0.28, 0.17)
MEGABIT_BYTES = 1e6 / 8


# How much an attack of each kind takes, unless it says otherwise: percent of every CPU, percent of the RAM,
# bytes per second sent. An iperf attack and a flood of the 5G cell have no size: they vary.
SIZES = {"cpu": 98.5, "memory": 20.0, "upload": 2e6}


@dataclass(frozen=True)
class Attack:
    """An attack on the node, or any other load, from `start` to `end` (seconds since 1970).

    kind: `cpu`, `memory`, `upload`, `iperf`, or `flood` of the 5G cell. size: that of SIZES by default.
    """

    kind: str
    start: float
    end: float
    size: float | None = None


@dataclass(frozen=True)
class Stuck:
    """The exporter of an instance repeats its last values from `start` to `end` (seconds since 1970)."""

    instance: str
    start: float
    end: float


def simulate(
    seed: int,
    start: float,
    seconds: float,
    attacks: Iterable[Attack] = (),
    reboot_at: float | None = None,
    interval_seconds: float = RECORD_SECONDS,
    stuck: Iterable[Stuck] = (),
) -> Record:
    """Samples of every series, by measurement, from `start` (seconds since 1970) for `seconds`.

    The same seed gives the same normal load whatever the attacks are. At `reboot_at` the node is away for a
    minute, and its counters start from zero. A counter of a `stuck` exporter catches up when that ends.
    """
    count = int(seconds / interval_seconds)
    slots = start + np.arange(count) * interval_seconds
    rng = np.random.default_rng(seed)
    attached = sessions(rng, count)
    node_times = slots + NODE_PHASE * interval_seconds + rng.normal(0, 0.002, count)
    ran_times = slots + RAN_PHASE * interval_seconds + rng.normal(0, 0.002, count)
    day = 0.5 - 0.5 * np.cos(2 * np.pi * (slots / DAY_SECONDS - 4 / 24))
    life = {
        **host_life(rng, count, day),
        **ran_life(rng, count, day, attached),
        "missed": rng.random((2, count)) < 2e-4,
    }
    for attack in attacks:
        _attack_host(life, attack, node_times, interval_seconds, seed)
        _attack_ran(life, attack, ran_times, seed)
    samples = samples_of(life, node_times, ran_times, interval_seconds, reboot_at)
    for one in stuck:
        _hold(samples, one)
    return samples


def drift(rng: np.random.Generator, count: int, records: float) -> np.ndarray:
    """A slow random drift (an AR(1) process) of unit variance, correlated over about `records` records."""
    keep = np.exp(-1 / records)
    steps = rng.standard_normal(count) * np.sqrt(1 - keep**2)
    wander = np.empty(count)
    level = rng.standard_normal()
    for i in range(count):
        level = keep * level + steps[i]
        wander[i] = level
    return wander


def sessions(rng: np.random.Generator, count: int) -> np.ndarray:
    """1 while a UE is attached, 0 while none is, in periods of about 40 minutes."""
    attached = np.empty(count)
    i, state = 0, 0.0
    while i < count:
        spell = int(rng.gamma(2.5, 60.0)) + 8
        attached[i : i + spell] = state
        i, state = i + spell, 1.0 - state
    return attached


def bursts(rng: np.random.Generator, count: int, probability: float, low: float, high: float) -> np.ndarray:
    """Bursts that start with `probability` per record and last 2-8 records at levels from `low` to `high`."""
    burst = np.zeros(count)
    for begin in np.flatnonzero(rng.random(count) < probability):
        levels = rng.uniform(low, high) * rng.uniform(0.6, 1.0, rng.integers(2, 9))
        part = burst[begin : begin + len(levels)]
        part[:] = np.maximum(part, levels[: len(part)])
    return burst


def between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Reflect values at the limits `low` and `high`, so that a drift turns around there."""
    width = high - low
    return low + np.abs((values - low + width) % (2 * width) - width)


def host_life(rng: np.random.Generator, count: int, day: np.ndarray) -> dict[str, np.ndarray]:
    """What happens on the host in each of `count` slots. day: (count,), 0 at night, 1 at its busiest."""
    # A job that runs every 30 s is in every second record; occasionally its phase slips.
    slips = np.cumsum(rng.random(count) < 0.002)
    every_second = np.where((np.arange(count) + slips) % 2 == 0, 0.8, -0.8)
    work = 5.7 + 0.9 * day + 0.25 * drift(rng, count, 240) + every_second
    work = work + bursts(rng, count, 0.003, 0.5, 2.0) + rng.normal(0, 0.15, count)
    cores = np.clip(work + rng.normal(0, 0.2, (2, count)), 4.4, 9.0)
    steps = rng.standard_t(2.5, count) * 0.0012
    used = (
        88.745 + 0.022 * (day - 0.5) + 0.020 * drift(rng, count, 400) + np.cumsum(np.clip(steps, -0.03, 0.03))
    )
    chatter = np.where(np.arange(count) % 4 == 0, 2.3, 1.0) * rng.gamma(60, 1 / 60, count)
    burst = bursts(rng, count, 0.004, 50e3, 190e3)
    received = (7.0e3 + 2.5e3 * day) * rng.gamma(30, 1 / 30, count) + burst
    sent = (11.5e3 + 1.5e3 * day) * chatter + 0.95 * burst
    return {
        "cores": cores,
        "used": between(used, 88.67, 88.82),
        "received": np.clip(received, 5.0e3, 200e3),
        "sent": np.clip(sent, 10.0e3, 200e3),
    }


def gnb_life(seed: int, count: int) -> dict[str, np.ndarray]:
    """`count` records of a gNB in the middle of the day: rx, tx (percent), down, up (bytes per record)."""
    rng = np.random.default_rng(seed)
    return ran_life(rng, count, np.full(count, 0.5), sessions(rng, count))


def ran_life(
    rng: np.random.Generator, count: int, day: np.ndarray, attached: np.ndarray
) -> dict[str, np.ndarray]:
    """What happens at the gNB, as host_life(). attached: (count,), 1 while a UE is attached."""
    appetite = np.exp(0.9 * drift(rng, count, 100) - 1.1 + 0.5 * day)
    down = attached * np.clip(560e3 * appetite * rng.gamma(900, 1 / 900, count), 4e3, 1e6)
    up = attached * np.clip(0.045 * down * np.exp(0.3 * drift(rng, count, 80)) + 600, 0, 50e3)
    busy = attached * (0.35 + 0.45 * np.sqrt(down / 1e6))
    rx = 13.72 + busy + (0.012 + 0.03 * attached) * rng.standard_normal(count)
    tx = 5.45 + 0.26 * busy + (0.004 + 0.005 * attached) * rng.standard_normal(count)
    return {
        "rx": np.clip(rx + 0.03 * drift(rng, count, 300), 13.66, 14.66),
        "tx": np.clip(tx + 0.01 * drift(rng, count, 300), 5.42, 5.72),
        "down": down,
        "up": up,
    }


def overlap(times: np.ndarray, seconds: float, start: float, end: float) -> np.ndarray:
    """Share of the `seconds` before each time that is between start and end."""
    return np.clip(np.minimum(times, end) - np.maximum(times - seconds, start), 0, seconds) / seconds


def iperf_bytes_per_second(times: np.ndarray | float, start: float, seed: int) -> np.ndarray | float:
    """20-60 Mbit/s since `start`, varying like radio conditions, and the same for both exporters."""
    phase = np.random.default_rng(seed + 1).uniform(0, 2 * np.pi, 3)
    seconds = times - start
    waves = sum(np.sin(seconds / period + p) for period, p in zip((31.0, 83.0, 190.0), phase, strict=True))
    return MEGABIT_BYTES * (40.0 + 20.0 * waves / 3)


def _attack_host(life: dict, attack: Attack, times: np.ndarray, interval_seconds: float, seed: int) -> None:
    share = overlap(times, interval_seconds, attack.start, attack.end)
    size = SIZES.get(attack.kind, 0.0) if attack.size is None else attack.size
    if attack.kind == "cpu":
        noise = np.random.default_rng(seed + 2).uniform(-0.4, 0.4, life["cores"].shape)
        life["cores"] = life["cores"] * (1 - share) + (size + noise) * share
    elif attack.kind == "memory":
        inside = (times >= attack.start) & (times < attack.end)
        life["used"] = np.minimum(life["used"] + size * inside, 100.0)
    elif attack.kind == "upload":
        life["sent"] = life["sent"] + share * size * RECORD_SECONDS
    if attack.kind != "iperf":
        return
    flood = share * iperf_bytes_per_second(times, attack.start, seed) * RECORD_SECONDS
    life["received"] = life["received"] + flood
    life["sent"] = life["sent"] + flood
    life["cores"] = np.clip(life["cores"] + 6.0 * share, 0, 100)


def _attack_ran(life: dict, attack: Attack, times: np.ndarray, seed: int) -> None:
    if attack.kind not in ("iperf", "flood"):
        return
    during = (times >= attack.start) & (times < attack.end)
    more = flooded(life, iperf_bytes_per_second(times, attack.start, seed) * RECORD_SECONDS)
    for key, values in more.items():
        life[key] = np.where(during, values, life[key])


def flooded(gnb: dict, flood: np.ndarray | float) -> dict:
    """rx, tx, down and up of a gNB that carries `flood` more bytes per record."""
    return {
        "down": gnb["down"] + flood,
        "up": gnb["up"] + 0.04 * flood,
        "rx": gnb["rx"] + 2.5 + flood / 40e6,
        "tx": gnb["tx"] + 3.0 + flood / 20e6,
    }


def samples_of(
    life: dict,
    node_times: np.ndarray,
    ran_times: np.ndarray,
    interval_seconds: float = RECORD_SECONDS,
    reboot_at: float | None = None,
    node: Node = DEFAULT_NODE,
) -> Record:
    """The samples that scrapes of the two exporters store, with the tags that Prometheus gives them."""
    node_there, ran_there = ~life["missed"]
    boot = np.zeros(len(node_times), dtype=bool)
    if reboot_at is not None:
        away = (node_times >= reboot_at) & (node_times < reboot_at + 60)
        node_there, ran_there = node_there & ~away, ran_there & ~away
        boot[int(np.searchsorted(node_times, reboot_at + 60)) :][:1] = True

    def restarted(total: np.ndarray) -> np.ndarray:
        """A counter that starts from zero after a reboot."""
        since = np.flatnonzero(boot)
        if len(since):
            total[since[0] :] -= total[max(int(np.searchsorted(node_times, reboot_at)) - 1, 0)]
        return total

    samples: Record = {}
    for key, values, is_ran, tags in series_of(life, node, interval_seconds, restarted):
        times, there = (ran_times, ran_there) if is_ran else (node_times, node_there)
        samples.setdefault(key, []).extend(_points(times, values, there, tags))
    return samples


def series_of(
    life: dict,
    node: Node,
    interval_seconds: float = RECORD_SECONDS,
    restarted: Callable[[np.ndarray], np.ndarray] = lambda total: total,
) -> Iterator[tuple[str, np.ndarray, bool, dict[str, str]]]:
    """Each series that the two exporters of a node report: measurement, values (slots,), whether it is the
    exporter of the RAN, and tags.

    restarted: what a reboot makes of a counter.
    """
    host = {"instance": node.node_instance or NODE_INSTANCE, "job": "node"}
    ran = {"instance": node.ran_instance or RAN_INSTANCE, "job": "ran"}
    for cpu, percentage in zip(node.cpus, life["cores"], strict=True):
        busy = 81000.0 + np.cumsum(percentage / 100 * interval_seconds)
        yield CPU_SECONDS, np.round(restarted(busy), 4), False, {**host, "cpu": cpu, "mode": "user"}
    total = node.total_memory_bytes
    yield MEMORY_FREE, np.round((1 - life["used"] / 100) * total / 4096) * 4096, False, host
    yield MEMORY_TOTAL, np.full(len(life["used"]), total), False, host
    shares = INTERFACE_SHARES[: len(node.interfaces)]
    for measurement, key in ((RECEIVED, "received"), (TRANSMITTED, "sent")):
        for device, share in zip(node.interfaces, shares, strict=True):
            per_record = life[key] * share * (interval_seconds / RECORD_SECONDS)
            sum_of_bytes = np.round(restarted(4e8 + np.cumsum(per_record)))
            yield measurement, sum_of_bytes, False, {**host, "device": device}
    for measurement, key in ((RX_CPU, "rx"), (TX_CPU, "tx")):
        yield measurement, np.round(life[key], 2), True, ran
    for measurement, key in ((DOWNLINK, "down"), (UPLINK, "up")):
        bits_per_second = np.round(life[key] * 8 / RECORD_SECONDS)
        yield measurement, bits_per_second, True, {**ran, "cellId": node.cell_id}


def _hold(samples: Record, stuck: Stuck) -> None:
    """Make the points of a stuck exporter repeat, in place; each series keeps its own last value."""
    last: dict[tuple, float] = {}
    for measurement, series in samples.items():
        for point in series:
            if point["instance"] != stuck.instance:
                continue
            key = (measurement, *series_tags(point))
            if stuck.start <= point["time"] / 1e9 < stuck.end:
                point["value"] = last.get(key, point["value"])
            last[key] = point["value"]


def _points(times: np.ndarray, values: np.ndarray, there: np.ndarray, tags: dict[str, str]) -> list[dict]:
    """Points of one series, in whole milliseconds like those of Prometheus."""
    milliseconds = np.round(times * 1e3).astype(np.int64)
    return [
        {"time": int(ms) * 1_000_000, "value": float(value), **tags}
        for ms, value, here in zip(milliseconds, values, there, strict=True)
        if here
    ]


def cpu_attack(start: float) -> list[Attack]:
    """User CPU at 98-99 % for 18 minutes."""
    return [Attack("cpu", start, start + 18 * 60)]


def iperf_attack(start: float) -> list[Attack]:
    """iperf for 17 minutes, with a pause and a restart near its start."""
    return [Attack("iperf", start, start + 90), Attack("iperf", start + 180, start + 17 * 60)]


NORMAL_START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
CPU_START = datetime(2026, 3, 6, 8, tzinfo=UTC).timestamp()
IPERF_START = datetime(2026, 3, 7, 12, tzinfo=UTC).timestamp()


def shipped_datasets() -> dict[str, tuple[Record, list[Attack]]]:
    """File name of each dataset in data/ -> its samples and attacks."""
    hours = 3600.0
    cpu, iperf = cpu_attack(CPU_START + 4 * hours), iperf_attack(IPERF_START + 4 * hours)
    reboot_at = NORMAL_START + 1.3 * DAY_SECONDS
    return {
        "normal.csv": (simulate(101, NORMAL_START, 3 * DAY_SECONDS, reboot_at=reboot_at), []),
        "cpu_attack.csv": (simulate(102, CPU_START, 8 * hours, cpu), cpu),
        "iperf_attack.csv": (simulate(103, IPERF_START, 8 * hours, iperf), iperf),
    }


def main() -> None:
    """Write the datasets that ship in data/."""
    parser = argparse.ArgumentParser(description="Rewrite the shipped datasets.")
    parser.add_argument("--output_dir", default="data", help="folder to write to (default: data)")
    folder = Path(parser.parse_args().output_dir)
    windows = {}
    for name, (samples, attacks) in shipped_datasets().items():
        records = write_dataset(
            folder / name, formatters.format_records(formatters.slot_records(samples, RECORD_SECONDS))
        )
        windows[name] = [
            {"start": _iso(attack.start), "end": _iso(attack.end), "cause": attack.kind} for attack in attacks
        ]
        print(f"{folder / name}: {records} records")
    saveDictJson(windows, folder / "attacks.json")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    main()
