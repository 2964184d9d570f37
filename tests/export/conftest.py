"""One run and one export of it for all tests of this room."""

from __future__ import annotations

import pytest

from distail.export.export import Options, export
from helpers.class_folders import folder_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return folder_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="session")
def exported(finished):
    """The folder of a float and an int8 ONNX file and a PyTorch one, and what `export.json` holds."""
    return export(finished.folder, Options(("onnx", "torch"), int8=True, max_tail_loss=100.0, seconds=0.05))


@pytest.fixture(scope="session")
def photos(finished):
    return finished.folder.parent / "run-photos"
