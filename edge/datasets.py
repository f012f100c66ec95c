"""Recorded datasets: reading, checking, writing, and resampling to one record per slot.

pandas is imported inside the functions that need it: test mode runs on hosts without it.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.alerts import WINDOW_RECORDS
from common.files import UserError, replace_file
from common.times import format_time, parse_time
from nodes.metrics import FREE, METRICS, MetricTable
from nodes.node import DEFAULT_NODE, Node, getColumnNames
from nodes.series import RECORD_SECONDS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Records that are this many intervals apart (median) are not late: they were recorded less often.
LATE_FACTOR = 1.2
# What datasets consist of that this program wrote.
_PLAIN_HEADER = re.compile(r"[A-Za-z0-9_]+(,[A-Za-z0-9_]+)*")
_PLAIN = re.compile(r"[-+0-9.,:TZe\n]*")


def createEmptyMetricsArray(col_num: int) -> np.ndarray:
    """Zeros of shape (1, col_num).

    Part of the documented interface; the program itself does not call it.
    """
    return np.zeros((1, col_num))


def convertNumpyToPandas(np_arr: np.ndarray) -> pd.DataFrame:
    """DataFrame of a 2-D array (n, 1 + m): the first column becomes the index.

    The columns get the names of a dataset of the documented node if there are as many; otherwise they are
    numbered from 0.

    Part of the documented interface; the program itself does not call it.
    """
    import pandas as pd

    names = list(getColumnNames())
    columns = names if np_arr.shape[1] == len(names) + 1 else None
    return pd.DataFrame(np_arr[:, 1:], index=np_arr[:, 0], columns=columns)


def loadDataset(dataset: str | Path, metrics: MetricTable = METRICS) -> pd.DataFrame:
    """Read a dataset (comma separated, with a header and a `time` column) into a DataFrame of floats.

    The index is `time` in UTC. Every feature and stored column of `metrics` must be present, except those
    that are derived; empty cells are missing values. Raises UserError, naming file, line and remedy, for
    anything that cannot be trusted: text in a number, infinities, torn lines, unsorted or repeated times,
    fewer than two records.
    """
    import pandas as pd

    plain = _read_plain(dataset)
    header, lines, rows = ([*plain], (), plain) if plain is not None else _read_cells(dataset)
    derived = {column for metric in metrics.values() for column in metric.derived}
    needed = dict.fromkeys(["time", *metrics.features, *metrics.stored])
    missing = [column for column in needed if column not in header and column not in derived]
    if missing:
        raise UserError(f"{dataset}: has no column {', '.join(missing)}; --mode collect writes all columns")
    if len(rows) < 2:
        raise UserError(f"{dataset}: has {len(rows)} record{'s' * (len(rows) != 1)}; at least 2 are needed")
    if plain is not None:
        times = _parse_times(dataset, range(2, len(plain) + 2), plain.pop("time"))
        numbers = {name: plain[name].to_numpy(dtype=float) for name in plain}
    else:
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        times = _parse_times(dataset, lines, columns.pop("time"))
        numbers = {name: _parse_numbers(dataset, lines, name, cells) for name, cells in columns.items()}
    index = pd.DatetimeIndex(pd.to_datetime(times, utc=True), name="time")
    return pd.DataFrame(numbers, index=index)


def _read_plain(dataset: str | Path) -> pd.DataFrame | None:
    """The columns of a dataset, `time` as text and the others as numbers, read in a fifth of the time.

    None for one that is not plain: it has other characters than those of numbers and times, rows that are
    not equally long, or a cell that is not a finite number. Read cell by cell, it may be sound all the same.
    """
    import pandas as pd

    # What is not a file can be read only once.
    if not Path(dataset).is_file():
        return None
    try:
        text = Path(dataset).read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    head, _, body = text.partition("\n")
    header = head.split(",")
    rows = body.count("\n") + (not body.endswith("\n"))
    if not _PLAIN_HEADER.fullmatch(head) or len(set(header)) < len(header) or "time" not in header:
        return None
    if not _PLAIN.fullmatch(body) or "\n\n" in body or body.count(",") != rows * (len(header) - 1):
        return None
    try:
        frame = pd.read_csv(io.StringIO(text), dtype={"time": str})
        # Of rows that are too long, pandas makes an index.
        if list(frame) != header or len(frame) != rows or frame["time"].isna().any():
            return None
        numbers = frame.drop(columns="time").astype(float)
    except (pd.errors.ParserError, ValueError):
        return None
    return None if np.isinf(numbers.to_numpy()).any() else numbers.assign(time=frame["time"])


def read_columns(dataset: str | Path, node: Node = DEFAULT_NODE) -> dict[str, np.ndarray]:
    """The columns of a dataset that write_dataset wrote for this node (n,), and `time` in ns (n,).

    Raises UserError as loadDataset does, and for other columns; a dataset without a record is accepted.
    """
    header, lines, rows = _read_cells(dataset)
    expected = ["time", *getColumnNames(node)]
    lacks = [f"no column {name}" for name in expected if name not in header]
    has = [f"the column {name}" for name in header if name not in expected]
    if differs := lacks + has:
        raise UserError(
            f"{dataset}: is not a dataset of this node: it has {differs[0]}; give the --node_file that it was"
            " collected with, or another --output"
        )
    columns = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    times = np.array(_parse_times(dataset, lines, columns.pop("time")), dtype=np.int64)
    return {"time": times} | {
        name: _parse_numbers(dataset, lines, name, cells) for name, cells in columns.items()
    }


def _read_cells(dataset: str | Path) -> tuple[list[str], list[int], list[list[str]]]:
    """The header, the line number of each record as an editor counts lines, and the cells of each record."""
    lines, rows = [], []
    try:
        with Path(dataset).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(filter(None, reader), [])]
            for row in reader:
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
    except FileNotFoundError:
        raise UserError(f"{dataset}: no such file; check the path") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{dataset}: cannot be read as comma separated values ({error})") from None
    if not header:
        raise UserError(f"{dataset}: is empty; a dataset has a header and records")
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{dataset}: has the column {name} twice; keep one of them")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise UserError(
                f"{dataset}, line {line}: has {len(row)} cells, but the header has {len(header)};"
                " the file is torn, copy or collect it again"
            )
    return header, lines, rows


def _parse_times(dataset: str | Path, lines: Sequence[int], cells: Sequence[str]) -> list[int]:
    times: list[int] = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            time = parse_time(cell)
        except ValueError:
            raise UserError(
                f"{dataset}, line {line}: time '{cell}' is not a date and time;"
                " write it like 2021-01-12T09:13:15Z"
            ) from None
        if times and time <= times[-1]:
            fault = "repeats the time of" if time == times[-1] else "is earlier than"
            raise UserError(f"{dataset}, line {line}: {fault} the line before; sort by time, each time once")
        times.append(time)
    return times


def _parse_numbers(
    dataset: str | Path, lines: Sequence[int], column: str, cells: Sequence[str]
) -> np.ndarray:
    values = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        if cell.strip() in ("", "nan", "NaN", "NA", "null"):
            continue
        try:
            values[i] = float(cell)
        except ValueError:
            values[i] = math.inf
        # float() accepts more than a dataset may hold: 1_000, digits of other scripts.
        if not math.isfinite(values[i]) or "_" in cell or not cell.isascii():
            raise UserError(
                f"{dataset}, line {lines[i]}: {column} is '{cell}', not a finite number;"
                " correct it or leave it empty"
            )
    return values


def write_dataset(filename: str | Path, rows: Iterable[dict[str, float]], node: Node = DEFAULT_NODE) -> int:
    """Write rows (columns of getColumnNames and `time` in ns) as a dataset, atomically; return their number.

    Rows are taken one at a time, so a generator keeps memory bounded. Missing values become empty cells.
    """
    columns = list(getColumnNames(node))
    documented = set(getColumnNames(replace(node, metrics=METRICS)))
    count = 0

    def write(path: Path) -> None:
        nonlocal count
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["time", *columns])
            for row in rows:
                cells = (_cell(row[column], column in documented) for column in columns)
                writer.writerow([format_time(row["time"]), *cells])
                count += 1

    replace_file(filename, write)
    return count


def _cell(value: float, is_documented: bool) -> str:
    """Five decimals for documented columns, whose units are known; otherwise as many digits as count."""
    if value != value:
        return ""
    return f"{round(value, 5) if is_documented else value:.12g}"


class SparseDatasetError(UserError):
    """The records of a dataset are further apart than --interval: most slots would be empty."""


def load_records(
    dataset: str | Path, interval_seconds: float = RECORD_SECONDS, metrics: MetricTable = METRICS
) -> pd.DataFrame:
    """Read a dataset, resample it and add the derived columns, as all modes do.

    Raises what loadDataset raises, and SparseDatasetError for records further apart than the interval.
    """
    frame = loadDataset(dataset, metrics)
    recorded = [column for column in metrics.features if column in frame]
    seconds_apart = {column: _seconds_apart(frame[column]) for column in recorded}
    column = max(seconds_apart, key=seconds_apart.__getitem__)
    if seconds_apart[column] > LATE_FACTOR * interval_seconds:
        raise SparseDatasetError(
            f"{dataset}: has a value of {column} only every {seconds_apart[column]:.3g} s, but --interval"
            f" is {interval_seconds:g} s; give --interval {seconds_apart[column]:.3g}, or collect it with"
            f" --interval {interval_seconds:g}"
        )
    return with_changes(resample_records(frame, interval_seconds), metrics)


def with_changes(frame: pd.DataFrame, metrics: MetricTable) -> pd.DataFrame:
    """Resampled records, with the change of each level since the previous record that has it.

    These are the columns that are derived; formatters.py makes the same ones from samples. After a gap of a
    window they are unknown: the records before it may be of another stretch of the history.
    """
    for metric in metrics.values():
        for column in metric.derived:
            level = frame[metric.level]
            before = level.ffill(limit=WINDOW_RECORDS - 1).shift()
            change = level - before
            # The change of the memory is in percent of what was used before.
            frame[column] = 100.0 * change / before.where(before != 0) if metric.kind == FREE else change
    return frame


def _seconds_apart(values: pd.Series) -> float:
    """Median time between the values of a column, in seconds; 0 for fewer than two.

    Rows without a value do not count: exporters scraped at different moments leave gaps in each other's rows.
    """
    times = values.dropna().index.as_unit("ns").asi8
    return float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 0.0


def resample_records(frame: pd.DataFrame, interval_seconds: float = RECORD_SECONDS) -> pd.DataFrame:
    """One row per slot of `interval_seconds`: the newest value of each column, at its newest time.

    The slots are those of the daemon (whole multiples of the interval since 1970). A slot without a
    row becomes a row of missing values at the slot's start, so that no sequence reaches across a gap; a gap
    gets at most a window of such rows.
    """
    import pandas as pd

    nanoseconds = frame.index.as_unit("ns").asi8
    slots = nanoseconds // int(interval_seconds * 1e9)
    rows = frame.groupby(slots).last()
    rows.index = pd.DatetimeIndex(
        pd.to_datetime(pd.Series(nanoseconds).groupby(slots).last(), utc=True), name="time"
    )
    present = np.unique(slots)
    filler = [
        slot
        for before, after in zip(present, present[1:], strict=False)
        for slot in range(before + 1, min(after, before + 1 + WINDOW_RECORDS))
    ]
    if filler:
        times = pd.to_datetime(np.array(filler) * int(interval_seconds * 1e9), utc=True)
        rows = pd.concat([rows, pd.DataFrame(index=times, columns=rows.columns, dtype=float)]).sort_index()
        rows.index.name = "time"
    return rows
