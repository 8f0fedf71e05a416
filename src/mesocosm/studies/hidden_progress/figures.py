"""The figures, from records alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, COLOURS, GREY, ORANGE
from mesocosm.studies.hidden_progress.rules import FLAT, cells, curves, fewest, fit, lags, slope, times

if TYPE_CHECKING:
    from pandas import DataFrame


def figures(records: "DataFrame") -> Iterator[lab.Drawing]:
    yield draw_plateau(records)
    yield draw_progress(records)
    yield draw_scaling(records)
    yield draw_times(records)


def draw_plateau(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    names = sorted(cells(records, "C1/"), key=lambda cell: ("control" in cell, cell != "C1/reference", cell))
    rows = -(-len(names) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(8, 0.5 + 1.8 * rows), sharey=True, squeeze=False)
    for axis, cell in zip(axes.flat, names):
        steps, error = curves(records, cell)
        axis.plot(steps, error, color=GREY if "control" in cell else BLUE, linewidth=0.8, alpha=0.7)
        if cell == "C1/disjoint-polynet":
            axis.plot(*curves(records, cell, "implied error"), color=ORANGE, linestyle=":")
        end = min(float(steps.max()), 4 * np.median(times(records, cell)))
        axis.set(title=cell[3:].removeprefix("control/"), xlim=(0, max(end, 1)), ylim=(0, 0.6))
    for axis in axes.flat[len(names) :]:
        axis.remove()
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("held-out error (share of inputs)", fontsize=10)
    n, k = (int(records.loc[records["cell"] == "C1/reference", column].iloc[0]) for column in "nk")
    caption = (
        "Held-out error by step, a line a seed, until it is below 2 %; an axis ends at four times the median of "
        f"these times at the latest. Networks that learn the parity of {k} of {n} bits are at chance for long, then "
        "their error drops. In grey the controls, which must stay at chance: labels of pure noise, and a first layer "
        "that is not trained. The reference is a ReLU MLP of width 100, or the model that --model names; power-100 "
        "has the activation z^k. Dotted: the error that theory reads off the weights of a disjoint-PolyNet."
    )
    return lab.Drawing("plateau", figure, caption)


def draw_progress(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    titles = {"k=4": "parity of 4 bits", "k=3": "parity of 3 bits", "noise labels": "labels of pure noise"}
    rows = {"error": "exact error", "rho": "largest change\nof a weight, ρ", "progress": "progress along\ngradient, P"}
    figure, axes = pyplot.subplots(3, 3, figsize=(8, 6), sharex=True, sharey="row")
    end, tops = 1.0, [0.55, 1e-3, 1e-3]
    for column, (name, title) in zip(axes.T, titles.items()):
        steps, error = curves(records, f"C3/{name}")
        after = (error > FLAT).flip(0).cumsum(0).flip(0) == 0
        end = max(end, float(steps[~after.all(1)].max()))
        for row, metric in enumerate(rows):
            values = curves(records, f"C3/{name}", metric)[1]
            flat = values.masked_fill(after, np.nan)
            column[row].plot(steps, values, color=BLUE, linewidth=0.8, alpha=0.25)
            column[row].plot(steps, flat, color=BLUE, linewidth=0.8)
            tops[row] = max(tops[row], 1.1 * float(flat.nan_to_num(0.0).max()))
        wrong = (curves(records, f"C3/{name}", f"wrong {what}")[1] for what in ("mean", "sd"))
        mean, sd = (values.masked_fill(after, np.nan).nanmean(1) for values in wrong)
        column[2].fill_between(steps, mean - 2 * sd, mean + 2 * sd, color=ORANGE, alpha=0.7, linewidth=0)
        column[0].set(title=title, xlim=(0, end))
        column[2].set(xlabel="step")
    for axis, label, top, bottom in zip(axes[:, 0], rows.values(), tops, (0, 0, -0.4)):
        axis.set(ylabel=label, ylim=(bottom * top, top))
    caption = (
        "Exact error, the paper's ρ, and progress P along the exact population gradient of step 0 (in units of the "
        "weights), a line a seed, pale from where the error stays below 48 %. The orange band is the progress along "
        "the gradients of wrong sets, mean and two standard deviations over sets, averaged over seeds on the "
        "plateau. Hidden progress is P of the true set leaving the band at chance error; ρ grows on labels of pure "
        "noise too."
    )
    return lab.Drawing("hidden-progress", figure, caption)


def draw_scaling(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 4.8))
    for k, colour, marker in zip((1, 2, 3, 4, 5), (GREY, *COLOURS), "xosD^"):
        by_n = {int(cell.rpartition("=")[2]): times(records, cell) for cell in cells(records, f"C2/k={k}/")}
        by_n = {n: t for n, t in sorted(by_n.items()) if np.isfinite(np.median(t))}
        if not by_n:
            continue
        label = f"k = {k}"
        if len(by_n) > 1:
            line, interval = fit([*by_n], [*by_n.values()]), lab.bootstrap(slope(by_n), *by_n.values())
            axis.plot([*by_n], line.factor * np.array([*by_n]) ** line.exponent, color=colour, linewidth=1)
            label += f": slope {line.exponent:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
        low, at, high = np.array([(m.low, m.estimate, m.high) for m in map(lab.median, by_n.values())]).T
        bars = np.nan_to_num([at - low, high - at], posinf=0)
        axis.errorbar([*by_n], at, bars, fmt=marker, ms=5, color=colour, capsize=2, label=label)
    axis.set(xscale="log", yscale="log", xlabel="bits n", ylabel="median steps to 2 % error, t_c")
    ticks = sorted(int(cell.rpartition("=")[2]) for cell in cells(records, "C2/k=3/"))
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "Median time to learn by the number of bits, both on logarithmic axes, with 95 % intervals over seeds, and "
        "the least-squares power law of each k, whose exponent is the slope. Compare k of one parity: the gradient "
        "needs a Fourier weight of degree k - 1, and ReLU units with small biases have next to none of even degree, "
        "so that k = 3 takes about as long as k = 4."
    )
    return lab.Drawing("scaling", figure, caption)


def draw_times(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4))
    found = {name: times(records, f"C4/{name}") for name in ("random starts", "one start")}
    end = 1.2 * max(t[np.isfinite(t)].max(initial=1) for t in found.values())
    for (name, t), colour in zip(found.items(), (BLUE, ORANGE)):
        learned = np.sort(t[np.isfinite(t)])
        share = np.arange(len(learned) + 1) / len(t)
        left.step([0, *learned, end], [*share, share[-1]], color=colour, where="post", label=name)
    steps, middle = np.linspace(0, end), np.median(found["random starts"])
    left.plot(steps, 1 - 0.5 ** (steps / middle), color=GREY, linestyle="--", label="memoryless search")
    left.set(title="fresh samples", xlabel="step", ylabel="share of networks that have learned", xlim=(0, end))
    left.legend()
    samples = fewest(records) or max(lags(records))
    for metric, colour, label in (("train error", GREY, "training samples"), ("error", BLUE, "held-out samples")):
        lines = right.plot(*curves(records, f"C6/samples={samples}", metric), color=colour, linewidth=0.8, alpha=0.7)
        lines[0].set_label(label)
    right.set(title=f"passes over {samples} samples", xlabel="step", ylabel="error (share of inputs)", ylim=(0, 0.6))
    right.legend()
    caption = (
        "Left: the share of networks that have learned by a step, from random starts, from one start with only the "
        "data differing, and as a memoryless search with the median of the first would: it would rise from the first "
        "step on. Right: error on training samples that are passed over again and again, and on held-out samples, a "
        "line a seed, until the latter is below 2 %."
    )
    return lab.Drawing("times", figure, caption)
