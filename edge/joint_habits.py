"""How far records are beyond what their nodes do habitually: the habits of many nodes as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.alerts import ALERT_RECORDS, MANY_RECORDS
from edge.habits import DURATIONS, Habits, hours_around, local_days, local_seconds, reached, two_thirds
from edge.windows import Past
from nodes.metrics import DOWN, UP, MetricTable

# A record belongs to the change of now if the newest records are this share of it away from the middle.
STILL = 0.5
# Two of the three newest records are where the level is now.
_NOW_RECORDS, _NOW_LEAST = 3, 2
# So many levels are compared at once that their windows stay in the processor's cache.
_AT_ONCE = 4096
# The trained range follows a level that so many of the last 30 records reached: more than it takes to make an
# alert of an attack, in a row or not.
DRIFT_RECORDS = MANY_RECORDS + ALERT_RECORDS
# Traffic that never stopped in the training set does not drift below this share of its lowest level.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class JointHabits:
    """The habits of n nodes with the same metrics, or those of one node for many records.

    each: those that are joined, which have the meaning of each array. by_hour, spread: (hours, n, levels).
    is_by_hour, is_low_by_hour: (n, 1), whether any level depends on the hour, and whether low ones do.
    highest, lowest: (n, levels), what lasts for the shortest duration. high_middle, low_middle: (n, levels).
    rooms: (durations, n, 2 * levels), how far above its middle a level may last, and then how far below.
    rmse: (n, levels).

    In all methods there is one record of each node, or there are any number of one node; times: (n,) in ns.
    """

    each: tuple[Habits, ...]
    by_hour: np.ndarray
    spread: np.ndarray
    is_by_hour: np.ndarray
    is_low_by_hour: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    high_middle: np.ndarray
    low_middle: np.ndarray
    rooms: np.ndarray
    rmse: np.ndarray

    @cached_property
    def places(self) -> np.ndarray:
        """Positions of the levels among the features: (levels,)."""
        return np.array(self.each[0].places)

    def usual(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is usual for each level at `times`, and how much it varies: (n, levels) each."""
        if not self.is_by_hour.any():
            return self.by_hour[0], self.spread[0]
        if len(self.each) == len(times):
            seconds = local_seconds(times, [one.zone for one in self.each])
        else:
            _, seconds = local_days(times, self.each[0].zone)
        before, after, share = hours_around(seconds)
        node = np.arange(len(self.each))
        usual, spread = (
            np.where(self.is_by_hour, one[before, node] * (1 - share) + one[after, node] * share, one[0])
            for one in (self.by_hour, self.spread)
        )
        return usual, spread

    def is_excused(self, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Whether values (n, features) belong to a daily job: (n, features)."""
        if len(self.each) == 1:
            return self.each[0].is_excused(times, values)
        excused = np.zeros(values.shape, dtype=bool)
        for place, one in enumerate(self.each):
            if one.jobs:
                row = slice(place, place + 1)
                excused[row] = one.is_excused(times[row], values[row])
        return excused

    def within(
        self,
        times: np.ndarray,
        values: np.ndarray,
        is_excused: np.ndarray,
        lowest: np.ndarray,
        highest: np.ndarray,
        past: Past,
    ) -> np.ndarray:
        """Values (n, features), as if the trained range had followed levels that drift out of it, up to the
        limits of what lasts.

        is_excused: (n, features), values of a daily job, which is no drift. lowest, highest: of the trained
        range, (n or 1, features). A level that drifts leaves the range that a short recording showed, which
        is not wrong. After a gap, nothing tells a drift from a jump, and the range follows at once.
        """
        places = self.places
        levels = values[:, places]
        drifting = past.windows("levels", np.where(is_excused[:, places], np.nan, levels), DURATIONS[-1])
        is_outside = (levels < lowest[:, places]) | (levels > highest[:, places])
        if not is_outside.any():
            return values
        usual, spread = self.usual(times)
        highest_usual = usual + spread * self.highest
        lowest_usual = np.where(self.is_low_by_hour, usual + spread * self.lowest, self.lowest)
        level, low, high, lowest_usual, highest_usual = (
            np.broadcast_to(part, levels.shape)[is_outside]
            for part in (levels, lowest[:, places], highest[:, places], lowest_usual, highest_usual)
        )
        drifting = drifting[:, is_outside]
        recently_high = reached(drifting, DRIFT_RECORDS, fewest=1)
        recently_low = -reached(-drifting, DRIFT_RECORDS, fewest=1)
        highest_now = np.maximum(high, np.minimum(recently_high, highest_usual))
        lowest_now = np.minimum(low, np.maximum(recently_low, lowest_usual))
        above = high + np.maximum(level - highest_now, 0.0)
        below = low - np.maximum(lowest_now - level, 0.0)
        has_stopped = (low > 0) & (level < LEAST_SHARE * low)
        levels[is_outside] = np.where(level > high, above, np.where(has_stopped, level, below))
        moved = values.copy()
        moved[:, places] = levels
        return moved

    def lasting_errors(
        self, times: np.ndarray, values: np.ndarray, past: Past, metrics: MetricTable | None = None
    ) -> np.ndarray:
        """How far levels are beyond what lasts as long habitually: (n, levels).

        values: (n, features); NaN does not count as beyond. metrics: whose direction and least deviation from
        the middle count; all deviations, unless given. `rmse` is reached at the limit, and 0 in the middle.
        Records that are more than twice as far from the middle as two of the three newest ones belong to a
        change that has ended, and do not count: the error ends soon after it.
        """
        levels = values[:, self.places]
        beyond = past.windows("beyond", self._beyond(times, levels, metrics), DURATIONS[-1])
        now = reached(beyond[-_NOW_RECORDS:], _NOW_LEAST)
        # What is now in the middle, or on its other side, has not lasted.
        counts = now > 0
        if metrics is not None:
            up, down = ([row.direction != other for row in metrics.values()] for other in (DOWN, UP))
            counts &= up + down
        shares = np.zeros(counts.shape)
        records, columns = np.nonzero(counts)
        for start in range(0, len(records), _AT_ONCE):
            record, column = (part[start : start + _AT_ONCE] for part in (records, columns))
            recent, at_most = beyond[:, record, column], now[record, column] / STILL
            # One node has the same room for all of its records.
            rooms = self.rooms[:, record % len(self.each), column]
            lasted = [two_thirds(recent[-duration:], at_most) for duration in DURATIONS]
            shares[record, column] = np.maximum(np.max(lasted / rooms, axis=0), 0.0)
        return np.maximum(*np.split(shares, 2, axis=1)) * self.rmse

    def _beyond(self, times: np.ndarray, levels: np.ndarray, metrics: MetricTable | None) -> np.ndarray:
        """How far levels (n, levels) are above the middle, and then how far below it: (n, 2 * levels)."""
        usual, spread = self.usual(times)
        upward = (levels - usual) / spread
        downward = np.where(self.is_low_by_hour, upward, levels) - self.low_middle
        upward = upward - self.high_middle
        if metrics is not None:
            # A level that is less than that above or below the middle counts as the middle.
            least = np.array([row.least for row in metrics.values()])
            sizes = upward * spread, downward * np.where(self.is_low_by_hour, spread, 1.0)
            upward, downward = (
                np.where(np.abs(size) < least, 0.0, part)
                for size, part in zip(sizes, (upward, downward), strict=True)
            )
        return np.concatenate([upward, -downward], axis=1)


def joint_habits(each: Sequence[Habits]) -> JointHabits:
    """Join the habits of nodes with the same metrics."""
    high, low = (
        np.stack(limits, axis=1) for limits in ([one.high for one in each], [one.low for one in each])
    )
    high_middle, low_middle = (
        np.stack([one.high_middle for one in each]),
        np.stack([one.low_middle for one in each]),
    )
    return JointHabits(
        each=tuple(each),
        by_hour=np.stack([one.by_hour for one in each], axis=1),
        spread=np.stack([one.spread for one in each], axis=1),
        is_by_hour=np.array([[one.by_hour.any()] for one in each]),
        is_low_by_hour=np.array([[one.is_low_by_hour] for one in each]),
        highest=high[0],
        lowest=low[0],
        high_middle=high_middle,
        low_middle=low_middle,
        rooms=np.concatenate([high - high_middle, low_middle - low], axis=-1),
        rmse=np.stack([one.rmse for one in each]),
    )
