"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, RED
from mesocosm.studies.datamodels_harmonic.rules import (
    JUDGED,
    OUTPUTS,
    group_deviation,
    mean_error,
    numbers_of_pairs,
    points,
)

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = dict(zip(OUTPUTS, (BLUE, ORANGE, GREEN)))
MARKERS = dict(zip(OUTPUTS, ("o", "s", "^")))
KINDS = {
    "random": (GREEN, "other points"),
    "one label": (BLUE, "other points, one label"),
    "copies": (RED, "near-copies"),
}
HIGHEST = 6
"""The last degree that is drawn."""


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    for draw in (draw_degrees, draw_estimates, draw_stability, draw_groups):
        try:
            yield draw(records)
        except lab.NotEnough:
            continue


def draw_degrees(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 3.8), sharey=True)
    told = []
    for axes, cell in zip(panels, JUDGED):
        rows = lab.rows(records, "share of variance", cell)
        for place, output in enumerate(OUTPUTS):
            table = rows[rows["output"] == output].pivot(index="degree", columns="seed", values="value")
            found = [lab.mean(row[~np.isnan(row)]) for row in table.loc[:HIGHEST].to_numpy()]
            heights = np.array([f.estimate for f in found])
            ends = np.array([[f.estimate - f.low, f.high - f.estimate] for f in found]).T
            degrees = np.arange(1, len(found) + 1) + 0.27 * (place - 1)
            axes.bar(degrees, heights, 0.25, color=COLOURS[output], label=output)
            axes.errorbar(degrees, heights, np.abs(np.nan_to_num(ends)), fmt="none", ecolor="black", elinewidth=1)
            if cell == "clean" and len(heights):
                told.append(f"{output} {heights[0]:.2f}")
        axes.set(xlabel="degree", title=f"{cell} labels", xticks=range(1, HIGHEST + 1))
        axes.grid(axis="x", visible=False)
    panels[0].set(ylabel="share of the variance")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    caption = (
        "How the variance of three kinds of output over all subsets of the training set is shared out among degrees: "
        "degree 1 is what a linear datamodel explains. Means over test points and seeds with 95 % bootstrap intervals "
        f"over seeds. Degree 1, clean labels: {', '.join(told)}."
    )
    return lab.Drawing("degrees", figure, caption)


def draw_estimates(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    few, many = numbers_of_pairs(records)
    tables = {cell: points(records, cell) for cell in JUDGED}
    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 4.4), sharex=True, sharey=True)
    told = []
    for axes, pairs in zip(panels, (few, many)):
        axes.plot([0, 1], [0, 1], color=GREY, lw=1)
        for output in OUTPUTS:
            for cell, inside in (("clean", COLOURS[output]), ("flipped", "none")):
                rows = tables[cell].query("output == @output")
                label = output if cell == "clean" and pairs == few else None
                look = {"s": 12, "lw": 0.6, "facecolors": inside, "edgecolors": COLOURS[output], "alpha": 0.7}
                axes.scatter(rows["true"], rows[pairs], marker=MARKERS[output], label=label, **look)
        error = lab.mean(sum(mean_error(table, pairs) for table in tables.values()) / len(tables))
        told.append(f"{error.estimate:.3f} [{error.low:.3f}, {error.high:.3f}] with {pairs:,}")
        axes.set(xlabel="true $R^2$", title=f"{pairs:,} pairs at each rho", aspect="equal")
    panels[0].set(ylabel="estimated $R^2$")
    handles, names = panels[0].get_legend_handles_labels()
    grey: dict[str, Any] = {"color": GREY, "marker": "o", "ls": "", "ms": 5}
    handles += [pyplot.Line2D([], [], **grey), pyplot.Line2D([], [], **grey, mfc="none")]
    figure.legend(handles, [*names, "clean labels", "flipped labels"], loc="outside upper center", ncols=5)
    caption = (
        "How well a linear datamodel does, estimated from pairs of correlated subsets, against the truth from all "
        "subsets; a dot is a test point and a kind of output, hollow with flipped labels. Mean error, over both with "
        f"95 % intervals over seeds: {'; '.join(told)} pairs."
    )
    return lab.Drawing("estimates", figure, caption)


def draw_stability(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.0, 4.2))
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    first = lab.rows(records, "stability", "clean")["seed"].min()
    told = []
    for output in OUTPUTS:
        own = {"seed": first, "output": output}
        exact, fitted, measured = (
            lab.rows(records, name, "clean", **own).sort_values("rho")
            for name in ("stability", "fitted stability", "measured stability")
        )
        axes.plot(exact["rho"], exact["value"], color=COLOURS[output], label=output)
        axes.plot(fitted["rho"], fitted["value"], "--", color=COLOURS[output])
        axes.plot(measured["rho"], measured["value"], MARKERS[output], color=COLOURS[output], ms=5)
        told.append(f"{output} {np.interp(0.5, exact['rho'], exact['value']):.2f}")
    axes.set(xlabel="rho, correlation of the two subsets", ylabel="noise stability over the variance")
    for line, name in (("-", "exact"), ("o", "measured"), ("--", "fitted")):
        axes.plot([], [], line, color=GREY, label=name)
    axes.legend(loc="upper left", ncols=2)
    caption = (
        "Noise stability of one test point's outputs, over their variance: exact (lines), measured from pairs of "
        "subsets (dots) and the fit to them (dashed), in the first seed. A linear output follows the dotted diagonal. "
        f"At rho = 0.5: {', '.join(told)}."
    )
    return lab.Drawing("stability", figure, caption)


def draw_groups(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(9.6, 3.8), sharex=True, sharey=True)
    told = []
    for axes, (kind, (colour, label)) in zip(panels, KINDS.items()):
        whole, parts = (
            lab.rows(records, name, "copies", kind=kind, output="margin").set_index(["seed", "group", "point"])["value"]
            for name in ("group influence", "sum of influences")
        )
        axes.axhline(0, color="black", lw=1)
        axes.scatter(parts, whole - parts, s=8, c=colour, lw=0, alpha=0.5)
        axes.set(title=label, xlabel="sum over its points, margin")
        found = lab.mean(group_deviation(records, kind))
        told.append(f"{label} {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]")
    panels[0].set(ylabel="group's influence less the sum, margin")
    caption = (
        "Influence of four training points together, all in against all out, on the margin, less the sum of the "
        "influences of each; a dot is a test point and a group. At 0 they add up. Mean size of the deviation with 95 % "
        f"intervals over seeds: {'; '.join(told)}."
    )
    return lab.Drawing("groups", figure, caption)
