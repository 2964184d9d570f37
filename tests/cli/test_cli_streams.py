"""Closed, full and narrow streams, paths that are none, and limits of memory: the right words and exit codes."""

import errno
import os
import subprocess
import sys

import pytest

from distail.cli.exit_codes import BAD_INPUT, FAILED, exit_code_of
from distail.config.schema import output_problem

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
LONG = "x" * 300


def shell(words, cwd, **environment):
    """A command of the shell in which `distail` is this Python's."""
    command = f'distail() {{ "{sys.executable}" -m distail "$@"; }}; {words}'
    env = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, timeout=240, env=env)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("distail configs 2>&-", 0, b""),
        ("distail configs >&-", 0, b""),
        ("distail configs >&- 2>&-", 0, b""),
        ("distail configs nix 2>&-", 2, b""),
        ("distail configs nix 2>/dev/full", 2, b""),
        ("distail configs > /dev/full", 2, b"standard output cannot be written"),
        ("distail configs > /dev/full 2>&1", 2, b""),
        (r"distail evaluate $'run\xff'", 2, rb"run\udcff"),
        (f"distail evaluate {LONG}", 2, b"too long"),
        (f"distail run {LONG}.yaml", 2, b"too long"),
        ("mkfifo pipe; distail run pipe", 2, b"pipe"),
        ("distail run <(echo 'name: mine')", 2, b"student: missing"),
        (
            "echo {name: x, data: digits, student: 'evil:net', method: ce} > c.yaml; distail run c.yaml --no-code",
            2,
            b"--no-code",
        ),
        ("ulimit -v 300000; distail run mine.yaml", 2, b"memory"),
    ],
)
def test_the_words_and_the_code(tmp_path, words, code, said):
    done = shell(words, tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    for never in (b"bug", b"Traceback", b"Exception ignored"):
        assert never not in done.stderr
    if ">&-" not in words and code == 0:
        assert done.stdout


@pytest.mark.integration
def test_an_ascii_terminal_gets_escapes(tmp_path):
    done = shell("distail configs cifar10-lt-10-bkd é.yaml", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    assert rb"\xe9.yaml" in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x/" + LONG), BAD_INPUT, "xxx..."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), BAD_INPUT, "not enough memory"),
        (MemoryError(), BAD_INPUT, "not enough memory (MemoryError)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), BAD_INPUT, "not enough"),
        (OSError(errno.ENOSPC, "No space left on device", "x.tmp"), FAILED, "free some space"),
    ],
)
def test_errors_of_the_system(capsys, error, code, said):
    assert exit_code_of(error) == code
    told = capsys.readouterr().err
    assert said in told
    assert "bug" not in told


@pytest.mark.parametrize("path", ["", " ", "/", "//", "/a/..", "a\0b", "a\udcffb"])
def test_an_output_that_is_no_folder_of_its_own_is_refused(path):
    assert output_problem(path)


@pytest.mark.parametrize("path", ["runs/mine", ".", "..", "/tmp/x", "é"])
def test_other_outputs_are_taken(path):
    assert output_problem(path) is None
