"""Amounts as a person says them: `98 %`, `12.3 MB/s`."""

from __future__ import annotations

import math

_MOST_MORE_DIGITS = 4
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def describe_amount(unit: str, value: float) -> str:
    """Such as `98 %` or `12.3 MB/s`."""
    divisor, prefixed = _scale(unit, value)
    return f"{_figure(value / divisor)} {prefixed}".rstrip()


def describe_ends(unit: str, value: float, low: float, high: float) -> str:
    """Two ends in the unit in which `value` is described, such as `5-9`; with their own, if another."""
    divisor, of_value = _scale(unit, value)
    if math.isfinite(high) and (own := _scale(unit, high)) and own[0] != divisor:
        divisor, of_value = own
        return f"{_joined(low / divisor, high / divisor)} {of_value}"
    return _joined(low / divisor, high / divisor)


def _joined(low: float, high: float) -> str:
    """With more digits where the ends would else look equal."""
    for more in range(_MOST_MORE_DIGITS + 1):
        ends = [_figure(end, more) for end in (low, high)]
        if ends[0] != ends[1] or low == high:
            break
    return (" to " if low < 0 else "-").join(ends)


def _scale(unit: str, value: float) -> tuple[float, str]:
    """The divisor and the unit in which a value is easy to read."""
    if unit in ("B/s", "bytes", "B"):
        for divisor, prefix in _PREFIXES:
            if abs(value) >= divisor:
                return divisor, f"{prefix}{unit}"
    return 1.0, unit


def _figure(value: float, more: int = 0) -> str:
    """As a person says it, or with so many digits more."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "any"
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{round(value, digits + more):.9g}"
