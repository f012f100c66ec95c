"""Nobody gets in: TLS, secrets, names that try to break out, and inputs that nobody would write."""

from __future__ import annotations

import json
import math
import re
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from influxdb.exceptions import InfluxDBClientError

import formatters
import influx_utils
from common.files import UserError
from edge.datasets import loadDataset
from edge.samples import InfluxSource
from edge.source import SamplesOf
from edge.thresholds import load_thresholds
from influx_client import InfluxClient
from influx_utils import INFLUX_ERRORS, describe_error, initializeConnection
from lab import parts
from lab.influxd import Influxd
from lab.prometheus import PrometheusServer
from nodes.metrics import (
    CPU_SECONDS,
    DOWNLINK,
    MEMORY_FREE,
    MEMORY_TOTAL,
    RECEIVED,
    RX_CPU,
    TRANSMITTED,
    TX_CPU,
    UPLINK,
)
from nodes.node import getColumnNames, load_node
from nodes.series import Record, record_time
from tests.support.fuzzing import fuzzed, loaded_or_refused
from tests.support.influx import Database, connect, own
from tests.support.metrics import ANOMALY_FIELDS, THRESHOLD_KEYS
from tests.support.program import run_here

ROOT = Path(__file__).resolve().parents[2]

# --- TLS -----------------------------------------------------------------------------------------


def openssl(*arguments: object) -> None:
    subprocess.run(
        [parts.find("openssl"), *(str(word) for word in arguments)],
        check=True,
        capture_output=True,
        env=parts.environment(),
    )


def authority(folder: Path, name: str) -> Path:
    """A certificate authority; its key lies beside it."""
    certificate = folder / f"{name}.pem"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name}"),
        *("-keyout", folder / f"{name}.key", "-out", certificate),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return certificate


def signed(folder: Path, ca: Path, alternative: str) -> Path:
    """A server's certificate and key in one file, signed by `ca` for this name."""
    request, key, extensions = (folder / name for name in ("server.csr", "server.key", "extensions"))
    extensions.write_text(f"subjectAltName={alternative}\nkeyUsage=critical,digitalSignature\n")
    openssl(
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=influxdb",
        "-keyout",
        key,
        "-out",
        request,
    )
    openssl(
        *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca.with_suffix(".key"), "-CAcreateserial"),
        *("-days", 2, "-extfile", extensions, "-out", folder / "server.crt"),
    )
    both = folder / f"server_{alternative.replace(':', '_')}.pem"
    both.write_text((folder / "server.crt").read_text() + key.read_text())
    return both


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that is trusted, and another one."""
    folder = tmp_path_factory.mktemp("ca")
    return authority(folder, "trusted"), authority(folder, "other")


@pytest.fixture(scope="module")
def encrypted(authorities: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server that speaks TLS, as 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    with Influxd(folder, certificate=signed(folder, authorities[0], "IP:127.0.0.1")) as server:
        yield server


def refusal(client: InfluxClient) -> str:
    with pytest.raises(INFLUX_ERRORS) as caught:
        influx_utils.database_names(client)
    return describe_error(caught.value, "127.0.0.1:8086", "edge")


def test_a_server_that_proves_who_it_is_is_spoken_to(
    encrypted: Influxd, authorities: tuple[Path, Path]
) -> None:
    client = initializeConnection("127.0.0.1", encrypted.port, "", "", True, str(authorities[0]))
    client.create_database("edge")
    assert "edge" in (influx_utils.database_names(client) or ())


@pytest.mark.parametrize("is_other", [True, False], ids=["another authority", "a public one"])
def test_a_server_that_cannot_prove_who_it_is_is_not(
    encrypted: Influxd, authorities: tuple[Path, Path], is_other: bool
) -> None:
    ca_file = str(authorities[1]) if is_other else None
    line = refusal(initializeConnection("127.0.0.1", encrypted.port, "", "", True, ca_file))
    assert line.startswith("InfluxDB at 127.0.0.1:8086 did not prove its identity by TLS (")
    assert "certificate verify failed" in line
    assert line.endswith("check --influx_ssl and --influx_ca")
    assert "\n" not in line


def test_a_certificate_for_another_host_is_no_proof(authorities: tuple[Path, Path], tmp_path: Path) -> None:
    certificate = signed(tmp_path, authorities[0], "DNS:elsewhere")
    with Influxd(tmp_path / "influxd", certificate=certificate) as server:
        client = initializeConnection("127.0.0.1", server.port, "", "", True, str(authorities[0]))
        assert "did not prove its identity" in refusal(client)


def test_prometheus_has_to_prove_who_it_is(authorities: tuple[Path, Path], tmp_path: Path) -> None:
    certificate = signed(tmp_path, authorities[0], "IP:127.0.0.1")
    encryption = ["-tls", f"-tlsCertFile={certificate}", f"-tlsKeyFile={certificate}"]
    with PrometheusServer(tmp_path / "server", "victoria-metrics", encryption) as server:
        url = server.url.replace("http:", "https:")
        options = ["--mode=test", "--once", "--source=prometheus", f"--prometheus_url={url}"]
        said = []
        for ca in authorities:
            given = [*options, f"--prometheus_ca={ca}", f"--state_dir={tmp_path}"]
            done = run_here(*given, cwd=ROOT, environment={})
            assert done.returncode == 1
            said.append(done.stderr.splitlines()[-1])
    assert said[0] == (
        f"find_anomalies.py: {url}: no recent sample of this node in the database; check the exporters,"
        " --prometheus_url and --node_file"
    )
    assert said[1].startswith(f"find_anomalies.py: Prometheus at {url} did not prove its identity by TLS (")


def test_the_options_reach_the_client(
    encrypted: Influxd, authorities: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ["--mode=test", "--once", "--influx_ssl", f"--state_dir={tmp_path}"]
    options += [f"--influx_port={encrypted.port}", "--influx_host=127.0.0.1"]
    said = []
    for ca in authorities:
        done = run_here(*options, f"--influx_ca={ca}", cwd=ROOT, environment={})
        assert done.returncode == 1
        said.append(done.stderr.splitlines()[-1])
    assert "no recent sample of this node" in said[0]
    assert "did not prove its identity" in said[1]


def test_a_ca_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    options = ["--mode=test", "--once", "--influx_ssl", f"--influx_ca={tmp_path / 'none.pem'}"]
    done = run_here(*options, f"--state_dir={tmp_path}", cwd=ROOT, environment={})
    assert (done.returncode, done.stderr) == (
        1,
        f"find_anomalies.py: {tmp_path / 'none.pem'}: no such file; check --influx_ca\n",
    )


# --- secrets -------------------------------------------------------------------------------------

SECRET = "s3cret-Passw0rd"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "no.such.host.invalid", "127.0.0.1/x?", "a..b", f"edge:{SECRET}@127.0.0.1"]
)
def test_the_password_is_nowhere_to_be_read(host: str, guarded: Influxd, tmp_path: Path) -> None:
    for password in (SECRET, SECRET + "x"):
        environment = {
            "INFLUX_HOST": host,
            "INFLUX_PORT": str(guarded.port),
            "INFLUX_USER": "edge",
            "INFLUX_PASS": password,
            "FIND_ANOMALIES_STATE_DIR": str(tmp_path / "state"),
        }
        done = run_here("--mode=test", "--once", cwd=ROOT, environment=environment)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) <= 3
        kept = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("*"))
        assert SECRET not in done.stdout + done.stderr
        assert SECRET.encode() not in kept


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server that asks for a password."""
    with Influxd(tmp_path_factory.mktemp("guarded"), auth=True) as server:
        with connect(server) as client:
            client.query(f"CREATE USER edge WITH PASSWORD '{SECRET}' WITH ALL PRIVILEGES", method="POST")
        yield server


# --- names ---------------------------------------------------------------------------------------

HOSTILE = [
    "a'; DROP DATABASE edge; --",
    'a" ; DROP MEASUREMENT "m"; --',
    "a\\' OR 1=1 --",
    "a,possible_cause=forged",
    "a b=1 \\0",
    "a=b, c=d",
    "ü€🙂",
    "' OR time > 0 OR 'x'='",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_names_of_a_node_file_select_their_series_and_nothing_else(
    name: str, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "node.json"
    file.write_text(
        json.dumps({"cpus": [name], "interfaces": [name], "cell_id": name, "node_instance": name})
    )
    node = load_node(file)
    now = 1_772_798_400 * 10**9
    # The client of Python doubles each backslash, others do not.
    tag = re.sub(r"[ ,=]", r"\\\g<0>", name)
    lines = [
        f"{CPU_SECONDS},cpu={cpu},mode=user,instance={cpu} value={value} {now}"
        for cpu, value in ((tag, 1.0), ("another", 2.0))
    ]
    database.client.write_points(lines, protocol="line")
    found = (
        InfluxSource(database.own, "", database.name).get_samples(SamplesOf(node, now - 1, now + 1)).points
    )
    assert [point["value"] for point in found[CPU_SECONDS]] == [1.0]
    assert {"name": database.name} in database.client.get_list_database()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_names_of_a_point_make_one_series_and_nothing_else(name: str, database: Database) -> None:
    point = influx_utils.anomaly_point(name, 10**9, dict.fromkeys(ANOMALY_FIELDS, 1.5), name, name, name)
    assert influx_utils.write_points(database.own, database.name, [point]) is None
    (series,) = database.client.query("SHOW SERIES CARDINALITY").get_points() or [{"count": 1}]
    measurements = [row["name"] for row in database.client.get_list_measurements()]
    assert len(measurements) == 1
    tags = {row["tagKey"] for row in database.client.query("SHOW TAG KEYS").get_points()}
    assert tags == {"possible_cause", "severity", "instance"}
    assert series


@pytest.mark.parametrize("name", [name for name in HOSTILE if not set(name) & set("/\\")])
def test_the_name_of_a_database_is_one_name(name: str, tmp_path: Path) -> None:
    with Influxd(tmp_path) as server, connect(server) as client:
        client.create_database("edge")
        influx_utils.check_names(name, "detected_anomalies")
        influx_utils.checkDatabase(own(client), name)
        assert {row["name"] for row in client.get_list_database()} == {"edge", name}


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "a\nb", "a\x00"])
def test_a_name_that_no_database_can_have_is_refused_as_influxdb_does(name: str, influxd: Influxd) -> None:
    with connect(influxd) as client, pytest.raises(InfluxDBClientError):
        client.create_database(name)
    with pytest.raises(UserError, match="^--influx_db .* is not a valid database name; use letters"):
        influx_utils.check_names(name, "detected_anomalies")


@pytest.mark.parametrize("name", ["a\\", "a\nb", "a\x00"])
def test_a_name_that_no_measurement_should_have_is_refused(name: str) -> None:
    with pytest.raises(
        UserError, match="^--influx_measurement .* is not a valid measurement name; use letters"
    ):
        influx_utils.check_names("edge", name)


# --- fuzz ----------------------------------------------------------------------------------------

numbers = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70).map(float),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308]),
)
times = st.integers(0, 2**63 - 1)


def point_of(**tags: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries({"time": times, "value": numbers, **tags})


records = st.fixed_dictionaries(
    {},
    optional={
        CPU_SECONDS: st.lists(
            point_of(cpu=st.sampled_from("012"), mode=st.sampled_from(["user", "idle"])), max_size=4
        ),
        MEMORY_FREE: st.lists(point_of(), max_size=2),
        MEMORY_TOTAL: st.lists(point_of(), max_size=2),
        RECEIVED: st.lists(point_of(device=st.sampled_from(["enp1s0", "x"])), max_size=4),
        TRANSMITTED: st.lists(point_of(device=st.sampled_from(["ppp0", "x"])), max_size=4),
        RX_CPU: st.lists(point_of(), max_size=2),
        TX_CPU: st.lists(point_of(), max_size=2),
        DOWNLINK: st.lists(point_of(cellId=st.sampled_from("12")), max_size=3),
        UPLINK: st.lists(point_of(cellId=st.sampled_from("12")), max_size=3),
    },
)


@fuzzed
@given(st.lists(records, min_size=1, max_size=3))
def test_fuzzed_samples_become_columns_and_nothing_else(chain: list[Record]) -> None:
    last_record: Record = {}
    for record in chain:
        columns, last_record = formatters.format_record(record, last_record)
        assert list(columns) == list(getColumnNames())
        assert all(isinstance(value, float) for value in columns.values())
        for start, slot in formatters.slot_records(record, 15.0):
            assert start <= record_time(slot) < start + 15 * 10**9


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
thresholds_files = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from([*THRESHOLD_KEYS, "cpu"]), json_values, max_size=5).map(
        lambda content: json.dumps(content).encode()
    ),
    st.text(string.printable, max_size=60).map(str.encode),
)


@fuzzed
@given(thresholds_files)
@example(b'{"cpu_threshold": 1' + 400 * b"0" + b"}")
@example(100_000 * b"[")
def test_a_fuzzed_thresholds_file_is_loaded_or_refused_in_one_line(content: bytes) -> None:
    thresholds = loaded_or_refused(load_thresholds, content, ".json")
    if thresholds is not None:
        assert set(thresholds) == set(THRESHOLD_KEYS)
        assert all(0 <= value < math.inf for value in thresholds.values())


cells = st.one_of(
    st.sampled_from(
        ["", "nan", "1", "-1.5", "1e400", "2021-01-12T09:13:15Z", "0x1", "1_0", '"', "'", "\x00"]
    ),
    st.text(max_size=6),
    st.floats().map(str),
)
HEADER = ",".join(["time", *getColumnNames()])
datasets = st.one_of(
    st.binary(max_size=80),
    st.lists(st.lists(cells, max_size=4), max_size=4).map(
        lambda rows: "\n".join([HEADER, *(",".join(row) for row in rows)]).encode(errors="surrogatepass")
    ),
    st.lists(st.tuples(st.datetimes(), st.lists(cells, min_size=25, max_size=27)), max_size=4).map(
        lambda rows: "\n".join(
            [HEADER, *(",".join([f"{moment:%Y-%m-%dT%H:%M:%SZ}", *row]) for moment, row in rows)]
        ).encode(errors="surrogatepass")
    ),
)


@fuzzed
@given(datasets)
def test_a_fuzzed_dataset_is_loaded_or_refused_in_one_line(content: bytes) -> None:
    frame = loaded_or_refused(loadDataset, content, ".csv")
    if frame is not None:
        assert len(frame) >= 2
        assert frame.index.is_monotonic_increasing
        assert not np.isinf(frame.to_numpy(dtype=float)).any()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@fuzzed
@given(
    st.lists(numbers, min_size=8, max_size=8), st.integers(-(2**63), 2**63 - 1), names, names, names, names
)
def test_a_fuzzed_anomaly_is_stored_or_refused_and_forges_nothing(
    database: Database,
    values: list[float],
    moment: int,
    measurement: str,
    cause: str,
    severity: str,
    instance: str,
) -> None:
    named = dict(zip(ANOMALY_FIELDS, values, strict=True))
    point = influx_utils.anomaly_point(measurement, moment, named, cause, severity, instance)
    finite = {name for name, value in named.items() if math.isfinite(value)}
    if point is None:
        assert not finite
        return
    assert set(point["fields"]) == finite
    refusal = influx_utils.write_points(database.own, database.name, [point])
    assert refusal is None or len(refusal.reason.splitlines()) == 1
    tags = {row["tagKey"] for row in database.client.query("SHOW TAG KEYS").get_points()}
    assert tags <= {"possible_cause", "severity", "instance"}
    for (name, _), _ in database.client.query("SHOW MEASUREMENTS").items():
        assert name == "measurements"
