"""The house: which room may use which, shown by the imports of all modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Arrows run down: a module imports modules of its own room and of lower floors alone.
FLOORS = (
    ("common",),
    ("influx_client",),
    ("nodes", "service", "influx_versions"),
    ("influx_utils", "prometheus_utils", "formatters", "parallel"),
    ("edge", "ports"),
    ("commands", "simulators"),
    ("find_anomalies", "utils"),
    ("lab",),
    ("benchmarks",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the program."""
    found = {}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in ("tests", "docs"):
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """The program's modules that a file imports anywhere, also inside functions and for type hints alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [
                inner if (inner := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            ]
        else:
            continue
        found.update(name for name in names if name in MODULES)
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_room_with_a_floor() -> None:
    assert {room(name) for name in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_runs_upwards_or_across(module: str) -> None:
    ours = room(module)
    wrong = [
        name for name in IMPORTS[module] if room(name) != ours and FLOOR_OF[room(name)] >= FLOOR_OF[ours]
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for name in sorted(IMPORTS[module]):
                visit(name, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_common_knows_nothing_of_the_product() -> None:
    words = ("edge", "gNB", "5G", "interface", "cpu", "prometheus", "influx")
    for path in (ROOT / "common").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert [name for name in names if any(word in name.lower() for word in words)] == []


def test_the_imports_that_are_walked_are_those_that_there_are() -> None:
    assert {"common.alerts", "influx_utils", "nodes.metrics"} <= IMPORTS["edge.watch"]
    assert "ports.hourly" in IMPORTS["commands.ports"]
    assert IMPORTS["common.alerts"] == set()
