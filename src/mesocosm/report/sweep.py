"""The picture and the page of a sweep: each claim's effect and verdict over the grid."""

import itertools
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesocosm.lab import style
from mesocosm.lab.files import read_json
from mesocosm.lab.folder import load_study
from mesocosm.lab.runner import save_drawing
from mesocosm.lab.study import Drawing
from mesocosm.lab.sweep import Sweep, place, slug, told
from mesocosm.lab.text import number
from mesocosm.report.page import render
from mesocosm.report.pictures import allowed, inline
from mesocosm.report.run import read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

LOOKS = {
    "supported": ("✓", "o", style.GREEN),
    "not supported": ("✗", "X", style.RED),
    "inconclusive": ("?", "D", style.YELLOW),
}
"""Sign, marker and colour of each verdict."""

COLUMNS = 3
"""Panels side by side."""


def write_figures(sweep: Sweep, folder: Path, verdicts: "DataFrame") -> dict[str, str]:
    """Draw the figures; gives their captions by name."""
    with style.style():
        drawings = list(draw(sweep, verdicts))
        for drawing in drawings:
            save_drawing(drawing, folder / "figures")
    return {drawing.name: drawing.caption for drawing in drawings}


def write_page(sweep: Sweep, folder: Path, captions: dict[str, str]) -> Path:
    """Write a finished sweep's `report.html`, which links to the points' own pages.

    Args:
        captions: of the figures, by name.
    """
    figures = [
        {"name": name, "caption": caption, "svg": inline(folder / "figures" / f"{name}.svg", f"f{i}-", caption)}
        for i, (name, caption) in enumerate(captions.items(), 1)
    ]
    return render(
        "sweep.html",
        folder / "report.html",
        sweep=sweep,
        study=load_study(sweep.base.study),
        runs={name: read_run(place(folder, name)) for name in sweep.points()},
        figures=figures,
        command=read_json(folder / "sweep.json")["command"],
        values={name: told(values) for name, values in sweep.varied.items()},
    )


def draw(sweep: Sweep, verdicts: "DataFrame") -> Iterator[Drawing]:
    """A panel a claim: its effect over one setting, or a map over the first two; a figure for each value of others."""
    fields = list(sweep.varied)
    others = [[(field, told(value)) for value in sweep.varied[field]] for field in fields[2:]]
    for combination in itertools.product(*others):
        chosen = verdicts
        for field, value in combination:
            chosen = chosen[chosen[field].map(told) == value]
        if chosen.empty:
            continue
        where = ", ".join(f"{field} = {value}" for field, value in combination)
        name = slug("-".join(["effects", *(f"{field}={value}" for field, value in combination)]))
        figure = _panels(sweep, fields[:2], chosen, verdicts, where)
        yield Drawing(name, figure, _caption(fields[:2], where))


def _caption(fields: list[str], where: str) -> str:
    over = f" where {where}" if where else ""
    if len(fields) == 1:
        return (
            f"Effect of each claim by {fields[0]}{over}, with its 95 % interval; shaded, what the rule's first bound "
            "allows. Green discs are supported, red crosses not supported, yellow diamonds inconclusive."
        )
    return (
        f"Verdict and effect of each claim by {fields[0]} and {fields[1]}{over}; the colour is the effect, grey where "
        "it was not measured."
    )


def _panels(sweep: Sweep, fields: list[str], chosen: "DataFrame", whole: "DataFrame", where: str) -> "Figure":
    from matplotlib import pyplot

    claims = load_study(sweep.base.study).claims
    columns = min(COLUMNS, len(claims))
    rows = math.ceil(len(claims) / columns)
    across = len(sweep.varied[fields[0]])
    down = len(sweep.varied[fields[1]]) if len(fields) > 1 else 0
    width, height = (max(3.6, across + 1.7), 0.55 * down + 1.7) if down else (3.6, 3.0)
    figure, panels = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axes, claim in itertools.zip_longest(panels.flat, claims):
        if claim is None:
            axes.set_visible(False)
            continue
        mine, every = (table[table["claim"] == claim.id] for table in (chosen, whole))
        if down:
            _map(axes, sweep, fields, mine, every["effect"], claim.unit)
        else:
            _line(axes, sweep, fields[0], mine, claim.unit)
        axes.set_title(textwrap.fill(f"{claim.id}: {claim.statement}", round(11 * width)), fontsize=9)
    if where:
        figure.suptitle(where)
    return figure


def _line(axes: "Axes", sweep: Sweep, field: str, mine: "DataFrame", unit: str) -> None:
    values = sweep.varied[field]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    xs = {told(value): value if numbers else i for i, value in enumerate(values)}
    mine = mine.dropna(subset=["effect"])
    if mine.empty:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
        axes.set_yticks([])
        axes.plot(list(xs.values()), [0.0] * len(xs), alpha=0)  # For the same ticks as in the other panels.
    places = [xs[told(value)] for value in mine[field]]
    order = sorted(range(len(places)), key=places.__getitem__)
    if numbers:
        axes.plot([places[i] for i in order], mine["effect"].iloc[order], color=style.GREY, lw=1, zorder=1)
    for x, (_, row) in zip(places, mine.iterrows()):
        _, marker, colour = LOOKS[row["verdict"]]
        axes.vlines(x, row["low"], row["high"], color=style.BLACK, lw=1.2, zorder=2)
        axes.plot(x, row["effect"], marker, color=colour, mec=style.BLACK, ms=8, zorder=3)
    bounds = {allowed(bound) for bound in mine["bound"]}
    if len(bounds) == 1 and (span := bounds.pop()):
        low, high = axes.get_ylim()
        low, high = min([low, *filter(math.isfinite, span)]), max([high, *filter(math.isfinite, span)])
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.axhspan(max(span[0], axes.get_ylim()[0]), min(span[1], axes.get_ylim()[1]), color="#D5EEE6", zorder=0)
    if numbers and min(xs.values()) > 0 and max(xs.values()) >= 5 * min(xs.values()):
        axes.set_xscale("log")
    axes.set_xticks(list(xs.values()), list(xs), minor=False)
    axes.set_xticks([], minor=True)
    axes.set(xlabel=field, ylabel=unit or "effect")


def _map(axes: "Axes", sweep: Sweep, fields: list[str], mine: "DataFrame", effects: Any, unit: str) -> None:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    across, down = ([told(value) for value in sweep.varied[field]] for field in fields)
    values = np.full((len(down), len(across)), np.nan)
    signs = np.full(values.shape, "", dtype=object)
    for _, row in mine.iterrows():
        square = down.index(told(row[fields[1]])), across.index(told(row[fields[0]]))
        values[square] = np.nan if row["effect"] is None else row["effect"]
        signs[square] = f"{LOOKS[row['verdict']][0]} {row['verdict']}"
    known = effects.dropna().astype(float)
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    norm = LogNorm(low, high) if low > 0 and high > 100 * low else Normalize(low, high)
    colours = colormaps["cividis"].with_extremes(bad="#DDDDDD")
    places: list[Any] = [range(len(across)), range(len(down))]
    image = axes.pcolormesh(*places, np.ma.masked_invalid(values), norm=norm, cmap=colours, ec="white", lw=1.5)
    for (i, j), value in np.ndenumerate(values):
        dark = np.isfinite(value) and sum(colours(norm(value))[:3]) < 1.2
        words = f"{signs[i, j]}\n{number(value)}" if np.isfinite(value) else str(signs[i, j])
        axes.text(j, i, words, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    axes.set_xticks(places[0], across)
    axes.set_yticks(places[1], down)
    axes.set(xlabel=fields[0], ylabel=fields[1])
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, label=unit or "effect")
