"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.masked_prediction_hmm.rules import CONVERGED, TASKS, deficiencies, fits

if TYPE_CHECKING:
    from pandas import DataFrame

NAMES = {
    "x2|x1": "$x_2|x_1$",
    "pairs": "pairs, gaps 1 and 2",
    "x2x3|x1": "$x_2 x_3|x_1$",
    "x1x3|x2": "$x_1 x_3|x_2$",
    "x3|x1x2": "$x_3|x_1 x_2$",
    "x2|x1x3": "$x_2|x_1 x_3$",
}
TASK_COLOURS = dict(zip(TASKS, (RED, ORANGE, BLUE, SKY, GREEN, PURPLE)))


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_table(records)
    yield draw_starts(records)
    yield draw_ghost(records)
    yield draw_samples(records)
    yield draw_training(records)


def draw_table(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    drawn = deficiencies(records, "as drawn")
    table = drawn.pivot_table(index="task", columns=["states", "symbols"], values="value", aggfunc="max").loc[[*TASKS]]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.9), gridspec_kw={"width_ratios": [1.25, 1]})
    left.imshow(np.sqrt(table), cmap="Oranges", vmin=0, vmax=1.3 * np.sqrt(table.to_numpy().max()), aspect="auto")
    for row, counts in enumerate(table.to_numpy()):
        for column, value in enumerate(counts):
            left.text(column, row, f"{value:.0f}", ha="center", va="center")
    left.set_xticks(range(table.shape[1]), [", ".join(f"{n:.0f}" for n in size) for size in table.columns])
    left.set(title="deficiency of the Jacobian", xlabel="hidden states, symbols")
    rows = [*(("fit discrete", task) for task in TASKS), ("fit gaussian", "x2|x1"), ("fit gaussian, free T", "x2|x1")]
    for place, (cell, task) in enumerate(rows):
        found = fits(records, cell, task)
        done = found[found["loss"] < CONVERGED]["error"].clip(lower=1e-14)
        if len(done):
            right.plot(done, np.full(len(done), place), "o", color=BLUE, ms=4, alpha=0.35, mec="none")
            right.plot(done.median(), place, "|", color="black", ms=16, mew=2)
        right.text(1.02, place, f"{len(done)}/{len(found)}", transform=right.get_yaxis_transform(), va="center")
    right.set(xscale="log", xlim=(1e-15, 20), ylim=(len(rows) - 0.5, -0.5), xlabel="distance of fitted parameters")
    right.set_title("converged fits")
    right.set_yticks(range(len(rows)), [*NAMES.values(), "Gaussian $x_2|x_1$", "same, free $T$"])
    left.set_yticks(range(len(table)), list(NAMES.values()))
    left.grid(visible=False)
    caption = (
        "Left: dimension of the parameter directions that do not move the predictor at first order, largest over "
        "models, for discrete models. Right: distance of the parameters of all fits that converged to the exact "
        "predictor, with their median (bar) and number out of all. Distances below 1e-14 are drawn there."
    )
    return lab.Drawing("identifiability", figure, caption)


def draw_starts(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.2), sharex=True, sharey=True)
    kinds = [(0, "fit discrete", task, NAMES[task], colour, "o") for task, colour in TASK_COLOURS.items()]
    kinds.append((1, "fit gaussian", "x2|x1", "stochastic $T$", BLUE, "o"))
    kinds.append((1, "fit gaussian, free T", "x2|x1", "free $T$", RED, "^"))
    for panel, cell, task, name, colour, marker in kinds:
        found = fits(records, cell, task)
        loss, error = found["loss"].clip(lower=1e-32), found["error"].clip(lower=1e-14)
        panels[panel].plot(loss, error, marker, color=colour, ms=4.5, alpha=0.6, mec="none", label=name)
    for axes, title in zip(panels, ("discrete models", "Gaussian models, $x_2|x_1$")):
        axes.axvline(CONVERGED, color=GREY, ls=":", lw=1.2)
        axes.set(xscale="log", yscale="log", title=title, xlabel="mean squared difference to the exact predictor")
        axes.legend(loc="lower right")
    panels[0].set(ylabel="distance of fitted parameters", ylim=(1e-15, 30), xlim=(1e-33, 3))
    caption = (
        "Every fit: how far its predictions and its parameters are from the exact ones, up to relabelling. Left of the "
        "dotted line a fit counts as converged. Converged fits to pair tasks may have parameters far away. Those of "
        "Gaussian models with a free T that do sit at the reflected means."
    )
    return lab.Drawing("starts", figure, caption)


def draw_ghost(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    points = records[records["cell"] == "picture"]
    grid = records[records["cell"] == "picture grid"]
    figure, panels = pyplot.subplots(1, 2, figsize=(8.2, 4.0), sharex=True, sharey=True)
    gaps = []
    for axes, kind, title in zip(panels, ("means", "ghost"), ("true means", "reflected means")):
        table = grid[grid["kind"] == kind].pivot(index="point", columns="metric", values="value")
        side = round(len(table) ** 0.5)
        x, y, z = (table[name].to_numpy().reshape(side, side) for name in ("x", "y", "posterior"))
        gaps.append(z)
        shades = axes.contourf(x, y, z, levels=np.linspace(0, 1, 11), cmap="PuOr_r")
        for state in range(2):
            mine = points[(points["kind"] == kind) & (points["state"] == state)].set_index("metric")["value"]
            axes.annotate(
                "", (mine["x"], mine["y"]), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.8}
            )
            axes.text(1.25 * mine["x"], 1.25 * mine["y"], rf"$\mu_{state + 1}$", ha="center", va="center", fontsize=13)
        axes.add_patch(pyplot.Circle((0, 0), 1, fill=False, ec="black", lw=0.8, ls=":"))
        axes.set(title=title, xlabel="first coordinate of $x$", aspect="equal")
        axes.grid(visible=False)
    panels[0].set_ylabel("second coordinate of $x$")
    figure.colorbar(shades, ax=panels, label="posterior of state 1")
    caption = (
        "Two unit means in the plane and their reflections, which are the same means moved by one vector. The "
        f"posterior of the state is the same at every x (largest difference {np.abs(gaps[0] - gaps[1]).max():.0e}); "
        "only the columns of the matching T, which sum to -1, tell that the right one is wrong."
    )
    return lab.Drawing("ghost", figure, caption)


def draw_samples(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[(records["cell"] == "samples") & (records["metric"] == "error")]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    for emission, name, colour, marker in (
        ("as drawn", "identifiable", BLUE, "o"),
        ("two equal columns", "two equal columns of $O$", RED, "s"),
    ):
        mine = rows[rows["emission"] == emission].assign(value=lambda t: np.log(t["value"]))
        table = mine.pivot_table(index="seed", columns="samples", values="value", aggfunc="mean")
        axes.plot(table.columns, np.exp(table.T), color=colour, lw=0.8, alpha=0.35)
        means = [lab.mean(table[size]) for size in table]
        axes.plot(table.columns, [np.exp(m.estimate) for m in means], marker + "-", color=colour, label=name)
        axes.fill_between(
            table.columns, [np.exp(m.low) for m in means], [np.exp(m.high) for m in means], color=colour, alpha=0.2
        )
        if emission == "as drawn":
            sizes = table.columns.to_numpy()
            middle = np.exp(np.mean([m.estimate for m in means]))
            guide = middle * np.sqrt(np.exp(np.log(sizes).mean()) / sizes)
            axes.plot(sizes, guide, ":", color="black", lw=1.2, label="$N^{-1/2}$")
    axes.set(xscale="log", yscale="log", xlabel="sampled triples $N$", ylabel="distance of the parameters")
    axes.legend(loc="best")
    caption = (
        "Distance of the parameters that Jennrich's algorithm finds in sampled triples from the true ones: geometric "
        "means over repeats, a thin line a model, with the mean over models and its 95 % interval. With two equal "
        "columns of O the tensor has no unique decomposition."
    )
    return lab.Drawing("samples", figure, caption)


def draw_training(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot, ticker

    rows = records[records["cell"] == "trained"]
    seen = rows[rows["metric"] == "tokens"].groupby("step")["value"].first()
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    for metric, colour in (("squared distance to the optimal predictor", ORANGE), ("parameter error", BLUE)):
        table = rows[rows["metric"] == metric].pivot(index="step", columns="seed", values="value").iloc[1:]
        if len(table):
            samples = seen[table.index]
            means = [lab.mean(table.loc[step]) for step in table.index]
            axes.plot(samples, table, color=colour, lw=0.8, alpha=0.4)
            axes.plot(samples, [m.estimate for m in means], color=colour, label=metric)
            axes.fill_between(samples, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel="sampled pairs seen", ylabel="distance")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(loc="best")
    caption = (
        "Predictors trained by Adam on sampled pairs of one Gaussian model: squared distance of the predictions from "
        "the optimal ones and distance of the parameters, a thin line a seed, with the mean and its 95 % interval."
    )
    return lab.Drawing("training", figure, caption)
