"""What many nodes have to say at once is one line."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator

from common.files import UserError
from nodes.names import listed_names

logger = logging.getLogger("find_anomalies")

# More nodes than this that have the same to say are one line.
SINGLE_LINES = 5
_NUMBER = re.compile(r"\d[\d.,:]*")
_TURN = threading.Lock()


class GatheredNotices:
    """Logs what many nodes have to say in one poll: a line for each, or one line if many say the same.

    gathered = GatheredNotices()
    notices = Notices(gathered.of("edge-7"))
    gathered.log()    # at the end of the poll
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def of(self, node: str) -> Callable[[str, int, str], None]:
        """Takes what the notices of one node would log."""
        return lambda topic, level, message: self._lines.setdefault((topic, level), []).append(
            (node, message)
        )

    def add(self, node: str, level: int, line: str) -> None:
        """Take a line of a node. Lines are the same if they differ in numbers and names of nodes alone."""
        without_name = re.sub(rf"(?<!\w){re.escape(node)}(?!\w)", "", line)
        self.of(node)(_NUMBER.sub("0", without_name), level, line)

    def log(self) -> None:
        """Log what was gathered since the last time."""
        lines, self._lines = self._lines, {}
        for (_, level), found in lines.items():
            nodes = sorted({node for node, _ in found})
            if len(nodes) > SINGLE_LINES:
                (first, message), *_ = sorted(found)
                logger.log(
                    level, "%d nodes (%s), such as %s: %s", len(nodes), listed_names(nodes), first, message
                )
                continue
            for node, message in found:
                logger.log(level, "%s: %s", node, message)


@contextlib.contextmanager
def taking_notes(
    reworded: Callable[[str], str], errors: tuple[type[Exception], ...] = (UserError,)
) -> Iterator[tuple[list[tuple[int, str]], list[Exception]]]:
    """Collect what is logged inside the `with`, as level and line, and the error that ends it.

    reworded: what a line becomes. A worker has no log of its own. The threads of one take turns, so that each
    line is of the right node. An error that is none of `errors` is a mistake of ours, which must not end what
    is done for all other nodes: it becomes one line, too.
    """
    notes: list[tuple[int, str]] = []
    faults: list[Exception] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append((record.levelno, reworded(record.getMessage())))

    root = logging.getLogger()
    with _TURN:
        handlers, level = root.handlers, root.level
        root.handlers = [Notes()]
        root.setLevel(logging.INFO)
        try:
            yield notes, faults
        except errors as error:
            faults.append(error)
        except Exception as error:
            faults.append(UserError(f"it cannot be read or learnt ({error!r}); report this line"))
        finally:
            root.handlers = handlers
            root.setLevel(level)
