"""The documented names are the contract: who calls one as the reference says must find it so."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NO_DEFAULT = inspect.Parameter.empty
ROOMS = ("common", "nodes", "commands", "edge", "service", "ports", "simulators", "lab", "benchmarks")
PROGRAM = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))])

# module, function, parameters without a default, parameters with one
DOCUMENTED = [
    (
        "find_anomalies",
        "evaluate",
        "thresholds_file cpu_testset iperf_testset trainset time_window_threshold",
        {},
    ),
    (
        "find_anomalies",
        "train",
        "train_dataset n_steps n_features",
        {
            "train_epochs": 10,
            "val_split": 0.1,
            "train_verbose": 1,
            "model_filename": "model/5g_edge_autoencoder.h5",
        },
    ),
    ("influx_utils", "checkDatabase", "client db_name", {}),
    ("influx_utils", "getLastRecords", "client queries measurements", {}),
    ("influx_utils", "initializeConnection", "influx_host influx_port influx_user influx_pass", {}),
    ("influx_utils", "insertAnomalies", "client influx_measurement timestamps anomaly_np tag_msg", {}),
    ("formatters", "format5gCpuPercentage", "json_array last_record", {}),
    ("formatters", "format5gNetworkBytes", "json_array last_record", {}),
    ("formatters", "formatCpuSecondsTotal", "json_array last_record", {}),
    ("formatters", "formatMemoryFreeBytes", "json_array last_record", {}),
    ("formatters", "formatNetworkBytes", "json_array last_record", {}),
    ("utils", "convertNumpyToPandas", "np_arr", {}),
    ("utils", "createEmptyMetricsArray", "col_num", {}),
    ("utils", "getAnomalyColumns", "", {}),
    ("utils", "getColumnNames", "", {}),
    ("utils", "getFeatures", "", {}),
    ("utils", "loadDataset", "dataset", {}),
    ("utils", "loadDictJson", "filename", {}),
    ("utils", "normalizeFeature", "df feature min max", {}),
    ("utils", "plotAccLoss", "history plots_prefix", {}),
    ("utils", "plotMetric", "history metric plots_prefix", {}),
    ("utils", "printPredictionErrors", "y_actual y_predict", {}),
    ("utils", "saveDictJson", "dict filename", {}),
    ("utils", "saveNormalizationStats", "df cols_to_normalize", {}),
    ("utils", "split_sequences", "sequences n_steps", {}),
]


@pytest.mark.parametrize(
    ("module", "name", "required", "defaults"),
    [pytest.param(*row, id=f"{row[0]}.{row[1]}") for row in DOCUMENTED],
)
def test_function_has_the_documented_parameters(
    module: str, name: str, required: str, defaults: dict[str, object]
) -> None:
    documented = [(parameter, NO_DEFAULT) for parameter in required.split()] + list(defaults.items())
    parameters = list(inspect.signature(getattr(importlib.import_module(module), name)).parameters.values())
    kept, extra = parameters[: len(documented)], parameters[len(documented) :]
    assert [(parameter.name, parameter.default) for parameter in kept] == documented
    assert {parameter.kind for parameter in kept} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert [parameter.name for parameter in extra if parameter.default is NO_DEFAULT] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_testset", "data/cpu_attack.csv"),
        ("data_prefix", "data/"),
        ("iperf_testset", "data/iperf_attack.csv"),
        ("model_prefix", "model/"),
        ("plots_prefix", "plots/"),
        ("stats_json", "data/normalization_stats.json"),
        ("trainset", "data/normal.csv"),
    ],
)
def test_find_anomalies_has_the_documented_data(name: str, value: str) -> None:
    assert getattr(importlib.import_module("find_anomalies"), name) == value


def public_definitions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Qualified name and node of each public function, class and method of a module."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append((node.name, node))
            if isinstance(node, ast.ClassDef):
                methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                found += [(f"{node.name}.{m.name}", m) for m in methods if not m.name.startswith("_")]
    return found


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PROGRAM])
def test_public_names_have_docstring_and_return_annotation(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = public_definitions(tree)
    assert ast.get_docstring(tree) or not tree.body
    # Not inspect.getdoc(): a dataclass without a docstring is given one.
    assert [name for name, node in public if not ast.get_docstring(node)] == []
    functions = [(name, node) for name, node in public if isinstance(node, ast.FunctionDef)]
    assert [name for name, node in functions if node.returns is None] == []


HEAVY = ("tensorflow", "keras", "pandas", "matplotlib", "sklearn", "statsmodels")
# What a node needs that writes points, serves its metrics, or speaks TLS: not one that watches calmly.
SELDOM = ("influxdb", "requests", "urllib3", "prometheus_client", "http", "email", "ssl")


@pytest.mark.parametrize(
    "module",
    [
        "find_anomalies",
        "utils",
        "commands.edge",
        "edge.daemon",
        "edge.exporter",
        "edge.evaluation",
        "formatters",
    ],
)
def test_what_test_mode_does_not_need_is_not_loaded(module: str) -> None:
    code = (
        "import importlib, json, sys\n"
        "module, names = json.loads(sys.argv[1])\n"
        "importlib.import_module(module)\n"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    command = [sys.executable, "-c", code, json.dumps([module, HEAVY + SELDOM])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    table = (ROOT / "tests/faults.md").read_text()
    files = {letter: file for file, letter in re.findall(r"`([\w/]+\.py)` \((\w)\)", table)}
    named = re.findall(r"\b(\w) `(test_\w+)`", table)
    assert len(named) > 120
    for letter, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / files[letter]).read_text(), name
