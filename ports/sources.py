"""Where the samples of ports come from and anomalies go to: a folder and standard output, or InfluxDB."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

import influx_utils
from ports.series import (
    DAY_SECONDS,
    TOO_MANY_BYTES,
    Anomaly,
    Series,
    list_series,
    read_anomalies,
    read_series,
    series_name,
)
from ports.verdicts import Verdict
from utils import UserError, format_time

if TYPE_CHECKING:
    from influxdb import InfluxDBClient


logger = logging.getLogger("find_anomalies")

# A port that has had no sample for so long has gone.
LISTED_SECONDS = 28 * DAY_SECONDS


# What a worker process makes the samples of a series of: a file, the samples, or why there are none.
Loaded = Path | Series | UserError


class Source(Protocol):
    """Names of series, and of each what a worker process can make its samples of."""

    known_anomalies: list[Anomaly]

    def names(self) -> list[str]: ...

    def newest(self, name: str) -> int | None: ...

    def load(self, name: str, start: int, end: int) -> Loaded: ...

    def now(self) -> int | None: ...

    def store(self, anomalies: Sequence[Verdict]) -> None: ...


class Folder:
    """One CSV file per series; each worker process reads its own, so all of them must see the folder."""

    def __init__(self, folder: str | Path) -> None:
        self._paths = list_series(folder)
        self.known_anomalies = read_anomalies(Path(folder) / "anomalies.txt")

    def names(self) -> list[str]:
        """In alphabetical order."""
        return list(self._paths)

    def newest(self, name: str) -> None:
        """Not known before the file is read."""
        return None

    def load(self, name: str, start: int, end: int) -> Path:
        """The file, with all that there is in it."""
        return self._paths[name].resolve()

    def now(self) -> None:
        """Nobody knows when a folder was recorded."""
        return None

    def store(self, anomalies: Sequence[Verdict]) -> None:
        """One JSON object a line on standard output."""
        for verdict in anomalies:
            print(verdict.to_json())


class Database:
    """The measurement `port_traffic` of an InfluxDB. What its client raises is not caught here.

    until: no later sample counts, seconds since 1970.
    """

    known_anomalies: list[Anomaly] = []

    def __init__(
        self, client: InfluxDBClient, db_name: str, measurement: str, until: int | None = None
    ) -> None:
        self._client, self._db_name, self._measurement = client, db_name, measurement
        self._until = until
        now = self.now()
        self._ports: dict[str, tuple[dict[str, str], int]] = {}
        for tags, newest in influx_utils.list_ports(client, now - LISTED_SECONDS, now):
            if tags["device"] and tags["port"] and tags["direction"] in ("in", "out"):
                name = series_name(tags["device"], tags["port"], tags["direction"])
                self._ports[name] = tags, newest
            else:
                logger.warning("%s: not judged: a device, a port, and in or out are needed", tags)
        if not self._ports:
            raise UserError(
                f"InfluxDB has no {influx_utils.PORT_TRAFFIC} of the last 28 days with the tags device, port"
                " and direction (in or out); check --influx_db, or give --ports_dir"
            )

    def names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(self._ports)

    def newest(self, name: str) -> int:
        """Time of its newest sample, seconds since 1970."""
        return self._ports[name][1]

    def load(self, name: str, start: int, end: int) -> Series | UserError:
        """The samples after `start` and up to `end`, read in this process: no worker needs the password."""
        try:
            times, traffic = influx_utils.get_port_samples(self._client, self._ports[name][0], start, end)
        except ValueError as error:
            return UserError(f"{name}: holds what is no number ({error}); delete it")
        return Series(name, times, traffic)

    def now(self) -> int:
        """The clock's, or what was given for it."""
        return self._until or int(time.time())

    def store(self, anomalies: Sequence[Verdict]) -> None:
        """One point each; storing them again changes nothing. Raises UserError for what InfluxDB refuses."""
        points = [(verdict.time * 10**9, verdict.tags, verdict.fields) for verdict in anomalies]
        refusal = influx_utils.insert_port_anomalies(self._client, self._db_name, self._measurement, points)
        if refusal:
            raise UserError(f"InfluxDB refused anomalies ({refusal}); check the types of {self._measurement}")


def known_of(source: Source, name: str) -> list[Anomaly]:
    """What is known to have been wrong with this series, or with all."""
    return [one for one in source.known_anomalies if one.series in (None, name)]


def samples_of(loaded: Loaded, name: str) -> Series:
    """What `load` gave, read and checked. Raises UserError, naming the series or its file."""
    if isinstance(loaded, UserError):
        raise loaded
    series = read_series(loaded) if isinstance(loaded, Path) else _checked(loaded, name)
    if len(series.times) and series.times[-1] > time.time() + DAY_SECONDS:
        newest = format_time(int(series.times[-1]) * 10**9)
        raise UserError(f"{name}: has a sample of {newest}, which is still to come; correct its time")
    return series


def _checked(loaded: Series, name: str) -> Series:
    """Raise UserError for what no counter counts."""
    wrong = np.flatnonzero((loaded.traffic < 0) | (loaded.traffic >= TOO_MANY_BYTES))
    if len(wrong):
        moment = format_time(int(loaded.times[wrong[0]]) * 10**9)
        raise UserError(f"{name}: has {loaded.traffic[wrong[0]]:g} bytes at {moment}; delete that sample")
    return loaded
