"""The command line as a user meets it: a process, its output and its exit code."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

from helpers.commands import distail

pytestmark = pytest.mark.integration

CONFIG = {
    "name": "quick",
    "data": {"name": "digits", "imbalance_factor": 20, "validation": 0, "augment": ["crop"]},
    "teacher": None,
    "student": "resnet8",
    "method": "ce",
    "training": {"epochs": 1, "batch_size": 128, "learning_rate": 0.05},
    "trainer": {"device": "cpu"},
}


def started(*arguments, cwd):
    """With the start itself, which takes seconds; the tests' `distail` leaves it out."""
    command = [sys.executable, "-m", "distail", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def test_help_shows_the_verbs_in_the_order_of_the_work_and_loads_no_torch(tmp_path):
    code = "import sys; from distail.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout[done.stdout.index("Commands:") :].splitlines()[1:]
    assert [line.split()[0] for line in lines if line.strip()] == [
        "demo",
        "run",
        "audit",
        "compare",
        "search",
        "teach",
        "evaluate",
        "report",
        "predict",
        "export",
        "methods",
        "configs",
    ]
    assert "..." not in done.stdout.split("Commands:")[1], "a verb's summary does not fit 80 columns"


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    code = "import sys, distail; print([m for m in ('torch', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_version(tmp_path):
    done = started("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip() == "0.1.0"


def test_a_run_its_evaluation_and_its_second_start(config, tmp_path):
    first = started("run", config.name, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "digits: 489 training images of 10 classes" in first.stderr
    assert "student epoch 1/1" in first.stderr
    assert "Tail third" in first.stdout
    again = distail("run", config.name, cwd=tmp_path)
    assert again.returncode == 0
    assert "epoch" not in again.stderr
    evaluated = distail("evaluate", "runs/quick-seed0", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "result.json matches the stored predictions exactly" in " ".join(evaluated.stdout.split())
    as_json = distail("evaluate", "runs/quick-seed0", "--json", cwd=tmp_path)
    told = yaml.safe_load(as_json.stdout)
    assert told["student"]["groups"]["thirds"].keys() == {"head", "medium", "tail"}
    adjusted = distail("evaluate", "runs/quick-seed0", "--adjust", "0.5", cwd=tmp_path)
    assert adjusted.returncode == 0, adjusted.stderr
    assert "ce, adjusted (tau 0.5)" in " ".join(adjusted.stdout.split())
    assert "with tau 0.5" in adjusted.stdout
    as_json = distail("evaluate", "runs/quick-seed0", "--adjust", "0", "--json", cwd=tmp_path)
    assert yaml.safe_load(as_json.stdout)["adjusted"]["student"]["test"] == told["student"]
    for wrong, said in (("auto", "data.validation is 0"), ("much", "'much' is not a valid tau")):
        refused = distail("evaluate", "runs/quick-seed0", "--adjust", wrong, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.yaml"], "no configuration file 'missing.yaml'"),
        (["run", "quick.yaml", "trainig.epochs=1"], "Did you mean 'training'"),
        (["run", "quick.yaml", "training.epochs"], "is not key=value"),
        (["run", "quick.yaml", "method=bdk"], "Did you mean 'bkd'"),
        (["run", "quick.yaml", "method=bkd"], "needs a teacher"),
        (["run", "quick.yaml", "student=resnet-8"], "resnet8"),
        (["run", "quick.yaml", "data.name=digit"], "Did you mean 'digits'"),
        (["run", "quick.yaml", "data.name=cifar100", "data.root=nowhere"], "nowhere"),
        (["run", "quick.yaml", "trainer.device=warp"], "trainer.device"),
        (["evaluate", "nowhere"], "not the folder of a finished run"),
        (["methods", "bdk"], "Did you mean 'bkd'"),
        (["configs", "cifar"], "unknown configuration"),
        (["demo", "--data", "mnist"], "fashion-mnist"),
        (["demos"], "demo"),
        (["run"], "CONFIG"),
        (["run", "quick.yaml", "--fast"], "--fast"),
    ],
)
def test_bad_input_is_exit_code_2_and_no_traceback(config, tmp_path, arguments, said):
    done = distail(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("result.json"))


def test_a_loss_that_is_not_finite_is_exit_code_1(config, tmp_path):
    done = distail("run", config.name, "training.learning_rate=1e30", "training.epochs=5", cwd=tmp_path)
    assert done.returncode == 1
    assert "the loss is not finite at step" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_told(config, tmp_path):
    (tmp_path / "file").write_text("")
    done = distail("run", config.name, "output=file/run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("distail: ")
    assert "'file/run'" in done.stderr
    assert "Not a directory" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_writes_a_checkpoint_and_the_same_command_resumes(config, tmp_path, number, code):
    arguments = ["run", config.name, "training.epochs=4", "training.batch_size=64"]
    process = subprocess.Popen(
        [sys.executable, "-m", "distail", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stderr:
        if "epoch 2/4" in line:
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == code
    assert "the same command resumes from the checkpoint" in rest
    assert "Traceback" not in rest
    assert list((tmp_path / "runs/quick-seed0/checkpoints/student").glob("*.safetensors"))
    resumed = started(*arguments, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr


@pytest.mark.slow  # tests/runner/test_runner_unkillable.py kills runs in every stage, without the starts
def test_sigkill_loses_at_most_the_interval_and_ends_with_the_same_student(config, tmp_path):
    arguments = ["run", config.name, "training.epochs=6", "trainer.checkpoint_every_steps=2"]
    whole = started(*arguments, "output=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    checkpoints = tmp_path / "killed/checkpoints/student"
    kills = 0
    for wanted in (4, 12):
        process = subprocess.Popen(
            [sys.executable, "-m", "distail", *arguments, "output=killed"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (checkpoints / f"step-{wanted:08d}.safetensors").exists():
            time.sleep(0.002)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills, "no run was caught under way"
    resumed = started(*arguments, "output=killed", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("student.safetensors", "predictions.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_methods_lists_every_method_and_explains_one(tmp_path):
    listed = distail("methods", cwd=tmp_path, COLUMNS="200")
    for name in ("ce", "kd", "bkd", "drkd", "ipwd", "krdistill"):
        assert f"\n{name} " in listed.stdout
    explained = distail("methods", "krdistill", cwd=tmp_path)
    assert "reconstruction" in explained.stdout
    assert "prior_strength" in explained.stdout
    assert "2409.07694" in explained.stdout


def test_a_reader_that_leaves_early_is_no_bug(tmp_path):
    command = f"{sys.executable} -m distail methods | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")


def test_configs_lists_and_copies_and_never_overwrites(tmp_path):
    listed = distail("configs", cwd=tmp_path, COLUMNS="200")
    assert "cifar100-lt-100-bkd" in listed.stdout
    copied = distail("configs", "cifar100-lt-100-bkd", cwd=tmp_path)
    assert copied.returncode == 0
    assert (
        (tmp_path / "cifar100-lt-100-bkd.yaml").read_text().startswith("# distail run configs/cifar100-lt-100-bkd.yaml")
    )
    again = distail("configs", "cifar100-lt-100-bkd", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_full_disk_is_a_message_and_leaves_what_was_there(config, tmp_path):
    limited = ["bash", "-c", f"ulimit -f 40; exec {sys.executable} -m distail run {config.name}"]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert "free some space, then run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert distail("run", config.name, cwd=tmp_path).returncode == 0
