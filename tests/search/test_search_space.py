"""What a search may choose is always an experiment that can be run; this needs no Optuna."""

import pytest
import torch
import yaml

from distail.config.schema import Experiment
from distail.data.arrays import LabeledArrays
from distail.methods.presets import read_composition
from distail.runner.checks import problems_of
from distail.search.finals import best_yaml, finalists_of
from distail.search.goal import Goal
from distail.search.slots import FREE, STARTS
from distail.search.space import Space, proposal_of, space_of, with_recipe
from helpers.search_cases import CONFIG, AtRandom, metrics, space_for


@pytest.mark.parametrize("seed", range(24))
def test_whatever_is_chosen_can_be_run_and_chosen_again(seed):
    base = Experiment.from_mapping(CONFIG)
    space, dice = space_for(base), AtRandom(seed)
    proposal = space.propose(dice)
    chosen = Experiment.from_mapping({**with_recipe(base, proposal.recipe), "method": proposal.method})
    assert problems_of(chosen) == []
    assert proposal_of(space, dice.asked) == proposal
    assert proposal.method.get("adjust") != "auto", "tau would be chosen on the split by which the trial is judged"
    method = {key: value for key, value in proposal.method.items() if key != "adjust"}
    assert "adjust" not in proposal.method or read_composition(method).posterior != "balanced"


@pytest.mark.parametrize(
    ("data", "late", "adjusted"),
    [
        ({}, None, 1.0),
        ({"sampler": "class_balanced"}, None, None),
        ({"sampler": "square_root"}, None, None),
        ({}, {"epochs": 3, "sampler": "class_balanced"}, None),
        ({}, {"epochs": 3, "supervised": "balanced_softmax"}, None),
        ({"sampler": "class_balanced"}, {"epochs": 3, "sampler": "instance"}, 1.0),
    ],
)
def test_what_sampler_or_classifier_stage_took_off_is_not_adjusted(data, late, adjusted):
    training = {**CONFIG["training"], "classifier_stage": late}
    space = Space({}, Experiment.from_mapping({**CONFIG, "data": {**CONFIG["data"], **data}, "training": training}))
    free = proposal_of(space, space.start(FREE))
    assert (free.method.get("adjust"), "adjusted" in free.words) == (adjusted, adjusted is not None)
    asked = [dice for dice in map(AtRandom, range(24)) if "adjust" in space.propose(dice).method]
    assert bool(asked) == (adjusted is not None or late == {"epochs": 3, "supervised": "balanced_softmax"})


@pytest.mark.parametrize(("number", "preset"), [(0, "kd"), (4, "krdistill"), (5, "bkd"), (6, "dive")])
def test_a_start_is_the_preset_that_it_is_named_after(number, preset):
    start, preset = (
        read_composition(proposal_of(Space({}, Experiment.from_mapping(CONFIG)), STARTS[number]).method),
        read_composition(preset),
    )
    for slot in ("supervised", "targets", "divergence", "weights"):
        assert [one.name for one in start.entries[slot]] == [one.name for one in preset.entries[slot]]
    weights = {"supervised_weight": 1.0, "distillation_weight": 1.0}
    assert {**weights, **start.options} == {**weights, **preset.options}


def test_starts_leave_the_recipe_as_it_is():
    space = space_for(Experiment.from_mapping(CONFIG))
    assert [proposal_of(space, space.start(number)).recipe for number in range(len(STARTS))] == [{}] * len(STARTS)


def test_what_the_experiment_has_already_is_no_choice_but_can_be_left_out():
    training = {**CONFIG["training"], "epochs": 3000, "mix": "cutmix", "ema_decay": 0.99}
    data = {**CONFIG["data"], "augment": ["crop", "cutout"]}
    switches = space_for(Experiment.from_mapping({**CONFIG, "training": training, "data": data})).switches
    assert set(switches["mix"]) == {"mixup", "none"}
    assert set(switches["ema_decay"]) == {"0.999", "none"}
    assert set(switches["augment"]) == {"trivial_augment"}


def test_mixed_images_are_shown_to_a_teacher_whose_views_are_as_many_as_the_epochs():
    for views, mixed in (("all", {"cutmix", "mixup"}), (2, None), (0, {"cutmix", "mixup"})):
        base = Experiment.from_mapping({**CONFIG, "teacher": {**CONFIG["teacher"], "views": views}})
        switches = space_for(base).switches
        assert (set(switches["mix"]) if "mix" in switches else None) == mixed
        for recipe in switches.get("mix", {}).values():
            assert Experiment.from_mapping(with_recipe(base, recipe)).teacher.views == 0


def test_what_the_data_refuse_is_no_choice():
    base = Experiment.from_mapping({**CONFIG, "training": {**CONFIG["training"], "epochs": 10_000}})  # of one step
    labels = torch.tensor([0, 1, 0, 1])
    of_numbers = space_of(base, LabeledArrays(torch.zeros(4, 3), labels))
    assert {name: [*options] for name, options in of_numbers.switches.items()} == {
        "mix": ["mixup"],
        "ema_decay": ["0.99", "0.999"],
        "learning_rate": ["0.025", "0.1"],
    }
    of_tokens = space_of(base, LabeledArrays(torch.zeros(4, 3, dtype=torch.int64), labels))
    assert {*of_tokens.switches} == {"ema_decay", "learning_rate"}
    policy = {**CONFIG["data"], "augment": ["crop", "auto_augment"]}
    assert [*space_for(Experiment.from_mapping({**CONFIG, "data": policy})).switches["augment"]] == ["cutout"]


@pytest.mark.parametrize(
    ("epochs", "decays"), [(24, []), (25, ["0.9"]), (250, ["0.9", "0.99"]), (2500, ["0.99", "0.999"])]
)
def test_averages_that_are_tried_cover_a_tenth_of_the_training_at_most(epochs, decays):
    training = {**CONFIG["training"], "epochs": epochs}
    base = Experiment.from_mapping({**CONFIG, "training": training})
    tried = space_for(base).switches.get("ema_decay", {})
    assert [*tried] == decays


@pytest.mark.parametrize(
    ("num_images", "given", "tried"),
    [(1000, 128, ["64", "32"]), (1000, 40, ["20"]), (1000, 24, []), (100, 128, ["64", "32"]), (40, 128, ["32"])],
)
def test_smaller_batches_are_tried_where_they_give_more_steps(num_images, given, tried):
    training = {**CONFIG["training"], "batch_size": given}
    labels = torch.arange(num_images) % 2
    space = space_of(
        Experiment.from_mapping({**CONFIG, "training": training}), LabeledArrays(torch.zeros(num_images, 3), labels)
    )
    assert [*space.switches.get("batch_size", {})] == tried


def test_a_switch_that_an_earlier_search_did_not_know_is_as_given():
    space = space_for(Experiment.from_mapping(CONFIG))
    start = space.start(0)
    del start["batch_size"], start["learning_rate"]
    assert proposal_of(space, start) == proposal_of(space, space.start(0))
    del start["divergence"]
    with pytest.raises(ValueError, match="divergence"):
        proposal_of(space, start)


def test_a_choice_that_changes_the_recipe_keeps_the_teacher_that_was_searched_with():
    base = Experiment.from_mapping(CONFIG)
    teacher = {**base.model_dump(mode="json")["teacher"], "checkpoint": "searches/x/student.safetensors"}
    loaded = Experiment.from_mapping({**CONFIG, "teacher": teacher}).teacher
    changed = {"number": 7, "words": "cutmix", "method": {"name": "kd"}, "recipe": {"training.mix": {"name": "cutmix"}}}
    for best, expected in ((changed, loaded), ({**changed, "recipe": {}}, base.teacher)):
        assert Experiment.from_mapping(yaml.safe_load(best_yaml(base, best, loaded))).teacher == expected


def test_what_costs_nothing_is_always_among_those_that_are_trained_again():
    def trial(number, figure):
        known = {"state": "finished", "figure": figure, "within_bound": True, "epochs": 9}
        return {"number": number, "method": {"supervised": f"of trial {number}"}, **known}

    trials = [trial(number, figure) for number, figure in enumerate([50.0, 51.0, 70.0, 60.0, 90.0, 80.0])]
    assert [one["number"] for one in finalists_of({"trials": trials})] == [1, 4, 5, 2]
    assert [one["number"] for one in finalists_of({"trials": trials[:1]})] == []


def test_an_option_is_the_configuration_with_its_keys_changed():
    base = Experiment.from_mapping(CONFIG)
    changed = Experiment.from_mapping(with_recipe(base, space_for(base).switches["augment"]["cutout"]))
    assert [*changed.data.augment] == ["crop", "cutout"]
    assert changed.training == base.training


def test_whatever_keeps_the_bound_is_better_than_anything_that_does_not():
    goal, kd = Goal("worst_third", 2.0), metrics(50.0, top1=80.0)
    assert goal.value(metrics(60.0, top1=78.0), kd) == 50.0
    assert goal.value(metrics(11.0, top1=79.0), kd) > goal.value(metrics(99.0, top1=77.9), kd)
    assert goal.value(metrics(99.0, top1=70.0), kd) < goal.value(metrics(20.0, top1=75.0), kd) < 0


def test_importances_are_of_the_figure_and_not_of_the_bound():
    """A trial that loses too much top-1 is worth less than nothing to the search; its figure is what it is."""
    optuna = pytest.importorskip("optuna")
    from distail.search.study import importances

    study = optuna.create_study(direction="maximize")
    distributions = {
        "learning_rate": optuna.distributions.FloatDistribution(0.01, 1.0),
        "adjust": optuna.distributions.CategoricalDistribution([0.0, 1.0]),
    }
    figures = {}
    for number in range(24):
        params = {"learning_rate": 0.01 + 0.04 * number, "adjust": float(number % 3 == 0)}
        figures[number] = 60.0 + 10.0 * params["learning_rate"]
        value = -1.0 if params["adjust"] else figures[number]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    found = importances(study, figures)
    assert found["learning_rate"] > 0.9
    assert importances(study, {}) == {}
