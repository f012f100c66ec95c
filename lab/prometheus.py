"""A real Prometheus or VictoriaMetrics on a loopback port of its own, for tests and benchmarks."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab.influxd import START_ATTEMPTS, START_SECONDS, free_port
from lab.parts import environment, find


class PrometheusServer:
    """A server that samples can be written to, its files in `folder`; runs inside a `with`.

        with PrometheusServer(folder, "victoria-metrics") as server:
            Prometheus(server.url)

    program: prometheus or victoria-metrics. arguments: more of them for its command line. config: of
    prometheus. `port` is chosen by
    the first start and kept by every later one.
    """

    host = "127.0.0.1"

    def __init__(
        self, folder: Path, program: str, arguments: Sequence[str] = (), config: str = "global: {}\n"
    ) -> None:
        self._config = config
        self.folder, self.program, self._arguments = folder.resolve(), program, arguments
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """As --prometheus_url takes it."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same port and data, and return once the server answers.

        RuntimeError if it ends or stays silent for START_SECONDS.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port(self.host)
            self._launch(port)
            if self._wait(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"{self.program} did not start, see {self.folder / 'log'}")

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        atexit.unregister(self.kill)

    def stop(self) -> None:
        """End the server in its own time."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()
        atexit.unregister(self.kill)

    def pause(self) -> None:
        """Hang the server: connections are accepted by the kernel, and nothing is ever answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _launch(self, port: int) -> None:
        data = self.folder / "data"
        if self.program == "prometheus":
            config = self.folder / "prometheus.yml"
            config.write_text(self._config)
            arguments = [f"--config.file={config}", f"--storage.tsdb.path={data}"]
            arguments += [f"--web.listen-address={self.host}:{port}", "--web.enable-remote-write-receiver"]
        else:
            arguments = [f"-storageDataPath={data}", f"-httpListenAddr={self.host}:{port}"]
            # By default it takes 60 % of the machine's memory for its caches, and samples of a month.
            arguments += ["-memory.allowedBytes=256MB", "-retentionPeriod=10y"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find(self.program), *arguments, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        atexit.register(self.kill)

    def _wait(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers(port):
                return self._process.poll() is None
            time.sleep(0.02)
        return False

    def _answers(self, port: int) -> bool:
        path = "/-/ready" if self.program == "prometheus" else "/health"
        if "-tls" in self._arguments:
            # This asks whether the server is up, not whether it can prove who it is.
            trusting = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection(self.host, port, timeout=1, context=trusting)
        else:
            connection = http.client.HTTPConnection(self.host, port, timeout=1)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                # One that asks for a password is up, too.
                return connection.getresponse().status in (200, 401)
            except (OSError, http.client.HTTPException):
                return False
