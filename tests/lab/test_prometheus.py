"""deploy/prometheus.yml: Prometheus accepts it, and writes on the series that we read and no others."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.parts import environment, find
from nodes.metrics import CPU_SECONDS
from tests.support.metrics import MEASUREMENTS

CONFIG = Path(__file__).resolve().parents[2] / "deploy/prometheus.yml"


def test_promtool_accepts_the_shipped_configuration() -> None:
    done = subprocess.run(
        [find("promtool"), "check", "config", "--lint-fatal", CONFIG],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def keeps() -> Callable[[str], bool]:
    """Whether the shipped rule keeps a series, given as its name and its label `mode`, `;` between them."""
    text = CONFIG.read_text()
    rules = re.findall(
        r'- source_labels: \[__name__, mode\]\n +regex: "([^"]*)"\n +action: (\w+)\n', text, re.DOTALL
    )
    assert [action for _, action in rules] == ["keep"]
    assert text.count("action:") == 1
    # A backslash at the end of a line of a quoted YAML string joins it with the next one.
    regex = re.compile(re.sub(r"\\\n *", "", rules[0][0]))
    return lambda series: regex.fullmatch(series) is not None


def test_the_series_that_we_read_are_written_on() -> None:
    wanted = {f"{name};{'user' if name == CPU_SECONDS else ''}" for name in MEASUREMENTS}
    assert [series for series in wanted if not keeps()(series)] == []


@pytest.mark.parametrize(
    "series",
    [
        "up;",
        "scrape_duration_seconds;",
        "node_memory_Cached_bytes;",
        "node_memory_MemAvailable_bytes;",
        "node_cpu_seconds_total;",
        "node_cpu_seconds_total;idle",
        "node_cpu_seconds_total;iowait",
        "node_cpu_guest_seconds_total;user",
        "node_network_receive_packets_total;",
        "node_network_transmit_errs_total;",
        "rx_cpu_time_total;",
        "my_dl_bitrate;",
        "process_cpu_seconds_total;",
    ],
)
def test_no_other_series_is_written_on(series: str) -> None:
    assert not keeps()(series)


def test_both_exporters_are_scraped_and_written_to_the_default_database() -> None:
    text = CONFIG.read_text()
    assert re.findall(r"- job_name: (\w+)\n.*\n +- targets: (.*)\n", text) == [
        ("node", '["localhost:9100"]'),
        ("ran", '["localhost:9099"]'),
    ]
    assert re.findall(r"\burl: (.*)\n", text) == ["http://localhost:8086/api/v1/prom/write?db=metrics_db"]
