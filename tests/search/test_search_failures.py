"""What a search does about runs that failed or lost a file, with runs that are made up."""

import time

import pytest

from distail.errors import CheckpointError
from distail.search.content import FAILED, FINISHED
from distail.search.finals import finalists_of
from distail.search.progress import trials_table
from distail.search.slots import FREE, STARTS
from distail.search.statements import statements
from helpers.search_cases import CONFIG, MadeUp, made_up_search

pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def equal(experiment):
    return 50.0, 80.0


def fails(*numbers):
    """Of trials that are all equal these fail."""
    names = [f"trial-{number:03d}-" for number in numbers]
    return lambda experiment: None if any(name in str(experiment.output) for name in names) else equal(experiment)


def content_of(trials):
    """As it stands in `search.json`, with all finalists after kd."""
    finalists = [
        {"number": one["number"], "figure": one["figure"], "within_bound": True}
        for one in finalists_of({"trials": trials})
    ]
    kd = {"number": 0, "figure": 50.0, "within_bound": True}
    rest = {"name": "made-up", "metric": "balanced_accuracy", "top1_loss": 5.0, "rule": "the rule", "seconds": 1.0}
    return {**rest, "trials": trials, "best": 0, "finalists": [kd, *finalists]}


def test_a_start_that_failed_says_why_and_is_tried_again_by_the_next_call(tmp_path):
    trials = len(STARTS) + 2
    before = made_up_search(tmp_path, MadeUp(fails(FREE, trials - 1)), trials=trials).content()
    assert [one["number"] for one in before if one["state"] == FAILED] == [FREE, trials - 1]
    assert [one["problem"] for one in before] == ["made to fail" if one["state"] == FAILED else None for one in before]
    assert trials_table(content_of(before)).to_markdown().count("made to fail") == 2
    engine = MadeUp(equal)
    after = made_up_search(tmp_path, engine, trials=trials).content()
    assert engine.started == [f"trial-{FREE:03d}-seed0"], "a later trial was one of many"
    assert (after[FREE]["state"], after[FREE]["problem"]) == (FINISHED, None)
    assert [one for one in after if one["number"] != FREE] == [one for one in before if one["number"] != FREE]
    assert made_up_search(tmp_path, MadeUp(fails(FREE)), trials=trials).content() == after


def test_after_a_start_that_failed_the_other_trials_are_as_without_it(tmp_path):
    """It holds up no variation, and nothing is tried twice when it is there at last."""
    lost = made_up_search(tmp_path, MadeUp(fails(2)), trials=12)
    assert [one["state"] for one in lost.content()].count(FAILED) == 1
    assert lost.content()[len(STARTS)]["parameters"]["batch_size"] != "as given", "the first variation"
    found = made_up_search(tmp_path, MadeUp(equal), trials=20).content()
    assert {one["state"] for one in found} <= {FINISHED, "stopped early"}
    assert len({repr((one["method"], one["recipe"])) for one in found}) == 20


def test_that_the_choice_was_not_held_against_what_costs_nothing_is_told(tmp_path):
    def said(name, score, trials=3):
        found = made_up_search(tmp_path / name, MadeUp(score), trials=trials).content()
        return [one for one in statements(content_of(found)) if f"against trial {FREE} " in one]

    assert ["made to fail" in one for one in said("failed", fails(FREE))] == [True]
    loses = said("loses", lambda one: (60.0, 70.0) if one.method.get("adjust") else (50.0, 80.0))
    assert ["10.0 points" in one for one in loses] == [True]
    assert said("whole", equal) == []
    assert said("alone", equal, trials=1) == []


def test_what_costs_nothing_and_loses_too_much_on_average_is_told_where_it_was_better(tmp_path):
    content = content_of(made_up_search(tmp_path, MadeUp(equal), trials=4).content())
    chosen, free = ({"number": n, "within_bound": True, "top1_loss": 1.0, "figure": 60.0} for n in (3, FREE))
    content |= {"best": 3, "finalists": [chosen, content["finalists"][0], free]}
    assert not any("average over seeds" in one for one in statements(content))
    free |= {"within_bound": False, "top1_loss": 7.5, "figure": 65.0}
    (said,) = [one for one in statements(content) if "average over seeds" in one]
    assert all(words in said for words in (f"Trial {FREE}", "65.0", "7.5", "--top1-loss"))


def test_a_trial_that_cannot_be_run_fails_alone(tmp_path):
    """Its supervised term takes no `label_smoothing`, which the classifier stage lays over every method."""
    stage = {"epochs": 1, "method": {"label_smoothing": 0.1}}
    config = {"training": {**CONFIG["training"], "classifier_stage": stage}}
    found = made_up_search(tmp_path, MadeUp(equal), trials=30, config=config).content()
    failed = [one for one in found if one["state"] == FAILED]
    assert failed
    assert all("label_smoothing" in one["problem"] for one in failed)
    assert sum(one["state"] == FINISHED for one in found) >= len(STARTS)


def test_targets_of_a_classifier_stage_are_of_the_methods_with_a_teacher_alone(tmp_path):
    stage = {"epochs": 1, "method": {"supervised": "balanced_softmax", "targets": ["debias"]}}
    config = {"training": {**CONFIG["training"], "classifier_stage": stage}}
    trials = len(STARTS)
    found = made_up_search(tmp_path, MadeUp(equal), trials=trials, config=config).content()
    assert [one["state"] for one in found] == [FINISHED] * trials


def folded(folds):
    return {"data": {**CONFIG["data"], "validation": {"folds": folds}}}


@pytest.mark.parametrize(("config", "run"), [({}, "trial-000-seed0"), (folded(2), "trial-000-seed0-fold1")])
def test_epochs_that_a_finished_run_has_lost_are_told_with_how_to_get_them_back(tmp_path, config, run):
    made_up_search(tmp_path, MadeUp(equal), trials=2, config=config)
    (tmp_path / "runs" / run / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=rf"{run}.*lacks the last epoch; remove result\.json"):
        made_up_search(tmp_path, MadeUp(equal), trials=3, config=config)
    (tmp_path / "runs" / run / "result.json").unlink()
    engine = MadeUp(equal)
    found = made_up_search(tmp_path, engine, trials=3, config=config).content()
    assert engine.started[0] == run
    assert [one["state"] for one in found] == [FINISHED] * 3
