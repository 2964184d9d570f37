"""A file of logits and labels, of any framework, as something to audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from distail.audit.audit import audit
from distail.audit.content import AuditedContent, AuditReport, Recommendation
from distail.audit.defaults import KEEP_HEAD
from distail.audit.logits_csv import LogitsTable
from distail.audit.logits_file import counted_labels, read_class_counts, read_logits
from distail.audit.multi_label import MultiLabelRecommendation, MultiLabelReport, audit_multi_label
from distail.audit.multi_label_tables import multi_label_summary
from distail.audit.recommendation import command
from distail.audit.sample_weights import StudentHeads
from distail.audit.summary import summary
from distail.errors import ConfigError, Problems
from distail.evaluation.adjustment import corrects_twice
from distail.evaluation.checks import checked_predictions
from distail.evaluation.headline import is_multi_label
from distail.evaluation.other_order import find_other_order
from distail.evaluation.predictions import load_predictions
from distail.evaluation.probabilities import kind_of_probabilities, probabilities_sentence
from distail.evaluation.run_files import RunResult
from distail.json_values import as_text, value_at
from distail.runner.run_folder import RunFolder

TEST_CAUTION = (
    "These are test images. Do not base any choice on them: the protocol touches the test set once, at the end."
)
COUNTED = (
    "The training images of each class were counted from these labels. This is correct for the training data; "
    "for a validation or test set pass --class-counts."
)


@dataclass(frozen=True)
class AuditInput:
    """Logits (N, C) and labels (N,) with everything that is known of them.

    Attributes:
        what: which network gave the logits.
        images: how many images of which split, in words.
        split: `train`, `validation` or `test`; None for a file of logits, which does not say.
        counts_from: where the class counts come from.
        method: the experiment's own, as `create_method` takes it.
        student: the run's student on the same images.
        cautions: sentences on what the numbers can and cannot say.
        config: the configuration that a run with the recommended repair starts from.
        teacher: what must be added to it so that what was audited teaches: keys and values.
        posterior: which class posterior it learned, where that is known: `natural`, `balanced` or `mixed`.
        samples: where an example may have several classes, labels (N, C) bool, how many training examples there are.
        chooses: whether a repair may be chosen by these images: not by those of the test.
    """

    what: str
    images: str
    split: str | None
    counts_from: str
    logits: Tensor
    target: Tensor
    class_counts: tuple[int, ...]
    class_names: Sequence[str] | None = None
    method: Mapping[str, object] | None = None
    student: StudentHeads | None = None
    cautions: tuple[str, ...] = ()
    config: str = "CONFIG"
    teacher: Mapping[str, Any] = field(default_factory=dict)
    posterior: str | None = None
    samples: int | None = None
    chooses: bool = True

    def audit(self, temperature: float | None = None, keep_head: float = KEEP_HEAD) -> AuditReport | MultiLabelReport:
        """All findings, ready for JSON: those of `distail.audit.audit`, what was audited, and the summary.

        Where an example may have several classes those of `audit_multi_label`, which no temperature changes.

        Raises:
            DistailError: as `distail.audit.audit.audit`.
        """
        if self.samples is not None:
            return self._audit_multi_label(self.samples, keep_head)
        found = audit(
            self.logits,
            self.target,
            self.class_counts,
            class_names=self.class_names,
            method=self.method,
            temperature=temperature,
            student=self.student,
            keep_head=self._kept_by_choice(keep_head),
            posterior=self.posterior,
        )
        names = [each["name"] for each in found["classes"]]
        odd = _odd_outputs(self.logits, self.target, names, from_file=self.split is None)
        return {
            "schema_version": found["schema_version"],
            "audited": self._audited(),
            **found,
            "cautions": [*self._cautions(), *odd, *found["cautions"]],
            "summary": summary(found),
            "command": self._command(found["recommendation"]),
        }

    def _audit_multi_label(self, samples: int, keep_head: float) -> MultiLabelReport:
        found = audit_multi_label(
            self.logits,
            self.target,
            self.class_counts,
            samples,
            class_names=self.class_names,
            keep_head=self._kept_by_choice(keep_head),
            posterior=self.posterior,
        )
        kind = kind_of_probabilities(self.logits)
        odd = [probabilities_sentence("the network", kind)] if kind else []
        return {
            **found,
            "audited": self._audited(),
            "cautions": [*self._cautions(), *odd, *found["cautions"]],
            "summary": multi_label_summary(found),
            "command": self._command(found["recommendation"]),
        }

    def _command(self, found: Recommendation | MultiLabelRecommendation | None) -> str | None:
        return None if found is None else command(found["method"], self.config, self.teacher)

    def _kept_by_choice(self, keep_head: float) -> float | None:
        """None where nothing may be chosen: not by the test set."""
        return keep_head if self.chooses and self.split != "test" else None

    def _cautions(self) -> list[str]:
        return [*self.cautions, *corrects_twice("It", self.posterior, self.class_counts)]

    def _audited(self) -> AuditedContent:
        return {
            "what": self.what,
            "images": self.images,
            "split": self.split,
            "class_counts_from": self.counts_from,
        }


def _odd_outputs(logits_NC: Tensor, target_N: Tensor, names: Sequence[str], *, from_file: bool) -> list[str]:
    """What looks like bias and is none: probabilities, and classes in another order."""
    kind = kind_of_probabilities(logits_NC)
    order = find_other_order(logits_NC.cpu(), target_N.cpu().long(), names)
    return [
        *([probabilities_sentence("the network", kind)] if kind else []),
        *([order.sentence("the network", names, from_file=from_file)] if order else []),
    ]


def load_file(path: Path, class_counts: str | None) -> AuditInput:
    """Logits and labels of a safetensors, npz, parquet or csv file; see `distail.audit.logits_file.read_logits`.

    Args:
        path: the file. The predictions.safetensors of a finished run brings that run's class counts and names.
        class_counts: numbers or a file of them (`distail.audit.logits_file.read_class_counts`); None counts the
            labels.

    Raises:
        ConfigError: what cannot be read or does not fit, all of it listed.
    """
    if class_counts is None and path.name == RunFolder(path.parent).predictions.name:
        result = RunFolder(path.parent).stored_result()
        if result is not None and not is_multi_label(result["student"]["test"]):
            return load_run_predictions(RunFolder(path.parent), result)
    problems = Problems()
    table = problems.attempt(lambda: read_logits(path))
    if table is not None and table.target.ndim == 2:
        raise ConfigError(
            f"{path}: labels of shape {tuple(table.target.shape)} are multi-label, and the file does not contain the "
            "number of training examples in which each class was counted; expected a run folder, or weights with a "
            "CONFIG"
        )
    names, counts = table.class_names if table else None, None
    if class_counts is not None:
        counts = problems.attempt(lambda: read_class_counts(class_counts, names))
    if table is not None and table.logits.ndim == 2:
        classes = table.logits.shape[1]
        if class_counts is None and table.target.ndim == 1:
            counts = table.class_counts or problems.attempt(lambda: counted_labels(table.target, classes))
        # Without usable counts the rest is checked all the same.
        problems.attempt(lambda: checked_predictions(table.logits, table.target, counts or [1] * classes))
    elif table is not None:
        problems.attempt(lambda: checked_predictions(table.logits, table.target, counts or [1]))
    problems.stop("no audit")
    assert table is not None
    assert counts is not None
    return AuditInput(
        what=f"{table.source} in {path}",
        images=f"{len(table.target):,} images of {len(counts):,} classes; {_of_which_split(table.split)}",
        split=None,
        chooses=table.split != "test",
        counts_from=_counts_from(table, class_counts),
        logits=table.logits,
        target=table.target,
        class_counts=counts,
        class_names=table.class_names,
        cautions=(
            *((COUNTED,) if class_counts is None and table.class_counts is None else ()),
            *(cautions_of_answers(table.split) if table.split in ("train", "test") else ()),
        ),
        # In place of whatever teacher the CONFIG has.
        teacher={"teacher": {"logits": str(path)}} if table.can_teach else {},
        posterior=table.posterior,
    )


def cautions_of_answers(split: str) -> tuple[str, ...]:
    """What to tell of a teacher that is a file, judged by its rows of a split."""
    if split == "test":
        return (TEST_CAUTION,)
    return (
        f"It is not known on which images the teacher was trained. If they include these {split} images, the results "
        "are too optimistic.",
    )


def _counts_from(table: LogitsTable, class_counts: str | None) -> str:
    if class_counts is not None:
        return f"--class-counts {_short(class_counts)}"
    return "these labels" if table.class_counts is None else "the file's training rows"


def _of_which_split(split: str | None) -> str:
    return "the file does not say of which split" if split is None else f"its {split} rows"


def load_run_predictions(run: RunFolder, result: RunResult) -> AuditInput:
    """The stored test predictions of a finished run: its teacher's, or its student's where it had no teacher.

    Raises:
        CheckpointError: the predictions cannot be read.
    """
    stored = load_predictions(run.predictions)
    logits_NC, whose, student, stage = stored.logits, "student (there was no teacher)", None, "student"
    if stored.teacher_logits is not None:
        logits_NC, whose, student, stage = stored.teacher_logits, "teacher", StudentHeads(stored.logits), "teacher"
    return AuditInput(
        what=f"the {whose} of {run.path}, from its stored predictions",
        images=f"{len(stored.target):,} test images of {result['config']['data']['name']}",
        split="test",
        counts_from=f"{run.result}, training images",
        logits=logits_NC,
        target=stored.target,
        class_counts=tuple(result["class_counts"]),
        class_names=result["class_names"],
        method={key: value for key, value in result["config"]["method"].items() if key != "adjust"},
        student=student,
        cautions=(TEST_CAUTION,),
        posterior=as_text(value_at(result, f"posterior.{stage}")),
    )


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
