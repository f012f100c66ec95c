"""Texts that wait on the disk to be sent, each in a file of its own."""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from common.files import UserError, read_file

# The least room that a file takes.
BLOCK_BYTES = 4096
_NAME = re.compile(r"\d{12}")


class FileQueue:
    """Keeps texts in the order in which they were added, also over restarts; the oldest go for want of room.

    queue = FileQueue("state/expected", most_bytes=64_000_000)
    queue.add(b"...")    # on the disk when this returns; after a power cut, the newest may be missing
    found = queue.oldest(1_000_000)
    queue.remove(len(found))    # they were sent

    A file counts with whole blocks of BLOCK_BYTES. dropped: how many texts there was no room for, or could
    not be read. One process uses a folder.
    """

    def __init__(self, folder: str | Path, most_bytes: int) -> None:
        self.folder = Path(folder)
        self.dropped = 0
        self._most_bytes = most_bytes
        # Number and bytes of each file, the oldest first.
        self._files: deque[tuple[int, int]] = deque()
        # There is none yet, or it cannot be used, which `add` tells.
        with contextlib.suppress(OSError):
            found = sorted(entry.name for entry in os.scandir(self.folder) if _NAME.fullmatch(entry.name))
            self._files.extend((int(name), self._path(int(name)).lstat().st_size) for name in found)
        self._bytes = sum(_room(size) for _, size in self._files)
        self._next = self._files[-1][0] + 1 if self._files else 1

    def __len__(self) -> int:
        return len(self._files)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012}"

    def add(self, text: bytes) -> None:
        """Keep one more text. Raises OSError if it cannot be written; then nothing is kept of it."""
        while self._files and self._bytes + _room(len(text)) > self._most_bytes:
            self._drop_oldest()
            self.dropped += 1
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        new = self.folder / "new"
        new.write_bytes(text)
        os.replace(new, self._path(self._next))
        self._files.append((self._next, len(text)))
        self._bytes += _room(len(text))
        self._next += 1

    def oldest(self, most_bytes: int) -> Sequence[bytes]:
        """The oldest texts, one at least if there are any, and no more than `most_bytes` of several.

        One that cannot be read any more is dropped.
        """
        found: list[bytes] = []
        total = 0
        while len(found) < len(self._files):
            number, size = self._files[len(found)]
            if found and total + size > most_bytes:
                break
            try:
                found.append(read_file(self._path(number), max(size, 1)))
                total += size
            except UserError:
                if found:
                    break
                self._drop_oldest()
                self.dropped += 1
        return found

    def remove(self, count: int) -> None:
        """Forget the oldest texts."""
        for _ in range(count):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        number, size = self._files.popleft()
        self._bytes -= _room(size)
        # Whoever deleted it has done what was to be done; one that cannot be deleted is sent once more.
        with contextlib.suppress(OSError):
            self._path(number).unlink(missing_ok=True)


def _room(size: int) -> int:
    return max(-(-size // BLOCK_BYTES), 1) * BLOCK_BYTES
