"""A client of InfluxDB: what it sends, and the errors that it raises."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from common.web import ANSWER_TOO_LARGE, WebAnswer, WebConnection, WebError

# A normal answer has some kilobytes; an hour of samples taken each second has some megabytes.
MAX_ANSWER_BYTES = 16 << 20
# Each answer of 1.x and 2 says which version it is in this header, those of 3 do not.
VERSION_HEADER = "x-influxdb-version"
NOT_INFLUXDB = "not an answer of InfluxDB"
_FORM = "application/x-www-form-urlencoded"
# What ends or changes a value in a form. 1.x takes all else as it is, and to look at each letter of a long
# statement takes 0.2 ms.
_ESCAPED = (("%", "%25"), ("&", "%26"), ("+", "%2B"), (";", "%3B"), ("=", "%3D"), (" ", "+"))


# What is escaped in the value of a tag.
_IN_TAGS = str.maketrans({"\\": "\\\\", " ": "\\ ", ",": "\\,", "=": "\\=", "\n": "\\n"})


class InfluxClientError(Exception):
    """InfluxDB refuses a request, or a statement of one.

    content: the words of the server. code: the HTTP status; None if it refuses a statement.
    """

    def __init__(self, content: str, code: int | None = None) -> None:
        super().__init__(content if code is None else f"{code}: {content}")
        self.content, self.code = content, code


class InfluxServerError(Exception):
    """InfluxDB has a fault of its own, or what answers is not InfluxDB."""


class AnswerTooLargeError(InfluxServerError):
    """An answer has more than MAX_ANSWER_BYTES: too much was asked for, or somebody wrote too much."""


class InfluxClient:
    """Asks one server, and writes to it; made by influx_utils.initializeConnection().

        with initializeConnection("localhost", 8086, "edge", "secret") as client:
            client.switch_database("metrics_db")
            client.query("SELECT last(value) FROM up")    # {"results": [{"statement_id": 0, "series": ...}]}

    Each request raises WebError, InfluxClientError or InfluxServerError, and is sent once. database: of all
    requests; None before one is selected. server_version: what the server says it is, as "1.6.7"; None if it
    has not yet. takes_one_statement, reads_in_pieces: what the server has been found to need.
    """

    def __init__(self, connection: WebConnection, user: str, password: str) -> None:
        self._connection = connection
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Accept": "application/json", "Authorization": f"Basic {secret}"}
        self.database: str | None = None
        self.server_version: str | None = None
        self.takes_one_statement = self.reads_in_pieces = False

    def __enter__(self) -> InfluxClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        self._connection.close()

    def switch_database(self, db_name: str) -> None:
        """Select the database of all further requests."""
        self.database = db_name

    def query(self, statements: str, is_form: bool = False) -> Any:
        """The answer to InfluxQL statements, with times in ns; None if it is empty.

        is_form: send them as the content of the request, not in its address. Only 1.x takes that.
        """
        settings = {"db": self.database, "epoch": "ns"}
        if not is_form:
            return _decoded(self._request("GET", "query", {**settings, "q": statements}))
        for character, escaped in _ESCAPED:
            statements = statements.replace(character, escaped)
        return _decoded(self._request("POST", "query", settings, f"q={statements}".encode(), _FORM))

    def create_database(self, db_name: str) -> None:
        """Create a database; it may be there already. Raises InfluxClientError without code for a refusal."""
        settings = {"q": f"CREATE DATABASE {identifier(db_name)}", "db": self.database}
        for result in _decoded(self._request("POST", "query", settings, b"")).get("results", []):
            if "error" in result:
                raise InfluxClientError(result["error"])

    def write(self, points: Sequence[dict[str, Any]], db_name: str | None = None) -> None:
        """Write points into a database, by default the selected one.

        A point is a dict of `measurement`, `time` (ns), `tags` and `fields`.
        """
        # It imports requests, and pandas where that is installed: most processes never write.
        from influxdb.line_protocol import make_lines

        self.write_lines(make_lines({"points": points}).encode(), db_name)

    def write_lines(self, lines: bytes, db_name: str | None = None) -> None:
        """As `write`, of points as lines of InfluxDB's protocol."""
        # Times are ns where no precision is named; 3 does not know its name of 1.x.
        settings = {"db": db_name or self.database}
        self._request("POST", "write", settings, lines, "application/octet-stream", 204)

    def _request(
        self,
        method: str,
        path: str,
        settings: Mapping[str, str | None],
        body: bytes | None = None,
        content_type: str | None = None,
        expected_status: int = 200,
    ) -> WebAnswer:
        headers = self._headers if content_type is None else {**self._headers, "Content-Type": content_type}
        encoded = urlencode({name: value for name, value in settings.items() if value is not None})
        try:
            answer = self._connection.ask(method, f"/{path}?{encoded}", body, headers, MAX_ANSWER_BYTES)
        except WebError as error:
            if error.kind == ANSWER_TOO_LARGE:
                raise AnswerTooLargeError(f"more than {MAX_ANSWER_BYTES >> 20} MB") from None
            raise
        self.server_version = answer.headers.get(VERSION_HEADER, self.server_version)
        if answer.status >= 500:
            raise InfluxServerError(_text(answer))
        if answer.status != expected_status:
            raise InfluxClientError(_text(answer), answer.status)
        return answer


def line_start(measurement: str, tags: Mapping[str, str]) -> str:
    """What a line of InfluxDB's protocol begins with, before its fields, with tags as `write` sends them.

    measurement: of letters and `_` alone. No tag ends in a backslash then: InfluxDB refuses those.
    """
    pairs = ((tag, tags[tag].rstrip("\\")) for tag in sorted(tags))
    return measurement + "".join(f",{tag}={value.translate(_IN_TAGS)}" for tag, value in pairs if value)


def identifier(name: str) -> str:
    """The name of a database, measurement, field or tag, quoted for InfluxQL."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _decoded(answer: WebAnswer) -> Any:
    if not answer.content:
        return None
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        raise InfluxServerError(NOT_INFLUXDB) from None


def _text(answer: WebAnswer) -> str:
    return answer.content.decode(errors="replace")
