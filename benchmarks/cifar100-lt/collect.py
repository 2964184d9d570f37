"""Keep what a reader of the results needs: `collect.py comparisons/cifar100-lt-100-30epochs/runs/*`."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from distail.report.comparison import report_view
from distail.report.figures import recall_figure
from distail.report.folder import run_view_from_folder
from distail.report.table import markdown_table

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
COLUMNS = ("top1", "balanced_accuracy", "head", "medium", "tail", "many", "medium_shot", "few", "worst_class", "ece")
PREFIX = "cifar100-lt-100-30epochs-"
REPAIRS = ("ce", "kd", "bkd-beta0", "bkd", "drkd", "ipwd", "krdistill")
PEERS = ("ltkd", "dkd", "wsld", "dive", "ipwd-one-stage")
SYSTEMS = ("bkd", "drkd", "ipwd", "krdistill")


def main(folders: list[Path]) -> None:
    views, missing = [], []
    for name in (*REPAIRS, *PEERS):
        found = [folder for folder in folders if folder.name.removeprefix(PREFIX).startswith(f"{name}-seed")]
        if not any((folder / "result.json").is_file() for folder in found):
            missing.append(name)
        for folder in found:
            if not (folder / "result.json").is_file():
                continue
            kept = HERE / "results" / f"{PREFIX}{folder.name.removeprefix(PREFIX)}"
            kept.mkdir(parents=True, exist_ok=True)
            for file in ("result.json", "metrics.jsonl", "config.yaml"):
                shutil.copy(folder / file, kept / file)
            student = next(run for run in run_view_from_folder(folder).runs if run.role == "student")
            views.append(replace(student, name=name))
    whole = report_view(folders)
    teachers = [run for run in whole.runs if run.role == "teacher"]
    runs = [*teachers, *views]
    table = markdown_table(runs, COLUMNS)
    if missing:
        table += f"\n\nNot finished, so not in the table: {', '.join(missing)}."
    (HERE / "table.md").write_text(table + "\n", encoding="utf-8")
    recall_figure(HERE / "recall.png", runs, whole.class_counts)
    for system in SYSTEMS:
        shown = [run for run in runs if run.role == "teacher" or run.name in ("ce", system)]
        if len(shown) == 3:
            recall_figure(PICTURES / f"{system}.png", shown, whole.class_counts)
    print(table)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
