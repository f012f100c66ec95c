"""Amounts as a person says them: `98 %`, `12.3 MB/s`."""

from __future__ import annotations

import math

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def describe_amount(unit: str, value: float) -> str:
    """Such as `98 %` or `12.3 MB/s`."""
    divisor, prefixed = _scale(unit, value)
    return f"{_figure(value / divisor)} {prefixed}".rstrip()


def describe_ends(unit: str, value: float, low: float, high: float) -> str:
    """Two ends in the unit in which `value` is described: such as `5-9`; in their own, if that is another."""
    divisor, of_value = _scale(unit, value)
    if math.isfinite(high) and (own := _scale(unit, high)) and own[0] > divisor:
        divisor, of_value = own
        return f"{_joined(low / divisor, high / divisor)} {of_value}"
    return _joined(low / divisor, high / divisor)


def _joined(low: float, high: float) -> str:
    return (" to " if low < 0 else "-").join(map(_figure, (low, high)))


def _scale(unit: str, value: float) -> tuple[float, str]:
    """The divisor and the unit in which a value is easy to read."""
    if unit in ("B/s", "bytes", "B"):
        for divisor, prefix in _PREFIXES:
            if abs(value) >= divisor:
                return divisor, f"{prefix}{unit}"
    return 1.0, unit


def _figure(value: float) -> str:
    """Three digits at most, as a person says them."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "any"
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{round(value, digits):g}"
