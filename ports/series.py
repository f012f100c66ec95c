"""The traffic of one port in one direction and its known anomalies, read and checked.

A sample counts the bytes of the five minutes before its time. Times without a zone are UTC.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd

from common.files import UserError, is_there, read_file
from common.times import DAY_SECONDS, parse_time

SAMPLE_SECONDS = 300
# Far more than any real file: a century of samples, and a million known anomalies.
SERIES_BYTES, ANOMALIES_BYTES = 400_000_000, 100_000_000
# The year 2262, the last that nanoseconds in 64 bits can count.
LATEST = 9_214_646_400
HEADING = ["ts", "traffic"]
MISSING = ("", "nan", "NaN", "NA", "null", "NULL", "None")
# More than any counter gives, even a wrong one; its square is still finite.
TOO_MANY_BYTES = 1e30
_PLAIN_ROWS = re.compile(rb"(?:\d*+,\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d,\d*+\r?+\n)++")
_PLAIN_HEADINGS = (b",ts,traffic", b"index,ts,traffic")
NAME = re.compile(r"(?P<device>[^_]+)_(?P<port>.+)_(?P<direction>in|out)")


@dataclass(frozen=True)
class Series:
    """times: seconds since 1970 (n,), ascending. traffic: bytes in the five minutes before (n,), NaN if the
    counter gave nothing.
    """

    name: str
    times: np.ndarray
    traffic: np.ndarray

    def between(self, start: int, end: int) -> Series:
        """The samples after `start` and up to `end` (seconds since 1970)."""
        part = slice(*np.searchsorted(self.times, [start, end], side="right"))
        return Series(self.name, self.times[part], self.traffic[part])


def port_name(device: str, port: str, direction: str) -> str:
    """The name of a series, fit for a file; letters that file names cannot hold are escaped as in a URL."""
    return f"{_file_part(device).replace('_', '%5F')}_{_file_part(port)}_{direction}"


def _file_part(text: str) -> str:
    return "".join(
        letter if letter.isalnum() or letter in " _.-" else quote(letter, safe="") for letter in text
    )


def port_tags(name: str) -> dict[str, str]:
    """The tags device, port and direction of a series: the inverse of port_name."""
    return {key: unquote(text) for key, text in NAME.fullmatch(name).groupdict().items()}


@dataclass(frozen=True)
class KnownAnomaly:
    """A known anomaly from `start` to `end` (seconds since 1970) of one `series`, or of all if None."""

    start: int
    end: int
    series: str | None = None


# --- files ---------------------------------------------------------------------------------------


def list_series(folder: str | Path) -> dict[str, Path]:
    """Name -> file, for each `<device>_<port>_<in|out>.csv` in a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --ports_dir")
    found = {path.stem: path for path in sorted(folder.glob("*.csv")) if NAME.fullmatch(path.stem)}
    if not found:
        raise UserError(f"{folder}: no file is named <device>_<port>_<in|out>.csv; check --ports_dir")
    return found


def read_series(path: str | Path) -> Series:
    """Read the columns index, `ts` and `traffic`; an empty cell is a missing value.

    Raises UserError, naming file, line and remedy, if it is no regular file, or has a wrong column, a torn
    line, a cell that is not a number or a time, negative bytes, or times that do not ascend.
    """
    path = Path(path)
    content = read_file(path, SERIES_BYTES)
    return _read_plain(path, content) or _read_any(path, content)


def _read_plain(path: Path, content: bytes) -> Series | None:
    """Read a correct file of plain times and whole numbers, ten times as fast; None for any other file."""
    heading, _, rows = content.partition(b"\n")
    if heading.strip() not in _PLAIN_HEADINGS or not _PLAIN_ROWS.fullmatch(rows):
        return None
    frame = pd.read_csv(io.BytesIO(rows), header=None, usecols=[1, 2], dtype={1: str, 2: float})
    traffic = frame[2].to_numpy()
    try:
        times = pd.to_datetime(frame[1].to_list(), format="ISO8601", utc=True).as_unit("s").asi8
    # A time that does not exist, like the 30th of February.
    except ValueError:
        return None
    is_ascending = ((times > 0) & (times < LATEST)).all() and (np.diff(times) > 0).all()
    return (
        Series(path.stem, times, traffic) if is_ascending and not (traffic >= TOO_MANY_BYTES).any() else None
    )


def _read_any(path: Path, content: bytes) -> Series:
    """Read line by line, so that an error can name its line."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as comma separated values ({error})") from None
    if len(rows) < 2:
        raise UserError(f"{path}: has no samples; check how it is recorded")
    if rows[0][1:] != HEADING:
        raise UserError(
            f"{path}: has the columns {','.join(rows[0])!r}; it must have an index, ts and traffic"
        )
    times, traffic = [], []
    for line, row in enumerate(rows[1:], start=2):
        where = f"{path}, line {line}"
        if not row:
            continue
        if len(row) != 3:
            raise UserError(f"{where}: has {len(row)} cells, not 3; the file is torn, copy it again")
        try:
            times.append(parse_time(row[1]) // 10**9)
        except ValueError:
            times.append(0)
        if not 0 < times[-1] < LATEST:
            raise UserError(f"{where}: ts is {row[1][:40]!r}; it must be a time like 2023-01-31 23:55:00")
        if len(times) > 1 and times[-1] <= times[-2]:
            fault = "repeats the time of" if times[-1] == times[-2] else "is earlier than"
            raise UserError(f"{where}: {fault} the line before; sort by time, each time once")
        traffic.append(_bytes(where, row[2]))
    if not times:
        raise UserError(f"{path}: has no samples; check how it is recorded")
    return Series(path.stem, np.array(times), np.array(traffic))


def _bytes(where: str, cell: str) -> float:
    if cell in MISSING:
        return math.nan
    try:
        # float() also reads 1_000, infinity and digits of other scripts.
        value = float(cell) if cell.isascii() and "_" not in cell else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < TOO_MANY_BYTES:
        raise UserError(
            f"{where}: traffic is {cell[:40]!r}; it must be a number of bytes, 0 or more, or empty"
        )
    return value


def read_anomalies(path: str | Path) -> list[KnownAnomaly]:
    """Read one date, or `start,end[,series]`, per line; empty if there is no such file."""
    if not is_there(path):
        return []
    try:
        lines = read_file(path, ANOMALIES_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    return [
        _anomaly(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()
    ]


def _anomaly(where: str, line: str) -> KnownAnomaly:
    cells = [cell.strip() for cell in line.split(",")]
    try:
        start, *end = (parse_time(cell) // 10**9 for cell in cells[:2])
    except ValueError:
        raise UserError(f"{where}: {line!r} is neither a date nor start,end[,series]") from None
    if len(cells) > 3 or end and end[0] <= start:
        raise UserError(f"{where}: {line!r} must be a date, or a start, a later end and at most a series")
    return KnownAnomaly(
        start, end[0] if end else start + DAY_SECONDS, cells[2] or None if len(cells) == 3 else None
    )
