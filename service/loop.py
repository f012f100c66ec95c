"""How long a service waits between two runs."""

from __future__ import annotations

import random

# While a server is away it is asked again after these, doubling, each cut by up to half at random.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 4.0


class Backoff:
    """How long to wait before a server that is away is asked again; many clients do not ask in step."""

    def __init__(self) -> None:
        self._seconds = FIRST_RETRY_SECONDS

    def next_seconds(self) -> float:
        """The pause after one more attempt that failed."""
        pause = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(2 * self._seconds, LAST_RETRY_SECONDS)
        return pause

    def reset(self) -> None:
        """The server has answered."""
        self._seconds = FIRST_RETRY_SECONDS
