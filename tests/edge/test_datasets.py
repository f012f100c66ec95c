"""Columns, node files, JSON, datasets, normalisation, sequences and plots, against values made by hand."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.files import UserError, loadDictJson, replace_file, saveDictJson
from common.times import format_time
from edge import pictures
from edge.datasets import (
    convertNumpyToPandas,
    createEmptyMetricsArray,
    loadDataset,
    resample_records,
    write_dataset,
)
from edge.sequences import (
    metric_square_errors,
    normalize,
    normalizeFeature,
    printPredictionErrors,
    saveNormalizationStats,
    split_sequences,
)
from nodes.metrics import METRICS, getAnomalyColumns, getFeatures
from nodes.node import Node, getColumnNames, load_node

ROOT = Path(__file__).resolve().parents[2]
NAN = math.nan

FEATURES = [
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
STORED = [
    "cpu_user_percentage",
    "mem_percentage",
    "bytes_received",
    "bytes_transmitted",
    "cpu_rx_percentage",
    "cpu_tx_percentage",
    "dl_bytes",
    "ul_bytes",
]
NEEDED = FEATURES + [column for column in STORED if column not in FEATURES]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, from the project's folder."""
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


def one_line(refusal: pytest.ExceptionInfo[UserError]) -> str:
    """The message of a refusal, which must fit on one line."""
    message = str(refusal.value)
    assert "\n" not in message
    return message


# --- columns -------------------------------------------------------------------------------------


def test_columns_of_the_documented_node() -> None:
    assert list(getColumnNames()) == [
        "cpu_user_0_percentage",
        "cpu_user_0_rate",
        "cpu_user_1_percentage",
        "cpu_user_1_rate",
        "cpu_user_percentage",
        "cpu_user_rate",
        "enp1s0_bytes_received",
        "enp1s0_received_rate",
        "enp0s20u1_bytes_received",
        "enp0s20u1_received_rate",
        "ppp0_bytes_received",
        "ppp0_received_rate",
        "bytes_received",
        "bytes_received_rate",
        "enp1s0_bytes_transmitted",
        "enp1s0_transmitted_rate",
        "enp0s20u1_bytes_transmitted",
        "enp0s20u1_transmitted_rate",
        "ppp0_bytes_transmitted",
        "ppp0_transmitted_rate",
        "bytes_transmitted",
        "bytes_transmitted_rate",
        "mem",
        "mem_percentage",
        "mem_rate",
        "cpu_rx_percentage",
        "cpu_rx_rate",
        "cpu_tx_percentage",
        "cpu_tx_rate",
        "dl_bytes",
        "dl_bytes_rate",
        "ul_bytes",
        "ul_bytes_rate",
    ]
    assert set(getColumnNames().values()) == {float}


def test_columns_follow_the_node() -> None:
    columns = list(getColumnNames(Node(cpus=("3",), interfaces=("eth0",))))
    assert columns[:8] == [
        "cpu_user_3_percentage",
        "cpu_user_3_rate",
        "cpu_user_percentage",
        "cpu_user_rate",
        "eth0_bytes_received",
        "eth0_received_rate",
        "bytes_received",
        "bytes_received_rate",
    ]
    assert set(NEEDED) <= set(columns)


def test_features_are_the_documented_rates_then_the_levels() -> None:
    assert getFeatures() == FEATURES


def test_every_feature_belongs_to_exactly_one_metric() -> None:
    assert list(METRICS) == [
        "cpu",
        "cpu_rx",
        "cpu_tx",
        "net_down",
        "net_up",
        "net_5g_down",
        "net_5g_up",
        "mem",
    ]
    assert sorted(feature for metric in METRICS.values() for feature in metric.features) == sorted(FEATURES)


def test_a_caller_may_change_the_lists_it_is_given() -> None:
    getFeatures().clear()
    getAnomalyColumns().clear()
    getColumnNames().clear()
    assert getFeatures() == FEATURES
    assert getAnomalyColumns() == STORED
    assert len(getColumnNames()) == 33


def test_stored_columns_stand_in_the_order_of_the_fields_of_an_anomaly() -> None:
    assert list(METRICS.stored) == getAnomalyColumns()
    assert METRICS.stored == {
        "cpu_user_percentage": "cpu_usage",
        "mem_percentage": "mem_usage",
        "bytes_received": "net_down_usage",
        "bytes_transmitted": "net_up_usage",
        "cpu_rx_percentage": "cpu_rx_usage",
        "cpu_tx_percentage": "cpu_tx_usage",
        "dl_bytes": "net_down_5g_usage",
        "ul_bytes": "net_up_5g_usage",
    }


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


# --- node files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("{}", Node()),
        ('{"cpus": [0, 1, 2]}', Node(cpus=("0", "1", "2"))),
        ('{"interfaces": ["eth0"], "cell_id": 7}', Node(interfaces=("eth0",), cell_id="7")),
        ('{"total_memory_bytes": 16e9}', Node(total_memory_bytes=16e9)),
        (
            '{"node_instance": "edge:9100", "ran_instance": null}',
            Node(node_instance="edge:9100", ran_instance=None),
        ),
    ],
)
def test_node_file_changes_what_it_names(tmp_path: Path, text: str, node: Node) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)
    assert load_node(path) == node


def test_no_node_file_means_the_documented_node() -> None:
    assert load_node(None) == Node(
        cpus=("0", "1"),
        interfaces=("enp1s0", "enp0s20u1", "ppp0"),
        cell_id="2",
        total_memory_bytes=8228077568.0,
        node_instance=None,
        ran_instance=None,
    )


NODE_KEYS = "cell_id, cpus, interfaces, node_instance, node_tags, ran_instance, ran_tags, total_memory_bytes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cpu": ["0"]}', f": unknown key 'cpu'; the keys are {NODE_KEYS}"),
        ('{"cpus": "0"}', """: 'cpus' must be a list of names, like ["0", "1"]"""),
        ('{"cpus": []}', """: 'cpus' must be a list of names, like ["0", "1"]"""),
        ('{"interfaces": null}', """: 'interfaces' must be a list of names, like ["0", "1"]"""),
        ('{"cpus": [0, "0"]}', ": 'cpus' names the same one twice; list each once"),
        ('{"cpus": [true]}', ": 'cpus' must hold names (text or whole numbers), not True"),
        ('{"cpus": [0.5]}', ": 'cpus' must hold names (text or whole numbers), not 0.5"),
        ('{"interfaces": [""]}', ": 'interfaces' must hold names (text or whole numbers), not ''"),
        (
            '{"cell_id": "two\\nlines"}',
            ": 'cell_id' must hold names (text or whole numbers), not 'two\\nlines'",
        ),
        ('{"cell_id": [2]}', ": 'cell_id' must hold names (text or whole numbers), not [2]"),
        ('{"cell_id": null}', ": 'cell_id' must hold names (text or whole numbers), not None"),
        ('{"node_instance": ""}', ": 'node_instance' must hold names (text or whole numbers), not ''"),
        ('{"ran_instance": {}}', ": 'ran_instance' must hold names (text or whole numbers), not {}"),
        ('{"node_tags": []}', """: 'node_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"ran_tags": {"": "x"}}', """: 'ran_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"ran_tags": {"a\\nb": "x"}}', """: 'ran_tags' must be an object of tags, like {"job": "node"}"""),
        ('{"node_tags": {"job": null}}', ": 'node_tags' must hold names (text or whole numbers), not None"),
        (
            '{"node_tags": {"instance": "edge:9100"}}',
            ": 'node_tags' holds 'instance'; write it as 'node_instance'",
        ),
        ('{"total_memory_bytes": 0}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": "8e9"}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": true}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": NaN}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": Infinity}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ('{"total_memory_bytes": null}', ": 'total_memory_bytes' must be a number of bytes above 0"),
        ("[]", ': must hold one JSON object, like {"key": 1.0}'),
    ],
)
def test_node_file_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        load_node(path)
    assert one_line(refusal) == f"{path}{message}"


# --- JSON ----------------------------------------------------------------------------------------


def test_json_round_trip_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "thresholds.json"
    given = {"cpu_threshold": 0.25, "überall": [1, None]}
    assert saveDictJson(given, path) is None
    assert loadDictJson(path) == given
    assert list(path.parent.iterdir()) == [path]


def test_json_is_written_for_people_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    saveDictJson({"mem_threshold": 0.1, "cpu_threshold": 2}, path)
    assert path.read_text() == '{\n  "mem_threshold": 0.1,\n  "cpu_threshold": 2\n}\n'
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; check the path"),
        (b"", ", line 1: not valid JSON (Expecting value); fix that line"),
        (
            b'{\n  "cpu_threshold": 1\n  "mem_threshold": 2\n}',
            ", line 3: not valid JSON (Expecting ',' delimiter); fix that line",
        ),
        (b'{\n\n"cpu_threshold": 0,5}', ", line 3: not valid JSON ("),
        (b'{"a": 1, "b": 2, "a": 1}', ": the key 'a' occurs twice; keep one of them"),
        (b'{"outer": {"a": 1, "a": 2}}', ": the key 'a' occurs twice; keep one of them"),
        (b"[1, 2]", ': must hold one JSON object, like {"key": 1.0}'),
        (b"1", ': must hold one JSON object, like {"key": 1.0}'),
        (b"\xff\xfe", ": cannot be read as text ("),
    ],
)
def test_json_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "thresholds.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        loadDictJson(path)
    assert one_line(refusal).startswith(f"{path}{message}")


def test_folder_in_place_of_a_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        loadDictJson(tmp_path)
    assert one_line(refusal).startswith(f"{tmp_path}: cannot be read")


@pytest.mark.parametrize("value", [NAN, math.inf, object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        saveDictJson({"first": 1, "value": value}, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_file_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    code = (
        "import resource, sys\nfrom common import files\n"
        # Files may not grow past 100 bytes: the write fails half way.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: files.saveDictJson({str(i): i for i in range(1000)}, sys.argv[1])\n"
        "except files.UserError as error: print(error)"
    )
    done = run(code, str(path))
    assert done.stdout == f"{path}: cannot be written (File too large); check the folder and the disk\n", (
        done.stderr
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    code = (
        "import os, signal, sys\nfrom common import files\n"
        "def write(part):\n"
        "    part.write_text('half of the n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.replace_file(sys.argv[1], write)"
    )
    assert run(code, str(path)).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_interrupted_by_the_user_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_text("old")

    def write(part: Path) -> None:
        assert (part.parent, part.suffix) == (path.parent, ".h5")
        part.write_text("half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    path = tmp_path / "plain" / "stats.json"
    with pytest.raises(UserError) as refusal:
        saveDictJson({}, path)
    assert one_line(refusal).startswith(f"{path}: cannot be written (")


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
            ": has no column time; --mode collect writes all that are needed",
        ),
        (
            lambda cells: drop(cells, "mem_rate", "ul_bytes"),
            ": has no column mem_rate, ul_bytes; --mode collect writes all that are needed",
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


# --- normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.0, 6.0, [0.0, 0.5, 1.0, 1.5, -0.5, NAN]),
        # A constant column has no width: its distance from the constant is kept, nothing is divided by 0.
        (2.0, 2.0, [0.0, 2.0, 4.0, 6.0, -2.0, NAN]),
    ],
)
def test_min_max_normalisation(low: float, high: float, expected: list[float]) -> None:
    frame = pd.DataFrame({"mem_rate": [2.0, 4.0, 6.0, 8.0, 0.0, NAN], "other": 1.0})
    normalised = normalizeFeature(frame, "mem_rate", low, high)
    assert isinstance(normalised, pd.Series)
    assert normalised.tolist() == pytest.approx(expected, nan_ok=True)
    assert frame["mem_rate"].tolist()[:2] == [2.0, 4.0]


def test_normalise_treats_each_feature_by_its_own_range() -> None:
    stats = {"a_min": 0.0, "a_max": 10.0, "b_min": -1.0, "b_max": 1.0, "c_min": 3.0, "c_max": 3.0}
    values = np.array([[5.0, 1.0, 3.0], [20.0, NAN, 2.5]])
    # (5 - 0) / 10, (1 + 1) / 2, (3 - 3) / 1; (20 - 0) / 10, unknown, (2.5 - 3) / 1
    expected = [[0.5, 1.0, 0.0], [2.0, NAN, -0.5]]
    assert normalize(values, stats, ["a", "b", "c"]) == pytest.approx(np.array(expected), nan_ok=True)
    swapped = normalize(values[:1, ::-1], stats, ["c", "b", "a"])
    assert swapped.tolist() == [[0.0, 1.0, 0.5]]


def test_statistics_are_returned_and_written_where_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"mem_rate": [1.0, NAN, 3.0, -1.5, 0.0], "dl_bytes": 7.0, "ul_bytes": 0.0})
    expected = {"mem_rate_min": -1.5, "mem_rate_max": 3.0, "dl_bytes_min": 7.0, "dl_bytes_max": 7.0}
    assert saveNormalizationStats(frame, ["mem_rate", "dl_bytes"]) == expected
    assert loadDictJson("data/normalization_stats.json") == expected
    saveNormalizationStats(frame, ["ul_bytes"], tmp_path / "other.json")
    assert loadDictJson(tmp_path / "other.json") == {"ul_bytes_min": 0.0, "ul_bytes_max": 0.0}
    assert loadDictJson("data/normalization_stats.json") == expected


# --- sequences and errors ------------------------------------------------------------------------


def test_three_records_predict_the_fourth() -> None:
    records = np.array([[0, 10], [1, 11], [2, 12], [3, 13], [4, 14]])
    inputs, targets = split_sequences(records, 4)
    assert inputs.tolist() == [[[0, 10], [1, 11], [2, 12]], [[1, 11], [2, 12], [3, 13]]]
    assert targets.tolist() == [[3, 13], [4, 14]]


@pytest.mark.parametrize(("records", "sequences"), [(0, 0), (1, 0), (3, 0), (4, 1), (5, 2), (30, 27)])
def test_number_of_sequences(records: int, sequences: int) -> None:
    inputs, targets = split_sequences(np.zeros((records, 2)), 4)
    assert inputs.shape == (sequences, 3, 2)
    assert targets.shape == (sequences, 2)


# Errors 1 to 12 of the twelve features, in their order; a perfect prediction in the second row.
ACTUAL = np.array([[0.0] * 12, [5.0] * 12])
PREDICTED = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [5.0] * 12])
SQUARES = {
    "cpu": (1 + 81) / 2,  # cpu_user_rate 1, cpu_user_percentage 9
    "cpu_rx": (4 + 100) / 2,  # 2 and 10
    "cpu_tx": (9 + 121) / 2,  # 3 and 11
    "net_down": 16,
    "net_up": 25,
    "net_5g_down": 36,
    "net_5g_up": 49,
    "mem": (64 + 144) / 2,  # mem_rate 8, mem_percentage 12
    "overall": 650 / 12,  # 1 + 4 + ... + 144 = 650
}


@pytest.mark.parametrize("sign", [1, -1])
def test_squared_errors_are_pooled_per_metric(sign: int) -> None:
    squares = metric_square_errors(sign * ACTUAL, sign * PREDICTED)
    assert squares.tolist() == [pytest.approx(list(SQUARES.values())), [0.0] * 9]


def test_missing_value_makes_its_metric_and_the_overall_error_unknown() -> None:
    actual = ACTUAL.copy()
    actual[0, 9] = NAN  # cpu_rx_percentage
    squares = metric_square_errors(actual, PREDICTED)
    expected = list((SQUARES | {"cpu_rx": NAN, "overall": NAN}).values())
    assert squares[0].tolist() == pytest.approx(expected, nan_ok=True)
    assert squares[1].tolist() == [0.0] * 9


def test_rmse_of_each_metric_and_overall(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge.sequences")
    errors = printPredictionErrors(ACTUAL, PREDICTED)
    # Two sequences, the second without an error: half of the squares above.
    assert errors == pytest.approx({name: math.sqrt(square / 2) for name, square in SQUARES.items()})
    assert list(errors) == list(SQUARES)
    # sqrt(82 / 4) = 4.5277, sqrt(650 / 24) = 5.2042
    assert "cpu 4.5277" in caplog.text
    assert "overall 5.2042" in caplog.text


def test_rmse_over_a_missing_value_is_unknown() -> None:
    predicted = PREDICTED.copy()
    predicted[1, 3] = NAN  # bytes_received_rate
    errors = printPredictionErrors(ACTUAL, predicted)
    assert [name for name, error in errors.items() if math.isnan(error)] == ["net_down", "overall"]
    assert errors["net_up"] == pytest.approx(math.sqrt(25 / 2))


# --- plots ---------------------------------------------------------------------------------------

LEARNT = {
    "loss": [0.9, 0.3, 0.1],
    "val_loss": [1.0, 0.5, 0.2],
    "accuracy": [0.2, 0.6, 0.9],
    "val_accuracy": [0.1, 0.5, 0.8],
}
TRAINING = (31, 119, 180)  # tab:blue
VALIDATION = (255, 127, 14)  # tab:orange


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of an image have exactly this colour."""
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == colour).all(axis=2).sum())


def plot_acc_loss(history: object, prefix: str) -> None:
    pictures.plotAccLoss(history, prefix)


def plot_loss(history: object, prefix: str) -> None:
    pictures.plotMetric(history, "loss", prefix)


def plot_accuracy(history: object, prefix: str) -> None:
    pictures.plotMetric(history, "accuracy", prefix)


PLOTS = [
    (plot_acc_loss, "acc_loss_plot", ["EPS", "PNG", "TIFF"]),
    (plot_loss, "loss_plot", ["EPS", "PNG"]),
    (plot_accuracy, "accuracy_plot", ["EPS", "PNG"]),
]


@pytest.mark.parametrize(("plot", "stem", "formats"), PLOTS)
@pytest.mark.parametrize("prefix", ["plots/", "plots/run_2_"])
def test_plot_is_written_in_the_documented_formats(
    tmp_path: Path, plot: Callable[[object, str], None], stem: str, formats: list[str], prefix: str
) -> None:
    plot(SimpleNamespace(history=LEARNT), f"{tmp_path}/{prefix}")
    found = sorted((tmp_path / "plots").iterdir())
    name = f"{prefix.removeprefix('plots/')}{stem}"
    assert [path.name for path in found] == [f"{name}.{ending.lower()}" for ending in formats]
    for path, expected in zip(found, formats, strict=True):
        with Image.open(path) as image:
            assert image.format == expected
            assert min(image.size) > 200
        if expected == "EPS":
            drawn = path.read_bytes()
            assert b"0.122 0.467 0.706 setrgbcolor" in drawn
            assert b"1 0.498 0.055 setrgbcolor" in drawn
        else:
            assert pixels(path, TRAINING) > 500
            assert pixels(path, VALIDATION) > 500


def test_both_metrics_are_in_the_common_plot(tmp_path: Path) -> None:
    history = SimpleNamespace(history=LEARNT)
    for plot, _, _ in PLOTS:
        plot(history, f"{tmp_path}/")
    sizes = {}
    for name in ("acc_loss_plot", "loss_plot", "accuracy_plot"):
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes[name] = image.size
    assert sizes["acc_loss_plot"][1] >= sizes["loss_plot"][1] + sizes["accuracy_plot"][1]
    assert (tmp_path / "loss_plot.png").read_bytes() != (tmp_path / "accuracy_plot.png").read_bytes()


def test_training_without_validation_is_plotted_alone(tmp_path: Path) -> None:
    pictures.plotMetric(SimpleNamespace(history={"loss": [0.9, 0.3]}), "loss", f"{tmp_path}/")
    assert pixels(tmp_path / "loss_plot.png", TRAINING) > 500
    assert pixels(tmp_path / "loss_plot.png", VALIDATION) == 0
