"""What examples of several classes (`data.targets: multi_label`) rule out, beside entries of methods."""

from __future__ import annotations

from distail.config.schema import Experiment
from distail.outputs import MULTI_LABEL


def label_problems(experiment: Experiment) -> list[str]:
    """One string a problem, each beginning with the key that it is about."""
    if "labels" in experiment.method:
        return [f"method.labels: {experiment.method['labels']!r}; set data.targets instead"]
    if experiment.data.targets != MULTI_LABEL:
        return []
    found = []
    if experiment.adjust is not None:
        found.append(
            f"method.adjust: {experiment.adjust}, but with data.targets: multi_label an adjustment does not change "
            "average precision; leave it out"
        )
    if experiment.teacher is not None and experiment.teacher.model.average == "probabilities":
        found.append("teacher.average: probabilities need single-label data; expected logits")
    stages = [experiment.training, *([experiment.teacher_training] if experiment.teacher else [])]
    samplers = {stage.classifier_stage.sampler for stage in stages if stage.classifier_stage is not None}
    found += [
        f"training.classifier_stage.sampler: {sampler} samples by class and needs single-label data; expected instance"
        for sampler in sorted({str(sampler) for sampler in samplers - {None, "instance"}})
    ]
    return found
