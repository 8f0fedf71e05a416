"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from mesocosm.studies.repeat_after_me.rules import THRESHOLD, accuracies, by_seed, by_state, copier, sweep_end, tracked

if TYPE_CHECKING:
    from pandas import DataFrame

LOOKS = {
    "hard-alibi": ("Hard-ALiBi transformer", BLUE, "o"),
    "alibi": ("ALiBi transformer", GREEN, "D"),
    "none": ("transformer without positions", GREY, "v"),
    "rotary": ("RoPE transformer", PURPLE, "^"),
    "ssm": ("state space model", ORANGE, "s"),
    "lstm": ("LSTM", RED, "P"),
}
"""Label, colour and marker of each model."""
KEYS = {"suffix": "key after the string", "prefix": "key before the string"}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_examples(records)
    yield draw_lengths(records)
    yield draw_lookup(records)
    yield draw_duplicates(records)
    yield draw_state(records)


def cells(records: "DataFrame", kind: str) -> dict[str, str]:
    """The cells of one kind by model."""
    names = {f"{kind}/{model}": model for model in LOOKS}
    return {model: cell for cell, model in names.items() if cell in set(records["cell"])}


def draw_means(axes: Any, table: "DataFrame", model: str) -> None:
    """Mean over seeds, with its 95 % bootstrap interval, against the columns of a table with a row a seed."""
    label, colour, marker = LOOKS[model]
    means = [lab.mean(table[column]) for column in table]
    axes.plot(table.columns, [m.estimate for m in means], color=colour, marker=marker, ms=5, label=label)
    axes.fill_between(table.columns, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2, lw=0)


def draw_examples(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    kinds = {"copy": "copying", "prefix": "look-up, key before the string (control)"}
    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 4.2), sharey=True)
    for axes, (kind, title) in zip(panels, kinds.items()):
        for model, cell in cells(records, kind).items():
            chosen = (records["cell"] == cell) & (records["metric"] == "strings")
            table = records[chosen].pivot(index="step", columns="seed", values="value")
            budget = records[(records["cell"] == cell) & (records["metric"] == "budget")].iloc[0]
            examples = table.index * budget["value"] / budget["step"]
            label, colour, _ = LOOKS[model]
            axes.plot(examples, table, color=colour, lw=0.8, alpha=0.4)
            # A seed whose training has ended keeps its last accuracy.
            axes.plot(examples, table.ffill().mean(axis=1), color=colour, lw=2.2, label=label)
        axes.axhline(THRESHOLD, color=BLACK, ls=":", lw=1.2)
        axes.set(title=title, xlabel="examples seen")
    panels[0].set(ylabel="strings right (share)", ylim=(-0.02, 1.02))
    panels[0].legend(loc="best")
    caption = (
        "Share of the strings of the greatest training length that are copied (left) or answered (right) without an "
        "error, against the examples seen; a thin line a seed, a thick one their mean. Dotted: 0.9, where examples are "
        f"counted. Parameters, and numbers kept of the longest string to copy: {sizes(records)}."
    )
    return lab.Drawing("examples", figure, caption)


def sizes(records: "DataFrame") -> str:
    """Parameters of each copying model, and how many numbers it keeps of the longest string, in words."""
    words = []
    for model, cell in cells(records, "copy").items():
        counts = [by_seed(records, cell, metric) for metric in ("parameters", "memory")]
        known = [f"{count.iloc[0]:,.0f}" for count in counts if len(count)]
        words.append(f"{LOOKS[model][0]} {' and '.join(known)}")
    return ", ".join(words)


def draw_lengths(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 4.2), sharex=True, sharey=True)
    for axes, metric, title in zip(panels, ("string accuracy", "character accuracy"), ("whole strings", "letters")):
        for model, cell in cells(records, "short").items():
            table = accuracies(records, cell, metric)
            draw_means(axes, table, model)
            trained = table.columns[0]
        axes.axvline(trained, color=BLACK, ls=":", lw=1.2)
        mark_lengths(axes, table)
        axes.set(title=f"copies: {title}", xlabel="letters in the string")
    panels[0].set(ylabel="right (share)", ylim=(-0.02, 1.02))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = (
        "Copying of strings longer than those of training (dotted: the longest of these): strings without an error, "
        "and letters that are right after the true ones before. Means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("lengths", figure, caption)


def mark_lengths(axes: Any, table: "DataFrame") -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(table.columns), list(map(str, table.columns)))
    axes.minorticks_off()


def draw_lookup(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 4.0), sharex=True, sharey=True)
    for axes, (key, title) in zip(panels, KEYS.items()):
        for model, cell in cells(records, key).items():
            table = accuracies(records, cell, "string accuracy")
            draw_means(axes, table, model)
        axes.axvline(table.columns[0], color=BLACK, ls=":", lw=1.2)
        mark_lengths(axes, table)
        axes.set(title=title, xlabel="letters in the string")
    panels[0].set(ylabel="answers right (share)", ylim=(-0.02, 1.02))
    panels[0].legend(loc="best")
    caption = (
        "Look-up of what follows a key in a string, by length of the string (dotted: the longest of training). Means "
        "over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("look-up", figure, caption)


def draw_duplicates(records: "DataFrame") -> lab.Drawing:
    import pandas
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    lengths = sorted(int(n) for n in records["duplicated"].dropna().unique())
    for model, cell in cells(records, "copy").items():
        tables = {n: accuracies(records, cell, "string accuracy", n) for n in lengths}
        draw_means(axes, pandas.DataFrame({n: t.iloc[:, 0] for n, t in tables.items()}), model)
    axes.set_xticks(lengths, ["none", *map(str, lengths[1:])])
    axes.set(xlabel="letters n of the n-gram that stands twice", ylabel="strings right (share)", ylim=(-0.02, 1.02))
    axes.legend(loc="best")
    caption = (
        "Strings of the greatest training length, copied without an error, where one n-gram stands in them twice. "
        "Means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("duplicates", figure, caption)


def draw_state(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.0, 4.0))
    machine, trained = copier(records), by_state(records)
    left.plot(machine["states"], machine["bound"], color=BLACK, lw=1.2, label="bound, $2^b / D^L$")
    left.plot(machine["states"], machine["accuracy"], "o", color=BLUE, ms=6, label="constructed machine")
    left.set(xscale="log", yscale="log", xlabel="states of the machine, $2^b$", ylabel="strings copied (share)")
    left.legend(loc="upper left")
    draw_means(right, trained, "ssm")
    line = lab.mean(tracked(records, "short/hard-alibi", sweep_end(records)))
    right.axhline(line.estimate, color=BLUE, label=LOOKS["hard-alibi"][0])
    right.axhspan(line.low, line.high, color=BLUE, alpha=0.15, lw=0)
    right.set_xscale("log", base=2)
    right.set_xticks(list(trained.columns), [f"{n:g}" for n in trained.columns])
    right.minorticks_off()
    right.set(xlabel="state size of the trained model, d_state", ylabel="letters right (share)", ylim=(-0.02, 1.02))
    right.legend(loc="best")
    caption = (
        "Left: share of all strings of 6 letters over 4 that a machine copies which keeps the first 0 to 6 letters, on "
        "the bound for its number of states. Right: letters that trained models copy at the greatest training length "
        "after as many steps, by the size of their state; means over seeds with 95 % bootstrap intervals."
    )
    return lab.Drawing("state", figure, caption)
