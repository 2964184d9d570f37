"""What becomes of trials, with runs that are made up: halving, the bound, failures, kills and budgets."""

import json
import time

import pytest

from distail.config.schema import Experiment
from distail.errors import ConfigError, TrainingError
from distail.search.content import FAILED, FINISHED, STOPPED_EARLY, ranked
from distail.search.finals import choose, finalists_of
from distail.search.goal import Goal
from distail.search.slots import FREE, STARTS
from distail.search.space import with_recipe
from helpers.search_cases import CONFIG, MadeUp, made_up_search, space_for

pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def by_temperature(experiment):
    """The lower the temperature, the better."""
    return 60.0 - experiment.method.get("temperature", 0.0), 80.0


def test_the_starts_go_to_their_end_and_of_others_only_the_best_third(tmp_path):
    found = made_up_search(tmp_path, MadeUp(by_temperature), trials=30).content()
    assert len(found) == 30
    assert [one["state"] for one in found[: len(STARTS)]] == [FINISHED] * len(STARTS)
    stopped = [one for one in found if one["state"] == STOPPED_EARLY]
    assert stopped, "thirty trials of one formula cannot all be among the best third"
    for one in stopped:
        assert one["epochs"] == 6, "of 9 epochs: they are looked at after two thirds"
        before = [other for other in found if other["number"] < one["number"] and other["epochs"] >= one["epochs"]]
        assert sum(other["figure"] > one["figure"] for other in before) >= max(1, (len(before) + 1) // 3)
    assert {one["epochs"] for one in found if one["state"] == FINISHED} == {9}


def test_the_first_trial_is_kd_and_the_teacher_is_trained_once(tmp_path):
    engine = MadeUp(by_temperature)
    found = made_up_search(tmp_path, engine, trials=6).content()
    assert engine.started[:2] == ["teacher-ce-seed0", "trial-000-seed0"]
    assert engine.started.count("teacher-ce-seed0") == 1
    kd = {"supervised": "ce", "divergence": "kl", "temperature": 4.0}
    assert found[0]["method"] == {**kd, "supervised_weight": 0.1, "distillation_weight": 0.9}
    assert (found[0]["recipe"], found[0]["top1_loss"]) == ({}, 0.0)


def test_a_trial_that_loses_too_much_top1_is_never_the_best(tmp_path):
    def score(experiment):
        balanced = experiment.method.get("supervised") == "balanced_softmax"
        return (70.0, 77.0) if balanced else (50.0, 80.0)

    strict = made_up_search(tmp_path / "strict", MadeUp(score), goal=Goal("balanced_accuracy", 2.0)).content()
    loose = made_up_search(tmp_path / "loose", MadeUp(score), goal=Goal("balanced_accuracy", 3.0)).content()
    assert ranked(strict)[0]["figure"] == 50.0
    assert ranked(loose)[0]["figure"] == 70.0
    assert {one["within_bound"] for one in strict if one["figure"] == 70.0} == {False}
    assert all(one["top1_loss"] == 3.0 for one in strict if one["figure"] == 70.0)


def test_the_worst_third_is_another_figure(tmp_path):
    found = made_up_search(tmp_path, MadeUp(by_temperature), trials=2, goal=Goal("worst_third", 5.0)).content()
    assert found[0]["figure"] == 60.0 - 4.0 - 10.0


def test_a_trial_that_fails_stops_no_other(tmp_path):
    def score(experiment):
        return None if experiment.method.get("targets") else (50.0, 80.0)

    found = made_up_search(tmp_path, MadeUp(score), trials=len(STARTS)).content()
    assert [one["state"] for one in found].count(FAILED) == sum(
        start.get("targets", "none") != "none" for start in STARTS
    )
    assert found[0]["state"] == FINISHED


def test_without_kd_there_is_no_search(tmp_path):
    def score(experiment):
        return (50.0, 80.0) if experiment.role == "teacher" else None

    with pytest.raises(TrainingError, match="made to fail"):
        made_up_search(tmp_path, MadeUp(score))


def test_no_trial_is_tried_twice(tmp_path):
    """Of one formula a plain term without a teacher is the best, which has few parameters to vary."""

    def score(experiment):
        return (50.0 if experiment.method.get("divergence") else 70.0), 80.0

    found = made_up_search(tmp_path, MadeUp(score), trials=40).content()
    assert len(found) == 40
    assert len({repr((one["method"], one["recipe"])) for one in found}) == 40


@pytest.mark.parametrize("starts", [2, 7])
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path, starts):
    whole = made_up_search(tmp_path / "whole", MadeUp(by_temperature)).content()
    with pytest.raises(KeyboardInterrupt):
        made_up_search(tmp_path / "killed", MadeUp(by_temperature, killed=starts))
    journal = tmp_path / "killed" / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "worker')  # a line cut off
    journal.with_name("study.journal.lock").symlink_to("nowhere")
    engine = MadeUp(by_temperature)
    again = made_up_search(tmp_path / "killed", engine).content()
    assert again == whole
    assert not {"teacher-ce-seed0"} & set(engine.started), "what was finished is kept"


def test_more_trials_later_go_on_from_those_before(tmp_path):
    before = made_up_search(tmp_path, MadeUp(by_temperature), trials=7).content()
    engine = MadeUp(by_temperature)
    after = made_up_search(tmp_path, engine, trials=9).content()
    assert after[:7] == before
    assert engine.started == ["trial-007-seed0", "trial-008-seed0"]


def test_runs_that_are_finished_before_their_trials_are_told_do_not_end_the_search(tmp_path):
    made_up_search(tmp_path, MadeUp(by_temperature), trials=3)
    (tmp_path / "study.journal").unlink()
    engine = MadeUp(by_temperature)
    found = made_up_search(tmp_path, engine, trials=5).content()
    assert [one["state"] for one in found] == [FINISHED] * 5
    assert engine.started == ["trial-003-seed0", "trial-004-seed0"]


def test_a_budget_of_no_time_still_has_kd(tmp_path):
    found = made_up_search(tmp_path, MadeUp(by_temperature), trials=None, minutes=1e-6).content()
    assert [one["state"] for one in found] == [FINISHED]


def test_an_experiment_without_switches_is_searched_for_its_repair(tmp_path):
    teacher = {**CONFIG["teacher"], "views": 2}  # the teacher answers for images that are not mixed
    found = made_up_search(tmp_path, MadeUp(by_temperature), trials=2, config={"teacher": teacher}).content()
    assert "mix" not in found[0]["parameters"]
    assert "augment" in found[0]["parameters"]


def test_after_the_starts_come_switches_without_a_teacher_then_methods_and_then_switches_of_the_best(
    tmp_path,
):
    def score(experiment):
        training, method = experiment.training, experiment.method
        gain = 5 * (training.batch_size == 32) + 2 * (training.learning_rate == 0.025) + 3 * ("targets" in method)
        if "targets" in method and training.mix:
            gain += 1  # which only a student with a teacher gains by
        return 50.0 + gain - method.get("temperature", 0.0) / 100, 80.0

    space = space_for(Experiment.from_mapping(CONFIG))
    switches = [(name, option) for name, options in space.switches.items() for option in options]
    assert {"batch_size", "learning_rate", "augment", "mix"} <= {name for name, _ in switches}
    starts = len(STARTS)
    found = made_up_search(tmp_path, MadeUp(score), trials=2 * starts + 2 * len(switches) - 3).content()
    best = found[FREE]
    assert max(found[:starts], key=lambda one: one["figure"])["method"].get("targets"), "another start is better"
    for trial, (name, option) in zip(found[starts:], switches, strict=False):
        assert trial["parameters"] == {**best["parameters"], name: option}
        assert trial["state"] == FINISHED
        if trial["figure"] > best["figure"]:
            best = trial
    assert best["recipe"] == {"training.batch_size": 32, "training.learning_rate": 0.025}
    methods, rest = found[starts + len(switches) :][: starts - 1], found[2 * starts + len(switches) - 1 :]
    best_first = sorted(found[:starts], key=lambda one: -one["figure"])
    assert [one["method"] for one in methods] == [one["method"] for one in best_first if one["number"] != FREE]
    assert all(one["recipe"] == best["recipe"] for one in methods)
    best = max([one for one in found[: -len(rest)] if one["state"] == FINISHED], key=lambda one: one["figure"])
    assert best in methods
    left = [(name, option) for name, option in switches if best["parameters"][name] != option]
    for trial, (name, option) in zip(rest, left, strict=True):
        assert trial["parameters"] == {**best["parameters"], name: option}
        if trial["state"] == FINISHED and trial["figure"] > best["figure"]:
            best = trial
    assert best["recipe"].keys() == {"training.batch_size", "training.learning_rate", "training.mix"}


class Slow(MadeUp):
    """One of its runs takes so many looks."""

    def __init__(self, name, looks):
        super().__init__(by_temperature, parallel=2)
        self.name, self.looks = name, looks

    def ended(self):
        found = super().ended()
        if self.name in found and self.looks > 0:
            self.looks -= 1
            self._done[self.name] = found.pop(self.name)
        return found


def test_while_the_teacher_trains_batch_sizes_are_tried_without_it(tmp_path):
    engine = Slow("teacher-ce-seed0", looks=12)
    found = made_up_search(tmp_path, engine, trials=16).content()
    sizes, starts = ["64", "32"], len(STARTS)
    early = [starts + place for place in range(len(sizes))]
    order = [f"trial-{number:03d}-seed0" for number in (1, 2, *early)]
    assert engine.started[: len(order) + 1] == ["teacher-ce-seed0", *order], "then it waits: the rest builds on these"
    assert engine.started.index("trial-000-seed0") == len(order) + 1
    by_number = {one["number"]: one for one in found}
    assert [by_number[number]["parameters"]["batch_size"] for number in early] == sizes
    assert all(by_number[number]["method"] == by_number[FREE]["method"] for number in early)
    assert [one["state"] for one in found[:starts]] == [FINISHED] * starts
    again = made_up_search(tmp_path, MadeUp(by_temperature, parallel=2), trials=18).content()
    assert again[:16] == found
    assert len({repr((one["method"], one["recipe"])) for one in again}) == 18


def test_switches_without_a_teacher_do_not_wait_for_the_last_start(tmp_path):
    last = len(STARTS) - 1
    found = made_up_search(tmp_path, Slow(f"trial-{last:03d}-seed0", looks=12), trials=len(STARTS) + 2).content()
    changed = [one["parameters"] | {"batch_size": "as given"} for one in found[len(STARTS) :]]
    assert changed == [found[FREE]["parameters"]] * 2
    assert [one["parameters"]["batch_size"] for one in found[len(STARTS) :]] == ["64", "32"]


def test_what_costs_nothing_is_tried_again_with_the_best_recipe_and_chosen_where_only_that_is_better(tmp_path):
    def score(experiment):
        better = "targets" in experiment.method and experiment.method["temperature"] < 3
        return 50.0 + 10 * (experiment.training.batch_size == 32) + 0.5 * better, 80.0

    search = made_up_search(tmp_path, MadeUp(score), trials=26)
    content = {"trials": search.content()}
    given, again, *best = finalists_of(content)
    assert (given["number"], given["recipe"]) == (FREE, {})
    assert (again["method"], again["recipe"]) == (given["method"], {"training.batch_size": 32})
    assert len(best) == 3
    engine = MadeUp(score)
    for one in (None, given, again, *best):  # the comparison's runs over other seeds, the same figures made up
        label, method, recipe = (
            ("kd", {"name": "kd"}, {}) if one is None else (f"trial-{one['number']}", one["method"], one["recipe"])
        )
        for seed in (1, 2):
            raw = {**with_recipe(search.runs.base, recipe), "method": method, "seed": seed}
            output = tmp_path / "comparison" / "runs" / f"{label}-seed{seed}"
            experiment = Experiment.from_mapping({**raw, "output": str(output)})
            status = str(tmp_path / "status.json")
            engine.start({"name": output.name, "experiment": experiment.model_dump(mode="json"), "status": status})
    found = choose(search.runs, search.goal, content, (1, 2), tmp_path / "comparison")
    assert found[0]["number"] == best[0]["number"], "half a point over every seed is beyond its error"
    for label in (f"trial-{one['number']}-seed2" for one in best):
        metrics = tmp_path / "comparison" / "runs" / label / "metrics.jsonl"
        metrics.write_text(metrics.read_text().replace("60.5", "59.6"))
    found = choose(search.runs, search.goal, content, (1, 2), tmp_path / "comparison")
    assert found[0]["number"] == again["number"]


def test_what_is_asked_once_for_all_trials_is_a_cost_of_the_teacher(tmp_path):
    costs = {}
    for views in (0, "all"):
        config = {"teacher": {**CONFIG["teacher"], "views": views}}
        for _ in range(2):  # the second start knows of finished runs what they took to train: a second each
            found = made_up_search(tmp_path / str(views), MadeUp(by_temperature), trials=2, config=config)
        costs[views] = found.cost
    assert (costs[0].teacher, costs[0].student) == (1.0, 1.0)
    asked = 1.0 - 9 * 0.0625
    assert (costs["all"].teacher, costs["all"].student) == (1.0 + asked, 1.0 - asked / 2), "the mean of both trials"


def test_the_time_kept_for_the_comparison_grows_with_what_trials_take(tmp_path):
    """Smaller batches and augmentation cost more than kd with the given recipe."""
    before = made_up_search(tmp_path, MadeUp(by_temperature), trials=3).cost
    slow = tmp_path / "runs" / "trial-002-seed0" / "result.json"
    result = json.loads(slow.read_text())
    result["timing"]["student"]["seconds"] = 7.0
    slow.write_text(json.dumps(result))
    after = made_up_search(tmp_path, MadeUp(by_temperature), trials=3).cost
    assert after.student == 3.0
    assert after.comparison(seeds=2, methods=4, parallel=1) == 2 * (1.0 + 4 * 3.0)
    assert before.student < after.student


def folded(folds):
    return {"data": {**CONFIG["data"], "validation": {"folds": folds}}}


def test_a_trial_has_a_run_for_each_fold_and_is_judged_on_all_examples_together(tmp_path):
    engine = MadeUp(lambda experiment: (50.0, 80.0), parallel=2)
    (kd,) = made_up_search(tmp_path, engine, trials=1, config=folded(3)).content()
    assert engine.started == [
        *(f"teacher-ce-seed0-fold{fold}" for fold in range(3)),
        *(f"trial-000-seed0-fold{fold}" for fold in range(3)),
    ]
    assert (kd["state"], kd["epochs"]) == (FINISHED, 9)
    assert kd["figure"] == pytest.approx((100 * 50 + 200 * 60 + 300 * 70) / 600), "not 60, the mean over folds"


def test_a_fold_that_fails_ends_its_trial_and_a_search_of_folds_goes_on_after_a_kill(tmp_path):
    def score(experiment):
        broken = experiment.data.validation.fold == 1 and "trial-002" in str(experiment.output)
        return None if broken else by_temperature(experiment)

    whole = made_up_search(tmp_path / "whole", MadeUp(score), trials=5, config=folded(2)).content()
    assert [one["state"] for one in whole] == [FINISHED, FINISHED, FAILED, FINISHED, FINISHED]
    with pytest.raises(KeyboardInterrupt):
        made_up_search(tmp_path / "killed", MadeUp(score, killed=5), trials=5, config=folded(2))
    engine = MadeUp(score)
    assert made_up_search(tmp_path / "killed", engine, trials=5, config=folded(2)).content() == whole
    assert "trial-000-seed0-fold0" not in engine.started


def test_minutes_in_which_nothing_but_kd_can_be_tried_are_told_with_how_many_it_takes(tmp_path):
    few = made_up_search(tmp_path, MadeUp(by_temperature), trials=None, minutes=1e-6)
    with pytest.raises(ConfigError, match=r"too few.*Expected at least \d+.*is kept"):
        few.check_minutes()
    more = made_up_search(tmp_path, MadeUp(by_temperature), trials=3, minutes=60)
    more.check_minutes()
    assert len(more.content()) == 3
