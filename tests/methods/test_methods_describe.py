"""What is said about every method before it is used."""

from __future__ import annotations

import pytest
import torch

from distail import create_method, list_methods
from distail.errors import MethodError
from distail.methods import SLOTS, describe_method
from distail.methods.presets import check_method, read_composition
from helpers.method_cases import CASES, example


@pytest.mark.parametrize("name", list_methods())
def test_a_row_says_what_to_cite_and_what_it_computes(name):
    row = list_methods()[name]
    assert row.title
    assert row.paper
    assert row.formula.startswith("L = ")
    assert row.arxiv or name in ("ce", "distail")  # a baseline, and ours
    assert row.title in str(row)
    for slot, entries in row.slots.items():
        assert set(entries) <= set(SLOTS[slot])


@pytest.mark.parametrize("name", list_methods())
def test_a_description_lists_every_parameter_that_the_method_takes_with_its_default(name):
    description = describe_method(name)
    own = {each.name: each.default for each in description.parameters if "previous_epoch" not in each.owner}
    method = create_method(name, class_counts=[9, 5, 1], student_dim=4, teacher_dim=5)
    same = create_method(name, class_counts=[9, 5, 1], student_dim=4, teacher_dim=5, **own)
    assert same.extra_repr() == method.extra_repr()
    constants = [value for key, value in method.state_dict().items() if "value" in key]
    assert all(
        torch.equal(a, b)
        for a, b in zip(constants, [v for k, v in same.state_dict().items() if "value" in k], strict=True)
    )
    text = str(description)
    assert all(each.name in text for each in description.parameters)
    assert all(len(line) < 200 for line in text.splitlines())


@pytest.mark.parametrize("case", CASES)
def test_a_composition_says_what_the_method_that_is_built_of_it_needs_and_answers(case):
    composition = read_composition(CASES[case])
    method, call = example(case)
    assert composition.needs == method.needs
    assert composition.terms == tuple(method(call.student, call.teacher, call.target, index=call.index))


def test_a_parameter_may_take_back_what_an_entry_needs():
    prior = {"name": "balanced_prototypes", "assignment": "identity"}
    method = create_method({"representation": prior}, class_counts=[3, 2], student_dim=2, teacher_dim=2)
    assert read_composition({"representation": prior}).needs.class_means
    assert not method.needs.class_means


@pytest.mark.parametrize("wrong", [{"name": "kdd"}, {"name": "bkd", "beta": 2.0}, {"name": "kd", "temperature": 0}])
def test_a_method_is_checked_without_its_classes(wrong):
    state = torch.get_rng_state()
    with pytest.raises(MethodError, match=str(list(wrong.values())[-1])):
        check_method(wrong)
    check_method("ipwd")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", list_methods())
def test_provenance_is_marked(name):
    for line in list_methods()[name].provenance:
        assert line.startswith(("[code", "[paper", "[note", "[ours"))
    assert list_methods()[name].provenance or name == "ce"


def test_krdistill_says_everywhere_that_it_is_a_reconstruction():
    assert list_methods()["krdistill"].reconstruction
    assert "reconstruction" in str(describe_method("krdistill"))
    assert "reconstruction" in str(list_methods()["krdistill"]).lower()
    assert "reconstruction" in SLOTS["representation"]["balanced_prototypes"].__doc__
    assert not any(row.reconstruction for name, row in list_methods().items() if name != "krdistill")


@pytest.mark.parametrize("slot", SLOTS)
def test_every_entry_documents_itself_and_each_of_its_parameters(slot):
    import inspect

    for entry in SLOTS[slot].values():
        assert entry.__doc__
        for parameter in list(inspect.signature(entry).parameters)[1:]:
            assert f"{parameter}:" in entry.__doc__, f"{entry.__name__} does not say what {parameter} is"


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(MethodError, match=r"'krdistil'.*'krdistill'"):
        describe_method("krdistil")


@pytest.mark.parametrize("name", [name for name, row in list_methods().items() if "divergence" in row.slots])
def test_a_description_says_what_the_epoch_before_as_the_teacher_replaces(name):
    described = {p.name: p.default for p in describe_method(name).parameters if "previous_epoch" in p.owner}
    if "representation" in list_methods()[name].slots:
        assert not described
        return
    counts, dims = [9, 5, 1], {"student_dim": 4, "teacher_dim": 5}
    method = create_method(name, class_counts=counts, **dims, teacher="previous_epoch")
    assert method.setup.temperature == described["temperature"]
    assert method.weights.distillation == described["distillation_weight"]
    assert method.weights.supervised == described["supervised_weight"]
    assert ("start" in described) == (name == "ipwd")
    if name == "ipwd":
        assert method.sample_weights.start == described["start"] == 0.5
