"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

UNDERFITS, INTERPOLATES = 0.95, 0.999
"""Train accuracy below which a network underfits, and above which it interpolates."""
MANY = 1000
"""Training samples from which on the base learner's risk is held against its limit."""


def values(records: "DataFrame", cell: str, metric: str) -> "Series":
    """A number of each network, by seed.

    Raises:
        NotEnough: where there is none.
    """
    return lab.rows(records, metric, cell).set_index("seed")["value"]


def widths(records: "DataFrame") -> list[int]:
    """Of the networks, from the narrowest."""
    return sorted(records.loc[records["cell"].str.startswith("network/"), "width"].astype(int).unique())


def gain(records: "DataFrame", cell: str, over: str = "test accuracy", of: str = "ResMem accuracy") -> "Series":
    """What one accuracy is above another, in points, by seed."""
    return 100 * (values(records, cell, of) - values(records, cell, over))


def narrow(records: "DataFrame") -> list[str]:
    """The two narrowest networks."""
    return [f"network/{width}" for width in widths(records)[:2]]


def judge_memory(records: "DataFrame") -> list[lab.Check]:
    least, distinct = (
        lab.exact(records.loc[records["metric"] == metric, "value"].min()) for metric in ("memorised", "distinct")
    )
    return [
        lab.holds("least train accuracy by the nearest residual", least, "= 1", least.estimate == 1),
        lab.holds("least share of training images with features of their own", distinct, "reported", True),
    ]


def judge_memory_control(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.below(
            f"{cell}: change of the train accuracy by shuffled residuals",
            lab.mean(gain(records, cell, "train accuracy", "wrongly memorised")),
            0,
        )
        for cell in narrow(records)
    ]


def judge_gain(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for cell in narrow(records):
        checks += [
            lab.above(f"{cell}: ResMem less the network alone", lab.mean(gain(records, cell)), 0),
            lab.above(f"{cell}: ResMem less the neighbours alone", lab.mean(gain(records, cell, "k-NN accuracy")), 0),
        ]
    return checks


def judge_gain_control(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for cell in narrow(records):
        shuffled = lab.mean(gain(records, cell, of="shuffled accuracy"))
        reaches = None if np.isnan(shuffled.low) else shuffled.low <= 0
        oracle = lab.exact(gain(records, cell, of="oracle accuracy").abs().max())
        checks += [
            lab.holds(f"{cell}: gain by shuffled residuals", shuffled, "interval reaches 0", reaches),
            lab.holds(f"{cell}: largest change where no residual is left", oracle, "= 0", oracle.estimate == 0),
        ]
    return checks


def judge_interpolation(records: "DataFrame") -> list[lab.Check]:
    narrowest = narrow(records)[0]
    fits = {cell: values(records, cell, "train accuracy").mean() for cell in (narrowest, "interpolating")}
    if not fits[narrowest] < UNDERFITS:
        raise lab.NotEnough(f"the narrowest network does not underfit: its train accuracy is {fits[narrowest]:.4f}")
    if not fits["interpolating"] > INTERPOLATES:
        raise lab.NotEnough(f"the widest does not interpolate: its train accuracy is {fits['interpolating']:.4f}")
    fall = gain(records, narrowest) - gain(records, "interpolating")
    return [
        lab.above("gain of the narrowest less that of the interpolating network", lab.mean(fall.dropna()), 0),
        lab.holds("gain of the interpolating network", lab.mean(gain(records, "interpolating")), "reported", True),
    ]


def judge_interpolation_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.above("gain of the widest network, stopped early", lab.mean(gain(records, "stopped early")), 0)]


def risks(records: "DataFrame", metric: str, d: int) -> "DataFrame":
    """Risks of the bounded linear problem, by seed and samples.

    Raises:
        NotEnough: where there are none.
    """
    rows = records[(records["cell"] == "linear") & (records["radius"] < 1) & (records["metric"] == metric)]
    table = rows[rows["d"] == d].pivot(index="seed", columns="n", values="value")
    if table.empty:
        raise lab.NotEnough(f"there is no {metric} in {d} dimensions")
    return table


def dimensions(records: "DataFrame") -> list[int]:
    return sorted(records["d"].dropna().astype(int).unique())


def slope(table: "DataFrame") -> lab.Interval:
    """Mean over seeds of the least squares slope of log risk against log samples."""
    return lab.mean(np.polyfit(np.log(table.columns.to_numpy(dtype=float)), np.log(table.to_numpy().T), 1)[0])


def judge_risk(records: "DataFrame") -> list[lab.Check]:
    checks = [lab.within("slope of ResMem's log risk, d=3", slope(risks(records, "ResMem risk", 3)), -0.85, -0.45)]
    for d in dimensions(records):
        logs = risks(records, "ResMem risk", d).map(np.log).diff(axis=1).iloc[:, 1:]
        steps = [lab.mean(logs[n]) for n in logs]
        slowest = max(steps, key=lambda step: step.estimate)
        checks.append(lab.below(f"smallest fall of ResMem's log risk with more samples, d={d}", slowest, 0))
        many = risks(records, "base risk", d).loc[:, MANY:]
        if many.empty:
            raise lab.NotEnough(f"there is no problem of {MANY} samples or more")
        floor = limit(records, d)
        checks += [
            lab.within(f"base risk over its limit, d={d}, n={n:g}", lab.mean(many[n] / floor), 0.95, 1.05) for n in many
        ]
    return checks


def limit(records: "DataFrame", d: int) -> float:
    """Of the base learner's risk."""
    from mesocosm.measures import norm_constrained_risk

    return norm_constrained_risk(float(records["radius"].min()), d)


def judge_risk_control(records: "DataFrame") -> list[lab.Check]:
    free = records[(records["cell"] == "linear") & (records["radius"] == 1)]
    largest = [lab.exact(free.loc[free["metric"] == f"{by} risk", "value"].max()) for by in ("base", "ResMem")]
    return [
        lab.holds(f"largest risk of {by}, norm 1", risk, "< 1e-12", risk.estimate < 1e-12)
        for by, risk in zip(("the base", "ResMem"), largest)
    ]
