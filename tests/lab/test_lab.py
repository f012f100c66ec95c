"""The lab as a user meets it: a short run on real parts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from edge.datasets import loadDataset
from lab.report import table
from tests.support.lab_runs import ROOT, prepare
from tests.support.load import OtherLoad
from tests.support.metrics import MEASUREMENTS

CONFIG = ROOT / "deploy/prometheus.yml"
# The lab attacks this machine and watches it: nothing else may go on here meanwhile.
pytestmark = pytest.mark.alone
# It takes three minutes; a machine that is busy with other things may take longer.
SHORT_SECONDS = 420
PNG = b"\x89PNG\r\n\x1a\n"


class ShortRun(NamedTuple):
    done: subprocess.CompletedProcess[str]
    folder: Path
    result: dict[str, Any]
    other_load: OtherLoad


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    """`--short`, with a life in which the gNB goes on as it did in the time that is trained on.

    In that of other seeds it soon does what it never did before, and is rightly flagged for it.
    """
    output = tmp_path_factory.mktemp("lab")
    other_load = OtherLoad()
    with other_load.excuses():
        with other_load:
            done = prepare("--short", "--seed", 3, "--output_dir", output).run(SHORT_SECONDS)
        assert done.returncode == 0, done.stderr
    (folder,) = output.iterdir()
    return ShortRun(done, folder, json.loads((folder / "lab.json").read_text()), other_load)


def test_short_run_finds_both_attacks_with_their_true_causes(short_run: ShortRun) -> None:
    rows = short_run.result["ours"]["attacks"]
    assert [(row["attack"], row["true_causes"]) for row in rows] == [
        ("all CPUs", ["cpu"]),
        ("TCP up", ["net_up"]),
    ]
    with short_run.other_load.excuses():
        for row in rows:
            assert row["is_found"]
            assert set(row["true_causes"]) <= set(row["causes"])
            assert 1 <= row["polls_to_first"] <= row["records"]
            assert row["seconds_to_alert"] is not None
            assert 0 <= row["seconds_to_first"] <= row["seconds_to_alert"]
        assert short_run.result["ours"]["found"] == 2


def test_short_run_attacked_a_host_that_lived(short_run: ShortRun) -> None:
    frame = loadDataset(short_run.folder / "data/run.csv")
    life = loadDataset(short_run.folder / "data/normal.csv")
    # What lab/life.py says, and beside it what the lab itself takes.
    with short_run.other_load.excuses():
        assert life["cpu_user_percentage"].median() < 60
    assert life["cpu_user_percentage"].median() > 4
    assert 0.5e6 < life["bytes_received_rate"].median() < 5e6
    assert 0.2e6 < life["bytes_transmitted_rate"].median() < 2e6
    for row, column, level in zip(
        short_run.result["ours"]["attacks"],
        ("cpu_user_percentage", "bytes_transmitted_rate"),
        (80, 10e6),
        strict=True,
    ):
        start, end = (pd.Timestamp(row[key]) for key in ("start", "end"))
        attacked = frame.loc[(frame.index >= start) & (frame.index < end), column]
        with short_run.other_load.excuses():
            assert 8 <= row["records"] <= 16
            assert attacked.median() > level


def test_short_run_stored_what_test_mode_said(short_run: ShortRun) -> None:
    result = short_run.result
    assert result["anomalies_published"] == result["anomalies_stored"]
    with short_run.other_load.excuses():
        assert result["anomalies_stored"] > 0
    said = (short_run.folder / "test_mode.log").read_text()
    assert len(re.findall(r' INFO \{"time": ', said)) == result["anomalies_published"]
    assert result["measurements"] == sorted([*MEASUREMENTS, "detected_anomalies"])


def test_short_run_prints_its_tables_and_nothing_else(short_run: ShortRun) -> None:
    result = short_run.result
    assert short_run.done.stdout == (
        f"{table(result['ours'])}\n\n"
        "The same records by the documented rule, window RMSE over its threshold alone:\n\n"
        f"{table(result['documented_rule'])}\n\n"
        f"anomalies published: {result['anomalies_published']}, stored in InfluxDB:"
        f" {result['anomalies_stored']}\n"
    )
    assert "Traceback" not in short_run.done.stderr
    lines = short_run.done.stdout.splitlines()
    assert re.fullmatch(r"attack +polls to first .* causes given +true causes +found", lines[0])
    with short_run.other_load.excuses():
        assert re.fullmatch(r"all CPUs +\d+ +[\d.]+ +[\d.]+ +\d+ +[\d.]+  .*\bcpu\b.*  cpu +yes", lines[1])
        assert re.fullmatch(
            r"TCP up +\d+ +[\d.]+ +[\d.]+ +\d+ +[\d.]+  .*\bnet_up\b.*  net_up +yes", lines[2]
        )


def test_short_run_draws_its_timeline_and_its_alerts(short_run: ShortRun) -> None:
    pictures = [short_run.folder / "timeline.png", *(short_run.folder / "alerts").glob("*.png")]
    with short_run.other_load.excuses():
        assert len(pictures) >= 2
    for picture in pictures:
        content = picture.read_bytes()
        assert (content[:8], content[-8:-4], len(content) > 10_000) == (PNG, b"IEND", True), picture


def test_short_run_used_the_shipped_configuration_and_kept_no_database(short_run: ShortRun) -> None:
    used = (short_run.folder / "prometheus.yml").read_text()
    assert used.replace("scrape_interval: 1000ms", "scrape_interval: 15s") == CONFIG.read_text() != used
    assert not (short_run.folder / "influxdb").exists()
    assert not (short_run.folder / "prometheus").exists()
