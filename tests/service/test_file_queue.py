"""Texts that wait on the disk: in order, bounded, and over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.file_queue import BLOCK_BYTES, FileQueue


def test_texts_come_in_the_order_in_which_they_were_added_also_over_a_restart(tmp_path: Path) -> None:
    queue = FileQueue(tmp_path / "q", 1_000_000)
    assert (len(queue), queue.oldest(100)) == (0, [])
    for text in (b"one", b"two", b"three"):
        queue.add(text)
    # Each has three bytes, or five.
    assert queue.oldest(6) == [b"one", b"two"]
    assert queue.oldest(1) == [b"one"]
    queue.remove(1)
    queue = FileQueue(tmp_path / "q", 1_000_000)
    queue.add(b"four")
    assert queue.oldest(100) == [b"two", b"three", b"four"]
    queue.remove(3)
    assert (len(queue), list((tmp_path / "q").iterdir())) == (0, [])


def test_the_oldest_go_for_want_of_room_counted_in_whole_blocks(tmp_path: Path) -> None:
    queue = FileQueue(tmp_path, 3 * BLOCK_BYTES)
    for text in (b"a", b"b", b"c"):
        queue.add(text)
    assert queue.dropped == 0
    queue.add(b"d")
    assert (queue.dropped, queue.oldest(100)) == (1, [b"b", b"c", b"d"])
    # Two blocks, for which two others must go.
    queue.add(b"e" * (BLOCK_BYTES + 1))
    assert (queue.dropped, len(queue), queue.oldest(1)) == (3, 2, [b"d"])
    # What a process before left counts, too.
    queue = FileQueue(tmp_path, 3 * BLOCK_BYTES)
    queue.add(b"f")
    assert (queue.dropped, len(queue)) == (1, 2)


def test_what_others_do_in_the_folder_costs_what_they_touch(tmp_path: Path) -> None:
    queue = FileQueue(tmp_path / "q", 1_000_000)
    for text in (b"one", b"two", b"three"):
        queue.add(text)
    first, second, third = sorted((tmp_path / "q").iterdir())
    second.unlink()
    assert queue.oldest(100) == [b"one"]
    queue.remove(1)
    assert (queue.oldest(100), queue.dropped, len(queue)) == ([b"three"], 1, 1)
    third.unlink()
    third.mkdir()
    assert (queue.oldest(100), queue.dropped) == ([], 2)
    (tmp_path / "q" / "notes.txt").write_text("mine")
    third.rmdir()
    assert len(FileQueue(tmp_path / "q", 1_000_000)) == 0
    # Another one deletes all of it, or puts a file there.
    (tmp_path / "q" / "notes.txt").unlink()
    (tmp_path / "q").rmdir()
    queue.add(b"four")
    assert queue.oldest(100) == [b"four"]


def test_a_folder_that_cannot_be_made_is_an_error_and_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("a file")
    queue = FileQueue(tmp_path / "q", 1_000_000)
    with pytest.raises(OSError, match="exists"):
        queue.add(b"one")
    assert (len(queue), queue.oldest(100)) == (0, [])
