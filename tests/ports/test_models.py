"""Models as files: what comes back is what was kept, and nothing but a model is ever taken for one."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import UserError
from ports.detectors import DAY_HOURS, Model, ScoreCurve, fit
from ports.levels import MEMORY_AGES, Memory
from ports.models import FORMAT, Trained, load, model_path, pack, save
from ports.preparation import PREPARATIONS, Buckets, Scaler
from ports.series import Series
from ports.verdicts import judge
from simulators.ports import simulate_port
from tests.support.fuzzing import fuzzed

NAME = "sw1_1%2F4_out"
ZONE = "Europe/Rome"
DAY_SECONDS = 86_400
TRAINING_DAYS = 63
DETECTORS = {
    "profile": ("profile", "default"),
    "random-forest": ("random-forest", "default"),
    "isolation-forest": ("isolation-forest", "default"),
    "one-class-svm": ("one-class-svm", "default"),
    "workshop": ("one-class-svm", "workshop"),
}


@pytest.fixture(scope="module")
def series() -> Series:
    """Nine weeks to learn from, and one with a flood on the third day."""
    port = simulate_port(3, start=date(2023, 1, 9), days=TRAINING_DAYS + 7, holidays=())
    traffic = port.traffic.copy()
    flood = port.times[0] + (TRAINING_DAYS + 2) * DAY_SECONDS
    traffic[(port.times > flood) & (port.times <= flood + 7200)] *= 20
    return Series(NAME, port.times, traffic)


@pytest.fixture(scope="module")
def trained(series: Series) -> dict[str, Trained]:
    start = int(series.times[0]) - 300
    end = start + TRAINING_DAYS * DAY_SECONDS
    made = {}
    for key, (detector, preparation) in DETECTORS.items():
        way = PREPARATIONS[preparation]
        buckets = way.buckets(series.between(start, end), way.minutes, ZONE)
        model = fit(detector, buckets, way)
        versions = {"numpy": "2.4.6"}
        made[key] = Trained(NAME, detector, preparation, way.minutes, ZONE, start, end, versions, model)
    return made


def simple() -> Trained:
    """A small model that is quickly made, of days that are all the same."""
    usual = np.tile(np.linspace(-1.0, 1.0, 24), 7)
    limits = np.linspace(0.25, 0.5, DAY_HOURS)
    memory = Memory(np.array([0.75, 0.5, 0.25, 0.125, 0.0]), np.array([1.0, 1.0, 1.25, 1.5, 2.0]))
    model = Model(Scaler("log", 1000.0, 1.0), usual, limits, np.array([1.0, 1.5]), memory)
    return Trained("a_1_in", "profile", "default", 60, "UTC", 1_672_617_600, 1_678_060_800, {}, model)


def simple_outlier() -> Trained:
    curve = ScoreCurve(np.array([-1.0, 0.0, 1.0]), np.array([2.0, 0.0, 2.0]))
    return replace(simple(), detector="one-class-svm", model=replace(simple().model, curve=curve))


def loaded(content: bytes, folder: Path, detector: str = "profile") -> Trained:
    path = folder / f"a_1_in.{detector}.npz"
    path.write_bytes(content)
    return load(path)


def refusal(content: bytes, folder: Path, detector: str = "profile") -> str:
    """What is said of a file, less its path."""
    with pytest.raises(UserError) as caught:
        loaded(content, folder, detector)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{folder / f'a_1_in.{detector}.npz'}: ")


def arrays_of(model: Model) -> list[np.ndarray]:
    memory, curve = model.memory, model.curve
    of_curve = [curve.grid, curve.scores] if curve else []
    return [model.usual, model.limits, model.reach, memory.left, memory.wider, *of_curve]


DAMAGED = "is damaged, or not a model; train it again"

# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", DETECTORS)
def test_a_model_comes_back_as_it_was_to_the_precision_of_32_bits(
    trained: dict[str, Trained], tmp_path: Path, key: str
) -> None:
    before = trained[key]
    path = model_path(tmp_path, before.series, before.detector)
    save(pack(before), path)
    after = load(path)
    assert replace(after, model=before.model) == before
    assert after.model.scaler == before.model.scaler
    assert (after.model.curve is None) == (before.model.curve is None)
    for value, kept in zip(arrays_of(before.model), arrays_of(after.model), strict=True):
        np.testing.assert_array_equal(kept, value.astype(np.float32))
        assert kept.dtype == float


@pytest.mark.parametrize("key", DETECTORS)
def test_a_model_that_came_back_gives_the_same_verdicts(
    trained: dict[str, Trained], series: Series, tmp_path: Path, key: str
) -> None:
    before = trained[key]
    path = model_path(tmp_path, before.series, before.detector)
    save(pack(before), path)
    first, again = (judge(one, series, before.end).after(before.end) for one in (before, load(path)))
    assert first.statuses.tolist() == again.statuses.tolist()
    assert "alert" in first.statuses
    for field in ("score", "expected", "low", "high"):
        np.testing.assert_allclose(
            getattr(again.scored, field), getattr(first.scored, field), rtol=1e-4, atol=1e-4
        )


def test_a_model_is_replaced_and_kept_under_its_series_and_detector(tmp_path: Path) -> None:
    path = model_path(str(tmp_path), "a_1_in", "profile")
    assert path == tmp_path / "a_1_in.profile.npz"
    save(pack(simple()), path)
    save(pack(replace(simple(), end=1_678_147_200)), path)
    assert load(path).end == 1_678_147_200
    assert list(tmp_path.iterdir()) == [path]


def test_models_are_small(trained: dict[str, Trained]) -> None:
    # Of a forest, too, the usual week is kept, and not the 0.6 MB of its trees.
    sizes = {key: len(pack(one)) for key, one in trained.items()}
    assert max(sizes.values()) <= 8192, sizes


def test_what_is_kept_can_be_read_by_whoever_looks(trained: dict[str, Trained]) -> None:
    with np.load(io.BytesIO(pack(trained["profile"])), allow_pickle=False) as archive:
        about = json.loads(archive["about"].tobytes())
        kept = {name: (archive[name].shape, archive[name].dtype) for name in archive.files if name != "about"}
    assert kept == {
        "usual": ((672,), np.float32),
        "limits": ((24,), np.float32),
        "reach": ((2,), np.float32),
        "left": ((5,), np.float32),
        "wider": ((5,), np.float32),
    }
    model = trained["profile"].model
    assert about == {
        "format": 2,
        "series": "sw1_1%2F4_out",
        "detector": "profile",
        "preparation": "default",
        "minutes": 15,
        "zone": "Europe/Rome",
        "sample_minutes": 5,
        "is_counter": False,
        # Midnight in Rome, in winter.
        "trained_from": "2023-01-08T23:00:00Z",
        "trained_until": "2023-03-12T23:00:00Z",
        "versions": {"numpy": "2.4.6"},
        "scaler": {"kind": "log", "offset": model.scaler.offset, "width": 1.0},
        # The file of a job that measured what the model would miss has a list here.
        "smallest_alerted": None,
        "drift_minutes": 720,
    }


# --- nothing is executed -------------------------------------------------------------------------


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[str]]]:
        return subprocess.check_call, (self.command,)


@pytest.mark.parametrize("key", DETECTORS)
def test_no_model_holds_a_pickle(trained: dict[str, Trained], key: str) -> None:
    content = io.BytesIO(pack(trained[key]))
    with np.load(content, allow_pickle=False) as archive:
        kinds = {archive[name].dtype.kind for name in archive.files}
    assert kinds == {"u", "f"}


@pytest.mark.parametrize("member", ["about", "usual"])
def test_an_array_of_objects_is_refused_and_not_executed(tmp_path: Path, member: str) -> None:
    marker = tmp_path / "executed"
    trap = np.empty(1, dtype=object)
    trap[0] = Payload(["touch", str(marker)])
    content = altered(arrays={member: trap})
    assert refusal(content, tmp_path) == DAMAGED
    assert not marker.exists()
    # With NumPy's word for it, it would have been.
    with np.load(io.BytesIO(content), allow_pickle=True) as archive:
        archive[member]
    assert marker.exists()


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    content = pickle.dumps(Payload(["touch", str(marker)]))
    assert refusal(content, tmp_path) == DAMAGED
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


# --- damaged files -------------------------------------------------------------------------------


def altered(
    about: dict[str, Any] | None = None, arrays: dict[str, Any] | None = None, of: Trained | None = None
) -> bytes:
    """A model's file with some of its entries replaced; those that are None are left out."""
    with np.load(io.BytesIO(pack(of or simple()))) as archive:
        kept = {name: archive[name] for name in archive.files}
    named = json.loads(kept["about"].tobytes()) | (about or {})
    text = json.dumps({key: value for key, value in named.items() if value is not None})
    kept["about"] = np.frombuffer(text.encode(), dtype=np.uint8)
    content = io.BytesIO()
    np.savez(content, **{key: value for key, value in (kept | (arrays or {})).items() if value is not None})
    return content.getvalue()


def text_array(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def zipped(name: str, text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, text)
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def with_one(name: str, value: float) -> dict[str, np.ndarray]:
    """An array whose last entry is this value."""
    array = {"usual": np.full(168, 15.0), "limits": np.full(DAY_HOURS, 0.4), "reach": np.ones(2)}.get(
        name, np.full(len(MEMORY_AGES), 0.5)
    )
    array[-1] = value
    return {name: array}


def test_what_is_altered_by_nothing_is_still_a_model(tmp_path: Path) -> None:
    assert loaded(altered(), tmp_path).model.limits[-1] == 0.5
    outlier = loaded(altered(of=simple_outlier()), tmp_path, "one-class-svm")
    assert outlier.model.curve.scores.tolist() == [2.0, 0.0, 2.0]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"usual,limit\n15,0.4\n", id="text"),
        pytest.param(b"\x80\x04", id="start of a pickle"),
        pytest.param(bytes(4096), id="zeroes"),
        pytest.param(zipped("readme.txt", "hello"), id="another zip"),
        pytest.param(zipped("about.npy", "{}"), id="a zip of the same names"),
        pytest.param(npy(np.arange(168.0)), id="a bare array"),
        pytest.param(altered(arrays={"about": None}), id="no about"),
        pytest.param(altered(arrays={"usual": None}), id="no usual"),
        pytest.param(altered(arrays={"about": text_array("{")}), id="torn JSON"),
        pytest.param(altered(arrays={"about": text_array("[" * 100_000)}), id="deep JSON"),
        pytest.param(altered(arrays={"about": text_array("[1]")}), id="a list"),
        pytest.param(altered(arrays={"about": text_array("7")}), id="a number"),
        pytest.param(altered(arrays={"about": text_array("\xff\xfe")}), id="no JSON"),
        *(
            pytest.param(altered(arrays=with_one(name, value)), id=f"{name} {value}")
            for name in ("usual", "limits", "reach", "left", "wider")
            for value in (np.nan, np.inf, -np.inf)
        ),
        *(
            pytest.param(altered(arrays=with_one(name, value)), id=f"{name} {value}")
            for name in ("limits", "reach", "wider")
            for value in (0.0, -0.4)
        ),
        *(
            pytest.param(altered(arrays={name: np.full(shape, 0.4)}), id=f"{name} of {shape}")
            for name, shape in (
                ("limits", 1),
                ("limits", 23),
                ("limits", 168),
                ("limits", (1, 24)),
                ("reach", 1),
                ("reach", 3),
                ("left", 4),
                ("left", ()),
                ("wider", 6),
                ("wider", (5, 1)),
            )
        ),
        *(
            pytest.param(altered(arrays={name: None}), id=f"no {name}")
            for name in ("limits", "reach", "left", "wider")
        ),
        pytest.param(altered(arrays={"usual": np.full(167, 15.0)}), id="a slot is missing"),
        pytest.param(altered(arrays={"usual": np.full((7, 24), 15.0)}), id="days"),
        pytest.param(altered(arrays={"usual": np.array(["a"] * 168)}), id="letters"),
        pytest.param(altered(arrays={"usual": np.array(15.0)}), id="one number"),
        pytest.param(altered(arrays={"grid": np.zeros(3)}), id="half a curve"),
        pytest.param(altered(arrays={"more": np.zeros(3)}), id="an array too many"),
        # What a detector of this name never has.
        pytest.param(
            altered(arrays={"grid": np.array([-1.0, 0.0, 1.0]), "scores": np.array([2.0, 0.0, 2.0])}),
            id="a curve",
        ),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    assert refusal(content, tmp_path) == DAMAGED


ABOUT = ("series", "detector", "preparation", "minutes", "zone", "trained_from", "trained_until", "versions")


@pytest.mark.parametrize("key", ["format", *ABOUT, "scaler"])
def test_a_file_that_lacks_an_entry_is_refused(tmp_path: Path, key: str) -> None:
    assert refusal(altered({key: None}), tmp_path) == DAMAGED


@pytest.mark.parametrize(
    "about",
    [
        {"minutes": 15},
        {"minutes": 7},
        {"minutes": "60"},
        {"minutes": 60.0},
        {"minutes": [60]},
        {"zone": "Mars/Olympus"},
        {"zone": "../../etc/passwd"},
        {"zone": 1},
        {"zone": ""},
        {"sample_minutes": 7},
        {"sample_minutes": 5.0},
        {"is_counter": 1},
        {"preparation": "none"},
        {"preparation": ["default"]},
        {"detector": "prophet"},
        {"detector": {}},
        {"series": 5},
        {"series": ["a_1_in"]},
        {"trained_from": 1_672_617_600},
        {"trained_from": "yesterday"},
        {"trained_until": True},
        {"trained_until": "1812-01-01T00:00:00Z"},
        {"drift_minutes": 0},
        {"drift_minutes": 300},
        {"drift_minutes": 1140},
        {"drift_minutes": 720.0},
        {"drift_minutes": "720"},
        {"scaler": 1.0},
        {"scaler": {}},
        {"scaler": {"kind": "log", "offset": 1000.0}},
        {"scaler": {"kind": "log", "offset": 1000.0, "width": 1.0, "base": 2}},
        {"scaler": {"kind": "cubic", "offset": 1000.0, "width": 1.0}},
        {"scaler": {"kind": "log", "offset": "1000", "width": 1.0}},
        {"scaler": {"kind": "log", "offset": float("nan"), "width": 1.0}},
        {"scaler": {"kind": "standard", "offset": 0.0, "width": 0.0}},
        {"scaler": {"kind": "log", "offset": -1.0, "width": 1.0}},
        {"scaler": {"kind": "log", "offset": float("inf"), "width": 1.0}},
        {"scaler": {"kind": "log", "offset": True, "width": 1.0}},
        {"scaler": {"kind": "standard", "offset": 0.0, "width": float("inf")}},
        {"scaler": {"kind": "standard", "offset": 0.0, "width": float("nan")}},
        {"scaler": {"kind": "standard", "offset": 0.0, "width": True}},
    ],
    ids=str,
)
def test_an_entry_that_makes_no_model_is_refused(tmp_path: Path, about: dict[str, Any]) -> None:
    assert refusal(altered(about), tmp_path) == DAMAGED


@pytest.mark.parametrize(
    "arrays",
    [
        pytest.param({"grid": None, "scores": None}, id="no curve"),
        pytest.param({"grid": None}, id="no grid"),
        pytest.param({"scores": None}, id="no scores"),
        pytest.param({"more": np.zeros(3)}, id="one array too many"),
        pytest.param({"grid": np.array([-1.0, 1.0])}, id="another length"),
        pytest.param({"scores": np.array([[2.0, 0.0, 2.0]])}, id="a row of a table"),
        pytest.param({"grid": np.zeros((1, 3))}, id="a grid with rows"),
        pytest.param({"grid": np.zeros(0), "scores": np.zeros(0)}, id="nothing"),
        pytest.param({"grid": np.zeros(1), "scores": np.zeros(1)}, id="a point"),
        pytest.param({"scores": np.array([2.0, 1.5, 2.0])}, id="nothing is accepted"),
        pytest.param({"grid": np.array([1.0, 0.0, -1.0])}, id="a grid that descends"),
        pytest.param({"grid": np.array([-1.0, np.nan, 1.0])}, id="NaN in the grid"),
        pytest.param({"scores": np.array([2.0, np.inf, 2.0])}, id="an infinite score"),
    ],
)
def test_a_curve_that_makes_no_model_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    assert refusal(altered(arrays=arrays, of=simple_outlier()), tmp_path, "one-class-svm") == DAMAGED


@pytest.mark.parametrize("of", [simple(), simple_outlier()], ids=["forecast", "outlier"])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path, of: Trained) -> None:
    content = pack(of)
    for length in [*range(0, 40), *range(40, len(content), 11), len(content) - 1]:
        assert refusal(content[:length], tmp_path, of.detector) == DAMAGED, length


@pytest.mark.parametrize("version", [0, FORMAT + 1, 1.5])
def test_another_version_is_said_to_be_one(tmp_path: Path, version: object) -> None:
    expected = f"is a model of another version (format {version}); train it again"
    assert refusal(altered({"format": version}), tmp_path) == expected


@pytest.mark.parametrize("key", ["format", "series"])
@pytest.mark.parametrize("ending", ["\n", "\r", "\u2028"])
def test_no_entry_forges_a_second_line(tmp_path: Path, key: str, ending: str) -> None:
    assert ending not in refusal(altered({key: f"a_1{ending}all is well_in"}), tmp_path)


def test_a_version_with_other_entries_is_said_to_be_one(tmp_path: Path) -> None:
    content = altered({"format": 3, "minutes": None, "scaler": None}, {"usual": None})
    expected = "is a model of another version (format 3); train it again"
    assert refusal(content, tmp_path) == expected


def test_a_model_of_before_levels_were_followed_is_to_be_trained_again(tmp_path: Path) -> None:
    # A file of format 1 had the usual week with its level, and one limit for all hours.
    content = altered(
        {"format": 1, "limit": 0.4},
        {"usual": np.full(168, 15.0, np.float32), "limits": None, "reach": None, "left": None, "wider": None},
    )
    assert refusal(content, tmp_path) == "is a model of another version (format 1); train it again"


@pytest.mark.parametrize("name", ["a_2_in.profile.npz", "a_1_in.stl.npz", "a_1_in.npz", "profile.npz"])
def test_a_model_under_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save(pack(simple()), path)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: holds the model of a_1_in (profile); rename it back"


def test_a_model_of_what_is_no_series_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traffic.profile.npz"
    save(altered({"series": "traffic"}), path)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {DAMAGED}"


def test_a_model_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    path = model_path(tmp_path, "a_1_in", "profile")
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: no such model; train it, or see in the training's log why it failed"


def test_a_folder_in_the_place_of_a_model_is_named(tmp_path: Path) -> None:
    path = model_path(tmp_path, "a_1_in", "profile")
    path.mkdir()
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: cannot be read: it is a folder; put a regular file there"


# --- whatever there is in the file ---------------------------------------------------------------


def stored(content: bytes) -> dict[str, bytes]:
    """The members of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


FORMS = [simple(), simple_outlier()]
# Compressed, where a wrong byte seldom reaches NumPy, and not.
FILES = [(one.detector, content) for one in FORMS for content in (pack(one), altered(of=one))]


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """Up to eight bytes replaced, and perhaps a part cut out."""

    def build(changes: list[tuple[int, int]], cut: tuple[int, int]) -> bytes:
        changed = bytearray(content)
        for index, value in changes:
            changed[index] = value
        return bytes(changed[: cut[0]] + changed[cut[0] + cut[1] :])

    places = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)
    return st.builds(build, changes, st.tuples(places, st.sampled_from([0, 0, 1, 40, len(content)])))


def archived(members: dict[str, bytes]) -> bytes:
    """With checksums that are right, so that what is in the members is what is read."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return content.getvalue()


def with_mutated_members(content: bytes) -> st.SearchStrategy[bytes]:
    members = stored(content)
    return st.fixed_dictionaries({name: st.just(part) | mutated(part) for name, part in members.items()}).map(
        archived
    )


def used_or_refused(content: bytes, folder: Path, detector: str) -> None:
    """A file is either refused in one line, or a model that can be applied."""
    try:
        trained = loaded(content, folder, detector)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith(f"{folder}/a_1_in.{detector}.npz: ")
        return
    slots = np.arange(28)
    traffic = np.array([3e6] * 24 + [0.0, 3e6, 3e9, np.nan])
    # A scale of 1e-300 is absurd, but a number.
    with np.errstate(over="ignore"):
        scored = trained.model.judge(Buckets(trained.minutes, 3600 * slots, traffic, slots))
    # The first day is unknown.
    assert np.isnan(scored.score).tolist() == [True] * 24 + [False, False, False, True]
    assert (scored.low <= scored.high)[24:].all()
    assert trained.start > 0


@fuzzed
@given(st.sampled_from(FILES).flatmap(lambda file: st.tuples(st.just(file[0]), mutated(file[1]))))
def test_a_fuzzed_file_is_a_model_or_refused(tmp_path: Path, file: tuple[str, bytes]) -> None:
    used_or_refused(file[1], tmp_path, file[0])


@fuzzed
@given(
    st.sampled_from(FILES[1::2]).flatmap(
        lambda file: st.tuples(st.just(file[0]), with_mutated_members(file[1]))
    )
)
def test_a_file_of_fuzzed_members_is_a_model_or_refused(tmp_path: Path, file: tuple[str, bytes]) -> None:
    used_or_refused(file[1], tmp_path, file[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
scalers = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["log", "standard", "cubic"]) | json_values,
        "offset": st.just(1000.0) | st.floats() | json_values,
        "width": st.just(1.0) | st.floats() | json_values,
    }
)
abouts = st.fixed_dictionaries(
    {}, optional={key: json_values for key in ("format", *ABOUT)} | {"scaler": scalers}
)
shapes = st.sampled_from([(0,), (1,), (3,), (5,), (24,), (168,), (1, 3), (168, 3), (1, 0), (0, 3), (3, 1)])
arrays = st.dictionaries(
    st.sampled_from(["usual", "limits", "reach", "left", "wider", "grid", "scores", "more"]),
    st.builds(np.full, shapes, st.floats() | st.sampled_from([0.0, 15.0])),
    max_size=2,
)


@fuzzed
@given(abouts, arrays, st.sampled_from(FORMS))
def test_a_file_of_fuzzed_entries_is_a_model_or_refused(
    tmp_path: Path, about: dict[str, Any], arrays: dict[str, np.ndarray], of: Trained
) -> None:
    used_or_refused(altered(about, arrays, of), tmp_path, of.detector)
