"""Files of people and of this program: safe reading, JSON, and replacement that survives a crash."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Many times what a thresholds file, a node file or a model's JSON needs.
JSON_BYTES = 1_000_000
# How much of a wrong name or value a message shows.
SHOWN_CHARACTERS = 80

_TEMPORARY_PREFIX = ".find_anomalies."
# Length of what tempfile appends to it.
_RANDOM_LETTERS = 8
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UserError(Exception):
    """A fault that the user can fix: its message is one line that says what to do."""


class UnavailableError(UserError):
    """A server that a job needs is away or refuses; it is worth asking again soon.

    kind: a label of a few words, for the metrics of a service.
    """

    def __init__(self, line: str, kind: str) -> None:
        super().__init__(line)
        self.kind = kind


class _DoubleKeyError(ValueError):
    """A key that occurs twice in a JSON object."""


# --- reading -------------------------------------------------------------------------------------


def is_there(filename: str | Path) -> bool:
    """Whether something has this name. Also True if it cannot be examined: reading it then tells why."""
    try:
        os.stat(filename)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_file(filename: str | Path, limit_bytes: int) -> bytes:
    """The content of a regular file of at most `limit_bytes`; never blocks, and reads no more than that.

    Raises UserError, naming file and remedy, if the file is missing, unreadable, too large, or not a regular
    file (but a FIFO, device, folder or socket).
    """
    try:
        # Checked first: opening a device can already have an effect.
        _check_usable(filename, os.stat(filename), limit_bytes)
        descriptor = os.open(filename, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            # Another file may have the name by now.
            _check_usable(filename, os.fstat(descriptor), limit_bytes)
            # Some regular files of /proc have no size and nothing to read.
            content = file.read(limit_bytes + 1) or b""
    except FileNotFoundError:
        raise UserError(f"{filename}: no such file; check the path") from None
    except OSError as error:
        raise UserError(
            f"{filename}: cannot be read ({error.strerror or error}); check the file and who may read it"
        ) from None
    if len(content) > limit_bytes:
        raise _too_large(filename, limit_bytes)
    return content


def _check_usable(filename: str | Path, found: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a regular file")
        raise UserError(f"{filename}: cannot be read: it is {kind}; put a regular file there")
    if found.st_size > limit_bytes:
        raise _too_large(filename, limit_bytes)


def _too_large(filename: str | Path, limit_bytes: int) -> UserError:
    return UserError(
        f"{filename}: cannot be read: it is larger than {limit_bytes / 1e6:g} MB; put the right file there"
    )


def loadDictJson(filename: str | Path, limit_bytes: int = JSON_BYTES) -> dict:
    """Read a JSON file that holds one object. Raises UserError with file, line and remedy."""
    try:
        text = read_file(filename, limit_bytes).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{filename}: cannot be read as text ({error}); save it as UTF-8") from None
    try:
        loaded = json.loads(text, object_pairs_hook=_object_without_doubles)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{filename}, line {error.lineno}: not valid JSON ({error.msg}); fix that line"
        ) from None
    except _DoubleKeyError as error:
        raise UserError(f"{filename}: {error}; keep one of them") from None
    except ValueError as error:
        raise UserError(f"{filename}: holds a number that cannot be read ({error}); fix it") from None
    except RecursionError:
        raise UserError(f"{filename}: is nested too deeply; it must hold one flat JSON object") from None
    if not isinstance(loaded, dict):
        raise UserError(f'{filename}: must hold one JSON object, like {{"key": 1.0}}')
    return loaded


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict:
    """Refuse a key that occurs twice: JSON silently takes the last one, which may not be the edited one."""
    loaded: dict[str, Any] = {}
    for key, value in pairs:
        if key in loaded:
            raise _DoubleKeyError(f"the key {shortened(repr(key))} occurs twice")
        loaded[key] = value
    return loaded


def shortened(text: str) -> str:
    """A text for a message of one line: cut if it is long."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


# --- writing -------------------------------------------------------------------------------------


def saveDictJson(dict: dict, filename: str | Path) -> None:
    """Write a dict as JSON, atomically: a reader sees the old file or the new one, never half of it."""
    content = json_bytes(dict)
    replace_file(filename, lambda path: path.write_bytes(content))


def json_bytes(content: dict) -> bytes:
    """The content of a JSON file, indented for people. Raises ValueError for NaN and infinity."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def replace_file(filename: str | Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `filename` (with its ending), then move it there.

    A file that is a mount point cannot be replaced, and is written in place. Raises UserError if the folder
    cannot be written; `filename` is then as it was.
    """
    replace_files({filename: write})


def replace_files(writers: dict[str | Path, Callable[[Path], Any]]) -> None:
    """Replace files that belong together: none is moved before all are written."""
    target = Path()
    # The umask can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        with contextlib.ExitStack() as stack:
            ready: list[tuple[Path, Path]] = []
            for filename, write in writers.items():
                target = Path(filename)
                temporary = stack.enter_context(_temporary(target, is_folder=False))
                write(temporary)
                temporary.chmod(0o666 & ~mask)
                _sync(temporary)
                ready.append((temporary, target))
            for temporary, target in ready:
                _move(temporary, target)
            for folder in dict.fromkeys(target.parent for _, target in ready):
                # Some file systems cannot sync a folder; the files are moved all the same.
                with contextlib.suppress(OSError):
                    _sync(folder)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder and the disk"
        ) from None


@contextlib.contextmanager
def working_folder(filename: str | Path) -> Iterator[Path]:
    """A folder beside `filename` for as long as the `with` lasts. It is also where libraries put their
    temporary files meanwhile. Raises UserError if it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_temporary(Path(filename), is_folder=True))
        except OSError as error:
            raise UserError(
                f"{filename}: cannot be written ({error.strerror or error}); check the folder and the disk"
            ) from None
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _temporary(target: Path, is_folder: bool) -> Iterator[Path]:
    """A new file or folder beside `target`, locked by this process while it exists.

    The lock distinguishes it from leftovers of killed processes, which are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(os.path.realpath(target.parent))
    path, lock = _make_locked(target, is_folder)
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


def _make_locked(target: Path, is_folder: bool) -> tuple[Path, int]:
    while True:
        if is_folder:
            path = Path(tempfile.mkdtemp(dir=target.parent, prefix=_TEMPORARY_PREFIX))
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            lock, name = tempfile.mkstemp(dir=target.parent, prefix=_TEMPORARY_PREFIX, suffix=target.suffix)
            path = Path(name)
        # Some network file systems have no locks: leftovers are not found there.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Before it was locked, another process may have removed it as a leftover.
        if is_there(path):
            return path, lock
        os.close(lock)


@functools.cache
def _remove_leftovers(folder: str) -> None:
    """Remove the temporary files and folders that no process has locked: theirs was killed.

    Each folder is searched once, since it may hold many files. The next process removes later leftovers.
    """
    names: list[str] = []
    # A user who may write to a folder need not be allowed to list it.
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
    for name in names:
        if not (name.startswith(_TEMPORARY_PREFIX) and len(name) >= len(_TEMPORARY_PREFIX) + _RANDOM_LETTERS):
            continue
        # A file of another user, or one that has just gone, is left alone.
        with contextlib.suppress(OSError):
            path = Path(folder, name)
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        # The file is a mount point, as in containers.
        if error.errno != errno.EBUSY:
            raise
        _write_in_place(target, temporary.read_bytes())


def _write_in_place(target: Path, content: bytes) -> None:
    """Overwrite an existing regular file.

    Blanks cover the rest of a longer JSON file before it is cut, so that no old content follows the new one.
    This is not atomic: after a crash, or at just that moment, the end may still be that of the old file.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        covered = content.ljust(os.fstat(descriptor).st_size)
        written = 0
        while written < len(covered):
            written += os.pwrite(descriptor, covered[written:], written)
        os.fsync(descriptor)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
