"""Which nodes a command works on, by its options, with a real InfluxDB."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from pathlib import Path

import pytest

from commands.command_line import parse_options
from commands.fleet import node_finder, node_folders, nodes_with_folder, selected_nodes, wait_for_nodes
from common.files import UserError
from edge.paths import DEFAULT_MODEL, stats_json
from lab.influxd import Influxd
from nodes.fleet import Named
from nodes.metrics import NODE, RAN
from nodes.node import DEFAULT_NODE
from service.systemd import Ending
from tests.nodes.test_finding import hosts, scraped
from tests.support.edge_daemon import SLOTS, lives
from tests.support.influx import Database, connect
from tests.support.program import run_here
from tests.support.prometheus_writer import write_samples
from tests.support.refusals import one_line

ROOT = Path(__file__).resolve().parents[2]


def options_of_test(influxd: Influxd, db_name: str, *words: str, **environment: str):
    server = [f"--influx_port={influxd.port}", f"--influx_db={db_name}"]
    return parse_options(["--mode=test", *server, *words], environment)[1]


@pytest.fixture
def three(database: Database) -> Database:
    """The nodes edge-1, edge-2 and edge-3."""
    write_samples(database.client, scraped(hosts("edge", 1, 2, 3)))
    write_samples(database.client, scraped(hosts("edge", 1, 2, 3), RAN, port=3333))
    return database


def test_without_the_option_there_is_the_one_node_without_a_name() -> None:
    # No server is asked.
    assert selected_nodes(parse_options(["--mode=test", "--influx_port=1"], {})[1]) == [
        Named("", DEFAULT_NODE)
    ]


def test_nodes_come_from_the_database_and_from_a_file(
    influxd: Influxd, three: Database, tmp_path: Path
) -> None:
    file, start = tmp_path / "nodes.json", tmp_path / "node.json"
    start.write_text('{"cpus": ["7"]}')
    file.write_text(json.dumps({"roof": {"node_instance": "edge-2:9100", "cell_id": 5}}))
    words = ["--node=edge-*", "--node=roof", f"--nodes_file={file}", f"--node_file={start}"]
    found = selected_nodes(options_of_test(influxd, three.name, *words))
    assert [(one.name, one.node.node_instance, one.node.cpus, one.node.cell_id) for one in found] == [
        ("edge-1", "edge-1:9100", ("7",), "2"),
        # Its node exporter is that of `roof`, and 9100 is where others have theirs.
        ("edge-2", "edge-2:9100", ("7",), "2"),
        ("edge-3", "edge-3:9100", ("7",), "2"),
        ("roof", "edge-2:9100", ("7",), "5"),
    ]


def test_a_description_of_one_node_is_refused_for_many(influxd: Influxd, tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    path.write_text('{"ran_instance": "edge-1:3333"}')
    with pytest.raises(UserError) as refusal:
        selected_nodes(options_of_test(influxd, "none", "--node=all", f"--node_file={path}"))
    assert one_line(refusal) == (
        f"{path}: 'ran_instance' is that of one node, but --node is given; leave it out, or write it to"
        " --nodes_file"
    )


def test_two_shards_of_the_documentation_watch_each_node_once(
    influxd: Influxd, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = [f"{site}-{number}" for site in ("milan", "rome", "turin") for number in range(1, 21)]
    for exporter in (NODE, RAN):
        write_samples(database.client, scraped(names, exporter))
    lines = re.findall(r'^FIND_ANOMALIES_NODE="(.*)"$', (ROOT / "docs/fleet.md").read_text(), re.MULTILINE)
    assert len(lines) == 2
    shards = [
        [
            one.name
            for one in selected_nodes(options_of_test(influxd, database.name, FIND_ANOMALIES_NODE=line))
        ]
        for line in lines
    ]
    assert sorted(shards[0] + shards[1]) == sorted(names)
    assert caplog.messages == ["--node selects 20 of 60 nodes", "--node selects 40 of 60 nodes"]


# --- folders -------------------------------------------------------------------------------------


def test_nodes_that_have_a_folder_need_no_database(tmp_path: Path) -> None:
    for name in ("edge-1", "edge-2", "rome", ".hidden", "all"):
        (tmp_path / name).mkdir()
    (tmp_path / "edge-9").touch()
    (tmp_path / "nodes.json").write_text('{"edge-2": {"cell_id": 8}}')
    assert node_folders(str(tmp_path)) == ["edge-1", "edge-2", "rome"]
    assert node_folders(str(tmp_path / "none")) == []
    words = [f"--nodes_dir={tmp_path}", f"--nodes_file={tmp_path / 'nodes.json'}"]

    def chosen(*names: str) -> list[tuple[str, str]]:
        given = parse_options(["--mode=train", *words, *(f"--node={name}" for name in names)], {})[1]
        return [(one.name, one.node.cell_id) for one in nodes_with_folder(given)]

    assert chosen("edge-*") == [("edge-1", "2"), ("edge-2", "8")]
    assert chosen("all") == [("edge-1", "2"), ("edge-2", "8"), ("rome", "2")]
    with pytest.raises(UserError) as refusal:
        chosen("rome", "edge-9")
    assert one_line(refusal) == (
        f"--node edge-9: no folder of {tmp_path} has this name; there is edge-1, edge-2, rome"
    )


def test_a_node_with_a_folder_that_is_silent_is_watched_and_told_once(
    influxd: Influxd, three: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "edge-7").mkdir()
    options = options_of_test(influxd, three.name, "--node=edge-*", f"--nodes_dir={tmp_path}")
    finder = node_finder(options, is_live=True)
    for _ in range(2):
        found = finder.find()
        assert [one.name for one in found] == ["edge-1", "edge-2", "edge-3", "edge-7"]
        assert found[-1].node == DEFAULT_NODE.watching({NODE: "edge-7:9100", RAN: "edge-7:3333"})
    assert caplog.messages == [
        "edge-7: no sample in the last hour; remove what is gone from --nodes_dir and --nodes_file"
    ]
    # There is nothing to collect from it.
    assert [one.name for one in selected_nodes(options)] == ["edge-1", "edge-2", "edge-3"]


def model_in(folder: Path) -> None:
    """Put the model that is shipped, and its thresholds, into the folder of a node."""
    folder.mkdir(parents=True)
    for name in ("h5", "tflite", "json"):
        shutil.copy(ROOT / f"{DEFAULT_MODEL}".replace("h5", name), folder / f"model.{name}")
    shutil.copy(ROOT / stats_json, folder / "model_normalization_stats.json")
    shutil.copy(ROOT / "data/thresholds.json", folder)


def test_each_node_is_judged_with_what_is_in_its_folder(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    begin = int(time.time()) // 15 * 15 - SLOTS * 15
    for host in ("edge-1", "edge-2", "edge-3"):
        for name, points in lives(begin, SLOTS, []).items():
            moved = [{**point, "instance": f"{host}:{point['instance'].split(':')[1]}"} for point in points]
            write_samples(database.client, {name: moved})
    for host in ("edge-1", "edge-2"):
        model_in(tmp_path / "nodes" / host)
    server = [
        f"--influx_port={influxd.port}",
        f"--influx_db={database.name}",
        f"--state_dir={tmp_path}/state",
    ]
    words = ["--mode=test", "--once", f"--state_dir={tmp_path}/state", *server]
    done = run_here(*words, "--node=edge-?", f"--nodes_dir={tmp_path}/nodes", cwd=ROOT, environment={})
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = [line.split(" ", 2)[2] for line in done.stderr.splitlines()]
    assert "INFO --node selects 3 of 3 nodes" in lines
    assert any(line.startswith("WARNING not watched, since there is no model: edge-3; ") for line in lines)
    assert any(re.match(r"INFO 3 nodes: .*1 without a model", line) for line in lines)
    # Without the option, they are counted.
    done = run_here(*words, f"--state_dir={tmp_path}/other", cwd=ROOT, environment={})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"find_anomalies.py: 3 nodes write to localhost:{influxd.port}, database {database.name} (edge-1,"
        " edge-2, edge-3); choose with --node NAME, or --node all"
    )


# --- a server that is away -----------------------------------------------------------------------


class StartsServer(logging.Handler):
    """Starts a server when its absence is logged."""

    def __init__(self, server: Influxd) -> None:
        super().__init__()
        self.server = server

    def emit(self, record: logging.LogRecord) -> None:
        if "cannot be reached" in record.getMessage():
            self.server.start()


def test_a_service_waits_for_a_server_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Influxd(tmp_path) as server:
        with connect(server) as client:
            client.create_database("db")
            client.switch_database("db")
            write_samples(client, scraped(hosts("edge", 1, 2)) | scraped(hosts("edge", 1, 2), RAN))
        server.stop()
        options = options_of_test(server, "db", "--node=all")
        place = f"InfluxDB at localhost:{server.port}"
        gone = f"{place} cannot be reached; check --influx_host, --influx_port and that it runs"
        with pytest.raises(UserError) as refusal:
            selected_nodes(options)
        assert one_line(refusal) == gone
        with pytest.raises(UserError) as refusal:
            wait_for_nodes(node_finder(options), True, Ending())
        assert one_line(refusal) == gone
        starts = StartsServer(server)
        logging.getLogger().addHandler(starts)
        try:
            found = wait_for_nodes(node_finder(options), False, Ending())
        finally:
            logging.getLogger().removeHandler(starts)
        assert [one.name for one in found] == ["edge-1", "edge-2"]
        assert caplog.messages == [
            gone,
            f"{place}: database db is reachable again",
        ]
