"""InfluxDB 2 or 3 in front of a real InfluxDB 1.x: what differs is answered as it is written down.

Where it is written down: InfluxDB's documentation of the 1.x interface of 2 and of the v1 query and write API
of 3 Core; the public source of their handlers; and answers of 2.9.1 and 3.12.0 Core that an open-source
client of InfluxDB (libredb-studio) keeps among its tests. 1.x does the rest, so nothing here shows what these
servers do with a statement that they accept.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOKEN = "apiv3_token"
# 3 Core reads 432 files, by default one for each 10 minutes.
FILE_LIMIT_SECONDS = 432 * 600
FILE_LIMIT = (
    "datafusion error: External error: Query would scan 4320 Parquet files, exceeding the file limit."
    " InfluxDB 3 Core caps file access to prevent performance degradation and memory issues. Use a narrower"
    " time range, or increase the limit with --query-file-limit (this may cause slower queries)."
)
SINGLE_STATEMENT = "must provide only one InfluxQl statement per query"
LONGEST_TARGET = 65_534
_UNITS = {"s": 10**9, "": 1}


@dataclass(frozen=True)
class Behaviour:
    """What differs. version: 2 or 3. lists: the columns of SHOW DATABASES; without any it is refused.
    takes_many: whether several statements may be in a request; a 3 that takes one answers nothing at all if
    there are no rows.
    """

    version: int
    lists: tuple[str, ...] = ("name",)
    takes_many: bool = True


INFLUXDB_2 = Behaviour(2)
INFLUXDB_3 = Behaviour(3)
# As before its first release, when it took one statement a request.
FIRST_INFLUXDB_3 = Behaviour(3, ("iox::database", "deleted"), takes_many=False)


class LaterInflux:
    """Answers at `port` as `behaviour` says, and passes on the rest to InfluxDB 1.x at `onward_port`.

    databases: those that there are.
    """

    def __init__(self, onward_port: int, behaviour: Behaviour, *databases: str) -> None:
        self.behaviour = behaviour
        self.databases = set(databases)
        # What was asked, in order: a statement, or `write`.
        self.asked: list[list[str]] = []
        self._onward_port = onward_port
        later = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and content go out together.
            wbufsize = -1

            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def _serve(self, body: bytes) -> None:
                status, answer = later._answer(self.command, self.path, dict(self.headers), body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if behaviour.version == 2:
                    self.send_header("X-Influxdb-Version", "v2.7.11")
                    self.send_header("X-Influxdb-Build", "OSS")
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- answers ---------------------------------------------------------------------------------

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        target = urlsplit(path)
        params = {name: texts[-1] for name, texts in parse_qs(target.query).items()}
        if not _has_token(headers):
            if self.behaviour.version == 2:
                return 401, {"code": "unauthorized", "message": "unauthorized access"}
            return 401, {"error": "the request was not authenticated"}
        if target.path == "/write":
            self.asked.append(["write"])
            return self._write(params, body)
        if len(path) > LONGEST_TARGET:
            return 414, b""
        return self._query(method, params, headers)

    def _query(self, method: str, params: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        is_3 = self.behaviour.version == 3
        statements = params["q"].split(";")
        self.asked.append(statements)
        if is_3 and method == "POST":
            return 400, {"error": "invalid mime type: application/json"}
        if is_3 and headers.get("Accept") != "application/json":
            return 400, {"error": f"invalid mime type ({headers.get('Accept')})"}
        if is_3 and len(statements) > 1 and not self.behaviour.takes_many:
            return 400, {"error": SINGLE_STATEMENT}
        if (own := self._own_answer(statements[0], params.get("db"))) is not None:
            return 200, {"results": [{"statement_id": 0, **own}]}
        if is_3:
            late = [place for place, one in enumerate(statements) if _seconds(one) > FILE_LIMIT_SECONDS]
            if late:
                return 200, {"results": [{"statement_id": late[0], "error": FILE_LIMIT}]}
        status, content = self._onward("GET", "/query", params, b"", {"Accept": "application/json"})
        if is_3 and not self.behaviour.takes_many and b'"series"' not in content and b"error" not in content:
            return 200, b""
        return status, content

    def _own_answer(self, statement: str, database: str | None) -> dict[str, Any] | None:
        """What is answered without InfluxDB 1.x."""
        is_3 = self.behaviour.version == 3
        if statement.startswith("CREATE DATABASE"):
            words = "This feature is not implemented" if is_3 else "not implemented"
            return {"error": f"{words}: CREATE DATABASE"}
        if statement == "SHOW DATABASES":
            if not self.behaviour.lists:
                return {
                    "error": "must specify a 'db' parameter, or provide the database in the InfluxQL query"
                }
            rest = [False] * (len(self.behaviour.lists) - 1)
            rows = [[name, *rest] for name in sorted(self.databases)]
            return {"series": [{"name": "databases", "columns": list(self.behaviour.lists), "values": rows}]}
        if database not in self.databases:
            before = "Cannot retrieve database: External error: " if is_3 else ""
            return {"error": f"{before}database not found: {database}"}
        return None

    def _write(self, params: dict[str, str], body: bytes) -> tuple[int, Any]:
        if self.behaviour.version == 2 and params["db"] not in self.databases:
            return 404, {"code": "not found", "message": "no dbrp mapping found"}
        if self.behaviour.version == 3:
            if params.get("precision", "ns") not in ("ns", "us", "ms", "s"):
                return 400, {"error": "failed to deserialize db/rp/precision in request: unknown variant"}
            self._onward("POST", "/query", {"q": f'CREATE DATABASE "{params["db"]}"'}, b"", {})
            self.databases.add(params["db"])
        status, content = self._onward("POST", "/write", params, body, {})
        if status != 400:
            return status, content
        words = json.loads(content)["error"]
        if self.behaviour.version == 2:
            if words.startswith("partial write"):
                message = f"failure writing points to database: {words}"
                return 422, {"code": "unprocessable entity", "message": message}
            return 400, {"code": "invalid", "message": words}
        lines = [{"original_line": "detected_anom", "line_number": 1, "error_message": words}]
        return 400, {"error": "partial write of line protocol occurred", "data": lines}

    def _onward(
        self, method: str, path: str, params: dict[str, str], body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._onward_port, timeout=30)) as onward:
            onward.request(method, f"{path}?{urlencode(params)}", body, headers)
            found = onward.getresponse()
            return found.status, found.read()


def _has_token(headers: dict[str, str]) -> bool:
    """Whether the password of the basic scheme is the token; the user may be anybody."""
    scheme, _, text = headers.get("Authorization", "").partition(" ")
    return scheme == "Basic" and base64.b64decode(text).decode().partition(":")[2] == TOKEN


def _seconds(statement: str) -> float:
    """How long a time a query concerns, in seconds; of what has no beginning, since 1970."""
    now = time.time_ns()
    begins = re.findall(r"time >=? (\d+)(s?)", statement)
    ends = re.findall(r"time <=? (\d+)(s?)", statement)
    if not statement.startswith("SELECT"):
        return 0.0
    begin = max((int(number) * _UNITS[unit] for number, unit in begins), default=0)
    end = min((int(number) * _UNITS[unit] for number, unit in ends), default=now)
    return max(end - begin, 0) / 1e9
