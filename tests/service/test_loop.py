"""The loop of a service: what systemd hears, how long it waits, and what ends it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import loop
from service.loop import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Backoff, Turn
from service.systemd import Ending


class Waits(Ending):
    """Notes how long it is asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> bool:
        """As if somebody woke it at once."""
        self.seconds.append(seconds)
        return True


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What systemd has heard so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def messages() -> list[str]:
            found = []
            while True:
                try:
                    found.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield messages


def test_it_is_ready_after_the_first_turn_and_lives_after_each(heard: Callable[[], list[str]]) -> None:
    turns = iter([Turn("one", 15.0), Turn("two", 0.0), Turn("three", None)])
    ending = Waits()
    loop.run(lambda: next(turns), ending)
    assert heard() == [
        "READY=1\nWATCHDOG=1\nSTATUS=one",
        "WATCHDOG=1\nSTATUS=two",
        "WATCHDOG=1\nSTATUS=three",
    ]
    # There is nothing to wait for where the next turn is due.
    assert ending.seconds == [15.0]


def test_a_server_that_is_away_is_asked_again_soon_and_the_usual_wait_comes_back() -> None:
    away = [Turn("away", 3600.0, is_away=True)] * 6
    turns = iter([*away, Turn("good", 15.0), away[0], Turn("end", None)])
    ending = Waits()
    loop.run(lambda: next(turns), ending)
    longest = [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 15.0, 0.5]
    assert len(ending.seconds) == len(longest)
    assert ending.seconds[6] == 15.0
    assert all(0.5 * most <= wait <= most for wait, most in zip(ending.seconds, longest, strict=True))


def test_a_long_wait_feeds_the_watchdog(
    heard: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    turns = iter([Turn("one", 0.55), Turn("two", None)])
    ending = Ending()
    begin = time.monotonic()
    loop.run(lambda: next(turns), ending)
    assert time.monotonic() - begin >= 0.55
    messages = heard()
    assert messages[0].startswith("READY=1") and messages[-1].endswith("STATUS=two")
    # Each half of the watchdog's time, but not at the end, when the next turn tells it.
    assert 3 <= messages.count("WATCHDOG=1") <= 5


def test_sighup_ends_a_wait() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    turns = iter([Turn("one", 60.0), Turn("two", None)])
    ending = Ending()
    ending.install()
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()
        begin = time.monotonic()
        loop.run(lambda: next(turns), ending)
        assert time.monotonic() - begin < 30
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_pauses_double_are_never_in_step_and_begin_again_after_an_answer() -> None:
    backoff = Backoff()
    for _ in range(2):
        for longest in (FIRST_RETRY_SECONDS, 1.0, 2.0, LAST_RETRY_SECONDS, LAST_RETRY_SECONDS):
            assert longest / 2 <= backoff.next_seconds() <= longest
        backoff.reset()
    assert len({Backoff().next_seconds() for _ in range(10)}) > 1
