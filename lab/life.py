"""Ordinary life on a host: CPU load that varies, memory that is taken and given back, downloads and uploads.

`python -m lab.life serve` answers the transfers, on the far side of a link. `python -m lab.life live HOST`
runs until it is ended: it keeps every CPU busy 4-18 % of the time, takes up to 4 % of the memory and gives it
back, and fetches 0.5-4 MB/s from HOST and sends it 0.2-1.5 MB/s, in transfers of a tenth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import multiprocessing
import os
import socket
import socketserver
import threading
import time

import numpy as np

from simulators.edge import between, drift

PORT = 9000
SETPOINTS = 50_000
# A transfer that stalls is given up, so that traffic is back as soon as the link is.
TRANSFER_TIMEOUT_SECONDS = 0.5
TRANSFER_SECONDS = 0.1
FRAME_SECONDS = 0.05
CHUNK_BYTES = 16 * 2**20
# The kernel gives freed memory back slowly, up to 2-3 % of it in ten seconds; life's changes are larger.
BREATH_SHARE = 0.04


class Life:
    """What the host does at each moment from `start` (seconds since 1970) on.

    A setpoint lasts `step_seconds`; after the last one, they repeat.
    """

    def __init__(self, seed: int, step_seconds: float, start: float) -> None:
        rng = np.random.default_rng(seed)
        self._start = start
        self._step_seconds = step_seconds
        noise = rng.normal(0, 1.0, SETPOINTS)
        self._setpoints = {
            "cpu_percent": between(11 + 3 * drift(rng, SETPOINTS, 60) + noise, 4, 18),
            "memory_share": BREATH_SHARE * between(0.5 + 0.35 * drift(rng, SETPOINTS, 240), 0, 1),
            "down": 1e6 * np.exp(between(0.4 + 0.5 * drift(rng, SETPOINTS, 50), -0.7, 1.4)),
            "up": 1e6 * np.exp(between(-0.6 + 0.5 * drift(rng, SETPOINTS, 50), -1.6, 0.4)),
        }

    def at(self, name: str, seconds: float) -> float:
        """The setpoint `name` at `seconds` since 1970."""
        return float(self._setpoints[name][int((seconds - self._start) / self._step_seconds) % SETPOINTS])


def burn(life: Life) -> None:
    """Keep one CPU busy, in user mode."""
    while True:
        begin = time.time()
        busy_until = begin + FRAME_SECONDS * life.at("cpu_percent", begin) / 100
        while time.time() < busy_until:
            pass
        time.sleep(max(begin + FRAME_SECONDS - time.time(), 0.001))


def breathe(life: Life) -> None:
    """Take memory and give it back."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    chunks: list[mmap.mmap] = []
    while True:
        wanted = int(total * life.at("memory_share", time.time()) / CHUNK_BYTES)
        while len(chunks) > wanted:
            chunks.pop().close()
        while len(chunks) < wanted:
            chunk = mmap.mmap(-1, CHUNK_BYTES)
            # Only pages that were written to are taken.
            chunk[:: mmap.PAGESIZE] = b"\1" * (CHUNK_BYTES // mmap.PAGESIZE)
            chunks.append(chunk)
        time.sleep(0.1)


def transfer(life: Life, direction: str, host: str) -> None:
    """Fetch (`down`) or send (`up`) what is due, again and again."""
    last = time.time()
    while True:
        time.sleep(TRANSFER_SECONDS)
        now = time.time()
        count = int(life.at(direction, now) * min(now - last, TRANSFER_TIMEOUT_SECONDS))
        last = now
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, PORT), TRANSFER_TIMEOUT_SECONDS) as connection,
        ):
            connection.sendall(f"{direction} {count}\n".encode())
            if direction == "up":
                connection.sendall(bytes(count))
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(2**16):
                pass


class BytesHandler(socketserver.StreamRequestHandler):
    """`down N` is answered with N bytes; `up N` is followed by N bytes, which are read."""

    timeout = TRANSFER_TIMEOUT_SECONDS

    def handle(self) -> None:
        """Answer one request."""
        with contextlib.suppress(OSError):
            direction, count = self.rfile.readline().split()
            if direction == b"down":
                self.wfile.write(bytes(int(count)))
            else:
                self.rfile.read(int(count))


class Server(socketserver.ThreadingTCPServer):
    """Answers transfers on all addresses of its namespace."""

    allow_reuse_address = True
    daemon_threads = True


def live(host: str, seed: int, step_seconds: float) -> None:
    """Put the load of ordinary life on this host until the process is ended."""
    life = Life(seed, step_seconds, time.time())
    for _ in range(os.cpu_count() or 1):
        multiprocessing.Process(target=burn, args=(life,), daemon=True).start()
    for direction in ("down", "up"):
        threading.Thread(target=transfer, args=(life, direction, host), daemon=True).start()
    breathe(life)


def main() -> None:
    """Run one of the two commands until killed."""
    parser = argparse.ArgumentParser(description="Put the load of ordinary life on this host.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer the transfers of another host's `live`")
    alive = commands.add_parser("live", help="load this host until the process is ended")
    alive.add_argument("host", help="where `serve` runs")
    alive.add_argument("--seed", type=int, default=1, help="seed of this life (default: %(default)s)")
    alive.add_argument(
        "--step_seconds", type=float, default=3.75, help="seconds between changes (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.command == "serve":
        with Server(("", PORT), BytesHandler) as server:
            server.serve_forever()
    else:
        live(options.host, options.seed, options.step_seconds)


if __name__ == "__main__":
    main()
