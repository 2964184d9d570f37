"""An audit of several classes per example, as tables and in words."""

from __future__ import annotations

from distail.audit.multi_label import Behavior, Debiased, MultiLabelAudit, MultiLabelRecommendation
from distail.audit.tables import NOTHING, WORST_CLASSES
from distail.evaluation.groups import THIRDS
from distail.evaluation.headline import MAP
from distail.report.table import Table

_ROWS = ("average_precision", "prevalence", "mean_probability", "found", "rejected")
_TITLES = ("Average precision", "Has it", "Mean probability", "Found", "Rejected")
_MEANS = (
    "Has it: share of the examples here. Mean probability: the teacher's. Found: share of the examples of a class with "
    "a probability of at least 0.5. Rejected: share of the other examples below it"
)


def multi_label_tables(found: MultiLabelAudit, *, all_classes: bool = False) -> list[Table]:
    """Groups, what each debias would decide, and classes: the worst, or all."""
    return [_groups(found), _debias(found), _classes(found, all_classes)]


def multi_label_summary(found: MultiLabelAudit) -> list[str]:
    """Sentences whose every number is in the audit."""
    thirds = found["groups"]["thirds"]
    sentences = [
        f"{MAP} {_number(found['overall']['average_precision'])} %: {_by_third(thirds, 'average_precision')}.",
        f"At a threshold of one half it finds {_by_third(thirds, 'found')} of the examples of a class, and rejects "
        f"{_by_third(thirds, 'rejected')} of the other examples.",
        f"Its mean probability of a class is {_by_third(thirds, 'mean_probability')}; the share of examples that have "
        f"it is {_by_third(thirds, 'prevalence')}.",
    ]
    return [*sentences, _sentence(found["recommendation"])] if found["recommendation"] else sentences


def _sentence(found: MultiLabelRecommendation) -> str:
    before, after = found["before"], found["after"]
    if "name" not in found["method"] and after["tau"] == 0:
        return (
            "Recommended: unchanged targets, with bce of tau 1 for the labels. The teacher already aims at equal class "
            "frequencies, and a debias would remove them twice. The targets decide correctly in "
            f"{_number(before['average_class'])} % of an average class."
        )
    if after["tau"] == 0:
        return (
            f"Recommended: kd. No debias that keeps {found['keep_head']:g} % of the head makes the targets correct "
            f"more often in an average class ({_number(before['average_class'])} % without debias)."
        )
    moved = [f"from {_number(before['average_class'])} to {_number(after['average_class'])} % in an average class"]
    moved += [f"from {_number(was)} to {_number(now)} % in the {name}" for name, was, now in _pairs(before, after)]
    return (
        f"Recommended: debias with tau {after['tau']:g}, and bce with the same tau. The share of correct decisions of "
        f"the targets at one half goes {', '.join(moved)}, with positive and negative examples weighted equally. No "
        "training was used to find this: it is a first choice to try."
    )


def _pairs(before: Debiased, after: Debiased) -> list[tuple[str, float | None, float | None]]:
    each = (("head", before["head"], after["head"]), ("medium", before["medium"], after["medium"]))
    return [one for one in (*each, ("tail", before["tail"], after["tail"])) if one[1] is not None]


def _by_third(thirds: dict[str, Behavior], key: str) -> str:
    return ", ".join(f"{_number(_value(thirds[name], key))} % in the {name}" for name in THIRDS if name in thirds)


def _groups(found: MultiLabelAudit) -> Table:
    groups = found["groups"]
    columns = [
        f"{name.capitalize()}\n{kind}" for kind, own in (("third", "thirds"), ("shot", "shots")) for name in groups[own]
    ]
    parts = [part for own in ("thirds", "shots") for part in groups[own].values()]
    rows = [
        [title, *(_number(_value(part, key)) for part in (*parts, found["overall"]))]
        for title, key in zip(_TITLES, _ROWS, strict=True)
    ]
    return Table(
        ["", *columns, "All"],
        rows,
        "How the teacher treats classes",
        f"Percent, means over classes; the mean of average precision is {MAP}. {_MEANS}. {NOTHING}: not "
        f"defined. {found['rules']['thirds']}; {found['rules']['shots']}.",
        cut_text=True,
    )


def _debias(found: MultiLabelAudit) -> Table:
    rows = [
        [f"debias {one['tau']:g}" if one["tau"] else "unchanged"]
        + [_number(each) for each in (one["average_class"], one["head"], one["medium"], one["tail"])]
        for one in sorted(found["debias"], key=lambda one: one["tau"])
    ]
    return Table(
        ["Targets", "Average\nclass", "Head\nthird", "Medium\nthird", "Tail\nthird"],
        rows,
        "What debias would do to the targets",
        "Percent of correct decisions of the targets at 0.5, with positive and negative examples weighted equally. The "
        "log odds of each class in the training data, times tau, are subtracted from the teacher's logits. This does "
        "not change the ranking of examples, and so not the average precision.",
        cut_text=True,
    )


def _classes(found: MultiLabelAudit, all_classes: bool) -> Table:
    classes = found["classes"]
    measured = [
        (one["average_precision"], row) for row, one in enumerate(classes) if one["average_precision"] is not None
    ]
    chosen = list(range(len(classes))) if all_classes else [row for _, row in sorted(measured)[:WORST_CLASSES]]
    hidden = len(classes) - len(chosen)
    rows = [
        [one["name"], one["third"], f"{one['training_examples']:,}", f"{one['examples']:,}"]
        + [_number(_value(one, key)) for key in _ROWS]
        for one in (classes[row] for row in chosen)
    ]
    title = "Every class" if all_classes else f"The {len(rows)} classes with the lowest average precision"
    more = f" --all-classes shows the other {hidden:,}." if hidden else ""
    return Table(
        ["Class", "Third", "Train", "Here", "AP", "Has it", "Prob.", "Found", "Rej."],
        rows,
        title if hidden or all_classes else "Every class, lowest average precision first",
        f"Train, here: positive examples in the training set and in this audit. {_MEANS}.{more}",
        text_columns=frozenset({0, 1}),
        cut_text=True,
    )


def _value(part: Behavior, key: str) -> float | None:
    value: float | None = dict(part).get(key)  # type: ignore[assignment]
    return value


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"
