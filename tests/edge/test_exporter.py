"""What Prometheus is given of a node, and the alerts that are deployed with it."""

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.alerts import ALERT, ANOMALY, NORMAL
from edge.detector import Verdict
from edge.exporter import EdgeMetrics
from edge.sensitivity import Curve
from lab.influxd import free_port
from ports.exporter import PortMetrics
from tests.support.metrics import NAMES, THRESHOLD_KEYS
from tests.support.scrapes import scrape

PROJECT = Path(__file__).resolve().parents[2]


def test_what_prometheus_scrapes() -> None:
    metrics = EdgeMetrics()
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    metrics.show_thresholds(dict(zip(THRESHOLD_KEYS, range(9), strict=True)))
    rmse = {name: 0.25 for name in NAMES}
    # No change of the memory is found.
    curves = {
        "cpu": Curve((2.0, 4.0), ((1.0, 9.0), (1.0, 9.0)), 30.0),
        "mem": Curve((2.0,), ((1.0,), (1.0,)), 30.0),
    }
    metrics.show_sensitivity(curves, {"cpu_threshold": 1.0, "mem_threshold": 1.0})
    metrics.show(Verdict(0, NORMAL, (), (), rmse, {}), [])
    metrics.show(Verdict(0, ANOMALY, ("cpu", "mem"), (), rmse, {}), ["rx_cpu_time"])
    metrics.show(Verdict(0, ALERT, ("cpu",), (), rmse | {"cpu": 4.5}, {}), ["rx_cpu_time"])
    metrics.show(Verdict(0, ALERT, (), (), rmse | {"cpu": 4.5}, {}), [])
    found = scrape(port)
    expected = {
        'find_anomalies_anomalies_total{cause="cpu"}': 2,
        'find_anomalies_anomalies_total{cause="mem"}': 1,
        'find_anomalies_anomalies_total{cause="unknown cause"}': 1,
        'find_anomalies_alerts_total{cause="cpu"}': 1,
        'find_anomalies_alerts_total{cause="unknown cause"}': 1,
        'find_anomalies_unknown_verdicts_total{series="rx_cpu_time"}': 2,
        'find_anomalies_smallest_change{metric="cpu"}': 4.0,
        'find_anomalies_smallest_change{metric="mem"}': math.inf,
        'find_anomalies_blind{metric="cpu"}': 0,
        'find_anomalies_blind{metric="mem"}': 1,
        'find_anomalies_rmse{metric="cpu"}': 4.5,
        'find_anomalies_rmse{metric="mem"}': 0.25,
        'find_anomalies_threshold{metric="cpu"}': 0,
        'find_anomalies_threshold{metric="overall"}': 8,
        "find_anomalies_spool_depth": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    # Another model has no curve of the memory.
    metrics.show_sensitivity({"cpu": curves["cpu"]}, {"cpu_threshold": 0.5})
    found = scrape(port)
    assert found['find_anomalies_smallest_change{metric="cpu"}'] == 2.0
    assert not any("smallest_change" in name or "blind" in name for name in found if "mem" in name)


def test_what_serves_nothing_loads_no_http_server() -> None:
    code = (
        "import sys, commands.edge, edge.exporter, service.loop\n"
        "print({'http.server', 'wsgiref.simple_server'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert done.stdout == b"set()\n"


def test_what_nobody_reads_is_not_counted() -> None:
    metrics = EdgeMetrics(nodes=["a"], is_read=False)
    metrics.polls.inc()
    metrics.show_drift({"cpu"}, node="a")
    metrics.show_nodes({}, 1)
    assert not hasattr(metrics, "registry")


def test_the_age_of_the_last_good_poll_grows_until_the_next() -> None:
    metrics = EdgeMetrics()
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    time.sleep(0.3)
    before = scrape(port)["find_anomalies_seconds_since_last_good_poll"]
    metrics.good_poll()
    after = scrape(port)["find_anomalies_seconds_since_last_good_poll"]
    assert before >= 0.3
    assert after < before


def test_in_silence_the_newest_record_grows_old_and_no_rmse_is_shown() -> None:
    metrics = EdgeMetrics()
    registry = metrics.registry
    age = "find_anomalies_seconds_since_newest_record"
    assert math.isnan(registry.get_sample_value(age))
    rmse = {name: 0.25 for name in NAMES}
    metrics.show(Verdict(int((time.time() - 500) * 1e9), NORMAL, (), (), rmse, {}), [])
    assert registry.get_sample_value(age) == pytest.approx(500, abs=5)
    metrics.show_silence()
    shown = [registry.get_sample_value("find_anomalies_rmse", {"metric": name}) for name in NAMES]
    assert all(math.isnan(value) for value in shown)


def test_levels_are_shown_until_nothing_is_known() -> None:
    metrics = EdgeMetrics(nodes=["edge-*"])
    port = free_port("127.0.0.1")
    metrics.serve("127.0.0.1", port)
    metrics.show_levels({"cpu": (98.0, 5.0, 7.0, 9.0), "mem": (88.0, 87.0, 88.5, 90.0)}, "edge-7")
    found = scrape(port)
    labels = '{metric="cpu",node="edge-7"}'
    names = ("level", "expected_low", "expected", "expected_high")
    assert [found[f"find_anomalies_{name}{labels}"] for name in names] == [98, 5, 7, 9]
    assert found['find_anomalies_expected{metric="mem",node="edge-7"}'] == 88.5
    metrics.show_silence(node="edge-7")
    found = scrape(port)
    assert all(math.isnan(found[f"find_anomalies_{name}{labels}"]) for name in names)


# --- what is deployed ----------------------------------------------------------------------------


def test_the_alert_rules_use_metrics_that_exist_and_promtool_accepts_them() -> None:
    from lab import parts

    rules = PROJECT / "deploy/alerts.yml"
    checked = subprocess.run(
        [parts.find("promtool"), "check", "rules", rules],
        capture_output=True,
        text=True,
        env=parts.environment(),
    )
    assert checked.returncode == 0, checked.stderr
    families = [
        family
        for one in (EdgeMetrics(), EdgeMetrics(nodes=[]), PortMetrics())
        for family in one.registry.collect()
    ]
    known = {name for family in families for name in (family.name, f"{family.name}_total")}
    queries = "\n".join(re.findall(r"(?:expr:|printf) (.*)", rules.read_text()))
    used = set(re.findall(r"find_anomalies_\w+", queries))
    assert used
    assert used <= known
