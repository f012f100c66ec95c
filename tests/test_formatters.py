"""Raw series to columns: every expected value is worked out here, from the samples."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formatters
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
from nodes.node import Node, getColumnNames
from nodes.series import JsonArray, Point, Record, monitored_series, record_time

NAN = math.nan
NODE = Node(cpus=("0", "1"), interfaces=("eth0", "ppp0"), cell_id="2", total_memory_bytes=8000.0)
SLOT_NS = 15 * 10**9


def same(values: Any) -> Any:
    """Equal but for the last digits, NaN to NaN."""
    return pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True)


def same_pair(interfaces: list[float], sums: list[float]) -> tuple[Any, Any]:
    return same(interfaces), same(sums)


def point(seconds: float, value: float | None, **tags: str) -> Point:
    """A sample; times are in whole milliseconds, as Prometheus keeps them."""
    return {"time": round(seconds * 1000) * 1_000_000, "value": value, **tags}


def cpus(seconds: float, *values: float) -> JsonArray:
    return [point(seconds, value, cpu=str(i), mode="user") for i, value in enumerate(values)]


def devices(seconds: float, **values: float) -> JsonArray:
    return [point(seconds, value, device=name) for name, value in values.items()]


def full_record(
    node_seconds: float,
    ran_seconds: float,
    cpu: float = 0.0,
    received: float = 0.0,
    free: float = 2000.0,
    rx: float = 13.0,
    down: float = 800.0,
) -> Record:
    """A record of NODE with every series in it."""
    return {
        CPU_SECONDS: cpus(node_seconds, cpu, cpu),
        MEMORY_FREE: [point(node_seconds, free)],
        RECEIVED: devices(node_seconds, eth0=received, ppp0=received),
        TRANSMITTED: devices(node_seconds, eth0=2 * received, ppp0=0.0),
        RX_CPU: [point(ran_seconds, rx)],
        TX_CPU: [point(ran_seconds, 5.5)],
        DOWNLINK: [point(ran_seconds, down, cellId="2")],
        UPLINK: [point(ran_seconds, 80.0, cellId="2")],
    }


# --- CPU -----------------------------------------------------------------------------------------


def test_cpu_percentages_and_their_rates() -> None:
    first, cores, cpu = formatters.formatCpuSecondsTotal(cpus(0, 100.0, 50.0), None, NODE)
    assert cores == same([NAN] * 4)
    assert cpu == same([NAN, NAN])
    # CPU 0: 3 s of 15 s = 20 %; CPU 1: 1.5 s of 15 s = 10 %; no percentage before, so no rate.
    second, cores, cpu = formatters.formatCpuSecondsTotal(cpus(15, 103.0, 51.5), first, NODE)
    assert cores == same([20.0, NAN, 10.0, NAN])
    assert cpu == same([15.0, NAN])
    # 15.5 s later. CPU 0: 6.2 s of 15.5 s = 40 %, 20 points more; CPU 1: 1.55 s = 10 %, as before.
    _, cores, cpu = formatters.formatCpuSecondsTotal(cpus(30.5, 109.2, 53.05), second, NODE)
    assert cores == same([40.0, 20.0, 10.0, 0.0])
    assert cpu == same([25.0, 10.0])


def test_cpu_order_is_that_of_the_node_not_of_the_samples() -> None:
    first, _, _ = formatters.formatCpuSecondsTotal(cpus(0, 0.0, 0.0)[::-1], [], NODE)
    _, cores, _ = formatters.formatCpuSecondsTotal(cpus(10, 1.0, 2.0)[::-1], first, NODE)
    assert cores[::2] == same([10.0, 20.0])


def test_cpu_samples_are_handed_back_unchanged_and_not_altered_in_place() -> None:
    given_now, given_last = cpus(15, 3.0, 1.5), cpus(0, 0.0, 0.0)
    points, _, _ = formatters.formatCpuSecondsTotal(given_now, given_last, NODE)
    assert [{key: p[key] for key in ("time", "value", "cpu", "mode")} for p in points] == cpus(15, 3.0, 1.5)
    assert (given_now, given_last) == (cpus(15, 3.0, 1.5), cpus(0, 0.0, 0.0))


def test_cpu_counts_from_zero_after_a_reset() -> None:
    # 1.5 s since the restart, of the 15 s since the last sample: 10 %.
    _, cores, cpu = formatters.formatCpuSecondsTotal(cpus(15, 1.5, 1.5), cpus(0, 90000.0, 90000.0), NODE)
    assert cores[::2] == same([10.0, 10.0])
    assert cpu[0] == same(10.0)


def test_missing_cpu_makes_the_mean_unknown() -> None:
    first, _, _ = formatters.formatCpuSecondsTotal(cpus(0, 0.0, 0.0), None, NODE)
    second, cores, cpu = formatters.formatCpuSecondsTotal(cpus(15, 3.0), first, NODE)
    assert cores == same([20.0, NAN, NAN, NAN])
    assert cpu == same([NAN, NAN])
    # CPU 1 comes back: with no sample before it, it is unknown once more.
    _, cores, cpu = formatters.formatCpuSecondsTotal(cpus(30, 6.0, 3.0), second, NODE)
    assert cores == same([20.0, 0.0, NAN, NAN])
    assert cpu == same([NAN, NAN])


def all_modes(seconds: float, user: float, idle: float, order: int) -> JsonArray:
    points = [
        point(seconds, value, cpu=cpu, mode=mode)
        for cpu in "01"
        for mode, value in (("idle", idle), ("user", user), ("system", 7 * user))
    ]
    return points[::order]


@pytest.mark.parametrize("order", [1, -1])
def test_other_modes_than_user_are_ignored(order: int) -> None:
    first, _, _ = formatters.formatCpuSecondsTotal(all_modes(0, 10.0, 1000.0, order), None, NODE)
    assert [p["mode"] for p in first] == ["user", "user"]
    # 3 s of 15 s in user mode are 20 %, 4.5 s are 30 %.
    second, cores, cpu = formatters.formatCpuSecondsTotal(all_modes(15, 13.0, 1012.0, order), first, NODE)
    assert cores[::2] == same([20.0, 20.0])
    _, cores, cpu = formatters.formatCpuSecondsTotal(all_modes(30, 17.5, 1020.0, order), second, NODE)
    assert cores == same([30.0, 10.0, 30.0, 10.0])
    assert cpu == same([30.0, 10.0])


@pytest.mark.parametrize("order", [1, -1])
def test_other_modes_are_ignored_in_raw_samples_before_too(order: int) -> None:
    before, now = all_modes(0, 10.0, 1000.0, order), all_modes(15, 13.0, 1012.0, order)
    _, cores, cpu = formatters.formatCpuSecondsTotal(now, before, NODE)
    assert cores == same([20.0, NAN, 20.0, NAN])
    assert cpu == same([20.0, NAN])


def test_cpu_without_a_mode_label_is_user_mode() -> None:
    # A query that selects the mode and groups by CPU alone gives points without it.
    before, now = ([point(t, v, cpu=cpu) for cpu in "01"] for t, v in ((0, 0.0), (10, 0.5)))
    assert formatters.formatCpuSecondsTotal(now, before, NODE)[2][0] == same(5.0)


def test_a_new_label_does_not_hide_the_newest_sample() -> None:
    # Both series of CPU 0 are in the record: the one that has ended is older.
    now = [point(12, 4.0, cpu="0", zone="b"), point(5, 2.0, cpu="0"), point(12, 4.0, cpu="1")]
    before = [point(0, 1.0, cpu="0"), point(0, 1.0, cpu="1")]
    for array in (now, now[::-1]):
        # 3 s of 12 s
        assert formatters.formatCpuSecondsTotal(array, before, NODE)[1][::2] == same([25.0, 25.0])


# --- memory --------------------------------------------------------------------------------------


def test_memory_used_its_percentage_and_rate() -> None:
    before, now = [point(0, 2000.0)], [point(15, 1700.0)]
    # 8000 - 2000 = 6000 bytes, 75 %; then 6300 bytes, 78.75 %, 300 / 6000 = 5 % more.
    assert formatters.formatMemoryFreeBytes(before, None, 8000.0) == same((6000.0, 75.0, NAN))
    assert formatters.formatMemoryFreeBytes(now, before, 8000.0) == same((6300.0, 78.75, 5.0))
    # And back: 300 of 6300 bytes are 4.7619 %.
    back = formatters.formatMemoryFreeBytes([point(30, 2000.0)], now, 8000.0)
    assert back == same((6000.0, 75.0, -100.0 / 21))


def test_memory_total_is_the_documented_one_unless_told() -> None:
    used, percentage, _ = formatters.formatMemoryFreeBytes([point(0, 8228077568.0 / 4)], [])
    assert (used, percentage) == (6171058176.0, 75.0)


def test_missing_memory_is_unknown() -> None:
    assert formatters.formatMemoryFreeBytes([], [point(0, 2000.0)], 8000.0) == same((NAN, NAN, NAN))


def test_memory_that_was_all_free_has_no_rate() -> None:
    now = formatters.formatMemoryFreeBytes([point(15, 7000.0)], [point(0, 8000.0)], 8000.0)
    assert now == same((1000.0, 12.5, NAN))


# --- network -------------------------------------------------------------------------------------


def test_network_bytes_and_rates_of_each_interface_and_their_sums() -> None:
    before = devices(0, eth0=1000.0, ppp0=500.0)
    assert formatters.formatNetworkBytes(before, None, NODE) == same_pair([NAN] * 4, [NAN, NAN])
    # 15 s: 3000 bytes = 200 a second, 600 bytes = 40 a second.
    second = devices(15, ppp0=1100.0, eth0=4000.0)
    interfaces = [3000.0, 200.0, 600.0, 40.0]
    assert formatters.formatNetworkBytes(second, before, NODE) == same_pair(interfaces, [3600.0, 240.0])


def test_each_rate_uses_the_times_of_its_own_samples() -> None:
    before = [point(0.0, 0.0, device="eth0"), point(0.5, 0.0, device="ppp0")]
    now = [point(15.2, 1520.0, device="eth0"), point(15.0, 1450.0, device="ppp0")]
    # 1520 bytes in 15.2 s, 1450 bytes in 14.5 s: 100 a second each.
    assert formatters.formatNetworkBytes(now, before, NODE) == same_pair(
        [1520.0, 100.0, 1450.0, 100.0], [2970.0, 200.0]
    )


def test_network_counts_from_zero_after_a_reset() -> None:
    before, now = devices(0, eth0=1e9, ppp0=100.0), devices(15, eth0=300.0, ppp0=130.0)
    # eth0: 300 bytes since its reset; ppp0 was not reset: 30 bytes.
    assert formatters.formatNetworkBytes(now, before, NODE) == same_pair(
        [300.0, 20.0, 30.0, 2.0], [330.0, 22.0]
    )


@pytest.mark.parametrize("missing_in", ["now", "before"])
def test_missing_interface_makes_the_sums_unknown(missing_in: str) -> None:
    before, now = devices(0, eth0=0.0, ppp0=0.0), devices(15, eth0=150.0, ppp0=15.0)
    (now if missing_in == "now" else before).pop()
    assert formatters.formatNetworkBytes(now, before, NODE) == same_pair([150.0, 10.0, NAN, NAN], [NAN, NAN])


def test_interfaces_of_no_interest_are_ignored() -> None:
    before = devices(0, lo=0.0, eth0=0.0, ppp0=0.0)
    now = devices(15, lo=1e9, eth0=150.0, ppp0=0.0)
    assert formatters.formatNetworkBytes(now, before, NODE) == same_pair(
        [150.0, 10.0, 0.0, 0.0], [150.0, 10.0]
    )


# --- 5G ------------------------------------------------------------------------------------------


def test_5g_cpu_percentage_and_its_rate() -> None:
    before, now = [point(0, 13.5)], [point(15, 14.25)]
    assert formatters.format5gCpuPercentage(before, None) == same((13.5, NAN))
    assert formatters.format5gCpuPercentage(now, before) == same((14.25, 0.75))
    assert formatters.format5gCpuPercentage([], before) == same((NAN, NAN))
    assert formatters.format5gCpuPercentage(now, []) == same((14.25, NAN))


@pytest.mark.parametrize(
    ("seconds", "bits_per_second", "expected"),
    [
        (15.0, 8000.0, (15000.0, 1000.0)),  # 8000 / 8 = 1000 bytes a second, for 15 s
        (15.2, 8000.0, (15200.0, 1000.0)),
        (30.0, 20.0, (75.0, 2.5)),
        (15.0, 0.0, (0.0, 0.0)),
    ],
)
def test_5g_bytes_are_bits_by_eight_times_seconds(
    seconds: float, bits_per_second: float, expected: tuple[float, float]
) -> None:
    before = [point(0, 1e6, cellId="2")]
    now = [point(seconds, 9e9, cellId="1"), point(seconds, bits_per_second, cellId="2")]
    assert formatters.format5gNetworkBytes(now, before, NODE) == same(expected)


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ([point(15, 8000.0, cellId="2")], None),
        ([point(15, 8000.0, cellId="2")], [point(0, 8000.0, cellId="1")]),
        ([], [point(0, 8000.0, cellId="2")]),
        ([point(15, 8000.0, cellId="1")], [point(0, 8000.0, cellId="2")]),
    ],
)
def test_5g_bytes_without_this_cell_now_and_before_are_unknown(
    now: JsonArray, before: JsonArray | None
) -> None:
    assert formatters.format5gNetworkBytes(now, before, NODE) == same((NAN, NAN))


# --- stale samples -------------------------------------------------------------------------------


def test_repeated_stale_cpu_sample_is_unknown() -> None:
    first = formatters.formatCpuSecondsTotal(cpus(0, 1.0, 1.0), None, NODE)[0]
    second = formatters.formatCpuSecondsTotal(cpus(15, 2.0, 2.0), first, NODE)[0]
    _, cores, cpu = formatters.formatCpuSecondsTotal(cpus(15, 2.0, 2.0), second, NODE)
    assert cores == same([NAN] * 4)
    assert cpu == same([NAN, NAN])


def test_repeated_stale_counters_are_unknown() -> None:
    counters = devices(15, eth0=100.0, ppp0=100.0)
    assert formatters.formatNetworkBytes(counters, counters, NODE) == same_pair([NAN] * 4, [NAN, NAN])


def test_repeated_stale_bit_rate_is_unknown() -> None:
    bit_rate = [point(15, 8000.0, cellId="2")]
    assert formatters.format5gNetworkBytes(bit_rate, bit_rate, NODE) == same((NAN, NAN))


def test_more_free_memory_than_there_is_means_a_wrong_total() -> None:
    assert formatters.formatMemoryFreeBytes([point(15, 9000.0)], [point(0, 100.0)], 8000.0) == same(
        (NAN, NAN, NAN)
    )


def test_repeated_stale_memory_has_no_rate() -> None:
    free = [point(15, 2000.0)]
    assert math.isnan(formatters.formatMemoryFreeBytes(free, free, 8000.0)[2])


def test_repeated_stale_5g_cpu_has_no_rate() -> None:
    percentage = [point(15, 13.5)]
    assert math.isnan(formatters.format5gCpuPercentage(percentage, percentage)[1])


def test_older_sample_than_the_last_is_unknown() -> None:
    before, now = devices(30, eth0=100.0, ppp0=100.0), devices(15, eth0=700.0, ppp0=700.0)
    assert formatters.formatNetworkBytes(now, before, NODE) == same_pair([NAN] * 4, [NAN, NAN])


# --- records -------------------------------------------------------------------------------------


def test_first_record_has_levels_and_no_rates() -> None:
    row, _ = formatters.format_record(full_record(10, 14), {}, NODE)
    known = {column: value for column, value in row.items() if not math.isnan(value)}
    assert known == same(
        {"mem": 6000.0, "mem_percentage": 75.0, "cpu_rx_percentage": 13.0, "cpu_tx_percentage": 5.5}
    )
    assert list(row) == list(getColumnNames(NODE))


def test_third_record_has_all_columns() -> None:
    records = [
        full_record(10, 14, cpu=100.0, received=0.0),
        full_record(25, 29, cpu=103.0, received=3000.0),
        full_record(40, 44, cpu=109.0, received=3150.0, free=1700.0, rx=14.5, down=1600.0),
    ]
    last: Record = {}
    for record in records:
        row, last = formatters.format_record(record, last, NODE)
    assert row == same(
        {
            "cpu_user_0_percentage": 40.0,  # 6 s of 15 s
            "cpu_user_0_rate": 20.0,  # 3 s of 15 s were 20 %
            "cpu_user_1_percentage": 40.0,
            "cpu_user_1_rate": 20.0,
            "cpu_user_percentage": 40.0,
            "cpu_user_rate": 20.0,
            "eth0_bytes_received": 150.0,
            "eth0_received_rate": 10.0,
            "ppp0_bytes_received": 150.0,
            "ppp0_received_rate": 10.0,
            "bytes_received": 300.0,
            "bytes_received_rate": 20.0,
            "eth0_bytes_transmitted": 300.0,
            "eth0_transmitted_rate": 20.0,
            "ppp0_bytes_transmitted": 0.0,
            "ppp0_transmitted_rate": 0.0,
            "bytes_transmitted": 300.0,
            "bytes_transmitted_rate": 20.0,
            "mem": 6300.0,
            "mem_percentage": 78.75,
            "mem_rate": 5.0,  # 300 of 6000 bytes
            "cpu_rx_percentage": 14.5,
            "cpu_rx_rate": 1.5,
            "cpu_tx_percentage": 5.5,
            "cpu_tx_rate": 0.0,
            "dl_bytes": 3000.0,  # 1600 / 8 = 200 a second, 15 s
            "dl_bytes_rate": 200.0,
            "ul_bytes": 150.0,  # 80 / 8 = 10 a second
            "ul_bytes_rate": 10.0,
        }
    )


def test_missed_scrape_of_the_node_is_unknown_and_then_bridged() -> None:
    first = full_record(10, 14, cpu=100.0, received=1000.0)
    second = full_record(25, 29, cpu=103.0, received=1300.0)
    ran_only = {name: second[name] for name in (RX_CPU, TX_CPU, DOWNLINK, UPLINK)}
    third = full_record(40, 44, cpu=112.0, received=1900.0, free=1400.0)
    _, last = formatters.format_record(first, {}, NODE)
    row, last = formatters.format_record(ran_only, last, NODE)
    unknown = (
        "cpu_user_percentage",
        "cpu_user_rate",
        "bytes_received",
        "bytes_received_rate",
        "mem",
        "mem_rate",
    )
    assert [row[column] for column in unknown] == same([NAN] * 6)
    assert (row["cpu_rx_rate"], row["dl_bytes"]) == same((0.0, 1500.0))  # 800 / 8 x 15 s
    row, last = formatters.format_record(third, last, NODE)
    # Over 30 s: 12 s of CPU = 40 %, 900 bytes on each of two interfaces = 60 a second; memory 6000 -> 6600.
    assert row["cpu_user_percentage"] == same(40.0)
    assert math.isnan(row["cpu_user_rate"])
    assert (row["bytes_received"], row["bytes_received_rate"]) == same((1800.0, 60.0))
    assert (row["mem"], row["mem_rate"]) == same((6600.0, 10.0))
    assert row["dl_bytes"] == same(1500.0)


def test_cpu_rate_after_a_missed_scrape_is_the_change_since_the_last_percentage() -> None:
    last: Record = {}
    for record in (
        {CPU_SECONDS: cpus(0, 0.0, 0.0)},
        {CPU_SECONDS: cpus(15, 3.0, 3.0)},
        {RX_CPU: [point(44, 13.0)]},
    ):
        _, last = formatters.format_record(record, last, NODE)
    row, _ = formatters.format_record({CPU_SECONDS: cpus(45, 15.0, 15.0)}, last, NODE)
    # 3 s of 15 s were 20 %; 12 s of 30 s are 40 %.
    assert (row["cpu_user_percentage"], row["cpu_user_rate"]) == same((40.0, 20.0))


def test_single_series_that_is_missing_once_is_bridged() -> None:
    records = [
        {CPU_SECONDS: cpus(0, 0.0, 0.0), RECEIVED: devices(0, eth0=0.0, ppp0=0.0)},
        {CPU_SECONDS: cpus(15, 3.0), RECEIVED: devices(15, eth0=150.0)},
        {CPU_SECONDS: cpus(30, 6.0, 12.0), RECEIVED: devices(30, eth0=450.0, ppp0=600.0)},
    ]
    rows, last = [], {}
    for record in records:
        row, last = formatters.format_record(record, last, NODE)
        rows.append(row)
    sums = ("cpu_user_percentage", "bytes_received", "bytes_received_rate")
    assert [rows[1][column] for column in sums] == same([NAN] * 3)
    # eth0: 300 bytes in 15 s; ppp0: 600 bytes in 30 s; CPU 0: 3 s of 15 s, CPU 1: 12 s of 30 s.
    assert [rows[2][column] for column in sums] == same([30.0, 900.0, 40.0])


def test_what_is_handed_on_does_not_grow() -> None:
    last: Record = {}
    for slot in range(20):
        _, last = formatters.format_record(full_record(slot * 15, slot * 15 + 4, cpu=slot**2), last, NODE)
    expected = {name: len(points) for name, points in full_record(0, 4).items()}
    assert {name: len(points) for name, points in last.items() if points} == expected


def test_a_record_given_stays_as_it_was() -> None:
    first, second = full_record(10, 14), full_record(25, 29)
    _, last = formatters.format_record(first, {}, NODE)
    before = {name: list(points) for name, points in last.items()}
    formatters.format_record(second, last, NODE)
    assert (first, second) == (full_record(10, 14), full_record(25, 29))
    assert last == before


def test_memory_total_of_the_series_counts_where_there_is_one() -> None:
    with_total = full_record(10, 14) | {MEMORY_TOTAL: [point(10, 10000.0)]}
    row, last = formatters.format_record(with_total, {}, NODE)
    assert (row["mem"], row["mem_percentage"]) == same((8000.0, 80.0))  # 10000 - 2000
    # Once reported, it holds for a record that lacks it.
    row, _ = formatters.format_record(full_record(25, 29, free=1000.0), last, NODE)
    assert (row["mem"], row["mem_percentage"], row["mem_rate"]) == same((9000.0, 90.0, 12.5))


def test_rows_carry_the_time_of_their_newest_sample() -> None:
    samples: Record = {
        MEMORY_FREE: [point(10, 2000.0), point(25, 1700.0), point(70, 2000.0)],
        RX_CPU: [point(14.25, 13.0), point(24, 14.0)],
    }
    rows = list(formatters.format_records(formatters.slot_records(samples, 15.0), NODE))
    assert [row["time"] for row in rows] == [14_250_000_000, 25_000_000_000, 70_000_000_000]
    assert [row["mem"] for row in rows] == same([6000.0, 6300.0, 6000.0])
    assert [row["cpu_rx_percentage"] for row in rows] == same([13.0, 14.0, NAN])
    assert [row["cpu_rx_rate"] for row in rows] == same([NAN, 1.0, NAN])
    assert list(rows[0]) == ["time", *getColumnNames(NODE)]


def test_record_time_is_that_of_the_newest_sample_of_any_series() -> None:
    record = {RECEIVED: devices(10, eth0=1.0) + devices(14.5, ppp0=1.0), RX_CPU: [point(12, 1.0)]}
    assert record_time(record) == 14_500_000_000


# --- slots ---------------------------------------------------------------------------------------


def test_slots_begin_at_whole_multiples_of_the_interval() -> None:
    seconds = [0, 14.999, 15, 29.999, 45]
    slots = formatters.slot_records({RX_CPU: [point(s, s) for s in seconds]}, 15.0)
    assert slots == [
        (0, {RX_CPU: [point(14.999, 14.999)]}),
        (15 * 10**9, {RX_CPU: [point(29.999, 29.999)]}),
        (45 * 10**9, {RX_CPU: [point(45, 45)]}),
    ]


def test_interval_sets_the_slots() -> None:
    samples = {RX_CPU: [point(s, s) for s in (4, 9, 11, 19)]}
    assert [start for start, _ in formatters.slot_records(samples, 10.0)] == [0, 10 * 10**9]
    assert [start for start, _ in formatters.slot_records(samples, 2.5)] == [
        2_500_000_000,
        7_500_000_000,
        10_000_000_000,
        17_500_000_000,
    ]


def test_newest_sample_of_each_series_counts_and_duplicates_once() -> None:
    eth0, ppp0 = (
        [point(s, v, device=name) for s, v in ((1, 1.0), (11, 3.0), (11, 3.0), (6, 2.0))]
        for name in ("eth0", "ppp0")
    )
    ((start, record),) = formatters.slot_records({RECEIVED: eth0 + ppp0}, 15.0)
    assert start == 0
    assert sorted(record[RECEIVED], key=lambda p: p["device"]) == devices(11, eth0=3.0, ppp0=3.0)


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, None])
def test_samples_that_are_not_finite_are_dropped(value: float | None) -> None:
    samples = {RX_CPU: [point(5, 13.0), point(10, value)], TX_CPU: [point(5, value)], DOWNLINK: []}
    assert formatters.slot_records(samples, 15.0) == [(0, {RX_CPU: [point(5, 13.0)]})]
    assert formatters.slot_records({RX_CPU: [point(5, value)]}, 15.0) == []


def test_no_samples_no_slots() -> None:
    assert formatters.slot_records({}, 15.0) == []
    assert list(formatters.format_records([], NODE)) == []


SCATTERED = [
    (name, p)
    for seconds in (3, 10, 25, 55)
    for name, points in full_record(
        seconds, seconds + 4, cpu=seconds / 10, received=seconds * 100.0, rx=13 + seconds / 10
    ).items()
    for p in points
]


@settings(deadline=None, max_examples=50)
@given(st.permutations(SCATTERED + SCATTERED[:5]))
def test_order_of_the_samples_does_not_matter(samples: list[tuple[str, Point]]) -> None:
    def rows(ordered: list[tuple[str, Point]]) -> list[dict[str, float]]:
        record: Record = {}
        for name, sample in ordered:
            record.setdefault(name, []).append(sample)
        return list(formatters.format_records(formatters.slot_records(record, 15.0), NODE))

    expected = rows(SCATTERED)
    assert len(expected) == 3
    for row, wanted in zip(rows(samples), expected, strict=True):
        assert row == same(wanted)


# --- series --------------------------------------------------------------------------------------


def test_the_series_of_a_node_are_named_once_those_of_parts_first() -> None:
    assert list(monitored_series(NODE)) == [
        "node_cpu_seconds_total{cpu=0}",
        "node_cpu_seconds_total{cpu=1}",
        "node_network_receive_bytes_total{device=eth0}",
        "node_network_receive_bytes_total{device=ppp0}",
        "node_network_transmit_bytes_total{device=eth0}",
        "node_network_transmit_bytes_total{device=ppp0}",
        "dl_bitrate{cellId=2}",
        "ul_bitrate{cellId=2}",
        "node_memory_MemFree_bytes",
        "node_memory_MemTotal_bytes",
        "rx_cpu_time",
        "tx_cpu_time",
    ]


@pytest.mark.parametrize(
    ("measurement", "place", "unknown"),
    [
        (CPU_SECONDS, 0, "cpu_user_0_percentage cpu_user_0_rate cpu_user_percentage cpu_user_rate"),
        (CPU_SECONDS, 1, "cpu_user_1_percentage cpu_user_1_rate cpu_user_percentage cpu_user_rate"),
        (RECEIVED, 1, "ppp0_bytes_received ppp0_received_rate bytes_received bytes_received_rate"),
        (
            TRANSMITTED,
            0,
            "eth0_bytes_transmitted eth0_transmitted_rate bytes_transmitted bytes_transmitted_rate",
        ),
        (MEMORY_FREE, 0, "mem mem_percentage mem_rate"),
        (RX_CPU, 0, "cpu_rx_percentage cpu_rx_rate"),
        (TX_CPU, 0, "cpu_tx_percentage cpu_tx_rate"),
        (DOWNLINK, 0, "dl_bytes dl_bytes_rate"),
        (UPLINK, 0, "ul_bytes ul_bytes_rate"),
    ],
)
def test_a_missing_series_makes_its_columns_unknown_and_no_others(
    measurement: str, place: int, unknown: str
) -> None:
    last_record: Record = {}
    for seconds in (10, 25):
        _, last_record = formatters.format_record(full_record(seconds, seconds + 4), last_record, NODE)
    record = full_record(40, 44)
    assert not any(map(math.isnan, formatters.format_record(record, last_record, NODE)[0].values()))
    del record[measurement][place]
    columns, _ = formatters.format_record(record, last_record, NODE)
    assert {name for name, value in columns.items() if math.isnan(value)} == set(unknown.split())


def test_another_cell_does_not_stand_in_for_the_monitored_one() -> None:
    _, last_record = formatters.format_record(full_record(10, 14), {}, NODE)
    record = full_record(25, 29) | {DOWNLINK: [point(29, 1.0, cellId="1")]}
    columns, _ = formatters.format_record(record, last_record, NODE)
    assert math.isnan(columns["dl_bytes"])
    assert columns["ul_bytes"] > 0


# --- against pandas ------------------------------------------------------------------------------


def random_samples(seed: int) -> Record:
    """40 slots of every series: jittered times, resets, lost scrapes and single lost samples."""
    rng = random.Random(seed)
    node_lost = {rng.randrange(40) for _ in range(4)}
    ran_lost = {rng.randrange(40) for _ in range(4)}
    samples: Record = {}

    def series(measurement: str, counter: bool, high: float, lost: set[int], **tags: str) -> None:
        level = rng.uniform(0, high)
        for slot in range(40):
            level = level + rng.uniform(0, high) if counter and rng.random() > 0.07 else rng.uniform(0, high)
            seconds = slot * 15 + rng.uniform(0, 14.9)
            if slot not in lost and rng.random() > 0.05:
                samples.setdefault(measurement, []).append(point(seconds, level, **tags))

    for cpu in NODE.cpus:
        series(CPU_SECONDS, True, 15.0, node_lost, cpu=cpu, mode="user")
    for measurement in (RECEIVED, TRANSMITTED):
        for device in NODE.interfaces:
            series(measurement, True, 1e5, node_lost, device=device)
    series(MEMORY_FREE, False, 8000.0, node_lost)
    series(RX_CPU, False, 100.0, ran_lost)
    series(TX_CPU, False, 100.0, ran_lost)
    series(DOWNLINK, False, 1e6, ran_lost, cellId="2")
    series(UPLINK, False, 1e6, ran_lost, cellId="2")
    for points in samples.values():
        rng.shuffle(points)
    return samples


class Twin:
    """The columns of one series, by pandas: shifted over the slots in which it has samples."""

    def __init__(self, points: JsonArray, **tags: str) -> None:
        frame = pd.DataFrame(points).sort_values("time")
        frame["slot"] = frame["time"] // SLOT_NS
        for tag, name in tags.items():
            frame = frame[frame[tag] == name]
        newest = frame.groupby("slot").last()
        self.value = newest["value"]
        self.seconds = newest["time"].diff() / 1e9
        self.increase = self.value.diff().where(self.value.diff() >= 0, self.value)
        self.increase = self.increase.where(self.seconds.notna())


def twin_columns(samples: Record) -> pd.DataFrame:
    columns = {}
    for cpu in NODE.cpus:
        series = Twin(samples[CPU_SECONDS], cpu=cpu)
        columns[f"cpu_user_{cpu}_percentage"] = 100 * series.increase / series.seconds
        columns[f"cpu_user_{cpu}_rate"] = columns[f"cpu_user_{cpu}_percentage"].diff()
    for kind in ("percentage", "rate"):
        columns[f"cpu_user_{kind}"] = (columns[f"cpu_user_0_{kind}"] + columns[f"cpu_user_1_{kind}"]) / 2
    for measurement, direction in ((RECEIVED, "received"), (TRANSMITTED, "transmitted")):
        for device in NODE.interfaces:
            series = Twin(samples[measurement], device=device)
            columns[f"{device}_bytes_{direction}"] = series.increase
            columns[f"{device}_{direction}_rate"] = series.increase / series.seconds
        columns[f"bytes_{direction}"] = (
            columns[f"eth0_bytes_{direction}"] + columns[f"ppp0_bytes_{direction}"]
        )
        columns[f"bytes_{direction}_rate"] = (
            columns[f"eth0_{direction}_rate"] + columns[f"ppp0_{direction}_rate"]
        )
    columns["mem"] = 8000 - Twin(samples[MEMORY_FREE]).value
    columns["mem_percentage"] = columns["mem"] / 80
    columns["mem_rate"] = 100 * columns["mem"].diff() / columns["mem"].shift()
    for measurement, name in ((RX_CPU, "cpu_rx"), (TX_CPU, "cpu_tx")):
        columns[f"{name}_percentage"] = Twin(samples[measurement]).value
        columns[f"{name}_rate"] = columns[f"{name}_percentage"].diff()
    for measurement, name in ((DOWNLINK, "dl"), (UPLINK, "ul")):
        series = Twin(samples[measurement], cellId="2")
        columns[f"{name}_bytes"] = series.value / 8 * series.seconds
        columns[f"{name}_bytes_rate"] = (series.value / 8).where(series.seconds.notna())
    return pd.DataFrame(columns).sort_index()


@pytest.mark.parametrize("seed", range(5))
def test_columns_of_random_series_are_those_that_pandas_finds(seed: int) -> None:
    samples = random_samples(seed)
    rows = list(formatters.format_records(formatters.slot_records(samples, 15.0), NODE))
    found = pd.DataFrame(rows).drop(columns="time")
    expected = twin_columns(samples)[list(getColumnNames(NODE))]
    assert len(found) == len(expected) >= 35
    assert expected.isna().any().all()
    assert expected.notna().sum().min() > 10
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-9, equal_nan=True)


# --- whatever a counter does ---------------------------------------------------------------------

# Milliseconds since the sample before (0: it is repeated), value of the counter.
COUNTER = st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 2**53)), min_size=2, max_size=12)


@settings(deadline=None, max_examples=200)
@given(COUNTER)
def test_bytes_are_never_negative_and_never_more_than_the_counter_itself(
    steps: list[tuple[int, int]],
) -> None:
    node = Node(interfaces=("eth0",))
    last: JsonArray | None = None
    milliseconds, last_value = 0, 0
    for elapsed, value in steps:
        milliseconds += elapsed
        now = devices(milliseconds / 1000, eth0=float(value))
        (grown, rate), sums = formatters.formatNetworkBytes(now, last, node)
        assert sums == same([grown, rate])
        if last is None or elapsed == 0:
            assert (grown, rate) == same((NAN, NAN))
        else:
            assert 0 <= grown <= value
            assert 0 <= rate <= value / (elapsed / 1000) * (1 + 1e-12)
            assert rate == same(grown / (elapsed / 1000))
            # What a reset hides cannot be known; without one the growth is exact.
            assert grown == (value if value < last_value else value - last_value)
        last, last_value = now, value


@settings(deadline=None, max_examples=200)
@given(COUNTER)
def test_cpu_percentage_is_never_negative_and_its_rate_never_larger_than_its_levels(
    steps: list[tuple[int, int]],
) -> None:
    node = Node(cpus=("0",))
    last: JsonArray | None = None
    seconds, last_percentage = 0.0, NAN
    for elapsed, value in steps:
        seconds += elapsed / 1000
        last, (percentage, rate), mean = formatters.formatCpuSecondsTotal(
            cpus(seconds, float(value)), last, node
        )
        assert mean == same([percentage, rate])
        assert math.isnan(percentage) or 0 <= percentage <= 100 * value / (elapsed / 1000) * (1 + 1e-12)
        assert rate == same(percentage - last_percentage)
        last_percentage = percentage
