"""The network, and the one training that tests share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge import network
from tests.support.made_once import made_once
from tests.support.training import Trained, train_in


@pytest.fixture
def keras() -> Any:
    """Keras, its random numbers begun at the same place for each test."""
    keras = network.import_keras()
    keras.utils.set_random_seed(3)
    return keras


@pytest.fixture(scope="session")
def untrained() -> Any:
    """As Keras initialises it; no test changes it."""
    network.import_keras().utils.set_random_seed(3)
    return network.build(3, 12)


@pytest.fixture
def small(keras: Any) -> Any:
    """A model of the same shapes that is exported in a tenth of the time."""
    layers = keras.layers
    return keras.Sequential([keras.Input((3, 12)), layers.Flatten(), layers.Dense(12)])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What one short training left; no test changes it."""
    return Trained(made_once(tmp_path_factory, "trained", train_in))


@pytest.fixture
def bundle_copy(trained: Trained, tmp_path: Path) -> Path:
    """The model file of a copy of the trained bundle."""
    shutil.copytree(trained.folder, tmp_path / "model")
    return tmp_path / "model" / "edge.h5"
