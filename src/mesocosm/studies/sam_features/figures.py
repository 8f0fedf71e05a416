"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE
from mesocosm.studies.sam_features.rules import (
    change,
    geometric_mean,
    judged,
    judged_steps,
    largest,
    share_ratios,
    table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

METHODS = {"toy LSAM": ("LSAM", BLUE, "o"), "toy SAM": ("SAM", ORANGE, "s")}
IMAGES = {
    "images SAM": ("network, SAM", BLUE, "o"),
    "images LSAM": ("network, LSAM", GREEN, "^"),
    "images MLP": ("fully connected, SAM", PURPLE, "D"),
    "alone SAM": ("network, SAM, easy half tells nothing", GREY, "s"),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_branches(records)
    yield draw_mechanisms(records)
    yield draw_lorenz(records)
    yield draw_probes(records)


def band(axes: "Axes", values: "DataFrame", label: str, colour: str, marker: str = "o", mean: Any = lab.mean) -> None:
    """Means over seeds by rho, with their intervals as bars."""
    intervals = [mean(values[rho].dropna()) for rho in values.columns]
    middle = [i.estimate for i in intervals]
    arms = [[m - i.low for m, i in zip(middle, intervals)], [i.high - m for m, i in zip(middle, intervals)]]
    axes.errorbar(values.columns, middle, yerr=arms, fmt=f"{marker}-", color=colour, ms=5, capsize=3, label=label)


def draw_branches(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10.5, 3.6))
    for cell, (name, colour, marker) in METHODS.items():
        hard, easy = (table(records, cell, f"{half} error") for half in ("hard", "easy"))
        band(panels[0], 100 * hard.sub(hard[0.0], axis=0), name, colour, marker)
        band(panels[1], 100 * easy.sub(easy[0.0], axis=0), name, colour, marker)
        band(panels[2], table(records, cell, "norm ratio"), name, colour, marker)
    labels = ("change of the hard error (points)", "change of the easy error (points)", "|a_h| / |a_e|")
    titles = ("hard branch", "easy branch", "encoders")
    for axes, label, title in zip(panels, labels, titles):
        axes.set(title=title, xlabel="rho", ylabel=label)
    for axes in panels[:2]:
        axes.axhline(0, color=BLACK, lw=0.8)
        axes.margins(y=0.15)
    panels[0].legend()
    hard = table(records, "toy LSAM", "hard error")
    caption = (
        "Two linear branches after training, against the way uphill: change from rho = 0 of each branch's own error, "
        "paired over seeds, and ratio of the encoders' norms; means with 95 % bootstrap intervals. At rho = 0 the hard "
        f"branch errs on {100 * hard[0.0].mean():.2f} % of inputs; by LSAM with rho = {hard.columns.max():g} that "
        f"changes by {100 * change(hard).mean():+.2f} points."
    )
    return lab.Drawing("branches", figure, caption)


def draw_mechanisms(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    cell, steps = "toy LSAM", judged_steps(records, "toy LSAM")
    rho, last = judged(records, cell), steps[-1]
    parts = {
        "phantom layers": ("by rescaled layers", BLUE, "o"),
        "phantom importance": ("by new weights of examples", ORANGE, "s"),
        "phantom": ("by both", BLACK, "D"),
        "phantom encoders": ("by moved encoders (control)", GREY, "^"),
    }
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for where, (label, colour, marker) in parts.items():
        along = records[records["rho"] == rho]
        by_step = {step: share_ratios(along, step, where)[rho] for step in steps}
        band(panels[0], frame(by_step), label, colour, marker, geometric_mean)
        band(panels[1], share_ratios(records, last, where), label, colour, marker, geometric_mean)
    for axes in panels:
        axes.axhline(1, color=GREY, lw=1, ls=":")
    panels[0].set(title=f"rho = {rho:g}", xlabel="training step", ylabel="hard feature's share of the gradient,\ntimes")
    panels[1].set(title=f"step {last:,}", xlabel="rho")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "By what factor the share of the hard feature in the gradient to the encoders is larger uphill than at the "
        "parameters themselves, and which of the two mechanisms makes it so: geometric means over seeds of LSAM, with "
        "95 % bootstrap intervals, along training and against the way uphill."
    )
    return lab.Drawing("mechanisms", figure, caption)


def frame(columns: dict[int, Any]) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(columns)


def draw_lorenz(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    top = largest(records, "toy LSAM")
    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.2), sharey=True)
    kinds = (("real", "at the parameters", BLUE, "-"), ("phantom", f"uphill by rho = {top:g}", ORANGE, "--"))
    ends = {0.0: "gradient descent", top: f"LSAM, rho = {top:g}"}
    for axes, (rho, title) in zip(panels, ends.items()):
        for kind, label, colour, line in kinds:
            rows = records[(records["metric"] == f"lorenz, {kind}") & (records["rho"] == rho)]
            curves = rows.pivot(index="rank", columns="seed", values="value")
            intervals = [lab.mean(values) for values in curves.to_numpy()]
            low, high = [i.low for i in intervals], [i.high for i in intervals]
            axes.fill_between(curves.index, low, high, color=colour, alpha=0.25, lw=0)
            if kind == "real" or rho:
                axes.plot(curves.index, curves.mean(axis=1), line, color=colour, label=label)
        axes.plot([0, 1], [0, 1], ":", color=GREY, label="all examples alike")
        axes.set(title=title, xlabel="share of the examples, of least weight first", xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.legend(loc="upper left")
    panels[0].set_ylabel("their share of the total weight")
    caption = (
        "Lorenz curves of the examples' weights sigma(-y f(x)) in the gradient at the end of training, means over "
        "seeds with 95 % bootstrap intervals: the nearer to the diagonal, the more evenly the examples weigh."
    )
    return lab.Drawing("lorenz", figure, caption)


def draw_probes(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10.5, 3.9))
    metrics = {
        "hard probe error": "probe of the hard half",
        "easy probe error": "probe of the easy half",
        "test error": "test error of the network",
    }
    for axes, (metric, title) in zip(panels, metrics.items()):
        for cell, (name, colour, marker) in IMAGES.items():
            if cell != "alone SAM" or metric == "hard probe error":
                band(axes, 100 * table(records, cell, metric), name, colour, marker)
        axes.set(title=title, xlabel="rho", ylim=(0, None))
    panels[0].set_ylabel("error (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    hard = table(records, "images SAM", "hard probe error")
    caption = (
        "Networks trained on composites of an easy and a hard image: errors of linear probes of their last features on "
        "composites with independent halves, and of the networks themselves, against the way uphill; means over seeds "
        f"with 95 % bootstrap intervals. The probe of the hard half errs on {100 * hard[0.0].mean():.1f} % after "
        f"gradient descent and on {100 * hard[judged(records, 'images SAM')].mean():.1f} % after SAM with "
        f"rho = {judged(records, 'images SAM'):g}."
    )
    return lab.Drawing("probes", figure, caption)
