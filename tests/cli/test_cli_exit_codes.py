"""What the command line says of errors that no user's input explains."""

import errno
import subprocess
import sys

import pytest
import torch

from distail.cli.app import main
from distail.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, exit_code_of
from distail.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand how much is"),
            "lower trainer.cache_limit_mb",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x.tmp"), "(x.tmp); free some space"),
        (ZeroDivisionError("division by zero"), "This is a bug in distail"),
    ],
)
def test_a_run_that_fails_says_what_to_do(capsys, error, said):
    assert exit_code_of(error) == FAILED
    told = capsys.readouterr().err
    assert told.startswith("distail: ")
    assert said in told
    assert "and how much is" not in told


def test_an_error_in_the_users_own_code_is_no_bug_of_ours(capsys):
    def repair():
        return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError) as raised:
        repair()
    assert exit_code_of(raised.value) == FAILED
    told = capsys.readouterr().err
    assert f"{__file__}, line " in told
    assert "bug in distail" not in told


def test_a_developer_sees_where_it_happened(monkeypatch):
    monkeypatch.setenv("DISTAIL_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        exit_code_of(ZeroDivisionError())


def test_what_a_user_can_put_right_is_told_alone(capsys):
    assert exit_code_of(ConfigError("seed: too large")) == BAD_INPUT
    assert capsys.readouterr().err == "distail: seed: too large\n"


@pytest.mark.parametrize(
    "words", [["ru\x1b]0;x\x07n"], ["evaluate", "a", "\x9b2J"], ["run", "--no\x7f"], ["demo", "--seed", "\x1b"]]
)
def test_words_that_steer_a_terminal_are_escaped_in_what_is_said_of_the_usage(words, capsys):
    assert main(words) == BAD_INPUT
    said = capsys.readouterr().err
    assert "Usage: " in said
    assert said.replace("\n", "").isprintable()


def test_ctrl_c_is_no_success(monkeypatch, capsys):
    """typer returns it as a value outside standalone mode."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.console.Console.print", interrupted)
    assert main(["methods"]) == INTERRUPTED
    assert capsys.readouterr().err == "distail: interrupted\n"


def test_print_once_prints_and_loads_no_torch_without_a_launcher():
    code = "import sys; from distail.cli.exit_codes import print_once as p; p('said'); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "said\n")
