"""Windows: for each record that is judged, the records before it, whether they are at hand or remembered.

The same code judges the consecutive records of one node (a dataset) and the newest records of many nodes (a
poll). Only where the records before them come from differs: `Consecutive` has them, `Newest` remembers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass
class Remembered:
    """What the next record of a node needs to know of those before it.

    rows: name of a quantity -> its rows of the last records, (records, columns), the newest last; NaN for a
    record that was not there. records: how many there were.
    """

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    records: int = 0

    def skip(self, records: int) -> None:
        """So many records are missing."""
        self.records += records
        for name, rows in self.rows.items():
            missing = np.full((min(records, len(rows)), rows.shape[1]), np.nan)
            self.rows[name] = np.concatenate([rows[len(missing) :], missing])


class Past(Protocol):
    """The records before each of n records."""

    def predicted(self, count: int, steps: int) -> np.ndarray:
        """Places of the records that are predicted: at most those with `steps` - 1 records before them."""

    def windows(self, name: str, rows: np.ndarray, records: int) -> np.ndarray:
        """The last rows of a quantity, (records, n, columns), of which `rows` (n, columns) are the newest;
        NaN where there was no record.
        """


class Consecutive:
    """The n records are those of one node, one after another.

    newest: only so many are predicted, the last ones; all, unless given. memory: what the record after the
    last one needs to know.
    """

    def __init__(self, newest: int | None = None) -> None:
        self._newest = newest
        self.memory = Remembered()

    def predicted(self, count: int, steps: int) -> np.ndarray:
        """As in Past."""
        self.memory.records = count
        unwanted = 0 if self._newest is None else count - self._newest
        return np.arange(max(steps - 1, unwanted), count)

    def windows(self, name: str, rows: np.ndarray, records: int) -> np.ndarray:
        """As in Past; a view."""
        padded = np.concatenate([np.full((records - 1, rows.shape[1]), np.nan), rows])
        self.memory.rows[name] = padded[len(rows) :].copy()
        if not len(rows):
            return np.empty((records, 0, rows.shape[1]))
        return np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, records, axis=0), -1, 0)


class Newest:
    """The n records are the newest ones of n nodes, whose memories are brought up to date."""

    def __init__(self, memories: Sequence[Remembered]) -> None:
        self._memories = memories

    def predicted(self, count: int, steps: int) -> np.ndarray:
        """As in Past."""
        for memory in self._memories:
            memory.records += 1
        return np.flatnonzero([memory.records >= steps for memory in self._memories])

    def windows(self, name: str, rows: np.ndarray, records: int) -> np.ndarray:
        """As in Past."""
        unknown = np.full((records - 1, rows.shape[1]), np.nan)
        if len(self._memories) == 1:
            (memory,) = self._memories
            window = np.concatenate([memory.rows.get(name, unknown), rows])
            memory.rows[name] = window[1:]
            return window[:, None]
        windows = np.empty((len(rows), records, rows.shape[1]))
        windows[:, :-1] = [memory.rows.get(name, unknown) for memory in self._memories]
        windows[:, -1] = rows
        for memory, window in zip(self._memories, windows, strict=True):
            # A copy, so that a node without new records does not hold those of all others in memory.
            memory.rows[name] = window[1:].copy()
        return windows.swapaxes(0, 1)
