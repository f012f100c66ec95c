"""Answers of people about incidents, in a JSON file that they edit or `--mode answer` writes.

{"edge-7@20260306T120014Z": {"answer": "normal", "nodes": ["edge-7"],
    "from": "2026-03-06T12:00:14Z", "until": "2026-03-06T12:18:14Z",
    "metrics": {"cpu": {"from": 4.1, "to": 121.0}}, "daily": "12:30-13:49", "timezone": "Europe/Rome",
    "half": "edge", "by": "ana", "at": "2026-03-06T12:40:00Z"}}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from common.alerts import NORMAL
from common.calendars import parse_daily, patterns_in, time_in
from common.files import UserError, is_there, json_bytes, loadDictJson, read_file, saveDictJson, shortened
from common.times import DAY_MINUTES, local_minute
from common.values import is_number

ATTACK, MAINTENANCE = "attack", "maintenance"
# What can be answered.
ANSWERS = (NORMAL, ATTACK, MAINTENANCE)
# Some thousand answers.
ANSWERS_BYTES = 2_000_000
# How often a file is read again because another program has just changed it.
_TRIES = 5
_LONGEST_TEXT = 200
# It is normal so much earlier and later.
MARGIN_MINUTES = 30
# What is normal reaches this share further from the middle of what is expected than it did. So do levels that
# last; single ones then reach further, since bursts that the node has by itself may come on top.
MORE_SHARE, MORE_IN_BURSTS = 0.25, 0.5
# The two halves of the program; an answer is of one, or of both.
HALVES = ("edge", "ports")
# It has no levels that last.
_WITHOUT_LASTING = "ports"
_KEYS = ("answer", "half", "nodes", "from", "until", "metrics", "daily", "timezone", "by", "at")
# The only metric of a port, in bytes per second.
TRAFFIC_METRIC = "traffic"
_NO_LASTING = '"lasting" does nothing for ports; leave it out'
_OF_NORMAL = ("metrics", "daily", "timezone")


@dataclass(frozen=True)
class LevelRange:
    """The levels of a metric that are normal. lasting: those that may last; None if it is not known."""

    low: float
    high: float
    lasting: LevelRange | None = None

    def holds(self, level: float) -> bool:
        """Whether a level is normal; an unknown one, NaN, is not."""
        return self.low <= level <= self.high

    def to_json(self) -> dict[str, Any]:
        """As it is in the file."""
        lasting = {"lasting": self.lasting.to_json()} if self.lasting else {}
        return {"from": self.low, "to": self.high, **lasting}


def widened(low: float, high: float, expected: tuple[float, float], share: float = MORE_SHARE) -> LevelRange:
    """Limits from what is usual to what was reached, and a share further from the middle of that."""
    middle = (expected[0] + expected[1]) / 2
    low, high = min(low, *expected), max(high, *expected)
    low, high = low - share * (middle - low), high + share * (high - middle)
    return LevelRange(float(f"{low:.6g}"), float(f"{high:.6g}"))


@dataclass(frozen=True)
class Answer:
    """What a person said of an incident, or of a time of maintenance.

    id: that of the incident. kind: NORMAL, ATTACK or MAINTENANCE. nodes: shell patterns of names of nodes, or
    of series and devices of ports. start, end: ns since 1970. metrics, daily, zone: of the pattern that is
    normal: its levels, its time of day (start and end in minutes, the end may be on the next day), and the
    time zone of that, empty for the one in which the node or port has its days. by, at: who said it and when,
    as text. half: one of HALVES, empty for both.
    """

    id: str
    kind: str
    nodes: tuple[str, ...]
    start: int
    end: int
    metrics: Mapping[str, LevelRange] = field(default_factory=dict)
    daily: tuple[int, int] = (0, DAY_MINUTES)
    zone: str = ""
    by: str = ""
    at: str = ""
    half: str = ""

    @property
    def said_by(self) -> str:
        """Who said it and when, such as `by ana at 2026-03-06T12:40:00Z`; empty if that is not known."""
        words = (f"by {self.by}" if self.by else "", f"at {self.at}" if self.at else "")
        return " ".join(filter(None, words))

    def concerns(self, *names: str) -> bool:
        """Whether it is about one of these nodes, series or devices."""
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.nodes)

    def is_at(self, time: int, zone: str) -> bool:
        """Whether it keeps something quiet at a time (ns). zone: local time, if it names no other.

        A maintenance does so from its start to its end, what is normal at its time of day, an attack never.
        """
        if self.kind != NORMAL:
            return self.kind == MAINTENANCE and self.start <= time < self.end
        start, end = self.daily
        return (local_minute(time, self.zone or zone) - start) % DAY_MINUTES < end - start

    @cached_property
    def hours(self) -> str:
        """Its time of day, as it is in the file."""
        start, end = self.daily
        # The end of a whole day is 24:00.
        end = end if end == DAY_MINUTES else end % DAY_MINUTES
        return f"{_clock(start)}-{_clock(end)}"


def daily_around(start: int, end: int, zone: str, margin_minutes: int = MARGIN_MINUTES) -> tuple[int, int]:
    """The time of day from `start` to `end` (ns), so much earlier and later; as `Answer.daily`."""
    lasted = -(-(end - start) // (60 * 10**9))
    first = int(local_minute(start, zone)) - margin_minutes
    if lasted + 2 * margin_minutes + 1 >= DAY_MINUTES:
        return 0, DAY_MINUTES
    first %= DAY_MINUTES
    return first, first + lasted + 2 * margin_minutes + 1


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


# --- reading -------------------------------------------------------------------------------------


def load_answers(filename: str | Path, half: str) -> tuple[Answer, ...]:
    """The answers in a file that count in one of HALVES; none if there is no such file.

    Raises UserError, in one line that names the file, the incident, the key and the remedy.
    """
    if not is_there(filename):
        return ()
    answers = _checked(filename, loadDictJson(filename, ANSWERS_BYTES))
    found = tuple(answer for answer in answers if answer.half in ("", half))
    for answer in found if half == _WITHOUT_LASTING else ():
        if (limits := answer.metrics.get(TRAFFIC_METRIC)) and limits.lasting:
            raise UserError(f"{filename}: {shortened(repr(answer.id))}: {_NO_LASTING}")
    return found


def _checked(filename: str | Path, content: Mapping[str, Any]) -> tuple[Answer, ...]:
    answers = []
    for name, entry in content.items():
        try:
            answers.append(answer_from_json(name, entry))
        except ValueError as error:
            raise UserError(f"{filename}: {shortened(repr(name))}: {error}") from None
    return tuple(answers)


def answer_from_json(name: str, entry: Any) -> Answer:
    """An answer as it is in the file. Raises ValueError that names the key and the remedy."""
    if not isinstance(entry, dict):
        raise ValueError(
            'must be an object like {"answer": "attack", "nodes": ["*"], "from": ..., "until": ...}'
        )
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"has an unknown key {shortened(repr(unknown[0]))}; use {', '.join(_KEYS)}")
    half = entry.get("half", "")
    if "half" in entry and half not in HALVES:
        raise ValueError(
            f'"half" is {shortened(repr(half))}; it must be "edge" or "ports"; without it, it is both'
        )
    kind = entry.get("answer")
    if kind not in ANSWERS:
        said = f"is {shortened(repr(kind))}" if "answer" in entry else "is missing"
        raise ValueError(f'"answer" {said}; it must be {", ".join(ANSWERS[:-1])} or {ANSWERS[-1]}')
    start, end = time_in(entry, "from"), time_in(entry, "until")
    if end <= start:
        raise ValueError('"until" must be later than "from"')
    nodes = patterns_in(entry, "nodes", "edge-7")
    by = _text(entry, "by")
    at = entry["at"] if "at" in entry and time_in(entry, "at") else ""
    if kind != NORMAL:
        if idle := [key for key in _OF_NORMAL if key in entry]:
            raise ValueError(f'"{idle[0]}" does nothing with "answer": "{kind}"; leave it out')
        return Answer(name, kind, nodes, start, end, by=by, at=at, half=half)
    if "daily" not in entry:
        raise ValueError(
            '"daily" is missing; it must be like "01:45-02:30", or "00:00-24:00" for the whole day'
        )
    zone = _zone(entry) if "timezone" in entry else ""
    metrics = _metrics(entry)
    if half == _WITHOUT_LASTING and any(limits.lasting for limits in metrics.values()):
        raise ValueError(_NO_LASTING)
    return Answer(name, kind, nodes, start, end, metrics, parse_daily(entry["daily"]), zone, by, at, half)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not (value.isprintable()):
        raise ValueError(f'"{key}" is {shortened(repr(value))}; it must be a text of one line')
    return value


def _zone(entry: Mapping[str, Any]) -> str:
    value = entry["timezone"]
    try:
        return ZoneInfo(value).key
    except (TypeError, ValueError, OSError, KeyError, AttributeError):
        raise ValueError(
            f'"timezone" is {shortened(repr(value))}; it must be a time zone like Europe/Rome or UTC'
        ) from None


def _metrics(entry: Mapping[str, Any]) -> dict[str, LevelRange]:
    value = entry.get("metrics")
    if not isinstance(value, dict) or not value:
        said = f"is {shortened(repr(value))}" if "metrics" in entry else "is missing"
        raise ValueError(f'"metrics" {said}; it must be like {{"cpu": {{"from": 5.1, "to": 60}}}}')
    return {name: _limits(name, limits) for name, limits in value.items()}


def _limits(name: str, value: Any, keys: tuple[str, ...] = ("from", "to", "lasting")) -> LevelRange:
    is_right = isinstance(value, dict) and {"from", "to"} <= value.keys() <= set(keys)
    if not is_right or not all(is_number(value[key]) for key in ("from", "to")):
        raise ValueError(
            f'{shortened(repr(name))} in "metrics" is {shortened(repr(value))};'
            ' it must be like {"from": 5.1, "to": 60}, in the unit of the metric'
        )
    if value["from"] > value["to"]:
        raise ValueError(f'{shortened(repr(name))} in "metrics": "to" must not be less than "from"')
    lasting = _limits(name, value["lasting"], ("from", "to")) if "lasting" in value else None
    return LevelRange(float(value["from"]), float(value["to"]), lasting)


# --- writing -------------------------------------------------------------------------------------


def write_answers(
    filename: str | Path,
    entries: Mapping[str, Mapping[str, Any]],
    may_replace: Callable[[Answer], None] | None = None,
) -> None:
    """Put answers into the file, in place of earlier ones of the same incidents.

    may_replace: called with each of these while nobody else can write; nothing is written if it raises.
    Raises UserError if the file cannot be used or written; it is then as it was.
    """

    def put(content: dict[str, Any]) -> None:
        if may_replace:
            for earlier in _checked(filename, {name: content[name] for name in entries if name in content}):
                may_replace(earlier)
        content.update({name: dict(entry) for name, entry in entries.items()})

    _change(filename, put)


def take_back(filename: str | Path, name: str, half: str) -> Answer:
    """Take an answer of a half out of the file, and return it.

    Raises UserError as write_answers does, and if there is none.
    """
    found = []

    def remove(content: dict[str, Any]) -> None:
        if name not in content:
            known = f"; it has {', '.join(list(content)[-3:])}" if content else ""
            raise UserError(f"{filename}: has no answer to {shortened(name)}{known}")
        found[:] = _checked(filename, {name: content.pop(name)})
        if found[0].half not in ("", half):
            raise UserError(
                f"{filename}: the answer to {name} is of --target {found[0].half}; take it back there"
            )

    _change(filename, remove)
    return found[0]


def _change(filename: str | Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the file; what else people wrote stays, in its order. Two that do it take turns."""
    with _turn(Path(filename)):
        for _ in range(_TRIES):
            before = read_file(filename, ANSWERS_BYTES) if is_there(filename) else None
            content = {} if before is None else loadDictJson(filename, ANSWERS_BYTES)
            change(content)
            _checked(filename, content)
            if len(json_bytes(content)) > ANSWERS_BYTES:
                raise UserError(
                    f"{filename}: would be larger than {ANSWERS_BYTES / 1e6:g} MB; take back old answers"
                )
            # A person may have saved it meanwhile.
            if before == (read_file(filename, ANSWERS_BYTES) if is_there(filename) else None):
                saveDictJson(content, filename)
                return
    raise UserError(f"{filename}: another program changes it all the time; try again")


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold the lock of the file's folder: the file itself is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); check the folder and the disk"
        ) from None
    try:
        # Some network file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
