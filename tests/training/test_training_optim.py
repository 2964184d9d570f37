"""Learning rates against torch's own schedulers and the published protocols."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distail.config.schema import Schedule
from distail.training.optim import learning_rate_factor


def factors(schedule, steps_per_epoch, epochs):
    return [learning_rate_factor(schedule, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


def from_torch(build, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("steps_per_epoch", "epochs", "rise"), [(10, 10, 0.3), (85, 3, 0.3), (7, 5, 0.5)])
def test_one_cycle_is_that_of_torch(steps_per_epoch, epochs, rise):
    total = steps_per_epoch * epochs
    expected = from_torch(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=total, pct_start=rise, cycle_momentum=False
        ),
        total,
    )
    assert factors(Schedule(name="one-cycle", rise=rise), steps_per_epoch, epochs) == pytest.approx(expected, abs=1e-12)


def test_cosine_is_that_of_torch():
    expected = from_torch(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60), 60)
    assert factors(Schedule(name="cosine"), 6, 10) == pytest.approx(expected, abs=1e-12)


def test_bkd_protocol_by_epoch():
    schedule = Schedule(name="step", milestones=(160, 180), factors=(0.01, 0.0001), warmup_epochs=5)
    by_epoch = [learning_rate_factor(schedule, epoch * 85, 85, 200) for epoch in range(200)]
    assert by_epoch[5:160] == [1.0] * 155
    assert by_epoch[160:180] == [0.01] * 20
    assert by_epoch[180:] == [0.0001] * 20
    assert by_epoch[:5] == pytest.approx([(epoch * 85 + 1) / 425 for epoch in range(5)])


def test_factors_change_at_the_first_step_of_a_milestone_not_before():
    schedule = Schedule(name="step", milestones=(2,), factors=(0.1,))
    assert factors(schedule, 3, 3) == [1.0] * 6 + [0.1] * 3


def test_warm_up_rises_by_step_and_meets_the_shape():
    rates = factors(Schedule(name="constant", warmup_epochs=2), 5, 4)
    assert rates == pytest.approx([*((step + 1) / 10 for step in range(10)), *[1.0] * 10])


def test_cosine_after_warm_up_starts_at_the_peak():
    schedule = Schedule(name="cosine", warmup_epochs=1)
    assert learning_rate_factor(schedule, 10, 10, 5) == 1.0
    assert learning_rate_factor(schedule, 49, 10, 5) == pytest.approx((1 + math.cos(math.pi * 39 / 40)) / 2)


@settings(deadline=None)
@example("one-cycle", 25, 4, 0.0, 0.01)  # the peak is the very first step
@given(
    st.sampled_from(["constant", "cosine", "one-cycle"]),
    st.integers(1, 40),
    st.integers(1, 12),
    st.floats(0, 3),
    st.floats(0.01, 0.99),
)
def test_every_factor_is_a_sensible_number(name, steps_per_epoch, epochs, warmup, rise):
    schedule = Schedule(name=name, warmup_epochs=warmup, rise=rise)
    assert all(0 <= factor <= 1 for factor in factors(schedule, steps_per_epoch, epochs))
