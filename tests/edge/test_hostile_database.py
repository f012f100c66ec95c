"""What others write into the database makes a metric unknown at most; it never ends or blinds the service."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import find_anomalies
import formatters
from common.alerts import NORMAL, UNKNOWN
from common.files import UserError
from edge.monitor import Judged
from edge.selection import Selection, in_slots, shown
from lab.influxd import Influxd
from nodes.metrics import CPU_SECONDS, MEMORY_FREE, MEMORY_TOTAL, RX_CPU, TX_CPU
from nodes.node import DEFAULT_NODE, Node
from nodes.series import Point, Record, monitored_series
from tests.support.edge_daemon import ATTACKED, FIRST, INTERVAL, SECOND, SLOTS, Edge, said
from tests.support.fuzzing import fuzzed
from tests.support.metrics import MEASUREMENTS, lines_of, series_without_sample
from tests.support.prometheus_writer import write_samples

MILLISECOND = 10**6
PINNED = Node(node_instance="edge:9100", ran_instance="gnb:9099")


class Watched(Edge):
    """An edge of which every verdict is kept."""

    _known = 0

    @property
    def judged(self) -> list[Judged]:
        """What the daemon has judged since `forget_judged`, as it publishes it."""
        return self._published()[self._known :]

    def forget_judged(self) -> None:
        """What was judged up to now no longer counts."""
        self._known = len(self._published())

    def _published(self) -> list[Judged]:
        return [one for poll in self.daemon.poll_log.read() for one in poll.judged]

    def write(self, *lines: str) -> None:
        """Line protocol, past everybody."""
        self.client.write("\n".join(lines), {"db": "edge"}, protocol="line")

    def unknown(self) -> set[str]:
        """Metrics that were unknown in any record."""
        return {metric for one in self.judged for metric in one.verdict.unknown}


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Watched]:
    """A server of its own, the first slots judged; the next slot is FIRST."""
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        edge.forget_judged()
        yield edge
        edge.stop()


def starts_with(lines: list[str], words: str) -> list[str]:
    return [line for line in lines if line.startswith(words)]


# --- floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    ["instance=gnb:9099,job=ran", "instance=gnb:9099,job=ran,__name__=rx_cpu_time"],
    ids=["other", "own"],
)
def test_a_flood_of_one_series_costs_no_record_and_is_said_once(
    edge: Watched, tags: str, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        if slot in (17, 18):
            # In the middle of the slot, so that the exporter's own sample is the newest.
            begin = (edge.begin + slot * INTERVAL) * SECOND
            edge.write(*(f"rx_cpu_time,{tags} value=12.3 {begin + i * 50_000}" for i in range(10_001)))
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    assert len([line for line in said(caplog) if "too many samples of rx_cpu_time" in line]) == 1
    assert len([line for line in said(caplog) if "no series has too many samples any more" in line]) == 1
    assert edge.unknown() <= ({"cpu_rx"} if "__name__" not in tags else set())


def test_a_flood_before_the_start_costs_no_record(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.feed(*range(FIRST))
        begin = (edge.begin + 9 * INTERVAL) * SECOND
        edge.write(
            *(
                f"rx_cpu_time,__name__=rx_cpu_time,instance=gnb:9099,job=ran value=12.3 {begin + i * 50_000}"
                for i in range(20_001)
            )
        )
        edge.live(*range(FIRST, SLOTS))
        assert edge.stored() == edge.expected()
        assert edge.unknown() == set()
        edge.stop()


def test_more_series_than_can_be_read_cost_their_own_metric_alone(
    edge: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("influx_client.MAX_ANSWER_BYTES", 60_000)
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        if slot in (17, 18, 19):
            moment = (edge.begin + slot * INTERVAL + 14) * SECOND
            edge.write(
                *(f"rx_cpu_time,instance=gnb:9099,job=x{i},slot=y{slot} value=1 {moment}" for i in range(900))
            )
        assert edge.daemon.poll() is False
    # Told by its tags, the exporter's own series is found among them.
    assert edge.stored() == edge.expected()
    assert edge.unknown() == set()


# --- values that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"), [('"x"', "text"), ("true", "a boolean")], ids=["text", "boolean"]
)
def test_a_value_that_is_no_number_is_named_and_all_others_are_judged(
    tmp_path: Path, value: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.write(f"rx_cpu_time,instance=gnb:9099,job=ran value={value} {edge.begin * SECOND + 5}")

        def refused(name: str, point: Point) -> Point | None:
            # InfluxDB refuses numbers where it holds something else.
            return None if name == RX_CPU else point

        edge.feed(0, change=refused)
        assert edge.daemon.poll() is False
        first = edge.judged[-1]
        assert first.faults["rx_cpu_time"] == f"its value is {words}, not a number"
        assert "cpu_rx" in first.verdict.unknown
        edge.feed(*range(1, FIRST), change=refused)
        for slot in range(FIRST, SLOTS):
            edge.feed(slot, change=refused)
            assert edge.daemon.poll() is False
        # Of a record that is waited for the anomaly comes with the poll after it.
        assert edge.stored() == edge.expected(last=SLOTS - 1)
        lines = starts_with(said(caplog), "unknown: cpu_rx (")
        assert lines[-1] == (
            f"unknown: cpu_rx (no sample of rx_cpu_time: InfluxDB holds {words} for it, which may keep other"
            " values out; check its exporter, then DELETE them or DROP MEASUREMENT)"
        )
        edge.stop()


def test_a_whole_number_that_keeps_others_out_is_named(
    edge: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    edge.client.query('DROP MEASUREMENT "rx_cpu_time"', method="POST")
    edge.write(f"rx_cpu_time,instance=gnb:9099 value=5i {edge.begin * SECOND}")
    for slot in range(FIRST, 17):
        edge.feed(slot, change=lambda name, p: None if name == RX_CPU else p)
        edge.daemon.poll()
    (line,) = starts_with(said(caplog), "unknown: cpu_rx (")
    assert "InfluxDB holds whole numbers for it, which may keep other values out" in line


def test_a_text_for_the_memory_total_makes_the_memory_unknown(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.write(f'{MEMORY_TOTAL},instance=edge:9100 value="x" {edge.begin * SECOND + 5}')
        edge.feed(0, change=lambda name, point: None if name == MEMORY_TOTAL else point)
        edge.daemon.poll()
        for slot in range(1, SLOTS):
            edge.feed(slot, change=lambda name, point: None if name == MEMORY_TOTAL else point)
            edge.daemon.poll()
        assert edge.judged[-1].faults == {MEMORY_TOTAL: "its value is text, not a number"}
        assert edge.judged[-1].verdict.unknown == ("mem",)
        assert edge.stored() == edge.expected()
        edge.stop()


def test_text_that_is_dated_next_week_changes_nothing(edge: Watched) -> None:
    week = 7 * 86400 * SECOND
    for name in ("rx_cpu_time", "node_memory_MemFree_bytes"):
        edge.write(f'{name},instance=gnb:9099,job=ran value="x" {edge.begin * SECOND + week}')
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()
    assert edge.unknown() == set()


@pytest.mark.parametrize("after_weeks", [1, 50])
def test_a_number_that_is_dated_later_changes_nothing(edge: Watched, after_weeks: int) -> None:
    later = edge.begin * SECOND + after_weeks * 7 * 86400 * SECOND
    for name, point in edge.in_slots(0, 0)[:3]:
        write_samples(edge.client, {name: [point | {"time": later // MILLISECOND * MILLISECOND}]})
    edge.live(*range(FIRST, SLOTS))
    assert edge.stored() == edge.expected()


def test_a_text_that_is_no_utf8_blinds_nobody(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        line = f'tx_cpu_time,instance=gnb:9099,job=ran value="\xff" {edge.begin * SECOND + 5}'
        edge.client.request(
            "write", "POST", {"db": "edge"}, line.encode("latin-1"), expected_response_code=204
        )

        def refused(name: str, point: Point) -> Point | None:
            return None if name == TX_CPU else point

        edge.feed(*range(FIRST), change=refused)
        for slot in range(FIRST, SLOTS):
            edge.feed(slot, change=refused)
            assert edge.daemon.poll() is False
        assert edge.stored() == edge.expected(last=SLOTS - 1)
        edge.stop()


@pytest.mark.parametrize(
    ("value", "words"),
    [(1e308, "its value is too large to be true"), (-5.0, "its value is negative")],
    ids=["too large", "negative"],
)
def test_values_that_no_node_has_are_unknown_for_their_true_reason(
    edge: Watched, value: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot, change=lambda name, p: p | {"value": value} if name == "dl_bitrate" else p)
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    assert starts_with(said(caplog), "unknown: ") == [
        f"unknown: net_5g_down (dl_bitrate{{cellId=2}}: {words})"
    ]


def test_more_free_memory_than_there_is_is_said_as_that(
    edge: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    name = MEMORY_FREE
    for slot in range(FIRST, SLOTS):
        edge.feed(slot, change=lambda measurement, p: p | {"value": 1e15} if measurement == name else p)
        assert edge.daemon.poll() is False
    assert starts_with(said(caplog), "unknown: ") == [
        "unknown: mem (node_memory_MemFree_bytes: its value is more than node_memory_MemTotal_bytes)"
    ]
    assert edge.stored() == edge.expected()


# --- two series of one part ----------------------------------------------------------------------


def calm(edge: Watched, slot: int, **tags: str) -> None:
    """The CPU's samples of a slot are written again, a millisecond later, with counters of a calm node."""
    calm_points = [
        point | tags | {"time": point["time"] + MILLISECOND, "value": 1000.0 + slot * 0.5}
        for name, point in edge.in_slots(slot, slot)
        if name == CPU_SECONDS
    ]
    write_samples(edge.client, {CPU_SECONDS: calm_points})


def test_two_live_series_of_one_part_make_it_unknown_and_are_named(
    edge: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    edge.live(*range(FIRST, 16))
    for slot in range(16, SLOTS):
        edge.feed(slot)
        calm(edge, slot, job="evil")
        assert edge.daemon.poll() is False
    (fault,) = {fault for one in edge.judged for name, fault in one.faults.items() if "{cpu=0}" in name}
    assert fault == "two series at once, job=node and job=evil; pin one in 'node_tags' of --node_file"
    during = [one.verdict for one in edge.judged if one.verdict.time >= (edge.begin + 17 * INTERVAL) * SECOND]
    assert all(verdict.unknown == ("cpu",) for verdict in during)
    # The record in which the other one came up was judged by the series known so far: it is the attack's
    # first.
    assert edge.stored()[0] == edge.expected()[0]


def test_a_node_file_that_pins_a_tag_tells_them_apart(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.node = dataclasses.replace(PINNED, node_tags=(("job", "node"), ("evil", "")))
        edge.start()
        for slot in range(FIRST):
            calm(edge, slot, job="evil")
            calm(edge, slot, evil="1")
        edge.feed(*range(FIRST))
        for slot in range(FIRST, SLOTS):
            edge.feed(slot)
            calm(edge, slot, job="evil")
            calm(edge, slot, evil="1")
            assert edge.daemon.poll() is False
        assert edge.stored() == edge.expected()
        assert edge.unknown() == set()
        edge.stop()


def copies(edge: Watched, slot: int, seconds: float = 0.001, **tags: str) -> None:
    """All samples of a slot again, some time later, with the values of the calm beginning."""
    calm_values = {
        (name, point.get("cpu"), point.get("device")): point["value"] for name, point in edge.in_slots(12, 12)
    }
    for name, point in edge.in_slots(slot, slot):
        value = calm_values[name, point.get("cpu"), point.get("device")]
        later = point["time"] + int(seconds * 1000) * MILLISECOND
        write_samples(edge.client, {name: [point | tags | {"time": later, "value": value}]})


@pytest.mark.parametrize("seconds", [0.001, 1.0, 20.0, 60.0])
def test_copies_of_all_series_make_nothing_normal(edge: Watched, seconds: float) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        copies(edge, slot, seconds, job="evil")
        edge.daemon.poll()
    attacked = [(edge.begin + slot * INTERVAL) * SECOND for slot in (ATTACKED[0], ATTACKED[-1] + 1)]
    during = [one.verdict for one in edge.judged if attacked[0] <= one.verdict.time < attacked[1]]
    assert len(during) >= len(ATTACKED) - 1
    assert not any(verdict.status == NORMAL for verdict in during)
    assert edge.daemon.watch.monitor.reader.clock_offset_seconds == 0


def test_a_rival_does_not_take_the_place_of_a_series_that_misses_scrapes(edge: Watched) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot, change=lambda name, p, s=slot: None if name == CPU_SECONDS and 16 < s < 23 else p)
        calm(edge, slot, job="evil")
        for number in range(40 if slot < 16 else 0):
            calm(edge, slot, job=f"evil{slot}-{number}")
        edge.daemon.poll()
    begin, end = ((edge.begin + slot * INTERVAL) * SECOND for slot in (17, 23))
    during = [one for one in edge.judged if begin <= one.verdict.time < end]
    assert during
    assert all("cpu" in one.verdict.unknown for one in during)
    assert {one.faults["node_cpu_seconds_total{cpu=0}"] for one in during} == {
        "no sample but of another series (job=evil); pin one in 'node_tags' of --node_file"
    }


def test_a_total_of_the_memory_that_comes_up_late_is_not_believed(tmp_path: Path) -> None:
    def without_total(name: str, point: Point) -> Point | None:
        return None if name == MEMORY_TOTAL else point

    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, slots=60, attacked=range(56, 58))
        edge.feed(*range(40), change=without_total)
        edge.daemon.poll()
        for slot in range(40, 45):
            edge.feed(slot, change=without_total)
            edge.daemon.poll()
        assert edge.judged[-1].verdict.unknown == ()
        late = (edge.begin + 45 * INTERVAL) * SECOND
        edge.write(f"{MEMORY_TOTAL},instance=edge:9100 value=1e13 {late}")
        edge.feed(45, change=without_total)
        edge.daemon.poll()
        assert edge.judged[-1].verdict.unknown == ("mem",)
        assert "appeared late" in edge.judged[-1].faults[MEMORY_TOTAL]
        edge.stop()


def test_series_that_change_their_name_each_slot_hide_nothing(edge: Watched) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        calm(edge, slot, job=f"evil{slot}")
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()


def test_a_label_that_is_added_goes_on_as_one_series(edge: Watched) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot, change=lambda _, point, slot=slot: point | ({"site": "lab"} if slot > 14 else {}))
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    assert edge.unknown() == set()


def test_two_totals_of_the_memory_make_it_unknown(edge: Watched) -> None:
    for slot in range(FIRST, 18):
        edge.feed(slot)
        totals = [p for name, p in edge.in_slots(slot, slot) if name == MEMORY_TOTAL]
        more = [p | {"job": "evil", "time": p["time"] + MILLISECOND, "value": 1e12} for p in totals]
        write_samples(edge.client, {MEMORY_TOTAL: more})
        assert edge.daemon.poll() is False
    assert edge.judged[-1].verdict.unknown == ("mem",)


# --- other instances -----------------------------------------------------------------------------


def foreign(edge: Watched, slot: int, instance: str) -> None:
    """All samples of a slot again, by another instance, a second later."""
    for name, point in edge.in_slots(slot, slot):
        other = point | {"instance": instance, "time": point["time"] + SECOND, "value": point["value"] + 1.0}
        write_samples(edge.client, {name: [other]})


def test_whoever_is_watched_goes_on_being_watched_and_a_newcomer_is_said_once(
    edge: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        foreign(edge, slot, "other:9100")
        if slot == 20:
            edge.start()
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    assert starts_with(said(caplog), "other:9100 also writes samples; ") == [
        f"other:9100 also writes samples; {watched} stays watched. To watch another one, name it as"
        f" '{key}' in --node_file"
        for watched, key in (("edge:9100", "node_instance"), ("gnb:9099", "ran_instance"))
    ]


def test_newcomers_with_changing_names_are_a_few_short_lines(
    edge: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for slot in range(FIRST, SLOTS):
        edge.feed(slot)
        moment = (edge.begin + slot * INTERVAL) * SECOND
        edge.write(
            *(
                f"node_memory_MemFree_bytes,instance=n{slot}-{i}{'x' * 5000} value=1 {moment + i * SECOND}"
                for i in range(INTERVAL)
            )
        )
        assert edge.daemon.poll() is False
    assert edge.stored() == edge.expected()
    (line,) = [line for line in said(caplog) if " also write" in line]
    assert line.startswith("more than 4 other instances also write samples; edge:9100 stays watched.")
    # What is kept does not grow by their names.
    assert len(json.dumps(edge.daemon.watch.monitor.state())) < 20_000


def test_a_stranger_does_not_take_the_place_of_a_node_that_ends(edge: Watched) -> None:
    for slot in range(FIRST, 17):
        edge.feed(slot)
        foreign(edge, slot, "other:9100")
        edge.daemon.poll()
    for slot in range(17, SLOTS):
        edge.now = edge.begin + (slot + 4 / 3) * INTERVAL
        foreign(edge, slot, "other:9100")
        edge.daemon.poll()
    assert edge.judged[-1].verdict.status == UNKNOWN
    assert edge.daemon.watch.monitor.instance == "edge:9100"


def renamed(edge: Watched, slot: int, name: str) -> None:
    """A slot's samples come from another instance."""
    edge.feed(slot, change=lambda _, p: p | {"instance": f"{name}-{p['instance']}"})


def test_an_exporter_that_gets_another_name_is_watched_under_it_after_thirty_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, slots=64, attacked=[60])
        edge.feed(*range(FIRST))
        edge.daemon.poll()
        for slot in range(FIRST, 64):
            renamed(edge, slot, "new") if slot > 15 else edge.feed(slot)
            edge.daemon.poll()
        names = {one.faults.get("rx_cpu_time") for one in edge.judged}
        assert (
            "no sample, but new-gnb:9099 writes some; name the one to watch as 'ran_instance' in --node_file"
            in names
        )
        assert starts_with(said(caplog), "samples now come from new-edge:9100 instead of edge:9100; ")
        assert edge.daemon.watch.monitor.instance == "new-edge:9100"
        assert edge.judged[-1].verdict.unknown == ()
        edge.stop()


def test_an_exporter_that_comes_back_is_not_left_for_whoever_took_its_place(tmp_path: Path) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, slots=64, attacked=[60])
        edge.feed(*range(FIRST))
        edge.daemon.poll()
        for slot in range(FIRST, 64):
            if not 15 < slot < 56:
                edge.feed(slot)
            if slot > 15 and slot != 62:
                renamed(edge, slot, "evil")
            edge.now = edge.begin + (slot + 4 / 3) * INTERVAL
            edge.daemon.poll()
            if slot == 52:
                assert edge.daemon.watch.monitor.instance == "evil-edge:9100"
            if slot == 58:
                assert len(edge.judged[-1].verdict.unknown) == 8
        # Alone again, it is watched again.
        assert edge.daemon.watch.monitor.instance == "edge:9100"
        edge.stop()


def test_many_instances_at_the_start_are_refused_in_one_line_of_300_characters() -> None:
    points = [{"time": 10**18, "value": 1.0, "instance": f"line\nbreak{i}{'x' * 9000}"} for i in range(1000)]
    slots = in_slots(lines_of({RX_CPU: points}), DEFAULT_NODE, 15 * SECOND)
    with pytest.raises(UserError) as refusal:
        Selection(DEFAULT_NODE).refuse_several(slots)
    line = f"find_anomalies.py: {refusal.value}"
    assert len(line) <= 300
    assert line.isprintable()
    assert "1,000 nodes write" in line
    assert "and 997 more" in line


def test_a_name_is_shown_in_one_short_word() -> None:
    assert shown("edge:9100") == "edge:9100"
    assert shown("a\nb\x1b[31m") == "a?b?[31m"
    assert shown("x" * 61) == "x" * 57 + "..."


# --- the samples' clock --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [60, 7200, -60, -7200])
def test_a_clock_that_is_off_costs_no_time_and_is_said_once(
    tmp_path: Path, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, ahead_seconds=seconds)
        delays = {}
        for slot in range(SLOTS):
            edge.feed(slot)
            edge.forget_judged()
            assert edge.daemon.poll() is False
            for one in edge.judged:
                delays[(one.verdict.time // SECOND - edge.begin) // INTERVAL] = edge.now
        # As by a right clock: each slot by the poll that comes a third of a slot after its end.
        found = [round(delays[slot] - edge.begin + seconds) for slot in range(10, SLOTS)]
        assert found == [(slot + 1) * INTERVAL + 5 for slot in range(10, SLOTS)]
        assert edge.stored() == edge.expected()
        lines = starts_with(said(caplog), "the samples' clock is about ")
        assert len(lines) == 1
        assert ("ahead of" if seconds > 0 else "behind") in lines[0]
        exported = edge.metrics.registry.get_sample_value("find_anomalies_clock_offset_seconds")
        assert abs(exported - seconds) <= INTERVAL
        edge.stop()


def test_a_clock_that_steps_ahead_while_it_is_watched_costs_two_records_at_most(edge: Watched) -> None:
    edge.live(*range(FIRST, 16))
    # By this host nothing has happened; all samples from now on are dated a minute later.
    edge.begin += 60
    for points in edge.samples.values():
        for point in points:
            point["time"] += 60 * SECOND
    edge.ahead_seconds = 60
    edge.live(*range(16, SLOTS))
    times = {one.verdict.time for one in edge.judged}
    assert len([time for time in times if time >= (edge.begin + 16 * INTERVAL) * SECOND]) == SLOTS - 16
    assert edge.daemon.watch.monitor.reader.clock_offset_seconds == pytest.approx(60, abs=INTERVAL)


def live_ahead(edge: Watched, slots: int) -> None:
    """Some slots are judged by a clock that is ahead; from then on samples come with right times."""
    for slot in range(slots):
        edge.feed(slot)
        edge.daemon.poll()
    for points in edge.samples.values():
        for point in points:
            point["time"] -= edge.ahead_seconds * SECOND
    edge.begin -= edge.ahead_seconds
    edge.ahead_seconds = 0
    edge.forget_judged()


def test_a_clock_that_was_ahead_and_is_put_right_begins_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, ahead_seconds=1200)
        live_ahead(edge, 12)
        edge.live(*range(12, SLOTS))
        assert len(starts_with(said(caplog), "the samples' clock went back by ")) == 1
        slots = [(one.verdict.time // SECOND - edge.begin) // INTERVAL for one in edge.judged]
        assert slots == list(range(12, SLOTS))
        assert edge.daemon.watch.monitor.reader.clock_offset_seconds == 0
        edge.stop()


def test_samples_between_those_of_a_clock_that_was_ahead_are_not_mixed_up_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path, ahead_seconds=150)
        # What came before has times up to the 24th of the slots that follow.
        live_ahead(edge, 14)
        for slot in range(14, 21):
            edge.feed(slot)
            edge.daemon.poll()
        assert edge.judged == []
        (line,) = starts_with(said(caplog), "the samples' clock went back by about ")
        assert line.endswith("or until the old ones are deleted: DELETE WHERE time > now()")
        edge.client.query(f"DELETE WHERE time > {int(edge.now * SECOND)}", method="POST")
        edge.live(*range(21, SLOTS))
        assert (edge.judged[-1].verdict.time // SECOND - edge.begin) // INTERVAL == SLOTS - 1
        assert edge.daemon.watch.monitor.reader.clock_offset_seconds == 0
        edge.stop()


def test_samples_that_were_dated_later_are_judged_when_their_time_has_come(edge: Watched) -> None:
    edge.feed(*range(FIRST, SLOTS))
    for slot in range(FIRST, SLOTS):
        edge.now = edge.begin + (slot + 4 / 3) * INTERVAL
        edge.forget_judged()
        edge.daemon.poll()
        assert [(one.verdict.time // SECOND - edge.begin) // INTERVAL for one in edge.judged] == [slot]
    assert edge.stored() == edge.expected()
    assert edge.daemon.watch.monitor.reader.clock_offset_seconds == 0


def test_a_right_clock_is_not_said(edge: Watched, caplog: pytest.LogCaptureFixture) -> None:
    edge.live(*range(FIRST, SLOTS))
    assert starts_with(said(caplog), "the samples' clock") == []
    assert edge.metrics.registry.get_sample_value("find_anomalies_clock_offset_seconds") == 0


# --- collect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ['"x"', "true"])
def test_collect_names_values_that_are_no_numbers(
    tmp_path: Path, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Watched(server, tmp_path)
        edge.write(f"rx_cpu_time,instance=gnb:9099,job=ran value={value} {edge.begin * SECOND + 5}")
        edge.feed(*range(SLOTS), change=lambda name, p: None if name == RX_CPU else p)
        output = tmp_path / "normal.csv"
        words = ["--mode=collect", "--influx_host=127.0.0.1", f"--influx_port={server.port}"]
        assert find_anomalies.main([*words, "--influx_db=edge", f"--output={output}"]) == 0
        said_there = capfd.readouterr().out
        kind = "text" if value == '"x"' else "a boolean"
        assert (
            f"gap: rx_cpu_time cannot be used (its value is {kind}, not a number) in 1 of {SLOTS} records"
            in said_there
        )
        assert f"gap: rx_cpu_time is missing in {SLOTS - 1} of {SLOTS} records" in said_there
        assert len(output.read_text().splitlines()) == SLOTS + 1
        edge.stop()


# --- anything at all -----------------------------------------------------------------------------

values = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-(2**70), 2**70), st.text(max_size=3), st.just(1e308)
)
labels = st.dictionaries(st.sampled_from(["job", "mode", "__name__", "é\n"]), st.text(max_size=3), max_size=2)
instances = st.sampled_from([{}, {"instance": "a"}, {"instance": "b"}, {"instance": ""}])
parts = st.sampled_from(
    [{}, {"cpu": "0"}, {"cpu": "1"}, {"device": "ppp0"}, {"cellId": "2"}, {"cellId": "3"}]
)
anything = st.dictionaries(
    st.sampled_from(MEASUREMENTS),
    st.lists(
        st.builds(
            lambda time, value, instance, part, own: {
                **{tag: text for tag, text in own.items() if text},
                **{tag: text for tag, text in instance.items() if text},
                **part,
                "time": time,
                "value": value,
            },
            st.integers(0, 60 * SECOND),
            values,
            instances,
            parts,
            labels,
        ),
        max_size=6,
    ),
)


@fuzzed
@given(st.lists(anything, min_size=1, max_size=4))
def test_fuzzed_answers_become_columns_and_reasons_and_nothing_else(chain: list[Record]) -> None:
    selection, last_record = Selection(DEFAULT_NODE), {}
    names = monitored_series(DEFAULT_NODE)
    for samples in chain:
        for slot in in_slots(lines_of(samples), DEFAULT_NODE, INTERVAL * SECOND):
            choice = selection.choose(slot)
            assert choice == selection.choose(slot)
            selection.keep(choice)
            columns, last_record = formatters.format_record(choice.record, last_record)
            assert all(isinstance(value, float) for value in columns.values())
            assert not any(abs(value) == float("inf") for value in columns.values())
            # What is missing has a reason.
            lacking = series_without_sample(choice.record)
            covered = {name for name in names if MEMORY_TOTAL in choice.faults and "Mem" in name}
            assert lacking <= choice.faults.keys() | covered
            assert all(fault.isprintable() and len(fault) < 300 for fault in choice.faults.values())
        state = json.loads(json.dumps(selection.state()))
        selection = Selection(DEFAULT_NODE)
        selection.restore(state)
