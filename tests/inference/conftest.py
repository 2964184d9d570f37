"""One run on class folders for all tests of this room."""

from __future__ import annotations

import pytest

from helpers.class_folders import folder_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return folder_run(tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture(scope="session")
def photos(finished):
    return finished.folder.parent / "run-photos"
