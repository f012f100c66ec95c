"""SKAB's protocol on small recordings made up in its format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.strangers import Counts, load_recording, main
from edge import training
from tests.support.training import quickly

pytestmark = pytest.mark.long

HEADER = "datetime;Pump Current;Pressure;anomaly;changepoint"


def write_recording(path: Path, records: int = 520, anomalies: range = range(460, 500)) -> Path:
    """Two sensors that swing; during the anomalies the second one stands far above."""
    rng = np.random.default_rng(4)
    places = np.arange(records)
    current = 1.3 + 0.2 * np.sin(places / 3) + 0.02 * rng.standard_normal(records)
    pressure = 0.3 + 0.1 * np.cos(places / 3) + 0.01 * rng.standard_normal(records)
    is_anomaly = np.isin(places, anomalies)
    pressure[is_anomaly] += 5.0
    rows = [
        f"2020-03-09 10:{place // 60:02}:{place % 60:02};{current[place]:.6f};{pressure[place]:.6f};"
        f"{float(is_anomaly[place])};0.0"
        for place in range(records)
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_counts_of_several_recordings_are_pooled() -> None:
    counts = Counts(true=30, false=6, missed=10, normal=94) + Counts(true=10, false=6, missed=0, normal=14)
    # 40 of 50 anomalous records found, 12 of 120 normal ones false: 80 / (80 + 12 + 10)
    assert counts == Counts(40, 12, 10, 108)
    assert counts.f1 == pytest.approx(80 / 102)
    assert counts.describe() == "F1 0.78, false 10.0 %, missed 20.0 %"


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (Counts(0, 0, 0, 0), "F1 0.00, false 0.0 %, missed 0.0 %"),
        (Counts(0, 0, 0, 9), "F1 0.00, false 0.0 %, missed 0.0 %"),
        (Counts(0, 9, 9, 0), "F1 0.00, false 100.0 %, missed 100.0 %"),
        (Counts(9, 0, 0, 9), "F1 1.00, false 0.0 %, missed 0.0 %"),
    ],
)
def test_counts_without_anything_to_find_or_found(counts: Counts, line: str) -> None:
    assert counts.describe() == line


def test_each_sensor_is_a_metric_with_its_change_and_its_level(tmp_path: Path) -> None:
    recording = load_recording(write_recording(tmp_path / "3.csv"))
    assert list(recording.metrics) == ["pump_current", "pressure"]
    assert recording.metrics.description == {
        "pump_current": ["pump_current_change", "pump_current"],
        "pressure": ["pressure_change", "pressure"],
    }
    levels = recording.frame["pressure"].to_numpy()
    assert len(levels) == 520
    assert recording.frame["pressure_change"].to_numpy()[1:] == pytest.approx(np.diff(levels))
    assert np.flatnonzero(recording.is_anomaly).tolist() == list(range(460, 500))


def write_without_labels(folder: Path) -> None:
    path = write_recording(folder / "1.csv")
    path.write_text(path.read_text().replace(";anomaly;", ";other;"))


def write_text(folder: Path) -> None:
    path = write_recording(folder / "1.csv")
    path.write_text(re.sub(r"(10:00:07);[^;]*", r"\1;broken", path.read_text()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, r"has no recording \(\*\.csv\); name a folder of SKAB, such as its valve1"),
        (
            lambda folder: write_recording(folder / "1.csv", 400),
            r"1\.csv: has 400 records; more than 400 are needed",
        ),
        (write_without_labels, r"1\.csv: is not a recording of SKAB \(.*anomaly.*\); name a folder of them"),
        (write_text, r"1\.csv: is not a recording of SKAB \(.*broken.*\); name a folder of them"),
        (
            lambda folder: (folder / "1.csv").write_text(""),
            r"1\.csv: is not a recording of SKAB \(.*\); name a folder of them",
        ),
    ],
)
def test_what_is_no_folder_of_recordings_is_refused_in_one_line(
    make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert main(["--skab", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    pattern = rf"benchmarks\.strangers: {re.escape(str(tmp_path))}(/|: ){message}\n"
    assert re.fullmatch(pattern, printed.err), printed.err


def test_the_product_comes_first_and_finds_a_sensor_that_leaves_its_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fifth of the steps, which is enough for one change of this size.
    monkeypatch.setattr(training, "ENOUGH_STEPS", 200)
    quickly(monkeypatch)
    write_recording(tmp_path / "0.csv")
    assert main(["--skab", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    names, figures = zip(*(line.split(": ") for line in lines), strict=True)
    predictors = ("network", "PCA", "previous record", "mean", "isolation forest")
    assert names[0] == "find_anomalies"
    assert sorted(names[1:]) == sorted(
        [f"{name}, without habits" for name in predictors] + list(predictors[1:])
    )
    assert all(re.fullmatch(r"F1 [01]\.\d\d, false \d+\.\d %, missed \d+\.\d %", text) for text in figures)
    f1, false, missed = map(float, re.findall(r"\d+\.\d+", figures[0]))
    # The network sees the change, and habits that it lasts.
    assert f1 >= 0.85
    assert false <= 10
    assert missed <= 15
    assert printed.err == f"1 of 1, 0.csv: {figures[0]} so far\n"
