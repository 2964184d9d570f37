"""Recall by quarter of the classes, from those the teacher favors most: `quarters.py comparisons/NAME/runs/*`.

Writes table.md and results.json beside this file. The teacher's mean probability of a class is taken over the test
images, from the teacher's logits that each distilled run keeps; all runs must have had the same teacher.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from distail.evaluation.metrics import QUARTERS, mean_probability, recall_by_quarter
from distail.runner.run_folder import RunFolder

HERE = Path(__file__).parent
ORDER = ("ce", "kd", "ipwd", "ipwd-cls-over-kd")
ALONE, BASELINE = "ce", "kd"


def main(folders: Sequence[Path]) -> None:
    found = {name: result for name in ORDER if (result := finished(folders, name)) is not None}
    favor_C = teacher_favor([folder for folder, _ in found.values()])
    rows = {name: by_quarter(result["student"]["test"], favor_C) for name, (_, result) in found.items()}
    teacher = next(result["teacher"]["test"] for _, result in found.values() if result["teacher"])
    rows = {"teacher": by_quarter(teacher, favor_C), **rows}
    text = table(rows, [name for name in ORDER if name not in found])
    if BASELINE in found:
        others = {name: folder for name, (folder, _) in found.items() if name not in (ALONE, BASELINE)}
        text += "".join(compared(name, folder, found[BASELINE][0], favor_C) for name, folder in others.items())
    (HERE / "table.md").write_text(text, encoding="utf-8")
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for name, (folder, _) in found.items():
        kept = HERE / "results" / name
        kept.mkdir(parents=True, exist_ok=True)
        for file in ("result.json", "metrics.jsonl", "config.yaml"):
            shutil.copy(folder / file, kept / file)
    print(text)


def finished(folders: Sequence[Path], name: str) -> tuple[Path, dict] | None:
    for folder in folders:
        if folder.name.removeprefix("cifar100-12epochs-") == f"{name}-seed0":
            result = RunFolder(folder).stored_result()
            return None if result is None else (folder, result)
    return None


def teacher_favor(folders: Sequence[Path]) -> torch.Tensor:
    """The mean probability (C,) that the one teacher of all these runs gives each class."""
    kept = [load_file(folder / "predictions.safetensors") for folder in folders]
    logits = [tensors["teacher_logits"].float() for tensors in kept if "teacher_logits" in tensors]
    if not all(torch.equal(logits[0], other) for other in logits):
        raise SystemExit("the runs had different teachers: their quarters are not the same classes")
    return mean_probability(logits[0])


def by_quarter(figures: dict, favor_C: torch.Tensor) -> dict[str, float | None]:
    return {"top1": figures["top1"], **recall_by_quarter(figures["per_class_recall"], favor_C)}


def compared(name: str, folder: Path, baseline: Path, favor_C: torch.Tensor) -> str:
    """How far a run's gap lies from the baseline's, with the standard error of the test images, pair by pair."""
    right, target_N = zip(*(answers(each) for each in (folder, baseline)), strict=True)
    differs_N = 100 * (right[0].double() - right[1].double())
    order, size = favor_C.argsort(descending=True).tolist(), len(favor_C) // len(QUARTERS)
    gap, variance = 0.0, 0.0
    for sign, classes in ((1, order[:size]), (-1, order[-size:])):
        for own in (differs_N[target_N[0] == index] for index in classes):
            gap += sign * own.mean().item() / size
            variance += own.var().item() / len(own) / size**2
    return (
        f"\nGap of `{name}` less that of `{BASELINE}`: {gap:+.2f}, standard error {variance**0.5:.2f} (test images).\n"
    )


def answers(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = load_file(folder / "predictions.safetensors")
    return tensors["logits"].argmax(dim=1) == tensors["target"], tensors["target"]


def table(rows: dict[str, dict[str, float | None]], missing: Sequence[str]) -> str:
    alone = rows.get(ALONE)
    head = ["", "Top-1", *(f"{name.capitalize()} favored" for name in QUARTERS)]
    if alone:
        head += [f"{name.capitalize()}: gain" for name in QUARTERS]
        head.append("Gap: gain most - gain least")
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, row in rows.items():
        line = [name, *(f"{row[key]:.2f}" for key in ("top1", *QUARTERS))]
        if alone:
            gain = {key: row[key] - alone[key] for key in QUARTERS}
            own = name == ALONE
            line += ["" if own else f"{gain[key]:+.2f}" for key in QUARTERS]
            line.append("" if own else f"{gain['most'] - gain['least']:+.2f}")
        lines.append(line)
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text += (
        "\n\nRecall in percent of the test images, mean over the 25 classes of a quarter; classes ranked by the "
        f"teacher's mean probability on the test images; gains are over the student alone (`{ALONE}`).\n"
    )
    return text + (f"\nNot finished, so not in the table: {', '.join(missing)}.\n" if missing else "")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
