"""Times as they are written."""

from __future__ import annotations

import pytest

from common.times import format_duration, format_time

T0 = 1610442795 * 10**9  # 2021-01-12T09:13:15Z


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (T0, "2021-01-12T09:13:15Z"),
        (T0 + 50_000_000, "2021-01-12T09:13:15.050Z"),
        (T0 + 999_999_999, "2021-01-12T09:13:15.999Z"),
    ],
)
def test_time_is_written_with_milliseconds_where_there_are_any(nanoseconds: int, text: str) -> None:
    assert format_time(nanoseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (44.998, "45 s"), (45.4, "45 s"), (3599.9, "1 h"), (3661, "1 h 1 min 1 s")],
)
def test_a_duration_is_rounded_to_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
