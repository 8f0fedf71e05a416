"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas import DataFrame, Series

TEACHERS = {"salt": "teacher", "salt weak": "weak teacher", "salt frequencies": "frequencies"}
"""The arms that differ in their teacher alone."""
EARLY = 0.15
"""Share of the steps at which RKD is compared with the baseline for the first time."""


def curve(records: "DataFrame", cell: str, metric: str = "valid loss") -> "DataFrame":
    """A measurement along training, by step and seed."""
    chosen = (records["cell"] == cell) & (records["metric"] == metric)
    return records[chosen].pivot(index="step", columns="seed", values="value")


def final(records: "DataFrame", cell: str, metric: str = "valid loss") -> "Series":
    """The last measurement, by seed."""
    return curve(records, cell, metric).iloc[-1]


def when_taught(records: "DataFrame", cell: str, metric: str) -> "Series":
    """The measurement when the soft labels of stage one end, by seed."""
    found, step = curve(records, cell, metric), records["taught_steps"].max()
    if step not in found.index:
        raise lab.NotEnough(f"nothing was measured at step {step:.0f}, where the soft labels end")
    return found.loc[step]


def early(records: "DataFrame", cell: str) -> "Series":
    """Held-out loss at 15 % of the steps, between measurements in a straight line, by seed."""
    found = curve(records, cell)
    at = EARLY * found.index[-1]
    return found.apply(lambda losses: np.interp(at, found.index, losses))


def crossing(losses: "Series", target: float) -> float:
    """Step at which `losses`, by step, are first at `target` or below, between measurements in a straight line."""
    reached = np.flatnonzero(losses.to_numpy() <= target)
    if not len(reached):
        return float("inf")
    if not (i := reached[0]):
        return float(losses.index[0])
    (before, after), (high, low) = losses.index[i - 1 : i + 1], losses.iloc[i - 1 : i + 1]
    return float(before + (after - before) * (high - target) / (high - low))


def crossings(records: "DataFrame", regime: str, arm: str = "salt") -> "Series":
    """Steps until an arm is at the baseline's final loss, by seed."""
    target = final(records, f"{regime}/baseline")
    return curve(records, f"{regime}/{arm}").apply(lambda losses: crossing(losses, target[losses.name]))


def share_of_steps(records: "DataFrame", regime: str) -> "Series":
    return crossings(records, regime) / curve(records, f"{regime}/baseline").index[-1]


def share_of_flops(records: "DataFrame", regime: str) -> "Series":
    """Training FLOPs of SALT, its teacher's forward passes included, until the baseline's final loss, in the
    baseline's, by seed."""
    flops, whole = curve(records, f"{regime}/salt", "flops"), final(records, f"{regime}/baseline", "flops")
    spent = {s: np.interp(step, flops.index, flops[s]) for s, step in crossings(records, regime).items()}
    reached = np.isfinite(crossings(records, regime))
    return (reached.index.map(spent).to_series(index=reached.index) / whole).where(reached, np.inf)


def ending(records: "DataFrame", arm: str, other: str = "baseline", regime: str = "limited") -> "Series":
    """Final loss of an arm less that of another, by seed."""
    return (final(records, f"{regime}/{arm}") - final(records, f"{regime}/{other}")).dropna()


def contrast(records: "DataFrame", arm: str) -> "Series":
    """Difference to the baseline in the hardest quarter less that in the easiest, when the soft labels end."""
    easy, hard = (difference(records, arm, f"quarter {i}") for i in (1, 4))
    return hard - easy


def difference(records: "DataFrame", arm: str, metric: str, read: "Callable[..., Series]" = when_taught) -> "Series":
    """Loss of an arm less the baseline's on limited text, by seed."""
    return (read(records, f"limited/{arm}", metric) - read(records, "limited/baseline", metric)).dropna()


def reported(name: str, values: "Series") -> lab.Check:
    """What is shown beside a verdict without a bound."""
    return lab.holds(name, lab.mean(values.dropna()), "reported", True)


def judge_gain(records: "DataFrame") -> list[lab.Check]:
    steps = {regime: share_of_steps(records, regime) for regime in ("limited", "abundant")}
    return [
        lab.below("loss of SALT - baseline", lab.mean(ending(records, "salt")), 0),
        lab.below("steps to the baseline's final loss", lab.mean(steps["limited"]), 0.9),
        reported("training FLOPs to that loss, over the baseline's", share_of_flops(records, "limited")),
        reported("loss of SALT - baseline, abundant text", ending(records, "salt", regime="abundant")),
        reported("steps to the baseline's final loss, abundant text", steps["abundant"]),
    ]


def judge_gain_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.above("loss taught by frequencies - baseline", lab.mean(ending(records, "salt frequencies")), -0.002)]


def judge_whole_run(records: "DataFrame") -> list[lab.Check]:
    ahead = early(records, "limited/rkd") - early(records, "limited/baseline")
    return [
        lab.above("final loss of RKD - SALT", lab.mean(ending(records, "rkd", "salt")), 0),
        lab.below(f"loss of RKD - baseline at {EARLY:.0%} of the steps", lab.mean(ahead.dropna()), 0),
        reported("final loss of RKD - SALT, abundant text", ending(records, "rkd", "salt", "abundant")),
    ]


def judge_whole_run_control(records: "DataFrame") -> list[lab.Check]:
    cells = ("chain/rkd true laws", "chain/salt true laws")
    rkd, salt = (final(records, cell, "excess loss") for cell in cells)
    return [lab.below("final loss of RKD - SALT, true laws as teacher", lab.mean((rkd - salt).dropna()), 0)]


def judge_regions(records: "DataFrame") -> list[lab.Check]:
    hard, easy = (
        final(records, "chain/salt", metric) - final(records, "chain/baseline", metric)
        for metric in ("hard contexts", "easy contexts")
    )
    return [
        lab.above("hardest - easiest quarter, when soft labels end", lab.mean(contrast(records, "salt")), 0),
        lab.below("easiest quarter then", lab.mean(difference(records, "salt", "quarter 1")), 0),
        lab.below("hardest quarter at the end", lab.mean(difference(records, "salt", "quarter 4", read=final)), 0.01),
        reported("hard - easy contexts of the chain, at the end", hard - easy),
    ]


def judge_regions_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.below("hardest - easiest, taught by frequencies", lab.mean(contrast(records, "salt frequencies")), 0)]


def teachers(records: "DataFrame") -> "tuple[DataFrame, DataFrame]":
    """Held-out losses of the three teachers, and gains of their students at every step less the baseline's, by seed."""
    import pandas

    quality = pandas.DataFrame({arm: final(records, f"limited/{arm}", "teacher loss") for arm in TEACHERS})
    baseline = curve(records, "limited/baseline")
    gains = pandas.concat({arm: baseline - curve(records, f"limited/{arm}") for arm in TEACHERS})
    return quality, gains


def ordered(records: "DataFrame", step: int) -> lab.Interval:
    """Share of seeds in which better teachers help more."""
    quality, gains = teachers(records)
    at = gains.xs(gains.index.get_level_values("step").unique()[step], level="step").T.dropna()
    rank = lab.rank_correlation(-quality.loc[at.index].to_numpy(), at[list(TEACHERS)].to_numpy())
    return lab.share(int((rank > 0).sum()), len(rank))


def judge_teachers(records: "DataFrame") -> list[lab.Check]:
    share = ordered(records, -1)
    gains = [reported(f"gain taught by {name}", -ending(records, arm)) for arm, name in TEACHERS.items()]
    return [lab.holds("seeds in which better teachers help more", share, ">= 0.8", share.estimate >= 0.8), *gains]


def judge_teachers_control(records: "DataFrame") -> list[lab.Check]:
    share = ordered(records, 0)
    return [lab.holds("seeds in which they do before training", share, "= 0", share.estimate == 0)]


def noise(records: "DataFrame", metric: str) -> "dict[float, Series]":
    """A ratio of the label noise by seed, for each weight."""
    chosen = records[records["metric"] == metric]
    weights = sorted(chosen["weight"].unique())
    return {weight: chosen[chosen["weight"] == weight].set_index("seed")["value"] for weight in weights}


def judge_noise(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.within(f"{metric} at w = {weight:.2f}", lab.mean(values), 0.98, 1.02)
        for metric in ("variance", "bias")
        for weight, values in noise(records, metric).items()
    ]


def judge_noise_control(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above(f"variance of drawn labels at w = {weight:.2f}", lab.mean(values), 1.1)
        for weight, values in noise(records, "drawn").items()
    ]
