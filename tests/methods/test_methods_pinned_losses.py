"""The first losses of a seeded run of every method lie in a file: numbers change between versions on purpose only.

Where a change is meant, this writes the file anew, and its diff shows what has changed:

    PIN_LOSSES=1 python -m pytest tests/methods/test_methods_pinned_losses.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from distail import Method, Terms, list_methods
from distail.models import create_model, save_weights
from helpers.whole_runs import experiment, run

FILE = Path(__file__).with_name("pinned_losses.json")
REWRITE = "PIN_LOSSES" in os.environ
TOLERANCE = 1e-4  # relative; kernels of other CPUs, and other numbers of threads, stay below 4e-5
# But for dist, whose training adds up rounding: 1.43e-4 on an AMD without AVX-512 and on a Xeon with it, both of which
# the code that wrote the file fails, too.
TOLERANCES = {"dist": 2e-4}
STEPS = 20
RUNS: dict[str, dict[str, Any]] = {name: {"method": name} for name in list_methods()}
RUNS["ipwd in one stage"] = {"method": "ipwd", "teacher": "previous_epoch"}
# Four epochs of five steps: what is deferred, ramped up or remembered comes into play.
OPTIONS: dict[str, Any] = {
    "data": {"name": "digits", "imbalance_factor": 20, "augment": ["crop"]},
    "training": {"epochs": 4, "batch_size": 96, "learning_rate": 0.001, "schedule": "cosine"},
    "trainer": {"device": "cpu", "precision": "fp32", "trackers": []},
}


@contextmanager
def recorded_losses() -> Iterator[list[float]]:
    """Within the block every loss that a method gives in training is added to the list."""
    losses: list[float] = []

    def record(module: nn.Module, given: Any, terms: Any) -> None:
        if isinstance(module, Method) and module.training:
            assert isinstance(terms, Terms)
            losses.append(terms.total.item())

    hook = register_module_forward_hook(record)
    try:
        yield losses
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One that is drawn: training would add up rounding, which decides where a teacher is right."""
    torch.manual_seed(0)
    network = create_model("resnet8", num_classes=10, in_channels=1)
    network.train()(torch.randn(512, 1, 8, 8))  # statistics for its normalization, so that its answers differ
    network.classifier.weight.data *= 10  # sure of itself: small differences at high temperatures are lost in rounding
    weights = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(network, weights, {})
    return {"model": "same", "checkpoint": str(weights)}


@pytest.fixture
def losses_of(tmp_path: Path, teacher: dict[str, str]) -> Callable[[str], list[float]]:
    def losses(name: str) -> list[float]:
        with recorded_losses() as found:
            run(experiment(tmp_path / "run", **{**OPTIONS, "teacher": teacher, **RUNS[name]}))
        return found

    return losses


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pinned() -> Iterator[dict[str, list[float]]]:
    if not REWRITE:
        yield json.loads(FILE.read_text())
        return
    fresh: dict[str, list[float]] = {}
    yield fresh
    lines = [f" {json.dumps(name)}: {losses}" for name, losses in fresh.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("name", RUNS)
def test_a_method_trains_with_the_losses_that_are_pinned(
    name: str, losses_of: Callable[[str], list[float]], pinned: dict[str, list[float]]
) -> None:
    found = losses_of(name)
    assert len(found) == STEPS
    if REWRITE:
        pinned[name] = [float(f"{loss:.8g}") for loss in found]
    assert found == pytest.approx(pinned[name], rel=TOLERANCES.get(name, TOLERANCE), abs=0.0)


@pytest.mark.skipif(REWRITE, reason="the file is being written")
def test_no_other_method_is_pinned(pinned: dict[str, list[float]]) -> None:
    assert pinned.keys() == RUNS.keys()
