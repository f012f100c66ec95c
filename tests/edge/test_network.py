"""The network: the documented layers, and what a training of them begins with."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from common.files import UserError
from edge import network
from edge.network import check_not_collapsed
from tests.support.training import COLLAPSED_STD, LIVING_STD, spread

UNITS = [64, 32, 16, 8, 4, 8, 16, 32, 64]


def test_the_network_is_the_documented_one(untrained: Any) -> None:
    assert untrained.input_shape == (None, 3, 12)
    assert untrained.output_shape == (None, 12)
    assert [type(layer).__name__ for layer in untrained.layers] == ["Bidirectional"] * 9 + ["Dense"]
    sides = [(layer.forward_layer, layer.backward_layer) for layer in untrained.layers[:-1]]
    assert {type(side).__name__ for both in sides for side in both} == {"LSTM"}
    assert [[side.units for side in both] for both in sides] == [[units] * 2 for units in UNITS]
    assert {side.activation.__name__ for both in sides for side in both} == {"relu"}
    assert [both[0].return_sequences for both in sides] == [True] * 8 + [False]
    assert {layer.merge_mode for layer in untrained.layers[:-1]} == {"concat"}
    assert untrained.layers[-1].activation.__name__ == "linear"


def test_the_network_has_as_many_weights_as_the_documented_layers(untrained: Any) -> None:
    weights, inputs = 0, 12
    for units in UNITS:
        # Both directions; four gates, each with a kernel, a recurrent kernel and a bias.
        weights += 2 * 4 * (inputs * units + units * units + units)
        inputs = 2 * units
    assert untrained.count_params() == weights + inputs * 12 + 12


def test_the_default_initialisation_collapses_to_a_constant(untrained: Any) -> None:
    assert spread(untrained).max() < COLLAPSED_STD


def test_a_collapsed_network_is_refused_in_one_line(untrained: Any) -> None:
    with pytest.raises(UserError) as refused:
        check_not_collapsed(untrained, 3, 12)
    assert re.fullmatch(
        r"the trained network ignores its input \(standard deviation \d\.\de-\d\d over random inputs\), so"
        r" nothing was saved; train on more varied records or for more epochs",
        str(refused.value),
    )


def test_a_training_begins_with_a_network_that_uses_its_input(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Keras makes of it takes a minute, and is seen in the lab.
    monkeypatch.setattr(keras.Model, "fit", lambda *given, **options: None)
    model = network.build(3, 12)
    inputs = np.random.default_rng(7).random((256, 3, 12), dtype=np.float32)
    targets = np.linspace(0.1, 0.9, 12) + np.random.default_rng(8).normal(0, 0.01, (256, 12))
    assert spread(model).max() < COLLAPSED_STD
    network.fit(model, inputs, targets, epochs=1, split=256, verbose=0)
    # On inputs that it was not initialised with.
    assert spread(model, seed=9).min() > LIVING_STD
    check_not_collapsed(model, 3, 12)
    outputs: Any = inputs
    for layer in model.layers[:-1]:
        outputs = layer(outputs)
        assert np.std(np.asarray(outputs)) == pytest.approx(1.0, abs=0.05)
    assert np.asarray(model.layers[-1].bias) == pytest.approx(targets.mean(axis=0), abs=1e-6)
