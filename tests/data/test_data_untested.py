from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from distail.data.prepare import untested_classes_warning


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30))
def test_every_class_without_a_test_image_is_counted_and_the_first_are_named(labels: list[int]) -> None:
    names = tuple(f"class {c}" for c in range(9))
    untested = [c for c in range(9) if c not in labels]
    note = untested_classes_warning(torch.tensor(labels), names)
    if not untested:
        assert note is None
        return
    assert note is not None
    assert note.startswith(f"{len(untested)} of 9 classes ha")
    assert all((f"'class {c}'" in note) == (c in untested[:3]) for c in range(9))
    assert (f" and {len(untested) - 3} more" in note) == (len(untested) > 3)
    assert ("their recall" in note) == (len(untested) > 1)
    assert "\n" not in note
    validated = untested_classes_warning(torch.tensor(labels), names, where="validation")
    assert validated is not None
    assert " no validation image (" in validated
    assert " recall in validation is not known" in validated
