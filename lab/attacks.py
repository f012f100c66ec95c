"""Real attacks on the edge of lab/edge.py, each a context manager: the attack lasts as long as the `with`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lab.edge import FAR_ADDRESS, Edge
from nodes.metrics import METRICS, NODE, RAN

FLOOD_BITS_PER_SECOND = "400M"
MEMORY_SHARE = 0.2
MEMORY_STEPS = 8


@dataclass(frozen=True)
class AttackKind:
    """One kind of attack; `causes` are the metrics that it hits."""

    name: str
    causes: tuple[str, ...]
    launch: Callable[[Edge], AbstractContextManager[None]]
    kills_exporter: bool = False


@dataclass(frozen=True)
class Attacked:
    """An attack on the edge from `start` to `end` (seconds since 1970); `causes` are the true ones."""

    name: str
    causes: tuple[str, ...]
    kills_exporter: bool
    start: float
    end: float

    @property
    def window(self) -> tuple[int, int]:
        """Start and end in ns."""
        return int(self.start * 1e9), int(self.end * 1e9)


def all_cpus(edge: Edge) -> AbstractContextManager[None]:
    """All CPUs in user mode."""
    return edge.running("stress-ng", "--cpu", str(edge.cpus), "--cpu-method", "int64")


def one_cpu(edge: Edge) -> AbstractContextManager[None]:
    """One CPU in user mode."""
    return edge.running("stress-ng", "--cpu", "1", "--cpu-method", "int64")


def _iperf(*arguments: str) -> Callable[[Edge], AbstractContextManager[None]]:
    def launch(edge: Edge) -> AbstractContextManager[None]:
        return edge.running(
            "iperf3", "-c", FAR_ADDRESS, "-t", "3600", "-b", FLOOD_BITS_PER_SECOND, *arguments
        )

    return launch


def memory_at_once(edge: Edge) -> AbstractContextManager[None]:
    """A fifth of the memory in one step."""
    return _take_memory(edge, 1)


def memory_slowly(edge: Edge) -> AbstractContextManager[None]:
    """A fifth of the memory in MEMORY_STEPS steps, one a scrape."""
    microseconds = int(edge.scrape_seconds * 1e6)
    return _take_memory(edge, MEMORY_STEPS, "--backoff", str(microseconds))


def _take_memory(edge: Edge, steps: int, *arguments: str) -> AbstractContextManager[None]:
    taken = ["--vm", str(steps), "--vm-bytes", str(int(edge.total_memory_bytes * MEMORY_SHARE))]
    # Written to once, then held: that attacks the memory, not the CPU.
    held = ["--vm-keep", "--vm-hang", "0", "--vm-method", "write64"]
    return edge.running("stress-ng", *taken, *held, *arguments)


@contextlib.contextmanager
def _gnb(edge: Edge, words: str) -> Iterator[None]:
    edge.tell_gnb(words)
    try:
        yield
    finally:
        edge.tell_gnb("calm")


@contextlib.contextmanager
def link_down(edge: Edge) -> Iterator[None]:
    """No traffic in either direction."""
    edge.set_link("down")
    try:
        yield
    finally:
        edge.set_link("up")


@contextlib.contextmanager
def _dead(edge: Edge, name: str) -> Iterator[None]:
    edge.kill_exporter(name)
    try:
        yield
    finally:
        edge.start_exporter(name)


@contextlib.contextmanager
def cpus_and_5g_flood(edge: Edge) -> Iterator[None]:
    """Two attacks at once."""
    with all_cpus(edge), _gnb(edge, "flood"):
        yield


NODE_METRICS = tuple(name for name, metric in METRICS.items() if metric.exporter == NODE)
RAN_METRICS = tuple(name for name, metric in METRICS.items() if metric.exporter == RAN)

ATTACKS = (
    AttackKind("all CPUs", ("cpu",), all_cpus),
    AttackKind("one CPU", ("cpu",), one_cpu),
    AttackKind("TCP up", ("net_up",), _iperf()),
    AttackKind("TCP down", ("net_down",), _iperf("-R")),
    AttackKind("UDP flood", ("net_up",), _iperf("-u")),
    AttackKind("memory slowly", ("mem",), memory_slowly),
    AttackKind("memory at once", ("mem",), memory_at_once),
    AttackKind("5G flood", ("net_5g_down",), lambda edge: _gnb(edge, "flood")),
    AttackKind("RAN CPU overload", ("cpu_rx", "cpu_tx"), lambda edge: _gnb(edge, "overload")),
    AttackKind("link down", ("net_down", "net_up"), link_down),
    AttackKind("CPUs and 5G flood", ("cpu", "net_5g_down"), cpus_and_5g_flood),
    AttackKind("RAN exporter dies", RAN_METRICS, lambda edge: _dead(edge, "ran"), kills_exporter=True),
    AttackKind("node exporter dies", NODE_METRICS, lambda edge: _dead(edge, "node"), kills_exporter=True),
)
SHORT = (ATTACKS[0], ATTACKS[2])
