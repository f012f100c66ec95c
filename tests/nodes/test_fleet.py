"""Nodes among instances of exporters: how they are paired, named and selected, and files that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.files import UserError
from nodes.fleet import Named, Pairing, instance_series, read_nodes_file
from nodes.metrics import CPU_SECONDS, MEMORY_FREE, NODE, RAN, RX_CPU
from nodes.names import NodePatterns, describe_several, host_of, listed_names, name_fault, shown_name
from nodes.node import DEFAULT_NODE, Node, described_node
from tests.support.refusals import one_line


def pair(
    node: list[str], ran: list[str], described: dict[str, Node] | None = None, known: tuple[str, ...] = ()
) -> Any:
    """The fleet of these instances of the two exporters, on nodes like the documented one."""
    pairing = Pairing(DEFAULT_NODE, described or {})
    of_key = {MEMORY_FREE: node, CPU_SECONDS: node, RX_CPU: ran}
    return pairing.pair([of_key[series.key] for series in pairing.series], known)


def pins(fleet: Any) -> dict[str, tuple[str | None, str | None]]:
    return {name: (one.node.node_instance, one.node.ran_instance) for name, one in fleet.nodes.items()}


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance", "host"),
    [
        ("edge-1:9100", "edge-1"),
        ("edge-1.example.org:3333", "edge-1.example.org"),
        ("10.0.0.1:9100", "10.0.0.1"),
        ("edge-1", "edge-1"),
        ("[2001:db8::1]:9100", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
        ("rack:7:9100", "rack:7"),
        ("edge-1:", "edge-1"),
        (":9100", ""),
        ("", ""),
    ],
)
def test_the_host_of_an_instance(instance: str, host: str) -> None:
    assert host_of(instance) == host


@pytest.mark.parametrize(
    "name", ["edge-1", "[2001:db8::1]", "Milano Nord", "a..b", "é" * 100, "x" * 100, "2"]
)
def test_a_name_that_can_be_used(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "it is empty"),
        (" edge", "it is empty, or has a blank at an end"),
        ("edge\n", "it is empty, or has a blank"),
        ("ed\x00ge", "a letter that cannot be printed"),
        ("ed\x1b[31mge", "a letter that cannot be printed"),
        ("\ud800", "a letter that cannot be printed"),
        ("a/b", "it has one of / \\ * ?"),
        ("a\\b", "it has one of / \\ * ?"),
        ("edge-*", "it has one of / \\ * ?"),
        ("..", "it begins with a dot"),
        (".", "it begins with a dot"),
        (".ssh", "it begins with a dot"),
        ("../../etc", "it has one of / \\ * ?"),
        ("all", "--node all means every node"),
        ("x" * 101, "it has more than 100 letters"),
        ("漢" * 90, "it has more than 100 letters, or 250 bytes"),
    ],
    ids=ascii,
)
def test_a_name_that_cannot_be_that_of_a_folder_or_a_label(name: str, fault: str) -> None:
    assert fault in (name_fault(name) or "")


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        (["all"], ["a.b", "aXb", "edge-1", "edge-12", "edge-2", "[::1]"]),
        (["edge-1"], ["edge-1"]),
        (["edge-?"], ["edge-1", "edge-2"]),
        (["edge-*"], ["edge-1", "edge-12", "edge-2"]),
        (["*1", "a.b"], ["a.b", "edge-1"]),
        (["*1*"], ["edge-1", "edge-12", "[::1]"]),
        (["a?b"], ["a.b", "aXb"]),
        (["[::1]"], ["[::1]"]),
        (["[ae]*"], []),
        (["EDGE-1"], []),
        ([], []),
    ],
)
def test_what_patterns_select(words: list[str], selected: list[str]) -> None:
    names = ["a.b", "aXb", "edge-1", "edge-12", "edge-2", "[::1]"]
    patterns = NodePatterns(words)
    assert [name for name in names if patterns.matches(name)] == selected
    assert patterns.without_match(names) == ([] if selected else words)


def test_many_stars_take_no_longer_than_one() -> None:
    assert not NodePatterns(["*" * 200 + "b"]).matches("a" * 100)


def test_two_shards_select_each_node_once() -> None:
    names = [f"{site}-{number}" for site in ("milan", "rome", "turin") for number in range(100)]
    first, second = NodePatterns(["milan-*", "rome-?"]), NodePatterns(["rome-??", "turin-*"])
    assert sum(map(first.matches, names)) == 110
    assert all(first.matches(name) != second.matches(name) for name in names)


def test_names_in_messages_are_few_short_and_printable() -> None:
    assert listed_names(["a", "b", "c"]) == "a, b, c"
    assert listed_names([f"edge-{i}" for i in range(1, 13)]) == "edge-1, edge-2, edge-3 and 9 more"
    assert listed_names(["", "b"]) == "an unnamed one, b"
    assert shown_name("a\nb\x1b[31m") == "a?b?[31m"
    assert shown_name("x" * 41) == "x" * 37 + "..."


def test_several_nodes_are_counted_by_their_hosts() -> None:
    instances = {
        NODE: [f"edge-{i}:9100" for i in range(1, 13)],
        RAN: [f"edge-{i}:3333" for i in range(1, 12)],
    }
    assert describe_several(instances, "db:8086, database metrics_db") == (
        "12 nodes write to db:8086, database metrics_db (edge-1, edge-10, edge-11 and 9 more);"
        " choose with --node NAME, or --node all"
    )
    # The exporters of one node may be on two hosts, and a host may have two of one exporter.
    assert describe_several({NODE: ["edge:9100"], RAN: ["gnb:1"]}, "db") is None
    assert describe_several({NODE: ["edge:9100"], RAN: ["gnb:1", "gnb:2"]}, "db") is None


# --- pairing -------------------------------------------------------------------------------------


def test_exporters_of_one_host_are_one_node_with_its_instances_fixed() -> None:
    fleet = pair(
        ["edge-2:9100", "edge-1:9100", "[::1]:9100", "bare"],
        ["bare", "edge-1:3333", "[::1]:3333", "edge-2:99"],
    )
    assert pins(fleet) == {
        "[::1]": ("[::1]:9100", "[::1]:3333"),
        "bare": ("bare", "bare"),
        "edge-1": ("edge-1:9100", "edge-1:3333"),
        "edge-2": ("edge-2:9100", "edge-2:99"),
    }
    assert fleet.nodes["edge-1"] == Named(
        "edge-1", DEFAULT_NODE.watching({NODE: "edge-1:9100", RAN: "edge-1:3333"})
    )
    assert (fleet.silent, fleet.lacking, fleet.refused) == ((), {}, {})


def test_a_host_that_lacks_an_exporter_is_watched_with_what_it_has() -> None:
    fleet = pair(
        ["edge-1:9100", "edge-2:9100", "edge-3:9100", "edge-4:9200"], ["edge-1:3333", "edge-4:3333", "gnb:44"]
    )
    # The exporter that does not write is expected at the port that most have.
    assert pins(fleet)["edge-2"] == ("edge-2:9100", "edge-2:3333")
    assert pins(fleet)["gnb"] == ("gnb:9100", "gnb:44")
    assert fleet.lacking == {"edge-2": (RAN,), "edge-3": (RAN,), "gnb": (NODE,)}
    # Never is the instance of another host taken for it.
    assert pins(pair(["edge-1:9100", "edge-2:9100"], []))["edge-1"] == ("edge-1:9100", "edge-1")


def test_two_instances_of_an_exporter_on_a_host_are_told_and_the_others_go_on() -> None:
    fleet = pair(["edge-1:9100", "edge-2:9100"], ["edge-1:3333", "edge-1:3334", "edge-2:3333"])
    assert list(fleet.nodes) == ["edge-2"]
    assert fleet.refused == {
        "edge-1": "edge-1 has 2 instances of ran (edge-1:3333, edge-1:3334); name the one to watch as"
        " 'ran_instance' in --nodes_file"
    }


def test_hostile_names_are_refused_and_series_without_an_instance_play_no_part() -> None:
    hostile = ["../../x:9100", "a/b:1", ":9100", "e\nvil:9100", "x" * 5000 + ":9100", "all:9100", "edge-*:1"]
    fleet = pair(["edge-1:9100", "", *hostile], ["edge-1:3333", ""])
    assert pins(fleet) == {"edge-1": ("edge-1:9100", "edge-1:3333")}
    assert set(fleet.refused) == {host_of(one) for one in hostile}
    for line in fleet.refused.values():
        assert line.isprintable()
        assert len(line) < 200
    assert fleet.refused["a/b"] == (
        "'a/b' cannot name a node: it has one of / \\ * ?; name it in --nodes_file"
    )


def test_a_known_node_that_is_silent_is_a_node_with_the_instances_that_it_probably_has() -> None:
    fleet = pair(["edge-1:9100"], ["edge-1:3333"], known=("edge-1", "edge-7"))
    assert pins(fleet)["edge-7"] == ("edge-7:9100", "edge-7:3333")
    assert (fleet.silent, fleet.lacking) == (("edge-7",), {})


def test_the_series_that_tells_instances_is_one_that_each_has() -> None:
    assert [instance_series(DEFAULT_NODE, exporter).key for exporter in (NODE, RAN)] == [MEMORY_FREE, RX_CPU]
    node = described_node(
        "x.json",
        {
            "node_tags": {"job": "edge"},
            "metrics": {
                "ue": {"silence": "zero", "over": {"rnti": "any"}},
                "load": {"measurement": "node_load1", "tags": {"zone": "a"}},
            },
        },
    )
    series = instance_series(node, NODE)
    assert (series.measurement, series.tags) == ("node_load1", {"zone": "a", "job": "edge"})
    # Series of exporters that the description does not have play no part.
    assert [one.measurement for one in Pairing(node, {}).series] == ["node_load1"]


# --- a file of nodes -----------------------------------------------------------------------------


def read(tmp_path: Path, content: Any, start: Node = DEFAULT_NODE) -> dict[str, Node]:
    path = tmp_path / "nodes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_nodes_file(path, start)


def test_a_file_names_nodes_whose_hosts_differ(tmp_path: Path) -> None:
    described = read(
        tmp_path,
        {
            "milan": {"node_instance": "10.0.0.1:9100", "ran_instance": "10.0.0.2:3333"},
            "edge-3-a": {"node_instance": "edge-3:9100", "ran_instance": "edge-3:3333"},
            "edge-3-b": {"node_instance": "edge-3:9100", "ran_instance": "edge-3:3334"},
            "edge-2": {"cpus": ["0"]},
            "rome": {"ran_instance": "roof:3333"},
            "turin": {"node_instance": "fiat:9100"},
        },
    )
    node = ["10.0.0.1:9100", "edge-1:9100", "edge-2:9100", "edge-3:9100", "rome:9100", "fiat:9100"]
    ran = ["10.0.0.2:3333", "edge-1:3333", "edge-2:3333", "edge-3:3333", "edge-3:3334", "roof:3333", "fiat:1"]
    fleet = pair(node, ran, described)
    assert pins(fleet) == {
        "edge-1": ("edge-1:9100", "edge-1:3333"),
        "edge-2": ("edge-2:9100", "edge-2:3333"),
        "edge-3-a": ("edge-3:9100", "edge-3:3333"),
        "edge-3-b": ("edge-3:9100", "edge-3:3334"),
        # No node of the file has this one.
        "fiat": ("fiat:9100", "fiat:1"),
        "milan": ("10.0.0.1:9100", "10.0.0.2:3333"),
        "rome": ("rome:9100", "roof:3333"),
        "turin": ("fiat:9100", "fiat:1"),
    }
    assert fleet.nodes["edge-2"].node.cpus == ("0",)
    assert fleet.refused == {}


def test_a_node_of_a_file_starts_from_a_description_beside_it_or_from_that_of_all(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text('{"cpus": ["0"], "metrics": {"cpu": {}, "mem": {}}}')
    start = Node(cpus=("0", "1", "2"), cell_id="9")
    described = read(
        tmp_path,
        {
            "a": {"node_file": "small.json", "node_instance": "a:9100"},
            "b": {"node_file": "small.json", "cpus": ["7"], "off": ["mem"]},
            "c": {"cell_id": 4},
            "d": {"node_file": "small.json", "off": ["mem"]},
        },
        start,
    )
    assert (described["a"].cpus, described["a"].node_instance) == (("0",), "a:9100")
    assert (described["b"].cpus, list(described["b"].metrics)) == (("7",), ["cpu"])
    assert described["b"].metrics.known_threshold_keys == (
        "cpu_threshold",
        "overall_threshold",
        "mem_threshold",
    )
    assert described["c"] == Node(cpus=("0", "1", "2"), cell_id="4")
    # Most nodes share their metrics, and so what is computed from them.
    assert described["c"].metrics is start.metrics
    assert described["b"].metrics is described["d"].metrics
    fleet = pair(["a:9100", "b:9100", "c:9100"], ["c:3333", "b:3333"], described)
    # What `a` and `b` are has no RAN.
    assert pins(fleet)["b"] == ("b:9100", None)
    assert fleet.lacking == {}


def test_a_node_that_tags_tell_apart_needs_no_instance(tmp_path: Path) -> None:
    start = described_node(
        "x.json", {"metrics": {"cpu": {}, "gnb_cpu": {"exporter": "gnb", "measurement": "gnb_usage"}}}
    )
    described = read(tmp_path, {"lab": {"gnb_tags": {"host": "lab"}}, "far": {"gnb_instance": "x:1"}}, start)
    pairing = Pairing(start, described)
    assert [one.measurement for one in pairing.series] == ["node_cpu_seconds_total", "gnb_usage"]
    fleet = pairing.pair([["lab:9100", "far:9100"], [""]])
    assert fleet.nodes["lab"].node.instance_of("gnb") is None
    assert fleet.nodes["lab"].node.node_instance == "lab:9100"
    assert fleet.nodes["far"].node.instance_of("gnb") == "x:1"
    assert fleet.lacking == {}


EXPORTERS = {"node_instance": "edge-1:9100", "ran_instance": "edge-1:3333"}


def test_two_cells_of_one_host_and_nodes_without_instances_are_not_one_node(tmp_path: Path) -> None:
    content = {"a": EXPORTERS, "b": {"cell_id": 3, **EXPORTERS}, "c": {}, "d": {}}
    assert list(read(tmp_path, content)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": {}, "a": {}}', "the key 'a' occurs twice; keep one of them"),
        ("[]", 'must hold one JSON object, like {"key": 1.0}'),
        (
            {"../x": {}},
            "'../x' cannot name a node: it has one of / \\ * ?; take another name",
        ),
        ({"all": {}}, "'all' cannot name a node: --node all means every node; take another name"),
        ({"a": []}, 'a: must be an object, like {"node_instance": "edge-1:9100"}'),
        ({"a": {"node_file": 3}}, "a: 'node_file' must be the name of a file"),
        ({"a": {"node_file": ""}}, "a: 'node_file' must be the name of a file"),
        (
            {"a": {"cpu": []}},
            "a: unknown key 'cpu'; the keys are cell_id, cpus, interfaces, metrics, node_instance, node_tags,"
            " off, ran_instance, ran_tags, total_memory_bytes",
        ),
        ({"a": {"cpus": "0"}}, 'a: \'cpus\' must be a list of names, like ["0", "1"]'),
        (
            {"a": {"ran_instance": True}},
            "a: 'ran_instance' must hold names (text or whole numbers), not True",
        ),
        (
            {"a": {"off": ["disk"]}},
            "a: 'off' has 'disk', which is no metric of this node; the metrics are cpu, cpu_rx, cpu_tx,"
            " net_down, net_up, net_5g_down, net_5g_up, mem",
        ),
        (
            {"a": EXPORTERS, "b": {"total_memory_bytes": 5, **EXPORTERS}},
            "b: has the same exporters as a; remove one of them, or correct its instances",
        ),
    ],
)
def test_a_file_of_nodes_is_refused(tmp_path: Path, content: Any, fault: str) -> None:
    with pytest.raises(UserError) as refusal:
        read(tmp_path, content)
    assert one_line(refusal) == f"{tmp_path / 'nodes.json'}: {fault}"


def test_a_description_that_is_not_there_is_refused_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        read(tmp_path, {"a": {"node_file": "none.json"}})
    assert one_line(refusal) == f"{tmp_path / 'none.json'}: no such file; check the path"
