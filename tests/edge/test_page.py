"""The page of nodes in a real browser, with the daemon and a real server behind it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.alerts import ALERT
from common.times import format_time
from edge.bundle import load_bundle
from edge.detector import Verdict
from edge.history import History
from edge.page import EdgePage, NodeStanding, rows_of
from edge.paths import DEFAULT_MODEL
from edge.sensitivity import Curve, describe_blind
from edge.thresholds import load_thresholds
from lab.browser import Browser, find_browser
from lab.influxd import Influxd, free_port
from nodes.metrics import METRICS, MetricTable
from service.incident_log import IncidentLog
from service.page import Page
from tests.support.edge_daemon import ATTACKED, FIRST, INTERVAL, ROOT, SECOND, Edge

needs_browser = pytest.mark.skipif(
    find_browser() is None and not os.environ.get("CI"),
    reason="there is no chromium: run lab/get_parts.sh, or apt-get install chromium",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def served(folder: Path) -> tuple[EdgePage, str]:
    page = EdgePage(History(folder / "history"), IncidentLog(folder), INTERVAL)
    port = free_port("127.0.0.1")
    Page(page.routes, page.version).serve("127.0.0.1", port)
    return page, f"http://127.0.0.1:{port}/"


def verdict(time: int, **others: object) -> Verdict:
    names = METRICS.threshold_keys
    half = np.full(len(METRICS.features), 0.5)
    fields = {
        "time": time,
        "status": "normal",
        "causes": (),
        "unknown": (),
        "rmse": dict.fromkeys(names, 0.01),
        "values": {},
        "shares": dict.fromkeys(names, 0.1),
        "actual": half,
        "predicted": half,
    }
    return Verdict(**(fields | others))


def test_a_row_keeps_what_the_detector_compared_with_the_threshold() -> None:
    bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
    names = METRICS.threshold_keys
    shares = dict.fromkeys(names, 0.5) | {"cpu": 1.0001, "mem": 0.9999}
    unknown = dict.fromkeys(names, 0.01) | {"net_up": np.nan}
    shares["net_up"] = np.nan
    found = rows_of(
        [bundle],
        [thresholds],
        [verdict(15, status=ALERT, causes=("cpu",), unknown=("net_up",), rmse=unknown, shares=shares)],
    )
    over = found["evidence"][0] > [thresholds[key] for key in names.values()]
    assert dict(zip(names, over.tolist(), strict=True)) == {name: name == "cpu" for name in names}
    assert np.isnan(found["evidence"][0, list(names).index("net_up")])
    assert found["marks"][0].tolist() == [1, 0, 0, 0, 2, 0, 0, 0]
    assert (found["status"][0], found["is_quiet"][0]) == (2, 0)


def test_nodes_whose_metrics_have_the_same_names_but_are_others_are_kept_apart(tmp_path: Path) -> None:
    bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
    # Deviations of less than 90 points do not count here.
    calm = MetricTable((replace(METRICS["cpu"], least=90.0), *list(METRICS.values())[1:]))
    bundles = {"a": bundle, "b": replace(bundle, metrics=calm), "c": bundle}
    one = verdict(15)
    found = SimpleNamespace(verdicts=[one], judged=[])
    page = EdgePage(History(tmp_path), IncidentLog(tmp_path), INTERVAL)
    page.add(
        [(name, SimpleNamespace(bundle=of, thresholds=thresholds), found) for name, of in bundles.items()]
    )
    alone = {name: rows_of([of], [thresholds], [one])["levels"][0] for name, of in bundles.items()}
    assert alone["a"][0, 3] != alone["b"][0, 3]
    for name, levels in alone.items():
        np.testing.assert_array_equal(page.history.read(name, 0)[1]["levels"][0], levels)


@needs_browser
def test_an_attack_is_shown_after_the_poll_that_finds_it_with_the_values_of_the_log(
    browser: Browser, tmp_path: Path
) -> None:
    with Influxd(tmp_path / "influxd") as server:
        edge = Edge(server, tmp_path)
        edge.page, url = served(tmp_path / "state")
        edge.start()
        browser.complaints.clear()
        browser.open(url)
        browser.wait_for("document.querySelector('#fault').innerText.includes('there was no poll yet')")
        edge.feed(*range(FIRST))
        assert edge.daemon.poll() is False
        browser.look_again()
        browser.wait_for("document.querySelector('#incidents').innerText === 'No incident is open.'")
        # The fourth record of the attack is an alert.
        edge.live(*range(FIRST, ATTACKED[4]))
        assert edge.daemon.watch.incidents.is_open
        browser.look_again()
        browser.wait_for("document.querySelectorAll('.incident.open').length === 1")
        incident = edge.daemon.watch.incidents.newest
        assert browser.text(".incident.open .why") == incident.why
        assert browser.text("#incidents code") == incident.id
        assert browser.text("#news") == f"New incident: {incident.why}"
        assert browser.run("document.querySelector('.incident.open time').dateTime") == (
            format_time(incident.began)
            if incident.began % SECOND
            else format_time(incident.began)[:-1] + ".000Z"
        )
        verdicts = list(edge.daemon.poll_log.verdicts(edge.daemon.watch.bundle.identity))
        # The chart and its words have the values of the log.
        newest = verdicts[-1]
        level = f"{newest.values['cpu_usage']:.3g} %"
        browser.wait_for(f"document.querySelector('h3 .value')?.innerText === '{level}'")
        since = verdicts[0].time - 1
        shown = json.loads(browser.run(f"fetch('node?name=&since={since}').then((one) => one.text())"))
        assert shown["times"] == [one.time // 10**6 for one in verdicts]
        assert shown["newest"] == str(newest.time)
        assert [int(one) for one in shown["statuses"]] == [
            ("normal", "anomaly", "alert", "unknown").index(one.status) for one in verdicts
        ]
        cpu, rmse = shown["metrics"]["cpu"], [one.rmse["cpu"] for one in verdicts]
        # Five digits here, five decimals there.
        for part, of in (("actual", [one.values["cpu_usage"] for one in verdicts]), ("rmse", rmse)):
            assert cpu[part] == pytest.approx(of, rel=1e-4, abs=1e-5)
        # What the page counts is what the detector decided.
        causes = ["cpu" in one.causes for one in verdicts]
        assert [one > cpu["threshold"] for one in cpu["evidence"]] == causes
        assert cpu["threshold"] == edge.daemon.watch.thresholds["cpu_threshold"]
        # The next poll adds to what is shown, and the policy had nothing to refuse.
        edge.live(ATTACKED[4])
        browser.look_again()
        browser.wait_for(
            f"document.querySelector('h3 .found').innerText.includes('{sum(causes) + 1} anomalies')"
        )
        edge.stop()
        assert browser.complaints == []


@needs_browser
def test_a_threshold_that_is_tried_is_counted_by_the_rule_and_changes_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    bundle = load_bundle(DEFAULT_MODEL)
    thresholds = load_thresholds(ROOT / "data/thresholds.json")
    thresholds["cpu_threshold"] = 0.1
    page, url = served(tmp_path)
    now = browser.run("Date.now()")
    names = METRICS.threshold_keys
    # Ten records whose evidence is 0.01, 0.03, ... 0.19.
    for place in range(10):
        moment = (now - (10 - place) * 15_000) * 10**6
        evidence = 0.01 + 0.02 * place
        shares = dict.fromkeys(names, 0.1) | {"cpu": evidence / 0.1}
        rmse = dict.fromkeys(names, 0.01) | {"cpu": evidence}
        rows = rows_of([bundle], [thresholds], [verdict(moment, shares=shares, rmse=rmse)])
        page.history.add(tuple(METRICS), [""], rows)
    page.show({"": NodeStanding("normal", bundle, thresholds, (), (), None, None)}, {}, [], "")
    before = (tmp_path / "history/00000001.rows").read_bytes()
    browser.open(url)
    browser.wait_for("document.querySelectorAll('[role=slider]').length === 9")
    assert browser.text(".said") == "Threshold 0.1000 in force: 5 of 10 known records are anomalies"
    browser.run("document.querySelector('[role=slider]').focus()")

    def press(*keys: str) -> None:
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    # 0.1 x 1.1 x 1.1 x 1.1 x 1.1 is 0.1464, and 0.15, 0.17 and 0.19 are over it.
    press("PageUp", "PageUp", "PageUp", "PageUp")
    browser.wait_for("document.querySelector('.said').innerText.startsWith('0.1464')")
    assert (
        browser.text(".said")
        == "0.1464 would make anomalies of 3 of 10 known records; 0.1000 in force makes 5"
    )
    assert browser.run("document.querySelector('.line').value") == '"cpu_threshold": 0.1464'
    assert browser.run("document.activeElement.getAttribute('aria-valuenow')") == "0.1464"
    press("Escape")
    assert browser.text(".said") == "Threshold 0.1000 in force: 5 of 10 known records are anomalies"
    # With the mouse: to the top of the chart nothing is over it.
    box = browser.run(
        "(() => { const box = document.querySelector('.handle span').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    for kind, up in (("mousePressed", 0), ("mouseMoved", 200), ("mouseReleased", 200)):
        browser.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=box[0],
            y=box[1] - up,
            button="left",
            buttons=1,
            clickCount=1,
        )
    assert " would make anomalies of 0 of 10 known records" in browser.text(".said")
    assert (tmp_path / "history/00000001.rows").read_bytes() == before


@needs_browser
def test_what_is_old_is_not_called_now_and_what_is_quiet_names_its_answer(
    browser: Browser, tmp_path: Path
) -> None:
    bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
    watch = SimpleNamespace(bundle=bundle, thresholds=thresholds)
    page, url = served(tmp_path)
    now = browser.run("Date.now()") // 1000 * 1000

    def add(age_seconds: int, **others: object) -> None:
        one = verdict((now - 1000 * age_seconds) * 10**6, **others)
        page.add([("", watch, SimpleNamespace(verdicts=[one], judged=[]))])

    def show(status: str) -> None:
        page.show(
            {"": NodeStanding(status, bundle, thresholds, (), (), None, None, "my/limits.json")}, {}, [], ""
        )

    for place, why in enumerate(("answer a", "answer a", "calendar backup", "answer a")):
        add(645 - 15 * place, status="anomaly", causes=("cpu",), quiet=why)
    show("silent")
    browser.complaints.clear()
    browser.open(url)
    browser.wait_for("document.querySelectorAll('[role=slider]').length === 9")
    clock = browser.run(f"new Intl.DateTimeFormat('en-GB', {{timeStyle: 'medium'}}).format({now - 600_000})")
    assert browser.text("h3 .as-of") == f"at {clock}"
    cpu, rmse = browser.run(
        "[...document.querySelectorAll('.answer')].slice(0, 2).map((one) => one.innerText)"
    )
    assert cpu.startswith(f"at {clock} ") and rmse == f"RMSE over 30 records, at {clock} 0.01"
    assert browser.run("document.querySelector('.metric').classList.contains('stale')")
    assert not re.search(r"\bnow\b", browser.run("document.querySelector('.metrics').innerText"))
    # Each number has its unit.
    assert re.fullmatch(rf"at {clock} [\d.]+ %, expected [\d.]+ %, allowed [\d.]+ % to [\d.]+ %", cpu), cpu
    assert "quiet" in browser.text(".legend")
    reasons = []
    for _ in range(4):
        key = {"key": "ArrowLeft", "code": "ArrowLeft"}
        browser.run("document.querySelector('.frame').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, **key)
        reasons.append(browser.text(".answer").partition(", an anomaly, ")[2])
    assert reasons == [
        "quiet by answer a",
        "quiet by calendar backup",
        "quiet by answer a",
        "quiet by answer a",
    ]
    # The line for the file names the file, and a slider beyond the axis is within its own ends.
    browser.run("document.querySelector('[role=slider]').focus()")
    for _ in range(20):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="PageUp", code="PageUp")
    assert browser.text(".where") == "for my/limits.json"
    least, value, most = browser.run(
        "['min', 'now', 'max'].map((one) => Number(document.activeElement.getAttribute(`aria-value${one}`)))"
    )
    assert least < thresholds["cpu_threshold"] < value <= most
    # A record of now is.
    add(0)
    show("normal")
    browser.look_again()
    browser.wait_for("document.querySelector('.answer').innerText.startsWith('now ')")
    assert browser.run("document.querySelectorAll('.stale, .as-of').length") == 0
    assert browser.complaints == []


@needs_browser
def test_an_open_incident_says_how_to_answer_it_in_words_that_a_shell_takes(
    browser: Browser, tmp_path: Path
) -> None:
    page, url = served(tmp_path)
    moment = "2026-03-06T12:00:14Z"

    def show(*ids: str) -> None:
        texts = dict.fromkeys(("began", "opened", "last"), moment)
        page.show(
            {},
            {},
            [{"id": one, "node": "", "cause": "cpu", "why": "", "ended": None} | texts for one in ids],
            "",
        )

    odd = "a'; rm -rf $HOME #@1"
    show("edge-7@20260306T120014Z", odd, "two\nlines@1")
    browser.open(url)
    browser.wait_for("document.querySelectorAll('.incident').length === 3")
    lines = browser.run("[...document.querySelectorAll('.incident .line')].map((one) => one.value)")
    start = "python find_anomalies.py --mode answer --incident edge-7@20260306T120014Z"
    assert lines[:3] == [f"{start} --normal", f"{start} --attack", f"{start} --maintenance --until 2h"]
    assert [shlex.split(one)[5] for one in lines[3:]] == [odd] * 3
    # Folded until somebody asks, and then unfolded as long as the incident is open.
    folded = "[...document.querySelectorAll('.reply')].map((one) => one.open)"
    assert browser.run(folded) == [False, False]
    browser.run("document.querySelector('.reply summary').click()")
    browser.run("document.querySelector('.reply button').focus()")
    show("edge-7@20260306T120014Z")
    browser.look_again()
    browser.wait_for("document.querySelectorAll('.incident').length === 1")
    assert browser.run(folded) == [True]
    assert browser.run("document.activeElement.innerText") == "Copy"


@needs_browser
@pytest.mark.parametrize(
    ("levels", "highs", "shown"),
    [([0, 5_000], [49_000], 49_000), ([0, 5_000], [51_000], 10_000), ([0, 5_000], [49_000, 51_000], 49_000)],
)
def test_the_axis_reaches_the_upper_end_of_a_band_that_is_within_ten_times_of_the_levels(
    browser: Browser, tmp_path: Path, levels: list[int], highs: list[int], shown: int
) -> None:
    _, url = served(tmp_path)
    browser.open(url)
    high = browser.run(f"import('./chart.js').then((chart) => chart.rangeOf([{levels}], {highs})[1])")
    assert high == pytest.approx(shown * 1.08)


@pytest.mark.parametrize("threshold", [0.1, 5.0])
def test_a_blind_metric_is_told_in_the_words_of_the_log(tmp_path: Path, threshold: float) -> None:
    curve = Curve((10.0, 30.0, 50.0), ((0.05, 0.5, 9.0), (0.05, 0.5, 9.0)), 30.0)
    bundle = replace(load_bundle(DEFAULT_MODEL), curves={"mem": curve})
    thresholds = load_thresholds(ROOT / "data/thresholds.json") | {"mem_threshold": threshold}
    page = EdgePage(History(tmp_path), IncidentLog(tmp_path), INTERVAL)
    page.show({"": NodeStanding("normal", bundle, thresholds, (), (), None, None)}, {}, [], "")
    words = {"kind": "blind", "what": ["mem misses +30 points, and finds +50 points"], "nodes": [""]}
    assert json.loads(page.now({}))["notes"] == ([words] if threshold == 5.0 else [])
    # Of many nodes with thresholds of their own, more than a few lines would hide the rest.
    each = [replace(bundle, curves={"mem": replace(curve, blind_above=30.0 + place)}) for place in range(6)]
    for nodes, notes in ((5, 5), (6, 1)):
        standing = {
            str(place): NodeStanding("normal", each[place], thresholds, (), (), None, None)
            for place in range(nodes)
        }
        page.show(standing, {}, [], "")
        found = json.loads(page.now({}))["notes"]
        assert len(found) == (notes if threshold == 5.0 else 0)
    assert threshold == 0.1 or found == [{"kind": "blind", "what": ["mem"], "nodes": list("012345")}]
    line = describe_blind(bundle.curves, thresholds, bundle.metrics)
    assert (words["what"][0] in line) if threshold == 5.0 else line is None


@needs_browser
def test_a_thousand_nodes_and_a_name_with_markup_in_it_are_text(browser: Browser, tmp_path: Path) -> None:
    bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
    page, url = served(tmp_path)
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    names = [evil, *(f"edge-{place:04d}" for place in range(999))]

    def show(statuses: dict[str, str]) -> None:
        page.show(
            {
                name: NodeStanding(
                    statuses.get(name, "normal"),
                    bundle,
                    thresholds,
                    ("mem",) * (name == evil),
                    (),
                    None,
                    None,
                )
                for name in names
            },
            {"new": "without a model"},
            [
                {"id": f"many@{evil}", "node": "", "cause": evil, "why": evil, "ended": None}
                | dict.fromkeys(("began", "opened", "last"), "2026-03-06T12:00:14Z")
            ],
            "",
        )

    browser.complaints.clear()
    show({evil: "alert", "edge-0500": "unknown"})
    browser.open(url)
    browser.wait_for("document.querySelectorAll('#list li').length === 1001")
    order = "[...document.querySelectorAll('#list .name')].slice(0, 4).map((one) => one.textContent)"
    assert browser.run(order) == [evil, "edge-0500", "new", "edge-0000"]
    counts = "1,001 nodes: ◆1 alert?1 unknown○1 without a model·998 normal"
    assert " ".join(browser.text("#counts").split()) == counts
    assert browser.text(".incident .why") == evil
    # Typing filters; the keyboard reaches it by a slash.
    browser.run(
        "document.querySelector('#filter').value = '050 norm';"
        "document.querySelector('#filter').dispatchEvent(new Event('input'))"
    )
    assert browser.text("#matches") == "10 of 1001"
    # Another poll: the worst comes first, in well under a frame of patience.
    show({"edge-0999": "normal", "edge-0042": "alert"})
    browser.look_again()
    browser.wait_for("document.querySelector('#list .name').textContent === 'edge-0042'")
    browser.run(f"location.hash = 'node=' + encodeURIComponent({json.dumps(evil)})")
    browser.wait_for("document.querySelectorAll('[role=slider]').length === 9")
    assert browser.text("#detail h2") == evil
    assert "owned" not in browser.run("document.title").replace(evil, "")
    assert browser.run("document.querySelectorAll('img, script:not([src])').length") == 0
    assert browser.complaints == []
    # On a phone nothing stands out of the page.
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True
    )
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize(
    ("words", "error"),
    [({"name": "nobody"}, LookupError), ({"name": "", "since": "soon"}, ValueError)],
)
def test_a_wrong_question_is_refused(tmp_path: Path, words: dict[str, str], error: type[Exception]) -> None:
    bundle, thresholds = load_bundle(DEFAULT_MODEL), load_thresholds(ROOT / "data/thresholds.json")
    page = EdgePage(History(tmp_path), IncidentLog(tmp_path), INTERVAL)
    page.show({"": NodeStanding("normal", bundle, thresholds, (), (), None, None)}, {}, [], "")
    with pytest.raises(
        error, match="nobody is not watched|since must be a whole number of nanoseconds since"
    ):
        page.node(words)
    for since in ("0", "-5", "9" * 40):
        assert json.loads(page.node({"name": "", "since": since}))["times"] == []
