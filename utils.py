"""Columns, node descriptions, datasets, normalisation, sequences and training plots.

The documented functions for JSON are imported from common/files.py.
pandas and matplotlib are imported inside the functions that need them: test mode loads this module
on hosts where neither is installed.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.alerts import WINDOW_RECORDS

# All that is documented, or was written here once, can be imported from here.
from common.files import (  # noqa: F401
    UserError,
    json_bytes,
    loadDictJson,
    replace_file,
    replace_files,
    saveDictJson,
    shown,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

RECORD_SECONDS = 15.0
N_STEPS = 4
STATS_JSON = "data/normalization_stats.json"
# Records this many intervals apart, in the median, are not late: they are recorded at another pace.
LATE_FACTOR = 1.2

# What an operator thinks in -> the columns that the model sees of it. The rate shows an edge, the
# percentage a plateau; a byte rate shows both.
METRICS = {
    "cpu": ("cpu_user_rate", "cpu_user_percentage"),
    "cpu_rx": ("cpu_rx_rate", "cpu_rx_percentage"),
    "cpu_tx": ("cpu_tx_rate", "cpu_tx_percentage"),
    "net_down": ("bytes_received_rate",),
    "net_up": ("bytes_transmitted_rate",),
    "net_5g_down": ("dl_bytes_rate",),
    "net_5g_up": ("ul_bytes_rate",),
    "mem": ("mem_rate", "mem_percentage"),
}

# Fields of an anomaly's point in InfluxDB, in the order of getAnomalyColumns().
ANOMALY_FIELDS = (
    "cpu_usage",
    "mem_usage",
    "net_down_usage",
    "net_up_usage",
    "cpu_rx_usage",
    "cpu_tx_usage",
    "net_down_5g_usage",
    "net_up_5g_usage",
)


@dataclass(frozen=True)
class Node:
    """Which series of a database are this node; the defaults are those of the documented testbed.

    `node_instance` and `ran_instance` pin the `instance` tags of the node exporter and the RAN
    exporter; None accepts the only one there is. `node_tags` and `ran_tags` pin any other tags of theirs,
    where an empty value means that a series must not have the tag. `total_memory_bytes` counts where the node
    exporter does not report `node_memory_MemTotal_bytes`.
    """

    cpus: tuple[str, ...] = ("0", "1")
    interfaces: tuple[str, ...] = ("enp1s0", "enp0s20u1", "ppp0")
    cell_id: str = "2"
    total_memory_bytes: float = 8228077568.0
    node_instance: str | None = None
    ran_instance: str | None = None
    node_tags: tuple[tuple[str, str], ...] = ()
    ran_tags: tuple[tuple[str, str], ...] = ()


DEFAULT_NODE = Node()


def load_node(filename: str | Path | None) -> Node:
    """Read a node file (JSON with any of the fields of Node); None gives the documented node.

    Raises UserError for an unreadable file, an unknown key or a value of the wrong kind.
    """
    if filename is None:
        return DEFAULT_NODE
    given = loadDictJson(filename)
    known = {field.name for field in fields(Node)}
    for key in given:
        if key not in known:
            raise UserError(
                f"{filename}: unknown key {shown(repr(key))}; the keys are {', '.join(sorted(known))}"
            )
    for key in ("cpus", "interfaces"):
        if key in given:
            names = given[key]
            if not isinstance(names, list) or not names:
                raise UserError(f'{filename}: \'{key}\' must be a list of names, like ["0", "1"]')
            given[key] = tuple(_name(filename, key, name) for name in names)
            if len(set(given[key])) < len(names):
                raise UserError(f"{filename}: '{key}' names the same one twice; list each once")
    for key in ("cell_id", "node_instance", "ran_instance"):
        # Without an instance, the only one there is counts; there is no such thing as no cell.
        if key in given and (key == "cell_id" or given[key] is not None):
            given[key] = _name(filename, key, given[key])
    for key, instance in (("node_tags", "node_instance"), ("ran_tags", "ran_instance")):
        if key in given:
            given[key] = _tags(filename, key, given[key], instance)
    if "total_memory_bytes" in given and not _is_number(given["total_memory_bytes"], above=0):
        raise UserError(f"{filename}: 'total_memory_bytes' must be a number of bytes above 0")
    return Node(**given)


def _tags(filename: str | Path, key: str, tags: Any, instance: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(tags, dict) or not all(name and name.isprintable() for name in tags):
        raise UserError(f'{filename}: \'{key}\' must be an object of tags, like {{"job": "node"}}')
    if "instance" in tags:
        raise UserError(f"{filename}: '{key}' holds 'instance'; write it as '{instance}'")
    return tuple(
        (name, value if value == "" else _name(filename, key, value)) for name, value in tags.items()
    )


def _name(filename: str | Path, key: str, value: Any) -> str:
    """Labels are text in InfluxDB, but people write `"cpus": [0, 1]`."""
    is_name = isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
    if not is_name or not str(value).isprintable():
        raise UserError(
            f"{filename}: '{key}' must hold names (text or whole numbers), not {shown(repr(value))}"
        )
    return str(value)


def _is_number(value: Any, above: float = -math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and above < value < math.inf


# --- columns -------------------------------------------------------------------------------------


def getColumnNames(node: Node = DEFAULT_NODE) -> dict[str, type]:
    """Columns of a dataset beside `time`, and their types, in the order in which they are written.

    The first ones are per CPU and per interface of `node`; the rest are the same for every node.
    """
    columns = [f"cpu_user_{cpu}_{kind}" for cpu in node.cpus for kind in ("percentage", "rate")]
    columns += ["cpu_user_percentage", "cpu_user_rate"]
    for direction in ("received", "transmitted"):
        for name in node.interfaces:
            columns += [f"{name}_bytes_{direction}", f"{name}_{direction}_rate"]
        columns += [f"bytes_{direction}", f"bytes_{direction}_rate"]
    columns += ["mem", "mem_percentage", "mem_rate"]
    columns += ["cpu_rx_percentage", "cpu_rx_rate", "cpu_tx_percentage", "cpu_tx_rate"]
    columns += ["dl_bytes", "dl_bytes_rate", "ul_bytes", "ul_bytes_rate"]
    return dict.fromkeys(columns, float)


def getFeatures() -> list[str]:
    """Columns that the model sees: the eight documented rates in their published order, then the levels.

    A rate alone is flat in the middle of an attack, so the four percentages are part of the input.
    """
    return [
        "cpu_user_rate",
        "cpu_rx_rate",
        "cpu_tx_rate",
        "bytes_received_rate",
        "bytes_transmitted_rate",
        "dl_bytes_rate",
        "ul_bytes_rate",
        "mem_rate",
        "cpu_user_percentage",
        "cpu_rx_percentage",
        "cpu_tx_percentage",
        "mem_percentage",
    ]


def getAnomalyColumns() -> list[str]:
    """Columns that are stored with an anomaly, in the order of the fields of its point in InfluxDB."""
    return [
        "cpu_user_percentage",
        "mem_percentage",
        "bytes_received",
        "bytes_transmitted",
        "cpu_rx_percentage",
        "cpu_tx_percentage",
        "dl_bytes",
        "ul_bytes",
    ]


def createEmptyMetricsArray(col_num: int) -> np.ndarray:
    """Zeros of shape (1, col_num)."""
    return np.zeros((1, col_num))


def convertNumpyToPandas(np_arr: np.ndarray) -> pd.DataFrame:
    """DataFrame of a 2-D array (n, 1 + m): the first column becomes the index.

    With as many columns as a dataset of the documented node has, they get its names; otherwise they
    are numbered from 0.
    """
    import pandas as pd

    names = list(getColumnNames())
    columns = names if np_arr.shape[1] == len(names) + 1 else None
    return pd.DataFrame(np_arr[:, 1:], index=np_arr[:, 0], columns=columns)


# --- datasets ------------------------------------------------------------------------------------


def loadDataset(dataset: str | Path) -> pd.DataFrame:
    """Read a dataset (comma separated, header, `time` column) into a DataFrame of floats.

    The index is `time` in UTC. Every feature and every stored column must be there; empty cells are
    missing values. Raises UserError, naming file, line and remedy, for anything that cannot be trusted:
    text in a number, infinities, torn lines, unsorted or repeated times, fewer than two records.
    """
    import pandas as pd

    header, lines, rows = _read_cells(dataset)
    needed = dict.fromkeys(["time", *getFeatures(), *getAnomalyColumns()])
    missing = [column for column in needed if column not in header]
    if missing:
        raise UserError(
            f"{dataset}: has no column {', '.join(missing)}; --mode collect writes all that are needed"
        )
    if len(rows) < 2:
        raise UserError(f"{dataset}: has {len(rows)} record{'s' * (len(rows) != 1)}; at least 2 are needed")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    times = _parse_times(dataset, lines, columns.pop("time"))
    numbers = {name: _parse_numbers(dataset, lines, name, cells) for name, cells in columns.items()}
    index = pd.DatetimeIndex(pd.to_datetime(times, utc=True), name="time")
    return pd.DataFrame(numbers, index=index)


def _read_cells(dataset: str | Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Header, line numbers as an editor counts them, and the cells of each record."""
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
                f"{dataset}, line {line}: has {len(row)} cells, the header {len(header)};"
                " the file is torn, copy or collect it again"
            )
    return header, lines, rows


def parse_time(text: str) -> int:
    """ns since 1970 of an ISO date and time, UTC where it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # What nanoseconds in 64 bits can hold.
    if not 1970 <= moment.year < 2262:
        raise ValueError(f"{text} is out of range")
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000


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
        # float() reads more than a dataset may hold: 1_000, digits of other scripts.
        if not math.isfinite(values[i]) or "_" in cell or not cell.isascii():
            raise UserError(
                f"{dataset}, line {lines[i]}: {column} is '{cell}', not a finite number;"
                " correct it or leave it empty"
            )
    return values


def write_dataset(filename: str | Path, rows: Iterable[dict[str, float]], node: Node = DEFAULT_NODE) -> int:
    """Write rows (columns of getColumnNames plus `time` in ns) as a dataset, atomically; return their number.

    Rows are taken one at a time, so a generator keeps memory bounded. Missing values become empty cells.
    """
    columns = list(getColumnNames(node))
    count = 0

    def write(path: Path) -> None:
        nonlocal count
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["time", *columns])
            for row in rows:
                cells = (row[column] for column in columns)
                writer.writerow(
                    [format_time(row["time"]), *("" if c != c else f"{round(c, 5):.12g}" for c in cells)]
                )
                count += 1

    replace_file(filename, write)
    return count


def format_time(nanoseconds: int) -> str:
    """2021-01-12T09:13:15Z, with milliseconds where there are any."""
    seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    milliseconds = rest // 1_000_000
    return f"{text}.{milliseconds:03d}Z" if milliseconds else f"{text}Z"


def format_duration(seconds: float) -> str:
    """17 min 45 s."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


class SparseDatasetError(UserError):
    """Records of a dataset that are further apart than --interval: most slots would be empty."""


def load_records(dataset: str | Path, interval_seconds: float = RECORD_SECONDS) -> pd.DataFrame:
    """loadDataset and resample_records, as all modes read a dataset.

    Raises SparseDatasetError for records that are further apart, beside what loadDataset raises.
    """
    frame = loadDataset(dataset)
    seconds_apart = {column: _seconds_apart(frame[column]) for column in getFeatures()}
    column = max(seconds_apart, key=seconds_apart.__getitem__)
    if seconds_apart[column] > LATE_FACTOR * interval_seconds:
        raise SparseDatasetError(
            f"{dataset}: has a value of {column} every {seconds_apart[column]:.3g} s only, --interval is"
            f" {interval_seconds:g} s; give --interval {seconds_apart[column]:.3g}, or collect it with"
            f" --interval {interval_seconds:g}"
        )
    return resample_records(frame, interval_seconds)


def _seconds_apart(values: pd.Series) -> float:
    """Median time between the values of a column, 0 for fewer than two.

    Between its own: exporters that are scraped at different moments leave gaps in each other's rows.
    """
    times = values.dropna().index.as_unit("ns").asi8
    return float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 0.0


def resample_records(frame: pd.DataFrame, interval_seconds: float = RECORD_SECONDS) -> pd.DataFrame:
    """One row per slot of `interval_seconds`: the newest value of each column, at its newest time.

    The slots are those of the daemon (whole multiples of the interval since 1970). A slot without a
    row becomes a row of missing values at the slot's start, at most a window's worth for one gap, so
    that no sequence reaches across a gap.
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


# --- normalisation and sequences -----------------------------------------------------------------


def normalizeFeature(df: pd.DataFrame, feature: str, min: float, max: float) -> pd.Series:
    """Min-max normalisation: `min` becomes 0 and `max` 1. A range of width 0 counts as width 1."""
    return (df[feature] - min) / ((max - min) or 1.0)


def normalize(values: np.ndarray, stats: dict[str, float], features: Sequence[str]) -> np.ndarray:
    """normalizeFeature for a plain array (n, features) in physical units."""
    low, width = feature_ranges(stats, features)
    return (values - low) / width


def feature_ranges(stats: dict[str, float], features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lower end and width (features,) of the trained ranges; a range of width 0 counts as width 1."""
    low, high = (np.array([stats[f"{feature}_{end}"] for feature in features]) for end in ("min", "max"))
    return low, np.where(high == low, 1.0, high - low)


def saveNormalizationStats(
    df: pd.DataFrame, cols_to_normalize: Sequence[str], filename: str | Path = STATS_JSON
) -> dict[str, float]:
    """Write `<column>_min` and `<column>_max` of each column to `filename` and return them."""
    stats = normalization_stats(df, cols_to_normalize)
    saveDictJson(stats, filename)
    return stats


def normalization_stats(df: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """`<column>_min` and `<column>_max` of each column; missing values do not count."""
    stats = {}
    for column in columns:
        stats[f"{column}_min"] = float(df[column].min())
        stats[f"{column}_max"] = float(df[column].max())
    return stats


def split_sequences(sequences: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Split records (n, features) into sequences of `n_steps`: the last record is what to predict.

    Returns X (n - n_steps + 1, n_steps - 1, features) and y (n - n_steps + 1, features); with fewer
    than `n_steps` records both are empty.
    """
    records = np.asarray(sequences)
    if len(records) < n_steps:
        return np.empty((0, n_steps - 1, records.shape[1])), np.empty((0, records.shape[1]))
    windows = np.lib.stride_tricks.sliding_window_view(records, n_steps, axis=0).swapaxes(1, 2)
    return windows[:, :-1], windows[:, -1]


def whole_sequences(records: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """split_sequences without those in which a value is missing."""
    inputs, targets = split_sequences(records, n_steps)
    whole = ~(np.isnan(inputs).any(axis=(1, 2)) | np.isnan(targets).any(axis=1))
    return inputs[whole], targets[whole]


def metric_square_errors(y_actual: np.ndarray, y_predict: np.ndarray) -> np.ndarray:
    """Squared errors pooled per metric: (n, features) each -> (n, metrics + 1), the last being overall.

    A metric's squared error is the mean over its features, `overall` the mean over all features. NaN
    wherever a value is missing.
    """
    squares = (np.asarray(y_predict, dtype=float) - np.asarray(y_actual, dtype=float)) ** 2
    features = getFeatures()
    pooled = [
        squares[:, [features.index(feature) for feature in columns]].mean(axis=1)
        for columns in METRICS.values()
    ]
    pooled.append(squares.mean(axis=1))
    return np.stack(pooled, axis=1)


def printPredictionErrors(y_actual: np.ndarray, y_predict: np.ndarray) -> dict[str, float]:
    """RMSE of each metric and `overall`, in normalised units, over sequences (n, features); logs them."""
    rmse = np.sqrt(metric_square_errors(y_actual, y_predict).mean(axis=0))
    errors = dict(zip([*METRICS, "overall"], rmse.tolist(), strict=True))
    logger.info("RMSE %s", ", ".join(f"{name} {value:.4f}" for name, value in errors.items()))
    return errors


# --- training plots ------------------------------------------------------------------------------

_LABELS = {"loss": "loss (weighted mean squared error)", "accuracy": "accuracy (share within 5 % of range)"}


def plotAccLoss(history: Any, plots_prefix: str) -> None:
    """Accuracy and loss per epoch, training and validation: `acc_loss_plot` as .eps, .png and .tiff.

    history: what Keras's fit() returns. plots_prefix: folder with a trailing slash, or a file prefix.
    """
    _plot_history(history, ["loss", "accuracy"], f"{plots_prefix}acc_loss_plot", ("eps", "png", "tiff"))


def plotMetric(history: Any, metric: str, plots_prefix: str) -> None:
    """One metric per epoch, training and validation: `<metric>_plot` as .eps and .png."""
    _plot_history(history, [metric], f"{plots_prefix}{metric}_plot", ("eps", "png"))


def _plot_history(history: Any, metrics: list[str], stem: str, endings: Sequence[str]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 3.2 * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, metric in zip(axes, metrics, strict=True):
        values = history.history[metric]
        epochs = range(1, len(values) + 1)
        axis.plot(epochs, values, color="tab:blue", marker=".", label="training")
        if f"val_{metric}" in history.history:
            held_out = history.history[f"val_{metric}"]
            axis.plot(epochs, held_out, color="tab:orange", marker=".", label="validation")
        axis.set_ylabel(_LABELS.get(metric, metric))
        if metric == "loss":
            axis.set_yscale("log")
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("epoch")
    for ending in endings:
        replace_file(f"{stem}.{ending}", lambda path: figure.savefig(path, dpi=150))
