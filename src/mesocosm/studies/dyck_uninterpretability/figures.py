"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, COLOURS, GREEN, GREY, ORANGE
from mesocosm.studies.dyck_uninterpretability.rules import ACCURATE, PLAIN, accuracy, by_seed, matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

ARMS = {
    "plain": ("plain", BLUE, "o"),
    "complete insertions": ("with complete words inserted", GREEN, "s"),
    "lone insertions": ("with lone brackets inserted", ORANGE, "^"),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    attending = set(records[records["metric"] == "attention 0,0"]["cell"])
    if "plain" in attending:
        yield draw_maps(records, "plain", "attention-maps")
    if "violation" in set(records["metric"]):
        yield draw_balance(records)
    yield draw_lengths(records)
    yield draw_construction(records)
    yield draw_maps(records, "transformer", "transformer-maps")


def map_of(records: "DataFrame", cell: str, seed: int) -> np.ndarray:
    """The last attention map on the probe, with NaN for the future."""
    rows = records[(records["cell"] == cell) & (records["seed"] == seed)]
    rows = rows[rows["metric"].str.startswith("attention ")]
    rows = rows[rows["step"] == rows["step"].max()]
    places = [tuple(map(int, name.removeprefix("attention ").split(","))) for name in rows["metric"]]
    length = max(q for q, _ in places) + 1
    attention = np.full((length, length), np.nan)
    for (q, k), value in zip(places, rows["value"]):
        attention[q, k] = value
    return attention


def show_map(axes: "Axes", attention: np.ndarray, title: str) -> Any:
    brackets = [bracket for bracket in "[]()" for _ in range(len(attention) // 4)]
    image = axes.imshow(attention, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(brackets)), brackets, fontsize=8)
    axes.set_yticks(range(len(brackets)), brackets, fontsize=8)
    axes.tick_params(length=0, pad=1)
    axes.grid(visible=False)
    axes.set_title(title, fontsize=9)
    return image


def draw_maps(records: "DataFrame", cell: str, name: str) -> lab.Drawing:
    from matplotlib import pyplot

    found = accuracy(records, cell).droplevel("cell").sort_index()
    best = found[found > ACCURATE] if (found > ACCURATE).any() else found
    best = best.iloc[: 8 if len(best) >= 8 else 4]
    columns = min(4, len(best))
    rows = -(-len(best) // columns)
    size = (2.3 * columns + 0.9, 2.45 * rows + 0.3)
    figure, panels = pyplot.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(best) :]:
        axes.set_axis_off()
    for axes, (seed, right) in zip(panels.flat, best.items()):
        image = show_map(axes, map_of(records, cell, int(str(seed))), f"seed {seed}: {100 * right:.1f} %")
    figure.colorbar(image, ax=panels, label="attention", shrink=0.6, ticks=[0, 0.5, 1])
    figure.supxlabel("key", fontsize=10)
    figure.supylabel("query", fontsize=10)
    kind = {"plain": "models with one attention layer", "transformer": "second layers of two-layer transformers"}[cell]
    caption = f"Attention of {kind} on one string, with the accuracy after closing brackets at the training length."
    if len(best) > 1:
        pairs = matrix(records, "variation", cell, best.index)[np.triu_indices(len(best), 1)]
        caption += f" Their squared distance is {pairs.mean():.2g} on average, {pairs.max():.2g} at most."
    return lab.Drawing(name, figure, caption)


def draw_balance(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    shown = (*PLAIN, "complete insertions")
    violation, known = by_seed(records, "violation", shown), accuracy(records, shown) > ACCURATE
    cells = sorted(set(violation.index.get_level_values("cell")), key=lambda cell: (cell != "plain", cell))
    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 4.0))
    told = []
    for axes, times in zip(panels, (2, 3)):
        right = accuracy(records, shown, times)
        for cell, colour, marker in zip(cells, COLOURS, "os^vD*"):
            for chosen, inside in ((known, colour), (~known, "white")):
                index = chosen.index[chosen & (chosen.index.get_level_values("cell") == cell)]
                name = cell if inside == colour else None
                axes.plot(violation[index], right[index], marker, mec=colour, mfc=inside, ms=6, alpha=0.8, label=name)
        axes.set(xlabel="violation of balance", ylabel=f"accuracy at {times} times the length")
        index = known.index[known & (known.index.get_level_values("cell") == "plain")]
        if len(index) > 1:
            rho = lab.bootstrap(lab.rank_correlation, violation[index], right[index], paired=True)
            told.append(f"{rho.estimate:.2f} [{rho.low:.2f}, {rho.high:.2f}] at {times} times the length")
    panels[0].legend(loc="best")
    caption = (
        "Violation of balance and accuracy on longer strings, a mark a model; hollow where accuracy at the training "
        f"length is below {ACCURATE:g}. Rank correlation of the plain models, with 95 % bootstrap intervals: "
        f"{' and '.join(told) or 'too few'}."
    )
    return lab.Drawing("balance", figure, caption)


def draw_lengths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["metric"] == "accuracy"]
    seeds = set(rows[rows["cell"] == "complete insertions"]["seed"])
    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    for cell, (name, colour, marker) in ARMS.items():
        chosen = rows[(rows["cell"] == cell) & rows["seed"].isin(seeds)]
        table = chosen.pivot(index="seed", columns="length", values="value")
        intervals = [lab.mean(table[length]) for length in table]
        axes.fill_between(
            table.columns, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.2
        )
        axes.plot(table.columns, [i.estimate for i in intervals], marker, ls="-", ms=5, color=colour, label=name)
    trained = rows["length"].min()
    axes.axvline(trained, color=GREY, ls=":", lw=1.2)
    axes.set(xlabel="brackets in the string", ylabel="accuracy after closing brackets")
    axes.legend(loc="lower left")
    caption = (
        f"Accuracy at the end of strings up to three times as long as in training ({trained:.0f}, dotted): "
        f"means of {len(seeds)} seeds with 95 % bootstrap intervals, the same seeds in each arm."
    )
    return lab.Drawing("lengths", figure, caption)


def draw_construction(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    right, unbalanced = (
        by_seed(records, name, "construction").droplevel("cell") for name in ("right answers", "unbalanced")
    )
    shown = right.sort_index().iloc[:3]
    figure, panels = pyplot.subplots(1, 1 + len(shown), figsize=(2.6 * (1 + len(shown)) + 0.6, 2.9))
    for axes, (seed, share) in zip(panels, shown.items()):
        image = show_map(axes, map_of(records, "construction", int(str(seed))), f"draw {seed}: accuracy {share:g}")
    panels[0].set(xlabel="key", ylabel="query")
    figure.colorbar(image, ax=panels[: len(shown)], label="attention", shrink=0.7, ticks=[0, 0.5, 1])
    jitter = np.linspace(-0.15, 0.15, len(right))
    for place, (values, colour) in enumerate(((right, BLUE), (unbalanced, ORANGE))):
        panels[-1].plot(place + jitter, values, "o", color=colour, ms=5, alpha=0.7)
    panels[-1].set_xticks([0, 1], ["balanced", "not\nbalanced"])
    panels[-1].set(ylabel="accuracy", ylim=(0.45, 1.03), xlim=(-0.5, 1.5))
    panels[-1].grid(axis="x", visible=False)
    caption = (
        f"Attention with random scores on one string, and the accuracy of {len(right)} draws after every prefix: with "
        f"values that let matching brackets cancel at least {right.min():g}, with values that do not at most "
        f"{unbalanced.max():.2f}."
    )
    return lab.Drawing("construction", figure, caption)
