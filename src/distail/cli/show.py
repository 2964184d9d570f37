"""What the verbs print on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distail.config.tau import Tau
from distail.errors import ConfigError
from distail.evaluation.adjustment import TAU, adjusted_name
from distail.evaluation.metrics import MetricValues
from distail.evaluation.run_files import StageResult, TeacherResult
from distail.evaluation.teacher_bias import describe_bias
from distail.methods.describe import describe_method
from distail.methods.presets import list_methods
from distail.report.build import report_view
from distail.report.results_table import print_results
from distail.report.table import Table
from distail.report.views import RunView
from distail.runner.evaluate import Evaluation, evaluate_run
from distail.runner.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


def print_run(folder: Path, console: Console) -> None:
    """The metrics of a finished run, its teacher's bias, and where its page lies."""
    view = report_view([folder])
    if view.bias is not None:
        console.print(describe_bias(view.bias), highlight=False)
    print_results(view.runs, view.title, console)
    console.print(f"{folder}/report.html shows it per class.", highlight=False, soft_wrap=True, markup=False)


def print_evaluation(folder: Path, console: Console, *, as_json: bool, adjust: Tau | None = None) -> None:
    """Every metric of the protocol, computed again from the stored test predictions.

    Args:
        adjust: how far the rows that are called adjusted are; by default by tau 1, where that is no second time.

    Raises:
        ConfigError: not the folder of a finished run, or `auto` without a validation split.
        CheckpointError: its files cannot be read.
    """
    found = evaluate_run(RunFolder(folder), TAU if adjust is None else adjust)
    if as_json:
        print(json.dumps({**found.metrics, "adjusted": found.adjusted, "notes": found.notes}, indent=2))
        return
    view = report_view([folder])
    runs = view.runs if adjust is None else _with_adjusted(view.runs, found)
    print_results(runs, view.title, console)
    for note in found.notes if adjust is not None else []:
        console.print(note, highlight=False, markup=False)
    stored = {"teacher": found.result["teacher"], "student": found.result["student"]}
    differing = [stage for stage, own in found.metrics.items() if not _holds(stored[stage], own)]
    console.print(
        f"{' and '.join(differing)}: result.json does not match the stored predictions"
        if differing
        else "result.json matches the stored predictions exactly.",
        highlight=False,
    )


def _with_adjusted(runs: Sequence[RunView], found: Evaluation) -> list[RunView]:
    """Each model followed by it adjusted as asked, instead of by tau 1."""
    rows: list[RunView] = []
    for run in runs:
        rows.append(replace(run, adjusted=None))
        adjusted = found.adjusted[run.role]
        if adjusted is not None:
            plain = run.name if run.role == "teacher" else found.result["method"]
            name = adjusted_name(plain, adjusted["tau"])
            rows.append(replace(run, name=name, metrics=adjusted["test"], adjusted=None, best_on_validation=None))
    return rows


def _holds(stored: StageResult | TeacherResult | None, metrics: MetricValues | None) -> bool:
    """Whether a result holds these metrics; those that a result of an earlier version lacks are no difference."""
    test = stored and stored["test"]
    if test is None or metrics is None:
        return test is None and metrics is None
    return {name: value for name, value in metrics.items() if name in test} == test


def write_pages(
    targets: Sequence[Path], output: Path | None, *, figures: bool, title: str | None, console: Console
) -> None:
    """The page of a run, of several or of a comparison, its figures beside it, and where they lie.

    Raises:
        ConfigError: a folder that is neither a run nor a comparison, or an output that is a folder.
    """
    from distail.report.figures import write_figures
    from distail.report.page import write_page

    view = report_view(targets, title)
    page = output or (targets[0] if len(targets) == 1 else Path()) / "report.html"
    if page.is_dir():
        raise ConfigError(f"--output {str(page)!r} is a folder; expected a file, such as {str(page / 'report.html')!r}")
    in_the_way = next((parent for parent in page.parents if parent.exists() and not parent.is_dir()), None)
    if in_the_way is not None:
        raise ConfigError(f"--output {str(page)!r}: {str(in_the_way)!r} is a file; expected a folder, or a new name")
    write_page(page, view)
    console.print(f"{page}: open it in a browser.", highlight=False, soft_wrap=True, markup=False)
    missing = len(view.problems) + len(view.comparison.missing if view.comparison else ())
    if missing:
        things = "one thing is" if missing == 1 else f"{missing} things are"
        console.print(f"{things} missing; the page says what.", highlight=False)
    if figures and (written := write_figures(page.parent / "figures", view)):
        names = ", ".join(dict.fromkeys(path.stem for path in written))
        text = f"{page.parent / 'figures'}: {names}, as PNG and SVG."
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def print_methods(console: Console) -> None:
    """One line a method: its slots and its paper."""
    rows = []
    for name, preset in list_methods().items():
        slots = ", ".join(f"{slot}: {' + '.join(names)}" for slot, names in preset.slots.items())
        arxiv = f" (arXiv {preset.arxiv})" if preset.arxiv else ""
        mark = " [reconstruction]" if preset.reconstruction else ""
        rows.append([name, slots, f"{preset.title}: {preset.paper}{arxiv}{mark}"])
    Table(["method", "slots", "paper"], rows, text_columns=frozenset({0, 1, 2})).print(console)
    console.print("\ndistail methods NAME explains one.", highlight=False)


def print_method(name: str, console: Console) -> None:
    """Slots, formula, parameters with defaults, paper, and what is the paper's and what is ours."""
    console.print(str(describe_method(name)), highlight=False, markup=False, soft_wrap=True)
