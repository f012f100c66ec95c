"""A client of a test's InfluxDB server, and a database of its own for each test."""

from __future__ import annotations

from typing import NamedTuple

import requests
from influxdb import InfluxDBClient

from lab.influxd import Influxd


class Database(NamedTuple):
    """A client that has the database `name` selected."""

    client: InfluxDBClient
    name: str


def connect(server: Influxd, **options: object) -> InfluxDBClient:
    """A client of `server` with the options of InfluxDBClient; by default one attempt of 30 s."""
    session = requests.Session()
    # An empty `proxies` alone still lets requests take HTTP_PROXY and .netrc from the environment.
    session.trust_env = False
    options = {"timeout": 30, "retries": 1, "proxies": {}, "session": session} | options
    return InfluxDBClient(server.host, server.port, **options)
