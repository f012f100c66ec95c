"""The product's side of `benchmarks.speed`: each mode does one thing in a process of its own.

Each prints a line of JSON for each thing that is measured; CPU is that of the process since it began.

    python -m benchmarks.product test --mode test --influx_port 8086
    python -m benchmarks.product evaluate day.csv
    python -m benchmarks.product train data/normal.csv 1
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

# The eight columns of the documented network come first among ours.
DOCUMENTED_FEATURES = 8
# Of the records, Keras holds out the last tenth.
LEARNT_SHARE_OF_RECORDS = 0.9


def test(*arguments: str) -> None:
    """Run the command line, and print what each poll took."""
    # The InfluxDB client would import pandas where it is installed; on an edge node it is not.
    sys.modules["pandas"] = None
    import find_anomalies
    from edge.daemon import Daemon

    poll = Daemon.poll

    def timed(daemon: Daemon) -> Any:
        begin = time.perf_counter()
        is_away = poll(daemon)
        nodes = len(daemon.nodes.watches)
        say(wall=time.perf_counter() - begin, cpu=time.process_time(), nodes=nodes)
        return is_away

    Daemon.poll = timed
    sys.exit(find_anomalies.main(arguments))


def evaluate(dataset: str) -> None:
    """Judge a dataset, and propose thresholds from it; then draw it."""
    import matplotlib.figure  # noqa: F401
    import pandas as pd  # noqa: F401

    from edge import pictures
    from edge.bundle import load_bundle
    from edge.datasets import load_records
    from edge.detector import detect
    from edge.evaluation import learnt_thresholds
    from edge.paths import DEFAULT_MODEL
    from edge.scores import score_dataset

    bundle = load_bundle(DEFAULT_MODEL)
    say(wall=time.perf_counter(), cpu=time.process_time())
    frame = load_records(dataset)
    thresholds = learnt_thresholds(bundle, frame)
    verdicts = detect(thresholds, frame, score_dataset(bundle, frame))
    say(wall=time.perf_counter(), cpu=time.process_time())
    with tempfile.TemporaryDirectory() as folder:
        pictures.plot_detection(bundle, thresholds, verdicts, [], f"{folder}/day.png", "a day")
    say(wall=time.perf_counter(), cpu=time.process_time())


def evaluate_shipped() -> None:
    """Evaluate the three shipped datasets, with and without pictures."""
    import matplotlib.figure  # noqa: F401
    import pandas as pd  # noqa: F401

    from edge import evaluation
    from edge.paths import cpu_testset, iperf_testset, trainset

    printed, sys.stdout = sys.stdout, open("/dev/null", "w")  # noqa: SIM115
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        for draw in (evaluation.pictures.plot_detection, lambda *_: None):
            evaluation.pictures.plot_detection = draw
            steps.append((time.perf_counter(), time.process_time()))
            evaluation.evaluate(
                f"{folder}/thresholds.json", cpu_testset, iperf_testset, trainset, 30, plot_dir=folder
            )
    steps.append((time.perf_counter(), time.process_time()))
    sys.stdout = printed
    for wall, cpu in steps:
        say(wall=wall, cpu=cpu)


def train(dataset: str, epochs: str) -> None:
    """Train the network as the product does, with the held-out records of the documented training."""
    import numpy as np

    from edge import network
    from edge.datasets import load_records
    from edge.sequences import N_STEPS, normalization_stats, normalize, whole_sequences
    from nodes.metrics import METRICS

    features = list(METRICS.features)
    frame = load_records(dataset)
    stats = normalization_stats(frame, features)
    values = normalize(frame[features].to_numpy(dtype=float), stats, features)
    inputs, targets = whole_sequences(values, N_STEPS)
    split = int(len(inputs) * LEARNT_SHARE_OF_RECORDS)
    network.import_keras().utils.set_random_seed(network.SEED)
    begin = time.perf_counter(), time.process_time()
    model = network.build(*inputs.shape[1:])
    network.fit(model, inputs, targets, int(epochs), split, 0)
    wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    errors = (network.predict(model, inputs[split:]) - targets[split:])[:, :DOCUMENTED_FEATURES]
    say(epochs=int(epochs), wall=wall, cpu=cpu, rmse=float(np.sqrt((errors**2).mean())))


def say(**figures: float) -> None:
    """Print figures for benchmarks.speed."""
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    {"test": test, "evaluate": evaluate, "evaluate_shipped": evaluate_shipped, "train": train}[sys.argv[1]](
        *sys.argv[2:]
    )
