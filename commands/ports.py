"""The commands of the ports half: train and test."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import influx_utils
from commands.influx import connect
from commands.options import PORT_DETECTORS
from common.files import UserError
from ports.samples import PORT_ANOMALIES

if TYPE_CHECKING:
    from ports.sources import Source


def run_ports_train(options: argparse.Namespace) -> None:
    """--target ports --mode train: the nightly job; --evaluate compares all detectors after it."""
    from ports import comparison, jobs, preparation

    training = jobs.Training(
        detectors=_port_detectors(options),
        preparation=options.preprocess,
        minutes=options.bucket_minutes or preparation.PREPARATIONS[options.preprocess].minutes,
        zone=options.timezone,
        train_days=options.train_days,
        until=options.until,
    )
    cluster = jobs.Cluster(options.jobs, options.scheduler)
    with _port_faults(options):
        source = _port_source(options, PORT_ANOMALIES)
        failed = jobs.train(source, training, cluster, options.ports_models)
        if options.evaluate:
            failed |= comparison.compare(source, training, cluster, options.plot_dir)
    if failed:
        raise UserError(f"{len(failed)} series could not be learnt from; the log says why")


def run_ports_test(options: argparse.Namespace) -> None:
    """--target ports --mode test: the hourly job, once or for ever."""
    from ports import hourly, jobs

    settings = hourly.Settings(
        models=options.ports_models,
        detectors=_port_detectors(options),
        until=options.until,
        cluster=jobs.Cluster(options.jobs, options.scheduler),
        # What a folder holds is judged from the training on, as often as it is asked for.
        judged_file=None if options.ports_dir else Path(options.state_dir) / "ports.json",
        plot_dir=options.plot_dir,
        once=options.once,
    )
    hourly.run(
        settings,
        lambda: _port_source(options, options.influx_measurement),
        lambda: _port_faults(options),
    )


def _port_detectors(options: argparse.Namespace) -> tuple[str, ...]:
    return PORT_DETECTORS if options.detector == "all" else (options.detector,)


def _port_source(options: argparse.Namespace, measurement: str) -> Source:
    """The folder --ports_dir, or InfluxDB, whose `measurement` anomalies are stored in."""
    from ports import sources

    if options.ports_dir:
        return sources.Folder(options.ports_dir)
    _, client = connect(options, measurement)
    client.switch_database(options.influx_db)
    return sources.Database(client, options.influx_db, measurement, options.until)


@contextlib.contextmanager
def _port_faults(options: argparse.Namespace) -> Iterator[None]:
    """What InfluxDB raises inside the `with` becomes an UnavailableError."""
    from ports import sources

    try:
        yield
    except influx_utils.INFLUX_ERRORS as error:
        server = f"{options.influx_host}:{options.influx_port}"
        line = influx_utils.describe_error(error, server, options.influx_db)
        raise sources.UnavailableError(line) from None
