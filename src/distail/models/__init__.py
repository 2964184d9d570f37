"""Networks, and what every network looks like to the rest of distail."""

from __future__ import annotations

from distail.models.create import MODELS, create_model, list_models
from distail.models.feature_tap import FeatureTap
from distail.models.outputs import Outputs

__all__ = ["MODELS", "FeatureTap", "Outputs", "create_model", "list_models"]
