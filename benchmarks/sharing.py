"""One network for all nodes, for alike nodes, or for each: `python -m benchmarks.sharing [--seeds 1 2]`.

The nodes are simulated and differ (simulators/fleet.py). Whatever network predicts, each node has its own
statistics, means, habits and thresholds. Some nodes have no part in the training of the networks that are
shared. docs/sharing.md has the figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from common.alerts import ALERT
from common.files import saveDictJson
from common.times import DAY_SECONDS
from edge import network
from edge.detector import Verdict, detect
from edge.evaluation import learnt_thresholds, summarise
from edge.scores import score_dataset
from edge.sequences import N_STEPS, metric_square_errors
from edge.training import bundle_of
from edge.training_set import TrainingSet, prepare
from nodes.metrics import METRICS
from nodes.series import RECORD_SECONDS
from simulators.edge import NORMAL_START, Attack
from simulators.fleet import KINDS_OF_SITE, SimulatedNode, fleet

NODES, LEFT_OUT = 12, 4
OWN_DAYS = 3
# The recording is from Monday to Wednesday. A Thursday with attacks is judged, and the Friday without.
ATTACK_DAY, NORMAL_DAY = 3, 4
ATTACK_SECONDS = 720.0
# A full training of three days makes fifteen times as many steps.
FIT_STEPS = 720
# A node that is new has so many hours of its own, and is judged until it has so many.
FIRST_HOURS = ((1, 6), (6, 24), (24, 72))
# Its thresholds are so many times those that its records propose.
FACTORS = (1.0, 1.5, 2.0, 2.5, 3.0, 5.0)
# It is new on a Monday at eight.
NEW_START = NORMAL_START + 7 * DAY_SECONDS + 8 * 3600.0
# Points of CPU and RAM, and multiples of the traffic at rest.
SIZES_OF_ATTACKS = {
    "small": {"cpu": 6.0, "memory": 0.5, "upload": 2.0, "flood": 2.0},
    "medium": {"cpu": 15.0, "memory": 2.0, "upload": 6.0, "flood": 6.0},
    "large": {"cpu": 40.0, "memory": 8.0, "upload": 25.0, "flood": 25.0},
}

Forecast = Callable[[np.ndarray], np.ndarray]


@dataclass
class Tally:
    """What one way of training found on some nodes. found, tried: attacks by size. anomalies, alerts: false
    ones a day, of each node and day.
    """

    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIZES_OF_ATTACKS, 0))
    tried: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIZES_OF_ATTACKS, 0))
    records: int = 0
    flagged: int = 0
    anomalies: list[float] = field(default_factory=list)
    alerts: list[float] = field(default_factory=list)
    rmse: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """The cells of the table."""
        shares = {size: round(self.found[size] / max(self.tried[size], 1), 3) for size in self.found}
        return {
            **shares,
            "flagged": round(self.flagged / self.records, 3),
            "anomalies": round(float(np.mean(self.anomalies)), 2),
            "alerts": round(float(np.mean(self.alerts)), 2),
            "rmse": round(float(np.mean(self.rmse)), 4),
        }


class Fitter:
    """Fits networks of the product's layers one after another, without compiling each anew."""

    def __init__(self) -> None:
        self._keras = network.import_keras()
        self._model: Any = None

    def fit(self, inputs: np.ndarray, targets: np.ndarray, steps: int = FIT_STEPS) -> Forecast:
        """A network that made so many steps over these sequences, in random order."""
        self._keras.utils.set_random_seed(network.SEED)
        rng = np.random.default_rng(network.SEED)
        count = steps * network.BATCH_RECORDS
        order = np.concatenate([rng.permutation(len(inputs)) for _ in range(-(-count // len(inputs)))])[
            :count
        ]
        fresh = network.build(*inputs.shape[1:])
        if self._model is None:
            self._model = fresh
            self._weights = self._keras.Variable(np.ones(targets.shape[1]), trainable=False)
        else:
            self._model.set_weights(fresh.get_weights())
        variances = targets.var(axis=0)
        self._weights.assign(1.0 / np.sqrt(variances * variances.mean()))
        network.initialise(self._model, inputs[:: max(len(inputs) // 512, 1)][:512], targets)
        self._compile()
        self._model.fit(
            inputs[order],
            targets[order],
            batch_size=network.BATCH_RECORDS,
            epochs=1,
            verbose=0,
            callbacks=[self._keras.callbacks.SwapEMAWeights()],
        )
        weights = self._model.get_weights()

        def predict(given: np.ndarray) -> np.ndarray:
            self._model.set_weights(weights)
            return network.predict(self._model, given.astype(np.float32))

        return predict

    def _compile(self) -> None:
        """Compile the model as edge/network.py does; once compiled, forget what its optimiser did before."""
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is not None:
            for variable in optimizer.variables:
                if "learning_rate" not in variable.path:
                    variable.assign(np.zeros(variable.shape, variable.dtype))
            return
        ops = self._keras.ops
        self._model.compile(
            optimizer=self._keras.optimizers.SGD(
                network.LEARNING_RATE,
                momentum=network.MOMENTUM,
                nesterov=True,
                clipnorm=1.0,
                use_ema=True,
                ema_momentum=1 - 9 / FIT_STEPS,
            ),
            loss=lambda actual, predicted: ops.mean(self._weights * ops.square(actual - predicted), axis=-1),
            jit_compile=False,
            steps_per_execution=network.STEPS_PER_EXECUTION,
        )


def attacks_of(one: SimulatedNode, start: float, hours: int) -> list[tuple[str, Attack]]:
    """An attack in each hour, with the name of its size: each kind in each size equally often."""
    rng = np.random.default_rng(one.seed)
    chosen = [(size, kind) for size, of in SIZES_OF_ATTACKS.items() for kind in of]
    order = np.concatenate([rng.permutation(len(chosen)) for _ in range(-(-hours // len(chosen)))])
    traffic = {"upload": one.traits.host_bytes, "flood": one.traits.cell_bytes}
    attacks = []
    for hour, place in enumerate(order[:hours]):
        size, kind = chosen[place]
        begin = start + hour * 3600.0 + rng.uniform(1200, 2400)
        amount = SIZES_OF_ATTACKS[size][kind] * traffic.get(kind, 1.0)
        attacks.append((size, Attack(kind, begin, begin + ATTACK_SECONDS, amount)))
    return attacks


def prepared(frame: pd.DataFrame) -> TrainingSet:
    """A node's own records, ready for training."""
    return prepare(frame, N_STEPS, RECORD_SECONDS, METRICS)


@dataclass
class Subject:
    """A node of the study: the records that are its own, and those that are judged, attacked and not."""

    node: SimulatedNode
    recording: pd.DataFrame
    attacks: list[tuple[str, Attack]]
    attacked: pd.DataFrame
    normal: pd.DataFrame

    @classmethod
    def of(cls, node: SimulatedNode) -> Subject:
        """A node with days of its own."""
        first, attacked, normal = (NORMAL_START + day * DAY_SECONDS for day in (0, ATTACK_DAY, NORMAL_DAY))
        attacks = attacks_of(node, attacked, 24)
        return cls(
            node,
            node.frame(first, OWN_DAYS * DAY_SECONDS),
            attacks,
            node.frame(attacked, DAY_SECONDS, [attack for _, attack in attacks]),
            node.frame(normal, DAY_SECONDS),
        )

    @classmethod
    def new(cls, node: SimulatedNode, hours: int, until: int) -> Subject:
        """A node with its first hours alone."""
        span = FIRST_HOURS[-1][1] * 3600.0
        attacks = attacks_of(node, NEW_START + hours * 3600.0, until - hours)
        whole, attacked = (
            node.frame(NEW_START, span, given) for given in ((), [attack for _, attack in attacks])
        )
        own, end = (int(of * 3600.0 / RECORD_SECONDS) for of in (hours, until))
        return cls(node, whole.iloc[:own], attacks, attacked.iloc[own:end], whole.iloc[own:end])


def judge(subject: Subject, own: TrainingSet, predict: Forecast, *tallies: tuple[float, Tally]) -> None:
    """Judge the records of a node by a network and its own statistics, habits and thresholds.

    tallies: each with how many times the thresholds are that the node's records propose.
    """
    bundle = bundle_of(own, predict)
    proposed = learnt_thresholds(bundle, subject.recording)
    attacked, normal = (score_dataset(bundle, frame) for frame in (subject.attacked, subject.normal))
    errors = metric_square_errors(own.targets[own.split :], predict(own.inputs[own.split :]), own.metrics)
    for factor, tally in tallies:
        thresholds = {key: factor * value for key, value in proposed.items()}
        _count_found(subject, detect(thresholds, subject.attacked, attacked), tally)
        summary = summarise(detect(thresholds, subject.normal, normal), ())
        tally.anomalies.append(summary["false_anomalies_per_day"])
        tally.alerts.append(summary["false_alerts_per_day"])
        tally.rmse.append(float(np.sqrt(errors.mean(axis=0)[-1])))


def _count_found(subject: Subject, judged: Sequence[Verdict], tally: Tally) -> None:
    times = np.array([one.time for one in judged]) / 1e9
    flagged = np.array([one.is_anomaly for one in judged])
    alerted = np.array([one.status == ALERT for one in judged])
    up = np.array([one.is_alert_up for one in judged])
    for size, attack in subject.attacks:
        inside = (times >= attack.start) & (times < attack.end)
        was_up = up[int(np.searchsorted(times, attack.start)) - 1]
        tally.tried[size] += 1
        tally.found[size] += bool(alerted[inside].any() and not was_up)
        tally.records += int(inside.sum())
        tally.flagged += int(flagged[inside].sum())


def mean_of(own: TrainingSet) -> Forecast:
    """A forecast without any network: what the records are on average."""
    means = own.targets[: own.split].mean(axis=0)
    return lambda inputs: np.broadcast_to(means, (len(inputs), len(means)))


def study_seed(seed: int, tallies: dict[str, Tally], seconds: dict[str, list[float]], longer: bool) -> None:
    """Train the networks for the fleet of a seed, and judge its nodes by each. longer: train one for all with
    five times the steps as well, and one each for new nodes.
    """
    subjects = [Subject.of(node) for node in fleet(NODES, seed)]
    sets = [prepared(one.recording) for one in subjects]
    fitter = Fitter()

    def fit(what: str, chosen: Sequence[TrainingSet], steps: int = FIT_STEPS) -> Forecast:
        # As many records of each node as of the others.
        begin = time.process_time()
        parts = [(one.inputs[: one.split], one.targets[: one.split]) for one in chosen]
        predict = fitter.fit(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)), steps)
        seconds.setdefault(what, []).append(time.process_time() - begin)
        return predict

    # The last of each kind of site are left out.
    taught = range(NODES - LEFT_OUT)
    shared = {"one for all": fit("one for all", [sets[i] for i in taught])}
    if longer:
        what = "one for all, 5 x the steps"
        shared[what] = fit(what, [sets[i] for i in taught], 5 * FIT_STEPS)
    of_kind = {
        kind: fit("one for a kind", [sets[i] for i in taught if subjects[i].node.kind == kind])
        for kind in KINDS_OF_SITE
    }
    # One taught node of each kind is judged, and the one that is left out.
    for i in range(NODES - 2 * LEFT_OUT, NODES):
        subject, own = subjects[i], sets[i]
        group = "taught" if i in taught else "left out"
        ways = {
            "no network, the mean": mean_of(own),
            "one each": fit("one each", [own]),
            "one for a kind": of_kind[subject.node.kind],
            **shared,
        }
        for way, predict in ways.items():
            judge(subject, own, predict, (1.0, tallies.setdefault(f"{group}: {way}", Tally())))
        for hours, until in FIRST_HOURS if group == "left out" else ():
            new = Subject.new(subject.node, hours, until)
            first = prepared(new.recording)
            if first.constant:
                print(f"{subject.node.name}: {', '.join(first.constant)} constant in {hours} h", flush=True)
                continue
            ways = {"no network, the mean": mean_of(first), "one for all": shared["one for all"]}
            if longer:
                ways["one each"] = fit(f"one each, {hours} h", [first])
            for way, predict in ways.items():
                of_factors = [
                    (factor, tallies.setdefault(f"new, {hours:2} h, x {factor}: {way}", Tally()))
                    for factor in FACTORS
                ]
                judge(new, first, predict, *of_factors)
        print(subject.node.name, subject.node.kind, group, flush=True)


def show(by_seed: Sequence[dict[str, Tally]], seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Print the table, and return it: of each cell the mean of the seeds, and its least and most."""
    found: dict[str, list[dict[str, float]]] = {}
    for tallies in by_seed:
        for name, tally in tallies.items():
            found.setdefault(name, []).append(tally.row())
    rows = {
        name: {key: [row[key] for row in of_seeds] for key in of_seeds[0]}
        for name, of_seeds in sorted(found.items())
    }
    print("".ljust(44), *(key.rjust(22) for key in next(iter(rows.values()))))
    for name, cells in rows.items():
        texts = (f"{np.mean(of):.3g} ({min(of):.3g} to {max(of):.3g})" for of in cells.values())
        print(name.ljust(44), *(text.rjust(22) for text in texts))
    costs = {what: [round(sum(of), 1), len(of)] for what, of in seconds.items()}
    print("CPU seconds of training, and how many networks:", costs)
    return {"rows": rows, "seconds": costs}


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--longer", action="store_true", help="also what takes long and changes little")
    options = parser.parse_args()
    by_seed: list[dict[str, Tally]] = []
    seconds: dict[str, list[float]] = {}
    for seed in options.seeds:
        by_seed.append({})
        study_seed(seed, by_seed[-1], seconds, options.longer)
        saveDictJson(show(by_seed, seconds), "plots/sharing.json")


if __name__ == "__main__":
    main()
