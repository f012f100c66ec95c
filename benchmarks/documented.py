"""The documented design, read plainly from the reference: `benchmarks.speed` measures the product beside it.

It is written from the document alone, with its names, and shares no code with the product. Whatever the
document leaves open is done in the way that costs least: a record is judged from the first poll on, a query
names one series, and Keras prints nothing. Each mode prints a line of JSON for each thing that is measured;
CPU is that of the process since it began.

    python -m benchmarks.documented train --folder DIR --dataset CSV --epochs 10
    python -m benchmarks.documented evaluate --folder DIR --dataset CSV --windows 300
    python -m benchmarks.documented test --folder DIR --influx_port 8086 --interval 15
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

# What the documented modules import, whether a mode needs it or not.
import matplotlib.pyplot as plt  # noqa: F401
import numpy as np
import pandas as pd
import tensorflow as tf
from influxdb import InfluxDBClient

SEQUENCE_STEPS = 4
RECORDS = 30
PERCENTILE = 99
MODEL_FILE, STATS_FILE, THRESHOLDS_FILE = (
    "5g_edge_autoencoder.h5",
    "normalization_stats.json",
    "thresholds.json",
)
MEMORY_BYTES = 8228077568.0
INTERFACES = ("enp1s0", "enp0s20u1", "ppp0")
LAYERS = (64, 32, 16, 8, 4, 8, 16, 32, 64)


def getFeatures() -> list[str]:
    """The columns that the network sees."""
    return [
        "cpu_user_rate",
        "cpu_rx_rate",
        "cpu_tx_rate",
        "bytes_received_rate",
        "bytes_transmitted_rate",
        "dl_bytes_rate",
        "ul_bytes_rate",
        "mem_rate",
    ]


def _queries() -> dict[str, str]:
    """Series -> the query of its last record: of two CPUs, the memory, three interfaces, and the RAN."""
    chosen = {f"cpu_{cpu}": f"node_cpu_seconds_total|cpu='{cpu}' AND mode='user'" for cpu in "01"}
    chosen["memory"] = "node_memory_MemFree_bytes|"
    for way in ("receive", "transmit"):
        for device in INTERFACES:
            chosen[f"{way}_{device}"] = f"node_network_{way}_bytes_total|device='{device}'"
    for name in ("rx_cpu_time", "tx_cpu_time", "dl_bitrate", "ul_bitrate"):
        chosen[name] = f"{name}|"
    queries = {}
    for name, (measurement, _, tags) in ((name, text.partition("|")) for name, text in chosen.items()):
        where = f" WHERE {tags}" * bool(tags)
        queries[name] = f'SELECT "value" FROM "{measurement}"{where} ORDER BY time DESC LIMIT 1'
    return queries


# --- data ------------------------------------------------------------------------------------------


def loadDataset(dataset: str) -> pd.DataFrame:
    """A dataset, resampled every 15 seconds; records without all features are dropped."""
    frame = pd.read_csv(dataset, parse_dates=["time"], index_col="time")
    return frame[getFeatures()].resample("15s").last().dropna()


def normalizeFeature(df: pd.DataFrame, feature: str, min: float, max: float) -> pd.Series:
    """Min-max normalisation of one column."""
    return (df[feature] - min) / ((max - min) or 1.0)


def normalise(df: pd.DataFrame, stats: dict[str, float]) -> np.ndarray:
    """Normalised features (n, features)."""
    normalised = pd.DataFrame(index=df.index)
    for feature in getFeatures():
        normalised[feature] = normalizeFeature(df, feature, stats[f"{feature}_min"], stats[f"{feature}_max"])
    return normalised.to_numpy()


def split_sequences(sequences: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The records before (n, n_steps - 1, features), and the record that is to be predicted (n, features)."""
    x, y = [], []
    for i in range(len(sequences) - n_steps + 1):
        x.append(sequences[i : i + n_steps - 1])
        y.append(sequences[i + n_steps - 1])
    return np.array(x), np.array(y)


def printPredictionErrors(y_actual: np.ndarray, y_predict: np.ndarray) -> dict[str, float]:
    """RMSE of each feature, and of all of them."""
    squares = (y_actual - y_predict) ** 2
    errors = {"overall": math.sqrt(squares.mean())}
    for i, feature in enumerate(getFeatures()):
        errors[feature] = math.sqrt(squares[:, i].mean())
    return errors


def window_errors(model: tf.keras.Model, records: np.ndarray) -> dict[str, float]:
    """The errors of one window (RECORDS, features): all of its sequences are predicted."""
    x, y = split_sequences(records, SEQUENCE_STEPS)
    return printPredictionErrors(y, model.predict(x, verbose=0))


# --- training and evaluation -----------------------------------------------------------------------


def build() -> tf.keras.Model:
    """Nine bidirectional LSTM layers and a Dense one, compiled; all else as Keras takes it by default."""
    layers: list[Any] = [tf.keras.Input((SEQUENCE_STEPS - 1, len(getFeatures())))]
    for i, units in enumerate(LAYERS):
        lstm = tf.keras.layers.LSTM(units, activation="relu", return_sequences=i < len(LAYERS) - 1)
        layers.append(tf.keras.layers.Bidirectional(lstm))
    layers.append(tf.keras.layers.Dense(len(getFeatures())))
    model = tf.keras.Sequential(layers)
    optimizer = tf.keras.optimizers.SGD(learning_rate=0.01, momentum=0.9, nesterov=True)
    model.compile(optimizer=optimizer, loss="mse", metrics=["accuracy"])
    return model


class _Progress(tf.keras.callbacks.Callback):
    """Prints, after each epoch, the time since the start and the RMSE of the validation set."""

    def __init__(self) -> None:
        super().__init__()
        self._begin = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        wall, cpu = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]
        say(epochs=epoch + 1, wall=wall, cpu=cpu, rmse=math.sqrt(logs["val_loss"]))


def train(folder: Path, dataset: str, epochs: int) -> None:
    """Train with the last tenth for validation; save the model and the statistics."""
    df = loadDataset(dataset)
    stats = {}
    for feature in getFeatures():
        stats[f"{feature}_min"], stats[f"{feature}_max"] = float(df[feature].min()), float(df[feature].max())
    (folder / STATS_FILE).write_text(json.dumps(stats))
    x, y = split_sequences(normalise(df, stats), SEQUENCE_STEPS)
    tf.keras.utils.set_random_seed(101)
    progress = _Progress()
    model = build()
    model.fit(x, y, epochs=epochs, validation_split=0.1, verbose=0, callbacks=[progress])
    model.save(folder / MODEL_FILE)
    held_out = len(y) - int(len(y) * 0.9)
    spread = model.predict(np.random.default_rng(0).random((256, *x.shape[1:])), verbose=0).std(axis=0).max()
    mean = math.sqrt(((y[-held_out:] - y[:-held_out].mean(axis=0)) ** 2).mean())
    say(sequences=len(y), mean_rmse=mean, spread=float(spread))


def evaluate(folder: Path, dataset: str, windows: int) -> None:
    """Predict one window after the other, and propose the 99th percentile of each error.

    Only the first windows of the dataset are predicted: each takes as long as any other, but for the first,
    before which Keras compiles.
    """
    model, stats = load(folder)
    say(wall=time.perf_counter(), cpu=time.process_time())
    records = normalise(loadDataset(dataset), stats)
    errors = [window_errors(model, records[:RECORDS])]
    say(wall=time.perf_counter(), cpu=time.process_time(), windows=len(records) - RECORDS + 1)
    errors += [window_errors(model, records[i : i + RECORDS]) for i in range(1, windows + 1)]
    thresholds = {key: float(np.percentile([one[key] for one in errors], PERCENTILE)) for key in errors[0]}
    (folder / THRESHOLDS_FILE).write_text(json.dumps(thresholds))
    say(wall=time.perf_counter(), cpu=time.process_time())


def load(folder: Path) -> tuple[tf.keras.Model, dict[str, float]]:
    """The model and the statistics."""
    model = tf.keras.models.load_model(folder / MODEL_FILE, compile=False)
    return model, json.loads((folder / STATS_FILE).read_text())


# --- test mode -------------------------------------------------------------------------------------


def getLastRecords(client: InfluxDBClient, queries: dict[str, str]) -> tuple[dict[str, Any], pd.Timestamp]:
    """The last point of each series, one query after the other, and the newest of their times."""
    data = {name: next(client.query(query).get_points()) for name, query in queries.items()}
    return data, max(pd.to_datetime(point["time"]) for point in data.values())


def format_record(data: dict[str, Any], last: dict[str, Any], seconds: float) -> dict[str, float]:
    """What the documented formatters make of a record and the one before it: levels and their rates.

    data, last: series -> point. seconds: between the two.
    """

    def increase(name: str) -> float:
        return data[name]["value"] - last[name]["value"]

    record = {}
    record["cpu_user"] = sum(100 * increase(f"cpu_{cpu}") / seconds for cpu in "01") / 2
    record["cpu_user_rate"] = record["cpu_user"] - last.get("cpu_user", 0.0)
    for name in ("cpu_rx", "cpu_tx"):
        series = f"{name[-2:]}_cpu_time"
        record[name] = data[series]["value"]
        record[f"{name}_rate"] = record[name] - last[series]["value"]
    for name, way in (("bytes_received", "receive"), ("bytes_transmitted", "transmit")):
        record[name] = sum(increase(f"{way}_{device}") for device in INTERFACES)
        record[f"{name}_rate"] = record[name] / seconds
    for name in ("dl", "ul"):
        record[f"{name}_bytes"] = data[f"{name}_bitrate"]["value"] / 8 * seconds
        record[f"{name}_bytes_rate"] = record[f"{name}_bytes"] / seconds
    record["mem"] = MEMORY_BYTES - data["memory"]["value"]
    used_before = MEMORY_BYTES - last["memory"]["value"]
    record["mem_rate"] = 100 * (record["mem"] - used_before) / used_before
    return record


def insertAnomalies(
    client: InfluxDBClient, timestamp: pd.Timestamp, record: dict[str, float], cause: str
) -> None:
    """Store an anomaly, with its possible cause."""
    point = {
        "measurement": "documented_anomalies",
        "time": timestamp.isoformat(),
        "tags": {"possible_cause": cause},
        "fields": {name: float(value) for name, value in record.items()},
    }
    client.write_points([point])


def test(folder: Path, port: int, database: str, interval: float) -> None:
    """Poll for ever; prints what each poll took."""
    model, stats = load(folder)
    thresholds = json.loads((folder / THRESHOLDS_FILE).read_text())
    client = InfluxDBClient("127.0.0.1", port)
    if database not in [one["name"] for one in client.get_list_database()]:
        client.create_database(database)
    client.switch_database(database)
    queries = _queries()
    window = np.zeros((RECORDS, len(getFeatures())))
    last, last_time = None, None
    while True:
        begin = time.perf_counter()
        data, timestamp = getLastRecords(client, queries)
        seconds = (timestamp - last_time).total_seconds() if last_time else 0.0
        record = format_record(data, last or data, seconds or interval)
        last, last_time = {**data, "cpu_user": record["cpu_user"]}, timestamp
        window = np.vstack([window[1:], [record[feature] for feature in getFeatures()]])
        errors = window_errors(model, normalise(pd.DataFrame(window, columns=getFeatures()), stats))
        logging.info("%s", errors)
        causes = [name for name in getFeatures() if errors[name] > thresholds[name]]
        if causes or errors["overall"] > thresholds["overall"]:
            insertAnomalies(client, timestamp, record, " | ".join(causes) or "unknown cause")
        say(wall=time.perf_counter() - begin, cpu=time.process_time())
        time.sleep(interval)


def say(**figures: float) -> None:
    """Print figures for benchmarks.speed."""
    print(json.dumps(figures), flush=True)


def main() -> None:
    """Run one mode."""
    prog = "python -m benchmarks.documented"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    for name in ("train", "evaluate", "test"):
        mode = modes.add_parser(name)
        mode.add_argument("--folder", type=Path, required=True, help="of the model and its files")
        if name != "test":
            mode.add_argument("--dataset", required=True, metavar="CSV")
    modes.choices["train"].add_argument("--epochs", type=int, default=10)
    modes.choices["evaluate"].add_argument("--windows", type=int, required=True)
    modes.choices["test"].add_argument("--influx_port", type=int, default=8086)
    modes.choices["test"].add_argument("--influx_db", default="metrics_db")
    modes.choices["test"].add_argument("--interval", type=float, default=15.0)
    options = parser.parse_args()
    if options.mode == "train":
        train(options.folder, options.dataset, options.epochs)
    elif options.mode == "evaluate":
        evaluate(options.folder, options.dataset, options.windows)
    else:
        test(options.folder, options.influx_port, options.influx_db, options.interval)


if __name__ == "__main__":
    main()
