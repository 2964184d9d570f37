"""`distail.load_student`: a student that takes images, or rows, as they come and names what it sees.

Shapes: B batch, C classes; H, W of the images given.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distail.data.arrays import Standardized
from distail.data.image_file import Pixels
from distail.errors import CheckpointError, ConfigError, DistailError, ModelError
from distail.evaluation.adjustment import corrects_twice
from distail.evaluation.run_files import RunFiles, usable_counts
from distail.inference.adjust import adjustment, read_prior
from distail.inference.images import levels_of, pixels_of_file
from distail.inference.preprocess import Preprocess
from distail.inference.rows import encoding_of, inputs_of
from distail.inference.thresholds import thresholds_of
from distail.json_values import as_items, as_number, as_text, read_json, value_at
from distail.methods.context import BALANCED
from distail.models.array_description import INPUT_SHAPES, ArrayDescription
from distail.models.catalog import builder_of
from distail.models.create import create_model
from distail.models.description import Description
from distail.models.metadata import ADJUST
from distail.models.weights import load_weights, read_metadata
from distail.outputs import SINGLE_LABEL, logits_in
from distail.torch_utils import kept_random_state


@dataclass(frozen=True)
class Prediction:
    """An answer: the class, its probability, and the most probable classes, best first, as (name, probability).

    Where an image may have several classes each probability is that of having the class, and they do not sum to 1.
    `classes` are then those that reach their threshold, in the order of the logits, perhaps none; else the one.
    """

    name: str
    probability: float
    top: tuple[tuple[str, float], ...]
    classes: tuple[str, ...] = ()


class Student(nn.Module):
    """A trained student with its preprocessing and class names.

    Attributes:
        network: the trained network, from normalized images or standardized arrays to logits.
        description: classes, sizes and normalization.
        preprocess: converts uint8 pixels of any size, or arrays, to the inputs of the network.
        encoding: for tables, the encoding of the columns.
        offset: (C,), added to the logits; zeros unless the student is adjusted.
        thresholds: for multi-label students, the minimum probability of each class; otherwise None.
        posterior: `natural`, `balanced` or `mixed`: with which class priors it was trained; None where nobody knows.
        reported_tau: the strength with which the metrics of its run were adjusted, while its predictions are not; else
            None.
    """

    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        description: Description | ArrayDescription,
        offset_C: Tensor | None = None,
        threshold: float | Mapping[str, float] | None = None,
        posterior: str | None = None,
        reported_tau: float | None = None,
    ) -> None:
        super().__init__()
        self.reported_tau = reported_tau
        self.network, self.description, self.posterior = network.eval(), description, posterior
        if isinstance(description, Description):
            self.preprocess: Preprocess | Standardized = Preprocess(description)
        else:
            self.preprocess = Standardized(description.mean, description.std, len(description.input_shape))
        self.encoding = None if isinstance(description, Description) else encoding_of(description)
        offset_C = torch.zeros(len(description.class_names)) if offset_C is None else offset_C
        self.register_buffer("offset", offset_C, persistent=False)
        self.thresholds = thresholds_of(threshold, description.class_names, multi_label=self.multi_label)

    @property
    def multi_label(self) -> bool:
        """Whether the student is multi-label: each logit is the log odds of one class."""
        return self.description.targets != SINGLE_LABEL

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.description.class_names

    def forward(self, examples: Any) -> Tensor:
        """Logits (B, C) float32 of images or rows as they come, see `predict`.

        Raises:
            DataError: examples that cannot be used.
        """
        if isinstance(self.description, ArrayDescription):
            return self.logits(inputs_of(examples, self.description, self.encoding))
        found = [self.logits(levels) for levels in levels_of(examples, self.description)]
        return torch.cat(found) if found else self.offset.new_empty(0, len(self.class_names))

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of levels of 0 to 255 or of arrays, not normalized; floats are not rounded when resized.

        Levels (B, channels, H, W) are uint8 or floats; arrays (B, ...) are as the data has them, a table's encoded.
        """
        logits_BC = logits_in(self.network(self.preprocess(inputs.to(self.offset.device))))
        assert isinstance(logits_BC, Tensor)
        return logits_BC.float() + self.offset

    def pixels(self, path: Path) -> Pixels | str:
        """An image file as levels (height, width, channels) uint8 of the network's size; or why it cannot be read."""
        assert isinstance(self.description, Description)
        assert isinstance(self.preprocess, Preprocess)
        pixels = pixels_of_file(path, self.description)
        if isinstance(pixels, str) or pixels.shape[:2] == (self.description.height, self.description.width):
            return pixels
        levels = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
        resized: Pixels = self.preprocess.resized(levels.to(self.offset.device), rounded=True)[0].byte().cpu().numpy()
        return resized.transpose(1, 2, 0)

    @torch.inference_mode()
    def predict(self, examples: Any, top: int = 1) -> list[Prediction]:
        """Predict each image or row.

        Args:
            examples: one image or a list of them: a path, a PIL image, uint8 (H, W, channels) or float
                (channels, H, W) of 0 to 1; or several in one tensor, (B, H, W, channels) or (B, channels, H, W). Of
                any size. For a student of tables columns by name (a mapping of lists or arrays, a pandas, polars or
                pyarrow table), or the numbers (B, D) that they become; of arrays a tensor (B, ...), or one example.
            top: number of the most probable classes in each prediction.

        Warns:
            UserWarning: the metrics of its run are those of adjusted logits, these predictions are not (`adjusted`).

        Raises:
            DataError: examples that cannot be used.
        """
        if self.reported_tau:
            warnings.warn(
                f"this student: {_unadjusted(self.reported_tau)}: use .adjusted({self.reported_tau:g})", stacklevel=3
            )
        return self.named(self(examples), top)

    def named(self, logits_BC: Tensor, top: int = 1) -> list[Prediction]:
        """What `predict` makes of logits (B, C)."""
        probability_BC = logits_BC.double().sigmoid() if self.multi_label else logits_BC.double().softmax(1)
        probability_BK, class_BK = probability_BC.topk(min(top, logits_BC.shape[1]), dim=1)
        decided = self._decided(probability_BC)
        answers = []
        for row, (probabilities, classes) in enumerate(zip(probability_BK.tolist(), class_BK.tolist(), strict=True)):
            ranked = tuple((self.class_names[c], p) for c, p in zip(classes, probabilities, strict=True))
            answers.append(Prediction(*ranked[0], ranked, decided[row] if decided else (ranked[0][0],)))
        return answers

    def _decided(self, probability_BC: Tensor) -> list[tuple[str, ...]]:
        """The classes of each image that reach their thresholds; empty where there are none."""
        if self.thresholds is None:
            return []
        has_BC = probability_BC >= torch.tensor(self.thresholds).to(probability_BC)
        return [tuple(name for name, yes in zip(self.class_names, has, strict=True) if yes) for has in has_BC.tolist()]

    def adjusted(self, tau: float = 1.0, prior: Mapping[str, float] | None = None) -> Student:
        """The same network, adjusted to other class priors than those of its training images.

        Args:
            tau: strength of the shift from the class priors of the training images to the expected ones; 0: no change.
            prior: expected share of each class, in any unit; None: equal priors. A student that was trained for equal
                priors (`posterior`) is shifted to them from equal ones.

        Warns:
            UserWarning: training has corrected the class priors already, in full or in part.

        Raises:
            ConfigError: the file does not say on how many images of each class it was trained, or shares do not fit.
        """
        for note in _corrected_twice(self, tau, prior):
            warnings.warn(note, stacklevel=2)
        return _adjusted(self, tau, prior)

    def with_thresholds(self, threshold: float | Mapping[str, float]) -> Student:
        """The same network with other thresholds for assigning classes.

        Args:
            threshold: above 0 and below 1; one for all classes, or one per class by name. Default: 0.5.

        Raises:
            ConfigError: an image has one class here, or thresholds do not fit.
        """
        return Student(self.network, self.description, self.offset, threshold, self.posterior)


def load_student(source: str | Path, *, network: str | nn.Module | None = None) -> Student:
    """Load the student of a run folder, or of a weights file that names its network.

    Args:
        source: a folder written by `distail run`, or its `student.safetensors` in any place.
        network: for a file whose network is your own code: the network, or its name `package.module:function`, since
            the name in a file alone is not trusted. Not needed for a run folder.

    Raises:
        ConfigError: there is no such folder or file, or the run is not finished.
        CheckpointError: the file is damaged, or lacks required metadata.
        ModelError: the network cannot be built, or does not fit.

    >>> import tempfile, distail
    >>> quick = {"name": "quick", "data": "digits", "student": "resnet8", "method": "ce", "training": {"epochs": 1}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = distail.run({**quick, "output": folder}, reporter=distail.training.progress.Silent())
    ...     student = load_student(folder)
    >>> len(student.class_names), student.predict(torch.zeros(2, 20, 30, 1, dtype=torch.uint8))[0].name in "0123456789"
    (10, True)
    """
    weights, trusted = _weights_of(Path(source))
    metadata = read_metadata(weights)
    if not metadata.get("model"):
        raise CheckpointError(f"{str(weights)!r} does not name its network; expected a file written by `distail run`")
    kind = ArrayDescription if INPUT_SHAPES in metadata else Description
    description = kind.read(metadata, weights)
    if description.class_counts is None and Path(source).is_dir():
        description = replace(description, class_counts=_counts_of_result(RunFiles(Path(source)), description))
    posterior, adjusted = metadata.get("posterior"), metadata.get(ADJUST)
    tau = None if adjusted is None else float(adjusted)
    if None in (posterior, tau) and Path(source).is_dir() and (result := RunFiles(Path(source)).result).is_file():
        told = read_json(result)  # what files of earlier versions do not say
        posterior = posterior or as_text(value_at(told, "posterior.student"))
        tau = as_number(value_at(told, "student.adjust.tau")) if tau is None else tau
    model = network if isinstance(network, nn.Module) else _built(network, description, weights, trusted)
    load_weights(model, weights, what="student")
    return Student(model, description, posterior=posterior, reported_tau=tau or None)


def adjusted_student(student: Student, tau: float | None, prior: Path | None) -> Student:
    """The student as `--adjust` and `--prior` ask for it; a prior alone is Bayes' rule.

    Raises:
        ConfigError: as `Student.adjusted`, or the file cannot be read.
    """
    if tau is None and prior is None:
        return student
    return _adjusted(student, 1.0 if tau is None else tau, None if prior is None else read_prior(prior))


def adjustment_notes(student: Student, source: Path, tau: float | None, prior: Path | None) -> list[str]:
    """What to tell of `--adjust` and `--prior`: class priors corrected twice, or not at all though the run's were."""
    if tau is not None or prior is not None:
        return _corrected_twice(student, tau, prior)
    used = student.reported_tau
    return [f"{source}: {_unadjusted(used)}: use --adjust {used:g}"] if used else []


def _adjusted(student: Student, tau: float, prior: Mapping[str, float] | None) -> Student:
    if student.multi_label:
        raise ConfigError(
            "images may have several classes here, each with odds of its own: shares of classes (--adjust, --prior) "
            "are for images of one class"
        )
    from_equal = prior is not None and student.posterior == BALANCED
    offset_C = adjustment(student.description, tau, prior, from_equal=from_equal).to(student.offset)
    return Student(student.network, student.description, offset_C, posterior=student.posterior)


def _corrected_twice(student: Student, tau: float | None, prior: object) -> list[str]:
    done = None if student.posterior == BALANCED and prior is not None else student.posterior
    return corrects_twice("the student", done, student.description.class_counts or ()) if tau != 0 else []


def _unadjusted(tau: float) -> str:
    return f"its metrics are of logits adjusted with tau {tau:g}, these predictions are not"


def _weights_of(source: Path) -> tuple[Path, str | None]:
    """The file of weights, and the network that the run's configuration names, if it is a run's."""
    if source.is_dir():
        run = RunFiles(source)
        if not run.weights("student").is_file():
            raise ConfigError(
                f"{str(source)!r} has no student.safetensors; expected the folder of a finished run, which "
                "`distail run CONFIG` makes"
            )
        return run.weights("student"), _configured_network(run)
    if not source.is_file():
        raise ConfigError(
            f"there is no {str(source)!r} (current directory {Path.cwd()}); expected the folder of a run, or its "
            "student.safetensors"
        )
    return source, None


def _counts_of_result(run: RunFiles, description: Description | ArrayDescription) -> tuple[int, ...] | None:
    """Training images of each class, which files of earlier versions do not say, but their runs' results do."""
    counts = read_json(run.result).get("class_counts") if run.result.is_file() else None
    known = usable_counts(counts) and len(as_items(counts)) == len(description.class_names)
    return tuple(as_items(counts)) if known else None


def _configured_network(run: RunFiles) -> str | None:
    from distail.config.schema import Experiment

    return Experiment.from_yaml(run.config).student.model.name if run.config.is_file() else None


def _built(
    name: str | None, description: Description | ArrayDescription, weights: Path, trusted: str | None
) -> nn.Module:
    told = name or description.model
    if name is None and builder_of(told) is None and not told.startswith("timm:") and told != trusted:
        raise ModelError(
            f"{str(weights)!r} names the network {told!r}, your own code, which is not run just because a file "
            f"names it. Name the folder of its run, or the network: network={told!r}"
        )
    try:
        with kept_random_state():  # the weights that it draws are filled at once
            return create_model(
                told,
                num_classes=len(description.class_names),
                classifier=description.classifier,
                example=description.example(2),
                **(_of_images(description) if isinstance(description, Description) else _of_table(description)),
                **description.options,
            )
    except DistailError as error:
        raise type(error)(f"{weights}: {error}") from None


def _of_table(description: ArrayDescription) -> dict[str, Any]:
    encoding = encoding_of(description)
    return {"cardinalities": None if encoding is None else encoding.cardinalities}


def _of_images(description: Description) -> dict[str, Any]:
    return {
        "in_channels": description.in_channels,
        "image_size": description.image_size,
        "shortcut": description.shortcut,
    }
