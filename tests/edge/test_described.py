"""A node of described metrics, from a CSV file of somebody's own to verdicts: no code knows its columns."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from common.times import format_time
from edge.bundle import load_bundle
from edge.datasets import load_records
from edge.scores import Scores, score_dataset
from find_anomalies import main
from lab.influxd import Influxd
from nodes.metrics import MetricTable
from nodes.node import load_node
from tests.support.influx import connect
from tests.support.training import quickly

START = 1_740_009_600  # 2025-02-20T00:00:00Z
INTERVAL = 15
RECORDS, ATTACKED = 600, 8
METRICS_FILE = {
    "temperature": {"unit": "°C"},
    "pressure": {"unit": "bar", "direction": "down", "least": 0.5},
    "idle": {"kind": "counter", "unit": "packets/s"},
}


def life(seed: int = 5) -> pd.DataFrame:
    """The temperature goes up and down by 3 around 20; the pressure is 4.00 give or take 0.05."""
    rng = np.random.default_rng(seed)
    hours = np.arange(RECORDS) * INTERVAL / 3600
    return pd.DataFrame(
        {
            "temperature": 20 + 3 * np.sin(2 * np.pi * hours / 0.5) + 0.1 * rng.standard_normal(RECORDS),
            "pressure": 4 + 0.05 * rng.standard_normal(RECORDS),
            "idle": 0.0,
        }
    )


def write(path: Path, frame: pd.DataFrame, start: int = START) -> Path:
    times = [format_time((start + i * INTERVAL) * 10**9) for i in range(len(frame))]
    frame.assign(time=times).set_index("time").to_csv(path)
    return path


def attacked(column: str, by: float) -> pd.DataFrame:
    """Other records, the last of which differ by so much."""
    frame = life(6)
    frame.loc[RECORDS - ATTACKED :, column] += by
    return frame


class Folder(NamedTuple):
    """Where a person has put a node file and a CSV file, and trained. said, printed: what training told."""

    path: Path
    said: str
    printed: str

    @property
    def options(self) -> list[str]:
        """What each command is given."""
        names = {"node_file": "node.json", "model": "edge.h5", "thresholds_file": "thresholds.json"}
        return [text for name, file in names.items() for text in (f"--{name}", str(self.path / file))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """One training of a small network, by the command."""
    folder = Folder(tmp_path_factory.mktemp("own"), "", "")
    (folder.path / "node.json").write_text(json.dumps({"metrics": METRICS_FILE}))
    write(folder.path / "normal.csv", life())
    said, printed = folder.path / "said.txt", folder.path / "printed.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        quickly(patch)
        arguments = ["--mode", "train", "--evaluate", "--trainset", "normal.csv", *folder.options]
        log = logging.FileHandler(said)
        logging.getLogger().addHandler(log)
        with printed.open("w") as stdout, contextlib.redirect_stdout(stdout):
            ended = main([*arguments, "--epochs", "20"])
        logging.getLogger().removeHandler(log)
        log.close()
        assert ended == 0, said.read_text()
        yield Folder(folder.path, said.read_text(), printed.read_text())


def test_training_names_what_never_changes_and_leaves_it_out(trained: Folder) -> None:
    line = (
        "the training set (--trainset) has the constant value 0 for idle, which cannot be learnt; idle is not"
        " watched: collect a longer time in which it changes"
    )
    assert line in trained.said
    identity = json.loads((trained.path / "edge.json").read_text())
    assert identity["constant_metrics"] == ["idle"]
    assert identity["features"] == ["temperature_rate", "pressure_rate", "temperature", "pressure"]
    assert identity["metrics"] == {
        "temperature": {"features": ["temperature_rate", "temperature"], "unit": "°C"},
        "pressure": {
            "features": ["pressure_rate", "pressure"],
            "unit": "bar",
            "direction": "down",
            "least": 0.5,
        },
    }
    keys = ["temperature_threshold", "pressure_threshold", "overall_threshold"]
    assert list(json.loads((trained.path / "thresholds.json").read_text())) == keys
    rows = [line.split()[0] for line in trained.printed.splitlines() if "_threshold" in line]
    assert rows == keys
    # What is found of a pressure that matters downwards is a fall.
    (row,) = [line for line in trained.printed.splitlines() if line.startswith("pressure_threshold")]
    assert " -" in row and " +" not in row


def test_the_change_since_the_record_before_is_derived_on_loading(trained: Folder) -> None:
    frame = load_records(trained.path / "normal.csv", metrics=load_node(trained.path / "node.json").metrics)
    levels = life()["temperature"]
    assert np.isnan(frame["temperature_rate"].iloc[0])
    expected = levels.to_numpy()[1:] - levels.to_numpy()[:-1]
    np.testing.assert_allclose(frame["temperature_rate"].to_numpy()[1:], expected, atol=1e-9)
    assert "idle_rate" not in frame


def anomalies(trained: Folder, frame: pd.DataFrame, capfd: pytest.CaptureFixture) -> list[dict]:
    """What a replay prints of the records that differ."""
    write(trained.path / "other.csv", frame)
    capfd.readouterr()
    assert main(["--mode", "test", "--replay", str(trained.path / "other.csv"), *trained.options]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    begin = format_time((START + (RECORDS - ATTACKED) * INTERVAL) * 10**9)
    return [one for one in found if one["time"] >= begin]


@pytest.mark.parametrize(
    ("column", "by", "count", "cause"),
    [
        ("temperature", 15, ATTACKED, "temperature"),
        ("temperature", -15, ATTACKED, "temperature"),
        ("pressure", -2, ATTACKED, "pressure"),
        # It matters downwards only, and 0.4 bar is less than what is worth saying.
        ("pressure", 2, 0, ""),
        ("pressure", -0.4, 0, ""),
        # It is not watched.
        ("idle", 1e6, 0, ""),
    ],
)
def test_a_replay_finds_what_counts(
    column: str, by: float, count: int, cause: str, trained: Folder, capfd: pytest.CaptureFixture
) -> None:
    frame = attacked(column, by)
    found = anomalies(trained, frame, capfd)
    assert len(found) == count
    assert {one["possible_cause"] for one in found} == ({cause} if cause else set())
    for one in found[-1:]:
        last = frame.iloc[-1]
        assert one["values"] == {
            "temperature": pytest.approx(last["temperature"], abs=1e-4),
            "pressure": pytest.approx(last["pressure"], abs=1e-4),
        }


def scores_of(trained: Folder, by: float, **changes: object) -> Scores:
    """Scores of records whose pressure differs in the end, by a description that differs in `changes`."""
    metrics = load_node(trained.path / "node.json").metrics
    bundle = load_bundle(trained.path / "edge.h5", metrics)
    rows = [replace(row, **changes) if row.name == "pressure" else row for row in bundle.metrics.rows]
    table = MetricTable(tuple(rows))
    write(trained.path / "scored.csv", attacked("pressure", by))
    frame = load_records(trained.path / "scored.csv", metrics=table)
    return score_dataset(replace(bundle, metrics=table), frame)


def test_a_deviation_that_does_not_count_has_no_error_at_all(trained: Folder) -> None:
    place = 1
    for by, changes, counts in (
        (-2.0, {}, True),
        (2.0, {}, False),
        (2.0, {"direction": "up"}, True),
        (-2.0, {"direction": "both"}, True),
        (-0.4, {}, False),
        (-0.4, {"least": 0.2}, True),
        (-2.0, {"least": 3.0}, False),
    ):
        scores = scores_of(trained, by, **changes)
        error = scores.judged[1][-1, place]
        assert (error > 0.5) if counts else (error == 0.0), (by, changes)
        # What lasts is measured from the middle of what is usual, which the least deviation is not.
        assert (scores.lasting[-1, place] > 0) == counts, (by, changes)


def test_a_level_below_zero_is_as_far_from_what_is_expected_as_it_is(trained: Folder) -> None:
    # 4 bar are expected.
    for by, counts in ((-4.4, True), (-40.0, True)):
        assert (scores_of(trained, by, least=4.2).judged[1][-1, 1] > 0.5) == counts
    assert scores_of(trained, -3.9, least=4.2).judged[1][-1, 1] == 0.0


def test_a_model_of_another_description_is_refused_with_what_differs(
    trained: Folder, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for change, difference in (
        (
            {"pressure": METRICS_FILE["pressure"] | {"scale": 1000}},
            "its pressure has the scale of default, not 1000); train it again",
        ),
        (
            {"pressure": METRICS_FILE["pressure"] | {"unit": "hPa"}},
            'its pressure has the unit "bar", not "hPa"); train it again',
        ),
        ({"wind": {}}, "it has no wind"),
    ):
        node_file = tmp_path / "node.json"
        node_file.write_text(json.dumps({"metrics": METRICS_FILE | change}))
        options = ["--replay", str(trained.path / "normal.csv"), *trained.options[2:]]
        assert main(["--mode", "test", *options, "--node_file", str(node_file)]) == 1
        assert f"was trained for other metrics ({difference}" in capfd.readouterr().err
    assert main(["--mode", "test", *options]) == 1
    assert "was trained for other metrics (it has no cpu, " in capfd.readouterr().err
    node_file.write_text(json.dumps({"metrics": dict(reversed(METRICS_FILE.items()))}))
    assert main(["--mode", "test", *options, "--node_file", str(node_file)]) == 1
    assert "in another order (temperature, pressure); write them so in --node_file" in capfd.readouterr().err


def test_which_deviations_count_can_change_without_a_new_training(
    trained: Folder, tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    node_file = tmp_path / "node.json"
    changed = METRICS_FILE["pressure"] | {"direction": "up", "least": 1}
    node_file.write_text(json.dumps({"metrics": METRICS_FILE | {"pressure": changed}}))
    write(tmp_path / "other.csv", attacked("pressure", 2))
    options = ["--replay", str(tmp_path / "other.csv"), *trained.options[2:], "--node_file", str(node_file)]
    assert main(["--mode", "test", *options]) == 0
    found = [json.loads(line)["possible_cause"] for line in capfd.readouterr().out.splitlines()]
    assert found == ["pressure"] * ATTACKED
    # What is not watched is said whenever the model is used.
    assert f"{trained.path / 'edge.h5'}: not watched, since it never changed in the training set: idle;" in (
        caplog.text
    )


def test_coming_back_is_no_deviation(trained: Folder, capfd: pytest.CaptureFixture) -> None:
    """The pressure matters downwards; it is up for a while, and then as usual."""
    frame = life(6)
    frame.loc[RECORDS - ATTACKED : RECORDS - 3, "pressure"] += 2
    assert anomalies(trained, frame, capfd) == []


def test_the_thresholds_of_the_description_are_checked(trained: Folder, capfd: pytest.CaptureFixture) -> None:
    path = trained.path / "thresholds.json"
    before = path.read_text()
    # A threshold of what is not watched stays where a person left it.
    path.write_text(json.dumps(json.loads(before) | {"idle_threshold": 3}))
    trainset = ["--trainset", str(trained.path / "normal.csv")]
    assert main(["--check_thresholds", *trainset, *trained.options]) == 0
    rows = capfd.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[1:4]] == [
        "temperature_threshold",
        "pressure_threshold",
        "overall_threshold",
    ]
    path.write_text(json.dumps({"cpu_threshold": 1}))
    assert main(["--check_thresholds", *trainset, *trained.options]) == 1
    line = "unknown key 'cpu_threshold'; the keys are temperature_threshold, pressure_threshold, idle_thr"
    assert line in capfd.readouterr().err
    path.write_text(before)


def test_a_node_file_that_training_would_overwrite_is_refused(
    trained: Folder, capfd: pytest.CaptureFixture
) -> None:
    model = str(trained.path / "node.h5")
    options = ["--trainset", str(trained.path / "normal.csv"), *trained.options[:2], *trained.options[4:]]
    assert main(["--mode", "train", "--model", model, *options]) == 1
    assert f"node.json: the model {model} has a file of this name" in capfd.readouterr().err
    assert json.loads((trained.path / "node.json").read_text()) == {"metrics": METRICS_FILE}


def test_the_service_watches_what_the_model_knows(
    trained: Folder, influxd: Influxd, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    now = int(time.time()) // INTERVAL * INTERVAL
    frame = attacked("temperature", 15).iloc[-120:]
    with connect(influxd) as client:
        client.create_database("described")
        # The idle interface is not even in the database any more.
        client.write_points(
            [
                {
                    "measurement": name,
                    "time": (now - (len(frame) - i) * INTERVAL) * 10**9,
                    "fields": {"value": float(value)},
                }
                for name in ("temperature", "pressure")
                for i, value in enumerate(frame[name])
            ],
            time_precision="n",
            database="described",
        )
        place = [
            "--influx_host",
            influxd.host,
            "--influx_port",
            str(influxd.port),
            "--influx_db",
            "described",
        ]
        state = ["--state_dir", str(tmp_path / "state")]
        assert main(["--mode", "test", "--once", *place, *state, *trained.options]) == 0
        (point,) = client.query('SELECT * FROM "detected_anomalies"', database="described").get_points()
        client.drop_database("described")
    assert (point["possible_cause"], point["severity"]) == ("temperature", "alert")
    assert point["temperature"] == pytest.approx(frame["temperature"].iloc[-1])
    assert point["pressure"] == pytest.approx(frame["pressure"].iloc[-1])
    assert set(point) == {"time", "possible_cause", "severity", "temperature", "pressure"}
