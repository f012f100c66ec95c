"""A client of a test's InfluxDB server, and a database of its own for each test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import requests
from influxdb import InfluxDBClient

from influx_client import InfluxClient
from influx_utils import initializeConnection
from lab.influxd import Influxd


@dataclass(frozen=True)
class Database:
    """A client that has the database `name` selected, with which a test writes and looks."""

    client: InfluxDBClient
    name: str

    @cached_property
    def own(self) -> InfluxClient:
        """The program's own client, with the same database."""
        return own(self.client)


def connect(server: Influxd, **options: object) -> InfluxDBClient:
    """A client of `server` with the options of InfluxDBClient; by default one attempt of 30 s."""
    session = requests.Session()
    # An empty `proxies` alone still lets requests take HTTP_PROXY and .netrc from the environment.
    session.trust_env = False
    options = {"timeout": 30, "retries": 1, "proxies": {}, "session": session} | options
    return InfluxDBClient(server.host, server.port, **options)


def own(client: InfluxDBClient) -> InfluxClient:
    """The program's own client of the server, the user and the database of a test's client."""
    made = initializeConnection(
        client._host, client._port, client._username, client._password, timeout_seconds=client._timeout
    )
    if client._database:
        made.switch_database(client._database)
    return made


def asked_by(client: InfluxClient) -> list[str]:
    """The paths of the requests that the program's client sends from now on, with what is asked there."""
    asked: list[str] = []
    ask = client._connection.ask

    def noted(method: str, target: str, *more: object) -> object:
        asked.append(target)
        return ask(method, target, *more)

    client._connection.ask = noted
    return asked
