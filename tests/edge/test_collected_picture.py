"""The picture of a collected dataset: what is drawn and where, of any metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from edge.collected_picture import draw_collected
from nodes.node import DEFAULT_NODE, Node, getColumnNames, load_node

MINUTE = 60 * 10**9
# 2026-11-22T00:00:00Z
START = 1_795_305_600 * 10**9
NAN = float("nan")


def columns_of(node: Node, minutes: list[int], level: float) -> dict[str, np.ndarray]:
    """A dataset with a record in some minutes, in which each column has the same value."""
    names = ["time", *getColumnNames(node)]
    return {name: np.full(len(minutes), level) for name in names} | {
        "time": START + MINUTE * np.array(minutes)
    }


def shaded(axis: Axes, label: str) -> list[tuple[float, float]]:
    """Where an axis is shaded, in minutes."""
    spans = [one for one in axis.patches if isinstance(one, Rectangle) and one.get_label() == label]
    days = START / 86400e9
    return [
        (round((one.get_x() - days) * 1440, 3), round((one.get_x() + one.get_width() - days) * 1440, 3))
        for one in spans
    ]


def test_gaps_and_windows_are_shaded_and_no_line_crosses_them() -> None:
    columns = columns_of(DEFAULT_NODE, [0, 1, 2, 6, 7, 8, 20, 21], 2000.0)
    columns["mem_percentage"][1] = NAN
    windows = [(START + MINUTE * first, START + MINUTE * last) for first, last in ((4, 5), (9, 20), (90, 99))]
    figure = draw_collected(columns, DEFAULT_NODE, windows, 60.0, "normal.csv")
    assert figure.get_suptitle() == "normal.csv: 8 records, 2026-11-22T00:00:00Z to 2026-11-22T00:21:00Z"
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[:2] + titles[-2:] == ["cpu [%]", "cpu_rx [%]", "net_5g_up [kB/s]", "mem [%]"]
    for axis, is_memory in ((figure.axes[3], False), (figure.axes[7], True)):
        assert shaded(axis, "left out") == [(4, 5), (9, 20)]
        assert shaded(axis, "no value") == [(1, 2)] * is_memory + [(3, 4), (5, 6)]
        (line,) = axis.get_lines()
        level = line.get_ydata()
        assert np.flatnonzero(np.isnan(level)).tolist() == ([1, 3, 7] if is_memory else [3, 7])
        # Bytes per second are drawn as kB/s.
        assert set(level[~np.isnan(level)]) == {2000.0 if is_memory else 2.0}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["level", "no value", "left out"]


def test_a_described_node_has_a_row_for_each_metric(tmp_path: Path) -> None:
    metrics = {"snr": {"unit": "dB"}, "ue_down": {"kind": "bit rate"}, "ues": {}}
    (tmp_path / "node.json").write_text(json.dumps({"metrics": metrics}))
    node = load_node(tmp_path / "node.json")
    columns = columns_of(node, [0, 1, 2], 3000.0)
    columns["ues"][:] = NAN
    figure = draw_collected(columns, node, [], 60.0, "normal.csv")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["snr [dB]", "ue_down [kB/s]", "ues"]
    assert [shaded(axis, "no value") for axis in figure.axes] == [[], [], [(0, 3)]]
