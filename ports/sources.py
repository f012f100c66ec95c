"""Where samples of ports come from and anomalies go: a folder and standard output, or InfluxDB."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from common.files import UnavailableError, UserError
from common.times import DAY_SECONDS, format_time
from influx_client import InfluxClient
from ports.faults import some_of
from ports.incidents import PortIncident
from ports.samples import (
    DEFAULT_LIMITS,
    PORT_INCIDENTS,
    PORT_TRAFFIC,
    Limits,
    Port,
    count_unlisted_ports,
    get_port_samples,
    insert_port_points,
    list_ports,
)
from ports.series import (
    TOO_MANY_BYTES,
    KnownAnomaly,
    Series,
    list_series,
    port_name,
    read_anomalies,
    read_series,
)
from ports.verdicts import PortAnomaly

# A port without a sample for this long no longer exists.
LISTED_SECONDS = 28 * DAY_SECONDS
# A file's name has at most 255 bytes, and a model's file also has the detector in its name.
MAX_NAME_BYTES = 200

# What a worker process gets for a series: a file to read, the samples, or why there are none.
Loaded = Path | Series | UserError


class Source(Protocol):
    """Names of series, and for each what a worker process needs to get its samples."""

    known_anomalies: list[KnownAnomaly]
    # The tags of series that belong to no port, and what a port's series need.
    no_ports: list[str]
    port_needs: str

    def names(self) -> list[str]:
        """In alphabetical order."""
        ...

    def newest(self, name: str) -> int | None:
        """Time of the newest sample, seconds since 1970; None if it is not known yet."""
        ...

    def refusal(self, name: str) -> UserError | None:
        """Why no sample can be used, if that is known without reading them."""
        ...

    def load(self, name: str, start: int, end: int) -> Loaded:
        """The samples after `start` and up to `end`, seconds since 1970, or where to read them."""
        ...

    def now(self) -> int | None:
        """Seconds since 1970; None for samples recorded at another time."""
        ...

    def store(self, anomalies: Sequence[PortAnomaly], incidents: Sequence[PortIncident]) -> None:
        """Store anomalies, and incidents as they opened and as they closed, in this order."""
        ...


class Folder:
    """One CSV file per series; each worker process reads its own, so all of them must see the folder."""

    no_ports: list[str] = []
    port_needs = ""

    def __init__(self, folder: str | Path) -> None:
        self._paths = list_series(folder)
        self.known_anomalies = read_anomalies(Path(folder) / "anomalies.txt")

    def names(self) -> list[str]:
        """In alphabetical order."""
        return list(self._paths)

    def newest(self, name: str) -> None:
        """Not known before the file is read."""
        return None

    def refusal(self, name: str) -> None:
        """Not known before the file is read."""
        return None

    def load(self, name: str, start: int, end: int) -> Path:
        """The file, with all its samples."""
        return self._paths[name].resolve()

    def now(self) -> None:
        """Nobody knows when a folder was recorded."""
        return None

    def store(self, anomalies: Sequence[PortAnomaly], incidents: Sequence[PortIncident]) -> None:
        """One JSON object a line on standard output."""
        for found in (*anomalies, *incidents):
            print(found.to_json())


class Database:
    """The measurement `port_traffic` of an InfluxDB. Errors of its client are not caught here.

    until: later samples do not count, seconds since 1970. limits: how much is read.
    """

    known_anomalies: list[KnownAnomaly] = []
    port_needs = f"{PORT_TRAFFIC} needs the tags device, port and direction (in or out)"

    def __init__(
        self,
        client: InfluxClient,
        db_name: str,
        measurement: str,
        until: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._client, self._db_name, self._measurement = client, db_name, measurement
        self._until, self._limits = until, limits
        now = self.now()
        self._ports: dict[str, Port] = {}
        self.no_ports: list[str] = []
        for port in list_ports(client, now - LISTED_SECONDS, now, limits):
            if is_port(port.tags):
                self._ports[port_name(**port.tags)] = port
            else:
                self.no_ports.append(repr(port.tags))
        unlisted = count_unlisted_ports(client, now - LISTED_SECONDS, now)
        self.no_ports += ["one with longer tags"] * unlisted
        if not self._ports:
            raise UnavailableError(
                f"InfluxDB has no {PORT_TRAFFIC} from the last 28 days with the tags device, port"
                " and direction (in or out); check --influx_db, or give --ports_dir",
                "no ports",
            )

    def names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(self._ports)

    def newest(self, name: str) -> int:
        """Time of its newest sample, seconds since 1970."""
        return self._ports[name].newest

    def refusal(self, name: str) -> UserError | None:
        """Why no sample can be used, if that is known without reading them."""
        fault = self._ports[name].fault
        return UserError(f"{name}: {fault}") if fault else None

    def load(self, name: str, start: int, end: int) -> Series | UserError:
        """The samples after `start` and up to `end`, read here, so that no worker needs the password."""
        if refusal := self.refusal(name):
            return refusal
        try:
            times, traffic = get_port_samples(self._client, self._ports[name].tags, start, end, self._limits)
        except UserError as error:
            return UserError(f"{name}: {error}")
        return Series(name, times, traffic)

    def now(self) -> int:
        """The time that was given as `until`, or else the clock's."""
        return self._until or int(time.time())

    def store(self, anomalies: Sequence[PortAnomaly], incidents: Sequence[PortIncident]) -> None:
        """Write one point each; a repetition changes nothing. Raises UserError if InfluxDB refuses some."""
        store_points(self._client, self._db_name, self._measurement, anomalies, incidents)


def store_points(
    client: InfluxClient,
    db_name: str,
    measurement: str,
    anomalies: Sequence[PortAnomaly],
    incidents: Sequence[PortIncident],
) -> None:
    """Write anomalies into `measurement`, and incidents. Raises UserError if InfluxDB refuses some."""
    # An incident that has opened and closed is one point.
    newest = {incident.key: incident for incident in incidents}
    points = [(measurement, verdict.time * 10**9, verdict.tags, verdict.fields) for verdict in anomalies]
    points += [(PORT_INCIDENTS, one.opened * 10**9, one.tags, one.fields) for one in newest.values()]
    refusal = insert_port_points(client, db_name, points)
    if refusal:
        raise UserError(
            f"InfluxDB refused anomalies ({refusal}); check the field types of {measurement}"
            f" and {PORT_INCIDENTS}"
        )


def is_port(tags: dict[str, str]) -> bool:
    """Whether a series can be queried in InfluxQL, and its model kept as a file."""
    device, port, direction = tags["device"], tags["port"], tags["direction"]
    return (
        direction in ("in", "out")
        and all(text and text.isprintable() for text in (device, port))
        and len(port_name(device, port, direction).encode()) <= MAX_NAME_BYTES
    )


def describe_no_ports(source: Source) -> str | None:
    """One line for all series that are not judged because they lack the tags of a port; None without any."""
    if not source.no_ports:
        return None
    return (
        f"{len(source.no_ports)} series are of no port and are not judged: {source.port_needs}, printable and"
        f" at most {MAX_NAME_BYTES} bytes together; there is {some_of(sorted(source.no_ports))}"
    )


def known_of(source: Source, name: str) -> list[KnownAnomaly]:
    """The known anomalies of this series, or of all series."""
    return [one for one in source.known_anomalies if one.series in (None, name)]


def samples_of(loaded: Loaded, name: str) -> Series:
    """Read and check what `load` returned. Raises UserError that names the series or its file."""
    if isinstance(loaded, UserError):
        raise loaded
    series = read_series(loaded) if isinstance(loaded, Path) else _checked(loaded, name)
    if len(series.times) and series.times[-1] > time.time() + DAY_SECONDS:
        newest = format_time(int(series.times[-1]) * 10**9)
        raise UserError(f"{name}: has a sample from {newest}, which is in the future; correct its time")
    return series


def _checked(loaded: Series, name: str) -> Series:
    """Raise UserError for bytes that no counter can have counted."""
    wrong = np.flatnonzero((loaded.traffic < 0) | (loaded.traffic >= TOO_MANY_BYTES))
    if len(wrong):
        moment = format_time(int(loaded.times[wrong[0]]) * 10**9)
        raise UserError(f"{name}: has {loaded.traffic[wrong[0]]:g} bytes at {moment}; delete that sample")
    return loaded
