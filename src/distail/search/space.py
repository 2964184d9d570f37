"""What a search may choose: a method by its slots, and switches of the recipe around it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distail.config.augment import POLICIES, augment_name
from distail.config.reading import apply_overrides
from distail.config.schema import Experiment, Training
from distail.config.section import ALL
from distail.data.batches import steps_an_epoch
from distail.data.dataset import Examples, is_images
from distail.errors import DistailError
from distail.runner.checks import check_fits_data, problems_of
from distail.runner.posterior import can_be_adjusted
from distail.search.slots import FREE, NONE, REFERENCE, SLOTS, Choices, Slots
from distail.training.averaging import covered_steps

AS_GIVEN = "as given"
_DECAYS = (0.9, 0.99, 0.999, 0.9999)
_TENTH = 10
_LEAST_BATCH = 16
_METHOD = "method of start"
OF_FREE, OF_BEST = "without a teacher", "best"
Recipe = Mapping[str, object]


class Variation(NamedTuple):
    """One change of a good trial.

    Attributes:
        of: `OF_FREE`, the best trial of the method without a teacher and without cost, or `OF_BEST`, of all trials.
        name, option: what is changed, and to what.
    """

    of: str
    name: str
    option: str


@dataclass(frozen=True)
class Proposal:
    """One choice out of the space.

    Attributes:
        method: what stands under `method` in a configuration.
        recipe: keys beside the method to their values; empty where all is as the configuration has it.
        words: both, for people.
    """

    method: Mapping[str, object]
    recipe: Recipe
    words: str


@dataclass(frozen=True)
class Space:
    """What there is to choose of an experiment.

    Attributes:
        switches: name to option to what the option changes beside the method.
        base: the experiment. The kind of its labels decides on the slots of the method, how its images are drawn and
            its classifier is trained on what may be adjusted.

    >>> base = Experiment.from_mapping({"name": "x", "data": {"name": "digits"}, "student": "resnet8", "method": "kd"})
    >>> space = Space({}, base)
    >>> proposal_of(space, space.start(1)).method
    {'supervised': 'ce', 'divergence': None, 'adjust': 1.0}
    """

    switches: Mapping[str, Mapping[str, Recipe]]
    base: Experiment

    @property
    def starts(self) -> int:
        """How many trials come first, and go to their end."""
        return len(self._slots.starts)

    def propose(self, trial: Choices) -> Proposal:
        """Ask a trial for every choice that there is to make, in an order that depends on its answers alone."""
        method, words = self._slots.choose(trial, self._can_adjust)
        recipe: dict[str, object] = {}
        for name, options in self.switches.items():
            option = trial.suggest_categorical(name, [AS_GIVEN, *options])
            if option != AS_GIVEN:
                recipe |= options[str(option)]
                words += f", {name} {option}"
        return Proposal(method, recipe, words)

    def start_has_teacher(self, number: int) -> bool:
        """Whether a start waits for the teacher."""
        return self._slots.starts[number]["divergence"] != NONE

    def start(self, number: int) -> dict[str, object]:
        """The choices of a start, with the recipe as it is given."""
        return {**self._slots.starts[number], **dict.fromkeys(self.switches, AS_GIVEN)}

    def variations(self, starts: Iterable[int]) -> list[Variation]:
        """What to change of good trials, one at a time.

        Each switch without a teacher, which is cheap, and where the start is not one of several that was lucky; then
        the method of each start with the best recipe of these; then each switch with the best method.

        Args:
            starts: their numbers, from the best on, whose methods are the first to be tried once more.
        """
        return [
            *self.switches_without_a_teacher,
            *(Variation(OF_FREE, _METHOD, str(number)) for number in starts),
            *(one._replace(of=OF_BEST) for one in self.switches_without_a_teacher),
        ]

    @property
    def switches_without_a_teacher(self) -> list[Variation]:
        """The first of the variations."""
        return [Variation(OF_FREE, name, option) for name, options in self.switches.items() for option in options]

    def vary(self, parameters: Mapping[str, object], variation: Variation) -> dict[str, object]:
        """The choices of a trial with one variation."""
        if variation.name != _METHOD:
            return {**parameters, variation.name: variation.option}
        recipe = {switch: parameters.get(switch, AS_GIVEN) for switch in self.switches}
        return {**self._slots.starts[int(variation.option)], **recipe}

    def is_free(self, proposal: Proposal) -> bool:
        """Whether it is the method without a teacher and without cost, with whatever recipe."""
        return proposal.method == proposal_of(self, self.start(FREE)).method

    @property
    def _slots(self) -> Slots:
        return SLOTS[self.base.data.targets]

    def _can_adjust(self, method: Mapping[str, object]) -> bool:
        try:
            return can_be_adjusted(self.base.model_copy(update={"method": dict(method)}))
        except DistailError:  # a teacher's file that cannot be read, which is told where files are checked
            return False


def space_of(base: Experiment, train: Examples) -> Space:
    """The switches that this experiment can take: what its data, teacher or network refuses is left out."""
    training, augment = base.training, base.model_dump(mode="json")["data"]["augment"]
    here = {augment_name(entry) for entry in base.data.augment}
    policy = () if here.intersection(POLICIES) else ("trivial_augment",)
    more = [name for name in (*policy, "cutout") if name not in here] if is_images(train) else []
    # With a view for each epoch the teacher may as well see the mixed images themselves.
    live: Recipe = {"teacher.views": 0} if base.teacher is not None and base.teacher.views == ALL else {}
    candidates: dict[str, dict[str, Recipe]] = {
        "batch_size": {f"{size}": {"training.batch_size": size} for size in _batch_sizes(training, len(train))},
        "learning_rate": {
            f"{rate:g}": {"training.learning_rate": rate}
            for rate in (training.learning_rate / 2, training.learning_rate * 2)
        },
        "augment": {name: {"data.augment": [*augment, name]} for name in more},
        "mix": {name: {"training.mix": {"name": name}, **live} for name in ("cutmix", "mixup")},
        "ema_decay": {f"{decay:g}": {"training.ema_decay": decay} for decay in _decays(training, len(train))},
    }
    if training.mix is not None:
        candidates["mix"][NONE] = {"training.mix": None}
    if training.ema_decay is not None:
        candidates["ema_decay"][NONE] = {"training.ema_decay": None}
    # Its own method is ignored, and may ask no teacher: plain distillation must be able to take what is tried.
    distilled = base.model_copy(update={"method": dict(reference_proposal(base).method)})
    before = problems_of(distilled)
    kept = {
        name: {option: recipe for option, recipe in options.items() if _can(distilled, recipe, before, train)}
        for name, options in candidates.items()
    }
    return Space({name: options for name, options in kept.items() if options}, base)


def _decays(training: Training, num_images: int) -> list[float]:
    """The two longest averages of weights that cover a tenth of the training at most: early weights blur others."""
    steps = training.epochs * steps_an_epoch(num_images, training.batch_size)
    return [decay for decay in _DECAYS if _TENTH * covered_steps(decay) <= steps][-2:]


def _batch_sizes(training: Training, num_images: int) -> list[int]:
    """Half and a quarter of what is given, where that gives more steps: short trainings on few images lack them."""
    sizes = (training.batch_size // 2, training.batch_size // 4)
    given = steps_an_epoch(num_images, training.batch_size)
    return [size for size in sizes if size >= _LEAST_BATCH and steps_an_epoch(num_images, size) > given]


def with_recipe(base: Experiment, recipe: Recipe) -> dict[str, object]:
    """The experiment's mapping with these keys changed."""
    return apply_overrides(
        base.model_dump(mode="json"), [f"{key}={json.dumps(value)}" for key, value in recipe.items()]
    )


def _can(base: Experiment, recipe: Recipe, before: list[str], train: Examples) -> bool:
    """Whether the experiment and its data take these keys, and they change it."""
    try:
        changed = Experiment.from_mapping(with_recipe(base, recipe))
        check_fits_data(changed, train)
    except DistailError:
        return False
    return changed != base and not set(problems_of(changed)) - set(before)


def proposal_of(space: Space, parameters: Mapping[str, object]) -> Proposal:
    """What a trial with these choices is.

    Raises:
        ValueError: a choice is missing.

    >>> base = Experiment.from_mapping({"name": "x", "data": {"name": "digits"}, "student": "resnet8", "method": "kd"})
    >>> space = Space({}, base)
    >>> proposal_of(space, space.start(0)).words
    'ce, T 4, weights 0.1 and 0.9'
    """
    return space.propose(_Given(parameters))


def reference_proposal(base: Experiment) -> Proposal:
    """Plain distillation, with which every trial is compared, with the recipe as it is given."""
    space = Space({}, base)
    return proposal_of(space, space.start(REFERENCE))


@dataclass(frozen=True)
class _Given:
    """Choices that were made before."""

    parameters: Mapping[str, object]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        # A search that an earlier version began had fewer switches.
        return AS_GIVEN if AS_GIVEN in choices and name not in self.parameters else self._given(name)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(str(self._given(name)))

    def _given(self, name: str) -> object:
        if name not in self.parameters:
            raise ValueError(f"nothing was chosen for {name}")
        return self.parameters[name]
