"""The network: build, initialise, fit, save, export; and the light predictor that test mode runs.

Only training imports TensorFlow. A trained network is one bundle of files with one identity:

    model/5g_edge_autoencoder.h5      the documented Keras model
    model/5g_edge_autoencoder.tflite  its LiteRT twin, which test mode and evaluation run
    model/5g_edge_autoencoder.json    identity: checksums, features, steps, versions, training report
    data/normalization_stats.json     minimum and maximum of each feature in the training set
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils import STATS_JSON, UserError, loadDictJson, replace_file, saveDictJson

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "model/5g_edge_autoencoder.h5"
SEED = 101
UNITS = (64, 32, 16, 8, 4, 8, 16, 32, 64)
LEARNING_RATE = 0.01
MOMENTUM = 0.9
BATCH_RECORDS = 32
LITERT_TOLERANCE = 1e-4
COLLAPSED_STD = 1e-3


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
