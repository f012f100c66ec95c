"""Make a client of InfluxDB from the options."""

from __future__ import annotations

import argparse
import ssl
from typing import TYPE_CHECKING

import influx_utils
from common.files import UserError, is_there, read_file

if TYPE_CHECKING:
    from influxdb import InfluxDBClient

# The certificates of all public authorities together have a quarter of a MB.
CA_BYTES = 10_000_000


def connect(
    options: argparse.Namespace, measurement: str, timeout_seconds: float | None = None
) -> tuple[str, InfluxDBClient]:
    """The server as messages name it (host:port), and a client for it, with a time limit of an answer."""
    influx_utils.check_names(options.influx_db, measurement)
    if options.influx_ca:
        _check_ca(options)
    client = influx_utils.initializeConnection(
        options.influx_host,
        options.influx_port,
        options.influx_user,
        options.influx_pass,
        options.influx_ssl,
        options.influx_ca,
        timeout_seconds,
    )
    return f"{options.influx_host}:{options.influx_port}", client


def _check_ca(options: argparse.Namespace) -> None:
    # It is not ignored in the environment, either: whoever sets it wants TLS.
    if not options.influx_ssl:
        raise UserError("--influx_ca is for TLS; give --influx_ssl as well")
    if not is_there(options.influx_ca):
        raise UserError(f"{options.influx_ca}: no such file; check --influx_ca")
    read_file(options.influx_ca, CA_BYTES)
    try:
        ssl.create_default_context(cafile=options.influx_ca)
    except OSError as error:
        raise UserError(
            f"{options.influx_ca}: has no certificate in PEM format ({error}); check --influx_ca"
        ) from None
