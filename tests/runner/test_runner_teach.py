"""`distail teach`: the same file however often it was stopped, killed or shared; and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from distail.errors import ConfigError, DataError
from distail.integrations.answers import StoredAnswers
from distail.runner import answers_writer
from distail.runner.teach import teach
from distail.training.progress import Silent
from helpers.launched_runs import launched_environment
from helpers.whole_runs import experiment, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a teacher's run."""
    config = experiment(tmp_path_factory.mktemp("teacher") / "run", "ce", teacher=None, role="teacher")
    return run({**config, "training": {**config["training"], "epochs": 1}}).folder


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks, each of which is kept."""
    monkeypatch.setattr(answers_writer, "evaluation_batch_size", lambda shape: 64)
    monkeypatch.setattr(answers_writer, "_SECONDS_BETWEEN_SYNCS", 0.0)


class StopAt(Silent):
    def __init__(self, block=-1):
        self.left, self.steps = block, 0

    def step(self):
        self.steps += 1
        if self.steps == self.left:
            raise KeyboardInterrupt


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("options", [{}, {"top_k": 3, "views": 2}], ids=["all", "largest of views"])
def test_stopped_anywhere_it_goes_on_and_ends_with_the_same_bytes(trained, tmp_path, small_blocks, options):
    whole = teach(trained, output=tmp_path / "whole.safetensors", reporter=StopAt(), **options).path
    parts = tmp_path / "parts.safetensors"
    steps = 0
    for block in (1, 3, 2, 4):
        stopped = StopAt(block)
        with pytest.raises(KeyboardInterrupt):
            teach(trained, output=parts, reporter=stopped, **options)
        steps += stopped.steps
        assert not parts.exists()
    rest = StopAt()
    teach(trained, output=parts, reporter=rest, **options)
    assert digest(parts) == digest(whole)
    assert rest.steps > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]
    again = StopAt()
    teach(trained, output=parts, reporter=again, **options)
    assert again.steps == 0


def test_a_part_of_other_answers_is_begun_anew(trained, tmp_path, small_blocks):
    path = tmp_path / "x.safetensors"
    with pytest.raises(KeyboardInterrupt):
        teach(trained, output=path, reporter=StopAt(4))
    teach(trained, ["seed=1"], output=path, reporter=Silent())
    alone = teach(trained, ["seed=1"], output=tmp_path / "alone.safetensors", reporter=Silent()).path
    assert digest(path) == digest(alone)
    with pytest.raises(DataError, match="contains other predictions"):
        teach(trained, output=path, reporter=Silent())


def test_the_largest_probabilities_are_those_of_all_logits(trained, tmp_path):
    logits = load_file(teach(trained, output=tmp_path / "a.safetensors", reporter=Silent()).path)
    found = load_file(teach(trained, output=tmp_path / "k.safetensors", top_k=3, reporter=Silent()).path)
    values, indices = logits["logits"].double().log_softmax(1).topk(3)
    assert torch.equal(found["values"], values.float())
    assert torch.equal(found["indices"].long(), indices)
    for name in ("id", "split", "target"):
        assert torch.equal(found[name], logits[name])
    in_another_loop = StoredAnswers(tmp_path / "k.safetensors", found["id"][:9].flip(0).tolist())
    for row in range(9):
        logs = in_another_loop[8 - row].log_softmax(0)
        assert torch.allclose(logs[indices[row]], found["values"][row], atol=1e-5)


KILLED = """
import os, signal, sys
from pathlib import Path
from distail.runner import answers_writer
from distail.runner.teach import teach
from distail.training.progress import Silent

answers_writer.evaluation_batch_size = lambda shape: 64
answers_writer._SECONDS_BETWEEN_SYNCS = 0.0

class Kill(Silent):
    left = 5
    def step(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

teach(Path(sys.argv[1]), output=Path(sys.argv[2]), reporter=Kill())
"""


def test_killed_it_goes_on(trained, tmp_path, small_blocks):
    path = tmp_path / "x.safetensors"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(trained), str(path)]
    killed = subprocess.run(command, env=launched_environment(tmp_path), timeout=120, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    rest = StopAt()
    teach(trained, output=path, reporter=rest)
    whole = StopAt()
    teach(trained, output=tmp_path / "whole.safetensors", reporter=whole)
    assert digest(path) == digest(tmp_path / "whole.safetensors")
    assert rest.steps < whole.steps


SHARED = """
import json, sys
from pathlib import Path
import distail
from distail.runner.teach import teach

teach(Path(sys.argv[1]), output=Path("both.safetensors"), views=2)
distail.run(json.loads(Path("mine.json").read_text()))
"""


@pytest.mark.slow
def test_two_processes_write_what_one_writes_and_learn_from_it(trained, tmp_path):
    alone = load_file(teach(trained, output=tmp_path / "alone.safetensors", views=2, reporter=Silent()).path)
    config = experiment("taught", "kd", teacher={"logits": "both.safetensors"})
    config["training"]["epochs"] = 1
    (tmp_path / "mine.json").write_text(json.dumps(config))
    (tmp_path / "shared.py").write_text(SHARED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*launch, "shared.py", str(trained)],
        cwd=tmp_path,
        env=launched_environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=300)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the launcher's processes too
            raise
    assert process.returncode == 0, said
    together = load_file(tmp_path / "both.safetensors")
    torch.testing.assert_close(together.pop("logits"), alone.pop("logits"), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(together[name], alone[name]) for name in alone)
    result = json.loads((tmp_path / "taught" / "result.json").read_text())
    assert result["teacher"]["stored"]["views"] == 2
    assert result["versions"]["processes"] == "2"


def test_what_it_cannot_write_is_told_at_once(trained, tmp_path):
    with pytest.raises(ConfigError) as error:
        teach(trained, ["data.augment=[]"], output=tmp_path / "x.npz", top_k=0, views=2)
    for said in ("--output", "--top-k: 0", "--views: 2, but data.augment is empty"):
        assert said in str(error.value)
    with pytest.raises(DataError, match="--top-k: 11, but there are 10 classes"):
        teach(trained, output=tmp_path / "x.safetensors", top_k=11, reporter=Silent())
    with pytest.raises(ConfigError, match="needs a CONFIG"):
        teach(trained / "student.safetensors", output=tmp_path / "x.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="not a run folder"):
        teach(tmp_path / "empty", output=tmp_path / "x.safetensors")
    path = teach(trained, output=tmp_path / "a.safetensors", reporter=Silent()).path
    taught = experiment(tmp_path / "taught", "kd", teacher={"logits": str(path)})
    taught["training"]["epochs"] = 1
    run(taught)
    with pytest.raises(ConfigError, match="is a file already"):
        teach(tmp_path / "taught", output=tmp_path / "x.safetensors")
    (tmp_path / "mine.yaml").write_text(json.dumps(taught))
    weights = tmp_path / "taught" / "student.safetensors"
    assert teach(weights, [str(tmp_path / "mine.yaml")], output=tmp_path / "s.safetensors", reporter=Silent())
