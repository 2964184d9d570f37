"""The natural order of names."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from distail.data.class_names import natural_sorted


def test_numbers_count() -> None:
    assert natural_sorted(["10", "9", "100", "1"]) == ["1", "9", "10", "100"]
    assert natural_sorted(["img12.png", "img2.png", "img1.png"]) == ["img1.png", "img2.png", "img12.png"]
    assert natural_sorted(["v1.10", "v1.9", "v1"]) == ["v1", "v1.9", "v1.10"]


def test_case_does_not_count_until_all_else_is_equal() -> None:
    assert natural_sorted(["b", "A", "a", "B"]) == ["A", "a", "B", "b"]


@given(st.lists(st.text(max_size=8), max_size=12, unique=True), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_names_in_one_order(names: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(names)
    random.shuffle(shuffled)
    assert natural_sorted(shuffled) == natural_sorted(names)
    assert sorted(natural_sorted(names)) == sorted(names)
