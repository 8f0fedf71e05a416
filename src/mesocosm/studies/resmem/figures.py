"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE
from mesocosm.studies.resmem import rules

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

PREDICTORS = {
    "test accuracy": ("network alone", BLUE, "o-"),
    "k-NN accuracy": ("its neighbours' labels", GREEN, "^--"),
    "ResMem accuracy": ("ResMem", ORANGE, "s-"),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_picture(records)
    yield draw_accuracy(records)
    yield draw_risk(records)


def draw_picture(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    points, curves = (
        records[records["cell"] == f"picture/{part}"].pivot(index="x", columns="metric", values="value")
        for part in ("points", "curves")
    )
    figure, panels = pyplot.subplots(1, 3, figsize=(10.5, 3.4))
    panels[0].plot(curves["base"], color=BLUE, label="base, a straight line")
    panels[0].plot(points["truth"], "o", color=BLACK, ms=4, label="training points")
    panels[1].plot(curves["residual"], color=ORANGE, label="3 nearest residuals, weighted")
    panels[1].plot(points["residual"], "o", color=BLACK, ms=4, label="training residuals")
    panels[2].plot(curves["truth"], ":", color=GREY, label="truth")
    panels[2].plot(curves["ResMem"], color=ORANGE, label="base plus looked-up residual")
    panels[2].plot(points["truth"], "o", color=BLACK, ms=4)
    for axes, title in zip(panels, ("learn what you can", "memorise the rest", "both")):
        axes.set(title=title, xlabel="x", ylabel="residual" if axes is panels[1] else "y")
        axes.margins(y=0.3)
        axes.legend(loc="upper left")
    left, now = ((curves[by] - curves["truth"]).pow(2).mean() for by in ("base", "ResMem"))
    caption = (
        "Residual memorisation in one dimension: a straight line is fitted, its residuals are kept at the training "
        f"points, and the nearest of them are added to it. The mean squared error falls from {left:.3f} to {now:.4f}."
    )
    return lab.Drawing("picture", figure, caption)


def bars(axes: "Axes", x: Any, samples: Any, style: str, **look: Any) -> None:
    """Means over seeds with 95 % bootstrap intervals."""
    intervals = [lab.mean(sample) for sample in samples]
    middle = [i.estimate for i in intervals]
    arms = [[m - i.low for m, i in zip(middle, intervals)], [i.high - m for m, i in zip(middle, intervals)]]
    axes.errorbar(x, middle, yerr=arms, fmt=style, ms=5, capsize=3, **look)


def draw_accuracy(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    every = trained(records)
    kinds = {cell: name for cell, name in every.items() if cell != "stopped early"}
    widths = {cell: name for cell, name in kinds.items() if cell.startswith("network/")}
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.9))
    for metric, (label, colour, style) in PREDICTORS.items():
        samples = [100 * rules.values(records, cell, metric) for cell in widths]
        bars(panels[0], range(len(widths)), samples, style, color=colour, label=label)
    for over, label, colour, style, aside in (
        ("test accuracy", "over the network alone", BLUE, "o", -0.1),
        ("k-NN accuracy", "over its neighbours' labels", GREEN, "^", 0.1),
    ):
        samples = [rules.gain(records, cell, over) for cell in kinds]
        bars(panels[1], [place + aside for place in range(len(kinds))], samples, style, color=colour, label=label)
    for metric, colour, style, aside in (("corrected", PURPLE, "D", -0.1), ("spoilt", BLACK, "v", 0.1)):
        samples = [100 * rules.values(records, cell, metric) for cell in kinds]
        bars(panels[2], [place + aside for place in range(len(kinds))], samples, style, color=colour, label=metric)
    panels[0].set_xticks(range(len(widths)), widths.values())
    panels[0].set(title="accuracy on test images", xlabel="width", ylabel="accuracy (%)")
    panels[1].axhline(0, color=GREY, lw=0.8)
    panels[1].set(title="gain by ResMem", ylabel="gain (points)")
    panels[2].set(title="answers that ResMem changes", ylabel="test images (%)", ylim=(0, None))
    for axes in panels[1:]:
        axes.set_xticks(range(len(kinds)), kinds.values())
        axes.set_xlabel("width")
    panels[0].legend(loc="lower right")
    for axes in panels[1:]:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.35 * (high - low))
        axes.legend(loc="upper left")
    gains = (f"{rules.gain(records, cell).mean():+.2f} ({' '.join(name.split())})" for cell, name in every.items())
    caption = (
        "Networks alone, their neighbours' labels alone, and ResMem, by width; the widest also after long training. "
        "Means over seeds with 95 % bootstrap intervals; differences are paired. Mean "
        f"gain over the network alone in points: {', '.join(gains)}."
    )
    return lab.Drawing("accuracy", figure, caption)


def trained(records: "DataFrame") -> dict[str, str]:
    """Cells of networks that stayed finite, from the narrowest, with their names in a figure."""
    found = set(records.loc[records["metric"] == "test accuracy", "cell"])
    names = {f"network/{width}": f"{width}" for width in rules.widths(records)}
    widest = str(max(rules.widths(records), default=""))
    names |= {"stopped early": f"{widest}\nearly", "interpolating": f"{widest}\nlong"}
    return {cell: name for cell, name in names.items() if cell in found}


def draw_risk(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    every = rules.dimensions(records)
    figure, panels = pyplot.subplots(1, len(every), figsize=(4.8 * len(every), 3.6), squeeze=False)
    for axes, d in zip(panels[0], every):
        for metric, label, colour, style in (
            ("base risk", "bounded linear learner", BLUE, "o-"),
            ("ResMem risk", "ResMem", ORANGE, "s-"),
        ):
            table = rules.risks(records, metric, d)
            bars(axes, table.columns, [table[n] for n in table], style, color=colour, label=label)
        axes.axhline(rules.limit(records, d), color=GREY, ls=":", label="limit of the linear learner, (1 - L)$^2$ / d")
        axes.set(title=f"d = {d}", xlabel="training samples n", xscale="log", yscale="log")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.2, high * 1.5)
    panels[0, 0].set_ylabel("risk, mean squared error")
    panels[0, 0].legend(loc="lower left")
    slopes = (f"{rules.slope(rules.risks(records, 'ResMem risk', d)).estimate:.2f} for d = {d}" for d in every)
    caption = (
        "Risk against training samples on a linear problem, of a linear learner whose norm is bounded by L = "
        f"{records['radius'].min():g} and of ResMem with one neighbour; means over seeds with 95 % bootstrap "
        f"intervals. Slopes of ResMem's log risk: {', '.join(slopes)}."
    )
    return lab.Drawing("risk", figure, caption)
