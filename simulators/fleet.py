"""Simulated nodes that differ, as those of a fleet do: their samples for a database, and their datasets.

    nodes = fleet(1000, seed=1)                     # node-0000, node-0001, ..., each with a Node to watch it
    span = FleetSamples(nodes, start, 3600)         # what their exporters report in an hour
    for text in span.lines(0, 240): post(text)      # line protocol of all 240 slots: POST /write?db=...
    for text in span.lines(239, 240): post(text)    # of the newest slot: what comes between two polls
    nodes[7].frame(start, DAY_SECONDS, attacks)     # records of one of them, to train on or to judge

`fleet(n, differ=False)` makes twins of the documented node, which the model in model/ fits. A node that
differs has its own CPUs, interfaces, memory, load, traffic, daily and weekly course, time zone and jobs at
night, all from its seed; its kind (`office`, `home`, `city`, `factory`) is what is known of its site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from common.times import DAY_SECONDS
from nodes.node import DEFAULT_NODE, Node
from nodes.series import RECORD_SECONDS, Record
from simulators import edge
from simulators.edge import Attack, between, bursts, drift, overlap

if TYPE_CHECKING:
    import pandas as pd

KINDS_OF_SITE = ("office", "home", "city", "factory")
TESTBED = "testbed"
_IN_PERCENT = ("cpu_user", "cpu_rx", "cpu_tx")
_INTERFACES = ("eth0", "eth1", "wwan0")
# One request of line protocol is about so long.
REQUEST_LINES = 20_000
# What an attack takes unless it says otherwise: points of every CPU, points of the RAM, bytes per second
# sent, received, and through the cell.
LOADS = {"cpu": 80.0, "memory": 20.0, "upload": 2e6, "download": 2e6, "flood": 5e6}


@dataclass(frozen=True)
class Traits:
    """What a simulated node is like.

    cpu, cpu_swing: percent at rest, and more in its busiest hours. mem, mem_swing: percent of the RAM.
    host_bytes, cell_bytes: bytes per second at rest. noise: 1 is that of the documented node. zone: hours
    ahead of UTC. attached: the share of the time in which a UE is attached, above 0.7 always. rx, tx: percent
    at rest. jobs: hour of the local day, minutes, and points of CPU of each nightly job.
    """

    cpu: float
    cpu_swing: float
    mem: float
    mem_swing: float
    host_bytes: float
    cell_bytes: float
    noise: float
    zone: float
    attached: float
    rx: float
    tx: float
    jobs: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class SimulatedNode:
    """One node of a fleet. node: watches it, its instances pinned. traits: None for a twin of the documented
    node.
    """

    name: str
    seed: int
    kind: str
    node: Node
    traits: Traits | None = None

    def samples(self, start: float, seconds: float, attacks: Iterable[Attack] = ()) -> Record:
        """Samples of its series, by measurement, from `start` (seconds since 1970) for `seconds`."""
        life, node_times, ran_times = self.life(start, seconds, attacks)
        life["missed"] = np.zeros((2, len(node_times)), dtype=bool)
        return edge.samples_of(life, node_times, ran_times, node=self.node)

    def frame(self, start: float, seconds: float, attacks: Iterable[Attack] = ()) -> pd.DataFrame:
        """Its records as resampled ones are: the features and the stored columns, without those of parts.

        They are what formatters.py makes of samples(), but for the jitter of the scrapes. It is made of whole
        arrays, which is hundreds of times as quick.
        """
        import pandas as pd

        life, _, ran_times = self.life(start, seconds, attacks)
        columns: dict[str, np.ndarray] = {
            "cpu_user_percentage": life["cores"].mean(axis=0),
            "cpu_rx_percentage": np.round(life["rx"], 2),
            "cpu_tx_percentage": np.round(life["tx"], 2),
            "mem_percentage": life["used"],
            "mem": life["used"] / 100 * self.node.total_memory_bytes,
        }
        rates = {
            f"{name}_rate": np.diff(columns[f"{name}_percentage"], prepend=np.nan) for name in _IN_PERCENT
        }
        rates["mem_rate"] = 100 * np.diff(life["used"], prepend=np.nan) / np.roll(life["used"], 1)
        share = sum(edge.INTERFACE_SHARES[: len(self.node.interfaces)])
        for name, key, part in (
            ("bytes_received", "received", share),
            ("bytes_transmitted", "sent", share),
            ("dl_bytes", "down", 1.0),
            ("ul_bytes", "up", 1.0),
        ):
            columns[name] = life[key] * part
            rates[f"{name}_rate"] = columns[name] / RECORD_SECONDS
        times = pd.to_datetime(np.round(ran_times * 1e3).astype(np.int64) * 1_000_000, utc=True)
        return pd.DataFrame({**columns, **rates}, index=pd.DatetimeIndex(times, name="time"))

    def life(
        self, start: float, seconds: float, attacks: Iterable[Attack] = ()
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """What happens on it in each slot, and when its two exporters are scraped, in seconds: (slots,) each.

        The load is the same whatever the attacks are. Another start gives another load.
        """
        count = int(seconds / RECORD_SECONDS)
        slots = start + np.arange(count) * RECORD_SECONDS
        rng = np.random.default_rng((self.seed, int(start)))
        node_times, ran_times = (
            slots + phase * RECORD_SECONDS + rng.normal(0, 0.002, count)
            for phase in (edge.NODE_PHASE, edge.RAN_PHASE)
        )
        if self.traits is None:
            day = 0.5 - 0.5 * np.cos(2 * np.pi * (slots / DAY_SECONDS - 4 / 24))
            attached = edge.sessions(rng, count)
            life = {**edge.host_life(rng, count, day), **edge.ran_life(rng, count, day, attached)}
        else:
            life = _life(self.traits, len(self.node.cpus), self.kind, rng, slots)
        for attack in attacks:
            _add_load(life, attack, node_times, ran_times)
        return life, node_times, ran_times


def fleet(count: int, seed: int = 0, differ: bool = True) -> list[SimulatedNode]:
    """So many simulated nodes, each with traits of its own, or all twins of the documented node."""
    nodes = []
    for number in range(count):
        name = f"node-{number:04}"
        watched = replace(DEFAULT_NODE, node_instance=f"{name}:9100", ran_instance=f"{name}:3333")
        one = SimulatedNode(name, seed * 100_000 + number, TESTBED, watched)
        nodes.append(_with_traits(one, KINDS_OF_SITE[number % len(KINDS_OF_SITE)]) if differ else one)
    return nodes


def _with_traits(one: SimulatedNode, kind: str) -> SimulatedNode:
    rng = np.random.default_rng(one.seed)
    cpus = tuple(map(str, range(int(rng.choice((1, 2, 2, 4, 4, 8))))))
    interfaces = _INTERFACES[: int(rng.integers(1, len(_INTERFACES) + 1))]
    memory = float(2.0 ** rng.integers(2, 7) * 2**30 * 0.96)
    node = replace(
        one.node,
        cpus=cpus,
        interfaces=interfaces,
        cell_id="1",
        total_memory_bytes=round(memory / 4096) * 4096.0,
    )
    level = rng.uniform(20, 85)
    traits = Traits(
        cpu=rng.uniform(2, 25),
        cpu_swing=rng.uniform(1, 30),
        mem=level,
        mem_swing=rng.uniform(0.02, 4.0),
        host_bytes=5e3 * 10 ** rng.uniform(0, 1.5),
        cell_bytes=1e5 * 10 ** rng.uniform(0, 1.3),
        noise=rng.uniform(0.6, 2.5),
        zone=float(rng.integers(-8, 10)),
        attached=rng.uniform(0.3, 1.0),
        rx=rng.uniform(6, 25),
        tx=rng.uniform(3, 12),
        jobs=tuple(
            (rng.uniform(0, 6), rng.uniform(8, 40), rng.uniform(15, 60))
            for _ in range(int(rng.integers(0, 3)))
        ),
    )
    return replace(one, kind=kind, node=node, traits=traits)


# --- ordinary life -------------------------------------------------------------------------------


def _activity(kind: str, hours: np.ndarray, is_weekend: np.ndarray) -> np.ndarray:
    """How busy people are, 0 to 1, at local hours of the day (n,)."""

    def hump(middle: float, width: float) -> np.ndarray:
        apart = (hours - middle + 12) % 24 - 12
        return np.exp(-0.5 * (apart / width) ** 2)

    if kind == "office":
        return np.maximum(hump(11, 1.8), hump(15, 1.8)) * np.where(is_weekend, 0.15, 1.0)
    if kind == "home":
        return np.maximum(0.45 * hump(8, 1.5), hump(20.5, 2.5)) + np.where(
            is_weekend, 0.25 * hump(14, 3), 0.0
        )
    if kind == "factory":
        return (0.55 + 0.3 * (hump(9, 3) + hump(17, 3))) * np.where(is_weekend, 0.2, 1.0)
    return (0.5 - 0.5 * np.cos(2 * np.pi * (hours - 4) / 24)) * np.where(is_weekend, 0.85, 1.0)


def _life(
    traits: Traits, cpus: int, kind: str, rng: np.random.Generator, slots: np.ndarray
) -> dict[str, np.ndarray]:
    count, noise = len(slots), traits.noise
    local = slots + traits.zone * 3600
    days, hours = np.floor(local / DAY_SECONDS), local / 3600 % 24
    # 1970 began on a Thursday. No day is quite like another.
    activity = _activity(kind, hours, (days + 3) % 7 >= 5) * (1 + 0.08 * drift(rng, count, 2000))
    every_second = np.where(np.arange(count) % 2 == 0, 0.4, -0.4)
    work = traits.cpu + traits.cpu_swing * activity + noise * (0.4 * drift(rng, count, 240) + every_second)
    work = work + bursts(rng, count, 0.003, 1.0, 2.0 + 4 * noise) + rng.normal(0, 0.25 * noise, count)
    for hour, minutes, points in traits.jobs:
        begin = hour + rng.uniform(-0.1, 0.1)
        work = work + points * ((hours >= begin) & (hours < begin + minutes / 60))
    cores = np.clip(work + rng.normal(0, 0.3 * noise, (cpus, count)), 0.3, 100.0)
    used = traits.mem + traits.mem_swing * (activity - 0.5) + 0.05 * noise * drift(rng, count, 400)
    burst = bursts(rng, count, 0.004, 3 * traits.host_bytes, 12 * traits.host_bytes)
    host = traits.host_bytes * (1 + 3 * activity) * RECORD_SECONDS
    chatter = np.where(np.arange(count) % 4 == 0, 1.6, 1.0)
    attached = edge.sessions(rng, count) if traits.attached < 0.7 else np.ones(count)
    appetite = np.exp(0.5 * noise * drift(rng, count, 100) - 0.5 + 1.2 * activity)
    down = attached * traits.cell_bytes * RECORD_SECONDS * appetite
    up = attached * (0.06 * down * np.exp(0.3 * drift(rng, count, 80)) + 600)
    share = np.sqrt(down / (traits.cell_bytes * RECORD_SECONDS))
    jitter = rng.standard_normal((2, count)) * 0.04 * noise
    return {
        "cores": cores,
        "used": between(used, 1.0, 97.0),
        "received": host * rng.gamma(40 / noise, noise / 40, count) + burst * RECORD_SECONDS,
        "sent": 1.4 * host * chatter * rng.gamma(60 / noise, noise / 60, count)
        + 0.8 * burst * RECORD_SECONDS,
        "rx": np.clip(traits.rx + 0.6 * share + jitter[0] + 0.05 * drift(rng, count, 300), 0.1, 100),
        "tx": np.clip(traits.tx + 0.3 * share + jitter[1] + 0.03 * drift(rng, count, 300), 0.1, 100),
        "down": down,
        "up": up,
    }


def _add_load(life: dict, attack: Attack, node_times: np.ndarray, ran_times: np.ndarray) -> None:
    """Add an attack to what the node does anyway, in place. Raises KeyError for a kind that LOADS lacks."""
    size = LOADS[attack.kind] if attack.size is None else attack.size
    share = overlap(node_times, RECORD_SECONDS, attack.start, attack.end)
    if attack.kind == "cpu":
        life["cores"] = np.minimum(life["cores"] + size * share, 100.0)
    elif attack.kind == "memory":
        inside = (node_times >= attack.start) & (node_times < attack.end)
        life["used"] = np.minimum(life["used"] + size * inside, 100.0)
    elif attack.kind in ("upload", "download"):
        key = {"upload": "sent", "download": "received"}[attack.kind]
        life[key] = life[key] + share * size * RECORD_SECONDS
    else:
        inside = (ran_times >= attack.start) & (ran_times < attack.end)
        life["down"] = life["down"] + inside * size * RECORD_SECONDS
        life["up"] = life["up"] + inside * 0.06 * size * RECORD_SECONDS
        life["rx"] = np.minimum(life["rx"] + inside * size / 2e6, 100.0)


# --- for a database ------------------------------------------------------------------------------


class FleetSamples:
    """What the exporters of many nodes report from `start` (seconds since 1970) for `seconds`.

    attacks: name of a node -> its attacks. A day of 1,000 nodes takes 1 GB; an hour, 40 MB.
    """

    def __init__(
        self,
        nodes: Sequence[SimulatedNode],
        start: float,
        seconds: float,
        attacks: Mapping[str, Sequence[Attack]] | None = None,
    ) -> None:
        self.slots = int(seconds / RECORD_SECONDS)
        # For each series, how its lines begin; and by series and slot the values and times.
        self._series: list[tuple[str, np.ndarray, np.ndarray]] = []
        for one in nodes:
            life, *times = one.life(start, seconds, (attacks or {}).get(one.name, ()))
            moments = [np.round(of * 1e3).astype(np.int64) * 1_000_000 for of in times]
            for key, values, is_ran, tags in edge.series_of(life, one.node):
                labels = "".join(
                    f",{tag}={value}" for tag, value in sorted({"__name__": key, **tags}.items())
                )
                self._series.append((f"{key}{labels} value=", values, moments[is_ran]))

    def lines(self, first: int, end: int) -> Iterator[str]:
        """Line protocol (ns) of the slots `first` to before `end`, in texts of REQUEST_LINES lines or so."""
        lines: list[str] = []
        for head, values, times in self._series:
            pairs = zip(values[first:end].tolist(), times[first:end].tolist(), strict=True)
            lines += [f"{head}{value!r} {time}" for value, time in pairs]
            if len(lines) >= REQUEST_LINES:
                yield "\n".join(lines)
                lines = []
        if lines:
            yield "\n".join(lines)
