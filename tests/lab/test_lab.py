"""The lab as a user meets it: a short run on real parts, and how it ends when something goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from edge.datasets import loadDataset
from lab.parts import PACKAGES, environment, find
from lab.report import table
from nodes.metrics import CPU_SECONDS
from tests.support.load import OtherLoad
from tests.support.metrics import MEASUREMENTS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy/prometheus.yml"
# The lab attacks this machine and watches it: nothing else may go on here meanwhile.
pytestmark = pytest.mark.alone
# It takes three minutes; a machine that is busy with other things may take longer.
SHORT_SECONDS = 420
PNG = b"\x89PNG\r\n\x1a\n"


# --- deploy/prometheus.yml -----------------------------------------------------------------------


def test_promtool_accepts_the_shipped_configuration() -> None:
    done = subprocess.run(
        [find("promtool"), "check", "config", "--lint-fatal", CONFIG],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def keeps() -> Callable[[str], bool]:
    """Whether the shipped rule keeps a series, given as its name and its label `mode`, `;` between them."""
    text = CONFIG.read_text()
    rules = re.findall(
        r'- source_labels: \[__name__, mode\]\n +regex: "([^"]*)"\n +action: (\w+)\n', text, re.DOTALL
    )
    assert [action for _, action in rules] == ["keep"]
    assert text.count("action:") == 1
    # A backslash at the end of a line of a quoted YAML string joins it with the next one.
    regex = re.compile(re.sub(r"\\\n *", "", rules[0][0]))
    return lambda series: regex.fullmatch(series) is not None


def test_the_series_that_we_read_are_written_on() -> None:
    wanted = {f"{name};{'user' if name == CPU_SECONDS else ''}" for name in MEASUREMENTS}
    assert [series for series in wanted if not keeps()(series)] == []


@pytest.mark.parametrize(
    "series",
    [
        "up;",
        "scrape_duration_seconds;",
        "node_memory_Cached_bytes;",
        "node_memory_MemAvailable_bytes;",
        "node_cpu_seconds_total;",
        "node_cpu_seconds_total;idle",
        "node_cpu_seconds_total;iowait",
        "node_cpu_guest_seconds_total;user",
        "node_network_receive_packets_total;",
        "node_network_transmit_errs_total;",
        "rx_cpu_time_total;",
        "my_dl_bitrate;",
        "process_cpu_seconds_total;",
    ],
)
def test_no_other_series_is_written_on(series: str) -> None:
    assert not keeps()(series)


def test_both_exporters_are_scraped_and_written_to_the_default_database() -> None:
    text = CONFIG.read_text()
    assert re.findall(r"- job_name: (\w+)\n.*\n +- targets: (.*)\n", text) == [
        ("node", '["localhost:9100"]'),
        ("ran", '["localhost:9099"]'),
    ]
    assert re.findall(r"\burl: (.*)\n", text) == ["http://localhost:8086/api/v1/prom/write?db=metrics_db"]


# --- runs ----------------------------------------------------------------------------------------


def started(marker: str) -> dict[int, str]:
    """Command lines, by process id, of the processes that have `marker` in their environment."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode()
        except OSError:
            # Ended meanwhile, or another user's.
            continue
    return found


class Lab(NamedTuple):
    """What to run the lab with; all that it starts inherits `marker`."""

    command: list[str]
    settings: dict[str, Any]
    marker: str

    def run(self, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """One run to its end; nothing of it may be left."""
        pipes = {"stdin": subprocess.DEVNULL, "capture_output": True}
        try:
            done = subprocess.run(self.command, timeout=timeout, **pipes, **self.settings)
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"").decode()
            pytest.fail(f"the lab has not ended after {timeout:g} s, it said:\n{said}", pytrace=False)
        assert started(self.marker) == {}
        return done


def prepare(*arguments: object, cwd: Path = ROOT, path: str = "") -> Lab:
    """The lab with these options in the folder `cwd`; `path` comes first in PATH."""
    marker = uuid.uuid4().hex
    needed = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    needed["PATH"] = f"{path}{needed.get('PATH', os.defpath)}"
    settings = {"cwd": cwd, "env": needed | {"LAB_TEST": marker}, "text": True}
    return Lab([sys.executable, "-m", "lab", *map(str, arguments)], settings, marker)


class ShortRun(NamedTuple):
    done: subprocess.CompletedProcess[str]
    folder: Path
    result: dict[str, Any]
    other_load: OtherLoad


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    """`--short`, with a life in which the gNB goes on as it did in the time that is trained on.

    In that of other seeds it soon does what it never did before, and is rightly flagged for it.
    """
    output = tmp_path_factory.mktemp("lab")
    other_load = OtherLoad()
    with other_load.excuses():
        with other_load:
            done = prepare("--short", "--seed", 3, "--output_dir", output).run(SHORT_SECONDS)
        assert done.returncode == 0, done.stderr
    (folder,) = output.iterdir()
    return ShortRun(done, folder, json.loads((folder / "lab.json").read_text()), other_load)


def test_short_run_finds_both_attacks_with_their_true_causes(short_run: ShortRun) -> None:
    rows = short_run.result["ours"]["attacks"]
    assert [(row["attack"], row["true_causes"]) for row in rows] == [
        ("all CPUs", ["cpu"]),
        ("TCP up", ["net_up"]),
    ]
    with short_run.other_load.excuses():
        for row in rows:
            assert row["is_found"]
            assert set(row["true_causes"]) <= set(row["causes"])
            assert 1 <= row["polls_to_first"] <= row["records"]
            assert row["seconds_to_alert"] is not None
            assert 0 <= row["seconds_to_first"] <= row["seconds_to_alert"]
        assert short_run.result["ours"]["found"] == 2


def test_short_run_attacked_a_host_that_lived(short_run: ShortRun) -> None:
    frame = loadDataset(short_run.folder / "data/run.csv")
    life = loadDataset(short_run.folder / "data/normal.csv")
    # What lab/life.py says, and beside it what the lab itself takes.
    with short_run.other_load.excuses():
        assert life["cpu_user_percentage"].median() < 60
    assert life["cpu_user_percentage"].median() > 4
    assert 0.5e6 < life["bytes_received_rate"].median() < 5e6
    assert 0.2e6 < life["bytes_transmitted_rate"].median() < 2e6
    for row, column, level in zip(
        short_run.result["ours"]["attacks"],
        ("cpu_user_percentage", "bytes_transmitted_rate"),
        (80, 10e6),
        strict=True,
    ):
        start, end = (pd.Timestamp(row[key]) for key in ("start", "end"))
        attacked = frame.loc[(frame.index >= start) & (frame.index < end), column]
        with short_run.other_load.excuses():
            assert 8 <= row["records"] <= 16
            assert attacked.median() > level


def test_short_run_stored_what_test_mode_said(short_run: ShortRun) -> None:
    result = short_run.result
    assert result["anomalies_published"] == result["anomalies_stored"]
    with short_run.other_load.excuses():
        assert result["anomalies_stored"] > 0
    said = (short_run.folder / "test_mode.log").read_text()
    assert len(re.findall(r' INFO \{"time": ', said)) == result["anomalies_published"]
    assert result["measurements"] == sorted([*MEASUREMENTS, "detected_anomalies"])


def test_short_run_prints_its_tables_and_nothing_else(short_run: ShortRun) -> None:
    result = short_run.result
    assert short_run.done.stdout == (
        f"{table(result['ours'])}\n\n"
        "The same records by the documented rule, window RMSE over its threshold alone:\n\n"
        f"{table(result['documented_rule'])}\n\n"
        f"anomalies published: {result['anomalies_published']}, stored in InfluxDB:"
        f" {result['anomalies_stored']}\n"
    )
    assert "Traceback" not in short_run.done.stderr
    lines = short_run.done.stdout.splitlines()
    assert re.fullmatch(r"attack +polls to first .* causes given +true causes +found", lines[0])
    with short_run.other_load.excuses():
        assert re.fullmatch(r"all CPUs +\d+ +[\d.]+ +[\d.]+ +\d+ +[\d.]+  .*\bcpu\b.*  cpu +yes", lines[1])
        assert re.fullmatch(
            r"TCP up +\d+ +[\d.]+ +[\d.]+ +\d+ +[\d.]+  .*\bnet_up\b.*  net_up +yes", lines[2]
        )


def test_short_run_draws_its_timeline_and_its_alerts(short_run: ShortRun) -> None:
    pictures = [short_run.folder / "timeline.png", *(short_run.folder / "alerts").glob("*.png")]
    with short_run.other_load.excuses():
        assert len(pictures) >= 2
    for picture in pictures:
        content = picture.read_bytes()
        assert (content[:8], content[-8:-4], len(content) > 10_000) == (PNG, b"IEND", True), picture


def test_short_run_used_the_shipped_configuration_and_kept_no_database(short_run: ShortRun) -> None:
    used = (short_run.folder / "prometheus.yml").read_text()
    assert used.replace("scrape_interval: 1000ms", "scrape_interval: 15s") == CONFIG.read_text() != used
    assert not (short_run.folder / "influxdb").exists()
    assert not (short_run.folder / "prometheus").exists()


# --- interrupted ---------------------------------------------------------------------------------

PARTS = (
    "-m lab.run ",
    "lab.life serve",
    "lab.life live",
    "lab.ran_exporter",
    "influxd",
    "prometheus --config",
    "prometheus-node-exporter",
    "iperf3 -s",
)


class Running(NamedTuple):
    process: subprocess.Popen[str]
    marker: str

    def read_until(self, text: str) -> None:
        """Until standard error has a line with `text`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return
        pytest.fail(f"the lab ended without a line that has '{text}'")

    def assert_interrupted(self) -> None:
        """It ends in time with one line, and everything else before it."""
        assert self.process.wait(30) == 130
        assert started(self.marker) == {}
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        assert self.process.stdout.read() == ""
        assert self.process.stderr.read() == "lab: interrupted; everything it had started was ended\n"


@contextlib.contextmanager
def running(output: Path, *before: str) -> Iterator[Running]:
    """The lab in a process group of its own, as a shell starts it; ended after a minute at the latest.

    before: a command that is to run it.
    """
    lab = prepare("--short", "--output_dir", output)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*before, *lab.command], process_group=0, **pipes, **lab.settings) as process:
        timer = threading.Timer(60, process.kill)
        timer.start()
        try:
            yield Running(process, lab.marker)
        finally:
            timer.cancel()
            process.kill()
            for left in started(lab.marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)


def wait_until_nothing_is_left(marker: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := started(marker):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as lab:
        lab.read_until("recorded into")
        lines = started(lab.marker).values()
        assert [part for part in PARTS if not any(part in line for line in lines)] == []
        if number == signal.SIGINT:
            # Ctrl-C is for all of the group.
            os.killpg(lab.process.pid, number)
        else:
            lab.process.send_signal(number)
        lab.assert_interrupted()


# A shell starts what it runs in the background so.
IN_BACKGROUND = ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")


def test_killed_run_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, *IN_BACKGROUND) as lab:
        lab.read_until("recorded into")
        assert len(started(lab.marker)) > len(PARTS)
        lab.process.kill()
        wait_until_nothing_is_left(lab.marker, 15)


def test_run_interrupted_while_it_starts_ends_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        deadline = time.monotonic() + 20
        while not any(
            line.startswith(f"{sys.executable} -m lab.run") for line in started(lab.marker).values()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lab.process.send_signal(signal.SIGINT)
        lab.assert_interrupted()


# --- what is broken or missing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("prometheus", r"prometheus did not start, see \S+/prometheus\.log: boom"),
        ("prometheus-node-exporter", r"node_exporter did not start, see \S+/node_exporter\.log: boom"),
        ("influxd", r"influxd did not start, see \S+/influxdb/influxd\.log: boom"),
        ("promtool", r"promtool refuses deploy/prometheus\.yml: boom"),
        ("ip", r"ip link set lo up failed: boom; run the lab as root on the host"),
        ("unshare", r"namespaces cannot be made here; run the lab as root on the host"),
    ],
)
def test_a_part_that_does_not_start_is_said_in_one_line(tmp_path: Path, program: str, message: str) -> None:
    broken = tmp_path / "path" / program
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho boom >&2\nexit 1\n")
    broken.chmod(0o755)
    done = prepare("--short", "--output_dir", tmp_path / "out", path=f"{broken.parent}:").run()
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"lab: {message}\n", done.stderr), done.stderr


def test_missing_parts_are_said_in_one_line(tmp_path: Path) -> None:
    for source in ROOT.glob("*.py"):
        shutil.copy(source, tmp_path)
    for folder in ("commands", "common", "deploy", "edge", "lab", "nodes", "ports", "service"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "path").mkdir()
    lab = prepare("--short", "--output_dir", tmp_path / "out", cwd=tmp_path)
    lab.settings["env"]["PATH"] = str(tmp_path / "path")
    done = lab.run()
    # The sbin folders are searched whatever PATH says.
    missing = [program for program in PACKAGES if shutil.which(program, path="/usr/sbin:/sbin") is None]
    packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"lab: {', '.join(missing)} are missing: run lab/get_parts.sh or apt-get install {packages}\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--long"], "unrecognized arguments: --long"),
        (["--interval", "0.5"], "argument --interval: '0.5' is not a number from 1 to 60"),
        (["--interval", "soon"], "argument --interval: 'soon' is not a number from 1 to 60"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number, 0 or more"),
        (["twice"], "unrecognized arguments: twice"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = prepare(*arguments).run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m lab ")
    assert done.stderr.endswith(f"\npython -m lab: error: {message}\n")
