"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TOLERANCE = 0.05
"""Relative difference of training FLOPs up to which arms count as of equal compute."""
SLOPE = -0.3
"""Bound on the exponent of the transition gap's fall with depth."""
LEARNED = 0.9
"""MSE / variance below which a network has learned something: what is constant has no gap."""


def curve(records: "DataFrame", arm: str, metric: str, sandbox: str = "polynomials") -> "DataFrame":
    """A measurement along training, by step and seed."""
    chosen = (records["sandbox"] == sandbox) & (records["arm"] == arm) & (records["metric"] == metric)
    return records[chosen].pivot(index="step", columns="seed", values="value")


def final(records: "DataFrame", arm: str, metric: str = "error", sandbox: str = "polynomials") -> "Series":
    """The last measurement by seed, without seeds that diverged."""
    found = curve(records, arm, metric, sandbox)
    if not len(found):
        raise lab.NotEnough(f"there is no arm {arm!r} on {sandbox}")
    return found.iloc[-1].dropna()


def pair(
    records: "DataFrame", first: str, second: str, sandbox: str = "polynomials", metric: str = "error"
) -> "tuple[Series, Series]":
    """The last measurements of two arms of equal compute, seed by seed.

    Raises:
        lab.NotEnough: for fewer than two seeds in common, or where the arms' FLOPs differ.
    """
    spent = [final(records, arm, "flops", sandbox).mean() for arm in (first, second)]
    if abs(spent[0] / spent[1] - 1) > TOLERANCE:
        raise lab.NotEnough(f"{first} and {second} are not of equal compute: {spent[0]:.3g} and {spent[1]:.3g} FLOPs")
    a, b = (final(records, arm, metric, sandbox) for arm in (first, second))
    seeds = a.index.intersection(b.index)
    if len(seeds) < 2:
        raise lab.NotEnough(f"{len(seeds)} seed(s) of {first} and {second} ended, and 2 are needed")
    return a[seeds], b[seeds]


def difference(records: "DataFrame", first: str, second: str, **options: Any) -> lab.Interval:
    """Mean over seeds of `first` - `second`."""
    a, b = pair(records, first, second, **options)
    return lab.mean(a - b)


def ratio(records: "DataFrame", first: str, second: str, **options: Any) -> lab.Interval:
    """Ratio of the means over seeds."""
    means = lambda x, y, axis: np.mean(x, axis=axis) / np.mean(y, axis=axis)
    return lab.bootstrap(means, *pair(records, first, second, **options), paired=True)


def judge_superiority(records: "DataFrame") -> list[lab.Check]:
    gain = difference(records, "raptr", "equal compute", sandbox="text")
    part = ratio(records, "raptr", "equal compute", sandbox="text")
    return [
        lab.below("loss on text, RaPTr - whole network", gain, 0),
        lab.holds("ratio of the losses", part, "reported", True),
    ]


def judge_superiority_control(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above("loss on text, layer dropping - RaPTr", difference(records, "layerdrop", "raptr", sandbox="text"), 0)
    ]


def judge_equality(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.below("MSE on polynomials, RaPTr / whole network", ratio(records, "raptr", "equal compute"), 1.1),
        lab.holds("RaPTr - whole network", difference(records, "raptr", "equal compute"), "reported", True),
    ]


def judge_equality_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.above("MSE, layer dropping - RaPTr", difference(records, "layerdrop", "raptr"), 0)]


def judge_increasing(records: "DataFrame", sandbox: str) -> list[lab.Check]:
    gain = difference(records, "raptr", "reversed", sandbox=sandbox)
    return [
        lab.below(f"loss on {sandbox}, rising - falling", gain, 0),
        lab.holds("rising / falling", ratio(records, "raptr", "reversed", sandbox=sandbox), "reported", True),
    ]


def gaps(records: "DataFrame", kind: str, trained: bool, metric: str = "gap") -> "DataFrame":
    """The transition gap's size by seed and depth, before or after training."""
    rows = records[(records["kind"] == kind) & (records["metric"] == metric)]
    rows = rows[rows["step"] == (rows["step"].max() if trained else 0)]
    return rows.pivot(index="seed", columns="depth", values="value").dropna().abs()


def slope(records: "DataFrame", kind: str, trained: bool) -> lab.Interval:
    """Exponent of the power law of the mean gap over depth."""
    found = gaps(records, kind, trained)
    if len(found) < 2:
        raise lab.NotEnough(f"{len(found)} seed(s) of the networks {kind!r} have a gap at all depths; 2 are needed")
    depths = found.columns.to_numpy(dtype=float)

    def exponent(*samples: Any, axis: int) -> Any:
        means = [np.mean(sample, axis=axis) for sample in samples]
        return measures.power_law(depths, np.stack(means, axis=-1)).exponent

    return lab.bootstrap(exponent, *(found[depth] for depth in found), paired=True)


def judge_smoothness(records: "DataFrame") -> list[lab.Check]:
    growth = gaps(records, "whole", False, "growth r2")
    checks = [
        lab.below("exponent of the gap, trained", slope(records, "whole", True), SLOPE),
        lab.below("exponent of the gap, at initialisation", slope(records, "whole", False), SLOPE),
        lab.holds("least R^2 of norm growth at initialisation", lab.mean(growth.min(axis=1)), "reported", True),
    ]
    plain, without = (gaps(records, kind, True) for kind in ("whole", "no norm"))
    for depth in plain.columns.intersection(without.columns):
        a, b = plain[depth].align(without[depth], join="inner")
        gap = lab.bootstrap(lambda x, y, axis: np.mean(x, axis=axis) / np.mean(y, axis=axis), a, b, paired=True)
        checks.append(lab.holds(f"gap with / without norm, trained, L = {depth:.0f}", gap, "reported", True))
    return checks


def judge_smoothness_control(records: "DataFrame") -> list[lab.Check]:
    learned = gaps(records, "no residual", True, "error").mean() < LEARNED
    own = records[(records["kind"] == "no residual") & records["depth"].isin(learned.index[learned])]
    if learned.sum() < 2:
        raise lab.NotEnough(f"networks without residual connections learn at {learned.sum()} depth(s); 2 are needed")
    depths = ", ".join(f"{depth:.0f}" for depth in learned.index[learned])
    name = f"exponent without residual connections, L = {depths}"
    return [lab.above(name, slope(own, "no residual", True), SLOPE)]


def first_stage_end(records: "DataFrame", arm: str) -> int:
    """The last step measured in the arm's first stage."""
    steps = curve(records, arm, "error").index
    stages = records.loc[records["arm"] == arm, "stages"].iloc[0]
    return int(steps[steps <= steps[-1] / stages][-1])


def judge_simple_first(records: "DataFrame") -> list[lab.Check]:
    step = first_stage_end(records, "raptr")
    linear, cubic = (curve(records, "raptr", f"alpha {degree}").loc[step].dropna() for degree in (1, 3))
    low = [pair(records, "raptr", "equal compute", metric=f"alpha {degree}") for degree in (1, 2, 3)]
    lead = sum(a - b for a, b in low) / len(low)
    return [
        lab.above("alpha_1 - alpha_3 at the end of stage 1", lab.mean(linear - cubic), 0.3),
        lab.above("mean alpha of degrees 1-3 at the end, RaPTr - whole network", lab.mean(lead), -0.02),
        lab.holds("alpha_3 of the whole network at that compute", alpha_at(records, step, 3), "reported", True),
        lab.holds("alpha_3 of RaPTr at that compute", lab.mean(cubic), "reported", True),
    ]


def alpha_at(records: "DataFrame", step: int, degree: int) -> lab.Interval:
    """alpha of the whole network at the compute that RaPTr has spent at `step`, between measurements."""
    spent = curve(records, "raptr", "flops").loc[step].mean()
    flops, alpha = (curve(records, "equal compute", metric) for metric in ("flops", f"alpha {degree}"))
    return lab.mean([np.interp(spent, flops[seed], alpha[seed]) for seed in alpha])


def judge_ablations(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above("MSE without scaling - RaPTr", difference(records, "no scale", "raptr"), 0),
        lab.above("MSE without fixed ends - RaPTr", difference(records, "no ends", "raptr"), 0),
    ]
