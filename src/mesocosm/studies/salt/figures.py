"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from mesocosm.studies.salt.rules import TEACHERS, curve, difference, ending, final, teachers, when_taught

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

ARMS = {
    "baseline": ("labels alone (baseline)", GREY),
    "salt": ("teacher at first (SALT)", BLUE),
    "rkd": ("teacher all along (RKD)", RED),
    "salt selected": ("SALT on selected passages", GREEN),
}
REGIMES = {"limited": "limited text, read several times", "abundant": "abundant text"}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    yield draw_training(records)
    yield draw_compute(records)
    taught = records["taught_steps"].max()
    if taught in set(curve(records, "limited/salt").index):
        yield draw_regions(records)
    yield draw_teachers(records)
    yield draw_selection(records)
    yield draw_divergence(records)
    if len(grid(records)) > 1:
        yield draw_grid(records)


def band(axes: "Axes", x: Any, table: "DataFrame", colour: str, **line: Any) -> None:
    """Mean over seeds with its interval, of a table by step and seed."""
    means = [lab.mean(row.dropna()) for _, row in table.iterrows()]
    axes.plot(x, [mean.estimate for mean in means], color=colour, **line)
    axes.fill_between(x, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.25, lw=0)


def points(axes: "Axes", place: float, sample: "Series", colour: str, width: float = 0.3) -> None:
    """A bar with its interval, and a dot a seed."""
    mean = lab.mean(sample)
    axes.bar(place, mean.estimate, width=width, color=colour, alpha=0.55)
    axes.vlines(place, mean.low, mean.high, color="black", lw=1.6, zorder=3)
    axes.plot(
        place + np.linspace(-0.3, 0.3, len(sample)) * width, sample, "o", color=colour, mec="white", ms=4, zorder=2
    )


def draw_training(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9.0, 6.2), sharex=True, sharey="row", height_ratios=(1.3, 1))
    shown = [final(records, f"{regime}/{arm}").min() for regime in REGIMES for arm in ("baseline", "salt", "rkd")]
    for (regime, title), (above, below) in zip(REGIMES.items(), panels.T):
        baseline = curve(records, f"{regime}/baseline")
        for arm, (name, colour) in ARMS.items():
            if f"{regime}/{arm}" in set(records["cell"]):
                losses = curve(records, f"{regime}/{arm}")
                band(above, losses.index, losses, colour, label=name)
                band(below, losses.index, losses - baseline, colour)
        for axes in (above, below):
            axes.axvline(records["taught_steps"].max(), color="black", ls=":", lw=1.2)
        above.set(title=title, ylim=(min(shown) - 0.05, np.median(baseline.iloc[len(baseline) // 4]) + 0.1))
        above.legend(loc="upper right")
        below.set(xlabel="training step")
    panels[0, 0].set_ylabel("held-out loss, nats per byte")
    panels[1, 0].set_ylabel("less the baseline's")
    caption = (
        "Held-out loss of students along training, and its difference to the baseline of the same seed: means over "
        "seeds with 95 % bootstrap intervals. Dotted: the end of SALT's soft labels. At the end SALT is "
        f"{signed(ending(records, 'salt'))} nats per byte from the baseline on limited text and "
        f"{signed(ending(records, 'salt', regime='abundant'))} on abundant text, RKD "
        f"{signed(ending(records, 'rkd'))} and {signed(ending(records, 'rkd', regime='abundant'))}."
    )
    return lab.Drawing("training", figure, caption)


def signed(values: "Series") -> str:
    return f"{values.mean():+.3f}"


def draw_compute(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2))
    teaching = final(records, "limited/teacher", "flops").mean()
    for arm in ("baseline", "salt", "rkd"):
        name, colour = ARMS[arm]
        losses, flops = curve(records, f"limited/{arm}"), curve(records, f"limited/{arm}", "flops").mean(axis=1)
        band(axes, flops, losses, colour, label=name)
        if arm != "baseline":
            axes.plot(flops + teaching, losses.mean(axis=1), color=colour, ls="--", lw=1.2)
    axes.plot([], [], color="black", ls="--", lw=1.2, label="with the teacher's own training")
    last = final(records, "limited/baseline")
    axes.axhline(last.mean(), color=GREY, ls=":", lw=1.2)
    start = curve(records, "limited/baseline")
    axes.set(ylim=(last.min() - 0.08, start.iloc[len(start) // 4].median() + 0.1))
    axes.set(
        xlabel="training FLOPs of a student, forward passes of the teacher included",
        ylabel="held-out loss, nats per byte",
    )
    axes.legend(loc="upper right")
    caption = (
        "Held-out loss on limited text against training FLOPs: means over seeds with 95 % bootstrap intervals. Dashed: "
        "the same when one student has to pay for its teacher's training too. Dotted: the baseline's final loss."
    )
    return lab.Drawing("compute", figure, caption)


def draw_regions(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9.0, 6.0), sharex=True)
    shown = {"salt": ("SALT", BLUE), "salt frequencies": ("taught byte frequencies", ORANGE)}
    for row, (arm, (name, colour)) in zip(panels, shown.items()):
        for axes, read, when in zip(row, (when_taught, final), ("as soft labels end", "at the end")):
            for i in range(1, 5):
                points(axes, i, difference(records, arm, f"quarter {i}", read), colour, width=0.6)
            axes.axhline(0, color="black", lw=1)
            axes.set(title=f"{name}, {when}", xlim=(0.4, 4.6))
            axes.set_xticks(range(1, 5), ["easiest\nquarter", "second", "third", "hardest\nquarter"])
            axes.grid(axis="x", visible=False)
        row[0].set_ylabel("loss less the baseline's,\nnats per byte")
    for axes in panels[1]:
        axes.set_xlabel("held-out bytes by the teacher's own loss")
    caption = (
        "Where soft labels help on limited text: the student's loss less the baseline's in quarters of the held-out "
        "bytes, from those that the teacher finds easiest to those it finds hardest; each panel has its own "
        "scale. Means over seeds with 95 % bootstrap intervals, a dot a seed."
    )
    return lab.Drawing("regions", figure, caption)


def draw_teachers(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    quality, gains = teachers(records)
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    for (arm, name), colour in zip(TEACHERS.items(), (BLUE, PURPLE, ORANGE)):
        gain = gains.loc[arm].iloc[-1]
        loss, mean = quality[arm].mean(), lab.mean(gain.dropna())
        axes.plot(quality[arm], gain, "o", color=colour, mec="white", ms=5, alpha=0.8)
        axes.vlines(loss, mean.low, mean.high, color="black", lw=1.6, zorder=3)
        axes.plot(loss, mean.estimate, "D", color=colour, mec="black", ms=8, zorder=4, label=name)
    axes.axhline(0, color="black", lw=1)
    axes.axvline(final(records, "limited/baseline").mean(), color=GREY, ls=":", lw=1.2, label="the baseline's own loss")
    axes.set(xlabel="held-out loss of the teacher, nats per byte", ylabel="final gain over the baseline, nats per byte")
    axes.legend(loc="best")
    caption = (
        "What a student gains from three teachers on limited text, a dot a seed; diamonds are means with 95 % "
        "bootstrap intervals. The baseline's own loss is dotted."
    )
    return lab.Drawing("teachers", figure, caption)


def draw_selection(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    scores = records[records["metric"] == "score"]
    chosen = records[(records["metric"] == "least selected") & (records["seed"] == scores["seed"].iloc[0])]
    least, values = chosen["value"].iloc[0], scores["value"].to_numpy()
    bins = np.linspace(values.min(), values.max() + 1e-9, 41)
    for part, colour, name in ((values < least, GREY, "left out"), (values >= least, GREEN, "selected for stage one")):
        axes.hist(values[part], bins=bins.tolist(), color=colour, label=f"{name}: {part.sum():,}")
    axes.set(xlabel="score of a passage: median of in-top-k losses, nats per byte", ylabel="candidate passages")
    axes.legend(loc="upper right")
    caption = (
        "Scores of the candidate passages by one seed's early teacher. Bytes outside its first choices count 0 in the "
        "median, so that passages of noise score 0 and are left out. Students whose soft labels come on the selected "
        f"passages end {signed(ending(records, 'salt selected', 'salt', 'abundant'))} nats per byte from SALT's."
    )
    return lab.Drawing("selection", figure, caption)


def draw_divergence(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    chosen = records[records["cell"] == "chain/divergence"]
    variation, gain = (
        chosen[chosen["metric"] == metric].pivot(index="part", columns="seed", values="value")
        for metric in ("variation", "gain")
    )
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    axes.plot(variation, gain, color=BLUE, lw=0.7, alpha=0.4)
    band(axes, variation.mean(axis=1), gain, BLUE, marker="o", ms=5)
    axes.axhline(0, color="black", lw=1)
    axes.set(
        xlabel="total variation between the teacher and the true law",
        ylabel="final gain of SALT over\nthe baseline, nats",
    )
    caption = (
        "On a chain with known laws: what SALT gains over the baseline in tenths of the contexts, from those where the "
        "teacher is right to those where it is most wrong. A thin line a seed, and the mean with its 95 % bootstrap "
        "interval."
    )
    return lab.Drawing("divergence", figure, caption)


def grid(records: "DataFrame") -> dict[tuple[float, float], str]:
    """The arms on limited text that differ in weight and temperature alone, by these."""
    own = records[(records["regime"] == "limited") & (records["arm"].astype(str).str.startswith("salt"))]
    rows = own[~own["arm"].isin([arm for arm in TEACHERS if arm != "salt"])]
    distinct = rows[["weight", "temperature", "arm"]].drop_duplicates()
    return {(weight, temperature): arm for weight, temperature, arm in distinct.to_numpy().tolist()}


def draw_grid(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    values = {key: ending(records, arm).mean() for key, arm in grid(records).items()}
    weights, temperatures = (sorted({key[i] for key in values}) for i in range(2))
    table = np.array([[values.get((w, t), np.nan) for t in temperatures] for w in weights])
    figure, axes = pyplot.subplots(figsize=(5.4, 3.8))
    reach = np.nanmax(np.abs(table))
    image = axes.imshow(table, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(table):
        axes.text(j, i, f"{value:+.3f}", ha="center", va="center")
    axes.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    axes.set_yticks(range(len(weights)), [f"{w:.2f}" for w in weights])
    axes.set(xlabel="temperature of the teacher", ylabel="weight of soft labels")
    axes.grid(visible=False)
    figure.colorbar(image, label="final loss less the baseline's, nats per byte")
    caption = "Final loss of SALT less the baseline's on limited text, by weight and temperature: means over seeds."
    return lab.Drawing("grid", figure, caption)
