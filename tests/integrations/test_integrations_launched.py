"""Two processes by the loops of others: what one process gives on the batches of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.launched_runs import launched_environment
from helpers.lightning_loop import group_metrics, keeping, loader_of, module_of
from helpers.lightning_loop import trainer_of as lightning_trainer
from helpers.other_loops import METHODS, sentences
from helpers.transformers_loop import logged, trainer_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORKER = Path(__file__).parents[1] / "helpers" / "other_loops_worker.py"
NAMES = ("krdistill", "ipwd", "ipwd one-stage")  # with parameters, statistics of the batch, and memory


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    for library in ("transformers", "lightning"):
        pytest.importorskip(library)
    folder, environment = tmp_path_factory.mktemp("launched"), launched_environment(None)
    environment["PYTHONPATH"] = os.pathsep.join([str(WORKER.parents[1]), environment["PYTHONPATH"]])
    methods = json.dumps({name: METHODS[name] for name in NAMES})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(WORKER), str(folder), methods], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"losses-{rank}.json").read_text()) for rank in range(2)]


def assert_equal(found, losses, tail, parameters):
    both = [(a + b) / 2 for a, b in zip(*(each["losses"] for each in found), strict=True)]
    assert both == pytest.approx(losses, abs=2e-5)
    assert found[0]["parameters"] == found[1]["parameters"]
    for own, expected in zip(found[0]["parameters"], parameters, strict=True):
        assert torch.allclose(torch.tensor(own), expected, atol=1e-5)
    assert found[0]["tail"] == found[1]["tail"] == pytest.approx(tail, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_transformers(name, of_two, tmp_path):
    trainer = trainer_of(tmp_path, METHODS[name])
    trainer.train()
    losses = [row["loss"] for row in logged(trainer)]
    found = [of_rank["transformers"][name] for of_rank in of_two]
    assert_equal(found, losses, trainer.evaluate()["eval_tail"], trainer.method.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_lightning(name, of_two):
    torch.manual_seed(7)
    module, rows = module_of(METHODS[name]), []
    trainer = lightning_trainer(keeping(rows), group_metrics())
    trainer.fit(module, loader_of(), loader_of(sentences(3, 15), 4))
    found, tail = [of_rank["lightning"][name] for of_rank in of_two], trainer.callback_metrics["val_tail"].item()
    assert_equal(found, [row["loss"] for row in rows], tail, module.method.parameters())
