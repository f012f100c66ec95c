"""Ordinary life on a host: the same for a seed, within its limits, and its transfers over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lab.life import SETPOINTS, BytesHandler, Life, Server

START = 1_772_409_600.0  # 2026-03-02T00:00:00Z
STEP = 0.25
# As the module says; rates in bytes per second.
LIMITS = {
    "cpu_percent": (4.0, 18.0),
    "memory_share": (0.0, 0.04),
    "down": (0.5e6, 4e6),
    "up": (0.2e6, 1.5e6),
}


@pytest.fixture(scope="module")
def life() -> Life:
    return Life(5, STEP, START)


def setpoints(life: Life, name: str) -> np.ndarray:
    return np.array([life.at(name, START + (index + 0.5) * STEP) for index in range(SETPOINTS)])


@pytest.mark.parametrize("name", LIMITS)
def test_setpoints_keep_to_their_limits_and_use_their_room(life: Life, name: str) -> None:
    low, high = LIMITS[name]
    values = setpoints(life, name)
    room = high - low
    # "0.5-4 MB/s" is rounded.
    assert low - 0.02 * room <= values.min() < low + 0.1 * room
    assert high - 0.1 * room < values.max() <= high + 0.02 * room
    assert values.std() > 0.1 * room
    # A wander, not noise: what comes next is near what is.
    assert np.corrcoef(values[:-1], values[1:])[0, 1] > 0.8


@pytest.mark.parametrize("name", LIMITS)
def test_a_seed_has_one_life_whichever_process_looks(life: Life, name: str) -> None:
    again, other = Life(5, STEP, START), Life(6, STEP, START)
    moments = START + STEP * np.arange(200)
    assert [again.at(name, moment) for moment in moments] == [life.at(name, moment) for moment in moments]
    assert all(other.at(name, moment) != life.at(name, moment) for moment in moments)


@pytest.mark.parametrize("name", LIMITS)
def test_a_setpoint_lasts_one_step_and_all_repeat(life: Life, name: str) -> None:
    assert life.at(name, START) == life.at(name, START + STEP - 0.01) != life.at(name, START + STEP)
    assert life.at(name, START + 7 * STEP) == life.at(name, START + (SETPOINTS + 7) * STEP)
    slower = Life(5, 4 * STEP, START)
    assert slower.at(name, START + 4 * 7 * STEP) == slower.at(name, START + 4 * 8 * STEP - 0.01)
    assert slower.at(name, START + 4 * 7 * STEP) == life.at(name, START + 7 * STEP)
    later = Life(5, STEP, START + 100.0)
    assert later.at(name, START + 100.0 + 7 * STEP) == life.at(name, START + 7 * STEP)


# --- transfers -----------------------------------------------------------------------------------


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """To a server on a free port; what it does not answer in 5 s fails the test."""
    with Server(("127.0.0.1", 0), BytesHandler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            with socket.create_connection(server.server_address, 5) as connection:
                yield connection
        finally:
            server.shutdown()


def received(connection: socket.socket) -> int:
    """Bytes up to the end of the stream."""
    count = 0
    while part := connection.recv(2**16):
        count += len(part)
    return count


@pytest.mark.parametrize("count", [0, 1, 1000, 3_000_000])
def test_down_is_answered_with_as_many_bytes(connection: socket.socket, count: int) -> None:
    connection.sendall(f"down {count}\n".encode())
    assert received(connection) == count


@pytest.mark.parametrize("count", [1, 1000, 3_000_000])
def test_up_is_read_whole_and_then_closed(connection: socket.socket, count: int) -> None:
    connection.sendall(f"up {count}\n".encode() + bytes(count - 1))
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(5)
    connection.sendall(b"\0")
    # Bytes that the server had not read would reset the connection.
    assert received(connection) == 0


def test_a_transfer_that_stalls_is_given_up(connection: socket.socket) -> None:
    connection.sendall(b"up 1000\n" + bytes(10))
    begin = time.monotonic()
    assert received(connection) == 0
    assert 0.3 < time.monotonic() - begin < 3
