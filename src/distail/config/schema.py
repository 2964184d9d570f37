"""One experiment: typed, validated before any work, every problem told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from distail.config.data import Data
from distail.config.networks import Model, Student, Teacher
from distail.config.precision import Precision
from distail.config.problems import WrongKey, without, wrong_keys
from distail.config.reading import (
    apply_overrides,
    dump_plain_yaml,
    expand_shorthand,
    expand_training,
    read_yaml,
)
from distail.config.section import (
    AUTO,
    Count,
    CountFromZero,
    CountOrAuto,
    Positive,
    Section,
    Whole,
)
from distail.config.tau import Tau, read_tau
from distail.config.training import Schedule, Training
from distail.errors import ConfigError, problems_in

__all__ = [
    "SAME",
    "Data",
    "Experiment",
    "Model",
    "Schedule",
    "Student",
    "Teacher",
    "Trainer",
    "Training",
    "WrongExperiment",
    "merged",
    "output_problem",
]

SAME = "same"
_NOT_INHERITED = {
    name: Training.model_fields[name].default
    for name in ("classifier_stage", "freeze", "backbone_learning_rate_factor", "layer_decay")
}
_NAME, _NOT_IN_NAMES = r"[A-Za-z0-9][A-Za-z0-9._+-]*", r"[^A-Za-z0-9._+-]+"


def output_problem(path: str | Path) -> str | None:
    """Why no run can be written to this folder, or None.

    >>> output_problem("runs/mine"), output_problem("/")
    (None, "'/' is the root of the file system; expected a folder of its own, such as runs/mine")
    """
    if not str(path).strip():
        return f"{str(path)!r} does not name a folder; expected one, such as runs/mine, or leave the key out"
    if "\0" in str(path):
        return f"{str(path)!r} holds a null character, which a path cannot have"
    if any("\udc80" <= sign <= "\udcff" for sign in str(path)):  # how Python keeps a byte that is no text
        return f"{str(path)!r} is not UTF-8, so the weights files in it could not be opened; expected another name"
    absolute = os.path.normpath(path)
    if os.path.dirname(absolute) == absolute and os.path.isabs(absolute):
        return f"{str(path)!r} is the root of the file system; expected a folder of its own, such as runs/mine"
    return None


def _checked_output(value: Any) -> Any:
    problem = output_problem(value) if isinstance(value, str | Path) else None
    if problem:
        raise ValueError(problem)
    return value


class Trainer(Section):
    """Where and how it runs; but for `sync_batch_norm` nothing here changes what is learned beyond rounding.

    All of it may change when a run goes on, but for `sync_batch_norm` and `precision`.
    """

    device: str = "auto"
    precision: Precision = AUTO
    """`auto` is decided when a run begins, by hardware, image size and each network's structure, and kept when it goes
    on; a mapping of `student`, `teacher` (both in training) and `teacher_inference` decides for each."""
    threads: CountOrAuto = "auto"
    """Of the CPU, for a run of one process. `auto` takes as many as there are cores that other programs leave free when
    the run begins, and keeps their number when it goes on; where OMP_NUM_THREADS is set, that."""
    checkpoint_every_steps: Count = 200
    compile: bool = False
    cuda_graphs: Literal["auto"] | bool = "auto"
    """On one GPU: record the training step of a full batch once and launch it whole. `auto` does so where networks and
    method consist of torch's and this package's layers and nothing is compiled; `true` always: their Python code must
    then do the same at every step."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Who is told of every epoch: `tensorboard`, and any tracker that Accelerate knows, such as `wandb` or `mlflow`."""
    cache_limit_mb: CountFromZero = 2048
    """Teacher outputs for stored views: of more megabytes than this they lie in a memory-mapped file, not in memory.

    What `teacher: previous_epoch` remembers may not be larger.
    """
    views_folder: Path | None = None
    """Where teacher outputs for stored views are kept for other runs with the same teacher, data and seed; None: they
    end with the run. Comparisons and searches give their runs one, and remove it when all are finished."""
    sync_batch_norm: bool = False
    """With several processes on GPUs: batch statistics over the global batch, not over each process's part."""
    process_timeout_minutes: Positive = 10
    """How long one of several processes may keep the others waiting before it counts as lost and the run ends."""


class Experiment(Section):
    """The complete configuration of a run.

    >>> quick = {"name": "quick", "data": "digits", "student": "resnet8", "method": "ce"}
    >>> experiment = Experiment.from_mapping(quick)
    >>> experiment.output.as_posix(), experiment.training.batch_size
    ('runs/quick-seed0', 128)
    >>> Experiment.from_mapping({**quick, "trainer": {"devise": "cpu"}})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    distail.config.schema.WrongExperiment: 1 problem in the experiment:
      - trainer.devise: unknown key. Did you mean 'device'? Valid: ...
    """

    name: Annotated[str, Field(max_length=120)]
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    output: Annotated[Path, BeforeValidator(_checked_output)] = Path()
    role: Literal["student", "teacher"] = "student"
    """As which of a run's two networks the trained one draws its first weights and the order of its images: a teacher
    that is trained in a run of its own, as comparisons do it, is the very one that its student's run would train."""
    data: Data
    teacher: Teacher | None = None
    student: Student
    method: dict[str, Any]
    """What `distail.create_method` takes, and `adjust`: a tau, or `auto` (chosen on the validation split).

    With `adjust` the student's metrics are those of logits from which that much of the class prior was removed after
    training; no loss changes.
    """
    training: Training = Training()
    trainer: Trainer = Trainer()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        filled = expand_shorthand(raw)
        if filled.get("output") is None and "name" in filled:
            filled["output"] = f"runs/{filled['name']}-seed{filled.get('seed', 0)}"
        return filled

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(_NAME, name):
            fitting = re.sub(_NOT_IN_NAMES, "-", name).strip("-._+") or "mine"
            raise ValueError(
                f"{name!r} names a folder and files; expected letters, digits and ._+- only, beginning with a letter "
                f"or digit, such as {fitting!r}"
            )
        return name

    @field_validator("method")
    @classmethod
    def _adjust_is_a_tau(cls, method: dict[str, Any]) -> dict[str, Any]:
        if method.get("adjust") is None:
            return method
        try:
            return {**method, "adjust": read_tau(method["adjust"])}
        except ValueError as error:
            raise ValueError(f"adjust: {error}") from None

    @property
    def adjust(self) -> Tau | None:
        """Strength of logit adjustment of the student after training; None: no adjustment."""
        tau: Tau | None = self.method.get("adjust")
        return tau

    @property
    def method_name(self) -> str:
        """The preset's name, or `composition` for a free choice of slots."""
        return str(self.method.get("name", "composition"))

    @property
    def teacher_training(self) -> Training:
        """What the teacher is trained with: `training`, changed by `teacher.training`.

        A classifier stage of its own must be named: the student's terms would rarely fit it. So must what is for a
        network that begins with weights, since the student alone may: `freeze` and the rates of layers.
        """
        changes = self.teacher.training if self.teacher else {}
        return Training.model_validate(merged({**self.training.model_dump(), **_NOT_INHERITED}, changes))

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
        """Read one experiment; `overrides` are `key=value` with dotted keys, values read as YAML.

        Raises:
            ConfigError: the file is missing or not YAML, or the experiment has problems (all of them are listed).
        """
        raw = read_yaml(path)
        return cls.from_mapping(apply_overrides(raw, overrides), where=str(path))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], where: str = "the experiment") -> Experiment:
        """Validate a nested mapping with the keys of the YAML file; a `ConfigError` lists all problems at once."""
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{where} is {raw!r}; expected a mapping of keys to values, as in a configuration file")
        experiment, wrong = cls._read(raw)
        if experiment is None:
            keys = [each.key for each in wrong]
            experiment, more = cls._read(without(expand_shorthand(raw), keys))
            if experiment is None:  # what is left of a section may lack what it cannot be without
                keys += [each.key[:-1] for each in more if len(each.key) > 1]
                experiment, more = cls._read(without(expand_shorthand(raw), keys))
            wrong += more if experiment is not None else []
        if wrong or experiment is None:
            raise WrongExperiment(where, wrong, experiment)
        return experiment

    @classmethod
    def _read(cls, raw: Mapping[str, Any]) -> tuple[Experiment | None, list[WrongKey]]:
        try:
            experiment = cls.model_validate(raw)
        except ValidationError as error:
            return None, wrong_keys(cls, error)
        try:
            _ = experiment.teacher_training
        except ValidationError as error:
            assert experiment.teacher is not None
            rest = experiment.teacher.model_copy(update={"training": {}})
            wrong = wrong_keys(Training, error, prefix=("teacher", "training"))
            return experiment.model_copy(update={"teacher": rest}), wrong
        return experiment, []

    def to_yaml(self) -> str:
        """The resolved experiment; reading it again gives an equal one."""
        return dump_plain_yaml(self.model_dump(mode="json"))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; a schedule or mix is replaced as a whole, since its keys belong together.

    >>> merged({"epochs": 200, "schedule": {"name": "cosine"}}, {"epochs": 30})
    {'epochs': 30, 'schedule': {'name': 'cosine'}}
    """
    return {**base, **expand_training(changes)}


class WrongExperiment(ConfigError):
    """Keys or values that no experiment has.

    Attributes:
        where: what the experiment was read from.
        wrong: the problems, each with its key.
        rest: the experiment without these keys, where there is one: it can be checked further.
    """

    def __init__(self, where: str, wrong: Sequence[WrongKey], rest: Experiment | None) -> None:
        problems = [each.problem for each in wrong]
        super().__init__(problems_in(where, problems), problems)
        self.where, self.wrong, self.rest = where, tuple(wrong), rest

    def __reduce__(self) -> tuple[Any, ...]:
        return WrongExperiment, (self.where, self.wrong, self.rest)  # processes send each other their errors
