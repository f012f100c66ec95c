"""The nightly and the hourly job as they are called: files and InfluxDB in, models, lines and points out."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import numpy as np
import pytest
from influxdb import InfluxDBClient

import find_anomalies
from commands.options import PORT_DETECTORS
from common.files import UnavailableError, UserError
from common.times import last_midnight
from lab.influxd import free_port
from parallel.cluster import Cluster, in_parallel
from parallel.project import pack_project
from ports import detectors, models
from ports.faults import faults_of
from ports.hourly import seconds_to_next
from ports.judging import JudgingSettings, judge_new
from ports.samples import Limits
from ports.sources import Database as Source
from ports.state import JobState, load_state
from ports.training import TrainingSettings, train
from tests.support.dask_cluster import dask_cluster
from tests.support.influx import Database, asked_by
from tests.support.port_series import DAY, START, change, moment, samples, write

ROOT = Path(__file__).resolve().parents[2]
# Four weeks of training, and the Wednesday after them.
TRAINED_UNTIL = "2023-02-01T00:00:00Z"
FLOOD = ("2023-02-01T10:00", "2023-02-01T12:00")

Run = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one port of 31 days, flooded for two hours on its last day."""
    times, traffic = samples(31)
    change(times, traffic, *FLOOD, 5.0)
    write(tmp_path / "ports", "1_1_out", times, traffic)
    return tmp_path / "ports"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process, with one job, models and state of its own."""
    monkeypatch.chdir(tmp_path)

    def call(mode: str, *arguments: object) -> int:
        common = ["--target", "ports", "--mode", mode]
        common += ["--timezone", "UTC", "--train_days", "28"] if mode == "train" else []
        common += [] if "--scheduler" in arguments else ["--jobs", "1"]
        return find_anomalies.main([*common, *map(str, arguments)])

    return call


def errors_of(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    """What the log says at this level."""
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings, without incidents."""
    return [line for line in errors_of(caplog, logging.WARNING) if " incident " not in line]


def printed(out: str, incidents: bool = False) -> list[dict[str, Any]]:
    """The lines of anomalies, or those of incidents."""
    return [line for line in map(json.loads, out.splitlines()) if ("state" in line) == incidents]


# --- a folder ------------------------------------------------------------------------------------


def test_a_flood_is_found_when_it_begins_and_alerted_from_the_fourth_bucket_on(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    assert run("test", "--ports_dir", folder, "--once") == 0
    lines = printed(capfd.readouterr().out)
    times = [f"2023-02-01T{10 + minute // 60}:{minute % 60:02d}:00Z" for minute in range(15, 121, 15)]
    assert [line["time"] for line in lines] == times
    assert [line["severity"] for line in lines] == ["anomaly"] * 3 + ["alert"] * 5
    first = lines[0]
    assert list(first) == [
        "time", "device", "port", "direction", "severity", "detector",
        "traffic", "expected", "low", "high", "score",
    ]  # fmt: skip
    assert (first["device"], first["port"], first["direction"]) == ("1", "1", "out")
    assert first["detector"] == "profile"
    # Ten past ten: 2 - cos(2 pi 10.125 / 24) = 2.882 million.
    assert first["expected"] == pytest.approx(2.882e6, rel=0.05)
    assert first["traffic"] == pytest.approx(5 * 2.882e6, rel=0.15)
    assert first["low"] < first["expected"] < first["high"] < first["traffic"]


def test_an_incident_is_printed_when_it_opens_and_when_it_closes(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    assert run("test", "--ports_dir", folder, "--once") == 0
    out = capfd.readouterr().out
    opened, closed = printed(out, incidents=True)
    assert list(closed) == [
        "time", "scope", "device", "port", "direction", "detector", "state", "since", "until", "minutes",
        "ports", "score", "traffic", "expected", "surplus_bytes", "end",
    ]  # fmt: skip
    assert opened["time"] == closed["time"] == "2023-02-01T11:00:00Z"
    assert (opened["state"], opened["minutes"], "end" in opened) == ("open", 60.0, False)
    assert (closed["state"], closed["since"], closed["until"], closed["minutes"], closed["end"]) == (
        "closed", "2023-02-01T10:00:00Z", "2023-02-01T12:00:00Z", 120.0, "usual",
    )  # fmt: skip
    # Each of the eight buckets has three samples of five minutes.
    for line, buckets in ((opened, 4), (closed, 8)):
        surplus = sum(3 * (one["traffic"] - one["expected"]) for one in printed(out)[:buckets])
        assert line["surplus_bytes"] == pytest.approx(surplus, abs=5)
    peak = max(printed(out), key=lambda one: one["score"])
    assert all(closed[key] == peak[key] for key in ("score", "traffic", "expected"))
    opening, closing = errors_of(caplog, logging.WARNING)
    amounts = f"{peak['traffic'] / 1e6:.3g} MB instead of {peak['expected'] / 1e6:.3g} MB"
    assert closing == (
        "2023-02-01T13:00:00Z incident closes: 1_1_out, for 2 h since 2023-02-01T10:00:00Z; surplus"
        f" {closed['surplus_bytes'] / 1e6:.3g} MB; peak score {peak['score']:.1f}: {amounts}"
        " [1_1_out@20230201T100000Z]"
    )
    start = "2023-02-01T11:00:00Z incident opens: 1_1_out "
    rest = r"[0-9.]+ kB/s \(expected [0-9.]+-[0-9.]+\) for 1 h \[1_1_out@20230201T100000Z\]"
    assert re.fullmatch(re.escape(start) + rest, opening)


def test_training_ends_at_the_last_midnight_of_the_time_zone(folder: Path, run: Run, tmp_path: Path) -> None:
    until = "2023-01-31T15:00:00Z"
    assert run("train", "--ports_dir", folder, "--until", until, "--timezone", "Asia/Tokyo") == 0
    trained = models.load(tmp_path / "model/ports/1_1_out.profile.npz")
    # Midnight in Tokyo is at 15:00 UTC.
    assert (trained.end, trained.zone) == (moment("2023-01-31T15:00"), "Asia/Tokyo")
    assert trained.start == trained.end - 28 * DAY


@pytest.mark.parametrize(
    ("instant", "zone", "midnight"),
    [
        ("2023-02-01T00:00", "UTC", "2023-02-01T00:00"),
        ("2023-01-31T23:59", "UTC", "2023-01-31T00:00"),
        ("2023-03-26T12:00", "Europe/Rome", "2023-03-25T23:00"),
        ("2023-03-27T12:00", "Europe/Rome", "2023-03-26T22:00"),
        # Clocks that go forward at midnight, and back at one: a day begins at one, or at its first midnight.
        ("2023-03-12T15:00", "America/Havana", "2023-03-12T05:00"),
        ("2023-11-05T15:00", "America/Havana", "2023-11-05T04:00"),
    ],
)
def test_last_midnight_is_local(instant: str, zone: str, midnight: str) -> None:
    assert last_midnight(moment(instant), zone) == moment(midnight)


def test_all_detectors_are_trained_and_applied(
    folder: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01", "--detector", "all") == 0
    names = {path.name for path in (tmp_path / "model/ports").iterdir()}
    assert names == {f"1_1_out.{name}.npz" for name in PORT_DETECTORS}
    assert run("test", "--ports_dir", folder, "--once", "--detector", "all") == 0
    lines = printed(capfd.readouterr().out)
    alerted = {line["detector"] for line in lines if line["severity"] == "alert"}
    assert alerted == set(PORT_DETECTORS)
    assert lines == sorted(lines, key=lambda line: line["time"])


def test_the_named_detectors_are_those_there_are() -> None:
    assert tuple(detectors.DETECTORS) == PORT_DETECTORS


def test_a_workshop_model_knows_how_it_was_prepared(
    folder: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01", "--preprocess", "workshop") == 0
    trained = models.load(tmp_path / "model/ports/1_1_out.profile.npz")
    assert (trained.preparation, trained.minutes, trained.model.scaler.kind) == ("workshop", 30, "standard")
    assert run("test", "--ports_dir", folder, "--once") == 0
    lines = printed(capfd.readouterr().out)
    # Two hours are four buckets: the last one alone is an alert.
    assert [(line["time"][11:16], line["severity"]) for line in lines if line["time"] > "2023-02-01T10"] == [
        ("10:30", "anomaly"),
        ("11:00", "anomaly"),
        ("11:30", "anomaly"),
        ("12:00", "alert"),
    ]


def test_pictures_are_drawn_of_series_with_anomalies(folder: Path, run: Run, tmp_path: Path) -> None:
    times, traffic = samples(31, seed=1)
    write(folder, "1_2_out", times, traffic)
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    assert run("test", "--ports_dir", folder, "--once", "--plot_dir", tmp_path / "seen") == 0
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["1_1_out.profile.png"]
    assert (tmp_path / "seen/1_1_out.profile.png").read_bytes().startswith(b"\x89PNG")


# --- bad input -----------------------------------------------------------------------------------

HEADER = ",ts,traffic\n"
ROW = "0,2023-01-02 00:05:00,5\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "{file}: has no samples; check how it is recorded"),
        (HEADER + "0,2023-01-02 00:05:00,many\n", "{file}, line 2: traffic is 'many';"),
        (HEADER + "0,2023-01-02 00:05:00,-1\n", "{file}, line 2: traffic is '-1';"),
        (HEADER + ROW + ROW, "{file}, line 3: repeats the time of the line before;"),
        ("a,time,bytes\n0,1,2\n", "{file}: has the columns 'a,time,bytes';"),
    ],
    ids=["empty", "text", "negative", "duplicate", "columns"],
)
def test_a_broken_file_costs_no_other_series_its_model(
    content: str,
    fault: str,
    folder: Path,
    run: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = folder / "1_2_out.csv"
    broken.write_text(content)
    assert run("train", "--ports_dir", folder) == 1
    said = capfd.readouterr().err
    errors = errors_of(caplog)
    assert len(errors) == 1
    assert errors[0].startswith(fault.format(file=broken))
    assert said.endswith("1 series could not be learnt from; the log says why\n")
    assert [path.name for path in (tmp_path / "model/ports").iterdir()] == ["1_1_out.profile.npz"]


@pytest.mark.parametrize(
    ("traffic", "fault"),
    [
        (np.full(31 * 288, 7.0), "1_2_out: its traffic is always 7 bytes"),
        (np.zeros(31 * 288), "1_2_out: its traffic is always 0 bytes"),
    ],
    ids=["constant", "zero"],
)
def test_a_port_that_cannot_be_learnt_is_said_to_be_so(
    traffic: np.ndarray, fault: str, folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, "1_2_out", START + 300 * np.arange(1, len(traffic) + 1), traffic)
    assert run("train", "--ports_dir", folder) == 1
    errors = errors_of(caplog)
    assert len(errors) == 1
    assert errors[0].startswith(fault)


def test_what_a_library_cannot_do_with_one_series_is_one_line(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A part of statsmodels that is not there.
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.seasonal", None)
    assert run("train", "--ports_dir", folder, "--detector", "all") == 1
    (error,) = errors_of(caplog)
    assert error.startswith("1_1_out: failed (ModuleNotFoundError: import of statsmodels.tsa.seasonal ")
    assert error.endswith("); report it with the samples")
    # The other five are there.
    assert len(list(Path("model/ports").iterdir())) == 5


def test_an_error_of_several_lines_is_one_line() -> None:
    with faults_of("1_1_out") as fault:
        raise np.linalg.LinAlgError("SVD did not\nconverge")
    assert fault.text == "1_1_out: failed (LinAlgError: SVD did not converge); report it with the samples"


def test_a_series_without_a_usable_model_is_named_and_the_others_judged(
    folder: Path,
    run: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(folder, "1_3_out", *samples(31))
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    kept = tmp_path / "model/ports"
    (kept / "1_3_out.profile.npz").write_bytes(b"no archive")
    capfd.readouterr()
    assert run("test", "--ports_dir", folder, "--once") == 1
    out, err = capfd.readouterr()
    assert len(printed(out)) == 8
    assert errors_of(caplog) == [
        "1_3_out: model/ports/1_3_out.profile.npz: is damaged, or not a model; train it again",
    ]
    assert err.endswith("1 series could not be judged; the log says why\n")


def test_a_series_that_stopped_is_unknown_and_said_to_be(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    write(folder, "1_2_out", times[:-60], traffic[:-60])
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    assert run("test", "--ports_dir", folder, "--once") == 0
    assert warnings_of(caplog) == ["1_2_out: has had no sample since 2023-02-01T19:00:00Z, so it is unknown"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--detector", "magic"), 2, "argument --detector: invalid choice: 'magic' (choose from 'profile',"),
        (("--train_days", "27"), 2, "argument --train_days: '27' is not a number from 28 to 366"),
        (
            ("--bucket_minutes", "7"),
            2,
            "argument --bucket_minutes: '7' is not one of 5, 10, 15, 20, 30 and 60",
        ),
        (("--timezone", "Rome"), 2, "argument --timezone: 'Rome' is not a time zone like Europe/Rome or UTC"),
        (("--until", "noon"), 2, "argument --until: 'noon' is not a time like 2023-01-31"),
        (("--ports_dir", "nowhere"), 1, "nowhere: no such folder; check --ports_dir"),
        (("--ports_dir", "."), 1, ".: no file is named <device>_<port>_<in|out>.csv; check --ports_dir"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: tuple[str, ...],
    code: int,
    said: str,
    folder: Path,
    run: Run,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if code == 2:
        with pytest.raises(SystemExit) as ended:
            run("train", *arguments)
        assert ended.value.code == 2
    else:
        assert run("train", *arguments) == 1
    assert said in capfd.readouterr().err.splitlines()[-1]


def test_a_scheduler_that_is_not_there_is_one_line() -> None:
    cluster = Cluster(1, "tcp://127.0.0.1:1", connect_seconds=1)
    with pytest.raises(UnavailableError) as caught:
        list(in_parallel(abs, [-1], 1, cluster, "training"))
    assert str(caught.value) == "tcp://127.0.0.1:1: no Dask scheduler answers there; check --scheduler"


def test_ports_have_no_collect_mode(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("collect")
    assert "--target ports has no --mode collect" in capfd.readouterr().err


def test_a_model_that_cannot_be_written_costs_no_other_series_its_own(
    folder: Path, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = f"1_{'x' * 240}_out"
    write(folder, long, *samples(31))
    assert run("train", "--ports_dir", folder) == 1
    assert [path.name for path in (tmp_path / "model/ports").iterdir()] == ["1_1_out.profile.npz"]
    (error,) = errors_of(caplog)
    assert error.endswith(
        ".profile.npz: cannot be written (File name too long); check the folder and the disk"
    )


def test_a_folder_for_models_that_is_none_is_said_before_the_work(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert run("train", "--ports_dir", folder, "--ports_models", "file") == 1
    assert capfd.readouterr().err == (
        "find_anomalies.py: file: cannot be written to; allow this user to write there,"
        " or name another --ports_models\n"
    )


def test_a_sample_that_is_still_to_come_is_refused(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with (folder / "1_1_out.csv").open("a") as file:
        file.write("9999,2203-02-02 00:05:00,1000\n")
    assert run("train", "--ports_dir", folder) == 1
    assert errors_of(caplog) == [
        "1_1_out: has a sample from 2203-02-02T00:05:00Z, which is in the future; correct its time"
    ]


def test_a_picture_that_cannot_be_drawn_costs_no_verdict(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01", "--detector", "all") == 0
    Path("file").write_text("")
    assert run("test", "--ports_dir", folder, "--once", "--detector", "all", "--plot_dir", "file") == 1
    lines = printed(capfd.readouterr().out)
    assert {line["detector"] for line in lines} == set(PORT_DETECTORS)
    assert len(errors_of(caplog)) == 1


def test_a_worker_that_is_killed_is_one_line(tmp_path: Path, folder: Path) -> None:
    for number in range(2, 60):
        (folder / f"1_{number}_out.csv").hardlink_to(folder / "1_1_out.csv")
    command = [sys.executable, str(ROOT / "find_anomalies.py"), "--target", "ports", "--mode", "train"]
    job = subprocess.Popen(
        [*command, "--ports_dir", str(folder), "--jobs", "2", "--detector", "all", "--train_days", "28"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    workers: list[str] = []
    while not workers and time.monotonic() < deadline:
        found = subprocess.run(
            ["pgrep", "-P", str(job.pid), "-f", "popen_loky"], capture_output=True, text=True
        )
        workers = found.stdout.split()
        time.sleep(0.1)
    os.kill(int(workers[0]), signal.SIGKILL)
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert said.splitlines()[-1] == (
        "find_anomalies.py: a worker process was killed, perhaps because memory ran out; give fewer --jobs"
    )
    assert "Traceback" not in said


# --- not trained yet -----------------------------------------------------------------------------


@pytest.mark.parametrize("evaluated", [(), ("--evaluate",)], ids=["trained", "compared"])
def test_a_new_port_is_one_line_and_no_fault(
    evaluated: tuple[str, ...], tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    new = tmp_path / "new"
    write(new, "1_2_out", *samples(12))
    write(new, "1_3_out", *(part[:1] for part in samples(1)))
    assert run("train", "--ports_dir", new, *evaluated) == 0
    assert errors_of(caplog) == []
    short = "2 of 2 series have fewer than 28 days of history and are not {} yet: 1_2_out, 1_3_out"
    assert errors_of(caplog, logging.WARNING) == [
        short.format(done) for done in ("trained", "compared")[: 1 + len(evaluated)]
    ]
    assert list(Path("model/ports").iterdir()) == []


def test_what_can_be_trained_and_judged_is_beside_a_new_port(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    write(folder, "1_2_out", times[-2000:], traffic[-2000:])
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    assert [path.name for path in Path("model/ports").iterdir()] == ["1_1_out.profile.npz"]
    caplog.clear()
    assert run("test", "--ports_dir", folder, "--once") == 0
    assert len(printed(capfd.readouterr().out)) == 8
    assert warnings_of(caplog) == [
        "1 of 2 series have no model in model/ports yet and are not judged: 1_2_out; --target ports --mode"
        " train --detector profile trains each series that has 28 days of history"
    ]


def test_before_the_first_training_one_line_says_what_makes_a_model(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("test", "--ports_dir", folder, "--once", "--detector", "all") == 0
    assert errors_of(caplog) == []
    assert errors_of(caplog, logging.WARNING) == [
        "none of 1 series has a model in model/ports yet; --target ports --mode train --detector all"
        " trains each series that has 28 days of history"
    ]


def test_a_short_history_excuses_no_fault(folder: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    times, traffic = samples(12)
    write(folder, "1_2_out", times, traffic)
    with (folder / "1_2_out.csv").open("a") as file:
        file.write("9999,2023-02-02 00:05:00,-1000\n")
    assert run("train", "--ports_dir", folder) == 1
    assert len(errors_of(caplog)) == 1
    assert errors_of(caplog, logging.WARNING) == []


def test_of_many_faults_and_many_silent_series_the_rest_are_counted(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    times, traffic = samples(31)
    write(folder, "1_2_out", times[:-60], traffic[:-60])
    write(folder, "1_3_out", times, traffic)
    for number in range(4, 27):
        (folder / f"1_{number}_out.csv").hardlink_to(folder / "1_2_out.csv")
    for number in range(27, 50):
        (folder / f"1_{number}_out.csv").hardlink_to(folder / "1_3_out.csv")
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    for number in range(27, 50):
        Path(f"model/ports/1_{number}_out.profile.npz").write_bytes(b"no archive")
    assert run("test", "--ports_dir", folder, "--once") == 1
    errors, warnings = errors_of(caplog), warnings_of(caplog)
    assert all(line.endswith("is damaged, or not a model; train it again") for line in errors[:20])
    assert errors[20:] == ["and 3 more series that could not be judged"]
    assert all(
        line.endswith("has had no sample since 2023-02-01T19:00:00Z, so it is unknown")
        for line in warnings[:20]
    )
    assert warnings[20:] == ["and 4 more series have no sample and are unknown"]
    assert capfd.readouterr().err.endswith("23 series could not be judged; the log says why\n")


def test_a_folder_of_models_that_cannot_be_read_is_one_line(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert run("test", "--ports_dir", folder, "--once", "--ports_models", "file") == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        "find_anomalies.py: file: cannot be read (Not a directory); check --ports_models"
    )


# --- InfluxDB ------------------------------------------------------------------------------------


def store(client: InfluxDBClient, port: str, times: np.ndarray, traffic: np.ndarray) -> None:
    """Samples of device core_1 as a collector writes them."""
    tags = f"port_traffic,device=core_1,port={port},direction=in"
    lines = [f"{tags} value={value:.0f} {time}" for time, value in zip(times, traffic, strict=True)]
    for first in range(0, len(lines), 5000):
        client.write_points(lines[first : first + 5000], protocol="line", time_precision="s")


def points(client: InfluxDBClient) -> list[dict]:
    """All anomalies that are stored, without what tells one run from another."""
    return list(client.query('SELECT * FROM "detected_port_anomalies"').get_points())


def influx(database: Database) -> tuple[str, ...]:
    """Options that name the database."""
    return ("--influx_port", str(database.client._port), "--influx_db", database.name)


def test_anomalies_are_stored_at_their_own_time_with_their_tags(database: Database, run: Run) -> None:
    times, traffic = samples(31)
    change(times, traffic, *FLOOD, 5.0)
    store(database.client, "ge-0/0/1", times, traffic)
    assert run("train", *influx(database), "--until", "2023-02-01") == 0
    assert run("test", *influx(database), "--once", "--until", "2023-02-02") == 0
    found = points(database.client)
    assert [point["time"][11:16] for point in found] == [
        "10:15", "10:30", "10:45", "11:00", "11:15", "11:30", "11:45", "12:00",
    ]  # fmt: skip
    assert set(found[0]) == {
        "time", "device", "port", "direction", "severity", "detector",
        "traffic", "expected", "low", "high", "score",
    }  # fmt: skip
    assert (found[0]["device"], found[0]["port"], found[0]["direction"]) == ("core_1", "ge-0/0/1", "in")
    assert [point["severity"] for point in found] == ["anomaly"] * 3 + ["alert"] * 5


def test_hour_by_hour_gives_what_all_at_once_gives_and_again_changes_nothing(
    database: Database, run: Run, tmp_path: Path
) -> None:
    times, traffic = samples(31)
    change(times, traffic, *FLOOD, 5.0)
    # Three buckets of the flood are missing, and one is half there.
    is_lost = (times > moment("2023-02-01T10:30")) & (times <= moment("2023-02-01T11:20"))
    store(database.client, "1", times[~is_lost], traffic[~is_lost])
    assert run("train", *influx(database), "--until", "2023-02-01") == 0
    for hour in range(9, 16):
        assert run("test", *influx(database), "--once", "--until", f"2023-02-01T{hour:02d}:00:00Z") == 0
    hourly = points(database.client)
    assert [point["severity"] for point in hourly] == ["anomaly"] * 3 + ["alert"] * 2
    # As if the last job had been killed after it wrote.
    (tmp_path / "state/ports.json").unlink()
    assert run("test", *influx(database), "--once", "--until", "2023-02-01T15:00:00Z") == 0
    assert points(database.client) == hourly


def test_what_was_judged_is_not_judged_again_by_another_model(database: Database, run: Run) -> None:
    times, traffic = samples(31)
    change(times, traffic, *FLOOD, 5.0)
    store(database.client, "1", times, traffic)
    assert run("train", *influx(database), "--until", "2023-01-31") == 0
    assert run("test", *influx(database), "--once", "--until", "2023-02-01T11:00:00Z") == 0
    assert run("train", *influx(database), "--until", "2023-01-31", "--preprocess", "workshop") == 0
    before = points(database.client)
    assert run("test", *influx(database), "--once", "--until", "2023-02-01T11:00:00Z") == 0
    assert points(database.client) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"1_1_in profile": "soon"}', "'1_1_in profile' has no valid time; delete the file"),
        ("{", "line 1: not valid JSON"),
    ],
)
def test_a_broken_state_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        load_state(path)


def test_what_is_no_regular_file_is_named_and_not_waited_for(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    path = Path("model/ports/1_1_out.profile.npz")
    path.unlink()
    os.mkfifo(path)
    caplog.clear()
    assert run("test", "--ports_dir", folder, "--once") == 1
    assert errors_of(caplog) == [f"1_1_out: {path}: cannot be read: it is a FIFO; put a regular file there"]
    state = tmp_path / "ports.json"
    state.symlink_to(state)
    with pytest.raises(UserError, match="cannot be read"):
        load_state(state)


def test_a_port_that_has_been_silent_for_four_weeks_has_gone(
    database: Database, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(60)
    store(database.client, "1", times, traffic)
    is_early = times < moment("2023-02-03")
    store(database.client, "2", times[is_early], traffic[is_early])
    assert run("train", *influx(database), "--until", "2023-03-02") == 0
    assert run("train", *influx(database), "--until", "2023-03-03T00:05:00Z", "--ports_models", "later") == 0
    names = [sorted(path.name for path in (tmp_path / at).iterdir()) for at in ("model/ports", "later")]
    assert names == [
        ["core%5F1_1_in.profile.npz", "core%5F1_2_in.profile.npz"],
        ["core%5F1_1_in.profile.npz"],
    ]
    assert run("test", *influx(database), "--once", "--until", "2023-03-02") == 0
    assert errors_of(caplog, logging.WARNING) == [
        "core%5F1_2_in: has had no sample since 2023-02-02T23:55:00Z, so it is unknown"
    ]


def test_text_in_influxdb_is_named(database: Database, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    line = f'port_traffic,device=core_1,port=2,direction=in value="n/a" {moment("2023-01-10")}'
    database.client.write_points([line], protocol="line", time_precision="s")
    assert run("train", *influx(database), "--until", "2023-01-15") == 1
    assert errors_of(caplog) == [
        "core%5F1_2_in: has text at 2023-01-10T00:00:00Z instead of a number of bytes; delete that sample"
    ]


def test_the_content_of_one_port_costs_no_other_its_model(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    store(database.client, "1", times, traffic)
    minutes = START + 60 * np.arange(1, 31 * 1440)
    store(database.client, "2", minutes, np.interp(minutes, times, traffic))
    store(database.client, "3", times[-1] - np.arange(50_001), np.ones(50_001))
    # Each in a week, and so in a shard, in which nobody has written a number.
    for port, day, value in (("4", "2023-02-08", '"n/a"'), ("5", "2023-02-15", "true")):
        line = f"port_traffic,device=core_1,port={port},direction=in value={value} {moment(day)}"
        database.client.write_points([line], protocol="line", time_precision="s")
    site = "port_traffic,device=core_1,port=6,direction=in,site"
    lines = [f"{site}={name} value=1 {time}" for name in ("a", "b") for time in times[-30:]]
    database.client.write_points(lines, protocol="line", time_precision="s")
    until = moment("2023-02-20")
    source = Source(database.own, database.name, "found", until, Limits(port_samples=50_000))
    failed = train(
        source, TrainingSettings(("profile",), "default", 15, "UTC", 28, until), Cluster(1), "model/ports"
    )
    assert failed == {f"core%5F1_{port}_in" for port in (3, 4, 5, 6)}
    assert sorted(errors_of(caplog)) == [
        "core%5F1_3_in: has more than 50,000 samples since 2023-01-03T00:00:00Z; write one every five"
        " minutes, and delete the others",
        "core%5F1_4_in: has text at 2023-02-08T00:00:00Z instead of a number of bytes; delete that sample",
        "core%5F1_5_in: has a boolean at 2023-02-15T00:00:00Z instead of a number of bytes; delete that"
        " sample",
        "core%5F1_6_in: is written by 2 series at once (their 'site': 'a' and 'b'); write only one of them,"
        " or give each its own device or port",
    ]
    assert sorted(path.name for path in Path("model/ports").iterdir()) == [
        "core%5F1_1_in.profile.npz",
        "core%5F1_2_in.profile.npz",
    ]
    # Without a model, what is known to be wrong with a port is said by the hourly job as well.
    caplog.clear()
    assert run("test", *influx(database), "--once", "--until", "2023-02-20") == 1
    assert [line.partition(":")[0] for line in errors_of(caplog)] == [
        "core%5F1_4_in",
        "core%5F1_5_in",
        "core%5F1_6_in",
    ]


def test_a_second_series_that_has_ended_makes_no_attack_normal(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    usual = traffic.copy()
    change(times, traffic, "2023-02-01T10:00", "2023-02-01T12:00", 5.0)
    store(database.client, "1", times, traffic)
    assert run("train", *influx(database), "--until", "2023-02-01") == 0
    # Calm numbers, a second after each of the port's, during the attack and no longer.
    is_beside = (times > moment("2023-02-01T09:45")) & (times <= moment("2023-02-01T12:15"))
    series = "port_traffic,device=core_1,port=1,direction=in,site=x"
    lines = [f"{series} value={v} {t + 1}" for t, v in zip(times[is_beside], usual[is_beside], strict=True)]
    database.client.write_points(lines, protocol="line", time_precision="s")
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert run("test", *influx(database), "--once", "--until", "2023-02-01T12:15:10Z") == 1
    assert "is written by 2 series at once" in errors_of(caplog)[0]
    caplog.clear()
    assert run("test", *influx(database), "--once", "--until", "2023-02-02") == 0
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == "1 series, 96 buckets: 86 normal, 0 anomaly, 0 alert, 10 unknown"
    # What is learnt of that day has no part of what others wrote.
    assert run("train", *influx(database), "--until", "2023-02-02") == 0
    assert run("test", *influx(database), "--once", "--until", "2023-02-02") == 0


def test_negative_bytes_in_influxdb_are_named_and_the_others_trained(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(30)
    store(database.client, "1", times, traffic)
    traffic[5000] = -1
    store(database.client, "2", times, traffic)
    assert run("train", *influx(database), "--until", "2023-02-01") == 1
    moment_of = "2023-01-19T08:45:00Z"
    assert errors_of(caplog) == [f"core%5F1_2_in: has -1 bytes at {moment_of}; delete that sample"]


def test_without_a_server_or_without_ports_one_line_says_so(
    database: Database, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port("127.0.0.1")
    assert run("train", "--influx_port", port) == 1
    assert capfd.readouterr().err == (
        f"find_anomalies.py: InfluxDB at localhost:{port} cannot be reached;"
        " check --influx_host, --influx_port and that it runs\n"
    )
    assert run("train", *influx(database)) == 1
    assert capfd.readouterr().err == (
        "find_anomalies.py: InfluxDB has no port_traffic from the last 28 days with the tags device, port and"
        " direction (in or out); check --influx_db, or give --ports_dir\n"
    )


def test_twenty_thousand_ports_without_a_model_are_one_line_and_nothing_of_them_is_read(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    store(database.client, "1", times, traffic)
    assert run("train", *influx(database), "--until", "2023-02-01") == 0
    fakes = [f"port_traffic,device=fake,port={n},direction=in value=1 {times[-1]}" for n in range(20_000)]
    database.client.write_points(fakes, protocol="line", time_precision="s", batch_size=10_000)
    caplog.clear()
    assert run("test", *influx(database), "--once", "--until", "2023-02-02") == 0
    (line,) = errors_of(caplog, logging.WARNING)
    assert line.startswith(
        "20000 of 20001 series have no model in model/ports yet and are not judged:"
        " fake_0_in, fake_10000_in, fake_10001_in and 19997 more;"
    )
    assert errors_of(caplog) == []
    asked = asked_by(database.own)
    until = moment("2023-02-02")
    source = Source(database.own, database.name, "found", until)
    settings = JudgingSettings("model/ports", ("profile",), until, Cluster(1))
    assert judge_new(source, settings, JobState()).count == 20_001
    of_one_port = [query for query in map(unquote_plus, asked) if '"device"::tag = ' in query]
    assert of_one_port
    assert all("core_1" in query for query in of_one_port)


# --- service and cluster -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "seconds"),
    [("2023-02-01T10:00:00", 120), ("2023-02-01T10:02:00", 3600), ("2023-02-01T10:59:59", 121)],
)
def test_the_next_run_is_two_minutes_past_the_hour(now: str, seconds: int) -> None:
    assert seconds_to_next(moment(now)) == seconds


def test_without_once_it_goes_on_until_it_is_ended(folder: Path, run: Run, tmp_path: Path) -> None:
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    command = [sys.executable, str(ROOT / "find_anomalies.py"), "--target", "ports", "--mode", "test"]
    service = subprocess.Popen(
        [*command, "--ports_dir", str(folder), "--jobs", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(service.stdout.readline()) for _ in range(10)]
    assert lines[7]["time"] == "2023-02-01T12:00:00Z"
    assert [line.get("state") for line in lines[6:]] == [None, None, "open", "closed"]
    time.sleep(0.5)
    assert service.poll() is None
    service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=60) == 0


def test_two_workers_of_a_dask_cluster_give_the_same_models(folder: Path, run: Run, tmp_path: Path) -> None:
    write(folder, "1_2_out", *samples(31, seed=2))
    assert run("train", "--ports_dir", folder, "--until", "2023-02-01") == 0
    with dask_cluster(2, tmp_path) as address:
        there = ("--ports_models", "there", "--scheduler", address)
        assert run("train", "--ports_dir", folder, "--until", "2023-02-01", *there) == 0
    here, there = (sorted((tmp_path / name).iterdir()) for name in ("model/ports", "there"))
    assert [path.name for path in there] == ["1_1_out.profile.npz", "1_2_out.profile.npz"]
    for one, other in zip(here, there, strict=True):
        assert one.read_bytes() == other.read_bytes()


# Imports all modules of ports/ and prints what of the project was loaded, as paths.
LOADED = """
import sys
from pathlib import Path
root = Path(sys.argv[1])
for path in root.glob("ports/*.py"):
    __import__(f"ports.{path.stem}")
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print(*(Path(file).relative_to(root) for file in files if file and Path(file).is_relative_to(root)))
"""


def test_what_is_sent_to_workers_is_all_that_ports_loads(tmp_path: Path) -> None:
    pack_project(tmp_path / "project.zip", ROOT, "ports")
    with zipfile.ZipFile(tmp_path / "project.zip") as archive:
        sent = set(archive.namelist())
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(ROOT)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {path for path in done.stdout.split() if not path.startswith(".venv")}
    assert "ports/detectors.py" in loaded
    assert loaded <= sent
    assert not [path for path in sent if path.startswith(("edge/", "commands/", "tests/", "lab/"))]


def test_a_process_that_has_what_is_sent_alone_can_load_every_module_of_ports(tmp_path: Path) -> None:
    pack_project(tmp_path / "project.zip", ROOT, "ports")
    names = [f"ports.{path.stem}" for path in ROOT.glob("ports/*.py") if path.stem != "__init__"]
    code = f"import sys; sys.path.insert(0, 'project.zip'); import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_what_a_shared_module_imports_is_sent_too(tmp_path: Path) -> None:
    for path, text in {
        "ports/__init__.py": "",
        "ports/jobs.py": "import json\nfrom shared import times\nimport top\n",
        "shared/__init__.py": "",
        "shared/times.py": "def now():\n    from shared.deep.clock import read\n    return read()\n",
        "shared/deep/__init__.py": "",
        "shared/deep/clock.py": "import ports.jobs\n",
        "shared/other.py": "",
        "top.py": "import shared.missing\n",
        "alone.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    pack_project(tmp_path / "project.zip", tmp_path, "ports")
    with zipfile.ZipFile(tmp_path / "project.zip") as archive:
        assert archive.namelist() == [
            "ports/__init__.py",
            "ports/jobs.py",
            "shared/__init__.py",
            "shared/deep/__init__.py",
            "shared/deep/clock.py",
            "shared/times.py",
            "top.py",
        ]
