"""How far logits are adjusted after training, in a user's words."""

from __future__ import annotations

import math
from typing import Literal

from distail.config.section import AUTO

Tau = float | Literal["auto"]
"""With `auto` the validation split chooses."""


def read_tau(value: object) -> Tau:
    """A tau, as a number or as text, or `auto`.

    Raises:
        ValueError: it is neither.

    >>> read_tau(1), read_tau("0.5"), read_tau("auto")
    (1.0, 0.5, 'auto')
    """
    if value == AUTO:
        return AUTO
    try:
        tau = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        tau = math.nan
    if not 0 <= tau < math.inf:
        raise ValueError(f"{value!r} is not a valid tau; expected a number from 0 on, such as 1, or {AUTO}")
    return tau
