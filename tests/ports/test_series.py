"""The files of ports: what is read from them, and the one line for each that cannot be trusted."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.files import UserError
from ports.series import KnownAnomaly, Series, list_series, port_name, port_tags, read_anomalies, read_series
from tests.support.fuzzing import fuzzed, loaded_or_refused

NAN = math.nan
HEADING = ",ts,traffic\n"
TWO = HEADING + "0,2023-01-01 00:05:00,10\n1,2023-01-01 00:10:00,20\n"
BYTES = "it must be a number of bytes, 0 or more, or empty"
TIME = "it must be a time like 2023-01-31 23:55:00"
TORN = "not 3; the file is torn, copy it again"
THREE_COLUMNS = "it must have an index, ts and traffic"
MISSING = ["", "nan", "NaN", "NA", "null", "NULL", "None"]


def seconds(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())


FIRST, SECOND, THIRD = (seconds(f"2023-01-01 00:{minute}:00") for minute in ("05", "10", "15"))


def port_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "1_8_out.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path) -> str:
    """What is said of a file, less its name."""
    with pytest.raises(UserError) as caught:
        read_series(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        TWO.replace("\n", "\r\n"),
        TWO.removesuffix("\n"),
        "\ufeff" + TWO,
        "\ufeff" + TWO.replace("\n", "\r\n"),
        "index" + TWO,
        '"","ts","traffic"\n"0","2023-01-01 00:05:00","10"\n"1","2023-01-01 00:10:00","20"\n',
        TWO.replace("2023-01-01 00:05:00", '"2023-01-01 00:05:00"'),
        TWO.replace("01-01 00", "01-01T00"),
        TWO.replace(":00,", ":00Z,"),
        TWO.replace(":00,", ":00+00:00,"),
        TWO.replace(" 00:05:00", "T02:05:00+02:00").replace(" 00:10:00", "T01:10:00+01:00"),
        TWO.replace(" 00:05:00", " 00:05:00+00:00"),
        TWO.replace(" 00:05:00", " 00:05:00.25"),
        TWO.replace(",10\n", ",1e1\n").replace(",20\n", ",20.0\n"),
        # The index is nobody's business.
        HEADING + "7,2023-01-01 00:05:00,10\n7,2023-01-01 00:10:00,20\n",
        HEADING + ",2023-01-01 00:05:00,10\nx,2023-01-01 00:10:00,20\n",
    ],
    ids=[
        "as documented",
        "CRLF",
        "no end of the last line",
        "BOM",
        "BOM and CRLF",
        "named index",
        "all quoted",
        "a quoted time",
        "T",
        "Z",
        "zone",
        "zones",
        "some with a zone",
        "a fraction",
        "floats",
        "repeated index",
        "no index",
    ],
)
def test_the_same_two_samples_however_they_are_written(tmp_path: Path, content: str) -> None:
    series = read_series(port_file(tmp_path, content))
    assert series.name == "1_8_out"
    assert series.times.tolist() == [FIRST, SECOND]
    assert series.traffic.tolist() == [10.0, 20.0]


@pytest.mark.parametrize("cell", MISSING)
def test_a_value_that_is_missing_is_unknown_not_zero(tmp_path: Path, cell: str) -> None:
    content = TWO + f"2,2023-01-01 00:15:00,{cell}\n3,2023-01-01 00:20:00,0\n"
    series = read_series(port_file(tmp_path, content))
    assert series.traffic.tolist() == pytest.approx([10.0, 20.0, NAN, 0.0], nan_ok=True)
    assert series.times.tolist() == [FIRST, SECOND, THIRD, THIRD + 300]


def test_a_port_that_never_gave_a_value_is_read_as_unknown(tmp_path: Path) -> None:
    series = read_series(port_file(tmp_path, HEADING + "0,2023-01-01 00:05:00,\n1,2023-01-01 00:10:00,\n"))
    assert len(series.times) == 2
    assert np.isnan(series.traffic).all()


def test_a_sample_that_was_never_taken_is_absent(tmp_path: Path) -> None:
    series = read_series(port_file(tmp_path, TWO + "2,2023-01-02 00:10:00,30\n"))
    assert np.diff(series.times).tolist() == [300, 86_400]


@pytest.mark.parametrize("text", ["1970-01-01 00:05:00", "2024-02-29 00:00:00", "2261-12-31 23:55:00"])
def test_times_from_1970_to_2261_are_read(tmp_path: Path, text: str) -> None:
    series = read_series(port_file(tmp_path, HEADING + f"0,{text},1\n"))
    assert series.times.tolist() == [seconds(text)]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": has no samples; check how it is recorded"),
        ("\n", ": has no samples; check how it is recorded"),
        ("\ufeff", ": has no samples; check how it is recorded"),
        (HEADING, ": has no samples; check how it is recorded"),
        (HEADING.removesuffix("\n"), ": has no samples; check how it is recorded"),
        ("\ufeff" + HEADING, ": has no samples; check how it is recorded"),
    ],
    ids=["empty", "one line end", "BOM alone", "header", "header without end", "header with BOM"],
)
def test_a_file_without_samples(tmp_path: Path, content: str, message: str) -> None:
    assert refused(port_file(tmp_path, content)) == message


@pytest.mark.parametrize(
    "header",
    [
        "ts,traffic",
        ",time,traffic",
        ",ts,bytes",
        ",TS,Traffic",
        ", ts, traffic",
        ",ts,traffic,speed",
        ",ts,traffic,ts",
        ";ts;traffic",
        "\tts\ttraffic",
        "0,2022-12-31 23:55:00,5",
    ],
)
def test_wrong_columns_are_shown(tmp_path: Path, header: str) -> None:
    content = TWO.replace(HEADING, header + "\n")
    assert refused(port_file(tmp_path, content)) == f": has the columns {header!r}; {THREE_COLUMNS}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2", f"has 1 cells, {TORN}"),
        ("2,2023-01-", f"has 2 cells, {TORN}"),
        ("2,2023-01-01 00:15:00", f"has 2 cells, {TORN}"),
        ("2,2023-01-01 00:15:00,1,5", f"has 4 cells, {TORN}"),
        ("2,2023-01-01 00:15:00,1,", f"has 4 cells, {TORN}"),
        ("2;2023-01-01 00:15:00;1", f"has 1 cells, {TORN}"),
        ("2,2023-01-01 002,2023-01-01 00:15:00,7", f"has 4 cells, {TORN}"),
        *(
            (f"2,{text},1", f"ts is {text!r}; {TIME}")
            for text in (
                "",
                "NaT",
                "now",
                "Now",
                " now",
                "\tnow",
                "today",
                "yesterday",
                "1672532100",
                "01/01/2023 00:15",
                "2023-01-32 00:15:00",
                "2023-02-29 00:15:00",
                "2023-01-01 24:15:00",
                "2023-01-01 00:15:00 UTC",
                "2023-01-01 00:15:00+99:00",
                "9999-12-31 23:55:00",
                "2262-01-01 00:00:00",
                "1969-12-31 23:55:00",
                "0001-01-01 00:00:00",
                "0001-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59-23:59",
                "99999-01-01 00:00:00",
            )
        ),
        ('2,"2023-01-01, 00:15:00",1', f"ts is '2023-01-01, 00:15:00'; {TIME}"),
        (
            "2,2023-01-01 00:10:00,1",
            "repeats the time of the line before; sort by time, each time once",
        ),
        (
            "2,2023-01-01T02:10:00+02:00,1",
            "repeats the time of the line before; sort by time, each time once",
        ),
        ("2,2023-01-01 00:07:00,1", "is earlier than the line before; sort by time, each time once"),
        ("2,2023-01-01T01:15:00+01:30,1", "is earlier than the line before; sort by time, each time once"),
        *(
            (f"2,2023-01-01 00:15:00,{cell}", f"traffic is {cell!r}; {BYTES}")
            for cell in (
                "many",
                "-1",
                "-0.5",
                "-1e300",
                "inf",
                "-inf",
                "Infinity",
                "1e999",
                "1_000",
                "1 000",
                "0x10",
                "10 B",
                "True",
                "-",
                " ",
                "5\x00",
            )
        ),
    ],
)
def test_a_line_that_is_wrong_is_named_with_what_is_wrong(tmp_path: Path, row: str, message: str) -> None:
    for following in ("", "\n", "\n3,2023-01-01 00:20:00,30\n"):
        assert refused(port_file(tmp_path, f"{TWO}{row}{following}")) == f", line 4: {message}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,now,1", f"ts is 'now'; {TIME}"),
        ("0,1969-12-31 23:55:00,1", f"ts is '1969-12-31 23:55:00'; {TIME}"),
        ("0,1970-01-01 00:00:00,1", f"ts is '1970-01-01 00:00:00'; {TIME}"),
        ("0,2023-01-01 00:05:00", f"has 2 cells, {TORN}"),
        ("0,2023-01-01 00:05:00,1,2", f"has 4 cells, {TORN}"),
        ("0,2023-01-01 00:05:00,-1", f"traffic is '-1'; {BYTES}"),
        # To pandas a column of nothing but these is one of ones and noughts.
        ("0,2023-01-01 00:05:00,TRUE", f"traffic is 'TRUE'; {BYTES}"),
        ("0,2023-01-01 00:05:00,False", f"traffic is 'False'; {BYTES}"),
    ],
)
def test_a_file_of_one_line_that_is_wrong(tmp_path: Path, row: str, message: str) -> None:
    assert refused(port_file(tmp_path, HEADING + row + "\n")) == f", line 2: {message}"


@pytest.mark.parametrize(
    ("rows", "cells"),
    [
        (["2,2023-01-01 00:15:00", "3,2023-01-01 00:20:00,30,40"], 2),
        (["2,2023-01-01 00:15:00,30,40", "3,2023-01-01 00:20:00"], 4),
        (['"2,2",2023-01-01 00:15:00', "3,2023-01-01 00:20:00,40"], 2),
    ],
)
def test_cells_that_lack_in_one_line_are_not_made_up_for_by_too_many_in_another(
    tmp_path: Path, rows: list[str], cells: int
) -> None:
    content = TWO + "\n".join(rows) + "\n"
    assert refused(port_file(tmp_path, content)) == f", line 4: has {cells} cells, {TORN}"


def test_the_first_of_several_faults_is_named(tmp_path: Path) -> None:
    content = HEADING + "".join(
        f"{number},{datetime.fromtimestamp(FIRST + 300 * number, UTC):%Y-%m-%d %H:%M:%S},{traffic}\n"
        for number, traffic in enumerate([*range(500), "lots", -1, *range(500), "inf"])
    )
    assert refused(port_file(tmp_path, content)) == f", line 502: traffic is 'lots'; {BYTES}"


@pytest.mark.parametrize("cell", ["", "NaN", "None", "N/A", "n/a", "#N/A", "<NA>", "-nan", "1.#IND", "Nan"])
def test_a_line_that_is_accepted_is_not_blamed_for_another(tmp_path: Path, cell: str) -> None:
    missing = f"2,2023-01-01 00:15:00,{cell}\n"
    try:
        read_series(port_file(tmp_path, TWO + missing))
    except UserError as error:
        assert str(error).endswith(f", line 4: traffic is {cell!r}; {BYTES}")
    else:
        both = TWO + missing + "3,2023-01-01 00:20:00,-1\n"
        assert refused(port_file(tmp_path, both)) == f", line 5: traffic is '-1'; {BYTES}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            TWO.encode() + b"2,2023-01-01 00:15:00,\xff\n",
            "'utf-8' codec can't decode byte 0xff in position 84: invalid start byte",
        ),
        (TWO.encode("utf-16"), "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (
            b"\x1f\x8b\x08\x00" + bytes(40),
            "'utf-8' codec can't decode byte 0x8b in position 1: invalid start byte",
        ),
        (TWO.replace(",2023", ',"2023', 1).encode(), "unexpected end of data"),
        (TWO.encode() + b'2,"2023-01-01 00:15:00"x,1\n', "',' expected after '\"'"),
    ],
    ids=["not UTF-8", "UTF-16", "compressed", "quote never closed", "text behind a quote"],
)
def test_what_is_no_text_or_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    assert refused(port_file(tmp_path, content)) == f": cannot be read as comma separated values ({message})"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "1_8_out.csv") == ": no such file; check the path"


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    assert refused(tmp_path) == ": cannot be read: it is a folder; put a regular file there"


def test_a_fifo_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1_8_out.csv")
    fault = ": cannot be read: it is a FIFO; put a regular file there"
    assert refused(tmp_path / "1_8_out.csv") == fault
    os.mkfifo(tmp_path / "anomalies.txt")
    with pytest.raises(UserError) as caught:
        read_anomalies(tmp_path / "anomalies.txt")
    assert str(caught.value) == f"{tmp_path / 'anomalies.txt'}{fault}"


# Of what cells are made, and of what could come between them.
cells = st.one_of(
    st.sampled_from(
        [
            *("", "0", "1", "-1", "nan", "N/A", "inf", "1e400", "1_0", "0x1", "now", "today", "NaT", " now"),
            *("2023-01-01 00:05:00", "2023-01-01T00:10:00Z", "2023-01-01 00:15:00+01:00", "9999-01-01"),
            *("1970-01-01", "2023", "2023-W01-1", '"', "'", "\x00", "\u0663", "\u2028", ",", "\r", "\ufeff"),
        ]
    ),
    st.text(max_size=6),
    st.floats().map(str),
    st.datetimes().map(str),
)
edits = st.lists(
    st.tuples(st.integers(0, len(TWO)), st.integers(0, 12), cells | st.sampled_from(["\n", "\r\n", "\x0b"])),
    max_size=4,
)


def edited(changes: list[tuple[int, int, str]]) -> bytes:
    """A file of two samples with something cut out of it, and something else put in, at several places."""
    text = TWO
    for position, cut, inserted in changes:
        text = text[:position] + inserted + text[position + cut :]
    return text.encode(errors="surrogatepass")


def table(lines: list[list[str]]) -> bytes:
    return (HEADING + "\n".join(map(",".join, lines))).encode(errors="surrogatepass")


def in_order(pairs: list[tuple[str, str]]) -> bytes:
    """Samples five minutes apart, of which nobody knows the index nor the traffic."""
    moments = (datetime.fromtimestamp(FIRST + 300 * number, UTC) for number in range(len(pairs)))
    return table(
        [
            [index, f"{moment:%Y-%m-%d %H:%M:%S}", traffic]
            for (index, traffic), moment in zip(pairs, moments, strict=True)
        ]
    )


@fuzzed
@given(
    st.one_of(
        st.binary(max_size=80),
        edits.map(edited),
        st.lists(st.lists(cells, max_size=5), max_size=5).map(table),
        st.lists(st.tuples(cells, cells), max_size=5).map(in_order),
    )
)
@example(TWO.encode() + b"2,2023-01-01 00:15:00\n3,2023-01-01 00:20:00,30,40\n")
@example(HEADING.encode() + b"0,2023-01-01 00:05:00,TRUE\n1,2023-01-01 00:10:00,\n")
@example(TWO.encode() + b"2,2023-01-01 00:15:00," + 400 * b"9" + b"\n")
@example(TWO.encode() + b'2,"2023-01-01 00:15:00\n\n",1\n')
@example(HEADING.encode() + b"0,2261-12-31T23:59:59-12:00,1\n")
@example(HEADING.encode() + b"0,1970-01-01T00:00:00+02:00,1\n")
def test_a_fuzzed_port_is_read_or_refused_in_one_line(content: bytes) -> None:
    series = loaded_or_refused(read_series, content, "_8_out.csv")
    if series is None:
        return
    assert len(series.times) == len(series.traffic) >= 1
    assert series.times.dtype == np.int64
    assert (np.diff(series.times) > 0).all()
    assert 0 < series.times[0] <= series.times[-1] < seconds("2262-01-01 00:00:00")
    assert (np.isnan(series.traffic) | (series.traffic >= 0)).all()
    assert not np.isinf(series.traffic).any()
    # Nothing was left out, made up, or moved into another column.
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig", errors="replace"), newline="")))
    assert len(rows) == len(series.times)
    for row, traffic in zip(rows, series.traffic.tolist(), strict=True):
        assert len(row) == 3
        assert None not in row.values()
        expected = NAN if row["traffic"] in MISSING else float(row["traffic"])
        assert traffic == pytest.approx(expected, nan_ok=True)


def plain(changes: list[tuple[str, int, str, str]]) -> str:
    """Samples five minutes apart, with something else in place of a few characters of some times."""
    lines = []
    for number, (form, position, other, traffic) in enumerate(changes):
        text = f"{datetime.fromtimestamp(FIRST + 300 * number, UTC):{form}}"
        lines.append(f"{number},{text[:position]}{other}{text[position + len(other) :]},{traffic}\n")
    return "".join(lines)


plain_text = st.text("0123456789-: .TZ+", max_size=3)


@fuzzed
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M+00", "%Y-%m-%d"]),
            st.integers(0, 19),
            st.just("") | plain_text,
            st.integers(0, 2**40).map(str) | st.floats(0, 1e12).map("{:f}".format) | plain_text,
        ),
        min_size=1,
        max_size=4,
    ).map(plain)
)
@example("0, 2023-1-31 23:55:00,1\n")
@example("0,2023-01-31 23:5:00Z,1\n")
@example("0,2023-01-31  23:55:0,1\n")
@example("0,2023-01-31 2301+019,1\n")
@example(" 0 ,2023-01-31 23:55:00, 1\n")
def test_a_fuzzed_port_is_read_alike_whatever_its_index_is_called(tmp_path: Path, samples: str) -> None:
    found = []
    for heading in (HEADING, "number" + HEADING):
        try:
            found.append(read_series(port_file(tmp_path, heading + samples)))
        except UserError as error:
            found.append(str(error))
    unnamed, named = found
    if isinstance(named, str):
        assert unnamed == named
    else:
        assert unnamed.times.tolist() == named.times.tolist()
        np.testing.assert_allclose(unnamed.traffic, named.traffic, rtol=1e-12)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "port", "direction", "name"),
    [
        ("1", "8", "out", "1_8_out"),
        ("core-sw.example", "Gi1", "in", "core-sw.example_Gi1_in"),
        ("core/1", "ge-0/0/1", "in", "core%2F1_ge-0%2F0%2F1_in"),
        ("core_sw", "8", "out", "core%5Fsw_8_out"),
        ("1", "ge_0_1", "out", "1_ge_0_1_out"),
        ("1", "8_out", "in", "1_8_out_in"),
        ("_", "_", "in", "%5F___in"),
        ("..", "../../x", "out", ".._..%2F..%2Fx_out"),
        ("a b", "1:2", "in", "a b_1%3A2_in"),
        ("100%", "%5F", "in", "100%25_%255F_in"),
        ("è", "日", "out", "è_日_out"),
        ("a\nb", "c\x00d", "in", "a%0Ab_c%00d_in"),
    ],
)
def test_a_name_and_the_tags_it_stands_for(device: str, port: str, direction: str, name: str) -> None:
    assert port_name(device, port, direction) == name
    assert port_tags(name) == {"device": device, "port": port, "direction": direction}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
awkward = st.text("_%/\\.,:ab", min_size=1, max_size=6)


@fuzzed
@given(texts | awkward, texts | awkward, st.sampled_from(["in", "out"]))
def test_a_fuzzed_name_is_fit_for_a_file_and_leads_back_to_its_tags(
    device: str, port: str, direction: str
) -> None:
    name = port_name(device, port, direction)
    assert port_tags(name) == {"device": device, "port": port, "direction": direction}
    assert name.isprintable() and not set(name) & set("/\\")
    assert Path(f"{name}.csv").stem == name


def test_the_series_of_a_folder_are_its_files_that_are_named_like_one(tmp_path: Path) -> None:
    series = ["1_17_out", "1_8_in", "1_8_out", "core%2F1_ge-0_0_in", port_name("a_b", "1/2", "out")]
    others = [
        "1_8_up.csv",
        "out.csv",
        "_8_out.csv",
        "1__out.csv",
        "1_out.csv",
        "1_8_out.csv.bak",
        "1_8_out.1.csv",
    ]
    for file in (*(f"{name}.csv" for name in series), *others, "1_9_out.txt", "anomalies.txt"):
        (tmp_path / file).touch()
    found = list_series(tmp_path)
    assert found == {name: tmp_path / f"{name}.csv" for name in series}
    assert list(found) == sorted(series)
    assert list_series(str(tmp_path)) == found


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "no such folder; check --ports_dir"),
        ("file", "no such folder; check --ports_dir"),
        (".", "no file is named <device>_<port>_<in|out>.csv; check --ports_dir"),
    ],
)
def test_a_folder_without_series(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^{re.escape(f'{tmp_path / folder}: {message}')}$"):
        list_series(tmp_path / folder)


# --- a part of a series --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "traffic"),
    [
        (0, 10_000, [1.0, 2.0, 3.0]),
        (300, 900, [2.0, 3.0]),
        (299, 900, [1.0, 2.0, 3.0]),
        (300, 899, [2.0]),
        (600, 600, []),
        (599, 600, [2.0]),
        (900, 10_000, []),
        (0, 299, []),
    ],
)
def test_between_leaves_out_the_start_and_takes_the_end(start: int, end: int, traffic: list[float]) -> None:
    series = Series("1_8_out", np.array([300, 600, 900]), np.array([1.0, 2.0, 3.0]))
    part = series.between(start, end)
    assert part.name == "1_8_out"
    assert part.traffic.tolist() == traffic
    assert part.times.tolist() == [300 * value for value in traffic]


def test_parts_that_follow_each_other_share_no_sample_and_miss_none() -> None:
    series = Series("1_8_out", np.array([300, 601, 899, 900, 1200]), np.arange(5.0))
    parts = [series.between(start, start + 300) for start in range(0, 1500, 300)]
    assert [value for part in parts for value in part.traffic.tolist()] == series.traffic.tolist()


# --- known anomalies -----------------------------------------------------------------------------

DAY = seconds("2023-04-18 00:00:00")
NEXT = seconds("2023-04-19 00:00:00")
TEN, TWELVE = seconds("2023-04-18 10:00:00"), seconds("2023-04-18 12:00:00")


@pytest.mark.parametrize(
    ("content", "anomalies"),
    [
        ("", []),
        ("\n  \n", []),
        ("2023-04-18", [KnownAnomaly(DAY, NEXT)]),
        ("2023-04-18\n2023-04-19\n", [KnownAnomaly(DAY, NEXT), KnownAnomaly(NEXT, NEXT + 86_400)]),
        ("2023-04-18\r\n\r\n2023-04-19\r\n", [KnownAnomaly(DAY, NEXT), KnownAnomaly(NEXT, NEXT + 86_400)]),
        ("\ufeff2023-04-18\n", [KnownAnomaly(DAY, NEXT)]),
        ("2023-04-18 10:00:00\n", [KnownAnomaly(TEN, TEN + 86_400)]),
        ("2023-04-18,2023-04-19\n", [KnownAnomaly(DAY, NEXT)]),
        ("2023-04-18 10:00:00,2023-04-18 12:00:00\n", [KnownAnomaly(TEN, TWELVE)]),
        ("2023-04-18 10:00,2023-04-18 12:00\n", [KnownAnomaly(TEN, TWELVE)]),
        ("2023-04-18T12:00:00+02:00,2023-04-18T12:00:00Z\n", [KnownAnomaly(TEN, TWELVE)]),
        ("2023-04-18 10:00:00,2023-04-18 12:00:00,1_8_out\n", [KnownAnomaly(TEN, TWELVE, "1_8_out")]),
        (" 2023-04-18 10:00:00 , 2023-04-18 12:00:00 , 1_8_out \n", [KnownAnomaly(TEN, TWELVE, "1_8_out")]),
        # As they stand: nobody has to sort them, and two ports may fail together.
        (
            "2023-04-19\n2023-04-18,2023-04-19,1_8_out\n2023-04-18,2023-04-19,1_9_in\n",
            [
                KnownAnomaly(NEXT, NEXT + 86_400),
                KnownAnomaly(DAY, NEXT, "1_8_out"),
                KnownAnomaly(DAY, NEXT, "1_9_in"),
            ],
        ),
    ],
)
def test_anomalies_in_all_their_forms(tmp_path: Path, content: str, anomalies: list[KnownAnomaly]) -> None:
    path = tmp_path / "anomalies.txt"
    path.write_bytes(content.encode())
    assert read_anomalies(path) == anomalies
    assert read_anomalies(str(path)) == anomalies


def test_no_file_is_no_anomaly(tmp_path: Path) -> None:
    assert read_anomalies(tmp_path / "anomalies.txt") == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        *(
            (line, "is neither a date nor start,end[,series]")
            for line in (
                "yesterday",
                "18/04/2023",
                "2023-04-31",
                "9999-12-31",
                "1969-12-31",
                "2023-04-18,",
                "2023-04-18,,1_8_out",
                "2023-04-18,1_8_out",
                "1_8_out,2023-04-18,2023-04-19",
                "2023-04-18;2023-04-19",
                "# maintenance",
            )
        ),
        *(
            (line, "must be a date, or a start, a later end and at most a series")
            for line in (
                "2023-04-18,2023-04-18",
                "2023-04-19,2023-04-18",
                "2023-04-19,2023-04-18,1_8_out",
                "2023-04-18T12:00:00Z,2023-04-18T12:00:00+02:00",
                "2023-04-18,2023-04-19,1_8_out,1_9_out",
            )
        ),
    ],
)
def test_a_line_that_is_no_anomaly_is_shown(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "anomalies.txt"
    path.write_text(f"2023-04-18\n\n{line}\n2023-04-20\n")
    with pytest.raises(UserError) as caught:
        read_anomalies(path)
    assert str(caught.value) == f"{path}, line 3: {line!r} {fault}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"2023-04-18\n\xff",
            "cannot be read as text ('utf-8' codec can't decode byte 0xff in position 11: invalid start"
            " byte); save it as UTF-8",
        ),
        (None, "cannot be read: it is a folder; put a regular file there"),
    ],
)
def test_anomalies_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "anomalies.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_anomalies(path)
    assert str(caught.value) == f"{path}: {message}"


@fuzzed
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.lists(cells, max_size=4), max_size=4).map(
            lambda lines: "\n".join(map(",".join, lines)).encode(errors="surrogatepass")
        ),
    )
)
@example(b"2023-04-18,2023-04-19,")
@example(b"2023-04-18T00:00:00+14:00,2261-12-31T23:59:59-12:00")
def test_fuzzed_anomalies_are_read_or_refused_in_one_line(content: bytes) -> None:
    for anomaly in loaded_or_refused(read_anomalies, content, ".txt") or []:
        assert anomaly.start < anomaly.end
        # With an empty name it would be known of no series at all.
        assert anomaly.series is None or anomaly.series
