"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, RED
from mesocosm.studies.tinygsm.rules import by_examples, most, values

if TYPE_CHECKING:
    from pandas import DataFrame, Series

VARIANTS = ("one checkpoint", "last token", "head only", "from scratch", "all right", "shuffled")
GRID = (("verifier, small", "verifier, small of large"), ("verifier, large of small", "verifier"))
"""Cells by verifier, then by generator, the small one first."""


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    for draw in (draw_accuracy, draw_curves, draw_variants, draw_sizes, draw_tokens):
        try:
            yield draw(records)
        except lab.NotEnough:
            continue


def draw_accuracy(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    n = most(records)
    bars = {
        "greedy\ndecoding": (lab.mean(values(records, "generator", "greedy")), GREY),
        f"majority\nof {n:g}": (lab.mean(values(records, "verifier", "majority", n)), ORANGE),
        f"verifier's choice\nof {n:g}": (lab.mean(values(records, "verifier", "verify", n)), BLUE),
        f"oracle's choice\nof {n:g}": (lab.mean(values(records, "verifier", "pass", n)), GREEN),
    }
    teacher = lab.mean(values(records, "generator", "teacher"))
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    for place, (interval, colour) in enumerate(bars.values()):
        axes.bar(place, interval.estimate, color=colour, width=0.65)
        _error_bar(axes, place, interval)
    axes.axhline(teacher.estimate, color=RED, ls="--", label=f"teacher, {teacher.estimate:.3f}")
    labels = [f"{name}\n{interval.estimate:.3f}" for name, (interval, _) in bars.items()]
    axes.set(ylabel="share of problems solved", ylim=(0, 1.02), xticks=range(len(bars)), xticklabels=labels)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper right")
    names = ("greedy", "majority", "verifier", "oracle")
    told = ", ".join(f"{name} {_say(interval)}" for name, (interval, _) in zip(names, bars.values()))
    caption = (
        f"Problems solved by generators that learned from a teacher who solves {_say(teacher)} (dashed): {told}. Means "
        "over seeds with 95 % bootstrap intervals. The oracle picks a right program wherever there is one."
    )
    return lab.Drawing("accuracy", figure, caption)


def draw_curves(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.0))
    rows = records[records["cell"] == "verifier"]
    numbers = sorted(rows["n"].dropna().unique())
    if not numbers:
        raise lab.NotEnough("nothing was chosen from any candidates")
    ends = {}
    for name, label, colour, marker in (
        ("pass", "oracle", GREEN, "^"),
        ("verify", "verifier", BLUE, "o"),
        ("majority", "majority", ORANGE, "s"),
    ):
        samples = [values(records, "verifier", name, n) for n in numbers]
        ends[label] = _curve(panels[0], numbers, samples, colour, marker, label)[-1]
    teacher = values(records, "generator", "teacher").mean()
    panels[0].axhline(teacher, color=RED, ls="--", label="teacher")
    panels[0].set(xlabel="candidates to choose from", ylabel="share of problems solved")
    table, families = by_examples(records), (records["families"] == "one").any()
    middles = _curve(panels[1], *_columns(table), BLUE, "o", "all families" if families else "generator")
    if families:
        _curve(panels[1], *_columns(by_examples(records, "one")), GREY, "D", "unknown starts only")
    solved = "chains and comparisons solved" if families else "problems solved"
    panels[1].set(xlabel="unique examples", ylabel=solved, ylim=(-0.03, 1.03))
    for axes, ticks in zip(panels, (numbers, _columns(table)[0])):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.legend()
    caption = (
        "Left: problems solved against the number of candidates; at the largest, "
        + ", ".join(f"{label} {_say(i)}" for label, i in ends.items())
        + f", teacher {teacher:.3f}. Right: {solved} by greedy decoding, against the unique "
        f"examples that a generator saw in equally many steps, from {_say(middles[0])} at {table.columns[0]:g} to "
        f"{_say(middles[-1])} at {table.columns[-1]:g}"
        + ("; in grey, generators that saw unknown starts alone" if families else "")
        + ". Means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("curves", figure, caption)


def draw_variants(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    n, there = most(records), set(records["cell"])
    cells = {"verifier": "verifier"} | {v: f"verifier, {v}" for v in VARIANTS if f"verifier, {v}" in there}
    intervals = {name: lab.mean(values(records, cell, "verify", n)) for name, cell in cells.items()}
    blind = values(records, "verifier", "blind choice").mean()
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for place, (name, interval) in enumerate(intervals.items()):
        colour = BLUE if name == "verifier" else GREY if name in ("all right", "shuffled") else ORANGE
        axes.plot(interval.estimate, place, "o", color=colour)
        axes.hlines(place, interval.low, interval.high, color=colour)
    axes.axvline(blind, color=GREY, ls="--", label=f"blind choice, {blind:.3f}")
    axes.set(xlabel="share of problems solved", yticks=range(len(intervals)), yticklabels=list(intervals))
    axes.invert_yaxis()
    figure.legend(loc="outside upper right")
    caption = (
        f"Problems solved by the choice from {n:g} candidates, by the verifier and where one thing is changed (orange) "
        "or the labels say nothing (grey): "
        + ", ".join(f"{name} {_say(i)}" for name, i in intervals.items())
        + ". Dashed: a choice among the different programs at random. Means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("variants", figure, caption)


def draw_sizes(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    n = most(records)
    grid = [[lab.mean(values(records, cell, "verify", n)) for cell in row] for row in GRID]
    image = np.array([[interval.estimate for interval in row] for row in grid])
    figure, axes = pyplot.subplots(figsize=(5.4, 4.0))
    shown = axes.imshow(image, cmap="cividis")
    for y, row in enumerate(grid):
        for x, interval in enumerate(row):
            ink = "black" if image[y, x] > (image.min() + image.max()) / 2 else "white"
            text = f"{interval.estimate:.3f}\n[{interval.low:.3f}, {interval.high:.3f}]"
            axes.text(x, y, text, ha="center", va="center", color=ink)
    axes.grid(visible=False)
    sizes = ("small", "large")
    axes.set(xlabel="generator", ylabel="verifier", xticks=(0, 1), xticklabels=sizes, yticks=(0, 1), yticklabels=sizes)
    figure.colorbar(shown, ax=axes, label="share of problems solved", shrink=0.8)
    caption = (
        f"Problems solved by the choice from {n:g} candidates, by the sizes of generator and verifier: large of small "
        f"{_say(grid[1][0])}, small of large {_say(grid[0][1])}. Means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("sizes", figure, caption)


def draw_tokens(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["cell"] == "tokens"]
    if rows.empty:
        raise lab.NotEnough("there is no program to show")
    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 3.4))
    ends = {}
    for axes, kind in zip(panels, ("right", "wrong")):
        program = rows[rows["candidate"] == kind].sort_values("place")
        ends[kind] = program["value"].iloc[-1]
        x, y = 0.0, 0.0
        for token, value in zip(program["token"], program["value"]):
            x, y = (0.0, y - 1.0) if token.startswith("\n") else (x, y)
            word = token.strip()
            width = 0.5 + 0.45 * len(word)
            axes.add_patch(pyplot.Rectangle((x, y - 0.8), width, 0.8, color=pyplot.get_cmap("cividis")(value), lw=0))
            dark = value < 0.5
            axes.text(
                x + width / 2, y - 0.4, word, ha="center", va="center", clip_on=True, color="white" if dark else "black"
            )
            x += width
        axes.set(xlim=(0, 13), ylim=(-5.2, 0.2), title=f"a {kind} program")
        axes.set_axis_off()
    shade: Any = pyplot.cm.ScalarMappable(pyplot.Normalize(0, 1), cmap="cividis")
    figure.colorbar(shade, ax=panels, label="verifier's probability of right", shrink=0.9)
    caption = (
        "A right and a wrong program for one problem, each token with the probability of being right that the first "
        f"seed's verifier gives after it: at the end {ends['right']:.2f} and {ends['wrong']:.2f}."
    )
    return lab.Drawing("tokens", figure, caption)


def _columns(table: "DataFrame") -> "tuple[list[float], list[Series]]":
    return [float(size) for size in table.columns], [table[size].dropna() for size in table.columns]


def _curve(
    axes: Any, x: list[float], samples: "list[Series]", colour: str, marker: str, label: str
) -> list[lab.Interval]:
    """Draw the means of samples with their intervals, and give these."""
    middles = [lab.mean(sample) for sample in samples]
    axes.plot(x, [m.estimate for m in middles], f"{marker}-", color=colour, label=label)
    axes.fill_between(x, [m.low for m in middles], [m.high for m in middles], color=colour, alpha=0.25, lw=0)
    axes.vlines(x, [m.low for m in middles], [m.high for m in middles], color=colour, lw=1)
    return middles


def _error_bar(axes: Any, place: float, interval: lab.Interval) -> None:
    axes.vlines(place, interval.low, interval.high, color="black", lw=1.4)


def _say(interval: lab.Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
