"""How busy other programs keep this machine while a test runs, and how slow that makes it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Of one CPU. What is to be found takes all of them; what must not be found takes half of one.
QUIET_CPUS = 0.3


def seconds_to_start(least: int) -> int:
    """What a daemon takes to start, now, three times over; at least so many."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import commands.edge, edge.daemon"], cwd=ROOT, check=True)
    return max(least, int(3 * (time.monotonic() - begin)) + 1)


class OtherLoad:
    """CPUs that were taken, on average, by what this process and its children did not do."""

    def __enter__(self) -> Self:
        self.cpus = 0.0
        self._before = (time.monotonic(), _others_seconds())
        return self

    def __exit__(self, *exception: object) -> None:
        begin, before = self._before
        self.cpus = max(_others_seconds() - before, 0.0) / (time.monotonic() - begin)

    @contextlib.contextmanager
    def excuses(self) -> Iterator[None]:
        """What fails inside the `with` is skipped where other programs were busy, in a line that says so."""
        try:
            yield
        except (AssertionError, pytest.fail.Exception) as failure:
            words = f"other programs took {self.cpus:.1f} CPUs meanwhile; this needs a machine for itself"
            if self.cpus > QUIET_CPUS:
                pytest.skip(words)
            failure.add_note(words)
            raise


def _others_seconds() -> float:
    """CPU seconds of this machine since it started, but for our own and those of our children that ended."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, words)
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy - sum(usage.ru_utime + usage.ru_stime for usage in usages)
