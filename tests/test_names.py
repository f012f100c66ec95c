"""One meaning for a name: no two modules define a class or a constant of the same name."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.test_house import FLOORS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = tuple(room for floor in FLOORS for room in floor if (ROOT / room).is_dir())


def modules(root: Path) -> list[Path]:
    """The program's own modules: those at the top, and those of each room."""
    return sorted([*root.glob("*.py"), *(path for room in ROOMS for path in (root / room).glob("*.py"))])


def public_names(tree: ast.Module) -> set[str]:
    """The classes, type aliases and constants that a module defines, without those that begin with `_`."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        parts = [part for target in targets for part in getattr(target, "elts", [target])]
        # A logger in small letters is the same thing in all modules.
        found |= {part.id for part in parts if isinstance(part, ast.Name) and part.id != part.id.lower()}
    return {name for name in found if not name.startswith("_")}


def defined_twice(root: Path) -> dict[str, list[str]]:
    """Name -> the modules that define it, where there are several."""
    where: dict[str, list[str]] = {}
    for path in modules(root):
        for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
            where.setdefault(name, []).append(str(path.relative_to(root)))
    return {name: paths for name, paths in where.items() if len(paths) > 1}


def test_no_class_and_no_constant_is_defined_twice() -> None:
    assert defined_twice(ROOT) == {}


def test_every_room_is_looked_into() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests", "docs"}
    assert rooms == set(ROOMS)


def test_a_name_that_is_defined_twice_is_found(tmp_path: Path) -> None:
    for room, text in {
        "edge": "class Verdict:\n    pass\nA, B = 1, 2\nlogger = 1\n_C = 3\nPoint = dict[str, int]\n",
        "ports": "class Verdict:\n    pass\nB: int = 2\nlogger = 1\n_C = 3\nfor i in range(3):\n    A = i\n",
        "lab": "Point = list[int]\n",
    }.items():
        (tmp_path / room).mkdir()
        (tmp_path / room / "x.py").write_text(text)
    paths = ["edge/x.py", "ports/x.py"]
    assert defined_twice(tmp_path) == {"Verdict": paths, "B": paths, "Point": ["edge/x.py", "lab/x.py"]}
