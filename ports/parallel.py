"""All series in parallel: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import UserError
from common.times import last_midnight
from ports.sources import UnavailableError

if TYPE_CHECKING:
    from dask.distributed import Client

# So many are read from InfluxDB before they are handed out.
CHUNK_SERIES = 200
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Cluster:
    """Where the work is done: `jobs` processes here, or the workers of a Dask scheduler (its address)."""

    jobs: int
    scheduler: str | None = None


def in_parallel(
    function: Callable[..., Any], tasks: Iterable[tuple], count: int, cluster: Cluster, what: str
) -> Iterator[Any]:
    """Results in any order, with a progress bar. Tasks are taken from their iterator in this process."""
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, delayed
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    tasks = iter(tasks)
    # Where nobody watches, as under systemd, a bar is noise.
    bar = tqdm(total=count, desc=what, unit="series", disable=None)
    with _backend(cluster), bar, logging_redirect_tqdm():
        while chunk := list(itertools.islice(tasks, CHUNK_SERIES)):
            run = Parallel(n_jobs=cluster.jobs, return_as="generator_unordered")
            try:
                for result in run(delayed(function)(*task) for task in chunk):
                    bar.update()
                    yield result
            except BrokenProcessPool:
                raise UserError(
                    "a worker process was killed, perhaps for want of memory; give fewer --jobs"
                ) from None


@contextlib.contextmanager
def _backend(cluster: Cluster) -> Iterator[None]:
    """Where joblib runs what is inside the `with`."""
    if cluster.scheduler is None:
        yield
        return
    import joblib
    from dask.distributed import Client

    try:
        client = Client(cluster.scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError):
        raise UnavailableError(
            f"{cluster.scheduler}: no Dask scheduler answers there; check --scheduler"
        ) from None
    with client, joblib.parallel_config(backend="dask"):
        if not client.scheduler_info()["workers"]:
            raise UnavailableError(
                f"{cluster.scheduler}: has no workers; start `dask worker {cluster.scheduler}`"
            )
        _send_project(client, cluster.scheduler)
        yield


def _send_project(client: Client, scheduler: str) -> None:
    """Give scheduler and workers the modules that a task needs; what else it needs is in requirements.txt."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "find_anomalies_ports.zip"
        pack_project(archive, Path(__file__).resolve().parent.parent)
        try:
            client.upload_file(str(archive))
            # Joblib would wait for ever for workers that cannot load a task.
            client.submit(last_midnight, 0, "UTC").result(timeout=CONNECT_SECONDS)
        # Whatever they raise comes back from there.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{scheduler}: its workers cannot run this project ({reason}); install requirements.txt there"
            ) from None


def pack_project(archive: str | Path, root: Path) -> None:
    """Write a zip file of what ports/ may import of the project at `root`, and of ports/ itself."""
    with zipfile.ZipFile(archive, "w") as content:
        for pattern in (
            "influx_utils.py",
            "formatters.py",
            "common/*.py",
            "nodes/*.py",
            "service/*.py",
            "ports/*.py",
        ):
            for path in sorted(root.glob(pattern)):
                content.write(path, path.relative_to(root))
