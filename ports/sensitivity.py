"""What a model would miss: the smallest drop and flood that it alerts, at each hour of the week.

A drop or flood lasts as long as an alert's row, which is an hour with buckets of 15 minutes. It is alerted if
each of its values is beyond the limit, and limits widen with the time since the newest ordinary value. Errors
help or hinder: a size is given that is alerted in about ALERTED_SHARE of the cases, at the level of the last
day of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ports.detectors import DAY_HOURS, SPREADS, Model
from ports.faults import some_of
from ports.levels import LEVEL_MINUTES
from ports.preparation import Buckets, Scaler
from ports.weeks import WEEK_DAYS

ALERTED_SHARE = 0.9
# A port is blind if a loss of half is missed in half of the cases where it carries most of its traffic.
HALF = 0.5
WEEK_HOURS = WEEK_DAYS * DAY_HOURS
# On the log scale, where zero lies at the scaler's offset, less than so many offsets is next to no traffic.
QUIET_OFFSETS = 5.0
# Drops and floods are kept with so many decimals.
DECIMALS = 3
# The parts of a week that a person tells apart: all nights, and the rest of working days and of weekends.
NIGHT_UNTIL, NIGHT_FROM, FIRST_WEEKEND_DAY = 6, 22, 5
_HOUR, _DAY = np.arange(WEEK_HOURS) % DAY_HOURS, np.arange(WEEK_HOURS) // DAY_HOURS
_IS_NIGHT = (_HOUR < NIGHT_UNTIL) | (_HOUR >= NIGHT_FROM)
PARTS = {
    "on working days": ~_IS_NIGHT & (_DAY < FIRST_WEEKEND_DAY),
    "at night": _IS_NIGHT,
    "at weekends": ~_IS_NIGHT & (_DAY >= FIRST_WEEKEND_DAY),
}


@dataclass(frozen=True)
class Sensitivity:
    """What a model would alert at each hour of the week, from Monday at midnight.

    drop: the smallest loss that is alerted, as a share of the traffic (168,); NaN where no loss is. flood:
    the smallest multiple of it that is alerted (168,); NaN where there is nothing to multiply. blind: why a
    loss of half is missed in most of the traffic, in a few words; None if it is not.
    """

    drop: np.ndarray
    flood: np.ndarray
    blind: str | None = None

    def parts(self) -> dict[str, tuple[float | None, float | None]]:
        """For each of PARTS the drop and the flood that are alerted in half of its hours, None for NaN."""
        return {part: (middle(self.drop[hours]), middle(self.flood[hours])) for part, hours in PARTS.items()}

    def describe(self, length: int) -> str:
        """What is alerted in each part of the week, in one line; length: of an alert's row, in minutes."""
        span = f"{length} minutes" if length < 60 else "an hour" if length == 60 else f"{length / 60:g} hours"
        texts = {part: size_text(*sizes) for part, sizes in self.parts().items()}
        if len(set(texts.values())) == 1:
            texts = {"at any time": next(iter(texts.values()))}
        line = f"alerts {span} of " + ", ".join(f"{size} {part}" for part, size in texts.items())
        return f"{line}; blind: {self.blind}" if self.blind else line

    def to_json(self) -> dict[str, Any]:
        """For the model's file; NaN is null."""
        return {
            "drop": [_known(value) for value in self.drop.tolist()],
            "flood": [_known(value) for value in self.flood.tolist()],
            "blind": self.blind,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Sensitivity:
        """The inverse of to_json. Raises ValueError, or another error, for anything else."""
        drop, flood = (np.array(found[name], dtype=float) for name in ("drop", "flood"))
        blind = found["blind"]
        is_whole = (
            drop.shape == flood.shape == (WEEK_HOURS,)
            and not (drop > 1.0).any()
            and not (drop < 0.0).any()
            and not (flood < 1.0).any()
            and not np.isinf(flood).any()
            and (blind is None or isinstance(blind, str))
        )
        if not is_whole:
            raise ValueError("not a sensitivity")
        return cls(drop, flood, blind)


def sensitivity(model: Model, buckets: Buckets, row: int) -> Sensitivity:
    """What a model would alert at the level of the last day of its training.

    buckets: the training span. row: how many anomalies in a row are an alert.
    """
    deviations = model.scaler.transform(buckets.traffic) - model.usual[buckets.slots]
    known = deviations[~np.isnan(deviations)]
    level = float(np.median(known[-(LEVEL_MINUTES // buckets.minutes) :]))
    values = np.median(model.usual.reshape(WEEK_HOURS, -1), axis=1) + level
    wider = max(model.memory.of_ages(model.memory.wider)[1 : row + 1])
    lows, highs, limits = (wider * np.tile(hours, WEEK_DAYS) for hours in (*model.bounds(), model.limits))
    # Errors are as good as independent on noisy ports. There, a row is beyond the limit in ALERTED_SHARE of
    # the cases if each of its values is expected so many spreads beyond it.
    sure, even = (
        NormalDist().inv_cdf(share ** (1 / row)) * limits / SPREADS for share in (ALERTED_SHARE, HALF)
    )
    drop = np.round(1 - _multiple(model.scaler, values, lows - sure), DECIMALS)
    flood = np.round(_multiple(model.scaler, values, highs + sure), DECIMALS)
    is_missed = ~(1 - _multiple(model.scaler, values, lows - even) <= HALF)
    return Sensitivity(drop, flood, _why_blind(model.scaler, is_missed, values, lows, highs))


def _multiple(scaler: Scaler, values: np.ndarray, change: np.ndarray) -> np.ndarray:
    """By what traffic is multiplied if values (n,) on the scaler's scale change so much; NaN if none can."""
    nothing = float(scaler.transform(np.zeros(1))[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        multiple = scaler.inverse(values + change) / scaler.inverse(values)
    return np.where((values + change < nothing) | ~np.isfinite(multiple), np.nan, multiple)


def _why_blind(
    scaler: Scaler, is_missed: np.ndarray, values: np.ndarray, lows: np.ndarray, highs: np.ndarray
) -> str | None:
    """Why a loss of half is missed in most of the traffic; None if it is not. All arrays are (168,).

    is_missed: whether a loss of half is, in half of the cases. values: what is expected, on the scaler's
    scale. lows, highs: how far below (negative) and above that a value may be.
    """
    traffic = scaler.inverse(values)
    if not is_missed.any() or traffic[is_missed].sum() < HALF * traffic.sum():
        return None
    is_quiet = is_missed & (traffic < QUIET_OFFSETS * scaler.offset) & (scaler.kind == "log")
    if 2 * is_quiet.sum() > is_missed.sum():
        return f"it has next to no traffic in {is_quiet.sum()} of {WEEK_HOURS} hours of the week"
    with np.errstate(divide="ignore"):
        factors = scaler.inverse(values + highs)[is_missed] / scaler.inverse(values + lows)[is_missed]
    factor = float(np.median(factors))
    how = f"spreads by a factor of {factor:.1f}" if np.isfinite(factor) else "reaches down to nothing"
    return f"its ordinary traffic at the same time of the week {how}"


def describe_blind(blind: Sequence[tuple[str, str]]) -> str:
    """One line for all blind models, each with its series and why it is blind."""
    names = sorted({name for name, _ in blind})
    count = "1 model is" if len(blind) == 1 else f"{len(blind)} models are"
    return (
        f"{count} blind, so that a loss of half raises no alert in most of the traffic: {some_of(names)};"
        f" on the first one, {dict(blind)[names[0]]}"
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def middle(values: np.ndarray) -> float | None:
    """What is enough in half of the cases (n,), None if nothing is; NaN is more than any number."""
    return _known(float(np.sort(values)[(len(values) - 1) // 2]))


def size_text(drop: float | None, flood: float | None) -> str:
    """The smallest drop and flood for a person to read, like `-38 % or x1.6`."""
    loss = "no loss" if drop is None else f"-{100 * drop:.0f} %"
    return loss if flood is None else f"{loss} or x{flood:.1f}"
