"""A network with the images that a configuration names, as something to audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from distail.audit.from_file import TEST_CAUTION, AuditInput, cautions_of_answers
from distail.audit.sample_weights import StudentHeads
from distail.config.schema import Experiment
from distail.data.dataset import Examples, is_images, smallest_side
from distail.data.labels import is_multi_label
from distail.data.prepare import PreparedData, prepare_data
from distail.errors import ConfigError
from distail.files import open_tensors
from distail.json_values import as_text, value_at
from distail.methods.modules import project
from distail.models import FeatureTap, Outputs
from distail.runner.checks import teacher_model
from distail.runner.compositions import method_composition, needs_teacher
from distail.runner.networks import without_weights
from distail.runner.posterior import teacher_posterior
from distail.runner.run_folder import RunFolder
from distail.runner.stored_network import StoredNetwork, load_network, network_of_run, network_of_weights
from distail.runner.stored_teacher import open_stored_teacher
from distail.training.device import RuntimeDevice, select_device
from distail.training.predict import Classifier, predict
from distail.training.progress import Reporter

SECOND_HEAD = "method.sample_weights.cls_head"


def student_heads(student: FeatureTap, head: nn.Linear | None, predict: Callable[[Classifier], Tensor]) -> StudentHeads:
    """The student's logits, and those of its label-only head where it was trained with one."""
    if head is None:
        return StudentHeads(predict(student))
    first_NC, second_NC = predict(_BothHeads(student, head)).chunk(2, dim=1)
    return StudentHeads(first_NC, second_NC)


class _BothHeads(nn.Module):
    """A tapped student that gives the logits of both heads beside each other."""

    def __init__(self, student: FeatureTap, head: nn.Linear) -> None:
        super().__init__()
        self.student, self.head = student, head.to(next(student.parameters()).device)
        self.num_classes = 2 * student.num_classes

    def forward(self, *inputs: Any, **named: Any) -> Outputs:
        outputs = self.student(*inputs, **named)
        second_BC = project(self.head, outputs.features)
        return Outputs(torch.cat((outputs.logits.to(second_BC.dtype), second_BC), dim=1))


def _second_head(run: RunFolder) -> nn.Linear | None:
    """It lives in training only: in the newest checkpoint of the last stage that has it, not in exported weights."""
    for stage in ("student-classifier", "student"):
        newest = max(run.checkpoints(stage).glob("step-*.safetensors"), default=None)
        if newest is None:
            continue
        try:
            with open_tensors(newest) as file:
                weight, bias = (file.get_tensor(f"{SECOND_HEAD}.{name}") for name in ("weight", "bias"))
        except (SafetensorError, OSError):
            continue
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.load_state_dict({"weight": weight, "bias": bias})
        return head
    return None


def load_run(run: RunFolder, experiment: Experiment, split: str | None, reporter: Reporter) -> AuditInput:
    """The teacher of a run's folder, or its student where it has no teacher, on images of the run's data.

    A teacher that is a file of answers is audited by those.

    Args:
        run: the folder; its weights must be there, a finished run has them.
        experiment: what the folder holds, with changes such as another `data.root`.
        split: `train`, `validation` or `test`; None is validation, or train where there is none.
        reporter: told of what takes long.

    Raises:
        ConfigError: the run has no weights yet, or there is no such split.
        DistailError: the data or the weights cannot be used.
    """
    answers_teach = experiment.teacher is not None and experiment.teacher.logits is not None
    answers_teach = answers_teach and needs_teacher(experiment)
    stored = None if answers_teach else network_of_run(run, experiment)
    predictor = _SplitPredictor(experiment, split, reporter)
    student, weights = None, run.weights("student")
    if weights.is_file() and (stored is None or stored.weights != weights):
        own = StoredNetwork(weights, experiment.student.model, experiment.student.classifier, "student")
        head = _second_head(run)
        network = predictor.network(own, features=head is not None)
        student = student_heads(network, head, predictor.predict)
    if stored is None:
        return predictor.audit_answers(student)
    stage = "student" if stored.weights == weights else "teacher"
    posterior = as_text(value_at(run.stored_result(), f"posterior.{stage}"))
    return predictor.audit_input(stored, student, posterior, images="the run's training split has today")


def load_checkpoint(weights: Path, experiment: Experiment, split: str | None, reporter: Reporter) -> AuditInput:
    """A file of weights on the images that an experiment names.

    The network is what the file says of itself, else the experiment's teacher, or its student where it has none. So is
    the posterior that it learned, where the experiment says `teacher.supervised`.

    Raises:
        DistailError: the data, the network or the weights cannot be used, or there is no such split.
    """
    stored, teacher = network_of_weights(weights, experiment), experiment.teacher
    posterior = teacher_posterior(experiment) if teacher is not None and teacher.supervised else None
    return _SplitPredictor(experiment, split, reporter).audit_input(stored, None, posterior)


def teaching(stored: StoredNetwork, experiment: Experiment) -> dict[str, Any]:
    """What a configuration must be given so that this network teaches: keys and values."""
    if stored.model.members:
        return {}  # the configuration names their files
    section, model = experiment.teacher, without_weights(stored.model)
    given: dict[str, Any] = {}
    if section is None or not section.has_network or teacher_model(experiment) != model:
        options = model.model_dump(mode="json", exclude_defaults=True)
        given["teacher.model"] = model.name if options.keys() == {"name"} else options
    if stored.classifier != (section.classifier if section else "linear"):
        given["teacher.classifier"] = stored.classifier
    if section is not None and section.logits is not None:
        given["teacher.logits"] = None
    return {**given, "teacher.checkpoint": str(stored.weights)}


class _SplitPredictor:
    """An experiment's images, and networks on one split of them."""

    def __init__(self, experiment: Experiment, split: str | None, reporter: Reporter) -> None:
        self.experiment, self.reporter = experiment, reporter
        reporter.message(f"{experiment.data.name}: reading the data")
        self.data = prepare_data(experiment.data, seed=experiment.seed)
        self.split, self.images, self.reason = _split(self.data, split)
        side = smallest_side(self.data.train)
        self.runtime: RuntimeDevice = select_device(experiment.trainer.device, "fp32", side)

    def network(self, stored: StoredNetwork, *, features: bool = False) -> FeatureTap:
        return load_network(stored, self.experiment, self.data, self.runtime, self.reporter.message, features=features)

    def predict(self, network: Classifier) -> Tensor:
        return predict(network, self.images, self.data.mean, self.data.std, self.runtime)

    def audit_input(
        self,
        stored: StoredNetwork,
        student: StudentHeads | None,
        posterior: str | None = None,
        *,
        images: str = "this CONFIG's training split",
    ) -> AuditInput:
        """A network; `posterior` is what is known of it where its file says nothing, `images` what it should know."""
        network = self.network(stored)
        self.reporter.message(f"{stored.name}: {len(self.images):,} {self.split} {self.images.noun}s")
        found = self._input(f"{stored.name}, a {stored.model.name}", self.predict(network), student)
        return replace(
            found,
            cautions=_cautions(self.split, stored.metadata.get("subset_sha256"), self.data, images),
            teacher=teaching(stored, self.experiment),
            posterior=stored.metadata.get("posterior", posterior),
        )

    def audit_answers(self, student: StudentHeads | None) -> AuditInput:
        """The file of answers that teaches."""
        teacher = open_stored_teacher(self.experiment, self.data)
        logits_NC = teacher.logits(self.split)
        if logits_NC is None:
            raise ConfigError(
                f"{str(teacher.path)!r} has no predictions for the unaugmented {self.split} images; expected "
                "another --split, or predictions for these"
            )
        return replace(
            self._input(f"the answers in {teacher.path}", logits_NC, student),
            # Of a teacher that nobody knows it may have been trained on any of them.
            cautions=cautions_of_answers(self.split),
            posterior=teacher.facts.get("posterior"),
        )

    def _input(self, what: str, logits_NC: Tensor, student: StudentHeads | None) -> AuditInput:
        return AuditInput(
            what=what,
            images=f"{len(self.images):,} {self.split} {self.images.noun}s of {self.experiment.data.name}{self.reason}",
            split=self.split,
            counts_from=f"the {len(self.data.train):,} training {self.data.train.noun}s",
            logits=logits_NC,
            target=self.images.labels,
            class_counts=self.data.class_counts,
            class_names=self.data.class_names,
            method=method_composition(self.experiment),
            student=student,
            samples=len(self.data.train) if is_multi_label(self.images.labels) else None,
        )


def _split(data: PreparedData, split: str | None) -> tuple[str, Examples, str]:
    """The split's name, its images, and why it was taken where none is named."""
    if split is None:
        if data.validation is not None:
            return "validation", data.validation, ""
        return "train", data.train, " (data.validation is 0: there is no validation split)"
    images = {"train": data.train, "validation": data.validation, "test": data.test}[split]
    if images is None:
        raise ConfigError(
            "there is no validation split: data.validation is 0. Use --split train, or hold some images out with "
            "data.validation=0.1, which is valid only for a network that was trained without them."
        )
    return split, images, ""


def _cautions(split: str, trained_on: str | None, data: PreparedData, images: str) -> tuple[str, ...]:
    same = trained_on == data.subset_sha256
    if split == "test":
        return (TEST_CAUTION,)
    if split == "train":
        whose = "These are the images that it was trained on" if same else "It may have been trained on these images"
        except_for = ", except for crops and flips" if is_images(data.train) else ""
        return (f"{whose}: it makes more errors on new images. Training would use the same targets{except_for}.",)
    if same:
        return ()
    known = "the file does not say on what" if trained_on is None else f"on other images than {images}"
    return (f"It was trained {known}. If they include validation images, the results are too optimistic.",)
