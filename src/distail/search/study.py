"""The study that Optuna keeps: a journal that survives kills, a sampler that goes on as if it never stopped."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distail.errors import ConfigError, DistailError
from distail.search.slots import FREE
from distail.search.space import OF_FREE, Space, Variation, proposal_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

REDUCTION = 3
"""Of the trials that come to the comparison a third goes on."""
PROBLEM = "problem"
"""Under which name a trial has why it failed."""
_VARIATION = "variation"
_LEAST_FOR_IMPORTANCE = 6  # finished trials; of fewer nothing can be said


def require_optuna() -> None:
    """Raise a `ConfigError` with the line that installs it where Optuna is missing."""
    try:
        import_module("optuna")
    except ImportError:
        raise ConfigError(
            "distail search needs Optuna, which is not installed: pip install 'distail[search]', or pip install optuna"
        ) from None


def comparison_epoch(epochs: int) -> int:
    """After how many epochs trials are compared, once: two thirds of them.

    What a network knows early says little of what it will know: while the learning rate is still high, the balanced
    accuracy of trials had rank correlations of -0.2 to 0.5 with that of their end, and 0.6 after two thirds
    (benchmarks/search).

    >>> comparison_epoch(30), comparison_epoch(6), comparison_epoch(2)
    (20, 4, 2)
    """
    return math.ceil(2 * epochs / 3)


def open_study(path: Path, epochs: int, space: Space) -> Study:
    """The study in this journal, as it was left; a new one begins with the starts.

    Only for the process that holds the folder.

    Raises:
        DistailError: the journal is damaged.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _mend(path)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name="search",
            direction="maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(comparison_epoch(epochs), reduction_factor=REDUCTION),
            load_if_exists=True,
        )
        begun = len(study.get_trials(deepcopy=False))
    except (ValueError, KeyError, TypeError) as error:
        raise DistailError(f"{path} is damaged ({error}); put it back, or choose another --output") from None
    for number in range(begun, space.starts):
        study.enqueue_trial(space.start(number))
    return study


def state_of(trial: FrozenTrial) -> str:
    """The name of a trial's state; a start that failed is kept open, since Optuna has no way back from a failure."""
    name: str = trial.state.name
    return "FAIL" if trial.user_attrs.get(PROBLEM) is not None else name


def next_trial(
    study: Study, seed: int, space: Space, *, at_random: bool = False, teacher_is_busy: bool = False
) -> Trial:
    """The next trial to fill in: a start, a variation of a good trial, what all suggest, or anything.

    A search of some thirty trials has too few for a space of a dozen parameters, so the variations of the space come
    first, each once and on the best trial by then. Those without a teacher need not wait for it, as a start may have to
    (`teacher_is_busy`).

    Its sampler is drawn anew from the seed and the trial's number, so that a search that was killed suggests what it
    would have suggested, and nothing needs to be pickled.
    """
    import optuna

    waiting = optuna.trial.TrialState.WAITING
    trials = study.get_trials(deepcopy=False)
    number = sum(trial.state != waiting for trial in trials)
    study.sampler = sampler(seed, number, space.starts, at_random=at_random)
    if teacher_is_busy and (early := _without_a_teacher(study, trials, space)) is not None:
        return early
    variation = None if at_random else _untried_variation(trials, space)
    if variation is not None:
        study.enqueue_trial(space.vary(_to_vary(study, trials, space, variation).params, variation))
    trial = study.ask()
    if variation is not None:
        trial.set_user_attr(_VARIATION, list(variation))
    return trial


def _without_a_teacher(study: Study, trials: Sequence[FrozenTrial], space: Space) -> Trial | None:
    """A variation in place of the next start; None where that needs no teacher either, or there is none.

    Only of the first switch: the others build on what it brings, which is not known before kd is.
    """
    import optuna

    start = next((trial.number for trial in trials if trial.state.name == "WAITING"), None)
    if start is None or start <= FREE or not space.start_has_teacher(start):
        return None
    first = [one for one in space.switches_without_a_teacher if one.name == next(iter(space.switches))]
    variation = next(_untried(trials, first), None)
    if variation is None:
        return None
    # Asked for as usual, Optuna would give the start that waits.
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=space.vary(trials[FREE].params, variation),
            distributions=trials[FREE].distributions,
            user_attrs={_VARIATION: list(variation)},
        )
    )
    return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)


def _untried(trials: Sequence[FrozenTrial], variations: Iterable[Variation]) -> Iterator[Variation]:
    tried = {tuple(trial.user_attrs.get(_VARIATION, ())) for trial in trials}
    return (variation for variation in variations if variation not in tried)


def _untried_variation(trials: Sequence[FrozenTrial], space: Space) -> Variation | None:
    """The next one to try; None where all were, or what it builds on has still to end."""
    starts = trials[: space.starts]
    best_first = sorted(range(len(starts)), key=lambda number: -_value(starts[number]))
    variation = next(_untried(trials, space.variations(best_first)), None)
    states = [state_of(trial) for trial in starts]
    if len(starts) < space.starts or "WAITING" in states or "COMPLETE" not in states:
        return None
    of_free = variation in space.switches_without_a_teacher and states[FREE] == "COMPLETE"
    return variation if of_free or "RUNNING" not in states else None


def _to_vary(study: Study, trials: Sequence[FrozenTrial], space: Space, variation: Variation) -> FrozenTrial:
    """The best trial by now of those that the variation is of; of all, where none of these was finished."""
    finished = [one for one in trials if one.state.name == "COMPLETE"]
    free = [one for one in finished if space.is_free(proposal_of(space, one.params))]
    if variation.of == OF_FREE and free:
        return max(free, key=_value)
    return study.best_trial


def _value(trial: FrozenTrial) -> float:
    return -math.inf if trial.value is None else trial.value


def sampler(seed: int, number: int, starts: int, *, at_random: bool = False) -> Any:
    """The tree-structured Parzen estimator for one trial, random for the first of them [Bergstra et al. 2011].

    Args:
        seed, number: of the search and the trial.
        starts: how many trials were chosen beforehand; as many more are random.
    """
    import optuna

    of_this_trial = (seed * 1_000_003 + number) % 2**32
    if at_random:
        return optuna.samplers.RandomSampler(of_this_trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that groups of parameters are experimental
        return optuna.samplers.TPESampler(
            seed=of_this_trial,
            n_startup_trials=2 * starts,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def importances(study: Study, figures: Mapping[int, float]) -> dict[str, float]:
    """Parameter to its share of what made the figures of finished trials differ (fANOVA); empty with too few of them.

    Args:
        figures: of the finished trials, by number: the metric itself, in which no bound is mixed.
    """
    import optuna

    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    values = {figures.get(trial.number) for trial in finished}
    if len(finished) < _LEAST_FOR_IMPORTANCE or len(values) < 2 or None in values:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            target=lambda trial: figures[trial.number],
        )
    return {name: float(share) for name, share in found.items()}


def _mend(path: Path) -> None:
    """Take away what a kill leaves: a line cut off, which nothing may follow, and the lock of a process gone."""
    for left in path.parent.glob(f"{path.name}.lock*"):
        left.unlink(missing_ok=True)
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        whole = content.rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(whole)
