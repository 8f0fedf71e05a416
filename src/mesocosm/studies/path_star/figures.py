"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.path_star.rules import curve, stars, tested

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

ARMS = {
    "standard": ("standard", BLUE),
    "ssm": ("standard,\nstate space", SKY),
    "reversed": ("reversed", GREEN),
    "teacherless": ("no teacher", ORANGE),
    "shallow": ("no teacher,\ntoo shallow", GREY),
    "teacherless reversed": ("no teacher,\nreversed", PURPLE),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_paths(records)
    yield draw_training(records)
    yield draw_wrong_arm(records)


def of(records: "DataFrame", star: tuple[int, int]) -> "DataFrame":
    return records[(records["degree"] == star[0]) & (records["path_length"] == star[1])]


def bars(axes: "Axes", samples: list[Any], names: list[str], colours: list[str]) -> None:
    """Means with their intervals, and a dot a seed."""
    for i, (sample, colour) in enumerate(zip(samples, colours)):
        mean = lab.mean(sample)
        axes.bar(i, mean.estimate, width=0.62, color=colour, alpha=0.55)
        axes.vlines(i, mean.low, mean.high, color="black", lw=1.6)
        across = i + np.linspace(-0.16, 0.16, len(sample)) if len(sample) > 1 else [i]
        axes.plot(across, sample, "o", color=colour, mec="white", ms=5, clip_on=False, zorder=3)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1.04), xlim=(-0.75, len(names) - 0.5))
    axes.grid(axis="x", visible=False)


def draw_paths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    graphs = stars(records)
    arms = [arm for arm in ARMS if arm in set(records["arm"])]
    figure, panels = pyplot.subplots(len(graphs), 1, figsize=(7.4, 3.6 * len(graphs)), squeeze=False, sharey=True)
    for axes, star in zip(panels[:, 0], graphs):
        own = of(records, star)
        samples = [tested(own, arm, "right paths") for arm in arms]
        easy = tested(of(records, (star[0], 3)), "short", "right paths")
        names, colours = zip(*(ARMS[arm] for arm in arms))
        bars(axes, [*samples, easy], [*names, "standard,\nl = 3"], [*colours, RED])
        axes.axhline(1 / star[0], color="black", ls=":", lw=1.2)
        axes.text(-0.7, 1 / star[0] + 0.02, "1/d")
        axes.set(title=f"G({star[0]},{star[1]})", ylabel="share of right paths")
    first = of(records, graphs[0])
    standard, teacherless = (tested(first, arm, "right paths").mean() for arm in ("standard", "teacherless"))
    caption = (
        "Right paths on new graphs by way of training: means over seeds with 95 % bootstrap intervals, a dot a seed. "
        "Dotted: the share that guessing the first node and following edges gives. "
        f"On G({graphs[0][0]},{graphs[0][1]}) the transformer finds {100 * standard:.0f} % of the paths after standard "
        f"training and {100 * teacherless:.0f} % after training without a teacher."
    )
    return lab.Drawing("paths", figure, caption)


def draw_training(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    star = stars(records)[0]
    own = of(records, star)
    names = {"standard": "standard: after the true nodes", "teacherless": "no teacher: all at once"}
    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 3.6), sharex=True, sharey=True)
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.85, star[1] - 1))
    for axes, (arm, title) in zip(panels, names.items()):
        for node, colour in zip(range(1, star[1]), colours):
            right = curve(own, arm, f"right at node {node}").ffill()
            axes.plot(right.index, right, color=colour, lw=0.8, alpha=0.45)
            label = f"node {node}" + (", the goal" if node == star[1] - 1 else "")
            axes.plot(right.index, right.median(axis=1), color=colour, lw=2.2, label=label)
        axes.axhline(1 / star[0], color="black", ls=":", lw=1.2)
        axes.set(title=title, xlabel="training step", ylim=(0, 1.04))
    panels[0].set_ylabel("share of right answers")
    panels[1].legend(loc="lower right")
    caption = (
        f"Right answers at each node of the path of G({star[0]},{star[1]}) along training, a thin line a seed, the "
        "median thick; a seed that has solved the task stops, and its last value is drawn on. Dotted: 1/d."
    )
    return lab.Drawing("training", figure, caption)


def draw_wrong_arm(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    star = stars(records)[0]
    own = of(records, star)
    arms = [arm for arm in ("standard", "ssm", "reversed") if len(tested(own, arm, "wrong arm followed"))]
    samples = [tested(own, arm, "wrong arm followed") for arm in arms]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), width_ratios=(1.35, 1))
    sketch(left, star[1], samples[0].mean())
    names, colours = zip(*(ARMS[arm] for arm in arms))
    bars(right, samples, list(names), list(colours))
    right.set(ylabel="share of wrong arms followed")
    caption = (
        "Left: the network is shown the first node of an arm that does not lead to the goal, and writes on. Right: how "
        "often it then follows that arm to its end, means over seeds with 95 % bootstrap intervals, a dot a seed. The "
        "network trained in reverse is shown the same node."
    )
    return lab.Drawing("wrong-arm", figure, caption)


def sketch(axes: "Axes", length: int, rate: float) -> None:
    """The start with a right and a wrong arm, set on the wrong one."""
    arrow = {"arrowstyle": "-|>", "shrinkA": 13, "shrinkB": 13, "lw": 1.8}
    for side, colour in ((1, GREY), (-1, RED)):
        for i in range(1, length):
            begin, end = ((0, 0) if i == 1 else (i - 1, 0.8 * side)), (i, 0.8 * side)
            shown = side < 0 and i == 1
            axes.annotate("", end, begin, arrowprops={**arrow, "color": colour, "ls": ":" if shown else "-"})
            name = {1: "shown" if side < 0 else "", length - 1: "goal" if side > 0 else ""}.get(i, "")
            axes.plot(*end, "o", ms=22, mfc="white", mec=colour, mew=2)
            axes.text(end[0], end[1] + 0.42 * side, name, ha="center", va="center", color=colour)
    axes.plot(0, 0, "o", ms=22, mfc="white", mec="black", mew=2)
    axes.text(0, 0.45, "start", ha="center")
    middle = (1 + length - 1) / 2
    axes.text(middle, -0.35, f"follows it: {100 * rate:.0f} %", ha="center", color=RED)
    axes.text(middle, 0.3, f"{100 * (1 - rate):.0f} % otherwise", ha="center", color=GREY)
    axes.set(xlim=(-0.4, length - 0.6), ylim=(-1.6, 1.6))
    axes.axis("off")
