"""The section `training`: how a network is optimized."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distail.config.section import Count, NonNegative, Number, Positive, Section


class Schedule(Section):
    """How the learning rate goes over training.

    `step` multiplies the base rate by `factors[i]` from epoch `milestones[i]` on: of the base rate, not of one another.
    `one-cycle` rises over the first `rise` of training from a 25th of the rate, then falls to nearly zero.
    """

    name: Literal["constant", "step", "cosine", "one-cycle"] = "constant"
    milestones: tuple[NonNegative, ...] = ()
    factors: tuple[NonNegative, ...] = ()
    warmup_epochs: NonNegative = 0
    rise: Annotated[Number, Field(gt=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _milestones_fit_factors(self) -> Schedule:
        if self.name == "step" and not self.milestones:
            raise ValueError("a step schedule needs milestones (epochs) and factors (of the base learning rate)")
        if len(self.milestones) != len(self.factors):
            raise ValueError(
                f"{len(self.milestones)} milestones but {len(self.factors)} factors; give one factor for each milestone"
            )
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must rise, not {list(self.milestones)}")
        return self


class Mix(Section):
    """A share of each batch mixed with other images of it: `mixup` blends them, `cutmix` pastes a box.

    The teacher looks at the mixed images. With `labels: mixed` their loss is that of both labels, each by its share of
    the image; with `distillation_only` they carry the distillation alone, and without a teacher nothing is mixed.
    """

    name: Literal["cutmix", "mixup"]
    alpha: Positive = 1.0
    """The shares are drawn from Beta(alpha, alpha); 1 is even."""
    share: Annotated[Number, Field(ge=0, le=1)] = 0.5
    labels: Literal["mixed", "distillation_only"] = "mixed"


class Freeze(Section):
    """The first `epochs` of training, or all of it, in which everything but the classifier stays as it is.

    Batch statistics too; learning rate and schedule go on as if nothing were frozen.
    """

    name: Literal["backbone", "none"]
    epochs: Count | None = None


class ClassifierStage(Section):
    """The last `epochs` of training, in which the classifier alone is trained.

    The rest is frozen, batch statistics too; learning rate and schedule begin anew; nothing is mixed.
    """

    epochs: Count
    supervised: dict[str, Any] | None = None
    """In place of the method's own."""
    method: dict[str, Any] = Field(default_factory=dict)
    """Laid over the method; with a `name` of its own it stands in for it."""
    sampler: Literal["instance", "class_balanced", "square_root"] | None = None
    """By default that of `data`."""
    learning_rate: Positive | None = None
    """By default that of `training`."""
    schedule: Schedule = Schedule(name="cosine")


class Training(Section):
    """How a network is optimized; `teacher.training` holds only what differs for the teacher."""

    epochs: Count = 200
    batch_size: Count = 128
    """Images of all processes together; the last batch of an epoch holds what is left. Where that is less than a
    quarter of a batch, all batches of the epoch are of one size, up to one image."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 2.0e-4
    weight_decay_norm_and_bias: bool = True
    """Whether parameters of one dimension decay, too: biases, and what normalizations scale and shift by."""
    gradient_clip: Positive | None = None
    """The largest norm of the network's gradient, and apart from it of that of the layers which a method brings."""
    schedule: Schedule = Schedule(name="cosine")
    mix: Mix | None = None
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Of a moving average of the weights, bias-corrected at its start: what is validated, tested and stored."""
    accumulation_steps: Count = 1
    """Parts in which each batch goes through the network, one after the other, before its one optimizer step."""
    freeze: Freeze | None = None
    backbone_learning_rate_factor: Positive = 1.0
    """What the learning rate is multiplied by for everything but the classifier."""
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Each layer's learning rate is so many times that of the layer after it; the classifier's is the whole."""
    classifier_stage: ClassifierStage | None = None

    @model_validator(mode="after")
    def _something_before_the_classifier(self) -> Training:
        late = self.classifier_stage
        if late is not None and late.epochs >= self.epochs:
            raise ValueError(
                f"classifier_stage.epochs is {late.epochs} of {self.epochs} epochs; expected fewer, since they "
                "are the last of these epochs"
            )
        return self

    @property
    def backbone_epochs(self) -> int:
        """The epochs before the classifier stage."""
        return self.epochs - (self.classifier_stage.epochs if self.classifier_stage else 0)

    @property
    def frozen_epochs(self) -> int:
        """The first epochs in which the classifier alone is trained."""
        if self.freeze is None or self.freeze.name == "none":
            return 0
        return min(self.epochs, self.freeze.epochs or self.epochs)

    @property
    def rates_by_layer(self) -> bool:
        """Whether layers have learning rates of their own."""
        return self.backbone_learning_rate_factor != 1 or self.layer_decay != 1

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Training:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self
