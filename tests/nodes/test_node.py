"""Node files: what they change, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.files import UserError
from nodes.node import Node, load_node
from tests.support.refusals import one_line


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("{}", Node()),
        ('{"cpus": [0, 1, 2]}', Node(cpus=("0", "1", "2"))),
        ('{"interfaces": ["eth0"], "cell_id": 7}', Node(interfaces=("eth0",), cell_id="7")),
        ('{"total_memory_bytes": 16e9}', Node(total_memory_bytes=16e9)),
        (
            '{"node_instance": "edge:9100", "ran_instance": null}',
            Node(node_instance="edge:9100", ran_instance=None),
        ),
    ],
)
def test_node_file_changes_what_it_names(tmp_path: Path, text: str, node: Node) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)
    assert load_node(path) == node


def test_no_node_file_means_the_documented_node() -> None:
    assert load_node(None) == Node(
        cpus=("0", "1"),
        interfaces=("enp1s0", "enp0s20u1", "ppp0"),
        cell_id="2",
        total_memory_bytes=8228077568.0,
        node_instance=None,
        ran_instance=None,
    )


NODE_KEYS = (
    "cell_id, cpus, interfaces, metrics, node_instance, node_tags, off, ran_instance, ran_tags,"
    " total_memory_bytes"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cpu": ["0"]}', f": unknown key 'cpu'; the keys are {NODE_KEYS}"),
        ('{"cpus": "0"}', """: 'cpus' must be a list of names, like ["0", "1"]"""),
        ('{"cpus": []}', """: 'cpus' must be a list of names, like ["0", "1"]"""),
        ('{"interfaces": null}', """: 'interfaces' must be a list of names, like ["0", "1"]"""),
        ('{"cpus": [0, "0"]}', ": 'cpus' has a name twice; list each name once"),
        ('{"cpus": [true]}', ": 'cpus' must hold names (text or whole numbers), not True"),
        ('{"cpus": [0.5]}', ": 'cpus' must hold names (text or whole numbers), not 0.5"),
        ('{"interfaces": [""]}', ": 'interfaces' must hold names (text or whole numbers), not ''"),
        (
            '{"cell_id": "two\\nlines"}',
            ": 'cell_id' must hold names (text or whole numbers), not 'two\\nlines'",
        ),
        ('{"cell_id": [2]}', ": 'cell_id' must hold names (text or whole numbers), not [2]"),
        ('{"cell_id": null}', ": 'cell_id' must hold names (text or whole numbers), not None"),
        ('{"node_instance": ""}', ": 'node_instance' must hold names (text or whole numbers), not ''"),
        ('{"ran_instance": {}}', ": 'ran_instance' must hold names (text or whole numbers), not {}"),
        ('{"node_tags": []}', """: 'node_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"ran_tags": {"": "x"}}', """: 'ran_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"ran_tags": {"a\\nb": "x"}}', """: 'ran_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"node_tags": {"job": null}}', ": 'node_tags' must hold names (text or whole numbers), not None"),
        (
            '{"node_tags": {"instance": "edge:9100"}}',
            ": 'node_tags' has the tag 'instance'; set it as 'node_instance'",
        ),
        ('{"total_memory_bytes": 0}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": "8e9"}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": true}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": NaN}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": Infinity}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": null}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ("[]", ': must hold one JSON object, like {"key": 1.0}'),
    ],
)
def test_node_file_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        load_node(path)
    assert one_line(refusal) == f"{path}{message}"
