"""What stands in `port_traffic` of a real InfluxDB: floods, wrong types, tags that nobody expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Database, connect
from port_series import DAY, START
from prometheus_writer import write_samples

import influx_utils
import lab.influxd
from influx_utils import get_port_samples, list_ports
from lab.influxd import Influxd
from ports.sources import MAX_NAME_BYTES, note_no_ports
from ports.sources import Database as Source
from utils import UserError

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


def listed(database: Database) -> dict[str, influx_utils.Port]:
    """The ports of device core by their tag `port`."""
    ports = list_ports(database.client, START - DAY, START + 28 * DAY)
    return {port.tags["port"]: port for port in ports}


# --- many samples --------------------------------------------------------------------------------


def test_a_port_sampled_each_minute_is_read_whole(database: Database) -> None:
    expected = {START + 60 * (minute + 1): float(minute) for minute in range(30 * 1440)}
    store(database, {time: str(value) for time, value in expected.items()})
    times, traffic = get_port_samples(database.client, TAGS, START, START + 30 * DAY)
    assert dict(zip(times.tolist(), traffic.tolist(), strict=True)) == expected
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 20_000])
def test_no_sample_is_lost_where_a_page_ends(database: Database, count: int) -> None:
    store(database, {START + second: f"{second}.5" for second in range(1, count + 1)})
    times, traffic = get_port_samples(database.client, TAGS, START, START + DAY)
    assert (times - START).tolist() == list(range(1, count + 1))
    assert (traffic - 0.5).tolist() == list(range(1, count + 1))


def test_of_a_flood_within_one_second_the_last_sample_counts(database: Database) -> None:
    flood = {(START + 300) * 10**9 + number: f"{number}.0" for number in range(20_000)}
    flood[(START + 600) * 10**9] = "7.0"
    store(database, flood, precision="n")
    times, traffic = get_port_samples(database.client, TAGS, START, START + DAY)
    assert (times.tolist(), traffic.tolist()) == ([START + 300, START + 600], [19_999.0, 7.0])


def test_more_samples_than_any_port_has_are_a_fault_of_that_port(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx_utils, "MAX_PORT_SAMPLES", 20_000)
    store(database, {START + second: "1.0" for second in range(1, 20_002)})
    assert len(get_port_samples(database.client, TAGS, START + 1, START + DAY)[0]) == 20_000
    with pytest.raises(UserError) as caught:
        get_port_samples(database.client, TAGS, START, START + DAY)
    assert str(caught.value) == (
        "has more than 20,000 samples since 2023-01-02T00:00:00Z; write one every five minutes, and delete"
        " those between"
    )


def test_a_server_that_gives_fewer_rows_than_asked_for_is_asked_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.influxd, "CONFIG", lab.influxd.CONFIG + "max-row-limit = 700\n")
    with Influxd(tmp_path) as server, connect(server) as client:
        client.create_database("x")
        client.switch_database("x")
        database = Database(client, "x")
        store(database, {START + second: "1.0" for second in range(1, 2_001)})
        assert len(get_port_samples(client, TAGS, START, START + DAY)[0]) == 2_000
        # A list of ports that is cut short must not pass for all of them.
        lines = [f"port_traffic,device=core,port=p{n},direction=in value=1 {START + 300}" for n in range(800)]
        client.write_points(lines, protocol="line", time_precision="s")
        with pytest.raises(influx_utils.INFLUX_ERRORS, match="raise max-row-limit"):
            list_ports(client, START, START + DAY)


# --- types ---------------------------------------------------------------------------------------


def test_whole_numbers_beside_others_are_numbers(database: Database) -> None:
    store(database, {START + 300: "5i", START + 600: "6i"})
    store(database, {NEXT_WEEK + 300: "7.5"})
    times, traffic = get_port_samples(database.client, TAGS, START, START + 14 * DAY)
    assert traffic.tolist() == [5.0, 6.0, 7.5]
    assert times.tolist() == [START + 300, START + 600, NEXT_WEEK + 300]
    # Alone they are so, too.
    assert get_port_samples(database.client, TAGS, START, NEXT_WEEK)[1].tolist() == [5.0, 6.0]
    assert listed(database)["1"] == influx_utils.Port(TAGS, NEXT_WEEK + 300)


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
    fault = f"has {words} at 2023-01-09T00:05:00Z, where bytes are a number; delete that sample"
    with pytest.raises(UserError) as caught:
        get_port_samples(database.client, TAGS, START, START + 28 * DAY)
    assert str(caught.value) == fault
    ports = listed(database)
    # Where numbers have come since it can still be judged; what is read decides.
    has_recovered = max(numbers, default=0) > NEXT_WEEK
    assert ports["1"].fault == (None if has_recovered else fault)
    assert ports["1"].newest == max((*numbers, NEXT_WEEK + 300))
    assert set(ports) == ({"1", "2"} if numbers else {"1"})
    # What is not read does no harm.
    before = get_port_samples(database.client, TAGS, START, START + DAY)[1]
    assert before.tolist() == [5.0] * (numbers == (START + 300,))


# --- tags ----------------------------------------------------------------------------------------


def test_two_series_that_go_on_side_by_side_are_no_port_and_both_are_named(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 40)]
    store(database, {time: "5.0" for time in times}, ",site=north")
    store(database, {time + 7: "900.0" for time in times}, ",site=south")
    store(database, {time: "5.0" for time in times}, port="2")
    ports = listed(database)
    assert ports["1"].fault == (
        "is written by 2 series at once (their 'site': 'north' and 'south'); write one of them, or give each"
        " its own device or port"
    )
    assert ports["2"].fault is None


def test_a_label_that_is_added_is_the_same_port(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 40)]
    store(database, {time: "5.0" for time in times[:20]})
    store(database, {time: "6.0" for time in times[20:]}, ",site=north")
    assert listed(database)["1"] == influx_utils.Port(TAGS, times[-1])
    assert get_port_samples(database.client, TAGS, START, times[-1])[1].tolist() == [5.0] * 20 + [6.0] * 19


def test_series_that_ended_long_ago_are_no_fault(database: Database) -> None:
    times = [START + 300 * number for number in range(1, 100)]
    store(database, {time: "5.0" for time in times})
    store(database, {time + 7: "6.0" for time in times[10:30]}, ",site=north")
    assert listed(database)["1"].fault is None


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "", "x" * 60_000, "ü" * (MAX_NAME_BYTES // 2)])
def test_a_tag_that_no_port_has_is_one_short_line_and_the_others_are_there(
    database: Database, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    time = (START + 300) * 10**9
    points = [
        {"time": time, "value": 5.0, "device": device, "port": "1", "direction": "in"}
        for device in (name, "b")
    ]
    write_samples(database.client, {"port_traffic": points})
    source = Source(database.client, database.name, "found", START + DAY)
    assert source.names() == ["b_1_in"]
    note_no_ports(source)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "1 series of port_traffic are not judged, for a port needs the tags device, port and"
    )
    assert len(line) < 300
    assert line.isprintable()


@pytest.mark.parametrize("name", ["quo'te", 'dq"q', "back\\slash", "\\n", "a,b=c d", "é😀", "x' OR '1'='1"])
def test_a_port_of_any_printable_name_is_read(database: Database, name: str) -> None:
    points = [
        {"time": (START + 300) * 10**9, "value": 5.0, "device": name, "port": name, "direction": "in"},
        {"time": (START + 300) * 10**9, "value": 6.0, "device": "b", "port": "1", "direction": "in"},
    ]
    write_samples(database.client, {"port_traffic": points})
    source = Source(database.client, database.name, "found", START + DAY)
    (found,) = (one for one in source.names() if one != "b_1_in")
    assert source.load(found, START, START + DAY).traffic.tolist() == [5.0]


def test_many_tags_that_no_port_has_are_one_line(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"port_traffic,device=d{number},port=1,direction=up value=1 {START}" for number in range(1000)]
    lines.append(f"port_traffic,device=d,port=1,direction=in value=1 {START}")
    database.client.write_points(lines, protocol="line", time_precision="s")
    source = Source(database.client, database.name, "found", START + DAY)
    assert source.names() == ["d_1_in"]
    note_no_ports(source)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("1000 series")
    assert line.endswith("and 997 more")
