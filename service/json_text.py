"""JSON of many numbers, made in one go: a day of records has half a million."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN

# The digit that stands for a status is its place here.
STATUS_DIGITS = (NORMAL, ANOMALY, ALERT, UNKNOWN)
# Digits of a number: what a chart can show.
SHOWN_DIGITS = 5


def json_object(parts: Mapping[str, str]) -> str:
    """An object whose values are JSON already."""
    return "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in parts.items()) + "}"


def json_numbers(values: np.ndarray, digits: int = SHOWN_DIGITS) -> str:
    """Finite numbers (n,) with so many significant digits; NaN is null."""
    form = ",".join([f"%.{digits}g"] * len(values))
    return f"[{form % tuple(values.tolist())}]".replace("nan", "null")


def json_whole(values: np.ndarray) -> str:
    """Whole numbers (n,)."""
    return f"[{','.join(map(str, values.tolist()))}]"


def json_digits(values: np.ndarray) -> str:
    """Numbers from 0 to 9 (n,) as one text, a digit for each."""
    return f'"{"".join(map(str, values.tolist()))}"'
