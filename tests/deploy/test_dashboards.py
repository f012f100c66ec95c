"""The dashboards for Grafana: they are what their script makes, and each query finds what it is to show."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from influxdb import InfluxDBClient

import find_anomalies
import formatters
from edge.bundle import load_bundle
from edge.detector import Detector, Verdict
from edge.expected import Expectation, ExpectedLines
from edge.levels import levels_of
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from influx_utils import write_lines
from lab.influxd import Influxd
from nodes.metrics import METRICS
from nodes.series import record_time
from tests.support.edge_daemon import ATTACKED, FIRST, INTERVAL, ROOT, Edge
from tests.support.grafana import DASHBOARDS, FOLDER, Query, dashboard, filled, panels, queries
from tests.support.influx import Database, connect, own
from tests.support.port_series import change, moment, samples

SECOND = 10**9
NAMES_OF_FILES = sorted(path.name for path in DASHBOARDS.iterdir())
LAST = 26
# The four of a level, as panels name them.
NAMES = ("actual", "low", "expected", "high")


def test_the_files_are_what_the_script_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    spec = importlib.util.spec_from_file_location("make_dashboards", FOLDER / "make_dashboards.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.made() == {path.name: path.read_text() for path in DASHBOARDS.iterdir()}


@pytest.mark.parametrize("name", NAMES_OF_FILES)
def test_a_dashboard_reads_the_sources_that_are_provided_with_it(name: str) -> None:
    provided = (FOLDER / "provisioning/datasources/find_anomalies.yml").read_text()
    content = dashboard(name)
    parts = [*panels(content), *content["templating"]["list"], *content["annotations"].get("list", [])]
    parts += [target for panel in panels(content) for target in panel["targets"] if "datasource" in target]
    sources = {(one["datasource"]["uid"], one["datasource"]["type"]) for one in parts}
    assert all(f"uid: {uid}\n    type: {kind}\n" in provided for uid, kind in sources)
    # A person copies the folder to where this says that it is.
    provider = (FOLDER / "provisioning/dashboards/find_anomalies.yml").read_text()
    assert "path: /etc/grafana/provisioning/dashboards/find_anomalies\n" in provider


@pytest.mark.parametrize("name", NAMES_OF_FILES)
def test_panels_are_beside_one_another_and_a_band_ends_at_a_series_that_is_there(name: str) -> None:
    content = dashboard(name)
    numbers = [panel["id"] for panel in content["panels"]]
    assert numbers == list(range(1, len(numbers) + 1))
    for panel in panels(content):
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        shown = {one.get("alias") or one.get("legendFormat") for one in panel["targets"]}
        for one in panel["fieldConfig"]["overrides"]:
            assert one["matcher"]["options"] in shown | {"anomaly", "alert"}
            assert all(each["value"] in shown for each in one["properties"] if "fillBelowTo" in each["id"])


# --- the edge ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A node that was attacked; what was expected is stored."""
    folder = tmp_path_factory.mktemp("edge")
    with Influxd(folder / "influxd") as server:
        edge = Edge(server, folder)
        edge.stores_expected = True
        edge.start()
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        edge.live(*range(FIRST, LAST))
        yield edge
        edge.stop()


BUNDLE, THRESHOLDS = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")


def judged(edge: Edge) -> dict[int, Verdict]:
    """Begin of a slot -> the verdict on its record, by the detector alone, of those that are reported."""
    judge = Detector(BUNDLE, THRESHOLDS, INTERVAL)
    found, last_record = {}, {}
    for start, record in formatters.slot_records(edge.samples, INTERVAL):
        columns, last_record = formatters.format_record(record, last_record)
        verdict = judge.observe(record_time(record), columns)
        if FIRST - 1 <= (start // SECOND - edge.begin) // INTERVAL < LAST:
            found[start] = verdict
    return found


def series(client: InfluxDBClient, text: str) -> dict[int, float]:
    """What a panel draws: time -> value."""
    rows = [list(row.values()) for row in client.query(text, epoch="ns").get_points()]
    return {time: value for time, value in rows if value is not None}


def shown_of(metric: str, name: str, verdicts: Mapping[int, Verdict]) -> dict[int, float]:
    """What a series of a metric is to show, worked out without the points that are stored."""
    if name == "threshold":
        return {time: THRESHOLDS[METRICS.threshold_keys[metric]] for time in verdicts}
    if name == "RMSE":
        return {time: verdict.rmse[metric] for time, verdict in verdicts.items()}
    levels = {time: levels_of(BUNDLE, THRESHOLDS, one)[metric]._asdict() for time, one in verdicts.items()}
    if name in NAMES:
        return {time: level[name] for time, level in levels.items()}
    return {
        time: levels[time]["actual"]
        for time, verdict in verdicts.items()
        if verdict.status == name and metric in verdict.causes
    }


def test_each_query_of_the_edge_finds_what_the_detector_says(edge: Edge) -> None:
    verdicts = judged(edge)
    attacked = [time for time, verdict in verdicts.items() if verdict.status == "alert"]
    assert len(verdicts) == LAST - FIRST + 1
    assert len(attacked) >= len(ATTACKED) - 3
    begin, end = edge.begin, edge.begin + LAST * INTERVAL
    drawn = 0
    for query in queries("edge_influxdb.json"):
        if query.is_table:
            continue
        # The node has no name, so that the variable has no value.
        for metric in METRICS if "$metric" in query.text else ("overall",):
            found = series(edge.client, filled(query.text, {"node": "", "metric": metric}, begin, end))
            expected = shown_of(metric, query.name, verdicts)
            assert found == pytest.approx(expected, rel=1e-7), (query.title, query.name, metric)
            assert expected or query.name in ("anomaly", "alert")
            drawn += 1
    # Six series of a level, RMSE and threshold of each metric, and those of all together.
    assert drawn == 8 * len(METRICS) + 2
    # What was measured is what the anomalies say of it, too: the dots are where the attack is.
    cpu = shown_of("cpu", "alert", verdicts)
    assert list(cpu) == attacked
    assert cpu[attacked[0]] == pytest.approx(verdicts[attacked[0]].values["cpu_usage"], rel=1e-6)


def test_the_tables_and_choices_of_the_edge_have_rows(edge: Edge) -> None:
    verdicts = judged(edge)
    begin, end = edge.begin, edge.begin + LAST * INTERVAL
    rows = {
        (query.title, query.name): list(
            edge.client.query(filled(query.text, {"node": ""}, begin, end), epoch="ns").get_points()
        )
        for query in queries("edge_influxdb.json")
        if query.is_table
    }
    assert rows["variable", "node"] == []
    assert [row["value"] for row in rows["variable", "metric"]] == sorted(METRICS)
    (incident,) = rows["Incidents of all nodes", ""]
    opened = next(verdict for verdict in verdicts.values() if verdict.status == "alert")
    assert (incident["time"], incident["state"], incident["cause"]) == (
        opened.time // 10**6 * 10**6,
        "open",
        "cpu",
    )
    assert incident["why"].startswith("cpu ")
    assert "(expected " in incident["why"]
    assert rows["annotation", "Incidents"] == [{"time": incident["time"], "why": incident["why"]}]
    anomalies = [verdict for verdict in verdicts.values() if verdict.is_anomaly]
    found = rows["Anomalies", ""]
    assert [(row["time"], row["severity"]) for row in found] == [
        (verdict.time, verdict.status) for verdict in reversed(anomalies)
    ]
    assert found[-1]["cpu_usage"] == pytest.approx(anomalies[0].values["cpu_usage"])


def test_a_node_is_chosen_by_its_name_whatever_is_in_it(database: Database, edge: Edge) -> None:
    verdict = list(judged(edge).values())[-1]
    names = ["milan-1", "10.0.0.7:9100", 'a "b", c=d', "e/f"]
    lines = ExpectedLines()
    records = [
        Expectation(name, f"10.0.0.{place}", BUNDLE, THRESHOLDS, verdict) for place, name in enumerate(names)
    ]
    text = "".join(f"{line}\n" for line in lines.of(records))
    assert write_lines(own(database.client), database.name, text.encode()) is None
    choice, *_ = (query.text for query in queries("edge_influxdb.json") if query[:2] == ("variable", "node"))
    assert [row["value"] for row in database.client.query(choice).get_points()] == sorted(names)
    level = levels_of(BUNDLE, THRESHOLDS, verdict)["cpu"]
    query = next(one for one in queries("edge_influxdb.json") if one.name == "actual")
    moment_of = verdict.time / SECOND
    for name in names:
        found = series(
            database.client,
            filled(query.text, {"node": name, "metric": "cpu"}, moment_of - 60, moment_of + 60),
        )
        assert list(found.values()) == pytest.approx([level.actual], rel=1e-7)


# --- ports ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDBClient]:
    """A port that was flooded for two hours on the first day after training; what was expected is stored."""
    folder = tmp_path_factory.mktemp("ports")
    with Influxd(folder / "influxd") as server, connect(server) as client:
        client.create_database("ports")
        client.switch_database("ports")
        times, traffic = samples(31)
        change(times, traffic, "2023-02-01T10:00", "2023-02-01T12:00", 5.0)
        start = "port_traffic,device=core,port=1,direction=in"
        lines = [f"{start} value={value} {time}" for time, value in zip(times, traffic, strict=True)]
        client.write_points(lines, protocol="line", time_precision="s", batch_size=5_000)
        common = ["--target=ports", "--jobs=1", f"--influx_port={server.port}", "--influx_db=ports"]
        common += [f"--ports_models={folder / 'models'}"]
        train = ["--mode=train", "--timezone=UTC", "--until=2023-02-01", "--train_days=28"]
        assert find_anomalies.main([*common, *train]) == 0
        test = ["--mode=test", "--once", "--store_expected", "--until=2023-02-02", f"--state_dir={folder}"]
        assert find_anomalies.main([*common, *test]) == 0
        yield client


PORT = {"device": "core", "port": "1", "direction": "in", "detector": "profile"}
DAY_BEGIN, DAY_END = moment("2023-02-01T00:00"), moment("2023-02-02T00:00")


def rows_of(client: InfluxDBClient, query: Query) -> list[dict[str, Any]]:
    text = filled(query.text, PORT, DAY_BEGIN, DAY_END)
    return [row for row in client.query(text, epoch="s").get_points()]


def test_each_query_of_ports_finds_what_was_stored(ports: InfluxDBClient) -> None:
    found = {(one.title, one.name): rows_of(ports, one) for one in queries("ports_influxdb.json")}
    for name, value in PORT.items():
        assert [row["value"] for row in found["variable", name]] == [value]
    panel = "$device:$port $direction"
    drawn = {
        name: {
            row["time"]: row.get("mean", row.get("max")) for row in rows if list(row.values())[1] is not None
        }
        for (title, name), rows in found.items()
        if title.startswith(panel)
    }
    # One point at the end of each quarter of an hour.
    quarters = list(range(DAY_BEGIN + 900, DAY_END + 1, 900))
    for name in NAMES:
        assert list(drawn[name]) == quarters, name
    assert list(drawn["score"]) == quarters
    flooded = range(moment("2023-02-01T10:15"), moment("2023-02-01T12:00") + 1, 900)
    assert [*drawn["anomaly"], *drawn["alert"]] == list(flooded)
    assert list(drawn["alert"]) == list(flooded)[3:]
    for time in quarters:
        # The flood is five times what is usual; all else is within what is allowed.
        assert drawn["low"][time] < drawn["expected"][time] < drawn["high"][time]
        assert (drawn["actual"][time] > drawn["high"][time]) == (time in flooded)
        assert (drawn["score"][time] > 1) == (time in flooded)
    # Ten past ten: 2 - cos(2 pi 10.125 / 24) = 2.882 million.
    assert drawn["expected"][flooded[0]] == pytest.approx(2.882e6, rel=0.05)
    assert drawn["actual"][flooded[0]] == pytest.approx(5 * 2.882e6, rel=0.15)
    (incident,) = found["Incidents of all ports", ""]
    assert (incident["state"], incident["since"], incident["until"]) == (
        "closed", "2023-02-01T10:00:00Z", "2023-02-01T12:00:00Z",
    )  # fmt: skip
    assert (incident["device"], incident["direction"], incident["scope"]) == ("core", "in", "port")
    (note,) = found["annotation", "Incidents"]
    assert (note["time"], note["since"]) == (moment("2023-02-01T11:00"), incident["since"])
    anomalies = found["Anomalies of the port", ""]
    assert [row["time"] for row in anomalies] == list(reversed(flooded))
    assert [row["severity"] for row in anomalies] == ["alert"] * 5 + ["anomaly"] * 3
    assert anomalies[-1]["high"] == pytest.approx(drawn["high"][flooded[0]], rel=1e-4)
