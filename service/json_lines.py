"""A file of JSON objects, one per line, of bounded size: one process writes it, any may read it meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import is_there, read_file

# The last line is written before the file is known to be full.
_LONGEST_LINE = 1 << 20
_ENCODER = json.JSONEncoder(allow_nan=False)


class JsonLines:
    """Keeps the newest objects that were added, also over restarts.

    lines = JsonLines("state/polls.jsonl", most_bytes=8_000_000)
    lines.add({"polled_at": "2026-03-06T12:00:20Z"})
    list(lines.read())    # the oldest first

    A file that has grown to `most_bytes` is renamed to `<name>.1`, in place of the previous one. So at least
    `most_bytes` of the newest lines are kept, and at most twice as many.
    """

    def __init__(self, path: str | Path, most_bytes: int) -> None:
        self.path = Path(path)
        self._most_bytes = most_bytes

    @property
    def _older(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def add(self, content: dict[str, Any]) -> None:
        """Write one more line. Raises OSError if the file cannot be written."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size >= self._most_bytes:
                os.replace(self.path, self._older)
        # Opened each time: somebody may delete or move the file. A FIFO must not block the process.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(None, "not a regular file")
            line = _ENCODER.encode(content).encode() + b"\n"
            if (written := os.write(descriptor, line)) < len(line):
                # The disk is full. Half a line would take the next one with it.
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def read(self) -> Iterator[dict[str, Any]]:
        """All objects, the oldest first; a line that is torn or not an object is left out.

        Raises UserError for what is not a regular file, or cannot be read.
        """
        for path in (self._older, self.path):
            if not is_there(path):
                continue
            for line in read_file(path, 2 * self._most_bytes + _LONGEST_LINE).splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    content = json.loads(line)
                    if isinstance(content, dict):
                        yield content
