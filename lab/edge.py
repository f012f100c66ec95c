"""The real edge: InfluxDB, Prometheus, both exporters and ordinary life, and ways to disturb them.

It runs in network and process namespaces of its own (see lab/__main__.py), so that its loopback ports are
the ones that deploy/prometheus.yml names, and nothing outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import influx_utils
from lab import parts
from lab.influxd import Influxd

PROJECT = Path(__file__).resolve().parent.parent
DATABASE = "metrics_db"
INFLUXDB_PORT, PROMETHEUS_PORT, NODE_PORT, RAN_PORT = 8086, 9090, 9100, 9099
EDGE_INTERFACE, FAR_INTERFACE = "edge0", "ue0"
EDGE_ADDRESS, FAR_ADDRESS = "10.77.0.1", "10.77.0.2"
# Setpoints of ordinary life in one scrape: life goes fast, so that a few minutes show all of it.
PACE = 12
# The attacks take a fifth of the memory.
NEEDED_MEMORY_SHARE = 0.35
READY_SECONDS = 60
PROCESS_STOP_SECONDS = 5


class LabError(Exception):
    """A fault that the lab's user can fix; its message is one line and names the remedy."""


class Edge:
    """The whole edge, its files in `folder`; as a context manager it runs inside the `with`."""

    def __init__(self, folder: Path, scrape_seconds: float, seed: int) -> None:
        self.folder = folder
        self.scrape_seconds = scrape_seconds
        self._seed = seed
        self._programs = parts.find_all(parts.PACKAGES)
        self._stack = contextlib.ExitStack()
        self._influxd = Influxd(folder / "influxdb")
        self._parts: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Self:
        _check_memory()
        with self._stack:
            self._start()
            # A failure up to here ends what was started; from here on, __exit__ does that.
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ip("link", "set", "lo", "up")
        life = [sys.executable, "-m", "lab.life"]
        self.start("far", [self._programs["unshare"], "--net", *life, "serve"], is_part=True)
        self._link()
        self._influxd.port = INFLUXDB_PORT
        try:
            self._stack.enter_context(self._influxd)
        except RuntimeError as error:
            raise LabError(str(error)) from None
        self.client = influx_utils.initializeConnection("127.0.0.1", INFLUXDB_PORT, "", "")
        self.client.create_database(DATABASE)
        self.client.switch_database(DATABASE)
        for name in ("node", "ran"):
            self.start_exporter(name)
        self._start_prometheus()
        step = self.scrape_seconds / PACE
        alive = [*life, "live", FAR_ADDRESS, f"--seed={self._seed}", f"--step_seconds={step}"]
        self.start("life", alive, is_part=True)
        self.start("iperf3", [*self._beyond(), self._programs["iperf3"], "-s"], is_part=True)

    def _ip(self, *arguments: str, far: bool = False) -> None:
        command = [*(self._beyond() if far else []), self._programs["ip"], *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=parts.environment())
        if done.returncode:
            raise LabError(
                f"ip {' '.join(arguments)} failed: {done.stderr.strip()}; run the lab as root on the host"
            )

    def _beyond(self) -> list[str]:
        """The beginning of a command that runs on the far side of the link."""
        return [self._programs["nsenter"], f"--net=/proc/{self._parts['far'].pid}/ns/net"]

    def _link(self) -> None:
        own, far = os.readlink("/proc/self/ns/net"), self._parts["far"].pid
        wait_until(lambda: os.readlink(f"/proc/{far}/ns/net") != own, "the far network namespace")
        self._ip("link", "add", EDGE_INTERFACE, "type", "veth", "peer", "name", FAR_INTERFACE)
        self._ip("link", "set", FAR_INTERFACE, "netns", str(far))
        self._ip("addr", "add", f"{EDGE_ADDRESS}/30", "dev", EDGE_INTERFACE)
        self._ip("addr", "add", f"{FAR_ADDRESS}/30", "dev", FAR_INTERFACE, far=True)
        self._ip("link", "set", EDGE_INTERFACE, "up")
        self.set_link("up")

    def _start_prometheus(self) -> None:
        shipped = (PROJECT / "deploy/prometheus.yml").read_text()
        line = "scrape_interval: 15s"
        if shipped.count(line) != 1:
            raise LabError(f"deploy/prometheus.yml must have one line '{line}', which the lab replaces")
        config = self.folder / "prometheus.yml"
        milliseconds = round(self.scrape_seconds * 1000)
        config.write_text(shipped.replace(line, f"scrape_interval: {milliseconds}ms"))
        checked = subprocess.run(
            [self._programs["promtool"], "check", "config", config],
            capture_output=True,
            text=True,
            env=parts.environment(),
        )
        if checked.returncode:
            raise LabError(
                f"promtool refuses deploy/prometheus.yml: {checked.stderr.strip().splitlines()[-1]}"
            )
        self._start_server(
            "prometheus",
            [
                self._programs["prometheus"],
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
            ],
            PROMETHEUS_PORT,
        )

    def start(
        self, name: str, command: list[str], is_part: bool = False, **settings: Any
    ) -> subprocess.Popen:
        """Start one process, with its output in `<name>.log`; it is ended when the edge is.

        is_part: it has to live until `end` ends it; `check` verifies that.
        """
        log = self._stack.enter_context((self.folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            command,
            **{
                "cwd": PROJECT,
                "env": parts.environment(),
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                **settings,
            },
        )
        self._stack.callback(stop, process)
        if is_part:
            self._parts[name] = process
        return process

    def end(self, name: str) -> None:
        """End one of the parts in order."""
        stop(self._parts.pop(name))

    def check(self) -> None:
        """Raise LabError if a part that has to live has ended."""
        for name, process in self._parts.items():
            if process.poll() is not None:
                raise LabError(f"{name} ended by itself, see {self.last_words(name)}")
        try:
            _ = self._influxd.pid
        except RuntimeError:
            raise LabError(f"influxd ended by itself, see {self._influxd.log}") from None

    def last_words(self, name: str) -> str:
        """Name and last line of a process's log."""
        log = self.folder / f"{name}.log"
        *_, last_line = ["", *log.read_text(errors="replace").strip().splitlines()]
        return f"{log}: {last_line}"

    def _start_server(self, name: str, command: list[str], port: int, **settings: Any) -> None:
        process = self.start(name, command, is_part=True, **settings)

        def is_up() -> bool:
            if process.poll() is not None:
                raise LabError(f"{name} did not start, see {self.last_words(name)}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(is_up, name)

    # --- what can be done to it ------------------------------------------------------------------

    @property
    def cpus(self) -> int:
        """How many CPUs the host has."""
        return os.cpu_count() or 1

    @property
    def total_memory_bytes(self) -> int:
        """RAM of the host."""
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def write_node_file(self, filename: Path) -> None:
        """This host, as --node_file describes it."""
        node = {
            "cpus": [str(cpu) for cpu in range(self.cpus)],
            "interfaces": [EDGE_INTERFACE],
            "total_memory_bytes": self.total_memory_bytes,
        }
        filename.write_text(json.dumps(node, indent=2) + "\n")

    @contextlib.contextmanager
    def running(self, program: str, *arguments: str) -> Iterator[None]:
        """Run a program of parts.PACKAGES inside the `with`; LabError if it ends before that."""
        process = self.start(program, [self._programs[program], *arguments])
        try:
            yield
            if process.poll() is not None:
                raise LabError(
                    f"{program} {' '.join(arguments)} ended by itself, see {self.last_words(program)}"
                )
        finally:
            stop(process)

    def set_link(self, state: str) -> None:
        """Take the far end of the link `up` or `down`, like pulling a cable."""
        self._ip("link", "set", FAR_INTERFACE, state, far=True)

    def tell_gnb(self, words: str) -> None:
        """Set what happens to the gNB from now on, in the words of lab/ran_exporter.py."""
        process = self._parts["ran_exporter"]
        assert process.stdin is not None
        process.stdin.write(f"{words}\n".encode())
        process.stdin.flush()

    def start_exporter(self, name: str) -> None:
        """Start the exporter `node` or `ran`, also after it was killed."""
        if name == "node":
            command = [self._programs["prometheus-node-exporter"]]
            collectors = [f"--collector.{collector}" for collector in ("cpu", "meminfo", "netdev")]
            address = f"--web.listen-address=127.0.0.1:{NODE_PORT}"
            command += ["--collector.disable-defaults", *collectors, address]
            port = NODE_PORT
        else:
            command = [sys.executable, "-m", "lab.ran_exporter", f"--port={RAN_PORT}", f"--seed={self._seed}"]
            command.append(f"--record_seconds={self.scrape_seconds / PACE}")
            port = RAN_PORT
        stdin = subprocess.PIPE if name == "ran" else subprocess.DEVNULL
        self._start_server(f"{name}_exporter", command, port, stdin=stdin)

    def kill_exporter(self, name: str) -> None:
        """End the exporter `node` or `ran` as a crash would."""
        process = self._parts.pop(f"{name}_exporter")
        process.kill()
        process.wait()


def _check_memory() -> None:
    """Raise LabError if the attacks on the memory would take what other programs need."""
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(known[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    if available < NEEDED_MEMORY_SHARE * total:
        raise LabError(
            f"only {available / total:.0%} of the memory is available, the attacks need"
            f" {NEEDED_MEMORY_SHARE:.0%}: end other programs first"
        )


def stop(process: subprocess.Popen) -> None:
    """End a process in its own time, or by force after PROCESS_STOP_SECONDS."""
    process.terminate()
    try:
        process.wait(PROCESS_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until `is_true()`; LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise LabError(f"{what} is not ready after {seconds:g} s; see the logs in the output folder")
        time.sleep(0.05)
