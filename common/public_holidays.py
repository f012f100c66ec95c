"""Public holidays of countries and their parts, from the package `holidays`, imported where it is used."""

from __future__ import annotations

import difflib
import functools
from datetime import date

# As difflib counts how near the name of a country is.
NEAR_NAME = 0.75


def parse_country(text: str) -> str:
    """A country or subdivision in any case as the package `holidays` writes it, like IT or GB-ENG.

    Raises ValueError, in one line with the remedy, for one that it does not know, and ModuleNotFoundError
    without the package.
    """
    import holidays

    known = holidays.list_supported_countries()
    code, _, part = text.strip().partition("-")
    country = code.upper()
    if country not in known:
        raise ValueError(f"'{text}' is not a country like IT or GB-ENG{_suggestion(code)}")
    if not part:
        return country
    parts = {one.upper(): one for one in known[country]}
    if part.upper() not in parts:
        known_parts = f"choose from {', '.join(known[country])}" if parts else "it has none"
        raise ValueError(f"'{text}': {country} has no subdivision {part!r}; {known_parts}")
    return f"{country}-{parts[part.upper()]}"


def _suggestion(text: str) -> str:
    """The codes of countries whose name is near the text."""
    from holidays.registry import COUNTRIES

    near = difflib.get_close_matches(text.lower().replace(" ", "_"), COUNTRIES, cutoff=NEAR_NAME)
    return f"; did you mean {' or '.join(COUNTRIES[name][1] for name in near)}?" if near else ""


@functools.lru_cache
def is_holiday(country: str, day: date) -> bool:
    """Whether a day is a public holiday of a country, as parse_country returns it."""
    return day in _holidays(country, day.year)


@functools.lru_cache
def _holidays(country: str, year: int) -> frozenset[date]:
    import holidays

    code, _, part = country.partition("-")
    return frozenset(holidays.country_holidays(code, subdiv=part or None, years=year))
