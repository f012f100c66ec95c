"""One real InfluxDB server for all tests, and a fresh database for each that asks."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest

from lab.influxd import Influxd
from tests.support.influx import Database, connect

# A shell has what it runs in the background ignore SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Their assertions show values, as those of the tests do.
pytest.register_assert_rewrite("tests.support.edge_daemon", "tests.support.fuzzing", "tests.support.refusals")


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the workers end at about the same time.

    Tests that need the machine for themselves are in tests/lab, where `make test` looks for them.
    """
    for item in items:
        if item.get_closest_marker("alone") and not item.nodeid.startswith("tests/lab/"):
            raise pytest.UsageError(f"{item.nodeid} is alone: move it to tests/lab")
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
