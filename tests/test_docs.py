"""The documentation holds: Python and shell blocks run, page by page in one folder; YAML is a valid experiment."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distail.config.schema import Experiment
from distail.methods.preset_table import PRESETS
from distail.runner.checks import check
from helpers.commands import distail as command

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LANGUAGES = {"python", "sh", "yaml", "console"}
# `console` shows what cannot run in a test: setting up an environment, several machines.
BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
INCLUDED = re.compile(r"--8<--\n(\S+)\n--8<--\n")
BASE = {"name": "page", "data": "digits", "teacher": "same", "student": "resnet8", "method": "kd"}


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run_python(code, names, page):
    included = INCLUDED.fullmatch(code)
    if included:  # tests/test_examples.py runs it
        assert (ROOT / "examples" / included[1]).is_file()
        return
    named = re.match(r"# (\w+\.py)\b", code)
    if named:
        Path(named[1]).write_text(code, encoding="utf-8")
    exec(compile(code, page.name, "exec"), names)


def run_yaml(text, names, page):
    given = yaml.safe_load(text)
    check(Experiment.from_mapping(given if "name" in given else BASE | given))
    named = re.match(r"# (\S+\.yaml)\n", text)
    if named:
        Path(named[1]).write_text(text, encoding="utf-8")


def run_shell(commands, names, page):
    lines = [shlex.split(line, comments=True) for line in commands.replace("\\\n", " ").splitlines()]
    if all(line[:1] == ["distail"] for line in lines if line) and not re.search(r"[$<>|;&*~`]", commands):
        for words in filter(None, lines):
            done = command(*words[1:], cwd=Path.cwd())
            assert done.returncode == 0, done.stderr[-2000:]
        return
    distail = Path("bin") / "distail"
    distail.parent.mkdir(exist_ok=True)
    distail.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m distail "$@"\n')
    distail.chmod(0o755)
    environment = {**os.environ, "PATH": f"{distail.parent.resolve()}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


OF_HALF_A_MINUTE_OR_MORE = {
    "deploying",
    "multi-label",
    "quick-start",
    "robustness",
    "stored-teacher",
    "which-repair",
    "your-own-data",
}
RUNNERS = {"python": run_python, "sh": run_shell, "yaml": run_yaml, "console": lambda *_: None}


def _marked(page):
    return pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in OF_HALF_A_MINUTE_OR_MORE else [])


@pytest.mark.integration
@pytest.mark.parametrize("page", [_marked(page) for page in PAGES if blocks(page)])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for language, text in blocks(page):
        assert language in RUNNERS, f"{page.name}: a block is marked {language!r}; expected one of {sorted(RUNNERS)}"
        RUNNERS[language](text, names, page)


def test_pages_were_found():
    assert len(PAGES) > 15
    assert sum(len(blocks(page)) for page in PAGES) > 30


def test_the_table_of_methods_is_that_of_the_code():
    text = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[?`(\w+)`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|[^|]*\|$", text, re.MULTILINE)
    slots = ("supervised", "targets", "divergence", "weights", "representation")
    shown = {
        name: {slot: tuple(cell.strip().split(", ")) for slot, cell in zip(slots, cells, strict=True) if cell.strip()}
        for name, *cells in rows
    }
    assert shown == {name: preset.slots for name, preset in PRESETS.items()}


def texts_that_name(name):
    pages = [*PAGES, ROOT / "README.md", *sorted((ROOT / "benchmarks").rglob("*.md"))]
    return [page for page in pages if name in page.read_text(encoding="utf-8").lower()]


@pytest.mark.parametrize("page", texts_that_name("krdistill"), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_reconstruction_says_so_and_where_its_choices_are_listed(page):
    text, listed = page.read_text(encoding="utf-8"), DOCS / "methods" / "krdistill.md"
    assert "reconstruction" in text.lower()
    leads_there = any((page.parent / target).resolve() == listed for target in re.findall(r"\]\(([^)#]+)\)", text))
    assert page == listed or leads_there or "`distail methods krdistill`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()]
    assert not missing
