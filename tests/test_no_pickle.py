"""Nothing that a user's file could hold is ever unpickled or run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distail
from distail.errors import CheckpointError
from distail.models import create_model
from distail.models.weights import load_weights

SOURCES = sorted(Path(distail.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SAFE_ONLY_WITH = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}


def called(node: ast.Call) -> tuple[str, str]:
    """(what it is called on, name) of a call such as ``torch.load(...)``; a method of a method is called on ''."""
    if isinstance(node.func, ast.Attribute):
        return (node.func.value.id if isinstance(node.func.value, ast.Name) else ""), node.func.attr
    return "", node.func.id if isinstance(node.func, ast.Name) else ""


def keywords(node: ast.Call) -> dict[str | None, object]:
    return {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}


def offence(node: ast.Call) -> bool:
    owner, name = call = called(node)
    if call in SAFE_ONLY_WITH:
        word, value = SAFE_ONLY_WITH[call]
        return keywords(node).get(word) is not value
    if owner == "pickle" and node.args and isinstance(node.args[0], ast.Call):
        return called(node.args[0]) != ("pickle", "dumps")  # what was made here and now comes from no file
    return (
        (owner in MODULES and name in ("load", "loads", "open"))
        or (owner == "yaml" and name in UNSAFE_YAML)
        or (owner == "" and isinstance(node.func, ast.Name) and name in ("eval", "exec"))
        or name in ("Unpickler", "read_pickle")
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_unpickles_or_evaluates(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    lines = [node.lineno for node in calls if offence(node)]
    assert not lines, f"{path}:{lines}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("np.load(path)", True),
        ("np.load(path, allow_pickle=False)", False),
        ("pickle.loads(data)", True),
        ("pickle.loads(pickle.dumps(error))", False),
        ("pickle.Unpickler(file)", True),
        ("yaml.load(text)", True),
        ("yaml.safe_load(text)", False),
        ("eval(text)", True),
        ("tap.eval()", False),
    ],
)
def test_the_search_finds_what_it_should(code: str, expected: bool) -> None:
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert offence(statement.value) == expected


WATCHED = """
import sys

seen = []
sys.addaudithook(lambda event, arguments: seen.append(arguments) if event == "pickle.find_class" else None)
from distail.cli import main

for command in {commands!r}:
    code = main(command)
    assert code == 0, (command, code)
assert not seen, seen
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    lines = ["path,label"]
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
            lines.append(f"{label}/{number}.png,{label}")
    (tmp_path / "data" / "list.csv").write_text("\n".join(lines))
    return tmp_path


def test_runs_resumes_evaluates_and_reports_without_a_single_unpickled_class(tree: Path) -> None:
    config = tree / "experiment.yaml"
    config.write_text(
        textwrap.dedent(f"""
        name: try
        output: {tree}/run
        data: {{name: folder, root: {tree}/data, validation: 0, stream: never}}
        teacher: {{model: same, training: {{epochs: 1}}}}
        student: resnet8
        method: krdistill
        training: {{epochs: 1, batch_size: 8, learning_rate: 0.01}}
        trainer: {{device: cpu, precision: fp32, checkpoint_every_steps: 1}}
        """)
    )
    run = ["run", str(config)]
    loaded = [
        *run,
        f"output={tree}/other",
        "data.name=csv",
        f"data.root={tree}/data/list.csv",
        f"teacher.checkpoint={tree}/run/teacher.safetensors",
    ]
    commands = [run, run, loaded, ["evaluate", str(tree / "run")]]
    result = subprocess.run(
        [sys.executable, "-c", WATCHED.format(commands=commands)],
        capture_output=True,
        text=True,
        env={**os.environ, "DISTAIL_CACHE": str(tree / "cache")},
    )
    assert result.returncode == 0, result.stderr[-3000:]


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a file was run')",)


def test_a_file_that_would_run_code_does_not(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save({"state_dict": Exploit()}, path)
    with pytest.raises(CheckpointError, match="never loaded because it could run code"):
        load_weights(create_model("resnet8", num_classes=2), path)
