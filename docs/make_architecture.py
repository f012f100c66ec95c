"""Write what docs/architecture.md takes from the code: `python docs/make_architecture.py`.

The page is written by hand, except for the parts between `<!-- NAME: ... -->` and `<!-- end -->`. Those come
from the modules: their imports, the first lines of their docstrings, and where a name is defined.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
PAGE = Path("docs/architecture.md")
# They hold code about the program, not the program.
NOT_ROOMS = ("docs", "tests")
# They measure the program or make data for it, so no step of the data's path is looked for here.
TOOLS = ("benchmarks", "lab", "simulators")

# The data's path, as chains of steps. A step is the name of a function or class, or in [] something else.
EDGE_PATH = (
    ("[InfluxDB: metrics]", "SampleSource", "format_record"),
    ("format_record", "write_dataset", "[dataset, CSV]", "load_records"),
    (
        "load_records",
        "normalization_stats",
        "split_sequences",
        "fit",
        "convert",
        "save_bundle",
        "[bundle in model/]",
    ),
    ("[bundle in model/]", "load_bundle", "score"),
    ("load_records", "score", "propose_thresholds", "[thresholds file]", "Detector"),
    ("format_record", "score", "Detector", "Incidents", "[log]"),
    ("Detector", "Store", "write_points", "[InfluxDB: anomalies]"),
)
PORTS_PATH = (
    ("[InfluxDB: port_traffic]", "get_port_samples", "Series"),
    ("[folder of CSV files]", "read_series", "Series"),
    ("Series", "Preparation", "fit_series", "[models in model/ports]", "judge"),
    ("Preparation", "judge", "Row", "insert_port_points", "[InfluxDB: anomalies]"),
)


class ArchitectureError(Exception):
    """The page and the code do not fit together; the message says what to change."""


class Module(NamedTuple):
    """One file.

    room: its top folder, or its own name where it lies in none. subject: first line of its docstring, or "".
    imports: dotted names of modules of the project. defines: names of its functions and classes.
    """

    name: str
    path: str
    room: str
    subject: str
    imports: frozenset[str]
    defines: frozenset[str]


def read_modules(root: Path) -> dict[str, Module]:
    """All modules of the project by dotted name, sorted by path: those in the top folder and in its rooms.

    A room is a folder with Python files in it. Imports count wherever they stand: within functions, too.
    """
    paths = {}
    for path in sorted(root.glob("*.py")) + sorted(root.glob("[!.]*/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] not in NOT_ROOMS and (len(parts) == 1 or any((root / parts[0]).glob("*.py"))):
            paths[".".join(parts).removesuffix(".__init__")] = path
    return {name: _read(name, path, root, paths) for name, path in paths.items()}


def _read(name: str, path: Path, root: Path, known: Collection[str]) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = {_known(word, known) for word in _imported(tree, package)} - {None, name}
    return Module(
        name=name,
        path=path.relative_to(root).as_posix(),
        room=name.partition(".")[0],
        subject=(ast.get_docstring(tree) or "").partition("\n")[0],
        imports=frozenset(found),
        defines=frozenset(_defined(tree)),
    )


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names of what is imported. `from a import b` gives a.b: a module, or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _known(word: str, known: Collection[str]) -> str | None:
    """The longest beginning of a dotted name that is a module of the project."""
    while word and word not in known:
        word = word.rpartition(".")[0]
    return word or None


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


# --- rooms ---------------------------------------------------------------------------------------


def room_imports(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Each room, and the other rooms that its modules import."""
    arrows: dict[str, set[str]] = {}
    for module in modules.values():
        others = {modules[name].room for name in module.imports} - {module.room}
        arrows.setdefault(module.room, set()).update(others)
    return arrows


def shortened(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that a longer way implies: a -> c where there are a -> b -> c.

    Where arrows form a circle all of them are kept.
    """
    below = {room: _below(room, arrows) for room in arrows}
    if any(room in rooms for room, rooms in below.items()):
        return {room: set(rooms) for room, rooms in arrows.items()}
    return {room: rooms - set().union(*(below[other] for other in rooms)) for room, rooms in arrows.items()}


def _below(room: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """All rooms that arrows from this one lead to, on however long a way."""
    found: set[str] = set()
    waiting = set(arrows[room])
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting |= arrows[one] - found
    return found


def draw_rooms(modules: Mapping[str, Module]) -> str:
    """A Mermaid diagram of the rooms, with arrows from each to those that it imports, shortened."""
    arrows = shortened(room_imports(modules))
    titles = _titles(modules)
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {room}["{titles[room]}"]' for room in sorted(arrows)]
    lines += [f"    {room} --> {other}" for room in sorted(arrows) for other in sorted(arrows[room])]
    return "\n".join([*lines, "```"])


def list_modules(modules: Mapping[str, Module]) -> str:
    """A table for the top folder and for each room: modules, and what each is about.

    A room's table follows a line with its subject and all rooms that it imports.
    """
    arrows, titles = room_imports(modules), _titles(modules)

    def imports(room: str) -> str:
        return ", ".join(f"`{titles[other]}`" for other in sorted(arrows[room])) or "no other room"

    files = [room for room in sorted(arrows) if room in modules and "/" not in modules[room].path]
    rows = [(f"`{room}.py`", modules[room].subject, imports(room)) for room in files]
    blocks = ["### The top folder", _table(("module", "subject", "imports"), rows)] if files else []
    for room in sorted(arrows.keys() - files):
        own = [module for module in modules.values() if module.room == room]
        subject = "".join(f"{module.subject} " for module in own if module.name == room and module.subject)
        rows = [(f"`{module.path}`", module.subject) for module in own if module.name != room]
        blocks += [
            f"### `{room}/`",
            f"{subject}Imports {imports(room)}.",
            _table(("module", "subject"), rows),
        ]
    return "\n\n".join(blocks)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *cells))


def _titles(modules: Mapping[str, Module]) -> dict[str, str]:
    """What a room is called: `edge/`, `find_anomalies.py`."""
    return {one.room: f"{one.room}/" if "/" in one.path else one.path for one in modules.values()}


# --- the data's path ------------------------------------------------------------------------------


def draw_path(chains: Sequence[Sequence[str]], modules: Mapping[str, Module], skip: Collection[str]) -> str:
    """A Mermaid diagram of chains of steps, each step with the file that defines it.

    skip: rooms that are not looked in. Raises ArchitectureError where a step is defined nowhere, or twice.
    """
    steps = dict.fromkeys(step for chain in chains for step in chain)
    pairs = dict.fromkeys(pair for chain in chains for pair in zip(chain, chain[1:], strict=False))
    names = {step: f"s{number}" for number, step in enumerate(steps)}
    lines = ["```mermaid", "flowchart TD"]
    for step in steps:
        if step.startswith("["):
            lines.append(f'    {names[step]}(["{step.strip("[]")}"])')
        else:
            lines.append(f'    {names[step]}["{step}<br>{where(step, modules, skip)}"]')
    lines += [f"    {names[step]} --> {names[after]}" for step, after in pairs]
    return "\n".join([*lines, "```"])


def where(name: str, modules: Mapping[str, Module], skip: Collection[str]) -> str:
    """The path of the module that defines a function or class. Raises ArchitectureError unless it is one."""
    found = [one.path for one in modules.values() if name in one.defines and one.room not in skip]
    if len(found) != 1:
        raise ArchitectureError(
            f"{name}, a step of the data's path, is defined in {', '.join(found) or 'no module'};"
            " correct EDGE_PATH or PORTS_PATH in docs/make_architecture.py"
        )
    return found[0]


# --- the page -------------------------------------------------------------------------------------


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with these parts replaced. Raises ArchitectureError where one has no place in it."""
    for name, text in parts.items():
        pattern = rf"(?s)(<!-- {re.escape(name)}: [^\n]* -->\n)(?:(?!<!-- ).)*(<!-- end -->)"
        page, count = re.subn(pattern, lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)
        if count != 1:
            raise ArchitectureError(f"{PAGE} needs one part <!-- {name}: ... --> that ends with <!-- end -->")
    return page


def made_page(root: Path) -> str:
    """The page as it has to be."""
    modules = read_modules(root)
    parts = {
        "rooms": draw_rooms(modules),
        "edge path": draw_path(EDGE_PATH, modules, (*TOOLS, "ports")),
        "ports path": draw_path(PORTS_PATH, modules, (*TOOLS, "edge")),
        "modules": list_modules(modules),
    }
    return fill((root / PAGE).read_text(encoding="utf-8"), parts)


def main() -> int:
    try:
        (PROJECT / PAGE).write_text(made_page(PROJECT), encoding="utf-8")
    except ArchitectureError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
