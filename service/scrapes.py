"""Answers scrapes over HTTP: few clients at a time, however many connect."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


class _ScrapeHandler(WSGIRequestHandler):
    """Answers one scrape; a client's mistakes are not logged."""

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def get_stderr(self) -> io.StringIO:
        """Where the traceback of an odd Accept header goes; the client is answered with 500."""
        return io.StringIO()


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """Serves a WSGI application to few clients at a time, however many connect.

    A connection is cut after SECONDS, or when it is the oldest of CONNECTIONS and another one comes. That
    bounds threads and file descriptors. Raises OSError if it cannot listen.
    """

    CONNECTIONS = 32
    SECONDS = 5.0
    daemon_threads = True
    request_queue_size = 4096

    def __init__(self, address: str, port: int, application: Callable[..., Iterable[bytes]]) -> None:
        self.address_family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        self._began: dict[socket.socket, float] = {}
        self._changed = threading.Condition()
        super().__init__((address, port), _ScrapeHandler)
        self.socket.setblocking(False)
        self.set_app(application)

    def start(self) -> None:
        """Serve from a thread of its own, as long as the process lives."""
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        """Called for a new connection; accepts all others that wait, too.

        If there are many, it serves the newest, and those that have already sent their request.
        """
        ready, waiting = [], deque([(request, client_address)])
        with contextlib.suppress(BlockingIOError):
            for _ in range(8 * self.CONNECTIONS):
                waiting.append(self.get_request())
                if len(waiting) > self.CONNECTIONS:
                    oldest = waiting.popleft()
                    if _has_sent(oldest[0]):
                        ready.append(oldest)
                    else:
                        oldest[0].close()
        for connection, address in (*ready, *waiting):
            self._make_room(connection)
            try:
                super().process_request(connection, address)
            except RuntimeError:
                # No thread can be started: the connection is closed, and its place is free again.
                self.shutdown_request(connection)

    def _make_room(self, connection: socket.socket) -> None:
        """Wait until this connection can be served; the oldest one is cut to make room."""
        with self._changed:
            while len(self._began) >= self.CONNECTIONS:
                _cut(next(iter(self._began)))
                self._changed.wait(1.0)
            self._began[connection] = time.monotonic()

    def shutdown_request(self, request: socket.socket) -> None:
        """Called at the end of each connection."""
        with self._changed:
            self._began.pop(request, None)
            self._changed.notify()
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second."""
        with self._changed:
            now = time.monotonic()
            for request, began in self._began.items():
                if now - began > self.SECONDS:
                    _cut(request)

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        """Log nothing about a connection that failed or was cut."""


def _has_sent(connection: socket.socket) -> bool:
    """Whether a whole request is there to read."""
    with contextlib.suppress(OSError):
        return b"\r\n\r\n" in connection.recv(8192, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False


def _cut(connection: socket.socket) -> None:
    # Its thread wakes up, finds the end of the request, and closes the connection.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
