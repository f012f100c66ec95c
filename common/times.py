"""Times as text and back, durations, and where a local day begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

DAY_SECONDS = 86_400
DAY_MINUTES = 1440
WEEK_MINUTES = 7 * DAY_MINUTES


def parse_time(text: str) -> int:
    """An ISO date and time in ns since 1970; UTC if it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # What nanoseconds in 64 bits can hold.
    if not 1970 <= moment.year < 2262:
        raise ValueError(f"{text} is out of range")
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000


def format_time(nanoseconds: int) -> str:
    """Such as 2021-01-12T09:13:15Z, with milliseconds if there are any."""
    seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    milliseconds = rest // 1_000_000
    return f"{text}.{milliseconds:03d}Z" if milliseconds else f"{text}Z"


def format_duration(seconds: float) -> str:
    """Such as 17 min 45 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def local_minute(time: int, zone: str) -> float:
    """The minute of the local day at a time (ns since 1970), by the clock on the wall."""
    moment = datetime.fromtimestamp(time // 10**9, ZoneInfo(zone))
    return moment.hour * 60 + moment.minute + moment.second / 60


def local_days(start: int, end: int, zone: str) -> float:
    """How many days the local clock went on from one moment to another (seconds since 1970)."""
    first, last = (
        datetime.fromtimestamp(moment, ZoneInfo(zone)).replace(tzinfo=None) for moment in (start, end)
    )
    return (last - first) / timedelta(days=1)


def last_midnight(moment: int, zone: str, days: int = 0) -> int:
    """When the local day of a moment began, or the day so many days before; in seconds since 1970.

    If the clocks change at midnight, it is the first moment of the day.
    """
    day = datetime.fromtimestamp(moment, ZoneInfo(zone)) - timedelta(days=days)
    return int(day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp())
