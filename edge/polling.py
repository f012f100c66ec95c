"""One poll of many nodes: their questions are asked together, and their records judged together."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError
from edge.detector import Verdict, observe_all
from edge.monitor import Judged, Monitor
from edge.reader import CHUNK_RECORDS
from edge.source import LaterError, NamesOf, Question, SampleSource
from service.log import ABOUT_NODE

# So many records are held at once, before they are judged.
RECORDS_AT_ONCE = 6000
# A poll that catches up reads about so many: each poll costs by itself, and their verdicts are held together.
RECORDS_IN_POLL = 12_000
# A node that has much to catch up on gets at least so many records in a poll.
LEAST_CHUNK_RECORDS = 4
# So many nodes may ask in a poll which names there are. Each has several such questions.
EXPLAINED_NODES = 8
# Time (ns) and columns of a record.
TimedColumns = tuple[int, dict[str, float]]


def poll_all(
    source: SampleSource, monitors: Sequence[Monitor], tell_alive: Callable[[], None] = lambda: None
) -> Iterator[list[Judged] | Exception]:
    """Poll these nodes once, each by its monitor: what is reported of each, or why it could not be read.

    tell_alive: called again and again, since the first poll of a thousand nodes reads an hour of records.
    They come in the order of the monitors, and are not all held at once. An error is one of the source's, or
    UserError. Once the server is away, it is every other node's error, and nothing is sent any more.
    """
    behind = sum(one.reader.expected_records() > LEAST_CHUNK_RECORDS for one in monitors)
    chunk_records = min(CHUNK_RECORDS, max(RECORDS_IN_POLL // max(behind, 1), LEAST_CHUNK_RECORDS))
    poll = _Poll(source, tell_alive)
    for part in _parts(monitors, chunk_records):
        with _no_collector():
            records = poll.read(part, chunk_records)
            tell_alive()
            verdicts = _judge(part, records)
            tell_alive()
        for monitor, one, judged in zip(part, records, verdicts, strict=True):
            yield one if isinstance(one, Exception) else monitor.take(judged)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's collector of reference cycles from going through all samples of a poll again and again;
    samples are in no cycle.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parts(monitors: Sequence[Monitor], chunk_records: int) -> Iterator[list[Monitor]]:
    """The monitors in parts that hold about RECORDS_AT_ONCE records."""
    part: list[Monitor] = []
    number = 0
    for monitor in monitors:
        expected = monitor.reader.expected_records(chunk_records)
        if part and number + expected > RECORDS_AT_ONCE:
            yield part
            part, number = [], 0
        part.append(monitor)
        number += expected
    if part:
        yield part


class _Poll:
    """The questions of one poll, in rounds of one question of each node that has any."""

    def __init__(self, source: SampleSource, tell_alive: Callable[[], None]) -> None:
        self._source, self._tell_alive = source, tell_alive
        self._away: Exception | None = None
        self._explained: set[int] = set()

    def read(self, monitors: Sequence[Monitor], chunk_records: int) -> list[list[TimedColumns] | Exception]:
        """What each monitor reads, or why it could not."""
        found: list[Any] = [None] * len(monitors)
        asking = {place: monitor.read(chunk_records) for place, monitor in enumerate(monitors)}
        answers: dict[int, Any] = dict.fromkeys(asking)
        while answers:
            questions: dict[int, Question] = {}
            for place in list(answers):
                answer = answers.pop(place)
                try:
                    with ABOUT_NODE.node(monitors[place].name):
                        if isinstance(answer, Exception):
                            questions[place] = asking[place].throw(answer.with_traceback(None))
                        else:
                            questions[place] = asking[place].send(answer)
                except StopIteration as end:
                    found[place] = end.value
                except (*self._source.errors, UserError) as error:
                    found[place] = error
                except Exception as error:
                    if not monitors[place].name:
                        raise
                    # A mistake of ours must not end the service for all other nodes.
                    found[place] = UserError(
                        f"its samples cannot be judged ({_where(error)}); report this line"
                    )
            answers = self._answers(questions)
        return found

    def _answers(self, questions: dict[int, Question]) -> dict[int, Any]:
        if self._away is not None:
            return dict.fromkeys(questions, self._away)
        asked, later = [], []
        for place, question in questions.items():
            (asked if self._may_ask(question) else later).append(place)
        self._tell_alive()
        answers = self._source.answer([questions[place] for place in asked]) if asked else []
        if answers and all(isinstance(one, Exception) and self._source.is_away(one) for one in answers):
            self._away = answers[0]
        return dict(zip(asked, answers, strict=True)) | {place: LaterError() for place in later}

    def _may_ask(self, question: Question) -> bool:
        if not isinstance(question, NamesOf):
            return True
        node = id(question.node)
        if len(self._explained) < EXPLAINED_NODES:
            self._explained.add(node)
        return node in self._explained


def _where(error: Exception) -> str:
    """What went wrong, and in which line of the program."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{error!r} in {Path(last.filename).name}, line {last.lineno}"


def _judge(
    monitors: Sequence[Monitor], records: Sequence[list[TimedColumns] | Exception]
) -> list[list[Verdict]]:
    """The verdicts on the records of each monitor: first on the oldest of all, then on the next ones."""
    verdicts: list[list[Verdict]] = [[] for _ in monitors]
    places = [place for place, rows in enumerate(records) if not isinstance(rows, Exception)]
    turn = 0
    while places := [place for place in places if len(records[place]) > turn]:
        judged = observe_all(
            [monitors[place].judge for place in places],
            *zip(*(records[place][turn] for place in places), strict=True),
        )
        for place, verdict in zip(places, judged, strict=True):
            verdicts[place].append(verdict)
        turn += 1
    return verdicts
