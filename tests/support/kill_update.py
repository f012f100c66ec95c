"""`kill_update.py THRESHOLDS_FILE`: an update of what stands there, killed at its first step on the disk, at
its second, and so on. Prints for each what stands there then, and after a whole update that follows, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge.thresholds import (
    compare_thresholds,
    proposals_path,
    read_proposals,
    read_thresholds,
    update_thresholds,
)
from tests.support.metrics import THRESHOLD_KEYS

STEPS = ("chmod", "close", "fsync", "ftruncate", "open", "pwrite", "replace", "unlink")


def update(file: Path, value: float, last_step: int) -> None:
    """To `value`, for the model "new"; killed at the last step."""
    count = itertools.count(1)

    def killing(step: Any) -> Any:
        def kill_or_go_on(*arguments: Any, **options: Any) -> Any:
            if next(count) == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        return kill_or_go_on

    for name in STEPS:
        setattr(os, name, killing(getattr(os, name)))
    update_thresholds(file, dict.fromkeys(THRESHOLD_KEYS, value), "new")


def state(file: Path) -> dict[str, Any]:
    """What stands there: thresholds, proposals, keys that a person set, names in the folder."""
    return {
        "thresholds": read_thresholds(file),
        "proposals": [[one.model, one.values] for one in read_proposals(file)],
        "by_person": compare_thresholds(file)[1],
        "names": sorted(path.name for path in file.parent.iterdir()),
    }


def main(file: Path) -> None:
    """All steps; a fork for each costs less than an interpreter."""
    originals = {path: path.read_bytes() for path in (file, proposals_path(file))}
    for last_step in itertools.count(1):
        child = os.fork()
        if not child:
            update(file, 0.65432, last_step)
            os._exit(0)
        was_killed = os.waitpid(child, 0)[1] != 0
        cut_short = state(file)
        # By another process: it removes what the killed one left.
        if not (next_one := os.fork()):
            update_thresholds(file, dict.fromkeys(THRESHOLD_KEYS, 0.7), "newest")
            os._exit(0)
        assert os.waitpid(next_one, 0)[1] == 0
        print(json.dumps([was_killed, cut_short, state(file)]), flush=True)
        for path, content in originals.items():
            path.write_bytes(content)
        if not was_killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
