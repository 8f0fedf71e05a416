"""`mesocosm list` and `mesocosm show`."""

import dataclasses
import inspect
import json
import re
import textwrap
import typing
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mesocosm.lab.files import UserError
from mesocosm.lab.text import flops, size
from mesocosm.pieces import KINDS, Piece, pieces

console = Console(highlight=False)

CLAIM = "statement, rule, control and the paper's figure"


def claim_words(statement: str, rule: str, control: str, paper: str) -> str:
    """A claim as tables show it."""
    lines = f"rule: {rule}", f"control: {control}", f"paper: {paper}"
    return "\n".join([f"[bold]{escape(statement)}[/]", *map(escape, lines)])


def list_pieces(json: bool) -> int:
    if json:
        print(_as_json([piece for kind in KINDS for piece in pieces(kind).values()]))
        return 0
    for kind in KINDS:
        known = pieces(kind)
        width = max(map(len, known)) + 2
        plural = {"study": "studies"}.get(kind, kind + "s")
        console.print(f"[bold]{plural}[/bold]")
        for name, piece in known.items():
            # A table of rich would take longer than all the rest.
            lines = textwrap.wrap(piece.summary, max(20, console.width - width)) or [""]
            text = Text(f"{name:{width}}" + f"\n{' ' * width}".join(lines))
            text.stylize("bold", 0, len(name))
            console.print(text, soft_wrap=True)
    return 0


def _as_json(found: list[Piece]) -> str:
    return json.dumps([{n: getattr(p, n) for n in ("kind", "name", "summary", "source")} for p in found], indent=1)


def show(name: str) -> int:
    found = [known[name] for known in map(pieces, KINDS) if name in known]
    if not found:
        import difflib

        everything = sorted({n for kind in KINDS for n in pieces(kind)})
        close = difflib.get_close_matches(name, everything, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`mesocosm list` lists all names"
        raise UserError(f"there is no piece named {name!r}; {hint}")
    for piece in found:
        if piece.kind == "study":
            _show_study(piece)
        elif piece.kind == "task":
            _show_task(piece)
        else:
            _show_code(piece)
    return 0


def _show_study(piece: Piece) -> None:
    from mesocosm.lab.cost import price
    from mesocosm.lab.lab import Lab

    study = piece.load()
    console.print(f"[bold]{escape(study.title)}[/]\n{escape(study.paper)}\n\n{escape(study.question)}\n")
    claims = Table("claim", CLAIM, show_lines=True)
    for claim in study.claims:
        control = claim.control.statement if claim.control else "none"
        claims.add_row(claim.id, claim_words(claim.statement, claim.rule, control, claim.paper))
    console.print(claims)
    costs = Table("preset", "seeds", "trainings", "replicas", "largest model", "computation", "memory")
    unknown = []
    for preset, config in study.presets.items():
        try:
            with console.status(f"pricing {preset}"):
                prices = price(Lab(None), study.plan(config), timed=False)
        except ValueError as reason:
            costs.add_row(preset, str(config.seeds), *["unknown"] * 5)
            unknown.append(f"{preset}: {reason}")
            continue
        costs.add_row(
            preset,
            str(config.seeds),
            str(len(prices)),
            str(sum(p.replicas for p in prices)),
            f"{max((p.parameters for p in prices), default=0):,} parameters",
            flops(sum(p.flops for p in prices)),
            size(max((p.memory for p in prices), default=0)),
        )
    console.print(costs, *map(escape, unknown), sep="\n")
    console.print(f"`mesocosm run {piece.name} --preset NAME --dry-run` also estimates the time on this machine.")
    for departure in study.departures:
        console.print(f"- {departure}", markup=False)


def _show_task(piece: Piece) -> None:
    from mesocosm.seeding import generator

    kind = piece.load()
    console.print(f"[bold]{piece.name}[/]: {escape(_flow(kind.__doc__))}\n")
    _show_settings(kind)
    task = kind()
    try:
        batch = task.sample(2, generator(0, "show"))
    except (ImportError, OSError, ValueError) as reason:
        console.print(f"no samples here: {reason}", markup=False)
        return
    table = Table("field", "shape and dtype of 2 samples", "meaning")
    for name, tensor in zip(batch._fields, batch):
        shape = f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        table.add_row(name, escape(shape), escape(kind.fields[name]))
    console.print(table)
    if task.tokens:
        console.print("vocabulary: " + " ".join(f"{i}={t}" for i, t in enumerate(task.tokens)), markup=False)
    console.print(f"a model takes {list(task.input_shape)} and gives {list(task.output_shape)} for each sample")


def _show_settings(kind: type) -> None:
    from mesocosm.settings import legal

    hints = typing.get_type_hints(kind)
    table = Table("setting", "default", "legal", "meaning")
    for field in dataclasses.fields(kind):
        words = (repr(field.default), legal(field, hints[field.name]), field.metadata.get("help", ""))
        table.add_row(field.name, *map(escape, words))
    console.print(table)


def _show_code(piece: Piece) -> None:
    target: Any = piece.load()
    console.print(f"[bold]{piece.module}.{piece.attribute}[/]{escape(_signature(target))}\n")
    console.print(_flow(target.__doc__ or piece.summary), markup=False)


def _signature(target: Any) -> str:
    """Arguments with their types and defaults, without the modules that these come from."""
    named = re.sub(r"<(?:function|class) '?([\w.]+)[^>]*>", r"\1", str(inspect.signature(target)))
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z_])", "", named)


def _flow(docstring: str) -> str:
    """A docstring with each paragraph on one line, to be wrapped to any width; what is indented stays as it is."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(p if "\n " in f"\n{p}" else " ".join(p.split("\n")) for p in paragraphs)
