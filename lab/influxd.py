"""A real InfluxDB server on loopback ports of its own, for the tests and the lab."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Self

from lab.parts import environment, find

START_ATTEMPTS = 5
START_SECONDS = 60
INFLUXD_STOP_SECONDS = 10

CONFIG = """\
reporting-disabled = true
bind-address = "{host}:{backup_port}"
[meta]
dir = {meta}
[data]
dir = {data}
wal-dir = {wal}
[monitor]
store-enabled = false
[http]
bind-address = "{host}:{port}"
auth-enabled = {auth}
log-enabled = false
{https}{http_settings}"""
HTTPS = """\
https-enabled = true
https-certificate = {certificate}
"""


def free_port(host: str) -> int:
    """A port that nothing listens on; another process may still take it first."""
    while True:
        # Below the ephemeral range: a client that polls a stopped server on an ephemeral port
        # can be connected to itself, and then holds the port when the server comes back.
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port


class Influxd:
    """One influxd process, its files in `folder`; as a context manager it runs inside the `with`.

    `port` is chosen by the first start and kept by every later one. With `auth`, create the first
    user with `CREATE USER ... WITH ALL PRIVILEGES`, the only statement that needs no password. With
    `certificate`, a PEM file that also holds its key, it speaks TLS and nothing else. `http_settings`
    are more lines of the section [http] of its configuration, each with its line break.
    """

    host = "127.0.0.1"

    def __init__(
        self, folder: Path, auth: bool = False, certificate: Path | None = None, http_settings: str = ""
    ) -> None:
        self.folder = folder.resolve()
        self.auth = auth
        self.certificate = certificate
        self.http_settings = http_settings
        self.port = 0
        self.log = self.folder / "influxd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; RuntimeError if the server is not running."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("influxd is not running: call start()")
        return self._process.pid

    def start(self) -> None:
        """Start, or start again on the same port and data, and return once the server answers.

        RuntimeError with influxd's last words if it ends or stays silent for START_SECONDS.
        """
        if self._process is not None and self._process.poll() is None:
            return
        binary = find("influxd")
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port(self.host)
            log_offset = self.log.stat().st_size if self.log.exists() else 0
            self._launch(binary, port)
            if self._wait(port, log_offset):
                self.port = port
                return
            self.kill()
            last_words = self._output_since(log_offset).strip().rpartition("\n")[2]
            if "address already in use" not in last_words:
                break
        raise RuntimeError(f"influxd did not start, see {self.log}: {last_words}")

    def stop(self) -> None:
        """End the server in its own time, or by force after INFLUXD_STOP_SECONDS."""
        if self._process is not None:
            self._process.terminate()
            # A paused process receives the signal only when it continues.
            self._process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(INFLUXD_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        atexit.unregister(self.kill)

    def pause(self) -> None:
        """Hang the server: connections are accepted by the kernel, and nothing is ever answered."""
        os.kill(self.pid, signal.SIGSTOP)
        # Until its last thread has stopped it may still answer; WNOWAIT leaves the status to Popen.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _launch(self, binary: str, port: int) -> None:
        paths = {name: json.dumps(str(self.folder / name)) for name in ("meta", "data", "wal")}
        config = self.folder / "influxd.conf"
        config.write_text(
            CONFIG.format(
                host=self.host,
                port=port,
                backup_port=free_port(self.host),
                auth=str(self.auth).lower(),
                https=HTTPS.format(certificate=json.dumps(str(self.certificate))) if self.certificate else "",
                http_settings=self.http_settings,
                **paths,
            )
        )
        # influxd lets INFLUXDB_* variables override its configuration file.
        variables = {name: value for name, value in environment().items() if not name.startswith("INFLUXDB_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
            )
        atexit.register(self.kill)

    def _wait(self, port: int, log_offset: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            # The log distinguishes our server from another one that took the port first and answers.
            if "Listening on HTTP" in self._output_since(log_offset) and self._answers(port):
                return True
            time.sleep(0.01)
        return False

    def _output_since(self, log_offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(log_offset)
            return log.read().decode(errors="replace")

    def _answers(self, port: int) -> bool:
        if self.certificate:
            # This asks whether the server is up, not whether it can prove who it is.
            trusting = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection(self.host, port, timeout=1, context=trusting)
        else:
            connection = http.client.HTTPConnection(self.host, port, timeout=1)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 204
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
