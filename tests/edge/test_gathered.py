"""What many nodes say at once is one line."""

from __future__ import annotations

import logging

import pytest

from edge.gathered import GatheredNotices
from service.log import Notices
from tests.edge.test_many_nodes import names


def test_what_few_nodes_say_is_a_line_each_and_what_many_say_is_one(caplog: pytest.LogCaptureFixture) -> None:
    gathered = GatheredNotices()
    notices = {name: Notices(gathered.of(name)) for name in names(6)}
    for name, each in notices.items():
        each.fault("silence", f"no record ({name})", logging.WARNING)
        if name < "edge-3":
            each.fault("model", "damaged")
    assert caplog.messages == []
    gathered.log()
    assert caplog.messages == [
        "6 nodes (edge-1, edge-2, edge-3 and 3 more), such as edge-1: no record (edge-1)",
        "edge-1: damaged",
        "edge-2: damaged",
    ]
    caplog.clear()
    gathered.log()
    notices["edge-1"].fault("silence", "no record (edge-1)", logging.WARNING)
    notices["edge-2"].mended("silence", "records again")
    gathered.log()
    assert caplog.messages == ["edge-2: records again"]


def test_lines_that_differ_in_numbers_and_names_of_nodes_are_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gathered = GatheredNotices()
    for number, name in enumerate(["milan", "rome", *names(4)]):
        gathered.add(name, logging.ERROR, f"nodes/{name}/normal.csv has only {number}.5 sequences")
        gathered.add(name, logging.WARNING, f"gap: cpu {number} is missing")
        gathered.add(name, logging.WARNING, f"gap: cpu {number + 1} is missing")
    gathered.add("rome", logging.ERROR, "rome/normal.csv: no such file")
    gathered.log()
    assert caplog.messages == [
        "6 nodes (edge-1, edge-2, edge-3 and 3 more), such as edge-1: nodes/edge-1/normal.csv has only 2.5"
        " sequences",
        "6 nodes (edge-1, edge-2, edge-3 and 3 more), such as edge-1: gap: cpu 2 is missing",
        "rome: rome/normal.csv: no such file",
    ]
