"""The files of a trained network, and the lightweight predictor that test mode runs.

A trained network is one bundle of files with one identity:

    model/5g_edge_autoencoder.h5      the documented Keras model
    model/5g_edge_autoencoder.tflite  its LiteRT twin, which test mode and evaluation run
    model/5g_edge_autoencoder.json    identity: checksums, metrics, features, steps, versions, report of the
                                      training, habits of the node, what was left out
    data/normalization_stats.json     minimum and maximum of each feature in the training set
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import (
    UserError,
    is_there,
    json_bytes,
    loadDictJson,
    read_file,
    replace_files,
    shortened,
    working_folder,
)
from common.times import parse_time
from common.values import number, text
from edge import network
from edge.habits import Habits, habits_from_json
from edge.networks import NETWORK_BYTES, Networks, PartOfNetwork
from edge.paths import DEFAULT_MODEL, stats_json
from edge.sensitivity import Curve, curves_from_json
from edge.sequences import N_STEPS, feature_ranges
from nodes.description import ONLY_JUDGED
from nodes.metrics import METRICS, MetricTable
from nodes.series import RECORD_SECONDS

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

LITERT_TOLERANCE = 1e-4
# More records are predicted in batches: larger ones are no quicker, but need 7 MB more for each 1,000.
PREDICTED_AT_ONCE = 256
_STDERR_LOCK = threading.Lock()


@dataclass(frozen=True)
class BundlePaths:
    """The files of one bundle."""

    model: Path
    litert: Path
    identity: Path
    stats: Path


def bundle_paths(model_filename: str | Path) -> BundlePaths:
    """The files of a model: all beside it, except the statistics of the default one (`stats_json`)."""
    model = Path(model_filename)
    is_default = model == Path(DEFAULT_MODEL)
    stats = Path(stats_json) if is_default else model.with_name(f"{model.stem}_normalization_stats.json")
    return BundlePaths(model, model.with_suffix(".tflite"), model.with_suffix(".json"), stats)


def check_model_name(model_filename: str | Path) -> None:
    """Raise UserError for a file name under which Keras cannot write the documented format."""
    if Path(model_filename).suffix != ".h5":
        raise UserError(f"{model_filename}: a model file must end in .h5")


def convert(model: keras.Model, model_filename: str | Path, check_inputs: np.ndarray) -> bytes:
    """The LiteRT twin of a network. Raises UserError if it differs from the model on `check_inputs`."""
    paths = bundle_paths(model_filename)
    # Beside the model, where the next training removes what a killed one left behind.
    with working_folder(paths.model) as folder:
        model.export(f"{folder}/network.tflite", format="litert", verbose=False)
        # The converter resets absl's level; Keras warns about the documented file format.
        logging.getLogger("absl").setLevel(logging.ERROR)
        litert = (folder / "network.tflite").read_bytes()
    difference = float(np.abs(Predictor(litert)(check_inputs) - network.predict(model, check_inputs)).max())
    if not difference <= LITERT_TOLERANCE:
        raise UserError(
            f"{paths.litert}: differs from the Keras model by {difference:.1e}, so nothing was saved;"
            " train on more records (--trainset) or for more --epochs"
        )
    return litert


def save_bundle(
    model: keras.Model,
    litert: bytes,
    model_filename: str | Path,
    stats: dict[str, float],
    identity: dict[str, Any],
) -> None:
    """Write all files of a bundle. All are written before any is replaced; the identity is replaced last.

    litert: the model's twin, of `convert`. identity: metrics, features, n_steps and a description of the
    training; checksums and versions are added to it.
    """
    paths = bundle_paths(model_filename)
    with working_folder(paths.model) as folder:
        # Without the optimizer and our loss, keras.models.load_model() needs nothing of ours.
        model.save(f"{folder}/network.h5", include_optimizer=False)
        network = (folder / "network.h5").read_bytes()
    sums = {"model": hashlib.sha256(network).hexdigest(), "litert": hashlib.sha256(litert).hexdigest()}
    _replace_all(
        paths,
        {
            paths.litert: functools.partial(Path.write_bytes, data=litert),
            paths.model: functools.partial(Path.write_bytes, data=network),
        },
        stats,
        {**identity, "sha256": sums, "versions": trained_by()},
    )


def trained_by() -> dict[str, str]:
    """The versions of the packages that train."""
    from importlib.metadata import version

    return {name: version(name) for name in ("tensorflow", "keras", "numpy")}


def link_bundle(
    network_file: str | Path, model_filename: str | Path, stats: dict[str, float], identity: dict[str, Any]
) -> str:
    """Write the files of a bundle that has the network of another one: hard links, or copies where the file
    system has none.

    network_file: the .h5 file, with its twin beside it. identity: as for save_bundle, with the versions.
    Returns the SHA-256 of the LiteRT network.
    """
    source, paths = bundle_paths(network_file), bundle_paths(model_filename)
    pairs = {paths.litert: source.litert, paths.model: source.model}
    sums = {
        name: hashlib.sha256(read_file(path, NETWORK_BYTES)).hexdigest()
        for name, path in (("model", source.model), ("litert", source.litert))
    }
    links = {path: functools.partial(_link, source) for path, source in pairs.items()}
    _replace_all(paths, links, stats, {**identity, "sha256": sums})
    return sums["litert"]


def _link(source: Path, path: Path) -> None:
    path.unlink()
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def _replace_all(
    paths: BundlePaths,
    networks: Mapping[Path, Callable[[Path], Any]],
    stats: dict[str, float],
    identity: dict[str, Any],
) -> None:
    """Write networks, statistics, and last the identity, which gets the checksum of the statistics."""
    sums = {**identity["sha256"], "stats": _stats_sha256(stats)}
    contents = {paths.stats: json_bytes(stats), paths.identity: json_bytes({**identity, "sha256": sums})}
    others = {path: functools.partial(Path.write_bytes, data=data) for path, data in contents.items()}
    replace_files({**networks, **others})


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained network ready to predict: its metrics, the predictor, and the statistics that normalise.

    metrics: those that it was trained for. stats: minimum and maximum of each feature. means: (features,),
    normalised. identity: SHA-256 of the LiteRT network; proposed thresholds are stored with it. habits: None
    for a model of an older version. left_out: windows (start, end) in ns that were not learnt. curves: metric
    -> what is found of it; empty if that is not known.
    """

    metrics: MetricTable
    n_steps: int
    stats: dict[str, float]
    means: np.ndarray
    predictor: Callable[[np.ndarray], np.ndarray]
    interval_seconds: float = RECORD_SECONDS
    identity: str = ""
    habits: Habits | None = None
    left_out: tuple[tuple[int, int], ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def features(self) -> list[str]:
        """The columns that the network sees, in the order in which it sees them."""
        return list(self.metrics.features)

    @functools.cached_property
    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower ends and widths of the trained ranges, (features,) each."""
        return feature_ranges(self.stats, self.features)

    @property
    def network(self) -> Hashable:
        """What bundles have in common that are predicted in one batch: the network, not its statistics."""
        return self.identity or id(self.predictor)


def load_bundle(
    model_filename: str | Path,
    metrics: MetricTable = METRICS,
    n_steps: int = N_STEPS,
    networks: Networks | None = None,
    node: str = "",
) -> Bundle:
    """Load what test mode needs, refusing files that do not belong together.

    metrics: those of the node that is judged; the bundle has them without those that never changed in the
    training set. networks: remembers the networks of bundles that share them. node: its name, for the remedy;
    empty for the only one. Raises UserError for a missing or unusable file, for a checksum that differs from
    the identity's, and for a network that cannot be run or was trained for other metrics, features or steps.
    """
    paths = bundle_paths(model_filename)
    training = f"--mode train --node {shlex.quote(node)}" if node else f"--mode train --model {paths.model}"
    for path in (paths.identity, paths.litert, paths.stats):
        if not is_there(path):
            raise UserError(f"{path}: no such file; {training} writes it")
    identity, stats = loadDictJson(paths.identity), loadDictJson(paths.stats)
    try:
        sums = identity["sha256"]
        expected = {"model": sums["model"], "litert": sums["litert"], "stats": sums["stats"]}
        trained_features, trained_steps = list(identity["features"]), identity["n_steps"]
        # An identity without metrics is from a version that knew only the documented ones.
        trained_metrics = {
            name: _described(one) for name, one in identity.get("metrics", METRICS.description).items()
        }
        constant = [text(name) for name in identity.get("constant_metrics", ())]
        interval_seconds = float(identity["interval_seconds"])
        means = {feature: float(identity["means"][feature]) for feature in trained_features}
        network_means = {
            feature: number(mean)
            for feature, mean in identity.get("network", {"means": means})["means"].items()
        }
        if not network_means.keys() >= means.keys():
            raise ValueError("a network without the features")
        left_out = tuple(
            (parse_time(one["start"]), parse_time(one["end"]) + 1) for one in identity.get("left_out", ())
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{paths.identity}: is not the identity of a trained model; {training} writes it"
        ) from None
    wanted = {name: one for name, one in metrics.description.items() if name not in constant}
    if difference := _difference(trained_metrics, wanted):
        raise UserError(f"{paths.model}: was trained for other metrics ({difference}); train it again")
    metrics = metrics.without(constant)
    features = list(metrics.features)
    if list(trained_metrics) != list(metrics):
        raise UserError(
            f"{paths.model}: was trained for its metrics in another order ({', '.join(trained_metrics)});"
            " write them so in --node_file, or train it again"
        )
    if (trained_features, trained_steps) != (features, n_steps):
        raise UserError(f"{paths.model}: was trained for other features or steps; train it again")
    networks = networks or Networks()
    found = {"litert": networks.sha256(paths.litert), "stats": _stats_sha256(stats)}
    # The edge node may have only the LiteRT twin.
    if is_there(paths.model):
        found["model"] = networks.sha256(paths.model)
    remedy = f"restore all files of one training, or train again with {training}"
    for part, checksum in found.items():
        if checksum != expected[part]:
            raise UserError(f"{getattr(paths, part)}: does not belong to {paths.identity}; {remedy}")
    if not _are_ranges(stats, features):
        raise UserError(f"{paths.stats}: has no minimum and maximum for each feature; {remedy}")
    try:
        places = tuple(metrics.features.index(row.level) for row in metrics.values())
        habits = None
        if "habits" in identity:
            habits = habits_from_json(identity["habits"], places, len(features))
        curves = curves_from_json(identity.get("sensitivity", {}))
        if not curves.keys() <= metrics.keys():
            raise ValueError("curves of other metrics")
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{paths.identity}: has unusable contents ({error}); {remedy}") from None
    if habits is None:
        logger.warning(
            "%s: has no habits, so a change that lasts is found only when it begins; train again",
            paths.identity,
        )
    predictor = networks.predictor(
        found["litert"],
        lambda: _runnable(read_file(paths.litert, NETWORK_BYTES), n_steps - 1, len(network_means)),
    )
    if predictor is None:
        raise UserError(f"{paths.litert}: is damaged, or not a network for these features; {remedy}")
    if list(network_means) != features:
        predictor = PartOfNetwork(predictor, features, network_means)
    means = np.array([means[feature] for feature in features])
    return Bundle(
        metrics, n_steps, stats, means, predictor, interval_seconds, found["litert"], habits, left_out, curves
    )


def _described(given: Any) -> dict[str, Any]:
    """What an identity says of a metric: its features alone, or what a node file described as well."""
    described = given if isinstance(given, dict) else {"features": given}
    return {**described, "features": list(map(str, described["features"]))}


def _difference(trained: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> str:
    """Describe in words how the metrics differ; empty if they do not."""
    differences = [f"it has no {name}" for name in wanted if name not in trained]
    differences += [f"it has {shortened(name)}" for name in trained if name not in wanted]
    for name in (name for name in wanted if name in trained):
        now, then = _described(wanted[name]), trained[name]
        if now["features"] != then["features"]:
            features = shortened(" and ".join(then["features"]))
            differences.append(f"its {name} is {features}, not {' and '.join(now['features'])}")
            continue
        # Which deviations count is for the judge, and changes nothing that was learnt.
        keys = (key for key in {**now, **then} if now.get(key) != then.get(key) and key not in ONLY_JUDGED)
        differences += [
            f"its {name} has the {shortened(key)} {_said(key, then)}, not {_said(key, now)}" for key in keys
        ]
    return ", ".join(differences)


def _said(key: str, described: dict[str, Any]) -> str:
    return shortened(json.dumps(described[key], ensure_ascii=False)) if key in described else "of default"


def describe_unwatched(bundle: Bundle, metrics: MetricTable, model_filename: str | Path) -> str | None:
    """One line that names the metrics of a node that a model does not watch; None if it watches all."""
    constant = [name for name in metrics if name not in bundle.metrics]
    if not constant:
        return None
    return (
        f"{model_filename}: not watched, since it never changed in the training set: {', '.join(constant)};"
        " collect a longer time in which it changes, and train again"
    )


def _are_ranges(stats: dict[str, Any], features: list[str]) -> bool:
    try:
        low, width = feature_ranges(stats, features)
        return bool(np.isfinite(low + width).all())
    except (KeyError, TypeError, ValueError):
        return False


def _runnable(network: bytes, n_inputs: int, n_features: int) -> Predictor | None:
    """A predictor for the network; None if the network does not turn records into a finite record."""
    try:
        predictor = Predictor(network)
        predicted = predictor(np.zeros((1, n_inputs, n_features)))
    # What LiteRT raises for a file that is truncated, altered or of another network.
    except (IndexError, RuntimeError, ValueError):
        return None
    return predictor if predicted.shape == (1, n_features) and np.isfinite(predicted).all() else None


def warn_of_interval(bundle: Bundle, interval_seconds: float) -> None:
    """Log a warning if records are not as far apart as those that the model was trained on."""
    if bundle.interval_seconds != interval_seconds:
        logger.warning(
            "the model was trained on records of %g s, --interval is %g s: changes between records differ",
            bundle.interval_seconds,
            interval_seconds,
        )


def _stats_sha256(stats: dict[str, Any]) -> str:
    """Checksum of the numbers, not of the text: reformatting the file by hand changes nothing."""
    return hashlib.sha256(json.dumps(stats, sort_keys=True).encode()).hexdigest()


class Predictor:
    """Runs a LiteRT network: normalised inputs (n, steps, features) -> predicted records (n, features).

    LiteRT's default delegate (XNNPACK) takes a third of the time of its plain kernels for many records, and
    a record is predicted alike to the bit in a batch of any size, as measured on x86-64.
    """

    def __init__(self, network: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _nothing_on_stderr():
            self._interpreter = Interpreter(model_content=network, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape: tuple[int, ...] = ()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        if 0 < len(inputs) <= PREDICTED_AT_ONCE:
            return self._predict(inputs)
        batches = range(0, len(inputs), PREDICTED_AT_ONCE)
        parts = [self._predict(inputs[i : i + PREDICTED_AT_ONCE]) for i in batches]
        return np.concatenate(parts) if parts else np.empty((0, inputs.shape[2]), dtype=np.float32)

    def _predict(self, inputs: np.ndarray) -> np.ndarray:
        if inputs.shape != self._shape:
            # If it fails, the next call must not take the tensors for ready.
            self._shape = ()
            self._interpreter.resize_tensor_input(self._input, inputs.shape)
            self._interpreter.allocate_tensors()
            self._shape = inputs.shape
        self._interpreter.set_tensor(self._input, inputs.astype(np.float32))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


@contextlib.contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """LiteRT tells there, past our log, that it has made its first delegate."""
    with _STDERR_LOCK:
        try:
            stderr = os.dup(2)
        except OSError:
            # It is closed.
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(nowhere)
            os.close(stderr)
