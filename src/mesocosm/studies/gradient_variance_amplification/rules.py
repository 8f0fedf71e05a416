"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

PARTS = ("linear", "neural")
NEAR = {"linear": 0.1, "neural": 2.0}
"""How far the mean reward of averaged weights may be from the expert's, as a share of it: no merely bad policy."""


def checkpoints(records: "DataFrame", cell: str, metric: str) -> "DataFrame":
    """A metric at the checkpoints of the last half of training, `[seeds, checkpoints]`; seeds that diverged left out.

    Raises:
        NotEnough: for a cell that is not there, or with fewer than 2 such checkpoints.
    """
    rows = records[(records["cell"] == cell) & (records["metric"] == metric)]
    late = rows[rows["step"] > rows["step"].max() / 2].pivot(index="seed", columns="step", values="value")
    late = late.replace([np.inf, -np.inf], np.nan).dropna()
    if late.shape[0] < 1 or late.shape[1] < 2:
        raise lab.NotEnough(f"{cell}: no seed has 2 checkpoints in the last half of training")
    return late


def scale(records: "DataFrame", cell: str, metric: str) -> float:
    """What a cell's metrics are measured against: the expert's rewards, or the loss of doing nothing."""
    return float(records[(records["cell"] == cell) & (records["metric"] == metric)]["value"].iloc[0])


def fluctuation(records: "DataFrame", cell: str, metric: str, against: str) -> "Series":
    """F by seed: standard deviation over checkpoints in units of a scale."""
    import pandas

    late = checkpoints(records, cell, metric)
    return pandas.Series(measures.checkpoint_fluctuation(late, scale(records, cell, against)), late.index)


def amplification(records: "DataFrame", cell: str) -> "Series":
    """F_J / F_l by seed."""
    import pandas

    rewards, losses = (checkpoints(records, cell, metric) for metric in ("reward", "cloning loss"))
    scales = [scale(records, cell, metric) for metric in ("expert reward", "idle loss")]
    return pandas.Series(measures.noise_amplification(rewards, scales[0], losses, scales[1]), rewards.index)


def spread(records: "DataFrame", cell: str, metric: str = "reward") -> "Series":
    """Standard deviation over checkpoints by seed."""
    return checkpoints(records, cell, metric).std(axis=1)


def log_ratio(above: "Series", below: "Series") -> "Series":
    """log of the ratio by seed, of the seeds that both have; at least log 1e-12.

    Raises:
        NotEnough: where no seed is in both, or where what is divided by does not move.
    """
    both = above.index.intersection(below.index)
    if not len(both) or not (below[both] > 1e-12).all():
        raise lab.NotEnough("there is no seed in both trainings, or one without any movement between checkpoints")
    return (above[both] / below[both]).clip(lower=1e-12).map(np.log)


def factor(logs: "Series") -> lab.Interval:
    """Geometric mean over seeds of ratios given as logarithms."""
    return lab.bootstrap(lambda x, axis: np.exp(np.mean(x, axis=axis)), logs)


def calmer(records: "DataFrame", cell: str, metric: str = "reward") -> lab.Interval:
    """sd over checkpoints of averaged weights over that of the weights."""
    return factor(log_ratio(spread(records, cell, f"EMA {metric}"), spread(records, cell, metric)))


def require_clones(records: "DataFrame") -> None:
    """See that the averaged policies are near the expert: a policy that is merely bad oscillates too."""
    for part in PARTS:
        expert = scale(records, part, "expert reward") if part in set(records["cell"]) else np.nan
        if np.isnan(expert):
            raise lab.NotEnough(f"the part {part} was not run")
        reached = checkpoints(records, part, "EMA reward").mean(axis=1).median()
        if abs(reached - expert) > NEAR[part] * abs(expert):
            raise lab.NotEnough(
                f"the median {part} policy of averaged weights earns {reached:.3g} and the expert {expert:.3g}: "
                f"they must be within {100 * NEAR[part]:.0f} %"
            )


def environments(records: "DataFrame") -> list[str]:
    return sorted(cell for cell in set(records["cell"]) if cell.startswith("environment "))


def judge_amplification(records: "DataFrame") -> list[lab.Check]:
    require_clones(records)
    checks = []
    for part in PARTS:
        full = fluctuation(records, part, "reward", "expert reward")
        first = fluctuation(records, part, "first reward", "expert first reward")
        loss = lab.median(fluctuation(records, part, "cloning loss", "idle loss"))
        checks += [
            lab.above(f"amplification, {part}", lab.median(amplification(records, part)), 100),
            lab.above(
                f"amplification at the full horizon over that at one step, {part}", factor(log_ratio(full, first)), 5
            ),
            lab.holds(f"sd of the cloning loss over that of doing nothing, {part}", loss, "reported", True),
        ]
    checks += [
        lab.holds(f"amplification, {cell}", lab.median(amplification(records, cell)), "reported", True)
        for cell in environments(records)
    ]
    log_norm, predicted = (checkpoints(records, "linear", m).to_numpy().ravel() for m in ("log norm", "log growth"))
    agreement = (
        lab.exact(np.corrcoef(log_norm, predicted)[0, 1]) if len(log_norm) == len(predicted) else lab.exact(np.nan)
    )
    return [*checks, lab.holds("correlation of log |x_H| with H log rho(A - K)", agreement, "reported", True)]


def judge_amplification_control(records: "DataFrame") -> list[lab.Check]:
    died = log_ratio(amplification(records, "linear contracting"), amplification(records, "linear"))
    return [lab.below("linear amplification in a contracting loop over that in the marginal one", factor(died), 0.1)]


def judge_averaging(records: "DataFrame") -> list[lab.Check]:
    require_clones(records)
    checks = [lab.below(f"sd of J, averaged over raw, {part}", calmer(records, part), 0.6) for part in PARTS]
    gains = {part: gain(records, part) for part in PARTS}
    return [
        *checks,
        lab.above("mean of J, averaged less raw, linear", lab.mean(gains["linear"]), 0),
        lab.holds("mean of J, averaged less raw, neural", lab.mean(gains["neural"]), "reported", True),
        *(
            lab.holds(
                f"median of J, averaged less raw, {part}", lab.mean(gain(records, part, "median")), "reported", True
            )
            for part in PARTS
        ),
        *(
            lab.holds(
                f"mean J of averaged weights over the expert's, {part}", relative(records, part), "reported", True
            )
            for part in PARTS
        ),
        *(
            lab.holds(f"sd of J, averaged over raw, {cell}", calmer(records, cell), "reported", True)
            for cell in environments(records)
        ),
    ]


def gain(records: "DataFrame", cell: str, statistic: str = "mean") -> "Series":
    """Mean or median reward over checkpoints of averaged weights less that of the weights, by seed."""
    averaged, raw = (checkpoints(records, cell, metric) for metric in ("EMA reward", "reward"))
    return (averaged.agg(statistic, axis=1) - raw.agg(statistic, axis=1)).dropna()


def relative(records: "DataFrame", cell: str) -> lab.Interval:
    return lab.median(checkpoints(records, cell, "EMA reward").mean(axis=1) / scale(records, cell, "expert reward"))


def judge_averaging_control(records: "DataFrame") -> list[lab.Check]:
    idle = calmer(records, "linear no averaging")
    return [
        lab.holds("beta = 1, which averages nothing", idle, "= 1", idle.low == idle.high == 1 or idle.estimate == 1),
        lab.above("neural, 16 times the batch", calmer(records, "neural large batch"), 0.6),
    ]


def judge_batch(records: "DataFrame") -> list[lab.Check]:
    base = spread(records, "neural")
    large, decayed = (factor(log_ratio(base, spread(records, f"neural {arm}"))) for arm in ("large batch", "decay"))
    return [
        lab.above("factor by which 16 times the batch cuts sd of J", large, 1.4),
        lab.holds("factor by which a falling learning rate cuts it", decayed, "reported", True),
    ]


def judge_batch_control(records: "DataFrame") -> list[lab.Check]:
    more = factor(log_ratio(spread(records, "neural"), spread(records, "neural more data")))
    return [lab.below("factor by which 16 times the data cuts sd of J", more, 1.5)]


def by_seed(records: "DataFrame", metric: str) -> "Series":
    return checkpoints(records, "stationary", metric).mean(axis=1)


def judge_laws(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for name, what in (("", "variance of the weights"), ("EMA ", "variance of averaged weights")):
        ratio = by_seed(records, f"{name}variance") / scale(records, "stationary", f"{name}predicted variance")
        checks.append(lab.within(f"{what}, measured over predicted", lab.mean(ratio), 0.9, 1.1))
    for name, what in (("", "weights"), ("EMA ", "averaged weights")):
        reward, predicted = by_seed(records, f"{name}cliff 1"), scale(records, "stationary", "predicted cliff 1")
        error = abs(reward.mean() - predicted) / (reward.std() / len(reward) ** 0.5)
        bound = f"within 3 standard errors of {predicted:.4f}"
        holds = None if np.isnan(error) else error <= 3
        checks.append(lab.holds(f"reward at a cliff of one sd, {what}", lab.mean(reward), bound, holds))
    return checks


def judge_laws_control(records: "DataFrame") -> list[lab.Check]:
    measured = by_seed(records, "EMA variance") / scale(records, "stationary", "uncorrelated EMA variance")
    return [lab.above("variance of averaged weights, measured over that of uncorrelated ones", lab.mean(measured), 1.1)]


def judge_strings(records: "DataFrame") -> list[lab.Check]:
    averaged, raw = ("EMA free-running error", "free-running error")
    moves = [spread(records, "counter", metric) for metric in (averaged, raw)]
    if not (moves[1] > 1e-12).any():
        raise lab.NotEnough("counter: the free-running error stays without any movement between checkpoints")
    # Averaged weights may make no mistake at all, so that seeds have no geometric mean.
    ratio = lab.bootstrap(lambda a, b, axis: np.mean(a, axis=axis) / np.mean(b, axis=axis), *moves, paired=True)
    means = [checkpoints(records, "counter", metric).mean(axis=1) for metric in (averaged, raw)]
    return [
        lab.below("sd of free-running error, averaged over raw", ratio, 0.6),
        lab.below("mean free-running error, averaged less raw", lab.mean(means[0] - means[1]), 0),
        lab.holds("mean free-running error, raw", lab.mean(means[1]), "reported", True),
    ]


def judge_strings_control(records: "DataFrame") -> list[lab.Check]:
    loss = fluctuation(records, "counter", "next-digit loss", "idle loss")
    steadier = factor(log_ratio(loss, spread(records, "counter", "free-running error")))
    return [lab.below("sd of next-digit loss over log V, over sd of free-running error", steadier, 0.2)]
