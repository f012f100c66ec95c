"""Incidents as the jobs make them, with a real InfluxDB: hour by hour, trained each night, after crashes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import find_anomalies
from common.times import format_time
from tests.support.influx import Database
from tests.support.port_series import DAY, change, moment, samples

Run = Callable[..., int]
TRAINED = moment("2023-02-01")
# Hour by hour where something happens.
DAY_HOURS = (21, 22, 23, 24, 25, 27, 28, 29, 33, 34, 35, 47)


@pytest.fixture
def run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Run:
    """A job of its own, up to a moment; its state is only in its files."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.WARNING)

    def call(mode: str, until: int, *arguments: str) -> int:
        words = ["--target=ports", f"--mode={mode}", "--jobs=1", f"--until={format_time(until * 10**9)}"]
        words += ["--timezone=UTC"] if mode == "train" else ["--once"]
        words += [f"--influx_port={database.client._port}", f"--influx_db={database.name}"]
        return find_anomalies.main([*words, *arguments])

    return call


def store(database: Database, ports: dict[tuple[str, str], np.ndarray], times: np.ndarray) -> None:
    """Samples by device and port, all of direction `in`."""
    for (device, port), traffic in ports.items():
        tags = f"port_traffic,device={device},port={port},direction=in"
        lines = [f"{tags} value={value:.0f} {time}" for time, value in zip(times, traffic, strict=True)]
        database.client.write_points(lines, protocol="line", time_precision="s", batch_size=5000)


def incidents(database: Database) -> list[dict[str, Any]]:
    """All points of incidents, without what is empty."""
    points = database.client.query('SELECT * FROM "port_incidents"').get_points()
    found = [{key: value for key, value in point.items() if value is not None} for point in points]
    return sorted(found, key=lambda point: (point["time"], point["scope"], point.get("port", "")))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings since the last call."""
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def shortened_lines(lines: list[str]) -> list[str]:
    """Without the amounts, and without when it began."""
    return [re.split(r" since 2023-02-01T22:00:00Z;|, most of all| [0-9.]+ k?B/s", line)[0] for line in lines]


def brief(point: dict[str, Any]) -> tuple[str, ...]:
    """Scope, port, state, since and until of a point."""
    since, until = (point[key][8:16] for key in ("since", "until"))
    return point["scope"], point.get("port", ""), point["state"], since, until, point.get("end", "")


def test_an_incident_opens_and_closes_as_one_point_with_exact_bytes(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    times, traffic = samples(31)
    change(times, traffic, "2023-02-01T10:00", "2023-02-01T12:00", 0.1)
    store(database, {("core", "1"): traffic}, times)
    assert run("train", TRAINED) == 0
    assert run("test", TRAINED + 11 * 3600) == 0
    (opened,) = incidents(database)
    assert brief(opened) == ("port", "1", "open", "01T10:00", "01T11:00", "")
    (line,) = told(caplog)
    assert line == (
        "2023-02-01T11:00:00Z incident opens: core_1_in 930 B/s (expected 7.6-13 kB/s) for 1 h"
        " [core_1_in@20230201T100000Z]"
    )
    # Twelve o'clock is still an anomaly, and one hour later it has closed.
    assert run("test", TRAINED + 12 * 3600) == 0
    assert (incidents(database), told(caplog)) == ([opened], [])
    assert run("test", TRAINED + 13 * 3600) == 0
    (closed,) = incidents(database)
    assert brief(closed) == ("port", "1", "closed", "01T10:00", "01T12:00", "usual")
    assert closed["time"] == opened["time"] == "2023-02-01T11:00:00Z"
    assert (closed["minutes"], closed["ports"], closed["device"]) == (120.0, 1.0, "core")
    anomalies = list(database.client.query('SELECT * FROM "detected_port_anomalies"').get_points())
    lost = sum(3 * (one["traffic"] - one["expected"]) for one in anomalies)
    assert closed["surplus_bytes"] == pytest.approx(lost, abs=5)
    assert closed["score"] == max(one["score"] for one in anomalies)
    (line,) = told(caplog)
    assert line.startswith(
        f"2023-02-01T13:00:00Z incident closes: core_1_in, for 2 h since 2023-02-01T10:00:00Z;"
        f" lost {-closed['surplus_bytes'] / 1e6:.3g} MB; peak score {closed['score']:.1f}: "
    )
    # As if the job had been killed after it had stored, before it saved.
    (tmp_path / "state/ports.json").unlink()
    assert run("test", TRAINED + 13 * 3600) == 0
    assert incidents(database) == [closed]


def test_hour_by_hour_trained_each_night_and_at_once_agree(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    times, calm = samples(33)
    traffic = {("core", str(port)): samples(33, seed=port)[1] for port in range(1, 5)}
    traffic["edge", "1"] = calm
    # The device loses three of its four ports over midnight, one of them a while later, and one for good.
    for port, begin, end in (
        ("1", "22:00", "02T03:00"),
        ("2", "22:30", "02T03:00"),
        ("3", "22:00", "03T00:00"),
    ):
        change(times, traffic["core", port], f"2023-02-01T{begin}", f"2023-02-{end}", 0.0)
    store(database, traffic, times)
    assert run("train", TRAINED) == 0
    lines = []
    for hour in DAY_HOURS:
        # Hour by hour with one model, the state in a file.
        assert run("test", TRAINED + hour * 3600) == 0
        lines += told(caplog)
    hourly = incidents(database)
    assert [brief(point) for point in hourly] == [
        ("port", "1", "closed", "01T22:00", "02T03:00", "usual"),
        ("port", "3", "closed", "01T22:00", "02T10:00", "no traffic"),
        ("device", "", "closed", "01T22:00", "02T10:00", "no traffic"),
        ("port", "2", "closed", "01T22:30", "02T03:00", "usual"),
    ]
    device = hourly[2]
    assert (device["ports"], device["time"]) == (3.0, "2023-02-01T23:30:00Z")
    ports = [point for point in hourly if point["scope"] == "port"]
    assert device["surplus_bytes"] == pytest.approx(sum(point["surplus_bytes"] for point in ports), abs=1)
    # Two opened in an hour of their own; the device is one line when it opens, and its dead port one more.
    assert shortened_lines(lines) == [
        "2023-02-01T23:00:00Z incident opens: core_1_in",
        "2023-02-01T23:00:00Z incident opens: core_3_in",
        "2023-02-01T23:30:00Z incident opens: device core, 3 ports at once",
        "2023-02-02T10:00:00Z incident closes: device core, 3 ports at once, for 12 h",
        "core_3_in: has had no traffic since 2023-02-01T22:00:00Z",
    ]
    (tmp_path / "state/ports.json").unlink()
    database.client.query("DROP MEASUREMENT port_incidents")
    assert run("test", TRAINED + 47 * 3600) == 0
    assert incidents(database) == hourly
    # All at once, the device is one line, and so is the port.
    assert shortened_lines(told(caplog)) == [
        "2023-02-01T23:30:00Z incident opens: device core, 3 ports at once",
        "2023-02-02T10:00:00Z incident closes: device core, 3 ports at once, for 12 h",
        "core_3_in: has had no traffic since 2023-02-01T22:00:00Z",
    ]
    # And the same with another model from midnight on, in another state and another measurement.
    database.client.query("DROP MEASUREMENT port_incidents")
    for hour in DAY_HOURS:
        if hour == 25:
            assert run("train", TRAINED + DAY) == 0
        assert run("test", TRAINED + hour * 3600, "--state_dir=nightly") == 0
    assert [brief(point) for point in incidents(database)] == [brief(point) for point in hourly]


def test_what_another_model_no_longer_sees_is_closed(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    times, traffic = samples(31)
    change(times, traffic, "2023-02-01T10:00", "2023-02-01T14:00", 3.0)
    store(database, {("core", "1"): traffic}, times)
    assert run("train", TRAINED) == 0
    assert run("test", TRAINED + 11 * 3600) == 0
    # A model of the same port that takes everything for usual.
    import ports.models

    path = tmp_path / "model/ports/core_1_in.profile.npz"
    trained = ports.models.load(path)
    trained.model.limits[:] = 50.0
    ports.models.save(ports.models.pack(trained), path)
    caplog.clear()
    assert run("test", TRAINED + 12 * 3600) == 0
    (closed,) = incidents(database)
    assert brief(closed) == ("port", "1", "closed", "01T10:00", "01T11:00", "usual")
    assert len(told(caplog)) == 1


def test_an_incident_of_a_port_that_goes_silent_closes_as_unknown(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    change(times, traffic, "2023-02-01T10:00", "2023-02-01T12:00", 3.0)
    early = times <= moment("2023-02-01T12:00")
    store(database, {("core", "1"): traffic[early]}, times[early])
    assert run("train", TRAINED) == 0
    # Thirty-four buckets after the last one.
    for hour, state in ((12, "open"), (20, "open"), (21, "closed")):
        assert run("test", TRAINED + hour * 3600) == 0
        (point,) = incidents(database)
        assert point["state"] == state
    assert brief(point) == ("port", "1", "closed", "01T10:00", "01T12:00", "unknown")
    assert told(caplog)[-1].endswith("; it is unknown now [core_1_in@20230201T100000Z]")


def test_an_option_decides_how_long_an_anomaly_lasts_until_it_is_the_new_level(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    change(times, traffic, "2023-02-01T06:00", "2023-02-02T00:00", 0.42)
    store(database, {("core", "1"): traffic}, times)
    assert run("train", TRAINED, "--drift_hours=6") == 0
    assert run("test", TRAINED + 23 * 3600) == 0
    (point,) = incidents(database)
    assert brief(point) == ("port", "1", "closed", "01T06:00", "01T12:00", "new level")
    opening, level = told(caplog)
    assert opening.startswith(
        "2023-02-01T07:00:00Z incident opens: core_1_in 2.9 kB/s (expected 5.5-9.1) for 1 h"
    )
    assert level.startswith("core_1_in: new level since 2023-02-01T06:00:00Z: 4")
    alerts = database.client.query(
        "SELECT * FROM detected_port_anomalies WHERE severity = 'alert' AND time > '2023-02-01T12:00:00Z'"
    )
    assert list(alerts.get_points()) == []


def test_each_detector_has_its_own_incidents_and_is_named(
    database: Database, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(31)
    change(times, traffic, "2023-02-01T10:00", "2023-02-01T12:00", 5.0)
    store(database, {("core", "1"): traffic}, times)
    assert run("train", TRAINED, "--detector=all") == 0
    caplog.clear()
    assert run("test", TRAINED + 11 * 3600, "--detector=all") == 0
    found = incidents(database)
    assert len({point["detector"] for point in found}) == len(found) == 6
    lines = told(caplog)
    assert sorted(line.rpartition(" ")[2] for line in lines) == sorted(
        f"({one['detector']})" for one in found
    )


def test_a_state_whose_incidents_are_damaged_ends_the_job_in_one_line(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/ports.json").write_text(json.dumps({"incidents": 5}))
    assert run("test", TRAINED) == 1
    assert capfd.readouterr().err == (
        "find_anomalies.py: state/ports.json: its incidents are damaged; delete the file, and all is judged"
        " since training\n"
    )
