"""The figures, from records alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREY, ORANGE
from mesocosm.studies.disagreement.rules import (
    CONFIGURATION,
    INTERPOLATES,
    correlation,
    ensembles,
    interpolating,
    over_seeds,
    slope,
)
from mesocosm.training.variation import MODES

if TYPE_CHECKING:
    from pandas import DataFrame

LOOKS = {"network": ("network", BLUE, "o"), "mlp": ("MLP", GREY, "s"), "logistic": ("logistic regression", GREY, "^")}
"""Label, colour and marker of each group of cells."""


def figures(records: "DataFrame") -> Iterator[lab.Drawing]:
    yield _draw_equality(records)
    yield _draw_reliability(records)
    yield _draw_bound(records)
    yield _draw_gains(records)


def _scatter(axis: Any, group: str, table: "DataFrame", x: str, y: str) -> None:
    """A dot a configuration: mean over study seeds, bar from lowest to highest, hollow where it doesn't interpolate."""
    label, colour, marker = LOOKS[group]
    seeds = table.groupby(CONFIGURATION)
    dots, spread = seeds.mean(), [seeds.mean()[y] - seeds.min()[y], seeds.max()[y] - seeds.mean()[y]]
    faces = [colour if fit >= INTERPOLATES else "white" for fit in dots["train accuracy"]]
    axis.errorbar(dots[x], dots[y], spread, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
    axis.scatter(dots[x], dots[y], 26, faces, marker=marker, edgecolors=colour, label=label, zorder=2)


def _draw_equality(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(8, 7.8), sharex=True, sharey=True)
    slopes = []
    for axis, mode in zip(axes.flat, MODES):
        axis.axline((0, 0), slope=1, color=BLACK, linestyle="--", linewidth=1)
        for group in LOOKS:
            table = ensembles(records, f"{group}/", [mode])
            if len(table):
                _scatter(axis, group, table, "error", "disagreement")
        table = interpolating(ensembles(records, "network/", [mode]))
        try:
            b, r = over_seeds(slope, table), over_seeds(correlation, table)
            tau = over_seeds(lambda x, y: x.corr(y, method="kendall"), table)
        except lab.NotEnough:
            continue
        lines = [f"{n} = {i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}]" for n, i in (("b", b), ("r", r), ("τ", tau))]
        lines.append(f"mean |dis − err| = {(table['disagreement'] - table['error']).abs().mean():.3f}")
        axis.text(0.03, 0.97, "\n".join(lines), transform=axis.transAxes, va="top", fontsize=9)
        slopes.append(f"{b.estimate:.2f} under {mode}")
    for axis, mode in zip(axes.flat, MODES):
        axis.set(title=mode, xlim=(0, None), ylim=(0, None))
    figure.legend(*axes.flat[2].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.supxlabel("test error, err (share of images)")
    figure.supylabel("disagreement of two copies, dis (share of images)")
    caption = (
        "Disagreement against test error. A panel is what differs between the copies; a dot is a configuration, mean "
        "over study seeds with a bar from the lowest seed to the highest, hollow where the copies fit less than "
        f"{INTERPOLATES:.0%} of their training set; the dashed line is dis = err. Slope b through the origin, "
        "correlation r and Kendall's τ, with 95 % intervals over study seeds, are of the networks that interpolate: "
        f"b is {', '.join(slopes) or 'not measured'}."
    )
    return lab.Drawing("disagreement", figure, caption)


def _draw_reliability(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.4, 4.4))
    axis.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1, label="calibrated")
    for group in ("network", "mlp"):
        mine = records[records["cell"].str.startswith(f"calibration {group}/") & records["vote"].notna()]
        counts = mine.pivot_table(index="vote", columns="metric", values="value", aggfunc="sum").round().astype(int)
        shares = [lab.share(right, votes) for right, votes in zip(counts["right votes"], counts["votes"])]
        spread = [[s.estimate - s.low for s in shares], [s.high - s.estimate for s in shares]]
        label, colour, marker = LOOKS[group]
        style: Any = {"color": colour, "marker": marker, "markersize": 4, "elinewidth": 1, "label": label}
        axis.errorbar(counts.index, [s.estimate for s in shares], spread, **style)
    axis.set(xlabel="vote: share of copies that predict the class", ylabel="share of such votes that are right")
    axis.legend()
    caption = (
        "How often a class with a given share of the copies' votes is the label, all study seeds together, with 95 % "
        "intervals. On the dashed line votes are calibrated, and disagreement equals error. Where large votes are "
        "right more often than that, copies disagree more than they err; where less often, they disagree less."
    )
    return lab.Drawing("reliability", figure, caption)


def _draw_bound(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.2, 4.2))
    axis.axline((0.1, 0.1), (1, 1), color=BLACK, linestyle="--", linewidth=1, label="|err − dis| = CACE")
    for labels, colour in (("true", BLUE), ("noisy", ORANGE), ("permuted", GREY)):
        for group, (label, _, marker) in LOOKS.items():
            table = ensembles(records, f"{group}/", labels=labels)
            style: Any = {"color": colour, "marker": marker, "label": f"{label}, {labels} labels", "alpha": 0.6}
            axis.scatter(table["cace"], table["absolute gap"].clip(1e-4), 12, linewidths=0, **style)
    axis.set(xscale="log", yscale="log", xlabel="CACE", ylabel="|err − dis|, self-pairs included (share of images)")
    figure.legend(loc="outside right upper", fontsize=8)
    every = ensembles(records, labels=None)
    broken = (every["absolute gap"] > every["top-label ece"]).mean()
    caption = (
        "Gap between test error and disagreement against the miscalibration of the copies' votes: a dot is an ensemble "
        "under true, noisy or permuted test labels (gaps below 0.0001 are drawn there). No dot can lie above the "
        "dashed line, whatever the network and the labels. With top-label calibration error in place of CACE, "
        f"{broken:.0%} of the ensembles break the bound."
    )
    return lab.Drawing("bound", figure, caption)


def _draw_gains(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.4, 3.8))
    axis.axhline(1, color=BLACK, linestyle="--", linewidth=1, label="dis = err")
    ticks = sorted(set(records[records["cell"].str.startswith("gain")]["size"]))
    for group, shift in (("network", 0.96), ("mlp", 1.04)):
        table = ensembles(records, f"gain {group}/")
        table["ratio"], table["factor"] = (
            table["disagreement"] / table["error"],
            table.index.get_level_values("size") * shift,
        )
        _scatter(axis, group, table, "factor", "ratio")
    axis.set(xscale="log", xlabel="factor of the initial weights", ylabel="dis / err under DiffInit", ylim=(0, None))
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend()
    caption = (
        "Disagreement over test error when initial weights are multiplied by a factor: a dot is a configuration, mean "
        "over study seeds with a bar from the lowest to the highest, hollow where it does not interpolate (shifted "
        "sideways by kind of network). How often copies disagree for each error depends on the scale they start at."
    )
    return lab.Drawing("initial-scale", figure, caption)
