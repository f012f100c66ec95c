"""A real HTTP server between the program and InfluxDB, which passes on or does what it is told."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lab.influxd import free_port


class Proxy:
    """Passes on what comes to InfluxDB at `port`. status, content: the answer to all, if there is a status.

    lost: of so many writes the first is lost, of the others the answer is. hangs: "read" or "write", which is
    never answered.
    """

    def __init__(self, port: int, lost: int = 0, hangs: str | None = None) -> None:
        self.status: int | None = None
        self.content = b'{"error": "not today"}'
        self.delay_seconds = 0.0
        self.writes = 0
        self.is_hanging, self._is_closed = threading.Event(), threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = "write" if self.path.startswith("/write") else "read"
                proxy.writes += kind == "write"
                is_lost = kind == "write" and proxy.writes <= lost
                time.sleep(proxy.delay_seconds)
                if kind == hangs:
                    proxy.is_hanging.set()
                    proxy._is_closed.wait()
                self.close_connection = True
                if kind == hangs or is_lost and proxy.writes == 1:
                    return
                if proxy.status is not None:
                    self.answer(proxy.status, proxy.content, "application/json")
                    return
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as onward:
                    kept = {"Accept", "Authorization", "Content-Type"}
                    headers = {name: text for name, text in self.headers.items() if name in kept}
                    onward.request(self.command, self.path, body, headers)
                    found = onward.getresponse()
                    content = found.read()
                if not is_lost:
                    self.answer(found.status, content, found.headers.get("Content-Type", ""))

            def answer(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = pass_on  # noqa: N815 the names that http.server calls

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port("127.0.0.1")), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Nobody is answered any more."""
        self._is_closed.set()
        self._server.shutdown()
        self._server.server_close()
