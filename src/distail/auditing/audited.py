"""What an audit looks at, whatever it was read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distail.evaluation.audit import audit
from distail.evaluation.audit_summary import summary
from distail.evaluation.sample_weights import StudentHeads

TEST_CAUTION = (
    "These are test images. Choose nothing by them: the honest protocol touches the test set once, at the end."
)


@dataclass(frozen=True)
class Audited:
    """Logits (N, C) and labels (N,) with everything that is known of them.

    Attributes:
        what: which network gave the logits.
        images: how many images of which split, in words.
        split: `train`, `validation` or `test`; None for a file of logits, which does not say.
        counts_from: where the class counts come from.
        method: the experiment's own, as `create_method` takes it.
        student: the run's student on the same images.
        cautions: sentences on what the numbers can and cannot say.
    """

    what: str
    images: str
    split: str | None
    counts_from: str
    logits: Tensor
    target: Tensor
    class_counts: tuple[int, ...]
    class_names: Sequence[str] | None = None
    method: Mapping[str, Any] | None = None
    student: StudentHeads | None = None
    cautions: tuple[str, ...] = ()

    def audit(self, temperature: float | None = None) -> dict[str, Any]:
        """All findings, ready for JSON: those of `distail.evaluation.audit`, what was audited, and the summary.

        Raises:
            DistailError: as `distail.evaluation.audit.audit`.
        """
        found = audit(
            self.logits,
            self.target,
            self.class_counts,
            class_names=self.class_names,
            method=self.method,
            temperature=temperature,
            student=self.student,
        )
        return {
            "schema_version": found.pop("schema_version"),
            "audited": {
                "what": self.what,
                "images": self.images,
                "split": self.split,
                "class_counts_from": self.counts_from,
            },
            **found,
            "cautions": [*self.cautions, *found["cautions"]],
            "summary": summary(found),
        }
