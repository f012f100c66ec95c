"""The history of records: what is read is what was added, after crashes too, and the disk stays bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.history import History, row_type

SECOND = 10**9
METRICS = ("cpu", "mem")
# 8 + 4 + 1 + 1, a mark for each metric, and 4 + 3 + 3 numbers of 4 bytes, of which the levels are per metric.
ROW_BYTES = 8 + 4 + 1 + 1 + 2 + 4 * (2 * 4 + 3 + 3)


def rows(*times: int, level: float = 1.0) -> np.ndarray:
    made = np.zeros(len(times), row_type(len(METRICS)))
    made["time"] = np.array(times) * SECOND
    made["levels"] = level
    return made


def times_of(history: History, node: str, since: int = 0) -> list[int]:
    return (history.read(node, since * SECOND)[1]["time"] // SECOND).tolist()


def test_a_row_has_the_width_that_the_page_of_the_docs_names() -> None:
    assert (row_type(2).itemsize, row_type(8).itemsize) == (ROW_BYTES, 222)


def test_each_node_gets_its_own_records_in_order_and_only_the_newer_ones(tmp_path: Path) -> None:
    history = History(tmp_path)
    for time in (15, 30, 45):
        history.add(METRICS, ["a", "b"], rows(time, time + 1, level=time))
    metrics, found = history.read("b", 16 * SECOND)
    assert metrics == METRICS
    assert (found["time"] // SECOND).tolist() == [31, 46]
    assert found["levels"][:, 1, 2].tolist() == [30.0, 45.0]
    assert times_of(history, "a") == [15, 30, 45]
    assert times_of(history, "b", since=46) == []
    assert times_of(history, "unheard of") == []


def test_a_restart_and_a_record_judged_twice_leave_each_record_once(tmp_path: Path) -> None:
    History(tmp_path).add(METRICS, ["a"], rows(15))
    again = History(tmp_path)
    again.add(METRICS, ["a"], rows(15))
    again.add(METRICS, ["a"], rows(30))
    assert times_of(again, "a") == times_of(History(tmp_path), "a") == [15, 30]


def test_a_question_with_nothing_newer_hides_nothing_from_the_next_one(tmp_path: Path) -> None:
    History(tmp_path).add(METRICS, ["a", "a"], rows(15, 30))
    again = History(tmp_path)
    assert times_of(again, "a", since=30) == []
    assert times_of(again, "a", since=15) == [30]
    assert times_of(again, "a") == [15, 30]


@pytest.mark.parametrize("torn", [1, ROW_BYTES - 1])
def test_a_row_that_a_crash_has_torn_is_cut_off(tmp_path: Path, torn: int) -> None:
    History(tmp_path).add(METRICS, ["a", "a"], rows(15, 30))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-torn])
    history = History(tmp_path)
    assert times_of(history, "a") == [15]
    # What comes after it is in a file of its own.
    history.add(METRICS, ["a"], rows(45))
    assert times_of(history, "a") == [15, 45]


def test_what_is_not_a_file_of_rows_is_left_out(tmp_path: Path) -> None:
    header = json.dumps({"metrics": METRICS, "nodes": ["a"]}).encode() + b"\n"
    (tmp_path / "1.rows").write_bytes(b"\0" * 500)
    (tmp_path / "2.rows").write_bytes(b'["a"]\n')
    # A power failure left zeroes.
    (tmp_path / "3.rows").write_bytes(header + b"\0" * 3 * ROW_BYTES)
    history = History(tmp_path)
    history.add(METRICS, ["a"], rows(15))
    assert times_of(history, "a") == [15]


def test_the_oldest_files_go_when_there_are_too_many_bytes_and_the_newest_records_stay(
    tmp_path: Path,
) -> None:
    history = History(tmp_path, most_bytes=4000, file_bytes=1000)
    for time in range(1, 301):
        history.add(METRICS, ["a"], rows(time))
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(sizes) <= 4000 + 1000 + ROW_BYTES
    kept = times_of(history, "a")
    assert kept == list(range(301 - len(kept), 301))
    # At least the bytes that are asked for, without the headers of their files.
    assert len(kept) >= (4000 - 1000 - 5 * 100) // ROW_BYTES
    assert times_of(History(tmp_path), "a") == kept


def test_files_of_yesterday_go(tmp_path: Path) -> None:
    now = [1e9]
    history = History(tmp_path, clock=lambda: now[0])
    history.add(METRICS, ["a"], rows(15))
    # Files are as old as the clock of the disk says, which is much later than 2001.
    now[0] = next(tmp_path.iterdir()).stat().st_mtime + 24 * 3600 + 1
    history.add(METRICS, ["a"], rows(30))
    assert times_of(history, "a") == [30]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_file_of_metrics_that_are_no_longer_in_use_goes_as_any_other(tmp_path: Path) -> None:
    now = [1e9]
    history = History(tmp_path, clock=lambda: now[0])
    history.add(("mem",), ["a"], np.ones(1, row_type(1)))
    (old,) = tmp_path.iterdir()
    now[0] = old.stat().st_mtime + 24 * 3600 + 1
    history.add(METRICS, ["a"], rows(30))
    assert [path.name for path in tmp_path.iterdir()] == ["00000002.rows"]


def test_a_new_node_and_new_metrics_begin_a_file_and_older_metrics_are_not_mixed_in(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(METRICS, ["a"], rows(15))
    history.add(METRICS, ["a", "b"], rows(30, 30))
    assert times_of(history, "a") == [15, 30]
    other = np.zeros(1, row_type(1))
    other["time"] = 45 * SECOND
    history.add(("mem",), ["a"], other)
    metrics, found = history.read("a", 0)
    assert (metrics, (found["time"] // SECOND).tolist()) == (("mem",), [45])
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    history.add(METRICS, ["a"], rows(15))
    for path in (tmp_path / "history").iterdir():
        path.unlink()
    (tmp_path / "history").rmdir()
    assert times_of(history, "a") == []
    history.add(METRICS, ["a"], rows(30))
    assert times_of(history, "a") == [30]
