"""Networks, and what every network looks like to the rest of distail."""

from __future__ import annotations

from distail.models.catalog import MODELS, list_models
from distail.models.create import check_model, create_model
from distail.models.feature_tap import FeatureTap
from distail.models.input_normalization import InputNormalization
from distail.models.layers import CosineClassifier
from distail.models.summary import count_macs, count_parameters
from distail.models.weights import load_weights, read_metadata, save_weights
from distail.outputs import Outputs

__all__ = [
    "MODELS",
    "CosineClassifier",
    "FeatureTap",
    "InputNormalization",
    "Outputs",
    "check_model",
    "count_macs",
    "count_parameters",
    "create_model",
    "list_models",
    "load_weights",
    "read_metadata",
    "save_weights",
]
