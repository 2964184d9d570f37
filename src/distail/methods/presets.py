"""One table: a published method is a row. `create_method` reads it; so do the documentation and `distail methods`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from distail.errors import MethodError
from distail.functional.checks import check_choice
from distail.methods.composition import DEFAULTS, SLOTS, Composition, build, parse
from distail.methods.method import Method
from distail.torch_utils import kept_random_state

RECONSTRUCTION = "A reconstruction: no code and no usable statement of the equations is public."


@dataclass(frozen=True)
class Preset:
    """A published method as a composition of slots.

    Attributes:
        title, paper, arxiv: what to cite.
        formula: its loss, in the symbols of the documentation.
        composition: slots, term weights and temperature that differ from a free composition's defaults.
        provenance: what is the authors' code, the paper's text, a third party's note, or ours.
        teacher_supervised: the supervised entry that the paper trains its teacher with.
        reconstruction: whether the method is our reading of a paper whose equations are not public.
    """

    title: str
    paper: str
    arxiv: str | None
    formula: str
    composition: Mapping[str, Any]
    provenance: tuple[str, ...] = field(default=())
    teacher_supervised: str = "ce"
    reconstruction: bool = False

    @property
    def slots(self) -> dict[str, tuple[str, ...]]:
        """The names of the entries in each slot that the method fills."""
        filled = parse({**DEFAULTS, **self.composition})
        return {slot: tuple(entry.name for entry in entries) for slot, entries in filled.items() if entries}

    def __str__(self) -> str:
        slots = ", ".join(f"{slot}: {' + '.join(names)}" for slot, names in self.slots.items())
        arxiv = f", arXiv {self.arxiv}" if self.arxiv else ""
        ours = "; a reconstruction, ours" if self.reconstruction else ""
        return f"{self.title} ({self.paper}{arxiv}{ours}); {slots}"


PRESETS: dict[str, Preset] = {
    "ce": Preset(
        title="Cross-entropy, no teacher",
        paper="the baseline of every comparison",
        arxiv=None,
        formula="L = CE(z_s, y)",
        composition={"supervised": "ce", "divergence": None},
    ),
    "kd": Preset(
        title="Knowledge Distillation",
        paper="Hinton, Vinyals, Dean; 2015",
        arxiv="1503.02531",
        formula="L = 0.1 * CE(z_s, y) + 0.9 * T^2 * KL(p_t^T || p_s^T)",
        composition={
            "supervised": "ce",
            "divergence": "kl",
            "supervised_weight": 0.1,
            "distillation_weight": 0.9,
            "temperature": 4.0,
        },
        provenance=(
            "[paper] temperature, T^2 and the sum of two terms",
            "[ours] the field's setting, T 4, 0.1 and 0.9",
        ),
    ),
    "bkd": Preset(
        title="Balanced Knowledge Distillation",
        paper="Zhang, Chen, Hu, Peng; Neurocomputing 2023",
        arxiv="2104.10510",
        formula="L = CE(z_s, y) + T^2 * KL(q || p_s^T), q ~ w * p_t^T, w_c = (1 - beta) / (1 - beta^n_c)",
        composition={"supervised": "ce", "targets": ["reweigh"], "divergence": "kl", "temperature": 2.0},
        provenance=(
            "[code] weights, renormalization, T 2, beta 0.9999, plain CE",
            "[ours] constants in float64, the product with the weights in log space",
            "[code] deferral: defer_until 0.8 on CIFAR-10-LT, 0 (the default) on CIFAR-100-LT",
        ),
    ),
    "drkd": Preset(
        title="Dynamic Rectification Knowledge Distillation",
        paper="Amik and others; 2022",
        arxiv="2201.11319",
        formula="L = 0.05 * CE(z_s, y) + 0.95 * T^2 * KL(softmax(swap(z_t) / T) || p_s^T)",
        composition={
            "supervised": "ce",
            "targets": ["swap"],
            "divergence": "kl",
            "supervised_weight": 0.05,
            "distillation_weight": 0.95,
            "temperature": 20.0,
        },
        provenance=(
            "[code, paper] where argmax z_t is not the label, exchange the two logits",
            "[code] weights (1 - a), a and T; their division of KL by B * C times a multiplier is "
            "distillation_weight = a * multiplier / C here",
            "[ours] the teacher's tensor is not written to; a label that ties with the largest logit is right",
        ),
    ),
    "ipwd": Preset(
        title="Inverse Probability Weighting Distillation",
        paper="Niu, Chen, Zhou, Zhang; NeurIPS 2022",
        arxiv="2210.12787",
        formula="L = CE(z_s, y) + T^2 * w * KL(p_t^T || p_s^T) + CE(cls head), w = 1 + H_kd / H_cls",
        composition={"supervised": "ce", "divergence": "kl", "weights": "inverse_propensity", "temperature": 4.0},
        provenance=(
            "[note] the second head, standardized logits, weights from the two cross-entropies",
            "[ours] the sum of three terms, in which the student's own head learns from labels too (kd_head_ce)",
            "[ours] the ratio is kd_over_cls; the second head reads detached features; denominators floored at "
            "1e-6; clip at 10; batch mean 1",
            "[paper] one-stage form, teacher: previous_epoch: T 1, share a_e = final_weight * (e + 1) / E of the loss",
            "[note] there, weights are 1 before start, later works better; [ours] its default 0.5, half precision",
        ),
    ),
    "krdistill": Preset(
        title="Knowledge Rectification Distillation",
        paper="Huang, Tang, Zheng, Zhou, Yu, Jiang; 2024",
        arxiv="2409.07694",
        formula="L = CE(z_s + log share, y) + T^2 * KL(q || p_s^T) + 1 - cos(g(f_s), r), "
        "q = softmax((swap(z_t) - log share) / T), r = normalize(normalize(f_t) + prior_strength * v_y)",
        composition={
            "supervised": "balanced_softmax",
            "targets": ["swap", "debias"],
            "divergence": "kl",
            "representation": "balanced_prototypes",
            "temperature": 2.0,
        },
        provenance=(
            "[note] two parts: balanced category priors for features, rectified teacher predictions",
            "[ours] " + RECONSTRUCTION + " Every equation of it is our choice",
        ),
        reconstruction=True,
    ),
    "ltkd": Preset(
        title="Long-Tailed Knowledge Distillation",
        paper="Kim; CVPR 2026",
        arxiv="2506.18496",
        formula="L = CE(z_s, y) + T^2 * (cross_weight * KL(P~_t || P_s) + within_weight * sum_g KL(p_t|g || p_s|g))",
        composition={"supervised": "ce", "divergence": "grouped_kl", "temperature": 4.0},
        provenance=(
            "[note] the decomposition, the rebalanced group masses, equal within-group weights, weights 1 and 1",
            "[ours] T 4, the field's; thirds of the classes as the groups",
        ),
    ),
    "dive": Preset(
        title="Distilling Virtual Examples",
        paper="He, Wu, Wei; ICCV 2021",
        arxiv="2103.15042",
        formula="L = 0.5 * CE(z_s + log share, y) + 0.5 * T^2 * KL(q || p_s^T), q ~ (p_t^T)^0.5",
        composition={
            "supervised": "balanced_softmax",
            "targets": ["power"],
            "divergence": "kl",
            "supervised_weight": 0.5,
            "distillation_weight": 0.5,
            "temperature": 3.0,
        },
        provenance=(
            "[paper] balanced softmax for teacher and student, targets to the power 0.5, T 3",
            "[ours] weights 0.5 and 0.5: settings that we have not seen confirmed",
        ),
        teacher_supervised="balanced_softmax",
    ),
    "dkd": Preset(
        title="Decoupled Knowledge Distillation",
        paper="Zhao, Cui, Song, Qiu, Liang; CVPR 2022",
        arxiv="2203.08679",
        formula="L = CE(z_s, y) + ramp * T^2 * (target_weight * TCKD + non_target_weight * NCKD)",
        composition={"supervised": "ce", "divergence": "decoupled_kl", "temperature": 4.0},
        provenance=(
            "[paper, code] both terms, their weights 1 and 8, the warm-up",
            "[ours] log space: finite for saturated logits; warm-up as a share of training, epochs from 0, so that the "
            "first has no distillation",
        ),
    ),
    "wsld": Preset(
        title="Weighted Soft Labels for Distillation",
        paper="Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang; ICLR 2021",
        arxiv="2102.00650",
        formula="L = CE(z_s, y) + 2.25 * T^2 * w * KL(p_t^T || p_s^T), w = 1 - exp(-CE(z_s, y) / CE(z_t, y))",
        composition={
            "supervised": "ce",
            "divergence": "kl",
            "weights": "loss_ratio",
            "distillation_weight": 2.25,
            "temperature": 2.0,
        },
        provenance=(
            "[paper] the weight of a sample",
            "[ours] factor 2.25 with T 2 (the authors' ImageNet code: 2.5 with T 2); the denominator floored at 1e-6",
        ),
    ),
    "dist": Preset(
        title="Knowledge Distillation from a Stronger Teacher (DIST)",
        paper="Huang, You, Wang, Qian, Xu; NeurIPS 2022",
        arxiv="2205.10536",
        formula="L = CE(z_s, y) + 2 * T^2 * (1 - r over classes) + 2 * T^2 * (1 - r over the batch), "
        "r of p_s^T and p_t^T",
        composition={
            "supervised": "ce",
            "divergence": "correlation",
            "inter_weight": 2.0,
            "intra_weight": 2.0,
            "temperature": 4.0,
        },
        provenance=(
            "[paper, code] both correlations, T 4; the paper's weights 2 and 2 on CIFAR-100 (in the code 2 times 1, 1)",
            "[ours] with several processes the second term is of the global batch",
        ),
    ),
    "ls": Preset(
        title="Logit Standardization in Knowledge Distillation",
        paper="Sun, Ren, Li, Wang, Cao; CVPR 2024",
        arxiv="2403.01427",
        formula="L = 0.1 * CE(z_s, y) + 9 * T^2 * KL(softmax(std(z_t) / T) || softmax(std(z_s) / T))",
        composition={
            "supervised": "ce",
            "targets": ["standardize"],
            "divergence": "kl",
            "supervised_weight": 0.1,
            "distillation_weight": 9.0,
            "temperature": 2.0,
        },
        provenance=(
            "[paper, code] both sides standardized per sample, T 2, weight 9; [code] cross-entropy with weight 0.1",
            "[ours] the deviation floored at 1e-6 (the code adds 1e-7)",
        ),
    ),
}


def create_method(
    name_or_composition: str | Mapping[str, Any],
    *,
    class_counts: Sequence[int] | Tensor,
    student_dim: int | None = None,
    teacher_dim: int | None = None,
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
    name, preset, given = _preset_and_rest({**_as_mapping(name_or_composition), **parameters})
    return build(
        name,
        preset.composition if preset else {},
        given,
        class_counts=class_counts,
        student_dim=student_dim,
        teacher_dim=teacher_dim,
        teacher_supervised=preset.teacher_supervised if preset else "ce",
    )


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
    _, preset, given = _preset_and_rest(_as_mapping(name_or_composition))
    whole = {**DEFAULTS, **(preset.composition if preset else {}), **given}
    options = {key: value for key, value in whole.items() if key not in SLOTS}
    return Composition(parse(whole), options, preset.teacher_supervised if preset else "ce")


def check_method(name_or_composition: str | Mapping[str, Any]) -> None:
    """Refuse what `create_method` would refuse whatever the classes and the features' widths: values as well as names.

    Raises:
        MethodError: as `create_method`.
    """
    with kept_random_state():
        create_method(name_or_composition, class_counts=(1, 1), student_dim=1, teacher_dim=1)


def _as_mapping(name_or_composition: object) -> Mapping[str, Any]:
    if isinstance(name_or_composition, str):
        return {"name": name_or_composition}
    if not isinstance(name_or_composition, Mapping):
        raise MethodError(f"the method is {name_or_composition!r}; expected a name or a mapping of slots")
    return name_or_composition


def _preset_and_rest(composition: Mapping[str, Any]) -> tuple[str, Preset | None, dict[str, Any]]:
    """The preset that a composition names, if it does, and whatever else it holds."""
    given = dict(composition)
    name = given.pop("name", None)
    if name is None:
        return "composition", None, given
    return name, PRESETS[check_choice("method", name, PRESETS)], given
