"""Metrics that a node file describes: what is taken, what is refused, and what becomes of their samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import UserError
from edge.selection import Choice, Selection, in_slots
from formatters import format_record
from nodes.description import DEFAULTS
from nodes.metrics import METRICS
from nodes.node import DEFAULT_NODE, Node, getColumnNames, load_node
from nodes.series import Record, is_of, monitored_series, pinned_tags
from tests.support.fuzzing import fuzzed, loaded_or_refused
from tests.support.metrics import lines_of

SECOND = 10**9
INTERVAL = 15 * SECOND


def node_of(tmp_path: Path, metrics: Any = None, **keys: Any) -> Node:
    path = tmp_path / "node.json"
    content = keys if metrics is None else {"metrics": metrics, **keys}
    path.write_text(json.dumps(content))
    return load_node(path)


def test_without_metrics_the_node_has_the_documented_ones_themselves(tmp_path: Path) -> None:
    node = node_of(tmp_path, cpus=["0", "1"])
    assert node == DEFAULT_NODE
    assert node.metrics is not None and list(node.metrics) == list(METRICS)
    assert node.identity() == DEFAULT_NODE.identity()


def test_every_key_of_a_description_is_used(tmp_path: Path) -> None:
    node = node_of(
        tmp_path,
        {
            "ue_down": {
                "exporter": "gnb",
                "measurement": "ue",
                "field": "dl_brate",
                "tags": {"pci": "1"},
                "over": {"rnti": "any"},
                "kind": "bit rate",
                "scale": 1000,
                "silence": "zero",
                "direction": "up",
                "least": 1000,
            },
            "load": {"measurement": "node_load1"},
            "disk": {
                "measurement": "node_disk_read_bytes_total",
                "kind": "counter",
                "unit": "B/s",
                "over": {"device": ["sda", "sdb"]},
                "pool": "mean",
            },
        },
        gnb_instance="gnb:1",
        gnb_tags={"site": "a"},
    )
    ue = node.metrics["ue_down"]
    assert (ue.exporter, ue.unit, ue.scale, ue.silence) == ("gnb", "B/s", 1000.0, "zero")
    assert (ue.direction, ue.least, ue.features, ue.pooled([1, 3])) == ("up", 1000.0, ("ue_down",), 4)
    series = node.metrics.series["ue.dl_brate{pci=1}"]
    assert (series.measurement, series.value_field, series.over) == ("ue", "dl_brate", ("rnti",))
    assert pinned_tags("ue.dl_brate{pci=1}", node) == {"site": "a", "instance": "gnb:1"}
    disk = node.metrics["disk"]
    assert (disk.part_tag, node.parts_of(disk), disk.pooled([1, 3])) == ("device", ("sda", "sdb"), 2)
    assert node.metrics.features == ("ue_down", "load_rate", "disk", "load")
    assert list(getColumnNames(node)) == ["load", "disk", "ue_down"]
    assert node.metrics.stored == {"load": "load", "disk": "disk", "ue_down": "ue_down"}
    assert node.metrics.threshold_keys["load"] == "load_threshold"
    assert node.metrics.exporters == ("node", "gnb")
    assert list(monitored_series(node)) == [
        "node_disk_read_bytes_total{device=sda}",
        "node_disk_read_bytes_total{device=sdb}",
        "node_load1",
        "ue.dl_brate{pci=1}",
    ]


def test_documented_metrics_stand_beside_described_ones_and_can_be_switched_off(tmp_path: Path) -> None:
    node = node_of(
        tmp_path,
        {"cpu": {}, "mem": {"direction": "up", "least": 0.5}, "load": {"measurement": "node_load1"}},
        off=["load"],
    )
    assert list(node.metrics) == ["cpu", "mem"]
    assert node.metrics["cpu"] == METRICS["cpu"]
    assert (node.metrics["mem"].direction, node.metrics["mem"].least) == ("up", 0.5)
    # A person may keep the threshold of what is switched off.
    assert node.metrics.known_threshold_keys == (
        "cpu_threshold",
        "mem_threshold",
        "overall_threshold",
        "load_threshold",
    )
    # Only what differs from the documented metric is said of it.
    assert node.metrics.description == {
        "cpu": ["cpu_user_rate", "cpu_user_percentage"],
        "mem": {"features": ["mem_rate", "mem_percentage"], "direction": "up", "least": 0.5},
    }


def test_a_documented_node_can_switch_off_what_it_has_not(tmp_path: Path) -> None:
    node = node_of(tmp_path, off=["cpu_rx", "cpu_tx", "net_5g_down", "net_5g_up"])
    assert list(node.metrics) == ["cpu", "net_down", "net_up", "mem"]
    assert node.metrics.exporters == ("node",)


def metric(**description: Any) -> dict[str, Any]:
    return {"metrics": {"load": description}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"metrics": []}, "'metrics' must be an object of 1 to 64 metrics, like"),
        ({"metrics": {}}, "'metrics' must be an object of 1 to 64 metrics, like"),
        ({"metrics": {str(i): {} for i in range(65)}}, "'metrics' must be an object of 1 to 64 metrics"),
        ({"metrics": {"Load": {}}}, "metric 'Load' cannot have this name; use small letters, digits and _"),
        ({"metrics": {"overall": {}}}, "metric 'overall' cannot have this name, which means something else"),
        ({"metrics": {"time": {}}}, "metric 'time' cannot have this name"),
        ({"metrics": {"load": 1}}, "metric 'load' must be an object, like"),
        (metric(kinds="gauge"), "metric 'load' has the unknown key 'kinds'; the keys are exporter, "),
        ({"metrics": {"cpu": {"kind": "gauge"}}}, "metric 'cpu' is documented, and only 'direction' and"),
        (metric(kind="histogram"), "metric 'load' has 'histogram' as 'kind'; it must be one of 'seconds', "),
        (metric(kind=["gauge"]), "metric 'load' has ['gauge'] as 'kind'; it must be one of"),
        (metric(measurement=""), "metric 'load' has '' as 'measurement'; it must be a text of 1 to 200"),
        (metric(measurement="a\nb"), r"metric 'load' has 'a\nb' as 'measurement'; it must be a text"),
        (metric(field=1), "metric 'load' has 1 as 'field'; it must be a text of 1 to 200 letters"),
        (metric(exporter="a b"), "metric 'load' has 'a b' as 'exporter'; it must be a name of small letters"),
        (metric(tags={"mode": 1}), "metric 'load' has {'mode': 1} as 'tags'; it must be an object of texts"),
        (metric(tags={"instance": "a"}), "as 'tags'; it must be an object of texts"),
        (metric(tags={"value": "a"}), "as 'tags'; it must be an object of texts"),
        (metric(over="rnti"), "metric 'load' has 'rnti' as 'over'; it must be an object like"),
        (metric(over={"rnti": []}), "as 'over'; it must be an object like"),
        (metric(over={"d": ["a", "a"]}), "as 'over'; it must be an object like"),
        (metric(over={"d": ["a"], "e": "any"}), "as 'over'; it must be an object like"),
        (metric(tags={"d": "a"}, over={"d": "any"}), "has the same tag in 'tags' and 'over'"),
        (metric(kind="counter", over={"d": "any"}), "is a counter, which cannot be pooled over 'any'; list"),
        (metric(kind="counter", silence="zero"), "is a counter, whose silence cannot be zero"),
        (metric(kind="counter", silence="last"), "is a counter, whose silence cannot be last"),
        (metric(kind="free"), "needs 'total' if it is of the kind 'free', and only then"),
        (metric(total="x"), "needs 'total' if it is of the kind 'free', and only then"),
        (metric(kind="free", total="x", over={"d": ["a"]}), "is of the kind 'free', which has no parts"),
        (metric(kind="bit rate", unit="bit/s"), "has the unit 'bit/s'; a metric of the kind 'bit rate' has"),
        (metric(unit="x" * 21), "as 'unit'; it must be a text of at most 20 letters"),
        (metric(scale=0), "metric 'load' has 0 as 'scale'; it must be a number above 0"),
        (metric(scale="8"), "metric 'load' has '8' as 'scale'; it must be a number above 0"),
        (metric(scale=True), "metric 'load' has True as 'scale'; it must be a number above 0"),
        (metric(least=-1), "metric 'load' has -1 as 'least'; it must be a number, 0 or more"),
        (metric(least=math.nan), "metric 'load' has nan as 'least'; it must be a number, 0 or more"),
        (metric(direction="left"), "metric 'load' has 'left' as 'direction'; it must be one of 'up', 'down'"),
        (metric(pool="most"), "metric 'load' has 'most' as 'pool'; it must be one of 'sum', 'mean', 'min'"),
        ({"metrics": {"severity": {}}}, "metric 'severity' cannot have this name"),
        (
            {"metrics": {name: {"kind": "free", "total": f"{name}_total"} for name in ("disk", "swap")}},
            "disk and swap are of the kind 'free'; only one metric can be",
        ),
        (
            {
                "metrics": {
                    "a": {"measurement": "m", "over": {"cpu": ["0", "1"]}},
                    "b": {"measurement": "m", "tags": {"cpu": "0"}},
                }
            },
            "two metrics have the series m{cpu=0}; name or select each differently",
        ),
        (
            {"metrics": {"cpu": {}, "cpu_user_0_percentage": {}}},
            "two metrics have the column cpu_user_0_percentage; name or select each differently",
        ),
        ({"off": "cpu"}, "'off' must be a list of metrics, like"),
        ({"off": [1]}, "'off' must be a list of metrics, like"),
        ({"off": ["disk"]}, "'off' has 'disk', which is no metric of this node; the metrics are cpu, cpu_rx"),
        ({"off": list(METRICS)}, "no metric is left; describe one in 'metrics', or take it out of 'off'"),
        (
            {"metrics": {"a": {"measurement": "x"}, "b": {"measurement": "x"}}},
            "two metrics have the series x; name or select each differently",
        ),
        ({"metrics": {"a": {}, "a_rate": {}}}, "two metrics have the column a_rate; name or select each"),
        ({"metrics": {"a": {}}, "gnb_instance": "x"}, "unknown key 'gnb_instance'; the keys are cell_id, "),
    ],
)
def test_a_wrong_description_is_refused_in_one_line(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    path = tmp_path / "node.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refusal:
        load_node(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LIKELY = st.sampled_from(
    [*METRICS, "gauge", "counter", "bit rate", "free", "seconds", "any", "zero", "up", "node", "a", 0, 1, 2.5]
)
VALUES = (
    LIKELY | st.dictionaries(st.sampled_from(["a", "rnti"]), LIKELY | st.lists(LIKELY), max_size=2) | ANYTHING
)
DESCRIPTIONS = st.dictionaries(
    st.sampled_from([*METRICS, "a", "b", "a_rate"]) | st.text(max_size=8),
    st.dictionaries(st.sampled_from([*DEFAULTS, "x"]), VALUES, max_size=5) | ANYTHING,
    max_size=4,
)
NODES = st.fixed_dictionaries(
    {}, optional={"metrics": DESCRIPTIONS | ANYTHING, "off": st.lists(LIKELY, max_size=2) | ANYTHING}
)


@fuzzed
@given(content=NODES | ANYTHING)
def test_a_fuzzed_node_file_is_a_node_or_refused(content: Any) -> None:
    node = loaded_or_refused(load_node, json.dumps(content).encode(), ".json")
    if node is not None:
        assert json.dumps(node.identity())
        columns, _ = format_record({}, {}, node)
        assert set(getColumnNames(node)) <= set(columns)


# --- samples -------------------------------------------------------------------------------------


def chosen(node: Node, samples: Record, selection: Selection | None = None) -> list[Choice]:
    selection = selection or Selection(node)
    choices = []
    for slot in in_slots(lines_of(samples), node, INTERVAL):
        choices.append(selection.choose(slot))
        selection.keep(choices[-1])
    return choices


def point(second: float, value: Any, **tags: str) -> dict[str, Any]:
    return {"time": int(second * SECOND), "value": value, **tags}


UE = {"measurement": "ue", "field": "dl_brate", "over": {"rnti": "any"}, "kind": "bit rate"}
CELL = {"measurement": "cell", "unit": "ms"}


def test_samples_of_all_values_of_a_tag_are_summed_and_scaled(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"down": UE | {"scale": 1000}, "latency": CELL})
    samples = {
        "ue.dl_brate": [
            point(1, 8, rnti="a"),
            point(2, 16, rnti="a"),
            point(3, 24, rnti="b"),
            point(16, 40, rnti="b"),
        ],
        "cell": [point(2, 1.5), point(17, 2.5)],
    }
    first, second = chosen(node, samples)
    # The newest of each: 16 and 24.
    assert first.record["ue.dl_brate"] == [point(3, 40_000)]
    assert second.record["ue.dl_brate"] == [point(16, 40_000)]
    assert not first.faults and not first.lacks_samples
    _, before = format_record(first.record, {}, node)
    columns, _ = format_record(second.record, before, node)
    # 40,000 bit/s over 13 s.
    assert columns == {"latency": 2.5, "latency_rate": 1.0, "down": 5000.0}


def test_samples_of_all_values_of_a_tag_are_averaged(tmp_path: Path) -> None:
    snr = {"measurement": "ue", "field": "snr", "over": {"rnti": "any"}, "unit": "dB", "pool": "mean"}
    node = node_of(tmp_path, {"snr": snr})
    (choice,) = chosen(node, {"ue.snr": [point(1, -3.0, rnti="a"), point(2, 10.0, rnti="b")]})
    assert choice.record == {"ue.snr": [point(2, 3.5)]}


@pytest.mark.parametrize(("pool", "expected"), [("sum", 14.0), ("mean", 7.0), ("min", 4.0), ("max", 10.0)])
def test_samples_are_pooled_as_the_description_says(pool: str, expected: float, tmp_path: Path) -> None:
    for over in ({"rnti": "any"}, {"rnti": ["a", "b"]}):
        node = node_of(tmp_path, {"load": {"over": over, "pool": pool, "unit": "x"}})
        (choice,) = chosen(node, {"load": [point(1, 4, rnti="a"), point(2, 10, rnti="b")]})
        columns, _ = format_record(choice.record, {}, node)
        assert columns["load"] == expected


def test_a_foreign_part_below_zero_cannot_make_a_sum_smaller(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"failed": {"over": {"rnti": "any"}, "unit": "blocks"}})
    (choice,) = chosen(node, {"failed": [point(1, 900, rnti="a"), point(2, -900, rnti="evil")]})
    assert choice.record == {}
    assert choice.faults == {"failed": "its value is negative"}


def test_a_total_that_does_not_come_is_not_replaced_by_the_memory(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"disk": {"kind": "free", "total": "size"}})
    first, second = chosen(node, {"disk": [point(1, 30), point(16, 30)], "size": [point(1, 40)]})
    columns, before = format_record(first.record, {}, node)
    assert columns["disk"] == 25.0
    assert second.record == {}
    assert second.faults == {"size": "no sample"}
    columns, _ = format_record(second.record, before, node)
    assert math.isnan(columns["disk"])


def test_one_unusable_value_makes_the_sum_unknown_not_smaller(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"down": UE})
    (choice,) = chosen(node, {"ue.dl_brate": [point(1, 8, rnti="a"), point(2, -1, rnti="b")]})
    assert choice.record == {}
    assert choice.faults == {"ue.dl_brate": "its value is negative"}


def test_series_that_differ_in_another_tag_are_two_at_once(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"down": UE})
    samples = {"ue.dl_brate": [point(1, 8, rnti="a", host="x"), point(2, 8, rnti="a", host="y")]}
    (choice,) = chosen(node, samples)
    assert choice.record == {}
    assert choice.faults == {
        "ue.dl_brate": "two series at once, host=x and host=y; select one by 'tags' of down in --node_file,"
        " or name their tag in 'over'"
    }


def test_silence_is_zero_while_the_exporter_speaks_and_unknown_otherwise(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"down": UE | {"silence": "zero"}, "latency": CELL})
    samples = {
        "ue.dl_brate": [point(1, 800, rnti="a")],
        "cell": [point(2, 1.5), point(17, 2.5)],
    }
    first, second = chosen(node, samples)
    assert not first.silent and not first.lacks_samples
    assert second.silent == ("ue.dl_brate",)
    # It may still come, so that it is waited for as for any other.
    assert second.lacks_samples and not second.faults
    assert second.record["ue.dl_brate"] == [point(17, 0.0)]
    _, before = format_record(first.record, {}, node)
    columns, _ = format_record(second.record, before, node)
    assert columns["down"] == 0.0
    # Samples that may be there, unseen, are no silence.
    (slot,) = in_slots(lines_of({"cell": [point(31, 3.5)]}), node, INTERVAL)
    choice = Selection(node).choose(slot, {"ue.dl_brate": "there are too many samples of it to read"})
    assert not choice.silent and "ue.dl_brate" not in choice.record
    assert choice.faults["ue.dl_brate"] == "no sample: there are too many samples of it to read"
    # Another exporter says nothing of this one.
    other = node_of(tmp_path, {"down": UE | {"silence": "zero", "exporter": "gnb"}, "latency": CELL})
    (choice,) = chosen(other, {"cell": [point(1, 3.5)]})
    assert choice.faults == {"ue.dl_brate": "no sample"}
    # Nothing at all: nobody can tell.
    selection = Selection(node)
    (slot,) = in_slots(lines_of({"cell": [point(31, "text")]}), node, INTERVAL)
    choice = selection.choose(slot)
    assert choice.record == {}
    assert choice.faults["ue.dl_brate"] == "no sample"


def test_a_silent_level_stays_what_it_was_last_also_over_a_restart(tmp_path: Path) -> None:
    snr = {"measurement": "ue", "field": "snr", "over": {"rnti": "any"}, "pool": "mean"}
    node = node_of(tmp_path, {"snr": snr | {"silence": "last"}, "latency": CELL})
    samples = {
        "ue.snr": [point(17, 20.0, rnti="a"), point(18, -4.0, rnti="b")],
        "cell": [point(2, 1.5), point(19, 1.5), point(32, 1.5), point(47, 1.5)],
    }
    slots = in_slots(lines_of(samples), node, INTERVAL)
    selection = Selection(node)
    unknown, known, silent = (selection.choose(slot) for slot in slots[:3])
    # Nothing is kept yet.
    assert [choice.faults for choice in (unknown, silent)] == [{"ue.snr": "no sample"}] * 2
    selection.keep(known)
    assert selection.choose(slots[2]).record["ue.snr"] == [point(32, 8.0)]
    restarted = Selection(node)
    restarted.restore(json.loads(json.dumps(selection.state())))
    assert restarted.choose(slots[3]).record["ue.snr"] == [point(47, 8.0)]


def test_foreign_and_unusable_samples_are_never_taken_for_silence(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"down": UE | {"silence": "zero"}, "latency": CELL}, node_instance="gnb")
    samples = {
        "ue.dl_brate": [
            point(1, 800, rnti="a", instance="other"),
            point(16, "text", rnti="a", instance="gnb"),
        ],
        "cell": [point(2, 1.5, instance="gnb"), point(17, 2.5, instance="gnb")],
    }
    first, second = chosen(node, samples)
    for choice in (first, second):
        assert "ue.dl_brate" not in choice.record
        assert not choice.silent
    assert first.faults["ue.dl_brate"].startswith("no sample, but other writes some")
    assert second.faults["ue.dl_brate"] == "its value is text, not a number"


def test_gauges_may_be_negative_unless_they_are_percentages(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"level": {"unit": "dBm"}, "share": {"unit": "%"}})
    (choice,) = chosen(node, {"level": [point(1, -90.5)], "share": [point(1, -1)]})
    assert choice.record == {"level": [point(1, -90.5)]}
    assert choice.faults == {"share": "its value is negative"}


def test_names_of_series_tell_whose_they_are() -> None:
    assert is_of("ue.dl_brate{pci=1}", "ue.dl_brate{pci=1}")
    assert is_of("busy{mode=user,cpu=0}", "busy{mode=user}")
    assert is_of("busy{cpu=0}", "busy")
    assert not is_of("busy_time", "busy")
    assert not is_of("busy{mode=user2,cpu=0}", "busy{mode=user}")


def test_a_series_that_is_silent_for_a_day_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = node_of(tmp_path, {"down": UE | {"silence": "zero"}, "latency": CELL})
    selection = Selection(node)
    samples = {"cell": [point(second, 1.5) for second in range(1, 86_400 + 60, 15)]}
    chosen(node, samples, selection)
    assert [record.getMessage() for record in caplog.records] == [
        "ue.dl_brate has had no sample since 1970-01-01T00:00:00Z, and counts as zero;"
        " check that its exporter still has it"
    ]


def test_a_last_level_is_forgotten_where_the_records_before_do_not_count(tmp_path: Path) -> None:
    node = node_of(tmp_path, {"snr": {"silence": "last", "unit": "dB"}, "latency": CELL})
    selection = Selection(node)
    held, _ = chosen(node, {"snr": [point(1, -7.0)], "cell": [point(1, 1.5), point(16, 1.5)]}, selection)
    assert held.record["snr"] == [point(1, -7.0)]
    selection.forget_levels()
    (choice,) = chosen(node, {"cell": [point(31, 1.5)]}, selection)
    assert choice.faults == {"snr": "no sample"}
