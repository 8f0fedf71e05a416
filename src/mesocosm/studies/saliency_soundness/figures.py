"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.saliency_soundness.evaluation import SHOWN
from mesocosm.studies.saliency_soundness.rules import (
    FILLED,
    MASKS,
    Network,
    Statistic,
    networks,
    over_images,
    predicted,
    worst,
    wrong,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

METHODS = {
    "|gradient|": (BLUE, "o"),
    "SmoothGrad": (BLUE, "s"),
    "gradient x input": (SKY, "o"),
    "integrated gradients": (SKY, "s"),
    "GradCAM": (GREEN, "o"),
    "occlusion": (GREEN, "s"),
    "greedy": (RED, "X"),
    "mask": (ORANGE, "o"),
    "mask with TV": (ORANGE, "^"),
    "coarse mask": (PURPLE, "o"),
    "coarse mask with TV": (PURPLE, "^"),
    "random": (GREY, "D"),
}
"""Colours and markers, in the order of the legend."""
CURVES = ("random", "|gradient|", "integrated gradients", "greedy", "mask", "coarse mask with TV")


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    try:
        nets = networks(records)
    except lab.NotEnough:
        return
    yield draw_plane(nets)
    yield draw_scores(nets)
    yield draw_curves(records)
    yield draw_maps(records, nets[0])


def present(nets: list[Network]) -> list[str]:
    return [method for method in METHODS if (method, "soundness") in nets[0].tables]


def arms(interval: lab.Interval) -> np.ndarray:
    """Lengths of the error bars, `[2, 1]`; rounding may make them negative."""
    return np.array([[interval.estimate - interval.low], [interval.high - interval.estimate]]).clip(min=0)


def draw_plane(nets: list[Network]) -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.6, 4.6))
    for method in present(nets):
        colour, marker = METHODS[method]
        x, y = over_images(nets, predicted(method, "completeness")), over_images(nets, worst(method))
        axes.errorbar(
            x.estimate, y.estimate, yerr=arms(y), xerr=arms(x), fmt=marker, color=colour, ms=7, lw=1, label=method
        )
    axes.set(xlabel="completeness at the predicted label", ylabel="worst soundness")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    told = [
        f"{method} {over_images(nets, predicted(method, 'completeness')).estimate:.2f} and "
        f"{over_images(nets, worst(method)).estimate:.2f}"
        for method in ("integrated gradients", *MASKS[::3], "|gradient|")
    ]
    caption = (
        "How much of the predicted label's probability a method's maps keep, and how little they add to the label for "
        "which they add most; both should be 1. Means over networks with 95 % bootstrap intervals over images. Of maps "
        f"that keep little, soundness tells nothing. Completeness and worst soundness: {'; '.join(told)}."
    )
    return lab.Drawing("plane", figure, caption)


def draw_scores(nets: list[Network]) -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(11, 4.4), sharey=True)
    insertion, deletion = "insertion area", "deletion area"
    pairs = {
        "insertion area": (predicted, wrong, insertion, insertion, "predicted label", "other labels"),
        "deletion area": (predicted, wrong, deletion, deletion, "predicted label", "other labels"),
        "worst soundness": (worst, worst, "soundness", FILLED, "hidden pixels grey", "hidden pixels of other images"),
    }
    names = present(nets)[::-1]
    for axes, (title, (one, other, first, second, *labels)) in zip(panels, pairs.items()):
        for name in names:
            bar(axes, nets, one(name, first), name, True, names)
            bar(axes, nets, other(name, second), name, False, names)
        axes.set(title=title, xlim=(-0.02, 1.02))
        axes.set_yticks(range(len(names)), names)
        for label, face in zip(labels, (BLACK, "white")):
            axes.plot([], [], "o", mec=BLACK, mfc=face, label=label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08))
    caption = (
        "Mean probability of a label as its map's first pixels are shown (insertion) or hidden (deletion), for the "
        "predicted label and for the others, each by its own map; and worst soundness by the insertion area, with "
        "hidden pixels grey or those of random training images. Means over networks with 95 % bootstrap intervals over "
        "images."
    )
    return lab.Drawing("scores", figure, caption)


def bar(axes: "Axes", nets: list[Network], statistic: Statistic, name: str, full: bool, names: list[str]) -> None:
    """An estimate with its interval in the method's row."""
    found, (colour, marker) = over_images(nets, statistic), METHODS[name]
    row = names.index(name) + (0.14 if full else -0.14)
    face = colour if full else "white"
    axes.errorbar(found.estimate, row, xerr=arms(found), fmt=marker, color=colour, mfc=face, ms=6, lw=1.2)


def draw_curves(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["metric"].str.startswith("curve") & (records["cell"] == "maps")]
    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.2), sharey=True)
    for axes, which, line in zip(panels, ("predicted label", "other labels"), ("-", "--")):
        for method in CURVES:
            own = rows[(rows["method"] == method) & (rows["metric"] == f"curve, {which}")]
            curves = own.pivot(index="share", columns="seed", values="value")
            colour, marker = METHODS[method]
            axes.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), color=colour, alpha=0.2, lw=0)
            axes.plot(curves.index, curves.mean(axis=1), marker + line, color=colour, ms=4, label=method)
        axes.set(title=which, xlabel="share of the pixels shown", xlim=(0, 1), ylim=(0, 1))
    panels[0].set_ylabel("probability of the label")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    count = rows["seed"].nunique()
    caption = (
        "Probability of a label as the pixels that its map ranks highest are shown on grey: left for the label that "
        f"the network predicts, right for the others. Means over images and networks, whose range "
        f"(of {count}) the bands show. A sound method leaves the right curves low until the whole image is shown."
    )
    return lab.Drawing("curves", figure, caption)


def draw_maps(records: "DataFrame", net: Network) -> lab.Drawing:
    from matplotlib import pyplot

    pixels = records[records["cell"] == "first image"]
    pixels = pixels[pixels["seed"] == pixels["seed"].min()]
    probability, spelled = net.of("mask", "probability")[0], net.of("mask", "insertion area")[0]
    own = int(probability.argmax())
    others = [int(label) for label in np.argsort(-spelled) if label != own][:2]
    figure, panels = pyplot.subplots(len(SHOWN), 4, figsize=(8.4, 6.6))
    for method, axes in zip(SHOWN, panels):
        picture(axes[0], pixels[pixels["method"] == "image"], "gray")
        axes[0].set_ylabel(method)
        axes[0].set_title(f"image of class {net.targets[0]}")
        rows = pixels[pixels["method"] == method]
        for place, label in zip(axes[1:], (own, *others)):
            picture(place, rows[rows["label"] == label], "cividis", ranked=True)
            area = net.of(method, "insertion area")[0, label]
            place.set_title(f"label {label}, p = {probability[label]:.2f}\narea {area:.2f}", fontsize=9)
    caption = (
        "Maps of the first image for the predicted label and for the two labels that masks spell best; brighter pixels "
        "rank higher. p is the label's probability on the whole image, and the area the mean probability as pixels are "
        "shown in the order of the map. The image is not chosen."
    )
    return lab.Drawing("maps", figure, caption)


def picture(axes: "Axes", rows: "DataFrame", colours: str, ranked: bool = False) -> None:
    image: Any = rows.pivot(index="row", columns="column", values="value").to_numpy()
    if ranked:
        image = image.ravel().argsort(kind="stable").argsort(kind="stable").reshape(image.shape)
    axes.imshow(image, cmap=colours)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
