"""Readiness, watchdog and signals."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import UserError
from service.systemd import check_watchdog, notify_systemd

PROJECT = Path(__file__).resolve().parents[2]


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


def test_an_interval_that_the_watchdog_would_not_live_through_is_refused() -> None:
    check_watchdog(90, {"WATCHDOG_USEC": "180000000"})
    check_watchdog(1e6, {})
    with pytest.raises(UserError) as caught:
        check_watchdog(91, {"WATCHDOG_USEC": "180000000"})
    assert str(caught.value) == (
        "--interval 91 is more than half of the watchdog's 180 s; set WatchdogSec=273 or more in the unit"
    )


ENDING = """
import sys, time
from service.systemd import Ending
ending = Ending()
ending.install()
if sys.argv[1] == "waiting":
    print("ready", flush=True)
if sys.argv[1] == "writing":
    with ending.deferred():
        print("ready", flush=True)
        time.sleep(1.0)
        print("written", flush=True)
    print("never", flush=True)
if sys.argv[1] == "failing":
    try:
        with ending.deferred():
            print("ready", flush=True)
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
    process.send_signal(number)
    assert process.communicate(timeout=30) == (said, None)
    assert process.returncode == 0


def test_hangup_ends_a_wait_and_not_the_process() -> None:
    process = start("waiting")
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "woken\n"
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()
