"""What a known anomaly is: its kind and size, told from the traffic that is left of what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ports.detectors import Model
from ports.levels import LEVEL_MINUTES
from ports.preparation import Buckets
from ports.series import KnownAnomaly

DROP, PARTIAL, OTHER, FLOOD = "drop", "partial", "other", "flood"
# What is expected lies at the level of so much time on either side, or if nothing is known there, of a day.
BESIDE_MINUTES = 180


@dataclass(frozen=True)
class Size:
    """One kind and size of anomaly: traffic of `least` to below `most` times what was expected."""

    kind: str
    name: str
    least: float
    most: float


ANOMALY_SIZES = (
    Size(DROP, "0-10 % left", 0.0, 0.1),
    Size(DROP, "10-40 % left", 0.1, 0.4),
    Size(PARTIAL, "40-65 % left", 0.4, 0.65),
    Size(PARTIAL, "65-90 % left", 0.65, 0.9),
    Size(OTHER, "as usual", 0.9, 1.1),
    Size(FLOOD, "x1.1-1.5", 1.1, 1.5),
    Size(FLOOD, "x1.5-2.5", 1.5, 2.5),
    Size(FLOOD, "above x2.5", 2.5, np.inf),
)
# What is neither more nor less than expected, and of what nobody knows how much was expected.
_AS_USUAL = next(size for size in ANOMALY_SIZES if size.kind == OTHER)


def size_of(share: float) -> Size:
    """The size of an anomaly with this share of the expected traffic; NaN is unknown."""
    return next((size for size in ANOMALY_SIZES if size.least <= share < size.most), _AS_USUAL)


def shares_left(
    model: Model, buckets: Buckets, anomalies: Sequence[KnownAnomaly], known: Sequence[KnownAnomaly]
) -> list[float]:
    """The traffic in each of `anomalies` as a share of what was expected there, NaN if it is not known.

    Expected is the usual week at the level of the time beside the anomaly, without all `known` anomalies.
    What a detector expects would depend on whether it finds the anomaly.
    """
    starts, seconds = buckets.starts, buckets.minutes * 60
    deviations = model.scaler.transform(buckets.traffic) - model.usual[buckets.slots]
    for one in known:
        deviations[(starts + seconds > one.start) & (starts < one.end)] = np.nan
    shares = []
    for one in anomalies:
        inside = (starts >= one.start) & (starts + seconds <= one.end) & ~np.isnan(buckets.traffic)
        level = _level_beside(deviations, starts, one)
        expected = model.scaler.inverse(model.usual[buckets.slots[inside]] + level).sum()
        shares.append(float(buckets.traffic[inside].sum() / expected) if expected else np.nan)
    return shares


def _level_beside(deviations: np.ndarray, starts: np.ndarray, anomaly: KnownAnomaly) -> float:
    """The median deviation (n,) of buckets, by their starts (n,), beside the anomaly; NaN if unknown."""
    for minutes in (BESIDE_MINUTES, LEVEL_MINUTES):
        beside = (starts >= anomaly.start - 60 * minutes) & (starts < anomaly.end + 60 * minutes)
        known = deviations[beside & ~np.isnan(deviations)]
        if len(known):
            return float(np.median(known))
    return np.nan
