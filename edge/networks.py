"""Networks that many nodes share: each file is read once, and each network has one predictor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from common.files import read_file

# Many times the size of the network as .h5 or .tflite.
NETWORK_BYTES = 16_000_000


class Networks:
    """What is known of the files of networks, so that a thousand bundles with one network read it once.

    networks = Networks()
    bundles = [load_bundle(f"{folder}/model.h5", networks=networks) for folder in folders]
    """

    def __init__(self) -> None:
        # Device and inode -> time and size of the file, and its SHA-256: hard links are one file.
        self._sums: dict[tuple[int, int], tuple[tuple[int, int], str]] = {}
        self._predictors: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def sha256(self, path: Path) -> str:
        """The checksum of a file. Raises UserError as read_file does."""
        try:
            status = os.stat(path)
        except OSError:
            return hashlib.sha256(read_file(path, NETWORK_BYTES)).hexdigest()
        key, state = (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size)
        before, found = self._sums.get(key, (None, ""))
        if before != state:
            found = hashlib.sha256(read_file(path, NETWORK_BYTES)).hexdigest()
            self._sums[key] = state, found
        return found

    def predictor(self, checksum: str, make: Callable[[], Any]) -> Any:
        """The predictor of the network with this checksum; `make` makes the first, or None if it cannot.

        It is forgotten with the last bundle that has it.
        """
        found = self._predictors.get(checksum)
        if found is None and (found := make()) is not None:
            self._predictors[checksum] = found
        return found


class PartOfNetwork:
    """Predicts the features of a node by a network that has more: the others are at their means.

    means: each feature of the network, in its order, and its mean in the records that taught it, normalised.
    """

    def __init__(
        self,
        predictor: Callable[[np.ndarray], np.ndarray],
        features: Sequence[str],
        means: Mapping[str, float],
    ) -> None:
        self._predictor = predictor
        self._places = [list(means).index(feature) for feature in features]
        self._means = np.array(list(means.values()), dtype=np.float32)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        whole = np.tile(self._means, (*inputs.shape[:2], 1))
        whole[..., self._places] = inputs
        return self._predictor(whole)[:, self._places]
