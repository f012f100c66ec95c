"""How tests are run on inputs that nobody would write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from common.files import UserError

# `make fuzz` sets it to 10,000.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # Others each time for who has the time; the same ones in the suite, which must not be a game of luck.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def loaded_or_refused(load: Callable[[str], Any], content: bytes, suffix: str) -> Any | None:
    """What a loader makes of a file with this content; None if it refuses it, in one line that names it."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        Path(file.name).write_bytes(content)
        try:
            return load(file.name)
        except UserError as error:
            assert str(error).startswith(file.name)
            assert len(str(error).splitlines()) == 1
    return None
