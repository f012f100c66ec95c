"""Serves a page and its data to few browsers at a time: who may ask, and what each answer says of itself."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import ipaddress
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from common.files import UserError
from service.incident_log import IncidentLog
from service.scrapes import ScrapeServer

PAGE_FOLDER = Path(__file__).resolve().parent.parent / "page"
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
EACH_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # A browser asks each time whether what it has is still true.
    ("Cache-Control", "no-cache"),
]
# Shorter answers are not worth the time.
LEAST_GZIP_BYTES = 1000
# Answers that are kept for other browsers.
MOST_KEPT, MOST_KEPT_BYTES = 32, 4_000_000
# An answer of a route is made while no other one of it is. Who waits longer is told so, which takes less than
# the time after which the server cuts a connection.
BUSY_SECONDS = 3.0
# A node's name has at most so many bytes, each of them up to three in an address.
MOST_QUERY_LETTERS = 1000
# The newest of the incidents that have closed.
MOST_CLOSED = 50
# Domains of local networks alone.
LOCAL_DOMAINS = ("lan", "local", "localdomain", "home", "internal", "home.arpa")


class Sent(NamedTuple):
    """The content of an answer. packed: the same content, compressed; None if that does not pay."""

    kind: str
    content: bytes
    packed: bytes | None
    tag: str


def answer(kind: str, content: bytes) -> Sent:
    """An answer with this content type."""
    is_long = len(content) >= LEAST_GZIP_BYTES
    packed = gzip.compress(content, 6, mtime=0) if is_long else None
    return Sent(kind, content, packed, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Page:
    """A WSGI application: the files of the page, and data that is made when somebody asks.

    routes: path -> makes the JSON for the words of a query; raises LookupError if there is no such thing,
    ValueError if the query is wrong, and UserError if it cannot be made now. version: changes when the data
    does. address: on which it listens.
    """

    def __init__(
        self,
        routes: Mapping[str, Callable[[dict[str, str]], bytes]],
        version: Callable[[], Any],
        address: str = "127.0.0.1",
    ) -> None:
        self._routes, self._version = routes, version
        self._names = {"localhost", address.lower(), socket.gethostname().lower()}
        # The name server may be slow, or away.
        threading.Thread(target=self._learn_name, name="name of host", daemon=True).start()
        self._files: dict[str, Sent] = {}
        for path in PAGE_FOLDER.iterdir():
            if kind := CONTENT_TYPES.get(path.suffix):
                self._files[f"/{path.name}"] = answer(f"{kind}; charset=utf-8", path.read_bytes())
        self._files["/"] = self._files.pop("/index.html")
        self._making = {path: threading.Lock() for path in routes}
        self._keeping = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[Any, Sent]] = OrderedDict()

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        method = environ.get("REQUEST_METHOD", "")
        headers, body = list(EACH_HEADERS), b""
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"This page only answers GET and HEAD.\n"
            headers.append(("Allow", "GET, HEAD"))
        elif not self._is_for_us(environ.get("HTTP_HOST", "")):
            status = "403 Forbidden"
            body = b"Open this page by the IP address or the name of its host.\n"
        else:
            status, found = self._find(environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""))
            if isinstance(found, str):
                body = f"{found}\n".encode()
            else:
                status, body = self._send(found, environ, headers)
        if not any(name == "Content-Type" for name, _ in headers) and body:
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [] if method == "HEAD" else [body]

    def _is_for_us(self, host: str) -> bool:
        """Whether a browser was sent here by an address or a name of this host: the short one, the full one,
        or the short one with a domain that nobody can own.

        A web page of somebody else, whose name was changed to mean this host, comes with its own name.
        """
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.lower().strip("[]").rstrip(".")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            short = socket.gethostname().lower().partition(".")[0]
            return name in self._names or name in {f"{short}.{domain}" for domain in LOCAL_DOMAINS}
        return True

    def _learn_name(self) -> None:
        self._names.add(socket.getfqdn().lower())

    def _send(
        self, found: Sent, environ: Mapping[str, Any], headers: list[tuple[str, str]]
    ) -> tuple[str, bytes]:
        headers += [("ETag", found.tag), ("Vary", "Accept-Encoding")]
        if found.tag in environ.get("HTTP_IF_NONE_MATCH", ""):
            return "304 Not Modified", b""
        headers.append(("Content-Type", found.kind))
        if found.packed is not None and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            headers.append(("Content-Encoding", "gzip"))
            return "200 OK", found.packed
        return "200 OK", found.content

    def _find(self, path: str, query: str) -> tuple[str, Sent | str]:
        """The status and the answer, or one line that says why there is none."""
        if path in self._files:
            return "200 OK", self._files[path]
        if path not in self._routes:
            return "404 Not Found", "There is no such page"
        if len(query) > MOST_QUERY_LETTERS:
            return "400 Bad Request", "The query is too long"
        if not self._making[path].acquire(timeout=BUSY_SECONDS):
            return "503 Service Unavailable", "Too many ask at once"
        try:
            return "200 OK", self._made(path, query)
        except LookupError as error:
            return "404 Not Found", str(error)
        except ValueError as error:
            return "400 Bad Request", str(error)
        except UserError as error:
            return "503 Service Unavailable", str(error)
        finally:
            self._making[path].release()

    def _made(self, path: str, query: str) -> Sent:
        """The answer, made once for all browsers that ask the same before there is something new."""
        key, version = (path, query), self._version()
        with self._keeping:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == version:
                self._kept.move_to_end(key)
                return kept[1]
        words = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8))
        made = answer("application/json", self._routes[path](words))
        with self._keeping:
            self._kept[key] = version, made
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT or self._bytes() > MOST_KEPT_BYTES:
                self._kept.popitem(last=False)
        return made

    def _bytes(self) -> int:
        return sum(len(one.content) + len(one.packed or b"") for _, one in self._kept.values())

    def serve(self, address: str, port: int) -> None:
        """Serve http://address:port/ from a thread of its own; UserError if it cannot listen there."""
        try:
            ScrapeServer(address, port, self).start()
        except OSError as error:
            raise UserError(
                f"cannot listen on {address}:{port} ({error.strerror or error}); name another --page_port or"
                " --page_address"
            ) from None


class ShownIncidents:
    """The incidents that a page shows: those that are open, and the newest of those that have closed.

    log: of the service, which may be that of both halves; None if there is none. half: `edge` or `ports`.
    """

    def __init__(self, log: IncidentLog | None, half: str) -> None:
        self._log, self._half = log, half
        self._stamp: tuple[int, int] | None = None
        self._kept: list[dict[str, Any]] = []

    def content(self, still_open: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Both, the newest first, as JSON. Of an incident of many, those of its members are left out.

        still_open: those that are open, if that is known better than by the log.
        """
        self._refresh()
        closed = [one for one in self._kept if one.get("ended")]
        opened = [one for one in self._kept if not one.get("ended")] if still_open is None else still_open
        members = {each for one in (*opened, *closed) for each in one.get("members", ())}
        alone = [one for one in opened if one["id"] not in members]
        return {
            "incidents": sorted(alone, key=lambda one: one["opened"], reverse=True),
            "closed": [one for one in closed if one["id"] not in members][:MOST_CLOSED],
        }

    def _refresh(self) -> None:
        """Read the log again if it has changed. What cannot be read is not shown; the log of the service has
        the reason.
        """
        if self._log is None:
            return
        with contextlib.suppress(OSError, UserError):
            found = self._log.path.stat()
            if (found.st_mtime_ns, found.st_size) != self._stamp:
                kept = self._log.read().values()
                self._kept = [one for one in kept if one.get("half") == self._half][::-1]
                self._stamp = found.st_mtime_ns, found.st_size


def notes_json(kind: str, found: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What is to be known of nodes or series, those of which the same is to be said together.

    found: name -> metrics, or one reason; nothing is said of a name without any.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, what in found.items():
        if what:
            groups.setdefault(tuple(what), []).append(name)
    return [{"kind": kind, "what": what, "nodes": names} for what, names in groups.items()]
