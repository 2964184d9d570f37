"""Data sets by name, with the options of an experiment's section `data` as keywords."""

from __future__ import annotations

from pathlib import Path

from distail.config.schema import Data
from distail.data.dataset import Source
from distail.data.sources import load_source


def load(name: str, root: str | Path | None = None, **options: object) -> Source:
    return load_source(Data.model_validate({"name": name, "root": root, **options}))
