"""What the README shows is true: its Python runs, its experiment is valid, its table is that of the code."""

import re
from pathlib import Path

import pytest
import yaml

from distail.config.schema import Experiment
from distail.methods.preset_table import PRESETS
from distail.methods.supervised import SUPERVISED

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_runs(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert any(parameter.grad is not None for parameter in names["student"].parameters())


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_experiments_are_valid(text):
    assert Experiment.from_mapping(yaml.safe_load(text)).name


def test_the_table_of_methods_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|[^|]*\|$", TEXT, flags=re.MULTILINE)
    slots = ("supervised", "targets", "divergence", "weights", "representation")
    shown = {
        name: {slot: tuple(cell.strip().split(", ")) for slot, cell in zip(slots, cells, strict=True) if cell.strip()}
        for name, *cells in rows
    }
    assert shown == {name: preset.slots for name, preset in PRESETS.items()}


def test_every_supervised_term_is_named():
    assert all(f"`{name}`" in TEXT for name in SUPERVISED)


def test_every_file_it_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links
    assert all((README.parent / link).exists() for link in links)
