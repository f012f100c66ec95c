"""The documented helpers, imported from the modules that define them; the program imports them from there."""

from common.files import loadDictJson, saveDictJson
from edge.datasets import convertNumpyToPandas, createEmptyMetricsArray, loadDataset
from edge.pictures import plotAccLoss, plotMetric
from edge.sequences import (
    normalizeFeature,
    printPredictionErrors,
    saveNormalizationStats,
    split_sequences,
)
from nodes.metrics import getAnomalyColumns, getFeatures
from nodes.node import getColumnNames

__all__ = [
    "convertNumpyToPandas",
    "createEmptyMetricsArray",
    "getAnomalyColumns",
    "getColumnNames",
    "getFeatures",
    "loadDataset",
    "loadDictJson",
    "normalizeFeature",
    "plotAccLoss",
    "plotMetric",
    "printPredictionErrors",
    "saveDictJson",
    "saveNormalizationStats",
    "split_sequences",
]
