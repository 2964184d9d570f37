"""Methods: five slots, and presets that fill them as papers do."""

from __future__ import annotations

from distail.objective.composition import SLOTS
from distail.objective.context import Context, Needs, Progress, Reply, Setup
from distail.objective.describe import Description, describe_method
from distail.objective.method import Method
from distail.objective.presets import PRESETS, Preset, create_method, list_methods
from distail.objective.terms import Terms

__all__ = [
    "PRESETS",
    "SLOTS",
    "Context",
    "Description",
    "Method",
    "Needs",
    "Preset",
    "Progress",
    "Reply",
    "Setup",
    "Terms",
    "create_method",
    "describe_method",
    "list_methods",
]
