"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, RED
from mesocosm.studies.nce_landscape.rules import LOSSES, METHODS, best_steps, ended, sampled

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = {"GD NCE": ORANGE, "GD eNCE": RED, "NGD NCE": BLUE, "NGD eNCE": GREEN}
MARKERS = {"GD NCE": "o", "GD eNCE": "s", "NGD NCE": "^", "NGD eNCE": "D"}
LINES = {"GD NCE": "--", "GD eNCE": "-", "NGD NCE": "--", "NGD eNCE": "-"}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_landscape(records)
    yield draw_steps(records)
    for draw in (draw_sampled, draw_images):
        try:
            yield draw(records)
        except lab.NotEnough:
            continue


def draw_landscape(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    distances = np.sort(lab.rows(records, "gradient norm", "landscape")["distance"].unique())
    wanted = [distances[np.abs(distances - distance).argmin()] for distance in (2, 4, 8)]
    shown = dict(zip(dict.fromkeys(wanted), (BLUE, ORANGE, GREEN)))
    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.0), sharex=True)
    for axes, name in zip(panels, ("population loss", "gradient norm")):
        rows = lab.rows(records, name, "landscape")
        for distance, colour in shown.items():
            for loss, line in zip(LOSSES, ("--", "-")):
                one = rows[(rows["distance"] == distance) & (rows["loss"] == loss)].sort_values("share")
                axes.plot(one["share"], one["value"], line, color=colour)
        axes.set(yscale="log", xlabel="place between noise (0) and data (1)")
    panels[0].set(ylabel="loss, NCE in nats")
    panels[1].set(ylabel="norm of the gradient")
    handles: list[Any] = [pyplot.Line2D([], [], color=c, label=f"distance {d:g}") for d, c in shown.items()]
    handles += [pyplot.Line2D([], [], color=GREY, ls=ls, label=loss) for loss, ls in zip(LOSSES, ("--", "-"))]
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    far = max(shown)
    least = {}
    for loss in LOSSES:
        one = lab.rows(records, "gradient norm", "landscape")
        least[loss] = one[(one["distance"] == far) & (one["loss"] == loss) & one["share"].between(0.5, 0.95)]["value"]
    caption = (
        "Loss of the population and norm of its gradient on the segment from the noise's parameters to the data's, for "
        f"NCE (dashed) and eNCE (solid). At distance {far:g} the gradient between 0.5 and 0.95 falls to "
        f"{least['NCE'].min():.1g} for NCE and to {least['eNCE'].min():.1g} for eNCE. Both fall about "
        "as exp(-R^2 / 8) with the distance R."
    )
    return lab.Drawing("landscape", figure, caption)


def draw_steps(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.4))
    told = []
    for method in METHODS:
        try:
            best = best_steps(records, method)
        except lab.NotEnough:
            continue
        squares, colour = best.index.to_numpy() ** 2, COLOURS[method]
        axes.plot(squares, best["steps"].clip(lower=1), LINES[method], color=colour, zorder=_over(method))
        for arrived, inside in ((True, colour), (False, "white")):
            some = best["arrived"].to_numpy() == arrived
            axes.plot(
                squares[some],
                best["steps"][some].clip(lower=1),
                MARKERS[method],
                mec=colour,
                mfc=inside,
                ms=7,
                zorder=_over(method),
            )
        axes.plot([], [], MARKERS[method] + LINES[method], color=colour, label=method)
        last = best.iloc[-1]
        told.append(f"{method} {'' if last['arrived'] else 'over '}{last['steps']:,.0f}")
    axes.set(yscale="log", xlabel="squared distance of data and noise", ylabel="steps to a distance of 0.5")
    axes.legend(loc="upper left")
    far = records[records["cell"] == "descent"]["distance"].max()
    caption = (
        "Steps from the noise's parameters to within 0.5 of the data's, on the population's loss in one dimension, at "
        "the best rate of each method's grid. Hollow: not there when the budget ended. A straight line is exponential "
        f"growth. At distance {far:g}: {', '.join(told)}."
    )
    return lab.Drawing("steps", figure, caption)


def draw_sampled(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.0))
    told = []
    for axes, distance in zip(panels, (sampled(records), sampled(records, near=True))):
        for method in METHODS:
            drawn = _band(axes, records, f"sampled/distance={distance:g}/{method}", "distance to optimum", method)
            if drawn and axes is panels[0]:
                told.append(f"{method} {drawn.estimate:.3g} [{drawn.low:.3g}, {drawn.high:.3g}]")
        axes.set(yscale="log", xlabel="training step", title=f"means at distance {distance:g}")
    panels[0].set(ylabel="distance of (theta, c) to its optimum")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    caption = (
        "Distance to the data's parameters along training on samples, means over seeds with 95 % bootstrap bands, at "
        "the best rate of each method; left the far pair, right the control. Weights are averaged over the last tenth "
        f"of the steps; a step costs the same in all of them. At the end, left: {'; '.join(told)}."
    )
    return lab.Drawing("sampled", figure, caption)


def draw_images(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.0))
    told = []
    for axes, (name, label) in zip(
        panels,
        {"held-out loss": "held-out NCE loss, nats", "log-likelihood gain": "gain over the Gaussian, nats"}.items(),
    ):
        for method in METHODS:
            drawn = _band(axes, records, f"images/{method}", name, method)
            if drawn and axes is panels[1]:
                told.append(f"{method} {drawn.estimate:.2f}")
        axes.set(xlabel="training step", ylabel=label)
    if not told:
        raise lab.NotEnough("no method on images stayed finite")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    caption = (
        "Images against their Gaussian, not judged: held-out loss of telling them apart (left) and mean log-likelihood "
        "of held-out images above that of the Gaussian, the normaliser estimated from held-out noise (right). Means "
        "over seeds with 95 % bootstrap bands, each method at the rate with the lowest final loss. Gain at the end, in "
        f"nats: {', '.join(told)}."
    )
    return lab.Drawing("images", figure, caption)


def _band(axes: Any, records: "DataFrame", cell: str, name: str, method: str) -> "lab.Interval | None":
    """Draw a cell's curve at its best rate; the interval of its end, or None where there is none."""
    try:
        chosen = ended(records, cell, "held-out loss" if cell.startswith("images") else name).name
    except lab.NotEnough:
        return None
    rows = lab.rows(records, name, cell)
    curves = rows[rows["rate"] == chosen].pivot(index="step", columns="seed", values="value").dropna()
    middles = [lab.mean(curve) for curve in curves.to_numpy()]
    means = [m.estimate for m in middles]
    axes.plot(curves.index, means, LINES[method], color=COLOURS[method], label=method, zorder=_over(method))
    axes.fill_between(
        curves.index, [m.low for m in middles], [m.high for m in middles], color=COLOURS[method], alpha=0.25, lw=0
    )
    return middles[-1]


def _over(method: str) -> float:
    """Dashed lines, of NCE, go over the solid ones of eNCE, which they may cover."""
    return 2.5 if LINES[method] == "--" else 2
