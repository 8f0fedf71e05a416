"""Find pieces and studies by name without importing them.

A piece is a public name in the `__all__` of a file in `tasks/`, `models/`, `training/` or `measures/`; a study is a
file or folder in `studies/`. Other packages add theirs through entry points of the groups `mesocosm.tasks`,
`mesocosm.models`, `mesocosm.training`, `mesocosm.measures` and `mesocosm.studies`. Listing reads source text only, so
it stays fast.
"""

import ast
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KINDS = {"study": "studies", "task": "tasks", "model": "models", "method": "training", "measure": "measures"}


@dataclass(frozen=True)
class Piece:
    kind: str
    name: str
    """As a user types it: `sparse-parity`."""
    module: str
    attribute: str
    summary: str
    source: str
    """The paper it comes from, where its docstring has a line `Source: ...`."""

    def load(self) -> Any:
        return getattr(importlib.import_module(self.module), self.attribute)


def kebab(name: str) -> str:
    """`SparseParity`, `sparse_parity` -> `sparse-parity`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][A-Za-z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", name).lower()


DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
DOCSTRING = re.compile(r'.*?:\n    r?"""(.*?)"""', re.DOTALL)


def _docstrings(text: str, names: list[str]) -> list[str]:
    """Of the classes and functions of these names in a source text."""
    ends = {found[1]: found.end() for found in reversed(list(DEFINITION.finditer(text)))}
    docstrings = [DOCSTRING.match(text, ends[name]) if name in ends else None for name in names]
    return [found[1] if found else "" for found in docstrings]


def _describe(docstring: str) -> tuple[str, str]:
    summary = " ".join(docstring.strip().split("\n\n")[0].split())
    source = re.search(r"^\s*Source: (.*?)(?:\n\s*\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
    return summary, " ".join(source[1].split()) if source else ""


def _docstring_of_module(text: str) -> str:
    found = re.match(r'\s*"""(.*?)"""', text, re.DOTALL)
    return found[1] if found else ""


def _read_file(kind: str, module: str, path: Path) -> list[Piece]:
    text = path.read_text()
    if kind == "study":
        name = kebab(module.rpartition(".")[2])
        return [Piece(kind, name, module, "STUDY", *_describe(_docstring_of_module(text)))]
    public = re.search(r"^__all__ = (\[.*?\])", text, re.DOTALL | re.MULTILINE)
    names: list[str] = ast.literal_eval(public[1]) if public else []
    docstrings = _docstrings(text, names)
    return [Piece(kind, kebab(n), module, n, *_describe(docstring)) for n, docstring in zip(names, docstrings)]


def _read_entry_point(kind: str, name: str, value: str) -> Piece:
    module, _, attribute = value.partition(":")
    spec = find_spec(module)
    text = Path(spec.origin).read_text() if spec and spec.origin else ""
    docstring = _docstring_of_module(text) if kind == "study" else _docstrings(text, [attribute])[0]
    return Piece(kind, name, module, attribute, *_describe(docstring))


@cache
def pieces(kind: str) -> dict[str, Piece]:
    """All pieces of one kind by name, sorted.

    Raises:
        ValueError: when two pieces of a kind share a name, or one has the name of a file of its room.
    """
    room = KINDS[kind]
    folder = Path(__file__).parent / room
    files = {path.stem: path for path in folder.glob("[a-z]*.py")}
    files |= {path.parent.name: path for path in folder.glob("[a-z]*/__init__.py")}
    found = [p for name, path in files.items() for p in _read_file(kind, f"mesocosm.{room}.{name}", path)]
    found += [_read_entry_point(kind, e.name, e.value) for e in entry_points(group=f"mesocosm.{room}")]
    by_name: dict[str, Piece] = {}
    for piece in sorted(found, key=lambda p: p.name):
        if piece.name in by_name:
            raise ValueError(f"{kind} {piece.name} is defined by {by_name[piece.name].module} and by {piece.module}")
        if kind != "study" and piece.attribute in files:
            raise ValueError(f"{files[piece.attribute].name} hides the {kind} {piece.name}: give the file another name")
        by_name[piece.name] = piece
    return by_name


def lazy(kind: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a room: `from mesocosm.tasks import SparseParity` imports that one file."""

    def get(name: str) -> Any:
        for piece in () if name.startswith("_") else pieces(kind).values():
            if piece.attribute == name:
                return piece.load()
        raise AttributeError(f"mesocosm.{KINDS[kind]} has no {name!r}")

    return get, lambda: sorted(p.attribute for p in pieces(kind).values())
