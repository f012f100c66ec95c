"""Where samples are read, and where anomalies go, by the options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from commands.influx import check_ca, connect
from commands.options import EDGE_ANOMALIES, INFLUXDB, METRICS_ALONE, PROMETHEUS
from common.files import UserError
from edge.samples import InfluxSource
from edge.source import SampleSource
from edge.survey import InfluxSurveyor
from influx_client import InfluxClient
from nodes.node import Node
from nodes.survey import SURVEY_TIMEOUT_SECONDS, Surveyor

if TYPE_CHECKING:
    from ports.prometheus_source import Stored
    from ports.sources import Source
    from prometheus_utils import Prometheus


def edge_source(options: argparse.Namespace, *nodes: Node) -> SampleSource:
    """Where the samples of nodes are read. Raises UserError for options that cannot be used."""
    if options.source == PROMETHEUS:
        from edge.prometheus_samples import PrometheusSource, check_node

        for node in nodes:
            check_node(node)
        return PrometheusSource(prometheus_client(options))
    server, client = connect(options, EDGE_ANOMALIES)
    client.switch_database(options.influx_db)
    return InfluxSource(client, server, options.influx_db)


def surveyor(options: argparse.Namespace, timeout_seconds: float | None = None) -> Surveyor:
    """What looks into the database, with a time limit of an answer, by default SURVEY_TIMEOUT_SECONDS.

    Raises UserError for options that cannot be used.
    """
    timeout_seconds = timeout_seconds or SURVEY_TIMEOUT_SECONDS
    if options.source == PROMETHEUS:
        from edge.prometheus_survey import PrometheusSurveyor

        return PrometheusSurveyor(prometheus_client(options, timeout_seconds))
    server, client = connect(options, EDGE_ANOMALIES, timeout_seconds)
    client.switch_database(options.influx_db)
    return InfluxSurveyor(client, server, options.influx_db, timeout_seconds)


def prometheus_client(options: argparse.Namespace, timeout_seconds: float | None = None) -> Prometheus:
    """A client of Prometheus. Raises UserError for options that cannot be used."""
    from prometheus_utils import PROMETHEUS_SECONDS, Prometheus

    if options.prometheus_ca:
        if not options.prometheus_url.startswith("https:"):
            raise UserError("--prometheus_ca is for TLS; --prometheus_url must then begin with https://")
        check_ca(options.prometheus_ca, "--prometheus_ca")
    return Prometheus(
        options.prometheus_url,
        options.prometheus_user,
        options.prometheus_pass,
        options.prometheus_ca,
        timeout_seconds or PROMETHEUS_SECONDS,
    )


def anomaly_store(options: argparse.Namespace) -> tuple[str, InfluxClient | None]:
    """The server that stores anomalies, as messages name it, and a client for it.

    None means that they are in the service's own metrics alone. Raises UserError if nobody could see them.
    """
    if options.source == INFLUXDB or options.anomalies != METRICS_ALONE:
        # It is loaded when the first point is written; that it is missing is said now.
        if find_spec("influxdb") is None:
            raise ModuleNotFoundError(name="influxdb")
        return connect(options, options.influx_measurement)
    if options.metrics_port is None and not options.once:
        raise UserError(
            "nobody would see anomalies: give --metrics_port, to have them in the service's own metrics, or"
            " --anomalies influxdb"
        )
    return "", None


def port_source(options: argparse.Namespace, measurement: str, stored: Stored | None = None) -> Source:
    """Where the samples of ports are read: the folder --ports_dir, Prometheus, or InfluxDB.

    stored: stores what is found in samples of Prometheus. measurement: InfluxDB stores anomalies there.
    """
    from ports import prometheus_source, sources

    if options.ports_dir:
        return sources.Folder(options.ports_dir)
    if options.source == PROMETHEUS:
        return prometheus_source.PrometheusPorts(prometheus_client(options), stored, options.until)
    _, client = connect(options, measurement)
    client.switch_database(options.influx_db)
    return sources.Database(client, options.influx_db, measurement, options.until)


def port_store(options: argparse.Namespace) -> Stored | None:
    """What stores the anomalies of ports in samples of Prometheus; None without it."""
    from ports import sources

    if options.ports_dir or options.source != PROMETHEUS:
        return None
    _, client = anomaly_store(options)
    return client and partial(sources.store_points, client, options.influx_db, options.influx_measurement)


def expected_store(options: argparse.Namespace) -> Callable[[Sequence[bytes]], str | None] | None:
    """What stores what is expected of ports; None without --store_expected, or a database."""
    from ports import expected

    if not options.store_expected or options.ports_dir:
        return None
    _, client = anomaly_store(options)
    return client and partial(expected.store_expected, client, options.influx_db)
