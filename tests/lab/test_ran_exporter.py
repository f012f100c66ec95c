"""The simulated gNB that Prometheus scrapes: its life, what is done to it, and what one scrape sees."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from lab.influxd import free_port
from lab.ran_exporter import LIFE_RECORDS, Gnb
from nodes.metrics import DOWNLINK, RX_CPU, TX_CPU, UPLINK
from simulators.edge import gnb_life, iperf_bytes_per_second

ROOT = Path(__file__).resolve().parents[2]
SEED = 3
START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
CELL = (("cellId", "2"),)


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


class Patient(NamedTuple):
    gnb: Gnb
    clock: Clock


@pytest.fixture
def patient() -> Patient:
    clock = Clock()
    return Patient(Gnb(SEED, 0.25, clock), clock)


@pytest.fixture(scope="module")
def life() -> list[dict[str, float]]:
    """The first records of the gNB's life, and its last one."""
    records = gnb_life(SEED, LIFE_RECORDS)
    return [{key: float(values[i]) for key, values in records.items()} for i in (*range(60), -1)]


@pytest.mark.parametrize(
    ("seconds", "record"),
    [
        (0.0, 0),
        (0.249, 0),
        (0.25, 1),
        (2.6, 10),
        (LIFE_RECORDS * 0.25 - 0.1, -1),
        (LIFE_RECORDS * 0.25, 0),
        (LIFE_RECORDS * 0.25 * 3 + 0.5, 2),
    ],
)
def test_life_goes_by_records_and_begins_anew_at_its_end(
    patient: Patient, life: list[dict[str, float]], seconds: float, record: int
) -> None:
    patient.clock.now = START + seconds
    assert patient.gnb.state() == life[record]


def test_flood_adds_traffic_and_the_cpu_that_it_takes(patient: Patient, life: list[dict[str, float]]) -> None:
    patient.clock.now = START + 5
    patient.gnb.tell("flood\n")
    for seconds, record in ((5.0, 20), (12.5, 50)):
        patient.clock.now = START + seconds
        # 20-60 Mbit/s, counted from when it was told; a record of the model is 15 s of traffic.
        flood = 15.0 * iperf_bytes_per_second(patient.clock.now, START + 5, SEED)
        assert 15.0 * 20e6 / 8 <= flood <= 15.0 * 60e6 / 8
        normal = life[record]
        assert patient.gnb.state() == pytest.approx(
            {
                "rx": normal["rx"] + 2.5 + flood / 40e6,
                "tx": normal["tx"] + 3.0 + flood / 20e6,
                "down": normal["down"] + flood,
                "up": normal["up"] + 0.04 * flood,
            },
            rel=1e-12,
        )


def test_flood_that_is_told_again_goes_on(patient: Patient) -> None:
    patient.gnb.tell("flood")
    patient.clock.now = START + 10
    expected = patient.gnb.state()["down"]
    for words in ("flood", "overload flood", "flood"):
        patient.gnb.tell(words)
        assert patient.gnb.state()["down"] == expected
    patient.gnb.tell("calm")
    patient.gnb.tell("flood")
    assert patient.gnb.state()["down"] != expected


def test_overload_takes_cpu_of_both_sides_and_no_traffic(
    patient: Patient, life: list[dict[str, float]]
) -> None:
    patient.gnb.tell("overload")
    states = []
    for record in range(40):
        patient.clock.now = START + record * 0.25
        states.append(patient.gnb.state())
        assert patient.gnb.state() == states[-1]
        assert (states[-1]["down"], states[-1]["up"]) == (life[record]["down"], life[record]["up"])
    for key, percent in (("rx", 60.0), ("tx", 30.0)):
        taken = [state[key] - normal[key] for state, normal in zip(states, life, strict=False)]
        assert all(abs(more - percent) < 8 for more in taken)
        assert abs(sum(taken) / len(taken) - percent) < 1
        assert len(set(taken)) == len(taken)


def test_both_at_once_and_calm_ends_both(patient: Patient, life: list[dict[str, float]]) -> None:
    patient.gnb.tell("flood overload")
    both = patient.gnb.state()
    flood = 15.0 * iperf_bytes_per_second(START, START, SEED)
    assert both["down"] == pytest.approx(life[0]["down"] + flood)
    assert abs(both["rx"] - life[0]["rx"] - 62.5 - flood / 40e6) < 8
    patient.gnb.tell("calm")
    assert patient.gnb.state() == life[0]


def test_only_what_is_told_goes_on(patient: Patient, life: list[dict[str, float]]) -> None:
    patient.gnb.tell("flood overload")
    patient.gnb.tell("overload")
    assert patient.gnb.state()["down"] == life[0]["down"]
    assert patient.gnb.state()["rx"] > life[0]["rx"] + 50


@pytest.mark.parametrize(
    ("words", "unknown"),
    [("flod", "flod"), ("rain flood earthquake", "earthquake, rain"), ("Flood", "Flood")],
)
def test_an_unknown_word_is_refused_whole(
    patient: Patient, life: list[dict[str, float]], words: str, unknown: str
) -> None:
    with pytest.raises(ValueError) as error:
        patient.gnb.tell(words)
    assert str(error.value) == f"unknown: {unknown}; the words are flood, overload and calm"
    assert patient.gnb.state() == life[0]


# --- the process ---------------------------------------------------------------------------------


class Exporter(NamedTuple):
    process: subprocess.Popen[str]
    url: str

    def scrape(self) -> dict[str, tuple[tuple, float]]:
        """Name -> labels and value of every series; each has one type, gauge."""
        with requests.Session() as session:
            session.trust_env = False
            families = list(text_string_to_metric_families(session.get(self.url, timeout=30).text))
        assert {family.type for family in families} == {"gauge"}
        samples = [sample for family in families for sample in family.samples]
        assert len(samples) == len(families)
        return {sample.name: (tuple(sample.labels.items()), sample.value) for sample in samples}

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def wait_for_downlink(self, low: float, high: float) -> dict[str, tuple[tuple, float]]:
        """The first scrape in which it is between the two, bit/s."""
        deadline = time.monotonic() + 60
        while not low <= (scraped := self.scrape())[DOWNLINK][1] <= high:
            assert time.monotonic() < deadline, scraped
            time.sleep(0.02)
        return scraped


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "lab.ran_exporter", "--port", str(port)]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        running = Exporter(process, f"http://127.0.0.1:{port}/metrics")
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    running.scrape()
                    break
                except requests.ConnectionError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield running
        finally:
            process.kill()


def test_process_serves_does_as_told_and_goes_on_when_nobody_tells_it_more(exporter: Exporter) -> None:
    calm = exporter.scrape()
    assert {name: labels for name, (labels, _) in calm.items()} == {
        RX_CPU: (),
        TX_CPU: (),
        DOWNLINK: CELL,
        UPLINK: CELL,
    }
    # The levels of simulators/edge.py; at most 1 MB in 15 s.
    assert 13.6 <= calm[RX_CPU][1] <= 14.7
    assert 5.4 <= calm[TX_CPU][1] <= 5.75
    assert 0 <= calm[DOWNLINK][1] <= 1e6 * 8 / 15
    exporter.tell("flood")
    flooded = exporter.wait_for_downlink(20e6, 61e6)
    assert flooded[UPLINK][1] == pytest.approx(0.04 * flooded[DOWNLINK][1], rel=0.1)
    exporter.tell("tempest")
    exporter.tell("calm")
    exporter.wait_for_downlink(0, 1e6 * 8 / 15)
    exporter.tell("flood")
    assert exporter.process.stdin is not None
    exporter.process.stdin.close()
    exporter.wait_for_downlink(20e6, 61e6)
    # Long enough to end, if the end of its input were a reason to.
    time.sleep(0.5)
    assert exporter.process.poll() is None
    assert exporter.scrape()[DOWNLINK][1] >= 20e6
    exporter.process.terminate()
    assert exporter.process.wait(30) == -15
    assert exporter.process.stderr is not None
    assert exporter.process.stderr.read() == (
        "ran_exporter: unknown: tempest; the words are flood, overload and calm\n"
    )
