"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.raptr.rules import LEARNED, curve, gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

ARMS = {
    "standard": ("whole network, more compute", GREY, ":"),
    "equal compute": ("whole network", BLACK, "-"),
    "raptr": ("RaPTr: rising path length", BLUE, "-"),
    "reversed": ("falling path length", RED, "-"),
    "layerdrop": ("constant path length", ORANGE, "-"),
    "progressive drop": ("progressive layer dropping", PURPLE, "-"),
    "stacking": ("stacking", GREEN, "-"),
}
KINDS = {
    "whole": ("residual, with norm", BLUE, "o"),
    "no norm": ("residual, without norm", ORANGE, "s"),
    "no residual": ("norm, without residual", RED, "^"),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    for sandbox in ("polynomials", "text"):
        if sandbox in set(records["sandbox"]):
            yield draw_compute(records, sandbox)
    yield draw_degrees(records)
    yield draw_gap(records)


def draw_compute(records: "DataFrame", sandbox: str) -> lab.Drawing:
    from matplotlib import pyplot

    figure, (axes, last) = pyplot.subplots(1, 2, figsize=(9.4, 4.8), width_ratios=(1.7, 1))
    unit = scale_of(curve(records, "equal compute", "flops", sandbox).to_numpy().max())
    names: list[str] = []
    for arm, (name, colour, line) in ARMS.items():
        errors = curve(records, arm, "error", sandbox).iloc[1:]
        if not len(errors):
            continue
        spent = curve(records, arm, "flops", sandbox).iloc[1:].mean(axis=1) / unit
        means = [lab.mean(row.dropna()) for _, row in errors.iterrows()]
        axes.plot(spent, [m.estimate for m in means], color=colour, ls=line, label=name)
        axes.fill_between(spent, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.13, lw=0)
        if arm != "standard":
            draw_last(last, len(names), errors.iloc[-1].dropna().to_numpy(), colour)
            names.append(name)
    quantity = "MSE / variance" if sandbox == "polynomials" else "held-out loss, nats a byte"
    axes.set(xlabel=f"training FLOPs of a network, {exponent_of(unit)}", ylabel=f"{quantity}, whole network")
    if sandbox == "polynomials":
        axes.set_yscale("log")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    last.set_yticks(range(len(names)), names)
    last.invert_yaxis()
    last.grid(axis="y", visible=False)
    last.set(xlabel=f"{quantity} at the end")
    last.locator_params(axis="x", nbins=4)
    caption = (
        f"Evaluation of the whole network on {sandbox} against the training compute of one network, embedding and "
        "head included, forward and backward passes. Left: means over seeds with 95 % bootstrap bands. Right: the end, "
        "at which all arms but the dotted one have spent equal compute; dots are seeds, bars the 95 % interval of the "
        "mean."
    )
    return lab.Drawing("compute" if sandbox == "polynomials" else "text", figure, caption)


def draw_last(axes: "Axes", place: int, values: np.ndarray, colour: str) -> None:
    middle = lab.mean(values)
    across = place + np.linspace(-0.2, 0.2, len(values))
    axes.plot(values, across, "o", ms=4, color=colour, alpha=0.5, mec="none")
    axes.hlines(place, middle.low, middle.high, color="black", lw=1.4, zorder=3)
    axes.plot(middle.estimate, place, "d", color="black", ms=6, zorder=3)


def scale_of(flops: float) -> float:
    """The power of 1,000 below a number of operations."""
    return float(1000 ** (np.log10(flops) // 3))


def exponent_of(unit: float) -> str:
    return f"$10^{{{round(np.log10(unit))}}}$"


def draw_degrees(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    metrics = sorted(name for name in set(records["metric"]) if name.startswith("alpha "))
    figure, panels = pyplot.subplots(1, 2, figsize=(9.4, 3.9), sharey=True, sharex=True)
    unit = scale_of(curve(records, "equal compute", "flops").to_numpy().max())
    for axes, arm in zip(panels, ("raptr", "equal compute")):
        spent = curve(records, arm, "flops").mean(axis=1) / unit
        for metric, colour in zip(metrics, (BLUE, SKY, GREEN, ORANGE, RED)):
            means = [lab.mean(row.dropna()) for _, row in curve(records, arm, metric).iterrows()]
            axes.plot(spent, [m.estimate for m in means], color=colour, label=metric.replace("alpha", "degree"))
            axes.fill_between(spent, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.15, lw=0)
        axes.axhline(1, color=GREY, lw=1, ls=":")
        axes.set(title=ARMS[arm][0], xlabel=f"training FLOPs of a network, {exponent_of(unit)}")
    stages = int(records.loc[records["arm"] == "raptr", "stages"].iloc[0])
    spent = curve(records, "raptr", "flops").mean(axis=1) / unit
    for stage in range(1, stages):
        panels[0].axvline(np.interp(stage / stages * spent.index[-1], spent.index, spent), color=GREY, lw=1, ls="--")
    panels[0].set(ylabel=r"part learned, $\alpha_k$")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        "How far the whole network has learned the polynomial's part of each degree: its coefficient, 1 when learned. "
        "Means over seeds with 95 % bootstrap bands, against training compute. Dashed: the path length grows."
    )
    return lab.Drawing("degrees", figure, caption)


def draw_gap(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.4, 3.9), sharey=True)
    for axes, trained in zip(panels, (False, True)):
        for kind, (name, colour, marker) in KINDS.items():
            found = gaps(records, kind, trained)
            if not len(found):
                continue
            means = [lab.mean(found[depth]) for depth in found]
            middle = np.array([m.estimate for m in means])
            bars: Any = [[m.estimate - m.low for m in means], [m.high - m.estimate for m in means]]
            depths = found.columns.to_numpy(dtype=float)
            constant = (gaps(records, kind, trained, "error").mean() > LEARNED).to_numpy() & trained
            style: Any = {"color": colour, "ls": "", "marker": marker, "ms": 6, "capsize": 3}
            axes.errorbar(depths, middle, bars, **style)
            axes.plot(depths[constant], middle[constant], marker, color=colour, mfc="white", ms=6, zorder=3)
            if (~constant).sum() > 1:
                fit = measures.power_law(depths[~constant], middle[~constant])
                axes.plot(depths[~constant], fit.factor * depths[~constant] ** fit.exponent, color=colour, lw=1)
                name += f": $L^{{{fit.exponent:.2f}}}$"
            axes.plot([], [], marker, color=colour, ms=6, label=name)
        axes.set(xscale="log", yscale="log", xlabel="layers L")
        axes.set(title="after training" if trained else "at initialisation")
        axes.set_xticks(depths, [f"{depth:.0f}" for depth in depths])
        axes.minorticks_off()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))
    panels[0].set(ylabel="|loss without one layer - loss|, / variance")
    caption = (
        "The transition gap: how far the mean loss of paths that miss one inner layer is from that of the whole "
        "network, at the same weights. Means over seeds of its size with 95 % bootstrap intervals, and the power law "
        "through the means. Hollow: networks that have learned nothing, whose output hardly depends on anything."
    )
    return lab.Drawing("gap", figure, caption)
