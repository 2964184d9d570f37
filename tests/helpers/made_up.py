"""Made-up values that a file could hold: small, extreme, and of the wrong kind."""

from __future__ import annotations

from hypothesis import strategies as st

words = st.sampled_from(
    [
        "",
        " ",
        "digits",
        "same",
        "previous_epoch",
        "ce",
        "bkd",
        "resnet8",
        "auto",
        "nan",
        "../..",
        "~",
        "0",
        "1e-3",
        "é",
        "\x1b[2J",
    ]
)
numbers = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, 10**30, -(10**30)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, words, st.text(max_size=20))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
