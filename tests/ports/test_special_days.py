"""Public holidays: when they are, what a port is like on them, and what follows from that."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

import find_anomalies
from common.files import UserError
from common.public_holidays import parse_country
from ports import models
from ports.detectors import Model
from ports.models import Trained
from ports.preparation import PREPARATIONS, Buckets, week_slots
from ports.series import Series
from ports.special_days import BRIDGE, HOLIDAY, SpecialDays, special_days
from ports.training import TrainingSettings, fit_series
from ports.verdicts import Verdicts, judge
from tests.support.port_series import change, moment, samples, write

# From Monday 2 January to Sunday 7 May 2023: Epiphany is on a Friday, Easter Monday on 10 April, Liberation
# Day on Tuesday 25 April, with a bridge day before, and Labour Day on Monday 1 May.
DAYS = 126
WORKING_HOLIDAYS = ("2023-01-06", "2023-04-10", "2023-04-25", "2023-05-01")


# --- when they are -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("IT", "IT"),
        ("it", "IT"),
        (" GB-ENG ", "GB-ENG"),
        ("gb-eng", "GB-ENG"),
        ("de-augsburg", "DE-Augsburg"),
    ],
)
def test_a_country_or_a_part_of_it_is_known_in_any_case(text: str, country: str) -> None:
    assert parse_country(text) == country


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Italy", "'Italy' is not a country like IT or GB-ENG; did you mean IT?"),
        ("Switserland", "'Switserland' is not a country like IT or GB-ENG; did you mean CH?"),
        ("q", "'q' is not a country like IT or GB-ENG"),
        ("", "'' is not a country like IT or GB-ENG"),
        ("GB-LON", "'GB-LON': GB has no subdivision 'LON'; choose from ENG, NIR, SCT, WLS"),
        ("VA-1", "'VA-1': VA has no subdivision '1'; it has none"),
    ],
)
def test_an_unknown_country_is_one_line_with_near_ones(text: str, line: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_country(text)
    assert str(raised.value) == line


def test_the_command_line_refuses_an_unknown_country_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        find_anomalies.main(["--target=ports", "--mode=train", "--holidays=Germny"])
    assert ended.value.code == 2
    assert capfd.readouterr().err == (
        "find_anomalies.py: argument --holidays: 'Germny' is not a country like IT or GB-ENG;"
        " did you mean DE?\n"
    )


def test_special_days_of_spring_in_italy() -> None:
    found = special_days("IT", date(2023, 4, 10), date(2023, 6, 2))
    holidays = (date(2023, 4, 10), date(2023, 4, 25), date(2023, 5, 1), date(2023, 6, 2))
    assert found == SpecialDays(holidays, (date(2023, 4, 24),), (5, 6))


@pytest.mark.parametrize(
    ("country", "first", "last", "bridges"),
    [
        # Thursday is a holiday, then the Friday is a bridge.
        ("IT", date(2019, 4, 20), date(2019, 4, 30), (date(2019, 4, 26),)),
        # Tuesday and Thursday are holidays.
        (
            "ES",
            date(2016, 12, 4),
            date(2016, 12, 20),
            (date(2016, 12, 5), date(2016, 12, 7), date(2016, 12, 9)),
        ),
        # From Saturday to Tuesday nobody works; the three days that follow, and Christmas Eve, are none.
        ("GB-ENG", date(2004, 12, 20), date(2005, 1, 2), ()),
        # The week begins on Sunday: the holiday is a Wednesday, the weekend Friday and Saturday.
        ("IL", date(2023, 4, 20), date(2023, 4, 30), (date(2023, 4, 27),)),
        # The days before the first and after the last one count, too.
        ("IT", date(2023, 4, 24), date(2023, 4, 24), (date(2023, 4, 24),)),
        ("IT", date(2019, 4, 26), date(2019, 4, 26), (date(2019, 4, 26),)),
    ],
)
def test_a_bridge_is_a_working_day_between_a_holiday_and_a_day_without_work(
    country: str, first: date, last: date, bridges: tuple[date, ...]
) -> None:
    assert special_days(country, first, last).bridges == bridges


@pytest.mark.parametrize(("zone", "hours_early"), [("UTC", 0), ("Europe/Rome", 2), ("Asia/Kathmandu", 5.75)])
def test_a_day_is_special_from_midnight_to_midnight_in_its_zone(zone: str, hours_early: float) -> None:
    starts = np.arange(moment("2023-04-23"), moment("2023-04-27"), 900)
    buckets = Buckets(15, starts, np.ones(len(starts)), week_slots(starts, 15, zone))
    kinds = special_days("IT", date(2023, 4, 1), date(2023, 4, 30)).mark(buckets, zone).kinds
    begin = moment("2023-04-24") - hours_early * 3600
    is_bridge = (starts >= begin) & (starts < begin + 86_400)
    is_holiday = (starts >= begin + 86_400) & (starts < begin + 2 * 86_400)
    assert (kinds == np.where(is_bridge, BRIDGE, np.where(is_holiday, HOLIDAY, 0))).all()
    assert is_bridge.sum() == is_holiday.sum() == 96


# --- what a port is like -------------------------------------------------------------------------


def port(factor: float, *changes: tuple[str, str, float]) -> Series:
    """A port whose traffic falls to a third on Sundays, and to a factor on public holidays."""
    times, traffic = samples(DAYS)
    for day in WORKING_HOLIDAYS:
        change(times, traffic, day, f"{day}T23:59:59", factor)
    for one in changes:
        change(times, traffic, *one)
    return Series("1_1_out", times, traffic)


def train(series: Series, until: str, holidays: str | None = "IT", detector: str = "profile") -> Trained:
    settings = TrainingSettings((detector,), "default", 15, "UTC", 63, moment(until), holidays=holidays)
    return fit_series(series, detector, settings)


def statuses(verdicts: Verdicts, start: str, end: str) -> set[str]:
    """Those of buckets between two times, but not around midnight, where traffic jumps."""
    from_midnight = (verdicts.times - 900) % 86_400
    part = (verdicts.times > moment(start)) & (verdicts.times <= moment(end))
    part &= (from_midnight >= 1800) & (from_midnight < 86_400 - 1800)
    return set(verdicts.statuses[part].tolist())


def judged(series: Series, trained: Trained) -> Verdicts:
    return judge(trained, series, trained.end).after(trained.end)


def expected(verdicts: Verdicts, time: str) -> float:
    return float(verdicts.scored.expected[verdicts.times == moment(time)][0])


@pytest.mark.parametrize("detector", ["profile", "stl", "isolation-forest"])
def test_without_one_in_the_training_a_holiday_is_like_a_sunday(detector: str) -> None:
    series = port(1 / 3)
    trained = train(series, "2023-04-08", detector=detector)
    assert trained.model.holidays_like == 6
    verdicts = judged(series, trained)
    assert "alert" not in verdicts.statuses
    # STL needs longer than others until it has followed a jump at midnight.
    if detector != "stl":
        assert statuses(verdicts, "2023-04-08", "2023-05-08") == {"normal"}
    # A third of 3 million on the holiday, and 3 million on the days before and after.
    for day, millions in (("23", 1), ("24", 3), ("25", 1), ("26", 3)):
        assert expected(verdicts, f"2023-04-{day}T12:00") == pytest.approx(millions * 1e6, rel=0.1)
    # At midnight the traffic is 1 million, or a third of it.
    assert expected(verdicts, "2023-04-25T02:00") == pytest.approx(0.36e6, rel=0.15)
    assert expected(verdicts, "2023-04-26T02:00") == pytest.approx(1.1e6, rel=0.15)


def test_without_the_option_the_same_holiday_is_an_alert() -> None:
    series = port(1 / 3)
    trained = train(series, "2023-04-08", None)
    assert (trained.special, trained.model.holidays_like) == (None, None)
    verdicts = judged(series, trained)
    assert "alert" in statuses(verdicts, "2023-04-10", "2023-04-11")
    assert "alert" in statuses(verdicts, "2023-04-25", "2023-04-26")


@pytest.mark.parametrize(
    ("factor", "saturday", "weekday"),
    [(1 / 3, 1.0, 6), (1.0, 2.0, None), (2.0, 2.0, 5)],
)
def test_a_holiday_is_like_the_weekday_that_holidays_of_the_training_resemble(
    factor: float, saturday: float, weekday: int | None
) -> None:
    saturdays = [date(2023, 1, 7) + timedelta(weeks=week) for week in range(18)]
    series = port(factor, *((f"{day}", f"{day}T23:59:59", saturday) for day in saturdays))
    trained = train(series, "2023-04-29")
    assert trained.model.holidays_like == weekday
    verdicts = judged(series, trained)
    assert "alert" not in verdicts.statuses
    for day in ("2023-05-01", "2023-05-02"):
        assert statuses(verdicts, f"{day}T08:00", f"{day}T21:00") == {"normal"}


def test_where_sunday_is_a_working_day_a_holiday_is_like_the_last_day_of_the_weekend() -> None:
    assert train(port(1.0), "2023-04-04", "IL").model.holidays_like == 5


def test_a_holiday_at_a_weekend_is_no_evidence() -> None:
    """Easter Sunday is like a Sunday on every port, whether it knows holidays or not."""
    trained = train(port(1 / 3), "2023-04-10")
    assert date(2023, 4, 9) in trained.special.holidays
    assert trained.model.holidays_like == 6


@pytest.mark.parametrize(
    ("factor", "found"),
    [(1.0, "normal"), (0.6, "normal"), (1 / 3, "normal"), (1.5, "alert"), (0.2, "alert")],
)
def test_a_bridge_day_may_be_like_its_weekday_like_the_holiday_or_between(factor: float, found: str) -> None:
    series = port(1 / 3, ("2023-04-24", "2023-04-24T23:59:59", factor))
    verdicts = judged(series, train(series, "2023-04-22"))
    assert statuses(verdicts, "2023-04-24T06:00", "2023-04-24T10:00") == {found}
    if found == "normal":
        assert statuses(verdicts, "2023-04-22", "2023-04-28") == {"normal"}
        low, high = (bound[verdicts.times == moment("2023-04-24T12:00")][0] for bound in bounds(verdicts))
        assert low < 1e6 < 3e6 < high


def bounds(verdicts: Verdicts) -> tuple[np.ndarray, np.ndarray]:
    return verdicts.scored.low, verdicts.scored.high


def test_a_flood_on_a_holiday_and_a_drop_after_it_are_alerts() -> None:
    series = port(
        1 / 3,
        ("2023-04-25T10:00", "2023-04-25T12:00", 2.5),
        ("2023-04-26T10:00", "2023-04-26T12:00", 0.4),
    )
    verdicts = judged(series, train(series, "2023-04-22"))
    for day in ("25", "26"):
        assert statuses(verdicts, f"2023-04-{day}T11:00", f"2023-04-{day}T12:00") == {"alert"}
        assert statuses(verdicts, f"2023-04-{day}T14:00", f"2023-04-{day}T23:00") == {"normal"}


def arrays(model: Model) -> list[np.ndarray]:
    return [model.usual, model.limits, model.memory.left, model.memory.wider]


def test_holidays_are_neither_learnt_nor_counted_as_errors() -> None:
    one, other = (train(port(factor), "2023-05-03").model for factor in (1 / 3, 9.0))
    assert one.scaler == other.scaler
    for a, b in zip(arrays(one), arrays(other), strict=True):
        assert (a == b).all()
    # Without the option they are.
    one, other = (train(port(factor), "2023-05-03", None).model for factor in (1 / 3, 9.0))
    assert any((a != b).any() for a, b in zip(arrays(one), arrays(other), strict=True))


# --- the model's file ----------------------------------------------------------------------------


def test_the_file_has_the_dates_up_to_a_year_after_the_training(tmp_path: Path) -> None:
    trained = train(port(1 / 3), "2023-04-29")
    assert trained.special.holidays[:3] == (date(2023, 4, 9), date(2023, 4, 10), date(2023, 4, 25))
    assert trained.special.holidays[-1] == date(2024, 4, 25)
    assert trained.special.bridges[:2] == (date(2023, 4, 24), date(2023, 8, 14))
    assert trained.versions.keys() == {"numpy", "holidays"}
    path = models.model_path(tmp_path, "1_1_out", "profile")
    models.save(models.pack(trained), path)
    assert path.stat().st_size < 8_000
    loaded = models.load(path)
    assert (loaded.special, loaded.model.holidays_like) == (trained.special, 6)


@pytest.mark.parametrize(
    "fault",
    [{"like": 7}, {"like": -1}, {"like": True}, {"like": 1.0}, {"weekend": (7,)}, {"weekend": ("a",)}],
)
def test_a_file_whose_holidays_are_damaged_is_refused(fault: dict, tmp_path: Path) -> None:
    trained = train(port(1 / 3), "2023-04-29")
    model = replace(trained.model, holidays_like=fault.get("like", 6))
    special = replace(trained.special, weekend=fault.get("weekend", (5, 6)))
    path = models.model_path(tmp_path, "1_1_out", "profile")
    models.save(models.pack(replace(trained, model=model, special=special)), path)
    with pytest.raises(UserError, match="is damaged, or not a model; train it again"):
        models.load(path)


def test_judging_does_not_need_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    series = port(1 / 3)
    write(tmp_path / "ports", "1_1_out", series.times, series.traffic)
    common = ["--target=ports", f"--ports_dir={tmp_path / 'ports'}", "--jobs=1"]
    common.append(f"--ports_models={tmp_path / 'models'}")
    training = [*common, "--mode=train", "--timezone=UTC", "--until=2023-04-22"]
    assert find_anomalies.main([*training, "--holidays=IT"]) == 0
    monkeypatch.setitem(sys.modules, "holidays", None)
    assert find_anomalies.main([*common, "--mode=test", "--once"]) == 0
    assert "alert" not in capfd.readouterr().out
    # Nor does training without the option.
    assert find_anomalies.main(training) == 0
    assert find_anomalies.main([*common, "--mode=test", "--once"]) == 0
    assert "alert" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        find_anomalies.main([*training, "--holidays=IT"])
    assert capfd.readouterr().err == (
        "find_anomalies.py: argument --holidays: holidays is not installed; pip install -r requirements.txt\n"
    )


def test_the_workshops_preparation_knows_holidays_too() -> None:
    series = port(1 / 3)
    settings = TrainingSettings(("profile",), "workshop", 30, "UTC", 63, moment("2023-04-22"), holidays="IT")
    trained = fit_series(series, "profile", settings)
    assert trained.preparation in PREPARATIONS
    assert "alert" not in statuses(judged(series, trained), "2023-04-22", "2023-04-28")
