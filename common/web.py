"""One connection to one HTTP server, with a limit for the time and for the size of each answer.

It speaks as much of HTTP/1.1 (RFC 9112) as databases do. Python's `http.client` would take 2 MB, and 0.15 ms
of CPU for each request: it reads headers as those of e-mail, and loads TLS whether it is used or not.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

UNREACHABLE, TIMEOUT, TLS, ANSWER_TOO_LARGE = "unreachable", "timeout", "tls", "too large"
_PART_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 16
_MOST_HEADERS = 100
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)( .*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?")
_LENGTH = re.compile(r"\d{1,15}", re.ASCII)
_NO_CONTENT = (204, 304)


class WebError(Exception):
    """There is no whole answer. The message is the reason.

    kind: UNREACHABLE, also if what answers is no HTTP server, or ends in the middle of its answer; TIMEOUT;
    TLS, if the server does not prove its identity; ANSWER_TOO_LARGE. The cause is the error of the standard
    library.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class WebAnswer(NamedTuple):
    """An answer, whatever its status; the names of headers are in small letters."""

    status: int
    content: bytes
    headers: Mapping[str, str]


class WebConnection:
    """Talks to a server directly: no proxy, no redirection, no password from elsewhere.

        server = WebConnection("localhost", 9090)
        server.ask("GET", "/-/ready").status    # 200

    host: a name or an address, of IPv6 with or without brackets. port: by default that of the protocol.
    is_encrypted: use TLS, and only with a server whose certificate is signed by an authority in `ca_file`
    (PEM), without it by one that this machine trusts. timeout_seconds: for connecting, and for a whole
    answer. Nothing is sent yet. The connection is kept for the next request.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        is_encrypted: bool = False,
        ca_file: str | None = None,
        timeout_seconds: float = 4.0,
    ) -> None:
        self._socket: socket.socket | None = None
        self._context: Any = None
        self._tls_errors: tuple[type[Exception], ...] = ()
        self.timeout_seconds = timeout_seconds
        host = host.removeprefix("[").removesuffix("]")
        self._address = host, port or (443 if is_encrypted else 80)
        named = f"[{host}]" if ":" in host else host
        self._host = f"{named}:{port}" if port else named
        if is_encrypted:
            # Most servers of an edge are on the same machine, and need none of its 2 MB.
            import ssl

            self._context = ssl.create_default_context(cafile=ca_file)
            self._tls_errors = (ssl.SSLError,)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most_bytes: int = 16 << 20,
    ) -> WebAnswer:
        """The answer to a request. Raises WebError.

        target: path and query, encoded. A request is sent again only if a kept connection ends without a
        word: servers end one that was not used for a while. One that has timed out is not.
        """
        lines = {"Host": self._host, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        if self._socket is not None and _has_something_to_read(self._socket):
            # It is the end of the connection, or nobody's answer.
            self.close()
        try:
            if self._socket is not None:
                with contextlib.suppress(_NoWordError):
                    return self._exchange(request, most_bytes)
            return self._exchange(request, most_bytes)
        except TimeoutError as error:
            raise WebError(TIMEOUT, f"{self.timeout_seconds:g} s") from error
        except self._tls_errors as error:
            raise WebError(TLS, f"{error}") from error
        # A host name that cannot be encoded raises UnicodeError.
        except (OSError, UnicodeError) as error:
            raise WebError(UNREACHABLE, f"{error}") from error

    def _exchange(self, request: bytes, most_bytes: int) -> WebAnswer:
        connection, self._socket = self._socket or self._connect(), None
        is_to_keep = False
        try:
            reader = _Reader(connection, monotonic() + self.timeout_seconds)
            connection.settimeout(self.timeout_seconds)
            # A server may refuse a request, and end the connection, before it has read all.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            try:
                reader.grow()
            except ConnectionError as error:
                raise _NoWordError(f"{error}") from error
            answer, is_to_keep = _read_answer(reader, most_bytes)
            return answer
        finally:
            # A connection with unread data cannot be used for the next request.
            if is_to_keep:
                self._socket = connection
            else:
                connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, self.timeout_seconds)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is None:
                return connection
            return self._context.wrap_socket(connection, server_hostname=self._address[0])
        except BaseException:
            connection.close()
            raise


class _NoWordError(ConnectionError):
    """A connection has ended before any answer."""


class _EndedError(ConnectionError):
    """The server has ended the connection in order."""


class _Reader:
    """Reads what a socket receives, however slowly, until the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connection, deadline
        self._unread = bytearray()

    @property
    def is_empty(self) -> bool:
        return not self._unread

    def grow(self) -> None:
        """Receive more. Raises TimeoutError; _EndedError if nothing more comes."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        if not (part := self._socket.recv(_PART_BYTES)):
            raise _EndedError("the server ended the connection")
        self._unread += part

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > _MOST_LINE_BYTES:
                raise _not_http()
            self.grow()
        return bytes(self._taken(end + 1)).removesuffix(b"\n").removesuffix(b"\r")

    def take(self, count: int) -> bytearray:
        """The next bytes."""
        while len(self._unread) < count:
            self.grow()
        return self._taken(count)

    def rest(self, most_bytes: int) -> bytearray:
        """All that comes until the server ends the connection."""
        with contextlib.suppress(_EndedError):
            while len(self._unread) <= most_bytes:
                self.grow()
        return self._taken(len(self._unread))

    def _taken(self, count: int) -> bytearray:
        taken = self._unread[:count]
        del self._unread[:count]
        return taken


def _read_answer(reader: _Reader, most_bytes: int) -> tuple[WebAnswer, bool]:
    """An answer, and whether its connection can be used again."""
    status = 100
    # The server may say first that it goes on.
    while status < 200:
        if not (found := _STATUS.fullmatch(reader.line())):
            raise _not_http()
        status, is_1_0 = int(found[2]), found[1] == b"0"
        headers = _read_headers(reader)
    is_to_keep = not is_1_0 and "close" not in headers.get("connection", "").lower()
    if status in _NO_CONTENT:
        content = bytearray()
    elif "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise _not_http()
        content = _read_chunks(reader, most_bytes)
    elif "content-length" in headers:
        if not _LENGTH.fullmatch(headers["content-length"]):
            raise _not_http()
        count = int(headers["content-length"])
        _check_size(count, most_bytes)
        content = reader.take(count)
    else:
        content, is_to_keep = reader.rest(most_bytes), False
        _check_size(len(content), most_bytes)
    return WebAnswer(status, bytes(content), headers), is_to_keep and reader.is_empty


def _read_headers(reader: _Reader) -> dict[str, str]:
    headers = {}
    for _ in range(_MOST_HEADERS):
        if not (line := reader.line()):
            return headers
        if not (found := _HEADER.fullmatch(line)):
            break
        headers[found[1].decode().lower()] = found[2].decode("latin-1")
    raise _not_http()


def _read_chunks(reader: _Reader, most_bytes: int) -> bytearray:
    content = bytearray()
    while True:
        if not (found := _CHUNK.fullmatch(reader.line())):
            raise _not_http()
        if not (count := int(found[1], 16)):
            break
        _check_size(len(content) + count, most_bytes)
        content += reader.take(count)
        if reader.line():
            raise _not_http()
    _read_headers(reader)
    return content


def _check_size(count: int, most_bytes: int) -> None:
    if count > most_bytes:
        raise WebError(ANSWER_TOO_LARGE, f"more than {most_bytes >> 10} KB")


def _not_http() -> OSError:
    return OSError("not an answer of an HTTP server")


def _has_something_to_read(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
