"""The kinds of numbers in an experiment: no switch is one, and bounds are told of what is out of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which Python counts among the numbers
        raise ValueError(f"expected a number, not {str(value).lower()}")
    return value


def _whole(value: Any) -> Any:
    # As an int the bounds can tell what is wrong with 1e30, which pydantic would not read at all.
    return int(value) if isinstance(value, float) and value.is_integer() else _number(value)


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1, lt=2**31)]
CountFromZero = Annotated[Whole, Field(ge=0, lt=2**31)]
