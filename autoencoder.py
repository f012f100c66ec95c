"""The network: build, initialise, fit, save, export; and the light predictor that test mode runs.

Only training imports TensorFlow. A trained network is one bundle of files with one identity:

    model/5g_edge_autoencoder.h5      the documented Keras model
    model/5g_edge_autoencoder.tflite  its LiteRT twin, which test mode and evaluation run
    model/5g_edge_autoencoder.json    identity: checksums, features, steps, versions, training report
    data/normalization_stats.json     minimum and maximum of each feature in the training set
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils import RECORD_SECONDS, STATS_JSON, UserError, json_bytes, loadDictJson, replace_files

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "model/5g_edge_autoencoder.h5"
SEED = 101
UNITS = (64, 32, 16, 8, 4, 8, 16, 32, 64)
LEARNING_RATE = 0.01
MOMENTUM = 0.95
EMA_MOMENTUM = 0.999
BATCH_RECORDS = 16
STEPS_PER_EXECUTION = 9
LITERT_TOLERANCE = 1e-4
COLLAPSED_STD = 1e-3


def import_keras() -> Any:
    """Import Keras with TensorFlow set up for a network of many small layers; its banners are kept quiet.

    One thread per operation and two operations at a time is nearly twice as quick here as the default,
    and makes a training repeat to the last bit.
    """
    for name, value in {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "2",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "-1",
    }.items():
        os.environ.setdefault(name, value)
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
        import keras
        import tensorflow as tf

        # The first operation makes the last banner.
        tf.zeros(1)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    # Importing sets absl's level anew.
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return keras


def build(n_inputs: int, n_features: int) -> keras.Model:
    """Nine bidirectional LSTM layers and a Dense one, as documented: (n_inputs, n_features) -> n_features.

    Unrolled, since three steps do not repay a loop.
    """
    import keras

    layers: list[Any] = [keras.Input((n_inputs, n_features))]
    for index, units in enumerate(UNITS):
        last = index == len(UNITS) - 1
        cell = keras.layers.LSTM(units, activation="relu", return_sequences=not last, unroll=True)
        layers.append(keras.layers.Bidirectional(cell))
    layers.append(keras.layers.Dense(n_features))
    return keras.Sequential(layers)


def initialise(model: keras.Model, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Layer-sequential unit-variance initialisation (Mishkin & Matas 2016) on `inputs` (n, steps, features).

    With the default initialisation the signal fades by layer and the network collapses to a constant.
    Each LSTM layer's kernels are scaled until its output has unit variance; the Dense layer starts at
    the mean of `targets` (n, features).
    """
    import keras

    outputs = inputs
    for layer in model.layers[:-1]:
        for _ in range(12):
            scale = np.std(keras.ops.convert_to_numpy(layer(outputs)))
            if not np.isfinite(scale) or scale < 1e-12 or abs(scale - 1) < 0.02:
                break
            for cell in (layer.forward_layer.cell, layer.backward_layer.cell):
                cell.kernel.assign(cell.kernel / scale)
        outputs = keras.ops.convert_to_numpy(layer(outputs))
    model.layers[-1].bias.assign(targets.mean(axis=0))


def fit(
    model: keras.Model,
    inputs: np.ndarray,
    targets: np.ndarray,
    epochs: int,
    val_split: float,
    verbose: int,
) -> Any:
    """Fit on sequences in time order; the last `val_split` of them are held out. Returns Keras's history.

    The loss weighs a feature's squared error by one over its standard deviation: unweighted, a feature
    that rests near 0 is hardly learnt; weighted by one over its variance, little but its bursts is. The
    learning rate stays as documented; what is kept at the end is the running average of the weights,
    which takes the noise out of the last steps.
    """
    import keras
    from keras import ops

    split = len(inputs) - int(len(inputs) * val_split)
    variances = targets[:split].var(axis=0)
    weights = 1.0 / np.sqrt(variances * variances.mean())

    def loss(actual: Any, predicted: Any) -> Any:
        return ops.mean(weights * ops.square(actual - predicted), axis=-1)

    def accuracy(actual: Any, predicted: Any) -> Any:
        return ops.mean(ops.cast(ops.abs(actual - predicted) < 0.05, "float32"), axis=-1)

    initialise(model, inputs[: min(split, 512)], targets[:split])
    # The average must not reach back to the untrained weights: at most over a ninth of a short training.
    steps = epochs * -(-split // BATCH_RECORDS)
    optimizer = keras.optimizers.SGD(
        LEARNING_RATE,
        momentum=MOMENTUM,
        nesterov=True,
        clipnorm=1.0,
        use_ema=True,
        ema_momentum=max(0.0, min(EMA_MOMENTUM, 1 - 9 / steps)),
    )
    model.compile(
        optimizer=optimizer,
        loss=loss,
        metrics=[accuracy],
        jit_compile=False,
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    held_out = (inputs[split:], targets[split:]) if split < len(inputs) else None
    return model.fit(
        inputs[:split],
        targets[:split],
        batch_size=BATCH_RECORDS,
        epochs=epochs,
        validation_data=held_out,
        validation_batch_size=4096,
        verbose=verbose,
        callbacks=[keras.callbacks.SwapEMAWeights()],
    )


def predict(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Predicted records (n, features). Keras's own predict() first compiles for 10 s, this takes 0.2 s."""
    parts = [inputs[i : i + 4096] for i in range(0, len(inputs), 4096)]
    return np.concatenate([np.asarray(model(part, training=False)) for part in parts])


def check_not_collapsed(model: keras.Model, n_inputs: int, n_features: int) -> None:
    """Raise UserError if the network gives the same answer to any input, however well its loss fell."""
    noise = np.random.default_rng(SEED).random((256, n_inputs, n_features), dtype=np.float32)
    spread = float(np.std(predict(model, noise), axis=0).max())
    if not spread > COLLAPSED_STD:
        raise UserError(
            f"the trained network ignores its input (standard deviation {spread:.1e} over random inputs):"
            " nothing was saved; train on more varied records or for more epochs"
        )


# --- the bundle ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class BundlePaths:
    """The files of one bundle."""

    model: Path
    litert: Path
    identity: Path
    stats: Path


def bundle_paths(model_filename: str | Path) -> BundlePaths:
    """Files that belong to a model file: beside it, but for the documented statistics of the default one."""
    model = Path(model_filename)
    is_default = model == Path(DEFAULT_MODEL)
    stats = Path(STATS_JSON) if is_default else model.with_name(f"{model.stem}_normalization_stats.json")
    return BundlePaths(model, model.with_suffix(".tflite"), model.with_suffix(".json"), stats)


def check_model_name(model_filename: str | Path) -> None:
    """Raise UserError for a name that Keras cannot write the documented format to."""
    if Path(model_filename).suffix != ".h5":
        raise UserError(f"{model_filename}: a model file must end in .h5")


def save_bundle(
    model: keras.Model,
    model_filename: str | Path,
    stats: dict[str, float],
    identity: dict[str, Any],
    check_inputs: np.ndarray,
) -> None:
    """Write all files of a bundle; none is replaced before all are written, the identity comes last.

    `identity` holds features, n_steps and whatever describes the training; checksums and versions are
    added. Raises UserError if the LiteRT twin differs from the model on `check_inputs`.
    """
    paths = bundle_paths(model_filename)
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/network.tflite", format="litert", verbose=False)
        # The converter sets absl's level anew; Keras warns of the documented file format.
        logging.getLogger("absl").setLevel(logging.ERROR)
        # Without the optimizer and our loss, keras.models.load_model() needs nothing of ours.
        model.save(f"{folder}/network.h5", include_optimizer=False)
        contents = {
            paths.litert: Path(folder, "network.tflite").read_bytes(),
            paths.model: Path(folder, "network.h5").read_bytes(),
            paths.stats: json_bytes(stats),
        }
    expected = predict(model, check_inputs)
    difference = float(np.abs(Predictor(contents[paths.litert])(check_inputs) - expected).max())
    if not difference <= LITERT_TOLERANCE:
        raise UserError(
            f"{paths.litert}: differs from the Keras model by {difference:.1e}: nothing was saved;"
            " train on more records (--trainset) or for more --epochs"
        )
    contents[paths.identity] = json_bytes(
        {
            **identity,
            "sha256": {
                "model": hashlib.sha256(contents[paths.model]).hexdigest(),
                "litert": hashlib.sha256(contents[paths.litert]).hexdigest(),
                "stats": _stats_sha256(stats),
            },
            "versions": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
        }
    )
    replace_files({path: functools.partial(Path.write_bytes, data=data) for path, data in contents.items()})


@dataclass(frozen=True)
class Bundle:
    """A trained network ready to predict: features, their minimum, maximum and mean, and the predictor.

    checksum: SHA-256 of the network.
    """

    features: list[str]
    n_steps: int
    stats: dict[str, float]
    means: np.ndarray
    predictor: Predictor
    interval_seconds: float = RECORD_SECONDS
    checksum: str = ""


def load_bundle(model_filename: str | Path, features: list[str], n_steps: int) -> Bundle:
    """Load what test mode needs, refusing files that do not belong together.

    Raises UserError for a missing file, a checksum that differs from the identity's, or a network that
    was trained for other features or steps than this program's.
    """
    paths = bundle_paths(model_filename)
    for path in (paths.identity, paths.litert, paths.stats):
        if not path.exists():
            raise UserError(f"{path}: no such file; --mode train --model {paths.model} writes it")
    identity, stats = loadDictJson(paths.identity), loadDictJson(paths.stats)
    try:
        sums = identity["sha256"]
        expected = {"model": sums["model"], "litert": sums["litert"], "stats": sums["stats"]}
        trained_for = (identity["features"], identity["n_steps"])
        interval_seconds = float(identity["interval_seconds"])
        means = np.array([identity["means"][feature] for feature in features], dtype=float)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{paths.identity}: is not the identity of a trained model, or one of other features;"
            f" --mode train --model {paths.model} writes it"
        ) from None
    if trained_for != (features, n_steps):
        raise UserError(f"{paths.model}: was trained for other features or steps; train it again")
    try:
        network = paths.litert.read_bytes()
        found = {"litert": hashlib.sha256(network).hexdigest(), "stats": _stats_sha256(stats)}
        # The edge node may have the LiteRT twin alone.
        if paths.model.exists():
            found["model"] = hashlib.sha256(paths.model.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); give its user the right"
        ) from None
    for part, checksum in found.items():
        if checksum != expected[part]:
            raise UserError(
                f"{getattr(paths, part)}: does not belong to {paths.identity};"
                f" restore all files of one training, or train again with --mode train --model {paths.model}"
            )
    return Bundle(features, n_steps, stats, means, Predictor(network), interval_seconds, found["litert"])


def warn_of_interval(bundle: Bundle, interval_seconds: float) -> None:
    """Say so where records are not as far apart as those that the model was trained on."""
    if bundle.interval_seconds != interval_seconds:
        logger.warning(
            "the model was trained on records of %g s, --interval is %g s: changes between records differ",
            bundle.interval_seconds,
            interval_seconds,
        )


def _stats_sha256(stats: dict[str, Any]) -> str:
    """Of the numbers, not of the text: reformatting the file by hand changes nothing."""
    return hashlib.sha256(json.dumps(stats, sort_keys=True).encode()).hexdigest()


class Predictor:
    """Runs a LiteRT network: normalised inputs (n, steps, features) -> predicted records (n, features)."""

    def __init__(self, network: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        # The default delegate is 1.5 ms a poll quicker, but writes to stderr past our log.
        self._interpreter = Interpreter(
            model_content=network,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        parts = [self._predict(inputs[i : i + 4096]) for i in range(0, len(inputs), 4096)]
        return np.concatenate(parts) if parts else np.empty((0, inputs.shape[2]), dtype=np.float32)

    def _predict(self, inputs: np.ndarray) -> np.ndarray:
        self._interpreter.resize_tensor_input(self._input, inputs.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, inputs.astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output).copy()
