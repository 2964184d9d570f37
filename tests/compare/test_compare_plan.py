"""Which runs a comparison takes, and everything that is refused before one of them starts."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from distail.compare.arguments import read_grid, read_methods, read_seeds
from distail.compare.compare import stored_problems
from distail.compare.draws import Draw
from distail.compare.plan import ComparisonConfig, make_plan
from distail.config.schema import Experiment
from distail.files import write_json, write_text
from distail.models import create_model
from helpers.comparison_cases import CONFIG


def config_of(methods="ce,kd,bkd", seeds="0,1", grid=(), teachers="shared", baseline=None, output=None, **changes):
    base = Experiment.from_mapping({**CONFIG, **changes})
    return ComparisonConfig(base, read_methods(methods), read_seeds(seeds), teachers, baseline, read_grid(grid), output)


def plan_of(*args, **kwargs):
    plan, problems = make_plan(config_of(*args, **kwargs))
    assert problems == []
    return plan


def problems_of(*args, **kwargs):
    return make_plan(config_of(*args, **kwargs))[1]


def test_one_teacher_a_seed_for_all_that_listen_to_one():
    plan = plan_of()
    assert [job.name for job in plan.jobs] == [
        "teacher-ce-seed0",
        "teacher-ce-seed1",
        "ce-seed0",
        "ce-seed1",
        "kd-seed0",
        "kd-seed1",
        "bkd-seed0",
        "bkd-seed1",
    ]
    assert plan.baseline == "kd"
    for (label, (seed, fold)), job in plan.runs.items():
        assert fold is None
        assert job.experiment.output == Path(f"comparisons/quick/runs/{label}-seed{seed}")
        assert job.experiment.seed == seed
        if label == "ce":
            assert (job.after, job.experiment.teacher) == (None, None)
        else:
            assert job.after == f"teacher-ce-seed{seed}"
            weights = Path(f"comparisons/quick/teachers/ce-seed{seed}/student.safetensors")
            assert job.experiment.teacher.checkpoint == weights


def test_a_teacher_is_an_ordinary_run_on_the_teachers_network_with_its_training():
    teacher = {"model": {"name": "resnet20", "shortcut": "pad"}, "classifier": "cosine", "training": {"epochs": 7}}
    plan = plan_of("kd", "3", teacher={**teacher, "supervised": {"name": "ldam", "scale": 20.0}})
    (one,) = plan.teachers
    experiment = one.job.experiment
    assert one.supervised == "ldam+scale-20.0"
    assert experiment.method == {"name": "ce", "supervised": {"name": "ldam", "scale": 20.0}}
    assert (experiment.student.model.name, experiment.student.model.shortcut) == ("resnet20", "pad")
    assert experiment.student.classifier == "cosine"
    assert (experiment.training.epochs, experiment.training.batch_size) == (7, 256)
    assert (experiment.seed, experiment.teacher) == (3, None)
    assert experiment.data == plan.config.base.data
    assert plan.runs["kd", Draw(3)].experiment.training.epochs == 1


def test_a_teacher_is_trained_in_its_own_number_format():
    formats = {"student": "fp32", "teacher": "bf16", "teacher_inference": "bf16"}
    plan = plan_of("kd", "0", trainer={"precision": formats})
    assert plan.teachers[0].job.experiment.trainer.precision == "bf16"
    assert plan.runs["kd", Draw(0)].experiment.trainer.precision.student == "fp32"
    assert plan_of("kd", "0", trainer={"precision": "fp32"}).teachers[0].job.experiment.trainer.precision == "fp32"


def test_own_teachers_are_those_of_the_papers_and_stand_in_a_folder_of_their_own():
    shared, own = plan_of("kd,bkd,dive", "0"), plan_of("kd,bkd,dive", "0", teachers="own")
    assert [teacher.supervised for teacher in shared.teachers] == ["ce"]
    assert [teacher.supervised for teacher in own.teachers] == ["ce", "balanced_softmax"]
    assert own.runs["dive", Draw(0)].after == "teacher-balanced_softmax-seed0"
    assert own.runs["bkd", Draw(0)].after == own.runs["kd", Draw(0)].after == "teacher-ce-seed0"
    assert (shared.folder, own.folder) == (Path("comparisons/quick"), Path("comparisons/quick-own-teachers"))


def test_a_method_that_is_its_own_teacher_waits_for_none():
    plan = plan_of("ipwd-one-stage: {name: ipwd, teacher: previous_epoch}", "0")
    assert plan.teachers == []
    assert plan.runs["ipwd-one-stage", Draw(0)].experiment.teacher is None
    assert plan.baseline == "ipwd-one-stage"


def test_a_teacher_that_is_given_is_not_trained(tmp_path):
    weights = tmp_path / "teacher.safetensors"
    save_file(create_model("resnet8", num_classes=10).state_dict(), weights)
    plan = plan_of("ce,kd", "0", teacher={"model": "resnet8", "checkpoint": str(weights)})
    assert plan.teachers == []
    assert plan.runs["kd", Draw(0)].experiment.teacher.checkpoint == weights
    found = problems_of("kd", teachers="own", teacher={"model": "resnet8", "checkpoint": str(weights)})
    assert "--teachers own" in found[0]


def test_a_teacher_like_the_student_stays_what_it_is_when_the_grid_varies_the_student():
    plan = plan_of("kd", "0", grid=["student.model=resnet8,resnet20"], teacher="same")
    models = {point.label: plan.runs[point.label, Draw(0)].experiment for point in plan.points["kd"]}
    assert [one.student.model.name for one in models.values()] == ["resnet8", "resnet20"]
    assert [one.teacher.model.name for one in models.values()] == ["resnet8", "resnet8"]
    assert len(plan.teachers) == 1


def test_a_grid_is_a_product_over_the_axes_that_each_method_takes():
    plan = plan_of("ce,kd,bkd", "0", grid=["method.temperature=1,2", "method.beta=0.9,0.99"])
    assert {method: [point.label for point in points] for method, points in plan.points.items()} == {
        "ce": ["ce"],
        "kd": ["kd temperature=1", "kd temperature=2"],
        "bkd": [f"bkd temperature={t} beta={b}" for t in (1, 2) for b in (0.9, 0.99)],
    }
    run = plan.runs["bkd temperature=2 beta=0.99", Draw(0)]
    assert run.experiment.method == {"name": "bkd", "temperature": 2, "beta": 0.99}
    assert run.experiment.output.name == "bkd+temperature-2+beta-0.99-seed0"
    assert len(plan.teachers) == 1


@pytest.mark.parametrize(
    ("setting", "spanning"),
    [
        ("temperature", {"kd", "ipwd", "krdistill", "ones", "krd"}),
        ("supervised_weight", {"ce", "kd", "ipwd", "krdistill", "ones", "krd"}),
        ("distillation_weight", {"kd", "ipwd", "krdistill", "ones", "krd"}),
        ("representation_weight", {"krdistill", "krd"}),
        ("auxiliary_weight", {"ipwd", "ones"}),
    ],
)
def test_a_method_spans_a_weight_only_where_it_has_the_term(setting, spanning):
    methods = "ce, kd, ipwd, krdistill, ones: {name: ipwd, teacher: previous_epoch}, "
    methods += "krd: {supervised: focal, divergence: kl, representation: {name: balanced_prototypes}}"
    plan = plan_of(methods, "0", grid=[f"method.{setting}=0.5,2"])
    assert {method for method, points in plan.points.items() if len(points) == 2} == spanning
    assert {method for method, points in plan.points.items() if len(points) == 1} == set(plan.points) - spanning


@pytest.mark.parametrize("term", ["representation", "auxiliary"])
def test_a_weight_of_a_term_that_no_method_has_is_refused(term):
    (problem,) = problems_of("kd,bkd", grid=[f"method.{term}_weight=0.5,2"])
    assert f"method.{term}_weight=0.5, 2" in problem
    assert f"kd has no {term} term" in problem


def test_a_grid_over_training_reaches_every_student_and_no_teacher():
    plan = plan_of("ce,kd", "0", grid=["training.learning_rate=0.1,0.2"])
    rates = [job.experiment.training.learning_rate for job in plan.jobs]
    assert rates == [0.05, 0.1, 0.2, 0.1, 0.2]


def test_a_grid_without_a_validation_split_is_refused():
    (problem,) = problems_of(grid=["method.temperature=1,2"], data={**CONFIG["data"], "validation": 0})
    assert "data.validation is 0" in problem


def test_an_axis_that_no_method_takes_is_refused_with_the_nearest_name():
    (problem,) = problems_of("ce,bkd", grid=["method.btea=0.9"])
    assert "method.btea=0.9" in problem
    assert any("temperature" in problem for problem in problems_of("ce", grid=["method.temperature=1,2"]))


def test_everything_wrong_is_listed_at_once_and_once():
    found = problems_of(
        "bdk, kd: {name: kd, temperature: -1}, bkd",
        data={**CONFIG["data"], "name": "digit", "validation": 0},
        grid=["training.learning_rate=0.1,-1"],
        baseline="ce",
    )
    text = "\n".join(found)
    assert "'bdk'" in text
    assert "'bkd'" in text
    assert "temperature" in text
    assert text.count("'digits'") == 1, "what is wrong for all runs is told once"
    assert "--baseline: 'ce'" in text
    assert "data.validation is 0" in text
    assert "learning_rate" in text
    assert "-1" in text


def test_a_method_that_needs_a_teacher_says_so_before_any_work():
    (problem,) = problems_of("ce,kd", teacher=None)
    assert problem.startswith("kd: teacher: ")


def test_folders_that_hold_something_else_are_refused(tmp_path):
    plan = plan_of("kd", "0,1", output=tmp_path)
    other = plan.runs["kd", Draw(0)]
    write_text(other.folder.config, other.experiment.model_copy(update={"method": {"name": "bkd"}}).to_yaml())
    write_json(plan.runs["kd", Draw(1)].folder.result, {"schema_version": 0})
    found = problems_of("kd", "0,1", output=tmp_path)
    assert any("kd-seed0" in problem and "'bkd'" in problem for problem in found)
    assert any("kd-seed1" in problem for problem in found)


def test_two_runs_of_one_folder_are_refused():
    found = problems_of("bkd, bkd+beta-0.9: kd", "0", grid=["method.beta=0.9"])
    assert len(found) == 1
    assert found[0].startswith("bkd+beta-0.9-seed0: ")


def test_the_name_of_a_teachers_run_is_no_label():
    (found,) = problems_of("teacher-ce: kd, ce", "0")
    assert found.startswith("teacher-ce-seed0: ")
    assert "(comparisons/quick/teachers/ce-seed0)" in found
    assert problems_of("teacher-free: ce, kd", "0") == []


@pytest.mark.parametrize("name", ["config.yaml", "search.yaml"])
def test_a_folder_of_another_kind_is_not_taken_over(tmp_path, name):
    config = config_of("ce", "0", output=tmp_path)
    assert stored_problems(config) == []
    (tmp_path / name).touch()
    (found,) = stored_problems(config)
    assert name in found
    assert str(tmp_path) in found


@pytest.mark.parametrize("labels", ["a: kd, b: bkd"])
def test_without_kd_the_first_method_is_the_baseline(labels):
    assert plan_of(labels, "0").baseline == "a"
    assert plan_of(labels, "0", baseline="b").baseline == "b"


def test_the_benchmarks_own_list_of_methods_is_a_comparison():
    root = Path(__file__).parents[2]
    base = Experiment.from_yaml(root / "configs" / "cifar100-lt-100-30epochs.yaml")
    methods = read_methods(str(root / "benchmarks" / "cifar100-lt" / "methods.yaml"))
    plan, problems = make_plan(ComparisonConfig(base, methods, (0,)))
    assert problems == []
    assert len(plan.runs) == len(methods) == 13
    assert len(plan.teachers) == 1


def test_a_student_that_teaches_itself_stands_beside_methods_without_a_teacher():
    plan = plan_of("ce, ipwd", "0", teacher="previous_epoch")
    assert [job.name for job in plan.jobs] == ["ce-seed0", "ipwd-seed0"]
