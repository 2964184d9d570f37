"""Networks whose weights lie in files: which one a run, or a file of weights, is; and that one loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distail.config.schema import Experiment, Model
from distail.data.prepare import PreparedData
from distail.errors import ConfigError
from distail.models import FeatureTap
from distail.models.catalog import builder_of
from distail.models.metadata import stored_options
from distail.models.weights import load_weights, read_metadata, unused_weights
from distail.runner.checks import teacher_model
from distail.runner.compositions import needs_teacher
from distail.runner.networks import (
    build_network,
    check_classes,
    check_columns,
    seeded,
    without_weights,
)
from distail.runner.normalization import match_normalization
from distail.runner.run_folder import RunFolder
from distail.training.device import RuntimeDevice


@dataclass(frozen=True)
class StoredNetwork:
    """A file of weights, the network that they fill, and what to call it."""

    weights: Path
    model: Model
    classifier: str
    name: str

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of its network; nothing where it was not written by distail."""
        return read_metadata(self.weights)


def network_of_run(run: RunFolder, experiment: Experiment) -> StoredNetwork:
    """A run's teacher, or its student where it had no teacher with a network.

    Raises:
        ConfigError: its weights are not there.
    """
    teacher, student = run.weights("teacher"), run.weights("student")
    options = experiment.teacher
    if options is not None and options.logits is None and needs_teacher(experiment):
        if teacher.is_file():
            return StoredNetwork(teacher, teacher_model(experiment), options.classifier, f"the teacher of {run.path}")
        if student.is_file():
            raise ConfigError(
                f"{str(run.path)!r} had a teacher, but its teacher.safetensors is missing. The command that made the "
                "run gives it back where its checkpoints are left; "
                f"`distail audit {student} {run.config}` audits the student."
            )
    elif student.is_file():
        name = f"the student of {run.path} (it had no teacher)"
        return StoredNetwork(student, experiment.student.model, experiment.student.classifier, name)
    raise ConfigError(
        f"{str(run.path)!r} has neither teacher.safetensors nor student.safetensors yet; finish the run with "
        "`distail run`, or audit a weights file with a CONFIG."
    )


def network_of_weights(weights: Path, experiment: Experiment) -> StoredNetwork:
    """The network that a file says it is, else the experiment's teacher, or its student where it has none."""
    section = experiment.teacher
    if section is None or not section.has_network:
        configured = StoredNetwork(weights, experiment.student.model, experiment.student.classifier, str(weights))
    else:
        configured = StoredNetwork(weights, teacher_model(experiment), section.classifier, str(weights))
    described = configured.metadata
    name = described.get("model", "")
    # A file may name a network of ours or timm's; code of the user's own is imported only if the CONFIG names it.
    if builder_of(name) is None and not name.startswith("timm:"):
        return configured
    model = Model.model_validate({"name": name, "shortcut": described.get("shortcut"), **stored_options(described)})
    return StoredNetwork(weights, model, described.get("classifier", "linear"), str(weights))


def load_network(
    stored: StoredNetwork,
    experiment: Experiment,
    data: PreparedData,
    runtime: RuntimeDevice,
    tell: Callable[[str], None],
    *,
    features: bool = False,
) -> FeatureTap:
    """The network with its weights, on the device, seeing images as it was trained on them.

    Raises:
        DistailError: the weights cannot be read, or are of other classes or another network.
    """
    with seeded(experiment.seed, "audit"):
        tap = build_network(without_weights(stored.model), stored.classifier, data, features=features)
    check_classes(stored.weights, data.class_names)
    check_columns(stored.weights, data)
    for sentence in unused_weights(stored.weights):
        tell(sentence)
    load_weights(tap.model, stored.weights, what=stored.name)
    match_normalization(tap.to(runtime.device), stored.weights, data)
    return tap
