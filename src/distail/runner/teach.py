"""`distail teach`: what a network says of every image of an experiment, as a file that can teach in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distail.config.schema import Experiment
from distail.data.dataset import smallest_side
from distail.data.image_inputs import check_augment
from distail.data.prepare import prepare_data
from distail.errors import DataError, Problems
from distail.models.weights import recognize_weights
from distail.runner.answers_writer import AnswersWriter, Taught
from distail.runner.run_folder import RunFolder
from distail.runner.stored_network import StoredNetwork, load_network, network_of_run, network_of_weights
from distail.training.device import select_device
from distail.training.distributed import process_group
from distail.training.progress import Reporter, Silent, default_reporter
from distail.training.signals import stop_requests


def teach(
    target: Path,
    words: Sequence[str] = (),
    *,
    output: Path,
    top_k: int | None = None,
    views: int = 0,
    reporter: Reporter | None = None,
) -> Taught:
    """Ask a network about every training, validation and test image of an experiment, or go on with that.

    Computed in float32. Several processes share the work, and the main one writes.

    Args:
        target: a run's folder (its teacher, or its student where it had none), or a file of weights.
        words: the path of a CONFIG, which for a run is its own by default, and changes of it as `key=value`.
        output: the file, whose name ends in `.safetensors`.
        top_k: keep the K largest probabilities only.
        views: draw so many crops and flips of each training image, as `data.augment` says, in place of it as it is.

    Raises:
        DistailError: what cannot be used, all of it listed, before any work.
    """
    problems = Problems()
    if output.suffix != ".safetensors":
        problems.add(f"--output {output}: its name ends in {output.suffix!r}; expected .safetensors")
    if top_k is not None and top_k < 1:
        problems.add(f"--top-k: {top_k}; expected at least 1, such as 32")
    if views < 0:
        problems.add(f"--views: {views}; expected 0 or the number of augmented views per training image")
    found = problems.attempt(lambda: _experiment_of(target, words))
    experiment = found[1] if found else None
    # The items of a function may draw for themselves.
    if experiment is not None and views and not experiment.data.augment and ":" not in str(experiment.data.name):
        problems.add(f"--views: {views}, but data.augment is empty, so that all views are the same; leave it out")
    network = None
    if found is not None:
        network = problems.attempt(lambda: _network_of(*found))
    problems.stop(f"{target} teaches nothing")
    assert experiment is not None
    assert network is not None
    trainer = experiment.trainer
    with (
        stop_requests() as request,
        request.at_once(),
        process_group(trainer.device, trainer.process_timeout_minutes) as processes,
    ):
        tell: Reporter = (reporter or default_reporter(name=experiment.name)) if processes.is_main else Silent()
        data = processes.local_main_first(lambda: prepare_data(experiment.data, seed=experiment.seed))
        if views:
            check_augment(experiment.data.augment, data.train)
        tell.message(f"{experiment.data.name}: the predictions of {network.name}, a {network.model.name}")
        selected = select_device(trainer.device, "fp32", smallest_side(data.train), processes)
        tap = load_network(network, experiment, data, selected, tell.message)
        if top_k is not None and top_k > len(data.class_names):
            raise DataError(f"--top-k: {top_k}, but there are {len(data.class_names)} classes; expected at most these")
        if top_k is not None and data.samples is not None:
            raise DataError("--top-k needs the probabilities of a softmax, but the data are multi-label; leave it out")
        return AnswersWriter(experiment, data, selected, tap, network, top_k, views).write(output, tell)


def _experiment_of(target: Path, words: Sequence[str]) -> tuple[Path, Experiment, Experiment | None]:
    """The experiment whose images are asked about, and that of the run, where the target is one."""
    config, overrides = (Path(words[0]), words[1:]) if words and "=" not in words[0] else (None, words)
    if target.is_dir():
        run = RunFolder(target)
        if not run.config.is_file():
            raise DataError(f"{str(target)!r} is not a run folder: it has no config.yaml")
        own = Experiment.from_yaml(run.config)
        return target, Experiment.from_yaml(config or run.config, overrides), own
    problems = Problems()
    problems.attempt(lambda: recognize_weights(target))
    if config is None:
        problems.add(f"{str(target)!r} is a weights file and needs a CONFIG that names the data")
    experiment = None if config is None else problems.attempt(lambda: Experiment.from_yaml(config, overrides))
    problems.stop("the arguments", DataError)
    assert experiment is not None
    return target, experiment, None


def _network_of(target: Path, experiment: Experiment, of_run: Experiment | None) -> StoredNetwork:
    if of_run is None:
        return network_of_weights(target, experiment)
    if of_run.teacher is not None and of_run.teacher.logits is not None:
        raise DataError(f"the teacher of {target} is a file already: {of_run.teacher.logits}")
    return network_of_run(RunFolder(target), of_run)
