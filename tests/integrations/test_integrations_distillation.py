"""What other people's loops are told of a teacher's answers, at the first batch alone."""

import warnings

import pytest
import torch
from torch import nn

from distail.errors import DataError
from distail.integrations.distillation import Distillation, accepted

INPUTS = torch.linspace(-1, 1, 80).view(8, 10)
LABELS = torch.arange(8) % 4
LOGITS = torch.linspace(-6, 9, 32).view(8, 4)


def distillation(teacher=None, **options):
    torch.manual_seed(0)
    return Distillation("kd", nn.Linear(10, 4), teacher, [5, 4, 3, 2], **options)


class Answers(nn.Module):
    """A teacher that says what it is told to."""

    def __init__(self, logits):
        super().__init__()
        self.classifier = nn.Linear(10, 4)
        self.logits = logits

    def forward(self, inputs):
        return self.logits


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "network"])
def test_probabilities_are_told_once(stored):
    shares = LOGITS.softmax(1)
    asked = distillation(None if stored else Answers(shares))
    given = {"teacher_logits_BC": shares} if stored else {}
    with pytest.warns(UserWarning, match="probabilities.*softmax") as told:
        first = asked.terms(INPUTS, LABELS, **given)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(asked.terms(INPUTS, LABELS, **given).total, first.total)


def test_percentages_and_sigmoids_are_told():
    with pytest.warns(UserWarning, match="percentages"):
        distillation().terms(INPUTS, LABELS, teacher_logits_BC=100 * LOGITS.softmax(1))
    several = torch.nn.functional.one_hot(torch.arange(16) % 4, 4).float()
    sigmoids = torch.linspace(-6, 9, 64).view(16, 4).sigmoid()
    with pytest.warns(UserWarning, match="sigmoids"):
        distillation(samples=16).terms(torch.randn(16, 10), several, teacher_logits_BC=sigmoids)


def test_logits_are_not_remarked_upon():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distillation().terms(INPUTS, LABELS, teacher_logits_BC=LOGITS)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "network"])
def test_logits_that_are_not_finite_are_refused(stored, value):
    logits = LOGITS.clone()
    logits[3, 1] = logits[3, 2] = logits[5, 0] = value
    asked = distillation(None if stored else Answers(logits))
    with pytest.raises(DataError, match="2 of 8 samples"):
        asked.terms(INPUTS, LABELS, **({"teacher_logits_BC": logits} if stored else {}))


class Adapted(nn.Module):
    """As PEFT's models: names some inputs, hands all on to a base model."""

    def __init__(self):
        super().__init__()
        self.base = Named()

    def get_base_model(self):
        return self.base

    def forward(self, input_ids=None, **others):
        return self.base(input_ids, **others)


class Named(nn.Module):
    def forward(self, input_ids=None, token_type_ids=None):
        return input_ids


def test_an_adapted_network_is_given_all_that_its_base_model_takes():
    given = {"input_ids": 1, "token_type_ids": 2, "idx": 3}
    assert accepted(Adapted(), given) == accepted(Named(), given) == {"input_ids": 1, "token_type_ids": 2}
