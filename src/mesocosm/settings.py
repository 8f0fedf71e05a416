"""Typed settings: frozen dataclasses whose fields carry a help text and a legal range, checked when made.

Tasks and study configurations are `Settings`, so one declaration gives the constructor, its validation, the
command-line flag and the help text.
"""

import dataclasses
import types
import typing
from typing import Any, Literal

Number = int | float


def setting(default: Any, help: str, *, low: Number | None = None, high: Number | None = None) -> Any:
    """A dataclass field with its meaning and, for numbers (or each number of a tuple), its inclusive legal range."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


def legal(field: dataclasses.Field, annotation: Any) -> str:
    """What a field accepts, in words: `an integer from 2 to 63`."""
    return _legal(annotation, field.metadata.get("low"), field.metadata.get("high"))


def illegal(field: dataclasses.Field, annotation: Any, value: Any) -> str:
    """Why a field does not take a value, `n=1 is not legal: it must be ...`; nothing where it does."""
    if _accepts(value, annotation, field.metadata.get("low"), field.metadata.get("high")):
        return ""
    return f"{field.name}={value!r} is not legal: it must be {legal(field, annotation)}"


def _legal(annotation: Any, low: Number | None, high: Number | None) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return "one or more values, each " + _legal(arguments[0], low, high)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_legal(a, low, high) for a in arguments)
    if annotation is type(None):
        return "none"
    noun = {int: "an integer", float: "a finite number", bool: "true or false", str: "a text"}.get(
        annotation, str(annotation)
    )
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}"
    if low is not None:
        return f"{noun}, at least {low:g}"
    if high is not None:
        return f"{noun}, at most {high:g}"
    return noun


def _accepts(value: Any, annotation: Any, low: Number | None, high: Number | None) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and len(value) > 0 and all(_accepts(v, arguments[0], low, high) for v in value)
    if origin in (types.UnionType, typing.Union):
        return any(_accepts(value, a, low, high) for a in arguments)
    if annotation is type(None):
        return value is None
    if annotation in (int, float):
        number = isinstance(value, int if annotation is int else (int, float)) and not isinstance(value, bool)
        finite = number and value - value == 0
        return finite and (low is None or value >= low) and (high is None or value <= high)
    return isinstance(value, annotation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of frozen, keyword-only dataclasses that check their fields.

    Raises:
        ValueError: naming the field, its value and what is legal.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            if wrong := illegal(field, hints[field.name], getattr(self, field.name)):
                raise ValueError(wrong)
        self.check()

    def check(self) -> None:
        """Check relations between fields: override it, and raise `ValueError` naming field, value and what is legal."""
