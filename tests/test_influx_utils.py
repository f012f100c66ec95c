"""influx_utils against a real InfluxDB, filled as Prometheus fills it."""

from __future__ import annotations

import json
import math
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from influxdb import InfluxDBClient

import formatters
import influx_utils
import lab.influxd
from common.files import UserError
from common.web import TIMEOUT, WebError
from edge.samples import InfluxSource
from edge.selection import Selection, in_slots
from edge.source import SamplesOf
from influx_client import InfluxClient, InfluxClientError
from influx_utils import checkDatabase, describe_error, getLastRecords, initializeConnection, insertAnomalies
from lab.influxd import Influxd, free_port
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
from nodes.node import DEFAULT_NODE, Node, load_node
from nodes.series import Point, Record
from tests.support.influx import Database, asked_by, connect, own
from tests.support.metrics import MEASUREMENTS, lines_of
from tests.support.prometheus_writer import write_samples

SECOND = 10**9
# A whole multiple of 15 s since 1970.
START = 1_600_000_005 * SECOND
NAN = math.nan

HOSTILE_NAMES = [
    "it's",
    'a "quoted" name',
    "back\\slash",
    "\\' OR time > 0 --",
    "x' OR 'a' = 'a",
    "x') OR (\"instance\" = 'edge:9100",
    "'; DROP MEASUREMENT rx_cpu_time; --",
    "\\n",
    "a; b, c = d & 100 %",
    "Gerät/5G",
]


def source(client: InfluxClient) -> InfluxSource:
    """What reads the client's own database."""
    return InfluxSource(client, "localhost:8086", client.database)


def newest_sample_time(client: InfluxClient, node: Node) -> int | None:
    """Time of the newest sample (ns)."""
    return source(client).newest_sample_time(node)


def get_samples(client: InfluxClient, node: Node, start: int, end: int | None = None) -> Record:
    """The points alone."""
    until = 2**62 if end is None else end
    return (
        source(client)
        .get_samples(SamplesOf(node, start, min(until, start + 3600 * SECOND), reads_later=end is None))
        .points
    )


def node_point(seconds: float, value: float, **labels: str) -> Point:
    """A sample of the node exporter, `seconds` after START."""
    return {"time": at(seconds), "value": value, "instance": "edge:9100", "job": "node"} | labels


def ran_point(seconds: float, value: float, **labels: str) -> Point:
    """A sample of the RAN exporter, `seconds` after START."""
    return {"time": at(seconds), "value": value, "instance": "gnb:9099", "job": "ran"} | labels


def at(seconds: float) -> int:
    return START + round(seconds * 1000) * 1_000_000


def stored(client: InfluxDBClient, measurement: str) -> list[dict[str, Any]]:
    """All points of a measurement with their tags and the fields that they have."""
    answer = client.query(f'SELECT * FROM "{measurement}"', epoch="ns")
    return [
        {key: value for key, value in point.items() if value is not None} for point in answer.get_points()
    ]


# --- the connection ------------------------------------------------------------------------------


def test_initializeConnection_goes_past_the_proxy_of_the_environment(
    influxd: Influxd, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(f"http://{influxd.host}:{influxd.port}/ping", timeout=30)
    with initializeConnection(influxd.host, influxd.port, "", "") as client:
        assert influx_utils.database_names(client) is not None
        assert client.server_version.startswith("1.")


def test_initializeConnection_gives_up_after_one_attempt_of_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(influx_utils, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        started = time.monotonic()
        with (
            initializeConnection(host, port, "", "") as client,
            pytest.raises(WebError) as silence,
        ):
            client.query("SHOW DATABASES")
        assert silence.value.kind == TIMEOUT
        assert 0.2 <= time.monotonic() - started < 4
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_hung_server_holds_a_poll_for_less_than_the_time_between_polls() -> None:
    assert 0 < influx_utils.TIMEOUT_SECONDS <= 10


def test_initializeConnection_sends_nothing() -> None:
    port = free_port("127.0.0.1")
    initializeConnection("127.0.0.1", port, "user", "secret").close()


# --- the database --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics_{}", 'my "5g" database {}', "it's; {}"])
def test_checkDatabase_creates_and_selects(influxd: Influxd, name: str) -> None:
    name = name.format(uuid.uuid4().hex)
    with connect(influxd, database=name) as client, own(client) as ours:
        ours.database = None
        checkDatabase(ours, name)
        try:
            assert {"name": name} in client.get_list_database()
            write_samples(client, {RX_CPU: [ran_point(0, 13.7)]})
            assert newest_sample_time(ours, DEFAULT_NODE) == START
        finally:
            client.drop_database(name)


def test_checkDatabase_selects_an_existing_one_and_leaves_it_as_it_was(
    influxd: Influxd, database: Database
) -> None:
    database.client.create_retention_policy("month", "30d", "1", database.name, default=False)
    write_samples(database.client, {RX_CPU: [ran_point(0, 13.7)]})
    before = database.client.get_list_database(), database.client.get_list_retention_policies()
    with initializeConnection(influxd.host, influxd.port, "", "") as client:
        checkDatabase(client, database.name)
        assert newest_sample_time(client, DEFAULT_NODE) == START
    assert (database.client.get_list_database(), database.client.get_list_retention_policies()) == before


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server with authentication and a database metrics_db.

    `edge` may read and write the database, `reader` may read it, `stranger` may do nothing; the password
    of each is its name with `-pw` added.
    """
    with (
        Influxd(tmp_path_factory.mktemp("guarded"), auth=True) as server,
        connect(server, username="admin", password="admin-pw") as client,
    ):
        client.query("CREATE USER admin WITH PASSWORD 'admin-pw' WITH ALL PRIVILEGES", method="POST")
        client.create_database("metrics_db")
        for user in ("edge", "reader", "stranger"):
            client.query(f"CREATE USER {user} WITH PASSWORD '{user}-pw'", method="POST")
        client.query('GRANT ALL ON "metrics_db" TO edge', method="POST")
        client.query('GRANT READ ON "metrics_db" TO reader', method="POST")
        yield server


def test_checkDatabase_needs_no_right_to_create_for_an_existing_database(guarded: Influxd) -> None:
    with initializeConnection(guarded.host, guarded.port, "edge", "edge-pw") as client:
        with pytest.raises(InfluxClientError) as refusal:
            client.create_database("another")
        assert refusal.value.code == 403
        checkDatabase(client, "metrics_db")
        insertAnomalies(client, "kept", [START], np.ones((1, 8)), "cpu")
    with connect(guarded, username="edge", password="edge-pw", database="metrics_db") as client:
        assert [point["time"] for point in stored(client, "kept")] == [START]


def test_checkDatabase_leaves_it_to_the_first_query_to_say_that_a_right_is_missing(guarded: Influxd) -> None:
    with initializeConnection(guarded.host, guarded.port, "edge", "edge-pw") as client:
        checkDatabase(client, "another")
        with pytest.raises(InfluxClientError) as refusal:
            newest_sample_time(client, DEFAULT_NODE)
    assert refusal.value.code == 403
    assert "another" in str(refusal.value)


def test_checkDatabase_of_a_wrong_password_raises(guarded: Influxd) -> None:
    with (
        initializeConnection(guarded.host, guarded.port, "edge", "wrong") as client,
        pytest.raises(InfluxClientError) as refusal,
    ):
        checkDatabase(client, "metrics_db")
    assert refusal.value.code == 401


# --- getLastRecords ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["", " ORDER BY time DESC"])
def test_getLastRecords_keeps_the_newest_point_of_every_series_in_one_request(
    influxd: Influxd, database: Database, order: str
) -> None:
    cpu = [
        node_point(1, 10.0, cpu="0", mode="user"),
        node_point(16.25, 11.0, cpu="0", mode="user"),
        node_point(1, 20.0, cpu="1", mode="user"),
        node_point(31.125, 22.0, cpu="1", mode="user"),
    ]
    memory = [node_point(2, 7e9), node_point(3, 6e9)]
    write_samples(database.client, {CPU_SECONDS: cpu, MEMORY_FREE: memory})
    queries = [
        f'SELECT "value" FROM "node_cpu_seconds_total" GROUP BY "cpu"{order}',
        f'SELECT "value" FROM "node_memory_MemFree_bytes"{order}',
        f'SELECT "value" FROM "tx_cpu_time" GROUP BY "instance"{order}',
    ]
    asked = asked_by(database.own)
    data, timestamp = getLastRecords(database.own, queries, [CPU_SECONDS, MEMORY_FREE, TX_CPU])
    assert {name: sorted(points, key=str) for name, points in data.items()} == {
        CPU_SECONDS: [
            {"time": at(16.25), "value": 11.0, "cpu": "0"},
            {"time": at(31.125), "value": 22.0, "cpu": "1"},
        ],
        MEMORY_FREE: [{"time": at(3), "value": 6e9}],
        TX_CPU: [],
    }
    assert timestamp == START + 31_125_000_000
    assert [path.partition("?")[0] for path in asked] == ["/query"]


def test_getLastRecords_takes_a_single_query(database: Database) -> None:
    write_samples(database.client, {RX_CPU: [ran_point(0, 13.7), ran_point(15, 13.9)]})
    assert getLastRecords(database.own, ['SELECT "value" FROM "rx_cpu_time"'], [RX_CPU]) == (
        {RX_CPU: [{"time": at(15), "value": 13.9}]},
        at(15),
    )


def test_getLastRecords_of_an_empty_database_is_empty_and_has_no_timestamp(database: Database) -> None:
    queries = ['SELECT "value" FROM "rx_cpu_time"', 'SELECT "value" FROM "tx_cpu_time"']
    assert getLastRecords(database.own, queries, [RX_CPU, TX_CPU]) == ({RX_CPU: [], TX_CPU: []}, None)


def test_getLastRecords_goes_by_time_not_by_arrival(database: Database) -> None:
    for seconds, value in [(30, 13.3), (0, 13.1), (15, 13.2)]:
        write_samples(database.client, {RX_CPU: [ran_point(seconds, value)]})
    queries = ['SELECT "value" FROM "rx_cpu_time"']
    assert getLastRecords(database.own, queries, [RX_CPU]) == (
        {RX_CPU: [{"time": at(30), "value": 13.3}]},
        at(30),
    )


# --- get_samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "values"),
    [
        (START, at(15), [2.0, 3.0]),
        (START, at(15) + 1, [2.0, 3.0, 4.0]),
        (START + 1, at(15), [3.0]),
        (START, None, [2.0, 3.0, 4.0]),
        (START - 10**6, None, [1.0, 2.0, 3.0, 4.0]),
        (at(15) + 1, None, []),
        (START, START, []),
    ],
)
def test_get_samples_takes_from_start_to_before_end(
    database: Database, start: int, end: int | None, values: list[float]
) -> None:
    points = [ran_point(-0.001, 1.0), ran_point(0, 2.0), ran_point(14.999, 3.0), ran_point(15, 4.0)]
    write_samples(database.client, {RX_CPU: points})
    samples = get_samples(database.own, DEFAULT_NODE, start, *([] if end is None else [end]))
    assert [point["value"] for point in samples[RX_CPU]] == values


def test_get_samples_gives_all_series_of_the_node_and_no_others_in_one_request(
    influxd: Influxd, database: Database
) -> None:
    node, ran = {"instance": "edge:9100"}, {"instance": "gnb:9099"}
    wanted = {
        CPU_SECONDS: [{**node, "cpu": cpu} for cpu in ("0", "1")],
        MEMORY_FREE: [node],
        MEMORY_TOTAL: [node],
        RECEIVED: [{"device": name, **node} for name in ("enp0s20u1", "enp1s0", "ppp0")],
        TRANSMITTED: [{"device": name, **node} for name in ("enp0s20u1", "enp1s0", "ppp0")],
        RX_CPU: [ran],
        TX_CPU: [ran],
        DOWNLINK: [{"cellId": "2", **ran}],
        UPLINK: [{"cellId": "2", **ran}],
    }
    mode = {CPU_SECONDS: {"mode": "user"}}
    moments = [(at(10.504), 1.5), (at(25.497), 2.25)]
    write_samples(
        database.client,
        {
            name: [
                {"time": moment, "value": value, "job": "lab", **tags, **mode.get(name, {})}
                for tags in series
                for moment, value in moments
            ]
            for name, series in wanted.items()
        },
    )
    others = {
        CPU_SECONDS: [
            node_point(10, 9.0, cpu="0", mode="idle"),
            node_point(10, 9.0, cpu="1", mode="system"),
            node_point(10, 9.0, cpu="2", mode="user"),
        ],
        RECEIVED: [node_point(10, 9.0, device="lo"), node_point(10, 9.0, device="enp1s0.5")],
        TRANSMITTED: [node_point(10, 9.0, device="docker0")],
        DOWNLINK: [ran_point(10, 9.0, cellId="1"), ran_point(10, 9.0, cellId="22")],
        UPLINK: [ran_point(10, 9.0)],
        "node_memory_Cached_bytes": [node_point(10, 9.0)],
    }
    write_samples(database.client, others)
    asked = asked_by(database.own)
    samples = get_samples(database.own, DEFAULT_NODE, START)
    assert samples == {
        name: [
            {"time": moment, "value": value, "job": "lab", "__name__": name, **tags, **mode.get(name, {})}
            for tags in series
            for moment, value in moments
        ]
        for name, series in wanted.items()
    }
    assert [path.partition("?")[0] for path in asked] == ["/query"]


def test_get_samples_of_an_empty_database_has_every_measurement_empty(database: Database) -> None:
    assert get_samples(database.own, DEFAULT_NODE, START) == {name: [] for name in MEASUREMENTS}


def test_a_label_added_later_starts_a_series_that_wins_over_the_old_one(database: Database) -> None:
    user = {"mode": "user", "cpu": "0"}
    write_samples(
        database.client,
        {
            CPU_SECONDS: [
                node_point(1, 81000.0, **user),
                node_point(10, 81001.0, **user, zone="lab"),
                node_point(16, 81002.0, **user, zone="lab"),
            ],
            RX_CPU: [ran_point(9, 14.0, gnb="a"), ran_point(1, 13.0), ran_point(16, 15.5, gnb="a")],
        },
    )
    series = database.client.query('SHOW SERIES FROM "rx_cpu_time"')
    assert len(list(series.get_points())) == 2
    node = Node(cpus=("0",))
    slots = formatters.slot_records(get_samples(database.own, node, START), 15)
    first, second = formatters.format_records(slots, node)
    assert (first["time"], first["cpu_rx_percentage"]) == (at(10), 14.0)
    assert (second["time"], second["cpu_rx_percentage"], second["cpu_rx_rate"]) == (at(16), 15.5, 1.5)
    # One second of user time in the six seconds since the newest sample before.
    assert second["cpu_user_0_percentage"] == pytest.approx(100 / 6)


@pytest.mark.parametrize(
    ("measurement", "make_point", "labels", "key", "instances"),
    [
        (MEMORY_FREE, node_point, {}, "node_instance", "edge:9100, edge:9101"),
        (CPU_SECONDS, node_point, {"cpu": "1", "mode": "user"}, "node_instance", "edge:9100, edge:9101"),
        (UPLINK, ran_point, {"cellId": "2"}, "ran_instance", "edge:9101, gnb:9099"),
        (TX_CPU, ran_point, {}, "ran_instance", "edge:9101, gnb:9099"),
    ],
)
def test_two_instances_of_a_kind_are_refused_until_one_is_pinned(
    database: Database, tmp_path: Path, measurement: str, make_point, labels: dict, key: str, instances: str
) -> None:
    everything = {
        MEMORY_FREE: [node_point(0, 1.0)],
        TX_CPU: [ran_point(0, 2.0)],
    }
    write_samples(database.client, everything)
    write_samples(database.client, {measurement: [make_point(1, 3.0, **labels, instance="edge:9101")]})
    slots = in_slots(lines_of(get_samples(database.own, DEFAULT_NODE, START)), DEFAULT_NODE, 15 * SECOND)
    with pytest.raises(UserError) as refusal:
        Selection(DEFAULT_NODE).refuse_several(slots)
    assert str(refusal.value) == (
        f"the database holds more than one instance: {instances};"
        f" name the one to watch as '{key}' in a file given with --node_file"
        if key == "node_instance"
        else "2 nodes write to the database (edge, gnb); choose with --node NAME, or --node all"
    )

    node_file = tmp_path / "node.json"
    node_file.write_text(json.dumps({key: "edge:9101"}))
    node = load_node(node_file)
    samples = get_samples(database.own, node, START)
    Selection(node).refuse_several(in_slots(lines_of(samples), node, 15 * SECOND))
    values = {name: [point["value"] for point in points] for name, points in samples.items() if points}
    other = TX_CPU if key == "node_instance" else MEMORY_FREE
    assert values == {other: [everything[other][0]["value"]], measurement: [3.0]}


def test_an_instance_outside_the_asked_span_is_not_refused(database: Database) -> None:
    points = [ran_point(0, 1.0, instance="gnb:1"), ran_point(15, 2.0, instance="gnb:2")]
    write_samples(database.client, {RX_CPU: points})
    samples = get_samples(database.own, DEFAULT_NODE, at(15))
    assert [point["instance"] for point in samples[RX_CPU]] == ["gnb:2"]


def test_node_exporter_and_RAN_exporter_may_have_the_same_instance_or_each_its_own(
    database: Database,
) -> None:
    write_samples(
        database.client,
        {
            MEMORY_FREE: [node_point(0, 1.0, instance=name) for name in ("a", "b")],
            RX_CPU: [ran_point(0, 2.0, instance=name) for name in ("a", "b")],
        },
    )
    for node_name, ran_name in [("a", "a"), ("a", "b"), ("b", "a")]:
        node = Node(node_instance=node_name, ran_instance=ran_name)
        samples = get_samples(database.own, node, START)
        assert [point["instance"] for point in samples[MEMORY_FREE]] == [node_name]
        assert [point["instance"] for point in samples[RX_CPU]] == [ran_name]


def hostile_node(tmp_path: Path, name: str) -> Node:
    """The node of a file in which every name is `name`."""
    keys = {
        "cpus": [name],
        "interfaces": [name],
        "cell_id": name,
        "node_instance": name,
        "ran_instance": name,
    }
    (tmp_path / "node.json").write_text(json.dumps(keys))
    return load_node(tmp_path / "node.json")


def samples_named(name: str, value: float) -> Record:
    """One sample of one series of four measurements, in which every name is `name`."""
    return {
        CPU_SECONDS: [node_point(0, value, instance=name, cpu=name, mode="user")],
        RECEIVED: [node_point(0, value, instance=name, device=name)],
        RX_CPU: [ran_point(0, value, instance=name)],
        DOWNLINK: [ran_point(0, value, instance=name, cellId=name)],
    }


# InfluxDB itself cannot find a series again whose label ends in a backslash.
@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "ends in a backslash\\", "\\"])
def test_names_of_a_node_file_are_never_InfluxQL(database: Database, tmp_path: Path, name: str) -> None:
    write_samples(database.client, samples_named("edge:9100", 1.0))
    node = hostile_node(tmp_path, name)
    assert get_samples(database.own, node, START) == {name: [] for name in MEASUREMENTS}
    assert newest_sample_time(database.own, node) is None
    kept = get_samples(database.own, Node(ran_instance="edge:9100"), START)
    assert [point["value"] for point in kept[RX_CPU]] == [1.0]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_series_of_any_name_are_found(database: Database, tmp_path: Path, name: str) -> None:
    write_samples(database.client, samples_named("edge:9100", 1.0))
    write_samples(database.client, samples_named(name, 2.0))
    node = hostile_node(tmp_path, name)
    samples = get_samples(database.own, node, START)
    others = ("__name__", "job", "mode")
    assert {
        measurement: [{key: point[key] for key in point if key not in others} for point in points]
        for measurement, points in samples.items()
        if points
    } == {
        CPU_SECONDS: [{"time": START, "value": 2.0, "instance": name, "cpu": name}],
        RECEIVED: [{"time": START, "value": 2.0, "instance": name, "device": name}],
        RX_CPU: [{"time": START, "value": 2.0, "instance": name}],
        DOWNLINK: [{"time": START, "value": 2.0, "instance": name, "cellId": name}],
    }
    assert newest_sample_time(database.own, node) == START


def test_an_answer_that_the_server_cuts_short_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last section of the configuration is [http].
    monkeypatch.setattr(lab.influxd, "CONFIG", lab.influxd.CONFIG + "max-row-limit = 10\n")
    with Influxd(tmp_path) as server, connect(server, database="db") as client, own(client) as ours:
        client.create_database("db")
        last = MEASUREMENTS[-1]
        write_samples(client, {last: [ran_point(i, 1.0, cellId="2") for i in range(20)]})
        with pytest.raises((UserError, *influx_utils.INFLUX_ERRORS), match="max-row-limit"):
            get_samples(ours, DEFAULT_NODE, START)
        write_samples(client, {MEMORY_FREE: [node_point(i, 1.0) for i in range(20)]})
        with pytest.raises((UserError, *influx_utils.INFLUX_ERRORS), match="max-row-limit"):
            get_samples(ours, DEFAULT_NODE, START)


# --- newest_sample_time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "node", "newest"),
    [
        ({}, DEFAULT_NODE, None),
        ({RX_CPU: [ran_point(-500_000_000, 1.0)]}, DEFAULT_NODE, at(-500_000_000)),
        ({RX_CPU: [ran_point(15.123, 1.0), ran_point(0, 1.0)]}, DEFAULT_NODE, at(15.123)),
        ({RX_CPU: [ran_point(0, 1.0)], MEMORY_FREE: [node_point(0.001, 1.0)]}, DEFAULT_NODE, at(0.001)),
        ({CPU_SECONDS: [node_point(0, 1.0, cpu="0", mode="idle")]}, DEFAULT_NODE, None),
        ({CPU_SECONDS: [node_point(0, 1.0, cpu="7", mode="user")]}, DEFAULT_NODE, None),
        ({CPU_SECONDS: [node_point(0, 1.0, cpu="7", mode="user")]}, Node(cpus=("7",)), START),
        ({RECEIVED: [node_point(0, 1.0, device="lo")]}, DEFAULT_NODE, None),
        ({DOWNLINK: [ran_point(0, 1.0, cellId="1")]}, DEFAULT_NODE, None),
        ({RX_CPU: [ran_point(0, 1.0)]}, Node(ran_instance="gnb:1"), None),
        (
            {RX_CPU: [ran_point(0, 1.0), ran_point(15, 1.0, instance="gnb:1")]},
            Node(ran_instance="gnb:9099"),
            START,
        ),
        ({"another_metric": [ran_point(0, 1.0)]}, DEFAULT_NODE, None),
    ],
)
def test_newest_sample_time_looks_at_the_whole_history_of_the_node_alone(
    database: Database, samples: Record, node: Node, newest: int | None
) -> None:
    write_samples(database.client, samples)
    assert newest_sample_time(database.own, node) == newest


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_long_statement_is_sent_as_it_is(influxd: Influxd, database: Database, name: str) -> None:
    write_samples(database.client, {RX_CPU: [ran_point(0, 5.0, instance=name)]})
    with initializeConnection(influxd.host, influxd.port, "", "") as client:
        checkDatabase(client, database.name)
        asked = asked_by(client)
        is_one = f"instance = {influx_utils.quote(name)}"
        query = f"SELECT value FROM rx_cpu_time WHERE {is_one}" + f" AND {is_one}" * 99
        ((series,),) = influx_utils.run(client, [query])
    assert series["values"] == [[START, 5.0]]
    assert asked == [f"/query?db={database.name}&epoch=ns"]


# --- insertAnomalies -----------------------------------------------------------------------------

OWN_TIME = START + 123_456_789
EIGHT = np.array([[98.3, 88.7, 7001.0, 11502.0, 13.7, 5.5, 350_000.0, 0.0]])
EIGHT_FIELDS = {
    "cpu_usage": 98.3,
    "mem_usage": 88.7,
    "net_down_usage": 7001.0,
    "net_up_usage": 11502.0,
    "cpu_rx_usage": 13.7,
    "cpu_tx_usage": 5.5,
    "net_down_5g_usage": 350_000.0,
    "net_up_5g_usage": 0.0,
}


@pytest.mark.parametrize(
    ("cause", "options", "tags"),
    [
        ("cpu", {}, {"possible_cause": "cpu", "severity": "anomaly"}),
        ("unknown cause", {}, {"possible_cause": "unknown cause", "severity": "anomaly"}),
        (
            "cpu | net_5g_up | mem",
            {"severity": "alert", "instance": "edge:9100"},
            {"possible_cause": "cpu | net_5g_up | mem", "severity": "alert", "instance": "edge:9100"},
        ),
    ],
)
def test_an_anomaly_is_one_point_at_its_own_time_however_often_it_is_written(
    database: Database, cause: str, options: dict[str, str], tags: dict[str, str]
) -> None:
    for _ in range(2):
        insertAnomalies(database.own, "detected_anomalies", [OWN_TIME], EIGHT, cause, **options)
        assert stored(database.client, "detected_anomalies") == [{"time": OWN_TIME, **tags, **EIGHT_FIELDS}]
    keys = database.client.query('SHOW TAG KEYS FROM "detected_anomalies"').get_points()
    assert {key["tagKey"] for key in keys} == set(tags)


def test_all_anomalies_of_a_call_are_stored_in_one_request(influxd: Influxd, database: Database) -> None:
    asked = asked_by(database.own)
    times = [START, at(15.25), at(30)]
    insertAnomalies(database.own, "attacks of today", times, EIGHT * [[1], [2], [3]], "mem")
    assert [path.partition("?")[0] for path in asked] == ["/write"]
    tags = {"possible_cause": "mem", "severity": "anomaly"}
    assert stored(database.client, "attacks of today") == [
        {
            "time": moment,
            **tags,
            **{name: pytest.approx(value * factor) for name, value in EIGHT_FIELDS.items()},
        }
        for moment, factor in zip(times, (1, 2, 3), strict=True)
    ]


@pytest.mark.parametrize("kind", [np.int64, object])
def test_whole_numbers_are_stored_as_floats(database: Database, kind: type) -> None:
    insertAnomalies(database.own, "anomalies", [START], np.array([range(8)], dtype=kind), "cpu")
    insertAnomalies(database.own, "anomalies", [at(15)], EIGHT, "cpu")
    keys = list(database.client.query('SHOW FIELD KEYS FROM "anomalies"').get_points())
    assert keys == [{"fieldKey": name, "fieldType": "float"} for name in sorted(EIGHT_FIELDS)]
    assert len(stored(database.client, "anomalies")) == 2


def test_values_that_are_not_finite_are_left_out_and_the_rest_is_stored(
    influxd: Influxd, database: Database
) -> None:
    values = np.array(
        [
            [98.3, NAN, 7001.0, math.inf, 13.7, -math.inf, NAN, 0.0],
            [NAN] * 8,
            [NAN] * 7 + [4.0],
        ]
    )
    insertAnomalies(database.own, "anomalies", [START, at(15), at(30)], values, "cpu")
    tags = {"possible_cause": "cpu", "severity": "anomaly"}
    assert stored(database.client, "anomalies") == [
        {
            "time": START,
            **tags,
            "cpu_usage": 98.3,
            "net_down_usage": 7001.0,
            "cpu_rx_usage": 13.7,
            "net_up_5g_usage": 0.0,
        },
        {"time": at(30), **tags, "net_up_5g_usage": 4.0},
    ]
    asked = asked_by(database.own)
    insertAnomalies(database.own, "anomalies", [at(45)], np.full((1, 8), NAN), "cpu")
    assert asked == []


@pytest.mark.parametrize("instance", ["it's 1, a=b", 'a "quoted" name', "Gerät/5G", "'; DROP MEASUREMENT x"])
def test_the_instance_of_an_anomaly_is_stored_as_it_is(database: Database, instance: str) -> None:
    insertAnomalies(database.own, "anomalies", [START], EIGHT, "cpu | mem", instance=instance)
    (point,) = stored(database.client, "anomalies")
    assert (point["instance"], point["possible_cause"]) == (instance, "cpu | mem")


@pytest.mark.parametrize("instance", ["back\\slash", "ends in a backslash\\", "two\nlines"])
def test_an_anomaly_is_stored_even_where_InfluxDB_cannot_hold_its_instance(
    database: Database, instance: str
) -> None:
    insertAnomalies(database.own, "anomalies", [START], EIGHT, "cpu", instance=instance)
    (point,) = stored(database.client, "anomalies")
    assert {name: point[name] for name in EIGHT_FIELDS} == EIGHT_FIELDS


# --- describe_error ------------------------------------------------------------------------------


def failure(client: InfluxClient, action) -> Exception:
    with client, pytest.raises(influx_utils.INFLUX_ERRORS) as raised:
        action(client)
    return raised.value


def query(client: InfluxClient) -> None:
    newest_sample_time(client, DEFAULT_NODE)


def write(client: InfluxClient) -> None:
    insertAnomalies(client, "anomalies", [START], EIGHT, "cpu")


def test_a_refused_connection_is_said_in_one_line() -> None:
    port = free_port("127.0.0.1")
    error = failure(initializeConnection("127.0.0.1", port, "edge", "edge-pw"), query)
    assert describe_error(error, f"127.0.0.1:{port}", "metrics_db") == (
        f"InfluxDB at 127.0.0.1:{port} cannot be reached; check --influx_host, --influx_port and that it runs"
    )


@pytest.mark.parametrize("action", [query, write])
def test_a_hung_server_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action) -> None:
    monkeypatch.setattr(influx_utils, "TIMEOUT_SECONDS", 0.25)
    with Influxd(tmp_path) as server:
        server.pause()
        error = failure(initializeConnection(server.host, server.port, "edge", "edge-pw"), action)
        server.resume()
    assert describe_error(error, "edge:8086", "metrics_db") == (
        "InfluxDB at edge:8086 did not answer within 0.25 s; check the server"
    )


BAD_CREDENTIALS = " refused the credentials; check --influx_user and --influx_pass"
NO_RIGHT = ": the user has no right to the database {}; grant it READ and WRITE"
NO_DATABASE = " has no database {0}; check --influx_db, or create it for Prometheus (CREATE DATABASE {0})"


@pytest.mark.parametrize(
    ("user", "password", "db_name", "action", "line"),
    [
        ("edge", "wrong-pw", "metrics_db", query, BAD_CREDENTIALS),
        ("edge", "wrong-pw", "metrics_db", write, BAD_CREDENTIALS),
        ("", "", "metrics_db", query, BAD_CREDENTIALS),
        ("nobody", "edge-pw", "metrics_db", query, BAD_CREDENTIALS),
        ("stranger", "stranger-pw", "metrics_db", query, NO_RIGHT),
        ("stranger", "stranger-pw", "metrics_db", write, NO_RIGHT),
        ("reader", "reader-pw", "metrics_db", write, NO_RIGHT),
        ("edge", "edge-pw", "another", query, NO_RIGHT),
        ("admin", "admin-pw", "another", query, NO_DATABASE),
        ("admin", "admin-pw", "another", write, NO_DATABASE),
    ],
)
def test_a_refusal_is_said_in_one_line_without_the_password(
    guarded: Influxd, user: str, password: str, db_name: str, action, line: str
) -> None:
    client = initializeConnection(guarded.host, guarded.port, user, password)
    client.switch_database(db_name)
    error = failure(client, action)
    said = describe_error(error, "edge:8086", db_name)
    assert said == "InfluxDB at edge:8086" + line.format(db_name)
    assert not password or password not in f"{said} {error}"


def test_any_other_refusal_is_one_line_with_the_words_of_the_server(database: Database) -> None:
    database.client.write_points(
        [{"measurement": "anomalies", "time": START, "fields": {"cpu_usage": "text"}}]
    )
    with pytest.raises(influx_utils.INFLUX_ERRORS) as raised:
        write(database.own)
    line = describe_error(raised.value, "edge:8086", database.name)
    assert line.startswith("InfluxDB at edge:8086 ")
    assert "field type conflict" in line
    assert "\n" not in line
