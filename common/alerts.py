"""Which anomalies wake a person: the rule that both halves share. (A port's record is one of its buckets.)

An anomaly is also an alert

- from the ALERT_RECORDS-th in a row on (fewer for records that take longer: `alert_records`), or
- when at least MANY_RECORDS of the last WINDOW_RECORDS records are anomalies: a load that comes and goes
  never makes a row.

MANY_RECORDS is the smallest number that adds no false alert to those of the row, even with thresholds at 0.6
of the proposed ones. It serves both halves. docs/alerts.md has the figures, which
`python -m benchmarks.alerts` measures.
"""

from __future__ import annotations

import math

NORMAL, ANOMALY, ALERT, UNKNOWN = "normal", "anomaly", "alert", "unknown"

WINDOW_RECORDS = 30
ALERT_RECORDS = 4
MANY_RECORDS = 8
# An alert of many anomalies stays up while this many are left. If it ended below MANY_RECORDS, anomalies that
# come at random, or whose number varies between 7 and 8, would start it again and again.
FEW_RECORDS = MANY_RECORDS // 2
# A status depends on fewer earlier records than this: the anomalies of a row may be a window apart, with
# unknown records between them, and the oldest anomaly that counts may be the fourth of a row.
CONTEXT_RECORDS = ALERT_RECORDS * WINDOW_RECORDS

# No single anomaly is an alert, however long its record is.
LEAST_RECORDS = 2
HOUR_MINUTES = 60

_WINDOW_BITS = (1 << WINDOW_RECORDS) - 1


def alert_records(minutes: float) -> int:
    """How many anomalies in a row make an alert, if a record takes so many minutes: at most an hour of them,
    so that what lasts for an hour is found, but no fewer than LEAST_RECORDS.
    """
    return min(max(math.ceil(HOUR_MINUTES / minutes), LEAST_RECORDS), ALERT_RECORDS)


class Row:
    """Counts anomalies, record by record: those in a row, and those of the last WINDOW_RECORDS records.

    An unknown record neither counts nor ends a row; WINDOW_RECORDS of them end it. The anomalies of a row
    that is an alert do not count as recent ones: otherwise a false one soon after would be an alert.

    is_up: whether an alert is up after the newest record. It comes up with a record that is an alert, and
    stays up while a row continues or FEW_RECORDS recent anomalies are left.

        row = Row()
        row.status(is_anomaly=True, is_unknown=False)    # "anomaly"; row.anomalies is 1, row.recent is 1,
                                                         # row.is_up is False

    many: how many recent anomalies make an alert. records: how many in a row do.
    """

    def __init__(self, many: int = MANY_RECORDS, records: int = ALERT_RECORDS) -> None:
        self.anomalies = 0
        self.is_up = False
        self._many, self._records = many, records
        self._unknowns = self._quiets = 0
        # A bit for each record, the newest last.
        self._recent = 0

    @property
    def recent(self) -> int:
        """Anomalies among the last WINDOW_RECORDS records, without those of a row that is an alert."""
        return self._recent.bit_count()

    def status(self, is_anomaly: bool, is_unknown: bool) -> str:
        """The status of the next record: NORMAL, ANOMALY, ALERT or UNKNOWN."""
        self._quiets = 0
        status = self._status(is_anomaly, is_unknown)
        goes_on = self.anomalies > 0 or self.recent >= FEW_RECORDS
        self.is_up = status == ALERT or (self.is_up and goes_on)
        return status

    def quiet(self) -> str:
        """The status of the next record, an anomaly that is kept quiet: it counts as unknown.

        As many of these in a row as make an alert end a row, and an alert of a row.
        """
        quiets = self._quiets + 1
        self.status(is_anomaly=False, is_unknown=True)
        self._quiets = quiets
        if quiets >= self._records:
            self.anomalies = 0
            self.is_up = self.is_up and self.recent >= FEW_RECORDS
        return ANOMALY

    def _status(self, is_anomaly: bool, is_unknown: bool) -> str:
        self._recent = (self._recent << 1 | bool(is_anomaly)) & _WINDOW_BITS
        if not is_anomaly and is_unknown:
            self._unknowns += 1
            if self._unknowns >= WINDOW_RECORDS:
                self.anomalies = 0
            return UNKNOWN
        self._unknowns = 0
        self.anomalies = self.anomalies + 1 if is_anomaly else 0
        if not is_anomaly:
            return NORMAL
        if self.anomalies < self._records:
            return ALERT if self.recent >= self._many else ANOMALY
        for _ in range(self._records if self.anomalies == self._records else 1):
            self._drop_newest()
        return ALERT

    def _drop_newest(self) -> None:
        """Remove the newest anomaly from the recent ones."""
        self._recent &= self._recent - 1

    def state(self) -> dict[str, int]:
        """The state that `restore` takes, as JSON."""
        return {
            "anomalies": self.anomalies,
            "unknowns": self._unknowns,
            "recent": self._recent,
            "is_up": int(self.is_up),
            "quiets": self._quiets,
        }

    def restore(self, state: dict[str, int]) -> None:
        """Continue where another process stopped.

        A state of an older version has no recent anomalies; whether an alert is up is taken from the rest.
        """
        self.anomalies, self._unknowns = state["anomalies"], state["unknowns"]
        self._recent = state.get("recent", 0)
        self._quiets = state.get("quiets", 0)
        is_likely = self.anomalies >= ALERT_RECORDS or self.recent >= FEW_RECORDS
        self.is_up = bool(state.get("is_up", is_likely))
