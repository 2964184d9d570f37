"""Free composition: from YAML to a method, and parameters that find their owners."""

from __future__ import annotations

import itertools

import pytest
import torch
import yaml

from distail import Outputs, create_method
from distail.errors import MethodError
from distail.methods import SLOTS
from distail.methods.label_kinds import kinds_of
from distail.outputs import SINGLE_LABEL
from helpers.made_batches import made_batch
from helpers.method_cases import STUDENT_DIM, TEACHER_DIM, make_call, make_method

COUNTS = [90, 30, 10, 5, 1, 1, 1]


WIDTHS = {"student_dim": STUDENT_DIM, "teacher_dim": TEACHER_DIM}


def create(composition, **parameters):
    return create_method(composition, class_counts=COUNTS, **WIDTHS, **parameters)


def test_the_composition_of_the_documentation_reads_from_yaml():
    text = """
    {supervised: balanced_softmax, targets: [swap, {name: reweigh, beta: 0.999}], divergence: kl,
     temperature: 2.0, distillation_weight: 1.0}
    """
    method = create(yaml.safe_load(text))
    assert [type(target).__name__ for target in method.targets] == ["Swap", "Reweigh"]
    assert method.setup.temperature == 2.0
    assert method.name == "composition"


def test_a_preset_by_name_with_parameters_reads_from_yaml():
    method = create(yaml.safe_load("{name: bkd, temperature: 3.0, beta: 0.99, defer_until: 0.8}"))
    assert method.name == "bkd"
    assert method.setup.temperature == 3.0
    assert method.targets[0].defer_until == 0.8


def test_an_empty_composition_is_ce_and_kl_with_weights_one_at_temperature_four():
    method = create({})
    call = make_call(made_batch(0))
    kd = create("kd", supervised_weight=1.0, distillation_weight=1.0)
    assert torch.equal(call(method.double()).total, call(kd.double()).total)
    assert method.setup.temperature == 4.0


@pytest.mark.parametrize("divergence", [None])
def test_without_a_divergence_no_teacher_is_needed(divergence):
    method = create({"supervised": "focal", "divergence": divergence})
    assert not method.needs.teacher
    assert list(method(Outputs(torch.zeros(2, 7)), None, torch.tensor([0, 1]))) == ["supervised"]


def test_a_representation_alone_needs_a_teacher_too():
    method = create({"divergence": None, "representation": {"name": "balanced_prototypes", "assignment": "identity"}})
    assert method.needs.teacher
    call = make_call(made_batch(0), dtype=torch.float32)
    assert list(call(method)) == ["supervised", "representation"]


def of_one_class(slot):
    return [name for name, entry in SLOTS[slot].items() if SINGLE_LABEL in kinds_of(entry, own=False)]


@pytest.mark.parametrize(
    "rows",
    list(itertools.product(of_one_class("supervised"), of_one_class("divergence"), [None, *SLOTS["weights"]])),
    ids=lambda row: "-".join(map(str, row)),
)
def test_every_combination_of_entries_works(rows):
    supervised, divergence, weights = rows
    method = create(
        {
            "supervised": supervised,
            "targets": list(SLOTS["targets"]),
            "divergence": divergence,
            "weights": weights,
            "representation": {"name": "balanced_prototypes", "assignment": "identity"},
        }
    )
    call = make_call(made_batch(1), dtype=torch.float32)
    terms = call(method)
    terms.total.backward()
    assert torch.isfinite(terms.total)
    assert torch.isfinite(call.student.logits.grad).all()


def test_the_order_of_targets_is_the_order_in_which_they_act():
    batch = made_batch(5)
    call = make_call(batch)
    entries = ["swap", "reweigh", "power"]
    totals = {}
    for order in itertools.permutations(entries):
        method = create_method({"targets": list(order)}, class_counts=batch.counts).double()
        totals[order] = call(method)["distillation"].item()
    assert totals["reweigh", "power", "swap"] != pytest.approx(totals["swap", "reweigh", "power"])
    assert totals["reweigh", "power", "swap"] != pytest.approx(totals["power", "reweigh", "swap"])


def test_a_keyword_reaches_the_slot_that_owns_it():
    assert create("wsld", targets=["power"], exponent=0.3).targets[0].exponent == 0.3
    assert create("ipwd", max_weight=None).sample_weights.max_weight is None
    assert create("ce", supervised="focal", gamma=3.0).supervised.gamma == 3.0
    assert create("krdistill", prior_strength=0.2).representation.prior_strength == 0.2


def test_a_keyword_that_several_slots_own_reaches_all_of_them():
    method = create("bkd", supervised="ldam", beta=0.5, defer_until=0.3)
    assert method.supervised.defer_until == method.targets[0].defer_until == 0.3
    expected = create("ce", supervised="class_balanced", beta=0.5).supervised.class_weights.value
    assert torch.equal(method.supervised.class_weights.value, expected)
    torch.testing.assert_close(method.targets[0].log_weights.value.exp(), expected)


def test_a_preset_s_slot_may_be_exchanged_or_emptied():
    method = create("bkd", supervised="balanced_softmax", targets=None)
    assert len(method.targets) == 0
    assert type(method.supervised).__name__ == "BalancedSoftmax"
    assert method.setup.temperature == 2.0


def test_creating_a_method_changes_nothing_that_was_given():
    composition = {"name": "bkd", "targets": [{"name": "reweigh", "beta": 0.9}]}
    create(composition)
    assert composition == {"name": "bkd", "targets": [{"name": "reweigh", "beta": 0.9}]}
    first, second = create("bkd"), create("bkd", beta=0.0)
    assert not torch.equal(first.targets[0].log_weights.value, second.targets[0].log_weights.value)
    assert torch.equal(first.targets[0].log_weights.value, create("bkd").targets[0].log_weights.value)


def test_class_counts_may_be_a_tensor_on_its_own():
    batch = made_batch(2)
    listed, tensor = (
        create_method("bkd", class_counts=counts) for counts in (batch.counts, torch.tensor(batch.counts))
    )
    call = make_call(batch, dtype=torch.float32)
    assert torch.equal(call(listed).total, call(tensor).total)


def test_two_swaps_are_one():
    batch = made_batch(3)
    once, twice = (create_method({"targets": ["swap"] * n}, class_counts=batch.counts).double() for n in (1, 2))
    assert torch.equal(make_call(batch)(once).total, make_call(batch)(twice).total)


def test_a_zero_weight_switches_a_term_off_but_keeps_its_name():
    batch = made_batch(4)
    terms = make_call(batch)(make_method("kd", batch.counts, supervised_weight=0.0))
    assert terms["supervised"] == 0.0
    torch.testing.assert_close(terms.total, terms["distillation"])


def test_a_presets_parameter_goes_with_its_entry():
    assert create_method({"name": "dist", "divergence": "kl"}, class_counts=[5, 3]).divergence is not None
    with pytest.raises(MethodError, match="inter_weight"):
        create_method({"name": "dist", "divergence": "kl", "inter_weight": 2.0}, class_counts=[5, 3])
