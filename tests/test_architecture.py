"""docs/architecture.md is what the code is: rooms, their imports, modules and the data's path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/make_architecture.py. It is no part of a package, and `docs` may be one that is installed."""
    spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs/make_architecture.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


HOUSE = {
    "main.py": '"""The entry | point."""\nimport halls.near\nimport os\n',
    "halls/__init__.py": '"""Where guests are."""\n',
    "halls/near.py": '"""Near."""\nfrom halls import far\n\n\ndef work():\n    import cellar.wine\n',
    "halls/far.py": "from . import near\nfrom cellar import wine\n",
    "cellar/__init__.py": "",
    "cellar/wine.py": '"""Wine.\n\nRed."""\n\n\ndef open_one():\n    pass\n',
    "cellar/deep/barrel.py": '"""A barrel."""\n',
    # None of them is a room.
    "tests/test_wine.py": "import main\n",
    ".venv/lib.py": "import main\n",
    "data/deep/notes.py": "import main\n",
}


def test_the_page_is_what_the_code_is(script: ModuleType) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert page == script.made_page(ROOT), "run `python docs/make_architecture.py`"


def test_every_room_is_in_the_diagram_with_an_arrow_to_what_it_imports(
    script: ModuleType, tmp_path: Path
) -> None:
    modules = script.read_modules(write(tmp_path, HOUSE))
    assert script.draw_rooms(modules).split("\n") == [
        "```mermaid",
        "flowchart TD",
        '    cellar["cellar/"]',
        '    halls["halls/"]',
        '    main["main.py"]',
        "    halls --> cellar",
        "    main --> halls",
        "```",
    ]


def test_every_module_is_listed_with_the_first_line_of_its_docstring(
    script: ModuleType, tmp_path: Path
) -> None:
    modules = script.read_modules(write(tmp_path, HOUSE))
    assert script.list_modules(modules).split("\n") == [
        "### The top folder",
        "",
        "| module | subject | imports |",
        "| --- | --- | --- |",
        "| `main.py` | The entry \\| point. | `halls/` |",
        "",
        "### `cellar/`",
        "",
        "Imports no other room.",
        "",
        "| module | subject |",
        "| --- | --- |",
        "| `cellar/deep/barrel.py` | A barrel. |",
        "| `cellar/wine.py` | Wine. |",
        "",
        "### `halls/`",
        "",
        "Where guests are. Imports `cellar/`.",
        "",
        "| module | subject |",
        "| --- | --- |",
        "| `halls/far.py` |  |",
        "| `halls/near.py` | Near. |",
    ]


@pytest.mark.parametrize(
    ("arrows", "shortened"),
    [
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, {"a": {"b"}, "b": {"c"}, "c": set()}),
        (
            {"a": {"b", "c", "d"}, "b": {"d"}, "c": {"d"}, "d": set()},
            {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()},
        ),
        # A circle has to be seen.
        ({"a": {"b", "c"}, "b": {"a", "c"}, "c": set()}, {"a": {"b", "c"}, "b": {"a", "c"}, "c": set()}),
    ],
)
def test_an_arrow_that_a_longer_way_implies_is_left_out(
    script: ModuleType, arrows: dict[str, set[str]], shortened: dict[str, set[str]]
) -> None:
    assert script.shortened(arrows) == shortened


def test_a_step_of_the_path_has_the_file_that_defines_it(script: ModuleType, tmp_path: Path) -> None:
    modules = script.read_modules(write(tmp_path, HOUSE))
    chains = (("[grapes]", "open_one", "work"), ("[grapes]", "open_one"))
    assert script.draw_path(chains, modules, ()).split("\n") == [
        "```mermaid",
        "flowchart TD",
        '    s0(["grapes"])',
        '    s1["open_one<br>cellar/wine.py"]',
        '    s2["work<br>halls/near.py"]',
        "    s0 --> s1",
        "    s1 --> s2",
        "```",
    ]


@pytest.mark.parametrize(
    ("files", "found"),
    [({}, "no module"), ({"a.py": "class Step: ...", "b.py": "def Step(): ..."}, "a.py, b.py")],
)
def test_a_step_that_is_defined_nowhere_or_twice_is_refused(
    script: ModuleType, tmp_path: Path, files: dict[str, str], found: str
) -> None:
    modules = script.read_modules(write(tmp_path, files))
    with pytest.raises(script.ArchitectureError, match=f"Step, a step .* is defined in {found}; correct "):
        script.where("Step", modules, ())


PART = "<!-- rooms: made by a script -->\nold\n<!-- end -->\n"


def test_only_what_is_made_is_replaced(script: ModuleType) -> None:
    page = f"Before.\n\n{PART}\nAfter. <!-- end -->\n"
    filled = "Before.\n\n<!-- rooms: made by a script -->\n\nnew \\1\n\n<!-- end -->\n\nAfter. <!-- end -->\n"
    assert script.fill(page, {"rooms": "new \\1"}) == filled
    assert script.fill(filled, {"rooms": "new \\1"}) == filled


@pytest.mark.parametrize(
    "page",
    [
        "",
        PART.replace("rooms", "halls"),
        PART + PART,
        "<!-- rooms: no end -->\n<!-- halls: x -->\n<!-- end -->",
    ],
)
def test_a_page_without_its_part_is_refused(script: ModuleType, page: str) -> None:
    with pytest.raises(script.ArchitectureError, match="needs one part <!-- rooms: "):
        script.fill(page, {"rooms": "new"})
