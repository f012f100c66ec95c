"""What stands in `port_traffic` of a real InfluxDB: floods, wrong types, tags that nobody expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.files import UserError
from influx_utils import initializeConnection
from lab.influxd import Influxd
from ports.samples import DEFAULT_LIMITS, Limits, Port, get_port_samples, list_ports
from ports.sources import MAX_NAME_BYTES, describe_no_ports
from ports.sources import Database as Source
from tests.support.influx import Database, connect
from tests.support.port_series import DAY, START
from tests.support.prometheus_writer import write_samples

TAGS = {"device": "core", "port": "1", "direction": "in"}
# InfluxDB keeps a week in one shard, from Monday to Monday, and one type of `value` in each.
NEXT_WEEK = START + 7 * DAY


def store(
    database: Database, values: dict[int, str], extra: str = "", precision: str = "s", port: str = "1"
) -> None:
    """Field values by their times, of one series."""
    series = f"port_traffic,device=core,port={port},direction=in{extra}"
    lines = [f"{series} value={value} {time}" for time, value in values.items()]
    database.client.write_points(lines, protocol="line", time_precision=precision, batch_size=10_000)


def listed(database: Database, limits: Limits = DEFAULT_LIMITS) -> dict[str, Port]:
    """The ports of device core by their tag `port`."""
    ports = list_ports(database.own, START - DAY, START + 28 * DAY, limits)
    return {port.tags["port"]: port for port in ports}


# --- many samples --------------------------------------------------------------------------------


def test_a_port_sampled_each_minute_is_read_whole(database: Database) -> None:
    expected = {START + 60 * (minute + 1): float(minute) for minute in range(30 * 1440)}
    store(database, {time: str(value) for time, value in expected.items()})
    times, traffic = get_port_samples(database.own, TAGS, START, START + 30 * DAY)
    assert dict(zip(times.tolist(), traffic.tolist(), strict=True)) == expected
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 20_000])
def test_no_sample_is_lost_where_a_page_ends(database: Database, count: int) -> None:
    store(database, {START + second: f"{second}.5" for second in range(1, count + 1)})
    times, traffic = get_port_samples(database.own, TAGS, START, START + DAY)
    assert (times - START).tolist() == list(range(1, count + 1))
    assert (traffic - 0.5).tolist() == list(range(1, count + 1))


def test_of_a_flood_within_one_second_the_last_sample_counts(database: Database) -> None:
    flood = {(START + 300) * 10**9 + number: f"{number}.0" for number in range(20_000)}
    flood[(START + 600) * 10**9] = "7.0"
    store(database, flood, precision="n")
    times, traffic = get_port_samples(database.own, TAGS, START, START + DAY)
    assert (times.tolist(), traffic.tolist()) == ([START + 300, START + 600], [19_999.0, 7.0])


def test_more_samples_than_any_port_has_are_a_fault_of_that_port(database: Database) -> None:
    limits = Limits(port_samples=20_000)
    store(database, {START + second: "1.0" for second in range(1, 20_002)})
    assert len(get_port_samples(database.own, TAGS, START + 1, START + DAY, limits)[0]) == 20_000
    with pytest.raises(UserError) as caught:
        get_port_samples(database.own, TAGS, START, START + DAY, limits)
    assert str(caught.value) == (
        "has more than 20,000 samples since 2023-01-02T00:00:00Z; write one every five minutes, and delete"
        " the others"
    )


def test_a_server_that_gives_fewer_rows_than_asked_for_is_asked_for_the_others(tmp_path: Path) -> None:
    with Influxd(tmp_path, http_settings="max-row-limit = 700\n") as server, connect(server) as client:
        client.create_database("x")
        client.switch_database("x")
        database = Database(client, "x")
        store(database, {START + second: "1.0" for second in range(1, 2_001)})
        assert len(get_port_samples(database.own, TAGS, START, START + DAY)[0]) == 2_000
        lines = [f"port_traffic,device=core,port=p{n},direction=in value=1 {START + 300}" for n in range(800)]
        client.write_points(lines, protocol="line", time_precision="s")
        assert len(list_ports(database.own, START, START + DAY)) == 801


# --- types ---------------------------------------------------------------------------------------


def test_whole_numbers_beside_others_are_numbers(database: Database) -> None:
    store(database, {START + 300: "5i", START + 600: "6i"})
    store(database, {NEXT_WEEK + 300: "7.5"})
    times, traffic = get_port_samples(database.own, TAGS, START, START + 14 * DAY)
    assert traffic.tolist() == [5.0, 6.0, 7.5]
    assert times.tolist() == [START + 300, START + 600, NEXT_WEEK + 300]
    # Alone they are so, too.
    assert get_port_samples(database.own, TAGS, START, NEXT_WEEK)[1].tolist() == [5.0, 6.0]
    assert listed(database)["1"] == Port(TAGS, NEXT_WEEK + 300)


@pytest.mark.parametrize(("value", "words"), [('"x"', "text"), ("true", "a boolean")])
@pytest.mark.parametrize(
    "numbers", [(), (START + 300,), (NEXT_WEEK + 7 * DAY,)], ids=["alone", "after", "before"]
)
def test_what_is_no_number_is_a_fault_of_its_port_with_its_type(
    database: Database, value: str, words: str, numbers: tuple[int, ...]
) -> None:
    store(database, {time: "5.0" for time in numbers})
    store(database, {time: "5.0" for time in numbers}, port="2")
    store(database, {NEXT_WEEK + 300: value})
    fault = f"has {words} at 2023-01-09T00:05:00Z instead of a number of bytes; delete that sample"
    with pytest.raises(UserError) as caught:
        get_port_samples(database.own, TAGS, START, START + 28 * DAY)
    assert str(caught.value) == fault
    ports = listed(database)
    # Where numbers have come since it can still be judged; what is read decides.
    has_recovered = max(numbers, default=0) > NEXT_WEEK
    assert ports["1"].fault == (None if has_recovered else fault)
    assert ports["1"].newest == max((*numbers, NEXT_WEEK + 300))
    assert set(ports) == ({"1", "2"} if numbers else {"1"})
    # What is not read does no harm.
    before = get_port_samples(database.own, TAGS, START, START + DAY)[1]
    assert before.tolist() == [5.0] * (numbers == (START + 300,))


# --- tags ----------------------------------------------------------------------------------------


def test_two_series_that_go_on_side_by_side_are_no_port_and_both_are_named(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 40)]
    store(database, {time: "5.0" for time in times}, ",site=north")
    store(database, {time + 7: "900.0" for time in times}, ",site=south")
    store(database, {time: "5.0" for time in times}, port="2")
    ports = listed(database)
    assert ports["1"].fault == (
        "is written by 2 series at once (their 'site': 'north' and 'south'); write only one of them, or"
        " give each its own device or port"
    )
    assert ports["2"].fault is None


def test_a_label_that_is_added_is_the_same_port(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 40)]
    store(database, {time: "5.0" for time in times[:20]})
    store(database, {time: "6.0" for time in times[20:]}, ",site=north")
    assert listed(database)["1"] == Port(TAGS, times[-1])
    assert get_port_samples(database.own, TAGS, START, times[-1])[1].tolist() == [5.0] * 20 + [6.0] * 19


def test_series_that_ended_long_ago_are_no_fault(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 100)]
    store(database, {time: "5.0" for time in times})
    store(database, {time + 7: "6.0" for time in times[10:30]}, ",site=north")
    assert listed(database)["1"].fault is None


def test_what_a_second_series_wrote_while_it_lived_is_unknown(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 100)]
    store(database, {time: "5.0" for time in times})
    store(database, {time - 140: "6.0" for time in times[10:30:2]}, ",site=north,n=1")
    store(database, {times[40] + 140: "6.0"}, ",site=south")
    # In one cell, and of one series: the counter is read more often.
    store(database, {times[50] + 60: "5.0"})
    found, traffic = get_port_samples(database.own, TAGS, START, START + DAY)
    is_shared = np.isin(
        (found - 150) // 300, [(times[index] - 150) // 300 for index in (*range(10, 30, 2), 40)]
    )
    assert is_shared.sum() == 2 * 11
    assert np.isnan(traffic[is_shared]).all()
    assert traffic[~is_shared].tolist() == [5.0] * (100 - 11)
    assert set(times) <= set(found.tolist())


def test_two_series_with_a_sample_at_the_same_moment_are_seen_where_a_page_ends(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 9)]
    for site in ("north", "south"):
        store(database, {time: "5.0" for time in times}, f",site={site}")
    limits = Limits(page_samples=3)
    found, traffic = get_port_samples(database.own, TAGS, START, START + DAY, limits)
    assert found.tolist() == times
    assert np.isnan(traffic).all()


@pytest.mark.parametrize("begins", [0, 3 * 3600])
def test_a_series_that_ended_and_one_that_was_added_are_told_from_those_that_go_on(
    database: Database, begins: int
) -> None:
    times = [START + 300 * number for number in range(1, 200)]
    store(database, {time: "5.0" for time in times[:100]})
    store(database, {time: "5.0" for time in times[100:]}, ",site=a")
    # Beside the first one, and over long before the newest sample.
    store(database, {time + begins: "5.0" for time in times[:50]}, ",site=b")
    assert listed(database)["1"].fault is None
    store(database, {times[-3] + 7: "5.0", times[-1] + 7: "5.0"}, ",site=b")
    assert listed(database)["1"].fault.startswith(
        "is written by 2 series at once (their 'site': 'a' and 'b')"
    )


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "", "x" * 60_000, "ü" * (MAX_NAME_BYTES // 2)])
def test_a_tag_that_no_port_has_is_one_short_line_and_the_others_are_there(
    database: Database, name: str
) -> None:
    time = (START + 300) * 10**9
    points = [
        {"time": time, "value": 5.0, "device": device, "port": "1", "direction": "in"}
        for device in (name, "b")
    ]
    write_samples(database.client, {"port_traffic": points})
    source = Source(database.own, database.name, "found", START + DAY)
    assert source.names() == ["b_1_in"]
    line = describe_no_ports(source)
    assert line.startswith(
        "1 series are of no port and are not judged: port_traffic needs the tags device, port and direction"
    )
    assert len(line) < 300
    assert line.isprintable()


def test_neither_long_tags_nor_long_texts_hide_another_port(
    database: Database,
) -> None:
    long = "x" * 60_000
    store(database, {START + 300: "5.0", START + 600: "5.0"})
    store(database, {START + 300: "5.0", START + 600: "5.0"}, port="rivals")
    lines = [
        line
        for number in range(300)
        for line in (
            f"port_traffic,device={number}{long},port=1,direction=in value=1 {START + 300}",
            f"port_traffic,device=core,port=rivals,direction=in,x={number}{long} value=1 {START + 500}",
            f'port_traffic,device=core,port=t{number},direction=in value="{long}" {NEXT_WEEK + 300}',
            f'port_traffic,device=core,port=texts,direction=in value="{long}" {NEXT_WEEK + number}',
        )
    ]
    for first in range(0, len(lines), 100):
        database.client.write_points(lines[first : first + 100], protocol="line", time_precision="s")
    # What is large is slow to read; how slow is not asked here.
    client = initializeConnection("127.0.0.1", database.client._port, "", "", timeout_seconds=120)
    client.switch_database(database.name)
    source = Source(client, database.name, "found", START + 14 * DAY)
    assert len(source.names()) == 303
    assert source.load("core_1_in", START, START + 14 * DAY).traffic.tolist() == [5.0, 5.0]
    assert str(source.load("core_texts_in", START, START + 14 * DAY)).startswith(
        "core_texts_in: has text at "
    )
    assert str(source.refusal("core_rivals_in")).startswith(
        "core_rivals_in: is written by 301 series at once;"
    )
    times, traffic = get_port_samples(client, TAGS | {"port": "rivals"}, START, START + DAY)
    assert times.tolist() == [START + 300, START + 500, START + 600]
    assert np.isnan(traffic).tolist() == [False, True, True]
    line = describe_no_ports(source)
    assert line.startswith("300 series are of no port and are not judged")
    assert line.endswith("one with longer tags, one with longer tags, one with longer tags and 297 more")


def test_every_port_is_listed_where_a_page_ends(database: Database) -> None:
    lines = [f"port_traffic,device=core,port={n},direction=in value=1 {START + 300}" for n in range(20)]
    # Fields and tags that are called like those that are asked for.
    lines += [f"port_traffic,device=core,port=x,direction=in,n=1,last=2 value=1,device=4,port=5 {START}"]
    database.client.write_points(lines, protocol="line", time_precision="s")
    for rows in (1, 7, 20, 21, 22):
        assert set(listed(database, Limits(page_ports=rows))) == {*map(str, range(20)), "x"}


@pytest.mark.parametrize("name", ["quo'te", 'dq"q', "back\\slash", "\\n", "a,b=c d", "é😀", "x' OR '1'='1"])
def test_a_port_of_any_printable_name_is_read(database: Database, name: str) -> None:
    points = [
        {"time": (START + 300) * 10**9, "value": 5.0, "device": name, "port": name, "direction": "in"},
        {"time": (START + 300) * 10**9, "value": 6.0, "device": "b", "port": "1", "direction": "in"},
    ]
    write_samples(database.client, {"port_traffic": points})
    source = Source(database.own, database.name, "found", START + DAY)
    (found,) = (one for one in source.names() if one != "b_1_in")
    assert source.load(found, START, START + DAY).traffic.tolist() == [5.0]


def test_many_tags_that_no_port_has_are_one_line(database: Database) -> None:
    lines = [f"port_traffic,device=d{number},port=1,direction=up value=1 {START}" for number in range(1000)]
    lines.append(f"port_traffic,device=d,port=1,direction=in value=1 {START}")
    database.client.write_points(lines, protocol="line", time_precision="s")
    source = Source(database.own, database.name, "found", START + DAY)
    assert source.names() == ["d_1_in"]
    line = describe_no_ports(source)
    assert line.startswith("1000 series")
    assert line.endswith("and 997 more")
