"""Ports in Prometheus or VictoriaMetrics: counters of the SNMP exporter, or `port_traffic` as in InfluxDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from common.files import UnavailableError, UserError
from common.times import DAY_SECONDS, format_time
from ports.incidents import PortIncident
from ports.rivals import CELL_SECONDS, LIVE_SECONDS, cell_seconds, cells_of, describe_rivals, side_by_side
from ports.samples import DEFAULT_LIMITS, PORT_TRAFFIC
from ports.series import KnownAnomaly, Series, port_name
from ports.sources import LISTED_SECONDS, is_port
from ports.verdicts import PortAnomaly
from prometheus_utils import Matchers, Prometheus, TooMuchError, range_text, rows_of, selector
from service.systemd import notify_systemd

# Metric -> label of the device, labels of which the first that is there names the port, and the direction; an
# empty one is in a label of that name. VictoriaMetrics adds the field to what is written as in InfluxDB.
_SNMP_PORT = ("ifName", "ifDescr", "ifIndex")
LAYOUTS = {
    "ifHCInOctets": ("instance", _SNMP_PORT, "in"),
    "ifHCOutOctets": ("instance", _SNMP_PORT, "out"),
    PORT_TRAFFIC: ("device", ("port",), ""),
    f"{PORT_TRAFFIC}_value": ("device", ("port",), ""),
}
# Samples of so many days are read at once.
PAGE_DAYS = 7
_SECOND = 10**9
# Labels of a series -> its samples: seconds since 1970, ascending, and readings.
_Found = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]
Stored = Callable[[Sequence[PortAnomaly], Sequence[PortIncident]], None]


class PrometheusPorts:
    """The ports whose counters Prometheus or VictoriaMetrics has. Errors of its client are not caught here.

    stored: stores anomalies and incidents; None leaves them in the log and the service's own metrics. until:
    later samples do not count, seconds since 1970.
    """

    known_anomalies: list[KnownAnomaly] = []
    port_needs = (
        "ifHCInOctets and ifHCOutOctets need the labels instance and ifName (or ifDescr, or ifIndex),"
        f" {PORT_TRAFFIC} needs device, port and direction (in or out)"
    )

    def __init__(self, client: Prometheus, stored: Stored | None, until: int | None = None) -> None:
        self._client, self._stored, self._until = client, stored, until
        now = self.now()
        self._ports: dict[str, tuple[str, Matchers]] = {}
        self._twice: dict[str, str] = {}
        self.no_ports: list[str] = []
        span = (now - LISTED_SECONDS) * _SECOND, now * _SECOND
        for labels in client.series(selector(list(LAYOUTS)), *span):
            self._add(labels)
        if not self._ports:
            raise UnavailableError(
                f"Prometheus at {client.url} has no ifHCInOctets or ifHCOutOctets with the labels instance"
                f" and ifName, and no {PORT_TRAFFIC}, from the last 28 days; check --prometheus_url, or give"
                " --ports_dir",
                "no ports",
            )

    def _add(self, labels: dict[str, str]) -> None:
        """Note the port of a series."""
        metric = labels.get("__name__", "")
        device_label, port_labels, direction = LAYOUTS.get(metric, ("", ("",), ""))
        port_label = next((label for label in port_labels if labels.get(label)), port_labels[0])
        tags = {
            "device": labels.get(device_label, ""),
            "port": labels.get(port_label, ""),
            "direction": direction or labels.get("direction", ""),
        }
        if not is_port(tags):
            wanted = (device_label, *port_labels, *([] if direction else ["direction"]))
            there = {label: labels[label] for label in wanted if label in labels}
            self.no_ports.append(f"{metric} with {there}")
            return
        matchers = [(device_label, (tags["device"],)), (port_label, (tags["port"],))]
        if not direction:
            matchers.append(("direction", (tags["direction"],)))
        name = port_name(**tags)
        found = metric, tuple(matchers)
        if self._ports.setdefault(name, found) != found:
            first = self._ports[name][0]
            self._twice[name] = f"is in both {first} and {metric}; keep one of them"

    def names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(self._ports)

    def newest(self, name: str) -> None:
        """Not known before the samples are read."""
        return None

    def refusal(self, name: str) -> UserError | None:
        """Why no sample can be used, if that is known without reading them."""
        return UserError(f"{name}: {self._twice[name]}") if name in self._twice else None

    def load(self, name: str, start: int, end: int) -> Series | UserError:
        """The samples after `start` and up to `end`, read here, so that no worker needs the password.

        A label that is added to a port starts a new series, in which the port goes on. Two series at its end
        are a fault. Samples in an earlier cell in which two series wrote are NaN: nobody knows which of them
        are right.
        """
        if refusal := self.refusal(name):
            return refusal
        try:
            return self._read(name, start, end)
        except TooMuchError:
            return UserError(f"{name}: {_too_many(start)}")
        except UserError as error:
            return UserError(f"{name}: {error}")

    def _read(self, name: str, start: int, end: int) -> Series:
        metric, matchers = self._ports[name]
        found: _Found = {}
        count = 0
        for begin in range(start, end, PAGE_DAYS * DAY_SECONDS):
            until = min(begin + PAGE_DAYS * DAY_SECONDS, end)
            page = selector([metric], matchers) + range_text((until - begin) * _SECOND)
            for labels, rows in rows_of(self._client.query(page, until * _SECOND)):
                own = [(at // _SECOND, value) for at, value in rows if begin < at / _SECOND <= until]
                found.setdefault(tuple(sorted(labels.items())), []).extend(own)
                count += len(own)
            notify_systemd("WATCHDOG=1")
            if count > DEFAULT_LIMITS.port_samples:
                raise UserError(_too_many(start))
        found = {labels: rows for labels, rows in found.items() if rows}
        _check_rivals(found)
        # The last of several samples within one second counts.
        samples = dict(sorted((row for rows in found.values() for row in rows), key=lambda row: row[0]))
        times = np.array(list(samples), dtype=np.int64)
        readings = np.array(list(samples.values()), dtype=float)
        seconds, shared = _shared_cells(found)
        readings[np.isin(cells_of(times, seconds), shared)] = np.nan
        return Series(name, times, readings)

    def now(self) -> int:
        """The time that was given as `until`, or else the clock's."""
        return self._until or int(time.time())

    def store(self, anomalies: Sequence[PortAnomaly], incidents: Sequence[PortIncident]) -> None:
        """Store what was found. Raises UserError if InfluxDB refuses some."""
        if self._stored:
            self._stored(anomalies, incidents)


def _check_rivals(found: _Found) -> None:
    """Raise UserError if two series are alive at the end of a port."""
    begins, ends = (sorted(rows[place][0] for rows in found.values()) for place in (0, -1))
    if count := side_by_side(begins, ends, LIVE_SECONDS) if found else 0:
        since = ends[-1] - LIVE_SECONDS
        live = sorted(labels for labels, rows in found.items() if rows[-1][0] > since)
        raise UserError(describe_rivals(count, [dict(labels) for labels in live[:2]]))


def _shared_cells(found: _Found) -> tuple[int, np.ndarray]:
    """Length of a cell in seconds; and the cells in which several series have samples."""
    times = [np.array([at for at, _ in rows], dtype=np.int64) for rows in found.values()]
    distances = [float(np.median(np.diff(own))) for own in times if len(own) > 1]
    seconds = cell_seconds(min(distances, default=CELL_SECONDS))
    each = [np.unique(cells_of(own, seconds)) for own in times]
    cells, counts = np.unique(np.concatenate(each or [[]]), return_counts=True)
    return seconds, cells[counts > 1]


def _too_many(start: int) -> str:
    return (
        f"has more samples since {format_time(start * _SECOND)} than can be read; scrape it every minute or"
        " less often"
    )
