"""What `teacher.views: K` costs in accuracy and buys in time: some K and a live teacher, one shared teacher.

    python benchmarks/views.py                       # 30 epochs of CIFAR-100-LT at factor 100, two cores: hours
    python benchmarks/views.py --seeds 0,1           # more than one seed: mean and spread
    python benchmarks/views.py --epochs 100 --views 10,20,0 --output benchmarks/views/100-epochs
    python benchmarks/views.py --teacher resnet32 --weights runs/teacher/student.safetensors  # trained before
    python benchmarks/views.py --quick               # digits, 2 epochs: says whether it runs

Every run is a run folder under --runs: the same command again goes on where it was stopped. The table is written anew
after every run, to benchmarks/views/table.md and results.json; a run that is not finished is said to be missing.
"""

from __future__ import annotations

import os

# As the command line does: threads that spin while they wait are many times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distail
from distail.config.schema import Experiment
from distail.runner.run_folder import RunFolder

ROOT = Path(__file__).parent
CONFIG = ROOT.parent / "configs" / "cifar100-lt-100-30epochs.yaml"
LIVE = 0


@dataclass(frozen=True)
class Plan:
    """One teacher per seed, one student for each number of views."""

    base: Experiment
    teacher: str
    student: str
    method: str
    runs: Path
    weights: Path | None = None

    def teacher_run(self, seed: int) -> dict[str, Any]:
        """The shared teacher, trained alone: with the loop, the data and the protocol of the students."""
        return self._run(f"teacher-{self.teacher}", seed, self.teacher, method={"name": "ce"}, teacher=None)

    def student_run(self, seed: int, views: int) -> dict[str, Any]:
        weights = self.weights or Path(self.teacher_run(seed)["output"]) / "student.safetensors"
        teacher = {"model": self._model(self.teacher), "checkpoint": str(weights), "views": views}
        name = f"{self.method}-{self.student}-{'live' if views == LIVE else views}"
        return self._run(name, seed, self.student, method={"name": self.method}, teacher=teacher)

    def _run(self, name: str, seed: int, student: str, **changes: Any) -> dict[str, Any]:
        name = f"views-{self.base.training.epochs}-{name}"
        return {
            **self.base.model_dump(mode="json"),
            "name": name,
            "seed": seed,
            "output": str(self.runs / f"{name}-seed{seed}"),
            "student": {"model": self._model(student)},
            **changes,
        }

    def _model(self, name: str) -> dict[str, Any]:
        return {"name": name, "shortcut": self.base.student.model.shortcut}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--method", default="bkd")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", default="0,1,2,4,8", help="0 is a live teacher")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--output", type=Path, default=ROOT / "views")
    parser.add_argument("--weights", type=Path, help="of a teacher that is trained already; with one seed")
    given = parser.parse_args()

    overrides = ["data.name=digits", "data.augment=[crop]"] if given.quick else []
    overrides.append(f"training.epochs={2 if given.quick else given.epochs}")
    plan = Plan(
        Experiment.from_yaml(CONFIG, overrides), given.teacher, given.student, given.method, given.runs, given.weights
    )
    seeds, numbers = ([int(number) for number in listed.split(",")] for listed in (given.seeds, given.views))
    if plan.weights is not None and len(seeds) > 1:
        parser.error("--weights: one teacher has seen the images of one seed; give one with --seeds")
    for seed in seeds:
        if plan.weights is None:
            distail.run(plan.teacher_run(seed))
        for views in numbers:
            distail.run(plan.student_run(seed, views))
            write(given.output, plan, seeds, numbers)
    print((given.output / "table.md").read_text())


def write(output: Path, plan: Plan, seeds: list[int], numbers: list[int]) -> None:
    """The table of what is finished by now, and the figures that it is made of."""
    rows = list(table_rows(plan, seeds, numbers))
    head = "| teacher asked | top-1 | balanced | head | medium | tail | seconds | seconds / live | seeds |"
    lines = [head, "|---" * 9 + "|", *(row for row, _ in rows)]
    base = plan.base
    title = (
        f"{plan.method}, {plan.teacher} to {plan.student}, {base.data.name}, imbalance factor "
        f"{base.data.imbalance_factor:g}, {base.training.epochs} epochs; mean over seeds (deviation); "
        "head, medium and tail are thirds of the classes; seconds are the student's stage, filling included."
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text("\n".join([title, "", *lines]) + "\n")
    kept = {views: figures for (_, figures), views in zip(rows, numbers, strict=True)}
    (output / "results.json").write_text(json.dumps(kept, indent=1) + "\n")


def table_rows(plan: Plan, seeds: list[int], numbers: list[int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    live = _finished(plan, seeds, LIVE)
    for views in numbers:
        asked = "at every step (0)" if views == LIVE else f"once about {views} view{'s' * (views > 1)}"
        found = _finished(plan, seeds, views)
        if not found:
            yield f"| {asked} |" + " missing |" * 8, []
            continue
        tests = [figures["student"]["test"] for figures in found]
        thirds = [test["groups"]["thirds"] for test in tests]
        cells = [_mean([test[name] for test in tests]) for name in ("top1", "balanced_accuracy")]
        cells += [_mean([third[name] for third in thirds]) for name in ("head", "medium", "tail")]
        seconds = statistics.mean(_seconds(found))
        share = f"{seconds / statistics.mean(_seconds(live)):.2f}" if live else "missing"
        yield f"| {asked} | {' | '.join([*cells, f'{seconds:.0f}', share, str(len(found))])} |", found


def _finished(plan: Plan, seeds: list[int], views: int) -> list[dict[str, Any]]:
    folders = [RunFolder(Path(plan.student_run(seed, views)["output"])) for seed in seeds]
    return [figures for folder in folders if (figures := folder.stored_result()) is not None]


def _seconds(found: list[dict[str, Any]]) -> list[float]:
    return [figures["timing"]["student"]["seconds"] for figures in found]


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "no such class"
    spread = f" ({statistics.stdev(known):.1f})" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"


if __name__ == "__main__":
    main()
