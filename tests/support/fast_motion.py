"""A daemon that polls whenever a line comes on standard input, and answers with what it has of memory then.

`python tests/support/fast_motion.py PORT DATABASE FOLDER JUDGED_BEFORE INTERVAL`
Each answer is three numbers: resident bytes, bytes that malloc gave out, blocks that Python gave out.
The line `collect` has garbage collected first, so that the last two count what is really held.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# The first anomaly loads it, whenever that comes.
import influxdb.line_protocol  # noqa: E402, F401

from edge.daemon import Daemon, Settings  # noqa: E402
from edge.exporter import EdgeMetrics  # noqa: E402
from edge.samples import InfluxSource  # noqa: E402
from influx_utils import initializeConnection  # noqa: E402
from nodes.fleet import Named  # noqa: E402
from nodes.node import DEFAULT_NODE  # noqa: E402
from service.store import Store  # noqa: E402
from service.systemd import Ending  # noqa: E402


def resident_bytes() -> int:
    """What `ps` calls RSS."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def main() -> None:
    port, database, folder, judged_before, interval = sys.argv[1:]
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    os.chdir(ROOT)
    settings = Settings(
        server=f"127.0.0.1:{port}",
        database=database,
        measurement="detected_anomalies",
        interval_seconds=float(interval),
        catch_up_seconds=86400.0,
        drift_seconds=21600.0,
        thresholds_file="data/thresholds.json",
        model="model/5g_edge_autoencoder.h5",
    )
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo2
    client = initializeConnection("127.0.0.1", int(port), "", "", timeout_seconds=60)
    with Store(folder, 1000) as store:
        source = InfluxSource(client, settings.server, settings.database)
        daemon = Daemon(settings, source, client, [Named("", DEFAULT_NODE)], store, EdgeMetrics(), Ending())
        daemon.watch.monitor.restore(daemon.watch.monitor.state() | {"judged_before": int(judged_before)})
        for line in sys.stdin:
            daemon.poll()
            if line.strip() == "collect":
                gc.collect()
            print(resident_bytes(), mallinfo().uordblks, sys.getallocatedblocks(), flush=True)


if __name__ == "__main__":
    main()
