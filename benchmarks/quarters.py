"""Recall by quarter of the classes, from those the teacher favors most, and how far the sample weights spread.

python benchmarks/quarters.py comparisons/ipwd-cifar25 benchmarks/ipwd/results

Prints the table and keeps the figures of each run in the second folder. The teacher's mean probability of a class is
taken over the test images, from the logits that each distilled run keeps: all runs must have had the same teacher.
N test images, C classes.
"""

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file
from torch import Tensor

from distail.evaluation.metrics import QUARTERS, mean_probability, recall_by_quarter

ALONE, BASELINE = "ce", "kd"


def main(comparison: Path, results: Path) -> None:
    runs: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted((comparison / "runs").iterdir()):
        if (folder / "result.json").is_file():
            method, _, seed = folder.name.rpartition("-seed")
            runs[method].append(folder)
            keep(folder, results / folder.name)
            print(f"{method} {seed}: {result(folder)['student']['test']['top1']:.1f}", file=sys.stderr)
    logits = [load_file(run / "predictions.safetensors") for folders in runs.values() for run in folders]
    taught = [each["teacher_logits"] for each in logits if "teacher_logits" in each]
    if not all(torch.equal(taught[0], other) for other in taught):
        raise SystemExit("the runs had different teachers: their quarters are not the same classes")
    favor_C = mean_probability(taught[0])
    print(f"| Method | Seeds | Top-1 | {' | '.join(QUARTERS)} | Least less most, beyond `kd` | Weights, 5th to 95th |")
    print("|---|" + "---:|" * 8)
    teacher = next(result(each)["teacher"]["test"] for each in runs[BASELINE])
    print(f"| teacher | 1 | {quarters([teacher], favor_C)} | | |")
    baseline = runs[BASELINE]
    for method, folders in sorted(runs.items(), key=lambda item: min(run.stat().st_ctime for run in item[1])):
        tests = [result(folder)["student"]["test"] for folder in folders]
        gap = "" if method in (ALONE, BASELINE) else narrowed(folders, baseline, favor_C)
        print(f"| `{method}` | {len(folders)} | {quarters(tests, favor_C)} | {gap} | {spread(folders)} |")


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def keep(folder: Path, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for file in ("result.json", "metrics.jsonl", "config.yaml"):
        shutil.copy(folder / file, kept / file)


def quarters(tests: list[dict], favor_C: Tensor) -> str:
    rows = [{"top1": test["top1"], **recall_by_quarter(test["per_class_recall"], favor_C)} for test in tests]
    return " | ".join(f"{mean(row[name] for row in rows):.1f}" for name in ("top1", *QUARTERS))


def narrowed(folders: list[Path], baseline: list[Path], favor_C: Tensor) -> str:
    """By how much the least favored quarter gains on the most favored, beyond plain distillation of the same seeds."""
    order, size = favor_C.argsort(descending=True, stable=True).tolist(), round(len(favor_C) / len(QUARTERS))
    by_seed = {run.name.rpartition("-seed")[2]: run for run in baseline}
    gaps, variances = [], []
    for folder in folders:
        if (other := by_seed.get(folder.name.rpartition("-seed")[2])) is None:
            continue
        (right_N, target_N), (others_N, _) = answers(folder), answers(other)
        gap, variance = 0.0, 0.0
        for sign, classes in ((-1, order[:size]), (1, order[-size:])):
            for own in (100 * (right_N - others_N)[target_N == label] for label in classes):
                gap += sign * own.mean().item() / size
                variance += own.var().item() / len(own) / size**2
        gaps.append(gap)
        variances.append(variance)
    return f"{mean(gaps):+.1f} ± {sum(variances) ** 0.5 / len(gaps):.1f}" if gaps else ""


def answers(folder: Path) -> tuple[Tensor, Tensor]:
    """(N,) whether each test image is answered rightly, float64, and the labels."""
    stored = load_file(folder / "predictions.safetensors")
    return (stored["logits"].argmax(1) == stored["target"]).double(), stored["target"]


def spread(folders: list[Path]) -> str:
    """The 5th and the 95th percentile of the weights before normalization in the last epoch."""
    last = [json.loads((each / "metrics.jsonl").read_text().splitlines()[-1])["statistics"] for each in folders]
    if "weight_p05" not in last[0]:
        return ""
    low, high = (mean(each[f"weight_{name}"] for each in last) for name in ("p05", "p95"))
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
