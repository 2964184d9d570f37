from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distail.compare.metrics import metrics_of
from distail.evaluation.calibration import reliability_bins
from distail.evaluation.metrics import evaluate_predictions
from distail.evaluation.predictions import save_predictions
from distail.evaluation.teacher_bias import error_flow, tail_errors, teacher_bias
from distail.report.samples import Samples, save_samples
from distail.report.views import BestEpoch, ReportView, RunView
from helpers.browser import launched

METRICS = metrics_of(multi_label=False)

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\'"&amp;\u2028 {{ 7*7 }}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def hostile() -> str:
    """A name that would break a page which does not escape it."""
    return HOSTILE


def predictions(seed: int, counts: list[int], skill: float, bias: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Test logits of a model that favors large classes, 20 images per class."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(len(counts)).repeat(20)
    logits = torch.randn(len(target), len(counts), generator=generator)
    logits += bias * torch.tensor(counts).log() + skill * torch.nn.functional.one_hot(target, len(counts))
    return logits, target


def samples(target: torch.Tensor) -> Samples:
    """The first test image of each class: gray, 8 by 8."""
    index = torch.tensor([target.tolist().index(c) for c in range(int(target.max()) + 1)])
    pixels = torch.arange(len(index) * 64) % 256
    return Samples(index, target[index], pixels.to(torch.uint8).view(-1, 1, 8, 8))


def deployment(size: int, milliseconds: float) -> dict[str, Any]:
    times = {"batch": 1, "threads": 1, "median_ms": milliseconds, "p95_ms": milliseconds + 1, "calls": 30}
    return {"bytes": size, "latency": times, "processor": "a processor"}


def history(stage: str, epochs: int = 4, validation: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "stage": stage,
            "epoch": epoch,
            "loss": 2.0 / (epoch + 1),
            "validation": {"top1": 40.0 + epoch, "balanced_accuracy": 30.0 + epoch} if validation else None,
        }
        for epoch in range(epochs)
    ]


@pytest.fixture(scope="session")
def counts() -> list[int]:
    return [400, 200, 150, 120, 90, 60, 40, 30, 25, 19, 10, 5]


@pytest.fixture(scope="session")
def view(counts: list[int]) -> ReportView:
    """A teacher and two students, one of them with a best epoch on validation; a hostile name everywhere."""
    runs = []
    for seed, (name, role, skill, bias) in enumerate(
        [("teacher", "teacher", 2.0, 0.6), ("kd", "student", 2.0, 0.5), (f"bkd{HOSTILE}", "student", 2.2, 0.2)]
    ):
        logits, target = predictions(seed, counts, skill, bias)
        figures = evaluate_predictions(logits, target, counts)
        runs.append(
            RunView(
                name=name,
                role=role,  # type: ignore[arg-type]
                metrics=figures,
                seconds=1234.5 * (seed + 1),
                parameters=464_154,
                macs=69_000_000,
                size=1_856_616,
                latency=12.5 + seed,
                processor=f"processor {HOSTILE}",
                history=history(role),
                reliability=reliability_bins(logits, target),
                predicted=logits.argmax(1).tolist(),
                error_flow=error_flow(logits.argmax(1), target, counts)["flow"],
                tail_errors=tail_errors(logits.argmax(1), target, counts).tolist(),
                best_on_validation=BestEpoch(2, figures) if name == "kd" else None,
            )
        )
    logits, target = predictions(0, counts, 2.0, 0.6)
    return ReportView(
        title=f"an example {HOSTILE}",
        runs=runs,
        class_names=[f"class {c}" for c in range(11)] + [f"rarest {HOSTILE}"],
        class_counts=counts,
        bias=teacher_bias(logits, target, counts),
        config=f"name: {HOSTILE}\n",
        versions={"torch": "2.13.0", HOSTILE: HOSTILE},
        subset_sha256="9f86d081884c7d65",
        notes=[f"note {HOSTILE}"],
        problems=[f"problem {HOSTILE}"],
        test_labels=target.tolist(),
        samples=samples(target),
    )


@pytest.fixture(scope="session")
def large_view(view: ReportView) -> ReportView:
    """A hundred classes with plain names: points, neighborhood means, long tables."""
    counts = [int(500 * 100 ** (-c / 99)) for c in range(100)]
    runs = []
    for seed, run in enumerate(view.runs[:2]):
        logits, target = predictions(seed, counts, 2.0, 0.5)
        predicted = logits.argmax(1)
        runs.append(
            replace(
                run,
                metrics=evaluate_predictions(logits, target, counts),
                best_on_validation=None,
                predicted=predicted.tolist(),
                error_flow=error_flow(predicted, target, counts)["flow"],
                tail_errors=tail_errors(predicted, target, counts).tolist(),
            )
        )
    names = [f"species-{c}" for c in range(100)]
    return replace(
        view,
        title="long tail",
        runs=runs,
        class_names=names,
        class_counts=counts,
        notes=(),
        problems=(),
        test_labels=target.tolist(),
        samples=samples(target),
    )


@pytest.fixture
def make_folder(tmp_path: Path, counts: list[int]) -> Callable[..., Path]:
    """Write the folder of a finished run as the pipeline does; `change` edits its result.json."""

    def make(
        name: str = "run",
        method: str = "bkd",
        seed: int = 1,
        teacher: bool = True,
        change: Callable[[dict[str, Any]], None] = lambda result: None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        logits, target = predictions(seed, counts, 2.0, 0.3)
        teacher_logits, _ = predictions(0, counts, 2.0, 0.6)
        figures = evaluate_predictions(logits, target, counts)
        result: dict[str, Any] = {
            "schema_version": 1,
            "name": f"digits-{method}",
            "seed": seed,
            "method": method,
            "class_names": [f"digit {c}" for c in range(len(counts))],
            "class_counts": counts,
            "subset_sha256": "ab" * 32,
            "teacher": {"test": evaluate_predictions(teacher_logits, target, counts)} if teacher else None,
            "student": {"test": figures, "best_on_validation": {"epoch": 1, "validation": {}, "test": figures}},
            "timing": {
                "teacher": {"seconds": 20.5, "images_per_second": 900.0} if teacher else None,
                "student": {"seconds": 10.25, "images_per_second": 1000.0},
            },
            "parameters": {"teacher": 1000 if teacher else None, "student": 500},
            "macs": {"teacher": 7000 if teacher else None, "student": 3000},
            "deployment": {
                "teacher": deployment(4_000_000, 3.5) if teacher else None,
                "student": deployment(2_000_000, 1.5 + seed),
            },
            "versions": {"torch": "2.13.0"},
            "config": {"method": {"name": method}},
        }
        change(result)
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "config.yaml").write_text(f"name: digits-{method}\nseed: {seed}\n")
        stages = ["teacher", "student"] if teacher else ["student"]
        lines = [json.dumps(row) for stage in stages for row in history(stage)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        save_samples(folder / "samples.safetensors", samples(target))
        save_predictions(folder / "predictions.safetensors", logits, target, teacher_logits if teacher else None)
        return folder

    return make


@pytest.fixture
def make_comparison(make_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a comparison's folder as `compare` does: real runs, their means, differences that need not be true."""

    def make(
        name: str = "comparison",
        methods: tuple[str, ...] = ("ce", "kd", "bkd"),
        seeds: tuple[int, ...] = (0, 1),
        baseline: str = "kd",
        change: Callable[[dict[str, Any]], None] = lambda stored: None,
    ) -> Path:
        folder = tmp_path / name
        (folder / "runs").mkdir(parents=True)
        runs, figures = [], {}
        stored: dict[str, Any] = {}
        for position, method in enumerate(methods):
            values: dict[str, dict[str, float]] = {figure: {} for figure in METRICS}
            for seed in seeds:
                own = f"{name}/runs/{method}-seed{seed}"
                run = make_folder(own, method=method, seed=10 * position + seed + 1)
                stored = json.loads((run / "result.json").read_text())
                runs.append({"method": method, "seed": seed, "folder": own.removeprefix(f"{name}/")})
                runs[-1] |= {"state": "finished", "problem": None}
                for figure, own_values in values.items():
                    own_values[str(seed)] = at(stored["student"]["test"], figure)
            figures[method] = {figure: summary(own_values) for figure, own_values in values.items()}
        differences = [
            {
                "method": method,
                "figure": figure,
                "difference": figures[method][figure]["mean"] - figures[baseline][figure]["mean"],
                "interval": [-1.0, 2.5],
                "p": 0.2,
                "p_corrected": 0.4,
                "over": over,
                "inside_noise": figure != "groups.thirds.tail",
            }
            for over in ("seeds", "test images")
            for method in methods
            if method != baseline
            for figure in METRICS
        ]
        content = {
            "schema_version": 1,
            "name": name,
            "class_names": stored["class_names"],
            "class_counts": stored["class_counts"],
            "subset_sha256": {str(seed): f"{seed:x}" * 64 for seed in seeds},
            "seeds": list(seeds),
            "methods": list(methods),
            "baseline": baseline,
            "teachers": "shared",
            "runs": runs,
            "teacher_runs": [],
            "figures": figures,
            "differences": differences,
            "statements": ["bkd lies above kd on the tail third.", "Everything else lies inside the noise."],
            "grid": None,
        }
        change(content)
        (folder / "comparison.json").write_text(json.dumps(content))
        (folder / "comparison.yaml").write_text(f"name: {name}\n")
        return folder

    return make


def at(figures: dict[str, Any], path: str) -> float:
    for name in path.split("."):
        figures = figures[name]
    return figures  # type: ignore[return-value]


def summary(values: dict[str, float]) -> dict[str, Any]:
    known = list(values.values())
    mean = sum(known) / len(known)
    if len(known) < 2:
        return {"values": values, "mean": mean, "deviation": None, "interval": None}
    deviation = (sum((value - mean) ** 2 for value in known) / (len(known) - 1)) ** 0.5
    return {"values": values, "mean": mean, "deviation": deviation, "interval": [mean - deviation, mean + deviation]}
