"""The networks of an experiment: teacher and student, as configured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from distail.config.reading import PREVIOUS_EPOCH
from distail.config.section import AUTO, Count, CountFromZero, Number, Section, Views


class Model(Section):
    """A network by name (`distail.models.list_models()`) or by import path (`package.module:function`)."""

    name: str
    shortcut: Literal["conv", "pad"] | None = None
    hidden: Count | None = None
    """Units of each hidden layer of `mlp`; by default 256."""
    depth: CountFromZero | None = None
    """Hidden layers of `mlp`; by default 2."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] | None = None
    """Of `mlp`: the share of hidden units left out at each step; by default 0."""
    weights: Path | None = None
    members: tuple[Model, ...] = ()
    """Of several teachers (`teacher: [..]`): the networks, each with the weights that it was trained to."""
    average: Literal["logits", "probabilities"] = "logits"
    """What of several teachers' answers the mean is taken of."""

    @property
    def options(self) -> dict[str, Any]:
        """What only some networks know, as far as it is given."""
        options = {"hidden": self.hidden, "depth": self.depth, "dropout": self.dropout}
        return {name: value for name, value in options.items() if value is not None}


class Teacher(Section):
    """The network to learn from: trained here, loaded from `checkpoint`, or the student of the previous epoch.

    A list of networks with their checkpoints is one teacher that says the mean of what they say. With `logits` there is
    no network, but a file of what any teacher said of the images.
    """

    model: Model
    classifier: Literal["linear", "cosine"] = "linear"
    supervised: dict[str, Any] | None = None
    """By default what the method's own paper trains its teacher with: `ce` but for `dive`."""
    checkpoint: Path | None = None
    views: Views = 0
    """0 asks the teacher at every step; K asks it once about each of K fixed crops and flips of every image, in each
    stage of more than K epochs. `auto` is decided when a run begins, by the epochs before the classifier stage and
    `trainer.cache_limit_mb`, and kept when it goes on. `all` asks it about as many as there are epochs, beforehand:
    no view is shown twice, and the runs of a comparison or a search share the answers (`trainer.views_folder`)."""
    training: dict[str, Any] = Field(default_factory=dict)
    logits: Path | None = None
    """A safetensors, npz or parquet file of stored answers (`distail teach` writes one) in place of a network."""
    rest: Literal["uniform", "class_shares"] = "uniform"
    """How what the K largest probabilities of a file leave of 1 is spread over the other classes."""

    @property
    def stores_views(self) -> bool:
        """Whether answers are stored for sure; `auto` is still to be settled by a run."""
        return self.views not in (0, AUTO)

    @property
    def is_previous_epoch(self) -> bool:
        return self.model.name == PREVIOUS_EPOCH

    @property
    def has_network(self) -> bool:
        """Whether there is a network of its own: not the student itself, and not a file of answers."""
        return not self.is_previous_epoch and self.logits is None

    @property
    def trained_here(self) -> bool:
        """Whether a run trains it: it is neither loaded nor the student of the previous epoch."""
        return not self.is_previous_epoch and not self.files

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is loaded from; none where it is trained here."""
        given = (self.checkpoint, self.logits, *(member.weights for member in self.model.members))
        return tuple(path for path in given if path is not None)


class Student(Section):
    """The network to deploy."""

    model: Model
    checkpoint: Path | None = None
    classifier: Literal["linear", "cosine"] = "linear"
