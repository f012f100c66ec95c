"""A bounded file of JSON lines: what is added comes back, whatever happened to the file meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import UserError
from service.json_lines import JsonLines

ROOT = Path(__file__).resolve().parents[2]
LINE = len('{"number": 10}\n')


def numbers(lines: JsonLines) -> list[int]:
    return [content["number"] for content in lines.read()]


def test_lines_come_back_in_order_also_in_another_process(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl", 10_000)
    assert numbers(lines) == []
    for number in range(3):
        lines.add({"number": number})
    assert numbers(JsonLines(tmp_path / "x.jsonl", 10_000)) == [0, 1, 2]
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [
        {"number": 0},
        {"number": 1},
        {"number": 2},
    ]


def test_the_newest_lines_are_kept_in_bounded_space(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl", 5 * LINE)
    for number in range(10, 100):
        lines.add({"number": number})
        kept = numbers(lines)
        assert kept == list(range(number - len(kept) + 1, number + 1))
        assert len(kept) >= min(5, number - 9)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 12 * LINE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl", "x.jsonl.1"]


@pytest.mark.parametrize("damage", [b"{", b"\xff\n", b"5\n", b"[" * 100_000 + b"\n", b"\n"], ids=repr)
def test_a_damaged_line_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    lines = JsonLines(tmp_path / "x.jsonl", 10_000_000)
    lines.add({"number": 1})
    with (tmp_path / "x.jsonl").open("ab") as file:
        file.write(damage)
    lines.add({"number": 2})
    lines.add({"number": 3})
    # A torn line takes the next one with it: nobody can tell where it ended.
    assert numbers(lines) in ([1, 2, 3], [1, 3])


def test_a_deleted_file_is_made_again(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl", 10_000)
    lines.add({"number": 1})
    (tmp_path / "x.jsonl").unlink()
    lines.add({"number": 2})
    assert numbers(lines) == [2]


def test_what_is_no_file_is_an_error_and_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("fifo", "folder", "link", "none/x"):
        with pytest.raises(OSError):
            JsonLines(tmp_path / name, 10_000).add({"number": 1})
    for name in ("fifo", "folder"):
        with pytest.raises(UserError, match="cannot be read: it is a (FIFO|folder)"):
            numbers(JsonLines(tmp_path / name, 10_000))
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_but_json_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        JsonLines(tmp_path / "x.jsonl", 10_000).add({"number": float("nan")})


def test_a_disk_that_is_full_costs_the_line_that_does_not_fit_and_no_other(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from service.json_lines import JsonLines\n"
        "lines = JsonLines(sys.argv[1], 10_000)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        # The second line fits half, the third not at all.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (22, resource.RLIM_INFINITY))\n"
        "for number in (11, 12, 13, 14):\n"
        "    if number == 14:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "    try: lines.add({'number': number})\n"
        "    except OSError as error: print(error.strerror)"
    )
    path = tmp_path / "x.jsonl"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert numbers(JsonLines(path, 10_000)) == [11, 14]
