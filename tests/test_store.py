"""What survives: the spool in order and bounded, the state, a crash at any moment, a disk that refuses."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from store import FILE_NAME, Store, StoreError
from utils import UserError

PROJECT = Path(__file__).resolve().parent.parent


def point(number: int) -> dict:
    return {"measurement": "m", "time": number, "tags": {"severity": "anomaly"}, "fields": {"cpu_usage": 1.5}}


def times(store: Store, count: int = 1000) -> list[int]:
    batch = store.oldest(count)
    return [] if batch is None else [one["time"] for one in batch.points]


def test_what_was_added_is_there_for_the_next_process_oldest_first(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        assert store.state() is None
        store.add({"judged_before": 15}, "db", [point(1), point(2)])
        store.add({"judged_before": 30, "nan": float("nan")}, "db", [point(3)])
    with Store(tmp_path, 10) as store:
        state = store.state()
        assert state["judged_before"] == 30
        assert state["nan"] != state["nan"]
        assert store.depth == 3
        batch = store.oldest(2)
        assert (batch.database, batch.points) == ("db", [point(1), point(2)])


def test_what_was_sent_is_gone_also_for_the_next_process(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, "db", [point(number) for number in range(5)])
        store.sent(store.oldest(2))
        assert times(store) == [2, 3, 4]
    with Store(tmp_path, 10) as store:
        assert times(store) == [2, 3, 4]
        store.sent(store.oldest(10))
        assert (store.oldest(10), store.depth) == (None, 0)


def test_a_batch_is_of_one_database(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, "old", [point(1)])
        store.add({}, "new", [point(2), point(3)])
        store.add({}, "old", [point(4)])
        seen = []
        while batch := store.oldest(10):
            seen.append((batch.database, [one["time"] for one in batch.points]))
            store.sent(batch)
    assert seen == [("old", [1]), ("new", [2, 3]), ("old", [4])]


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    with Store(tmp_path, 3) as store:
        store.add({}, "db", [point(1), point(2)])
        assert store.dropped == 0
        store.add({}, "db", [point(3), point(4), point(5)])
        assert times(store) == [3, 4, 5]
        assert store.dropped == 2


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    with Store(tmp_path, 3), pytest.raises(UserError, match="in use by another process; give each its own"):
        Store(tmp_path, 3)


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x: cannot be used \(Not a directory\); .*--state_dir"):
        Store(tmp_path / "file" / "x", 3)


def test_a_broken_file_is_moved_aside_not_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all " * 100)
    with Store(tmp_path, 3) as store:
        assert store.state() is None
        store.add({"a": 1}, "db", [point(1)])
    (aside,) = tmp_path.glob("*.broken-*")
    assert aside.read_bytes() == b"no database at all " * 100
    assert "is broken" in caplog.text
    with Store(tmp_path, 3) as store:
        assert store.state() == {"a": 1}


def test_a_disk_that_refuses_keeps_the_points_in_memory_until_it_does_not(tmp_path: Path) -> None:
    with Store(tmp_path, 3) as store:
        store.add({"n": 1}, "db", [point(1)])
        # As a full disk answers: SQLITE_FULL at the first page more.
        store._database.execute("PRAGMA max_page_count = 1")
        big = {"n": "x" * 100_000}
        with pytest.raises(
            StoreError, match=r"cannot be written \(database or disk is full\); free some space"
        ):
            store.add(big, "db", [point(2)])
        assert store.state() == {"n": 1}
        assert store.depth == 2
        store.sent(store.oldest(10))
        assert times(store) == [2]
        with pytest.raises(StoreError):
            store.add(big, "db", [point(number) for number in (3, 4, 5)])
        assert (times(store), store.dropped) == ([3, 4, 5], 1)
        store._database.execute("PRAGMA max_page_count = 1000000")
        store.add(big, "db", [])
        assert (store.state(), times(store), store.depth) == (big, [3, 4, 5], 3)


KILLED = """
import sys
from store import Store
with Store(sys.argv[1], 100_000) as store:
    number = (store.state() or {"number": 0})["number"]
    while True:
        number += 1
        store.add({"number": number}, "db", [{"time": number}, {"time": -number}])
        print(number, flush=True)
"""


def test_state_and_points_stay_together_when_the_process_is_killed(tmp_path: Path) -> None:
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(20):
            said = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        number = json.loads(database.execute("SELECT content FROM state").fetchone()[0])["number"]
        stored = [
            json.loads(row[0])["time"] for row in database.execute("SELECT point FROM spool ORDER BY id")
        ]
    database.close()
    assert number >= said >= 100
    assert stored == [sign * n for n in range(1, number + 1) for sign in (1, -1)]
