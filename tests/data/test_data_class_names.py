"""Names that are refused, names that look alike, and the natural order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.class_names import check_class_names, lookalikes_warning, natural_sorted
from distail.errors import DataError


def test_numbers_count() -> None:
    assert natural_sorted(["10", "9", "100", "1"]) == ["1", "9", "10", "100"]
    assert natural_sorted(["img12.png", "img2.png", "img1.png"]) == ["img1.png", "img2.png", "img12.png"]
    assert natural_sorted(["v1.10", "v1.9", "v1"]) == ["v1", "v1.9", "v1.10"]


def test_the_sign_of_a_name_that_is_a_whole_number_counts() -> None:
    assert natural_sorted(["1", "-1"]) == ["-1", "1"]
    assert natural_sorted(["+2", "-2.0", "0", "-10", "a", "1.0", "-9"]) == ["-10", "-9", "-2.0", "0", "1.0", "+2", "a"]
    assert natural_sorted(["1", "a-2", "a-1", "-x"]) == ["1", "-x", "a-1", "a-2"], "in other names it is a dash"


def test_case_does_not_count_until_all_else_is_equal() -> None:
    assert natural_sorted(["b", "A", "a", "B"]) == ["A", "a", "B", "b"]


@given(st.lists(st.text(max_size=8), max_size=12, unique=True), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_names_in_one_order(names: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(names)
    random.shuffle(shuffled)
    assert natural_sorted(shuffled) == natural_sorted(names)
    assert sorted(natural_sorted(names)) == sorted(names)


@pytest.mark.parametrize(
    "name", ["cat\u200b", "\ufeffcat", "c\u00adat", "cat\u202e", "cat\u2060", "cat\x1b[2J", "cat\u2028", "cat\udcff"]
)
def test_names_with_signs_that_cannot_be_seen_are_refused(name: str) -> None:
    with pytest.raises(DataError) as error:
        check_class_names(["cat", "dog", name], "pets.csv")
    assert ascii(name) in str(error.value)


@pytest.mark.parametrize("name", ["cat\u3164", "cat\ufe0f", "c\u034fat", "cat\u200d"])
def test_names_that_differ_by_nothing_that_is_seen_are_refused(name: str) -> None:
    check_class_names([name, "dog"], "pets.csv")
    with pytest.raises(DataError, match="'cat' and "):
        check_class_names(["cat", "dog", name], "pets.csv")


def test_joiners_belong_to_some_scripts() -> None:
    check_class_names(["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f52c"], "words.csv")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "CAT"),
        ("stra\u00dfe", "STRASSE"),
        ("big dog", "big  dog"),
        ("big dog", "big\u00a0dog"),
        ("\ufb01sh", "fish"),
        ("\uff11", "1"),
        ("1", "1.0"),
        ("007", "7"),
        ("0", "0.00"),
        ("class 01", "class 1"),
        ("dog", "d\u043eg"),
    ],
)
def test_names_that_look_alike_are_told_with_their_counts(one: str, other: str) -> None:
    names = ["ant", one, other, "bee"]
    check_class_names(names, "any")
    warning = lookalikes_warning(names, [9, 40, 4, 8])
    assert warning is not None
    assert f"{one!r} (40), {other!r} (4)" in warning
    assert "ant" not in warning


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "NULL", "N/A", "<NA>"])
def test_names_that_look_like_no_label(name: str) -> None:
    warning = lookalikes_warning(["cat", name], [3, 2])
    assert warning is not None
    assert f"{name!r} (2)" in warning


def test_names_that_do_not_look_alike() -> None:
    assert (
        lookalikes_warning(["1", "10", "1.05", "1.5", "100", "0.1", "0.01", "cat", "cats", "banana"], [1] * 10) is None
    )
