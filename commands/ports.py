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
from service import loop
from service.systemd import Ending

if TYPE_CHECKING:
    from ports.sources import Source


def run_ports_train(options: argparse.Namespace) -> None:
    """Run --target ports --mode train, the nightly job; --evaluate then compares all detectors."""
    from ports import calendars, comparison, devices, parallel, preparation, training

    settings = training.TrainingSettings(
        detectors=_port_detectors(options),
        preparation=options.preprocess,
        minutes=options.bucket_minutes or preparation.PREPARATIONS[options.preprocess].minutes,
        zone=options.timezone,
        train_days=options.train_days,
        until=options.until,
        drift_minutes=60 * options.drift_hours,
        devices=devices.read_devices(options.devices) if options.devices else {},
        are_minutes_given=options.bucket_minutes is not None,
        holidays=options.holidays,
        calendar=calendars.load_calendar(options.calendar) if options.calendar else calendars.Calendar(),
    )
    cluster = parallel.Cluster(options.jobs, options.scheduler)
    with _port_faults(options):
        source = _port_source(options, PORT_ANOMALIES)
        failed = training.train(source, settings, cluster, options.ports_models)
        if options.evaluate:
            failed |= comparison.compare(source, settings, cluster, options.plot_dir)
    if failed:
        raise UserError(f"{len(failed)} series could not be learnt from; the log says why")


def run_ports_test(options: argparse.Namespace) -> None:
    """Run --target ports --mode test, the hourly job, once or for ever."""
    from ports import exporter, hourly, judging, parallel

    settings = judging.JudgingSettings(
        models=options.ports_models,
        detectors=_port_detectors(options),
        until=options.until,
        cluster=parallel.Cluster(options.jobs, options.scheduler),
        plot_dir=options.plot_dir,
    )
    ending, metrics = Ending(), exporter.PortMetrics()
    job = hourly.HourlyJob(
        settings,
        lambda: _port_source(options, options.influx_measurement),
        lambda: _port_faults(options),
        # Samples in a folder are judged again on each run, from the end of the training.
        state_file=None if options.ports_dir else Path(options.state_dir) / "ports.json",
        calendar_file=options.calendar,
        metrics=metrics,
        ending=ending,
    )
    if options.once:
        job.run_once()
        return
    hourly.check_steps()
    ending.install()
    if options.metrics_port is not None:
        metrics.serve(options.metrics_address, options.metrics_port)
    loop.run(job.turn, ending)


def _port_detectors(options: argparse.Namespace) -> tuple[str, ...]:
    return PORT_DETECTORS if options.detector == "all" else (options.detector,)


def _port_source(options: argparse.Namespace, measurement: str) -> Source:
    """The folder --ports_dir, or InfluxDB, which stores anomalies in `measurement`."""
    from ports import sources

    if options.ports_dir:
        return sources.Folder(options.ports_dir)
    _, client = connect(options, measurement)
    client.switch_database(options.influx_db)
    return sources.Database(client, options.influx_db, measurement, options.until)


@contextlib.contextmanager
def _port_faults(options: argparse.Namespace) -> Iterator[None]:
    """Turn what InfluxDB raises inside the `with` into an UnavailableError."""
    from ports import sources

    try:
        yield
    except influx_utils.INFLUX_ERRORS as error:
        server = f"{options.influx_host}:{options.influx_port}"
        line = influx_utils.describe_error(error, server, options.influx_db)
        raise sources.UnavailableError(line, influx_utils.kind_of(error)) from None
