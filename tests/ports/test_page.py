"""The page of ports: what a run found, and a week of one series as the model of now judges it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import find_anomalies
from common.alerts import ALERT
from common.files import UserError
from parallel.cluster import Cluster
from ports.hourly import HourlyJob
from ports.judging import JudgingSettings
from ports.page import PortsPage
from ports.sources import Folder
from tests.support.port_series import START, change, samples, write

DAYS = 36


@pytest.fixture
def page(tmp_path: Path) -> PortsPage:
    """A page after a run on three series: one as usual, one with a flood at its end, one without a model."""
    folder, models = tmp_path / "ports", tmp_path / "models"
    times, traffic = samples(DAYS)
    flood = traffic.copy()
    change(times, flood, "2023-02-06T21:00:00", "2023-02-07", 8)
    write(folder, "1_1_in", times, traffic)
    write(folder, "1_2_in", times, flood)
    words = ["--target=ports", "--mode=train", f"--ports_dir={folder}", f"--ports_models={models}"]
    words += ["--jobs=1", "--timezone=UTC", "--train_days=30", "--until=2023-02-02"]
    assert find_anomalies.main(words) == 0
    write(folder, "1_3_in", times, traffic)
    settings = JudgingSettings(str(models), ("profile",), None, Cluster(1, None))
    page = PortsPage(settings, lambda: Folder(folder), contextlib.nullcontext, None, clock=lambda: 5.5)
    HourlyJob(settings, lambda: Folder(folder), contextlib.nullcontext, page=page).turn()
    return page


def test_a_page_shows_what_a_run_found_and_a_week_of_one_series(page: PortsPage) -> None:
    now = json.loads(page.now({}))
    assert (now["half"], now["polled"], now["fault"]) == ("ports", 5500, "")
    assert dict(now["nodes"]) == {"1_1_in": "normal", "1_2_in": ALERT, "1_3_in": "without a model"}
    assert [one for one in now["notes"] if one["kind"] == "without a model"] == [
        {"kind": "without a model", "what": [""], "nodes": ["1_3_in"]}
    ]
    shown = json.loads(page.port({"name": "1_2_in"}))
    assert (shown["name"], shown["status"], shown["detector"]) == ("1_2_in", ALERT, "profile")
    ends = np.array(shown["times"]) // 1000
    step = shown["step"] // 1000
    # The last week, bucket by bucket.
    assert ends.tolist() == list(range(START + DAYS * 86_400 - 7 * 86_400 + step, ends[-1] + 1, step))
    assert ends[-1] == START + DAYS * 86_400
    # 8 times 3 million bytes in 300 s at most.
    hours = ends > START + DAYS * 86_400 - 3 * 3600
    assert max(shown["traffic"]) == pytest.approx(8 * 8 * 1e6 * 1.3 / 300, rel=0.25)
    assert {shown["statuses"][place] for place in np.flatnonzero(hours)} <= {"1", "2"}
    assert "2" in shown["statuses"]
    assert {shown["statuses"][place] for place in np.flatnonzero(~hours)} <= {"0", "1"}
    assert all(
        low < value < high
        for low, value, high, status in zip(
            shown["low"], shown["traffic"], shown["high"], shown["statuses"], strict=True
        )
        if status == "0"
    )
    for name in ("1_3_in", "of nobody"):
        with pytest.raises(LookupError):
            page.port({"name": name})
    # A run that fails keeps what is known, and says why nothing is judged.
    before = page.version()
    page.fail("InfluxDB is away")
    assert page.version() is not before
    assert json.loads(page.now({})) == now | {"fault": "InfluxDB is away"}


def test_a_server_that_is_away_is_one_line(page: PortsPage, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Folder:
        raise UserError("the server is away")

    monkeypatch.setattr(page, "_open_source", away)
    with pytest.raises(UserError, match="the server is away"):
        page.port({"name": "1_1_in"})
