"""Typed flags from settings: every field becomes a flag with its type, range, default and help text."""

import contextlib
import dataclasses
import io
import re
import typing
from typing import Annotated, Any, TypeVar

import tyro

from mesocosm.lab.files import UserError
from mesocosm.settings import Settings, legal

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
