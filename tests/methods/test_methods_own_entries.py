"""Entries of a method from a user's own file, by import path."""

from __future__ import annotations

import textwrap

import pytest
import torch

from distail import Outputs, create_method
from distail.errors import MethodError
from distail.methods.presets import read_composition

PAPER = """
from torch import nn

from distail.methods.context import SlotOutput


class Halve(nn.Module):
    def __init__(self, setup, *, factor=0.5):
        super().__init__()
        self.factor = factor

    def forward(self, context, logits):
        return factor_of(logits, self.factor)  # a plain tensor


def factor_of(logits, factor):
    return logits * factor


def hardest(context, *, power=1.0):
    return SlotOutput(context.supervised_losses**power)


def everything(context, logits):
    return logits.sum()


class Plain:
    pass


class WithoutSetup(nn.Module):
    def __init__(self):
        super().__init__()


class Bare(nn.Module):
    def forward(self, context, logits):
        return logits


class OfContextAlone(nn.Module):
    def __init__(self, setup):
        super().__init__()

    def forward(self, context):
        return context.teacher.logits


class Wants(nn.Module):
    def __init__(self, setup, *, power):
        super().__init__()

    forward = Bare.forward


class Misled(Bare):
    posterior = "balancd"


def sharpen(context, logits, power=2.0):
    return power * logits


def equal_shares(context, logits):
    return logits


equal_shares.posterior = "balanced"


def of_logits(logits):
    return logits


def text(context):
    return "no tensor"


def in_place(context, logits):
    logits *= 0.5
    return logits


def plain_statistic(context, logits):
    return SlotOutput(logits, statistics={"share": 0.5})


def divergence_in_place(context, logits):
    logits *= 0.5
    return (logits - context.student.logits).square().sum(1)


def long_statistic(context, logits):
    return SlotOutput(logits, statistics={"share": logits[:, 0]})
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch, request):
    """A module that only this test has, in the current directory."""
    name = "paper_" + str(abs(hash(request.node.nodeid)))
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(PAPER), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def batch():
    torch.manual_seed(0)
    return Outputs(torch.randn(6, 3)), Outputs(torch.randn(6, 3)), torch.tensor([0, 1, 2, 0, 1, 0])


def test_a_class_and_a_function_of_one_s_own_work_as_ours_do(own_file):
    own = {
        "targets": ["swap", {"name": f"{own_file}:Halve", "factor": 0.25}],
        "weights": f"{own_file}:hardest",
        "power": 2.0,
    }
    ours = {"targets": ["swap", {"name": "power", "exponent": 0.25}]}
    method, plain = (create_method(each, class_counts=[9, 3, 1]) for each in (own, ours))
    found, expected = method(*batch()), plain(*batch())
    labels = torch.nn.functional.cross_entropy(batch()[0].logits, batch()[2], reduction="none")
    distilled = expected.per_sample - labels
    torch.testing.assert_close(found.per_sample, labels + labels**2 * distilled)


def test_a_weight_of_one_s_own_carries_no_gradient(own_file):
    """As the slot promises: the gradient is that of the weighed divergence with the weights held."""
    student, teacher, target = batch()
    logits = student.logits.requires_grad_()
    method = create_method({"weights": f"{own_file}:hardest", "supervised_weight": 0.0}, class_counts=[9, 3, 1])
    plain = create_method({"supervised_weight": 0.0}, class_counts=[9, 3, 1])
    (found,) = torch.autograd.grad(method(Outputs(logits), teacher, target).total, logits)
    held = torch.nn.functional.cross_entropy(logits.detach(), target, reduction="none")
    (expected,) = torch.autograd.grad((held * plain(Outputs(logits), teacher, target).per_sample).mean(), logits)
    torch.testing.assert_close(found, expected)


def test_a_repair_that_works_in_place_leaves_the_teacher_as_it_is(own_file):
    student, teacher, target = batch()
    before = teacher.logits.clone()
    own = create_method({"targets": [f"{own_file}:in_place"]}, class_counts=[9, 3, 1])
    halved = create_method({"targets": [{"name": "power", "exponent": 0.5}]}, class_counts=[9, 3, 1])
    found, expected = own(student, teacher, target).per_sample, halved(student, teacher, target).per_sample
    torch.testing.assert_close(found, expected)
    assert torch.equal(teacher.logits, before)
    compared = create_method({"divergence": f"{own_file}:divergence_in_place"}, class_counts=[9, 3, 1])
    first, again = (compared(student, teacher, target).per_sample for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(teacher.logits, before)


@pytest.mark.parametrize(("name", "said"), [("plain_statistic", "a float"), ("long_statistic", r"of shape \(6,\)")])
def test_a_statistic_is_one_number(own_file, name, said):
    method = create_method({"targets": [f"{own_file}:{name}"]}, class_counts=[9, 3, 1])
    with pytest.raises(MethodError, match=rf"{name} returned a statistic 'share' {said}"):
        method(*batch())


@pytest.mark.parametrize(
    ("composition", "words"),
    [
        ({"targets": ["{}:Halv"]}, ["Halv", "Halve"]),
        ({"targets": ["{}:Plain"]}, ["Plain", "torch.nn.Module"]),
        ({"targets": [{"name": "{}:Halve", "facter": "1"}]}, ["facter", "factor"]),
        ({"targets": ["no_such_module:Repair"]}, ["no_such_module"]),
        ({"targets": ["{}:WithoutSetup"]}, ["{}:WithoutSetup", "WithoutSetup(setup)"]),
        ({"targets": ["{}:Bare"]}, ["{}:Bare", "Bare(setup)"]),
        ({"targets": ["{}:OfContextAlone"]}, ["{}:OfContextAlone", "forward(self, context, logits)"]),
        ({"targets": ["{}:Wants"]}, ["{}:Wants", "power"]),
        ({"targets": ["{}:Misled"]}, ["{}:Misled", "'balancd'", "'balanced'"]),
        ({"targets": ["{}:of_logits"]}, ["{}:of_logits", "of_logits(context, logits)"]),
        ({"targets": [{"name": "{}:sharpen", "powr": "2"}]}, ["{}:sharpen", "powr", "power"]),
        ({"weights": "{}:sharpen"}, ["{}:sharpen", "sharpen(context)", "logits"]),
        ({"targets": ["math:sin"]}, ["math:sin"]),
        ({"targets": ["operator:itemgetter"]}, ["operator:itemgetter"]),
    ],
)
def test_what_is_no_entry_is_refused_before_any_batch(own_file, composition, words):
    def named(value):
        if isinstance(value, str):
            return value.replace("{}", own_file)
        return [named(each) for each in value] if isinstance(value, list) else {k: named(v) for k, v in value.items()}

    with pytest.raises(MethodError) as refused:
        create_method(named(composition), class_counts=[9, 3, 1])
    assert all(word.replace("{}", own_file) in str(refused.value) for word in words)


def test_what_a_function_takes_beside_the_batch_are_its_parameters(own_file):
    own = {"targets": [{"name": f"{own_file}:sharpen", "power": 0.5}]}
    ours = {"targets": [{"name": "power", "exponent": 0.5}]}
    found, expected = (create_method(each, class_counts=[9, 3, 1])(*batch()) for each in (own, ours))
    torch.testing.assert_close(found.per_sample, expected.per_sample)


def test_a_function_can_say_which_posterior_it_aims_at(own_file):
    said = {name: read_composition({"targets": [f"{own_file}:{name}"]}) for name in ("equal_shares", "sharpen")}
    assert said["equal_shares"].posterior_warning("ce") is not None
    assert said["sharpen"].posterior_warning("ce") is None
    assert (said["equal_shares"].posterior, said["sharpen"].posterior) == ("mixed", "natural")


@pytest.mark.parametrize(("slot", "entry"), [("divergence", "everything"), ("weights", "text")])
def test_what_an_entry_returns_is_looked_at(own_file, slot, entry):
    method = create_method({slot: f"{own_file}:{entry}"}, class_counts=[9, 3, 1])
    with pytest.raises(MethodError, match=entry):
        method(*batch())


def test_no_code_of_one_s_own_is_run_where_it_is_refused(own_file, monkeypatch):
    create_method({"targets": [f"{own_file}:Halve"]}, class_counts=[9, 3, 1])
    monkeypatch.setenv("DISTAIL_NO_CODE", "1")
    with pytest.raises(MethodError, match="no-code"):
        create_method({"targets": [f"{own_file}:Halve"]}, class_counts=[9, 3, 1])
