"""What verdicts are worth: compared with known attack windows, as a table, as JSON and as pictures.

A record belongs to an attack if its time lies in [start, end) of a window. Polls are counted from 1: the
first record of an attack is poll 1 after its onset, the first record after it poll 1 after its end.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoencoder import Bundle
from detector import (
    ALERT,
    ALERT_RECORDS,
    LEVELS,
    THRESHOLD_KEYS,
    UNKNOWN,
    UNKNOWN_CAUSE,
    Scores,
    Verdict,
    expected_levels,
    physical,
)
from utils import METRICS, WINDOW_RECORDS, UserError, loadDictJson, parse_time, replace_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS_PER_DAY = 86400.0
# Of an alert that lasts longer than this (6 h of 15 s), the newest records are drawn.
ALERT_PICTURE_RECORDS = 1440
# A threshold so many times above all RMSEs is left out of the picture, or they would be one flat line.
FAR_ABOVE = 1000.0

# Last word of a level's column -> unit in which it is drawn, and what divides the column to get there.
_UNITS = {"percentage": ("%", 1.0), "rate": ("kB/s", 1e3)}

_HEADINGS = {
    "records": "records",
    "unknown_records": "unknown",
    "attack_records": "in attack",
    "attack_flagged": "flagged",
    "attack_alerted": "alerted",
    "polls_to_first_anomaly": "1st anomaly",
    "polls_to_first_alert": "1st alert",
    "polls_to_last_flag": "last flag",
    "false_anomalies_per_day": "false/day",
    "false_alerts_per_day": "false alerts/day",
    "normal_alerted": "normal alerted",
}


def load_attacks(dataset: str | Path) -> list[tuple[int, int]]:
    """Attack windows (start, end in ns) of a dataset, from `attacks.json` beside it; none if it is not there.

    The file maps a dataset's file name to a list of {"start": ..., "end": ...}.
    """
    path = Path(dataset).parent / "attacks.json"
    if not path.exists():
        return []
    windows = loadDictJson(path).get(Path(dataset).name, [])
    try:
        attacks = [(parse_time(window["start"]), parse_time(window["end"])) for window in windows]
        if any(start >= end for start, end in attacks):
            raise ValueError("a window ends before it starts")
        return attacks
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: the windows of {Path(dataset).name} must be a list of"
            ' {"start": "2021-01-12T09:13:15Z", "end": "2021-01-12T09:31:15Z"}'
        ) from None


def is_same_node(
    scores: Scores, frame: pd.DataFrame, attacks: Sequence[tuple[int, int]], normal: Scores
) -> bool:
    """Whether a dataset looks like the node that the training set comes from, outside its attacks.

    It does not if it has no record outside attacks, or most of them have a window RMSE that only one in a
    hundred of the training set reaches: another node, or attacks whose windows nobody wrote down.
    """
    times = frame.index.as_unit("ns").asi8
    outside = np.ones(len(times), dtype=bool)
    for start, end in attacks:
        outside &= (times < start) | (times >= end)
    if not outside.any():
        return False
    limits = np.nanpercentile(normal.window, 99, axis=0)
    return bool((scores.window[outside] > limits).any(axis=1).mean() <= 0.5)


def summarise(verdicts: Sequence[Verdict], attacks: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The numbers of _HEADINGS for one dataset; None where there is no attack or no normal record.

    Polls are those of the slowest attack; an alert that is already up at the onset finds nothing. An
    attack's last flag is the one before ALERT_RECORDS records in a row without a flag, at most a window
    after its end; what is flagged after that is false. False alerts are counted as runs, each of which
    wakes a person once; `normal_alerted` are their records.
    """
    times = np.array([verdict.time for verdict in verdicts])
    flagged = np.array([verdict.is_anomaly for verdict in verdicts])
    alerted = np.array([verdict.status == ALERT for verdict in verdicts])
    unknown = np.array([verdict.status == UNKNOWN for verdict in verdicts])
    during = np.zeros(len(times), dtype=bool)
    tail = np.zeros(len(times), dtype=bool)
    first_anomaly, first_alert, last_flag = [], [], []
    for start, end in attacks:
        inside = (times >= start) & (times < end)
        during |= inside
        begin, after = int(np.searchsorted(times, start)), int(np.searchsorted(times, end))
        is_up = begin > 0 and alerted[begin - 1]
        first_anomaly.append(float("inf") if is_up else _first(flagged[begin:after]))
        first_alert.append(float("inf") if is_up else _first(alerted[begin:after]))
        until = min((int(np.searchsorted(times, s)) for s, _ in attacks if s >= end), default=len(times))
        last_flag.append(_tail(flagged[after : min(until, after + WINDOW_RECORDS)]))
        tail[after : after + last_flag[-1]] = True
    tail &= ~during
    normal = ~during & ~tail
    days = _days(times, normal & ~unknown)
    return {
        "records": len(times),
        "unknown_records": int(unknown.sum()),
        "attack_records": int(during.sum()),
        "attack_flagged": int((flagged & during).sum()),
        "attack_alerted": int((alerted & during).sum()),
        "polls_to_first_anomaly": _worst(first_anomaly),
        "polls_to_first_alert": _worst(first_alert),
        "polls_to_last_flag": _worst(last_flag),
        "false_anomalies_per_day": _per_day((flagged & normal).sum(), days),
        "false_alerts_per_day": _per_day(_episodes(alerted & normal), days),
        "normal_alerted": int((alerted & normal).sum()),
    }


def _first(flags: np.ndarray) -> float:
    """1 for the first record, infinity if none is flagged."""
    return float(flags.argmax() + 1) if flags.any() else float("inf")


def _tail(flags: np.ndarray) -> int:
    """Records up to the last flag that is less than ALERT_RECORDS records away from the one before."""
    last = 0
    for position in np.flatnonzero(flags) + 1:
        if position - last > ALERT_RECORDS:
            break
        last = int(position)
    return last


def _worst(polls: list[float]) -> int | str | None:
    if not polls:
        return None
    return int(max(polls)) if np.isfinite(max(polls)) else "never"


def _episodes(flags: np.ndarray) -> int:
    """Runs of flags: an alert that lasts wakes a person once."""
    return int((np.diff(flags.astype(int), prepend=0) == 1).sum())


def _days(times: np.ndarray, chosen: np.ndarray) -> float:
    if len(times) < 2 or not chosen.any():
        return 0.0
    return float(chosen.sum() * np.median(np.diff(times)) / 1e9 / SECONDS_PER_DAY)


def _per_day(count: int, days: float) -> float | None:
    return round(float(count) / days, 2) if days else None


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """One row for each dataset, columns aligned; `-` where a number has no meaning."""
    rows = [["dataset", *_HEADINGS.values()]]
    for name, summary in summaries.items():
        rows.append([name, *("-" if summary[key] is None else str(summary[key]) for key in _HEADINGS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


# --- pictures ------------------------------------------------------------------------------------


def plot_detection(
    bundle: Bundle,
    thresholds: dict[str, float],
    verdicts: Sequence[Verdict],
    attacks: Sequence[tuple[int, int]],
    filename: str | Path,
    title: str,
) -> None:
    """Write one picture of consecutive records: each metric, its RMSE with the threshold, attacks and flags.

    Of each metric the actual level (LEVELS) is drawn against the expected one and the band that the
    thresholds allow. Raises UserError where the file cannot be written.
    """
    figure = draw_detection(bundle, thresholds, verdicts, attacks, title)
    replace_file(filename, lambda path: figure.savefig(path, dpi=110))


def draw_detection(
    bundle: Bundle,
    thresholds: dict[str, float],
    verdicts: Sequence[Verdict],
    attacks: Sequence[tuple[int, int]],
    title: str,
) -> Figure:
    """The picture of plot_detection, two axes in each row: level and RMSE of a metric; overall RMSE last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 15))
    # A layout engine would draw all of it twice to find these.
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.04, top=0.94, hspace=0.15, wspace=0.16)
    axes = figure.subplots(len(METRICS) + 1, 2, sharex=True)
    axes[-1, 0].remove()
    verdicts = _with_gaps(verdicts)
    times = np.array([verdict.time for verdict in verdicts]).astype("datetime64[ns]")
    levels = physical(bundle, np.array([verdict.actual for verdict in verdicts]))
    expected = expected_levels(bundle, thresholds, np.array([verdict.predicted for verdict in verdicts]))
    for row, name in enumerate([*METRICS, "overall"]):
        flags = _flags(verdicts, name)
        if name in LEVELS:
            level = levels[:, bundle.features.index(LEVELS[name])]
            _draw_level(axes[row, 0], name, times, level, expected[name], flags)
        rmse = np.array([verdict.rmse[name] for verdict in verdicts])
        _draw_rmse(axes[row, 1], name, times, rmse, thresholds[THRESHOLD_KEYS[row]], flags)
    for axis in figure.axes:
        for start, end in np.array(attacks, dtype="datetime64[ns]").reshape(-1, 2):
            axis.axvspan(start, end, color="tab:red", alpha=0.12, linewidth=0, label="attack")
        axis.spines[["top", "right"]].set_visible(False)
    # The last level axis is gone, so the one above it carries the labels of its column.
    _label_times(axes[-2, 0], axes[-1, 1])
    _add_legend(figure)
    figure.suptitle(title, x=0.07, y=0.99, ha="left", va="top", wrap=True)
    return figure


def _with_gaps(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """With an empty verdict wherever records are missing: no line may be drawn across."""
    filled = list(verdicts)
    steps = np.diff([verdict.time for verdict in verdicts])
    for index in np.flatnonzero(steps > 1.5 * np.median(steps))[::-1] if len(steps) else ():
        before = verdicts[index]
        nothing = np.full(before.actual.shape, np.nan)
        rmse = dict.fromkeys(before.rmse, np.nan)
        empty = Verdict(before.time + 1, UNKNOWN, (), (), rmse, {}, actual=nothing, predicted=nothing)
        filled.insert(index + 1, empty)
    return filled


def _flags(verdicts: Sequence[Verdict], name: str) -> dict[str, np.ndarray]:
    """Which records (n,) are anomalies, and which alerts, because of this metric; overall: of none."""
    caused = [name in v.causes or (name == "overall" and v.is_anomaly and not v.causes) for v in verdicts]
    alerted = np.array([v.status == ALERT for v in verdicts]) & caused
    return {"anomaly": np.array(caused) & ~alerted, "alert": alerted}


def _draw_level(
    axis: Axes,
    name: str,
    times: np.ndarray,
    level: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray, np.ndarray],
    flags: dict[str, np.ndarray],
) -> None:
    unit, divisor = _UNITS[LEVELS[name].rpartition("_")[2]]
    actual, low, middle, high = (values / divisor for values in (level, *expected))
    limits = _level_limits(np.concatenate([actual, middle]), low, high)
    # Nothing is drawn far outside the picture: a band without an end, for one.
    low, high = (np.clip(bound, *limits) for bound in (low, high))
    axis.fill_between(times, low, high, color="tab:green", alpha=0.18, linewidth=0, label="allowed")
    axis.plot(times, middle, color="tab:blue", linewidth=1.0, label="expected")
    axis.plot(times, actual, color="0.25", linewidth=0.7, label="actual")
    _mark(axis, times, actual, flags)
    axis.set_ylim(*limits)
    axis.set_ylabel(f"{name} [{unit}]")


def _level_limits(shown: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Ends of a level's axis: all of what is `shown`, and of the band around it at most as much again."""
    shown, low, high = (values[~np.isnan(values)] for values in (shown, low, high))
    if not len(shown):
        return 0.0, 1.0
    bottom, top = shown.min(), shown.max()
    room = (top - bottom) or abs(top) or 1.0
    bottom = min(bottom, max(low.min(initial=bottom), bottom - room))
    top = max(top, min(high.max(initial=top), top + room))
    margin = 0.05 * ((top - bottom) or room)
    return float(bottom - margin), float(top + margin)


def _draw_rmse(
    axis: Axes,
    name: str,
    times: np.ndarray,
    rmse: np.ndarray,
    threshold: float,
    flags: dict[str, np.ndarray],
) -> None:
    from matplotlib.ticker import NullFormatter

    # Zero has no logarithm.
    rmse = np.where(rmse > 0, rmse, np.nan)
    axis.plot(times, rmse, color="tab:purple", linewidth=0.8, label="window RMSE")
    if 0 < threshold <= FAR_ABOVE * np.max(rmse, initial=0.0, where=np.isfinite(rmse)):
        axis.axhline(threshold, color="black", linestyle="--", linewidth=0.8, label="threshold")
    _mark(axis, times, rmse, flags)
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(f"{name} RMSE")


def _mark(axis: Axes, times: np.ndarray, level: np.ndarray, flags: dict[str, np.ndarray]) -> None:
    for (label, flagged), color in zip(flags.items(), ("gold", "red"), strict=True):
        if flagged.any():
            axis.scatter(times[flagged], level[flagged], s=9, color=color, zorder=3, label=label)


def _label_times(*axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    for axis in axes:
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("time [UTC]")


def _add_legend(figure: Figure) -> None:
    handles = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper right",
        bbox_to_anchor=(1.0, 0.972),
        ncols=len(handles),
        frameon=False,
    )


# --- alerts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alert:
    """An alert from beginning to end; times in ns.

    first_anomaly: of the row of anomalies. start: of the alert, ALERT_RECORDS anomalies later. end: of the
    record that ends it, or the newest one of an alert that `is_open`. records: from up to WINDOW_RECORDS
    before the first anomaly to the end, the newest ALERT_PICTURE_RECORDS of them.
    """

    first_anomaly: int
    start: int
    end: int
    is_open: bool
    causes: tuple[str, ...]
    records: tuple[Verdict, ...]

    @property
    def filename(self) -> str:
        """alert_20260306T120014Z.png, the time of its first anomaly."""
        return f"alert_{_moment(self.first_anomaly):%Y%m%dT%H%M%SZ}.png"

    @property
    def title(self) -> str:
        """Causes in the order of METRICS, its times in UTC, and how long it lasted."""
        start, end, first = (_moment(time) for time in (self.start, self.end, self.first_anomaly))
        one_day = first.date() == end.date()
        form, day = ("%H:%M:%S", f" on {end:%Y-%m-%d}") if one_day else ("%Y-%m-%d %H:%M:%S", "")
        cause = " | ".join(self.causes) or UNKNOWN_CAUSE
        until = ", still up at" if self.is_open else " to"
        return (
            f"{cause}: alert from {start:{form}}{until} {end:{form}} UTC{day} ({_duration(end - start)}),"
            f" first anomaly {first:{form}}"
        )


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(time // 10**9, UTC)


def _duration(span: timedelta) -> str:
    """17 min 45 s."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


class AlertRecorder:
    """Takes verdicts one by one, as they come, and gives each alert back when it has ended."""

    def __init__(self) -> None:
        self._records: deque[Verdict] = deque(maxlen=ALERT_PICTURE_RECORDS)
        self._first_anomaly: int | None = None
        self._start: int | None = None
        self._causes: set[str] = set()

    def observe(self, verdict: Verdict) -> Alert | None:
        """The alert that this verdict ends, if it does."""
        ended = None
        if verdict.is_anomaly and verdict.in_a_row == 1:
            # Skipped slots end a row without a verdict that says so.
            ended = self.close()
        self._records.append(verdict)
        if verdict.is_anomaly:
            self._note(verdict)
        return self.close() if verdict.in_a_row == 0 else ended

    def _note(self, anomaly: Verdict) -> None:
        if self._first_anomaly is None:
            self._first_anomaly = anomaly.time
        if self._start is None and anomaly.status == ALERT:
            self._start = anomaly.time
        self._causes.update(anomaly.causes)

    def close(self, is_open: bool = False) -> Alert | None:
        """The alert up to here, if there is one; what comes next is a new row."""
        alert = None
        if self._first_anomaly is not None and self._start is not None:
            alert = Alert(
                self._first_anomaly,
                self._start,
                self._records[-1].time,
                is_open,
                tuple(name for name in METRICS if name in self._causes),
                tuple(self._records),
            )
        self._first_anomaly = self._start = None
        self._causes = set()
        while len(self._records) > WINDOW_RECORDS:
            self._records.popleft()
        return alert


def make_plot_dir(folder: str | Path) -> None:
    """Create the folder of the alerts' pictures. Raises UserError where none can be written to it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: no picture can be written there ({error.strerror or error}); name another --plot_dir"
        ) from None


def plot_alert(bundle: Bundle, thresholds: dict[str, float], alert: Alert, folder: str | Path) -> Path:
    """Write the picture of an alert into the folder; returns its path. Raises UserError where it cannot."""
    path = Path(folder) / alert.filename
    plot_detection(bundle, thresholds, alert.records, (), path, alert.title)
    return path
