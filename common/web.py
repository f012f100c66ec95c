"""One connection to one HTTP server, with a limit for the time and for the size of each answer."""

from __future__ import annotations

import functools
import http.client
import io
import select
import socket
import ssl
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

UNREACHABLE, TIMEOUT, TLS, ANSWER_TOO_LARGE = "unreachable", "timeout", "tls", "too large"


class WebError(Exception):
    """There is no whole answer. The message is the reason.

    kind: UNREACHABLE, also for a server that ends in the middle of its answer; TIMEOUT; TLS, if the server
    does not prove its identity; ANSWER_TOO_LARGE. The cause is the error of the standard library.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class WebAnswer(NamedTuple):
    """Status, content and headers of an answer, whatever its status."""

    status: int
    content: bytes
    headers: Mapping[str, str]


class WebConnection:
    """Talks to a server directly: no proxy, no redirection, no password from elsewhere.

        server = WebConnection("localhost", 9090)
        server.ask("GET", "/-/ready").status    # 200

    is_encrypted: use TLS, and only with a server whose certificate is signed by an authority in `ca_file`
    (PEM), or by one that this machine trusts without it. timeout_seconds: for connecting, and for a whole
    answer. Nothing is sent yet. The connection is kept for the next request.
    """

    def __init__(
        self,
        host: str,
        port: int | None,
        is_encrypted: bool = False,
        ca_file: str | None = None,
        timeout_seconds: float = 4.0,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        if is_encrypted:
            context = ssl.create_default_context(cafile=ca_file)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout_seconds, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
        weakref.finalize(self, self._connection.close)

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        self._connection.close()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most_bytes: int = 16 << 20,
    ) -> WebAnswer:
        """The answer to a request. Raises WebError.

        A request that the server may have read is sent again only if it has closed a kept connection without
        a word: servers do so with one that was not used for a while.
        """
        if self._connection.sock is not None and _has_something_to_read(self._connection.sock):
            # It is the end of the connection, or the rest of nobody's answer.
            self.close()
        is_kept = self._connection.sock is not None
        try:
            try:
                response = self._response(method, target, body, headers)
            except ConnectionError:
                if not is_kept:
                    raise
                self.close()
                response = self._response(method, target, body, headers)
            return self._read(response, most_bytes)
        except TimeoutError as error:
            raise WebError(TIMEOUT, f"{self.timeout_seconds:g} s") from error
        except ssl.SSLError as error:
            raise WebError(TLS, f"{error}") from error
        # A host name that cannot be encoded raises UnicodeError.
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise WebError(UNREACHABLE, f"{error}") from error

    def _response(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> http.client.HTTPResponse:
        """The response when its headers are there."""
        connection = self._connection
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(self.timeout_seconds)
            connection.response_class = functools.partial(
                _TimedResponse, deadline=monotonic() + self.timeout_seconds
            )
            connection.request(method, target, body, headers or {})
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _read(self, response: http.client.HTTPResponse, most_bytes: int) -> WebAnswer:
        is_done = False
        try:
            content = response.read(most_bytes + 1)
            if len(content) > most_bytes:
                raise WebError(ANSWER_TOO_LARGE, f"more than {most_bytes >> 10} KB")
            if response.length:
                raise http.client.IncompleteRead(content, response.length)
            is_done = True
        finally:
            response.close()
            # A connection with unread data cannot be used for the next request.
            if not is_done:
                self.close()
        return WebAnswer(response.status, content, response.headers)


class _TimedResponse(http.client.HTTPResponse):
    """A response that has to be there, with its headers, until the deadline."""

    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, deadline))


class _TimedReader(io.RawIOBase):
    """Reads what a socket has received, without waiting for more than the deadline allows.

    The limit of a socket is one of each read: a server may send a byte now and then.
    """

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._stream, self._socket, self._deadline = stream, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _has_something_to_read(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
