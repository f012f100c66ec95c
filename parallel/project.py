"""A zip file of the modules that a worker needs."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def pack_project(archive: str | Path, root: Path, room: str) -> None:
    """Write a zip file of a room and all modules that it imports from the project at `root`."""
    with zipfile.ZipFile(archive, "w") as content:
        for path in _imported_files(root, sorted(root.glob(f"{room}/*.py"))):
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
