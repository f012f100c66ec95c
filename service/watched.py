"""Files that people change while a service runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError


class WatchedFiles:
    """The content of a few files, loaded again when one of them changes.

    Raises UserError if they cannot be loaded and there is no content to `fall_back` on.
    """

    def __init__(
        self, filenames: Sequence[str | Path], load: Callable[[], Any], fall_back: Any | None = None
    ) -> None:
        self._paths = [Path(name) for name in filenames]
        self._load = load
        self._seen: list[tuple[int, int, int] | None] | None = self._stamps()
        try:
            self.content = load()
        except UserError:
            if fall_back is None:
                raise
            self.content = fall_back
            self._seen = None

    def refresh(self) -> bool:
        """Load files that have changed. Returns whether `content` is new.

        Raises UserError, at every call, while they cannot be loaded.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self.content = self._load()
        self._seen = stamps
        return True

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        stamps = []
        for path in self._paths:
            try:
                found = path.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return stamps
