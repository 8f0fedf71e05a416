"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, RED
from mesocosm.studies.flip_flop.rules import DENSE, SETS, SPARSE, TAILS, TRAINED, counts, error_rates

if TYPE_CHECKING:
    from pandas import DataFrame

INTERVENTIONS = {
    "transformer": "transformer",
    "more data": "twice the\nsteps",
    "embedding dropout": "embedding\ndropout",
    "entropy penalty": "entropy\npenalty",
    "mixture": "tails mixed\nin",
    "lstm": "LSTM",
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_tails(records)
    yield draw_training(records)
    yield draw_interventions(records)
    if "token" in set(records["metric"]):
        yield draw_attention(records)


def draw_tails(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.0, 4.6))
    for cell, name, colour, marker in (("transformer", "transformers", BLUE, "o"), ("lstm", "LSTMs", ORANGE, "s")):
        points = error_rates(records, cell, floor=True)
        errors, reads = (counts(records, metric, cell) for metric in ("errors", "reads"))
        dense, sparse = ([lab.share(*seed) for seed in zip(errors[p], reads[p])] for p in TAILS)
        lines: Any = {"color": colour, "alpha": 0.4, "lw": 1}
        axes.hlines(points[SPARSE], [i.low for i in dense], [i.high for i in dense], **lines)
        axes.vlines(points[DENSE], [i.low for i in sparse], [i.high for i in sparse], **lines)
        axes.plot(points[DENSE], points[SPARSE], marker, color=colour, ms=7, mec="white", label=f"{len(points)} {name}")
    for line in (axes.axvline, axes.axhline):
        line(1e-3, color=GREY, ls=":", lw=1.2)
    axes.set(xscale="log", yscale="log", xlim=(2e-4, 1), ylim=(2e-4, 1))
    axes.set(xlabel="read error on dense strings, FFL(0.1)", ylabel="read error on sparse strings, FFL(0.98)")
    axes.legend(loc="upper right")
    transformer, lstm = (error_rates(records, cell)[DENSE].median() for cell in ("transformer", "lstm"))
    caption = (
        "Share of wrong reads on the two tails, a dot a seed, with 95 % Wilson intervals. Where no read was wrong, the "
        "dot stands at 3/N, the upper bound for N reads. Dotted: 0.001. On the dense tail the median transformer gets "
        f"{100 * transformer:.2g} % of the reads wrong, the median LSTM {100 * lstm:.2g} %."
    )
    return lab.Drawing("tails", figure, caption)


def draw_training(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(9.0, 3.4), sharex=True, sharey=True)
    for axes, (p_ignore, name), colour in zip(panels, SETS.items(), (GREEN, ORANGE, BLUE)):
        chosen = (records["cell"] == "transformer") & (records["metric"] == f"error at {p_ignore:g}")
        errors = records[chosen].pivot(index="step", columns="seed", values="value")
        axes.plot(errors.index, errors, color=colour, lw=0.9, alpha=0.6)
        axes.plot(errors.index, errors.median(axis=1), color="black", lw=2)
        axes.set(title=name, xlabel="training step")
    panels[0].set_yscale("symlog", linthresh=1e-3)
    panels[0].set(ylabel="share of wrong reads", ylim=(0, 1.2), yticks=[0, 1e-3, 1e-2, 1e-1, 1])
    caption = (
        "Wrong reads along training on the three sets, a line a transformer, their median in black. The scale is "
        "logarithmic above 0.001 and linear below."
    )
    return lab.Drawing("training", figure, caption)


def draw_interventions(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.0, 4.2))
    for p_ignore, colour, marker, shift in ((SPARSE, ORANGE, "s", -0.17), (DENSE, BLUE, "o", 0.17)):
        for i, cell in enumerate(INTERVENTIONS):
            place = i + shift
            points = error_rates(records, cell, floor=True)[p_ignore]
            middle = lab.median(points)
            across = place + np.linspace(-0.1, 0.1, len(points))
            learned = (error_rates(records, cell)[TRAINED] < 1e-3).to_numpy()
            for chosen, inside in ((learned, colour), (~learned, "white")):
                axes.plot(across[chosen], points[chosen], marker, mec=colour, mfc=inside, ms=5, alpha=0.8)
            axes.hlines(middle.estimate, place - 0.14, place + 0.14, color="black", lw=2, zorder=3)
            axes.vlines(place, middle.low, middle.high, color="black", lw=1.2, zorder=3)
        axes.plot([], [], marker, color=colour, ms=5, label=SETS[p_ignore])
    axes.set(yscale="log", ylim=(2e-4, 1), ylabel="share of wrong reads")
    axes.set_xticks(range(len(INTERVENTIONS)), list(INTERVENTIONS.values()))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper right", ncols=2)
    caption = (
        "Wrong reads on the two tails under each intervention: every seed, their median and its 95 % bootstrap "
        "interval. Hollow: a share of 0.001 or more even in distribution. Where no read was wrong, the dot stands "
        "at 3/N, the upper bound for N reads."
    )
    return lab.Drawing("interventions", figure, caption)


def draw_attention(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["key"].notna()]
    attention, token = (rows[rows["metric"] == metric] for metric in ("attention", "token"))
    heads = attention.pivot(index=["layer", "head"], columns="key", values="value")
    tokens = "".join("wri01"[int(value)] for value in token.sort_values("key")["value"])
    last = tokens.rindex("w")
    share = heads[[last, last + 1]].sum(axis=1).max()
    start = max(0, len(tokens) - 40)
    figure, axes = pyplot.subplots(figsize=(9.0, max(2.0, 0.3 * len(heads) + 1.2)))
    image = axes.imshow(heads.iloc[:, start:], aspect="auto", cmap="Blues", vmin=0)
    axes.add_patch(pyplot.Rectangle((last - start - 0.5, -0.5), 2, len(heads), fill=False, ec=RED, lw=2))
    axes.set(xlabel="the string's last tokens, up to the wrong read", ylabel="layer.head")
    axes.set_xticks(range(len(tokens) - start), list(tokens[start:]))
    axes.set_yticks(range(len(heads)), [f"{layer:.0f}.{head:.0f}" for layer, head in heads.index])
    axes.grid(visible=False)
    figure.colorbar(image, label="attention")
    caption = (
        f"Where the heads of seed {rows['seed'].iloc[0]} look at a read that goes wrong: {tokens[last + 1]} should be "
        f"recalled from the last write, {'boxed' if last >= start else 'further back'}. No head gives it more than "
        f"{100 * share:.0f} % of its attention."
    )
    return lab.Drawing("attention", figure, caption)
