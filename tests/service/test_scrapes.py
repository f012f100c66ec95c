"""Scrapes among slow, odd and vanished clients."""

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from common.files import UserError
from edge.exporter import EdgeMetrics
from lab.influxd import free_port
from service.scrapes import ScrapeServer
from tests.support.scrapes import scrape


@pytest.fixture
def clients() -> Iterator[int]:
    """How many sockets a test may open: 1,500, or as many as the limit of this process leaves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1500
    # Each has two ends here; the rest is for the test itself.
    needed = 2 * wanted + 200
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    yield min(wanted, (max(soft, limit) - 200) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_clients_keep_few_threads_and_no_scrape_waits_for_them(
    clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is cut for its slowness: who waits for them waits longer than the scrape below.
    monkeypatch.setattr(ScrapeServer, "SECONDS", 600.0)
    metrics = EdgeMetrics()
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    before = threading.active_count()
    most = 0
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            most = max(most, threading.active_count())
        assert scrape(port, 30)["find_anomalies_spool_depth"] == 0
        most = max(most, threading.active_count())
    # One that ends may still be there when the next one starts.
    assert most - before <= 2 * ScrapeServer.CONNECTIONS


def test_a_connection_for_which_no_thread_can_be_started_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ScrapeServer, "CONNECTIONS", 2)
    port = free_port("127.0.0.1")
    server = ScrapeServer("127.0.0.1", port, make_wsgi_app(CollectorRegistry()))
    # No address space holds such a stack.
    threading.stack_size(1 << 46)
    try:
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                address = ("127.0.0.1", port)
                waiting = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(5)]
                server.handle_request()
                assert [client.recv(1) for client in waiting] == [b""] * 5
    finally:
        threading.stack_size(0)
    server.start()
    assert scrape(port) == {}
    server.shutdown()
    server.server_close()


def test_a_client_that_sends_a_byte_now_and_then_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScrapeServer, "SECONDS", 0.5)
    port = free_port("127.0.0.1")
    EdgeMetrics().serve("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port), 5) as slow, pytest.raises(OSError, match="reset|pipe"):
        for _ in range(50):
            slow.sendall(b"G")
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /" + b"x" * 65_532 + b"\n", b"HTTP/1.0 414", id="long line"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"HTTP/1.0 431", id="many headers"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.0 405", id="POST"),
        pytest.param(
            b"GET / HTTP/1.1\r\nAccept: application/openmetrics-text;version=x\r\n\r\n",
            b"HTTP/1.0 500",
            id="odd Accept",
        ),
        pytest.param(b"\x16\x03\x01\x00\xff\r\n\r\n", b"", id="TLS"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_odd_requests_are_answered_and_write_nothing_to_the_log(
    request_bytes: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port("127.0.0.1")
    EdgeMetrics().serve("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000).startswith(status)
    # A client that has gone when the answer comes.
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(request_bytes)
    assert scrape(port)["find_anomalies_spool_depth"] == 0
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(.*--metrics_port"):
            EdgeMetrics().serve("127.0.0.1", port)
