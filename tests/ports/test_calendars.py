"""Windows of a calendar: what a file may hold, when a window is, and that it is quiet and not learnt."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import find_anomalies
from common.answers import Answer, LevelRange, widened
from common.calendars import Window, load_windows
from common.files import UserError
from parallel.cluster import Cluster
from ports import models
from ports.calendars import Calendar, concerns, touches
from ports.comparison import ComparisonTask, Detection, compare_series
from ports.hourly import HourlyJob
from ports.incidents import PortIncident, Watched, observe
from ports.judging import JudgingSettings
from ports.models import Trained
from ports.notices import describe_incident
from ports.series import KnownAnomaly, Series
from ports.sources import Folder
from ports.training import TrainingSettings, fit_series
from ports.verdicts import NO_WINDOWS, Verdicts, judge, statuses
from service.incident_log import IncidentLog
from tests.support.port_series import change, moment, samples, write

ROOT = Path(__file__).resolve().parents[2]
TRAINED_UNTIL = "2023-02-06"
CODES = {"normal": ".", "anomaly": "x", "alert": "X", "unknown": "?"}
MON, SUN, DAY = 0, 6 * 1440, 1440


def write_calendar(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- the file ------------------------------------------------------------------------------------


def test_a_file_has_windows_with_times_and_weekly_ones(tmp_path: Path) -> None:
    content = {
        "new core": {
            "from": "2023-04-20 22:00",
            "until": "2023-04-21T04:00:00+02:00",
            "series": ["core", "a_*"],
        },
        "backup": {"weekly": "sun 02:00-04:00"},
        "night": {"weekly": "Sat 22:30 - 24:00"},
        "into Monday": {"weekly": "sun 23:00-01:00"},
    }
    assert load_windows(write_calendar(tmp_path / "calendar.json", content)) == (
        Window("new core", moment("2023-04-20T22:00"), moment("2023-04-21T02:00"), False, ("core", "a_*")),
        Window("backup", SUN + 120, SUN + 240, True),
        Window("night", 5 * DAY + 1350, 6 * DAY, True),
        Window("into Monday", SUN + 1380, 7 * DAY + 60, True),
    )


def test_the_example_of_the_docs_is_a_calendar(tmp_path: Path) -> None:
    text = (ROOT / "docs/ports-calendar.md").read_text().partition("```json\n")[2].partition("```")[0]
    line, backup = load_windows(write_calendar(tmp_path / "calendar.json", text))
    milan = ("new line to Milan", moment("2023-04-20T20:00"), moment("2023-04-21T02:00"))
    assert line == Window(*milan, False, ("core", "edge_1_*"))
    assert backup == Window("backup of the data centre", SUN + 120, SUN + 240, True)


TIMES = {"from": "2023-04-20", "until": "2023-04-21"}
EITHER = 'must have either "from" and "until", or one of "weekly", "daily" and "holidays"'


@pytest.mark.parametrize(
    ("window", "line"),
    [
        ([], 'must be an object with "from" and "until", or with "weekly"'),
        ({}, EITHER),
        ({**TIMES, "weekly": "sun 02:00-04:00"}, EITHER),
        ({"daily": "02:00-04:00", "weekly": "sun 02:00-04:00"}, EITHER),
        ({"from": "2023-04-20"}, '"until" is missing; it must be a time like 2023-01-31T22:00:00Z'),
        ({**TIMES, "until": "late"}, "\"until\" is 'late'; it must be a time like 2023-01-31T22:00:00Z"),
        ({**TIMES, "from": 5}, '"from" is 5; it must be a time like 2023-01-31T22:00:00Z'),
        ({**TIMES, "until": "2023-04-20"}, '"until" must be later than "from"'),
        (
            {**TIMES, "to": 1},
            "has an unknown key 'to'; use from, until, weekly, daily, holidays, series, nodes",
        ),
        ({"weekly": "sunday 02:00-04:00"}, None),
        ({"weekly": "sun 2:00-04:00"}, None),
        ({"weekly": "sun 24:00-04:00"}, None),
        ({"weekly": "sun 02:00-24:15"}, None),
        ({"weekly": "sun 02:60-04:00"}, None),
        ({"weekly": "sun 02:00-02:00"}, None),
        ({"weekly": "xyz 02:00-04:00"}, None),
        ({"weekly": 7}, None),
        (
            {**TIMES, "series": "core"},
            '"series" is \'core\'; it must be a list of patterns like ["core_*", "sw1"]',
        ),
        ({**TIMES, "series": []}, '"series" is []; it must be a list of patterns like ["core_*", "sw1"]'),
        ({**TIMES, "series": [1]}, '"series" is [1]; it must be a list of patterns like ["core_*", "sw1"]'),
    ],
)
def test_a_wrong_window_is_one_line_with_file_key_and_remedy(
    window: Any, line: str | None, tmp_path: Path
) -> None:
    path = write_calendar(tmp_path / "calendar.json", {"good": TIMES, "a": window})
    line = line or f'"weekly" is {window["weekly"]!r}; it must be like "sun 02:00-04:00"'
    with pytest.raises(UserError) as raised:
        load_windows(path)
    assert str(raised.value) == f"{path}: 'a': {line}"


def test_the_command_line_refuses_a_wrong_file_before_it_works(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    times, traffic = samples(1)
    write(tmp_path, "1_1_out", times, traffic)
    path = write_calendar(tmp_path / "calendar.json", '{"a": {},}')
    for mode in ("train", "test"):
        words = ["--target=ports", f"--mode={mode}", f"--ports_dir={tmp_path}", f"--calendar={path}"]
        words.append(f"--ports_models={tmp_path / 'models'}")
        assert find_anomalies.main(words) == 1
        said = capfd.readouterr().err
        assert said.startswith(f"find_anomalies.py: {path}, line 1: not valid JSON")
        assert said.count("\n") == 1
    assert not (tmp_path / "models").exists()


# --- when a window is ----------------------------------------------------------------------------


def touched(window: Window, start: str, count: int, minutes: int, zone: str = "UTC") -> str:
    starts = moment(start) + minutes * 60 * np.arange(count)
    return "".join(".#"[int(inside)] for inside in touches(window, starts, minutes, zone))


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("10:15", "10:45", ".##..."),
        ("10:16", "10:44", ".##..."),
        ("10:14", "10:46", "####.."),
        ("10:20", "10:21", ".#...."),
        ("08:00", "10:00", "......"),
        ("11:30", "12:00", "......"),
    ],
)
def test_a_bucket_that_a_window_touches_is_inside(start: str, end: str, found: str) -> None:
    window = Window("a", moment(f"2023-04-20T{start}"), moment(f"2023-04-20T{end}"), False)
    assert touched(window, "2023-04-20T10:00", 6, 15) == found


def test_a_weekly_window_follows_the_clocks_of_its_zone() -> None:
    window = Window("a", SUN + 180, SUN + 240, True)  # Sundays from 03:00 to 04:00
    # The clocks of Rome go forward on 26 March, from 02:00 to 03:00, which is 01:00 in UTC.
    assert touched(window, "2023-03-19T00:00", 5, 60, "Europe/Rome") == "..#.."
    assert touched(window, "2023-03-26T00:00", 5, 60, "Europe/Rome") == ".#..."
    assert touched(window, "2023-03-20T00:00", 24, 60, "Europe/Rome") == "." * 24
    # Half an hour in the bucket of an hour, where midnight is at 18:15.
    assert touched(window, "2023-03-18T20:00", 4, 60, "Asia/Kathmandu") == ".##."


def test_a_weekly_window_goes_on_into_the_next_week() -> None:
    window = Window("a", SUN + 1410, 7 * DAY + 30, True)  # Sundays from 23:30
    assert touched(window, "2023-04-16T23:00", 8, 15) == "..####.."
    assert touched(window, "2023-04-16T23:20", 5, 10) == ".####"
    # A minute inside a bucket of an hour, at the end of the week.
    assert touched(Window("a", SUN + 1438, SUN + 1439, True), "2023-04-16T22:00", 4, 60) == ".#.."


@pytest.mark.parametrize(
    ("patterns", "series", "is_meant"),
    [
        (("*",), "core_1_in", True),
        (("core",), "core_1_in", True),
        (("core",), "core2_1_in", False),
        (("core_*",), "core_1_in", True),
        (("core_1_*",), "core_11_in", False),
        (("*_out",), "core_1_in", False),
        (("x", "core?"), "core2_1_in", True),
        # A device by the name that it has in InfluxDB.
        (("sw_1",), "sw%5F1_2_in", True),
        (("CORE",), "core_1_in", False),
    ],
)
def test_patterns_are_of_series_or_devices(patterns: tuple[str, ...], series: str, is_meant: bool) -> None:
    window = Window("a", 0, 1, False, patterns)
    assert concerns(window, series) is is_meant
    assert Calendar((window,)).of(series) == Calendar((window,) if is_meant else ())
    assert Calendar((window,)).unused([series, "other_1_in"]) == (
        [] if is_meant or patterns == ("*",) else ["a"]
    )


# --- quiet ---------------------------------------------------------------------------------------

SCORES = {".": 0.5, "x": 2.0, "?": np.nan}


@pytest.mark.parametrize(
    ("points", "quiet", "expected"),
    [
        ("xxxxxx", "      ", "xxxXXX"),
        ("xxxxxx", "######", "xxxxxx"),
        # What is inside neither starts nor continues a row.
        ("xxxxxxxx", "###     ", "xxxxxxXX"),
        ("xxxxxxxx", "  ###   ", "xxxxxxXX"),
        ("xxxxxx..", "   ###  ", "xxxxxx.."),
        # What is usual ends one, also inside.
        ("xxx.xx", "   #  ", "xxx.xx"),
        # Nor does it count among many.
        ("x." * 12, "#" * 12 + " " * 12, "x." * 12),
        ("x." * 12, " " * 24, "x." * 7 + "X." * 5),
        ("?x?", "###", "?x?"),
    ],
)
def test_an_anomaly_inside_is_never_an_alert_and_counts_for_none(
    points: str, quiet: str, expected: str
) -> None:
    score = np.array([SCORES[point] for point in points])
    found = statuses(score, is_quiet=np.array([one == "#" for one in quiet]))
    assert "".join(CODES[status] for status in found) == expected


def port(*changes: tuple[str, str, float], days: int = 42) -> Series:
    times, traffic = samples(days)
    for one in changes:
        change(times, traffic, *one)
    return Series("1_1_out", times, traffic)


def train(series: Series, calendar: Calendar = NO_WINDOWS, holidays: str | None = None) -> Trained:
    settings = TrainingSettings(
        ("profile",), "default", 15, "UTC", 35, moment(TRAINED_UNTIL), holidays=holidays, calendar=calendar
    )
    return fit_series(series, "profile", settings)


def calendar_of(start: str, end: str, *series: str) -> Calendar:
    return Calendar((Window("a", moment(start), moment(end), False, series or ("*",)),))


def counts(verdicts: Verdicts, start: str, end: str) -> dict[str, int]:
    part = (verdicts.times > moment(start)) & (verdicts.times <= moment(end))
    names, numbers = np.unique(verdicts.statuses[part].astype(str), return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


WINDOW = ("2023-02-07T08:00", "2023-02-07T16:00")


def test_in_a_window_are_anomalies_and_after_it_all_is_as_before() -> None:
    series = port((*WINDOW, 5.0))
    trained = train(series)
    verdicts = judge(trained, series, trained.end, calendar_of(*WINDOW))
    assert counts(verdicts, *WINDOW) == {"anomaly": 32}
    assert counts(verdicts, WINDOW[1], "2023-02-08") == {"normal": 32}
    # Of another series.
    of_others = judge(trained, series, trained.end, calendar_of(*WINDOW, "2"))
    assert counts(of_others, *WINDOW)["alert"] == 29


def test_what_goes_on_after_a_window_is_an_alert_from_the_fourth_on() -> None:
    series = port((WINDOW[0], "2023-02-07T18:00", 5.0))
    trained = train(series)
    verdicts = judge(trained, series, trained.end, calendar_of(*WINDOW))
    assert counts(verdicts, WINDOW[1], "2023-02-07T16:45") == {"anomaly": 3}
    assert counts(verdicts, "2023-02-07T16:45", "2023-02-07T18:00") == {"alert": 5}
    assert counts(verdicts, "2023-02-07T18:00", "2023-02-08T00:00") == {"normal": 24}


def test_after_a_window_of_days_the_level_is_that_of_before() -> None:
    """The level of the window, a third, would make what follows an alert: it lasts for longer than a return
    to the level of before would be ordinary.
    """
    days = ("2023-02-07T08:00", "2023-02-10T12:00")
    series = port((*days, 1 / 3))
    trained = train(series)
    verdicts = judge(trained, series, trained.end, calendar_of(*days))
    assert set(counts(verdicts, *days)) <= {"anomaly", "normal"}
    assert counts(verdicts, days[1], "2023-02-11T00:00") == {"normal": 48}
    without = judge(trained, series, trained.end)
    # Until the level has been that of before for twelve hours.
    assert counts(without, days[1], "2023-02-11T00:00") == {"anomaly": 3, "alert": 45}


def test_a_model_whose_last_days_are_a_window_knows_no_level_until_it_has_seen_some() -> None:
    days = ("2023-02-03T00:00", "2023-02-06T12:00")
    calendar = calendar_of(*days)
    series = port((*days, 5.0))
    trained = train(series, calendar)
    verdicts = judge(trained, series, trained.end, calendar)
    assert counts(verdicts, "2023-02-06T00:00", "2023-02-06T18:00") == {"unknown": 72}
    assert counts(verdicts, "2023-02-06T18:00", "2023-02-06T23:30") == {"normal": 22}


def test_a_window_is_not_learnt() -> None:
    """A model that is trained with a window is that of a port without samples in it."""
    days = ("2023-01-16T09:00", "2023-01-18T11:00")
    loud = port((*days, 9.0))
    is_outside = (loud.times <= moment(days[0])) | (loud.times > moment(days[1]))
    without = Series(loud.name, loud.times[is_outside], loud.traffic[is_outside])
    with_window, expected = train(loud, calendar_of(*days)), train(without)
    assert models.pack(with_window) == models.pack(expected)
    assert models.pack(train(loud)) != models.pack(expected)


# --- hourly and at once --------------------------------------------------------------------------

DAY_HOURS = 96
changes = st.lists(
    st.tuples(st.integers(0, DAY_HOURS - 1), st.integers(1, 20), st.sampled_from([0.2, 0.5, 3.0, 8.0])),
    max_size=4,
)
windows = st.lists(
    st.one_of(
        st.tuples(st.just(False), st.integers(-60, DAY_HOURS), st.integers(1, 80)),
        st.tuples(st.just(True), st.integers(0, 167), st.integers(1, 24)),
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def model() -> Trained:
    """Of a port of Italians; Epiphany is in its training span."""
    return train(port(("2023-01-06", "2023-01-06T23:59:59", 1 / 3)), holidays="IT")


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(changes, windows, st.lists(st.integers(1, DAY_HOURS * 12), max_size=6), st.booleans())
@example([(10, 20, 3.0)], [(False, 12, 10)], [12 * 11, 12 * 15, 12 * 23], True)
@example([(0, 20, 0.2)], [(False, -60, 70)], [12 * 9, 12 * 12], False)
def test_run_by_run_the_verdicts_are_those_of_one_run(
    model: Trained,
    changed: list[tuple[int, int, float]],
    found: list[tuple[bool, int, int]],
    runs: list[int],
    with_holidays: bool,
) -> None:
    times, traffic = samples(39)
    for first, hours, factor in changed:
        start = model.end + first * 3600
        traffic[(times > start) & (times <= start + hours * 3600)] *= factor
    everything = Series(model.series, times, traffic)
    calendar = Calendar(
        tuple(
            Window(
                "a",
                first * 60 if is_weekly else model.end + first * 3600,
                (first + hours) * 60 if is_weekly else model.end + (first + hours) * 3600,
                is_weekly,
            )
            for is_weekly, first, hours in found
        )
    )
    trained = model if not with_holidays else with_special(model)
    at_once = judge(trained, everything, trained.end, calendar).after(trained.end)
    judged, since, parts = [], trained.end, []
    for run in [*sorted(runs), DAY_HOURS * 12]:
        so_far = everything.between(0, trained.end + run * 300)
        verdicts = judge(trained, so_far, since, calendar).after(since)
        if len(verdicts.times):
            since = int(verdicts.times[-1])
            judged += list(verdicts.anomalies())
            parts.append(verdicts.statuses)
    assert judged == [one for one in at_once.anomalies() if one.time <= since]
    assert np.concatenate(parts).tolist() == at_once.statuses[: sum(map(len, parts))].tolist()


def with_special(trained: Trained) -> Trained:
    """With a bridge and a holiday in the days after the training: Tuesday to Thursday."""
    special = replace(
        trained.special, holidays=(date(2023, 2, 8),), bridges=(date(2023, 2, 7), date(2023, 2, 9))
    )
    return replace(trained, special=special)


# --- the jobs ------------------------------------------------------------------------------------


def said_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return said


def test_the_hourly_job_reads_a_changed_calendar_and_keeps_the_last_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    floods = [(f"2023-02-{day:02d}T08:00", f"2023-02-{day:02d}T16:00", 5.0) for day in range(6, 11)]
    series = port(*floods)
    path = models.model_path(tmp_path / "models", "1_1_out", "profile")
    path.parent.mkdir()
    models.save(models.pack(train(series)), path)
    calendar = write_calendar(tmp_path / "calendar.json", {})
    job = HourlyJob(
        JudgingSettings(str(tmp_path / "models"), ("profile",), None, Cluster(1)),
        lambda: Folder(tmp_path / "ports"),
        contextlib.nullcontext,
        calendar_file=str(calendar),
    )
    days = iter(range(7, 12))

    def alerts(content: Any = None) -> int:
        """Of one more day, after the calendar was changed."""
        day = moment(f"2023-02-{next(days):02d}")
        so_far = series.between(0, day)
        write(tmp_path / "ports", "1_1_out", so_far.times, so_far.traffic)
        if content is not None:
            write_calendar(calendar, content)
            os.utime(calendar, (day, day))
        job.turn()
        return capsys.readouterr().out.count('"alert"')

    def incidents(day: int) -> list[str]:
        """What is said of the flood of a day: since when, and for how long."""
        name = f"1_1_out [1_1_out@202302{day:02d}T080000Z]"
        return [
            f"incident opens: {name}",
            f"incident closes: {name.replace(' ', f', for 8 h since 2023-02-{day:02d}T08:00:00Z ')}",
        ]

    def said() -> list[str]:
        """Lines about incidents without the time before and the bytes."""
        amounts = r"^\S+Z (incident opens: \S+|incident closes: .*?Z)[ ;].*(\[.*\])$"
        return [re.sub(amounts, r"\1 \2", line) for line in said_of(caplog)]

    assert (alerts(), said()) == (29, incidents(6))
    window = {"new line": {"from": "2023-02-07T08:00", "until": "2023-02-20"}}
    # In a window no incident opens.
    assert (alerts(window), said()) == (0, [f"{calendar}: the window new line keeps alerts quiet"])
    fault = f"{calendar}: 'a': {EITHER}. Until then the last good calendar stays in force"
    assert (alerts({"a": {}}), said()) == (0, [fault])
    assert (alerts(), said()) == (0, [])
    mended = [f"{calendar} can be read again", f"{calendar}: taken back: new line"]
    assert (alerts({}), said()) == (29, [*mended, *incidents(10)])
    typo = {"typo": {"daily": "01:00-02:00", "series": ["1_1_uot"]}}
    idle = (
        "nothing that is watched has these names: window typo: series or device 1_1_uot,"
        " did you mean 1_1_out?"
    )
    days = iter((11, 12))
    assert (alerts(typo), said()) == (0, [f"{calendar}: the window typo keeps alerts quiet", idle])
    assert (alerts(), [one for one in said() if one == idle]) == (0, [])


def test_training_names_windows_that_concern_no_series(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times, traffic = samples(30)
    write(tmp_path / "ports", "1_1_out", times, traffic)
    calendar = write_calendar(
        tmp_path / "calendar.json", {"typo": {**TIMES, "series": ["2"]}, "good": {**TIMES, "series": ["1"]}}
    )
    words = ["--target=ports", "--mode=train", f"--ports_dir={tmp_path / 'ports'}", f"--calendar={calendar}"]
    assert find_anomalies.main([*words, "--timezone=UTC", f"--ports_models={tmp_path / 'models'}"]) == 0
    assert said_of(caplog) == ["no series is in these windows of --calendar: typo"]


@pytest.mark.parametrize(
    ("calendar", "known", "false_alerts"),
    [
        (Calendar(), 1, 1),
        (calendar_of("2023-02-09T09:00", "2023-02-09T13:00"), 1, 0),
        (calendar_of("2023-02-07T11:55", "2023-02-07T12:05"), 0, 1),
    ],
)
def test_evaluate_excuses_windows(calendar: Calendar, known: int, false_alerts: int) -> None:
    """One anomaly is known, and another one is not."""
    floods = [(f"2023-02-{day}T10:00", f"2023-02-{day}T12:00", 5.0) for day in ("07", "09")]
    training = TrainingSettings(("profile",), "default", 15, "UTC", 28, None, calendar=calendar)
    one = KnownAnomaly(moment("2023-02-07T10:00"), moment("2023-02-07T12:00"))
    task = ComparisonTask("1_1_out", port(*floods), training, [one], None)
    found = compare_series(task)
    assert found.fault.text is None
    # From 4 to 13 February.
    detection = Detection(known, known, known, false_alerts, pytest.approx(9 / 30.4))
    assert found.results["profile"].at_once == found.results["profile"].iterative == detection


# --- answers -------------------------------------------------------------------------------------


def answered(kind: str, start: str, end: str, *limits: float) -> Calendar:
    """limits: of what is normal, in bytes per second; from 07:30 to 16:30."""
    metrics = {"traffic": LevelRange(*limits)} if limits else {}
    times = moment(start) * 10**9, moment(end) * 10**9
    return Calendar((), (Answer("a", kind, ("1",), *times, metrics, (450, 990)),))


def test_what_is_normal_is_quiet_on_each_day_and_more_of_it_is_not() -> None:
    next_day = ("2023-02-08T08:00", "2023-02-08T16:00")
    series = port((*WINDOW, 5.0), (*next_day, 10.0))
    trained = train(series)
    verdicts = judge(trained, series, trained.end)
    (opened, closed) = (one for _, one in observe(verdicts, moment("2023-02-07"), Watched()).changes[:2])
    entry = closed.entry()["metrics"]["traffic"]
    is_inside = (verdicts.times > moment(WINDOW[0])) & (verdicts.times <= moment(WINDOW[1]))
    peak = verdicts.buckets.traffic[is_inside]
    # Bytes of samples of 5 minutes.
    assert entry["highest"] == pytest.approx(peak.max() / 300, rel=1e-5)
    assert (opened.id, entry["unit"]) == ("1_1_out@20230207T080000Z", "B/s")
    limits = widened(entry["lowest"], entry["highest"], tuple(entry["expected"]))
    calendar = answered("normal", *WINDOW, limits.low, limits.high)
    quiet = judge(trained, series, trained.end, calendar)
    assert counts(quiet, *WINDOW) == {"anomaly": 32}
    assert counts(quiet, *next_day)["alert"] >= 26
    said = [one for one in quiet.anomalies() if moment(WINDOW[0]) < one.time <= moment(WINDOW[1])]
    assert {one.quiet for one in said} == {"answer a"}
    assert json.loads(said[0].to_json())["quiet"] == "answer a"
    # At another time of day it is not normal.
    at_night = replace(calendar.answers[0], daily=(0, 60))
    assert counts(judge(trained, series, trained.end, Calendar((), (at_night,))), *WINDOW)["alert"] == 29


def test_a_maintenance_is_quiet_an_attack_is_not_and_neither_is_learnt() -> None:
    series = port((*WINDOW, 5.0))
    trained = train(series)
    for kind, found in (("maintenance", {"anomaly": 32}), ("attack", {"anomaly": 3, "alert": 29})):
        assert counts(judge(trained, series, trained.end, answered(kind, *WINDOW)), *WINDOW) == found
    days = ("2023-01-16T09:00", "2023-01-18T11:00")
    loud = port((*days, 9.0))
    for kind in ("maintenance", "attack"):
        with_answer = models.pack(train(loud, answered(kind, *days)))
        assert with_answer == models.pack(train(loud, calendar_of(*days)))
    normal = models.pack(train(loud, answered("normal", *days, 0.0, 1.0)))
    assert normal == models.pack(train(loud, calendar_of(*days)))


def test_an_open_incident_that_is_answered_closes_and_says_so() -> None:
    series = port((*WINDOW, 5.0))
    trained = train(series)
    half = moment("2023-02-07T12:00")
    first = observe(judge(trained, series.between(0, half), trained.end), trained.end, Watched())
    assert first.watched.open is not None
    calendar = answered("maintenance", "2023-02-07T12:00", "2023-02-07T20:00")
    then = observe(judge(trained, series, trained.end, calendar), half, first.watched)
    ((time, closed),) = then.changes
    assert (time, closed.end) == (half + 4 * 900, "answered")
    assert describe_incident(time, closed).endswith("; an answer keeps it quiet [1_1_out@20230207T080000Z]")
    # What is stored and loaded again is the same.
    assert PortIncident.restored(json.loads(json.dumps(asdict(closed)))).entry() == closed.entry()


def test_the_hourly_job_publishes_incidents_and_reads_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    series = port((*WINDOW, 5.0)).between(0, moment("2023-02-08"))
    path = models.model_path(tmp_path / "models", "1_1_out", "profile")
    path.parent.mkdir()
    models.save(models.pack(train(series)), path)
    write(tmp_path / "ports", "1_1_out", series.times, series.traffic)
    answers = tmp_path / "answers.json"

    def run(state: str) -> int:
        HourlyJob(
            JudgingSettings(str(tmp_path / "models"), ("profile",), None, Cluster(1)),
            lambda: Folder(tmp_path / "ports"),
            contextlib.nullcontext,
            state_file=tmp_path / state / "ports.json",
            answers_file=str(answers),
        ).run_once()
        return capfd.readouterr().out.count('"alert"')

    assert run("first") == 29
    (entry,) = IncidentLog(tmp_path / "first").read().values()
    assert [entry[key] for key in ("id", "half", "node", "began", "ended")] == [
        "1_1_out@20230207T080000Z",
        "ports",
        "1_1_out",
        "2023-02-07T08:00:00Z",
        "2023-02-07T16:00:00Z",
    ]
    files = [f"--state_dir={tmp_path / 'first'}", f"--answers_file={answers}", "--timezone=UTC"]
    words = ["--target=ports", "--mode=answer", f"--incident={entry['id']}", "--normal", "--yes"]
    assert find_anomalies.main([*words, *files]) == 0
    capfd.readouterr()
    assert run("second") == 0
    assert IncidentLog(tmp_path / "second").read() == {}
