"""From what a user names to what is audited: a run's folder, weights with a configuration, or a file of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distail.audit.from_file import AuditInput, audited_predictions, load_file
from distail.audit.from_network import Say, load_checkpoint, load_run
from distail.audit.logits_file import holds_logits
from distail.config.schema import Experiment
from distail.errors import Problems, did_you_mean
from distail.models.weights import read_metadata
from distail.runner.run_folder import RunFolder

SPLITS = ("train", "validation", "test")
WEIGHTS = (".safetensors", ".pt", ".pth")


def audited(
    target: Path,
    words: Sequence[str] = (),
    *,
    split: str | None = None,
    class_counts: str | None = None,
    say: Say = lambda text: None,
) -> AuditInput:
    """What `distail audit` looks at.

    Args:
        target: the folder of a run; a file of weights; or a file of logits and labels.
        words: for weights the path of a CONFIG; for weights and runs, changes of it such as ``data.root=/data``.
        split: `train`, `validation` or `test`, of a run or a CONFIG. By default validation, or train where there is
            none.
        class_counts: for a file of logits, training images a class: numbers, or a file of them.
        say: told of what takes long.

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
    kind: Callable[..., AuditInput]
    if target.is_dir():
        kind = _run
    elif target.suffix in WEIGHTS and not holds_logits(target):
        kind = _weights
    else:
        kind = _logits
    return kind(target, words, split, class_counts, say, problems)


def _run(
    target: Path, words: Sequence[str], split: str | None, class_counts: str | None, say: Say, problems: Problems
) -> AuditInput:
    run = RunFolder(target)
    config, overrides = _config_and_overrides(words)
    if config is not None:
        problems.add(f"CONFIG {config!r} is given, but a run's folder has its own; leave it away.")
    _refuse_counts(class_counts, problems)
    experiment = None
    if not run.config.is_file():
        problems.add("it is not the folder of a run: it has no config.yaml. `distail run CONFIG` makes one.")
    else:
        experiment = problems.attempt(lambda: Experiment.from_yaml(run.config, overrides))
    problems.stop(f"{target} cannot be audited")
    assert experiment is not None
    result = run.stored_result()
    if split == "test" and result is not None and not overrides:
        return audited_predictions(run, result)
    return load_run(run, experiment, split, say)


def _weights(
    target: Path, words: Sequence[str], split: str | None, class_counts: str | None, say: Say, problems: Problems
) -> AuditInput:
    config, overrides = _config_and_overrides(words)
    _refuse_counts(class_counts, problems)
    experiment = None
    if not target.is_file():
        problems.add(f"there is no such file (current directory {Path.cwd()}).")
    else:
        problems.attempt(lambda: read_metadata(target))
    if config is not None:
        experiment = problems.attempt(lambda: Experiment.from_yaml(config, overrides))
    else:
        hint = (
            f", or audit the run's folder: distail audit {target.parent}"
            if RunFolder(target.parent).config.is_file()
            else ""
        )
        problems.add(
            "it holds no logits with labels, so it is taken for weights, which need a CONFIG that names the data"
            f"{hint}."
        )
    problems.stop(f"{target} cannot be audited")
    assert experiment is not None
    return load_checkpoint(target, experiment, split, say)


def _logits(
    target: Path, words: Sequence[str], split: str | None, class_counts: str | None, say: Say, problems: Problems
) -> AuditInput:
    if words:
        problems.add(f"{' '.join(words)!r} is given, but a file of logits has no CONFIG; leave it away.")
    if split in SPLITS:
        problems.add("--split is given, but a file of logits is audited whole; leave it away.")
    problems.stop(f"{target} cannot be audited")
    say(f"{target}: reading the logits")
    return load_file(target, class_counts)


def _config_and_overrides(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first word is a CONFIG unless it is key=value."""
    if words and ("=" not in words[0] or Path(words[0]).is_file()):
        return words[0], list(words[1:])
    return None, list(words)


def _refuse_counts(class_counts: str | None, problems: Problems) -> None:
    if class_counts is not None:
        problems.add("--class-counts is for a file of logits; here the training images are counted.")
