"""The command of the edge half that watches nodes: test mode."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from commands.fleet import node_finder, refuse_several_nodes, wait_for_nodes
from commands.stores import anomaly_store, edge_source
from common.alerts import WINDOW_RECORDS
from common.files import is_there
from edge import pictures
from edge.bundle import check_model_name
from edge.daemon import Daemon, Settings
from edge.exporter import EdgeMetrics
from edge.history import FOLDER_NAME, History
from nodes.fleet import Named
from nodes.names import NodePatterns, shown_name
from nodes.node import load_node
from service.incident_log import IncidentLog
from service.store import FILE_NAME, Store
from service.systemd import Ending, check_watchdog

if TYPE_CHECKING:
    from edge.page import EdgePage

logger = logging.getLogger("find_anomalies")


def run_test(options: argparse.Namespace) -> None:
    """Run --mode test: poll InfluxDB for ever, or once with --once."""
    check_test(options, bool(options.plot_dir))
    # Other users of the machine may not read the files that this writes.
    os.umask(0o027)
    finder = node_finder(options, is_live=True) if options.node else None
    descriptions = finder.descriptions if finder else [load_node(options.node_file)]
    source = edge_source(options, *descriptions)
    # Where judging has begun, what others write changes nothing.
    if not finder and not is_there(Path(options.state_dir) / FILE_NAME):
        refuse_several_nodes(options, *descriptions, source.place, WINDOW_RECORDS * options.interval)
    server, client = anomaly_store(options)
    settings = Settings(
        server=server,
        database=options.influx_db,
        measurement=options.influx_measurement,
        interval_seconds=options.interval,
        catch_up_seconds=options.catch_up,
        drift_seconds=options.drift,
        thresholds_file=options.thresholds_file,
        model=options.model,
        plot_dir=options.plot_dir,
        once=options.once,
        stores_expected=options.store_expected,
        nodes_dir=options.nodes_dir,
        answers_file=options.answers_file,
        calendar=options.calendar,
    )
    check_watchdog(options.interval)
    ending = Ending()
    ending.install()
    is_read = options.metrics_port is not None
    metrics = EdgeMetrics(nodes=options.metrics_node if finder else None, is_read=is_read)
    if is_read:
        metrics.serve(options.metrics_address, options.metrics_port)
    page = _serve_page(options) if options.page_port is not None else None
    with Store(options.state_dir, options.spool_limit) as kept:
        if finder:
            nodes = wait_for_nodes(finder, options.once, ending)
            names = [one.name for one in nodes]
            for word in NodePatterns(options.metrics_node).without_match(names):
                logger.warning("--metrics_node %s: no node that is watched has this name", shown_name(word))
        else:
            nodes = [Named("", node) for node in descriptions]
        find_nodes = finder.find if finder else None
        Daemon(settings, source, client, nodes, kept, metrics, ending, find_nodes=find_nodes, page=page).run()


def _serve_page(options: argparse.Namespace) -> EdgePage:
    """Serve the page; it shows something after the first poll."""
    # A server of HTTP takes 5 MB, and most nodes have no page.
    from edge.page import EdgePage
    from service.page import Page

    folder = Path(options.state_dir)
    page = EdgePage(History(folder / FOLDER_NAME), IncidentLog(folder), options.interval)
    Page(page.routes, page.version, options.page_address).serve(options.page_address, options.page_port)
    return page


def check_test(options: argparse.Namespace, draws: bool) -> None:
    """Refuse, before anything is judged, options with which judging or drawing would fail later."""
    check_model_name(options.model)
    if draws:
        # A missing matplotlib is reported now, not when the first alert ends.
        import matplotlib.figure  # noqa: F401
    if options.plot_dir:
        pictures.make_plot_dir(options.plot_dir)
