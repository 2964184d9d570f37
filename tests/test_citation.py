"""CITATION.cff is of this version, and cites the papers of the four methods as the presets do."""

from pathlib import Path

import yaml

from distail import __version__
from distail.methods.preset_table import PRESETS

CITATION = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_is_of_this_version():
    assert CITATION["version"] == __version__


def test_it_cites_the_four_papers():
    cited = {
        identifier["value"].removeprefix("arXiv:"): [author["family-names"] for author in reference["authors"]]
        for reference in CITATION["references"]
        for identifier in reference["identifiers"]
    }
    presets = {PRESETS[name].arxiv: PRESETS[name].paper for name in ("bkd", "krdistill", "ipwd", "drkd")}
    assert set(cited) == set(presets)
    assert all(presets[arxiv].startswith(names[0]) for arxiv, names in cited.items())
