"""Several series of one port at the same time: when that is a fault, and which samples nobody knows then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Two series of one port are both alive if each has a sample this near to the port's newest.
LIVE_SECONDS = 2 * 3600
# A sample counts the bytes of the time before it, and belongs to the cell with most of that time. A cell is
# as long as the interval between samples, within these.
CELL_SECONDS, LONGEST_CELL_SECONDS = 300, 3600


def side_by_side(begins: Sequence[int], ends: Sequence[int], live: int) -> int:
    """How many series of a port are alive, 0 if none overlap. begins, ends: of all its series, ascending.

    live: LIVE_SECONDS in the unit of the times. It does not matter which end belongs to which begin: if no
    two series overlap, each begins after the previous one has ended.
    """
    since = ends[-1] - live
    pairs = zip(begins[1:], ends, strict=False)
    if not any(end >= begin and end > since for begin, end in pairs):
        return 0
    return sum(end > since for end in ends)


def describe_rivals(count: int, two: Sequence[Mapping[str, str]] = ()) -> str:
    """A port's fault. two: the tags of two of its live series, if they are known."""
    names = ""
    if two:
        one, other = two
        tag = min(tag for tag in {*one, *other} if one.get(tag, "") != other.get(tag, ""))
        names = f" (their {tag[:40]!r}: {one.get(tag, '')[:40]!r} and {other.get(tag, '')[:40]!r})"
    return (
        f"is written by {count} series at once{names}; write only one of them, or give each its own device or"
        " port"
    )


def cell_seconds(shortest: float) -> int:
    """Length of a cell. shortest: the usual seconds between samples of the series where it is the least."""
    return int(np.clip(round(shortest / CELL_SECONDS) * CELL_SECONDS, CELL_SECONDS, LONGEST_CELL_SECONDS))


def cells_of(times: np.ndarray, seconds: int) -> np.ndarray:
    """The cell of each time (n,), seconds since 1970; cells are counted from there."""
    return (times - seconds // 2) // seconds
