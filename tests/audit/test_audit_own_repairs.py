"""The audit of an experiment's own target repairs: entries of a user's code, twice the same one, the student's side."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from distail.audit.from_file import AuditInput
from distail.audit.tables import audit_tables
from distail.audit.target_repairs import repair_of
from distail.errors import MethodError
from distail.functional import swap_rectify
from distail.methods.context import Requirements

COUNTS = (60, 20, 4)


def audited(method):
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(90) % 3
    logits = torch.randn(90, 3, generator=draw) + torch.tensor([1.0, 0.0, -1.0])
    return AuditInput("x", "y", "train", "z", logits, target, COUNTS, method=method).audit()


def repairs_table(report):
    return next(table for table in audit_tables(report) if table.columns[0] == "Method: its repair")


@pytest.fixture
def mypaper(monkeypatch):
    module = ModuleType("mypaper")

    def sharpen(context, logits, *, power=2.0, mode=None):
        return power * logits

    def narrow(context, logits):
        return logits[:, :1]

    class Gate(torch.nn.Module):
        needs = Requirements(student_features=True)

        def __init__(self, setup):
            super().__init__()

        def forward(self, context, logits):
            return logits * context.student.features.norm(dim=1, keepdim=True)

    module.sharpen, module.narrow, module.Gate = sharpen, narrow, Gate
    monkeypatch.setitem(sys.modules, "mypaper", module)


def test_an_entry_of_ones_own_may_return_a_plain_tensor(mypaper):
    method = {"targets": ["swap", {"name": "mypaper:sharpen", "power": 1.5}], "temperature": 2.0}
    found = audited(method)
    entry = found["repairs"]["composition"]
    assert entry["overall"]["right"] == 100.0
    logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1])
    outputs = repair_of(method, COUNTS)(logits, target)
    assert torch.equal(outputs[-1].values, 1.5 * swap_rectify(logits, target))
    assert "mypaper:sharpen power 1.5, mode None" in repairs_table(found).caption
    with pytest.raises(MethodError, match="one row of logits"):
        audited({"targets": "mypaper:narrow"})


def test_a_repair_that_reads_features_is_left_out(mypaper):
    assert "composition" not in audited({"targets": ["swap", "mypaper:Gate"]})["repairs"]


def test_entries_with_the_same_parameter_are_both_told():
    found = audited({"targets": [{"name": "debias", "tau": 0.5}, {"name": "debias", "tau": 0.25}]})
    settings = found["repairs"]["composition"]["settings"]
    assert [setting["parameters"]["tau"] for setting in settings] == [0.5, 0.25]
    caption = repairs_table(found).caption
    assert "debias tau 0.5" in caption
    assert "debias tau 0.25" in caption


@pytest.mark.parametrize("targets", ["standardize", ["standardize", "debias"], ["debias", "standardize"]])
def test_a_chain_that_changes_both_sides_is_not_shown_in_part(targets):
    assert "composition" not in audited({"targets": targets})["repairs"]


def test_a_repair_on_the_students_side_shows_no_moves_of_targets():
    found = audited({"targets": {"name": "debias", "side": "student"}})
    row = repairs_table(found).rows[-1]
    assert row[0] == "composition: debias (student's side)"
    assert set(row[2:]) == {"-"}
    assert found["repairs"]["composition"]["overall"]["kl"] == 0.0
    assert any("composition" in sentence and "student's logits" in sentence for sentence in found["summary"])
    mixed = audited({"targets": ["swap", {"name": "debias", "side": "student"}]})
    assert [setting["student_side"] for setting in mixed["repairs"]["composition"]["settings"]] == [False, True]
    assert "-" not in repairs_table(mixed).rows[-1][2:]
