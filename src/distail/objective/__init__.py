"""Methods: five slots, and presets that fill them as papers do."""

from __future__ import annotations

from distail.objective.context import Context, Needs, Progress, Reply, Setup
from distail.objective.method import Method, Terms
from distail.objective.presets import PRESETS, create_method, list_methods

__all__ = [
    "PRESETS",
    "Context",
    "Method",
    "Needs",
    "Progress",
    "Reply",
    "Setup",
    "Terms",
    "create_method",
    "list_methods",
]
