"""Rows of a file that is added to: what a window that is left out makes unknown, for any metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from common.calendars import Window
from edge.collecting import LeftOut, kept_rows, read_windows
from nodes.node import getColumnNames, load_node

MINUTE = 60 * 10**9
METRICS = {
    "snr": {"unit": "dB"},
    "packets": {"kind": "counter"},
    "ue_down": {"kind": "bit rate", "over": {"rnti": "any"}},
    "busy": {"kind": "seconds", "over": {"cpu": ["0", "1"]}},
    "disk": {"kind": "free", "total": "disk_size"},
}


def test_after_a_window_a_described_node_lacks_what_needs_the_record_before(tmp_path: Path) -> None:
    """As after the start of collecting: a level that is a rate needs two records, any other just one."""
    (tmp_path / "node.json").write_text(json.dumps({"metrics": METRICS}))
    node = load_node(tmp_path / "node.json")
    assert list(getColumnNames(node)) == [*METRICS]
    columns = {name: np.full(6, 7.0) for name in METRICS} | {"time": MINUTE * np.arange(6)}
    left_out = LeftOut([Window("reboot", 120, 180, False)], "UTC", 60.0)
    rows = list(kept_rows(columns, node, 60.0, left_out))
    assert left_out.counts == {"reboot": 1}
    assert [row["time"] // MINUTE for row in rows] == [0, 1, 3, 4, 5]
    unknown = [[name for name in METRICS if math.isnan(row[name])] for row in rows]
    assert unknown == [[], [], ["packets", "ue_down", "busy"], [], []]


def test_a_window_that_ends_in_the_first_slot_before_its_record_leaves_that_record_out() -> None:
    node = load_node(None)
    half = MINUTE // 2
    columns = {name: np.full(3, 7.0) for name in getColumnNames(node)} | {
        "time": MINUTE * np.arange(1, 4) + half
    }
    left_out = LeftOut([Window("reboot", 50, 80, False)], "UTC", 60.0)
    rows = list(kept_rows(columns, node, 60.0, left_out))
    assert left_out.counts == {"reboot": 1}
    assert [row["time"] for row in rows] == [2 * MINUTE + half, 3 * MINUTE + half]
    assert math.isnan(rows[0]["mem_rate"])
    assert not math.isnan(rows[1]["mem_rate"])


def test_windows_of_a_node_are_those_that_name_it_and_may_come_again_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "calendar.json"
    content = {
        "night": {"daily": "02:00-04:00"},
        "backup": {"daily": "03:00-05:00"},
        "core": {"from": "2026-03-06", "until": "2026-03-07", "nodes": ["core-*"]},
        "line": {"daily": "03:00-05:00", "series": ["core"]},
    }
    path.write_text(json.dumps(content))

    def names(node: str) -> list[list[str]]:
        return [[window.name for window in windows] for windows in read_windows(path, node)]

    assert names("core-1") == [["night", "backup", "core"], ["line"]]
    assert names("edge-7") == names("") == [["night", "backup"], ["core", "line"]]
