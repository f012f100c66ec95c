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
