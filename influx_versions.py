"""What InfluxDB 2 and 3 say otherwise than 1.x: their refusals, known by their words, and what helps.

They answer the requests of 1.x. 2 has buckets instead of databases; 3 Core reads few files at once.
"""

from __future__ import annotations

import json
import re

from influx_client import InfluxClientError, InfluxServerError

_CREATION = {
    1: "create it for Prometheus (CREATE DATABASE {0})",
    2: (
        "create a bucket and map the database to it (influx bucket create --name {0}; then, with the ID that"
        " it shows, influx v1 dbrp create --db {0} --rp autogen --default --bucket-id ID)"
    ),
    3: "create it (influxdb3 create database {0})",
}
# What precedes the words of 1.x in a refusal of 2 to write.
_WRITING = "failure writing points to database: "
_NO_DATABASE = ("database not found", "no dbrp mapping found")
_FILE_LIMIT = re.compile(r"exceed(ing the|ed) file limit")
_SINGLE_STATEMENT = re.compile(r"only one influxql statement", re.IGNORECASE)


class NoDatabaseError(InfluxClientError):
    """The database is not there. version: 1, 2 or 3; a database is created differently in each."""

    def __init__(self, words: str, version: int, database: str | None = None) -> None:
        super().__init__(words)
        self.version, self.database = version, database


class LongTimeError(InfluxClientError):
    """InfluxDB 3 Core refuses a query because it concerns too long a time.

    It reads 432 files at most, by default one for each 10 minutes: 72 hours.
    """


def told(error: InfluxClientError | InfluxServerError, header: str | None = None) -> Exception:
    """The same error as one of the classes above, if it is one of them. header: of the server's answers."""
    words = str(error)
    if _FILE_LIMIT.search(words):
        return LongTimeError(words)
    if is_no_database(words):
        return NoDatabaseError(words, version_of(words, header))
    return error


def is_no_database(words: str) -> bool:
    """Whether a refusal says that the database is not there."""
    return any(text in words for text in _NO_DATABASE)


def version_of(words: str, header: str | None = None) -> int:
    """1, 2 or 3: by the header of the server's answers, or by the words of a refusal."""
    if header and (found := re.match(r"v?([123])\.", header)):
        return int(found[1])
    if "This feature is not implemented" in words or re.search(r"(External|query) error: database", words):
        return 3
    return 2 if "dbrp" in words or "not implemented" in words else 1


def how_to_create(version: int, db_name: str) -> str:
    """How a person creates the database."""
    return _CREATION[version].format(db_name)


def wants_single_statements(error: Exception) -> bool:
    """Whether the server takes one statement a request."""
    return bool(_SINGLE_STATEMENT.search(str(error)))


def is_about_token(words: str) -> bool:
    """Whether these are the words of 2 or 3 for a token that is wrong, or has no right."""
    return any(
        text in words
        for text in ("unauthorized access", "not authenticated", "insufficient permissions", "is forbidden")
    )


def refused_points(content: str) -> tuple[str, int]:
    """Why a server refuses points, in the words of 1.x where 2 says the same; and how many, if 3 says it."""
    try:
        answer = json.loads(content)
        words = str(answer["error"] if "error" in answer else answer["message"])
        lines = answer.get("data") or []
        if lines:
            words = f"{words}: {lines[0]['error_message']}"
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        return content, 0
    return words.removeprefix(_WRITING), len(lines)
