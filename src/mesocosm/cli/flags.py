"""Typed flags from settings: every field becomes a flag with its type, range, default and help text."""

import contextlib
import dataclasses
import io
import re
import types
import typing
from typing import Annotated, Any, TypeVar

import tyro

from mesocosm.lab.files import UserError
from mesocosm.settings import Settings, illegal, legal

S = TypeVar("S", bound=Settings)


def parse(prog: str, description: str, arguments: list[str], *defaults: Settings) -> list[Any]:
    """Read flags for several groups of settings at once.

    Args:
        defaults: one instance a group; its class's docstring heads the group in the help.

    Raises:
        UserError: in one sentence.
    """
    groups = []
    for i, default in enumerate(defaults):
        group = _described(default)
        groups.append((f"group{i}", Annotated[group, tyro.conf.arg(name="")], dataclasses.field(default_factory=group)))
    whole = dataclasses.make_dataclass("Flags", groups, frozen=True)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(
                whole, prog=prog, description=description, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if stop.code:
            raise UserError(_sentence(errors.getvalue())) from stop
        raise
    try:
        return [type(d)(**vars(getattr(parsed, f"group{i}"))) for i, d in enumerate(defaults)]
    except ValueError as error:
        raise UserError(f"{error} (see `{prog} --help`)") from error


def read_values(text: str, settings: Settings) -> tuple[str, tuple]:
    """The field and the values that `field=a,b,c` gives it; a field of several values takes them as `16+32`.

    Raises:
        UserError: in one sentence.
    """
    name, _, words = text.partition("=")
    known = {field.name: field for field in dataclasses.fields(settings)}
    field = known.get(name.replace("-", "_"))
    if not words:
        raise UserError(f"--vary {text} is not legal: it must be a setting and its values, field=a,b,c")
    if field is None:
        raise UserError(f"--vary {text} is not legal: there is no setting {name}; choose from: {', '.join(known)}")
    annotation = typing.get_type_hints(type(settings))[field.name]
    values = tuple(_value(word, annotation) for word in words.split(","))
    wrong = [illegal(field, annotation, value) for value in values]
    if len(set(values)) < len(values):
        wrong.append("its values must differ")
    if any(wrong):
        raise UserError(f"--vary {text} is not legal: {next(filter(None, wrong))}")
    return field.name, values


def _value(word: str, annotation: Any) -> Any:
    """A word as a value of that type, or as it is where it is none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return tuple(_value(part, arguments[0]) for part in word.split("+"))
    if origin in (types.UnionType, typing.Union):
        read = [_value(word, one) for one in arguments]
        return next((value for value in read if not isinstance(value, str)), word)
    if annotation in (int, float):
        with contextlib.suppress(ValueError):
            return annotation(word)
    named = {bool: (True, False), type(None): (None,)}.get(annotation, arguments)
    return next((value for value in named if str(value).lower() == word.lower()), word)


def _described(instance: Settings) -> Any:
    """A dataclass of the same fields and values without validation, with help texts and legal values for tyro."""
    kind = type(instance)
    hints = typing.get_type_hints(kind)
    fields = []
    for field in dataclasses.fields(instance):
        annotation: Any = hints[field.name]
        flag = Annotated[annotation, tyro.conf.arg(help=_help(field, annotation))]
        fields.append((field.name, flag, dataclasses.field(default=getattr(instance, field.name))))
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    made.__doc__ = (kind.__doc__ or "").split("\n\n")[0]
    return made


def _help(field: dataclasses.Field, annotation: Any) -> str:
    text = field.metadata.get("help", "")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    return f"{text}: {legal(field, annotation)}" if low is not None or high is not None else text


def _sentence(box: str) -> str:
    """The message of one of tyro's framed errors."""
    lines = [re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in box.splitlines()]
    body = [line for line in lines[1:] if line]
    message = body[0] if body else " ".join(lines)
    for line in body[1:]:
        if line.startswith(("Argument helptext", "For full helptext", "Perhaps", "Similar", "═")):
            break
        message += " " + line
    hint = next((line for line in body if line.startswith("For full helptext")), "")
    found = re.search(r"(?:see|run) (.*--help)", hint)
    return message.rstrip(". ") + (f" (see `{found[1]}`)" if found else "")
