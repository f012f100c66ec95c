"""A Dask cluster on this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# A process of its own: what is sent to a scheduler is loaded there, anew.
_CLUSTER = """
import sys
from dask.distributed import LocalCluster
if __name__ == "__main__":
    options = {"n_workers": int(sys.argv[1]), "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    with LocalCluster(**options, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def dask_cluster(workers: int, folder: Path) -> Iterator[str]:
    """Starts so many workers in a folder; yields the address of their scheduler."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(workers)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        try:
            yield cluster.stdout.readline().strip()
        finally:
            # The end of its input ends it.
            cluster.stdin.close()
    assert cluster.returncode == 0
