"""Keep what a reader of the results needs: `collect.py comparisons/cifar100-lt-100-30epochs/runs/*`."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from distail.report.aggregate import pooled_with_spreads
from distail.report.figures import recall_figure
from distail.report.read_run import run_view_from_folder
from distail.report.results_table import results_table
from distail.report.views import RunView

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
COLUMNS = ("top1", "balanced_accuracy", "head", "medium", "tail", "many", "medium_shot", "few", "worst_class", "ece")
PREFIX = "cifar100-lt-100-30epochs-"
METHODS = ("ce", "kd", "bkd-beta0", "bkd", "drkd", "ipwd", "krdistill")
PEERS = ("ipwd-cls-over-kd", "ltkd", "dkd", "wsld", "dive", "dive-own-teacher", "ipwd-one-stage")
SYSTEMS = ("bkd", "drkd", "ipwd", "krdistill")
# These trained a teacher of their own; all others of a seed share the one that stands in the run of `kd`.
OWN_TEACHER = {"dive-own-teacher": "teacher (balanced softmax)"}

RECONSTRUCTION = (
    "KRDistill is our reconstruction of a paper whose equations are not public: "
    "[which choices are ours](../../docs/methods/krdistill.md)."
)


def main(folders: list[Path]) -> None:
    finished = {folder.name.removeprefix(PREFIX): folder for folder in folders if (folder / "result.json").is_file()}
    runs = {name: seeds_of(name, finished) for name in (*METHODS, *PEERS)}
    for seeds in runs.values():
        for folder in seeds.values():
            keep(folder)
    shared = runs["kd"]
    rows = [pooled("teacher", "teacher", shared)]
    for name, seeds in runs.items():
        if name in OWN_TEACHER and seeds:
            rows.append(pooled(OWN_TEACHER[name], "teacher", seeds))
        if seeds:
            rows.append(pooled(name, "student", seeds))
    table = [
        results_table([named(row) for row in rows], COLUMNS).to_markdown(),
        "± is the sample deviation over the seeds named; a row that names none is seed 0 alone.",
    ]
    if runs["krdistill"]:
        table.append(RECONSTRUCTION)
    missing = [name for name, seeds in runs.items() if not seeds]
    if missing:
        table.append(f"Not finished, so not in the table: {', '.join(missing)}.")
    (HERE / "table.md").write_text("\n\n".join(table) + "\n", encoding="utf-8")
    counts = run_view_from_folder(shared[0]).class_counts
    shown = [row for row in rows if row.name in ("teacher", *METHODS)]
    recall_figure(HERE / "recall.png", shown, counts)
    for system in SYSTEMS:
        few = [row for row in rows if row.name in ("teacher", "ce", system)]
        if len(few) == 3:
            recall_figure(PICTURES / f"{system}.png", few, counts)
    print("\n\n".join(table))


def seeds_of(name: str, finished: dict[str, Path]) -> dict[int, Path]:
    own = {label: folder for label, folder in finished.items() if label.startswith(f"{name}-seed")}
    return {int(label.rpartition("-seed")[2]): own[label] for label in sorted(own)}


def pooled(name: str, role: str, seeds: dict[int, Path]) -> RunView:
    """One role's runs of all seeds as one."""
    views = [next(run for run in run_view_from_folder(folder).runs if run.role == role) for folder in seeds.values()]
    return pooled_with_spreads(name, role, list(seeds), views)


def named(row: RunView) -> RunView:
    return replace(row, name=f"{row.name} (seeds {', '.join(map(str, row.seeds))})") if len(row.seeds) > 1 else row


def keep(folder: Path) -> None:
    kept = HERE / "results" / f"{PREFIX}{folder.name.removeprefix(PREFIX)}"
    kept.mkdir(parents=True, exist_ok=True)
    for file in ("result.json", "metrics.jsonl", "config.yaml"):
        shutil.copy(folder / file, kept / file)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
