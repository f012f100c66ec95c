"""What the hourly job keeps between two runs, and its file: where judging stopped, and the open incidents."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.files import UserError, is_there, loadDictJson, saveDictJson
from common.times import format_time, parse_time
from common.values import mapping
from ports.incidents import SCOPES, PortIncident, Watched
from ports.shared import Shared

# The file is no larger, even with a million series.
STATE_BYTES = 100_000_000
# No series has this key: theirs have a blank before the detector.
INCIDENTS = "incidents"

# A series and a detector.
ModelKey = tuple[str, str]


@dataclass(frozen=True)
class JobState:
    """judged: the end of the last judged bucket, seconds since 1970. watched: what is known of a series, if
    there is something. shared: the incidents of many ports.
    """

    judged: dict[ModelKey, int] = field(default_factory=dict)
    watched: dict[ModelKey, Watched] = field(default_factory=dict)
    shared: Shared = field(default_factory=Shared)

    def open_incidents(self) -> Counter[tuple[str, str]]:
        """How many incidents are open, by scope and detector; zero for a detector that has none."""
        found = Counter({(scope, detector): 0 for _, detector in self.watched for scope in SCOPES})
        still_open = [one.open for one in self.watched.values() if one.open]
        found.update((one.scope, one.detector) for one in (*still_open, *self.shared.members))
        return found

    def open_alone_or_shared(self) -> list[PortIncident]:
        """The open incidents, one of all ports that share one."""
        shared = {key for members in self.shared.members.values() for key in members}
        alone = [one.open for one in self.watched.values() if one.open and one.open.key not in shared]
        return [*self.shared.members, *alone]

    def copy(self) -> JobState:
        """A copy that a run can change."""
        members = {one: dict(parts) for one, parts in self.shared.members.items()}
        shared = Shared(dict(self.shared.open), members)
        return JobState(dict(self.judged), dict(self.watched), shared)


def load_state(filename: Path) -> JobState:
    """The state that was saved; an empty one if there is no such file yet. Raises UserError."""
    if not is_there(filename):
        return JobState()
    content = loadDictJson(filename, STATE_BYTES)
    # An older version kept no incidents.
    kept = content.pop(INCIDENTS, {"series": {}, "open": [], "shared": []})
    judged = {}
    for key, time in content.items():
        try:
            judged[_watch(key)] = parse_time(time) // 10**9
        except (ValueError, AttributeError):
            raise UserError(
                f"{filename}: {key!r} has no valid time; delete the file, and all is judged since training"
            ) from None
    try:
        watched = {
            _watch(key): Watched.restored(one) for key, one in mapping(mapping(kept)["series"]).items()
        }
        shared = _shared(kept)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{filename}: its {INCIDENTS} are damaged; delete the file, and all is judged since training"
        ) from None
    return JobState(judged, watched, shared)


def save_state(state: JobState, filename: Path) -> None:
    """Write the file that load_state reads."""
    content: dict[str, Any] = {
        " ".join(watch): format_time(time * 10**9) for watch, time in sorted(state.judged.items())
    }
    watched = {
        " ".join(watch): asdict(one) for watch, one in sorted(state.watched.items()) if one != Watched()
    }
    if watched or state.shared != Shared():
        content[INCIDENTS] = {
            "series": watched,
            "open": [asdict(one) for one in state.shared.open.values()],
            "shared": [
                {"incident": asdict(one), "members": [asdict(member) for member in members.values()]}
                for one, members in state.shared.members.items()
            ],
        }
    saveDictJson(content, filename)


def _watch(key: str) -> ModelKey:
    series, _, detector = key.rpartition(" ")
    return series, detector


def _shared(kept: dict[str, Any]) -> Shared:
    members = {
        PortIncident.restored(one["incident"]): _by_key(one["members"])
        for one in map(mapping, kept["shared"])
    }
    return Shared(_by_key(kept["open"]), members)


def _by_key(incidents: Any) -> dict[tuple, PortIncident]:
    restored = (PortIncident.restored(one) for one in incidents)
    return {one.key: one for one in restored}
