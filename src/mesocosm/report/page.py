"""The page of one run: what the study asks, the verdicts, the figures, and how it was made."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mesocosm.lab import style
from mesocosm.lab.files import write
from mesocosm.lab.progress import duration
from mesocosm.lab.text import effect, size
from mesocosm.report.pictures import bar, inline
from mesocosm.report.run import counted, outcome, read_run


def write_page(folder: Path) -> Path:
    """Write a finished run's `report.html`, one file that needs no other to be read.

    Raises:
        UserError: when `folder` holds no run.
        RunError: when a file of it is missing or damaged, naming the command that makes it again.
    """
    run = read_run(folder)
    figures = [
        {"name": name, "caption": caption, "svg": inline(folder / "figures" / f"{name}.svg", f"f{i}-", caption)}
        for i, (name, caption) in enumerate(run.captions.items(), 1)
    ]
    return render("page.html", folder / "report.html", run=run, figures=figures, link=_link(run.study.paper))


def _link(paper: str) -> str | None:
    """Where the paper can be read, when its citation says so."""
    if found := re.search(r"arXiv[: ](\d{4}\.\d{4,5})", paper):
        return f"https://arxiv.org/abs/{found[1]}"
    found = re.search(r"https://[^\s<>\"]*[^\s<>\".,;)]", paper)
    return found[0] if found else None


def _listed(value: Any) -> str:
    """`0.1, 0.05` of a tuple, and any other value as it is."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def render(template: str, path: Path, **facts: Any) -> Path:
    """Write a page from a template."""
    write(path, _environment().get_template(template).render(facts).encode())
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mesocosm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": size, "counted": counted, "listed": _listed}
    environment.globals |= {"bar": bar, "effect": effect, "outcome": outcome, "colours": style}
    return environment
