"""A search on examples of several classes: its own slots, by mean average precision, without top-1 or adjusting."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from distail.compare.engines import ENGINES
from distail.config.schema import Experiment
from distail.data.prepare import prepare_data
from distail.errors import ConfigError
from distail.methods.presets import read_composition
from distail.runner.checks import problems_of
from distail.runner.run_folder import RunFolder
from distail.search.goal import Goal
from distail.search.search import search
from distail.search.space import proposal_of, with_recipe
from distail.search.validation import few_to_choose_on, validation_by_epoch
from helpers.comparison_cases import InProcess, Quiet
from helpers.multi_label_data import experiment, save_arrays
from helpers.search_cases import AtRandom, space_for

pytest.importorskip("optuna")
pytestmark = pytest.mark.integration


class Watching(Quiet):
    def update(self, content): ...


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    config = {**experiment(folder, save_arrays(folder)), "output": None}
    (folder / "several.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield folder


@pytest.fixture(scope="module")
def finished(workplace):
    return search(
        "several.yaml", ["training.epochs=1"], trials=5, seeds="1", reporter=Watching(), comparison_reporter=Quiet()
    )


def test_whatever_is_chosen_can_be_run_and_chosen_again(workplace):
    base = Experiment.from_yaml(workplace / "several.yaml")
    space = space_for(base)
    for seed in range(24):
        dice = AtRandom(seed)
        proposal = space.propose(dice)
        chosen = Experiment.from_mapping({**with_recipe(base, proposal.recipe), "method": proposal.method})
        assert problems_of(chosen) == []
        assert proposal_of(space, dice.asked) == proposal


def test_the_first_start_is_the_counterpart_of_kd(workplace):
    space = space_for(Experiment.from_yaml(workplace / "several.yaml"))
    method = {**proposal_of(space, space.start(0)).method, "labels": "multi_label"}
    kd, preset = read_composition(method), read_composition({"name": "kd", "labels": "multi_label"})
    assert kd.entries == preset.entries
    assert {**preset.options, "name": None} == {**kd.options, "name": None}


def test_trials_are_chosen_by_mean_average_precision(finished):
    content = json.loads((finished.folder / "search.json").read_text())
    assert (content["metric"], content["top1_loss"]) == ("mean_average_precision", None)
    supervised = {str(one["parameters"]["supervised"]) for one in content["trials"]}
    assert supervised == {"bce", "asymmetric", "distribution_balanced"}
    for one in content["trials"]:
        row = json.loads((finished.folder / one["folder"] / "metrics.jsonl").read_text().splitlines()[-1])
        assert one["figure"] == row["validation"]["mean_average_precision"]
        assert (one["top1"], one["within_bound"]) == (None, True)
    known = [one["figure"] for one in content["finalists"]]
    assert known[1:] == sorted(known[1:], reverse=True)
    assert not any("adjusted" in label for label in finished.comparison.content["figures"])


def test_what_came_out_is_said_and_can_be_run(finished):
    said, page = " ".join(finished.content["statements"]), (finished.folder / "report.html").read_text()
    assert "mAP" in said
    for text in (said, page):
        assert "top-1" not in text.lower()
    best = Experiment.from_yaml(finished.folder / "best.yaml")
    assert best.method == finished.content["trials"][finished.content["best"]]["method"]
    assert best.data.targets == "multi_label"
    assert problems_of(best) == []


@pytest.mark.parametrize(
    ("options", "culprits"),
    [
        ({"metric": "balanced_accuracy"}, ("--metric", "'balanced_accuracy'", "mean_average_precision, worst_third")),
        ({"metric": "mean_averge_precision"}, ("--metric", "'mean_average_precision'")),
        ({"top1_loss": 2.0}, ("--top1-loss", "multi_label")),
    ],
    ids=str,
)
def test_what_has_no_meaning_here_is_refused(workplace, options, culprits):
    with pytest.raises(ConfigError) as told:
        search("several.yaml", output=workplace / "never", trials=1, **options)
    assert all(culprit in str(told.value) for culprit in culprits)
    assert not (workplace / "never").exists()


@pytest.mark.parametrize(("rows", "few"), [(400, True), (4000, False)])
def test_few_positives_of_rare_classes_to_choose_on_are_told(tmp_path, rows, few):
    base = Experiment.from_mapping(experiment(tmp_path, save_arrays(tmp_path, rows)))
    data = prepare_data(base.data, seed=0)
    positives = data.validation.labels[:, [4, 5]].sum()  # the rarest two of six classes
    assert (positives < 30) == few
    assert [f"only {positives} " in sentence for sentence in few_to_choose_on(base, data)] == [True] * few


def test_folds_are_means_while_they_train(finished, tmp_path):
    folders = []
    for one in finished.content["trials"][:2]:
        folders.append(tmp_path / one["folder"])  # as while it trains: without a result
        folders[-1].mkdir(parents=True)
        shutil.copy(finished.folder / one["folder"] / "metrics.jsonl", folders[-1])
    figures = [one["figure"] for one in finished.content["trials"][:2]]
    means = validation_by_epoch([RunFolder(folder) for folder in folders], epochs=2)
    goal = Goal("mean_average_precision", None)
    assert goal.figure(means[1]) == pytest.approx(sum(figures) / 2)
    assert goal.value(means[1], means[1]) == goal.figure(means[1])
