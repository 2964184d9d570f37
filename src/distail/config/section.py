"""What every section of an experiment stands on: numbers with bounds, and keys that are all known."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

AUTO: Literal["auto"] = "auto"
"""The value with which a user leaves a choice to the run."""
ALL: Literal["all"] = "all"


def number(value: Any) -> Any:
    """Let pass what is no switch.

    Raises:
        ValueError: it is one.
    """
    if isinstance(value, bool):  # which Python counts among the numbers
        raise ValueError(f"expected a number, not {str(value).lower()}")
    return value


def _whole(value: Any) -> Any:
    # As an int the bounds can tell what is wrong with 1e30, which pydantic would not read at all.
    return int(value) if isinstance(value, float) and value.is_integer() else number(value)


def _whole_or_word(value: Any, first: int, words: tuple[str, ...] = (AUTO,)) -> Any:
    if value in words:
        return value
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, bool) or not isinstance(whole, int) or not first <= whole < 2**31:
        raise ValueError(f"{value!r} is not valid; expected a whole number from {first} on, or {' or '.join(words)}")
    return whole


Number = Annotated[float, BeforeValidator(number)]
Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1, lt=2**31)]
CountFromZero = Annotated[Whole, Field(ge=0, lt=2**31)]
# Of a union pydantic would tell two problems, in words of its own.
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(partial(_whole_or_word, first=1))]
Views = Annotated[int | Literal["auto", "all"], BeforeValidator(partial(_whole_or_word, first=0, words=(AUTO, ALL)))]


class Section(BaseModel):
    """A part of the file: unknown keys are refused, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="constants")
