"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE
from mesocosm.studies.automata_shortcuts.rules import DOUBLED, P_ONES, by_position, compared, depths, normalised, setup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

DOTS: dict[str, dict[str, Any]] = {
    "transformer": {"label": "transformer", "color": BLUE, "marker": "o"},
    "lstm": {"label": "LSTM", "color": ORANGE, "marker": "s"},
}
LINES: dict[str, dict[str, Any]] = {
    "direct": {"label": "transformer", "color": BLUE},
    "lstm": {"label": "LSTM", "color": ORANGE, "lw": 4},
    "recent scratchpad": {"label": "scratchpad + window", "color": GREEN, "ls": "--"},
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_depths(records)
    yield draw_difficulty(records)
    yield draw_brittle(records)
    yield draw_doubling(records)


def by_rank(records: "DataFrame") -> list[str]:
    return list(setup(records, "rank").sort_values(kind="stable").index)


def draw_depths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    names = by_rank(records)
    tried = sorted({d for name in names for d in depths(records, name)})
    figure, panels = pyplot.subplots(1, 2, figsize=(3.4 + 1.5 * len(tried), 0.9 + 0.42 * len(names)), sharey=True)
    for axes, title, last in zip(panels, ("all positions", "last position"), (False, True)):
        best = np.full((len(names), len(tried) + 1), np.nan)
        for row, name in enumerate(names):
            cells = {tried.index(d): f"transformer/{name}/L={d}" for d in depths(records, name)}
            for column, cell in {**cells, len(tried): f"lstm/{name}"}.items():
                right = by_position(records, cell)
                scores = right.iloc[:, -1] if last else right.mean(axis=1)
                best[row, column] = scores.max()
                text = f"{scores.max():.2f} ({scores.median():.2f})"
                ink = "white" if scores.max() > 0.6 else "black"
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
        image = axes.imshow(best, aspect="auto", cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(tried) + 1), [*(f"{d}" for d in tried), "LSTM"])
        axes.set_yticks(range(len(names)), names)
        axes.set(title=title, xlabel="layers")
        axes.grid(visible=False)
    figure.colorbar(image, ax=panels, label="accuracy of the best seed")
    caption = (
        "Accuracy of the best seed, and of the median seed in brackets, by automaton and number of layers, over all "
        "positions and at the last. From top to bottom the algebra gets harder: no groups, counters, solvable and "
        "unsolvable groups. Where nothing stands, nothing was trained."
    )
    return lab.Drawing("depths", figure, caption)


def draw_difficulty(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    ranks, names = setup(records, "rank"), by_rank(records)
    figure, axes = pyplot.subplots(figsize=(7.5, 4.0))
    for kind, shift in (("transformer", -0.12), ("lstm", 0.12)):
        for place, name in enumerate(names):
            points = normalised(records, compared(records, kind, name))
            middle = lab.mean(points)
            axes.plot([place + shift] * len(points), points, **DOTS[kind], ls="", ms=5, alpha=0.6)
            axes.hlines(middle.estimate, place + shift - 0.1, place + shift + 0.1, color="black", lw=2, zorder=3)
            axes.vlines(place + shift, middle.low, middle.high, color="black", lw=1.2, zorder=3)
    kinds = {1: "no groups", 2: "commuting", 3: "solvable", 4: "unsolvable"}
    labels = [f"{name}\n{kinds[int(ranks[name])]}" for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=30, ha="right", fontsize=8.5)
    axes.set(ylabel="(accuracy - chance) / (1 - chance)", ylim=(-0.05, 1.05))
    axes.grid(axis="x", visible=False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:: len(names)], labels[:: len(names)], loc="lower left")
    caption = (
        f"Normalised accuracy over all positions at {setup(records, 'layers').iloc[0]:.0f} layers, 0 for always naming "
        "the most common state: every seed, their mean and its 95 % bootstrap interval, automata in the order of "
        "their algebra."
    )
    return lab.Drawing("difficulty", figure, caption)


def draw_brittle(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10.0, 3.6), sharey=True)
    for kind, look in LINES.items():
        cell = compared(records, kind, "parity")
        grid = {p: by_position(records, cell, f"p={p:g}").mean(axis=1) for p in P_ONES}
        grid[0.5] = by_position(records, cell).mean(axis=1)
        draw_band(panels[0], sorted(grid), [grid[p] for p in sorted(grid)], look)
        for axes, sample in zip(panels[1:], ("long", "ones")):
            values = by_position(records, cell, sample)
            draw_band(axes, values.columns.to_numpy(float), [values[column] for column in values], look)
    length = by_position(records, cell).shape[1]
    panels[1].axvline(length + 0.5, color=GREY, ls=":", lw=1.2)
    panels[2].axvspan(
        max(0, length / 2 - 1.5 * length**0.5), length / 2 + 1.5 * length**0.5, color=GREY, alpha=0.2, lw=0
    )
    panels[0].set(xlabel="probability of a one, P(1)", ylabel="accuracy on parity", ylim=(-0.03, 1.03))
    panels[1].set(xlabel="position t")
    panels[2].set(xlabel="ones so far")
    for axes in panels[1:]:
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].legend(loc="lower left")
    caption = (
        f"Parity, trained on strings of {length} fair bits; means over seeds with 95 % bootstrap intervals. Left: over "
        "all positions, as ones become rare or frequent. Middle: by position, in strings twice as long; dotted, the "
        "training length. Right: by the number of ones so far, in strings of the training length and all P(1) but 0.5; "
        "grey, the count in a whole training string, plus or minus 3 standard deviations. The scratchpad runs on its "
        "own states."
    )
    return lab.Drawing("brittle", figure, caption)


def draw_band(axes: "Axes", across: Any, samples: list, look: dict[str, Any]) -> None:
    intervals = [lab.mean(sample) for sample in samples]
    axes.plot(across, [i.estimate for i in intervals], **look)
    low, high = [i.low for i in intervals], [i.high for i in intervals]
    axes.fill_between(across, low, high, color=look["color"], alpha=0.25, lw=0)


def draw_doubling(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    lines = records[records["cell"] == "doubling"].pivot(index="layers", columns="position", values="value")
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    for layers, colour in zip(lines.index, pyplot.get_cmap("viridis")(np.linspace(0, 0.9, len(lines)))):
        axes.plot(lines.columns, lines.loc[layers], color=colour, marker="o", ms=3, label=f"{layers:.0f}")
    axes.set(xlabel="position t", ylabel="share of right states", ylim=(-0.03, 1.05))
    axes.legend(title="layers", loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        f"The doubling network on {DOUBLED}: with L layers it is exact up to position 2^L and forgets what was before, "
        f"so that strings of {lines.shape[1]} need all {len(lines) - 1}."
    )
    return lab.Drawing("doubling", figure, caption)
