"""Which records of one node of many are published: what is not normal, and the ordinary life around an alert.

The ordinary records before an alert are kept for its picture, a window of them for each node, as small as a
picture can use them: about 7 kB for a node, 7 MB for a thousand.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from common.alerts import NORMAL, WINDOW_RECORDS
from edge.detector import Verdict


class LifeBefore:
    """Takes verdicts on the records of one node one by one; returns those that are to be published."""

    def __init__(self) -> None:
        self._model: str | None = None
        self._was_up = False
        # Time, and the actual and predicted values as bytes: a Verdict takes ten times as much.
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=WINDOW_RECORDS)

    def observe(self, verdict: Verdict, model: str) -> list[Verdict]:
        """What is to be published now: nothing if all is normal; at the first record of an alert, the window
        before it as well; as long as an alert is up, each record, and the one that ends it.

        model: identity of the bundle that judged. Of the window, only time, actual and predicted are known.
        """
        if model != self._model:
            self._model = model
            self._kept.clear()
        is_around = verdict.is_alert_up or self._was_up
        self._was_up = verdict.is_alert_up
        if is_around:
            before = [_restored(*one) for one in self._kept]
            self._kept.clear()
            return [*before, verdict]
        if verdict.status != NORMAL:
            return [verdict]
        values = np.array([verdict.actual, verdict.predicted], dtype=np.float32)
        self._kept.append((verdict.time, values.tobytes()))
        return []


def _restored(time: int, kept: bytes) -> Verdict:
    actual, predicted = np.frombuffer(kept, dtype=np.float32).reshape(2, -1).astype(float)
    return Verdict(time, NORMAL, (), (), {}, {}, actual=actual, predicted=predicted)
