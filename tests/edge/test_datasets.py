"""Datasets: what is read, written and resampled, against values made by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.files import UserError
from common.times import format_time
from edge.datasets import (
    convertNumpyToPandas,
    createEmptyMetricsArray,
    load_records,
    loadDataset,
    resample_records,
    write_dataset,
)
from edge.sequences import (
    split_sequences,
)
from nodes.node import Node, getColumnNames, load_node
from tests.support.columns import NEEDED
from tests.support.refusals import one_line

NAN = math.nan


@pytest.mark.parametrize("columns", [1, 3])
def test_empty_metrics_array_is_one_row_of_zeros(columns: int) -> None:
    assert createEmptyMetricsArray(columns).tolist() == [[0.0] * columns]


def test_numpy_to_pandas_takes_the_first_column_as_index() -> None:
    frame = convertNumpyToPandas(np.array([[15, 1.5, 2.5], [30, 3.5, 4.5]]))
    assert frame.index.tolist() == [15, 30]
    assert frame.columns.tolist() == [0, 1]
    assert frame.to_numpy().tolist() == [[1.5, 2.5], [3.5, 4.5]]


def test_numpy_to_pandas_names_the_columns_of_a_dataset() -> None:
    frame = convertNumpyToPandas(np.arange(34.0).reshape(1, 34))
    assert frame.columns.tolist() == list(getColumnNames())
    assert frame["cpu_user_0_percentage"].tolist() == [1.0]
    assert frame["ul_bytes_rate"].tolist() == [33.0]


# --- datasets ------------------------------------------------------------------------------------


def table() -> list[list[str]]:
    """Cells of a sound dataset: a header, and three records in lines 2 to 4."""
    times = ("2021-01-12T09:13:15Z", "2021-01-12T09:13:30Z", "2021-01-12T09:13:45Z")
    return [["time", *NEEDED], *([time, *["1.5"] * len(NEEDED)] for time in times)]


def save(path: Path, cells: list[list[str]]) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in cells))
    return path


def drop(cells: list[list[str]], *columns: str) -> None:
    for column in columns:
        place = cells[0].index(column)
        for row in cells:
            del row[place]


def put(line: int, column: str, text: str) -> Callable[[list[list[str]]], None]:
    """An edit: `text` into a cell, lines counted as an editor does."""

    def edit(cells: list[list[str]]) -> None:
        cells[line - 1][cells[0].index(column)] = text

    return edit


def test_dataset_is_floats_by_time_in_utc(tmp_path: Path) -> None:
    frame = loadDataset(save(tmp_path / "data.csv", table()))
    assert frame.index.name == "time"
    assert [str(time) for time in frame.index] == [
        "2021-01-12 09:13:15+00:00",
        "2021-01-12 09:13:30+00:00",
        "2021-01-12 09:13:45+00:00",
    ]
    assert frame.columns.tolist() == NEEDED
    assert {str(kind) for kind in frame.dtypes} == {"float64"}
    assert (frame.to_numpy() == 1.5).all()


@pytest.mark.parametrize("text", ["", " ", "nan", "NaN", "NA", "null"])
def test_empty_cell_is_a_missing_value(tmp_path: Path, text: str) -> None:
    cells = table()
    put(3, "mem_rate", text)(cells)
    values = loadDataset(save(tmp_path / "data.csv", cells))["mem_rate"].tolist()
    assert values == pytest.approx([1.5, NAN, 1.5], nan_ok=True)


@pytest.mark.parametrize(
    "text",
    ["2021-01-12 09:13:30", "2021-01-12T09:13:30.000Z", "2021-01-12T11:13:30+02:00", " 20210112T091330Z"],
)
def test_other_writings_of_a_time_mean_the_same(tmp_path: Path, text: str) -> None:
    cells = table()
    put(3, "time", text)(cells)
    frame = loadDataset(save(tmp_path / "data.csv", cells))
    assert str(frame.index[1]) == "2021-01-12 09:13:30+00:00"


def test_spaces_byte_order_mark_and_further_columns_do_no_harm(tmp_path: Path) -> None:
    cells = [[*row, extra] for row, extra in zip(table(), ["load", "7", "8", "9"], strict=True)]
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(", ".join(row) for row in cells).encode())
    frame = loadDataset(path)
    assert frame["load"].tolist() == [7.0, 8.0, 9.0]
    assert (frame[NEEDED].to_numpy() == 1.5).all()


def test_blank_line_at_the_end_does_no_harm(tmp_path: Path) -> None:
    path = save(tmp_path / "data.csv", table())
    path.write_text(path.read_text() + "\n\n")
    assert len(loadDataset(path)) == 3


# A plain file is read all at once, any other one cell by cell.
@pytest.mark.parametrize(
    "text", ["7", "-0.25", "+5", "1e5", "1e-400", "00012", ".5", "5.", "123456789.12345678901", ""]
)
def test_a_number_means_the_same_whether_its_file_is_plain_or_not(tmp_path: Path, text: str) -> None:
    cells = table()
    put(3, "mem_rate", text)(cells)
    plain = loadDataset(save(tmp_path / "plain.csv", cells))["mem_rate"].tolist()
    put(2, "cpu_user_rate", " 1.5")(cells)
    spaced = loadDataset(save(tmp_path / "spaced.csv", cells))["mem_rate"].tolist()
    assert plain == pytest.approx([1.5, float(text or "nan"), 1.5], rel=0, abs=0, nan_ok=True)
    assert spaced == pytest.approx(plain, rel=0, abs=0, nan_ok=True)


NOT_FINITE = "not a finite number; correct it or leave it empty"
WRITE_TIME = "is not a date and time; write it like 2021-01-12T09:13:15Z"
SORT = "sort by time, each time once"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put(3, "mem_rate", "abc"), f", line 3: mem_rate is 'abc', {NOT_FINITE}"),
        (put(4, "cpu_user_rate", "1.2.3"), f", line 4: cpu_user_rate is '1.2.3', {NOT_FINITE}"),
        (put(4, "mem_rate", "1_000"), f", line 4: mem_rate is '1_000', {NOT_FINITE}"),
        (put(2, "dl_bytes", "inf"), f", line 2: dl_bytes is 'inf', {NOT_FINITE}"),
        (put(2, "dl_bytes", "-Infinity"), f", line 2: dl_bytes is '-Infinity', {NOT_FINITE}"),
        (put(2, "dl_bytes", "1e999"), f", line 2: dl_bytes is '1e999', {NOT_FINITE}"),
        (put(2, "time", "12/01/2021 9:13"), f", line 2: time '12/01/2021 9:13' {WRITE_TIME}"),
        (put(3, "time", "2021-02-30T00:00:00Z"), f", line 3: time '2021-02-30T00:00:00Z' {WRITE_TIME}"),
        (put(4, "time", "1610442795"), f", line 4: time '1610442795' {WRITE_TIME}"),
        (put(4, "time", ""), f", line 4: time '' {WRITE_TIME}"),
        (put(4, "time", "now"), f", line 4: time 'now' {WRITE_TIME}"),
        (put(3, "time", "2021-01-12T09:13:15Z"), f", line 3: repeats the time of the line before; {SORT}"),
        (put(4, "time", "2021-01-12T09:13:29Z"), f", line 4: is earlier than the line before; {SORT}"),
        (
            lambda cells: drop(cells, "time"),
            ": has no column time; --mode collect writes all columns",
        ),
        (
            lambda cells: drop(cells, "mem_rate", "ul_bytes"),
            ": has no column mem_rate, ul_bytes; --mode collect writes all columns",
        ),
    ],
)
def test_dataset_refused(tmp_path: Path, edit: Callable[[list[list[str]]], None], message: str) -> None:
    cells = table()
    edit(cells)
    path = save(tmp_path / "data.csv", cells)
    with pytest.raises(UserError) as refusal:
        loadDataset(path)
    assert one_line(refusal) == f"{path}{message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r": no such file; check the path"),
        (b"", r": is empty; a dataset has a header and records"),
        (b"\n\n", r": is empty; a dataset has a header and records"),
        (b"\xff\xfet\x00i\x00", r": cannot be read as comma separated values \(.+\)"),
        (b'time,"mem\n1,2\n', r": cannot be read as comma separated values \(.+\)"),
    ],
)
def test_file_that_is_no_dataset_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        loadDataset(path)
    assert one_line(refusal).startswith(f"{path}: ")


@pytest.mark.parametrize("records", [0, 1])
def test_too_few_records_refused(tmp_path: Path, records: int) -> None:
    path = save(tmp_path / "data.csv", table()[: 1 + records])
    with pytest.raises(UserError, match=f"has {records} record.*at least 2") as refusal:
        loadDataset(path)
    assert one_line(refusal).startswith(f"{path}: ")


def cut_short(cells: list[list[str]]) -> None:
    """What an interrupted copy leaves: the last line ends in the middle of a number."""
    cells[3] = [*cells[3][:4], "1."]


def too_long(cells: list[list[str]]) -> None:
    cells[2].append("1.5")


def all_too_long(cells: list[list[str]]) -> None:
    for row in cells[1:]:
        row.append("1.5")


def column_twice(cells: list[list[str]]) -> None:
    for row in cells:
        row.append(row[cells[0].index("mem_rate")])


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (cut_short, "line 4"),
        (too_long, "line 3"),
        (all_too_long, "line 2|header"),
        (column_twice, "mem_rate"),
        # Nanoseconds in 64 bits end in 2262.
        (put(4, "time", "2300-01-01T00:00:00Z"), "line 4"),
        (put(4, "time", "9999-01-01T00:00:00Z"), "line 4"),
    ],
    ids=["cut_short", "too_long", "all_too_long", "column_twice", "year_2300", "year_9999"],
)
def test_torn_dataset_refused_where_it_is_torn(
    tmp_path: Path, edit: Callable[[list[list[str]]], None], place: str
) -> None:
    cells = table()
    edit(cells)
    path = save(tmp_path / "data.csv", cells)
    with pytest.raises(UserError) as refusal:
        loadDataset(path)
    message = one_line(refusal)
    assert message.startswith(f"{path}")
    assert re.search(place, message)


def test_line_numbers_count_blank_lines_as_an_editor_does(tmp_path: Path) -> None:
    cells = table()
    put(4, "mem_rate", "abc")(cells)
    path = save(tmp_path / "data.csv", [*cells[:2], [""], *cells[2:]])
    with pytest.raises(UserError, match=", line 5: mem_rate is 'abc'"):
        loadDataset(path)


T0 = 1610442795 * 10**9  # 2021-01-12T09:13:15Z
SLOT = 15 * 10**9


def record_row(time: int, value: float, **columns: float) -> dict[str, float]:
    return {"time": time, **dict.fromkeys(getColumnNames(), value), **columns}


def test_written_dataset_is_loaded_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.csv"
    rows = [
        record_row(T0, 0.25, mem=7300886528.0, mem_rate=NAN),
        record_row(T0 + SLOT + 104_000_000, -2.0, mem=7300886529.0, mem_rate=0.00001),
    ]
    assert write_dataset(path, iter(rows)) == 2
    frame = loadDataset(path)
    assert frame.columns.tolist() == list(getColumnNames())
    assert frame.index.as_unit("ns").asi8.tolist() == [T0, T0 + SLOT + 104_000_000]
    for column in frame.columns:
        assert frame[column].tolist() == pytest.approx([row[column] for row in rows], rel=0, nan_ok=True)
    assert list(path.parent.iterdir()) == [path]


def test_written_dataset_is_plain_text(tmp_path: Path) -> None:
    node = Node(cpus=("0",), interfaces=("eth0",))
    columns = list(getColumnNames(node))
    path = tmp_path / "data.csv"
    row = {"time": T0 + 7_000_000, **dict.fromkeys(columns, 0.0), "mem": 12345678901.0, "mem_rate": NAN}
    write_dataset(path, [row | {"cpu_user_0_rate": 1.23456789, "ul_bytes_rate": 1e-9}], node)
    # Two columns per CPU, interface, both sums of CPUs, both sums of interfaces; 3 of memory; 8 of the RAN.
    assert path.read_text() == (
        f"time,{','.join(columns)}\n"
        "2021-01-12T09:13:15.007Z,0,1.23457,0,0,0,0,0,0,0,0,0,0,12345678901,0,,0,0,0,0,0,0,0,0\n"
    )


def test_rows_that_end_in_a_fault_leave_the_old_dataset(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("old")

    def rows() -> Iterator[dict[str, float]]:
        yield record_row(T0, 1.0)
        raise ConnectionError("the server is away")

    with pytest.raises((ConnectionError, UserError)):
        write_dataset(path, rows())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- resampling ----------------------------------------------------------------------------------


def frame_of(rows: dict[float, tuple[float, ...]], *columns: str) -> pd.DataFrame:
    """Rows by their seconds since 1970."""
    index = pd.DatetimeIndex(pd.to_datetime([int(s * 1e9) for s in rows], utc=True), name="time")
    return pd.DataFrame(list(rows.values()), index=index, columns=list(columns))


def seconds_of(frame: pd.DataFrame) -> list[float]:
    return (frame.index.as_unit("ns").asi8 / 1e9).tolist()


def test_two_exporters_become_one_record_at_its_newest_time() -> None:
    frame = frame_of({10.5: (1.0, NAN), 14.1: (NAN, 5.0), 25.5: (2.0, NAN), 29.1: (NAN, 6.0)}, "node", "ran")
    records = resample_records(frame)
    assert seconds_of(records) == [14.1, 29.1]
    assert records.to_numpy().tolist() == [[1.0, 5.0], [2.0, 6.0]]
    assert records.columns.tolist() == ["node", "ran"]
    assert records.index.name == "time"


def test_newest_value_of_a_slot_counts() -> None:
    frame = frame_of({1.0: (1.0, 7.0), 6.0: (2.0, 8.0), 11.0: (3.0, NAN)}, "a", "b")
    records = resample_records(frame)
    assert seconds_of(records) == [11.0]
    assert records.to_numpy().tolist() == [[3.0, 8.0]]


def test_slots_are_whole_multiples_of_the_interval() -> None:
    frame = frame_of({14.999: (1.0,), 15.0: (2.0,), 29.999: (3.0,), 30.0: (4.0,)}, "a")
    records = resample_records(frame)
    assert seconds_of(records) == [14.999, 29.999, 30.0]
    assert records["a"].tolist() == [1.0, 3.0, 4.0]


def test_interval_sets_the_slot() -> None:
    frame = frame_of({14.0: (1.0,), 29.0: (2.0,), 59.0: (3.0,), 61.0: (4.0,)}, "a")
    assert resample_records(frame, 60.0)["a"].tolist() == [3.0, 4.0]
    assert seconds_of(resample_records(frame, 60.0)) == [59.0, 61.0]


@pytest.mark.parametrize(
    ("missing_slots", "gap_rows"), [(0, 0), (1, 1), (2, 2), (29, 29), (30, 30), (31, 30), (100_000, 30)]
)
def test_gap_becomes_rows_of_missing_values_at_most_a_window(missing_slots: int, gap_rows: int) -> None:
    frame = frame_of({14.1: (1.0, 2.0), 14.1 + 15 * (1 + missing_slots): (3.0, 4.0)}, "a", "b")
    records = resample_records(frame)
    assert len(records) == 2 + gap_rows
    assert seconds_of(records)[1:-1] == [15.0 * (1 + i) for i in range(gap_rows)]
    assert records.iloc[[0, -1]].to_numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert records.iloc[1:-1].isna().all(axis=None)
    assert records.index.is_monotonic_increasing
    assert records.index.name == "time"


def test_no_whole_sequence_reaches_across_a_gap() -> None:
    rows = {14.1 + 15 * slot: (float(slot),) for slot in (0, 1, 2, 3, 5, 6, 7, 8, 500, 501, 502)}
    inputs, targets = split_sequences(resample_records(frame_of(rows, "a")).to_numpy(), 4)
    sequences = np.concatenate([inputs[:, :, 0], targets], axis=1)
    whole = sequences[~np.isnan(sequences).any(axis=1)]
    assert whole.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]


# --- changes that are derived --------------------------------------------------------------------


@pytest.mark.parametrize(("empty", "change"), [(0, 5.0), (29, 5.0), (30, NAN)])
def test_a_change_does_not_reach_over_a_gap_of_a_window(tmp_path: Path, empty: int, change: float) -> None:
    """The records after it may be of another stretch of the history."""
    (tmp_path / "node.json").write_text('{"metrics": {"snr": {}}}')
    node = load_node(tmp_path / "node.json")
    after = 3 + empty
    rows = [(0, 10.0), (1, 12.0), (2, 11.0), (after, 16.0), (after + 1, 17.0)]
    content = "".join(f"{format_time(15 * 10**9 * slot)},{value}\n" for slot, value in rows)
    (tmp_path / "normal.csv").write_text(f"time,snr\n{content}")
    frame = load_records(tmp_path / "normal.csv", 15.0, node.metrics)
    assert len(frame) == 5 + empty
    expected = [NAN, 2.0, -1.0, *[NAN] * empty, change, 1.0]
    np.testing.assert_array_equal(frame["snr_rate"], expected)
