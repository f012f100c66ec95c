"""The last hours of the records of all nodes, for the page: what was measured, expected and allowed.

The folder has files of rows, named by number, and only the last one grows. A file begins with a line of JSON,
which names the metrics and the nodes of its rows. A row is one record of one node: all of them have the same
width, so that what a crash has torn is known by its length. The oldest files are deleted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FOLDER_NAME = "history"
HISTORY_BYTES = 120_000_000
KEPT_SECONDS = 24 * 3600
# A file is closed when it is so large, or so old.
FILE_BYTES, FILE_SECONDS = 8_000_000, 3600
READ_BYTES = 1_000_000
_LONGEST_HEADER = 1_000_000
# What a metric is in a record.
IS_CAUSE, IS_UNKNOWN = 1, 2


@functools.cache
def row_type(metrics: int) -> np.dtype:
    """The row of a record with so many metrics.

    time: ns. node: its place among the nodes of the file. status: its place in STATUS_DIGITS. levels: actual,
    low, expected and high of each metric. rmse: over the window, and evidence: what the thresholds are
    compared with, both per metric and overall. NaN is unknown.
    """
    return np.dtype(
        [
            ("time", "<i8"),
            ("node", "<u4"),
            ("status", "u1"),
            ("is_quiet", "u1"),
            ("marks", "u1", (metrics,)),
            ("levels", "<f4", (metrics, 4)),
            ("rmse", "<f4", (metrics + 1,)),
            ("evidence", "<f4", (metrics + 1,)),
        ]
    )


@dataclass(frozen=True)
class _File:
    """One file. begins: where its rows do (bytes)."""

    path: Path
    metrics: tuple[str, ...]
    places: dict[str, int] = field(repr=False)
    begins: int = 0

    @property
    def row(self) -> np.dtype:
        return row_type(len(self.metrics))

    def backward(self) -> Iterator[np.ndarray]:
        """Its whole rows, the newest part of them first, each part in order."""
        at_once = max(READ_BYTES // self.row.itemsize, 1)
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            end = (os.fstat(file.fileno()).st_size - self.begins) // self.row.itemsize
            while end > 0:
                start = max(end - at_once, 0)
                file.seek(self.begins + start * self.row.itemsize)
                content = file.read((end - start) * self.row.itemsize)
                yield np.frombuffer(content, self.row, len(content) // self.row.itemsize)
                end = start


class History:
    """Keeps the newest records of all nodes in files, also over restarts; one thread writes, others read.

    history = History("state/history")
    history.add(("cpu", "mem"), ["edge-1", "edge-2"], rows)    # of row_type(2)
    history.read("edge-2", since=0)                            # (("cpu", "mem"), its rows in order of time)
    """

    def __init__(
        self,
        folder: str | Path,
        most_bytes: int = HISTORY_BYTES,
        file_bytes: int = FILE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(folder)
        self._most_bytes, self._file_bytes, self._clock = most_bytes, file_bytes, clock
        # The oldest first. Replaced as a whole: the readers are other threads.
        self._files: tuple[_File, ...] = tuple(filter(None, map(_opened, self._paths())))
        # Metrics -> the file that grows, and when it was begun. After a restart there is none.
        self._growing: dict[tuple[str, ...], tuple[_File, float]] = {}
        # The newest record of nodes: who asks for newer ones needs no file.
        self._newest: dict[str, int] = {}

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.rows") if path.stem.isdigit())

    # --- writing ---------------------------------------------------------------------------------

    def add(self, metrics: tuple[str, ...], nodes: Sequence[str], rows: np.ndarray) -> None:
        """Keep one more record of each of these nodes, which have these metrics; rows: (n,), with any `node`.

        Raises OSError if it cannot be written.
        """
        file = self._file_for(metrics, nodes)
        rows["node"] = [file.places[name] for name in nodes]
        content = rows.tobytes()
        descriptor = os.open(file.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if (written := os.write(descriptor, content)) < len(content):
                # The disk is full. A torn row would shift all later ones.
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        self._newest |= zip(nodes, rows["time"].tolist(), strict=True)

    def _file_for(self, metrics: tuple[str, ...], nodes: Sequence[str]) -> _File:
        """The file that grows, or a new one if that is full or old, or does not know all of the nodes."""
        now = self._clock()
        file, begun = self._growing.get(metrics, (None, 0.0))
        if file is not None and file.path.exists():
            is_new = file.path.stat().st_size < self._file_bytes and now < begun + FILE_SECONDS
            if is_new and file.places.keys() >= set(nodes):
                return file
        known = file.places if file is not None else {}
        names = list(dict.fromkeys((*known, *nodes)))
        file = self._begin(metrics, names)
        self._growing[metrics] = file, now
        self._delete_old(now)
        return file

    def _begin(self, metrics: tuple[str, ...], nodes: list[str]) -> _File:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        numbers = [int(path.stem) for path in self._paths()]
        path = self.folder / f"{max(numbers, default=0) + 1:08d}.rows"
        header = json.dumps({"metrics": metrics, "nodes": nodes}).encode() + b"\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        try:
            os.write(descriptor, header)
        finally:
            os.close(descriptor)
        file = _File(path, metrics, {name: place for place, name in enumerate(nodes)}, len(header))
        self._files = (*self._files, file)
        return file

    def _delete_old(self, now: float) -> None:
        """Delete the oldest files: those beyond the size, and those whose records are too old to be shown."""
        kept, total = [], 0
        for file in reversed(self._files):
            with contextlib.suppress(OSError):
                found = file.path.stat()
                total += found.st_size
                is_growing = any(
                    file is one and now < begun + FILE_SECONDS for one, begun in self._growing.values()
                )
                if is_growing or (total <= self._most_bytes and found.st_mtime > now - KEPT_SECONDS):
                    kept.append(file)
        self._files = tuple(reversed(kept))
        names = {file.path for file in kept}
        for path in self._paths():
            if path not in names:
                path.unlink(missing_ok=True)

    # --- reading ---------------------------------------------------------------------------------

    def read(self, node: str, since: int) -> tuple[tuple[str, ...], np.ndarray]:
        """The metrics and the records of a node after `since` (ns), in order of time and each once.

        If its metrics have changed, only the records since then.
        """
        newest = self._newest.get(node)
        if newest is not None and newest <= since:
            return (), np.empty(0, row_type(0))
        metrics: tuple[str, ...] = ()
        parts: list[np.ndarray] = []
        latest = 0
        for file, rows in self._backward():
            if node not in file.places:
                continue
            if parts and file.metrics != metrics:
                break
            own = rows[(rows["node"] == file.places[node]) & (rows["time"] > 0)]
            if len(own):
                metrics = file.metrics
                latest = max(latest, int(own["time"].max()))
                parts.append(own[own["time"] > since])
                if own["time"].min() <= since:
                    break
        if latest:
            self._newest.setdefault(node, latest)
        found = np.concatenate(parts[::-1]) if parts else np.empty(0, row_type(0))
        # A record that was judged again after a crash is there twice.
        return metrics, found[np.unique(found["time"], return_index=True)[1]]

    def _backward(self) -> Iterator[tuple[_File, np.ndarray]]:
        for file in reversed(self._files):
            for rows in file.backward():
                yield file, rows


def _opened(path: Path) -> _File | None:
    """A file of an earlier process; None if it is damaged."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        header = json.loads(line)
        metrics, nodes = tuple(map(str, header["metrics"])), list(map(str, header["nodes"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _File(path, metrics, {name: place for place, name in enumerate(nodes)}, len(line))
