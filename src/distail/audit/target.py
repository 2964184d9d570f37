"""From what a user names to what is audited: a run's folder, weights with a configuration, or a file of logits."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distail.audit.from_file import AuditInput, load_file, load_run_predictions
from distail.audit.from_network import load_checkpoint, load_run
from distail.audit.logits_file import READERS, holds_logits
from distail.config.schema import Experiment
from distail.errors import CheckpointError, Problems, did_you_mean
from distail.models.weights import recognize_weights
from distail.outputs import MULTI_LABEL
from distail.runner.posterior import posterior_notes
from distail.runner.run_folder import RunFolder
from distail.training.progress import Reporter, Silent

SPLITS = ("train", "validation", "test")
WEIGHTS = (".safetensors", ".pt", ".pth")


def load_target(
    target: Path,
    words: Sequence[str] = (),
    *,
    split: str | None = None,
    class_counts: str | None = None,
    reporter: Reporter | None = None,
) -> AuditInput:
    """What `distail audit` looks at.

    Args:
        target: the folder of a run; a file of weights; or a file of logits and labels.
        words: for weights the path of a CONFIG; for weights and runs, changes of it such as ``data.root=/data``.
        split: `train`, `validation` or `test`, of a run or a CONFIG. By default validation, or train where there is
            none.
        class_counts: for a file of logits, training images per class: numbers, or a file of them.
        reporter: told of what takes long.

    Raises:
        DistailError: what cannot be used; where several things can be told at once, they are.
    """
    problems = Problems()
    if split is not None and split not in SPLITS:
        problems.add(f"--split {split} is not a split. {did_you_mean(split, SPLITS)}")
    if target.suffix in (".yaml", ".yml"):
        problems.add(
            f"{str(target)!r} is a configuration, which comes second. Name the weights first, as in "
            f"`distail audit teacher.safetensors {target}`, or the folder of a run of it."
        )
        problems.stop("no audit")
    options = _Options(words, split, class_counts, reporter or Silent())
    if target.is_dir():
        return _load_run(target, options, problems)
    if _holds_weights(target):
        return _load_weights(target, options, problems)
    return _load_logits(target, options, problems)


def _holds_weights(target: Path) -> bool:
    suffix = target.suffix.lower()
    if suffix in WEIGHTS:
        return not holds_logits(target)
    if suffix in READERS or not target.is_file():
        return False
    try:
        recognize_weights(target)
    except CheckpointError:
        return False
    return True


@dataclass(frozen=True)
class _Options:
    words: Sequence[str]
    split: str | None
    class_counts: str | None
    reporter: Reporter


def _load_run(target: Path, options: _Options, problems: Problems) -> AuditInput:
    run = RunFolder(target)
    config, overrides = _config_and_overrides(options.words)
    if config is not None:
        problems.add(f"CONFIG {config!r} is given, but a run folder has its own; leave it out.")
    _refuse_counts(options, problems)
    experiment = None
    if not run.config.is_file():
        problems.add("it is not the folder of a run: it has no config.yaml. `distail run CONFIG` makes one.")
    else:
        experiment = problems.attempt(lambda: Experiment.from_yaml(run.config, overrides))
    problems.stop(f"{target} cannot be audited")
    assert experiment is not None
    result = run.stored_result()
    # Stored predictions of several classes do not say among how many training examples these were counted.
    stored = options.split == "test" and experiment.data.targets != MULTI_LABEL
    if stored and result is not None and not overrides:
        found = load_run_predictions(run, result)
    else:
        found = load_run(run, experiment, options.split, options.reporter)
    return replace(
        found,
        config=_config(run.config, overrides),
        cautions=(*found.cautions, *posterior_notes(experiment)),
    )


def _load_weights(target: Path, options: _Options, problems: Problems) -> AuditInput:
    config, overrides = _config_and_overrides(options.words)
    _refuse_counts(options, problems)
    experiment = None
    if not target.is_file():
        problems.add(f"there is no such file (current directory {Path.cwd()}).")
    else:
        problems.attempt(lambda: recognize_weights(target))
    if config is not None:
        experiment = problems.attempt(lambda: Experiment.from_yaml(config, overrides))
    else:
        in_a_run = RunFolder(target.parent).config.is_file()
        hint = f", or audit the run's folder: distail audit {target.parent}" if in_a_run else ""
        problems.add(
            "it holds no logits with labels, so it is taken for weights, which need a CONFIG that names the data"
            f"{hint}."
        )
    problems.stop(f"{target} cannot be audited")
    assert experiment is not None
    found = load_checkpoint(target, experiment, options.split, options.reporter)
    return replace(found, config=_config(config, overrides))


def _load_logits(target: Path, options: _Options, problems: Problems) -> AuditInput:
    if options.words:
        problems.add(f"{' '.join(options.words)!r} is given, but a file of logits has no CONFIG; leave it out.")
    if options.split in SPLITS:
        problems.add("--split is given, but a file of logits is always audited as a whole; leave it out.")
    problems.stop(f"{target} cannot be audited")
    if target.is_file():
        options.reporter.message(f"{target}: reading the logits")
    return load_file(target, options.class_counts)


def _config_and_overrides(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first word is a CONFIG unless it is key=value."""
    if words and ("=" not in words[0] or Path(words[0]).is_file()):
        return words[0], list(words[1:])
    return None, list(words)


def _config(path: str | Path | None, overrides: Sequence[str]) -> str:
    """The first words of the command that is recommended, which names method and folder itself."""
    kept = [word for word in overrides if re.split(r"[.=]", word)[0] not in ("name", "output", "method")]
    return shlex.join([str(path), *kept])


def _refuse_counts(options: _Options, problems: Problems) -> None:
    if options.class_counts is not None:
        problems.add("--class-counts is for a file of logits; here the training images are counted.")
