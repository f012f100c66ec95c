"""What verdicts are worth: counted by hand on a few records."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.alerts import Row
from common.files import UserError
from edge import evaluation
from edge.bundle import load_bundle
from edge.datasets import load_records
from edge.detector import Verdict
from edge.evaluation import is_same_node, load_attacks, summarise, table, warn_of_names
from edge.scores import Scores, score_dataset
from edge.thresholds import load_thresholds, propose_thresholds, read_proposals
from tests.support.verdict_patterns import SECOND, START, verdicts_of, window

ROOT = Path(__file__).resolve().parents[2]

# --- the numbers ---------------------------------------------------------------------------------


def test_an_attack_its_tail_and_what_is_false() -> None:
    # The tail goes on over three records without an anomaly and ends before four.
    pattern = "nnnn?nnann" + "naaan!!!!?" + "a!nnna" + "nnnn" + "a" + "nn!!n!nnn"
    assert summarise(verdicts_of(pattern), [window(10, 20)]) == {
        "records": 40,
        "unknown_records": 2,
        "attack_records": 10,
        "attack_anomalies": 7,
        "attack_alerted": 4,
        "polls_to_first_anomaly": 2,
        "polls_to_first_alert": 6,
        "polls_to_last_anomaly": 6,
        # 23 known records that are in neither attack nor tail: 5 anomalies, two runs of alerts.
        "false_anomalies_per_day": round(5 / 0.23, 2),
        "false_alerts_per_day": round(2 / 0.23, 2),
        "normal_alerted": 3,
    }


def test_without_an_attack_there_are_no_polls_to_count() -> None:
    assert summarise(verdicts_of("!!nnaan?n!n"), []) == {
        "records": 11,
        "unknown_records": 1,
        "attack_records": 0,
        "attack_anomalies": 0,
        "attack_alerted": 0,
        "polls_to_first_anomaly": None,
        "polls_to_first_alert": None,
        "polls_to_last_anomaly": None,
        "false_anomalies_per_day": 50.0,
        "false_alerts_per_day": 20.0,
        "normal_alerted": 3,
    }


@pytest.mark.parametrize(
    ("attacked", "anomaly", "alert"),
    [
        ("!!!!!", 1, 1),
        ("aaa!!", 1, 4),
        ("nnnna", 5, "never"),
        ("?naaa", 3, "never"),
        ("nnnnn", "never", "never"),
        ("?????", "never", "never"),
    ],
)
def test_polls_to_the_first_flag_are_counted_from_one(
    attacked: str, anomaly: int | str, alert: int | str
) -> None:
    # Flags before the attack and in its tail are not those of the attack.
    summary = summarise(verdicts_of("a" + attacked + "!n"), [window(1, 6)])
    assert (summary["polls_to_first_anomaly"], summary["polls_to_first_alert"]) == (anomaly, alert)
    assert summary["polls_to_last_anomaly"] == 1


def test_an_alert_that_is_up_before_the_attack_finds_nothing() -> None:
    summary = summarise(verdicts_of("n!" + "!!!!" + "n"), [window(2, 6)])
    assert (summary["polls_to_first_anomaly"], summary["polls_to_first_alert"]) == ("never", "never")


def test_a_tail_is_no_longer_than_a_window() -> None:
    # 30 records of the alert that never ends are the attack's; 20 are false, one alert to a person.
    summary = summarise(verdicts_of("n" * 50 + "!" * 4 + "!" * 50), [window(50, 54)])
    assert summary["polls_to_last_anomaly"] == 30
    assert summary["normal_alerted"] == 20
    assert summary["false_alerts_per_day"] == round(1 / (70 / 100), 2)


@pytest.mark.parametrize(
    ("after", "last_anomaly", "false"),
    [
        ("nnnnnnnn", 0, 0),
        ("annnnnnn", 1, 0),
        ("nnnannnn", 4, 0),
        ("nnnnannn", 0, 1),
        ("a!!!!!!!", 8, 0),
        ("annnannn", 5, 0),
        ("annnnann", 1, 1),
        ("a?nn?ann", 1, 1),
        ("nannnann", 6, 0),
        ("", 0, 0),
    ],
)
def test_a_tail_ends_before_four_records_without_a_flag(after: str, last_anomaly: int, false: int) -> None:
    summary = summarise(verdicts_of("n" * 100 + "aaaa" + after), [window(100, 104)])
    normal = 100 + after[last_anomaly:].count("n") + after[last_anomaly:].count("a")
    assert summary["polls_to_last_anomaly"] == last_anomaly
    assert summary["false_anomalies_per_day"] == round(false / (normal / 100), 2)


def test_an_alert_that_comes_and_goes_is_one() -> None:
    row, letters = Row(), ("n" * 100 + "ann" * 40 + "n" * 80) * 2
    verdicts = [
        replace(verdict, status=row.status(letter == "a", False), recent=row.recent, is_alert_up=row.is_up)
        for letter, verdict in zip(letters, verdicts_of(letters), strict=True)
    ]
    summary = summarise(verdicts, [])
    assert summary["normal_alerted"] == 2 * (40 - 7)
    assert summary["false_alerts_per_day"] == round(2 / 6, 2)
    # It is up between its records, too: an attack is not found by it.
    summary = summarise(verdicts, [window(203, 206)])
    assert (summary["polls_to_first_alert"], summary["attack_alerted"]) == ("never", 1)


def test_an_unknown_record_within_an_alert_does_not_make_it_two() -> None:
    row = Row()
    verdicts = [
        replace(verdict, status=row.status(verdict.is_anomaly, letter == "?"), is_alert_up=row.is_up)
        for letter, verdict in zip(
            "aaaaa?aa?an" + "n" * 89, verdicts_of("aaaaa?aa?an" + "n" * 89), strict=True
        )
    ]
    summary = summarise(verdicts, [])
    assert (summary["normal_alerted"], summary["unknown_records"]) == (5, 2)
    assert summary["false_alerts_per_day"] == round(1 / 0.98, 2)


def test_what_is_left_of_the_alert_of_an_attack_is_no_false_one() -> None:
    letters = "n" * 20 + "ann" * 12 + "n" * 44
    row = Row()
    verdicts = [
        replace(verdict, status=row.status(letter == "a", False), is_alert_up=row.is_up)
        for letter, verdict in zip(letters, verdicts_of(letters), strict=True)
    ]
    assert summarise(verdicts, [window(20, 56)])["false_alerts_per_day"] == 0.0


def test_of_several_attacks_the_slowest_counts() -> None:
    summary = summarise(verdicts_of("nn" + "aaa" + "aa" + "nn!" + "nnn"), [window(2, 5), window(7, 10)])
    assert summary == {
        "records": 13,
        "unknown_records": 0,
        "attack_records": 6,
        "attack_anomalies": 4,
        "attack_alerted": 1,
        "polls_to_first_anomaly": 3,
        "polls_to_first_alert": "never",
        "polls_to_last_anomaly": 2,
        "false_anomalies_per_day": 0.0,
        "false_alerts_per_day": 0.0,
        "normal_alerted": 0,
    }


def test_a_tail_ends_where_the_next_attack_starts() -> None:
    # Whatever the order in which the attacks are named.
    attacks = [window(8, 10), window(2, 4)]
    summary = summarise(verdicts_of("nn" + "aa" + "aaaa" + "aa" + "aannn"), attacks)
    assert (summary["attack_records"], summary["polls_to_last_anomaly"]) == (4, 4)
    assert summary["false_anomalies_per_day"] == 0.0


def test_where_all_records_are_attacked_nothing_can_be_false() -> None:
    summary = summarise(verdicts_of("aa!!"), [window(0, 4)])
    assert summary["attack_records"] == 4
    assert (summary["false_anomalies_per_day"], summary["false_alerts_per_day"]) == (None, None)


def test_a_day_is_counted_in_records_at_their_usual_distance() -> None:
    # 5760 records of 15 s, with a hole of a day in their middle.
    verdicts = verdicts_of("a" + "n" * 2879 + "a" + "n" * 2879, step_seconds=15.0)
    late = [Verdict(v.time + 86_400 * SECOND, v.status, v.causes, (), {}, {}) for v in verdicts[2880:]]
    assert summarise(verdicts[:2880] + late, [])["false_anomalies_per_day"] == 2.0


# --- the table -----------------------------------------------------------------------------------


def test_the_table() -> None:
    summaries = {
        "cpu_attack": {
            "records": 1920,
            "unknown_records": 12,
            "attack_records": 72,
            "attack_anomalies": 72,
            "attack_alerted": 69,
            "polls_to_first_anomaly": 1,
            "polls_to_first_alert": "never",
            "polls_to_last_anomaly": 0,
            "false_anomalies_per_day": 3.13,
            "false_alerts_per_day": 0.0,
            "normal_alerted": 0,
        },
        "normal": {
            "records": 17280,
            "unknown_records": 28,
            "attack_records": 0,
            "attack_anomalies": 0,
            "attack_alerted": 0,
            "polls_to_first_anomaly": None,
            "polls_to_first_alert": None,
            "polls_to_last_anomaly": None,
            "false_anomalies_per_day": 12.5,
            "false_alerts_per_day": None,
            "normal_alerted": 7,
        },
    }
    assert table(summaries).splitlines() == [
        "dataset     records  unknown  in attack  anomalies  alerted  1st anomaly  1st alert  last anomaly"
        "  false/day  false alerts/day  normal alerted",
        "cpu_attack     1920       12         72         72       69            1      never             0"
        "       3.13               0.0               0",
        "normal        17280       28          0          0        0            -          -             -"
        "       12.5                 -               7",
    ]


# --- attack windows ------------------------------------------------------------------------------


def write_attacks(folder: Path, text: str) -> Path:
    (folder / "attacks.json").write_text(text)
    return folder / "some.csv"


def test_attack_windows_are_read_from_beside_the_dataset(tmp_path: Path) -> None:
    dataset = write_attacks(
        tmp_path,
        '{"other.csv": 5, "some.csv": ['
        '{"start": "2026-03-02T00:00:00Z", "end": "2026-03-02T00:18:00.250Z", "cause": "cpu"},'
        '{"start": "2026-03-02T03:00:00+02:00", "end": "2026-03-02 01:00:01"}]}',
    )
    assert load_attacks(dataset) == [
        (START, START + 1_080_250_000_000),
        (START + 3600 * SECOND, START + 3601 * SECOND),
    ]
    assert load_attacks(str(dataset)) == load_attacks(dataset)


@pytest.mark.parametrize("text", ["{}", '{"other.csv": []}', '{"some.csv": []}', None])
def test_a_dataset_without_windows_has_no_attacks(text: str | None, tmp_path: Path) -> None:
    dataset = tmp_path / "some.csv" if text is None else write_attacks(tmp_path, text)
    assert load_attacks(dataset) == []


def test_a_name_that_no_dataset_has_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = write_attacks(tmp_path, '{"normall.csv": [], "some.csv": [], "a\\u0000/b": []}')
    dataset.touch()
    warn_of_names(dataset)
    path = tmp_path / "attacks.json"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: there is no dataset normall.csv beside it; correct the name",
        f"{path}: there is no dataset a\0/b beside it; correct the name",
    ]
    path.unlink()
    caplog.clear()
    warn_of_names(dataset)
    assert caplog.records == []


GOOD = '"2026-03-02T00:00:00Z"'
LATER = '"2026-03-02T00:18:00Z"'


@pytest.mark.parametrize(
    "windows",
    [
        "5",
        "null",
        '"2026-03-02T00:00:00Z"',
        f'{{"start": {GOOD}, "end": {LATER}}}',
        f"[[{GOOD}, {LATER}]]",
        f'[{{"start": {GOOD}}}]',
        f'[{{"end": {LATER}}}]',
        f'[{{"start": "yesterday noon", "end": {LATER}}}]',
        f'[{{"start": "2026-13-02T00:00:00Z", "end": {LATER}}}]',
        f'[{{"start": true, "end": {LATER}}}]',
        f'[{{"start": {GOOD}, "end": [{LATER}]}}]',
        # A time that is none.
        f'[{{"start": null, "end": {LATER}}}]',
        f'[{{"start": "", "end": {LATER}}}]',
        f'[{{"start": {GOOD}, "end": "NaT"}}]',
        f'[{{"start": 1772409600, "end": {LATER}}}]',
        f'[{{"start": {GOOD}, "end": "9999-01-01T00:00:00Z"}}]',
        # A window that holds nothing.
        f'[{{"start": {LATER}, "end": {GOOD}}}]',
        f'[{{"start": {GOOD}, "end": {GOOD}}}]',
    ],
)
def test_a_bad_window_is_refused_in_one_line(windows: str, tmp_path: Path) -> None:
    dataset = write_attacks(tmp_path, f'{{"some.csv": {windows}}}')
    expected = (
        f"{tmp_path / 'attacks.json'}: the windows of some.csv must be a list of"
        ' {"start": "2021-01-12T09:13:15Z", "end": "2021-01-12T09:31:15Z"}'
    )
    # What follows may say more, in the same line.
    with pytest.raises(UserError, match=f"^{re.escape(expected)}.*$"):
        load_attacks(dataset)


def test_a_window_that_is_reversed_is_named_by_its_number(tmp_path: Path) -> None:
    good, reversed_ = f'{{"start": {GOOD}, "end": {LATER}}}', f'{{"start": {LATER}, "end": {GOOD}}}'
    dataset = write_attacks(tmp_path, f'{{"some.csv": [{good}, {reversed_}]}}')
    with pytest.raises(UserError, match="; window 2 does not end after its start$"):
        load_attacks(dataset)


def test_an_attacks_file_that_is_not_json_is_refused_in_one_line(tmp_path: Path) -> None:
    dataset = write_attacks(tmp_path, '{"some.csv": [\n')
    expected = f"{tmp_path / 'attacks.json'}, line 2: not valid JSON (Expecting value); fix that line"
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        load_attacks(dataset)


# --- another pace --------------------------------------------------------------------------------


def test_an_attack_dataset_of_another_pace_is_left_out_of_thresholds_and_report(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for ending in (".h5", ".tflite", ".json"):
        shutil.copy(ROOT / f"model/5g_edge_autoencoder{ending}", tmp_path / f"edge{ending}")
    shutil.copy(ROOT / "data/normalization_stats.json", tmp_path / "edge_normalization_stats.json")
    for name, step in (("normal", 1), ("cpu_attack", 1), ("iperf_attack", 4)):
        header, *rows = (ROOT / f"data/{name}.csv").read_text().splitlines()
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows[: 1100 * step : step]]) + "\n")
    shutil.copy(ROOT / "data/attacks.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    evaluation.evaluate("t.json", "cpu_attack.csv", "iperf_attack.csv", "normal.csv", 30, "edge.h5")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line for line in warnings if not line.startswith("blind: ")] == [
        "iperf_attack.csv: has a value of cpu_user_rate only every 60 s, but --interval is 15 s; give"
        " --interval 60, or collect it with --interval 15. It is left out: it is not judged, and no"
        " threshold is made from it"
    ]
    printed = capsys.readouterr().out
    assert "iperf_attack " not in printed
    assert list(json.loads(Path("plots/evaluation.json").read_text())) == [
        "cpu_attack",
        "normal",
        "sensitivity",
    ]
    bundle = load_bundle("edge.h5")
    cpu, normal = (score_dataset(bundle, load_records(f"{name}.csv")) for name in ("cpu_attack", "normal"))
    assert load_thresholds("t.json") == propose_thresholds(cpu, None, normal, 99.0)
    (proposal,) = read_proposals("t.json")
    assert proposal.model == bundle.identity


# --- another node --------------------------------------------------------------------------------


def scores_of(window: np.ndarray) -> Scores:
    """Scores whose window RMSE is the same for every metric."""
    nine = np.repeat(np.asarray(window, dtype=float)[:, None], 9, axis=1)
    return Scores(actual=nine, predicted=nine, window=nine, record=nine, lasting=nine)


def test_a_dataset_of_another_node_is_told_from_one_of_the_same() -> None:
    # The 99th percentile of 0, 1 ... 100 is 99.
    normal = scores_of(np.arange(101))
    frame = pd.DataFrame(index=pd.to_datetime(np.arange(10) * 15 * 10**9, utc=True))
    half = scores_of([100] * 5 + [50] * 5)
    most = scores_of([100] * 6 + [50] * 4)
    assert is_same_node(half, frame, [], normal)
    assert not is_same_node(most, frame, [], normal)
    # The first three records are an attack: of the other seven only three are over.
    assert is_same_node(most, frame, [(0, 3 * 15 * 10**9)], normal)
