"""What distail needs of a system: nothing that Windows or macOS lacks. The names they lack are hidden from it here."""

import os
import subprocess
import sys
from pathlib import Path

import distail

# Other packages have their own ways of doing without: they are loaded before.
HIDE = """
import importlib, os, pkgutil, signal, sys

PACKAGES = "accelerate filelock pyarrow.parquet pydantic rich.progress safetensors.torch"
for package in (*PACKAGES.split(), "sklearn.datasets", "torch.utils.data", "torch.utils.tensorboard", "typer"):
    importlib.import_module(package)
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "pause"):
    delattr(signal, name)
FUNCTIONS = "fork getpgid geteuid getuid killpg mkfifo register_at_fork sched_getaffinity setpgid setsid uname wait4"
for name in FUNCTIONS.split():
    delattr(os, name)
"""
IMPORT_EVERYTHING = """
import distail
for module in pkgutil.walk_packages(distail.__path__, "distail."):
    # The others are other people's loops: transformers and lightning have their own ways of doing without.
    if module.name not in ("distail.__main__", "distail.integrations.transformers", "distail.integrations.lightning"):
        importlib.import_module(module.name)
"""
COMMANDS = """
from distail.cli import main
sys.argv[0] = "distail"
for words in sys.argv[1:]:
    print("exit code", main(words.split()))
"""
EXPERIMENT = """
name: tiny
data: {name: digits, imbalance_factor: 10}
teacher: {model: same, training: {epochs: 1}}
student: resnet8
method: kd
training: {epochs: 1, batch_size: 256}
trainer: {device: cpu, trackers: []}
"""


def elsewhere(program, folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", HIDE + program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(distail.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_every_module_is_imported(tmp_path):
    done = elsewhere(IMPORT_EVERYTHING, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_print_and_mistakes_are_told_in_the_same_words(tmp_path):
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    done = elsewhere(COMMANDS, tmp_path, "configs", "methods", "run tiny.yaml method=kdd", "run tiny.yaml")
    assert done.returncode == 0, done.stderr
    configs, methods, mistake, run, _ = done.stdout.split("exit code ")
    assert "cifar100-lt-100-bkd" in configs
    assert methods.startswith("0\n")
    assert "krdistill" in methods
    assert (mistake[0], run[0]) == ("0", "2")
    assert "Did you mean 'kd'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("exit code 0\n")
    assert (tmp_path / "runs" / "tiny-seed0" / "result.json").is_file()
