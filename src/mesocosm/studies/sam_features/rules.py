"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

CHECKPOINTS = 20
"""Measurements of the two branches along training."""
JUDGED = 5
"""How many of these the claims look at."""


def table(records: "DataFrame", cell: str, metric: str, step: int | None = None) -> "DataFrame":
    """One number by seed and rho, at the end of training where no step is given."""
    own = records[records["cell"] == cell]
    rows = own[own["metric"] == metric]
    rows = rows[rows["step"] == (rows["step"].max() if step is None else step)]
    # A rho whose networks all diverged keeps its column.
    return rows.pivot(index="seed", columns="rho", values="value").reindex(columns=sorted(own["rho"].unique()))


def curves(records: "DataFrame", cell: str, metric: str, rho: float) -> "DataFrame":
    """One number by step and seed."""
    rows = records[(records["cell"] == cell) & (records["metric"] == metric) & (records["rho"] == rho)]
    return rows.pivot(index="step", columns="seed", values="value")


def largest(records: "DataFrame", cell: str) -> float:
    return float(records.loc[records["cell"] == cell, "rho"].max())


def judged(records: "DataFrame", cell: str) -> float:
    """The rho that a rule looks at."""
    return float(records.loc[(records["cell"] == cell) & (records["judged"] == 1), "rho"].iloc[0])


def change(values: "DataFrame", rho: float | None = None) -> "Series":
    """From rho = 0 to `rho`, the largest where none is given, by seed."""
    return (values[values.columns.max() if rho is None else rho] - values[0.0]).dropna()


def judged_steps(records: "DataFrame", cell: str) -> list[int]:
    """The first measurement after each fifth of training."""
    steps = np.unique(records.loc[(records["cell"] == cell) & (records["metric"] == "train loss"), "step"])
    return sorted({int(steps[steps >= share * steps[-1] / JUDGED].min()) for share in range(1, JUDGED + 1)})


def at_equal_loss(records: "DataFrame", cell: str, metric: str) -> "Series":
    """Change of a measurement from rho = 0 to the largest where both trainings have the larger of their last losses."""
    losses, values = (
        [curves(records, cell, name, rho) for rho in (0.0, largest(records, cell))] for name in ("train loss", metric)
    )
    common = losses[0].iloc[-1].clip(lower=losses[1].iloc[-1])

    def at(seed: int, way: int) -> float:
        """Losses fall, and interpolation wants them to rise."""
        falling = losses[way][seed]
        return float(np.interp(common[seed], falling[::-1], values[way][seed].reindex(falling.index)[::-1]))

    return common.index.to_series().map(lambda seed: at(seed, 1) - at(seed, 0)).dropna()


def trend(values: "DataFrame") -> lab.Interval:
    """Mean over seeds of Spearman's correlation between rho and a measurement."""
    return lab.mean(lab.rank_correlation(values.columns.to_numpy(dtype=float), values.dropna().to_numpy()))


def judge_hard_feature(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for method in ("LSAM", "SAM"):
        cell = f"toy {method}"
        hard, easy = (table(records, cell, f"{half} error") for half in ("hard", "easy"))
        equal = lab.mean(at_equal_loss(records, cell, "hard error"))
        checks += [
            lab.below(f"{method}: change of the hard branch's error", lab.mean(change(hard)), 0),
            lab.below(f"{method}: correlation of rho and the hard branch's error", trend(hard), 0),
            lab.below(f"{method}: change of the easy branch's error", lab.mean(change(easy)), 0.005),
            lab.holds(f"{method}: change of the hard branch's error at equal loss", equal, "reported", True),
        ]
    return checks


def judge_equal_features(records: "DataFrame") -> list[lab.Check]:
    gap = table(records, "equal LSAM", "hard error") - table(records, "equal LSAM", "easy error")
    return [
        lab.contains("difference of errors at the largest rho", lab.mean(gap[gap.columns.max()]), 0),
        lab.contains("its change from rho = 0", lab.mean(change(gap)), 0),
    ]


def gini_fall(records: "DataFrame", step: int, where: str = "phantom") -> "DataFrame":
    """Gini coefficient at the real parameters minus elsewhere, by seed and rho."""
    here, there = (table(records, "toy LSAM", f"gini, {place}", step) for place in ("real", where))
    return here - there


def judge_evenness(records: "DataFrame") -> list[lab.Check]:
    steps, rho = judged_steps(records, "toy LSAM"), judged(records, "toy LSAM")
    return [
        lab.above(f"fall of the Gini coefficient at step {step}", lab.mean(gini_fall(records, step)[rho]), 0)
        for step in reversed(steps)
    ]


def judge_evenness_control(records: "DataFrame") -> list[lab.Check]:
    steps, rho = judged_steps(records, "toy LSAM"), judged(records, "toy LSAM")
    still = max(gini_fall(records, step)[0.0].abs().max() for step in steps)
    sam, random = (
        sum(gini_fall(records, step, where)[rho] for step in steps) / len(steps) for where in ("phantom", "random")
    )
    share = lab.bootstrap(lambda a, b, axis: a.mean(axis) / b.mean(axis), random, sam, paired=True)
    return [
        lab.within("change in random directions over LSAM's", share, -0.2, 0.2),
        lab.holds("largest change at rho = 0", lab.exact(still), "< 1e-7", still < 1e-7),
    ]


def share_ratios(records: "DataFrame", step: int, where: str) -> "DataFrame":
    """The hard feature's share of the gradient elsewhere over the real one, by seed and rho."""
    here, there = (table(records, "toy LSAM", f"share, {place}", step) for place in ("real", where))
    return there / here


def geometric_mean(sample: "Series") -> lab.Interval:
    return lab.bootstrap(lambda x, axis: np.exp(np.mean(x, axis=axis)), np.log(sample))


def judge_share(records: "DataFrame") -> list[lab.Check]:
    steps, rho = judged_steps(records, "toy LSAM"), judged(records, "toy LSAM")
    layers, weights, both = (
        [geometric_mean(share_ratios(records, step, f"phantom{where}")[rho]) for step in reversed(steps)]
        for where in (" layers", " importance", "")
    )
    return [
        *(lab.above(f"phantom over real share at step {step}", ratio, 1) for step, ratio in zip(steps[::-1], layers)),
        lab.holds("the same by the phantom importance alone, at the end", weights[0], "reported", True),
        lab.holds("the same by both, at the end", both[0], "reported", True),
    ]


def judge_share_control(records: "DataFrame") -> list[lab.Check]:
    last, rho = judged_steps(records, "toy LSAM")[-1], judged(records, "toy LSAM")
    ratio = geometric_mean(share_ratios(records, last, "phantom encoders")[rho])
    return [lab.within("share with the encoders moved over the real one", ratio, 0.98, 1.02)]


def probe_change(records: "DataFrame", cell: str, metric: str) -> "Series":
    """SAM minus SGD, by seed."""
    return change(table(records, cell, metric), judged(records, cell))


def judge_probe(records: "DataFrame") -> list[lab.Check]:
    hard, easy, test = (
        lab.mean(probe_change(records, "images SAM", metric))
        for metric in ("hard probe error", "easy probe error", "test error")
    )
    mlp = lab.mean(probe_change(records, "images MLP", "hard probe error"))
    return [
        lab.below("change of the hard half's probe error", hard, 0),
        lab.within("change of the test error", test, -0.005, 0.005),
        lab.holds("change of the easy half's probe error", easy, "reported", True),
        lab.holds("change of the hard half's probe error, fully connected", mlp, "reported", True),
    ]


def judge_probe_control(records: "DataFrame") -> list[lab.Check]:
    alone = lab.mean(probe_change(records, "alone SAM", "hard probe error"))
    return [lab.contains("change of the hard half's probe error, where the easy half tells nothing", alone, 0)]
