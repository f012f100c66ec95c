"""What is worth saying of many verdicts: an incident opens or closes, a normal has changed.

Verdicts come every 15 s; an operator hears of a change once. All of it can be kept over a restart.
"""

from __future__ import annotations

from typing import Any

from detector import ALERT, ALERT_RECORDS, THRESHOLD_KEYS, UNKNOWN_CAUSE, Verdict
from store import mapping, number, text, whole
from utils import METRICS, format_duration, format_time

NAMES = (*METRICS, "overall")


class Incidents:
    """Takes verdicts one by one; says once when an incident opens, and once when it closes.

    It opens with an alert, has begun with the first anomaly of that row, and closes ALERT_RECORDS records
    after a row of anomalies has ended, if none comes until then: an attack that pauses for a record is one.
    """

    def __init__(self) -> None:
        self._open: dict[str, Any] | None = None
        self._quiet = 0
        # Of the row of anomalies that goes on.
        self._row_began = 0

    @property
    def is_open(self) -> bool:
        """Whether an incident goes on."""
        return self._open is not None

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> list[str]:
        """What there is to say after this verdict: nothing, that one opens, or that one closes."""
        if verdict.is_anomaly and verdict.in_a_row == 1:
            self._row_began = verdict.time
        if self._open is None:
            if verdict.status != ALERT:
                return []
            self._quiet = 0
            self._open = {"began": self._row_began, "causes": [], "peaks": {}}
            self._note(verdict, thresholds)
            return [
                f"{format_time(verdict.time)} incident opens: {self._causes()}"
                f" ({ALERT_RECORDS} anomalies in a row)"
            ]
        if verdict.is_anomaly:
            self._quiet = 0
            self._note(verdict, thresholds)
            return []
        if verdict.in_a_row:
            return []
        self._quiet += 1
        return [self._close()] if self._quiet >= ALERT_RECORDS else []

    def _note(self, anomaly: Verdict, thresholds: dict[str, float]) -> None:
        """Remember the causes, and by how much each was over its threshold at most."""
        incident = self._open
        incident["last"] = anomaly.time
        incident["causes"] = [
            name for name in METRICS if name in incident["causes"] or name in anomaly.causes
        ]
        for name, key in zip(NAMES, THRESHOLD_KEYS, strict=True):
            if anomaly.blames(name):
                ratio = anomaly.rmse[name] / max(thresholds[key], 1e-9)
                incident["peaks"][name] = max(ratio, incident["peaks"].get(name, 0.0))

    def _causes(self) -> str:
        return " | ".join(self._open["causes"]) or UNKNOWN_CAUSE

    def _close(self) -> str:
        incident = self._open
        lasted = format_duration((incident["last"] - incident["began"]) / 1e9)
        peaks = ", ".join(
            f"{name} {incident['peaks'][name]:.1f}" for name in NAMES if name in incident["peaks"]
        )
        line = (
            f"{format_time(incident['last'])} incident closes: {self._causes()} for {lasted} since"
            f" {format_time(incident['began'])}; peak RMSE in thresholds: {peaks}"
        )
        self._open = None
        return line

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON."""
        return {"open": self._open, "quiet": self._quiet, "row_began": self._row_began}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        incident = state["open"]
        if incident is not None:
            incident = {
                "began": whole(mapping(incident)["began"]),
                "last": whole(incident["last"]),
                "causes": [name for name in METRICS if name in incident["causes"]],
                "peaks": {name: number(ratio) for name, ratio in mapping(incident["peaks"]).items()},
            }
        quiet, row_began = whole(state["quiet"]), whole(state["row_began"])
        self._open, self._quiet, self._row_began = incident, quiet, row_began


class Drift:
    """Which metrics were over their threshold for most of the last `records` records.

    That is a changed normal rather than an attack. It is over when they were for less than a quarter.
    """

    def __init__(self, records: int) -> None:
        self._records = records
        # A bit for each record, the newest last.
        self._over = dict.fromkeys(NAMES, 0)
        self.drifting: list[str] = []

    def observe(self, verdict: Verdict, thresholds: dict[str, float]) -> tuple[list[str], list[str]]:
        """The metrics of which it begins with this verdict, and those of which it ends."""
        begun, ended = [], []
        for name, key in zip(NAMES, THRESHOLD_KEYS, strict=True):
            # Of an unknown record, whose RMSE is NaN, nothing is over.
            is_over = bool(verdict.rmse[name] > thresholds[key])
            self._over[name] = self._newest(self._over[name] << 1 | is_over)
            count = self._over[name].bit_count()
            if name not in self.drifting and 2 * count > self._records:
                begun.append(name)
            elif name in self.drifting and 4 * count < self._records:
                ended.append(name)
        self.drifting = [
            name for name in NAMES if (name in self.drifting or name in begun) and name not in ended
        ]
        return begun, ended

    def _newest(self, over: int) -> int:
        return over & ((1 << self._records) - 1)

    def state(self) -> dict[str, Any]:
        """For `restore`, in JSON: a hexadecimal digit for four records."""
        return {"drifting": self.drifting, "over": {name: f"{over:x}" for name, over in self._over.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped; of a longer history the newest part counts.

        Raises KeyError, TypeError or ValueError, unchanged, if it is no state.
        """
        over = {name: self._newest(int(text(bits), 16)) for name, bits in mapping(state["over"]).items()}
        drifting = [text(name) for name in state["drifting"]]
        if not {*over, *drifting} <= set(NAMES):
            raise ValueError("no name of a metric")
        self._over |= over
        self.drifting = drifting
