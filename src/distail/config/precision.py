"""`trainer.precision`: one number format for a run, or one for each thing that a network of it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator, ValidationError

from distail.config.problems import wrong_keys
from distail.config.section import AUTO, Section
from distail.errors import did_you_mean

FORMATS = (AUTO, "fp32", "bf16")
Format = Literal["auto", "fp32", "bf16"]


class Precisions(Section):
    """The number formats of a run, where they are not all the same.

    >>> Precisions(student="fp32").settled(lambda use: "bf16")
    Precisions(student='fp32', teacher='bf16', teacher_inference='bf16')
    """

    student: Format = AUTO
    """In which the student is trained."""
    teacher: Format = AUTO
    """In which the teacher is trained, where it is trained here."""
    teacher_inference: Format = AUTO
    """In which the teacher answers."""

    def settled(self, choose: Callable[[str], str]) -> Precisions:
        """With `choose` of a use in place of each `auto`."""
        given = self.model_dump().items()
        return Precisions.model_validate({use: choose(use) if each == AUTO else each for use, each in given})

    @staticmethod
    def of(precision: str | Precisions) -> Precisions:
        """What a single format stands for."""
        if isinstance(precision, Precisions):
            return precision
        return Precisions.model_validate(dict.fromkeys(Precisions.model_fields, precision))


def read_precision(value: Any) -> str | Precisions:
    """A format, or formats by use, as it is kept: a single one where they are all the same.

    Raises:
        ValueError: it is neither.

    >>> read_precision({"student": "fp32"})
    Precisions(student='fp32', teacher='auto', teacher_inference='auto')
    >>> read_precision(dict.fromkeys(["student", "teacher", "teacher_inference"], "fp32"))
    'fp32'
    """
    if isinstance(value, Mapping):
        try:
            value = Precisions.model_validate(dict(value))
        except ValidationError as error:
            raise ValueError("; ".join(wrong.problem for wrong in wrong_keys(Precisions, error))) from None
    if isinstance(value, Precisions):
        formats = {*value.model_dump().values()}
        return formats.pop() if len(formats) == 1 else value
    if value not in FORMATS:
        raise ValueError(f"{value!r} is not valid. {did_you_mean(str(value), FORMATS)}")
    return str(value)


def written_precision(value: str | Precisions) -> Any:
    """The same as plain values."""
    return value if isinstance(value, str) else value.model_dump()


Precision = Annotated[str | Precisions, PlainValidator(read_precision), PlainSerializer(written_precision)]
