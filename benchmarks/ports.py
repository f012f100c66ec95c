"""Measure the port detectors: detection on simulated ports that nothing was tuned on, time, and size.

The hourly job reads from a real InfluxDB (`lab/get_parts.sh`).

`--captures` takes a folder of real, labelled series in the form of data/ports. Such a folder is not part of
this project; without it, those rows are left out. Figures go to stdout and plots/benchmarks_ports.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from influxdb import InfluxDBClient

from common.alerts import ALERT
from common.files import saveDictJson
from common.times import DAY_SECONDS, last_midnight
from lab.influxd import Influxd
from parallel.cluster import Cluster, in_parallel
from ports import detectors
from ports.comparison import Detection, detection, iterative_statuses
from ports.detectors import DETECTORS
from ports.hourly import HOUR_SECONDS
from ports.preparation import PREPARATIONS, Buckets, Preparation
from ports.series import KnownAnomaly, Series, list_series, port_tags, read_anomalies, read_series
from ports.training import TrainingSettings, fit_series
from ports.verdicts import LEAD_MINUTES, judge, statuses
from ports.weeks import WEEK_DAYS, first_slot, spread, week_rows
from simulators.ports import BRIEF, HOLIDAYS, TIMEZONE, simulate_port, write_port

UNSEEN_PORT_SEEDS = range(7000, 7020)
TRAIN_DAYS = 63
# The real series are two months long.
CAPTURE_TRAIN_DAYS = 28
THOUSAND = 1000
THOUSAND_DAYS = 90
# The hourly job reads three days before the end of training.
HOURLY_DAYS = 6
PLAIN_SEEDS = (7000, 7001, 7002)


def training_of(
    detector: str, preparation: str = "default", train_days: int = TRAIN_DAYS
) -> TrainingSettings:
    """Settings for one detector, with defaults for the rest."""
    minutes = PREPARATIONS[preparation].minutes
    return TrainingSettings((detector,), preparation, minutes, TIMEZONE, train_days, None)


# --- detection -----------------------------------------------------------------------------------


def unseen_port(seed: int) -> tuple[Series, int, list[KnownAnomaly], list[KnownAnomaly], list[KnownAnomaly]]:
    """A simulated port, the start of judging, its brief anomalies, its other anomalies, and holidays."""
    port = simulate_port(seed)
    split = last_midnight(int(port.times[0]) + TRAIN_DAYS * DAY_SECONDS + 3600, TIMEZONE)
    brief = [KnownAnomaly(a.start, a.end) for a in port.anomalies if a.kind in BRIEF and a.start >= split]
    rest = [KnownAnomaly(a.start, a.end) for a in port.anomalies if a.kind not in BRIEF or a.start < split]
    holidays = []
    for day in HOLIDAYS:
        start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(TIMEZONE))
        holidays.append(KnownAnomaly(int(start.timestamp()), int((start + timedelta(days=1)).timestamp())))
    return Series(f"1_{seed}_out", port.times, port.traffic), split, brief, rest, holidays


@dataclass(frozen=True)
class UnseenTask:
    """One simulated port and one way to judge it. is_iterative: trained each night instead of once."""

    seed: int
    detector: str
    preparation: str
    is_iterative: bool


def judge_unseen(task: UnseenTask) -> tuple[str, Detection, Detection]:
    """The name of the way, its detection, and its detection with holidays excused."""
    series, split, brief, rest, holidays = unseen_port(task.seed)
    detector, training = task.detector, training_of(task.detector, task.preparation)
    together = judge(fit_series(series, detector, replace(training, until=split)), series, split).after(split)
    judged = together.statuses
    if task.is_iterative:
        judged = iterative_statuses(series, detector, training, split, together)
    found = [
        detection(together.buckets.starts, training.minutes * 60, judged, brief, excused)
        for excused in (rest, rest + holidays)
    ]
    return f"{detector} {task.preparation} {'nightly' if task.is_iterative else 'once'}", *found


def detection_rows() -> dict[str, dict[str, Any]]:
    """Rows for each detector and preparation, trained once; the default detector also trained each night."""
    once = [(detector, way, False) for detector in DETECTORS for way in PREPARATIONS]
    service = next(iter(DETECTORS)), "default", True
    tasks = [UnseenTask(seed, *way) for way in (service, *once) for seed in UNSEEN_PORT_SEEDS]
    totals: dict[str, list[Detection]] = {}
    for key, *found in in_parallel(
        judge_unseen, tasks, len(tasks), Cluster(os.cpu_count() or 1), "detection"
    ):
        totals[key] = [a + b for a, b in zip(totals.get(key, [Detection(), Detection()]), found, strict=True)]
    return {
        key: {
            "anomalies": total[0].known,
            **total[0].rates(),
            "false_alerts_outside_holidays": total[1].rates()["false_alerts"],
        }
        for key, total in sorted(totals.items())
    }


def capture_rows(folder: str) -> dict[str, dict[str, Any]]:
    """Rows for labelled real series and each detector, trained each night."""
    labels = read_anomalies(Path(folder) / "anomalies.txt")
    rows = {}
    for name, path in list_series(folder).items():
        series = read_series(path)
        split = last_midnight(int(series.times[0]) + CAPTURE_TRAIN_DAYS * DAY_SECONDS + DAY_SECONDS, TIMEZONE)
        known = [one for one in labels if one.series == name]
        for detector in DETECTORS:
            training = training_of(detector)
            together = judge(fit_series(series, detector, replace(training, until=split)), series, split)
            together = together.after(split)
            judged = iterative_statuses(series, detector, training, split, together)
            late, early = (
                [one for one in known if (one.end > split) == is_late] for is_late in (True, False)
            )
            found = detection(together.buckets.starts, training.minutes * 60, judged, late, early)
            rows[f"{name} {detector}"] = {**asdict(found), "alerted": int((judged == ALERT).sum())}
    return rows


# --- time against the plain form -----------------------------------------------------------------


def plain(detector: str, buckets: Buckets, preparation: Preparation, test: Buckets) -> np.ndarray:
    """Scores of `test` from the library used as in its manual, on the same values."""
    scaler = preparation.fit_scaler(buckets.traffic[~np.isnan(buckets.traffic)])
    values, new = scaler.transform(buckets.traffic), scaler.transform(test.traffic)
    seen = ~np.isnan(values)
    filled = np.interp(np.arange(len(values)), np.flatnonzero(seen), values[seen])
    in_week = WEEK_DAYS * 1440 // buckets.minutes
    if detector == "stl":
        from statsmodels.tsa.seasonal import STL

        parts = STL(filled, period=in_week, seasonal=detectors.STL_SEASONAL).fit()
        expected = np.resize(parts.seasonal[-in_week:], len(test.slots)) + parts.trend[-1]
        return np.abs(new - expected) / _plain_limit(parts.resid)
    if detector == "sarimax":
        from statsmodels.tsa.statespace.sarimax import SARIMAX

        first = first_slot(buckets.slots, buckets.minutes)
        mean = np.roll(np.nanmean(week_rows(filled, buckets.slots, buckets.minutes), axis=0), first)
        known, new_known = (np.column_stack([np.ones(len(b.slots)), mean[b.slots]]) for b in (buckets, test))
        fitted = SARIMAX(filled, exog=known, order=(1, 0, 1)).fit(disp=False)
        expected = fitted.forecast(len(test.slots), exog=new_known)
        return np.abs(new - expected) / _plain_limit(fitted.resid)
    in_day = in_week // WEEK_DAYS
    times, new_times = (np.column_stack([b.slots % in_day, b.slots // in_day]) for b in (buckets, test))
    if detector == "random-forest":
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(random_state=0).fit(times[seen], values[seen])
        return np.abs(new - forest.predict(new_times)) / _plain_limit(
            values[seen] - forest.predict(times[seen])
        )
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    estimator = IsolationForest(random_state=0) if detector == "isolation-forest" else OneClassSVM()
    points, new_points = np.column_stack([values, times])[seen], np.column_stack([new, new_times])
    estimator.fit(points)
    known = ~np.isnan(new)
    scores = np.full(len(new), np.nan)
    scores[known] = -estimator.score_samples(new_points[known])
    lowest, limit = (lambda of: (of.min(), np.quantile(of, 0.99)))(-estimator.score_samples(points))
    return (scores - lowest) / (limit - lowest)


def _plain_limit(errors: np.ndarray) -> float:
    return detectors.SPREADS * spread(errors)


def ours(detector: str, buckets: Buckets, preparation: Preparation, test: Buckets) -> np.ndarray:
    """Scores of `test` from our form, which needs the days before it for the level."""
    lead = LEAD_MINUTES // buckets.minutes
    parts = zip(*((one.starts, one.traffic, one.slots) for one in (buckets[-lead:], test)), strict=True)
    together = Buckets(buckets.minutes, *map(np.concatenate, parts))
    return detectors.fit(detector, buckets, preparation).judge(together).score[lead:]


def speed_rows() -> dict[str, dict[str, Any]]:
    """Seconds to fit and score one model, and its detection, for our form and the plain form."""
    rows: dict[str, dict[str, Any]] = {}
    for detector in list(DETECTORS)[1:]:
        # A first call, so that no import is timed.
        figures: dict[str, list] = {"ours": [], "plain": []}
        _timed(ours, detector, PLAIN_SEEDS[0])
        for seed in PLAIN_SEEDS:
            figures["ours"].append(_timed(ours, detector, seed))
            figures["plain"].append(_timed(plain, detector, seed))
        rows[detector] = {
            "times_quicker": round(
                sum(seconds for seconds, _ in figures["plain"])
                / sum(seconds for seconds, _ in figures["ours"]),
                1,
            )
        }
        for way, found in figures.items():
            total = sum((one for _, one in found), Detection())
            rows[detector][way] = {
                "seconds": round(float(np.median([seconds for seconds, _ in found])), 4),
                **total.rates(),
            }
    return rows


def _timed(score: Callable[..., np.ndarray], detector: str, seed: int) -> tuple[float, Detection]:
    series, split, brief, rest, holidays = unseen_port(seed)
    preparation = PREPARATIONS["default"]
    buckets = preparation.buckets(series, preparation.minutes, TIMEZONE)
    before = buckets.starts < split
    start = time.perf_counter()
    scores = score(detector, buckets[before], preparation, buckets[~before])
    seconds = time.perf_counter() - start
    starts = buckets.starts[~before]
    return seconds, detection(starts, preparation.minutes * 60, statuses(scores), brief, rest + holidays)


# --- a thousand models ---------------------------------------------------------------------------


def run_ports(mode: str, *options: str) -> float:
    """Wall seconds of the command line with two processes."""
    command = [sys.executable, "find_anomalies.py", "--target", "ports", "--mode", mode, "--jobs", "2"]
    start = time.perf_counter()
    subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 1)


def thousand_models(detector: str, folder: Path, kept: Path) -> dict[str, float]:
    """Seconds to train THOUSAND series into `kept`, and the size of the largest model in bytes."""
    options = ["--ports_dir", str(folder), "--ports_models", str(kept), "--detector", detector]
    seconds = run_ports("train", *options, "--timezone", TIMEZONE, "--train_days", str(THOUSAND_DAYS))
    sizes = [path.stat().st_size for path in kept.iterdir()]
    if len(sizes) != THOUSAND:
        raise RuntimeError(f"{len(sizes)} models were trained, not a thousand")
    return {"seconds": seconds, "largest_model_bytes": max(sizes)}


def hourly_job(folder: Path, kept: Path, scratch: Path) -> dict[str, float]:
    """Seconds of one hourly job over THOUSAND series with models in `kept` and samples in a real InfluxDB."""
    series = {name: read_series(path) for name, path in list_series(folder).items()}
    end = max(int(one.times[-1]) for one in series.values()) // HOUR_SECONDS * HOUR_SECONDS
    with Influxd(scratch / "influxd") as server:
        client = InfluxDBClient(server.host, server.port, database="ports")
        client.create_database("ports")
        for name, one in series.items():
            tags = ",".join(f"{key}={text}" for key, text in port_tags(name).items())
            recent = one.between(end - HOURLY_DAYS * DAY_SECONDS, end)
            known = zip(recent.times.tolist(), recent.traffic.tolist(), strict=True)
            lines = [f"port_traffic,{tags} value={value} {at}" for at, value in known if value == value]
            client.write_points(lines, time_precision="s", protocol="line", batch_size=5000)
        options = ["--once", "--influx_host", server.host, "--influx_port", str(server.port)]
        options += ["--influx_db", "ports", "--ports_models", str(kept), "--state_dir", str(scratch)]
        untils = [datetime.fromtimestamp(end - hours * HOUR_SECONDS, UTC).isoformat() for hours in (1, 0)]
        seconds = [run_ports("test", *options, "--until", until) for until in untils]
        client.close()
    return {"seconds": seconds[1]}


def write_thousand(folder: Path) -> None:
    """Write THOUSAND files of THOUSAND_DAYS, in which 20 contents repeat."""
    for number in range(THOUSAND):
        path = folder / f"1_{number}_out.csv"
        if number < len(UNSEEN_PORT_SEEDS):
            write_port(folder, path.stem, simulate_port(UNSEEN_PORT_SEEDS[number], days=THOUSAND_DAYS))
        else:
            path.hardlink_to(folder / f"1_{number % len(UNSEEN_PORT_SEEDS)}_out.csv")


def main() -> None:
    """Print all figures of the port detectors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captures", help="folder of labelled real series")
    options = parser.parse_args()
    figures: dict[str, Any] = {"detection": detection_rows(), "speed": speed_rows(), "thousand": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_thousand(Path(folder))
        for detector in ("random-forest", "profile"):
            with tempfile.TemporaryDirectory() as scratch:
                kept = Path(scratch, "models")
                figures["thousand"][detector] = thousand_models(detector, Path(folder), kept)
                if detector == "profile":
                    figures["thousand"]["hourly job"] = hourly_job(Path(folder), kept, Path(scratch))
    if options.captures:
        figures["captures"] = capture_rows(options.captures)
    for topic, rows in figures.items():
        print(f"\n{topic}")
        for name, row in rows.items():
            print(f"  {name:<36} {row}")
    saveDictJson(figures, "plots/benchmarks_ports.json")


if __name__ == "__main__":
    main()
