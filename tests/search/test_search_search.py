"""Whole searches on digits: what they leave, that the same again trains nothing, and that the test set has no say."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from distail.compare import draws
from distail.compare.advice import advice
from distail.compare.engines import ENGINES
from distail.config.schema import Experiment
from distail.data import prepare
from distail.data.dataset import LabeledImages
from distail.errors import ConfigError
from distail.report.table import Table
from distail.runner.checks import problems_of
from distail.search import study
from distail.search.progress import SearchLines, SearchTable, trials_table
from distail.search.search import search
from distail.search.show import print_search
from distail.search.slots import FREE
from distail.search.statements import statements
from distail.search.validation import few_to_choose_on
from distail.terminal import PrintableConsole
from helpers.comparison_cases import CONFIG, InProcess, Quiet

pytest.importorskip("optuna")
pytestmark = pytest.mark.integration
TRIALS = 4


class Watching(Quiet):
    def update(self, content):
        self.events.append(("update", len(content["trials"])))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    data = {**CONFIG["data"], "validation": 0.2}
    (folder / "quick.yaml").write_text(yaml.safe_dump({**CONFIG, "data": data}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield folder


def searched(*overrides, reporter=None, **options):
    reporter, compared = reporter or Watching(), Quiet()
    chosen = {"trials": TRIALS, "seeds": "1", **options}
    found = search("quick.yaml", overrides, reporter=reporter, comparison_reporter=compared, **chosen)
    return found, [*reporter.started_runs, *compared.started_runs]


@pytest.fixture(scope="module")
def finished(workplace):
    return searched()[0]


def test_the_folder_holds_what_the_guide_says(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {"search.json", "search.yaml", "study.journal", "best.yaml", "report.html", "runs", "comparison"} <= names
    content = json.loads((finished.folder / "search.json").read_text())
    assert content == json.loads(json.dumps(finished.content))
    assert len(content["trials"]) == TRIALS
    assert content["budget"] == {"minutes": None, "trials": TRIALS, "used_up": True}
    assert content["best"] == content["finalists"][0]["number"]


@pytest.mark.parametrize(("changes", "few"), [({}, True), ({"imbalance_factor": 1}, False), ({"folds": 2}, False)])
def test_few_validation_images_of_rare_classes_are_told(workplace, changes, few):
    folds = {"validation": {"folds": 2, "fold": None}} if "folds" in changes else changes
    raw = yaml.safe_load((workplace / "quick.yaml").read_text())
    base = Experiment.from_mapping({**raw, "data": {**raw["data"], **folds}})
    of_one_run = draws.with_draw(base.model_dump(mode="json"), draws.draws_of(base, [0])[0])
    told = few_to_choose_on(base, prepare.prepare_data(Experiment.from_mapping(of_one_run).data, seed=0))
    assert [sentence.startswith("only ") for sentence in told] == [True] * few


def test_the_choice_is_an_experiment_that_can_be_run(finished):
    best = Experiment.from_yaml(finished.folder / "best.yaml")
    chosen = finished.content["trials"][finished.content["best"]]
    assert best.method == chosen["method"]
    assert problems_of(best) == []
    assert best.output.as_posix() == "runs/quick-best-seed0"


def test_finalists_are_compared_over_other_seeds_and_chosen_by_validation_alone(finished):
    content, comparison = finished.content, finished.comparison.content
    assert comparison["seeds"] == [1]
    assert comparison["methods"][:2] == ["ce", "kd"]
    assert {one["label"] for one in content["finalists"]} == {*comparison["methods"]} - {"ce"}
    assert "ce, adjusted" in comparison["figures"]
    for one in content["finalists"]:
        folders = [content["trials"][one["number"]]["folder"], f"comparison/runs/{one['label']}-seed1"]
        rows = [(finished.folder / each / "metrics.jsonl").read_text().splitlines()[-1] for each in folders]
        figures = [json.loads(row)["validation"]["balanced_accuracy"] for row in rows]
        assert one["figure"] == pytest.approx(sum(figures) / 2)
    # The chosen one, which may be what costs nothing, then the others by their means.
    known = [one["figure"] for one in content["finalists"] if one["within_bound"]]
    assert known[1:] == sorted(known[1:], reverse=True)
    assert known[0] >= known[1] or content["best"] == FREE


def test_what_the_choice_is_worth_stands_with_its_interval(finished):
    label, comparison = finished.content["finalists"][0]["label"], finished.comparison.content
    said = [sentence for sentence in finished.content["statements"] if sentence.startswith("Result on the test set")]
    if label == "kd":
        assert said == []
        return
    found = [
        one
        for one in (*comparison["differences"], *comparison["beyond_adjusting"])
        if (one["method"], one["figure"], one["over"]) == (label, "balanced_accuracy", "test images")
        and one.get("against") != "teacher, adjusted"
    ]
    assert len(found) == 2, "against kd and against what costs nothing"
    for one in found:
        low, high = one["interval"]
        assert f"{one['difference']:+.1f} points against" in said[0]
        assert f"{low:+.1f} to {high:+.1f}" in said[0]


def test_a_choice_by_the_worst_third_is_told_in_it_too(finished):
    content = copy.deepcopy(finished.content)
    chosen = next(one for one in content["finalists"] if one["label"] != "kd")
    content["finalists"] = [chosen, *(one for one in content["finalists"] if one is not chosen)]
    content |= {"metric": "worst_third", "best": chosen["number"]}
    (said,) = [each for each in statements(content, finished.comparison.content) if each.startswith("The worst of")]
    for label in (chosen["label"], "kd"):
        result = json.loads((finished.folder / f"comparison/runs/{label}-seed1/result.json").read_text())
        thirds = result["student"]["test"]["groups"]["thirds"]
        assert f"{label} {min(thirds.values()):.1f}" in said
    assert "ce, adjusted" in said


def test_nothing_is_recommended_by_the_test_set(finished):
    """As a comparison alone would, which says which student to use; a search has chosen by validation."""
    recommended = advice(finished.comparison.content)
    assert recommended
    console = PrintableConsole(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_search(finished, console)
    page = (finished.folder / "comparison" / "report.html").read_text()
    for text in (console.export_text(), page, json.dumps(finished.content)):
        assert not [sentence for sentence in recommended if sentence[:40] in text]


def test_the_page_shows_every_trial_and_the_choice(finished):
    page = (finished.folder / "report.html").read_text()
    for one in finished.content["trials"]:
        assert one["words"] in page
    assert "best.yaml" in page
    assert "<svg" in page
    assert "://" not in page.replace("http://www.w3.org", ""), "it loads nothing"


def test_the_same_again_trains_nothing_and_says_the_same(finished):
    again, started = searched()
    assert started == []
    assert {**again.content, "seconds": 0} == {**finished.content, "seconds": 0}


def test_other_test_labels_change_nothing_in_the_choice(finished, monkeypatch):
    load = prepare.load_source

    def exchanged(options):
        source = load(options)
        labels = (source.test.labels + 1) % len(source.class_names)
        return replace(source, test=LabeledImages(source.test.images, labels))

    monkeypatch.setattr(prepare, "load_source", exchanged)
    other, started = searched(output=finished.folder.parent / "exchanged")
    assert len(started) > TRIALS
    for key in ("trials", "finalists", "best"):
        assert other.content[key] == finished.content[key]
    assert (other.folder / "best.yaml").read_text() == (finished.folder / "best.yaml").read_text()
    figures = [each.comparison.content["figures"]["kd"]["top1"]["mean"] for each in (other, finished)]
    assert figures[0] != figures[1], "else the labels were not exchanged"


class LosesKd(InProcess):
    """Whose process of kd with another seed is killed."""

    def start(self, spec):
        if spec["name"] == "kd-seed1":
            self._done[spec["name"]] = "its process was killed"
        else:
            super().start(spec)


def test_the_choice_is_open_while_a_run_of_the_finalists_has_failed(finished, monkeypatch):
    shutil.rmtree(finished.folder / "comparison" / "runs" / "kd-seed1")
    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "local", LosesKd)
        lost, _ = searched()
    assert lost.comparison.failed == ["runs/kd-seed1"]
    assert lost.content["finalists"] == []
    best = max(lost.content["trials"], key=lambda one: (one["within_bound"], one["figure"]))
    assert lost.content["best"] == best["number"], "the best so far"
    said = " ".join(lost.content["statements"])
    assert "runs/kd-seed1" in said
    assert "better than kd" not in said
    assert "chosen" not in said
    assert not (lost.folder / "best.yaml").exists()
    assert "best.yaml" not in (lost.folder / "report.html").read_text()
    console = PrintableConsole(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_search(lost, console)
    assert "best.yaml" not in console.export_text()
    again, started = searched()
    assert started == ["kd-seed1"]
    assert {**again.content, "seconds": 0} == {**finished.content, "seconds": 0}
    assert (again.folder / "best.yaml").is_file()


def test_another_search_is_refused_in_the_same_folder(finished):
    with pytest.raises(ConfigError, match="metric: 'balanced_accuracy' there, 'worst_third'"):
        searched(metric="worst_third")
    with pytest.raises(ConfigError, match=r"training\.epochs: 1 there, 2"):
        searched("training.epochs=2")


def test_every_problem_is_told_at_once_and_before_any_work(workplace):
    wrong = {"metric": "balanced", "seeds": "0,1", "trials": 0, "parallel": 0, "engine": "rey", "top1_loss": -1.0}
    changes = ["data.validation=0", "teacher=null", "method.beta=0.9"]
    with pytest.raises(ConfigError) as told:
        search("quick.yaml", changes, output=workplace / "never", minutes=-1.0, **wrong)
    said = str(told.value)
    options = ("--metric", "--seeds", "--trials", "--parallel", "--engine", "--top1-loss", "--minutes")
    for part in (*options, "'balanced_accuracy'", "data.validation", "teacher", "'ray'", "method.beta"):
        assert part in said
    assert not (workplace / "never").exists()


def test_without_optuna_the_line_that_installs_it_is_told(workplace, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(study, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'distail\[search\]'"):
        searched(output=workplace / "never")


@pytest.mark.parametrize("kind", [SearchLines, SearchTable])
def test_what_is_shown_of_a_search_has_no_figure_of_the_test(finished, kind):
    console = PrintableConsole(width=100, record=True, file=open(os.devnull, "w"), force_terminal=kind is SearchTable)  # noqa: SIM115
    reporter = kind(console)
    reporter.begin(0, 0, 1)
    reporter.started("trial-000-seed0")
    reporter.progress("trial-000-seed0", {"stage": "student", "steps": 4, "done": 2})
    reporter.ended("trial-000-seed0", "finished", "top-1 12.3, balanced 45.6, 3 s of training")
    reporter.update(finished.content)
    reporter.finish()
    shown = " ".join(console.export_text().split())
    assert "12.3" not in shown
    assert "45.6" not in shown
    assert f"{finished.content['trials'][0]['figure']:.1f}" in shown
    assert isinstance(trials_table(finished.content), Table)


class Told(Exception):
    """That trials could share what the teacher says."""


class Hinted(Watching):
    def message(self, text):
        if "teacher.views=all" in text:
            raise Told


def test_that_all_trials_could_share_what_the_teacher_says_is_told_where_they_do_not(workplace):
    with pytest.raises(Told):
        searched(reporter=Hinted(), output=workplace / "apart")
    # Mixed images are no stored view, so that there is nothing to be told.
    searched("training.mix=cutmix", reporter=Hinted(), trials=1, output=workplace / "mixed")
    found, _ = searched("teacher.views=all", reporter=Hinted(), trials=1, output=workplace / "shared")
    assert not (found.folder / "views").exists()


@pytest.mark.slow
def test_a_search_that_was_interrupted_goes_on_where_it_was(workplace):
    """Interrupted as a user does it, in a process; ended in this one."""
    folder, overrides = workplace / "stopped", ["training.epochs=10", "teacher.training={epochs: 1}"]
    words = ["quick.yaml", "--trials", "2", "--seeds", "1", "--parallel", "1", "--output", str(folder), *overrides]
    with subprocess.Popen([sys.executable, "-m", "distail", "search", *words], cwd=workplace) as process:
        rows, until = folder / "runs" / "trial-000-seed0" / "metrics.jsonl", time.monotonic() + 240
        while not rows.is_file() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    stored = json.loads((folder / "search.json").read_text())
    assert [one["state"] for one in stored["trials"]] == ["under way"]
    assert rows.read_text().count("\n") < 10
    again, started = searched(*overrides, trials=2, output=folder)
    assert started[:2] == ["trial-000-seed0", "trial-001-seed0"], "the teacher is kept, the trial goes on"
    assert [one["state"] for one in again.content["trials"]] == ["finished", "finished"]
    assert again.content["seconds"] > stored["seconds"] > 0
    assert rows.read_text().count("\n") == 10


def test_the_folder_of_a_comparison_is_refused(workplace):
    (workplace / "compared").mkdir()
    (workplace / "compared" / "comparison.yaml").write_text("experiment: {}")
    with pytest.raises(ConfigError, match="comparison"):
        searched(output=workplace / "compared")
