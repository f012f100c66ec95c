"""The program as a user calls it, in this process: a process of its own takes most of a second to start."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import find_anomalies


class Done(NamedTuple):
    """What subprocess.run() would tell."""

    returncode: int
    stdout: str
    stderr: str


def run_here(
    *arguments: object, cwd: Path, environment: Mapping[str, str], absent: Sequence[str] = ()
) -> Done:
    """find_anomalies.main() in the folder `cwd`, with this environment alone, without the modules `absent`.

    Log, umask and signals of this process are as before then.
    """
    root = logging.getLogger()
    handlers, level, umask = root.handlers, root.level, os.umask(0o022)
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with (
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(cwd)
        for name in set(os.environ) - set(environment):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        for module in absent:
            patch.setitem(sys.modules, module, None)
        patch.setattr(sys, "argv", ["find_anomalies.py"])
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        root.handlers = []
        try:
            code = find_anomalies.main([*map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
        finally:
            root.handlers = handlers
            root.setLevel(level)
            os.umask(umask)
            for number, handler in signals.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
        for stream in (stdout, stderr):
            stream.seek(0)
        return Done(code, stdout.read(), stderr.read())
