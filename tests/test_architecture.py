"""Imports run one way: down the levels of the table in docs/architecture.md, which names every package."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "distail"
# The public interface and `python -m distail` stand above everything; `configs` holds no Python.
FACES = {"__init__", "__main__"}


def levels():
    """The level of each package and top-level module."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = {}
    for level, names in re.findall(r"^\| (\d+) \| (`[a-z_`, ]+`) \|", text, flags=re.MULTILINE):
        found |= {name: int(level) for name in re.findall(r"`(\w+)`", names)}
    return found


def imported(path):
    """The packages of distail that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "distail":
            yield from (alias.name for alias in node.names if is_module(alias.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distail."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distail."))


def is_module(name):
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def package_of(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def test_every_file_it_names_exists():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+/[\w/]+\.py)`", text))
    assert len(named) > 20
    assert [name for name in sorted(named) if not any((base / name).is_file() for base in (SOURCE, ROOT))] == []


def test_every_package_has_a_level():
    packages = {package_of(path) for path in SOURCE.rglob("*.py")} - FACES
    assert set(levels()) == packages


@pytest.mark.parametrize("package", sorted(levels()))
def test_a_package_imports_only_from_lower_levels(package):
    level = levels()
    files = [path for path in SOURCE.rglob("*.py") if package_of(path) == package]
    up = [
        f"{path.relative_to(SOURCE)} imports {name} (level {level[name]}; {package} has {level[package]})"
        for path in files
        for name in imported(path)
        if name != package and level[name] >= level[package]
    ]
    assert files
    assert up == []


def imported_files(path):
    """The files of distail that a file imports, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "distail":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (file_of(name) or file_of(node.module) for name in names)
        elif isinstance(node, ast.Import):
            yield from (file_of(alias.name) for alias in node.names)


def file_of(module):
    path = SOURCE.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def test_no_file_imports_itself_by_way_of_others():
    imports = {path: {*imported_files(path)} - {path, None} for path in SOURCE.rglob("*.py")}
    # What is left without imports, or without importers, is in no circle; nor is what only these hold.
    while imports:
        imported = set().union(*imports.values())
        in_circles = {path: others & imports.keys() for path, others in imports.items() if others & imports.keys()}
        in_circles = {path: others for path, others in in_circles.items() if path in imported}
        if in_circles == imports:
            break
        imports = in_circles
    assert {path.relative_to(SOURCE).as_posix() for path in imports} == set()


def test_no_file_is_too_long_to_be_one_answer():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > 350} == {}
