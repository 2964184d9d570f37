"""Every file in examples/ runs as it stands, and a page of the documentation shows it."""

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs(example, tmp_path, monkeypatch):
    for library in ("lightning", "transformers"):
        if re.search(rf"^(import|from) {library}\b", example.read_text(encoding="utf-8"), flags=re.MULTILINE):
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")


def test_the_pages_show_every_example():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    shown = re.findall(r"^--8<--\n(\S+)\n--8<--$", pages, flags=re.MULTILINE)
    assert sorted(shown) == [example.name for example in EXAMPLES]
