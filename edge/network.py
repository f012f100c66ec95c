"""Build, initialise, fit and run the network in Keras. Only training imports TensorFlow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import UserError

if TYPE_CHECKING:
    import keras

SEED = 101
UNITS = (64, 32, 16, 8, 4, 8, 16, 32, 64)
LEARNING_RATE = 0.01
MOMENTUM = 0.95
EMA_MOMENTUM = 0.999
BATCH_RECORDS = 16
# To compile nine steps in a row takes as long as some hundred steps gain by it.
STEPS_PER_EXECUTION = 9
MANY_STEPS = 500
COLLAPSED_STD = 1e-3


def import_keras() -> Any:
    """Import Keras with TensorFlow set up for a network of many small layers, and suppress their banners.

    One thread per operation and two operations at a time are nearly twice as quick here as the default, and
    make training repeatable to the last bit.
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

        # The first operation prints the last banner.
        tf.zeros(1)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    # The import resets absl's level.
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return keras


def build(n_inputs: int, n_features: int) -> keras.Model:
    """Nine bidirectional LSTM layers and a Dense one, as documented: (n_inputs, n_features) -> n_features.

    The layers are unrolled: a loop over three steps costs more than it saves.
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

    With the default initialisation the signal fades layer by layer, and the network collapses to a constant.
    Each LSTM layer's kernels are scaled until its output has unit variance; the Dense layer's bias starts at
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
    split: int,
    verbose: int,
) -> Any:
    """Fit on the sequences before `split`; the others are held out. Returns Keras's history.

    The loss divides a feature's squared error by its standard deviation. Without that, a feature that rests
    near 0 is hardly learnt; divided by its variance, little but its bursts is learnt. The learning rate stays
    as documented; the model ends with the running average of its weights, which removes the noise of the last
    steps.
    """
    import keras
    from keras import ops

    variances = targets[:split].var(axis=0)
    weights = 1.0 / np.sqrt(variances * variances.mean())

    def loss(actual: Any, predicted: Any) -> Any:
        return ops.mean(weights * ops.square(actual - predicted), axis=-1)

    def accuracy(actual: Any, predicted: Any) -> Any:
        return ops.mean(ops.cast(ops.abs(actual - predicted) < 0.05, "float32"), axis=-1)

    initialise(model, inputs[: min(split, 512)], targets[:split])
    # The average must not reach back to the untrained weights: it covers at most a ninth of a short training.
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
        steps_per_execution=STEPS_PER_EXECUTION if steps >= MANY_STEPS else 1,
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
    """Predicted records (n, features). Keras's own predict() first compiles for 10 s; this takes 0.2 s."""
    parts = [inputs[i : i + 4096] for i in range(0, len(inputs), 4096)]
    return np.concatenate([np.asarray(model(part, training=False)) for part in parts])


def check_not_collapsed(model: keras.Model, n_inputs: int, n_features: int) -> None:
    """Raise UserError if the network gives the same output for any input, however low its loss is."""
    noise = np.random.default_rng(SEED).random((256, n_inputs, n_features), dtype=np.float32)
    spread = float(np.std(predict(model, noise), axis=0).max())
    if not spread > COLLAPSED_STD:
        raise UserError(
            f"the trained network ignores its input (standard deviation {spread:.1e} over random inputs),"
            " so nothing was saved; train on more varied records or for more epochs"
        )
