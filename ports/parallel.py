"""All series in parallel: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import ast
import contextlib
import itertools
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.files import UserError
from common.times import last_midnight
from ports.sources import UnavailableError
from service.systemd import notify_systemd

if TYPE_CHECKING:
    from dask.distributed import Client

# This many series are read from InfluxDB before they are handed out.
CHUNK_SERIES = 200
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
    function: Callable[[Task], Result], tasks: Iterable[Task], count: int, cluster: Cluster, what: str
) -> Iterator[Result]:
    """Yield the results in any order, with a progress bar. This process iterates over the tasks.

    Each result feeds the watchdog, because hundreds of series take minutes. Raises UserError for a worker
    that was killed, and for a cluster that cannot be used.
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
    bar = tqdm(total=count, desc=what, unit="series", disable=None)
    with _backend(cluster), bar, logging_redirect_tqdm():
        while chunk := list(itertools.islice(tasks, CHUNK_SERIES)):
            run = Parallel(n_jobs=cluster.jobs, return_as="generator_unordered")
            try:
                for result in run(delayed(function)(task) for task in chunk):
                    bar.update()
                    notify_systemd("WATCHDOG=1")
                    yield result
            except BrokenProcessPool:
                raise UserError(
                    "a worker process was killed, perhaps because memory ran out; give fewer --jobs"
                ) from None


@contextlib.contextmanager
def _backend(cluster: Cluster) -> Iterator[None]:
    """Let joblib run what is inside the `with` on the cluster."""
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
        _send_project(client, cluster)
        yield


def _send_project(client: Client, cluster: Cluster) -> None:
    """Send the project's modules to scheduler and workers; packages come from their requirements.txt."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "find_anomalies_ports.zip"
        pack_project(archive, Path(__file__).resolve().parent.parent)
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


def pack_project(archive: str | Path, root: Path) -> None:
    """Write a zip file of ports/ and all modules that it imports from the project at `root`."""
    with zipfile.ZipFile(archive, "w") as content:
        for path in _imported_files(root, sorted(root.glob("ports/*.py"))):
            content.write(path, path.relative_to(root))


def _imported_files(root: Path, files: Iterable[Path]) -> list[Path]:
    """These files, and all files of the project at `root` that they import, directly or indirectly."""
    found: dict[Path, None] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [part for name in _imported_names(path) for part in _files_of(root, name)]
    return sorted(found)


def _imported_names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(root: Path, name: str) -> Iterator[Path]:
    """Files of the project that Python runs to import `a.b.c`: those of a, a/b and a/b/c."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        yield from (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
