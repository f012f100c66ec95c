"""Where the CPU time of a poll of one node goes: `python -m benchmarks.poll_profile`.

Test mode polls a real InfluxDB each second. Each part counts only what is not in another part that it calls.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.processes import line_of, live, process, server
from simulators import edge

POLLS, SKIPPED = 60, 5
# Part -> the functions that do it: module, and name in it.
POLL_PARTS = {
    "predict": [("edge.bundle", "Predictor.__call__")],
    "judge, but for that": [("edge.polling", "_judge")],
    "ask InfluxDB: HTTP client": [("common.web", "WebConnection.ask")],
    "read its answer": [("edge.samples", "InfluxSource.answer")],
    "choose samples, make columns": [("edge.polling", "_Poll.read")],
    "publish": [("edge.poll_log", "PollLog.publish")],
    "keep in the store": [("edge.delivery", "Delivery.keep")],
    "send anomalies": [("edge.delivery", "Delivery.send")],
    "exporter": [
        ("edge.exporter", f"EdgeMetrics.show{what}") for what in ("", "_thresholds", "_sensitivity", "_drift")
    ],
}
THE_REST = "the rest of the poll"


class Stopwatch:
    """CPU seconds of parts that call each other, without those of the parts that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[str] = []
        self._since = time.process_time()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for the part."""

        def run(*arguments: Any, **named: Any) -> Any:
            self._count()
            self._inside.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self._count()
                self._inside.pop()

        return run

    def _count(self) -> None:
        now = time.process_time()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now


def poll_timed(arguments: list[str]) -> None:
    """Run test mode, and print the milliseconds of each part of each poll."""
    sys.modules["pandas"] = None
    import find_anomalies
    from benchmarks.product import say
    from edge.daemon import Daemon

    watch = Stopwatch()
    for part, functions in POLL_PARTS.items():
        for module, name in functions:
            *owners, last = name.split(".")
            owner = import_module(module)
            for one in owners:
                owner = getattr(owner, one)
            setattr(owner, last, watch.timed(part, getattr(owner, last)))
    poll = watch.timed(THE_REST, Daemon.poll)

    def polled(daemon: Daemon) -> bool:
        watch.seconds.clear()
        is_away = poll(daemon)
        say(**{part: 1000 * seconds for part, seconds in watch.seconds.items()})
        return is_away

    Daemon.poll = polled
    sys.exit(find_anomalies.main(arguments))


def main() -> None:
    """Print the median of each part, as a table in Markdown."""
    samples = edge.simulate(7, int(time.time()) - 120, 120 + POLLS + SKIPPED + 30, interval_seconds=1.0)
    with server() as place, live(place, samples), tempfile.TemporaryDirectory() as state:
        options = ("--mode", "test", "--interval", "1", "--state_dir", os.path.join(state, "kept"))
        command = ("benchmarks.poll_profile", *options, "--influx_port", str(place.port))
        with process(*command) as started:
            lines = [line_of(started) for _ in range(POLLS + SKIPPED)][SKIPPED:]
    print("| part of a poll | CPU, ms |\n| --- | ---: |")
    for part in (*POLL_PARTS, THE_REST):
        print(f"| {part} | {statistics.median(line.get(part, 0.0) for line in lines):.2f} |")
    print(f"| together | {statistics.median(sum(line.values()) for line in lines):.2f} |")


if __name__ == "__main__":
    poll_timed(sys.argv[1:]) if sys.argv[1:] else main()
