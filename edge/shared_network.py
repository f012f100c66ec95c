"""Networks that nodes have in common, and the folder of each node: its records, model and thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.files import UserError, is_there, loadDictJson
from edge.bundle import bundle_paths
from nodes.metrics import MetricTable

MODEL_NAME = "model.h5"


class NodeFiles(NamedTuple):
    """The files of a node among many."""

    trainset: Path
    model: Path
    thresholds: Path


def node_files(nodes_dir: str | Path, name: str) -> NodeFiles:
    """The files of a node in its folder of --nodes_dir."""
    folder = Path(nodes_dir, name)
    return NodeFiles(folder / "normal.csv", folder / MODEL_NAME, folder / "thresholds.json")


@dataclass(frozen=True)
class SharedNetwork:
    """A network that nodes can have in common.

    model: its .h5 file, with the twin beside it. metrics: description of those that it was taught. means: of
    each of its features, in order, normalised. versions: of the packages that trained it.
    """

    model: str
    metrics: Mapping[str, Any]
    means: Mapping[str, float]
    versions: Mapping[str, str]

    def lacks(self, metrics: MetricTable) -> list[str]:
        """The metrics of a node that it cannot predict."""
        return [name for name, one in metrics.description.items() if self.metrics.get(name) != one]


def networks_there(
    nodes_dir: str | Path, without: Collection[str], interval_seconds: float
) -> list[SharedNetwork]:
    """The networks of the nodes in a folder for records so far apart, those of most nodes first.

    without: names of nodes that do not count; neither do those without a usable model.
    """
    found: dict[str, SharedNetwork] = {}
    uses: Counter[str] = Counter()
    for path in sorted(Path(nodes_dir).glob(f"*/{MODEL_NAME}")):
        if path.parent.name in without:
            continue
        paths = bundle_paths(path)
        try:
            identity = loadDictJson(paths.identity)
            checksum = identity["sha256"]["litert"]
            means = {feature: identity["means"][feature] for feature in identity["features"]}
            of = identity.get("network", {"metrics": identity["metrics"], "means": means})
            shared = SharedNetwork(str(paths.model), of["metrics"], of["means"], identity["versions"])
        except (UserError, KeyError, TypeError, AttributeError):
            continue
        if identity.get("interval_seconds") == interval_seconds and is_there(paths.litert):
            found.setdefault(checksum, shared)
            uses[checksum] += 1
    return [found[checksum] for checksum, _ in uses.most_common()]
