"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, training
from mesocosm.lab.style import BLACK, BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.stacking_midas.rules import curve, fine_tuned, similarity, tested

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

ARMS = {
    "baseline": ("full depth", GREY),
    "midas": ("MIDAS", BLUE),
    "gradstack": ("GradStack", ORANGE),
    "random": ("random blocks", RED),
    "looped": ("looped", PURPLE),
    "silent": ("silent random blocks", SKY),
    "full baseline": ("full depth, all steps", BLACK),
}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_order(records)
    yield draw_training(records)
    yield draw_equal_loss(records)
    yield draw_final(records)
    yield draw_fine_tuning(records)
    yield draw_similarity(records)


def arms(records: "DataFrame") -> list[str]:
    return [arm for arm in ARMS if arm in set(records["cell"])]


def questions(records: "DataFrame") -> list[str]:
    """The metrics of accuracy, depths in order, then facts and what else there is."""
    return sorted({name for name in records["metric"].unique() if name.startswith("accuracy, ")})


def middle(table: "DataFrame") -> tuple["Series", np.ndarray, np.ndarray]:
    """Mean over seeds with its interval at each step, for a table by step and seed."""
    intervals = [lab.mean(row.dropna()) for _, row in table.iterrows()]
    return table.mean(axis=1), np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def draw_order(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    count = int(records["block"].max()) + 1
    rules = {"MIDAS": training.copy_middle, "GradStack": training.copy_last}
    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 0.5 * count + 1.5), sharey=True)
    for axes, (name, rule) in zip(panels, rules.items()):
        origin = ["A"]
        for stage in range(1, count + 1):
            new = set()
            if stage > 1:
                sources = rule(stage - 1)
                new = {place for place, source in enumerate(sources) if source in sources[:place]}
                born = chr(ord("A") + stage - 1)
                origin = [born if place in new else origin[source] for place, source in enumerate(sources)]
            for place, letter in enumerate(origin):
                colour = COLOURS[(ord(letter) - ord("A")) % len(COLOURS)]
                box: Any = {"fc": colour, "ec": "black" if place in new else "white", "lw": 1.8, "alpha": 0.75}
                axes.add_patch(pyplot.Rectangle((place + 0.06, stage - 0.4), 0.88, 0.8, **box))
                axes.text(place + 0.5, stage, letter, ha="center", va="center", color="white", weight="bold")
            if stage > 1:
                copied = sources[min(new)]
                axes.annotate(
                    "", (min(new) + 0.5, stage - 0.42), (copied + 0.5, stage - 0.58), arrowprops={"arrowstyle": "->"}
                )
        axes.set(title=name, xlabel="block, from the input to the output", xlim=(0, count), ylim=(count + 0.6, 0.4))
        axes.set_xticks(np.arange(count) + 0.5, range(1, count + 1))
        axes.set_yticks(range(1, count + 1))
        axes.grid(visible=False)
    panels[0].set_ylabel("stage")
    caption = (
        "Blocks at each stage. Each growth adds one block, outlined, with a letter of its own; an arrow comes from the "
        "block that it copies. MIDAS copies the middle block, GradStack the last one."
    )
    return lab.Drawing("order", figure, caption)


def draw_training(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    wanted = ["filler loss", *(name for name in questions(records) if "depth 0" not in name)]
    figure, panels = pyplot.subplots(1, len(wanted), figsize=(2.9 * len(wanted) + 0.4, 3.9), sharex=True, squeeze=False)
    for axes, metric in zip(panels[0], wanted):
        for arm in arms(records):
            label, colour = ARMS[arm]
            flops = curve(records, arm, "flops").mean(axis=1)
            mean, low, high = middle(curve(records, arm, metric).loc[flops.index])
            axes.plot(flops, mean, color=colour, label=label)
            axes.fill_between(flops, low, high, color=colour, alpha=0.18, lw=0)
        loss = metric == "filler loss"
        axes.set(title="filler" if loss else metric.removeprefix("accuracy, "), xlabel="training FLOPs")
        axes.set_ylabel("loss in nats" if loss else "accuracy")
        if not loss:
            axes.set_ylim(0, 1.04)
    low = min(curve(records, arm, "filler loss").min().min() for arm in arms(records))
    high = max(curve(records, arm, "filler loss").iloc[1:].quantile(0.75).max() for arm in arms(records))
    panels[0, 0].set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    caption = (
        "Held-out loss on filler and accuracies along training, against the operations spent so far: means over seeds "
        "with 95 % bootstrap bands."
    )
    return lab.Drawing("training", figure, caption)


def draw_equal_loss(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    wanted = questions(records)
    figure, panels = pyplot.subplots(
        1, len(wanted), figsize=(2.5 * len(wanted) + 0.4, 3.7), sharex=True, sharey=True, squeeze=False
    )
    shown = [arm for arm in arms(records) if arm in ("baseline", "midas", "gradstack", "looped")]
    for axes, metric in zip(panels[0], wanted):
        for arm in shown:
            label, colour = ARMS[arm]
            loss, accuracy = curve(records, arm, "filler loss"), curve(records, arm, metric)
            late = loss.index >= loss.index[len(loss) // 5]
            axes.plot(loss[late], accuracy[late], color=colour, lw=0.7, alpha=0.4)
            end = [lab.mean(table.iloc[-1].dropna()) for table in (loss, accuracy)]
            x, y = (interval.estimate for interval in end)
            errors: Any = [[[e.estimate - e.low], [e.high - e.estimate]] for e in end]
            axes.errorbar(x, y, errors[1], errors[0], fmt="o", color=colour, ms=7, mec="white", label=label)
        axes.set(title=metric.removeprefix("accuracy, "), xlabel="filler loss in nats", ylim=(0, 1.04))
    panels[0, 0].set_ylabel("accuracy")
    panels[0, 0].invert_xaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    caption = (
        "Accuracy against filler loss, which falls to the right: a thin line a seed along training, without its first "
        "fifth; a dot with 95 % bootstrap intervals is the mean at the end."
    )
    return lab.Drawing("equal-loss", figure, caption)


def dots(axes: "Axes", place: float, sample: "Series", colour: str, reach: float = 0.25) -> None:
    """The seeds, their mean and its interval, up to `reach` on both sides of a place."""
    mean = lab.mean(sample)
    across = place + 0.6 * reach * (np.linspace(-1, 1, len(sample)) if len(sample) > 1 else np.zeros(1))
    axes.plot(across, sample, "o", color=colour, ms=5, mec="white", alpha=0.8)
    axes.hlines(mean.estimate, place - reach, place + reach, color="black", lw=2)
    axes.vlines(place, mean.low, mean.high, color="black", lw=1.3)


def draw_final(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    shown = arms(records)
    metrics = {"validation loss": "loss on the mixture, nats", "filler loss": "loss on filler, nats"}
    figure, panels = pyplot.subplots(1, 2, figsize=(8.8, 3.6))
    for axes, (metric, name) in zip(panels, metrics.items()):
        for place, arm in enumerate(shown):
            dots(axes, place, tested(records, arm, metric), ARMS[arm][1])
        axes.set_xticks(range(len(shown)), [ARMS[arm][0] for arm in shown], rotation=25, ha="right")
        axes.set(ylabel=name)
        axes.grid(axis="x", visible=False)
    caption = (
        "Held-out loss at the end of training: a dot a seed, means with 95 % bootstrap intervals. All took the same "
        "number of operations" + (", but for the one of full depth and all steps." if "full baseline" in shown else ".")
    )
    return lab.Drawing("final", figure, caption)


def draw_fine_tuning(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    counts = sorted(records["examples"].dropna().unique().astype(int))
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    for arm, colour, shift in (("baseline", GREY, -0.17), ("midas", BLUE, 0.17)):
        dots(axes, shift, fine_tuned(records, arm, counts[0])["before"], colour, reach=0.14)
        for place, count in enumerate(counts, start=1):
            dots(axes, place + shift, fine_tuned(records, arm, count)["after"], colour, reach=0.14)
        axes.plot([], [], "o", color=colour, label=ARMS[arm][0])
    axes.axhline(1 / 4, color=GREEN, ls=":", lw=1.3, label="any value in sight")
    axes.set_xticks(range(len(counts) + 1), ["none", *map(str, counts)])
    axes.set(xlabel="examples fine-tuned on", ylabel="accuracy at the greatest depth", ylim=(0, 1.04))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", ncols=3)
    caption = (
        "Held-out accuracy at the greatest depth of assignments before and after fine-tuning on few examples of it: a "
        "dot a seed, means with 95 % bootstrap intervals. Dotted: naming any of the values that stand in the row."
    )
    return lab.Drawing("fine-tuning", figure, caption)


def draw_similarity(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    measured = set(records.loc[records["metric"] == "similarity", "cell"])
    shown = [arm for arm in ("baseline", "gradstack", "midas", "looped") if arm in measured]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(2.5 * len(shown) + 0.8, 2.9), sharey=True)
    for axes, arm in zip(panels, shown):
        matrix = similarity(records, arm).mean().unstack().to_numpy()
        image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        for (i, j), value in np.ndenumerate(matrix) if len(matrix) <= 8 else ():
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
        axes.set(title=ARMS[arm][0], xlabel="block")
        axes.set_xticks(range(len(matrix)), range(1, len(matrix) + 1))
        axes.set_yticks(range(len(matrix)), range(1, len(matrix) + 1))
        axes.grid(visible=False)
    panels[0].set_ylabel("block")
    figure.colorbar(image, ax=panels, label="similarity", pad=0.02, fraction=0.03, aspect=14)
    caption = (
        "Functional similarity of blocks, the mean cosine between what two of them add to the same input; means over "
        "seeds. In the looped network half of the blocks come twice."
    )
    return lab.Drawing("similarity", figure, caption)
