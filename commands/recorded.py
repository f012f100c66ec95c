"""The commands of the edge half that judge what is recorded: replay, and check thresholds."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from commands.edge import check_test
from common.alerts import ALERT, ANOMALY, NORMAL, UNKNOWN
from common.files import UserError
from edge import evaluation, pictures
from edge.bundle import Bundle, describe_unwatched, load_bundle, warn_of_interval
from edge.datasets import load_records
from edge.detector import Verdict, detect
from edge.incidents import Alert, Incidents
from edge.recording import outside
from edge.scores import score_dataset, slot_times
from edge.sensitivity import blind_metrics
from edge.thresholds import compare_thresholds, describe_foreign, load_thresholds, read_proposals
from edge.why import deviations
from nodes.node import load_node

logger = logging.getLogger("find_anomalies")


def run_replay(options: argparse.Namespace) -> None:
    """Run --mode test --replay: print each anomaly of a dataset; draw the dataset and its alerts if asked."""
    check_test(options, bool(options.plot or options.plot_dir))
    if options.plot:
        pictures.check_picture(options.plot)
    metrics = load_node(options.node_file).metrics
    bundle = load_bundle(options.model, metrics)
    thresholds = load_thresholds(options.thresholds_file, bundle.metrics)
    frame = load_records(options.replay, options.interval, bundle.metrics)
    warn_of_interval(bundle, options.interval)
    if line := describe_unwatched(bundle, metrics, options.model):
        logger.warning("%s", line)
    _warn_of_foreign_thresholds(options, thresholds, bundle)
    scores = score_dataset(bundle, frame)
    verdicts = detect(thresholds, frame, scores)
    for verdict in verdicts:
        if verdict.is_anomaly:
            print(verdict.to_json())
    counts = {
        status: sum(v.status == status for v in verdicts) for status in (NORMAL, ANOMALY, ALERT, UNKNOWN)
    }
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    logger.info("%s: %d records: %s", options.replay, len(verdicts), summary)
    if options.plot:
        attacks = evaluation.load_attacks(options.replay)
        pictures.plot_detection(bundle, thresholds, verdicts, attacks, options.plot, options.replay)
        logger.info("%s: picture of the dataset written", options.plot)
    if options.plot_dir:
        for alert in _alerts_of(bundle, thresholds, verdicts):
            path = pictures.plot_alert(bundle, thresholds, alert, verdicts, options.plot_dir)
            logger.info("%s: picture of an alert written", path)


def _alerts_of(bundle: Bundle, thresholds: dict[str, float], verdicts: Sequence[Verdict]) -> list[Alert]:
    """The alerts of a dataset; the last one may still be up."""
    incidents = Incidents(bundle.metrics)
    ended = []
    for verdict in verdicts:
        found = deviations(bundle, thresholds, verdict) if verdict.is_loud else None
        incidents.observe(verdict, thresholds, found)
        ended.append(incidents.ended_alert)
    return [alert for alert in [*ended, incidents.alert_up] if alert]


def _warn_of_foreign_thresholds(
    options: argparse.Namespace, thresholds: dict[str, float], bundle: Bundle
) -> None:
    """Log a warning if thresholds in force were proposed for another model."""
    try:
        proposals = read_proposals(options.thresholds_file, bundle.metrics)
    except UserError as error:
        logger.warning("%s", error)
        return
    if line := describe_foreign(options.thresholds_file, thresholds, proposals, bundle, options.model):
        logger.warning("%s", line)


def check_thresholds(options: argparse.Namespace) -> None:
    """Run --check_thresholds: show each threshold, the proposed one, and the anomalies in normal data."""
    filename = options.thresholds_file
    metrics = load_node(options.node_file).metrics
    proposed, by_person = compare_thresholds(filename, metrics)
    bundle = load_bundle(options.model, metrics)
    if line := describe_unwatched(bundle, metrics, options.model):
        logger.warning("%s", line)
    metrics = bundle.metrics
    thresholds = load_thresholds(filename, metrics)
    finds, found = evaluation.found_columns(bundle, thresholds)
    blind = blind_metrics(bundle.curves, thresholds, metrics)
    _warn_of_foreign_thresholds(options, thresholds, bundle)
    try:
        frame = load_records(options.trainset, options.interval, metrics)
        verdicts = detect(thresholds, frame, score_dataset(bundle, frame))
        learnt = outside(slot_times(bundle, frame), bundle.left_out)
        verdicts = [verdict for verdict, is_learnt in zip(verdicts, learnt, strict=True) if is_learnt]
    except ModuleNotFoundError as error:
        # People edit thresholds on the edge node, which has only requirements-edge.txt.
        logger.warning(
            "%s is not installed here, so the anomalies in %s are not shown", error.name, options.trainset
        )
        verdicts = []
    heading = f"  anomalies in {options.trainset}" if verdicts else ""
    print(f"{'threshold':<22} {'in force':>9} {'proposed':>9}{finds}{heading}")
    for name, key in metrics.threshold_keys.items():
        before = f"{proposed[key]:>9.4f}" if key in proposed else f"{'-':>9}"
        share = f"  {sum(v.blames(name) for v in verdicts) / len(verdicts):.3%}" if verdicts else ""
        origin = "  set by a person" * (key in by_person) + "  blind" * (name in blind)
        print(f"{key:<22} {thresholds[key]:>9.4f} {before}{found[name]}{share}{origin}")
    together = ""
    if verdicts:
        total = sum(verdict.is_anomaly for verdict in verdicts) / len(verdicts)
        together = f"; together they make anomalies of {total:.3%} of {len(verdicts)} records"
    print(f"\n{filename} is valid{together}")
