"""The only module that talks to Prometheus, or to VictoriaMetrics, which answers in the same way.

Times are integer nanoseconds since 1970, UTC; both servers keep milliseconds.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from common.files import UserError
from common.web import ANSWER_TOO_LARGE, WebConnection, WebError

# A hung server must not block a poll for ever. The next poll is the retry.
PROMETHEUS_SECONDS = 4.0
# A normal answer has some kilobytes.
LARGEST_ANSWER_BYTES = 16 << 20
_MS = 10**6
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9A-Fa-f:.]+(%\w+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?Inf|NaN", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the servers say if a query is beyond their own limits.
_TOO_MUCH = re.compile(r"too many samples|exceeds|-search\.max")
_BAD_URL = "--prometheus_url must be like http://HOST:9090 or https://HOST/PATH, without anything else"

# The values that each label of a series may have; an empty one means that it must be absent.
Matchers = tuple[tuple[str, tuple[str, ...]], ...]


class PrometheusError(Exception):
    """Prometheus is away, hangs, restarts or refuses.

    kind: unreachable, timeout, tls, credentials, rights or error. The message is the reason,
    and for a timeout the limit.
    """

    def __init__(self, kind: str, reason: str = "") -> None:
        super().__init__(re.sub(r"\s+", " ", reason).strip()[:200])
        self.kind = kind

    @property
    def label(self) -> str:
        """One word for a label: unreachable, timeout, credentials, rights or error."""
        return "unreachable" if self.kind == "tls" else self.kind


class TooMuchError(PrometheusError):
    """An answer would be larger than is read, or than the server allows."""


class Prometheus:
    """A client with a time limit that talks to the server directly, without any proxy.

        client = Prometheus("http://localhost:9090")
        client.query('up{job="node"}[1m]', time.time_ns())    # [{"metric": {...}, "values": [...]}]

    user, password: for basic authentication. ca_file: with https, the authority (PEM) that has signed the
    server's certificate, by default a public one. Nothing is sent yet. Raises UserError for a URL that cannot
    be used, without showing it: it may hold a password.
    """

    def __init__(
        self,
        url: str,
        user: str = "",
        password: str = "",
        ca_file: str | None = None,
        timeout_seconds: float = PROMETHEUS_SECONDS,
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UserError(_BAD_URL) from None
        if parts.username is not None or parts.password is not None:
            raise UserError(
                "--prometheus_url must not hold a user or password; give --prometheus_user, and set"
                " FIND_ANOMALIES_PROMETHEUS_PASS"
            )
        is_whole = parts.scheme in ("http", "https") and not parts.query and not parts.fragment
        if not is_whole or not _HOST.fullmatch(parts.hostname or "") or not _is_path(parts.path):
            raise UserError(_BAD_URL)
        self._path = parts.path.rstrip("/")
        # As messages name it.
        self.url = f"{parts.scheme}://{parts.netloc}{self._path}"
        is_encrypted = parts.scheme == "https"
        self._connection = WebConnection(parts.hostname, port, is_encrypted, ca_file, timeout_seconds)
        self._headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if user or password:
            secret = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {secret}"

    def close(self) -> None:
        """End the connection; the next query makes a new one."""
        self._connection.close()

    def query(self, expression: str, time: int, most_bytes: int = LARGEST_ANSWER_BYTES) -> list[Any]:
        """The result of a query at a time (ns): series for a range selector, else a vector.

        Raises PrometheusError; TooMuchError if the answer has more than `most_bytes`.
        """
        # VictoriaMetrics would else leave out the newest 30 s of some answers.
        settings = {"nocache": "1", "latency_offset": "1ms"}
        settings |= {"query": expression, "time": seconds_text(time)}
        return self._result("query", settings, most_bytes)

    def query_range(self, expression: str, start: int, end: int, step_seconds: int) -> list[Any]:
        """The series of a query from `start` to `end` (ns), with a value each `step_seconds`. As `query`."""
        settings = {"nocache": "1", "latency_offset": "1ms", "step": str(step_seconds)}
        settings |= {"query": expression, "start": seconds_text(start), "end": seconds_text(end)}
        return self._result("query_range", settings, LARGEST_ANSWER_BYTES)

    def series(self, chosen: str, start: int, end: int) -> list[dict[str, str]]:
        """The labels of the series that a selector picks, with a sample between two times (ns) or so."""
        settings = {"match[]": chosen, "start": seconds_text(start), "end": seconds_text(end)}
        data = self._data("series", urlencode(settings).encode())
        try:
            return [{label: _text(value) for label, value in labels.items()} for labels in data]
        except (AttributeError, TypeError):
            raise _not_prometheus() from None

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series that a selector picks, sorted."""
        data = self._data(f"label/{quote(label, safe='')}/values?{urlencode({'match[]': selector})}")
        if not isinstance(data, list) or not all(isinstance(value, str) for value in data):
            raise _not_prometheus()
        return sorted(data)

    def _result(self, path: str, settings: Mapping[str, str], most_bytes: int) -> list[Any]:
        data = self._data(path, urlencode(settings).encode(), most_bytes)
        result = data.get("result") if isinstance(data, dict) else None
        if not isinstance(result, list):
            raise _not_prometheus()
        return result

    def _data(self, path: str, body: bytes | None = None, most_bytes: int = LARGEST_ANSWER_BYTES) -> Any:
        """The checked `data` of an answer. Without a body, the request is a GET."""
        status, content = self._request(path, body, most_bytes)
        if status in (401, 403):
            raise PrometheusError({401: "credentials", 403: "rights"}[status])
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or answer.get("status") not in ("success", "error"):
            raise _not_prometheus() if status == 200 else PrometheusError("error", f"HTTP status {status}")
        if status != 200 or answer["status"] != "success":
            reason = f"{answer.get('error')}"
            raise (TooMuchError if _TOO_MUCH.search(reason) else PrometheusError)("error", reason)
        if answer.get("isPartial"):
            raise PrometheusError("error", "the answer is not complete, since parts of the cluster are away")
        return answer.get("data")

    def _request(self, path: str, body: bytes | None, most_bytes: int) -> tuple[int, bytes]:
        """Status and content of an answer that is read within the time limit."""
        method, target = "GET" if body is None else "POST", f"{self._path}/api/v1/{path}"
        try:
            answer = self._connection.ask(method, target, body, self._headers, most_bytes)
        except WebError as error:
            if error.kind == ANSWER_TOO_LARGE:
                raise TooMuchError("error", f"{error}") from None
            # Of a certificate, the words that say what is wrong with it.
            reason = getattr(error.__cause__, "verify_message", "") or f"{error}"
            raise PrometheusError(error.kind, reason) from None
        return answer.status, answer.content


def _is_path(path: str) -> bool:
    return re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", path) is not None


def _not_prometheus() -> PrometheusError:
    return PrometheusError("error", "not an answer of Prometheus")


def describe_prometheus_error(error: PrometheusError, url: str) -> str:
    """One line for the user: what went wrong with Prometheus at `url`, and what to do."""
    lines = {
        "timeout": f"did not answer within {error}; check the server",
        "tls": f"did not prove its identity by TLS ({error}); check --prometheus_url and --prometheus_ca",
        "unreachable": "cannot be reached; check --prometheus_url and that it runs",
        "credentials": "refused the credentials; check --prometheus_user and --prometheus_pass",
        "rights": "does not let this user read; check --prometheus_user",
    }
    line = lines.get(error.kind, f"answered with an error ({error}); check --prometheus_url and its log")
    return f"Prometheus at {url} {line}"


def seconds_text(time: int) -> str:
    """A time (ns) as the servers take it: seconds with three decimals."""
    return f"{time // _MS // 1000}.{time // _MS % 1000:03}"


def range_text(nanoseconds: int) -> str:
    """A length of time in a range selector."""
    return f"[{nanoseconds // _MS}ms]"


def selector(names: Sequence[str], matchers: Iterable[tuple[str, Sequence[str]]] = ()) -> str:
    """The selector of the series with one of these names, and for each label one of its values."""
    conditions = [_condition(label, values) for label, values in (("__name__", names), *matchers)]
    return f"{{{','.join(conditions)}}}"


def _condition(label: str, values: Sequence[str]) -> str:
    if len(values) == 1:
        return f"{label}={_quoted(values[0])}"
    return f"{label}=~{_quoted('|'.join(map(re.escape, values)))}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def is_label(name: str) -> bool:
    """Whether a query can name this label."""
    return _LABEL.fullmatch(name) is not None


def rows_of(result: Sequence[Any]) -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
    """The series of a result: labels, and times (ns) with values. Values that are NaN are left out.

    A series of native histograms alone has no rows: they are no numbers.
    Raises PrometheusError for anything that neither server answers.
    """
    found = []
    try:
        for series in result:
            labels = {str(label): _text(value) for label, value in series["metric"].items()}
            pairs = series["values"] if "values" in series else [series["value"]] if "value" in series else []
            rows = [(round(_time(time) * 1000) * _MS, _value(text)) for time, text in pairs]
            found.append((labels, [(time, value) for time, value in rows if value == value]))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise _not_prometheus() from None
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a label that is no text")
    return value


def _time(time: Any) -> float:
    if isinstance(time, bool) or not isinstance(time, (int, float)):
        raise TypeError("a time that is no number")
    return time


def _value(text: Any) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("a value that is no number")
    return float(text)
