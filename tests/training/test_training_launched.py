"""Two processes on one run: what they learn, write and say, and how they stop.

One start of the launcher does all the jobs, since starting takes longer than any of them. The networks have no batch
statistics: then two processes compute the very sums that one computes, in another order.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import distail
from distail.data.prepare import prepare_data
from distail.evaluation.predictions import load_predictions
from distail.training.progress import Silent
from distail.training.signals import Interrupted
from helpers.launched_runs import EPOCHS, NETWORKS, alone, experiment, launched_environment

pytestmark = pytest.mark.integration

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
WORKER = Path(__file__).parents[1] / "helpers" / "launched_worker.py"
IMAGES = 474  # 8 batches that two processes cannot halve, and a last one too small to share
STEPS = 9

METHODS = {
    "as_others_train": {
        "method": "kd",
        "data": {
            "name": "digits",
            "imbalance_factor": 15,
            "augment": ["crop", "rand_augment", "cutout"],
            "validation": 0.1,
        },
        "training": {
            "mix": "cutmix",
            "ema_decay": 0.9,
            "accumulation_steps": 2,
            "classifier_stage": {"epochs": 1, "supervised": "balanced_softmax", "sampler": "class_balanced"},
        },
    },
    "class_balanced": {"method": {"name": "ce", "supervised": "class_balanced"}, "teacher": None},
    "clipped_adamw": {
        "method": "kd",
        "training": {"optimizer": "adamw", "learning_rate": 0.003, "gradient_clip": 0.5},
    },
    "unused_parameters": {"method": "bkd", "student": "networks:WithUnused"},
    "frozen_at_first": {
        "method": "kd",
        "student": "networks:WithUnused",
        "training": {
            "freeze": {"name": "backbone", "epochs": 1},
            "layer_decay": 0.7,
            "ema_decay": 0.9,
            "schedule": "constant",
        },
    },
    "ipwd": {"method": "ipwd"},
    "one_stage": {"method": "ipwd", "teacher": "previous_epoch", "training": {"epochs": 3}},
    "krdistill": {"method": "krdistill"},
    "ltkd": {"method": "ltkd"},
    "stored_views": {"method": "kd", "teacher": {"model": "networks:Plain", "views": 1, "training": {"epochs": 1}}},
}


class Killed(Silent):
    """Stops this process's training after some steps of the student."""

    def __init__(self, steps):
        self.left, self.stage = steps, None

    def start(self, stage, epochs, steps_per_epoch, done_steps):
        self.stage = stage

    def step(self):
        self.left -= self.stage == "student"
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A working directory with the networks."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "networks.py").write_text(NETWORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def outcomes(there):
    """Of every job, what both processes report; `both.stderr` is what the user saw."""
    stop_one = {"rank": 1, "step": 17, "signal": "SIGTERM"}
    memory = METHODS["one_stage"]
    with pytest.raises(Interrupted):
        distail.run(experiment("begun-by-one", **memory), reporter=Killed(17))
    jobs = {name: {"config": experiment(f"two-{name}", **changes)} for name, changes in METHODS.items()}
    jobs |= {
        "again": jobs["ltkd"],
        "batch_norm": {"config": experiment("batch-norm", method="kd", student="resnet8")},
        "poisoned": {"config": experiment("poisoned", method="ipwd"), "poison": {"rank": 1, "step": 7}},
        "no_data_in_the_second": {"config": experiment("no-data", method="ipwd"), "no_data_in": 1},
        "stopped": {"config": experiment("stopped", **memory), "stop": stop_one},
        "went_on": {"config": experiment("stopped", **memory)},
        "stopped_for_one": {"config": experiment("stopped-for-one", **memory), "stop": stop_one},
        "begun_by_one": {"config": experiment("begun-by-one", **memory)},
        "bad_key": {"arguments": ["run", "bad-key.yaml"]},
        "bad_method": {"arguments": ["run", "bad-method.yaml"]},
        "bad_data": {"arguments": ["run", "bad-data.yaml"]},
        "sync_batch_norm": {"arguments": ["run", "sync.yaml"]},
        "drops_layers": {"config": experiment("drops-layers", method="kd", student="networks:DropsLayers")},
        # The last, since it ends both processes' talk.
        "drops_one_late": {"config": experiment("drops-one-late", method="kd", student="networks:DropsOneLate")},
    }
    wrong = {
        "bad-key.yaml": {"trainer": {"devise": "cpu"}, "method": "kd"},
        "bad-method.yaml": {"method": {"name": "bkd", "betta": 1}},
        "bad-data.yaml": {"method": "kd", "data": {"name": "folder", "root": "no-such-folder"}},
        "sync.yaml": {"method": "kd", "trainer": {"device": "cpu", "sync_batch_norm": True}},
    }
    for name, changes in wrong.items():
        (there / name).write_text(json.dumps(experiment("wrong", name=name.removesuffix(".yaml"), **changes)))
    (there / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [*TORCHRUN, str(WORKER), "jobs.json"],
        env=launched_environment(there),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads((there / f"outcomes-{rank}.json").read_text()) for rank in range(2)]
    both = {name: [of_rank[name] for of_rank in told] for name in jobs}
    both["stderr"] = done.stderr
    return both


def history(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def assert_learned_the_same(folder, other, **tolerance):
    """Float32 sums in another order, over up to 48 steps: measured differences are below a tenth of these."""
    tolerance = tolerance or {"rtol": 1e-3, "atol": 1e-4}
    for name in ("student.safetensors", "predictions.safetensors"):
        one, two = load_file(Path(folder, name)), load_file(Path(other, name))
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(two[key], one[key], **tolerance)
    rows = list(zip(history(folder), history(other), strict=True))
    for row, its_twin in rows:
        assert (row["stage"], row["epoch"]) == (its_twin["stage"], its_twin["epoch"])
        assert its_twin["loss"] == pytest.approx(row["loss"], rel=1e-4)
        assert its_twin["terms"] == pytest.approx(row["terms"], rel=1e-4)
        assert its_twin["validation"]["top1"] == row["validation"]["top1"]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_learn_what_one_learns(there, outcomes, name):
    one = alone(experiment(f"one-{name}", **METHODS[name]))
    assert_learned_the_same(one.folder, f"two-{name}")
    for outcome in outcomes[name]:
        figures = outcome["figures"]
        assert figures["versions"]["processes"] == "2"
        assert figures["subset_sha256"] == one.figures["subset_sha256"]
        for stage in ("student", "teacher"):
            if one.figures[stage] is not None:
                assert figures[stage]["test"]["per_class_recall"] == one.figures[stage]["test"]["per_class_recall"]


def test_layers_that_are_dropped_at_random_are_waited_for_by_no_one(outcomes):
    first, second = outcomes["drops_layers"]
    assert first["figures"]["student"] == second["figures"]["student"]


def test_a_layer_that_is_dropped_more_rarely_is_told_by_its_name(outcomes):
    first, second = outcomes["drops_one_late"]
    assert "layers." in second["error"]
    assert "LayerDrop" in second["error"]
    assert "another process of this run has died" in first["error"]


def test_the_comparison_above_can_fail(there, outcomes):
    alone(experiment("one-other", method="kd", training={"learning_rate": 0.0501}))
    with pytest.raises(AssertionError):
        assert_learned_the_same("one-other", "two-ltkd")


def test_each_image_is_seen_once_an_epoch(outcomes):
    first, second = (outcome["seen"] for outcome in outcomes["class_balanced"])
    assert len(first) == len(second) == EPOCHS * STEPS
    for epoch in range(EPOCHS):
        steps = slice(epoch * STEPS, (epoch + 1) * STEPS)
        pairs = list(zip(first[steps], second[steps], strict=True))
        sizes = [IMAGES * (step + 1) // STEPS - IMAGES * step // STEPS for step in range(STEPS)]
        assert [(len(one), len(other)) for one, other in pairs] == [(size // 2, size - size // 2) for size in sizes]
        assert sorted(index for one, other in pairs for index in one + other) == list(range(IMAGES))


def test_one_process_writes_and_speaks(there, outcomes):
    assert [(row["stage"], row["epoch"]) for row in history("two-ipwd")] == [
        ("teacher", 0),
        ("student", 0),
        ("student", 1),
    ]
    assert any("474 training images" in message for message in outcomes["ipwd"][0]["messages"])
    assert outcomes["ipwd"][1]["messages"] == outcomes["ipwd"][1]["starts"] == []
    assert not [path for path in Path("two-ipwd").rglob("*") if path.name.endswith(".tmp")]
    events = list(Path("two-ipwd", "tensorboard").iterdir())
    assert len(events) == 1


def test_a_finished_run_returns_in_every_process(outcomes):
    for before, again in zip(outcomes["ltkd"], outcomes["again"], strict=True):
        assert again["figures"] == before["figures"]
        assert again["seen"] == []


def test_with_batch_norm_both_test_the_network_that_is_stored(there, outcomes):
    """Each process has its own batch statistics: what is tested and stored is their mean, in both."""
    weights = load_file("batch-norm/student.safetensors")
    network = distail.models.create_model("resnet8", num_classes=10, in_channels=1)
    network.load_state_dict(weights)
    network.eval()
    data = prepare_data("digits", imbalance_factor=15, validation=0.1)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    logits = load_predictions(Path("batch-norm/predictions.safetensors")).logits
    with torch.no_grad():
        torch.testing.assert_close(network((data.test.images / 255 - mean) / std), logits, rtol=1e-3, atol=1e-3)


def test_what_one_process_finds_not_finite_stops_both(outcomes):
    errors = [outcome["error"] for outcome in outcomes["poisoned"]]
    assert errors[0] == errors[1]
    assert "teacher: the loss is not finite at step 7" in errors[0]
    assert "the checkpoint after step 5 is kept" in errors[0]


def test_data_that_one_process_cannot_read_stops_both(outcomes):
    assert [outcome["error"] for outcome in outcomes["no_data_in_the_second"]] == [
        "DataError: these images cannot be read here"
    ] * 2


def test_a_signal_to_one_process_stops_both_at_the_same_step(outcomes):
    for outcome in outcomes["stopped"]:
        assert outcome["signal"] == signal.SIGTERM
        assert len(outcome["seen"]) == 17


def test_a_stopped_run_goes_on_in_two_processes_with_the_same_bits(outcomes):
    assert outcomes["went_on"][0]["starts"] == [["student", 17]]
    for name in ("student.safetensors", "predictions.safetensors"):
        assert Path("stopped", name).read_bytes() == Path("two-one_stage", name).read_bytes()
    assert_learned_the_same("two-one_stage", "stopped")


def test_what_two_processes_began_one_finishes_and_the_reverse(there, outcomes):
    one = alone(experiment("one-one_stage", **METHODS["one_stage"]))
    shutil.copytree("stopped-for-one", "finished-by-one")
    assert not Path("finished-by-one", "result.json").exists()
    alone(experiment("finished-by-one", **METHODS["one_stage"]))
    assert_learned_the_same(one.folder, "finished-by-one")
    assert outcomes["begun_by_one"][0]["starts"] == [["student", 17]]
    assert_learned_the_same(one.folder, "begun-by-one")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bad_key", "1 problem in bad-key.yaml"),
        ("bad_method", "in bad-method:"),
        ("bad_data", "no-such-folder"),
        ("sync_batch_norm", "trainer.sync_batch_norm: torch offers it on GPUs only"),
    ],
)
def test_an_error_is_printed_once_and_ends_both_alike(outcomes, name, said):
    assert [outcome["code"] for outcome in outcomes[name]] == [2, 2]
    assert outcomes["stderr"].count(said) == 1


def wait_for_step(process, folder, step, seconds=240):
    """Until there is a checkpoint of that step or a later one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.stem[5:]) >= step for path in Path(folder, "checkpoints", "student").glob("step-*")):
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no checkpoint of step {step}: {process.communicate()}")


class Launched:
    """The command line under `torchrun`, in a session of its own."""

    def __init__(self, config):
        self.process = subprocess.Popen(
            [*TORCHRUN, "-m", "distail", "run", config],
            env=launched_environment(Path()),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def workers(self):
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_for_step(self, folder, step):
        wait_for_step(self.process, folder, step)

    def ended(self, seconds):
        began = time.monotonic()
        said = self.process.communicate(timeout=120)[1]
        assert time.monotonic() - began < seconds, said
        return said


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.slow
def test_a_launched_run_survives_a_signal_and_the_death_of_a_worker(there):
    """SIGTERM to the launcher, then SIGKILL to a worker; what is left goes on, and ends as if it had never stopped."""
    # Some 500 steps: time enough to be stopped in.
    config = experiment("launched", method="kd", training={"epochs": 40, "batch_size": 40})
    (there / "launched.yaml").write_text(json.dumps(config))
    run = Launched("launched.yaml")
    run.wait_for_step("launched", 20)
    run.process.send_signal(signal.SIGTERM)
    said = run.ended(60)
    assert said.count("stopped by SIGTERM; the same command resumes from the checkpoint just written") == 1, said

    stopped_at = max(int(path.stem[5:]) for path in Path("launched/checkpoints/student").glob("step-*"))
    run = Launched("launched.yaml")
    run.wait_for_step("launched", stopped_at + 20)
    os.kill(run.workers()[1], signal.SIGKILL)
    said = run.ended(60)
    assert run.process.returncode != 0
    assert f"resuming after step {stopped_at}" in said
    assert "SIGKILL" in said, "the launcher's own words"
    alone(config)
    whole = alone({**config, "output": "never-stopped"})
    # 480 steps of rounding.
    assert_learned_the_same(whole.folder, "launched", rtol=0.05, atol=0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_by_hand(rank, port, config):
    """One of two processes without a launcher, which would end the one that is left before it has spoken."""
    told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", "distail", "run", config],
        env={**launched_environment(Path()), **told, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_the_process_that_is_left_says_that_the_other_died(there):
    config = experiment("left-alone", method="ce", teacher=None, training={"epochs": 10_000})
    (there / "left-alone.yaml").write_text(json.dumps(config))
    port = free_port()
    left, killed = (start_by_hand(rank, port, "left-alone.yaml") for rank in range(2))
    try:
        wait_for_step(left, "left-alone", 5)
        killed.kill()
        said = left.communicate(timeout=120)[0]
    finally:
        left.kill()
        killed.kill()
    assert left.returncode == 1, said
    message = said.splitlines()[-1]
    assert message.startswith("distail: another process of this run has died, or did not respond for "), said
    assert "The same command resumes from the newest checkpoint" in message
    assert "Traceback" not in said


@pytest.mark.slow
def test_accelerate_launch_learns_what_one_process_learns(there):
    changes = METHODS["class_balanced"]
    (there / "accelerated.yaml").write_text(json.dumps(experiment("two-accelerated", **changes)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [*launch, "--main_process_port", free_port(), "-m", "distail", "run", "accelerated.yaml"],
        env={**launched_environment(there), "HF_HOME": str(there)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one = alone(experiment("one-accelerated", **changes))
    assert_learned_the_same(one.folder, "two-accelerated")
    assert json.loads(Path("two-accelerated/result.json").read_text())["versions"]["processes"] == "2"


SLOW_TO_READ = """
import time
from distail.training.distributed import process_group

with process_group("cpu", 0.1) as processes:
    rank = processes.local_main_first(lambda: time.sleep(10 if processes.is_main else 0) or processes.rank)
    processes.gather_errors(lambda: print(f"process {rank} has its images", flush=True))
"""


@pytest.mark.slow
def test_reading_the_images_may_take_longer_than_a_process_may_be_silent(there):
    (there / "slow_to_read.py").write_text(SLOW_TO_READ)
    done = subprocess.run(
        [*TORCHRUN, "slow_to_read.py"], env=launched_environment(there), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("has its images") == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_worker_that_hangs_ends_the_run(there):
    trainer = {"device": "cpu", "precision": "fp32", "checkpoint_every_steps": 5, "process_timeout_minutes": 0.1}
    config = experiment("hanging", method="kd", training={"epochs": 200}, trainer=trainer)
    (there / "hanging.yaml").write_text(json.dumps(config))
    run = Launched("hanging.yaml")
    run.wait_for_step("hanging", 20)
    os.kill(run.workers()[1], signal.SIGSTOP)
    said = run.ended(90)  # the launcher waits 30 seconds for the one that hangs
    assert "another process of this run has died, or did not respond for 0.1 minutes" in said


@pytest.mark.slow
def test_compiled_processes_learn_what_compiled_ones_learn(there):
    trainer = {"device": "cpu", "precision": "fp32", "compile": True}
    changes = {"method": "kd", "teacher": {"model": "networks:Plain", "training": {"epochs": 1}}, "trainer": trainer}
    (there / "compiled.yaml").write_text(json.dumps(experiment("two-compiled", **changes)))
    run = Launched("compiled.yaml")
    run.process.communicate(timeout=400)
    alone(experiment("one-compiled", **changes))
    assert_learned_the_same("one-compiled", "two-compiled")
