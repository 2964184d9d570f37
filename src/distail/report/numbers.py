"""Metrics and their differences as people read them: one decimal, and no negative zero."""

from __future__ import annotations


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


def _rounded(value: float) -> float:
    return round(value, 1) + 0.0
