"""What a search chose beside every preset, on the test set: `table.py searches/NAME comparisons/NAME` prints Markdown.

Both folders must hold the same seeds. Of folds each seed counts the mean over its folds. Differences are those of one
seed's two figures, averaged.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from distail.evaluation.adjustment import adjusted_name, holds_prior

COLUMNS = ("top1", "balanced_accuracy", "head", "medium", "tail")


def main(search: Path, presets: Path) -> None:
    best = f"trial-{json.loads((search / 'search.json').read_text(encoding='utf-8'))['best']}"
    chosen = rows(search / "comparison", [best])[best]
    known = rows(presets, sorted({folder.name.rpartition("-seed")[0] for folder in (presets / "runs").iterdir()}))
    print("| Method | Top-1 | Balanced accuracy | Head third | Medium third | Tail third | The choice beyond it |")
    print("|---|" + "---:|" * 6)
    order = sorted(known.items(), key=lambda item: mean(seed["balanced_accuracy"] for seed in item[1].values()))
    for name, of_seed in [*order, ("**the choice**", chosen)]:
        if of_seed.keys() != chosen.keys():
            raise SystemExit(f"{name} has the seeds {sorted(of_seed)}, the choice {sorted(chosen)}")
        cells = [spread([seed[column] for seed in of_seed.values()]) for column in COLUMNS]
        gains = [chosen[seed]["balanced_accuracy"] - of_seed[seed]["balanced_accuracy"] for seed in chosen]
        print(f"| {name} | {' | '.join(cells)} | {'' if of_seed is chosen else spread(gains, '+')} |")


def rows(comparison: Path, methods: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Method, and method adjusted, to seed to figures."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for method in methods:
        for folder in sorted((comparison / "runs").glob(f"{method}-seed*")):
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            seed, student = folder.name.rpartition("-seed")[2].partition("-fold")[0], result["student"]
            tested = {method: student["test"]}
            if holds_prior(result["posterior"]["student"], result["class_counts"]) and student["adjust"] is None:
                tested[adjusted_name(method)] = student["test_adjusted"]
            for name, test in tested.items():
                figures = {**test, **test["groups"]["thirds"]}
                found.setdefault(name, {}).setdefault(seed, []).append({column: figures[column] for column in COLUMNS})
    return {name: {seed: mean_of(folds) for seed, folds in seeds.items()} for name, seeds in found.items()}


def mean_of(folds: list[dict[str, float]]) -> dict[str, float]:
    return {column: mean(one[column] for one in folds) for column in COLUMNS}


def spread(values: list[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
