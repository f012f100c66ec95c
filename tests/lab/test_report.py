"""What a run of the lab is worth: lines and verdicts by hand, and the numbers that follow from them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from edge.bundle import Bundle
from edge.detector import Verdict, detect
from edge.monitor import Judged
from edge.poll_log import Polled, PollLog
from edge.scores import score
from lab import timeline
from lab.attacks import Attacked
from lab.report import Published, judge, judge_attack, table, window_alone
from nodes.metrics import METRICS, getAnomalyColumns, getFeatures

SECOND = 10**9
START = 1_772_409_600  # 2026-03-02T00:00:00Z
INFINITY = math.inf
STATUS = {".": "normal", "a": "anomaly", "A": "alert", "u": "unknown"}
ALL_CPUS = Attacked("all CPUs", ("cpu",), False, START + 10, START + 20)
LINK_DOWN = Attacked("link down", ("net_down", "net_up"), False, START + 40, START + 50)
RAN_DIES = Attacked(
    "RAN exporter dies", ("cpu_rx", "cpu_tx", "net_5g_down", "net_5g_up"), True, START + 10, START + 20
)


def at(second: float) -> int:
    """ns of a record."""
    return START * SECOND + round(second * 1000) * 1_000_000


def verdicts_of(
    life: str, causes: Sequence[str] = (), unknown: Sequence[str] = (), first: int = 0
) -> list[Verdict]:
    """One record a second, in the middle of it: normal `.`, anomaly `a`, alert `A`, unknown `u`.

    Anomalies and alerts are given `causes`, unknown records `unknown`.
    """
    return [
        Verdict(
            at(second + 0.5),
            STATUS[letter],
            tuple(causes) if letter in "aA" else (),
            tuple(unknown) if letter == "u" else (),
            {},
            {},
        )
        for second, letter in enumerate(life, first)
    ]


# --- what test mode publishes ---------------------------------------------------------------------


def test_verdicts_are_taken_as_they_were_published_each_at_its_first_poll(tmp_path: Path) -> None:
    moments = iter([START + 3.104, START + 4.105, START + 6.25])
    poll_log = PollLog(tmp_path, clock=lambda: next(moments))
    first, second = verdicts_of("aA", ["cpu", "net_up"], first=2)
    poll_log.publish([Polled("", [Judged(first, {})], "edge:9100", "model")])
    poll_log.publish([], "unknown: no new record since 2026-03-02T00:00:02.500Z")
    # A process that was killed judges the same record once more.
    poll_log.publish([Polled("", [Judged(first, {}), Judged(second, {})], "edge:9100", "model")])
    published = Published(PollLog(tmp_path))
    assert published.verdicts == {first.time: first, second.time: second}
    assert published.polled_at == {
        first.time: pytest.approx(START + 3.104, abs=0.002),
        second.time: pytest.approx(START + 6.25, abs=0.002),
    }


# --- one attack ----------------------------------------------------------------------------------


def test_row_of_an_attack() -> None:
    during = verdicts_of("..aaaAAAA.", ["cpu", "mem"], first=10)
    # Silence is ALERT_RECORDS records without an anomaly: one 5 records after the last is another.
    after = verdicts_of("A.a..a....a....", ["cpu"], first=20)
    before = verdicts_of("aaaA......", ["net_up"])
    polled_at = {verdict.time: verdict.time / 1e9 + 0.7 for verdict in before + during + after}
    row, own = judge_attack(ALL_CPUS, before + during + after, START + 35, polled_at)
    assert own == {at(20.5), at(22.5), at(25.5)}
    assert row == {
        "attack": "all CPUs",
        "start": "2026-03-02T00:00:10Z",
        "end": "2026-03-02T00:00:20Z",
        "true_causes": ["cpu"],
        "causes": ["cpu", "mem"],
        "unknown": [],
        "kills_exporter": False,
        "polls_to_first": 3,
        "seconds_to_first": 3.2,
        "seconds_to_alert": 6.2,
        "polls_to_silence": 6,
        "seconds_to_silence": 6.2,
        "records": 10,
        "anomalies": 7,
        "is_found": True,
    }


def row_of(attacked: Attacked, verdicts: list[Verdict], next_start: float = INFINITY) -> dict[str, object]:
    return judge_attack(attacked, verdicts, next_start, {})[0]


def test_only_a_true_cause_finds_an_attack() -> None:
    during = verdicts_of("aaaA", ["mem"], first=10) + verdicts_of("AA....", ["cpu", "mem"], first=14)
    row = row_of(ALL_CPUS, during)
    assert (row["polls_to_first"], row["seconds_to_first"], row["seconds_to_alert"]) == (5, 4.5, 4.5)


def test_only_a_cause_of_the_attack_is_its_tail() -> None:
    during = verdicts_of("..aaaAAAAA", ["cpu"], first=10)
    after = verdicts_of("A", ["cpu"], first=20) + verdicts_of("AA", ["net_up"], first=21)
    judged = judge([ALL_CPUS], during + after + verdicts_of(".......", first=23), START, {})
    assert judged["attacks"][0]["polls_to_silence"] == 1
    assert judged["calm_between"] == {"records": 9, "false_anomalies": 2, "false_alerts": 1, "unknown": 0}


def test_the_last_flag_of_an_attack_may_be_said_after_its_end() -> None:
    row, _ = judge_attack(
        ALL_CPUS, verdicts_of("..aaaAAAAA..", ["cpu"], first=10), INFINITY, {at(19.5): START + 20.9}
    )
    assert (row["polls_to_silence"], row["seconds_to_silence"]) == (0, 0.9)


def test_seconds_are_those_of_the_records_where_nobody_said_them() -> None:
    row = row_of(ALL_CPUS, verdicts_of("aaaAA.....a", ["cpu"], first=10))
    assert (row["seconds_to_first"], row["seconds_to_alert"], row["seconds_to_silence"]) == (0.5, 3.5, 0.5)
    assert (row["polls_to_first"], row["polls_to_silence"]) == (1, 1)


def test_what_is_flagged_from_the_next_attack_on_is_no_tail() -> None:
    verdicts = verdicts_of("aaaAAAAAAAAAAAAAAAAA", ["cpu"], first=10)
    assert row_of(ALL_CPUS, verdicts, START + 23)["polls_to_silence"] == 3
    assert row_of(ALL_CPUS, verdicts)["polls_to_silence"] == 10


def test_an_attack_that_is_never_flagged_has_no_numbers() -> None:
    row = row_of(ALL_CPUS, verdicts_of("aaaAAAAAAA....u.....", ["cpu"], ["mem"]))
    for key in ("polls_to_first", "seconds_to_first", "seconds_to_alert", "seconds_to_silence"):
        assert row[key] is None
    assert (row["polls_to_silence"], row["anomalies"]) == (0, 0)
    assert (row["causes"], row["unknown"], row["is_found"]) == ([], ["mem"], False)


def test_an_alert_that_is_up_at_the_onset_finds_nothing() -> None:
    before, during = verdicts_of("...aaaA", ["cpu"], first=3), verdicts_of("AAAA......", ["cpu"], first=10)
    row = row_of(ALL_CPUS, before + during)
    assert (row["polls_to_first"], row["seconds_to_alert"], row["is_found"]) == (None, None, False)
    assert row_of(ALL_CPUS, before[:-1] + during)["polls_to_first"] == 1
    of_memory = verdicts_of("...aaaA", ["mem"], first=3)
    assert row_of(ALL_CPUS, of_memory + during)["polls_to_first"] == 1


def test_an_attack_without_a_record_has_no_numbers() -> None:
    row = row_of(ALL_CPUS, verdicts_of("....."))
    assert (row["records"], row["polls_to_first"], row["is_found"]) == (0, None, False)


@pytest.mark.parametrize(
    ("causes", "is_found"),
    [
        (["net_down", "net_up"], True),
        (["net_down", "net_up", "cpu"], True),
        (["net_down"], False),
        (["cpu"], False),
        ([], False),
    ],
)
def test_an_attack_is_found_if_all_true_causes_are_given(causes: list[str], is_found: bool) -> None:
    verdicts = verdicts_of("..aaaA....", causes, first=40)
    row = row_of(LINK_DOWN, verdicts)
    assert (row["is_found"], set(row["causes"])) == (is_found, set(causes))
    assert list(row["causes"]) == [name for name in METRICS if name in causes]


RAN = ["cpu_rx", "cpu_tx", "net_5g_down", "net_5g_up"]


@pytest.mark.parametrize(
    ("life", "causes", "unknown", "polls_to_unknown", "is_found"),
    [
        ("..uuuuuuuu", [], RAN, 3, True),
        ("u.........", [], RAN, 1, True),
        ("..uuuuuuuu", [], RAN[:3], None, False),
        ("..uuuuuuuu", [], [*RAN, "mem"], 3, False),
        ("..auuuuuuu", ["cpu"], RAN, 4, False),
        # An anomaly without a metric to blame is none of a cause.
        ("..auuuuuuu", [], RAN, 4, True),
        ("..........", [], RAN, None, False),
        ("..aaaAAAAA", RAN, [], None, False),
    ],
)
def test_a_dead_exporter_is_found_if_its_metrics_are_unknown_and_nothing_is_blamed(
    life: str, causes: list[str], unknown: list[str], polls_to_unknown: int | None, is_found: bool
) -> None:
    row = row_of(RAN_DIES, verdicts_of(life, causes, unknown, first=10))
    assert (row["polls_to_first"], row["is_found"]) == (polls_to_unknown, is_found)


def test_a_dead_exporter_is_silent_once_its_metrics_are_known_again() -> None:
    row = row_of(RAN_DIES, verdicts_of("..uuuuuuuu" + "uuu.u.....u", unknown=RAN, first=10))
    assert (row["polls_to_first"], row["seconds_to_first"], row["seconds_to_alert"]) == (3, 2.5, None)
    assert (row["polls_to_silence"], row["seconds_to_silence"]) == (5, 4.5)


# --- a whole run ---------------------------------------------------------------------------------

RUN = [
    *verdicts_of("aaaA", ["mem"], first=-4),
    *verdicts_of("..a......u", ["net_up"], ["mem"]),
    *verdicts_of("..aaaAAAAA", ["cpu"], first=10),
    # A tail of 5 with 3 anomalies, then four false anomalies, of which three are two alerts.
    *verdicts_of("AA..a....aA.AA......", ["cpu"], first=20),
    *verdicts_of("..........", first=40),
    *verdicts_of(".....u....", unknown=["mem"], first=50),
]


def test_run_counts_false_anomalies_in_the_calm_and_no_tail() -> None:
    judged = judge([ALL_CPUS, LINK_DOWN], RUN, START, {})
    assert [row["attack"] for row in judged["attacks"]] == ["all CPUs", "link down"]
    assert [row["polls_to_first"] for row in judged["attacks"]] == [3, None]
    assert [row["polls_to_silence"] for row in judged["attacks"]] == [5, 0]
    del judged["attacks"]
    assert judged == {
        "found": 1,
        "polls_to_first_median": 3.0,
        "polls_to_first_worst": None,
        "polls_to_silence_worst": 5,
        "settling": {"records": 4, "false_anomalies": 4, "false_alerts": 1, "unknown": 0},
        "ordinary_before": {"records": 10, "false_anomalies": 1, "false_alerts": 0, "unknown": 1},
        "calm_between": {"records": 27, "false_anomalies": 4, "false_alerts": 2, "unknown": 1},
    }


def test_run_before_its_begin_does_not_count() -> None:
    judged = judge([ALL_CPUS, LINK_DOWN], RUN, START - 4, {})
    assert judged["ordinary_before"] == {
        "records": 14,
        "false_anomalies": 5,
        "false_alerts": 1,
        "unknown": 1,
    }


def test_worst_and_median_are_of_the_attacks_that_kill_no_exporter() -> None:
    third = Attacked("RAN exporter dies", tuple(RAN), True, START + 60, START + 70)
    verdicts = RUN[:34] + verdicts_of("...aaaA...", ["net_down", "net_up"], first=40)
    verdicts += verdicts_of("..........", first=50) + verdicts_of("u" * 10, unknown=RAN, first=60)
    judged = judge([ALL_CPUS, LINK_DOWN, third], verdicts, START, {})
    assert judged["found"] == 3
    assert (judged["polls_to_first_median"], judged["polls_to_first_worst"]) == (3.5, 4)


TABLE = """\
attack             polls to first  s to anomaly  s to alert  polls to silence  s to silence  \
causes given                                                  \
true causes                                found
all CPUs                        3           2.5         5.5                 5           4.5  \
cpu                                                           \
cpu                                        yes
link down                       -             -           -                 0             -  \
-                                                             \
net_down | net_up                          NO
RAN exporter dies               2           1.5           -                 0           0.0  \
unknown: cpu_rx, cpu_tx, net_5g_down, net_5g_up; wrongly mem  cpu_rx | cpu_tx | net_5g_down | net_5g_up  NO
while settling (not judged): 4 records, 4 false anomalies, 1 false alerts, 0 unknown
ordinary life before: 10 records, 1 false anomalies, 0 false alerts, 1 unknown
calm between: 27 records, 4 false anomalies, 2 false alerts, 1 unknown
found with the true causes: 1 of 3; polls to the first anomaly: median 3, worst -; polls to silence: worst 5
"""


def test_table() -> None:
    third = Attacked("RAN exporter dies", tuple(RAN), True, START + 60, START + 70)
    verdicts = RUN + verdicts_of(".uA.......", ["mem"], RAN, first=60)
    judged = judge([ALL_CPUS, LINK_DOWN, third], verdicts, START, {})
    assert table(judged) + "\n" == TABLE
    assert json.loads(json.dumps(judged)) == judged


# --- the documented rule -------------------------------------------------------------------------


def always_half(inputs: np.ndarray) -> np.ndarray:
    return np.full((len(inputs), inputs.shape[2]), 0.5)


def test_documented_rule_flags_all_records_whose_window_has_the_spike() -> None:
    features = getFeatures()
    ranges = {
        f"{feature}_{end}": limit for feature in features for end, limit in (("min", 0.0), ("max", 1.0))
    }
    bundle = Bundle(METRICS, 4, ranges, np.full(12, 0.5), always_half)
    thresholds = {f"{name}_threshold": 0.1 for name in (*METRICS, "overall")}
    values = np.full((100, 12), 0.5)
    # 5 over what is expected: the RMSE over 27 predictions is 5 / sqrt(27) = 0.96.
    values[50, features.index("bytes_transmitted_rate")] = 5.5
    values[90, features.index("mem_percentage")] = math.nan
    frame = pd.DataFrame(values, columns=features).assign(**dict.fromkeys(getAnomalyColumns(), 1.0))
    frame.index = pd.to_datetime(at(0) + SECOND * np.arange(100), utc=True)
    scores = score(bundle, values)
    ours = detect(thresholds, frame, scores)
    documented = detect(thresholds, frame, window_alone(scores))
    flagged = {
        name: [i for i, verdict in enumerate(verdicts) if verdict.is_anomaly]
        for name, verdicts in (("ours", ours), ("documented", documented))
    }
    assert flagged == {"ours": [50], "documented": list(range(50, 77))}
    assert {documented[i].causes for i in flagged["documented"]} == {("net_up",)}
    assert [verdict.status for verdict in documented].count("alert") == 24
    unknown = [i for i, verdict in enumerate(documented) if verdict.status == "unknown"]
    assert unknown == [i for i, verdict in enumerate(ours) if verdict.status == "unknown"]
    assert 90 in unknown


# --- the picture ---------------------------------------------------------------------------------

COLOURS = {"normal": "#e8f3e8", "unknown": "0.62", "anomaly": "gold", "alert": "red"}


def frame_of(seconds: int) -> pd.DataFrame:
    """The records of verdicts_of, without the 30th."""
    times = pd.to_datetime([at(second + 0.5) for second in range(seconds)], utc=True)
    frame = pd.DataFrame(1.0, columns=getFeatures(), index=times)
    frame.iloc[30:31] = np.nan
    return frame


def drawn(
    verdicts: list[Verdict],
    attacked: Sequence[Attacked] = (ALL_CPUS, LINK_DOWN),
    frame: pd.DataFrame | None = None,
) -> list[Axes]:
    """The axes of the timeline of a run of 70 s, drawn: verdicts first, then one for each metric."""
    figure = timeline.draw_run(frame_of(70) if frame is None else frame, verdicts, attacked)
    figure.canvas.draw()
    return figure.axes


def shown(axis: Axes) -> dict[str, str]:
    """Of each row what is seen in the middle of each second of the picture, in the letters of STATUS."""
    letters = {to_rgba(COLOURS[word]): letter for letter, word in STATUS.items()}
    rows = [text.get_text().split()[0] for text in axis.get_yticklabels()]
    left, right = axis.get_xlim()
    seen = np.full((len(rows), round((right - left) * 60)), letters[axis.get_facecolor()])
    for bars in axis.collections:
        for path in bars.get_paths():
            (start, top), (end, bottom) = path.vertices.min(axis=0), path.vertices.max(axis=0)
            columns = slice(*(round((minute - left) * 60) for minute in (start, end)))
            seen[round(top) : round(bottom), columns] = letters[tuple(bars.get_facecolor()[0])]
    return dict(zip(rows, map("".join, seen.tolist()), strict=True))


def test_timeline_is_written(tmp_path: Path) -> None:
    from matplotlib.image import imread

    cells = verdicts_of("." * 10 + "aaaAAAAAAA" + "." * 40 + "u" * 10, ["cpu"], ["mem"])
    timeline.draw(frame_of(70), cells, [ALL_CPUS, LINK_DOWN], tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in tmp_path.iterdir()] == ["timeline.png"]
    picture = np.round(imread(tmp_path / "timeline.png")[..., :3] * 255).astype(int)
    assert min(picture.shape[:2]) > 1000
    # In a picture of 70 s x 9 rows, 1350 x 350 pixels large, a cell is about 19 x 40.
    for records, colour in ((7, (255, 0, 0)), (3, (255, 215, 0)), (10, (158, 158, 158))):
        assert records * 500 < (picture == colour).all(axis=-1).sum() < records * 1500, colour


def test_timeline_shows_what_was_said_of_each_metric() -> None:
    life = "." * 10 + "aaaAAAAAAA" + "." * 39 + "a" + "u" * 10
    rows = shown(drawn(verdicts_of(life, ["cpu", "net_up"], ["mem"]))[0])
    assert list(rows) == [*METRICS, "overall"]
    calm = "." * 70
    expected = dict.fromkeys(rows, calm) | dict.fromkeys(["cpu", "net_up"], life.replace("u", "."))
    assert rows == expected | {"mem": calm[:60] + "u" * 10}


@pytest.mark.parametrize(
    ("unknown", "seen"), [((), "....aaaAAA....uu...."), (("overall",), "....aaaAAA....uu....")]
)
def test_timeline_shows_an_anomaly_of_no_metric(unknown: tuple[str, ...], seen: str) -> None:
    rows = shown(drawn(verdicts_of("....aaaAAA....uu....", [], unknown), frame=frame_of(20), attacked=())[0])
    assert rows == dict.fromkeys(METRICS, "." * 20) | {"overall": seen}


def test_timeline_shows_both_of_an_anomaly_of_which_something_is_unknown() -> None:
    verdict = Verdict(at(0.5), "alert", ("cpu",), ("mem",), {}, {})
    rows = shown(drawn([verdict], frame=frame_of(1), attacked=())[0])
    assert rows == dict.fromkeys([*METRICS, "overall"], ".") | {"cpu": "A", "mem": "u"}


def test_timeline_shows_as_unknown_what_nothing_is_said_of() -> None:
    verdicts = verdicts_of("." * 70)
    # Nothing of 5 s, of a single one, and of the last two.
    del verdicts[68:], verdicts[40], verdicts[20:25]
    seen = "." * 20 + "u" * 5 + "." * 15 + "u" + "." * 27 + "uu"
    assert shown(drawn(verdicts)[0]) == dict.fromkeys([*METRICS, "overall"], seen)


def test_timeline_has_no_gaps_where_records_come_early_and_late() -> None:
    verdicts = verdicts_of("." * 10)
    verdicts[4] = Verdict(at(4.3), "normal", (), (), {}, {})
    verdicts[7] = Verdict(at(7.7), "normal", (), (), {}, {})
    axis = drawn(verdicts, (), frame_of(10))[0]
    assert [len(bars.get_paths()) for bars in axis.collections] == [1] * 9


@pytest.mark.parametrize("verdicts", [[], verdicts_of("aaaA", ["cpu"], first=-10)])
def test_timeline_of_a_run_that_nothing_is_said_of(verdicts: list[Verdict]) -> None:
    axes = drawn(verdicts)
    assert shown(axes[0]) == dict.fromkeys([*METRICS, "overall"], "u" * 70)
    assert len(axes[0].patches) == 3
    # Nor is anything known of it.
    axes = drawn(verdicts, frame=frame_of(70) * np.nan)
    assert shown(axes[0]) == dict.fromkeys([*METRICS, "overall"], "u" * 70)
    assert axes[0].get_xlim() == pytest.approx((-0.5 / 60, 69.5 / 60))


def test_timeline_of_a_run_without_records_shows_what_was_done() -> None:
    axes = drawn([], frame=frame_of(0))
    assert axes[0].get_xlim() == pytest.approx((-0.5 / 60, 40.5 / 60))
    assert [patch.get_x() for patch in axes[0].patches] == pytest.approx([0.0, 0.5, 0.5])
    assert axes[-1].get_xlabel() == "minutes since 2026-03-02 00:00:10 UTC"


def test_timeline_is_of_the_whole_run_and_says_when_it_began() -> None:
    axes = drawn(verdicts_of("." * 70))
    for axis in axes:
        assert axis.get_xlim() == pytest.approx((-0.5 / 60, 69.5 / 60))
    assert axes[-1].get_xlabel() == "minutes since 2026-03-02 00:00:00 UTC"
    assert axes[1].lines[0].get_xdata() == pytest.approx(np.arange(70) / 60)
    assert np.flatnonzero(np.isnan(axes[1].lines[0].get_ydata())).tolist() == [30]
    # What was said and done before the first record is left out.
    axes = drawn(verdicts_of("." * 25 + "aaaA" + "." * 41, ["cpu"]), frame=frame_of(70).iloc[27:])
    assert axes[-1].get_xlabel() == "minutes since 2026-03-02 00:00:27 UTC"
    assert shown(axes[0])["cpu"] == "aA" + "." * 41
    assert [text.get_text() for text in axes[0].texts] == ["link down"]


def test_timeline_frames_what_was_truly_attacked() -> None:
    axes = drawn(verdicts_of("." * 70))
    frames = [(patch.get_x() * 60, patch.get_width() * 60, patch.get_y()) for patch in axes[0].patches]
    rows = [list(METRICS).index(name) for name in ("cpu", "net_down", "net_up")]
    # Minute 0 is that of the record of 0.5 s.
    assert np.array(frames) == pytest.approx(
        np.array([(9.5, 10.0, rows[0]), (39.5, 10.0, rows[1]), (39.5, 10.0, rows[2])])
    )
    assert [text.get_text() for text in axes[0].texts] == ["all CPUs", "link down"]
    for axis, name in zip(axes[1:], METRICS, strict=True):
        is_red = [patch.get_facecolor()[0] > patch.get_facecolor()[1] for patch in axis.patches]
        assert is_red == [name in one.causes for one in (ALL_CPUS, LINK_DOWN)], name


@pytest.mark.parametrize(
    ("calm", "attack", "labels"),
    [
        (2e6, 5e7, ["0", "10,000"]),
        (7e5, 5e7, ["0", "1,000", "10,000"]),
        (0.0, 6e6, ["0", "10", "1,000"]),
        (1e3, 1e9, ["0", "1,000", "1,000,000"]),
    ],
)
def test_labels_of_byte_rates_do_not_touch(calm: float, attack: float, labels: list[str]) -> None:
    frame = frame_of(70)
    frame[:] = calm
    frame.iloc[40:50] = attack
    for axis in drawn([], frame=frame)[4:8]:
        texts = [text for text in axis.get_yticklabels() if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert {text.get_text() for text in texts} == set(labels)
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])
