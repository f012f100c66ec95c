"""How many known anomalies are found, and how many alerts are false, counted from statuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.alerts import ALERT, ANOMALY
from common.times import DAY_SECONDS
from ports.series import KnownAnomaly

MONTH_SECONDS = 30.4 * DAY_SECONDS
# An alert this soon after a known anomaly belongs to it; one this soon after another alert is the same alert.
SAME_ALERT_SECONDS = 3600


@dataclass(frozen=True)
class Detection:
    """known: how many known anomalies there were; with_anomaly, with_alert: how many of them had an anomaly,
    an alert. false_alerts: alerts that belong to no known anomaly. months: length of the judged time.
    """

    known: int = 0
    with_anomaly: int = 0
    with_alert: int = 0
    false_alerts: int = 0
    months: float = 0.0

    def __add__(self, other: Detection) -> Detection:
        return Detection(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def rates(self) -> dict[str, float | None]:
        """Shares of the known anomalies, None without any; false alerts per series and month."""
        return {
            "anomaly_recall": round(self.with_anomaly / self.known, 4) if self.known else None,
            "alert_recall": round(self.with_alert / self.known, 4) if self.known else None,
            "false_alerts": round(self.false_alerts / self.months, 2) if self.months else None,
        }


def detection(
    starts: np.ndarray,
    bucket_seconds: int,
    judged: np.ndarray,
    known: Sequence[KnownAnomaly],
    excused: Sequence[KnownAnomaly],
) -> Detection:
    """Compare the statuses of consecutive buckets (n,) with the known anomalies.

    Alerts during `excused` anomalies do not count as false, and excused anomalies need not be found.
    """
    ends = starts + bucket_seconds
    is_alert = judged == ALERT
    is_anomaly = is_alert | (judged == ANOMALY)
    explained = np.zeros(len(starts), dtype=bool)
    for one in (*known, *excused):
        explained |= (ends > one.start - bucket_seconds) & (starts < one.end + SAME_ALERT_SECONDS)
    false = starts[is_alert & ~explained]
    alerts = len(false) and 1 + int((np.diff(false) > SAME_ALERT_SECONDS).sum())
    return Detection(
        known=len(known),
        with_anomaly=sum(are_met(starts, bucket_seconds, is_anomaly, known)),
        with_alert=sum(are_met(starts, bucket_seconds, is_alert, known)),
        false_alerts=alerts,
        months=len(starts) * bucket_seconds / MONTH_SECONDS,
    )


def are_met(
    starts: np.ndarray, bucket_seconds: int, is_said: np.ndarray, known: Sequence[KnownAnomaly]
) -> list[bool]:
    """Of each known anomaly, whether something is said of one of its buckets (n,)."""
    ends = starts + bucket_seconds
    return [bool(is_said[(ends > one.start) & (starts < one.end)].any()) for one in known]
