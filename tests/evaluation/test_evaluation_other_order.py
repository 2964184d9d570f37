"""Networks that count the classes in another order, and those that are only bad or biased."""

from __future__ import annotations

import pytest
import torch

from distail.evaluation.other_order import find_other_order

COUNTS = [400, 200, 100, 60, 40, 30, 20, 16, 12, 10, 8, 6]
NAMES = [str(number) for number in range(1, 13)]
AS_TEXT = sorted(range(12), key=lambda c: NAMES[c])


def answers(accuracy=0.9, *, biased=False, seed=0):
    """Logits and labels of a network that is right on a share of the images, and else names any class or the head."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.repeat_interleave(torch.arange(12), torch.tensor(COUNTS))
    target = target[torch.randperm(len(target), generator=generator)]
    wrong = torch.rand(len(target), generator=generator) > accuracy
    others = torch.randint(0, 2 if biased else 12, (len(target),), generator=generator)
    return torch.eye(12)[torch.where(wrong, others, target)], target


def permuted(logits, order):
    """The same answers of a network whose output k stands for class order[k]."""
    return logits[:, torch.tensor(order)]


def test_names_sorted_as_text_are_recognized():
    logits, target = answers()
    found = find_other_order(permuted(logits, AS_TEXT), target, NAMES)
    assert (found.known_as, list(found.order)) == ("text", AS_TEXT)
    assert found.after > 85 > 60 > found.before
    said = found.sentence("the teacher", NAMES)
    assert "data.class_order: text" in said
    assert "'1', '10', '11', '12'" in said


@pytest.mark.parametrize("accuracy", [0.4, 0.9, 1.0])
def test_any_order_is_found(accuracy):
    logits, target = answers(accuracy)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    found = find_other_order(permuted(logits, order), target, NAMES)
    assert found.known_as is None
    assert list(found.order[order.index(0) :][:1]) == [0]
    assert found.after > 2 * found.before
    said = found.sentence("the teacher", NAMES)
    assert "data.class_order" in said
    assert [name for name in NAMES if repr(name) not in said] == []


def test_two_classes_that_are_exchanged():
    logits, target = answers()
    order = [1, 0, *range(2, 12)]
    assert list(find_other_order(permuted(logits, order), target, NAMES).order) == order


def test_labels_of_a_file_that_count_from_one():
    logits, target = answers()
    some = target < 11
    found = find_other_order(logits[some], target[some] + 1, NAMES)
    assert found.known_as == "from 1"
    assert "subtract 1" in found.sentence("the network", NAMES, from_file=True)


@pytest.mark.parametrize("accuracy", [0.0, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_network_that_is_bad_or_biased_has_no_other_order(accuracy, biased, seed):
    assert find_other_order(*answers(accuracy, biased=biased, seed=seed), NAMES) is None


def test_a_network_that_always_says_the_same():
    _, target = answers()
    for c in range(12):
        assert find_other_order(torch.eye(12)[torch.full_like(target, c)], target, NAMES) is None


def test_one_image_a_class_tells_nothing():
    classes = 3000
    names = [f"{c:05d}" for c in range(classes)]
    generator = torch.Generator().manual_seed(0)
    target, said = torch.arange(classes), torch.randint(0, classes, (classes,), generator=generator)
    said = torch.where(torch.rand(classes, generator=generator) < 0.3, target, said)
    assert find_other_order(torch.nn.functional.one_hot(said, classes).float(), target, names) is None
