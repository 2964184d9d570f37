"""One table: a published method is a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distail.errors import MethodError, unknown_name
from distail.objective.composition import build
from distail.objective.method import Method


@dataclass(frozen=True)
class Preset:
    """A published method as a composition of slots."""

    title: str
    paper: str
    arxiv: str | None
    formula: str
    composition: Mapping[str, Any]
    teacher_supervised: str = "ce"


PRESETS: dict[str, Preset] = {
    "ce": Preset("Cross-entropy", "", None, "L = CE(z_s, y)", {"supervised": "ce", "divergence": None}),
    "kd": Preset(
        "Knowledge distillation", "", "1503.02531", "",
        {"divergence": "kl", "supervised_weight": 0.1, "distillation_weight": 0.9, "temperature": 4.0},
    ),
    "bkd": Preset(
        "Balanced Knowledge Distillation", "", "2104.10510", "",
        {"targets": ["reweigh"], "divergence": "kl", "temperature": 2.0},
    ),
    "drkd": Preset(
        "Dynamic Rectification Knowledge Distillation", "", "2201.11319", "",
        {"targets": ["swap"], "divergence": "kl", "supervised_weight": 0.05, "distillation_weight": 0.95, "temperature": 20.0},
    ),
}  # fmt: skip


def create_method(
    name_or_composition: str | Mapping[str, Any],
    *,
    class_counts: Sequence[int] | Tensor,
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    **parameters: Any,
) -> Method:
    """A method by its name, or a composition of slots."""
    given = {"name": name_or_composition} if isinstance(name_or_composition, str) else dict(name_or_composition)
    name = given.pop("name", None)
    if name is not None and name not in PRESETS:
        raise MethodError(unknown_name("method", name, PRESETS))
    preset = None if name is None else PRESETS[name]
    return build(
        name or "composition",
        {**(preset.composition if preset else {}), **given, **parameters},
        class_counts=class_counts,
        student_dim=student_dim,
        teacher_dim=teacher_dim,
        teacher_supervised=preset.teacher_supervised if preset else "ce",
    )


def list_methods() -> dict[str, Preset]:
    """Every method by name."""
    return dict(PRESETS)
