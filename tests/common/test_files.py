"""Files of people and of this program: usable or refused in one line; replaced whole, whatever happens."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import UserError, loadDictJson, read_file, replace_file, saveDictJson, working_folder
from edge.bundle import bundle_paths, load_bundle
from edge.evaluation import load_attacks
from edge.thresholds import load_thresholds, proposals_path, read_proposals
from lab import parts
from nodes.node import load_node
from tests.support.memory import little_memory
from tests.support.refusals import one_line

ROOT = Path(__file__).resolve().parents[2]
PREFIX = ".find_anomalies."


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**9)


UNUSABLE = [
    (fifo, "it is a FIFO; put a regular file there"),
    (device, "it is a device; put a regular file there"),
    (folder, "it is a folder; put a regular file there"),
    (unix_socket, "it is a socket; put a regular file there"),
    (huge, "it is larger than 1 MB; put the right file there"),
]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# --- reading -------------------------------------------------------------------------------------


def thresholds_of(path: Path) -> object:
    return load_thresholds(path)


def attacks_of(path: Path) -> object:
    return load_attacks(path.with_name("some.csv"))


def proposals_of(path: Path) -> object:
    return read_proposals(path.with_name("edge.json"))


@pytest.mark.parametrize(("make", "words"), UNUSABLE)
@pytest.mark.parametrize(
    ("name", "read", "remedy"),
    [
        ("thresholds.json", thresholds_of, ""),
        ("node.json", load_node, ""),
        ("attacks.json", attacks_of, ""),
        (
            "edge.proposed.json",
            proposals_of,
            ", or delete the file: all thresholds then count as set by a person",
        ),
    ],
)
def test_what_is_no_usable_file_is_refused_at_once_in_one_line(
    make: Callable, words: str, name: str, read: Callable, remedy: str, place: Path
) -> None:
    path = place / name
    make(path)
    with little_memory(10_000_000), pytest.raises(UserError) as refused:
        read(path)
    assert str(refused.value) == f"{path}: cannot be read: {words}{remedy}"


@pytest.fixture
def model(place: Path) -> Path:
    """A copy of the shipped bundle."""
    for ending in (".h5", ".tflite", ".json"):
        shutil.copy(ROOT / f"model/5g_edge_autoencoder{ending}", place / f"edge{ending}")
    shutil.copy(ROOT / "data/normalization_stats.json", place / "edge_normalization_stats.json")
    return place / "edge.h5"


@pytest.mark.parametrize("make", [fifo, device, folder, huge])
@pytest.mark.parametrize("part", ["model", "litert", "identity", "stats"])
def test_a_bundle_of_which_a_file_is_no_usable_one_is_refused_at_once_in_one_line(
    make: Callable, part: str, model: Path
) -> None:
    path = getattr(bundle_paths(model), part)
    path.unlink()
    make(path)
    with pytest.raises(UserError, match=f"^{path}: cannot be read: it is [^\n]*; put [^\n]* there$"):
        load_bundle(model)


def test_a_file_of_just_the_limit_is_read(place: Path) -> None:
    path = place / "node.json"
    path.write_bytes(b'{"cell_id": "3"}'.ljust(1_000_000))
    assert load_node(path).cell_id == "3"
    path.write_bytes(b'{"cell_id": "3"}'.ljust(1_000_001))
    with pytest.raises(UserError, match="larger than 1 MB"):
        load_node(path)


def test_what_has_no_size_is_read_up_to_the_limit_only() -> None:
    assert read_file("/proc/self/status", 1_000_000).startswith(b"Name:")
    with pytest.raises(UserError, match="larger than"):
        read_file("/proc/self/status", 10)


def test_many_keys_are_read_quickly_and_a_long_one_is_cut_in_the_message(place: Path) -> None:
    path = place / "many.json"
    pairs = ", ".join(f'"k{i}": 0' for i in range(70_000))
    path.write_text(f'{{{pairs}, "k69999": 1}}')
    begin = time.monotonic()
    with pytest.raises(UserError, match="the key 'k69999' occurs twice; keep one of them"):
        loadDictJson(path)
    assert time.monotonic() - begin < 5
    path.write_text('{"' + "long\\n" * 100_000 + '": 1}')
    for read in (load_node, load_thresholds):
        with pytest.raises(UserError) as refused:
            read(path)
        assert len(str(refused.value)) < 500
        assert "\n" not in str(refused.value)


# --- writing -------------------------------------------------------------------------------------


def kill_while_writing(path: Path) -> None:
    """As a training that is killed: a file, and a folder with files in it, are left half made."""
    code = (
        "import os, signal, sys, tempfile\n"
        "from common.files import replace_file, working_folder\n"
        "def write(part):\n"
        "    part.write_text('half of the n')\n"
        "    with working_folder(sys.argv[1]) as folder:\n"
        "        (folder / 'network').write_text('half of the n')\n"
        "        tempfile.mkdtemp()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "replace_file(sys.argv[1], write)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], cwd=ROOT).returncode == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    kill_while_writing(path)
    kill_while_writing(path)
    # The second has removed what the first one left.
    assert len(list(tmp_path.iterdir())) == 2
    others = [tmp_path / name for name in (".model.abcdefgh.h5", f"{PREFIX}json", "thresholds.json")]
    for other in others:
        other.write_text("of somebody else")
    replace_file(path, lambda part: part.write_text("new"))
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert path.read_text() == "new"


def test_many_writes_into_a_folder_list_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []

    def spied(folder: str) -> list[str]:
        listed.append(str(folder))
        return listdir(folder)

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", spied)
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        replace_file(f"{number}.json", lambda part: part.write_text("new"))
        replace_file(tmp_path / f"{number}.h5", lambda part: part.write_text("new"))
        replace_file(tmp_path / "other/model.h5", lambda part: part.write_text("new"))
    assert sorted(listed) == sorted(map(str, (tmp_path, tmp_path / "other")))


def test_what_a_live_process_writes_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    code = (
        "import sys\n"
        "from common.files import replace_file\n"
        "def write(part):\n"
        "    part.write_text('slow')\n"
        "    print('half', flush=True)\n"
        "    sys.stdin.read()\n"
        "replace_file(sys.argv[1], write)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdin=pipe, stdout=pipe) as slow:
        assert slow.stdout.readline() == b"half\n"
        with working_folder(path) as own:
            replace_file(path, lambda part: part.write_text("quick"))
            assert own.is_dir()
        assert path.read_text() == "quick"
        assert len(list(tmp_path.iterdir())) == 2
        slow.stdin.close()
        assert slow.wait(60) == 0
    assert path.read_text() == "slow"
    assert list(tmp_path.iterdir()) == [path]


def test_a_working_folder_takes_what_libraries_put_into_the_temporary_one(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with working_folder(tmp_path / "new/model.h5") as own:
        assert Path(tempfile.mkdtemp()).parent == own
        assert own.parent == tmp_path / "new"
    assert tempfile.gettempdir() == before
    assert list((tmp_path / "new").iterdir()) == []


def test_a_working_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written \([^\n]*\); check the folder and the disk$"):
        working_folder(tmp_path / "plain/model.h5").__enter__()


@pytest.mark.parametrize("content", ["old", "old and much longer than the new one", ""])
def test_a_file_that_is_mounted_by_itself_is_written_in_place(content: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    code = "import sys; from common import files; files.saveDictJson({'mem_threshold': 0.1}, sys.argv[1])"
    mount = f"mount --bind '{path}' '{path}' && exec \"$0\" \"$@\""
    within = [parts.find("unshare"), "--mount", "sh", "-c", mount]
    done = subprocess.run(
        [*within, sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text() == '{\n  "mem_threshold": 0.1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_proposals_of_a_thresholds_file_lie_beside_it() -> None:
    assert proposals_path("data/thresholds.json") == Path("data/thresholds.proposed.json")
    assert proposals_path("/a.b/c") == Path("/a.b/c.proposed.json")


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, from the project's folder."""
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


# --- JSON ----------------------------------------------------------------------------------------


def test_json_round_trip_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "thresholds.json"
    given = {"cpu_threshold": 0.25, "überall": [1, None]}
    assert saveDictJson(given, path) is None
    assert loadDictJson(path) == given
    assert list(path.parent.iterdir()) == [path]


def test_json_is_written_for_people_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    saveDictJson({"mem_threshold": 0.1, "cpu_threshold": 2}, path)
    assert path.read_text() == '{\n  "mem_threshold": 0.1,\n  "cpu_threshold": 2\n}\n'
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; check the path"),
        (b"", ", line 1: not valid JSON (Expecting value); fix that line"),
        (
            b'{\n  "cpu_threshold": 1\n  "mem_threshold": 2\n}',
            ", line 3: not valid JSON (Expecting ',' delimiter); fix that line",
        ),
        (b'{\n\n"cpu_threshold": 0,5}', ", line 3: not valid JSON ("),
        (b'{"a": 1, "b": 2, "a": 1}', ": the key 'a' occurs twice; keep one of them"),
        (b'{"outer": {"a": 1, "a": 2}}', ": the key 'a' occurs twice; keep one of them"),
        (b"[1, 2]", ': must hold one JSON object, like {"key": 1.0}'),
        (b"1", ': must hold one JSON object, like {"key": 1.0}'),
        (b"\xff\xfe", ": cannot be read as text ("),
    ],
)
def test_json_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "thresholds.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        loadDictJson(path)
    assert one_line(refusal).startswith(f"{path}{message}")


def test_folder_in_place_of_a_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        loadDictJson(tmp_path)
    assert one_line(refusal).startswith(f"{tmp_path}: cannot be read")


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        saveDictJson({"first": 1, "value": value}, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_file_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    code = (
        "import resource, sys\nfrom common import files\n"
        # Files may not grow past 100 bytes: the write fails half way.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: files.saveDictJson({str(i): i for i in range(1000)}, sys.argv[1])\n"
        "except files.UserError as error: print(error)"
    )
    done = run(code, str(path))
    assert done.stdout == f"{path}: cannot be written (File too large); check the folder and the disk\n", (
        done.stderr
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    code = (
        "import os, signal, sys\nfrom common import files\n"
        "def write(part):\n"
        "    part.write_text('half of the n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.replace_file(sys.argv[1], write)"
    )
    assert run(code, str(path)).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_interrupted_by_the_user_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_text("old")

    def write(part: Path) -> None:
        assert (part.parent, part.suffix) == (path.parent, ".h5")
        part.write_text("half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    path = tmp_path / "plain" / "stats.json"
    with pytest.raises(UserError) as refusal:
        saveDictJson({}, path)
    assert one_line(refusal).startswith(f"{path}: cannot be written (")
