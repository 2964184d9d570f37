"""An audit of several classes per example, beside plain loops, and whether it recommends what made the bias.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import pytest
import torch

from distail.audit.multi_label import audit_multi_label
from distail.audit.multi_label_tables import multi_label_summary, multi_label_tables
from distail.evaluation.average_precision import average_precisions
from distail.functional import class_log_odds

COUNTS, SAMPLES = [500, 200, 40], 1000


def made_up(rows=400, strength=1.0, seed=0):
    """Log odds (N, C) of a teacher that knows the shares of its classes, and labels that come with these shares."""
    draw = torch.Generator().manual_seed(seed)
    target_NC = torch.rand(rows, 3, generator=draw) < torch.tensor(COUNTS) / SAMPLES
    evidence_NC = 1.5 * (2 * target_NC.double() - 1) + torch.randn(rows, 3, generator=draw, dtype=torch.float64)
    return evidence_NC + strength * class_log_odds(COUNTS, SAMPLES), target_NC


def test_figures_are_those_of_plain_loops():
    logits, target = made_up()
    found = audit_multi_label(logits, target, COUNTS, SAMPLES, class_names=["a", "b", "c"])
    for c, own in enumerate(found["classes"]):
        has = [i for i in range(len(target)) if target[i, c]]
        others = [i for i in range(len(target)) if not target[i, c]]
        assert (own["name"], own["examples"], own["training_examples"]) == ("abc"[c], len(has), COUNTS[c])
        assert own["prevalence"] == pytest.approx(100 * len(has) / len(target))
        assert own["average_precision"] == average_precisions(logits, target)[c]
        assert own["found"] == pytest.approx(100 * sum(float(logits[i, c]) >= 0 for i in has) / len(has))
        assert own["rejected"] == pytest.approx(100 * sum(float(logits[i, c]) < 0 for i in others) / len(others))
        mean = sum(float(logit.sigmoid()) for logit in logits[:, c]) / len(target)
        assert own["mean_probability"] == pytest.approx(100 * mean)
        assert found["groups"]["thirds"][own["third"]]["found"] == pytest.approx(own["found"])
    odds = class_log_odds(COUNTS, SAMPLES)
    for one in found["debias"]:
        each = []
        for c in range(3):
            repaired = logits[:, c] - one["tau"] * odds[c]
            right = [(repaired[i] >= 0) == target[i, c] for i in range(len(target))]
            shares = [
                sum(bool(right[i]) for i in range(len(target)) if bool(target[i, c]) is has)
                / sum(bool(target[i, c]) is has for i in range(len(target)))
                for has in (True, False)
            ]
            each.append(50 * sum(shares))
        assert one["average_class"] == pytest.approx(sum(each) / 3)
        assert one["tail"] == pytest.approx(each[2])


def test_a_teacher_that_knows_how_often_classes_are_there_is_debiased():
    found = audit_multi_label(*made_up(), COUNTS, SAMPLES)
    assert found["recommendation"]["method"]["targets"] == [{"name": "debias", "tau": 1.0}]
    assert found["recommendation"]["method"]["supervised"] == {"name": "bce", "tau": 1.0}
    balanced = audit_multi_label(*made_up(strength=0.0), COUNTS, SAMPLES)
    assert balanced["recommendation"]["method"] == {"name": "kd"}
    assert audit_multi_label(*made_up(), COUNTS, SAMPLES, keep_head=None)["recommendation"] is None


def test_every_number_of_the_summary_is_in_a_table():
    found = audit_multi_label(*made_up(), COUNTS, SAMPLES)
    cells = {cell for table in multi_label_tables(found) for row in table.rows for cell in row}
    said = " ".join(multi_label_summary(found))
    numbers = [word for word in said.replace(",", " ").split() if word.count(".") == 1 and word[0].isdigit()]
    assert len(numbers) > 15
    assert {number.rstrip(".") for number in numbers if not number.endswith(".")} <= cells


def test_classes_of_which_nothing_is_known_are_told():
    logits, target = made_up()
    target[:, 2] = False
    found = audit_multi_label(logits, target, COUNTS, SAMPLES)
    assert "class 2" in found["cautions"][0]
    assert found["groups"]["thirds"]["tail"]["found"] is None
    assert found["debias"][0]["tail"] is None
    assert any("-" in row for row in multi_label_tables(found)[0].rows)


def test_a_balanced_teacher_of_several_classes_is_not_debiased_again():
    found = audit_multi_label(*made_up(), COUNTS, SAMPLES, posterior="balanced")
    assert "targets" not in found["recommendation"]["method"]
    assert found["recommendation"]["method"]["supervised"] == {"name": "bce", "tau": 1.0}
    assert "twice" in multi_label_summary(found)[-1]
