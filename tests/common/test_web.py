"""common.web against servers that answer with the bytes of a script, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from common.web import ANSWER_TOO_LARGE, TIMEOUT, UNREACHABLE, WebAnswer, WebConnection, WebError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# In a script: the connection stays open without an answer, or ends.
SILENCE, END = b"silence", b"end"


class Server:
    """A server with a script: what it answers to each request of the first connection, of the next, ...

    After its last answer it ends the connection. pause_seconds: between two bytes of an answer.
    """

    def __init__(
        self, *script: tuple[bytes, ...], pause_seconds: float = 0.0, host: str = "127.0.0.1"
    ) -> None:
        self._script, self._pause_seconds = script, pause_seconds
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        # Of each connection, what was asked.
        self.asked: list[list[bytes]] = []
        self.ended = [threading.Event() for _ in script]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers, ended in zip(self._script, self.ended, strict=True):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.asked.append([])
            with connection:
                for answer in answers:
                    if not self._answer(connection, answer):
                        break
            ended.set()

    def _answer(self, connection: socket.socket, answer: bytes) -> bool:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (part := connection.recv(65536)):
                return False
            request += part
        self.asked[-1].append(request)
        if answer in (SILENCE, END):
            return answer == SILENCE and bool(connection.recv(1))
        try:
            size = 1 if self._pause_seconds else len(answer)
            for first in range(0, len(answer), size):
                connection.sendall(answer[first : first + size])
                self._over.wait(self._pause_seconds)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


Serve = Callable[..., tuple[Server, WebConnection]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with a script, and makes a connection to it."""
    made: list[tuple[Server, WebConnection]] = []

    def begin(*script: tuple[bytes, ...], **settings: float) -> tuple[Server, WebConnection]:
        server = Server(*script, **settings)
        made.append((server, WebConnection("127.0.0.1", server.port, timeout_seconds=0.3)))
        return made[-1]

    yield begin
    for server, web in made:
        web.close()
        server.close()


def kind(web: WebConnection, most_bytes: int = 1000) -> str:
    with pytest.raises(WebError) as raised:
        web.ask("GET", "/", most_bytes=most_bytes)
    return raised.value.kind


@pytest.mark.parametrize(
    ("answer", "content", "is_kept"),
    [
        (OK, b"ok", True),
        (CHUNKED + b"3\r\nabc\r\nA;name=1\r\n0123456789\r\n0\r\nLater: 1\r\n\r\n", b"abc0123456789", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", b"", True),
        (OK.replace(b"\r\n", b"\n"), b"ok", True),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"), b"ok", False),
        (OK.replace(b"1.1", b"1.0"), b"ok", False),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (OK + b"more than was said", b"ok", False),
    ],
)
def test_an_answer_is_read_whole_and_its_connection_kept_if_it_can_be(
    serve: Serve, answer: bytes, content: bytes, is_kept: bool
) -> None:
    script = [(answer, OK)] if is_kept else [(answer,), (OK,)]
    server, web = serve(*script)
    assert web.ask("GET", "/a?b=c").content == content
    assert web.ask("GET", "/").content == b"ok"
    assert list(map(len, server.asked)) == ([2] if is_kept else [1, 1])


def test_what_is_sent_and_what_is_told() -> None:
    server = Server((OK.replace(b"200 OK", b"413 Too Large\r\nX-Reason:  \xe9 b \t"),), host="::1")
    web = WebConnection("[::1]", server.port)
    answer = web.ask("POST", "/write?db=a", b"\x00\xff", {"Accept": "text/plain"})
    assert answer == WebAnswer(413, b"ok", {"x-reason": "é b", "content-length": "2"})
    server.close()
    assert server.asked == [
        [
            b"POST /write?db=a HTTP/1.1\r\nHost: [::1]:%d\r\nAccept-Encoding: identity\r\n"
            b"Accept: text/plain\r\nContent-Length: 2\r\n\r\n\x00\xff" % server.port
        ]
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 99\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n more\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        CHUNKED + b"-1\r\n\r\n",
        CHUNKED + b"zz\r\n\r\n",
        CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n",
        b"HTTP/1.1 200",
    ],
)
def test_an_answer_that_is_not_whole_is_none_and_its_connection_is_not_used_again(
    serve: Serve, answer: bytes
) -> None:
    server, web = serve((answer,), (OK,))
    assert kind(web) == UNREACHABLE
    assert web.ask("GET", "/").content == b"ok"
    assert list(map(len, server.asked)) == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        CHUNKED + b"3E7\r\n" + b"a" * 999 + b"\r\n2\r\n",
        CHUNKED + b"fffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1001,
    ],
)
def test_no_more_is_read_than_is_allowed(serve: Serve, answer: bytes) -> None:
    _, web = serve((answer,), (OK,))
    assert kind(web) == ANSWER_TOO_LARGE
    assert web.ask("GET", "/").content == b"ok"


@pytest.mark.parametrize("answer", [OK, CHUNKED + b"1\r\na\r\n" * 30, b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 60])
def test_a_byte_now_and_then_does_not_lengthen_the_time_for_an_answer(serve: Serve, answer: bytes) -> None:
    _, web = serve((answer,), pause_seconds=0.05)
    started = time.monotonic()
    assert kind(web) == TIMEOUT
    assert 0.3 <= time.monotonic() - started < 2


def test_what_timed_out_is_not_sent_again(serve: Serve) -> None:
    server, web = serve((OK, SILENCE), (OK,))
    web.ask("GET", "/")
    assert kind(web) == TIMEOUT
    assert list(map(len, server.asked)) == [2]
    assert web.ask("GET", "/").content == b"ok"


def test_a_connection_that_the_server_ended_meanwhile_is_no_fault(serve: Serve) -> None:
    server, web = serve((OK,), (OK,))
    web.ask("GET", "/")
    assert server.ended[0].wait(10)
    assert web.ask("GET", "/").content == b"ok"
    assert list(map(len, server.asked)) == [1, 1]


def test_nobodys_answer_is_not_taken_for_one(serve: Serve) -> None:
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    server, web = serve((OK,), (OK,))
    web.ask("GET", "/")
    ours = web._socket
    assert server.ended[0].wait(10)
    # As if it had come just before the end.
    near, far = socket.socketpair()
    far.sendall(late)
    web._socket = near
    assert web.ask("GET", "/").content == b"ok"
    ours.close()
    far.close()


def test_a_kept_connection_that_ends_without_a_word_is_tried_once_more(serve: Serve) -> None:
    server, web = serve((OK, END), (OK, END), (END,))
    for asked in ([1], [2, 1], [2, 2, 1]):
        if asked == [2, 2, 1]:
            assert kind(web) == UNREACHABLE
        else:
            assert web.ask("GET", "/").content == b"ok"
        assert list(map(len, server.asked)) == asked


def test_a_new_connection_that_ends_without_a_word_is_the_servers_fault(serve: Serve) -> None:
    server, web = serve((), (OK,))
    assert kind(web) == UNREACHABLE
    assert server.asked == [[]]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64, "127.0.0.1"])
def test_a_host_that_is_not_there_is_unreachable(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert kind(WebConnection(host, port, timeout_seconds=2.0)) == UNREACHABLE
