"""Make a client of InfluxDB from the options."""

from __future__ import annotations

import argparse

import influx_utils
from common.files import UserError, is_there, read_file
from influx_client import InfluxClient

# The certificates of all public authorities together have a quarter of a MB.
CA_BYTES = 10_000_000


def connect(
    options: argparse.Namespace, measurement: str, timeout_seconds: float | None = None
) -> tuple[str, InfluxClient]:
    """The server as messages name it (host:port), and a client for it, with a time limit of an answer."""
    influx_utils.check_names(options.influx_db, measurement)
    if options.influx_ca:
        # It is not ignored in the environment, either: whoever sets it wants TLS.
        if not options.influx_ssl:
            raise UserError("--influx_ca is for TLS; give --influx_ssl as well")
        check_ca(options.influx_ca, "--influx_ca")
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


def check_ca(filename: str, option: str) -> None:
    """Raise UserError if the file that an option names has no certificate."""
    if not is_there(filename):
        raise UserError(f"{filename}: no such file; check {option}")
    read_file(filename, CA_BYTES)
    import ssl

    try:
        ssl.create_default_context(cafile=filename)
    except OSError as error:
        raise UserError(f"{filename}: has no certificate in PEM format ({error}); check {option}") from None
