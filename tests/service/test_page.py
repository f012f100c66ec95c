"""The page's server: who may ask, what each answer says of itself, and odd requests."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from common.files import UserError
from lab.influxd import free_port
from service import page
from service.incident_log import IncidentLog
from service.page import PAGE_FOLDER, Page, ShownIncidents, notes_json
from service.scrapes import ScrapeServer

# `make fuzz` asks for 10,000.
REQUESTS = int(os.environ.get("FUZZ_EXAMPLES", "500"))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Data:
    """A route whose answers are counted."""

    def __init__(self) -> None:
        self.version, self.made = 1, 0

    def now(self, words: Mapping[str, str]) -> bytes:
        self.made += 1
        if words.get("name") == "nobody":
            raise LookupError("nobody is not watched")
        if words.get("name") == "late":
            raise UserError("the server is away")
        return json.dumps({"number": int(words.get("number", "1")), "text": "x" * 2000}).encode()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Data, int]]:
    data, port = Data(), free_port("127.0.0.1")
    Page({"/now": data.now}, lambda: data.version).serve("127.0.0.1", port)
    yield data, port


def ask(port: int, line: str = "GET /now", *headers: str, host: str | None = None) -> tuple[str, dict, bytes]:
    """The status, the headers and the body of an answer."""
    sent = "\r\n".join([f"{line} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *headers, "", ""])
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(sent.encode("latin-1"))
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status.split(" ", 1)[1], dict(line.split(": ", 1) for line in lines), body


def test_the_page_and_all_that_it_names_are_served_with_a_strict_policy(served: tuple[Data, int]) -> None:
    _, port = served
    for path in ["/", *(f"/{one.name}" for one in PAGE_FOLDER.iterdir() if one.name != "index.html")]:
        status, headers, body = ask(port, f"GET {path}")
        assert (status, headers["Content-Security-Policy"]) == ("200 OK", POLICY)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Type"].split(";")[0] in (
            ("text/html",) if path == "/" else ("text/css", "text/javascript", "image/svg+xml")
        )
        assert body == (PAGE_FOLDER / (path[1:] or "index.html")).read_bytes()


def test_the_page_has_no_inline_script_or_style_and_names_no_other_server() -> None:
    for path in PAGE_FOLDER.iterdir():
        content = path.read_text(encoding="utf-8")
        assert "<style" not in content and "style=" not in content and "onclick" not in content
        assert "innerHTML" not in content and "insertAdjacentHTML" not in content and "eval(" not in content
        assert content.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_all_that_a_browser_loads_first_is_small(served: tuple[Data, int]) -> None:
    _, port = served
    paths = ["/", *(f"/{one.name}" for one in PAGE_FOLDER.iterdir() if one.name != "index.html")]
    total = sum(len(ask(port, f"GET {path}", "Accept-Encoding: gzip")[2]) for path in paths)
    assert total < 40_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_only_reading_is_allowed(served: tuple[Data, int], method: str) -> None:
    data, port = served
    made = data.made
    status, headers, _ = ask(port, f"{method} /now", "Content-Length: 0")
    assert (status, headers["Allow"], data.made) == ("405 Method Not Allowed", "GET, HEAD", made)


def test_head_is_get_without_the_body(served: tuple[Data, int]) -> None:
    _, port = served
    status, headers, body = ask(port, "HEAD /now")
    assert (status, body) == ("200 OK", b"")
    assert int(headers["Content-Length"]) == len(ask(port, "GET /now")[2])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", "200 OK"),
        ("localhost", "200 OK"),
        ("LocalHost:9106", "200 OK"),
        ("[::1]:9106", "200 OK"),
        ("[::1]", "200 OK"),
        ("192.0.2.7", "200 OK"),
        (socket.gethostname(), "200 OK"),
        (f"{socket.gethostname().upper()}.lan:9106", "200 OK"),
        (f"{socket.gethostname()}.internal.", "200 OK"),
        (f"not-{socket.gethostname()}.lan", "403 Forbidden"),
        (f"{socket.gethostname()}.evil.example", "403 Forbidden"),
        (f"evil.{socket.gethostname()}", "403 Forbidden"),
        ("evil.example", "403 Forbidden"),
        ("evil.example:9106", "403 Forbidden"),
        ("localhost.evil.example", "403 Forbidden"),
        ("127.0.0.1.evil.example", "403 Forbidden"),
        (" ", "403 Forbidden"),
    ],
)
def test_a_name_that_is_not_of_this_host_gets_nothing(
    served: tuple[Data, int], host: str, status: str
) -> None:
    assert ask(served[1], host=host)[0] == status


def test_the_full_name_is_known_as_soon_as_the_name_server_has_said_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, let_go = threading.Event(), threading.Event()

    def full_name(name: str = "") -> str:
        if name:
            return name
        asked.set()
        assert let_go.wait(10)
        return "Other.Name.Example"

    monkeypatch.setattr(socket, "getfqdn", full_name)
    port = free_port("127.0.0.1")
    Page({}, lambda: 1).serve("127.0.0.1", port)
    assert asked.wait(10)
    # What asks it does not hold up the start.
    assert ask(port, "GET /", host="other.name.example")[0] == "403 Forbidden"
    (learner,) = [one for one in threading.enumerate() if one.name == "name of host"]
    let_go.set()
    learner.join(10)
    assert ask(port, "GET /", host="other.name.example:9106")[0] == "200 OK"


def test_a_host_that_is_called_localhost_has_no_domains(
    served: tuple[Data, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    assert ask(served[1], host="localhost.evil.example")[0] == "403 Forbidden"


def test_an_answer_is_made_once_for_all_until_there_is_something_new(served: tuple[Data, int]) -> None:
    data, port = served
    data.version += 1
    made = data.made
    first = [ask(port, "GET /now?number=7") for _ in range(10)]
    assert data.made == made + 1
    tag = first[0][1]["ETag"]
    status, headers, body = ask(port, "GET /now?number=7", f"If-None-Match: {tag}")
    assert (status, headers["ETag"], body) == ("304 Not Modified", tag, b"")
    data.version += 1
    assert ask(port, "GET /now?number=7")[0] == "200 OK"
    assert data.made == made + 2


def test_a_slow_route_holds_up_no_other_one_and_who_waits_for_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert page.BUSY_SECONDS <= ScrapeServer.SECONDS - 1
    monkeypatch.setattr(page, "BUSY_SECONDS", 0.01)
    begun, let_go = threading.Event(), threading.Event()

    def slow(words: Mapping[str, str]) -> bytes:
        begun.set()
        assert let_go.wait(10)
        return b"{}"

    port = free_port("127.0.0.1")
    Page({"/now": lambda words: b"[]", "/port": slow}, lambda: 1).serve("127.0.0.1", port)
    found: list[tuple] = []
    first = threading.Thread(target=lambda: found.append(ask(port, "GET /port")))
    first.start()
    assert begun.wait(10)
    status, _, body = ask(port, "GET /port?name=other")
    assert (status, body) == ("503 Service Unavailable", b"Too many ask at once\n")
    assert ask(port, "GET /now")[::2] == ("200 OK", b"[]")
    let_go.set()
    first.join(10)
    assert found[0][::2] == ("200 OK", b"{}")


def test_who_takes_gzip_gets_it(served: tuple[Data, int]) -> None:
    plain = ask(served[1], "GET /now?number=3")
    status, headers, body = ask(served[1], "GET /now?number=3", "Accept-Encoding: gzip, br")
    assert (status, headers["Content-Encoding"], headers["Vary"]) == ("200 OK", "gzip", "Accept-Encoding")
    assert gzip.decompress(body) == plain[2]
    assert len(body) < len(plain[2]) / 10


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nothing", "404 Not Found", "There is no such page\n"),
        ("/../common/files.py", "404 Not Found", "There is no such page\n"),
        ("/page.js/", "404 Not Found", "There is no such page\n"),
        ("/now?name=nobody", "404 Not Found", "nobody is not watched\n"),
        ("/now?name=late", "503 Service Unavailable", "the server is away\n"),
        (f"/now?name={'x' * 1000}", "400 Bad Request", "The query is too long\n"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    served: tuple[Data, int], path: str, status: str, words: str
) -> None:
    found, headers, body = ask(served[1], f"GET {path}")
    assert (found, body.decode()) == (status, words)
    assert headers["Content-Security-Policy"] == POLICY


def test_fuzzed_requests_leave_no_trace_and_no_thread(
    served: tuple[Data, int], capfd: pytest.CaptureFixture[str]
) -> None:
    data, port = served
    chance = random.Random(18)
    before = threading.active_count()
    good = b"GET /now?name=a&since=1 HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    parts = [
        b"GET",
        b" /",
        b"?",
        b"%00",
        b"%ff",
        b"since=",
        b"number=-1",
        b"number=9e9",
        b"&" * 20,
        b"HTTP/9.9",
    ]
    parts += [
        b"\r\n",
        b"\0",
        b"\xff\xfe",
        b"Host: ",
        b"x" * 3000,
        b"Content-Length: -5\r\n",
        b"If-None-Match: *\r\n",
    ]
    statuses = set()
    for _ in range(REQUESTS):
        sent = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(sent))
            length = chance.choice((0, 0, 1, 3, 20))
            sent[place : place + length] = chance.choice(parts)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            try:
                client.sendall(bytes(sent))
                client.shutdown(socket.SHUT_WR)
                found = re.match(rb"HTTP/1\.[01] (\d{3}) ", client.recv(100))
                # HTTP/0.9 has no status.
                statuses.add(found[1] if found else b"")
            except ConnectionError:
                statuses.add(b"")
    # An odd request is refused, or nothing is said; none ends in a fault of ours.
    assert statuses <= {b"", b"200", b"304", b"400", b"403", b"404", b"405", b"414", b"431", b"501", b"505"}
    assert ask(port)[0] == "200 OK"
    assert threading.active_count() - before <= ScrapeServer.CONNECTIONS
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(.*--page_port or --page"
        ):
            Page({}, lambda: 1).serve("127.0.0.1", port)


# --- what both halves show -----------------------------------------------------------------------


def entry(name: str, ended: str | None = None, members: list[str] | None = None, half: str = "edge") -> dict:
    opened = f"2026-03-06T12:00:0{len(name)}Z"
    found = {"id": name, "half": half, "node": "", "cause": "cpu", "began": opened, "opened": opened}
    found |= {"last": opened, "ended": ended, "why": "cpu 98 %", "metrics": {}}
    return found | ({"members": members} if members else {})


def test_members_of_an_incident_of_many_are_not_shown_beside_it(tmp_path: Path) -> None:
    log = IncidentLog(tmp_path)
    log.add([entry("a"), entry("bb"), entry("a", "later"), entry("ccc", "later")])
    log.add([entry("open"), entry("of ports", half="ports")])
    shown = ShownIncidents(log, "edge")
    content = shown.content([entry("bb"), entry("dddd"), entry("many@1", members=["bb"])])
    assert [one["id"] for one in content["incidents"]] == ["many@1", "dddd"]
    assert [one["id"] for one in content["closed"]] == ["ccc", "a"]
    log.add([entry("eeeee", "later")])
    assert [one["id"] for one in shown.content([])["closed"]] == ["eeeee", "ccc", "a"]
    # Who knows no better takes those of the log.
    assert [one["id"] for one in shown.content()["incidents"]] == ["open", "bb"]
    assert [one["id"] for one in ShownIncidents(log, "ports").content()["incidents"]] == ["of ports"]
    assert ShownIncidents(None, "edge").content() == {"incidents": [], "closed": []}


def test_names_with_the_same_to_say_are_one_note() -> None:
    found = {"a": ("cpu", "mem"), "b": (), "c": ("cpu", "mem"), "d": ("mem",)}
    assert notes_json("unknown", found) == [
        {"kind": "unknown", "what": ("cpu", "mem"), "nodes": ["a", "c"]},
        {"kind": "unknown", "what": ("mem",), "nodes": ["d"]},
    ]
