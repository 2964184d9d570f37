"""What an audit holds, as JSON: a contract, whose changes raise `SCHEMA_VERSION`. Percent unless said otherwise."""

from __future__ import annotations

from typing import Any, Generic, NotRequired, TypedDict, TypeVar

from distail.evaluation.teacher_bias import Confusion, Flow

SCHEMA_VERSION = 1
T = TypeVar("T")


class Grouped(TypedDict, Generic[T]):
    """The same of all images and of each group, by grouping (``thirds``, ``shots``); None for one without images."""

    overall: T
    groups: dict[str, dict[str, T | None]]


class GroupStatistics(TypedDict):
    """What a teacher's predictions do with some classes and the images of these; None where nothing is measured.

    Attributes:
        classes, training_images, images: how many there are.
        recall, precision: means over the classes.
        accuracy, wrong, confidence, confidence_when_wrong: over the images.
        ece: the expected calibration error.
        true_share, predicted_share, mean_probability: of the labels, of the predictions, and of the probability.
    """

    classes: int
    training_images: int
    images: int
    recall: float | None
    precision: float | None
    accuracy: float | None
    wrong: float | None
    confidence: float | None
    ece: float | None
    confidence_when_wrong: float | None
    true_share: float
    predicted_share: float
    mean_probability: float


# The statistics of one class. ``errors_go_to``: the class that most of its errors name. ``tail_errors``: how many
# errors on tail images name this one.
ClassStatistics = TypedDict(
    "ClassStatistics",
    {
        "class": int,
        "name": str,
        "third": str,
        "training_images": int,
        "images": int,
        "recall": float | None,
        "precision": float | None,
        "confidence": float | None,
        "confidence_when_wrong": float | None,
        "true_share": float,
        "predicted_share": float,
        "mean_probability": float,
        "errors_go_to": Confusion | None,
        "tail_errors": int,
    },
)


class ErrorStatistics(TypedDict):
    """Where images and errors go; see `distail.evaluation.teacher_bias.error_flow`.

    Attributes:
        tail_errors: the thirds that the errors on tail images name.
        swallowers: the most frequent wrong predictions for images of the tail.
    """

    flow: Flow
    swallowers: list[Confusion]
    tail_errors: dict[str, float | None]


class CorrectShare(TypedDict):
    """Images whose target favors the label."""

    right: float | None


class SwappedImages(TypedDict):
    """Images whose label DR-KD exchanges with the prediction."""

    images: int
    share: float | None


class TargetMove(TypedDict):
    """How far a repair moves the targets.

    Attributes:
        kl: nats, the mean of KL(repaired || original), both tempered.
        loss: kl times the squared temperature.
        right: images whose target then favors the label.
    """

    kl: float
    loss: float
    right: float | None


class RepairSetting(TypedDict):
    """An entry of a repair; on the student's side it changes what the targets are compared with, and no target."""

    entry: str
    parameters: dict[str, Any]
    student_side: bool


class RepairContent(Grouped[TargetMove]):
    """A method's repair of the targets, and what it does to them.

    Attributes:
        settings: each of `entries`, with its own parameters.
        parameters: those of all entries together; of two with one name that of the last.
    """

    settings: list[RepairSetting]
    entries: list[str]
    parameters: dict[str, Any]
    temperature: float
    reconstruction: bool


class WeightSpread(TypedDict):
    """How sample weights are spread, after the clip; `relative` is the mean over that of all images."""

    mean: float
    relative: float
    min: float
    p10: float
    median: float
    p90: float
    max: float
    clipped_share: float | None


class PropensityWeights(Grouped[WeightSpread]):
    """IPWD's weights; `heads` says whether they come from a student's own heads or a stand-in."""

    heads: str
    meaning: str
    ratio: str
    standardize_logits: bool
    max_weight: float | None


class LossRatioWeights(TypedDict):
    """WSLD's weights; None without a student."""

    meaning: str
    max_weight: NotRequired[float | None]
    overall: WeightSpread | None
    groups: dict[str, dict[str, WeightSpread | None]] | None


class SampleWeights(TypedDict):
    """How unevenly each method would weigh the images."""

    ipwd: PropensityWeights
    wsld: LossRatioWeights


class AdjustedMetrics(TypedDict):
    """Metrics of the teacher; None for a third without images."""

    top1: float
    balanced_accuracy: float
    head: float | None
    medium: float | None
    tail: float | None


class AdjustedTeacher(TypedDict):
    """What the teacher gives as it is, and with the class prior removed from its logits after training."""

    tau: float
    before: AdjustedMetrics
    after: AdjustedMetrics


class FavoredShares(TypedDict):
    """Images whose target favors the label, in percent: the mean over classes, and of all images of each third."""

    average_class: float
    head: float | None
    medium: float | None
    tail: float | None


class Recommendation(TypedDict):
    """The repair that suits the teacher best by its own answers; see `distail.audit.recommendation.recommend`.

    Attributes:
        method: as `create_method` and `method=` take it.
        reason: why: `repair`, the best of those tried; else `balanced_teacher`, `equal_classes`, `keep_head` (each
            repair costs the head too much) or `no_gain` (with each an average class loses).
        keep_head: of the head images whose label the targets favor, at least so many percent must stay.
        before, after: the targets without and with the repair.
        standard_error: of what an average class gains, in points, over the images of its classes.
    """

    method: dict[str, Any]
    reason: str
    keep_head: float
    before: FavoredShares
    after: FavoredShares
    standard_error: float


class AuditContent(TypedDict):
    """What `distail.audit.audit.audit` finds; `posterior` is the teacher's, as it was told."""

    schema_version: int
    posterior: str | None
    rules: dict[str, str]
    overall: GroupStatistics
    groups: dict[str, dict[str, GroupStatistics]]
    classes: list[ClassStatistics]
    errors: ErrorStatistics
    adjusted: AdjustedTeacher
    before: Grouped[CorrectShare]
    repairs: dict[str, RepairContent]
    swapped: Grouped[SwappedImages]
    sample_weights: SampleWeights
    recommendation: Recommendation | None
    cautions: list[str]


class AuditedContent(TypedDict):
    """What was audited, in words."""

    what: str
    images: str
    split: str | None
    class_counts_from: str


class AuditReport(AuditContent):
    """What `distail audit` shows: the findings, what was audited, the summary in sentences, and the command to try."""

    audited: AuditedContent
    summary: list[str]
    command: str | None
