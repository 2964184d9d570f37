"""What `export.json` holds, as two tables: what each file costs, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distail.errors import CheckpointError
from distail.evaluation.groups import THIRD_PATHS, THIRDS_RULE
from distail.evaluation.headline import BALANCED_ACCURACY, MAP_RULE, MEAN_AVERAGE_PRECISION, is_multi_label
from distail.evaluation.metrics import METRICS
from distail.json_values import as_items, as_mapping, as_mappings, as_number, as_pair, as_text, read_json, value_at
from distail.report.numbers import format_cost
from distail.report.table import Table

EXPORT = "export/export.json"
"""Where a run's export lies in its folder, if it has one."""
_UNKNOWN = "–"


def metrics_shown(test: Mapping[str, object]) -> tuple[str, ...]:
    """The paths by which an exported file is put beside the student that was trained, whose metrics these are."""
    whole = (MEAN_AVERAGE_PRECISION,) if is_multi_label(test) else ("top1", BALANCED_ACCURACY)
    return (*whole, *THIRD_PATHS)


def read_export(folder: Path) -> Mapping[str, Any] | None:
    """The content of a run's `export.json`; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / EXPORT
    if not path.is_file():
        return None
    content = read_json(path)
    if not as_mappings(content.get("files")):
        raise CheckpointError(f"{path} lists no files")
    return content


def cost_table(content: Mapping[str, Any]) -> Table:
    """Size on disk, milliseconds of a call, and memory of each file."""
    files = as_mappings(content.get("files"))
    kinds = sorted({kind for file in files for kind in _latencies(file)}, key=lambda kind: (kind[1] == 0, kind))
    titles = [f"Batch {batch},\n{_threads(threads)}" for batch, threads in kinds]
    rows = []
    for file in files:
        found = _latencies(file)
        times = [found.get(kind, _UNKNOWN) for kind in kinds]
        size, peak = as_number(file.get("bytes")), as_number(file.get("peak_mb"))
        rows.append([_name(file), _megabytes(size), *times, _UNKNOWN if peak is None else f"{peak:,.0f}"])
    caption = (
        "Milliseconds per call: median and 95th percentile. Size, and peak memory of a separate process including its "
        "libraries, in units of 2**20 bytes."
    )
    return Table(["File", "Size", *titles, "Memory"], rows, caption=caption)


def parity_table(content: Mapping[str, Any]) -> Table:
    """Each file's answers beside those of the student as it was trained."""
    rows = []
    files = as_mappings(content.get("files"))
    shown = metrics_shown(as_mapping(files[0].get("test")) if files else {})
    for file in files:
        found = as_mapping(file.get("parity"))
        equal, largest = as_number(found.get("equal_answers")), as_number(found.get("largest_logit_difference"))
        metrics = [_metric(file, path) for path in shown]
        rows.append([_name(file), *metrics, _fixed(equal, 2), _UNKNOWN if largest is None else f"{largest:.1e}"])
    titles = [METRICS[path].title for path in shown]
    images, noun = as_number(content.get("images")), as_text(content.get("noun")) or "image"
    whole = "" if images is None else f" ({images:,.0f} {noun}s)"
    caption = (
        f"Percent on the test set{whole}; then the difference from the trained student in points with its 95 % "
        f"bootstrap interval over the same {noun}s. Equal predictions in percent, counting ties{_all_classes(shown)}. "
        f"{THIRDS_RULE.capitalize()}{_defined(shown)}."
    )
    return Table(["File", *titles, "Equal\nanswers", "Logits\nat most"], rows, caption=caption)


def export_notes(content: Mapping[str, Any]) -> list[str]:
    """What the probabilities are, which layers stayed in float, what could not be measured, and what was adjusted."""
    notes = []
    if thresholds := [each for each in map(as_number, as_items(content.get("thresholds"))) if each is not None]:
        least, most = min(thresholds), max(thresholds)
        reached = f"{least:g}" if least == most else f"from {least:g} to {most:g} by class"
        noun = as_text(content.get("noun")) or "image"
        notes.append(
            f"Multi-label: each probability in the files is the sigmoid of its logit, not a softmax, and an "
            f"{noun} has all classes that reach their threshold ({reached}; `thresholds` in the files' "
            "metadata)."
        )
    notes += [f"{note}." for note in map(as_text, as_items(content.get("notes"))) if note]
    if content.get("adjusted") is True:
        notes.append("All files are adjusted to other class priors than those of the training images.")
    for file in as_mappings(content.get("files")):
        layers = [name for name in as_items(file.get("float_layers")) if isinstance(name, str)]
        if isinstance(file.get("float_layers"), list):
            kept = (
                f"keeps these layers in float for the tail: {', '.join(layers)}" if layers else "has all layers in int8"
            )
            notes.append(f"{_name(file)} {kept}.")
        if reason := as_text(file.get("failed")):
            notes.append(f"{_name(file)}: time and memory could not be measured ({reason}).")
    return notes


def _defined(shown: Sequence[str]) -> str:
    return f"; {MAP_RULE}" if MEAN_AVERAGE_PRECISION in shown else ""


def _all_classes(shown: Sequence[str]) -> str:
    return ": all classes decided alike" if MEAN_AVERAGE_PRECISION in shown else ""


def _metric(file: Mapping[str, Any], path: str) -> str:
    value = as_number(value_at(file.get("test"), path))
    difference = as_mapping(as_mapping(value_at(file, "parity.differences")).get(path))
    points, interval = as_number(difference.get("difference")), as_pair(difference.get("interval"))
    if points is None:
        return _fixed(value, 1)
    if points == 0 and interval in (None, (0.0, 0.0)):
        return f"{_fixed(value, 1)}\nequal"
    around = "" if interval is None else f" ({interval[0]:+.1f} to {interval[1]:+.1f})"
    return f"{_fixed(value, 1)}\n{points:+.1f}{around}"


def _latencies(file: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    found = {}
    for each in as_mappings(file.get("latency")):
        numbers = [as_number(each.get(key)) for key in ("batch", "threads", "median_ms", "p95_ms")]
        if None not in numbers:
            batch, threads, median, p95 = (number or 0.0 for number in numbers)
            found[int(batch), int(threads)] = f"{_digits(median)} / {_digits(p95)}"
    return found


def _digits(milliseconds: float) -> str:
    digits = 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{digits}f}"


def _threads(threads: int) -> str:
    return {0: "all cores", 1: "one thread"}.get(threads, f"{threads} threads")


def _name(file: Mapping[str, Any]) -> str:
    return as_text(file.get("file")) or _UNKNOWN


def _megabytes(size: float | None) -> str:
    return _UNKNOWN if size is None else format_cost(size / 2**20)


def _fixed(value: float | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value:.{digits}f}"
