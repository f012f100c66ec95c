"""What many nodes have to say at once is one line."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nodes.names import listed_names

logger = logging.getLogger("find_anomalies")

# More nodes than this that have the same to say are one line.
SINGLE_LINES = 5


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

    def log(self) -> None:
        """Log what was gathered since the last time."""
        lines, self._lines = self._lines, {}
        for (_, level), found in lines.items():
            if len(found) > SINGLE_LINES:
                (first, message), *_ = sorted(found)
                names = listed_names(sorted({node for node, _ in found}))
                logger.log(level, "%d nodes (%s), such as %s: %s", len(found), names, first, message)
                continue
            for node, message in found:
                logger.log(level, "%s: %s", node, message)
