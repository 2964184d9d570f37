"""Metrics, their differences and costs as people read them: one decimal for points, and no negative zero."""

from __future__ import annotations

import math


def format_metric(value: float) -> str:
    """A metric in percent."""
    return f"{_rounded(value):.1f}"


def format_signed(value: float) -> str:
    """A difference in points.

    >>> format_signed(1.25), format_signed(-0.04), format_signed(0.0)
    ('+1.2', '0.0', '0.0')
    """
    points = _rounded(value)
    return f"{points:+.1f}" if points else "0.0"


def signed(value: float) -> str:
    """The same on a page, with a typographic minus.

    >>> signed(-0.04), signed(-1.25), signed(2)
    ('0.0', '−1.2', '+2.0')
    """
    return format_signed(value).replace("-", "−")


def format_cost(value: float, digits: int = 2) -> str:
    """A size, a time or a count with so many decimals, and at least two significant digits of what is small.

    >>> format_cost(1234.5), format_cost(0.47), format_cost(0.0031), format_cost(0.0), format_cost(7.2, digits=0)
    ('1,234.50', '0.47', '0.0031', '0.00', '7')
    """
    if digits and 0 < value < 10 ** (1 - digits):
        digits = 1 - math.floor(math.log10(value))
    return f"{value:,.{digits}f}"


def _rounded(value: float) -> float:
    return round(value, 1) + 0.0
