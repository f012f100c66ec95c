"""Answers scrapes over HTTP: few clients at a time, whatever many others do."""

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
    """One scrape; what a client does wrong is no line in the log."""

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def get_stderr(self) -> io.StringIO:
        """Where the traceback of an odd Accept header goes; the client is answered with 500."""
        return io.StringIO()


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """Serves a WSGI application to few clients, whatever many others do.

    A connection is cut after SECONDS, or as the oldest of CONNECTIONS when another one comes: so many
    threads and file descriptors it takes at most. Raises OSError where it cannot listen.
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
        """Called for a new connection; takes all others that wait, too.

        Of many it serves the newest, and those that have sent their request already.
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
                # No thread can be started: neither this one nor its place is kept.
                self.shutdown_request(connection)

    def _make_room(self, connection: socket.socket) -> None:
        """Wait until this one may be served; the oldest is cut for it."""
        with self._changed:
            while len(self._began) >= self.CONNECTIONS:
                _cut(next(iter(self._began)))
                self._changed.wait(1.0)
            self._began[connection] = time.monotonic()

    def shutdown_request(self, request: socket.socket) -> None:
        """Called at the end of each."""
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
        """A connection that failed, or was cut, is nothing to log."""


def _has_sent(connection: socket.socket) -> bool:
    """Whether a whole request is there to read."""
    with contextlib.suppress(OSError):
        return b"\r\n\r\n" in connection.recv(8192, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False


def _cut(connection: socket.socket) -> None:
    # Its thread wakes up, finds an end, and closes it.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
