"""A real Alertmanager on a loopback port of its own, for tests."""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from pathlib import Path
from typing import Self

from lab.influxd import START_ATTEMPTS, START_SECONDS, free_port
from lab.parts import UNPACKED, environment, find

# Debian's program reads its templates here.
_TEMPLATES = Path("/usr/share/prometheus/alertmanager")


def _program() -> list[str]:
    """What starts it: where it is only unpacked, in a namespace in which its templates are in their place."""
    program = find("prometheus-alertmanager")
    if _TEMPLATES.exists():
        return [program]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = 'mount --bind "$0" /usr/share && exec "$@"'
    share = str(UNPACKED / "usr/share")
    return [find("unshare"), *user, "--mount", "--kill-child", "--fork", "sh", "-c", script, share, program]


class Alertmanager:
    """A server with this configuration, its files in `folder`; runs inside a `with`.

    with Alertmanager(folder, Path("deploy/alertmanager.yml").read_text()) as server:
        server.address    # as Prometheus takes it, host:port
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, config: str) -> None:
        self.folder, self._config = folder.resolve(), config
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    def __enter__(self) -> Self:
        """Start, and return once the server answers. RuntimeError if it does not within START_SECONDS."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "alertmanager.yml"
        config.write_text(self._config)
        for _ in range(START_ATTEMPTS):
            self.port = free_port(self.host)
            arguments = [*_program(), f"--config.file={config}", f"--storage.path={self.folder / 'data'}"]
            # Alone: it looks for no others.
            arguments += [f"--web.listen-address={self.address}", "--cluster.listen-address="]
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                )
            if self._is_up():
                return self
            self.__exit__()
        raise RuntimeError(f"Alertmanager did not start, see {self.folder / 'log'}")

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _is_up(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=1)
            try:
                connection.request("GET", "/-/ready")
                if connection.getresponse().status == http.client.OK:
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            finally:
                connection.close()
        return False
