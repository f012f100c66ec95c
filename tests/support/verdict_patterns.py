"""Verdicts written as a pattern of letters, for tests that count or draw them."""

from __future__ import annotations

from edge.detector import Verdict

SECOND = 10**9
START = 1_772_409_600 * SECOND  # 2026-03-02T00:00:00Z
STATUS = {"n": "normal", "a": "anomaly", "!": "alert", "?": "unknown"}


def verdicts_of(
    pattern: str, step_seconds: float = 864.0, causes: tuple[str, ...] = ("cpu",)
) -> list[Verdict]:
    """n normal, a anomaly, ! alert, ? unknown. By default 100 records are a day, so one is 0.01 of it."""
    return [
        Verdict(
            START + int(i * step_seconds * SECOND),
            STATUS[letter],
            causes if letter in "a!" else (),
            (),
            {},
            {},
            is_alert_up=letter == "!",
        )
        for i, letter in enumerate(pattern)
    ]


def window(first: int, end: int, step_seconds: float = 864.0) -> tuple[int, int]:
    """An attack from record `first` to before record `end`."""
    return START + int(first * step_seconds * SECOND), START + int(end * step_seconds * SECOND)
