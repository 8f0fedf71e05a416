"""The figures, from records alone."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.files import file_name
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from mesocosm.studies.fact_recall_downscaling.rules import JUDGED, KNOWN, Kept, answers, language_models

if TYPE_CHECKING:
    from pandas import DataFrame

ABILITIES = {
    "recall": ("recall", RED, "o"),
    "retrieval": ("look-up of one of two pairs", BLUE, "s"),
    "override": ("override of a fact", GREEN, "^"),
    "function": ("linear function", ORANGE, "D"),
    "trivia": ("TriviaQA, closed book", PURPLE, "v"),
    "trivia, open book": ("TriviaQA, open book", BLACK, "P"),
}
OTHERS = {
    "magnitude": "magnitude scores leave",
    "random": "random scores leave",
    "sparsegpt": "SparseGPT leaves",
}

A_MODEL = "a language model"


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    names, draws = language_models(records), []
    for name in names or [A_MODEL]:
        mine, suffix = (records[records["model"] == name], f"-{file_name(name)}") if len(names) > 1 else (records, "")
        draws += [partial(draw, mine, name, suffix) for draw in (draw_kept, draw_override)]
    draws += [partial(draw_sizes, records, names), partial(draw_widths, records)]
    for draw in draws:
        try:
            yield draw()
        except lab.NotEnough:
            continue


def shown(records: "DataFrame") -> dict[str, tuple[str, str, str]]:
    """Label, colour and marker of each ability that was asked for."""
    found = {ability: look for ability, look in ABILITIES.items() if ability in set(records["cell"])}
    if not found:
        raise lab.NotEnough("no language model was asked")
    return found


def draw_sizes(records: "DataFrame", names: Sequence[str]) -> lab.Drawing:
    from matplotlib import pyplot

    if len(names) < 2:
        raise lab.NotEnough("abilities by size need several language models")
    figure, axes = pyplot.subplots(figsize=(6.8, 4.6))
    mine = {name: records[records["model"] == name] for name in names}
    sizes = {name: answers(rows, "text", "parameters").to_numpy()[0, 0] for name, rows in mine.items()}
    names = sorted(names, key=sizes.__getitem__)
    for ability, (label, colour, marker) in shown(records).items():
        found = {sizes[name]: lab.mean(answers(mine[name], ability).loc[0]) for name in names}
        bars(axes, found, label=label, color=colour, marker=marker)
    axes.set(xscale="log", xlabel="parameters", ylabel="accuracy", ylim=(-0.03, 1.03))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    told = ", ".join(f"{name} ({sizes[name] / 1e6:,.0f} million)" for name in names)
    caption = (
        f"Accuracy of dense language models by size, with 95 % bootstrap intervals over questions: {told}. Chance is "
        "1/30 in recall and override, 1/2 in look-up and functions, 0 in TriviaQA."
    )
    return lab.Drawing("sizes", figure, caption)


def draw_kept(records: "DataFrame", model: str, suffix: str) -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.8, 4.6))
    told = []
    for ability, (label, colour, marker) in shown(records).items():
        kept = Kept(records, ability)
        found = {
            level: lab.bootstrap(partial(kept.share, sparsity=level), kept.questions) for level in kept.table.index
        }
        bars(axes, found, label=label, color=colour, marker=marker)
        one = found[JUDGED]
        told.append(f"{label} {one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]")
    axes.axhline(0.95, color=GREY, ls="--", lw=1, label="0.95 of the dense model's")
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set(xlabel="sparsity (share of weights removed)", ylabel="accuracy above chance, over the dense model's")
    axes.set_ylim(-0.35, 1.45)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    others = []
    for method in sorted(OTHERS.keys() & set(records["method"])):
        recall, look_up = (Kept(records, ability, method) for ability in ("recall", "retrieval"))
        left = [float(mine.share(mine.questions)) for mine in (recall, look_up)]
        others.append(f"{OTHERS[method]} {left[0]:.2f} of recall and {left[1]:.2f} of look-up")
    caption = (
        f"What pruning by Wanda leaves of the abilities of {model}, with 95 % bootstrap intervals over questions. At "
        f"sparsity {JUDGED:g}: {'; '.join(told)}. There, {', '.join(others)}."
    )
    return lab.Drawing(f"kept{suffix}", figure, caption)


def draw_override(records: "DataFrame", model: str, suffix: str) -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.2), sharey=True)
    for axes, cell, title in zip(panels, ("recall", "override"), ("no context", "context says another answer")):
        right, other = answers(records, cell), answers(records, cell, "other")
        stored, said = (right, other) if cell == "recall" else (other, right)
        shares = {"stored": (stored, RED, "o"), "from the context": (said, GREEN, "^")}
        shares["any other"] = (1 - stored - said, GREY, "s")
        for label, (table, colour, marker) in shares.items():
            found = {level: lab.share(int(row.sum()), len(row)) for level, row in table.iterrows()}
            bars(axes, found, label=label, color=colour, marker=marker)
        axes.set(title=title, xlabel="sparsity (share of weights removed)", ylim=(-0.03, 1.03))
    panels[0].set_ylabel("share of answers")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = (
        f"Which of thirty candidates {model}, pruned by Wanda, answers, with 95 % Wilson intervals over questions. "
        "Left: the question alone; the answer of the context is the one that the right panel's context says. Right: "
        "after a sentence that contradicts the stored fact."
    )
    return lab.Drawing(f"override{suffix}", figure, caption)


def draw_widths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    rows = records[records["cell"].str.startswith("trained")]
    if rows.empty:
        raise lab.NotEnough("there are no trained networks")
    keys = ["facts", "width", "seed"]
    last = rows.sort_values("step").pivot_table(index=keys, columns="metric", values="value", aggfunc="last")
    table = last.reset_index()
    facts = sorted(table["facts"].unique())
    figure, panels = pyplot.subplots(1, len(facts), figsize=(3.2 * len(facts) + 0.4, 4.0), sharey=True, squeeze=False)
    for axes, count in zip(panels[0], facts):
        mine = table[table["facts"] == count]
        for metric, colour, marker in (("recall", RED, "o"), ("in context", BLUE, "s")):
            axes.plot(mine["parameters"], mine[metric], marker, color=colour, ms=5, alpha=0.8, label=metric)
            axes.plot(*zip(*mine.groupby("parameters")[metric].median().items()), color=colour)
        axes.axhline(KNOWN, color=GREY, ls="--", lw=1)
        bits = count * np.log2(64)
        axes.axvline(bits / 2, color=GREY, ls=":", lw=1.2, label="2 bits of facts a parameter")
        axes.set(xscale="log", title=f"{count:,.0f} facts", xlabel="parameters", ylim=(-0.03, 1.03))
    panels[0][0].set_ylabel("accuracy")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = (
        "Accuracy of trained networks on facts to recall and on objects to read in the context, by size: points are "
        f"seeds, lines go through their medians. Dashed: {KNOWN:g}. Dotted: the size that holds all facts at 2 bits a "
        "parameter; a fact is log2(64) = 6 bits."
    )
    return lab.Drawing("widths", figure, caption)


def bars(axes: Any, found: dict[Any, lab.Interval], **look: Any) -> None:
    """Estimates with intervals by sparsity."""
    middle = np.array([one.estimate for one in found.values()])
    ends = [[one.estimate - one.low for one in found.values()], [one.high - one.estimate for one in found.values()]]
    axes.errorbar(list(found), middle, yerr=np.maximum(ends, 0), ms=5, capsize=2.5, **look)
