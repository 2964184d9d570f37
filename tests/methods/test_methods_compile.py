"""torch.compile, whole graph: which also shows that no step waits for the device, since `.item()` breaks a graph."""

from __future__ import annotations

import pytest
import torch

from helpers.method_cases import CASES, example


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("case", CASES)
def test_a_whole_graph_gives_the_same_numbers(case):
    method, call = example(case, dtype=torch.float32)
    compiled = torch.compile(method, backend="eager", fullgraph=True)
    terms, eager = call(compiled), call(method)
    torch.testing.assert_close(terms.per_sample, eager.per_sample)
    assert set(terms.statistics) == set(eager.statistics)
    terms.total.backward()
    assert torch.isfinite(call.student.logits.grad).all()


@pytest.mark.parametrize("case", ["bkd", "dkd", "ipwd one-stage"])
def test_epochs_do_not_compile_again_and_again(case):
    """More epochs than dynamo allows recompilations: it would raise."""
    method, call = example(case, dtype=torch.float32)
    compiled = torch.compile(method, backend="eager", fullgraph=True)
    for epoch in range(12):
        method.begin_epoch(epoch, 12)
        torch.testing.assert_close(call(compiled).total, call(method).total)
