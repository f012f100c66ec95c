"""Faults of single series: each is logged in one line, and no series stops another."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.files import UserError
from ports.detectors import TooShortError

logger = logging.getLogger("find_anomalies")

# At most this many series with a fault get a line each.
MOST_LINES = 20
# A line that counts series names this many of them, each with at most this many letters.
NAMED, NAMED_LETTERS = 3, 60
_NUMBER = re.compile(r"\d+")


@dataclass
class Fault:
    """text: why a series has no result, in one line; None if it has one.

    is_too_short: its short history is the only reason.
    """

    text: str | None = None
    is_too_short: bool = False


@contextlib.contextmanager
def faults_of(name: str) -> Iterator[Fault]:
    """Turn an error inside the `with` into one line that names the series."""
    fault = Fault()
    try:
        yield fault
    except UserError as error:
        fault.text, fault.is_too_short = str(error), isinstance(error, TooShortError)
    # Whatever a library raises for one series in hundreds, the others must get their models.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        fault.text = f"{name}: failed ({type(error).__name__}: {reason}); report it with the samples"


def some_of(names: Sequence[str]) -> str:
    """A few names of many, in one short line."""
    few = ", ".join(
        name if len(name) <= NAMED_LETTERS else f"{name[:NAMED_LETTERS]}..." for name in names[:NAMED]
    )
    return f"{few} and {len(names) - NAMED} more" if len(names) > NAMED else few


class Lines:
    """Logs a line for each of the first MOST_LINES series, and one line that counts the rest.

    what: the end of that last line, like `that could not be trained`.
    """

    def __init__(self, level: int, what: str) -> None:
        self._level, self._what = level, what
        self._count = 0

    def add(self, line: str) -> None:
        """Log the line of one more series, or count it."""
        self._count += 1
        if self._count <= MOST_LINES:
            logger.log(self._level, "%s", line)

    def end(self) -> None:
        """Log how many series were only counted; there are no more."""
        if self._count > MOST_LINES:
            logger.log(self._level, "and %d more series %s", self._count - MOST_LINES, self._what)


class SeriesNotices:
    """Logs the fault of each series once when it begins or changes, and once when it has ended.

    what: as in Lines. mended: what is logged of series without a fault now, like `can be judged again`.

        notices = SeriesNotices(logging.ERROR, "that could not be judged", "can be judged again")
        notices.show({"1_1_in": "1_1_in: has text"}, {"1_2_in"})    # 1_1_in: has text
        notices.show({"1_1_in": "1_1_in: has text"}, {"1_2_in"})    # nothing
        notices.show({}, {"1_1_in", "1_2_in"})                      # 1 series can be judged again: 1_1_in
    """

    def __init__(self, level: int, what: str, mended: str) -> None:
        self._level, self._what, self._mended = level, what, mended
        self._kinds: dict[str, str] = {}

    def show(self, faults: Mapping[str, str], judged: Collection[str]) -> None:
        """Log what is new in the faults of one run: name of the series -> line.

        judged: the series without a fault.         A series that has gone is forgotten, not logged as mended.
        """
        # A fault stays the same while only its numbers change, like the time of the newest wrong sample.
        kinds = {name: _NUMBER.sub("", line) for name, line in faults.items()}
        lines = Lines(self._level, self._what)
        for name, line in faults.items():
            if self._kinds.get(name) != kinds[name]:
                lines.add(line)
        lines.end()
        ended = sorted(name for name in self._kinds if name not in kinds and name in judged)
        if ended:
            logger.warning("%d series %s: %s", len(ended), self._mended, some_of(ended))
        self._kinds = kinds
