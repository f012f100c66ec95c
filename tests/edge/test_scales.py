"""What stands beside the axes of a picture: which labels there are, and where."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from edge.scales import draw_scales, label_times, use_decades

HOUR = np.timedelta64(1, "h")
BEGIN = np.datetime64("2026-03-02T08:00:00", "ns")


def drawn(low: float, high: float) -> tuple[Figure, Axes, list[Text]]:
    """Two axes side by side, of which the right one is logarithmic and from low to high."""
    figure = Figure(figsize=(10, 5))
    left, right = figure.subplots(1, 2)
    for axis in (left, right):
        axis.plot([BEGIN, BEGIN + 8 * HOUR], [low, high])
        axis.set_xlim(BEGIN, BEGIN + 8 * HOUR)
        axis.set_ylim(low, high)
    use_decades(right)
    right.set_ylabel("cpu RMSE")
    label_times(left, right)
    draw_scales(figure, [left, right], [left, right])
    return figure, right, [one for one in figure.artists if isinstance(one, Text)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.005, 20.0, ["0.01", "0.1", "1", "10"]),
        (0.03, 0.3, ["0.05", "0.1", "0.2"]),
        (0.11, 0.19, ["0.12", "0.14", "0.16", "0.18"]),
    ],
)
def test_small_numbers_are_read_as_decimals(low: float, high: float, expected: list[str]) -> None:
    _, axis, texts = drawn(low, high)
    beside = axis.get_position().x0 - 7 / 720
    labels = [one for one in texts if one.get_position()[0] == pytest.approx(beside)]
    assert [one.get_text() for one in labels] == expected
    place = axis.get_position()
    for one in labels:
        share = np.log(float(one.get_text()) / low) / np.log(high / low)
        assert one.get_position()[1] == pytest.approx(place.y0 + share * place.height)


def test_each_column_has_its_times_and_its_day() -> None:
    figure, axis, texts = drawn(0.03, 0.3)
    words = [one.get_text() for one in texts]
    assert (words.count("12:00"), words.count("time [UTC]"), words.count("2026-Mar-02")) == (2, 2, 2)
    noon = [one for one in texts if one.get_text() == "12:00"][-1]
    place = axis.get_position()
    assert noon.get_position() == (
        pytest.approx((place.x0 + place.x1) / 2),
        pytest.approx(place.y0 - 7 / 360),
    )
    assert words.count("cpu RMSE") == 1
    assert not any(one.xaxis.get_visible() or one.yaxis.get_visible() for one in figure.axes)
