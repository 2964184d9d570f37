"""The fifth slot: what the student's features learn. One loss per sample.

Shapes: B batch, C classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from distail.errors import MethodError
from distail.functional import assign_prototypes, balanced_prototypes, cosine_distance, rectify_features
from distail.functional.checks import check_choice, check_number, check_target, check_whole
from distail.functional.prototypes import class_mean_features
from distail.methods.checks import check_features, logits_of
from distail.methods.context import BatchContext, Reduce, Requirements, SlotOutput, SlotSetup
from distail.methods.modules import FixedDtypeBuffer, project
from distail.outputs import Outputs

ASSIGNMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda means_CD, prototypes_CD: torch.arange(len(prototypes_CD)),
    "teacher_means": assign_prototypes,
}


class BalancedPrototypes(nn.Module):
    """``1 - cos(g(f_s), normalize(normalize(f_t) + prior_strength * v_y))``: KRDistill, a reconstruction [ours].

    g is a linear projector that exists only in training; v are `balanced_prototypes`, one per class.

    Args:
        prior_strength: how far the teacher's feature is pulled towards the prior of its class; 0 leaves it alone.
        assignment: which class gets which prior: `teacher_means` (most similar to the teacher's class means: needs
            `prepare`) or `identity`.
        prototype_seed: of the prototypes.
    """

    needs = Requirements(student_features=True, teacher_features=True, class_means=True)
    reconstruction = True

    def __init__(
        self,
        setup: SlotSetup,
        *,
        prior_strength: float = 1.0,
        assignment: str = "teacher_means",
        prototype_seed: int = 0,
    ) -> None:
        super().__init__()
        student_dim, teacher_dim = (setup.width(whose, "balanced_prototypes") for whose in ("student", "teacher"))
        self.prior_strength = check_number("prior_strength", prior_strength, least=0.0)
        self.assignment = check_choice("assignment", assignment, ASSIGNMENTS)
        self.prepared = assignment == "identity"
        if self.prepared:
            self.needs = replace(self.needs, class_means=False)
        self.projector = nn.Linear(student_dim, teacher_dim)
        seed = check_whole("prototype_seed", prototype_seed, least=0)
        self.priors = FixedDtypeBuffer(balanced_prototypes(setup.num_classes, teacher_dim, seed), learned=True)

    @torch.no_grad()
    def prepare(self, batches: Iterable[tuple[Outputs, Tensor]], reduce: Reduce) -> None:
        """Give each class its prior, by the teacher's mean features over these batches."""
        priors_CD = self.priors.value
        sums_CD, counts_C = torch.zeros_like(priors_CD), priors_CD.new_zeros(len(priors_CD))
        for teacher, target in batches:
            logits_BC = logits_of(teacher, "teacher")
            if logits_BC.shape[1] != len(priors_CD):
                raise MethodError(
                    f"teacher logits have {logits_BC.shape[1]} classes and class_counts {len(priors_CD)}; expected the "
                    "same"
                )
            check_features(teacher, "teacher", "prepare", priors_CD.shape[1])
            check_target(target, logits_BC)
            assert teacher.features is not None
            label_B = target.to(counts_C.device)
            sums_CD.index_add_(0, label_B, teacher.features.to(sums_CD))
            counts_C.index_add_(0, label_B, torch.ones_like(label_B, dtype=counts_C.dtype))
        means_CD = class_mean_features(reduce(sums_CD), reduce(counts_C))
        order_C = ASSIGNMENTS[self.assignment](means_CD, priors_CD)
        priors_CD.copy_(priors_CD[order_C.to(priors_CD.device)])
        self.prepared = True

    def forward(self, context: BatchContext) -> SlotOutput:
        direction_BD = rectify_features(
            context.teacher_features, self.priors.value[context.target], self.prior_strength
        )
        projected_BD = project(self.projector, context.student_features)
        return SlotOutput(cosine_distance(projected_BD, direction_BD.to(projected_BD.dtype)))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.prepared)

    def set_extra_state(self, state: Tensor) -> None:
        self.prepared = bool(state) or self.assignment == "identity"


REPRESENTATIONS: dict[str, type[nn.Module]] = {"balanced_prototypes": BalancedPrototypes}
