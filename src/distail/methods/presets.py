"""A method by its name, or composed of slots: the table of presets, read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import check_choice, check_whole
from distail.methods.build import build
from distail.methods.composition import Composition
from distail.methods.entries import COMMON, DEFAULTS, SLOTS, parse
from distail.methods.label_kinds import check_kind, for_labels
from distail.methods.method import Method
from distail.methods.preset_table import PRESETS, Preset
from distail.outputs import MULTI_LABEL, SINGLE_LABEL
from distail.torch_utils import kept_random_state


def create_method(
    name_or_composition: str | Mapping[str, Any],
    *,
    class_counts: Sequence[int] | Tensor,
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    samples: int | None = None,
    **parameters: Any,
) -> Method:
    """A method by its name, or composed of slots: a loss that any training loop can call.

    Args:
        name_or_composition: a name of `list_methods`, or a mapping with any of the slots `supervised`, `targets`,
            `divergence`, `weights`, `representation`, `teacher` (an entry's name, or a mapping of `name` and its
            parameters; `targets` also a list of these), and of the parameters below. With `name` it starts from that
            method, else from supervised `ce`, divergence `kl`, all weights 1 and temperature 4. `divergence: null` is
            without a teacher.
        class_counts: training images per class, (C,), at least 1 each: a sequence or tensor of ints.
        student_dim, teacher_dim: widths of the features, where a method reads them.
        samples: of multi-label data, how many training samples there are, of which `class_counts` counts those of each
            class. Labels are then (B, C) bool, and the entries of a method their counterparts: `bce` for `ce`,
            `sigmoid` for `kl`.
        **parameters: `temperature`, `supervised_weight`, `distillation_weight`, `representation_weight`,
            `auxiliary_weight`; a slot, to exchange its entry; or a parameter of an entry, which reaches every entry
            that owns one of that name. With `teacher="previous_epoch"` temperature and weights are 1 unless given.

    Raises:
        MethodError: an unknown name or parameter (with the nearest valid one), or a value out of range.

    >>> import torch
    >>> from distail import Outputs
    >>> method = create_method("bkd", class_counts=[100, 10, 1], beta=0.99)
    >>> student, teacher = Outputs(torch.zeros(4, 3)), Outputs(torch.zeros(4, 3))
    >>> terms = method(student, teacher, torch.tensor([0, 0, 1, 2]))
    >>> list(terms), bool(terms.total > 1)
    (['supervised', 'distillation'], True)
    >>> mixed = {"supervised": "focal", "targets": ["swap", {"name": "reweigh", "beta": 0.9}], "temperature": 2.0}
    >>> create_method(mixed, class_counts=[100, 10, 1]).needs.teacher
    True
    """
    name, preset, given, labels = _preset_and_rest({**_as_mapping(name_or_composition), **parameters})
    if samples is not None:
        labels = MULTI_LABEL
    elif labels == MULTI_LABEL:
        raise MethodError("labels: multi_label, without samples=; expected how many training samples there are")
    method = build(
        name,
        for_labels(preset.composition, labels) if preset else {},
        given,
        class_counts=class_counts,
        student_dim=student_dim,
        teacher_dim=teacher_dim,
        teacher_supervised=_supervised_of_teacher(preset, labels),
        samples=None if samples is None else check_whole("samples", samples, least=2),
    )
    ignored = [key for key in ("supervised", "supervised_weight") if key in given]
    if ignored and getattr(method.sample_weights, "replaces_labels", False):
        raise MethodError(
            f"{name}: {' and '.join(ignored)} has no effect with kd_head_ce: false, which trains the student's own "
            "head without labels; expected one or the other"
        )
    return method


def list_methods() -> dict[str, Preset]:
    """Every method by name: its slots, weights and paper.

    >>> print(list_methods()["kd"])
    Knowledge Distillation (Hinton, Vinyals, Dean; 2015, arXiv 1503.02531); supervised: ce, divergence: kl
    """
    return dict(PRESETS)


def read_composition(name_or_composition: str | Mapping[str, Any]) -> Composition:
    """The entries of a method and what they say of it, as `create_method` would take it; nothing is built.

    Raises:
        MethodError: an unknown name, slot entry or parameter of an entry.

    >>> composition = read_composition("ipwd")
    >>> composition.needs.teacher, composition.needs.memory, composition.terms
    (True, False, ('supervised', 'distillation', 'auxiliary'))
    >>> read_composition({"name": "ipwd", "teacher": "previous_epoch"}).needs.memory
    True
    >>> read_composition("dive").teacher_supervised, read_composition("dive").posterior
    ('balanced_softmax', 'balanced')
    >>> read_composition("kd").posterior, read_composition("bkd").posterior
    ('natural', 'mixed')
    """
    _, preset, given, labels = _preset_and_rest(_as_mapping(name_or_composition))
    whole = {**for_labels({**DEFAULTS, **(preset.composition if preset else {})}, labels), **given}
    options = {key: value for key, value in whole.items() if key not in SLOTS}
    return Composition(parse(whole, labels), options, _supervised_of_teacher(preset, labels), labels)


def check_method(name_or_composition: str | Mapping[str, Any]) -> None:
    """Refuse what `create_method` would refuse whatever the classes and the features' widths: values as well as names.

    Raises:
        MethodError: as `create_method`.
    """
    samples = 2 if _preset_and_rest(_as_mapping(name_or_composition))[3] == MULTI_LABEL else None
    with kept_random_state():
        create_method(name_or_composition, class_counts=(1, 1), student_dim=1, teacher_dim=1, samples=samples)


def without_unowned(composition: Mapping[str, Any], inherited: Collection[str]) -> dict[str, Any]:
    """A composition laid over another, less the `inherited` parameters that none of its entries takes any more.

    >>> without_unowned({"name": "bkd", "beta": 0.99, "targets": ["debias"]}, inherited={"name", "beta"})
    {'name': 'bkd', 'targets': ['debias']}
    """
    entries = [entry for slot in read_composition(composition).entries.values() for entry in slot]
    taken = {key for entry in entries for key in entry.defaults if key not in entry.parameters}
    kept = {"name", "labels", *SLOTS, *COMMON, *taken}
    return {key: value for key, value in composition.items() if key in kept or key not in inherited}


def _as_mapping(name_or_composition: object) -> Mapping[str, Any]:
    if isinstance(name_or_composition, str):
        return {"name": name_or_composition}
    if not isinstance(name_or_composition, Mapping):
        raise MethodError(f"the method is {name_or_composition!r}; expected a name or a mapping of slots")
    return name_or_composition


def _preset_and_rest(composition: Mapping[str, Any]) -> tuple[str, Preset | None, dict[str, Any], str]:
    """The preset that a composition names, if it does, whatever else it holds, and of which labels it is."""
    given = dict(composition)
    labels = check_kind(given.pop("labels", SINGLE_LABEL))
    name = given.pop("name", None)
    if name is None:
        return "composition", None, given, labels
    return name, PRESETS[check_choice("method", name, PRESETS)], given, labels


def _supervised_of_teacher(preset: Preset | None, labels: str) -> str | Mapping[str, Any]:
    name = preset.teacher_supervised if preset else "ce"
    return cast("str | Mapping[str, Any]", for_labels({"supervised": name}, labels)["supervised"])
