"""Whole comparisons on digits, run by run in this process: what they leave, and what is kept when they grow."""

import csv
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

import distail
from distail.compare.compare import compare
from distail.compare.engines import ENGINES
from distail.compare.metrics import main_metrics, metrics_of
from distail.compare.tables import CSV_COLUMNS, print_tables
from distail.errors import ConfigError, ModelError, TrainingError
from distail.evaluation.metrics import metric_at
from distail.report.table import escape_markdown
from distail.runner.run_folder import RunFolder
from distail.training.history import History
from distail.training.progress import Silent
from helpers.comparison_cases import CONFIG, InProcess, Quiet

METRICS = metrics_of(multi_label=False)

MAIN_METRICS = main_metrics(multi_label=False)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "quick.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(ENGINES, "local", InProcess)
        yield folder


def compared(*overrides, **options):
    reporter = Quiet()
    return compare("quick.yaml", overrides, reporter=reporter, **options), reporter


@pytest.fixture(scope="module")
def finished(workplace):
    return compared(methods="ce,kd,bkd", seeds="0,1")[0]


def result(comparison, method, seed):
    run = next(run for run in comparison.content["runs"] if (run["method"], run["seed"]) == (method, seed))
    return json.loads((comparison.folder / run["folder"] / "result.json").read_text())


def test_the_folder_holds_what_the_seam_says(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {"comparison.yaml", "comparison.json", "teachers", "runs", "tables", "report.html"} <= names
    assert {path.name for path in (finished.folder / "tables").iterdir()} == {
        *(f"comparison.{suffix}" for suffix in ("md", "csv", "tex")),
        "beyond-adjusting.csv",
    }
    assert json.loads((finished.folder / "comparison.json").read_text()) == json.loads(json.dumps(finished.content))


def test_the_result_has_every_key_of_the_seam(finished):
    content = finished.content
    assert content["schema_version"] == 1
    assert (content["methods"], content["baseline"], content["seeds"]) == (["ce", "kd", "bkd"], "kd", [0, 1])
    assert (content["teachers"], content["grid"], content["name"]) == ("shared", None, "quick")
    assert len(content["class_names"]) == len(content["class_counts"]) == 10
    assert set(content["subset_sha256"]) == {"0", "1"}
    assert len(content["runs"]) == 6
    assert {run["state"] for run in content["runs"] + content["teacher_runs"]} == {"finished"}
    assert [run["supervised"] for run in content["teacher_runs"]] == ["ce", "ce"]
    assert all(run["seconds"] > 0 for run in content["runs"] + content["teacher_runs"]), "the teacher's time is kept"
    assert set(content["figures"]["bkd"]) == set(METRICS)
    for one in content["differences"]:
        statistics = {"difference", "interval", "p", "p_corrected", "over", "inside_noise", "seeds", "verdict"}
        assert set(one) == {"method", "figure", *statistics}
        assert one["seeds"] == 2
    assert len(content["differences"]) == 2 * 2 * len(METRICS)


def test_every_figure_is_that_of_the_runs(finished):
    for method in ("ce", "kd", "bkd"):
        tests = {seed: result(finished, method, seed)["student"]["test"] for seed in (0, 1)}
        for name in METRICS:
            values = {seed: metric_at(test, name) for seed, test in tests.items()}
            figure = finished.content["figures"][method][name]
            assert figure["values"] == values
            assert figure["mean"] == pytest.approx(statistics.mean(values.values()))
            assert figure["deviation"] == pytest.approx(statistics.stdev(values.values()))
            if not figure["deviation"]:  # equal by chance, as coarse figures can be
                assert figure["interval"] is None
                continue
            half = 12.706205 * figure["deviation"] / math.sqrt(2)  # t(0.975, 1)
            assert figure["interval"] == pytest.approx((figure["mean"] - half, figure["mean"] + half), abs=1e-4)


def test_students_of_one_seed_share_data_and_teacher(finished):
    for seed in (0, 1):
        results = [result(finished, method, seed) for method in ("ce", "kd", "bkd")]
        assert len({one["subset_sha256"] for one in results}) == 1
        assert results[0]["teacher"] is None
        teacher = json.loads((finished.folder / f"teachers/ce-seed{seed}/result.json").read_text())
        assert results[1]["teacher"]["test"] == results[2]["teacher"]["test"] == teacher["student"]["test"]
        assert teacher["subset_sha256"] == results[0]["subset_sha256"]
        assert teacher["timing"]["student"]["seconds"] > 0
    assert finished.content["subset_sha256"]["0"] != finished.content["subset_sha256"]["1"]


def test_differences_pair_the_seeds_and_the_test_images(finished):
    by = {(one["method"], one["figure"], one["over"]): one for one in finished.content["differences"]}
    for name in METRICS:
        figures = finished.content["figures"]
        pairs = [figures["bkd"][name]["values"][seed] - figures["kd"][name]["values"][seed] for seed in (0, 1)]
        for over in ("seeds", "test images"):
            one = by["bkd", name, over]
            assert one["difference"] == pytest.approx(statistics.mean(pairs))
            if over == "seeds" and pairs[0] == pytest.approx(pairs[1]):
                assert (one["interval"], one["p"], one["inside_noise"]) == (None, None, True)
                continue
            assert one["interval"][0] - 1e-9 <= one["difference"] <= one["interval"][1] + 1e-9 or over == "test images"
            if name not in MAIN_METRICS:
                assert (one["p_corrected"], one["inside_noise"]) == (None, True)
                continue
            assert one["p"] <= one["p_corrected"] <= 1
            assert one["inside_noise"] == (one["p_corrected"] >= 0.05)


def test_the_statements_say_only_what_the_tables_say(finished):
    shown = (finished.folder / "tables/comparison.md").read_text().split("\n- ")[0]
    sentences = [
        one
        for one in finished.content["statements"]
        if " against " in one and (" points" in one or "over test images it is" in one)
    ]
    assert len(sentences) == 6 + 3  # and of each method what it gives beyond adjusting
    for sentence in sentences:
        for number in re.findall(r"[+-]?\d+\.\d", sentence):
            assert number in shown, (number, sentence)
    assert any("noise" in sentence for sentence in sentences)


def test_the_csv_reads_back(finished):
    with (finished.folder / "tables/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == len(finished.content["figures"]) * len(METRICS)
    for row in rows:
        figure = finished.content["figures"][row["method"]][row["figure"]]
        assert float(row["mean"]) == figure["mean"]
        low, high = figure["interval"] or ("", "")
        assert (row["interval_low"], row["interval_high"]) == (str(low), str(high))
        assert (row["difference"] == "") == (row["method"] not in ("ce", "bkd"))


def test_the_markdown_tables_are_whole(finished):
    text = (finished.folder / "tables/comparison.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3 + 2  # and what goes beyond ce and the teacher, adjusted
    for header, rule, *rows in tables:
        assert {line.count("|") for line in (header, rule, *rows)} == {header.count("|")}
    mean = finished.content["figures"]["kd"]["top1"]
    assert f"| kd | 2 | {mean['mean']:.1f} ± {mean['deviation']:.1f} |" in text


def test_what_is_only_adjusted_has_a_row_and_others_are_held_against_it(finished):
    content = finished.content
    teacher = ["teacher", "teacher, adjusted"]
    assert list(content["figures"]) == [*teacher, "ce", "ce, adjusted", "kd", "kd, adjusted", "bkd"]
    for label, stage, method in (("ce, adjusted", "student", "ce"), ("teacher, adjusted", "teacher", "bkd")):
        for path in METRICS:
            values = {seed: metric_at(result(finished, method, seed)[stage]["test_adjusted"], path) for seed in (0, 1)}
            assert content["figures"][label][path]["values"] == values
        assert content["taus"][label] == {0: 1.0, 1: 1.0}
    rows = {(one["against"], one["method"]) for one in content["beyond_adjusting"]}
    assert {method for against, method in rows if against == "ce, adjusted"} == {"ce", "kd", "kd, adjusted", "bkd"}
    assert ("teacher, adjusted", "ce, adjusted") in rows
    for one in content["beyond_adjusting"]:
        own, other = (content["figures"][label][one["figure"]]["values"] for label in (one["method"], one["against"]))
        assert one["difference"] == pytest.approx(statistics.mean(own[seed] - other[seed] for seed in (0, 1)))
    tested = [one for one in content["beyond_adjusting"] if one["p_corrected"] is not None]
    assert {one["figure"] for one in tested} <= set(MAIN_METRICS)
    images = [one for one in tested if (one["against"], one["over"]) == ("ce, adjusted", "test images")]
    assert len(images) == 4 * 3
    assert all(one["p"] <= one["p_corrected"] <= min(1, 12 * one["p"] + 1e-9) for one in images)
    with (finished.folder / "tables/beyond-adjusting.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {(line["against"], line["method"]) for line in lines} == rows
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "Beyond ce, adjusted" in page


def test_a_comparison_of_before_gets_the_rows_from_its_stored_logits(finished):
    """Results without test_adjusted, made by an earlier version: nothing is trained for the new rows."""
    for path in finished.folder.glob("*/*/result.json"):
        stored = json.loads(path.read_text())
        stored.pop("posterior")
        for stage in ("teacher", "student"):
            if stored[stage] is not None:
                stored[stage].pop("test_adjusted")
        path.write_text(json.dumps(stored))
    again, reporter = compared(methods="ce,kd,bkd", seeds="0,1")
    assert reporter.started_runs == []
    assert again.content == finished.content


def test_the_terminal_shows_methods_figures_and_sentences_in_80_columns(finished):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_tables(finished.content, console)
    shown = console.export_text()
    assert "bkd against kd, Tail third" in " ".join(shown.split())
    assert f"{finished.content['figures']['ce']['top1']['mean']:.1f} ±" in shown


def test_the_same_again_trains_nothing_and_gives_the_same(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.glob("*/*/*.safetensors")}
    again, reporter = compared(methods="ce,kd,bkd", seeds="0,1")
    assert reporter.started_runs == []
    assert again.content == finished.content
    assert before == {path: path.stat().st_mtime_ns for path in finished.folder.glob("*/*/*.safetensors")}


def test_methods_and_seeds_may_be_added_and_the_baseline_changed(finished):
    more, reporter = compared(methods="ce,kd,krdistill", seeds="0,1", baseline="ce")
    assert reporter.started_runs == ["krdistill-seed0", "krdistill-seed1"]
    assert more.content["methods"] == ["ce", "kd", "krdistill"]
    assert any("reconstruction" in sentence for sentence in more.content["statements"])
    assert not any("reconstruction" in sentence for sentence in finished.content["statements"])
    assert more.content["figures"]["kd"] == finished.content["figures"]["kd"]
    assert {one["method"] for one in more.content["differences"]} == {"kd", "krdistill"}


def test_one_seed_has_no_deviation_and_the_test_images_still_speak(finished):
    one, _ = compared(methods="ce,kd", seeds="1")
    assert {figure["deviation"] for figure in one.content["figures"]["ce"].values()} == {None}
    by = {(each["figure"], each["over"]): each for each in one.content["differences"]}
    assert by["top1", "seeds"]["p"] is None
    assert by["top1", "seeds"]["inside_noise"] is True
    low, high = by["top1", "test images"]["interval"]
    assert low <= by["top1", "test images"]["difference"] <= high
    assert any("one seed" in sentence for sentence in one.content["statements"])


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        (["training.epochs=2"], {}, "training.epochs: 1"),
        (["data.imbalance_factor=10"], {}, "data.imbalance_factor: 20.0"),
        ([], {"teachers": "own", "output": "comparisons/quick"}, "teachers: 'shared'"),
        ([], {"methods": "kd: {name: kd, temperature: 3}"}, "method.temperature: None"),
    ],
)
def test_a_folder_of_another_comparison_is_refused_with_every_difference(finished, overrides, options, said):
    if "output" in options:
        options = {**options, "output": finished.folder}
    with pytest.raises(ConfigError) as caught:
        compared(*overrides, **{"methods": "ce,kd", "seeds": "0", **options})
    assert said in str(caught.value)
    assert str(finished.folder) in str(caught.value)


@pytest.mark.parametrize(
    "override", ["trainer.checkpoint_every_steps=7", "data.workers=1", "data.memory_limit_mb=512", "data.stream=false"]
)
def test_what_a_run_may_change_between_starts_makes_no_other_comparison(finished, override):
    again, reporter = compared(override, methods="ce,kd", seeds="0")
    assert again.failed == []
    assert reporter.started_runs == []


def test_a_folder_that_still_names_workers_is_the_same_comparison(finished):
    path = finished.folder / "comparison.yaml"
    stored = yaml.safe_load(path.read_text())
    stored["experiment"]["data"] |= {"workers": 5, "stream": True, "memory_limit_mb": 9}
    path.write_text(yaml.safe_dump(stored))
    assert compared(methods="ce,kd", seeds="0")[0].failed == []


def test_two_comparisons_cannot_share_a_folder(finished):
    with RunFolder(finished.folder).locked(), pytest.raises(ConfigError, match=str(finished.folder)):
        compared(methods="ce,kd", seeds="0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "rya"}, "'ray'"),
        ({"parallel": 0}, "--parallel: 0"),
        ({"teachers": "mine"}, "'mine'"),
        ({"methods": "bdk", "seeds": "x"}, "--seeds"),
        ({"baseline": "dkd"}, "--baseline: 'dkd'"),
        ({"grid": ["data.name=csv"]}, "--grid"),
    ],
)
def test_words_that_mean_nothing_start_nothing(workplace, options, said):
    with pytest.raises(ConfigError) as caught:
        compared(**{"methods": "ce", "seeds": "0", "output": workplace / "nothing", **options})
    assert said in str(caught.value)
    assert not (workplace / "nothing").exists()


@pytest.mark.parametrize("override", ["method.label_smoothing=0.3", "method={name: kd, label_smoothing: 0.3}"])
def test_a_setting_of_a_method_that_no_run_would_have_is_refused(workplace, override):
    with pytest.raises(ConfigError, match=r"method.*label_smoothing.*--methods"):
        compared(override, methods="ce", seeds="0", output=workplace / "nothing")
    assert not (workplace / "nothing").exists()


def test_overrides_that_every_run_has_otherwise_are_told_and_a_folder_of_the_users_stays(workplace):
    folder = workplace / "notes"
    (folder / "views").mkdir(parents=True)
    (folder / "views" / "notes.txt").write_text("mine")
    words = ("seed=7", "output=elsewhere", "method=bkd", "data.validation={folds: 2, fold: 0}", "training.epochs=1")
    _, reporter = compared(*words, methods="ce", seeds="0", output=folder)
    told = [event[1] for event in reporter.events if event[0] == "message"]
    for word, instead in zip(words, ("--seeds", "--output", "--methods", "every fold"), strict=False):
        key = "data.validation.fold" if "fold" in instead else word
        assert len([one for one in told if one.startswith(key) and instead in one]) == 1
    assert (folder / "views" / "notes.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def with_grid(workplace):
    return compared(methods="ce,kd", seeds="0,1", grid=["method.temperature=1,4"], output=workplace / "grid")[0]


def test_a_grid_chooses_by_validation_and_reports_the_test_of_the_chosen_alone(with_grid):
    content = with_grid.content
    points = {point["label"]: point for point in content["grid"]["points"]}
    assert set(points) == {"ce", "kd temperature=1", "kd temperature=4"}
    for label in ("kd temperature=1", "kd temperature=4"):
        for seed in (0, 1):
            folder = with_grid.folder / "runs" / f"{label.replace(' ', '+').replace('=', '-')}-seed{seed}"
            last = [row for row in History(folder).rows() if row["stage"] == "student"][-1]
            assert points[label]["validation"][str(seed)] == last["validation"]["balanced_accuracy"]
    best = max(("kd temperature=1", "kd temperature=4"), key=lambda label: points[label]["mean"])
    other = next(label for label in points if label not in (best, "ce"))
    assert points[best]["chosen"]
    assert not points[other]["chosen"]
    assert content["methods"] == ["ce", best]
    assert content["baseline"] == best
    rows = {label.removesuffix(", adjusted") for label in content["figures"]}
    assert rows == {"teacher", "ce", best}, "no test metric of another point"
    assert other not in {run["method"] for run in content["runs"]}
    assert any(sentence.startswith(f"{best} was chosen among 2 points") for sentence in content["statements"])
    text = (with_grid.folder / "tables/comparison.md").read_text()
    assert f"| {other} | 2 | {points[other]['mean']:.1f} |  |" in text
    assert text.count(other) == 1


def test_a_run_that_fails_is_told_and_the_others_go_on(workplace):
    comparison, _ = compared(
        methods="ce,kd,wild: {name: kd, distillation_weight: 1.0e+38}",
        seeds="0",
        output=workplace / "failing",
    )
    assert comparison.failed == ["runs/wild-seed0"]
    content = comparison.content
    run = next(run for run in content["runs"] if run["method"] == "wild")
    assert run["state"] == "failed"
    assert "not finite" in run["problem"]
    assert content["figures"]["wild"]["top1"] == {"values": {}, "mean": None, "deviation": None, "interval": None}
    assert content["figures"]["kd"]["top1"]["mean"] is not None
    assert any("wild, seed 0, is failed" in sentence for sentence in content["statements"])
    assert "| wild | 0 | failed |" in (comparison.folder / "tables/comparison.md").read_text()
    assert "not finite" in (comparison.folder / "logs/wild-seed0.log").read_text()
    with pytest.raises(TrainingError, match="runs/wild-seed0"):
        comparison.raise_if_failed()
    assert (comparison.folder / "report.html").is_file()


def test_a_grid_point_that_fails_is_told_wherever_the_grid_is(workplace):
    comparison, _ = compared(
        methods="ce,kd",
        seeds="0",
        grid=["method.distillation_weight=1.0e+38,1"],
        output=workplace / "failing-grid",
    )
    content = comparison.content
    by = {point["label"]: point for point in content["grid"]["points"]}
    wild, sound = by["kd distillation_weight=1e+38"], by["kd distillation_weight=1"]
    (run,) = wild["runs"]
    assert set(run) == {"seed", "folder", "state", "problem", "seconds"}
    assert (run["seed"], run["state"], wild["mean"], wild["chosen"]) == (0, "failed", None, False)
    assert "not finite" in run["problem"]
    assert [(one["state"], one["problem"]) for one in sound["runs"]] == [("finished", None)]
    assert sound["chosen"]
    assert {one["state"] for one in content["runs"]} == {"finished"}
    assert comparison.failed == [run["folder"]]
    assert (comparison.folder / run["folder"] / "config.yaml").is_file()
    assert any(f"{wild['label']}, seed 0, is failed" in sentence for sentence in content["statements"])
    assert (
        f"| {escape_markdown(wild['label'])} | 0 of 1 | failed |  |"
        in (comparison.folder / "tables/comparison.md").read_text()
    )
    with pytest.raises(TrainingError, match=re.escape(run["folder"])):
        comparison.raise_if_failed()


def test_a_student_that_cannot_learn_does_not_wait_for_its_teacher(workplace):
    (workplace / "stubborn.py").write_text(
        "from torch import nn\n"
        "def build(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes)).requires_grad_(False)\n"
    )
    with pytest.raises(ModelError, match="student: all its parameters are frozen"):
        compared("student=stubborn:build", "name=stubborn", methods="kd,krdistill", seeds="0")
    assert not list(workplace.glob("runs/stubborn*/teachers/*"))


def test_a_comparison_from_before_a_key_came_into_being_goes_on(finished):
    path = finished.folder / "comparison.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["experiment"]["data"]["class_order"]
    del stored["experiment"]["training"]["layer_decay"]
    del stored["experiment"]["teacher"]["rest"]
    path.write_text(yaml.safe_dump(stored))
    assert compared(methods="ce,kd,bkd", seeds="0,1")[1].started_runs == []


@pytest.fixture
def photos(workplace):
    """Twelve training and four test images of two classes, as a data set of which a comparison has trained `ce`."""
    for part, images in (("train", 6), ("test", 2)):
        for kind, levels in (("cat", (0, 128)), ("dog", (128, 256))):
            (workplace / "photos" / part / kind).mkdir(parents=True)
            for number in range(images):
                pixels = np.random.default_rng([number, *part.encode()]).integers(*levels, (8, 8), np.uint8)
                Image.fromarray(pixels).save(workplace / "photos" / part / kind / f"{number}.png")
    yield workplace / "photos"
    shutil.rmtree(workplace / "photos", ignore_errors=True)


def test_data_exchanged_between_two_calls_is_refused_by_name(photos):
    data = ["data={name: folder, root: photos}", "name=photos", "training.batch_size=4"]
    first, _ = compared(*data, methods="ce", seeds="0")
    for path in photos.rglob("*.png"):  # copied, and not changed
        path.touch()
    assert compared(*data, methods="ce", seeds="0")[1].started_runs == []
    (photos / "test/cat/0.png").rename(photos / "test/dog/9.png")
    with pytest.raises(ConfigError, match=r"runs/ce-seed0: other test images or labels \(") as refused:
        compared(*data, methods="ce,kd", seeds="0,1")
    assert len(refused.value.problems) == 1
    assert "training images" not in str(refused.value)
    assert {path.stem for path in first.folder.glob("*/*-seed*")} == {"ce-seed0"}, "nothing else was begun"
    (photos / "test/dog/9.png").rename(photos / "test/cat/0.png")
    assert "kd-seed0" in compared(*data, methods="ce,kd", seeds="0")[1].started_runs
    shutil.rmtree(photos)  # gone altogether is no fault of what is finished
    assert compared(*data, methods="ce,kd", seeds="0")[1].started_runs == []


def test_the_teacher_is_asked_once_for_all_its_students(workplace, monkeypatch):
    seen = []

    class Watched(InProcess):
        def start(self, spec):
            super().start(spec)
            files = Path("shared/views").glob("*")
            seen.append((spec["name"], [(path.name, path.stat().st_mtime_ns) for path in files]))

    monkeypatch.setitem(ENGINES, "local", Watched)
    together, _ = compared("teacher.views=all", methods="ce,kd,bkd", seeds="0", output=Path("shared"))
    assert [each for each in together.content["runs"] if each["state"] != "finished"] == []
    after = dict(seen)
    assert len(after["kd-seed0"]) == 1
    assert after["bkd-seed0"] == after["kd-seed0"]
    assert not Path("shared/views").exists()
    content = yaml.safe_load((together.folder / "runs" / "bkd-seed0" / "config.yaml").read_text())
    alone = distail.run({**content, "output": "alone", "trainer": CONFIG["trainer"]}, reporter=Silent())
    student = "student.safetensors"
    assert (alone.folder / student).read_bytes() == (together.folder / "runs" / "bkd-seed0" / student).read_bytes()
