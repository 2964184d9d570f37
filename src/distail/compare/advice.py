"""The first sentences of a comparison: which student to ship, what it brings the rare classes and costs the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from distail.compare.content import ComparisonContent, DifferenceContent
from distail.compare.metrics import decides, of_multi_label
from distail.errors import enumerated
from distail.evaluation.adjustment import adjusted_name
from distail.evaluation.bootstrap_multi_label import FEWEST
from distail.evaluation.groups import HEAD, MEDIUM, TAIL
from distail.evaluation.headline import HEADLINE_WORDS, MAP
from distail.evaluation.significance import OVER_IMAGES


def advice(content: ComparisonContent) -> list[str]:
    """A recommendation in words for people who read no table; nothing where no student has been measured.

    The student with the best mean balanced accuracy, or mean average precision, is recommended where its difference
    from the baseline is more than the noise of test images, else nothing beyond the baseline is. Those of other seeds
    than the baseline's are named: a mean over other seeds is another mean.
    """
    baseline, decisive = content["baseline"], decides(content)
    rows = [name for label in content["methods"] for name in (label, adjusted_name(label))]
    seeds_of = {name: set(content["figures"][name][decisive]["values"]) for name in rows if name in content["figures"]}
    known = {}
    for name, seeds in seeds_of.items():
        if seeds == seeds_of.get(baseline) and (mean := _mean(content, name, decisive)) is not None:
            known[name] = mean
    if baseline not in known or len(known) < 2:
        return []
    sentences = _choice(content, known, len(seeds_of[baseline]))
    if others := [f'"{name}"' for name in seeds_of if name not in known]:
        sentences.append(f"Left out of this choice, since runs are missing: {', '.join(others)}.")
    return sentences


def _choice(content: ComparisonContent, known: Mapping[str, float], seeds: int) -> list[str]:
    """The recommendation out of rows whose means, over so many seeds, are known; the baseline is one of them."""
    baseline, decisive = content["baseline"], decides(content)
    best = max(known, key=lambda name: known[name])
    if best == baseline:
        return [f"Use {baseline}: no other student is better in an average class ({HEADLINE_WORDS[decisive]})."]
    over_images = _difference_from(content, best, baseline)
    drawn = "one seed, so other seeds may differ" if seeds == 1 else f"mean over {seeds} seeds"
    if over_images is None or over_images["p_corrected"] is None:
        if over_images is None:
            how = "; a method of its own, such as --methods 'kd-adjusted: {name: kd, adjust: 1}', is"
            why = f"this difference was not tested against noise{'' if best in content['methods'] else how}"
        else:
            why = f"it was not tested against the noise of the test images, since a class has fewer than {FEWEST}"
        return [
            f"The best in an average class is {best} ({known[best]:.1f} %, {baseline} {known[baseline]:.1f} %; "
            f"{drawn}), but {why}."
        ]
    if over_images["inside_noise"]:
        return [
            f"Keep {baseline}: {best} is the best in an average class ({known[best]:.1f} % against "
            f"{known[baseline]:.1f} %), but the difference is within the noise of the test images."
        ]
    gains = [
        f"the {name} third from {then:.1f} to {now:.1f} %"
        for name, metric in (("rarest", TAIL), ("medium", MEDIUM), ("most frequent", HEAD))
        if (then := _mean(content, baseline, metric)) is not None and (now := _mean(content, best, metric)) is not None
    ]
    reached, of_a_class = ("it recognizes", " of an average class")
    if of_multi_label(content):
        reached, of_a_class = (f"its {MAP} is", "")
    sentences = [
        f"Use {best}: {reached} {known[best]:.1f} %{of_a_class}, {baseline} {known[baseline]:.1f} %; "
        f"more than the noise of the test images, {drawn}. It was selected on the same test images: expect slightly "
        "less.",
    ]
    if gains:
        sentences.append(f"Compared with {baseline}, it changes {enumerated(gains)}.")
    return sentences


def teacher_behind(content: ComparisonContent, without_teacher: Collection[str]) -> list[str]:
    """That the shared teacher has little to teach: with the class priors removed from both, it is worse than a student
    that had no teacher, by more than the noise of test images, and no student that it taught is better than all others.

    Args:
        without_teacher: the labels of the methods that use none.
    """
    teacher, decisive = adjusted_name("teacher"), decides(content)
    alone = {name for label in without_teacher for name in (label, adjusted_name(label))}
    students = [name for label in content["methods"] for name in (label, adjusted_name(label))]
    means = {name: _mean(content, name, decisive) or 0.0 for name in students if name in content["figures"]}
    if not means or max(means, key=means.__getitem__) not in alone:
        return []
    for one in content["beyond_adjusting"]:
        of_images = one["figure"] == decisive and one["over"] == OVER_IMAGES
        sure = one["difference"] > 0 and one["p_corrected"] is not None and not one["inside_noise"]
        if one["against"] == teacher and of_images and sure and one["method"] in alone:
            student = one["method"]
            behind, ahead = (f"{_mean(content, label, decisive):.1f} %" for label in (teacher, student))
            return [
                f"The teacher has little to teach here: logits adjusted, it has {behind} {HEADLINE_WORDS[decisive]}, "
                f'and "{student}", which has no teacher, {ahead}. A repair takes out a bias, not what the teacher has '
                "not learned; compare more methods without a teacher (balanced_softmax), or take a better one."
            ]
    return []


def _mean(content: ComparisonContent, label: str, metric: str) -> float | None:
    return content["figures"][label][metric]["mean"]


def _difference_from(content: ComparisonContent, best: str, baseline: str) -> DifferenceContent | None:
    """The difference in what decides, over test images, whichever way round it stands in the comparison."""
    entries = [*content["differences"], *content["beyond_adjusting"]]
    for one in entries:
        pair = {one["method"], one.get("against", content["baseline"])}
        if one["figure"] == decides(content) and one["over"] == OVER_IMAGES and pair == {best, baseline}:
            return one
    return None
