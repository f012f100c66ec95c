"""Whose the thresholds are, and for which model they were proposed: kept through a crash, said if wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.files import UserError
from edge.bundle import Bundle, load_bundle
from edge.paths import DEFAULT_MODEL
from edge.thresholds import (
    compare_thresholds,
    describe_foreign,
    fill_thresholds,
    load_thresholds,
    proposals_path,
    read_proposals,
    update_thresholds,
)
from lab import parts
from tests.support.metrics import THRESHOLD_KEYS

ROOT = Path(__file__).resolve().parents[2]
HELP = "or delete the file: all thresholds then count as set by a person"


def proposals(value: float) -> dict[str, float]:
    return dict.fromkeys(THRESHOLD_KEYS, value)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_MODEL)


def foreign(file: Path, bundle: Bundle, identity: str) -> str | None:
    """What is said where the model of this identity judges."""
    judging = dataclasses.replace(bundle, identity=identity)
    return describe_foreign(file, load_thresholds(file), read_proposals(file), judging, "model/edge.h5")


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_flat", [False, True], ids=["", "as written before models were remembered"])
@pytest.mark.parametrize("is_mounted", [False, True], ids=["", "mounted by itself"])
def test_an_update_that_is_killed_at_any_step_leaves_known_whose_each_threshold_is(
    is_mounted: bool, is_flat: bool, tmp_path: Path, bundle: Bundle
) -> None:
    file = tmp_path / "thresholds.json"
    # What is longer than what replaces it must not leave its rest behind.
    file.write_text(json.dumps(proposals(0.5123456) | {"mem_threshold": 0.3}, indent=8))
    old = proposals(0.5123456)
    proposals_path(file).write_text(json.dumps(old if is_flat else {"model": "old", "proposed": old}))
    mount = f"mount --bind '{file}' '{file}' && exec \"$0\" \"$@\""
    within = [parts.find("unshare"), "--mount", "sh", "-c", mount] if is_mounted else []
    done = subprocess.run(
        [*within, sys.executable, str(ROOT / "tests/support/kill_update.py"), str(file)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *killed, whole = map(json.loads, done.stdout.splitlines())
    assert len(killed) > 20
    assert [was_killed for was_killed, _, _ in killed] == [True] * len(killed)
    seen = set()
    for _, cut_short, after in [*killed, whole]:
        assert cut_short["by_person"] == after["by_person"] == ["mem_threshold"]
        assert cut_short["thresholds"].pop("mem_threshold") == 0.3
        others = list(cut_short["thresholds"].values())
        assert len(set(others)) == 1
        (known,) = [model for model, values in cut_short["proposals"] if values["cpu_threshold"] == others[0]]
        seen.add((others[0], known, len(cut_short["proposals"])))
        assert after["thresholds"] == proposals(0.7) | {"mem_threshold": 0.3}
        assert after["proposals"] == [["newest", proposals(0.7)]]
        assert after["names"] == ["thresholds.json", "thresholds.proposed.json"]
    model = None if is_flat else "old"
    before, written = (0.5123456, model), (0.65432, "new")
    assert seen == {(*before, 1), (*before, 2), (*written, 2), (*written, 1)}
    assert whole[0] is False
    assert whole[1]["proposals"] == [["new", proposals(0.65432)]]


def test_what_was_filled_in_after_a_crash_is_the_programs_like_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"cpu_threshold": 0.5, "mem_threshold": 0.3}))
    state: dict[str, Any] = {"model": "new", "proposed": proposals(0.6)}
    state["before"] = {"model": "old", "proposed": {"cpu_threshold": 0.5}}
    proposals_path(file).write_text(json.dumps(state))
    assert len(fill_thresholds(file)) == 7
    assert compare_thresholds(file)[1] == ["mem_threshold"]
    assert update_thresholds(file, proposals(0.7), "newest") == ["mem_threshold"]
    assert load_thresholds(file) == proposals(0.7) | {"mem_threshold": 0.3}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            '{"model": "a", "propo',
            ", line 1: not valid JSON (Unterminated string starting at); fix that line",
        ),
        ('{"model": "a"}', ": has no proposed thresholds; restore it"),
        ('{"model": 7, "proposed": {}}', ": has no proposed thresholds; restore it"),
        ('{"model": "a", "proposed": [0.1]}', ": has no proposed thresholds; restore it"),
        ('{"proposed": {}, "before": 1}', ": has no proposed thresholds; restore it"),
        ('{"proposed": {"mem_threshold": -1}}', ": mem_threshold is -1; it must be a number, 0 or more"),
        ('{"mem_threshold": "x"}', ': mem_threshold is "x"; it must be a number, 0 or more'),
        ("[]", ': must hold one JSON object, like {"key": 1.0}'),
    ],
)
def test_damaged_proposals_are_refused_in_one_line_and_overwrite_nothing(
    text: str, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(given := json.dumps(proposals(0.5)))
    proposals_path(file).write_text(text)
    for change in (lambda: update_thresholds(file, proposals(0.6), "new"), lambda: compare_thresholds(file)):
        with pytest.raises(UserError) as refused:
            change()
        assert str(refused.value) == f"{proposals_path(file)}{fault}, {HELP}"
    assert (file.read_text(), proposals_path(file).read_text()) == (given, text)


# --- of another model ----------------------------------------------------------------------------


def test_thresholds_that_were_proposed_for_another_model_are_named(tmp_path: Path, bundle: Bundle) -> None:
    file = tmp_path / "thresholds.json"
    update_thresholds(file, proposals(0.5), "one")
    assert foreign(file, bundle, "one") is None
    said = (
        f"{file}: has thresholds that were proposed for another model than model/edge.h5 ({{}});"
        " run --mode train --evaluate, or set them by hand"
    )
    assert foreign(file, bundle, "two") == said.format("all")
    by_hand = proposals(0.7) | {"mem_threshold": 0.5, "cpu_threshold": 0.5}
    file.write_text(json.dumps(by_hand))
    assert foreign(file, bundle, "two") == said.format("cpu_threshold, mem_threshold")
    file.write_text(json.dumps(proposals(0.7)))
    assert foreign(file, bundle, "two") is None


def test_what_was_filled_in_belongs_to_no_model_and_the_rest_still_to_its_own(
    tmp_path: Path, bundle: Bundle
) -> None:
    file = tmp_path / "thresholds.json"
    update_thresholds(file, proposals(0.5), "one")
    given = proposals(0.5)
    for key in ("cpu_threshold", "mem_threshold"):
        # As a training without --evaluate finds it, once and once more.
        file.write_text(json.dumps({name: value for name, value in given.items() if name != key}))
        assert fill_thresholds(file) == [key]
        given[key] = 0.1
        assert load_thresholds(file) == given
        assert compare_thresholds(file) == (proposals(0.5), [])
        named = ", ".join(name for name, value in given.items() if value != 0.1)
        assert f"another model than model/edge.h5 ({named});" in foreign(file, bundle, "two")
    assert update_thresholds(file, proposals(0.7), "two") == []
    assert [one.model for one in read_proposals(file)] == ["two"]


def test_where_it_is_not_known_for_which_model_nothing_is_said(tmp_path: Path, bundle: Bundle) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps(proposals(0.5)))
    assert foreign(file, bundle, "two") is None
    proposals_path(file).write_text(json.dumps(proposals(0.5)))
    assert foreign(file, bundle, "two") is None
    fill_thresholds(other := tmp_path / "other.json")
    assert foreign(other, bundle, "two") is None


def test_the_shipped_thresholds_are_those_of_the_shipped_model(bundle: Bundle) -> None:
    file = ROOT / "data/thresholds.json"
    (one,) = read_proposals(file)
    assert one.model == bundle.identity
    assert compare_thresholds(file) == (load_thresholds(file), [])
