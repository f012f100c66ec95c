"""InfluxDB 2 and 3 through their 1.x interface, as far as their documented answers go."""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import formatters
import influx_utils
from edge.samples import InfluxSource
from edge.selection import Selection, in_slots
from edge.source import SamplesOf
from influx_client import InfluxClient, InfluxClientError
from influx_utils import checkDatabase, describe_error, initializeConnection, kind_of, run, write_points
from influx_versions import NoDatabaseError
from lab.influxd import Influxd
from nodes.node import DEFAULT_NODE
from nodes.series import Record, series_tags
from ports.samples import get_port_samples, list_ports
from ports.sources import Database as PortDatabase
from simulators.edge import simulate
from tests.support.edge_daemon import FIRST, Edge, said
from tests.support.influx import Database, asked_by
from tests.support.later_influx import (
    FIRST_INFLUXDB_3,
    INFLUXDB_2,
    INFLUXDB_3,
    LONGEST_TARGET,
    TOKEN,
    Behaviour,
    LaterInflux,
)
from tests.support.program import run_here
from tests.support.prometheus_writer import write_samples

ROOT = Path(__file__).resolve().parents[1]
SECOND, DAY = 10**9, 86400
RECENT = f"time > {time.time_ns() - 3600 * SECOND}"
ALL = [INFLUXDB_2, INFLUXDB_3, FIRST_INFLUXDB_3]
NAMES = ["2", "3", "the first 3"]
SERVER = "InfluxDB at edge:8086"
IN_2 = (
    f"{SERVER} has no database metrics_db; check --influx_db, or create a bucket and map the database to it"
    " (influx bucket create --name metrics_db; then, with the ID that it shows, influx v1 dbrp create --db"
    " metrics_db --rp autogen --default --bucket-id ID)"
)
IN_3 = (
    f"{SERVER} has no database metrics_db; check --influx_db, or create it"
    " (influxdb3 create database metrics_db)"
)

Start = Callable[..., tuple[LaterInflux, InfluxClient]]


@pytest.fixture
def start(influxd: Influxd) -> Iterator[Start]:
    """Starts such a server, and makes a client of it."""
    servers = []

    def begin(
        behaviour: Behaviour, *databases: str, user: str = "any", password: str = TOKEN
    ) -> tuple[LaterInflux, InfluxClient]:
        servers.append(LaterInflux(influxd.port, behaviour, *databases))
        client = initializeConnection("127.0.0.1", servers[-1].port, user, password)
        client.switch_database(databases[0] if databases else "metrics_db")
        return servers[-1], client

    yield begin
    for server in servers:
        server.close()


def source(client: InfluxClient) -> InfluxSource:
    return InfluxSource(client, "edge:8086", client.database)


def failure(action: Callable[[], object]) -> Exception:
    with pytest.raises(influx_utils.INFLUX_ERRORS) as raised:
        action()
    return raised.value


def point(value: float | str, seconds: float = 0.0, measurement: str = "anomalies") -> dict[str, object]:
    moment = time.time_ns() + round(seconds * SECOND)
    return {"measurement": measurement, "time": moment, "tags": {}, "fields": {"cpu_usage": value}}


# --- the token, and the database -----------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ALL, ids=NAMES)
@pytest.mark.parametrize("user", ["any", "", "another"])
def test_a_token_is_the_password_of_any_user(
    database: Database, start: Start, behaviour: Behaviour, user: str
) -> None:
    server, client = start(behaviour, database.name, user=user)
    checkDatabase(client, database.name)
    assert client.database == database.name
    assert server.asked == [["SHOW DATABASES"]]


@pytest.mark.parametrize("behaviour", ALL, ids=NAMES)
def test_a_wrong_token_is_said_in_one_line(start: Start, behaviour: Behaviour) -> None:
    _, client = start(behaviour, "metrics_db", password="another")
    for action in (
        lambda: checkDatabase(client, "metrics_db"),
        lambda: write_points(client, "x", [point(1.0)]),
    ):
        error = failure(action)
        assert kind_of(error) == "credentials"
        assert describe_error(error, "edge:8086", "metrics_db") == (
            f"{SERVER} refused the credentials; give a token as --influx_pass, with any --influx_user"
        )


def test_a_right_that_a_token_lacks_is_said_in_one_line() -> None:
    # What 2 answers to a write that the token does not allow.
    error = InfluxClientError('{"code":"forbidden","message":"insufficient permissions for write"}', 403)
    assert kind_of(error) == "rights"
    assert describe_error(error, "edge:8086", "metrics_db") == (
        f"{SERVER}: the token has no right to the database metrics_db; let it read and write there"
    )


@pytest.mark.parametrize(("behaviour", "line"), [(ALL[0], IN_2), (ALL[1], IN_3), (ALL[2], IN_3)], ids=NAMES)
def test_what_a_missing_database_needs_is_said_and_nothing_is_created(
    start: Start, behaviour: Behaviour, line: str
) -> None:
    server, client = start(behaviour, "others")
    client.switch_database("metrics_db")
    for action in (
        lambda: checkDatabase(client, "metrics_db"),
        lambda: source(client).newest_sample_time(DEFAULT_NODE),
    ):
        error = failure(action)
        assert isinstance(error, NoDatabaseError)
        assert kind_of(error) == "database"
        assert describe_error(error, "edge:8086", "metrics_db") == line
    assert server.databases == {"others"}


def test_where_no_databases_are_listed_the_first_query_shows_whether_it_is_there(
    database: Database, start: Start
) -> None:
    server, client = start(Behaviour(3, lists=()), database.name)
    checkDatabase(client, database.name)
    assert server.asked == [["SHOW DATABASES"]]
    assert source(client).newest_sample_time(DEFAULT_NODE) is None


def test_InfluxDB_1_is_asked_as_often_as_before(influxd: Influxd, database: Database) -> None:
    client = initializeConnection(influxd.host, influxd.port, "", "")
    paths = asked_by(client)
    checkDatabase(client, database.name)
    source(client).newest_sample_time(DEFAULT_NODE)
    assert write_points(client, database.name, [point(1.0)]) is None
    assert [path.partition("?")[0] for path in paths] == ["/query", "/query", "/write"]
    assert client.server_version.startswith("1.")


# --- statements ----------------------------------------------------------------------------------


def test_a_server_that_takes_one_statement_is_asked_for_each_and_this_is_remembered(
    database: Database, start: Start
) -> None:
    database.client.write_points([point(float(n), n, f"m{n}") for n in range(3)])
    server, client = start(FIRST_INFLUXDB_3, database.name)
    # The second has no rows, for which such a server answers nothing at all.
    queries = [f'SELECT cpu_usage FROM "{name}" WHERE {RECENT}' for name in ("m2", "none", "m1")]
    for expected in ([queries, *([one] for one in queries)], [[one] for one in queries]):
        server.asked.clear()
        found = run(client, queries)
        assert [[row[1] for series in answer for row in series["values"]] for answer in found] == [
            [2.0],
            [],
            [1.0],
        ]
        assert server.asked == expected
    error = failure(lambda: run(client, [queries[0], f"SELECT nonsense( {RECENT}", queries[1]]))
    assert "error parsing query" in str(error)


def test_statements_that_make_too_long_an_address_are_halved(database: Database, start: Start) -> None:
    server, client = start(INFLUXDB_3, database.name)
    query = f"SELECT cpu_usage FROM m WHERE {RECENT} AND x = '{'x' * 1000}'"
    assert run(client, [query] * 100) == [[]] * 100
    assert sum(map(len, server.asked)) == 100
    assert all(1000 * len(statements) < LONGEST_TARGET for statements in server.asked)
    assert len(server.asked) == 2


# --- the time that 3 Core reads at once ----------------------------------------------------------


def life(begin: int) -> Record:
    return simulate(3, begin, 600)


@pytest.mark.parametrize("behaviour", [INFLUXDB_3, FIRST_INFLUXDB_3], ids=NAMES[1:])
@pytest.mark.parametrize(("days", "pieces"), [(0, 1), (5, 3), (40, 14)])
def test_the_newest_sample_is_looked_for_in_pieces_of_two_days(
    database: Database, start: Start, behaviour: Behaviour, days: int, pieces: int
) -> None:
    write_samples(database.client, life(int(time.time()) - days * DAY - 700))
    expected = source(database.own).newest_sample_time(DEFAULT_NODE)
    newest = source(database.own).newest_samples(DEFAULT_NODE)
    server, client = start(behaviour, database.name)
    assert source(client).newest_sample_time(DEFAULT_NODE) == (expected if days < 28 else None)
    server.asked.clear()
    found = source(client).newest_samples(DEFAULT_NODE)
    assert found == (newest if days < 28 else dict.fromkeys(newest, []))
    assert len(server.asked) == pieces * (1 if behaviour.takes_many else len(newest))


def test_a_history_is_collected_however_old_it_is(database: Database, start: Start, tmp_path: Path) -> None:
    write_samples(database.client, life(int(time.time()) - 5 * DAY))
    server, _ = start(INFLUXDB_3, database.name)
    files = []
    for port, token in ((database.client._port, ""), (server.port, TOKEN)):
        files.append(tmp_path / f"{port}.csv")
        options = f"--influx_port {port} --influx_db {database.name} --influx_user any --since 10m --output"
        done = run_here(
            "--mode", "collect", *options.split(), files[-1], cwd=tmp_path, environment={"INFLUX_PASS": token}
        )
        assert done.returncode == 0, done.stderr
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_text().splitlines()) > 35


def test_four_weeks_of_ports_are_read_in_pieces(database: Database, start: Start) -> None:
    end = int(time.time()) // 3600 * 3600
    lines = [
        f"port_traffic,device=core,port={port},direction=in value={hours}.5 {end - 3600 * hours}"
        for port, newest in ((1, 0), (2, 9 * 24))
        for hours in range(newest, 18 * 24)
    ]
    # InfluxDB keeps a week in one shard, and one type of `value` in each.
    lines.append(f'port_traffic,device=core,port=3,direction=in value="text" {end - 27 * DAY}')
    database.client.write_points(lines, protocol="line", time_precision="s", batch_size=10_000)
    server, client = start(INFLUXDB_3, database.name)
    span = end - 28 * DAY, end
    key = lambda port: port.tags["port"]  # noqa: E731
    assert sorted(list_ports(client, *span), key=key) == sorted(list_ports(database.own, *span), key=key)
    tags = {"device": "core", "port": "1", "direction": "in"}
    for found, whole in zip(
        get_port_samples(client, tags, *span), get_port_samples(database.own, tags, *span), strict=True
    ):
        assert found.tolist() == whole.tolist()
    found_there = PortDatabase(client, database.name, "anomalies", end)
    assert found_there.names() == ["core_1_in", "core_2_in", "core_3_in"]
    assert "instead of a number of bytes" in str(found_there.refusal("core_3_in"))
    assert list_ports(client, end, end) == []


def test_a_lower_limit_than_the_usual_one_is_said_in_one_line(
    database: Database, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.later_influx.FILE_LIMIT_SECONDS", 3600)
    _, client = start(INFLUXDB_3, database.name)
    error = failure(lambda: source(client).newest_sample_time(DEFAULT_NODE))
    assert describe_error(error, "edge:8086", "metrics_db") == (
        f"{SERVER} refuses to read so many files at once; start it with a higher --query-file-limit"
    )


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ALL, ids=NAMES)
def test_points_are_stored_at_their_own_time(database: Database, start: Start, behaviour: Behaviour) -> None:
    _, client = start(behaviour, database.name)
    one = point(1.5)
    assert write_points(client, database.name, [one]) is None
    influx_utils.insertAnomalies(client, "others", [7], [[float(n) for n in range(8)]], "cpu")
    found = database.client.query("SELECT * FROM anomalies; SELECT * FROM others", epoch="ns")
    assert [[row["time"] for row in result.get_points()] for result in found] == [[one["time"]], [7]]


def test_a_mapping_that_is_missing_for_a_write_is_said(start: Start) -> None:
    server, client = start(INFLUXDB_2, "others")
    error = failure(lambda: write_points(client, "metrics_db", [point(1.0)]))
    assert describe_error(error, "edge:8086", "another") == IN_2
    assert server.asked == [["write"], ['CREATE DATABASE "metrics_db"']]


@pytest.mark.parametrize(
    ("behaviour", "conflict"),
    [(INFLUXDB_2, ("anomalies", "cpu_usage", "float", "string")), (INFLUXDB_3, None)],
    ids=["2", "3"],
)
def test_points_of_another_type_are_refused_for_good(
    database: Database, start: Start, behaviour: Behaviour, conflict: tuple[str, ...] | None
) -> None:
    database.client.write_points([point("text")])
    _, client = start(behaviour, database.name)
    refusal = write_points(client, database.name, [point(1.0)])
    assert refusal is not None
    assert refusal.points == 1
    assert refusal.conflict == conflict
    assert "field type conflict" in refusal.reason


def test_points_that_are_too_old_are_known_in_the_words_of_2(database: Database, start: Start) -> None:
    database.client.create_retention_policy("short", "1h", "1", database.name, default=True)
    _, client = start(INFLUXDB_2, database.name)
    refusal = write_points(client, database.name, [point(1.0, -DAY)])
    assert refusal is not None
    assert (refusal.is_too_old, refusal.points) == (True, 1)
    words = (
        '{"code":"unprocessable entity","message":"failure writing points to database: partial write: dropped'
        " 4 points outside retention policy of duration 24h0m0s - oldest point m at 1970-01-01T00:00:01Z"
        " dropped because it violates a Retention Policy Lower Bound at 2025-05-20T19:06:17Z dropped=4 for"
        ' database: 41d9d8 for retention policy: autogen"}'
    )
    newer = influx_utils._refusal(InfluxClientError(words, 422))
    assert (newer.is_too_old, newer.points) == (True, 4)


# --- the service ---------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ALL, ids=NAMES)
def test_the_service_finds_and_stores_an_attack(tmp_path: Path, behaviour: Behaviour) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        later = LaterInflux(server.port, behaviour, "edge")
        edge.port, edge.user, edge.password = later.port, "any", TOKEN
        edge.start()
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        edge.live(*range(FIRST, 21))
        assert edge.stored() == edge.expected(FIRST, 21) != []
        edge.stop()
        later.close()


def test_the_service_waits_for_a_bucket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        later = LaterInflux(server.port, INFLUXDB_2)
        edge.port, edge.password = later.port, TOKEN
        edge.start()
        edge.feed(*range(FIRST))
        caplog.set_level(logging.WARNING)
        assert [edge.daemon.poll() for _ in range(3)] == [True] * 3
        assert said(caplog) == [
            IN_2.replace("edge:8086", f"127.0.0.1:{later.port}").replace("metrics_db", "edge")
        ]
        later.databases.add("edge")
        assert edge.daemon.poll() is False
        edge.stop()
        later.close()


# --- Telegraf ------------------------------------------------------------------------------------


def test_what_telegraf_writes_is_read_as_what_prometheus_writes(database: Database) -> None:
    written = {
        name: [{**one, "value": float(f"{one['value']:g}")} for one in points]
        for name, points in life(int(time.time()) - 700).items()
    }
    # As its own page shows the layout of version 1: the name of a metric is in no tag.
    lines = [
        f"{name},{','.join(map('='.join, series_tags(one)))} value={one['value']:g} {one['time']}"
        for name, points in written.items()
        for one in points
    ]
    frames = []
    for write in (
        lambda: database.client.write_points(lines, protocol="line", time_precision="n"),
        lambda: write_samples(database.client, written),
    ):
        database.client.query("DROP SERIES FROM /.*/", method="POST")
        write()
        newest = source(database.own).newest_sample_time(DEFAULT_NODE)
        found = (
            source(database.own).get_samples(SamplesOf(DEFAULT_NODE, newest - 700 * SECOND, newest + 1)).lines
        )
        selection = Selection(DEFAULT_NODE)
        frames.append([])
        for slot in in_slots(found, DEFAULT_NODE, 15 * SECOND):
            choice = selection.choose(slot)
            selection.keep(choice)
            frames[-1].append((slot.start, choice.faults, formatters.format_record(choice.record, {})[0]))
    assert len(frames[0]) >= 40
    assert repr(frames[0]) == repr(frames[1])


def test_the_configuration_of_telegraf_is_for_the_layout_of_InfluxDB_1() -> None:
    text = (ROOT / "deploy/telegraf.conf").read_text()
    config = tomllib.loads(text)
    (listener,) = config["inputs"]["http_listener_v2"]
    assert listener["data_format"] == "prometheusremotewrite"
    assert listener["prometheus_metric_version"] == 1
    assert config["agent"]["omit_hostname"] is True
    assert set(config["outputs"]) == {"influxdb_v2"}
    # What is commented out is a configuration, too.
    whole = tomllib.loads("\n".join(_uncommented(line) for line in text.splitlines()))
    assert [output["urls"] for output in whole["outputs"]["influxdb_v2"]] == [
        ["http://localhost:8086"],
        ["http://localhost:8181"],
    ]
    assert whole["outputs"]["influxdb"][0]["skip_database_creation"] is True
    assert "def apply(metric):" in whole["processors"]["starlark"][0]["source"]


def _uncommented(line: str) -> str:
    is_setting = line.startswith(("# [[", "#   ", "# def", "# '''"))
    return line[2:] if is_setting else line
