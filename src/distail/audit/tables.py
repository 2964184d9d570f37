"""An audit as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from distail.audit.content import (
    AuditContent,
    ClassStatistics,
    CorrectShare,
    GroupStatistics,
    LossRatioWeights,
    PropensityWeights,
    RepairSetting,
    SwappedImages,
    TargetMove,
    WeightSpread,
)
from distail.evaluation.groups import THIRDS
from distail.report.table import Table

WORST_CLASSES = 10
NOTHING = "-"
ON_STUDENT = "student's side"

Statistic = Literal[
    "classes",
    "training_images",
    "images",
    "recall",
    "precision",
    "true_share",
    "predicted_share",
    "mean_probability",
    "accuracy",
    "wrong",
    "confidence",
    "confidence_when_wrong",
    "ece",
]
# A statistic's title, its key in the audit, and how it is written.
GROUP_ROWS: tuple[tuple[str, Statistic, str], ...] = (
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
WEIGHT_TITLES = ("Least", "10 %", "Median", "90 %", "Most", "Mean", "Relative", "Clipped")


def audit_tables(found: AuditContent, *, all_classes: bool = False) -> list[Table]:
    """Groups, the teacher adjusted, errors, top confusions, repairs, sample weights, and classes: the worst, or all."""
    confusions = _top_confusions(found)
    return [
        _groups(found),
        _adjusted(found),
        _error_flow(found),
        *([confusions] if confusions.rows else []),
        _repairs(found),
        _sample_weights(found),
        _classes(found, all_classes),
    ]


def _groups(found: AuditContent) -> Table:
    columns = [""]
    statistics: list[GroupStatistics] = []
    swapped: list[SwappedImages | None] = []
    for grouping, kind in (("thirds", "third"), ("shots", "shot")):
        for group, group_statistics in found["groups"][grouping].items():
            columns.append(f"{group.capitalize()}\n{kind}")
            statistics.append(group_statistics)
            swapped.append(found["swapped"]["groups"][grouping][group])
    columns.append("All")
    statistics.append(found["overall"])
    swapped.append(found["swapped"]["overall"])
    rows = []
    for title, name, form in GROUP_ROWS:
        rows.append([title, *(_number(part[name], form) for part in statistics)])
    rows.append(["DR-KD would swap", *(_number(part and part["share"], ".1f") for part in swapped)])
    rows.append(["that is, images", *(_number(part and part["images"], ",") for part in swapped)])
    return Table(
        columns,
        rows,
        "How biased the teacher is",
        "Percent, except classes and images. Recall and precision are means over classes; the other metrics are over "
        "images, by the class of their label. Shares: of the labels, of the predictions, and of the teacher's mean "
        "probability. Confidence: the probability of the predicted class. "
        f"{NOTHING}: not defined. {found['rules']['thirds']}; {found['rules']['shots']}.",
        cut_text=True,
    )


def _adjusted(found: AuditContent) -> Table:
    adjusted = found["adjusted"]
    rows: list[list[str]] = []
    for name, own in (("unadjusted", adjusted["before"]), (f"adjusted, tau {adjusted['tau']:g}", adjusted["after"])):
        values = (own["top1"], own["balanced_accuracy"], own["head"], own["medium"], own["tail"])
        rows.append([name, *(_number(value, ".1f") for value in values)])
    return Table(
        ["Teacher", "Top-1", "Balanced\naccuracy", "Head\nthird", "Medium\nthird", "Tail\nthird"],
        rows,
        "Logit adjustment after training",
        "Adjusted: logits - tau * log(class prior); prior: class share of the training data. This needs no training, "
        "so compare repairs with it. For a teacher that was trained for balanced classes it corrects twice.",
        cut_text=True,
    )


def _error_flow(found: AuditContent) -> Table:
    rows = []
    for name, part in found["errors"]["flow"].items():
        shares = [None if part is None else part[into] for into in ("correct", *THIRDS)]
        rows.append([f"{name.capitalize()} third", *(_number(share, ".1f") for share in shares)])
    tail_errors = found["errors"]["tail_errors"]
    rows.append(["The tail's errors", NOTHING, *(_number(tail_errors[name], ".1f") for name in THIRDS)])
    return Table(
        ["Percent of its images", "Right", "Wrong,\nin head", "Wrong,\nin medium", "Wrong,\nin tail"],
        rows,
        "Predictions for the images of each third",
        "Last line: only the errors on tail images.",
        cut_text=True,
    )


def _top_confusions(found: AuditContent) -> Table:
    rows = []
    for confusion in found["errors"]["swallowers"]:
        named = found["classes"][confusion["class"]]
        rows.append(
            [
                named["name"],
                named["third"],
                _number(named["training_images"], ","),
                _number(confusion["errors"], ","),
                _number(confusion["share"], ".1f"),
            ]
        )
    return Table(
        ["Class", "Third", "Training\nimages", "Errors on\ntail images", "Percent\nof them"],
        rows,
        "Most frequent wrong predictions for tail images",
        "The ten classes at most that tail images are most often taken for.",
        text_columns=frozenset({0, 1}),
        cut_text=True,
    )


def _repairs(found: AuditContent) -> Table:
    before: Iterable[CorrectShare | None] = found["before"]["groups"]["thirds"].values()
    rows = [["none", *[NOTHING] * 4, *(_number(part and part["right"], ".1f") for part in before)]]
    settings, reconstructions = [], []
    for name, repair in found["repairs"].items():
        moves: list[TargetMove | None] = list(repair["groups"]["thirds"].values())
        if all(setting["student_side"] for setting in repair["settings"]):
            moves = [None] * len(moves)
        rows.append(
            [
                f"{name}: {' + '.join(map(_entry, repair['settings']))}",
                f"{repair['temperature']:g}",
                *(_number(move and move["loss"], ".2f") for move in moves),
                *(_number(move and move["right"], ".1f") for move in moves),
            ]
        )
        parts = [_parameters(setting, alone=len(repair["settings"]) == 1) for setting in repair["settings"]]
        if any(parts):
            settings.append(f"{name} {', '.join(filter(None, parts))}")
        if repair["reconstruction"]:
            reconstructions.append(
                f" A reconstruction, not the authors' own: {name} (`distail methods {name}`: which choices are ours)."
            )
    acts = any(setting["student_side"] for repair in found["repairs"].values() for setting in repair["settings"])
    on_student = f" An entry on the {ON_STUDENT} changes the student's logits, not the targets." if acts else ""
    return Table(
        ["Method: its repair", "T", *(f"Moves\n{name}" for name in THIRDS), *(f"Right\n{name}" for name in THIRDS)],
        rows,
        "What each method's repair would do to the targets",
        "Moves: T^2 times the mean KL(repaired || original) of the targets at temperature T, i.e. the loss of a "
        "student that copies the teacher. Right: percent of images whose repaired target favors the label; swap uses "
        f"the label itself.{on_student} Settings: {'; '.join(settings)}.{''.join(reconstructions)}",
        cut_text=True,
    )


def _sample_weights(found: AuditContent) -> Table:
    ipwd, wsld = found["sample_weights"]["ipwd"], found["sample_weights"]["wsld"]
    limit = ipwd["max_weight"]
    clip = "not clipped" if limit is None else f"after the clip at {limit:g}"
    raw = "" if ipwd["standardize_logits"] else "logits as they are, "
    return Table(
        ["Weights", *WEIGHT_TITLES],
        [*_weight_rows("ipwd", ipwd), *_weight_rows("wsld", wsld)],
        "Spread of the sample weights",
        f"ipwd: {ipwd['ratio']}, {raw}{clip}; before normalization to a batch mean of 1. Relative: the mean divided by "
        f"that of all images. ipwd: {ipwd['meaning']}. wsld: {wsld['meaning']}.",
        cut_text=True,
    )


def _weight_rows(method: str, weights: PropensityWeights | LossRatioWeights) -> list[list[str]]:
    if weights["overall"] is None or weights["groups"] is None:
        return []
    spreads: Mapping[str, WeightSpread | None] = {**weights["groups"]["thirds"], "all": weights["overall"]}
    rows = []
    for name, spread in spreads.items():
        if spread is None:
            continue
        numbers = [spread[level] for level in ("min", "p10", "median", "p90", "max", "mean", "relative")]
        cells = [*(_number(number, ".2f") for number in numbers), _number(spread["clipped_share"], ".1f")]
        rows.append([f"{method}, {name}", *cells])
    return rows


def _classes(found: AuditContent, all_classes: bool) -> Table:
    classes = found["classes"]
    measured = [(row["recall"], row["training_images"], row) for row in classes if row["recall"] is not None]
    worst = [row for *_, row in sorted(measured, key=lambda entry: entry[:2])[:WORST_CLASSES]]
    shown = classes if all_classes else worst
    hidden = len(classes) - len(shown)
    if all_classes:
        title = "Every class"
    else:
        title = f"The {len(shown)} classes with the lowest recall" if hidden else "Every class, the lowest recall first"
    return Table(
        ["Class", "Train", "Here", "Recall", "Prec.", "True", "Prob.", "Errors", "go to"],
        [_class_row(row, classes) for row in shown],
        title,
        "Train, here: images of the training set and of this audit. Recall, precision, true share of the images and "
        "the teacher's mean probability in percent. Errors go to: the class that most of a class's errors name, and "
        f"how many do.{f' --all-classes shows the other {hidden:,}.' if hidden else ''}",
        text_columns=frozenset({0, 8}),
        cut_text=True,
    )


def _class_row(row: ClassStatistics, classes: Sequence[ClassStatistics]) -> list[str]:
    into = row["errors_go_to"]
    return [
        row["name"],
        _number(row["training_images"], ","),
        _number(row["images"], ","),
        _number(row["recall"], ".1f"),
        _number(row["precision"], ".1f"),
        _number(row["true_share"], ".2f"),
        _number(row["mean_probability"], ".2f"),
        NOTHING if into is None else _number(into["errors"], ","),
        NOTHING if into is None else classes[into["class"]]["name"],
    ]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _entry(setting: RepairSetting) -> str:
    return f"{setting['entry']} ({ON_STUDENT})" if setting["student_side"] else setting["entry"]


def _parameters(setting: RepairSetting, *, alone: bool) -> str:
    """Those of an entry, which is named where there are others."""
    written = ", ".join(f"{key} {_value(value)}" for key, value in setting["parameters"].items())
    return f"{setting['entry']} {written}" if written and not alone else written


def _value(parameter: object) -> str:
    is_number = isinstance(parameter, int | float) and not isinstance(parameter, bool)
    return f"{parameter:g}" if is_number else str(parameter)
