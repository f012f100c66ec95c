"""What a metric is: the series it is made of, its columns, its threshold and its stored field."""

from __future__ import annotations

from nodes.node import DEFAULT_NODE, Node

CPU_SECONDS = "node_cpu_seconds_total"
MEMORY_FREE = "node_memory_MemFree_bytes"
MEMORY_TOTAL = "node_memory_MemTotal_bytes"
RECEIVED = "node_network_receive_bytes_total"
TRANSMITTED = "node_network_transmit_bytes_total"
RX_CPU = "rx_cpu_time"
TX_CPU = "tx_cpu_time"
DOWNLINK = "dl_bitrate"
UPLINK = "ul_bitrate"
NODE_MEASUREMENTS = (CPU_SECONDS, MEMORY_FREE, MEMORY_TOTAL, RECEIVED, TRANSMITTED)
RAN_MEASUREMENTS = (RX_CPU, TX_CPU, DOWNLINK, UPLINK)
MEASUREMENTS = NODE_MEASUREMENTS + RAN_MEASUREMENTS
# Where the total is absent, the node's own figure counts, so its absence is no gap.
OPTIONAL_MEASUREMENTS = (MEMORY_TOTAL,)
# What tells the parts of a node within one measurement apart; the others have one part.
PART_TAGS = {
    CPU_SECONDS: "cpu",
    RECEIVED: "device",
    TRANSMITTED: "device",
    DOWNLINK: "cellId",
    UPLINK: "cellId",
}
# What each metric is made of.
METRIC_MEASUREMENTS = {
    "cpu": (CPU_SECONDS,),
    "cpu_rx": (RX_CPU,),
    "cpu_tx": (TX_CPU,),
    "net_down": (RECEIVED,),
    "net_up": (TRANSMITTED,),
    "net_5g_down": (DOWNLINK,),
    "net_5g_up": (UPLINK,),
    "mem": (MEMORY_FREE, MEMORY_TOTAL),
}
# What an operator thinks in -> the columns that the model sees of it. The rate shows an edge, the
# percentage a plateau; a byte rate shows both.
METRICS = {
    "cpu": ("cpu_user_rate", "cpu_user_percentage"),
    "cpu_rx": ("cpu_rx_rate", "cpu_rx_percentage"),
    "cpu_tx": ("cpu_tx_rate", "cpu_tx_percentage"),
    "net_down": ("bytes_received_rate",),
    "net_up": ("bytes_transmitted_rate",),
    "net_5g_down": ("dl_bytes_rate",),
    "net_5g_up": ("ul_bytes_rate",),
    "mem": ("mem_rate", "mem_percentage"),
}
NAMES = (*METRICS, "overall")
THRESHOLD_KEYS = tuple(f"{name}_threshold" for name in (*METRICS, "overall"))
# The feature of each metric that says how much of it there is; one that comes before it says how it changes.
LEVELS = {metric: features[-1] for metric, features in METRICS.items()}
# Fields of an anomaly's point in InfluxDB, in the order of getAnomalyColumns().
ANOMALY_FIELDS = (
    "cpu_usage",
    "mem_usage",
    "net_down_usage",
    "net_up_usage",
    "cpu_rx_usage",
    "cpu_tx_usage",
    "net_down_5g_usage",
    "net_up_5g_usage",
)


def getColumnNames(node: Node = DEFAULT_NODE) -> dict[str, type]:
    """Columns of a dataset beside `time`, and their types, in the order in which they are written.

    The first ones are per CPU and per interface of `node`; the rest are the same for every node.
    """
    columns = [f"cpu_user_{cpu}_{kind}" for cpu in node.cpus for kind in ("percentage", "rate")]
    columns += ["cpu_user_percentage", "cpu_user_rate"]
    for direction in ("received", "transmitted"):
        for name in node.interfaces:
            columns += [f"{name}_bytes_{direction}", f"{name}_{direction}_rate"]
        columns += [f"bytes_{direction}", f"bytes_{direction}_rate"]
    columns += ["mem", "mem_percentage", "mem_rate"]
    columns += ["cpu_rx_percentage", "cpu_rx_rate", "cpu_tx_percentage", "cpu_tx_rate"]
    columns += ["dl_bytes", "dl_bytes_rate", "ul_bytes", "ul_bytes_rate"]
    return dict.fromkeys(columns, float)


def getFeatures() -> list[str]:
    """Columns that the model sees: the eight documented rates in their published order, then the levels.

    A rate alone is flat in the middle of an attack, so the four percentages are part of the input.
    """
    return [
        "cpu_user_rate",
        "cpu_rx_rate",
        "cpu_tx_rate",
        "bytes_received_rate",
        "bytes_transmitted_rate",
        "dl_bytes_rate",
        "ul_bytes_rate",
        "mem_rate",
        "cpu_user_percentage",
        "cpu_rx_percentage",
        "cpu_tx_percentage",
        "mem_percentage",
    ]


def getAnomalyColumns() -> list[str]:
    """Columns that are stored with an anomaly, in the order of the fields of its point in InfluxDB."""
    return [
        "cpu_user_percentage",
        "mem_percentage",
        "bytes_received",
        "bytes_transmitted",
        "cpu_rx_percentage",
        "cpu_tx_percentage",
        "dl_bytes",
        "ul_bytes",
    ]
