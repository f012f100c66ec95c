"""The file of devices, their time zones, and days that are local ones whenever the clocks change."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from common.files import UserError
from common.times import last_midnight, local_days
from parallel.cluster import Cluster
from ports import models
from ports.detectors import TooShortError
from ports.devices import Device, read_devices, unused_devices
from ports.series import Series
from ports.sources import Folder
from ports.training import TrainingSettings, fit_series, train
from ports.verdicts import judge
from tests.support.port_series import START, samples, write

ROME, LONDON = "Europe/Rome", "Europe/London"


def file_of(folder: Path, content: object) -> Path:
    path = folder / "devices.json"
    path.write_text(json.dumps(content))
    return path


def instant(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


# --- the file ------------------------------------------------------------------------------------


def test_what_a_file_says_of_devices(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, {"lon 1": {"timezone": LONDON}, "b": {"holidays": "IT", "timezone": ROME}, "c": {}}
    )
    assert read_devices(path) == {"lon 1": Device(LONDON), "b": Device(ROME, "IT"), "c": Device()}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"a": {"zone": "UTC"}}, "{}: device 'a': there is no key 'zone'; use timezone or holidays"),
        (
            {"a": {"timezone": "Rome"}},
            "{}: device 'a': 'Rome' is not a time zone like Europe/Rome or UTC",
        ),
        (
            {"a": {"timezone": "../../etc/passwd"}},
            "{}: device 'a': '../../etc/passwd' is not a time zone like Europe/Rome or UTC",
        ),
        ({"a": {"timezone": 1}}, "{}: device 'a': timezone must be a text"),
        ({"a": {"holidays": ["IT"]}}, "{}: device 'a': holidays must be a text"),
        ({"a": {"timezone": None}}, "{}: device 'a': timezone must be a text"),
        ({"a": {"holidays": ""}}, "{}: device 'a': holidays must be a text"),
        (
            {"a": {"holidays": "Itlay"}},
            "{}: device 'a': holidays: 'Itlay' is not a country like IT or GB-ENG; did you mean IT?",
        ),
        ({"a": "UTC"}, '{}: device \'a\' must be an object like {{"timezone": "Europe/London"}}'),
        (["a"], '{}: must hold one JSON object, like {{"key": 1.0}}'),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: object, line: str) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_devices(path)
    assert str(caught.value) == line.format(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="devices.json"):
        read_devices(tmp_path / "devices.json")


def test_devices_that_no_series_has() -> None:
    devices = {"a": Device(), "core_1": Device(), "x": Device(), "b": Device()}
    assert unused_devices(devices, ["a_1_in", "core%5F1_2_out"]) == ["b", "x"]
    assert unused_devices({}, ["a_1_in"]) == []


# --- zones ---------------------------------------------------------------------------------------


def test_each_series_has_the_zone_of_its_device(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "find_anomalies")
    for name in ("lon_1_in", "rom_1_in", "rom_2_in"):
        write(tmp_path / "ports", name, *samples(31))
    settings = TrainingSettings(("profile",), "default", 15, ROME, 28, None)
    settings = replace(settings, devices={"lon": Device(LONDON), "old": Device(ROME)})
    folder = tmp_path / "models"
    assert train(Folder(tmp_path / "ports"), settings, Cluster(1), folder) == set()
    zones = {path.name.split("_")[0]: models.load(path) for path in folder.iterdir()}
    assert {name: one.zone for name, one in zones.items()} == {"lon": LONDON, "rom": ROME}
    # Until midnight there: in Rome it is an hour earlier.
    assert zones["lon"].end - zones["rom"].end == 3600
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "no series is of these devices in --devices: old",
        f"{folder}: profile trained for 3 of 3 series, in the time zones Europe/London, Europe/Rome",
    ]


def test_what_is_found_in_the_samples_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "find_anomalies")
    times, traffic = samples(31)
    for port in range(2):
        write(tmp_path / "ports", f"a_{port}_in", times, np.cumsum(traffic))
        write(tmp_path / "ports", f"b_{port}_in", times[5::6], traffic.reshape(-1, 6).sum(axis=1))
    settings = TrainingSettings(("profile",), "default", 15, "UTC", 28, None)
    for is_given in (False, True):
        caplog.clear()
        settings = replace(settings, are_minutes_given=is_given)
        assert train(Folder(tmp_path / "ports"), settings, Cluster(1), tmp_path / "models") == set()
        lines = [record.getMessage() for record in caplog.records]
        longer = (
            "2 series have buckets longer than --bucket_minutes 15, because they are sampled too seldom:"
            " b_0_in, b_1_in"
        )
        assert lines[:-1] == [
            "2 series hold a counter, whose differences are judged: a_0_in, a_1_in",
            *[longer] * is_given,
        ]


# --- local days ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "zone", "days", "midnight"),
    [
        ("2023-04-10T12:00", ROME, 28, "2023-03-13T00:00"),
        ("2023-11-10T12:00", ROME, 28, "2023-10-13T00:00"),
        ("2023-04-10T00:00", ROME, 0, "2023-04-10T00:00"),
        ("2023-03-01T00:30", "America/New_York", 1, "2023-02-28T00:00"),
        # There, the clocks go forward at midnight.
        ("2023-04-30T12:00", "Africa/Cairo", 2, "2023-04-28T01:00"),
    ],
)
def test_midnight_some_local_days_before(moment: str, zone: str, days: int, midnight: str) -> None:
    assert last_midnight(instant(moment, zone), zone, days) == instant(midnight, zone)


def test_a_local_day_is_one_however_long_it_is() -> None:
    for day in ("2023-03-26", "2023-10-29", "2023-06-01"):
        start = instant(f"{day}T00:00", ROME)
        assert local_days(start, last_midnight(start + 36 * 3600, ROME), ROME) == 1.0


def shifted(begin: int, days: int) -> Series:
    """The usual port, from another time on; the last day has room for a change of the clocks."""
    times, traffic = samples(days)
    return Series("a_1_in", times - START + begin, traffic)


@pytest.mark.parametrize("zone", [ROME, LONDON, "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("preparation", ["default", "workshop"])
@pytest.mark.parametrize("monday", ["2023-03-13", "2023-03-20", "2023-10-09", "2023-10-23"])
def test_28_days_are_enough_whenever_the_clocks_change(monday: str, preparation: str, zone: str) -> None:
    begin = instant(f"{monday}T00:00", zone)
    series = shifted(begin, 30)
    until = last_midnight(begin + 28 * 86_400 + 43_200, zone)
    settings = TrainingSettings(("profile",), preparation, 30, zone, 28, until)
    trained = fit_series(series, "profile", settings)
    assert (trained.start, trained.end) == (begin, until)
    assert local_days(trained.start, trained.end, zone) == 28.0
    judge(trained, series, trained.end)


def test_27_days_are_too_few_however_long_they_are() -> None:
    begin = instant("2023-10-09T00:00", ROME)
    until = last_midnight(begin + 27 * 86_400 + 43_200, ROME)
    settings = TrainingSettings(("profile",), "default", 15, ROME, 28, until)
    with pytest.raises(TooShortError) as caught:
        fit_series(shifted(begin, 28), "profile", settings)
    assert str(caught.value) == "a_1_in: has 27 days of history and needs 1 more to reach 28"
