"""The figures, from records alone."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREY, ORANGE, RED
from mesocosm.studies.gradient_variance_amplification import rules
from mesocosm.studies.gradient_variance_amplification.rules import checkpoints, factor, scale, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

RAW: dict[str, Any] = {"color": RED, "label": "weights"}
EMA: dict[str, Any] = {"color": BLUE, "label": "averaged weights"}
LINEAR = {"linear small batch": "b = {:.0f}", "linear": "{:.0f}", "linear large batch": "{:.0f}"}
NEURAL = {
    "neural": "b = {:.0f}",
    "neural more data": "16 times\nthe data",
    "neural decay": "falling\nrate",
    "neural large batch": "{:.0f}",
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    cells = set(records["cell"])
    clones = [cell for cell in ("linear", "neural", "neural saturated") if cell in cells]
    alone = [cell for cell in rules.environments(records) if not cell.endswith((" large batch", " decay"))]
    drawings = [
        *([partial(draw_training, cells=clones), draw_remedies] if clones else ()),
        *([draw_slices] if "neural" in cells else ()),
        *([draw_laws] if "stationary" in cells else ()),
        *([draw_strings] if "counter" in cells else ()),
        *(partial(draw_environment, cell=cell) for cell in alone),
    ]
    for draw in drawings:
        # A training cut short has nothing to draw.
        with suppress(lab.NotEnough):
            yield draw(records)


def first_seed(records: "DataFrame", cell: str, metric: str) -> Any:
    """A metric of the first seed along training, by step; the start left out."""
    rows = records[(records["cell"] == cell) & (records["metric"] == metric) & (records["step"] > 0)]
    rows = rows[rows["seed"] == rows["seed"].min()].sort_values("step")
    return rows["step"].to_numpy(), rows["value"].to_numpy()


def draw_training(records: "DataFrame", cells: list[str]) -> lab.Drawing:
    from matplotlib import pyplot

    names = {"linear": "linear clone", "neural": "neural clone", "neural saturated": "saturated plant"}
    figure, panels = pyplot.subplots(2, len(cells), figsize=(3.6 * len(cells), 5.2), sharex="col", squeeze=False)
    for (above, below), cell in zip(panels.T, cells):
        sign = 1 if cell == "neural saturated" else -1
        for prefix, look in (("", RAW), ("EMA ", EMA)):
            for axes, metric, factor_ in ((above, "reward", sign), (below, "cloning loss", 1)):
                steps, values = first_seed(records, cell, prefix + metric)
                axes.plot(steps, factor_ * values, lw=1.2, **look)
        expert, idle = (scale(records, cell, metric) for metric in ("expert reward", "idle loss"))
        above.axhline(sign * expert, color="black", ls=":", lw=1.2, label="expert")
        below.axhline(idle, color=GREY, ls="--", lw=1.2, label="idle policy")
        above.set(title=names[cell])
        if sign < 0:
            above.set_yscale("log")
        below.set(xlabel="training step", yscale="log")
    panels[0, 0].set(ylabel="cost of the rollout, -J")
    if "neural saturated" in cells:
        panels[0, -1].set(ylabel="share that survives")
    panels[1, 0].set(ylabel="cloning loss")
    handles = [*panels[0, 0].get_legend_handles_labels()[0], panels[1, 0].get_lines()[-1]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    caption = (
        "One training each, evaluated from fixed starts at every checkpoint, with its weights and with their "
        "exponential moving average. Above: what the rollout costs, on a logarithmic scale (on the saturated plant "
        "the share of rollouts that stays in bounds). Below: the cloning loss on the expert's states, beside that of a "
        "policy that does nothing."
    )
    return lab.Drawing("training", figure, caption)


def draw_slices(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 3.6), sharex=True)
    rows = records[records["distance"].notna()].sort_values("distance")
    for axes, metric, sign in zip(panels, ("cloning loss", "reward"), (1, -1)):
        for name, colour in (("gradient", ORANGE), ("random", BLUE)):
            line = rows[rows["metric"] == f"{name} {metric}"]
            label = "a minibatch's gradient" if name == "gradient" else "a random direction"
            axes.plot(line["distance"], sign * line["value"], color=colour, lw=1.3, label=f"along {label}")
        axes.set(xlabel="distance in the space of weights", yscale="log")
    panels[0].set(ylabel="cloning loss")
    panels[1].set(ylabel="cost of the rollout, -J")
    figure.legend(handles=panels[0].get_lines(), loc="outside lower center", ncols=2)
    caption = (
        "Cloning loss (left) and what the rollout costs (right) along two lines through the final weights of one "
        "neural clone: the gradient of a minibatch of 32, and a random direction. The cost is cut at 100."
    )
    return lab.Drawing("slices", figure, caption)


def draw_remedies(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    shown = [arms for arms in (LINEAR, NEURAL) if set(arms) <= set(records["cell"])]
    if not shown:
        raise lab.NotEnough("no arm to compare")
    widths = [len(arms) for arms in shown]
    figure, panels = pyplot.subplots(
        1, len(shown), figsize=(2.0 + sum(widths), 4.0), width_ratios=widths, squeeze=False
    )
    for axes, arms in zip(panels[0], shown):
        for i, arm in enumerate(arms):
            for metric, look, shift in (("reward", RAW, -0.15), ("EMA reward", EMA, 0.15)):
                bar(axes, i + shift, spread(records, arm, metric), look)
        batches = [records[records["cell"] == arm]["batch"].max() for arm in arms]
        axes.set_xticks(range(len(arms)), [label.format(batch) for label, batch in zip(arms.values(), batches)])
        axes.set(yscale="log", title="linear clones" if arms is LINEAR else "neural clones")
        axes.grid(axis="x", visible=False)
    panels[0, 0].set(ylabel="sd of J over checkpoints")
    handles = [pyplot.Line2D([], [], marker="o", ls="", ms=5, **look) for look in (RAW, EMA)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    caption = (
        "How far the reward of clones moves between checkpoints of the last half of training: every seed, their "
        "geometric mean and its 95 % bootstrap interval. Each arm differs from the first neural one in one thing: 16 "
        "times the episodes, a learning rate that falls to 0, or 16 times the batch."
    )
    return lab.Drawing("remedies", figure, caption)


def bar(axes: "Axes", place: float, points: Any, look: dict[str, Any]) -> None:
    """Points with their geometric mean and its interval."""
    points = points[points > 0]
    middle = factor(np.log(points))
    across = place + np.linspace(-0.08, 0.08, len(points))
    axes.plot(across, points, "o", ms=4, alpha=0.6, mec="white", mew=0.4, color=look["color"])
    axes.hlines(middle.estimate, place - 0.11, place + 0.11, color="black", lw=2, zorder=3)
    axes.vlines(place, middle.low, middle.high, color="black", lw=1.2, zorder=3)


def draw_laws(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.8))
    for name, look in (("", RAW), ("EMA ", EMA)):
        rows = records[(records["cell"] == "stationary") & (records["metric"] == f"{name}variance")]
        means = rows[rows["step"] > 0].groupby("step")["value"].mean()
        left.plot(means.index, means, ".", ms=5, **look)
        predicted = scale(records, "stationary", f"{name}predicted variance")
        left.axhline(predicted, color="black", ls="-" if not name else "--", lw=1.2, label=f"formula, {look['label']}")
        margins = sorted(float(m.split()[-1]) for m in set(records["metric"]) if m.startswith(f"{name}cliff"))
        sd = predicted**0.5
        for margin in margins:
            reward = lab.mean(-checkpoints(records, "stationary", f"{name}cliff {margin:g}").mean(axis=1))
            right.vlines(1e3 * margin * sd, reward.low, reward.high, color=look["color"], lw=2)
            right.plot(1e3 * margin * sd, reward.estimate, "o", ms=5, color=look["color"])
        reach = np.linspace(0, 2.4 * sd, 100)
        from mesocosm.measures import expected_cliff_reward

        law = [-expected_cliff_reward(x, sd) for x in reach]
        right.plot(1e3 * reach, law, color="black", ls="-" if not name else "--", lw=1.2)
    left.set(yscale="log", xlabel="training step", ylabel="variance of a weight")
    right.set(xlabel="distance of the cliff, thousandths", ylabel="share of falls, -J / C", yscale="log")
    figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside lower center", ncols=2)
    caption = (
        "Left: mean squared deviation of a linear clone's weights from the expert's, and of their average, beside the "
        "formulas. Right: how often they lie beyond a cliff at a distance from the expert's weights, with 95 % "
        "bootstrap intervals, beside the normal law."
    )
    return lab.Drawing("laws", figure, caption)


def draw_strings(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 3.6), sharex=True)
    for prefix, look in (("", RAW), ("EMA ", EMA)):
        for axes, metric in zip(panels, ("free-running error", "next-digit loss")):
            axes.plot(*first_seed(records, "counter", prefix + metric), lw=1.2, **look)
    panels[0].set(ylabel="share of texts with a mistake", xlabel="training step", ylim=(0, 1.02))
    panels[1].set(ylabel="loss of the next digit (nats)", xlabel="training step", yscale="log")
    figure.legend(handles=panels[0].get_lines(), loc="outside lower center", ncols=2)
    caption = (
        "A transformer that learns to count, one seed: the share of prompts that it does not write on without a "
        "mistake when it reads its own digits, and the loss of the next digit after the true ones."
    )
    return lab.Drawing("strings", figure, caption)


def draw_environment(records: "DataFrame", cell: str) -> lab.Drawing:
    from matplotlib import pyplot

    name = cell.removeprefix("environment ")
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    for prefix, look in (("", RAW), ("EMA ", EMA)):
        axes.plot(*first_seed(records, cell, f"{prefix}reward"), lw=1.2, **look)
    axes.axhline(scale(records, cell, "expert reward"), color="black", ls=":", lw=1.2, label="expert")
    axes.set(title=name, xlabel="training step", ylabel="mean return from fixed starts")
    figure.legend(loc="outside lower center", ncols=3)
    caption = f"Return of one clone in {name} at every checkpoint, with its weights and with their average."
    return lab.Drawing(f"environment-{name.lower()}", figure, caption)
