"""Many ports at once are one incident: that of a device, or of all devices.

An incident of a device opens when at least MIN_PORTS and at least half of its judged ports have incidents
that opened within an hour. One of all devices opens when more than half of all judged ports have, on at
least two devices. What opens in the hour after that belongs to it. It closes with the last of its ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ports.incidents import OF_ALL, OF_DEVICE, PortIncident
from ports.series import port_tags

MIN_PORTS = 3
SAME_SECONDS = 3600

# The time of the bucket that opened or closed an incident (seconds since 1970), and the incident.
Change = tuple[int, PortIncident]


@dataclass
class Shared:
    """The open incidents of many ports, and those of series.

    open: the open incidents of series, as they opened. members: open incident of many ports -> those of
    series that it is made of by their keys, the open ones as they opened.

        shared = Shared()
        shared.observe(changes, judged)    # what opens and closes
    """

    open: dict[tuple, PortIncident] = field(default_factory=dict)
    members: dict[PortIncident, dict[tuple, PortIncident]] = field(default_factory=dict)
    # The keys of all that belonged to one of many ports in the newest call.
    belonging: set[tuple] = field(default_factory=set, compare=False)

    def observe(self, changes: Iterable[Change], judged: Mapping[str, set[tuple[str, str]]]) -> list[Change]:
        """The incidents of many ports that open and close with these changes of series.

        judged: detector -> device and port of all series that it judges.
        """
        found: list[Change] = []
        self.belonging = {key for members in self.members.values() for key in members}
        by_time: dict[int, list[PortIncident]] = {}
        for time, incident in sorted(changes, key=lambda change: (change[0], change[1].key)):
            by_time.setdefault(time, []).append(incident)
        for time, incidents in by_time.items():
            for incident in incidents:
                self._update(incident)
            found += self._closed(time)
            for detector in sorted({one.detector for one in incidents if not one.end}):
                found += self._opened(time, detector, judged.get(detector, set()))
        return found

    def _update(self, incident: PortIncident) -> None:
        """Put the newest form of an incident into all that it belongs to, or ought to."""
        if incident.end:
            self.open.pop(incident.key, None)
        else:
            self.open[incident.key] = incident
        for shared, members in self.members.items():
            if incident.key in members or _belongs(incident, shared):
                members[incident.key] = incident
                self.belonging.add(incident.key)

    def _closed(self, time: int) -> list[Change]:
        closed = []
        for shared, members in list(self.members.items()):
            if all(one.end for one in members.values()):
                del self.members[shared]
                # The end of the last one.
                last = max(members.values(), key=lambda one: (one.until, one.key))
                closed.append((time, replace(_combined(shared, members.values()), end=last.end)))
        return closed

    def _opened(self, time: int, detector: str, judged: set[tuple[str, str]]) -> list[Change]:
        """The incident of all devices, or those of devices, that open now."""
        up = {(one.scope, one.name) for one in self.members if one.detector == detector}
        recent = [
            one for one in self.open.values() if one.detector == detector and one.opened > time - SAME_SECONDS
        ]
        devices = {device for device, _ in _ports(recent)}
        is_most = len(devices) > 1 and _is_many(recent, judged) and 2 * len(_ports(recent)) > len(judged)
        if is_most and (OF_ALL, "") not in up:
            return [self._open(time, OF_ALL, "", recent)]
        found = []
        for device in sorted(devices):
            of_device = [one for one in recent if _port(one)[0] == device and one.key not in self.belonging]
            is_many = _is_many(of_device, {port for port in judged if port[0] == device})
            if is_many and (OF_DEVICE, device) not in up:
                found.append(self._open(time, OF_DEVICE, device, of_device))
        return found

    def _open(self, time: int, scope: str, name: str, of: list[PortIncident]) -> Change:
        shared = _combined(replace(of[0], scope=scope, name=name, opened=time), of)
        self.members[shared] = {one.key: one for one in of}
        self.belonging |= self.members[shared].keys()
        return time, shared


def _belongs(incident: PortIncident, shared: PortIncident) -> bool:
    return (
        incident.detector == shared.detector
        and (shared.scope == OF_ALL or _port(incident)[0] == shared.name)
        and 0 <= incident.opened - shared.opened <= SAME_SECONDS
    )


def _is_many(incidents: list[PortIncident], judged: set[tuple[str, str]]) -> bool:
    count = len(_ports(incidents))
    return count >= MIN_PORTS and 2 * count >= len(judged)


def _combined(shared: PortIncident, members: Iterable[PortIncident]) -> PortIncident:
    """The shared incident with the times and bytes of all its members, and the largest score among them."""
    members = list(members)
    peak = max(members, key=lambda one: (one.score, one.key))
    return replace(
        shared,
        since=min(one.since for one in members),
        until=max(one.until for one in members),
        score=peak.score,
        traffic=peak.traffic,
        expected=peak.expected,
        low=peak.low,
        high=peak.high,
        lowest=peak.lowest,
        highest=peak.highest,
        seconds=peak.seconds,
        surplus_bytes=sum(one.surplus_bytes for one in members),
        ports=len(_ports(members)),
    )


def _ports(incidents: Iterable[PortIncident]) -> set[tuple[str, str]]:
    return {_port(one) for one in incidents}


def _port(incident: PortIncident) -> tuple[str, str]:
    """The device and port of an incident of a series."""
    tags = port_tags(incident.name)
    return tags["device"], tags["port"]
