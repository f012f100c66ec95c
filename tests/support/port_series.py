"""Series of port traffic made by hand: what is usual is known, and what is wrong with them, too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

START = int(datetime(2023, 1, 2, tzinfo=UTC).timestamp())  # a Monday
DAY = 86_400


def moment(text: str) -> int:
    """Seconds since 1970 of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def samples(days: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times and bytes: between 1 and 3 million with the hour, a third on Sundays, and 5 % of noise."""
    times = START + 300 * np.arange(1, days * 288 + 1)
    hours = (times - 150 - START) / 3600 % 24
    usual = 1e6 * (2 - np.cos(2 * np.pi * hours / 24))
    is_sunday = (times - 150 - START) // DAY % 7 == 6
    noise = np.random.default_rng(seed).normal(0, 0.05, len(times))
    return times, np.round(usual * np.where(is_sunday, 1 / 3, 1) * np.exp(noise))


def change(times: np.ndarray, traffic: np.ndarray, start: str, end: str, factor: float) -> None:
    """Multiply what was counted between two times, in place."""
    traffic[(times > moment(start)) & (times <= moment(end))] *= factor


def write(folder: Path, name: str, times: np.ndarray, traffic: np.ndarray) -> None:
    """The file of a series."""
    rows = [
        f"{index},{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S},{value:.0f}"
        for index, (time, value) in enumerate(zip(times.tolist(), traffic.tolist(), strict=True))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text("\n".join([",ts,traffic", *rows]) + "\n")
