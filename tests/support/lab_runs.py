"""Runs of the lab, and what of a run is still there."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


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

    def run(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
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
