"""The log: the journal's severities, and each fault in one line when it begins and one when it ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Hashable, Mapping

logger = logging.getLogger(__name__)

# syslog's severities, which the journal reads from the beginning of a line.
_JOURNAL_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether standard error is the journal: a shell in a session of systemd inherits the variable alone."""
    found = os.fstat(sys.stderr.fileno())
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines for the journal, which has its own clock: `journalctl -p warning` then shows state changes."""

    def format(self, record: logging.LogRecord) -> str:
        """`<4>` and the message."""
        return f"<{_JOURNAL_LEVELS[record.levelname]}>{record.levelname} {record.getMessage()}"


class Notices:
    """Says a fault once when it begins or changes, and once when it has ended."""

    def __init__(self) -> None:
        self._said: dict[str, Hashable] = {}

    def fault(self, topic: str, message: str, level: int = logging.ERROR, subject: Hashable = None) -> None:
        """The fault of this topic at the moment: the same one as long as `subject`, or the message, is."""
        subject = message if subject is None else subject
        if self._said.get(topic) != subject:
            logger.log(level, "%s", message)
        self._said[topic] = subject

    def has(self, topic: str) -> bool:
        """Whether there is a fault of this topic."""
        return topic in self._said

    def mended(self, topic: str, message: str) -> None:
        """There is no fault of this topic at the moment."""
        if self._said.pop(topic, None) is not None:
            logger.warning("%s", message)
