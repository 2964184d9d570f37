"""One table: a published method is a row. `create_method` reads it; so do the documentation and `distail methods`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distail.methods.entries import DEFAULTS, SLOTS, parse

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
    "distail": Preset(
        title="The recipe of this package: one posterior, corrected once",
        paper="the distail authors",
        arxiv=None,
        formula="L = 0.5 * CE(z_s + log share, y) + T^2 * KL(softmax((z_t - log share) / T) || p_s^T)",
        composition={
            "supervised": "balanced_softmax",
            "targets": ["debias"],
            "divergence": "kl",
            "supervised_weight": 0.5,
            "temperature": 2.0,
        },
        provenance=(
            "[ours] labels and targets aim at equal class priors, and the priors are removed once; weights and T "
            "(configs/cifar100-lt-100-recipe.yaml has the training that it is made for)",
            "[paper] its parts: balanced softmax (Ren 2020), logit adjustment (Menon 2021)",
        ),
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
            "[ours] the standard deviation floored at 1e-6 (the code adds 1e-7)",
        ),
    ),
}


def reconstruction_notes(text: str) -> list[str]:
    """What to say where a configuration, as JSON or YAML, names a reconstruction: a method, or else an entry.

    >>> reconstruction_notes('{"name": "kd"}'), len(reconstruction_notes("method: krdistill"))
    ([], 1)
    """
    notes = {
        name: f"The equations of {name} are not public: its results here come from a reconstruction, not from the "
        "authors' method."
        for names in (PRESETS, *SLOTS.values())
        for name, one in names.items()
        if getattr(one, "reconstruction", False)
    }
    return [note for name, note in notes.items() if re.search(rf'[ "]{name}\b', text)][:1]
