"""How the lab ends when it is interrupted, and when a part of it is broken or missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.__main__ import main
from lab.parts import PACKAGES
from tests.support.lab_runs import ROOT, prepare, started

pytestmark = pytest.mark.long

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
        assert self.process.wait(60) == 130
        assert started(self.marker) == {}
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        assert self.process.stdout.read() == ""
        assert self.process.stderr.read() == "lab: interrupted; everything it had started was ended\n"


@contextlib.contextmanager
def running(output: Path, *before: str) -> Iterator[Running]:
    """The lab in a process group of its own, as a shell starts it; ended after three minutes at the latest.

    before: a command that is to run it.
    """
    lab = prepare("--short", "--output_dir", output)
    # What the lab reads before it records, so that it is in the page cache, takes seconds to import.
    modules = output / "modules"
    modules.mkdir()
    (modules / "tensorflow.py").touch()
    lab.settings["env"]["PYTHONPATH"] = str(modules)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*before, *lab.command], process_group=0, **pipes, **lab.settings) as process:
        timer = threading.Timer(180, process.kill)
        timer.start()
        try:
            yield Running(process, lab.marker)
        finally:
            timer.cancel()
            process.kill()
            for left in started(lab.marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)


def wait_until_all_run(marker: str) -> None:
    """Until all parts run, which is long before anything is recorded."""
    deadline = time.monotonic() + 60
    while missing := [part for part in PARTS if not any(part in line for line in started(marker).values())]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def wait_until_nothing_is_left(marker: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := started(marker):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as lab:
        if number == signal.SIGINT:
            lab.read_until("recorded into")
            wait_until_all_run(lab.marker)
            # Ctrl-C is for all of the group.
            os.killpg(lab.process.pid, number)
        else:
            wait_until_all_run(lab.marker)
            lab.process.send_signal(number)
        lab.assert_interrupted()


# A shell starts what it runs in the background so.
IN_BACKGROUND = ("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh")


def test_killed_run_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, *IN_BACKGROUND) as lab:
        wait_until_all_run(lab.marker)
        lab.process.kill()
        wait_until_nothing_is_left(lab.marker, 60)


def test_run_interrupted_while_it_starts_ends_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path) as lab:
        deadline = time.monotonic() + 60
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
def test_wrong_usage(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith("usage: python -m lab ")
    assert printed.err.endswith(f"\npython -m lab: error: {message}\n")
