"""Methods: five slots, and presets that fill them as papers do."""

from __future__ import annotations

from distail.methods.context import BatchContext, Progress, Requirements, SlotOutput, SlotSetup, Terms
from distail.methods.describe import Description, describe_method
from distail.methods.entries import SLOTS
from distail.methods.method import Method
from distail.methods.preset_table import PRESETS, Preset
from distail.methods.presets import create_method, list_methods

__all__ = [
    "PRESETS",
    "SLOTS",
    "BatchContext",
    "Description",
    "Method",
    "Preset",
    "Progress",
    "Requirements",
    "SlotOutput",
    "SlotSetup",
    "Terms",
    "create_method",
    "describe_method",
    "list_methods",
]
