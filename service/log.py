"""The log: the journal's severities, and one line when a fault begins and one when it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping

logger = logging.getLogger(__name__)

# syslog's severities, which the journal reads from the beginning of a line.
_JOURNAL_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether standard error is the journal. A shell may inherit the variable although it is not."""
    found = os.fstat(sys.stderr.fileno())
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines for the journal, which adds the time itself; `journalctl -p warning` shows state changes."""

    def format(self, record: logging.LogRecord) -> str:
        """The message behind its severity, such as `<4>`."""
        return f"<{_JOURNAL_LEVELS[record.levelname]}>{record.levelname} {record.getMessage()}"


class AboutNode(logging.Filter):
    """Puts the name of the node that is being worked on before each message.

    about = AboutNode()
    logging.getLogger("find_anomalies").addFilter(about)
    with about.node("edge-7"):
        ...    # logs "edge-7: new records arrive again"
    """

    def __init__(self) -> None:
        super().__init__()
        self._name = ""

    @contextlib.contextmanager
    def node(self, name: str) -> Iterator[None]:
        """What is logged meanwhile is about this node; no name is put before it if that is empty."""
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._name = before

    def filter(self, record: logging.LogRecord) -> bool:
        """Name the node in a record."""
        if self._name:
            record.msg, record.args = f"{self._name}: {record.getMessage()}", None
        return True


ABOUT_NODE = AboutNode()
# Filters of a logger see only what is logged with that very logger.
for _name in ("find_anomalies", __name__):
    logging.getLogger(_name).addFilter(ABOUT_NODE)


class Notices:
    """Logs a fault once when it begins or changes, and once when it has ended.

    log: called with topic, level and message instead of logging at once.
    """

    def __init__(self, log: Callable[[str, int, str], None] | None = None) -> None:
        self._log = log or (lambda topic, level, message: logger.log(level, "%s", message))
        self._logged: dict[str, Hashable] = {}

    def fault(self, topic: str, message: str, level: int = logging.ERROR, subject: Hashable = None) -> None:
        """Log the topic's fault, unless its `subject` (by default the message) is the same as last time."""
        subject = message if subject is None else subject
        if self._logged.get(topic) != subject:
            self._log(topic, level, message)
        self._logged[topic] = subject

    def tell(self, topic: str, message: str, level: int = logging.WARNING) -> None:
        """Log what happens once, and is no fault."""
        self._log(topic, level, message)

    def has(self, topic: str) -> bool:
        """Whether the topic has a fault."""
        return topic in self._logged

    def mended(self, topic: str, message: str) -> None:
        """Log that the topic's fault has ended, if it had one."""
        if self._logged.pop(topic, None) is not None:
            self._log(f"{topic} mended", logging.WARNING, message)
