"""The commands of the ports half: train and test."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import influx_utils
from commands.options import PORT_ANOMALIES, PORT_DETECTORS
from commands.stores import expected_store, port_source, port_store
from common.answers import load_answers
from common.calendars import load_windows
from common.files import UnavailableError, UserError
from parallel.cluster import Cluster
from prometheus_utils import PrometheusError, describe_prometheus_error
from service import loop
from service.answer_files import PORTS
from service.incident_log import IncidentLog
from service.page import Page
from service.systemd import Ending


def run_ports_train(options: argparse.Namespace) -> None:
    """Run --target ports --mode train, the nightly job; --evaluate then compares all detectors."""
    from ports import calendars, comparison, devices, preparation, training

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
        calendar=calendars.Calendar(
            load_windows(options.calendar) if options.calendar else (),
            load_answers(options.answers_file, PORTS),
        ),
    )
    cluster = Cluster(options.jobs, options.scheduler)
    with _port_faults(options):
        source = port_source(options, PORT_ANOMALIES)
        failed = training.train(source, settings, cluster, options.ports_models)
        if options.evaluate:
            failed |= comparison.compare(source, settings, cluster, options.plot_dir)
    if failed:
        raise UserError(f"{len(failed)} series could not be learnt from; the log says why")


def run_ports_test(options: argparse.Namespace) -> None:
    """Run --target ports --mode test, the hourly job, once or for ever."""
    from ports import exporter, hourly, judging, page, sources

    settings = judging.JudgingSettings(
        models=options.ports_models,
        detectors=_port_detectors(options),
        until=options.until,
        cluster=Cluster(options.jobs, options.scheduler),
        plot_dir=options.plot_dir,
        keeps_expected=options.store_expected,
    )
    ending, metrics = Ending(), exporter.PortMetrics()

    def open_source() -> sources.Source:
        return port_source(options, options.influx_measurement, port_store(options))

    shown = None
    if options.page_port is not None:
        log = None if options.ports_dir else IncidentLog(options.state_dir)
        shown = page.PortsPage(settings, open_source, lambda: _port_faults(options), log)
    job = hourly.HourlyJob(
        settings,
        open_source,
        lambda: _port_faults(options),
        # Samples in a folder are judged again on each run, from the end of the training.
        state_file=None if options.ports_dir else Path(options.state_dir) / "ports.json",
        calendar_file=options.calendar,
        answers_file=options.answers_file,
        store_expected=expected_store(options),
        metrics=metrics,
        ending=ending,
        page=shown,
    )
    if options.once:
        job.run_once()
        return
    hourly.check_steps()
    ending.install()
    if options.metrics_port is not None:
        metrics.serve(options.metrics_address, options.metrics_port)
    if shown is not None:
        server = Page(shown.routes, shown.version, options.page_address)
        server.serve(options.page_address, options.page_port)
    loop.run(job.turn, ending)


def _port_detectors(options: argparse.Namespace) -> tuple[str, ...]:
    return PORT_DETECTORS if options.detector == "all" else (options.detector,)


@contextlib.contextmanager
def _port_faults(options: argparse.Namespace) -> Iterator[None]:
    """Turn what a server raises inside the `with` into an UnavailableError."""
    try:
        yield
    except influx_utils.INFLUX_ERRORS as error:
        server = f"{options.influx_host}:{options.influx_port}"
        line = influx_utils.describe_error(error, server, options.influx_db)
        raise UnavailableError(line, influx_utils.kind_of(error)) from None
    except PrometheusError as error:
        line = describe_prometheus_error(error, options.prometheus_url)
        raise UnavailableError(line, error.label) from None
