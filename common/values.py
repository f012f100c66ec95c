"""Checks of values that come from a file: most return the value, or raise ValueError."""

from __future__ import annotations

import sys
from typing import Any

# InfluxDB takes no time beyond this, before or after 1970.
_LAST_TIME = (1 << 63) - 2


def whole(value: Any) -> int:
    """The value, a whole number that fits into 64 bits. Raises ValueError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LAST_TIME:
        raise ValueError(f"not a whole number: {value!r:.100}")
    return value


def number(value: Any) -> float:
    """The value as a float; it may be NaN or infinite. Raises ValueError for anything but a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"not a number: {value!r:.100}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number that is too large") from None


def is_number(value: object) -> bool:
    """Whether the value is a number that a float can hold; true, false, NaN and infinity are none."""
    is_numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_numeric and -sys.float_info.max <= value <= sys.float_info.max


def text(value: Any) -> str:
    """The value, a text. Raises ValueError for anything else, and for text that UTF-8 cannot encode."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r:.100}")
    value.encode()
    return value


def mapping(value: Any) -> dict[str, Any]:
    """The value, a JSON object. Raises ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {value!r:.100}")
    return value
