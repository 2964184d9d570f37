from __future__ import annotations

from pathlib import Path

import pytest

from distail.config.schema import Data
from distail.data.sources import SOURCES
from distail.data.sources.locate import locate, places_to_look
from distail.errors import DataError
from helpers.sources import load


def marked(place: Path) -> Path | None:
    return place if (place / "mark").exists() else None


def mark(place: Path) -> Path:
    place.mkdir(parents=True)
    (place / "mark").touch()
    return place


def test_the_variable_comes_first_then_data_then_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path / "all"))
    places = (tmp_path / "all" / "x", Path("data") / "x", tmp_path / "system")
    assert places_to_look(Data(name="x"), [tmp_path / "system"]) == places
    for place in reversed(places):
        mark(place)
        assert locate(Data(name="x"), marked, others=[tmp_path / "system"], hint="") == place


def test_a_root_is_the_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path / "all"))
    mark(tmp_path / "all" / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        locate(Data(name="x", root=tmp_path / "empty"), marked, hint="It needs a mark.")
    assert f"{tmp_path / 'empty'} (holds none of the expected files)" in str(error.value)
    assert str(tmp_path / "all") not in str(error.value)
    assert "Check data.root. It needs a mark." in str(error.value)


def test_every_place_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTAIL_DATA", str(tmp_path))
    (tmp_path / "x").touch()
    with pytest.raises(DataError) as error:
        locate(Data(name="x"), marked, others=[tmp_path / "system"], hint="It needs a mark.")
    for part in (
        "'x' was not found",
        f"{tmp_path / 'x'} (is a file)",
        "data/x (does not exist)",
        "system",
        "data.root",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "folder", "tiny-imagenet"])
def test_sources_say_where_they_looked(name: str) -> None:
    with pytest.raises(DataError) as error:
        load(name)
    for part in (f"$DISTAIL_DATA/{name} (the variable DISTAIL_DATA is not set)", f"data/{name}", "Set data.root"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", sorted({*SOURCES} - {"digits"}))
def test_a_root_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(name, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)
    assert "data.root" in str(error.value)


def test_unknown_sources_name_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'cifar-100'.*'cifar100'"):
        load("cifar-100")


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / "pictures")):
        load("folder", "~/pictures")
