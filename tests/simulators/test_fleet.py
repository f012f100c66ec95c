"""Simulated nodes that differ: what a database gets of them, and their records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import formatters
from nodes.metrics import getFeatures
from nodes.series import RECORD_SECONDS
from simulators.edge import Attack
from simulators.fleet import KINDS_OF_SITE, FleetSamples, fleet

START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
SECOND = 10**9


def test_nodes_differ_and_a_seed_gives_the_same_nodes() -> None:
    nodes = fleet(40, seed=3)
    assert nodes == fleet(40, seed=3) != fleet(40, seed=4)
    assert [one.name for one in nodes[:2]] == ["node-0000", "node-0001"]
    assert nodes[1].node.node_instance == "node-0001:9100"
    assert nodes[1].node.ran_instance == "node-0001:3333"
    assert [one.kind for one in nodes[:4]] == list(KINDS_OF_SITE)
    assert {len(one.node.cpus) for one in nodes} == {1, 2, 4, 8}
    assert {len(one.node.interfaces) for one in nodes} == {1, 2, 3}
    traffic = [one.traits.host_bytes for one in nodes]
    assert max(traffic) > 10 * min(traffic)


def test_twins_are_those_of_the_documented_node() -> None:
    one, other = fleet(2, seed=3, differ=False)
    assert replace(one.node, node_instance=None, ran_instance=None).identity()["cpus"] == ["0", "1"]
    levels = [twin.frame(START, 3600)["mem_percentage"].to_numpy() for twin in (one, other)]
    assert all(((level > 88.6) & (level < 88.9)).all() for level in levels)
    assert not np.array_equal(*levels)


@pytest.mark.parametrize("place", range(4))
def test_its_records_are_those_that_formatters_make_of_its_samples(place: int) -> None:
    one = fleet(4, seed=1)[place]
    kinds = ("cpu", "memory", "upload", "download", "flood")
    attacks = [
        Attack(kind, START + 300 * place, START + 300 * place + 200)
        for place, kind in enumerate(kinds, start=1)
    ]
    frame = one.frame(START, 1800, attacks)
    records = formatters.slot_records(one.samples(START, 1800, attacks), RECORD_SECONDS)
    rows = list(formatters.format_records(records, one.node))
    assert frame.index.asi8.tolist() == [row["time"] for row in rows]
    assert set(getFeatures()) <= set(frame.columns)
    for column in frame:
        made = np.array([row[column] for row in rows])
        # Scrapes come up to 10 ms early or late, and levels are rounded to two decimals.
        close = np.isclose(frame[column], made, rtol=2e-3, atol=0.011 + 2e-3 * abs(frame[column]).max())
        # Nothing is known of what came before the first sample.
        assert close[2:].all(), column


def test_an_attack_adds_to_what_the_node_does_anyway() -> None:
    one = fleet(1, seed=1)[0]
    attack = Attack("cpu", START + 900, START + 1200, 10.0)
    attacked, normal = (one.frame(START, 1800, given) for given in ([attack], []))
    more = (attacked["cpu_user_percentage"] - normal["cpu_user_percentage"]).to_numpy()
    assert more[:60] == pytest.approx(0)
    assert more[61:80] == pytest.approx(10)
    assert more[81:] == pytest.approx(0)
    with pytest.raises(KeyError):
        one.frame(START, 60, [Attack("unheard of", START, START + 60)])


def test_lines_are_the_samples_slot_by_slot() -> None:
    nodes = fleet(3, seed=2)
    span = FleetSamples(nodes, START, 60, {"node-0001": [Attack("memory", START, START + 60, 5.0)]})
    assert span.slots == 4
    lines = [line for text in span.lines(0, 4) for line in text.splitlines()]
    expected = set()
    for one in nodes:
        attacks = [Attack("memory", START, START + 60, 5.0)] if one.name == "node-0001" else []
        for measurement, points in one.samples(START, 60, attacks).items():
            for point in points:
                tags = {
                    "__name__": measurement,
                    **{k: v for k, v in point.items() if k not in ("time", "value")},
                }
                text = ",".join(f"{key}={value}" for key, value in sorted(tags.items()))
                expected.add(f"{measurement},{text} value={point['value']!r} {point['time']}")
    assert len(lines) == len(expected)
    assert set(lines) == expected
    newest = [line for text in span.lines(3, 4) for line in text.splitlines()]
    times = {int(line.rpartition(" ")[2]) for line in newest}
    assert {time // (15 * SECOND) for time in times} == {int(START) // 15 + 3}
    assert len(newest) * 4 == len(lines)
