"""An attack reaches the people on call, by a real Prometheus, a real Alertmanager and the deployed rules."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from common.times import parse_time
from edge.bundle import bundle_paths
from edge.exporter import STATUSES_OF_NODES, EdgeMetrics
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from lab import parts
from lab.alertmanager import Alertmanager
from lab.influxd import Influxd, free_port
from lab.prometheus import PrometheusServer
from nodes.metrics import MEMORY_FREE, METRICS, RX_CPU
from nodes.series import Record
from ports.exporter import PortMetrics
from simulators.edge import Attack, simulate
from tests.support.grafana import filled, queries
from tests.support.influx import connect
from tests.support.prometheus_writer import write_samples

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
RULES, ALERTMANAGER = ROOT / "deploy/alerts.yml", ROOT / "deploy/alertmanager.yml"
# What a name may have in it, and what a page of metrics, PromQL and an address each have to escape.
HOSTILE = 'edge "7"\\n\nb + 1%'
# In fast motion a record is a second, not 15.
FAST = {
    "group_wait: 20s": "group_wait: 1s",
    "group_interval: 1m": "group_interval: 2s",
    "interval: 15s": "interval: 1s",
    "keep_firing_for: 2m": "keep_firing_for: 2s",
    "PAGE_HOST": "edge.example",
}


def test_amtool_accepts_the_configuration() -> None:
    done = subprocess.run(
        [parts.find("amtool"), "check-config", ALERTMANAGER],
        capture_output=True,
        text=True,
        env=parts.environment(),
    )
    assert done.returncode == 0, done.stderr


# --- what runs -----------------------------------------------------------------------------------


def in_fast_motion(text: str, *wanted: str) -> str:
    for slow in wanted:
        assert slow in text
        text = text.replace(slow, FAST[slow])
    return text


class Webhook:
    """Takes what Alertmanager posts. told: status and alert, in the order in which they came."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.told += [(one["status"], one) for one in content["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_words: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, alert: str, instance: str) -> list[str]:
        """The statuses that were told of an alert, in order."""
        return [
            status
            for status, one in self.told
            if (one["labels"]["alertname"], one["labels"]["instance"]) == (alert, instance)
        ]


class Chain(NamedTuple):
    """All that runs. address: of the daemon's metrics; opened: when the attack began, seconds since 1970."""

    webhook: Webhook
    prometheus: PrometheusServer
    address: str
    others: dict[str, str]
    attacked_at: float
    wait_for: Callable[[Callable[[], Any]], Any]


def lives(begin: int, seconds: int, attack: tuple[float, float] | None = None) -> Record:
    """Samples of every second, none missed, with an attack on the CPU."""
    attacks = [Attack("cpu", *attack)] if attack else []
    for seed in range(1000):
        samples = simulate(seed, begin, seconds, attacks, interval_seconds=1)
        if len(samples[MEMORY_FREE]) == len(samples[RX_CPU]) == seconds:
            # Both exporters are on one host, by which the node is named.
            for point in (point for points in samples.values() for point in points):
                point["instance"] = point["instance"].replace("gnb:", "edge:")
            return samples
    raise AssertionError("no whole life")


def others_incidents() -> tuple[EdgeMetrics, PortMetrics]:
    """Two other services, each with an open incident."""
    edge, ports = EdgeMetrics(nodes=[]), PortMetrics()
    entry = {"cause": "cpu", "began": "2026-03-06T12:00:14Z", "opened": "2026-03-06T12:01:00Z"}
    hostile = {"id": f"{HOSTILE}@1", "node": HOSTILE, "why": f"because of {HOSTILE}"}
    edge.open_incidents.show([entry | hostile])
    ports.open_incidents.show(
        [{**entry, "id": "core:1:in@2", "node": "core:1:in", "cause": "traffic", "why": "too much"}]
    )
    return edge, ports


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A node that is watched in fast motion, attacked for six seconds once all else is up."""
    folder = tmp_path_factory.mktemp("chain")
    give_model(folder / "nodes/edge")
    port, webhook = free_port("127.0.0.1"), Webhook()
    address = f"127.0.0.1:{port}"
    others = {}
    for name, metrics in zip(("EdgeIncident", "PortIncident"), others_incidents(), strict=True):
        other = free_port("127.0.0.1")
        metrics.serve("127.0.0.1", other)
        others[name] = f"127.0.0.1:{other}"
    manager_config = in_fast_motion(
        ALERTMANAGER.read_text(), "group_wait: 20s", "group_interval: 1m"
    ).replace("http://localhost:5001/alerts", webhook.url)
    (folder / "alerts.yml").write_text(
        in_fast_motion(RULES.read_text(), "keep_firing_for: 2m", "interval: 15s", "PAGE_HOST")
    )
    with (
        Influxd(folder / "influxd") as influxd,
        connect(influxd) as client,
        Alertmanager(folder / "alertmanager", manager_config) as manager,
    ):
        client.create_database("edge")
        client.switch_database("edge")
        begin = int(time.time()) - 90
        write_samples(client, lives(begin, 300))
        targets = json.dumps([address, *others.values()])
        config = (
            "global: {scrape_interval: 1s}\n"
            f"rule_files: [{folder / 'alerts.yml'}]\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{manager.address}']}}]}}]}}\n"
            f"scrape_configs: [{{job_name: find_anomalies, static_configs: [{{targets: {targets}}}]}}]\n"
        )
        with (
            (folder / "daemon.log").open("wb") as log,
            PrometheusServer(folder / "prometheus", "prometheus", config=config) as prometheus,
        ):
            words = ["--mode=test", "--interval=1", "--influx_host=127.0.0.1", "--influx_db=edge"]
            words += [f"--influx_port={influxd.port}", f"--state_dir={folder / 'state'}", "--store_expected"]
            words += ["--node=edge", f"--nodes_dir={folder / 'nodes'}", "--metrics_node=edge"]
            words += [f"--metrics_port={port}"]
            process = subprocess.Popen(
                [sys.executable, "find_anomalies.py", *words],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"]},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

            def wait_for(wanted: Callable[[], Any], seconds: float = 60) -> Any:
                deadline = time.monotonic() + seconds
                while not (found := wanted()):
                    assert process.poll() is None, (folder / "daemon.log").read_text()
                    assert time.monotonic() < deadline, (folder / "daemon.log").read_text()[:3000]
                    time.sleep(0.1)
                return found

            try:
                wait_for(lambda: asked(prometheus, 'find_anomalies_nodes{status="normal"} == 1'))
                attacked_at = int(time.time()) + 2
                write_samples(client, lives(begin, 300, (attacked_at, attacked_at + 6)))
                yield Chain(webhook, prometheus, address, others, attacked_at, wait_for)
            finally:
                process.kill()
                process.wait()
                webhook.close()


def give_model(folder: Path) -> None:
    """Let a node have the shipped model and thresholds."""
    folder.mkdir(parents=True)
    shipped, own = bundle_paths(ROOT / DEFAULT_MODEL), bundle_paths(folder / "model.h5")
    shutil.copy(shipped.litert, own.litert)
    shutil.copy(ROOT / "data/normalization_stats.json", own.stats)
    shutil.copy(ROOT / "data/thresholds.json", folder / "thresholds.json")
    shutil.copy(shipped.identity, own.identity)


def asked(server: PrometheusServer, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers now."""
    words = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{words}") as answer:
        return json.load(answer)["data"]["result"]


# --- what is told --------------------------------------------------------------------------------


def test_an_attack_is_told_once_within_a_minute_and_its_end_once(chain: Chain) -> None:
    webhook = chain.webhook
    alerts = f'find_anomalies_alerts_total{{instance="{chain.address}"}}'
    chain.wait_for(lambda: asked(chain.prometheus, f"{alerts} > 1"))
    check_dashboard(chain)
    chain.wait_for(lambda: webhook.of("EdgeIncident", chain.address))
    assert time.time() - chain.attacked_at < 60
    chain.wait_for(lambda: "resolved" in webhook.of("EdgeIncident", chain.address))
    # It lasted for several group intervals, and was told once.
    assert webhook.of("EdgeIncident", chain.address) == ["firing", "resolved"]
    assert asked(chain.prometheus, f'find_anomalies_open_incident{{instance="{chain.address}"}}') == []
    firing, resolved = [one for _, one in webhook.told if one["labels"]["instance"] == chain.address]
    labels, notes = firing["labels"], firing["annotations"]
    began = parse_time(notes["since"]) / 1e9
    # The first anomaly is of the second in which the attack began, or of the next one.
    assert 0 <= began - chain.attacked_at <= 2
    moment = re.sub(r"[-:]|\.\d+", "", notes["since"])
    assert labels == {
        "alertname": "EdgeIncident",
        "severity": "critical",
        "node": "edge",
        "incident": f"edge@{moment}",
        "instance": chain.address,
    }
    assert notes["cause"] == "cpu"
    assert re.match(r"cpu \d+ % \(expected [\d.]+-[\d.]+\) on edge for \d+ s", notes["summary"])
    assert notes["page"] == f"http://edge.example:9106/#incident=edge%40{moment}"
    assert resolved["labels"] == labels
    assert resolved["annotations"] == notes


def test_names_with_anything_in_them_and_ports_are_told_too(chain: Chain) -> None:
    chain.wait_for(lambda: {one["labels"]["alertname"] for _, one in chain.webhook.told} >= {*chain.others})
    found = {
        name: [one for _, one in chain.webhook.told if one["labels"]["instance"] == address]
        for name, address in chain.others.items()
    }
    (edge,), (port,) = found["EdgeIncident"], found["PortIncident"]
    assert (edge["labels"]["node"], edge["labels"]["incident"]) == (HOSTILE, f"{HOSTILE}@1")
    assert edge["annotations"]["summary"] == f"because of {HOSTILE}"
    fragment = edge["annotations"]["page"].removeprefix("http://edge.example:9106/#incident=")
    # As decodeURIComponent() reads it.
    assert urllib.parse.unquote(fragment) == f"{HOSTILE}@1"
    assert (port["labels"]["node"], port["labels"]["severity"]) == ("core:1:in", "warning")
    assert port["annotations"] == {
        "summary": "too much",
        "cause": "traffic",
        "since": "2026-03-06T12:00:14Z",
        "page": "http://edge.example:9107/#incident=core%3A1%3Ain%402",
    }


def check_dashboard(chain: Chain) -> None:
    """Each query of the dashboard of the service finds what it is to show, while the incident is open."""
    thresholds = load_thresholds(ROOT / "data/thresholds.json")
    values = {"service": chain.address, "node": "edge"}
    shown: dict[tuple[str, str, str], list[tuple[dict[str, str], float]]] = {}
    for query in queries("service_prometheus.json"):
        if query.title == "variable":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query.text).groups()
            rows = asked(chain.prometheus, filled(series, values))
            found = {row["metric"].get(label) for row in rows}
            wanted = {"node": {"edge"}, "metric": {*METRICS}, "service": {chain.address}}[query.name]
            assert wanted <= found
            continue
        for metric in METRICS if "$metric" in query.text else ("",):
            rows = asked(chain.prometheus, filled(query.text, {**values, "metric": metric}))
            shown[query.title, query.name, metric] = [(row["metric"], float(row["value"][1])) for row in rows]
    assert [key for key, rows in shown.items() if not rows] == []
    one = {key: rows[0][1] for key, rows in shown.items()}
    for metric in METRICS:
        low, expected, high = (one["$metric", name, metric] for name in ("low", "expected", "high"))
        assert low <= expected <= high
        assert one["$metric: error", "threshold", metric] == thresholds[METRICS.threshold_keys[metric]]
        assert math.isfinite(one["$metric: error", "RMSE", metric])
    assert one["$metric: error", "RMSE", "cpu"] > thresholds["cpu_threshold"]
    figures = {title: value for (title, name, _), value in one.items() if not name}
    assert figures["Newest record"] < 10
    assert figures["Last good poll"] < 10
    assert figures["Anomalies that wait"] == 0
    assert len(shown["Nodes by status", "{{status}}", ""]) == len(STATUSES_OF_NODES)
    incidents = {metric["node"]: metric for metric, _ in shown["Open incidents", "", ""]}
    assert incidents.keys() >= {HOSTILE, "core:1:in", "edge"}
    assert incidents["edge"]["cause"] == "cpu"
    assert one["Polls", "all", ""] > 1
    assert one["Polls", "failed", ""] == 0
    assert one["What waits for InfluxDB", "anomalies", ""] == 0
    cause, count = shown["Anomalies and alerts by cause", "{{cause}}: anomalies", ""][0]
    assert (cause["cause"], count > 0) == ("cpu", True)
