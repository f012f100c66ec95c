"""How much memory something takes."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator


@contextlib.contextmanager
def little_memory(most_bytes: int) -> Iterator[None]:
    """What is inside the `with` takes at most this, at any moment, whatever was taken before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= most_bytes
    finally:
        tracemalloc.stop()
