"""What is made of the contents of a database: stacks, instances, parts, and what else there is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from common.files import UserError
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    METRICS,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    RawSeries,
)
from nodes.node import load_node
from nodes.recognition import Recognition, recognise
from nodes.stacks import Stack, load_stacks, wanted_series
from nodes.survey import FoundSeries, Survey, describe_others, example_metric

SECOND = 10**9
NEWEST = 1_700_000_000 * SECOND
RAN_SERIES = ("rx_cpu_time", "tx_cpu_time", "dl_bitrate", "ul_bitrate")
OCUDU = {
    "metrics": {
        "gnb_mem": {
            "exporter": "gnb",
            "measurement": "app_resource_usage",
            "field": "memory_usage_mb",
            "unit": "MB",
        },
        "ue_down": {
            "exporter": "gnb",
            "measurement": "ue",
            "field": "dl_brate",
            "tags": {"pci": "9"},
            "over": {"rnti": "any"},
            "kind": "bit rate",
            "silence": "zero",
        },
        "latency": {"exporter": "gnb", "measurement": "cell", "field": "average_latency"},
    }
}
OPEN5GS = {
    "metrics": {
        "cpu": {},
        "ran_ue": {"exporter": "amf"},
        "n3_in": {"exporter": "upf", "measurement": "fivegs_ep_n3_gtp_indatapktn3upf", "kind": "counter"},
    },
    "off": ["n3_in"],
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[Stack]:
    folder = tmp_path_factory.mktemp("stacks")
    files = {
        "amarisoft": {},
        "node-exporter": {"metrics": {"cpu": {}, "net_down": {}, "net_up": {}, "mem": {}}},
        "ocudu": OCUDU,
        "open5gs": OPEN5GS,
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load_stacks(folder)


def series(
    low: float = 0.0, high: float = 9.0, age: int = 0, count: int = 240, interval: float = 15.0, **tags: str
) -> FoundSeries:
    """A series of `count` samples whose newest is `age` seconds old."""
    last = NEWEST - age * SECOND
    return FoundSeries(tags, count, last - int((count - 1) * interval * SECOND), last, low, high, high)


def survey(
    found: dict[str, list[FoundSeries]], fields: dict[str, dict[str, str]] | None = None, **others: Any
) -> Survey:
    """A survey of these series; fields of those of Prometheus need not be given."""
    all_fields = {name.partition(".")[0]: {"value": "float"} for name in found} | (fields or {})
    return Survey(tuple(all_fields), all_fields, series={k: tuple(v) for k, v in found.items()}, **others)


def host(
    instance: str = "edge:9100",
    cpus: tuple[str, ...] = ("0", "1"),
    devices: tuple[str, ...] = ("eth0",),
    **more: Any,
) -> dict[str, list[FoundSeries]]:
    """The series of a node exporter."""
    own = {"instance": instance, "job": "node", **more}
    return {
        CPU_SECONDS: [series(cpu=cpu, mode="user", **own) for cpu in cpus],
        MEMORY_FREE: [series(**own)],
        MEMORY_TOTAL: [series(low=16e9, high=16e9, **own)],
        RECEIVED: [series(device=device, **own) for device in devices],
        TRANSMITTED: [series(device=device, **own) for device in devices],
    }


def ran(
    instance: str = "gnb:9099", cells: tuple[str | None, ...] = ("2",), **more: Any
) -> dict[str, list[FoundSeries]]:
    """The series of an Amarisoft exporter."""
    own = {"instance": instance, "job": "ran", **more}
    found = {name: [series(**own)] for name in RAN_SERIES[:2]}
    return found | {name: [series(**own, cellId=cell) for cell in cells] for name in RAN_SERIES[2:]}


def together(*parts: dict[str, list[FoundSeries]]) -> dict[str, list[FoundSeries]]:
    return {name: [one for part in parts for one in part.get(name, [])] for part in parts for name in part}


def said(recognition: Recognition) -> list[str]:
    return [*recognition.remarks, *recognition.choices]


DESCRIBED_HOST = {
    "cpus": ["0", "1"],
    "interfaces": ["eth0"],
    "total_memory_bytes": 16_000_000_000,
    "node_instance": "edge:9100",
    "metrics": {"cpu": {}, "net_down": {}, "net_up": {}, "mem": {}},
}


# --- stacks --------------------------------------------------------------------------------------


def test_a_host_without_a_ran_is_described_by_its_four_metrics(stacks: list[Stack]) -> None:
    recognition = recognise(survey(host()), stacks)
    assert recognition.node == DESCRIBED_HOST
    assert said(recognition) == [
        "recognised node-exporter: cpu, net_down, net_up, mem",
        "CPUs: 0, 1",
        "interfaces: eth0",
    ]


def test_the_documented_metrics_need_no_list_of_metrics(stacks: list[Stack]) -> None:
    recognition = recognise(survey(together(host(), ran(cells=("7",)))), stacks)
    expected = {key: value for key, value in DESCRIBED_HOST.items() if key != "metrics"}
    assert recognition.node == {**expected, "cell_id": "7", "ran_instance": "gnb:9099"}


def test_what_is_missing_of_a_stack_is_left_out_with_the_reason(stacks: list[Stack]) -> None:
    found = together(host(), ran())
    del found["ul_bitrate"], found[RX_CPU]
    recognition = recognise(survey(found, {RX_CPU: {"value": "string"}}), stacks)
    assert list(recognition.node["metrics"]) == ["cpu", "cpu_tx", "net_down", "net_up", "net_5g_down", "mem"]
    assert said(recognition)[1:3] == [
        "cpu_rx of amarisoft is left out: the field value holds values of the type string, not numbers,"
        " in rx_cpu_time",
        "net_5g_up of amarisoft is left out: ul_bitrate is not in the database",
    ]


def test_two_stacks_in_one_database_make_one_node(stacks: list[Stack]) -> None:
    gnb = {
        "app_resource_usage.memory_usage_mb": [series(host="gnb1")],
        "cell.average_latency": [series(host="gnb1")],
        "ue.dl_brate": [series(host="gnb1", pci="1", rnti=rnti) for rnti in ("17921", "17922")],
    }
    fields = {
        "app_resource_usage": {"memory_usage_mb": "float"},
        "cell": {"average_latency": "float", "pci": "float"},
        "ue": {"dl_brate": "float", "cqi": "float"},
    }
    found = survey(together(host(), gnb), fields)
    recognition = recognise(found, stacks)
    ue_down = {**OCUDU["metrics"]["ue_down"], "tags": {"pci": "1"}}
    assert recognition.node == {
        **DESCRIBED_HOST,
        "metrics": {**DESCRIBED_HOST["metrics"], **OCUDU["metrics"], "ue_down": ue_down},
    }
    assert describe_others(found, recognition.used) == ["cell also has field pci", "ue also has field cqi"]


def test_a_ue_that_is_not_there_now_is_described_all_the_same(stacks: list[Stack]) -> None:
    found = survey(
        {"cell.average_latency": [series()]},
        {"cell": {"average_latency": "float"}, "ue": {"dl_brate": "float"}},
    )
    recognition = recognise(found, stacks)
    assert list(recognition.node["metrics"]) == ["ue_down", "latency"]
    # Which cell it will have is not known.
    assert "tags" not in recognition.node["metrics"]["ue_down"]
    # The field has two names, and the stack is looked for with either.
    assert said(recognition) == [
        "recognised ocudu: ue_down, latency",
        "gnb_mem of ocudu is left out: app_resource_usage is not in the database",
    ]


def test_a_field_that_was_renamed_is_found(stacks: list[Stack]) -> None:
    found = {"app_resource_usage.mem_total_mb": [series()], "cell.average_latency": [series()]}
    fields = {"app_resource_usage": {"mem_total_mb": "float"}, "cell": {"average_latency": "float"}}
    node = recognise(survey(found, fields), stacks).node
    assert node["metrics"]["gnb_mem"] == {**OCUDU["metrics"]["gnb_mem"], "field": "mem_total_mb"}


def test_what_a_stack_switches_off_stays_off(stacks: list[Stack]) -> None:
    found = {
        CPU_SECONDS: host()[CPU_SECONDS],
        "ran_ue": [series(instance="127.0.0.5:9090")],
        "fivegs_ep_n3_gtp_indatapktn3upf": [series(high=0, instance="127.0.0.7:9090")],
    }
    recognition = recognise(survey(found), stacks)
    assert recognition.node == {
        "cpus": ["0", "1"],
        "node_instance": "edge:9100",
        "amf_instance": "127.0.0.5:9090",
        "metrics": OPEN5GS["metrics"],
        "off": ["n3_in"],
    }


def test_nothing_known_is_no_node(stacks: list[Stack]) -> None:
    assert recognise(survey({}, {"room": {"celsius": "float"}}), stacks) == Recognition()


# --- which node ----------------------------------------------------------------------------------


def test_of_two_nodes_one_is_described_and_the_other_named(stacks: list[Stack]) -> None:
    found = survey(together(host("edge10:9100", cpus=("0",)), host("edge9:9100", cpus=("4", "5"))))
    first, other = (recognise(found, stacks, pins) for pins in ({}, {"node_instance": "edge10:9100"}))
    assert (first.node["node_instance"], first.node["cpus"]) == ("edge9:9100", ["4", "5"])
    assert first.choices == [
        "node_instance is edge9:9100; there is also edge10:9100; for another one give a file with"
        ' {"node_instance": "edge10:9100"} as --node_file'
    ]
    assert (other.node["node_instance"], other.node["cpus"]) == ("edge10:9100", ["0"])


def test_an_instance_that_ended_is_not_offered(stacks: list[Stack]) -> None:
    ended = {name: [series(age=400, **one.tags) for one in found] for name, found in host("a:9100").items()}
    recognition = recognise(survey(together(ended, host("b:9100"))), stacks)
    assert recognition.node["node_instance"] == "b:9100"
    assert recognition.choices == []


def test_the_gnb_of_the_same_host_is_taken(stacks: list[Stack]) -> None:
    found = together(host("edge2:9100"), ran("edge1:9099"), ran("edge2:9099"))
    assert recognise(survey(found), stacks).node["ran_instance"] == "edge2:9099"


def test_an_instance_that_is_not_there_is_refused(stacks: list[Stack]) -> None:
    with pytest.raises(
        UserError, match=r"^node_instance 'x:1' has had no sample in the last hour; there is edge:9100$"
    ):
        recognise(survey(host()), stacks, {"node_instance": "x:1"})


def test_a_tag_in_which_series_differ_is_fixed(stacks: list[Stack]) -> None:
    other = {name: [series(**{**one.tags, "job": "a"}) for one in found] for name, found in host().items()}
    other[MEMORY_FREE] = []
    recognition = recognise(survey(together(host(), other)), stacks)
    assert recognition.node == {**DESCRIBED_HOST, "node_tags": {"job": "node"}}
    assert recognition.choices == [
        "node_tags has job node; there is also a; for another one give a file with"
        ' {"node_tags": {"job": "a"}} as --node_file'
    ]


def test_a_tag_that_other_metrics_lack_is_fixed_for_one_metric(stacks: list[Stack]) -> None:
    found = {
        "ue.dl_brate": [series(pci=pci, rnti=rnti) for pci, rnti in (("2", "7"), ("1", "7"), ("1", "8"))],
        "cell.average_latency": [series()],
    }
    fields = {"cell": {"average_latency": "float"}, "ue": {"dl_brate": "float"}}
    recognition = recognise(survey(found, fields), stacks)
    assert recognition.node["metrics"]["ue_down"] == {**OCUDU["metrics"]["ue_down"], "tags": {"pci": "1"}}
    assert recognition.choices == [
        "gnb_tags has pci 1; there is also 2; for another one give a file with"
        ' {"gnb_tags": {"pci": "2"}} as --node_file'
    ]
    other = recognise(survey(found, fields), stacks, {"gnb_tags": {"pci": "2"}})
    assert other.node["metrics"] == {
        "ue_down": {**OCUDU["metrics"]["ue_down"], "tags": {"pci": "2"}},
        "latency": OCUDU["metrics"]["latency"],
    }


# --- parts ---------------------------------------------------------------------------------------


def test_interfaces_of_the_host_itself_and_idle_ones_are_left_out(stacks: list[Stack]) -> None:
    names = ("eth0", "lo", "veth1a", "docker0", "br-0a1b", "virbr0", "eth1", "lowpan0")
    found = host(devices=names)
    for name in (RECEIVED, TRANSMITTED):
        found[name] = [
            series(low=5, high=5, **one.tags) if one.tags["device"] == "eth1" else one for one in found[name]
        ]
    recognition = recognise(survey(found), stacks)
    assert recognition.node["interfaces"] == ["eth0", "lowpan0"]
    assert said(recognition)[2:] == [
        "interfaces of the host itself that are left out: br-0a1b, docker0, lo, veth1a, virbr0",
        "interfaces that were idle in the last hour and are left out: eth1",
        "interfaces: eth0, lowpan0",
    ]


@pytest.mark.parametrize(
    ("names", "is_idle", "count", "expected"),
    [
        (("lo", "docker0"), False, 240, ["docker0", "lo"]),
        (("lo", "eth0", "eth1"), True, 240, ["eth0", "eth1"]),
        # A database that has just begun does not show which are idle.
        (("eth0", "eth1"), True, 19, ["eth0", "eth1"]),
    ],
)
def test_interfaces_stay_if_there_are_no_better_ones(
    stacks: list[Stack], names: tuple[str, ...], is_idle: bool, count: int, expected: list[str]
) -> None:
    found = host(devices=names)
    for name in (RECEIVED, TRANSMITTED):
        found[name] = [series(high=0 if is_idle else 9, count=count, **one.tags) for one in found[name]]
    assert recognise(survey(found), stacks).node["interfaces"] == expected


def test_cpus_are_in_the_order_of_their_numbers(stacks: list[Stack]) -> None:
    node = recognise(survey(host(cpus=("10", "9", "2"))), stacks).node
    assert node["cpus"] == ["2", "9", "10"]


def test_several_cells_are_named(stacks: list[Stack]) -> None:
    found = survey(together(host(), ran(cells=("3", "1"))))
    first = recognise(found, stacks)
    assert first.node["cell_id"] == "1"
    assert first.choices == [
        'cell_id is 1; there is also 3; for another one give a file with {"cell_id": "3"} as --node_file'
    ]
    assert recognise(found, stacks, {"cell_id": "3"}).node["cell_id"] == "3"
    with pytest.raises(UserError, match=r"^cell_id '4' has had no sample in the last hour; there is 1, 3$"):
        recognise(found, stacks, {"cell_id": "4"})


def test_metrics_whose_series_have_no_parts_are_left_out(stacks: list[Stack]) -> None:
    found = together(host(), ran())
    found[DOWNLINK] = [series(instance="gnb:9099", job="ran")]
    recognition = recognise(survey(found), stacks)
    assert list(recognition.node["metrics"]) == ["cpu", "cpu_rx", "cpu_tx", "net_down", "net_up", "mem"]
    assert "net_5g_up is left out: no cellId has all of its series" in said(recognition)


def test_names_that_no_node_file_takes_are_not_offered(stacks: list[Stack]) -> None:
    found = together(host(devices=("eth0", "eth\n1", "e" * 201)), host("evil\n:9100"))
    assert recognise(survey(found), stacks).node == DESCRIBED_HOST


# --- remarks -------------------------------------------------------------------------------------


def test_an_interval_longer_than_that_of_records_is_told(stacks: list[Stack]) -> None:
    slow = {
        name: [series(count=61, interval=60, **one.tags) for one in found] for name, found in host().items()
    }
    assert (
        "samples of node come every 60 s; give --interval 60 to collect, train and test"
        in recognise(survey(slow), stacks).remarks
    )


def test_metrics_that_do_not_change_are_told(stacks: list[Stack]) -> None:
    found = together(host(), ran())
    found[DOWNLINK] = [series(high=0, **one.tags) for one in found[DOWNLINK]]
    assert "did not change in the last hour: net_5g_down" in recognise(survey(found), stacks).remarks


def test_others_are_named_with_fields_and_tags_and_counted() -> None:
    fields = {
        "used": {"value": "float"},
        "load": {"value": "float"},
        "room": {f"f{i}": "float" for i in range(10)},
    }
    found = Survey(("used", "load", "room", "x", "y"), fields, {"load": ("__name__", "job"), "room": ("id",)})
    assert describe_others(found, {"used": {"value"}}) == [
        "load: tag job",
        "room: fields f0, f1, f2, f3, f4, f5, f6, f7 and 2 more; tag id",
        "and 2 more measurements",
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"Room-1": {"ok": "boolean", "°C": "float"}},
            {"room_1_c": {"measurement": "Room-1", "field": "°C"}},
        ),
        (
            {"http_total": {"value": "float"}},
            {"http_total": {"measurement": "http_total", "kind": "counter"}},
        ),
        ({"1": {"value": "integer"}}, {"metric_1": {"measurement": "1"}}),
        ({"name": {"value": "string"}}, None),
    ],
)
def test_the_example_is_a_metric_that_a_node_file_takes(
    tmp_path: Path, fields: dict[str, dict[str, str]], expected: dict[str, Any] | None
) -> None:
    example = example_metric(Survey(tuple(fields), fields))
    assert example == expected
    if example:
        (tmp_path / "node.json").write_text(json.dumps({"metrics": example}))
        assert list(load_node(tmp_path / "node.json").metrics) == list(example)


def any_survey(rng: random.Random, wanted: list[RawSeries]) -> Survey:
    """Some of the series of all stacks, with tags that nobody would expect."""
    texts = ["a", "b:1", "1", "2", "10", "e\n", "x" * 300, '"', "\\", "é"]
    fields: dict[str, dict[str, str]] = {}
    found: dict[str, tuple[FoundSeries, ...]] = {}
    for one in (one for one in wanted if rng.random() < 0.7):
        kind = rng.choice(["float"] * 6 + ["string"])
        fields.setdefault(one.measurement, {})[one.value_field] = kind
        known = ["instance", "job", "host", "cpu", "device", "cellId", "pci", "rnti", "z"]
        of_key = {}
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            tags = {tag: rng.choice(texts) for tag in rng.sample(known, rng.randint(0, 6))}
            tags |= {"instance": "n1:9100"} if rng.random() < 0.7 else {}
            tags |= {one.part_tag: rng.choice(["0", "1"])} if one.part_tag and rng.random() < 0.8 else {}
            tags |= one.tags
            low = rng.choice([0.0, 1.0, -5.0, 1e40])
            made = series(
                low, rng.choice([low, low + 3]), rng.choice([0, 0, 400]), rng.choice([1, 240]), **tags
            )
            of_key[tuple(sorted(tags.items()))] = made
        if kind == "float":
            found[one.key] = tuple(of_key.values())
    return Survey(tuple(fields), fields, series=found)


def test_whatever_is_there_makes_a_file_that_loads(tmp_path: Path) -> None:
    stacks = load_stacks()
    wanted = wanted_series(stacks)
    wishes = ({}, {}, {"node_instance": "b:1"}, {"gnb_tags": {"host": "a"}}, {"cell_id": "2"})
    for seed in range(100):
        rng = random.Random(seed)
        found, wish = any_survey(rng, wanted), rng.choice(wishes)
        try:
            recognition = recognise(found, stacks, wish)
        except UserError:
            assert wish, seed
            continue
        if recognition.node:
            (tmp_path / "node.json").write_text(json.dumps(recognition.node))
            node = load_node(tmp_path / "node.json")
            assert set(node.metrics) | set(recognition.node.get("off", [])) == set(
                recognition.node.get("metrics", METRICS)
            ), seed
