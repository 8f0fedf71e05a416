"""The figures, from records alone."""

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.memorization.rules import (
    SHRINKING,
    accuracy,
    by_seed,
    flipped,
    of_class,
    student_widths,
    table,
    trajectories,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

CLASSES = {"increasing": RED, "cap": ORANGE, "flat": BLUE, "decreasing": GREEN}
MARKERS = {"increasing": "^", "cap": "D", "flat": "o", "decreasing": "v"}
PROXIES = {
    "memorisation": ("memorisation score", RED, "o"),
    "1 - cumulative confidence": ("1 - cumulative confidence", BLUE, "s"),
    "early EL2N": ("EL2N, early", SKY, "^"),
    "EL2N": ("EL2N, at the end", PURPLE, "v"),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    for draw in (draw_scores, draw_widths, draw_classes, draw_proxies, draw_distillation):
        try:
            yield draw(records)
        except lab.NotEnough:
            continue


def band(axes: "Axes", values: "DataFrame", label: str, colour: str, marker: str = "o", line: str = "-") -> None:
    """Means over seeds by width, with their intervals as bars."""
    intervals = [lab.mean(values[width].dropna()) for width in values.columns]
    middle = [i.estimate for i in intervals]
    arms = [[m - i.low for m, i in zip(middle, intervals)], [i.high - m for m, i in zip(middle, intervals)]]
    axes.errorbar(values.columns, middle, yerr=arms, fmt=f"{marker}{line}", color=colour, ms=5, capsize=3, label=label)


def by_width(axes: "Axes", widths: Any, **labels: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(widths), [f"{width:g}" for width in widths])
    axes.minorticks_off()
    axes.set(xlabel="width", **labels)


def draw_scores(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    scores, noise = table(records, "networks"), flipped(records)
    widths = scores.columns
    shown = sorted({widths[0], widths[len(widths) // 2], widths[-1]})
    bins = np.linspace(-1, 1, 41)
    bins = bins[bins >= np.floor(scores.min().min() * 20) / 20 - 1e-9]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(10, 3.6), sharey=True, squeeze=False)
    for axes, width in zip(panels[0], shown):
        own = scores[width].dropna()
        kinds = [own[~noise.reindex(own.index)], own[noise.reindex(own.index)]][: 1 + noise.any()]
        look: Any = {"color": [BLUE, RED][: len(kinds)], "label": ["true label", "flipped label"][: len(kinds)]}
        axes.hist(kinds, bins=list(bins), stacked=True, log=True, **look)
        axes.set(title=f"width {width:g}", xlabel="memorisation score")
    panels[0, 0].set_ylabel("examples of all seeds")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    low, high = ((scores[width].dropna() > 0.8).mean() for width in (widths[0], widths[-1]))
    caption = (
        "Memorisation scores of all training examples at three widths, on a logarithmic scale, stacked. A share of "
        f"{low:.3f} is above 0.8 at width {widths[0]:g}, and of {high:.3f} at width {widths[-1]:g}."
    )
    return lab.Drawing("scores", figure, caption)


def draw_widths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    scores, noise = table(records, "networks"), flipped(records)
    noise = noise.reindex(scores.index)
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.0))
    if noise.any():
        band(panels[0], by_seed(scores[noise]), "flipped labels", RED, "^")
    band(panels[0], by_seed(scores[~noise]), "true labels", BLUE, "s")
    band(panels[0], by_seed(scores), "all", BLACK, "o", "--")
    with contextlib.suppress(lab.NotEnough):
        band(panels[0], by_seed(table(records, "true labels")), "where none is flipped", GREY, "D", ":")
    by_width(panels[0], scores.columns, title="memorisation", ylabel="mean memorisation score")
    band(panels[1], 100 * accuracy(records, "networks", "train"), "own subset, flips included", BLACK)
    band(panels[1], 100 * accuracy(records, "networks", "test"), "test images", GREEN, "s")
    by_width(panels[1], scores.columns, title="accuracy", ylabel="accuracy (%)")
    for axes in panels:
        axes.legend()
    means = by_seed(scores[~noise]).mean()
    caption = (
        "Left: mean memorisation score of examples with flipped labels, with true labels, of all, and of all where no "
        "label is flipped. Right: accuracy of the networks on the subset that each trained on and on test images. "
        "Means over seeds with 95 % bootstrap intervals. The mean score of true labels is largest at width "
        f"{means.idxmax():g}, with {means.max():.3f}."
    )
    return lab.Drawing("widths", figure, caption)


def draw_classes(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    scores = table(records, "networks")
    classes, noise = trajectories(scores), flipped(records)
    noise = noise.reindex(classes.index)
    bars = {"true\nlabels": classes[~noise]}
    if noise.any():
        bars = {"flipped\nlabels": classes[noise]} | bars
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.0))
    for place, some in enumerate(bars.values()):
        base = 0.0
        for kind, colour in CLASSES.items():
            share = 100 * float((some == kind).mean())
            panels[0].barh(place, share, left=base, color=colour, height=0.6)
            if share > 4:
                panels[0].text(base + share / 2, place, f"{share:.0f}", ha="center", va="center")
            base += share
    panels[0].set(xlabel="share of the examples (%)", title="classes of trajectories", xlim=(0, 100))
    panels[0].set_yticks(range(len(bars)), list(bars))
    panels[0].grid(False)
    for kind, colour in CLASSES.items():
        some = by_seed(of_class(scores, classes, kind))
        if len(some):
            band(panels[1], some, kind, colour, MARKERS[kind])
    by_width(panels[1], scores.columns, title="mean trajectory of each class", ylabel="memorisation score")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    shares = classes.value_counts(normalize=True)
    told = ", ".join(f"{100 * shares.get(kind, 0):.0f} % {kind}" for kind in CLASSES)
    caption = (
        "How the score of each example goes with width, by classes: their shares among flipped and true labels, and "
        f"their mean scores over seeds with 95 % bootstrap intervals. Of all examples {told}."
    )
    return lab.Drawing("classes", figure, caption)


def draw_proxies(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    classes = trajectories(table(records, "networks"))
    figure, axes = pyplot.subplots(figsize=(6.8, 4.4))
    ends = {}
    for metric, (label, colour, marker) in PROXIES.items():
        means = by_seed(of_class(table(records, "networks", metric), classes, "increasing"))
        if means.empty:
            raise lab.NotEnough("no example's score increases")
        band(axes, means, label, colour, marker)
        ends[metric] = (means.mean().iloc[0], means.mean().iloc[-1])
    by_width(axes, means.columns, ylabel="mean over increasing examples")
    axes.set_ylim(0, None)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    score, confidence = ends["memorisation"], ends["1 - cumulative confidence"]
    caption = (
        "Examples whose memorisation score increases: their mean score and proxies of it, against width; means over "
        f"seeds with 95 % bootstrap intervals. From the smallest to the largest width the score goes from "
        f"{score[0]:.2f} to {score[1]:.2f}, and 1 - cumulative confidence from {confidence[0]:.2f} to "
        f"{confidence[1]:.2f}."
    )
    return lab.Drawing("proxies", figure, caption)


def draw_distillation(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    scores = table(records, "networks")
    classes, width = trajectories(scores), student_widths(records)[0]
    if width not in scores:
        raise lab.NotEnough(f"there are no networks of width {width:g}")
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.6), sharey=True)
    for axes, arm, title in zip(panels, ("distilled", "argmax"), ("soft labels", "the teacher's likeliest class")):
        pairs = scores[[width]].assign(taught=table(records, arm)[width]).dropna()
        for kind in ("flat", "decreasing", "cap", "increasing"):
            x, y = of_class(pairs, classes, kind).to_numpy().T
            axes.plot(x, y, MARKERS[kind], color=CLASSES[kind], ms=3.5, alpha=0.5, mec="none", label=kind)
        axes.axline((0, 0), slope=1, color=GREY, lw=1, ls=":")
        axes.set(title=f"width {width:g}, taught by {title}", xlabel="score of networks on labels")
    panels[0].set_ylabel("score of students")
    handles: list[Any] = [
        pyplot.Line2D([], [], color=CLASSES[kind], marker=MARKERS[kind], ls="", label=kind) for kind in CLASSES
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    less = (scores[width] - table(records, "distilled")[width]).dropna()
    rising, shrinking = (of_class(less, classes, *kinds).mean() for kinds in (("increasing",), SHRINKING))
    caption = (
        "Memorisation score of every example by networks of one width: taught by soft labels (left) or by the "
        "likeliest class (right) of a wider teacher on the same subset, against those on labels. Soft labels lower it "
        f"by {rising:.3f} on increasing and by {shrinking:.3f} on flat or decreasing examples."
    )
    return lab.Drawing("distillation", figure, caption)
