"""The columns of a dataset that the program needs, written down by hand."""

from __future__ import annotations

FEATURES = [
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
STORED = [
    "cpu_user_percentage",
    "mem_percentage",
    "bytes_received",
    "bytes_transmitted",
    "cpu_rx_percentage",
    "cpu_tx_percentage",
    "dl_bytes",
    "ul_bytes",
]
NEEDED = FEATURES + [column for column in STORED if column not in FEATURES]
