"""What a metric is: its columns, features and stored fields."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodes.metrics import GAUGE, METRICS, NODE, Metric, MetricTable, getAnomalyColumns, getFeatures
from nodes.node import Node, getColumnNames
from tests.support.columns import FEATURES, NEEDED, STORED


def test_columns_of_the_documented_node() -> None:
    assert list(getColumnNames()) == [
        "cpu_user_0_percentage",
        "cpu_user_0_rate",
        "cpu_user_1_percentage",
        "cpu_user_1_rate",
        "cpu_user_percentage",
        "cpu_user_rate",
        "enp1s0_bytes_received",
        "enp1s0_received_rate",
        "enp0s20u1_bytes_received",
        "enp0s20u1_received_rate",
        "ppp0_bytes_received",
        "ppp0_received_rate",
        "bytes_received",
        "bytes_received_rate",
        "enp1s0_bytes_transmitted",
        "enp1s0_transmitted_rate",
        "enp0s20u1_bytes_transmitted",
        "enp0s20u1_transmitted_rate",
        "ppp0_bytes_transmitted",
        "ppp0_transmitted_rate",
        "bytes_transmitted",
        "bytes_transmitted_rate",
        "mem",
        "mem_percentage",
        "mem_rate",
        "cpu_rx_percentage",
        "cpu_rx_rate",
        "cpu_tx_percentage",
        "cpu_tx_rate",
        "dl_bytes",
        "dl_bytes_rate",
        "ul_bytes",
        "ul_bytes_rate",
    ]
    assert set(getColumnNames().values()) == {float}


def test_columns_follow_the_node() -> None:
    columns = list(getColumnNames(Node(cpus=("3",), interfaces=("eth0",))))
    assert columns[:8] == [
        "cpu_user_3_percentage",
        "cpu_user_3_rate",
        "cpu_user_percentage",
        "cpu_user_rate",
        "eth0_bytes_received",
        "eth0_received_rate",
        "bytes_received",
        "bytes_received_rate",
    ]
    assert set(NEEDED) <= set(columns)


def test_features_are_the_documented_rates_then_the_levels() -> None:
    assert getFeatures() == FEATURES


def test_every_feature_belongs_to_exactly_one_metric() -> None:
    assert list(METRICS) == [
        "cpu",
        "cpu_rx",
        "cpu_tx",
        "net_down",
        "net_up",
        "net_5g_down",
        "net_5g_up",
        "mem",
    ]
    assert sorted(feature for metric in METRICS.values() for feature in metric.features) == sorted(FEATURES)


def test_a_caller_may_change_the_lists_it_is_given() -> None:
    getFeatures().clear()
    getAnomalyColumns().clear()
    getColumnNames().clear()
    assert getFeatures() == FEATURES
    assert getAnomalyColumns() == STORED
    assert len(getColumnNames()) == 33


def test_stored_columns_stand_in_the_order_of_the_fields_of_an_anomaly() -> None:
    assert list(METRICS.stored) == getAnomalyColumns()
    assert METRICS.stored == {
        "cpu_user_percentage": "cpu_usage",
        "mem_percentage": "mem_usage",
        "bytes_received": "net_down_usage",
        "bytes_transmitted": "net_up_usage",
        "cpu_rx_percentage": "cpu_rx_usage",
        "cpu_tx_percentage": "cpu_tx_usage",
        "dl_bytes": "net_down_5g_usage",
        "ul_bytes": "net_up_5g_usage",
    }


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "cpu"}, "two metrics have the name cpu"),
        ({"columns": {"cpu_rx_rate": "value"}}, "two metrics have the column cpu_rx_rate"),
        ({"stored_field": "mem_usage"}, "two metrics have the stored field mem_usage"),
        ({"measurement": "rx_cpu_time"}, "two metrics have the series rx_cpu_time"),
        ({"kind": "free"}, "two metrics have the kind free"),
        ({"kind": "histogram"}, "disk: unknown kind 'histogram' or part tag None"),
        ({"part_tag": "mountpoint"}, "disk: unknown kind 'gauge' or part tag 'mountpoint'"),
    ],
)
def test_a_row_that_would_break_another_is_refused(change: dict[str, object], fault: str) -> None:
    disk = Metric(
        name="disk",
        exporter=NODE,
        kind=GAUGE,
        measurement="node_filesystem_free_bytes",
        columns={"disk": "value", "disk_rate": "change"},
        features=("disk_rate", "disk"),
        unit="B",
        stored="disk",
        stored_field="disk_usage",
    )
    assert len(MetricTable((*METRICS.values(), disk))) == 9
    with pytest.raises(ValueError, match=f"^{fault}$"):
        MetricTable((*METRICS.values(), replace(disk, **change)))
