"""One real InfluxDB server for all tests, and a fresh database for each that asks."""

from __future__ import annotations

import contextlib
import signal
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import requests
from influxdb import InfluxDBClient

from lab.influxd import Influxd

# A shell has what it runs in the background ignore SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Their assertions show values, as those of the tests do.
pytest.register_assert_rewrite("edge", "fuzzing")


class Database(NamedTuple):
    """A client that has the database `name` selected."""

    client: InfluxDBClient
    name: str


def connect(server: Influxd, **options: object) -> InfluxDBClient:
    """A client of `server` with the options of InfluxDBClient; by default one attempt of 5 s."""
    session = requests.Session()
    # An empty `proxies` alone still lets requests take HTTP_PROXY and .netrc from the environment.
    session.trust_env = False
    options = {"timeout": 5, "retries": 1, "proxies": {}, "session": session} | options
    return InfluxDBClient(server.host, server.port, **options)


@contextlib.contextmanager
def little_memory(most_bytes: int) -> Iterator[None]:
    """What is inside the `with` takes at most this, at any moment, whatever was taken before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= most_bytes
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """The server that all tests share: a test that stops or pauses one starts its own."""
    server = Influxd(tmp_path_factory.mktemp("influxd"))
    try:
        server.start()
    except FileNotFoundError as error:
        pytest.fail(str(error), pytrace=False)
    with server:
        yield server


@pytest.fixture
def database(influxd: Influxd) -> Iterator[Database]:
    """A client and a new, empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    with connect(influxd) as client:
        client.create_database(name)
        client.switch_database(name)
        yield Database(client, name)
        client.drop_database(name)
