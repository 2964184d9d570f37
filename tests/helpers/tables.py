"""A table of numbers, texts, booleans and gaps, long-tailed, and a run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.whole_runs import run

NAMES = ("blue", "green", "red")
ROWS = (90, 45, 25)


def write_table(path: Path, seed: int = 0) -> Path:
    """`id,age,weight,kind,code,smoker,sort`: ages are sometimes missing in training, codes are digits and a letter."""
    draw = np.random.default_rng(seed)
    lines = ["id,age,weight,kind,code,smoker,sort"]
    for label, (name, rows) in enumerate(zip(NAMES, ROWS, strict=True)):
        for row in range(rows):
            age = "" if row % 11 == 3 else f"{draw.normal(30 + 12 * label, 6):.1f}"
            kind = "abc"[(label + (draw.random() < 0.2)) % 3]
            code = ("007", "7", "x")[row % 3]
            smoker = "true" if draw.random() < 0.3 else "false"
            lines.append(f"{name}-{row},{age},{draw.normal(70, 9):.2f},{kind},{code},{smoker},{name}")
    path.write_text("\n".join(lines) + "\n")
    return path


def table_run(folder: Path, **changes):
    """A quick run on the table `table.csv` beside it, which it makes."""
    table = folder.parent / "table.csv"
    if not table.exists():
        write_table(table)
    features = ["age", "weight", "kind", "code", "smoker"]
    return run(
        {
            "name": "quick",
            "output": str(folder),
            "data": {
                "name": "csv-table",
                "root": str(table),
                "label": "sort",
                "features": features,
                "validation": 0.1,
            },
            "student": {"model": {"name": "mlp", "hidden": 16, "depth": 2, "dropout": 0.1}},
            "method": "ce",
            "training": {"epochs": 8, "batch_size": 16, "learning_rate": 0.05},
            "trainer": {"device": "cpu", "trackers": []},
            **changes,
        }
    )
