"""`distail demo`: one biased teacher, four students, one table and one page, in about a minute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distail.config.schema import Experiment
from distail.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console


METHODS = ("ce", "kd", "bkd", "drkd")
COLUMNS = ("top1", "balanced_accuracy", "head", "medium", "tail", "seconds")

# What differs between the two data sets. Digits are not mirror images of each other, so nothing is flipped there.
DEMOS: dict[str, dict[str, Any]] = {
    "digits": {
        "data": {"name": "digits", "imbalance_factor": 20, "validation": 0, "augment": ["crop"]},
        "teacher": "resnet20",
        "student": "resnet8",
        "training": {"epochs": 24, "batch_size": 64},
    },
    "fashion-mnist": {
        "data": {"name": "fashion-mnist", "imbalance_factor": 100, "validation": 0, "augment": ["crop", "flip"]},
        "teacher": "resnet20",
        "student": "resnet8",
        "training": {"epochs": 4, "batch_size": 128},
    },
}


def run_demo(data: str, output: Path, seed: int, console: Console) -> Path:
    """Train, print the table, and write the page; returns the page's path.

    Raises:
        ConfigError: an unknown demo.
    """
    if data not in DEMOS:
        raise ConfigError(unknown_name("demo", data, DEMOS))
    from distail.evaluation.teacher_bias import describe_bias
    from distail.report.build import report_view
    from distail.report.figures import recall_figure
    from distail.report.page import write_page
    from distail.report.results_table import results_table
    from distail.runner.run import run
    from distail.training.progress import Named, default_reporter

    reporter = default_reporter()
    # To its own run it is the student, and every other one learns from it.
    of_teacher = Named(reporter, "demo", {"student": "shared teacher"})
    teacher = run(teacher_experiment(data, output, seed), reporter=of_teacher)
    results = [
        run(experiment, reporter=Named(reporter, experiment.method_name))
        for experiment in student_experiments(data, output, seed)
    ]
    view = report_view([result.folder for result in results], title=f"distail demo: {data}, seed {seed}")
    seconds = teacher.figures["timing"]["student"]["seconds"]
    runs = [replace(one, seconds=seconds) if one.role == "teacher" else one for one in view.runs]
    if view.bias is not None:
        console.print(describe_bias(view.bias), highlight=False)
    results_table(runs, COLUMNS).print(console)
    folder = output / f"demo-{data}-seed{seed}"
    page = write_page(folder / "report.html", replace(view, runs=runs))
    recall_figure(folder / "recall.png", runs, view.class_counts)
    where = f"Open {page} in a browser for the per-class picture."
    console.print(where, highlight=False, soft_wrap=True, markup=False)
    return page


def teacher_experiment(data: str, output: Path, seed: int) -> Experiment:
    """The teacher is trained by the same loop as any student, with plain cross-entropy."""
    return _experiment(data, output, seed, "teacher", student=DEMOS[data]["teacher"], method="ce", role="teacher")


def student_experiments(data: str, output: Path, seed: int) -> list[Experiment]:
    """One experiment a method, all from the one teacher."""
    weights = teacher_experiment(data, output, seed).output / "student.safetensors"
    teacher = {"model": DEMOS[data]["teacher"], "checkpoint": str(weights)}
    return [
        _experiment(data, output, seed, method, student=DEMOS[data]["student"], method=method, teacher=teacher)
        for method in METHODS
    ]


def _experiment(data: str, output: Path, seed: int, name: str, **parts: Any) -> Experiment:
    settings = DEMOS[data]
    return Experiment.from_mapping(
        {
            "name": f"demo-{data}-{name}",
            "seed": seed,
            "output": str(output / f"demo-{data}-seed{seed}" / name),
            "data": settings["data"],
            "training": {
                "learning_rate": 0.05,
                "weight_decay": 5.0e-4,
                "schedule": "one-cycle",
                **settings["training"],
            },
            **parts,
        }
    )
