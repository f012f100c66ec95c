"""The real server that the other tests stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import requests
from influxdb.exceptions import InfluxDBClientError

import lab.influxd
from lab.influxd import Influxd
from lab.parts import find
from tests.support.influx import Database, connect

POINT = [{"measurement": "cpu", "time": "2021-01-12T09:13:15Z", "fields": {"value": 98.3}}]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("turn", [1, 2])
def test_database_is_new_and_dropped_afterwards(database: Database, turn: int) -> None:
    database.client.write_points(POINT)
    assert list(database.client.query("SELECT value FROM cpu").get_points()) == [
        {"time": "2021-01-12T09:13:15Z", "value": 98.3}
    ]
    names = [row["name"] for row in database.client.get_list_database()]
    assert [name for name in names if name.startswith("test_")] == [database.name]


def test_clients_ignore_a_proxy_of_the_environment(influxd: Influxd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with connect(influxd) as client:
        assert client.ping().startswith("1.")


@pytest.mark.parametrize("end", [Influxd.stop, Influxd.kill])
def test_restart_keeps_port_and_data(tmp_path: Path, end) -> None:
    with Influxd(tmp_path) as server, connect(server, database="db") as client:
        client.create_database("db")
        client.write_points(POINT)
        port, first_pid = server.port, server.pid
        end(server)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.ping()
        server.start()
        assert (server.port, server.pid == first_pid) == (port, False)
        assert len(list(client.query("SELECT value FROM cpu").get_points())) == 1


def test_ended_with_the_block_even_when_paused(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Influxd(tmp_path) as server:
        pid = server.pid
        server.pause()
        raise ZeroDivisionError
    assert not is_alive(pid)
    with pytest.raises(RuntimeError, match="not running"):
        server.pid  # noqa: B018


def test_ended_with_the_interpreter(tmp_path: Path) -> None:
    code = "import pathlib, sys; from lab.influxd import Influxd\n"
    code += "server = Influxd(pathlib.Path(sys.argv[1])); server.start(); print(server.pid); 1 / 0"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(lab.influxd.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert "ZeroDivisionError" in done.stderr
    assert not is_alive(int(done.stdout))


def test_paused_server_hangs_until_resumed(tmp_path: Path) -> None:
    with Influxd(tmp_path) as server, connect(server) as client, connect(server, timeout=0.2) as hasty:
        server.pause()
        with pytest.raises(requests.exceptions.ReadTimeout):
            hasty.ping()
        server.resume()
        assert client.ping().startswith("1.")


def test_auth_refuses(tmp_path: Path) -> None:
    with Influxd(tmp_path, auth=True) as server:
        with connect(server) as client:
            client.create_user("admin", "secret", admin=True)
        with (
            connect(server, username="admin", password="wrong") as client,
            pytest.raises(InfluxDBClientError) as refusal,
        ):
            client.get_list_database()
        assert refusal.value.code == 401
        with connect(server, username="admin", password="secret") as client:
            assert client.get_list_database() == []


def test_a_port_taken_meanwhile_is_replaced(
    tmp_path: Path, influxd: Influxd, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = lab.influxd.free_port
    offered = [influxd.port]
    monkeypatch.setattr(lab.influxd, "free_port", lambda host: offered.pop() if offered else free_port(host))
    with Influxd(tmp_path) as server:
        assert not offered
        assert server.port != influxd.port


def test_missing_binary_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(lab.influxd, "find", partial(find, unpacked=tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        Influxd(tmp_path / "server").start()
    assert str(error.value) == "influxd is missing: run lab/get_parts.sh or apt-get install influxdb"
    assert not (tmp_path / "server").exists()


def test_a_server_that_cannot_start_gives_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(RuntimeError, match=r"did not start, see .*influxd\.log: run: .*not a directory"):
        Influxd(tmp_path).start()
