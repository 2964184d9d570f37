"""Knowledge distillation for long-tailed data and biased teachers.

Everything here is imported when first used (PEP 562), so that ``import distail`` and ``distail --help`` load no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distail._version import __version__

if TYPE_CHECKING:
    from distail import functional, models
    from distail.config import Experiment
    from distail.data.datasets import Datasets
    from distail.data.long_tail import long_tail_counts
    from distail.inference.student import load_student
    from distail.methods.method import Method, Terms
    from distail.methods.presets import create_method, list_methods
    from distail.outputs import Outputs
    from distail.runner.result import Result
    from distail.runner.run import run

_DEFINED_IN = {
    "Datasets": "distail.data.datasets",
    "Experiment": "distail.config",
    "Method": "distail.methods.method",
    "Outputs": "distail.outputs",
    "Result": "distail.runner.result",
    "Terms": "distail.methods.method",
    "create_method": "distail.methods.presets",
    "list_methods": "distail.methods.presets",
    "load_student": "distail.inference.student",
    "long_tail_counts": "distail.data.long_tail",
    "run": "distail.runner.run",
}
_SUBPACKAGES = ("functional", "models")

__all__ = [
    "Datasets",
    "Experiment",
    "Method",
    "Outputs",
    "Result",
    "Terms",
    "__version__",
    "create_method",
    "functional",
    "list_methods",
    "load_student",
    "long_tail_counts",
    "models",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"distail.{name}")
    if name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'distail' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
