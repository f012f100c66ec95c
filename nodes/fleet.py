"""Which nodes there are: the exporters of one host are one node, and a file names those that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from common.files import UserError, loadDictJson
from nodes.metrics import UNKNOWN_LEVEL, Metric, RawSeries
from nodes.names import host_of, listed_names, name_fault, shown_name
from nodes.node import Node, described_node, load_node

# Many times what a file of thousands of nodes needs.
NODES_BYTES = 10_000_000
# Host -> the instances of an exporter there.
_Hosts = dict[str, list[str]]


@dataclass(frozen=True)
class Named:
    """A node among many: its name, and what it is, with the instances of its exporters fixed.

    The name is usable as that of a folder, and as a label. It is empty for the one node of a database that is
    watched without --node.
    """

    name: str
    node: Node


def read_nodes_file(filename: str | Path, start: Node) -> dict[str, Node]:
    """Name -> node of a JSON file of nodes. start: what a node is without a `node_file` of its own.

    The file of a `node_file` is looked for in the folder of this file. Raises UserError, which names file,
    node, key and remedy.
    """
    load = cache(load_node)
    nodes: dict[str, Node] = {}
    readers: dict[Node, str] = {}
    # What is computed from a table of metrics is computed once for all nodes that have it.
    tables = {start.metrics: start.metrics}
    for name, given in loadDictJson(filename, NODES_BYTES).items():
        if fault := name_fault(name):
            raise UserError(
                f"{filename}: {shown_name(name)!r} cannot name a node: {fault}; take another name"
            )
        where = f"{filename}: {shown_name(name)}"
        if not isinstance(given, dict):
            raise UserError(f'{where}: must be an object, like {{"node_instance": "edge-1:9100"}}')
        file = given.pop("node_file", None)
        if file is not None and (not isinstance(file, str) or not file):
            raise UserError(f"{where}: 'node_file' must be the name of a file")
        node = described_node(where, given, load(Path(filename).parent / file) if file else start)
        nodes[name] = node = replace(node, metrics=tables.setdefault(node.metrics, node.metrics))
        reader = replace(node, total_memory_bytes=0.0)
        if _is_fixed(node, start) and readers.setdefault(reader, name) != name:
            raise UserError(
                f"{where}: has the same exporters as {shown_name(readers[reader])}; remove one of them, or"
                " correct its instances"
            )
    return nodes


def _is_fixed(node: Node, start: Node) -> bool:
    """Whether a file says which series of all exporters are those of the node."""
    return all(
        node.instance_of(exporter) is not None or node.tags_of(exporter) != start.tags_of(exporter)
        for exporter in node.metrics.exporters
    )


def instance_series(node: Node, exporter: str) -> RawSeries:
    """The series that tells the instances of an exporter: one that each has, with few parts."""

    def rank(metric: Metric) -> tuple[bool, bool, bool]:
        return metric.silence != UNKNOWN_LEVEL, bool(metric.over), metric.part_tag is not None

    rows = [metric for metric in node.metrics.values() if metric.exporter == exporter]
    series = min(rows, key=rank).series[0]
    return replace(series, tags={**series.tags, **dict(node.tags_of(exporter))})


@dataclass(frozen=True)
class Fleet:
    """The nodes that there are.

    nodes: by name. silent: those that are known, but have no sample. lacking: node -> exporters that have no
    sample, while others of the node have. refused: name -> why it is no node, in one line.
    """

    nodes: Mapping[str, Named]
    silent: tuple[str, ...] = ()
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Pairing:
    """Makes nodes of the instances of exporters.

    start: what a node is that no file describes. described: the nodes of a file. `series` are those whose
    instances it needs, `descriptions` all that a node may be.
    """

    def __init__(self, start: Node, described: Mapping[str, Node]) -> None:
        self._start, self._described = start, described
        self.descriptions = (start, *described.values())
        self.series: list[RawSeries] = []
        # Most nodes share their metrics, and so the series that tell their instances.
        self._places: dict[tuple[int, str], int] = {}
        for node in self.descriptions:
            for exporter in node.metrics.exporters:
                key = id(node.metrics), exporter
                if key in self._places or self._has_own_tags(node, exporter):
                    continue
                series = instance_series(node, exporter)
                if series not in self.series:
                    self.series.append(series)
                self._places[key] = self.series.index(series)
        self._claimed = {
            (exporter, name)
            for node in described.values()
            for exporter in node.metrics.exporters
            if (name := node.instance_of(exporter)) is not None
        }

    def pair(self, instances: Sequence[Iterable[str]], known: Collection[str] = ()) -> Fleet:
        """The nodes, by the instances of each of `series`. known: names of nodes that may be silent."""
        by_host = [_by_host(names) for names in instances]
        nodes, silent, lacking, refused = {}, [], {}, {}
        for name in sorted({*self._hosts(by_host), *self._described, *known}):
            if fault := name_fault(name):
                refused[name] = f"{shown_name(name)!r} cannot name a node: {fault}; name it in --nodes_file"
                continue
            node = self._described.get(name, self._start)
            pins, missing, double = {}, [], ""
            for exporter, (found, hosts) in self._unpinned(name, node, by_host).items():
                there = next((found[host] for host in hosts if host in found), [])
                if node is self._start:
                    there = [one for one in there if (exporter, one) not in self._claimed]
                if not there:
                    missing.append(exporter)
                elif len(there) > 1:
                    double = _describe_double(name, exporter, there)
                pins[exporter] = there[0] if there else _expected(hosts[-1], found)
            if double:
                refused[name] = double
                continue
            nodes[name] = Named(name, node.watching(pins))
            if len(missing) == len(node.metrics.exporters):
                silent.append(name)
            elif missing:
                lacking[name] = tuple(missing)
        return Fleet(nodes, tuple(silent), lacking, refused)

    def _hosts(self, by_host: Sequence[Mapping[str, Sequence[str]]]) -> set[str]:
        """The hosts with an instance that no node of the file has."""
        return {
            host
            for exporter in self._start.metrics.exporters
            for host, names in by_host[self._places[id(self._start.metrics), exporter]].items()
            if any((exporter, name) not in self._claimed for name in names)
        }

    def _unpinned(
        self, name: str, node: Node, by_host: Sequence[_Hosts]
    ) -> dict[str, tuple[_Hosts, list[str]]]:
        """The exporters of a node whose instance is looked for -> those that are there, and its hosts."""
        pinned = filter(None, map(node.instance_of, node.metrics.exporters))
        hosts = list(dict.fromkeys([name, *map(host_of, pinned)]))
        return {
            exporter: (by_host[self._places[id(node.metrics), exporter]], hosts)
            for exporter in node.metrics.exporters
            if node.instance_of(exporter) is None and not self._has_own_tags(node, exporter)
        }

    def _has_own_tags(self, node: Node, exporter: str) -> bool:
        """Whether a file tells the series of this node from those of others by their tags."""
        return node is not self._start and node.tags_of(exporter) != self._start.tags_of(exporter)


def _by_host(names: Iterable[str]) -> _Hosts:
    hosts: _Hosts = {}
    for name in sorted(set(names) - {""}):
        hosts.setdefault(host_of(name), []).append(name)
    return hosts


def _expected(host: str, found: _Hosts) -> str:
    """The instance that a silent exporter of a host probably has: with the port that most hosts have."""
    endings = Counter(name.removeprefix(other) for other, names in found.items() for name in names)
    return host + min(endings, key=lambda ending: (-endings[ending], ending), default="")


def _describe_double(name: str, exporter: str, names: Sequence[str]) -> str:
    return (
        f"{shown_name(name)} has {len(names)} instances of {exporter} ({listed_names(names)}); name the one"
        f" to watch as '{exporter}_instance' in --nodes_file"
    )
