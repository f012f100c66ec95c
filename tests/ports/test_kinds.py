"""Kind and size of a known anomaly, by the share of the expected traffic that was left."""

from __future__ import annotations

import numpy as np
import pytest

from ports.detectors import Model
from ports.kinds import shares_left, size_of
from ports.levels import Memory
from ports.preparation import Buckets, Scaler
from ports.series import KnownAnomaly

NAN = np.nan
QUARTER = 900
# 1000 bytes are usual, and 3000 from 12:00 to 18:00 each day; the offset is too small to matter.
DAY_SHAPE = np.where((np.arange(96) >= 48) & (np.arange(96) < 72), 3000.0, 1000.0)
USUAL = np.log(np.tile(DAY_SHAPE, 7))
MODEL = Model(Scaler("log", 1e-9, 1.0), USUAL, np.ones(24), np.ones(2), Memory(np.zeros(5), np.ones(5)))


@pytest.mark.parametrize(
    ("share", "kind", "name"),
    [
        (0.0, "drop", "0-10 % left"),
        (0.0999, "drop", "0-10 % left"),
        (0.1, "drop", "10-40 % left"),
        (0.3999, "drop", "10-40 % left"),
        (0.4, "partial", "40-65 % left"),
        (0.65, "partial", "65-90 % left"),
        (0.8999, "partial", "65-90 % left"),
        (0.9, "other", "as usual"),
        (1.0999, "other", "as usual"),
        (1.1, "flood", "x1.1-1.5"),
        (1.5, "flood", "x1.5-2.5"),
        (2.5, "flood", "above x2.5"),
        (1e9, "flood", "above x2.5"),
        (NAN, "other", "as usual"),
    ],
)
def test_each_share_has_one_size(share: float, kind: str, name: str) -> None:
    found = size_of(share)
    assert (found.kind, found.name) == (kind, name)


def week(level: float = 1.0) -> Buckets:
    """A usual week at a level."""
    return Buckets(15, QUARTER * np.arange(672), level * np.tile(DAY_SHAPE, 7), np.arange(672))


def spans(*parts: tuple[int, int]) -> list[KnownAnomaly]:
    """Anomalies from bucket to bucket."""
    return [KnownAnomaly(QUARTER * first, QUARTER * end, "1_1_in") for first, end in parts]


def test_the_share_is_of_all_traffic_that_the_usual_week_expects() -> None:
    buckets = week()
    # From 11:00 to 13:00: 4 x 1000 and 4 x 3000 bytes are usual; 2,000 and 9,000 of them are left.
    buckets.traffic[44:48], buckets.traffic[48:52] = 500.0, 2250.0
    # A flood of three times, the next day.
    buckets.traffic[140:148] *= 3
    known = spans((44, 52), (140, 148))
    assert shares_left(MODEL, buckets, known, known) == pytest.approx([11_000 / 16_000, 3.0])


def test_the_level_is_that_beside_the_anomaly_without_other_anomalies() -> None:
    # The port has doubled since; its loss is one of half, though it carries what is usual.
    buckets = week(2.0)
    buckets.traffic[100:104] /= 2
    # On either side is another anomaly of two hours, within the three hours that count.
    buckets.traffic[90:98] *= 9
    buckets.traffic[106:114] *= 9
    one, *others = spans((100, 104), (90, 98), (106, 114))
    assert shares_left(MODEL, buckets, [one], [one, *others]) == pytest.approx([0.5])
    # With nothing known for three hours on either side, the day beside it counts.
    buckets.traffic[88:100] = buckets.traffic[104:116] = NAN
    assert shares_left(MODEL, buckets, [one], [one, *others]) == pytest.approx([0.5])
    buckets.traffic[:100] = buckets.traffic[104:] = NAN
    assert np.isnan(shares_left(MODEL, buckets, [one], [one, *others])).all()


def test_buckets_that_are_partly_or_not_known_do_not_count() -> None:
    buckets = week()
    # It begins and ends in the middle of a bucket.
    anomaly = KnownAnomaly(QUARTER * 100 + 300, QUARTER * 105 + 300, "1_1_in")
    buckets.traffic[101:105] *= 0.2
    buckets.traffic[103] = NAN
    assert shares_left(MODEL, buckets, [anomaly], [anomaly]) == pytest.approx([0.2])
    buckets.traffic[101:105] = NAN
    assert np.isnan(shares_left(MODEL, buckets, [anomaly], [anomaly])).all()
