"""What the page costs, and how quickly it is there: `python -m benchmarks.page [--pictures FOLDER]`.

Three processes of test mode poll one real InfluxDB: without a page, with a page at which nobody looks, and
with ten browsers. Then a real browser opens the page, and one of a thousand nodes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import formatters
from benchmarks.processes import line_of, live, process, server
from edge.bundle import load_bundle
from edge.detector import Detector, Verdict
from edge.drift import Drift
from edge.history import History
from edge.incidents import Incidents
from edge.monitor import Judged
from edge.page import EdgePage
from edge.paths import DEFAULT_MODEL
from edge.thresholds import load_thresholds
from edge.watch import Found
from edge.why import deviations
from lab.browser import Browser
from lab.influxd import free_port
from nodes.metrics import METRICS
from nodes.series import RECORD_SECONDS, record_time
from service.incident_log import IncidentLog
from service.page import Page
from simulators.edge import Attack, simulate

WARM_UP_SECONDS, MEASURED_SECONDS = 40.0, 120.0
BROWSERS, PAINTS, MANY_NODES = 10, 5, 1000
# As page.js asks.
PAUSE_SECONDS = 5.0


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", metavar="FOLDER", help="also write pictures of the page here")
    options = parser.parse_args()
    rows = [*costs(), *of_one(options.pictures), *of_many(options.pictures)]
    for what, value in rows:
        print(f"| {what} | {value} |")


# --- the daemon ----------------------------------------------------------------------------------


def costs() -> Iterator[tuple[str, str]]:
    """CPU and memory of test mode: without a page, with one that nobody looks at, with ten browsers."""
    begin = int(time.time())
    samples = simulate(7, begin - 3600, 3600 + 60 + WARM_UP_SECONDS + MEASURED_SECONDS)
    ports = [None, free_port("127.0.0.1"), free_port("127.0.0.1")]
    with tempfile.TemporaryDirectory() as folder, server() as place, live(place, samples):
        started = [
            process(
                "benchmarks.product",
                "test",
                "--mode=test",
                f"--influx_host={place.host}",
                f"--influx_port={place.port}",
                f"--state_dir={folder}/{number}",
                *([f"--page_port={port}"] if port else []),
            )
            for number, port in enumerate(ports)
        ]
        with started[0] as none, started[1] as nobody, started[2] as ten:
            for one in (none, nobody, ten):
                line_of(one)
            ended = threading.Event()
            browsers = [threading.Thread(target=look, args=(ports[2], ended)) for _ in range(BROWSERS)]
            for one in browsers:
                one.start()
            time.sleep(WARM_UP_SECONDS)
            pids = [one.pid for one in (none, nobody, ten)]
            before = [cpu_seconds(pid) for pid in pids]
            time.sleep(MEASURED_SECONDS)
            used = [cpu_seconds(pid) - first for pid, first in zip(pids, before, strict=True)]
            memory = [megabytes(pid) for pid in pids]
            ended.set()
            for one in browsers:
                one.join()
    for word, seconds, size in zip(
        ("without a page", "nobody looks", f"{BROWSERS} browsers"), used, memory, strict=True
    ):
        yield f"one node, {word}: CPU / memory", f"{seconds / MEASURED_SECONDS:.2%} of a core / {size:.1f} MB"


def look(port: int, ended: threading.Event) -> None:
    """Ask as a browser does that shows the node."""
    tag, newest = "", str(time.time_ns() - 3600 * 10**9)
    while not ended.wait(PAUSE_SECONDS):
        headers = {"Accept-Encoding": "gzip", **({"If-None-Match": tag} if tag else {})}
        status, found, _ = ask(port, "/now", headers)
        if status == 200:
            tag = found["ETag"]
            _, _, body = ask(port, f"/node?name=&since={newest}", {})
            newest = json.loads(body)["newest"]


def ask(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    """The status, headers and body of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """The resident memory of a process now."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024 / 1e6


# --- the page ------------------------------------------------------------------------------------


class MadeUp:
    """A watch of a node whose verdicts are known; as much of it as a page needs."""

    def __init__(self, name: str, verdicts: Sequence[Verdict]) -> None:
        self.bundle, self.thresholds = load_bundle(DEFAULT_MODEL), load_thresholds("data/thresholds.json")
        self.incidents, self.drift = Incidents(METRICS, name), Drift(1440, METRICS)
        self.silence, self.verdicts = None, verdicts
        self.thresholds_file, self.kept_quiet = "data/thresholds.json", ""

    def take(self, verdict: Verdict) -> Found:
        """What a poll found."""
        reasons = deviations(self.bundle, self.thresholds, verdict) if verdict.is_loud else None
        is_news = self.incidents.observe(verdict, self.thresholds, reasons)
        return Found([Judged(verdict, {})], entries=[self.incidents.newest.entry(METRICS)] if is_news else [])


def verdicts_of(seed: int, hours: float, attacks: Sequence[Attack], end: int) -> list[Verdict]:
    """The verdicts on so many hours of a simulated node, up to `end` (seconds since 1970)."""
    judge = Detector(load_bundle(DEFAULT_MODEL), load_thresholds("data/thresholds.json"))
    samples = simulate(seed, end - int(hours * 3600), hours * 3600, attacks, interval_seconds=RECORD_SECONDS)
    found, last_record = [], {}
    for _, record in formatters.slot_records(samples, RECORD_SECONDS):
        columns, last_record = formatters.format_record(record, last_record)
        found.append(judge.observe(record_time(record), columns))
    return found


def fill(page: EdgePage, log: IncidentLog, nodes: Mapping[str, MadeUp]) -> tuple[float, float]:
    """Give a page all polls of these nodes; the CPU seconds of one poll: of the history, and the standing."""
    costs = []
    for place in range(min(len(one.verdicts) for one in nodes.values())):
        found = {name: one.take(one.verdicts[place]) for name, one in nodes.items()}
        polled = [(name, nodes[name], one) for name, one in found.items()]
        begin = time.process_time()
        page.add(polled)
        middle = time.process_time()
        show(page, nodes, {name: one.verdicts[place].status for name, one in nodes.items()})
        costs.append((middle - begin, time.process_time() - middle))
        log.add(entry for one in found.values() for entry in one.entries)
    add, stand = zip(*costs, strict=True)
    return statistics.median(add), statistics.median(stand)


def show(page: EdgePage, nodes: Mapping[str, MadeUp], statuses: Mapping[str, str]) -> None:
    """Show how they stand."""
    standing = {name: page.standing_of(name, one, statuses[name]) for name, one in nodes.items()}
    page.show(standing, {}, [], "")


def served(folder: str) -> tuple[EdgePage, IncidentLog, str]:
    """A page, its log of incidents, and its address."""
    log = IncidentLog(folder)
    page = EdgePage(History(Path(folder) / "history"), log, RECORD_SECONDS)
    port = free_port("127.0.0.1")
    Page(page.routes, page.version).serve("127.0.0.1", port)
    return page, log, f"http://127.0.0.1:{port}/"


def paints(url: str) -> tuple[float, int]:
    """Milliseconds to the first paint, the median of a few new browsers, and the bytes of the whole page."""
    first, received = [], 0
    for _ in range(PAINTS):
        with Browser() as browser:
            browser.open(url)
            browser.wait_for("document.querySelectorAll('[role=slider], #list li').length")
            first.append(browser.run("performance.getEntriesByType('paint')[0].startTime"))
            received = browser.received_bytes
    return statistics.median(first), received


def of_one(pictures: str | None) -> Iterator[tuple[str, str]]:
    """First paint and bytes of the page of one node, an attack in its last hour."""
    end = int(time.time())
    attacks = [
        Attack("cpu", end - 2400, end - 1800),
        Attack("iperf", end - 900, end - 600),
        Attack("cpu", end - 90, end),
    ]
    with tempfile.TemporaryDirectory() as folder:
        page, log, url = served(folder)
        fill(page, log, {"": MadeUp("", verdicts_of(3, 1.2, attacks, end))})
        milliseconds, received = paints(url)
        if pictures:
            with Browser(1200) as browser:
                browser.open(url)
                browser.wait_for("document.querySelectorAll('[role=slider]').length === 9")
                browser.picture(Path(pictures) / "page.png", 880)
    yield (
        "one node, an hour: first paint / bytes over the wire",
        f"{milliseconds:.0f} ms / {received / 1e3:.1f} kB",
    )


def of_many(pictures: str | None) -> Iterator[tuple[str, str]]:
    """The same of a thousand nodes, and how long their page takes to show another poll."""
    end = int(time.time())
    kinds = [verdicts_of(3, 0.2, [Attack("cpu", end - 200, end)], end), verdicts_of(4, 0.2, [], end)]
    names = [f"edge-{number:04d}" for number in range(MANY_NODES)]
    nodes = {name: MadeUp(name, kinds[place % 250 != 7]) for place, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        page, log, url = served(folder)
        add, stand = fill(page, log, nodes)
        milliseconds, received = paints(url)
        with Browser() as browser:
            browser.open(url)
            browser.wait_for(f"document.querySelectorAll('#list li').length === {MANY_NODES}")
            if pictures:
                browser.picture(Path(pictures) / "page-nodes.png", 700)
            before = browser.received_bytes
            updates = []
            for place in range(10):
                changed = names[100 + place]
                show(page, nodes, dict.fromkeys(names, "normal") | {changed: "alert"})
                begin = time.perf_counter()
                browser.look_again()
                browser.wait_for(f"document.querySelector('#list .name').textContent === '{changed}'")
                updates.append(time.perf_counter() - begin)
            bytes_each = (browser.received_bytes - before) / len(updates)
    yield (
        f"{MANY_NODES} nodes: first paint / bytes over the wire",
        f"{milliseconds:.0f} ms / {received / 1e3:.1f} kB",
    )
    yield (
        f"{MANY_NODES} nodes, another poll: until it is shown / bytes",
        f"{1000 * statistics.median(updates):.0f} ms / {bytes_each / 1e3:.1f} kB",
    )
    yield (
        f"{MANY_NODES} nodes: CPU of each poll for the page, history / standing",
        f"{1000 * add:.1f} ms / {1000 * stand:.1f} ms",
    )


if __name__ == "__main__":
    main()
