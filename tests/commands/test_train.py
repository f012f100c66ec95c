"""`--mode collect` and `--mode train` with --node, as a user runs them: a folder for each node."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import requests

from edge import sharing
from edge.bundle import load_bundle
from edge.datasets import load_records
from edge.paths import DEFAULT_MODEL, stats_json
from edge.shared_network import node_files
from lab.influxd import Influxd
from simulators.fleet import FleetSamples, fleet
from tests.support.influx import Database
from tests.support.program import Done, run_here

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND, SHORT = "node-0000", "node-0001", "node-0002"
HOUR = 3600


@pytest.fixture
def nodes_dir(influxd: Influxd, database: Database, tmp_path: Path) -> Path:
    """A folder of nodes, where one has a network. The database has an hour of two nodes, and less of one."""
    start = time.time() // 15 * 15 - HOUR
    twins = fleet(3, seed=1, differ=False)
    for span in (FleetSamples(twins[:2], start, HOUR), FleetSamples(twins[2:], start + HOUR - 300, 300)):
        for text in span.lines(0, span.slots):
            url = f"http://{influxd.host}:{influxd.port}/write?db={database.name}"
            requests.post(url, text.encode(), timeout=10).raise_for_status()
    files = node_files(tmp_path / "nodes", "taught")
    files.model.parent.mkdir(parents=True)
    for ending in (".h5", ".tflite", ".json"):
        shutil.copy((ROOT / DEFAULT_MODEL).with_suffix(ending), files.model.with_suffix(ending))
    shutil.copy(ROOT / stats_json, files.model.with_name("model_normalization_stats.json"))
    return tmp_path / "nodes"


def run(influxd: Influxd, database: Database, nodes_dir: Path, *words: object) -> Done:
    server = ["--influx_host", influxd.host, "--influx_port", influxd.port, "--influx_db", database.name]
    given = server if "collect" in words or "--since" in words else []
    jobs = ["--jobs", 1] if "--jobs" not in words else []
    with pytest.MonkeyPatch.context() as patch:
        # One that is there needs no fitting.
        patch.setattr(sharing, "fitted", None)
        patch.setattr(sharing, "NODE_TRIES", 2)
        return run_here("--nodes_dir", nodes_dir, *words, *given, *jobs, cwd=ROOT, environment={"TZ": "UTC"})


def test_nodes_are_collected_and_trained_with_the_network_that_is_there(
    influxd: Influxd, database: Database, nodes_dir: Path
) -> None:
    done = run(influxd, database, nodes_dir, "--mode", "collect", "--node", "all", "--since", "2h")
    assert done.returncode == 0, done.stderr
    for name, records in {FIRST: 240, SECOND: 240, SHORT: 20}.items():
        assert len(load_records(node_files(nodes_dir, name).trainset)) == records
    assert done.stdout == (
        f"{nodes_dir}: 3 of 3 nodes were collected, 500 records in all\n"
        "next: python find_anomalies.py --mode train --node all\n"
    )

    done = run(influxd, database, nodes_dir, "--mode", "train", "--node", FIRST, "--node", SHORT)
    # The change of a rate is known from the third record on.
    fault = f"{node_files(nodes_dir, SHORT).trainset} has only 15 sequences of 4 records without gaps"
    assert f"ERROR {SHORT}: {fault}; collect at least a day of records\n" in done.stderr
    assert done.stderr.endswith("1 of 2 nodes could not be trained; the log says why\n")
    assert done.returncode == 1
    shared = f"{nodes_dir}: 1 of 2 nodes were trained; they share 1 network that was there before\n"
    assert done.stdout == shared
    first, taught = (node_files(nodes_dir, name) for name in (FIRST, "taught"))
    assert os.stat(first.model).st_ino == os.stat(taught.model).st_ino
    bundle = load_bundle(first.model)
    assert bundle.stats["mem_percentage_max"] == load_records(first.trainset)["mem_percentage"].max()
    assert json.loads(first.thresholds.read_text()).keys() == set(bundle.metrics.threshold_keys.values())
    assert not node_files(nodes_dir, SHORT).model.exists()


def test_a_new_node_is_collected_first(influxd: Influxd, database: Database, nodes_dir: Path) -> None:
    words = ("--mode", "train", "--node", SECOND, "--since", "30m")
    done = run(influxd, database, nodes_dir, *words)
    assert done.returncode == 0, done.stderr
    files = node_files(nodes_dir, SECOND)
    # Half an hour touches 121 slots.
    assert len(load_records(files.trainset)) == 121
    assert load_bundle(files.model).habits is not None
    # What it has stays, and what came before and after is added.
    done = run(influxd, database, nodes_dir, *words[:-1], "2h")
    assert done.returncode == 0, done.stderr
    assert "records up to" in done.stderr
    assert "; there were 121\n" in done.stderr
    assert len(load_records(files.trainset)) == 240


def test_a_dataset_that_is_there_is_not_replaced(
    influxd: Influxd, database: Database, nodes_dir: Path
) -> None:
    there = node_files(nodes_dir, SECOND).trainset
    there.parent.mkdir()
    there.write_text("what somebody recorded")
    words = ("--mode", "collect", "--node", "node-*", "--since", "2h")
    done = run(influxd, database, nodes_dir, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        f"{there}: is there already, as are those of 1 of 3 nodes in all; --add adds to them, or remove those"
        " that are to be collected anew\n"
    )
    assert not node_files(nodes_dir, FIRST).trainset.exists()
    # With it, one that cannot be added to stops no other, and stays.
    done = run(influxd, database, nodes_dir, *words, "--add")
    assert done.returncode == 1
    assert f"ERROR {SECOND}: {there}: " in done.stderr
    assert done.stderr.endswith("1 of 3 nodes could not be collected; the log says why\n")
    assert done.stdout == f"{nodes_dir}: 2 of 3 nodes were collected, 260 records in all\n"
    assert there.read_text() == "what somebody recorded"


def test_two_processes_collect_what_one_does_and_alike_gaps_are_one_line(
    influxd: Influxd, database: Database, tmp_path: Path
) -> None:
    start = time.time() // 15 * 15 - 600
    span = FleetSamples(fleet(6, seed=1, differ=False), start, 600)
    for text in span.lines(0, span.slots):
        url = f"http://{influxd.host}:{influxd.port}/write?db={database.name}"
        requests.post(url, text.encode(), timeout=10).raise_for_status()
    description = tmp_path / "node.json"
    description.write_text('{"cpus": ["0", "1", "7"]}')
    datasets = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        words = ("--mode", "collect", "--node", "all", "--since", "1h", "--node_file", description)
        done = run(influxd, database, folder, *words, "--jobs", jobs)
        assert done.stdout.startswith(f"{folder}: 6 of 6 nodes were collected, 240 records in all\n")
        assert (
            "6 nodes (node-0000, node-0001, node-0002 and 3 more), such as node-0000: gap:"
            " node_cpu_seconds_total{cpu=7} is missing in 40 of 40 records: check --node_file\n"
        ) in done.stderr
        assert done.stderr.count("gap:") == 1
        datasets.append({path.name: (path / "normal.csv").read_bytes() for path in folder.iterdir()})
    assert datasets[0] == datasets[1]
