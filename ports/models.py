"""Trained models as files: plain arrays and JSON in a NumPy archive, with nothing that could be executed."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np

from common.files import UserError, is_there, read_file, replace_file
from common.times import WEEK_MINUTES, format_time, parse_time
from common.values import is_number
from ports.detectors import DAY_HOURS, DETECTORS, Model, ScoreCurve
from ports.levels import DRIFT_HOURS, MEMORY_AGES, Memory
from ports.preparation import BUCKET_MINUTES, PREPARATIONS, Scaler, check_zone
from ports.sampling import FIVE_MINUTES, INTERVAL_MINUTES, Sampling
from ports.sensitivity import Sensitivity
from ports.series import NAME
from ports.special_days import SpecialDays
from ports.weeks import WEEK_DAYS

# Raised whenever the program would judge differently with an older file.
FORMAT = 2
ENDING = ".npz"
# Many times the size of the largest model.
MODEL_BYTES = 100_000_000


@dataclass(frozen=True)
class Trained:
    """A model and all that is needed to apply it. start, end: the training span, seconds since 1970.
    versions: library -> version, of those that trained it. sample_minutes: between two samples at the end of
    training; traffic is in bytes of so many minutes. is_counter: whether samples are readings of a counter.
    sensitivity: what it would miss, None if unknown. special: public holidays and bridge days from the start
    of training to a year after its end; None if they are not known.
    """

    series: str
    detector: str
    preparation: str
    minutes: int
    zone: str
    start: int
    end: int
    versions: dict[str, str]
    model: Model
    sample_minutes: int = FIVE_MINUTES.minutes
    is_counter: bool = False
    sensitivity: Sensitivity | None = None
    special: SpecialDays | None = None

    @property
    def sampling(self) -> Sampling:
        """How the series was sampled at the end of training."""
        return Sampling(self.sample_minutes, self.is_counter)

    @property
    def alert_records(self) -> int:
        """How many anomalies in a row are an alert."""
        return PREPARATIONS[self.preparation].alert_records(self.minutes)


def model_path(folder: str | Path, series: str, detector: str) -> Path:
    """The file of the model of a series and detector."""
    return Path(folder) / f"{series}.{detector}{ENDING}"


def file_names(folder: str | Path) -> set[str]:
    """Names of files in the folder; none if it does not exist yet. Raises UserError if it cannot be read."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check --ports_models") from None


def pack(trained: Trained) -> bytes:
    """The content of a model's file."""
    model = trained.model
    about = {
        "format": FORMAT,
        "series": trained.series,
        "detector": trained.detector,
        "preparation": trained.preparation,
        "minutes": trained.minutes,
        "zone": trained.zone,
        "sample_minutes": trained.sample_minutes,
        "is_counter": trained.is_counter,
        "trained_from": format_time(trained.start * 10**9),
        "trained_until": format_time(trained.end * 10**9),
        "versions": trained.versions,
        "scaler": asdict(model.scaler),
        "drift_minutes": model.drift_minutes,
        "smallest_alerted": trained.sensitivity.to_json() if trained.sensitivity else None,
    }
    if trained.special:
        about["special_days"] = _pack_special(trained.special, model.holidays_like)
    arrays = {
        "usual": model.usual,
        "limits": model.limits,
        "reach": model.reach,
        "left": model.memory.left,
        "wider": model.memory.wider,
    }
    if model.curve:
        arrays |= {"grid": model.curve.grid, "scores": model.curve.scores}
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(about, allow_nan=False).encode(), dtype=np.uint8)
    np.savez_compressed(
        content, about=text, **{name: array.astype(np.float32) for name, array in arrays.items()}
    )
    return content.getvalue()


def _pack_special(special: SpecialDays, holidays_like: int | None) -> dict:
    return {
        "holidays": [day.isoformat() for day in special.holidays],
        "bridges": [day.isoformat() for day in special.bridges],
        "weekend": special.weekend,
        "holidays_like": holidays_like,
    }


def save(content: bytes, path: Path) -> None:
    """Replace a model's file."""
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def load(path: Path) -> Trained:
    """Read a model's file.

    Raises UserError if it is missing, damaged, of another version, or not a regular file.
    """
    if not is_there(path):
        raise UserError(f"{path}: no such model; train it, or see in the training's log why it failed")
    content = io.BytesIO(read_file(path, MODEL_BYTES))
    try:
        with np.load(content, allow_pickle=False) as archive:
            about = json.loads(archive["about"].tobytes())
            arrays = {name: archive[name].astype(float) for name in archive.files if name != "about"}
        if is_number(about["format"]) and about["format"] != FORMAT:
            raise UserError(
                f"{path}: is a model of another version (format {about['format']}); train it again"
            )
        trained = _trained(about, arrays)
    except UserError:
        raise
    # Not a list of names: NumPy, zipfile, zlib, json and tokenize each raise their own for a damaged file,
    # some of them direct subclasses of Exception, and one missing from the list would end the whole job.
    except Exception:
        raise UserError(f"{path}: is damaged, or not a model; train it again") from None
    if f"{trained.series}.{trained.detector}{ENDING}" != path.name:
        raise UserError(f"{path}: holds the model of {trained.series} ({trained.detector}); rename it back")
    return trained


def _trained(about: dict, arrays: dict[str, np.ndarray]) -> Trained:
    """Put a model together. Raises any kind of error if its parts do not fit."""
    scaler = Scaler(**about["scaler"])
    names = ("usual", "limits", "reach", "left", "wider")
    usual, limits, reach, left, wider = (arrays.pop(name) for name in names)
    curve, drift_minutes = ScoreCurve(**arrays) if arrays else None, about["drift_minutes"]
    special, like = _unpack_special(about.get("special_days"))
    model = Model(scaler, usual, limits, reach, Memory(left, wider), curve, drift_minutes, like)
    smallest = about.get("smallest_alerted")
    check_zone(about["zone"])
    is_whole = (
        about["format"] == FORMAT
        and _has_valid_entries(about)
        and _is_scaler(scaler)
        and usual.shape == (WEEK_MINUTES // about["minutes"],)
        and limits.shape == (DAY_HOURS,)
        and reach.shape == (2,)
        and left.shape == wider.shape == (len(MEMORY_AGES),)
        and all(np.isfinite(array).all() for array in (usual, limits, reach, left, wider))
        and (limits > 0).all()
        and (reach >= 1).all()
        and (wider > 0).all()
        and (model.curve is None) == (DETECTORS[about["detector"]].curve is None)
        and (model.curve is None or _is_curve(model.curve))
    )
    if not is_whole:
        raise ValueError("not a whole model")
    return Trained(
        series=about["series"],
        detector=about["detector"],
        preparation=about["preparation"],
        minutes=about["minutes"],
        zone=about["zone"],
        start=parse_time(about["trained_from"]) // 10**9,
        end=parse_time(about["trained_until"]) // 10**9,
        versions=about["versions"],
        model=model,
        sensitivity=Sensitivity.from_json(smallest) if smallest else None,
        sample_minutes=about["sample_minutes"],
        is_counter=about["is_counter"],
        special=special,
    )


def _unpack_special(about: dict | None) -> tuple[SpecialDays | None, int | None]:
    """The special days, and the weekday that they resemble. Raises any kind of error if they are damaged."""
    if about is None:
        return None, None
    holidays, bridges = (tuple(map(date.fromisoformat, about[key])) for key in ("holidays", "bridges"))
    weekend, like = tuple(about["weekend"]), about["holidays_like"]
    if not all(type(day) is int and 0 <= day < WEEK_DAYS for day in (*weekend, 0 if like is None else like)):
        raise ValueError("not a weekday")
    return SpecialDays(holidays, bridges, weekend), like


def _has_valid_entries(about: dict) -> bool:
    """Whether series, detector, preparation, minutes, drift_minutes, sampling and versions are valid."""
    name, minutes = about["series"], about["minutes"]
    return (
        bool(NAME.fullmatch(name))
        and name.isprintable()
        and about["detector"] in DETECTORS
        and about["preparation"] in PREPARATIONS
        and isinstance(minutes, int)
        and minutes in BUCKET_MINUTES
        and isinstance(about["drift_minutes"], int)
        and DRIFT_HOURS[0] <= about["drift_minutes"] / 60 <= DRIFT_HOURS[1]
        and isinstance(about["sample_minutes"], int)
        and about["sample_minutes"] in INTERVAL_MINUTES
        and isinstance(about["is_counter"], bool)
        and all(isinstance(text, str) for pair in about["versions"].items() for text in pair)
    )


def _is_scaler(scaler: Scaler) -> bool:
    """Whether it can scale values and scale them back."""
    if not is_number(scaler.width) or not is_number(scaler.offset) or scaler.width <= 0:
        return False
    # A logarithm needs an offset above zero, because a port may be silent.
    return scaler.kind == "standard" or scaler.kind == "log" and scaler.offset > 0


def _is_curve(curve: ScoreCurve) -> bool:
    """Whether it has finite scores over a grid that ascends, some of which are accepted."""
    points = len(curve.grid)
    return (
        points > 1
        and curve.scores.shape == (points,)
        and bool(np.isfinite(curve.grid).all() and np.isfinite(curve.scores).all())
        and bool((curve.grid[:-1] <= curve.grid[1:]).all() and (curve.scores <= 1.0).any())
    )
