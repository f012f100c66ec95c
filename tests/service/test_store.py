"""What survives: the spool in order and bounded, the state, a crash at any moment, a disk that refuses."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import UserError
from service.store import DAMAGED_ROWS, FILE_NAME, Store, StoreError

PROJECT = Path(__file__).resolve().parents[2]


def point(number: int) -> dict:
    return {"measurement": "m", "time": number, "tags": {"severity": "anomaly"}, "fields": {"cpu_usage": 1.5}}


def state(number: int) -> dict[str, str]:
    return {"": json.dumps({"n": number})}


def times(store: Store, count: int = 1000) -> list[int]:
    batch = store.oldest(count)
    return [] if batch is None else [one["time"] for one in batch.points]


def test_what_was_added_is_there_for_the_next_process_oldest_first(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        assert store.states() == {}
        store.add({"": '{"judged_before": 15}'}, {}, "db", [point(1), point(2)])
        store.add({"": '{"judged_before": 30, "nan": NaN}'}, {}, "db", [point(3)])
    with Store(tmp_path, 10) as store:
        (state,) = store.states().values()
        assert state["judged_before"] == 30
        assert state["nan"] != state["nan"]
        assert store.depth == 3
        batch = store.oldest(2)
        assert (batch.database, batch.points) == ("db", [point(1), point(2)])


def test_what_was_sent_is_gone_also_for_the_next_process(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, {}, "db", [point(number) for number in range(5)])
        store.sent(store.oldest(2))
        assert times(store) == [2, 3, 4]
    with Store(tmp_path, 10) as store:
        assert times(store) == [2, 3, 4]
        store.sent(store.oldest(10))
        assert (store.oldest(10), store.depth) == (None, 0)


def test_a_batch_is_of_one_database(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, {}, "old", [point(1)])
        store.add({}, {}, "new", [point(2), point(3)])
        store.add({}, {}, "old", [point(4)])
        seen = []
        while batch := store.oldest(10):
            seen.append((batch.database, [one["time"] for one in batch.points]))
            store.sent(batch)
    assert seen == [("old", [1]), ("new", [2, 3]), ("old", [4])]


def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    with Store(tmp_path, 3) as store:
        store.add({}, {}, "db", [point(1), point(2)])
        assert store.dropped == 0
        store.add({}, {}, "db", [point(3), point(4), point(5)])
        assert times(store) == [3, 4, 5]
        assert store.dropped == 2


def test_a_node_with_many_points_pushes_out_none_of_those_with_few(tmp_path: Path) -> None:
    def of(node: str, number: int) -> dict:
        return point(number) | {"tags": {"node": node}}

    with Store(tmp_path, 200) as store:
        store.add({}, {}, "db", [of("quiet", 0), of("loud", 1), of("quiet", 2)])
        for number in range(3, 240):
            store.add({}, {}, "db", [of("loud", number)])
        # Two at a time, a hundredth of the limit.
        assert times(store) == [0, 2, *range(42, 240)]
        assert store.dropped == 40
        # Two that have many give equally.
        store.add({}, {}, "db", [of("other", number) for number in range(240, 440)])
        kept = times(store)
    assert kept == [0, 2, *range(141, 240), *range(341, 440)]


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
        assert store.states() == {}
        store.add(state(1), {}, "db", [point(1)])
    (aside,) = tmp_path.glob("*.broken-*")
    assert aside.read_bytes() == b"no database at all " * 100
    assert "is broken" in caplog.text
    with Store(tmp_path, 3) as store:
        assert store.states() == {"": {"n": 1}}


def test_a_disk_that_refuses_keeps_the_points_in_memory_until_it_does_not(tmp_path: Path) -> None:
    with Store(tmp_path, 3) as store:
        store.add(state(1), {}, "db", [point(1)])
        # As a full disk answers: SQLITE_FULL at the first page more.
        store._database.execute("PRAGMA max_page_count = 1")
        big = {"": json.dumps({"n": "x" * 100_000})}
        with pytest.raises(
            StoreError, match=r"cannot be written \(database or disk is full\); free some space"
        ):
            store.add(big, {}, "db", [point(2)])
        assert store.depth == 2
        store.sent(store.oldest(10))
        assert times(store) == [2]
        with pytest.raises(StoreError):
            store.add(big, {}, "db", [point(number) for number in (3, 4, 5)])
        assert (times(store), store.dropped) == ([3, 4, 5], 1)
        store._database.execute("PRAGMA max_page_count = 1000000")
        store.add(big, {}, "db", [])
        assert (store.states(), times(store), store.depth) == ({"": {"n": "x" * 100_000}}, [3, 4, 5], 3)


def test_a_disk_that_cannot_be_read_while_writing_is_one_fault_with_one_remedy(tmp_path: Path) -> None:
    with Store(tmp_path, 100_000) as store:
        store.add(
            state(1), {}, "db", [point(number) | {"tags": {"x": "y" * 400}} for number in range(20_000)]
        )
    with Store(tmp_path, 100_000) as store:
        # The disk loses the middle, which a count reads and an insertion does not.
        size = (tmp_path / FILE_NAME).stat().st_size
        with open(tmp_path / FILE_NAME, "r+b") as file:
            file.seek(size // 3)
            file.write(b"\xff" * (size // 3))
        with pytest.raises(StoreError) as refused:
            store.add(state(2), {}, "db", [point(-1)])
    assert str(refused.value) == (
        f"{tmp_path / FILE_NAME}: cannot be written (database disk image is malformed); free some space."
        " Until then a crash loses what InfluxDB does not have yet"
    )


def test_what_is_in_memory_only_may_be_refused_and_sent_like_the_rest(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, {}, "db", [point(1), point(2)])
        store.refuse(store.oldest(1))
        store._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError):
            store.add({"": json.dumps({"n": "x" * 100_000})}, {}, "db", [point(3), point(4)])
        store.sent(store.oldest(10))
        store.refuse(store.oldest(1))
        store.sent(store.oldest(1))
        assert (store.oldest(10), store.depth, store.refused) == (None, 2, 2)
        retried = [store.oldest_refused(10), store.oldest_refused(10)]
        store._database.execute("PRAGMA max_page_count = 1000000")
        store.add({}, {}, "db", [])
    assert [[one["time"] for one in batch.points] for batch in retried] == [[1], [1]]
    with Store(tmp_path, 10) as store:
        assert times(store) == [1, 3]


def test_what_was_refused_is_passed_and_comes_again_in_order(tmp_path: Path) -> None:
    with Store(tmp_path, 4) as store:
        store.add({}, {}, "db", [point(number) for number in range(5)])
        store.refuse(store.oldest(2))
        assert (times(store), store.depth, store.refused) == ([3, 4], 4, 2)
        seen = []
        while batch := store.oldest_refused(1):
            seen.append(batch.points[0]["time"])
            store.refuse(batch)
        assert seen == [1, 2]
        store.sent(store.oldest_refused(1))
        # Its limit counts them, too: the oldest goes first.
        store.add({}, {}, "db", [point(5), point(6)])
        assert (store.depth, store.refused, store.dropped) == (4, 0, 2)
        assert (times(store), store.oldest_refused(9)) == ([3, 4, 5, 6], None)


GOOD = json.dumps(point(0))


@pytest.mark.parametrize(
    ("database", "content"),
    [
        pytest.param("db", GOOD[:-7], id="cut"),
        pytest.param("db", GOOD.encode() + b"\xff", id="no UTF-8"),
        pytest.param("db", "[1]", id="list"),
        pytest.param("db", "[" * 100_000, id="deep"),
        pytest.param("db", "5" * 5000, id="digits"),
        pytest.param("db", None, id="NULL"),
        pytest.param("db", "", id="empty"),
        pytest.param("db", GOOD + " " * 70_000, id="long"),
        pytest.param(None, GOOD, id="no database"),
        pytest.param(b"\x00\xff", GOOD, id="binary database"),
        pytest.param("", GOOD, id="empty database"),
        *(
            pytest.param("db", json.dumps(point(0) | change), id=str(change))
            for change in (
                {"time": "1"},
                {"time": True},
                {"time": 1.5},
                {"time": 2**63},
                {"time": None},
                {"measurement": ""},
                {"measurement": "\ud800"},
                {"measurement": 5},
                {"tags": None},
                {"tags": {"severity": 5}},
                {"fields": {}},
                {"fields": []},
                {"fields": {"cpu_usage": math.nan}},
                {"fields": {"cpu_usage": "1"}},
                {"fields": {"cpu_usage": True}},
                {"fields": {"cpu_usage": 10**400}},
                {"fields": {"cpu_usage": 1.0, "mem_usage": None}},
            )
        ),
    ],
)
def test_a_damaged_row_is_set_aside_and_the_others_stay_in_order(
    tmp_path: Path, database: object, content: object
) -> None:
    with Store(tmp_path, 10) as store:
        store.add(state(1), {}, "db", [point(1), point(2), point(3)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("UPDATE spool SET database = ?, point = ? WHERE id = 2", (database, content))
    with Store(tmp_path, 10) as store:
        assert (times(store), store.damaged, store.depth) == ([1, 3], 1, 2)
        store.sent(store.oldest(10))
        assert (store.oldest(10), store.depth) == (None, 0)
        assert store.damage
    with Store(tmp_path, 10) as store:
        assert (store.oldest(10), store.damaged) == (None, 0)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file:
        file.text_factory = bytes
        ((kept_database, kept, reason),) = file.execute("SELECT database, point, reason FROM damaged")
    raw = [
        value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        for value in (database, content)
    ]
    assert [kept_database, kept] == raw
    assert reason


def test_damaged_rows_are_bounded_and_what_goes_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path, 5000) as store:
        store.add({}, {}, "db", [{"n": number} for number in range(DAMAGED_ROWS + 5)])
        assert (store.oldest(10), store.depth) == (None, 0)
        (first,) = store._database.execute("SELECT point FROM damaged ORDER BY id LIMIT 1").fetchone()
    assert first == '{"n": 5}'
    assert [r.message for r in caplog.records] == [
        f"{tmp_path / FILE_NAME}: its table 'damaged' is full; the 5 oldest rows are deleted, 1000 are kept"
    ]


def test_an_id_that_is_none_of_ours_is_set_aside_and_numbering_goes_on(tmp_path: Path) -> None:
    with Store(tmp_path, 10) as store:
        store.add({}, {}, "db", [point(1)])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        for row in (2**63 - 1, -5):
            file.execute("INSERT INTO spool VALUES (?, 'db', ?)", (row, GOOD))
    with Store(tmp_path, 10) as store:
        store.add({}, {}, "db", [point(2)])
        assert (times(store), store.depth, store.damaged) == ([1, 2], 2, 2)


def test_a_file_of_the_version_before_opens_and_delivers(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("CREATE TABLE spool (id INTEGER PRIMARY KEY AUTOINCREMENT, database TEXT, point TEXT)")
        file.execute("CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT)")
        file.execute("INSERT INTO spool (database, point) VALUES ('db', ?)", (GOOD,))
        file.execute("""INSERT INTO state VALUES (1, '{"n": 1}')""")
    with Store(tmp_path, 10) as store:
        assert (store.states(), times(store)) == ({"": {"n": 1}}, [0])
    with Store(tmp_path, 10) as store:
        assert (store.states(), times(store)) == ({"": {"n": 1}}, [0])


def test_tables_of_something_else_are_moved_aside(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("CREATE TABLE spool (word TEXT)")
    with Store(tmp_path, 10) as store:
        store.add(state(1), {}, "db", [point(1)])
        assert times(store) == [1]
    assert len(list(tmp_path.glob("*.broken-*"))) == 1


@pytest.mark.parametrize(
    "content",
    ['{"a": 1', "[]", "5", "[" * 100_000, b"\xff", None, '"x"'],
    ids=lambda content: str(content)[:9],
)
def test_a_damaged_state_is_said_in_one_line_and_the_others_are_there(
    tmp_path: Path, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path, 10) as store:
        store.add({"a": '{"n": 1}', "b": '{"n": 2}'}, {}, "db", [point(1)])
        store.add({}, {"a": '{"n": 3}', "b": '{"m": 4}'}, "db", [])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("UPDATE state SET content = ? WHERE name = 'a'", (content,))
    with Store(tmp_path, 10) as store:
        assert (store.states(), times(store)) == ({"b": {"n": 2, "m": 4}}, [1])
    (line,) = caplog.messages
    assert re.search(r"find_anomalies\.db: a state in it is damaged \(.*\); judging starts over$", line)


@pytest.mark.parametrize("content", ['{"a": 1', '{"a": 5}', '{"c": {}}', b"\xff", None], ids=str)
def test_a_damaged_change_is_said_and_what_came_before_it_counts(
    tmp_path: Path, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path, 10) as store:
        store.add({"a": '{"n": 1}'}, {}, "db", [])
        for number in (2, 3, 4):
            store.add({}, {"a": f'{{"n": {number}}}'}, "db", [])
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("UPDATE changes SET content = ? WHERE id = 2", (content,))
    with Store(tmp_path, 10) as store:
        # A name that has no state changes nothing.
        is_whole = content == '{"c": {}}'
        assert store.states() == {"a": {"n": 4 if is_whole else 2}}
    assert len(caplog.messages) == (not is_whole)


def test_changes_go_with_the_whole_state_that_includes_them(tmp_path: Path) -> None:
    def changes() -> list[str]:
        return [content for (content,) in store._database.execute("SELECT content FROM changes ORDER BY id")]

    with Store(tmp_path, 10) as store:
        store.add({"a": '{"n": 1, "m": 1}', "b": '{"n": 1}'}, {}, "db", [])
        store.add({}, {"a": '{"n": 2}', "b": '{"n": 2}'}, "db", [])
        store.add({"a": '{"n": 3, "m": 3}'}, {"b": '{"n": 3}'}, "db", [])
        # b needs both.
        assert changes() == ['{"a": {"n": 2}, "b": {"n": 2}}', '{"b": {"n": 3}}']
        store.add({"b": '{"n": 4}'}, {"a": '{"n": 4}'}, "db", [])
        assert changes() == ['{"a": {"n": 4}}']
    for _ in range(2):
        with Store(tmp_path, 10) as store:
            assert store.states() == {"a": {"n": 4, "m": 3}, "b": {"n": 4}}
            assert changes() == []
    with Store(tmp_path, 10) as store:
        # One name does not come again, which keeps no change.
        assert store.states().keys() == {"a", "b"}
        store.add({"a": '{"n": 5}'}, {}, "db", [])
        store.add({}, {"a": '{"n": 6}'}, "db", [])
        store.add({"a": '{"n": 7}'}, {}, "db", [])
        assert changes() == []
    with Store(tmp_path, 10) as store:
        assert store.states() == {"a": {"n": 7}, "b": {"n": 4}}


# --- the file's place ----------------------------------------------------------------------------


def after_a_crash(folder: Path, copy: Path) -> tuple[object, list[int]]:
    """State and points that a process finds if this one dies now."""
    shutil.copytree(folder, copy)
    with Store(copy, 10) as store:
        return store.states()[""], times(store)


def without_file(folder: Path) -> None:
    (folder / FILE_NAME).unlink()


def without_log(folder: Path) -> None:
    (folder / f"{FILE_NAME}-wal").unlink()


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "something").write_text("else")


@pytest.mark.parametrize("take_away", [without_file, without_log, shutil.rmtree, moved, replaced])
def test_what_is_taken_away_is_made_again_whole(tmp_path: Path, take_away: Callable[[Path], object]) -> None:
    folder = tmp_path / "state"
    with Store(folder, 10) as store:
        store.add(state(1), {}, "db", [point(1), point(2)])
        store.refuse(store.oldest(1))
        assert store.make_again() is False
        take_away(folder)
        store.add(state(2), {}, "db", [point(3)])
        assert store.make_again() is True
        assert store.make_again() is False
        assert after_a_crash(folder, tmp_path / "first") == ({"n": 2}, [1, 2, 3])
        with pytest.raises(UserError, match="in use by another process"):
            Store(folder, 10)
        assert (times(store), store.refused) == ([2, 3], 1)
        store.add(state(3), {}, "db", [point(4)])
        assert store.make_again() is False
        assert after_a_crash(folder, tmp_path / "second") == ({"n": 3}, [1, 2, 3, 4])
    with Store(folder, 10) as store:
        assert (store.states(), times(store)) == ({"": {"n": 3}}, [1, 2, 3, 4])


def test_a_place_that_is_taken_is_left_alone_and_used_when_it_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with Store(folder, 10) as store:
        store.add(state(1), {}, "db", [point(1)])
        shutil.rmtree(folder)
        with Store(folder, 10) as other:
            other.add(state(1), {}, "db", [point(7)])
            for _ in range(2):
                with pytest.raises(
                    StoreError,
                    match=r"was deleted and cannot be made again \(another file is there\); remove",
                ):
                    store.make_again()
            store.add(state(2), {}, "db", [point(2)])
            assert other.make_again() is False
            assert times(other) == [7]
        with pytest.raises(StoreError):
            store.make_again()
        # A file in the folder's place: nothing can be made there, whoever asks.
        shutil.rmtree(folder)
        folder.write_text("")
        with pytest.raises(StoreError, match="cannot be made again"):
            store.make_again()
        folder.unlink()
        assert store.make_again() is True
        assert after_a_crash(folder, tmp_path / "copy") == ({"n": 2}, [1, 2])


KILLED = """
import sys
from service.store import Store
with Store(sys.argv[1], 100_000) as store:
    number = store.states().get("", {"number": 0})["number"]
    while True:
        number += 1
        content = {"": '{"number": %d}' % number}
        # Every third state is whole.
        states, changes = (content, {}) if number % 3 == 1 else ({}, content)
        store.add(states, changes, "db", [{"time": number}, {"time": -number}])
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
    with Store(tmp_path, 100_000) as store:
        number = store.states()[""]["number"]
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        stored = [
            json.loads(row[0])["time"] for row in database.execute("SELECT point FROM spool ORDER BY id")
        ]
    database.close()
    assert number >= said >= 100
    assert stored == [sign * n for n in range(1, number + 1) for sign in (1, -1)]
