"""Anomaly detection for a 5G edge node: train, test and collect. See README.md.

python find_anomalies.py --mode train --evaluate
python find_anomalies.py --mode test --replay data/cpu_attack.csv
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import re
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

import autoencoder
import daemon
import detector
import evaluation
import formatters
import influx_utils
import pictures
import samples
import service
import store
from common.files import UserError, is_there, read_file, saveDictJson
from selection import NO_SAMPLE, Selection, in_slots
from utils import (
    METRICS,
    N_STEPS,
    RECORD_SECONDS,
    STATS_JSON,
    WINDOW_RECORDS,
    SparseDatasetError,
    format_duration,
    format_time,
    getFeatures,
    load_node,
    load_records,
    metric_square_errors,
    normalization_stats,
    normalize,
    parse_time,
    plotAccLoss,
    plotMetric,
    whole_sequences,
    write_dataset,
)

if TYPE_CHECKING:
    import pandas as pd
    from influxdb import InfluxDBClient

    from ports.sources import Source

logger = logging.getLogger("find_anomalies")

data_prefix = "data/"
model_prefix = "model/"
plots_prefix = "plots/"
trainset = f"{data_prefix}normal.csv"
cpu_testset = f"{data_prefix}cpu_attack.csv"
iperf_testset = f"{data_prefix}iperf_attack.csv"
stats_json = STATS_JSON

EDGE_ANOMALIES = "detected_anomalies"
# All public authorities together need a quarter of a MB.
CA_BYTES = 10_000_000
DEFAULT_EPOCHS = 10
DEFAULT_PERCENTILE = 99.0
COLLECT_CHUNK_SECONDS = 3600
# So many gaps of a dataset have a line each.
MOST_GAPS = 100
# The first one is the default; ports/ is not imported where only the edge is watched.
PORT_DETECTORS = ("profile", "stl", "sarimax", "random-forest", "isolation-forest", "one-class-svm")
# A network that has not learnt has the training mean's error; this much of it is still refused.
LEARNT_SHARE = 0.95
# Fewer held-out sequences than this say little, so the network is then judged on all.
MIN_HELD_OUT = 100
# A day of records, but for the odd gap: less shows a network little of what is normal.
ENOUGH_SECONDS = 0.9 * 86400


# --- train ---------------------------------------------------------------------------------------


def train(
    train_dataset: pd.DataFrame,
    n_steps: int,
    n_features: int,
    train_epochs: int = DEFAULT_EPOCHS,
    val_split: float = 0.1,
    train_verbose: int = 1,
    model_filename: str = autoencoder.DEFAULT_MODEL,
    interval_seconds: float = RECORD_SECONDS,
) -> Any:
    """Train the network on normal records and save its bundle; returns the Keras model.

    train_dataset: resampled records in physical units, missing values as NaN. n_features: must be the
    number of features that getFeatures() names. The last `val_split` of the records, in time, are held
    out. Raises UserError, leaving an earlier bundle as it was, for records that cannot be learnt from
    and for a network that has not learnt.
    """
    features = getFeatures()
    if n_features != len(features):
        raise UserError(f"the network has {len(features)} features, not {n_features}")
    if not 0 <= val_split < 1:
        raise UserError(f"val_split is {val_split}; it must be at least 0 and below 1")
    _check_trainable(train_dataset, features)
    stats = normalization_stats(train_dataset, features)
    records = normalize(train_dataset[features].to_numpy(dtype=float), stats, features)
    inputs, targets = (part.astype(np.float32) for part in whole_sequences(records, n_steps))
    if len(inputs) < 10 * n_steps:
        raise UserError(
            f"the training set (--trainset) has only {len(inputs)} sequences of {n_steps} records"
            " without a gap; collect at least a day of records"
        )
    if len(inputs) * interval_seconds < ENOUGH_SECONDS:
        logger.warning(
            "the training set (--trainset) has only %d sequences without a gap, %s: expect false alerts, and"
            " collect a day or more of ordinary life (--mode collect --since 3d)",
            len(inputs),
            format_duration(len(inputs) * interval_seconds),
        )

    keras = autoencoder.import_keras()
    keras.utils.set_random_seed(autoencoder.SEED)
    model = autoencoder.build(n_steps - 1, n_features)
    history = autoencoder.fit(model, inputs, targets, train_epochs, val_split, train_verbose)
    if not np.isfinite(history.history["loss"][-1]):
        raise UserError("training diverged (the loss is not finite): nothing was saved; check the dataset")
    autoencoder.check_not_collapsed(model, n_steps - 1, n_features)
    split = len(inputs) - int(len(inputs) * val_split)
    report = _forecast_report(model, inputs, targets, split)
    _check_learnt(report)
    autoencoder.save_bundle(
        model,
        model_filename,
        stats,
        {
            "features": features,
            "n_steps": n_steps,
            "interval_seconds": interval_seconds,
            "means": dict(zip(features, targets[:split].mean(axis=0).astype(float).round(6), strict=True)),
            "records": len(train_dataset),
            "first_record": str(train_dataset.index[0]),
            "last_record": str(train_dataset.index[-1]),
            "held_out_rmse": report,
        },
        inputs[-2000:],
    )
    for metric in ("loss", "accuracy"):
        plotMetric(history, metric, plots_prefix)
    plotAccLoss(history, plots_prefix)
    return model


def _check_trainable(frame: pd.DataFrame, features: Sequence[str]) -> None:
    for feature in features:
        values = frame[feature].dropna()
        if values.empty:
            raise UserError(
                f"the training set (--trainset) has no value in {feature}; collect records that have it"
            )
        if values.min() == values.max():
            raise UserError(
                f"the training set (--trainset) has the constant {values.iloc[0]:g} in {feature},"
                " so nothing can be learnt of it; collect a longer stretch in which it changes"
            )


def _check_learnt(report: dict[str, dict[str, float]]) -> None:
    """Refuse a network that is hardly better than the training mean; name the metrics where it is worse."""
    network, mean = (report["overall"][name] for name in ("network", "training_mean"))
    if network > LEARNT_SHARE * mean:
        raise UserError(
            f"the network predicts hardly better than the mean of the training set ({network:.3f} against"
            f" {mean:.3f}): nothing was saved; train on more records (--trainset) or for more --epochs"
        )
    worse = [name for name, rmse in report.items() if rmse["network"] > rmse["training_mean"]]
    if worse:
        logger.warning("worse than the mean of the training set: %s; train longer", ", ".join(worse))


def _forecast_report(
    model: Any, inputs: np.ndarray, targets: np.ndarray, split: int
) -> dict[str, dict[str, float]]:
    """Print and return the held-out RMSE of each metric: the network, and two forecasters that need none."""
    is_enough = len(inputs) - split >= MIN_HELD_OUT
    held_out = slice(split, None) if is_enough else slice(None)
    actual = targets[held_out]
    forecasts = {
        "network": autoencoder.predict(model, inputs[held_out]),
        "training_mean": np.broadcast_to(targets[:split].mean(axis=0), actual.shape),
        "previous_record": inputs[held_out][:, -1],
    }
    rmse = {
        name: np.sqrt(metric_square_errors(actual, forecast).mean(axis=0))
        for name, forecast in forecasts.items()
    }
    report = {
        metric: {name: round(float(values[i]), 5) for name, values in rmse.items()}
        for i, metric in enumerate([*METRICS, "overall"])
    }
    chosen = "the held-out records" if is_enough else "all records, too few to hold some out"
    print(f"\nRMSE on {chosen} (normalised units)")
    print(f"{'metric':<12} {'network':>8} {'training mean':>14} {'previous record':>16}")
    for metric, values in report.items():
        print(
            f"{metric:<12} {values['network']:>8.4f} {values['training_mean']:>14.4f}"
            f" {values['previous_record']:>16.4f}"
        )
    return report


# --- evaluate ------------------------------------------------------------------------------------


def evaluate(
    thresholds_file: str,
    cpu_testset: str,
    iperf_testset: str,
    trainset: str,
    time_window_threshold: int,
    model_filename: str = autoencoder.DEFAULT_MODEL,
    threshold_percentile: float = DEFAULT_PERCENTILE,
    interval_seconds: float = RECORD_SECONDS,
) -> None:
    """Propose thresholds from three recorded datasets and report how well they detect.

    time_window_threshold: records in a window; the detector's is fixed at WINDOW_RECORDS. Thresholds that
    a person set are kept. Prints a table; writes it to plots/evaluation.json and one picture for each
    dataset to plots/.
    """
    if time_window_threshold != WINDOW_RECORDS:
        raise UserError(f"the window is {WINDOW_RECORDS} records, not {time_window_threshold}")
    testsets = (cpu_testset, iperf_testset)
    datasets = _load_datasets(testsets, trainset, interval_seconds)
    _evaluate(thresholds_file, testsets, datasets, model_filename, threshold_percentile)


def _evaluate(
    thresholds_file: str,
    testsets: Sequence[str],
    datasets: dict[str, tuple[str, pd.DataFrame]],
    model_filename: str,
    threshold_percentile: float,
) -> None:
    """testsets: files of the CPU attack and of the iperf attack. datasets: what _load_datasets returns."""
    attacks = {key: evaluation.load_attacks(name) for key, (name, _) in datasets.items()}
    bundle = autoencoder.load_bundle(model_filename, getFeatures(), N_STEPS)
    scores = {key: detector.score_dataset(bundle, frame) for key, (_, frame) in datasets.items()}
    *attacked, normal = datasets
    usable, labels = {}, {key: key for key in datasets}
    for key in attacked:
        name, frame = datasets[key]
        if evaluation.is_same_node(scores[key], frame, attacks[key], scores[normal]):
            usable[name] = scores[key]
        else:
            labels[key] = f"{key} (unlike trainset)"
            logger.warning(
                "%s: its records outside attacks are unlike the training set, or there are none, so no"
                " threshold is made from it; record the same node, and write its attacks into attacks.json",
                name,
            )
    cpu_scores, iperf_scores = (usable.get(name) for name in testsets)
    proposed = detector.propose_thresholds(cpu_scores, iperf_scores, scores[normal], threshold_percentile)
    by_person = detector.update_thresholds(thresholds_file, proposed, bundle.identity)
    thresholds = detector.load_thresholds(thresholds_file)

    verdicts = {key: detector.detect(thresholds, frame, scores[key]) for key, (_, frame) in datasets.items()}
    summaries = {key: evaluation.summarise(verdicts[key], attacks[key]) for key in datasets}
    print("\n" + evaluation.table({labels[key]: summary for key, summary in summaries.items()}))
    print(f"\n{'threshold':<22} {'proposed':>9} {'in force':>9}")
    for key in detector.THRESHOLD_KEYS:
        origin = "  set by a person" if key in by_person else ""
        print(f"{key:<22} {proposed[key]:>9.4f} {thresholds[key]:>9.4f}{origin}")
    saveDictJson(summaries, f"{plots_prefix}evaluation.json")
    for key, (name, _) in datasets.items():
        picture = f"{plots_prefix}evaluate_{key}.png"
        pictures.plot_detection(bundle, thresholds, verdicts[key], attacks[key], picture, name)
    print(f"\n{thresholds_file}, {plots_prefix}evaluation.json and {plots_prefix}evaluate_*.png are written")


def _load_datasets(
    testsets: Sequence[str], trainset: str, interval_seconds: float
) -> dict[str, tuple[str, pd.DataFrame]]:
    """Name without folder and ending -> file and its resampled records, the training set last.

    A test set whose records are further apart than the interval is left out: nothing in it could be judged.
    """
    names = (*testsets, trainset)
    if len({Path(name).stem for name in names}) < len(names):
        raise UserError("--cpu_testset, --iperf_testset and --trainset must have three different file names")
    normal = load_records(trainset, interval_seconds)
    datasets = {}
    for name in testsets:
        try:
            datasets[Path(name).stem] = (name, load_records(name, interval_seconds))
        except SparseDatasetError as error:
            logger.warning("%s. It is left out: it is not judged, and no threshold is made from it", error)
    return datasets | {Path(trainset).stem: (trainset, normal)}


def run_train(options: argparse.Namespace) -> None:
    """--mode train."""
    if is_there(options.thresholds_file):
        detector.read_thresholds(options.thresholds_file)
    detector.read_proposals(options.thresholds_file)
    autoencoder.check_model_name(options.model)
    for folder in (Path(options.model).parent, Path(options.thresholds_file).parent, Path(plots_prefix)):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: cannot be written to; give its user the right, or name another file")
    testsets = (options.cpu_testset, options.iperf_testset) if options.evaluate else ()
    for name in (options.trainset, *testsets) if options.evaluate else ():
        evaluation.load_attacks(name)
    datasets = _load_datasets(testsets, options.trainset, options.interval)
    *_, (_, frame) = datasets.values()
    train(
        frame,
        N_STEPS,
        len(getFeatures()),
        train_epochs=options.epochs,
        model_filename=options.model,
        interval_seconds=options.interval,
    )
    if options.evaluate:
        _evaluate(options.thresholds_file, testsets, datasets, options.model, options.threshold_percentile)
    elif filled := detector.fill_thresholds(options.thresholds_file):
        print(
            f"{options.thresholds_file}: {', '.join(filled)} set to {detector.DEFAULT_THRESHOLD};"
            " --evaluate proposes better ones"
        )
    else:
        print(f"{options.thresholds_file} is as it was; --evaluate proposes thresholds for this model")


# --- test ----------------------------------------------------------------------------------------


def replay(options: argparse.Namespace) -> None:
    """Print one JSON line for each anomaly of the dataset --replay; draw it and its alerts where asked to."""
    thresholds = detector.load_thresholds(options.thresholds_file)
    bundle = autoencoder.load_bundle(options.model, getFeatures(), N_STEPS)
    frame = load_records(options.replay, options.interval)
    autoencoder.warn_of_interval(bundle, options.interval)
    _warn_of_foreign_thresholds(options, thresholds, bundle)
    scores = detector.score_dataset(bundle, frame)
    verdicts = detector.detect(thresholds, frame, scores)
    for verdict in verdicts:
        if verdict.is_anomaly:
            print(verdict.to_json())
    counts = {
        status: sum(v.status == status for v in verdicts)
        for status in (detector.NORMAL, detector.ANOMALY, detector.ALERT, detector.UNKNOWN)
    }
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    logger.info("%s: %d records: %s", options.replay, len(verdicts), summary)
    if options.plot:
        attacks = evaluation.load_attacks(options.replay)
        pictures.plot_detection(bundle, thresholds, verdicts, attacks, options.plot, options.replay)
        logger.info("%s: the picture of it", options.plot)
    if options.plot_dir:
        recorder = pictures.AlertRecorder()
        alerts = [recorder.observe(verdict) for verdict in verdicts] + [recorder.close(is_open=True)]
        for alert in filter(None, alerts):
            path = pictures.plot_alert(bundle, thresholds, alert, options.plot_dir)
            logger.info("%s: the picture of an alert", path)


def _warn_of_foreign_thresholds(
    options: argparse.Namespace, thresholds: dict[str, float], bundle: autoencoder.Bundle
) -> None:
    """Say so where thresholds in force were proposed for another model."""
    try:
        proposals = detector.read_proposals(options.thresholds_file)
    except UserError as error:
        logger.warning("%s", error)
        return
    if line := detector.describe_foreign(
        options.thresholds_file, thresholds, proposals, bundle, options.model
    ):
        logger.warning("%s", line)


def watch(options: argparse.Namespace) -> None:
    """Poll InfluxDB for ever, or once with --once."""
    # Nothing that it writes is for everyone to read.
    os.umask(0o027)
    node = load_node(options.node_file)
    measurement = options.influx_measurement or EDGE_ANOMALIES
    server, client = _connect(options, measurement)
    settings = daemon.Settings(
        server=server,
        database=options.influx_db,
        measurement=measurement,
        interval_seconds=options.interval,
        catch_up_seconds=options.catch_up,
        drift_seconds=options.drift,
        thresholds_file=options.thresholds_file,
        model=options.model,
        plot_dir=options.plot_dir,
        once=options.once,
    )
    service.check_watchdog(options.interval)
    ending = service.Ending()
    ending.install()
    metrics = service.Metrics()
    if options.metrics_port is not None:
        metrics.serve(options.metrics_address, options.metrics_port)
    with store.Store(options.state_dir, options.spool_limit) as kept:
        daemon.Daemon(settings, client, node, kept, metrics, ending).run()


def run_test(options: argparse.Namespace) -> None:
    """--mode test."""
    autoencoder.check_model_name(options.model)
    if options.plot or options.plot_dir:
        # What is not installed is said now, not when the first alert ends.
        import matplotlib.figure  # noqa: F401
    if options.plot and not options.replay:
        raise UserError("--plot draws what --replay judges; give both")
    if options.plot and Path(options.plot).suffix != ".png":
        raise UserError(f"{options.plot}: a picture's name must end in .png")
    if options.plot_dir:
        pictures.make_plot_dir(options.plot_dir)
    if options.replay:
        replay(options)
    else:
        watch(options)


# --- collect -------------------------------------------------------------------------------------


def _connect(options: argparse.Namespace, measurement: str) -> tuple[str, InfluxDBClient]:
    """The server as messages name it, and a client of it."""
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
    )
    return f"{options.influx_host}:{options.influx_port}", client


def _check_ca(options: argparse.Namespace) -> None:
    if not options.influx_ssl:
        raise UserError("--influx_ca is for TLS; give --influx_ssl as well")
    if not is_there(options.influx_ca):
        raise UserError(f"{options.influx_ca}: no such file; check --influx_ca")
    read_file(options.influx_ca, CA_BYTES)
    try:
        ssl.create_default_context(cafile=options.influx_ca)
    except OSError as error:
        raise UserError(
            f"{options.influx_ca}: holds no certificate in PEM form ({error}); check --influx_ca"
        ) from None


def run_collect(options: argparse.Namespace) -> None:
    """--mode collect: the newest --since of an InfluxDB's history as a dataset."""
    from tqdm import tqdm

    if not options.output:
        raise UserError("--mode collect needs --output FILE.csv")
    node = load_node(options.node_file)
    server, client = _connect(options, EDGE_ANOMALIES)
    client.switch_database(options.influx_db)
    selection = Selection(node)
    gaps: Counter[tuple[str, str]] = Counter()
    flooded: dict[str, None] = {}
    starts: list[int] = []

    def records(start: int, end: int) -> Iterator[tuple[int, formatters.Record]]:
        interval_ns = int(options.interval * 1e9)
        chunk_ns = max(COLLECT_CHUNK_SECONDS * 10**9 // interval_ns, 1) * interval_ns
        start = start // interval_ns * interval_ns
        for begin in tqdm(range(start, end, chunk_ns), desc="collecting", unit="query"):
            until = min(begin + chunk_ns, end)
            found = samples.get_samples(
                client, node, begin, until, options.interval, known_tags=selection.known_tags()
            )
            flooded.update(dict.fromkeys(found.flooded))
            slots = in_slots(found.points, node, interval_ns)
            # A history that holds two nodes is nobody's.
            selection.refuse_several(slots)
            for slot in slots:
                choice = selection.choose(slot)
                selection.keep(choice)
                if choice.record:
                    gaps.update(choice.faults.items())
                    starts.append(slot.start)
                    yield slot.start, choice.record
        if not starts:
            raise UserError(f"{nothing_there}, or none that can be used")

    nothing_there = (
        f"InfluxDB at {server}: database {options.influx_db} has no sample of this node; check that"
        " Prometheus writes there (deploy/prometheus.yml), --influx_db and --node_file"
    )
    try:
        newest = samples.newest_sample_time(client, node)
        if newest is None:
            raise UserError(nothing_there)
        start = newest - int(options.since * 1e9)
        count = write_dataset(
            options.output, formatters.format_records(records(start, newest + 1), node), node
        )
    except influx_utils.INFLUX_ERRORS as error:
        raise UserError(influx_utils.describe_error(error, server, options.influx_db)) from None
    print(f"{options.output}: {count} records up to {format_time(newest)}")
    empty = (starts[-1] - starts[0]) // int(options.interval * 1e9) + 1 - count
    if empty:
        print(f"gap: no sample of any series in {empty} slots")
    for (series, fault), number in sorted(gaps.items())[:MOST_GAPS]:
        is_missing = fault.startswith(NO_SAMPLE)
        every = ": check --node_file" if number == count and is_missing else ""
        reason = "is missing" if is_missing else f"cannot be used ({fault})"
        print(f"gap: {series} {reason} in {number} of {count} records{every}")
    if len(gaps) > MOST_GAPS:
        print(f"gap: and {len(gaps) - MOST_GAPS} more")
    if flooded:
        print(f"too many samples of {', '.join(flooded)}: the newest of each record is taken")


# --- thresholds ----------------------------------------------------------------------------------


def check_thresholds(options: argparse.Namespace) -> None:
    """--check_thresholds: each threshold beside the one proposed, and what it flags of normal life."""
    filename = options.thresholds_file
    proposed, by_person = detector.compare_thresholds(filename)
    thresholds = detector.load_thresholds(filename)
    try:
        bundle = autoencoder.load_bundle(options.model, getFeatures(), N_STEPS)
        _warn_of_foreign_thresholds(options, thresholds, bundle)
        frame = load_records(options.trainset, options.interval)
        verdicts = detector.detect(thresholds, frame, detector.score_dataset(bundle, frame))
    except ModuleNotFoundError as error:
        # The edge node, where people edit, has requirements-edge.txt alone.
        logger.warning(
            "%s is not installed here: what they flag of %s is not shown", error.name, options.trainset
        )
        verdicts = []
    flags = f"  flags of {options.trainset}" if verdicts else ""
    print(f"{'threshold':<22} {'in force':>9} {'proposed':>9}{flags}")
    for name, key in zip((*METRICS, "overall"), detector.THRESHOLD_KEYS, strict=True):
        before = f"{proposed[key]:>9.4f}" if key in proposed else f"{'-':>9}"
        share = f"  {sum(v.blames(name) for v in verdicts) / len(verdicts):.3%}" if verdicts else ""
        origin = "  set by a person" if key in by_person else ""
        print(f"{key:<22} {thresholds[key]:>9.4f} {before}{share}{origin}")
    together = ""
    if verdicts:
        total = sum(verdict.is_anomaly for verdict in verdicts) / len(verdicts)
        together = f"; together they flag {total:.3%} of {len(verdicts)} records"
    print(f"\n{filename} is valid{together}")


# --- ports ---------------------------------------------------------------------------------------


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
        source = _port_source(options)
        failed = jobs.train(source, training, cluster, options.ports_models)
        if options.evaluate:
            plot_dir = options.plot_dir or f"{plots_prefix}ports"
            failed |= comparison.compare(source, training, cluster, plot_dir)
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
    hourly.run(settings, lambda: _port_source(options), lambda: _port_faults(options))


def _port_detectors(options: argparse.Namespace) -> tuple[str, ...]:
    return PORT_DETECTORS if options.detector == "all" else (options.detector,)


def _port_source(options: argparse.Namespace) -> Source:
    """The folder --ports_dir, or InfluxDB."""
    from ports import sources

    if options.ports_dir:
        return sources.Folder(options.ports_dir)
    measurement = options.influx_measurement or influx_utils.PORT_ANOMALIES
    _, client = _connect(options, measurement)
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


# --- command line --------------------------------------------------------------------------------


def _one_of(*choices: str) -> Callable[[str], str]:
    """In any case; argparse holds only the command line, not the environment, to its choices."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            named = ", ".join(f"'{choice}'" for choice in choices)
            raise argparse.ArgumentTypeError(f"invalid choice: '{text}' (choose from {named})")
        return text.lower()

    return parse


def _moment(text: str) -> int:
    """A date and time, UTC where it names no zone; seconds since 1970."""
    try:
        return parse_time(text) // 10**9
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time like 2023-01-31 or 2023-01-31T12:00:00Z"
        ) from None


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise argparse.ArgumentTypeError(f"'{text}' is no time zone like Europe/Rome or UTC") from None
    return text


def _machine_zone() -> str:
    """The name of this machine's time zone."""
    for name in (
        os.environ.get("TZ", "").lstrip(":"),
        os.path.realpath("/etc/localtime").partition("zoneinfo/")[2],
    ):
        with contextlib.suppress(argparse.ArgumentTypeError):
            return _zone(name)
    return "UTC"


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return words[text.lower()]


def _seconds(text: str) -> float:
    """15, 15s, 90m, 24h, 3d."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time of 0.1 s or more, like 15s, 90m, 24h or 3d")
    return seconds


def _number(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low:g} to {high:g}")
        return value

    return parse


def _bucket_minutes(text: str) -> int:
    if text not in ("5", "10", "15", "20", "30", "60"):
        raise argparse.ArgumentTypeError(f"'{text}' is none of 5, 10, 15, 20, 30 and 60")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """All options; the default of each is taken from the environment where its upper-case name is set."""
    parser = argparse.ArgumentParser(
        prog="find_anomalies.py",
        description="Find anomalies in the metrics of a 5G edge node.",
        epilog="Every option can also be set in the environment by its name in capitals: INFLUX_PASS=...",
    )

    def option(name: str, default: Any, text: str, **settings: Any) -> None:
        parser.add_argument(
            f"--{name}", default=os.environ.get(name.upper()) or default, help=text, **settings
        )

    switch = {"type": _boolean, "nargs": "?", "const": True, "metavar": "true|false"}
    option(
        "mode",
        None,
        "train, test or collect",
        type=_one_of("train", "test", "collect"),
        metavar="{train,test,collect}",
    )
    option(
        "target",
        "edge",
        "edge or ports (default: %(default)s)",
        type=_one_of("edge", "ports"),
        metavar="{edge,ports}",
    )
    option(
        "model", autoencoder.DEFAULT_MODEL, "file of the trained model (default: %(default)s)", metavar="FILE"
    )
    option(
        "thresholds_file",
        f"{data_prefix}thresholds.json",
        "JSON file of the thresholds (default: %(default)s)",
        metavar="FILE",
    )
    option("evaluate", False, "train: propose thresholds and report how well they detect", **switch)
    option("trainset", trainset, "train: normal records (default: %(default)s)", metavar="CSV")
    option(
        "cpu_testset",
        cpu_testset,
        "evaluate: records with a CPU attack (default: %(default)s)",
        metavar="CSV",
    )
    option(
        "iperf_testset",
        iperf_testset,
        "evaluate: records with an iperf attack (default: %(default)s)",
        metavar="CSV",
    )
    option(
        "epochs",
        DEFAULT_EPOCHS,
        "train: times to go over the training set (default: %(default)s)",
        type=_number(int, 1, 10_000),
        metavar="N",
    )
    option(
        "threshold_percentile",
        DEFAULT_PERCENTILE,
        "evaluate: percentile of the window RMSEs that becomes a threshold (default: %(default)s)",
        type=_number(float, 50, 100),
        metavar="P",
    )
    option("influx_host", "localhost", "host of InfluxDB (default: %(default)s)", metavar="HOST")
    option(
        "influx_port",
        8086,
        "port of InfluxDB (default: %(default)s)",
        type=_number(int, 1, 65535),
        metavar="PORT",
    )
    option("influx_user", "", "InfluxDB user", metavar="USER")
    option("influx_pass", "", "that user's password; better set as INFLUX_PASS", metavar="PASSWORD")
    option("influx_ssl", False, "speak TLS to InfluxDB", **switch)
    option(
        "influx_ca", None, "certificate authority of InfluxDB, where it is not a public one", metavar="PEM"
    )
    option(
        "influx_db", "metrics_db", "database of metrics and anomalies (default: %(default)s)", metavar="DB"
    )
    option(
        "influx_measurement",
        None,
        f"measurement of anomalies (default: {EDGE_ANOMALIES}, of ports {influx_utils.PORT_ANOMALIES})",
        metavar="NAME",
    )
    option(
        "node_file",
        None,
        "JSON file that describes the node (default: the documented testbed)",
        metavar="FILE",
    )
    option(
        "interval",
        RECORD_SECONDS,
        "seconds between records, and between polls (default: %(default)g)",
        type=_seconds,
        metavar="SECONDS",
    )
    option("once", False, "test: poll once and end", **switch)
    option("replay", None, "test: judge a recorded dataset instead of InfluxDB", metavar="CSV")
    option("plot", None, "replay: draw metrics, RMSEs, anomalies and alerts", metavar="PNG")
    option("plot_dir", None, "test: folder for a picture of each alert, drawn when it ends", metavar="DIR")
    option(
        "state_dir",
        os.environ.get("STATE_DIRECTORY") or "state",
        "test: folder for anomalies not delivered yet, and for where judging stopped (default: %(default)s)",
        metavar="DIR",
    )
    option(
        "spool_limit",
        100_000,
        "test: anomalies kept while InfluxDB is away (default: %(default)s)",
        type=_number(int, 1, 10_000_000),
        metavar="N",
    )
    option(
        "catch_up",
        "1h",
        "test: how far back records that were missed are judged (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    option(
        "drift",
        "6h",
        "test: a metric over its threshold for most of this time has a new normal (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    option(
        "metrics_port",
        None,
        "test: serve metrics of the service itself to Prometheus",
        type=_number(int, 1, 65535),
        metavar="PORT",
    )
    option(
        "metrics_address", "127.0.0.1", "test: address to serve them on (default: %(default)s)", metavar="IP"
    )
    option(
        "ports_dir", None, "ports: folder of <device>_<port>_<in|out>.csv (default: InfluxDB)", metavar="DIR"
    )
    option(
        "ports_models",
        "model/ports",
        "ports: folder of the trained models (default: %(default)s)",
        metavar="DIR",
    )
    option(
        "detector",
        PORT_DETECTORS[0],
        "ports: " + ", ".join(PORT_DETECTORS) + " or all (default: %(default)s)",
        type=_one_of(*PORT_DETECTORS, "all"),
        metavar="NAME",
    )
    option(
        "preprocess",
        "default",
        "ports, train: default, or workshop for that of the reference document (default: %(default)s)",
        type=_one_of("default", "workshop"),
        metavar="NAME",
    )
    option(
        "bucket_minutes",
        None,
        "ports, train: minutes judged together: 5, 10, 15, 20, 30 or 60 (default: 15, of workshop 30)",
        type=_bucket_minutes,
        metavar="N",
    )
    option(
        "timezone",
        _machine_zone(),
        "ports, train: where the ports' users live (default: this machine's, %(default)s)",
        type=_zone,
        metavar="ZONE",
    )
    option(
        "train_days",
        63,
        "ports, train: days of history up to the last midnight (default: %(default)s)",
        type=_number(int, 28, 366),
        metavar="N",
    )
    option("until", None, "ports: as if it were then; no later sample counts", type=_moment, metavar="TIME")
    option(
        "jobs",
        os.cpu_count() or 1,
        "ports: processes at once (default: one for each CPU, %(default)s)",
        type=_number(int, 1, 1024),
        metavar="N",
    )
    option(
        "scheduler",
        None,
        "ports: Dask scheduler whose workers do the work, like tcp://HOST:8786",
        metavar="URL",
    )
    option("check_thresholds", False, "check the thresholds file and show what it flags, no --mode", **switch)
    option("output", None, "collect: file to write", metavar="CSV")
    option(
        "since",
        "24h",
        "collect: how much of the newest history (default: %(default)s)",
        type=_seconds,
        metavar="TIME",
    )
    return parser


MODES = {
    ("edge", "train"): run_train,
    ("edge", "test"): run_test,
    ("edge", "collect"): run_collect,
    ("ports", "train"): run_ports_train,
    ("ports", "test"): run_ports_test,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 a fault that the user can mend."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.mode is None and not options.check_thresholds:
        parser.error("--mode is needed: train, test or collect")
    if (options.target, options.mode) == ("ports", "collect"):
        parser.error("--target ports has no --mode collect; its samples stay where they are")
    # A pipe that reads the anomalies must not wait for a buffer to fill.
    sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if service.is_journal():
        logging.getLogger().handlers[0].setFormatter(service.JournalFormatter())
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        if options.check_thresholds:
            check_thresholds(options)
        else:
            MODES[options.target, options.mode](options)
    except UserError as error:
        print(f"find_anomalies.py: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        # Live test mode needs requirements-edge.txt alone; whatever else was asked for needs all.
        print(
            f"find_anomalies.py: {error.name} is not installed; pip install -r requirements.txt",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 0 if options.mode == "test" else 130
    except BrokenPipeError:
        # The reader of standard output has gone; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
