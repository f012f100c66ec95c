"""`--mode describe` as a user runs it, on a real InfluxDB that exporters were scraped into."""

from __future__ import annotations

import csv
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import stores
from lab.influxd import Influxd, free_port
from lab.prometheus import PrometheusServer
from lab.remote_write import remote_write
from nodes.metrics import CPU_SECONDS, DOWNLINK, MEMORY_FREE, RX_CPU
from nodes.node import load_node
from nodes.series import Record
from nodes.survey import MOST_FOUND
from simulators.edge import simulate
from tests.support.influx import Database
from tests.support.program import Done, run_here
from tests.support.prometheus_writer import write_samples

ROOT = Path(__file__).resolve().parents[2]
SECOND = 10**9
MINUTES = 10
SLOTS = 4 * MINUTES
CPUS = {"0": "2", "1": "10"}
DEVICES = {"enp1s0": "eno1", "enp0s20u1": "wwan0", "ppp0": "docker0"}
NODE_SERIES = "node_"

Run = Callable[..., Done]


@pytest.fixture
def describe(influxd: Influxd, database: Database) -> Run:
    """Runs a mode on the database of the test."""

    def run(*arguments: object, mode: str = "describe", **others: object) -> Done:
        given = {"host": influxd.host, "port": influxd.port, "db": database.name} | others
        options = [word for name, value in given.items() for word in (f"--influx_{name}", value)]
        return run_here("--mode", mode, *options, *arguments, cwd=ROOT, environment={})

    return run


def recent_start() -> int:
    """The beginning of a slot, MINUTES before the newest one."""
    return int(time.time()) // 15 * 15 - 60 * MINUTES


def edge_life(start: int, instance: str = "edge:9100") -> Record:
    """MINUTES of an edge node that is not the testbed, in which no scrape is missed and a UE is attached."""
    lives = (simulate(seed, start, 60 * MINUTES) for seed in range(100))
    samples = next(
        life
        for life in lives
        if len(life[MEMORY_FREE]) == len(life[RX_CPU]) == SLOTS
        if len({point["value"] for point in life[DOWNLINK]}) > 1
    )
    for points in samples.values():
        for point in points:
            for tag, names in (("cpu", CPUS), ("device", DEVICES)):
                if tag in point:
                    point[tag] = names[point[tag]]
            if point["job"] == "node":
                point["instance"] = instance
    return samples


def of_host(samples: Record) -> Record:
    return {name: points for name, points in samples.items() if name.startswith(NODE_SERIES)}


def write_lines(database: Database, lines: Iterable[str]) -> None:
    """Store points of the line protocol, as Telegraf does."""
    database.client.write("\n".join(lines), params={"db": database.name}, protocol="line")


def collected(run: Run, node_file: Path, folder: Path) -> list[dict[str, str]]:
    """The records that the node file collects; none has a gap."""
    done = run("--node_file", node_file, "--output", folder / "normal.csv", mode="collect")
    assert done.returncode == 0, done.stderr
    assert "gap:" not in done.stdout
    return list(csv.DictReader((folder / "normal.csv").read_text().splitlines()))


def described(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def instances(node: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in node.items() if key.endswith("_instance")}


# What is said of edge_life(), beside a load and threads of Go.
REMARKS = [
    "recognised amarisoft: cpu, cpu_rx, cpu_tx, net_down, net_up, net_5g_down, net_5g_up, mem",
    "CPUs: 2, 10",
    "interfaces of the host itself that are left out: docker0",
    "interfaces: eno1, wwan0",
    "what else is there:",
    "  node_load1: tags instance, job",
    "  go_threads: tags instance, job",
]
HOST = {"cpus": ["2", "10"], "interfaces": ["eno1", "wwan0"], "total_memory_bytes": 8228077568}


# --- stacks --------------------------------------------------------------------------------------


def test_an_unknown_edge_node_is_described_and_its_file_collects(
    describe: Run, influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    samples = edge_life(recent_start())
    write_samples(database.client, samples)
    load = [{**point, "value": 0.5} for point in samples[MEMORY_FREE]]
    write_samples(database.client, {"node_load1": load, "go_threads": load})
    output = tmp_path / "node.json"
    done = describe("--output", output)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        *REMARKS,
        f"{output} was written",
        f"next: python find_anomalies.py --mode train --evaluate --node_file {output} --since 3d"
        f" --influx_host {influxd.host} --influx_port {influxd.port} --influx_db {database.name}",
    ]
    assert json.loads(output.read_text()) == {
        **HOST,
        "cell_id": "2",
        "node_instance": "edge:9100",
        "ran_instance": "gnb:9099",
    }
    records = collected(describe, output, tmp_path)
    assert len(records) == SLOTS
    assert {"cpu_user_10_percentage", "wwan0_received_rate", "dl_bytes_rate"} <= records[0].keys()


def test_a_host_without_a_ran_is_described_and_its_file_collects(
    describe: Run, database: Database, tmp_path: Path
) -> None:
    write_samples(database.client, of_host(edge_life(recent_start())))
    node = described(describe())
    metrics = {"cpu": {}, "net_down": {}, "net_up": {}, "mem": {}}
    assert node == {**HOST, "node_instance": "edge:9100", "metrics": metrics}
    (tmp_path / "node.json").write_text(json.dumps(node))
    records = collected(describe, tmp_path / "node.json", tmp_path)
    assert len(records) == SLOTS
    assert all(records[-1].values())


def test_of_two_nodes_the_first_is_described_and_the_other_can_be_chosen(
    describe: Run, database: Database, tmp_path: Path
) -> None:
    start = recent_start()
    for instance in ("edge-b:9100", "edge-a:9100"):
        write_samples(database.client, of_host(edge_life(start, instance)))
    done = describe()
    assert described(done)["node_instance"] == "edge-a:9100"
    wish = '{"node_instance": "edge-b:9100"}'
    choice = (
        "node_instance is edge-a:9100; there is also edge-b:9100;"
        f" for another one give a file with {wish} as --node_file"
    )
    assert choice in done.stderr.splitlines()
    (tmp_path / "wish.json").write_text(wish)
    chosen = described(describe("--node_file", tmp_path / "wish.json"))
    assert chosen["node_instance"] == "edge-b:9100"
    (tmp_path / "wish.json").write_text('{"node_instance": "edge-c:9100"}')
    assert describe("--node_file", tmp_path / "wish.json") == (
        1,
        "",
        "find_anomalies.py: node_instance 'edge-c:9100' has had no sample in the last hour;"
        " there is edge-a:9100, edge-b:9100\n",
    )


def test_the_telegraf_of_ocudu_is_described_and_its_file_collects(
    describe: Run, database: Database, tmp_path: Path
) -> None:
    start = recent_start()
    lines = []
    for i in range(0, 60 * MINUTES, 5):
        ns = (start + i) * SECOND
        lines += [
            f"cell,host=gnb1 pci=1,average_latency={3 + i % 4},max_latency=41 {ns}",
            f"app_resource_usage,host=gnb1 cpu_usage_percent={143 + i % 7},mem_total_mb={1000 + i % 9} {ns}",
            f"ue,host=gnb1,pci=1,rnti={17921 + i // 200} dl_brate={i}000,ul_brate={i}00,pusch_snr_db=-2.5,"
            f"ul_nof_nok={i % 3} {ns}",
        ]
    write_lines(database, lines)
    done = describe()
    node = described(done)
    assert {"ue", "app_resource_usage"} <= {one["measurement"] for one in node["metrics"].values()}
    assert "mem_total_mb" in {one.get("field") for one in node["metrics"].values()}
    assert done.stderr.startswith("recognised ocudu: ")
    (tmp_path / "node.json").write_text(json.dumps(node))
    records = collected(describe, tmp_path / "node.json", tmp_path)
    assert len(records) == SLOTS
    assert records[0].keys() == {"time", *load_node(tmp_path / "node.json").metrics}


def test_each_network_function_of_open5gs_has_its_own_instance(describe: Run, database: Database) -> None:
    start = recent_start()

    def points(instance: str) -> list[dict[str, Any]]:
        return [
            {"time": (start + 15 * i) * SECOND, "value": float(i), "instance": instance, "job": "open5gs"}
            for i in range(SLOTS)
        ]

    amf, upf = "127.0.0.5:9090", "127.0.0.7:9090"
    names = ("ran_ue", "fivegs_amffunction_rm_reginitreq", "fivegs_amffunction_rm_reginitsucc")
    write_samples(database.client, of_host(edge_life(start)))
    write_samples(database.client, {name: points(amf) for name in names})
    write_samples(database.client, {"fivegs_upffunction_upf_sessionnbr": points(upf)})
    node = described(describe())
    assert instances(node) == {"node_instance": "edge:9100", "amf_instance": amf, "upf_instance": upf}
    assert {one: node[one] for one in HOST} == HOST


def test_a_database_without_a_known_stack_gives_an_example(describe: Run, database: Database) -> None:
    now = int(time.time()) * SECOND
    write_lines(database, [f"room_{i},floor=a celsius=21.5,\x1bok=true {now}" for i in range(10, 35)])
    done = describe()
    assert (done.returncode, done.stdout) == (1, "")
    first, *lines, more, error = done.stderr.splitlines()
    assert first == "what else is there:"
    assert lines == [f"  room_{i}: fields ?ok, celsius; tag floor" for i in range(10, 30)]
    assert more == "  and 5 more measurements"
    assert error.endswith(
        f"database {database.name} has no current samples of a stack that is known; describe the metrics by"
        ' hand (docs/describe.md), like {"metrics": {"room_10_celsius": {"measurement": "room_10",'
        ' "field": "celsius"}}}'
    )


# --- Prometheus and VictoriaMetrics --------------------------------------------------------------


@pytest.fixture(scope="module", params=("prometheus", "victoria-metrics"))
def scraping(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    with PrometheusServer(tmp_path_factory.mktemp(request.param), request.param) as server:
        yield server


def test_a_survey_of_prometheus_waits_as_long_as_one_of_influxdb(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stores.SURVEY_TIMEOUT_SECONDS == 30
    monkeypatch.setattr(stores, "SURVEY_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        source = ("--source", "prometheus", "--prometheus_url", url)
        done = run_here("--mode", "describe", *source, cwd=ROOT, environment={})
    assert done.returncode == 1
    assert f"Prometheus at {url} did not answer within 0.2 s; check the server" in done.stderr


def test_what_prometheus_holds_is_described_and_its_file_collects(
    scraping: PrometheusServer, tmp_path: Path
) -> None:
    def run(*arguments: object, mode: str = "describe") -> Done:
        source = ("--source", "prometheus", "--prometheus_url", scraping.url)
        return run_here("--mode", mode, *source, *arguments, cwd=ROOT, environment={})

    empty = run()
    assert (empty.returncode, empty.stdout) == (1, "")
    assert f"Prometheus at {scraping.url} is empty; check that it scrapes the exporters" in empty.stderr
    samples = edge_life(recent_start())
    load = [{**point, "value": 0.5} for point in samples[MEMORY_FREE]]
    remote_write(scraping.url, {**samples, "node_load1": load, "go_threads": load})
    output = tmp_path / "node.json"
    done = run("--output", output)
    assert done.stderr.splitlines() == [
        *REMARKS,
        f"{output} was written",
        f"next: python find_anomalies.py --mode train --evaluate --node_file {output} --since 3d"
        f" --source prometheus --prometheus_url {scraping.url}",
    ]
    assert json.loads(output.read_text()) == {
        **HOST,
        "cell_id": "2",
        "node_instance": "edge:9100",
        "ran_instance": "gnb:9099",
    }
    assert len(collected(run, tmp_path / "node.json", tmp_path)) == SLOTS
    # More series than are read, of nodes of which each has four CPUs.
    now = int(time.time()) * SECOND
    names = [f"a{i}:9100" for i in range(MOST_FOUND // 4 + 10)]
    many = [
        {"time": now, "value": 1.0, "cpu": str(cpu), "mode": "user", "instance": name, "job": "node"}
        for name in names
        for cpu in range(4)
    ]
    remote_write(scraping.url, {CPU_SECONDS: many})
    (tmp_path / "wish.json").write_text('{"node_instance": "a3:9100"}')
    chosen = described(run("--node_file", tmp_path / "wish.json"))
    assert (chosen["node_instance"], chosen["cpus"]) == ("a3:9100", ["0", "1", "2", "3"])


# --- what is there now ---------------------------------------------------------------------------


def test_a_recording_of_long_ago_is_described_with_its_date(describe: Run, database: Database) -> None:
    write_samples(database.client, edge_life(1_700_000_010))
    done = describe()
    assert instances(described(done)) == {"node_instance": "edge:9100", "ran_instance": "gnb:9099"}
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("the newest sample")]
    assert line.startswith("the newest sample is of 2023-11-14T22:")


def test_series_that_ended_long_ago_are_not_offered(describe: Run, database: Database) -> None:
    start = recent_start()
    write_samples(database.client, edge_life(start - 7200, "old:9100"))
    write_samples(database.client, of_host(edge_life(start)))
    done = describe()
    node = described(done)
    assert instances(node) == {"node_instance": "edge:9100"}
    assert list(node["metrics"]) == ["cpu", "net_down", "net_up", "mem"]
    assert "old:9100" not in done.stderr


def test_a_text_among_the_numbers_is_named(describe: Run, database: Database) -> None:
    samples = edge_life(recent_start())
    del samples[RX_CPU]
    write_samples(database.client, samples)
    write_lines(database, [f'{RX_CPU},instance=gnb:9099 value="high"'])
    done = describe()
    assert "cpu_rx" not in described(done)["metrics"]
    assert (
        "cpu_rx of amarisoft is left out: the field value holds values of the type string, not numbers, in"
        " rx_cpu_time" in done.stderr.splitlines()
    )


def test_one_node_is_described_whole_among_more_series_than_are_read(
    describe: Run, database: Database
) -> None:
    now = int(time.time()) * SECOND
    names = [f"n{i}:9100" for i in range(MOST_FOUND // 4 + 10)]
    write_lines(
        database,
        [
            f"node_cpu_seconds_total,cpu={cpu},mode=user,instance={name} value=1 {now}"
            for name in names
            for cpu in range(4)
        ],
    )
    done = describe()
    assert described(done) == {
        "cpus": ["0", "1", "2", "3"],
        "node_instance": "n0:9100",
        "metrics": {"cpu": {}},
    }
    assert "node_instance is n0:9100; there are also n1:9100, n2:9100, n3:9100," in done.stderr


# --- what goes wrong -----------------------------------------------------------------------------


def test_an_empty_database_and_a_missing_one_are_told_apart(describe: Run, database: Database) -> None:
    empty, missing = describe(), describe(db="nowhere")
    assert (empty.returncode, empty.stdout) == (missing.returncode, missing.stdout) == (1, "")
    assert f"database {database.name} is empty; check that Prometheus or Telegraf writes" in empty.stderr
    assert "database nowhere does not exist; check --influx_db (there is " in missing.stderr
    assert database.name in missing.stderr
    assert "nowhere" not in {one["name"] for one in database.client.get_list_database()}


def test_a_file_that_is_there_is_kept(describe: Run, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{}")
    done = describe("--output", tmp_path / "node.json")
    assert done == (
        1,
        "",
        f"find_anomalies.py: {tmp_path}/node.json is there already, and may be edited; give --output another"
        " name\n",
    )
    assert (tmp_path / "node.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"node_instance": 5}', "'node_instance' must be like \"edge:9100\""),
        ('{"gnb_tags": {"host": 1}}', '\'gnb_tags\' must be like {"job": "node"}'),
        ('{"gnb_tags": "host"}', '\'gnb_tags\' must be like {"job": "node"}'),
        ('{"cell_id": ["2"]}', "'cell_id' must be like \"2\""),
    ],
)
def test_a_choice_that_is_not_one_is_refused(describe: Run, tmp_path: Path, content: str, fault: str) -> None:
    (tmp_path / "wish.json").write_text(content)
    done = describe("--node_file", tmp_path / "wish.json")
    assert done == (1, "", f"find_anomalies.py: {tmp_path}/wish.json: {fault}\n")


def test_a_server_that_is_away_is_one_line(describe: Run, influxd: Influxd) -> None:
    port = free_port(influxd.host)
    assert describe(port=port) == (
        1,
        "",
        f"find_anomalies.py: InfluxDB at {influxd.host}:{port} cannot be reached; check --influx_host,"
        " --influx_port and that it runs\n",
    )
