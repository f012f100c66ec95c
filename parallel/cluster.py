"""Many tasks in parallel: in processes of this machine, or on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.files import UnavailableError, UserError
from common.times import last_midnight
from parallel.progress import ProgressLines
from parallel.project import pack_project
from service.systemd import notify_systemd

if TYPE_CHECKING:
    from dask.distributed import Client

# This many tasks are made, from samples of InfluxDB or a folder, before they are handed out.
CHUNK_TASKS = 200
CONNECT_SECONDS = 10
# A process that joblib starts is given this option.
CLEARING = "ignore:resource_tracker:UserWarning"

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cluster:
    """Where the work is done: by `jobs` processes here, or by the workers of a Dask scheduler (its address).

    connect_seconds: how long the scheduler and its workers may take to answer.
    """

    jobs: int
    scheduler: str | None = None
    connect_seconds: float = CONNECT_SECONDS


def in_parallel(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    count: int,
    cluster: Cluster,
    what: str,
    unit: str = "series",
) -> Iterator[Result]:
    """Yield the results in any order, with a progress bar; where nobody sees that, with a line now and then.

    This process iterates over the tasks. Each result feeds the watchdog, because hundreds of tasks take
    minutes. Raises UserError for a worker that was killed, and for a cluster that cannot be used.
    """
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, delayed
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    # A signal ends the job in the middle of its work, about which joblib would warn, and so would the process
    # that clears away what is left of it.
    warnings.filterwarnings("ignore", r"\d+ tasks which", UserWarning)
    if CLEARING not in sys.warnoptions:
        sys.warnoptions.append(CLEARING)
    tasks = iter(tasks)
    # Where nobody watches, as under systemd, a bar is noise.
    bar = tqdm(total=count, desc=what, unit=unit, disable=None)
    progress = ProgressLines(what, count)
    with _backend(cluster, function.__module__.partition(".")[0]), bar, logging_redirect_tqdm():
        while chunk := list(itertools.islice(tasks, CHUNK_TASKS)):
            run = Parallel(n_jobs=cluster.jobs, return_as="generator_unordered")
            try:
                for result in run(delayed(function)(task) for task in chunk):
                    bar.update()
                    if bar.disable:
                        progress.step()
                    notify_systemd("WATCHDOG=1")
                    yield result
            except BrokenProcessPool:
                raise UserError(
                    "a worker process was killed, perhaps because memory ran out; give fewer --jobs"
                ) from None


@contextlib.contextmanager
def _backend(cluster: Cluster, room: str) -> Iterator[None]:
    """Let joblib run what is inside the `with` on the cluster. room: where its function is defined."""
    if cluster.scheduler is None:
        yield
        return
    import joblib
    from dask.distributed import Client

    try:
        client = Client(cluster.scheduler, timeout=cluster.connect_seconds)
    except (OSError, ValueError):
        raise UnavailableError(
            f"{cluster.scheduler}: no Dask scheduler answers there; check --scheduler", "scheduler"
        ) from None
    with client, joblib.parallel_config(backend="dask"):
        if not client.scheduler_info()["workers"]:
            raise UnavailableError(
                f"{cluster.scheduler}: has no workers; start `dask worker {cluster.scheduler}`", "scheduler"
            )
        _send_project(client, cluster, room)
        yield


def _send_project(client: Client, cluster: Cluster, room: str) -> None:
    """Send a room, and all modules that it imports, to scheduler and workers, which have the packages."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / f"find_anomalies_{room}.zip"
        pack_project(archive, Path(__file__).resolve().parent.parent, room)
        try:
            client.upload_file(str(archive))
            # A trial: joblib would wait for ever for workers that cannot load a task.
            client.submit(last_midnight, 0, "UTC").result(timeout=cluster.connect_seconds)
        # Whatever the workers raise is raised here.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{cluster.scheduler}: its workers cannot run this project ({reason});"
                " install requirements.txt there"
            ) from None
