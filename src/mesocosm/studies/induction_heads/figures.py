"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from mesocosm.studies.induction_heads.rules import STRATEGIES, arrivals, curves, nearest, phases, reference

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = dict(zip(STRATEGIES, (GREY, ORANGE, BLUE, PURPLE)))
ARMS = {"one layer": GREY, "doubly stochastic": GREEN, "dirichlet": BLUE}
PANELS = 4
"""Seeds whose phases are drawn."""


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_phases(records, "dirichlet", "phases", "chains of order 1")
    yield draw_priors(records)
    if "attention" in set(records["cell"]):
        yield draw_attention(records)
    yield draw_minimal(records)
    if "second order" in set(records["cell"]):
        yield draw_phases(records, "second order", "second-order", "chains of order 2, with two heads a layer")


def sequences_a_step(records: "DataFrame") -> float:
    return float(records["batch_size"].dropna().iloc[0])


def draw_phases(records: "DataFrame", cell: str, name: str, what: str) -> lab.Drawing:
    from matplotlib import pyplot

    strategies, scale = nearest(records, cell), sequences_a_step(records) / 1000
    seeds = list(strategies)[:PANELS]
    size = (1.0 + 3.6 * min(2, len(seeds)), 1.2 + 2.2 * -(-len(seeds) // 2))
    figure, panels = pyplot.subplots(
        -(-len(seeds) // 2), min(2, len(seeds)), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axes, seed in zip(panels.flat, seeds):
        for strategy, start, end in phases(strategies[seed]):
            axes.axvspan(start * scale, end * scale, color=COLOURS[strategy], alpha=0.15, lw=0)
        for strategy, colour in COLOURS.items():
            curve = curves(records, cell, f"KL to {strategy}")
            if len(curve):
                axes.plot(curve.index * scale, curve[seed], color=colour, label=strategy)
        axes.set(title=f"seed {seed}")
    panels[0, 0].set_ylim(bottom=0)
    for axes in panels.flat[len(seeds) :]:
        axes.remove()
    figure.supxlabel("sequences seen (thousands)", fontsize=10)
    figure.supylabel("KL(model || strategy), nats", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    caption = (
        f"How far the predictions of two layers are from simple strategies, on {what}, in the second half of the "
        f"positions of held-out chains: the first {len(seeds)} seeds. The shade is that of the nearest strategy."
    )
    return lab.Drawing(name, figure, caption)


def draw_priors(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.8, 4.2))
    scale = sequences_a_step(records) / 1000
    labels = {"one layer": "one layer, Dirichlet", "doubly stochastic": "two layers, doubly stochastic"}
    for cell, colour in ARMS.items():
        curve = curves(records, cell, "KL from truth")
        lines = axes.plot(curve.index * scale, curve, color=colour, lw=0.9, alpha=0.7)
        lines[0].set_label(labels.get(cell, "two layers, Dirichlet"))
        if cell != "one layer":
            times = arrivals(records, cell)
            times = times[times < np.inf]
            levels: Any = [curve.at[step, seed] for seed, step in times.items()]
            axes.plot(times * scale, levels, "o", color=colour, mec="white", ms=6)
    end = curves(records, "dirichlet", "KL from truth").index[-1] * scale
    for strategy in STRATEGIES[:3]:
        level = reference(records, strategy)
        axes.axhline(level, color="black", ls=":", lw=1)
        below = strategy == "bigram"
        place: Any = {"xytext": (0, -3 if below else 2), "va": "top" if below else "bottom", "ha": "right"}
        axes.annotate(strategy, (end, level), textcoords="offset points", fontsize=9, **place)
    axes.set(xlabel="sequences seen (thousands)", ylabel="KL(truth || model), nats", xlim=(0, end), ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3)
    caption = (
        "Loss above that of the truth on one set of held-out Dirichlet chains, second half of the positions, a line a "
        "seed, by the chains of training. Dotted: what the strategies reach there. A dot marks the step at which the "
        "bigram rule becomes the nearest strategy, where training on doubly stochastic chains ends."
    )
    return lab.Drawing("priors", figure, caption)


def draw_attention(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["cell"] == "attention"]
    scale = sequences_a_step(records)
    tokens = rows[rows["metric"] == "token"].sort_values("key")["value"].astype(int).tolist()
    figure, panels = pyplot.subplots(2, 3, figsize=(9.0, 5.8), height_ratios=(1, 1.6), sharey="row")
    image: Any = None
    for column, moment in zip(panels.T, ("before", "at", "after")):
        now = rows[rows["moment"] == moment]
        back = now[now["metric"] == "layer 1"].sort_values("offset")
        column[0].bar(back["offset"], back["value"], color=BLUE)
        column[0].set(xlabel="symbols back", ylim=(0, 1), xticks=range(len(back)))
        column[0].set_title(f"{moment}: {now['step'].iloc[0] * scale:,.0f} sequences")
        pattern = now[now["metric"] == "layer 2"].pivot(index="query", columns="key", values="value")
        image = column[1].imshow(pattern, cmap="Blues", vmin=0, vmax=0.5)
        for ticks in (column[1].set_xticks, column[1].set_yticks):
            ticks(range(len(tokens)), tokens, fontsize=7)
        column[1].plot(*induced(tokens), "s", mfc="none", mec=RED, ms=5, mew=0.8)
        column[1].grid(visible=False)
        column[1].set(xlabel="key")
        column[0].grid(axis="x", visible=False)
    panels[0, 0].set(ylabel="layer 1: attention")
    panels[1, 0].set(ylabel="layer 2: query")
    figure.colorbar(image, ax=panels[1], label="attention", shrink=0.8)
    caption = (
        f"Where seed {rows['seed'].iloc[0]} looks: halfway to the last drop, when the bigram rule becomes the nearest "
        "strategy, and at the end. Above: layer 1's mean attention by offset. Below: layer 2's attention on the start "
        "of one chain, whose symbols stand along both axes. Framed in red are the symbols that came directly after "
        "an earlier symbol equal to the query, at which an induction head looks."
    )
    return lab.Drawing("attention", figure, caption)


def induced(tokens: list[int]) -> tuple[list[int], list[int]]:
    """Keys and queries of an induction head: the keys that follow a symbol equal to the query."""
    pairs = [(s, t) for t in range(len(tokens)) for s in range(1, t + 1) if tokens[s - 1] == tokens[t]]
    keys, queries = zip(*pairs) if pairs else ((), ())
    return list(keys), list(queries)


def draw_minimal(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.0, 3.4), sharex=True)
    scale = sequences_a_step(records) / 1000
    parts = {
        left: {"on diagonal": BLUE, "off diagonal": GREY},
        right: {"0 back": GREY, "1 back": BLUE, "2 back": ORANGE},
    }
    for axes, metrics in parts.items():
        for metric, colour in metrics.items():
            curve = curves(records, "minimal model", metric)
            lines = axes.plot(curve.index * scale, curve, color=colour, lw=1, alpha=0.8)
            lines[0].set_label(metric)
        axes.legend(loc="center right")
        axes.set(xlabel="sequences seen (thousands)")
    left.set(title="layer 2: the matrix W", ylabel="mean entry")
    right.set(title="layer 1: the vector v", ylabel="attention from the last position", ylim=(0, 1))
    caption = (
        "The minimal model, a line a seed. First W becomes diagonal: layer 2 compares symbols with what layer 1 has "
        "averaged. Only then does v single out the symbol before, which makes an induction head."
    )
    return lab.Drawing("minimal-model", figure, caption)
