"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.progressive_distillation.rules import (
    LEARNED,
    NAMES,
    accuracy,
    best_degree,
    by_sentence,
    chosen,
    of_degree,
    ratio,
    strength,
    times,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLOURS = {
    "labels": GREY,
    "one-shot": ORANGE,
    "progressive": BLUE,
    "two-shot": GREEN,
    "two-shot early": PURPLE,
    "two-shot late": RED,
}
TASKS = {"parity": "a sparse parity", "hierarchy": "a tree of parities", "grammar": "a grammar", "text": "text"}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    parts = [part for part in TASKS if part in set(records["part"])]
    for part in parts:
        yield draw_students(records, part)
        if part not in ("parity", "hierarchy"):
            yield draw_ngrams(records, part)
        elif (records["metric"] == "on").any():
            yield draw_spikes(records, part)


def ways(records: "DataFrame", part: str) -> list[str]:
    return [way for way in NAMES if way in set(records.loc[records["part"] == part, "arm"])]


def band(axes: "Axes", table: Any, colour: str, label: str, style: str = "-") -> None:
    """Means over the columns by step, with their 95 % bootstrap intervals."""
    intervals = [lab.mean(row.dropna()) for _, row in table.iterrows()]
    axes.plot(table.index, [i.estimate for i in intervals], style, color=colour, label=label)
    axes.fill_between(
        table.index, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.18, lw=0
    )


def draw_students(records: "DataFrame", part: str) -> lab.Drawing:
    from matplotlib import pyplot

    parity = part in ("parity", "hierarchy")
    figure, panels = pyplot.subplots(1, 1 + parity, figsize=(9.2 if parity else 6.4, 3.8), squeeze=False)
    left = panels[0, 0]
    arms = ways(records, part)
    steps = sorted({step for arm in arms for step in accuracy(records, part, arm).index})
    for arm in arms:
        band(left, accuracy(records, part, arm).reindex(steps).ffill(), COLOURS[arm], NAMES[arm])
        if parity:
            learned = np.sort(times(records, part, arm).to_numpy())
            share = np.arange(1, len(learned) + 1) / len(learned)
            done = np.isfinite(learned)
            x, y = [0, *learned[done], steps[-1]], [0, *share[done], share[done][-1] if done.any() else 0]
            panels[0, 1].step(x, y, where="post", color=COLOURS[arm], label=NAMES[arm])
    left.set(xlabel="student's training step", ylabel="accuracy" if parity else "accuracy on masked tokens")
    if parity:
        panels[0, 1].set(
            xlabel="student's training step", ylabel=f"share of students at {LEARNED:g}", ylim=(-0.03, 1.03)
        )
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    else:
        teacher = accuracy(records, part, "teacher").iloc[-1].mean()
        left.axhline(teacher, color=BLACK, ls=":", lw=1.2, label="the final teacher itself")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    count = accuracy(records, part, arms[0]).shape[1]
    caption = (
        f"Accuracy of {count} narrow students of {TASKS[part]} along training, by what they learn from: means over "
        "students with 95 % bootstrap intervals. "
    )
    if parity:
        shares = {arm: np.isfinite(times(records, part, arm)).mean() for arm in ("labels", "progressive")}
        caption += (
            f"Right: the share of students that have reached {LEARNED:g}. Of those on labels "
            f"{100 * shares['labels']:.0f} % do, of those on the teacher's successive checkpoints "
            f"{100 * shares['progressive']:.0f} %."
        )
    else:
        caption += "Dotted: the final teacher."
    return lab.Drawing(f"students-{part}", figure, caption)


def draw_spikes(records: "DataFrame", part: str) -> lab.Drawing:
    from matplotlib import pyplot

    on, off = strength(records, part, "on"), strength(records, part, "off")
    degrees = sorted(on.index.unique("degree"))
    found = sorted(on.index.unique("level"))
    seed = on.index.unique("seed").min()
    teacher = accuracy(records, part, "teacher")[seed]
    turns = chosen(records, part, "teacher", "right turns")
    turns = turns[turns["seed"] == seed].pivot(index="step", columns="level", values="value")
    figure, panels = pyplot.subplots(
        1 + len(found), 1, figsize=(6.8, 2.0 + 1.9 * len(found)), sharex=True, squeeze=False
    )
    top = panels[0, 0]
    top.plot(teacher.index, teacher, color=BLACK, label="accuracy")
    for level, colour in zip(found, (SKY, RED, GREEN)) if len(found) > 1 else ():
        top.plot(turns.index, turns[level], color=colour, lw=1.1, label=f"right turns, level {level + 1:.0f}")
    top.set(ylabel="of the teacher", ylim=(0, 1.05))
    top.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    for axes, level in zip(panels[1:, 0], found):
        for degree, colour in zip(degrees, (BLUE, ORANGE, GREEN, PURPLE)):
            for table, style, where in ((on, "-", "in"), (off, ":", "outside")):
                curve = table.loc[seed, level, degree]
                axes.plot(curve.index, curve, style, color=colour, label=f"degree {degree:.0f}, {where}")
        title = f"bits of level {level + 1:.0f}" if len(found) > 1 else ""
        axes.set(title=title, ylabel="mean |correlation|", yscale="log")
    panels[1, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    panels[-1, 0].set_xlabel("teacher's training step")
    ratios = ratio(records, part)
    peak = lab.mean(of_degree(ratios, best_degree(ratios)).groupby("seed").max())
    caption = (
        f"A teacher of {TASKS[part]}, seed {seed}: its accuracy, and the mean absolute correlation of its "
        "probabilities with products of bits in the support (solid) and outside of it (dotted), by the number of "
        f"bits. Over all teachers the ratio at degree {best_degree(ratios):.0f} peaks at {peak.estimate:.2g} "
        f"(95 % interval {peak.low:.2g} to {peak.high:.2g})."
    )
    return lab.Drawing(f"spikes-{part}", figure, caption)


def draw_ngrams(records: "DataFrame", part: str) -> lab.Drawing:
    from matplotlib import pyplot

    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(6.8, 5.0), sharex=True)
    loss = chosen(records, part, "teacher", "loss").pivot(index="step", columns="seed", values="value")
    right = accuracy(records, part, "teacher")
    top.plot(loss.index, loss.mean(axis=1), color=RED, label="training loss, nats")
    top.plot(right.index, right.mean(axis=1), color=BLACK, label="accuracy, masked tokens")
    top.set(ylabel="of the teacher", ylim=(0, None))
    for metric, symbol, style in (("dependence", "M_robust", "-"), ("closeness", "M_close", "--")):
        for n, colour in ((3, BLUE), (5, ORANGE)):
            band(bottom, by_sentence(records, part, "teacher", metric, n), colour, f"{symbol}({n})", style)
    bottom.set(xlabel="teacher's training step", ylabel="total variation distance", ylim=(0, None))
    begun, done = (chosen(records, part, "teacher", name)["value"].iloc[0] for name in ("begun", "done"))
    for axes in (top, bottom):
        axes.axvspan(begun, done, color=GREY, alpha=0.13, lw=0, label="the transition" if axes is top else None)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    caption = (
        f"A masked language model of {TASKS[part]} along training. M_robust(n): how much its prediction changes when "
        "the n-gram around the masked token is masked as well; M_close(n): when all but this n-gram is. Means over "
        f"sentences with 95 % bootstrap intervals. Shaded: from {begun:.0f} to {done:.0f} steps it makes 6 % to 96 % "
        "of its gain in accuracy; the progressive way takes its checkpoints from there."
    )
    return lab.Drawing(f"ngrams-{part}", figure, caption)
