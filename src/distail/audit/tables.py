"""An audit as tables of text, the same for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distail.evaluation.groups import THIRDS

WORST_CLASSES = 10
NOTHING = "-"

# A figure's title, its name in the audit, and how it is written.
GROUP_ROWS: tuple[tuple[str, str, str], ...] = (
    ("Classes", "classes", ","),
    ("Training images", "training_images", ","),
    ("Images here", "images", ","),
    ("Recall", "recall", ".1f"),
    ("Precision", "precision", ".1f"),
    ("True share", "true_share", ".1f"),
    ("Predicted share", "predicted_share", ".1f"),
    ("Mean probability", "mean_probability", ".1f"),
    ("Right", "accuracy", ".1f"),
    ("Wrong", "wrong", ".1f"),
    ("Confidence", "confidence", ".1f"),
    ("Confidence, if wrong", "confidence_when_wrong", ".1f"),
    ("ECE (calibration)", "ece", ".1f"),
)
WEIGHT_COLUMNS = ("min", "p10", "median", "p90", "max", "mean", "relative")


@dataclass(frozen=True)
class AuditTable:
    """A title, column titles (a line break where they may be broken), rows of text, and what the numbers are."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str
    text_columns: frozenset[int] = frozenset({0})


def audit_tables(found: Mapping[str, Any], *, all_classes: bool = False) -> list[AuditTable]:
    """Groups, where errors go, who swallows the tail, repairs, sample weights, and classes: the worst, or all."""
    return [
        *_groups(found),
        *_flow(found),
        *_swallowers(found),
        _repairs(found),
        _weights(found),
        _classes(found, all_classes),
    ]


def _groups(found: Mapping[str, Any]) -> Iterator[AuditTable]:
    parts = {
        f"{group.capitalize()}\n{grouping}": found["groups"][plural][group]
        for plural, grouping in (("thirds", "third"), ("shots", "shot"))
        for group in found["groups"][plural]
    }
    parts["All"] = found["overall"]
    rows = [(title, *(_number(part[name], form) for part in parts.values())) for title, name, form in GROUP_ROWS]
    swapped = [part for groups in found["swapped"]["groups"].values() for part in groups.values()]
    swapped.append(found["swapped"]["overall"])
    rows.append(("DR-KD would swap", *(_number(part and part["share"], ".1f") for part in swapped)))
    rows.append(("that is, images", *(_number(part and part["images"], ",") for part in swapped)))
    yield AuditTable(
        "How biased the teacher is",
        ("", *parts),
        rows,
        "Percent, but for classes and images. Recall and precision are means over classes, the rest is over images, by "
        "the class of their label. Shares: of the labels, of the first choices, and of the probability that the "
        "teacher gives. Confidence: the probability of its first choice. "
        f"{NOTHING}: nothing to measure. {found['rules']['thirds']}; {found['rules']['shots']}.",
    )


def _flow(found: Mapping[str, Any]) -> Iterator[AuditTable]:
    flow = found["errors"]["flow"]
    rows = [
        (f"{name.capitalize()} third", *(_number(part and part[into], ".1f") for into in ("correct", *THIRDS)))
        for name, part in flow.items()
    ]
    into = found["errors"]["tail_errors"]
    rows.append(("The tail's errors", NOTHING, *(_number(into[name], ".1f") for name in THIRDS)))
    yield AuditTable(
        "Where the images of each third end",
        ("Percent of its images", "Right", "Wrong,\nin head", "Wrong,\nin medium", "Wrong,\nin tail"),
        rows,
        "The last line: of the errors on tail images alone.",
    )


def _swallowers(found: Mapping[str, Any]) -> Iterator[AuditTable]:
    classes = found["classes"]
    rows: list[tuple[str, ...]] = [
        (
            classes[one["class"]]["name"],
            classes[one["class"]]["third"],
            _number(classes[one["class"]]["training_images"], ","),
            _number(one["errors"], ","),
            _number(one["share"], ".1f"),
        )
        for one in found["errors"]["swallowers"]
    ]
    if rows:
        yield AuditTable(
            "Which classes swallow the tail",
            ("Class", "Third", "Training\nimages", "Errors on\ntail images", "Percent\nof them"),
            rows,
            "The classes that most of the errors on tail images name.",
            frozenset({0, 1}),
        )


def _repairs(found: Mapping[str, Any]) -> AuditTable:
    before = found["before"]["groups"]["thirds"]
    rows = [("none", NOTHING, *([NOTHING] * 3), *(_number(part and part["right"], ".1f") for part in before.values()))]
    for name, repair in found["repairs"].items():
        parts = repair["groups"]["thirds"].values()
        rows.append(
            (
                f"{name}: {' + '.join(repair['entries'])}",
                f"{repair['temperature']:g}",
                *(_number(part and part["loss"], ".2f") for part in parts),
                *(_number(part and part["right"], ".1f") for part in parts),
            )
        )
    settings = "; ".join(
        f"{name} {', '.join(f'{key} {value:g}' for key, value in repair['parameters'].items())}"
        for name, repair in found["repairs"].items()
        if repair["parameters"]
    )
    names = [name for name, repair in found["repairs"].items() if repair["reconstruction"]]
    ours = "".join(
        f" A reconstruction, not the authors' own: {name} (`distail methods {name}`: which choices are ours)."
        for name in names
    )
    return AuditTable(
        "What each method's repair would do to the targets",
        (
            "Method: its repair",
            "T",
            *(f"Moves\n{name}" for name in THIRDS),
            *(f"Right\n{name}" for name in THIRDS),
        ),
        rows,
        "Moves: T^2 times the mean KL(repaired || original) of the targets at temperature T, which is the loss that "
        "the repair charges a student that copies the teacher. Right: percent of images whose target then favours the "
        f"label; swap uses the label itself. Settings: {settings}.{ours}",
    )


def _weights(found: Mapping[str, Any]) -> AuditTable:
    weights = found["sample_weights"]
    rows = [
        (f"{method}, {name}", *(_number(part[figure], ".2f") for figure in WEIGHT_COLUMNS), _clipped(part))
        for method, entry in weights.items()
        if entry["overall"] is not None
        for name, part in [*entry["groups"]["thirds"].items(), ("all", entry["overall"])]
        if part is not None
    ]
    meanings = " ".join(f"{method}: {entry['meaning']}." for method, entry in weights.items())
    limit = weights["ipwd"]["max_weight"]
    clip = "not clipped" if limit is None else f"after the clip at {limit:g}"
    raw = "" if weights["ipwd"]["standardize_logits"] else "logits as they are, "
    return AuditTable(
        "How unevenly images would be weighed",
        ("Weights", "Least", "10 %", "Median", "90 %", "Most", "Mean", "Relative", "Clipped"),
        rows,
        f"ipwd: {weights['ipwd']['ratio']}, {raw}{clip}; before the batch mean is made 1. Relative: the mean over that "
        f"of all images. {meanings}",
    )


def _clipped(part: Mapping[str, Any]) -> str:
    return _number(part["clipped_share"], ".1f")


def _classes(found: Mapping[str, Any], all_classes: bool) -> AuditTable:
    classes: Sequence[Mapping[str, Any]] = found["classes"]
    measured = [row for row in classes if row["recall"] is not None]
    shown = classes if all_classes else sorted(measured, key=_worst_first)[:WORST_CLASSES]
    hidden = len(classes) - len(shown)
    worst = "Every class, the lowest recall first" if not hidden else f"The {len(shown)} classes with the lowest recall"
    return AuditTable(
        "Every class" if all_classes else worst,
        (
            "Class",
            "Train",
            "Here",
            "Recall",
            "Prec.",
            "True",
            "Prob.",
            "Errors",
            "go to",
        ),
        [_class_row(row, classes) for row in shown],
        "Train, here: images of the training set and of this audit. Recall, precision, true share of the images and "
        "the teacher's mean probability in percent. Errors go to: the class that most of a class's errors name, and "
        f"how many do.{f' --all-classes shows the other {hidden:,}.' if hidden else ''}",
        frozenset({0, 8}),
    )


def _worst_first(row: Mapping[str, Any]) -> tuple[float, int]:
    return row["recall"], row["training_images"]


def _class_row(row: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    into = row["errors_go_to"]
    return (
        row["name"],
        _number(row["training_images"], ","),
        _number(row["images"], ","),
        _number(row["recall"], ".1f"),
        _number(row["precision"], ".1f"),
        _number(row["true_share"], ".2f"),
        _number(row["mean_probability"], ".2f"),
        *((NOTHING, NOTHING) if into is None else (_number(into["errors"], ","), classes[into["class"]]["name"])),
    )


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
