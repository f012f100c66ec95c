"""How the daemon lives among others: systemd, the journal, signals, Prometheus, faults said once."""

import contextlib
import logging
import math
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from common.alerts import ALERT, ANOMALY, NORMAL
from common.files import UserError
from edge.detector import Verdict
from edge.exporter import EdgeMetrics
from lab.influxd import free_port
from ports.exporter import PortMetrics
from service.log import JournalFormatter, Notices
from service.loop import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Backoff
from service.scrapes import ScrapeServer
from service.systemd import check_watchdog, notify_systemd
from tests.support.metrics import NAMES, THRESHOLD_KEYS

PROJECT = Path(__file__).resolve().parents[2]


def test_pauses_double_are_never_in_step_and_begin_again_after_an_answer() -> None:
    backoff = Backoff()
    for _ in range(2):
        for longest in (FIRST_RETRY_SECONDS, 1.0, 2.0, LAST_RETRY_SECONDS, LAST_RETRY_SECONDS):
            assert longest / 2 <= backoff.next_seconds() <= longest
        backoff.reset()
    assert len({Backoff().next_seconds() for _ in range(10)}) > 1


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told_through_its_socket(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@find-anomalies-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if is_abstract else name)
        systemd.settimeout(5)
        notify_systemd("READY=1\nSTATUS=normal", {"NOTIFY_SOCKET": name})
        assert systemd.recv(1000) == b"READY=1\nSTATUS=normal"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_without_systemd_nothing_is_told(environment: dict[str, str]) -> None:
    notify_systemd("READY=1", environment)


def test_the_journal_gets_priorities_and_no_second_clock() -> None:
    formatter = JournalFormatter()
    lines = [
        formatter.format(logging.LogRecord("a", level, "f", 1, "say %s", ("it",), None))
        for level in (logging.INFO, logging.WARNING, logging.ERROR)
    ]
    assert lines == ["<6>INFO say it", "<4>WARNING say it", "<3>ERROR say it"]


def test_the_journal_is_told_from_a_shell_that_inherits_its_variable() -> None:
    code = "from service.log import is_journal; print(is_journal())"
    for stream in ("1:2", "", None):
        environment = {"PATH": os.environ["PATH"]} | ({} if stream is None else {"JOURNAL_STREAM": stream})
        done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True)
        assert done.stdout == b"False\n"
    code = "import os; s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert done.stdout == b"True\n"


def test_an_interval_that_the_watchdog_would_not_live_through_is_refused() -> None:
    check_watchdog(90, {"WATCHDOG_USEC": "180000000"})
    check_watchdog(1e6, {})
    with pytest.raises(UserError) as caught:
        check_watchdog(91, {"WATCHDOG_USEC": "180000000"})
    assert str(caught.value) == (
        "--interval 91 is more than half of the watchdog's 180 s; set WatchdogSec=273 or more in the unit"
    )


def test_a_fault_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    notices = Notices()
    for _ in range(3):
        notices.mended("server", "back")
    for fault in ("away", "away", "hung", "hung", "away"):
        notices.fault("server", fault)
    notices.fault("model", "broken", logging.WARNING)
    for _ in range(3):
        notices.mended("server", "back")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("ERROR", "away"),
        ("ERROR", "hung"),
        ("ERROR", "away"),
        ("WARNING", "broken"),
        ("WARNING", "back"),
    ]


ENDING = """
import sys, time
from service.systemd import Ending
ending = Ending()
ending.install()
print("ready", flush=True)
if sys.argv[1] == "writing":
    with ending.deferred():
        time.sleep(1.0)
        print("written", flush=True)
    print("never", flush=True)
if sys.argv[1] == "failing":
    try:
        with ending.deferred():
            time.sleep(1.0)
            print("failed", flush=True)
            raise OSError
    except OSError:
        print("never", flush=True)
begin = time.monotonic()
ending.wait(60)
print("woken", flush=True)
ending.wait(60)
"""


def start(words: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDING, words], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "said"), [("waiting", ""), ("writing", "written\n"), ("failing", "failed\n")]
)
def test_a_signal_ends_a_wait_at_once_and_a_write_when_it_is_done_or_has_failed(
    number: signal.Signals, words: str, said: str
) -> None:
    process = start(words)
    time.sleep(0.2)
    process.send_signal(number)
    assert process.communicate(timeout=5) == (said, None)
    assert process.returncode == 0


def test_hangup_ends_a_wait_and_not_the_process() -> None:
    process = start("waiting")
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "woken\n"
    process.terminate()
    assert process.wait(5) == 0
    process.stdout.close()


def scrape(port: int, timeout_seconds: float = 5.0) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_seconds) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        if "_created" not in name
    }


def test_what_prometheus_scrapes() -> None:
    metrics = EdgeMetrics()
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    metrics.show_thresholds(dict(zip(THRESHOLD_KEYS, range(9), strict=True)))
    rmse = {name: 0.25 for name in NAMES}
    metrics.show(Verdict(0, NORMAL, (), (), rmse, {}), [])
    metrics.show(Verdict(0, ANOMALY, ("cpu", "mem"), (), rmse, {}), ["rx_cpu_time"])
    metrics.show(Verdict(0, ALERT, ("cpu",), (), rmse | {"cpu": 4.5}, {}), ["rx_cpu_time"])
    metrics.show(Verdict(0, ALERT, (), (), rmse | {"cpu": 4.5}, {}), [])
    found = scrape(port)
    expected = {
        'find_anomalies_anomalies_total{cause="cpu"}': 2,
        'find_anomalies_anomalies_total{cause="mem"}': 1,
        'find_anomalies_anomalies_total{cause="unknown cause"}': 1,
        'find_anomalies_alerts_total{cause="cpu"}': 1,
        'find_anomalies_alerts_total{cause="unknown cause"}': 1,
        'find_anomalies_unknown_verdicts_total{series="rx_cpu_time"}': 2,
        'find_anomalies_rmse{metric="cpu"}': 4.5,
        'find_anomalies_rmse{metric="mem"}': 0.25,
        'find_anomalies_threshold{metric="cpu"}': 0,
        'find_anomalies_threshold{metric="overall"}': 8,
        "find_anomalies_spool_depth": 0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_what_serves_nothing_loads_no_http_server() -> None:
    code = "import sys, service; print({'http.server', 'wsgiref.simple_server'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert done.stdout == b"set()\n"


def test_the_age_of_the_last_good_poll_grows_until_the_next() -> None:
    metrics = EdgeMetrics()
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    time.sleep(0.3)
    before = scrape(port)["find_anomalies_seconds_since_last_good_poll"]
    metrics.good_poll()
    after = scrape(port)["find_anomalies_seconds_since_last_good_poll"]
    assert before >= 0.3
    assert after < before


def test_in_silence_the_newest_record_grows_old_and_no_rmse_is_shown() -> None:
    metrics = EdgeMetrics()
    registry = metrics.registry
    age = "find_anomalies_seconds_since_newest_record"
    assert math.isnan(registry.get_sample_value(age))
    rmse = {name: 0.25 for name in NAMES}
    metrics.show(Verdict(int((time.time() - 500) * 1e9), NORMAL, (), (), rmse, {}), [])
    assert registry.get_sample_value(age) == pytest.approx(500, abs=5)
    metrics.show_silence()
    shown = [registry.get_sample_value("find_anomalies_rmse", {"metric": name}) for name in NAMES]
    assert all(math.isnan(value) for value in shown)


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


# --- what is deployed ----------------------------------------------------------------------------


def test_the_alert_rules_use_metrics_that_exist_and_promtool_accepts_them() -> None:
    from lab import parts

    rules = PROJECT / "deploy/alerts.yml"
    checked = subprocess.run(
        [parts.find("promtool"), "check", "rules", rules],
        capture_output=True,
        text=True,
        env=parts.environment(),
    )
    assert checked.returncode == 0, checked.stderr
    families = [family for one in (EdgeMetrics(), PortMetrics()) for family in one.registry.collect()]
    known = {name for family in families for name in (family.name, f"{family.name}_total")}
    used = set(re.findall(r"find_anomalies_\w+", "\n".join(re.findall(r"expr: (.*)", rules.read_text()))))
    assert used
    assert used <= known
