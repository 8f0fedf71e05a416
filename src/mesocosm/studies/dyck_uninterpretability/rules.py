"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Index, Series

ACCURATE = 0.97
"""Models count whose accuracy at the training length is above this."""
PLAIN = ("plain", "initial scale")
"""Cells of models trained on the task alone, from various initial scales."""


def accuracy(records: "DataFrame", cells: str | tuple[str, ...], times: float = 1) -> "Series":
    """Accuracy by cell and seed at so many times the training length."""
    rows = records[(records["metric"] == "accuracy") & records["cell"].str.startswith(cells)]
    if not len(rows):
        raise lab.NotEnough("no accuracy was measured")
    return rows[rows["length"] == times * rows["length"].min()].set_index(["cell", "seed"])["value"]


def by_seed(records: "DataFrame", metric: str, cells: str | tuple[str, ...] = PLAIN) -> "Series":
    """A metric of single models by cell and seed."""
    rows = records[(records["metric"] == metric) & records["cell"].str.startswith(cells)]
    return rows.set_index(["cell", "seed"])["value"]


def accurate(records: "DataFrame", cells: str | tuple[str, ...], least: int) -> "Index":
    """Cell and seed of the models that count."""
    found = accuracy(records, cells)
    good = found.index[found > ACCURATE]
    if len(good) < least:
        raise lab.NotEnough(f"{len(good)} of {len(found)} models have accuracy above 0.97, and {least} are needed")
    return good


def matrix(records: "DataFrame", metric: str, cell: str, seeds: Any) -> np.ndarray:
    """A metric of pairs of seeds as a symmetric matrix `[n, n]` in the order of `seeds`."""
    rows = records[(records["metric"] == metric) & (records["cell"] == cell)]
    if not len(rows):
        raise lab.NotEnough("attention is compared only in models that give their attention patterns")
    half = rows.pivot(index="seed", columns="other", values="value").reindex(index=seeds, columns=seeds).to_numpy()
    return np.nansum([half, half.T], axis=0)


def mean_of_pairs(pairs: np.ndarray, less: "Series | float" = 0) -> lab.Interval:
    """Mean over pairs of different seeds, less the mean of `less` over seeds: bootstrap over seeds.

    A resample that holds one seed alone counts as 0.
    """
    single = np.broadcast_to(less, len(pairs))

    def statistic(sample: np.ndarray, axis: int) -> Any:
        drawn = (sample.astype(int)[..., None] == np.arange(len(pairs))).sum(-2)  # how often each seed is drawn
        weights = (drawn**2).sum(-1)
        different = drawn.sum(-1) ** 2 - weights
        total = ((drawn @ pairs) * drawn).sum(-1)
        return total / np.maximum(different, 1) - drawn @ single / len(pairs)

    return lab.bootstrap(statistic, np.arange(len(pairs)))


def judge_construction(records: "DataFrame") -> list[lab.Check]:
    agreement = by_seed(records, "right answers", "construction")
    pairs = matrix(records, "variation", "construction", agreement.index.get_level_values("seed"))
    one_hot = records[records["metric"] == "one-hot variation"]["value"].iloc[0]
    return [
        lab.above("variation over that of one-hot attention", mean_of_pairs(pairs / one_hot), 0.25),
        lab.holds("least agreement of any draw", lab.exact(agreement.min()), "= 1", agreement.min() == 1),
    ]


def judge_construction_control(records: "DataFrame") -> list[lab.Check]:
    agreement = by_seed(records, "unbalanced", "construction")
    low = lab.share((agreement < 0.95).sum(), len(agreement))
    return [lab.holds("draws below 0.95 without balance", low, ">= 0.9", low.estimate >= 0.9)]


def judge_attention(records: "DataFrame") -> list[lab.Check]:
    good = accurate(records, "plain", 3)
    seeds = good.get_level_values("seed")
    pairs, late = matrix(records, "variation", "plain", seeds), by_seed(records, "late change", "plain")[good]
    before = matrix(records, "initial variation", "plain", seeds)
    agreement = mean_of_pairs(matrix(records, "agreement", "plain", seeds))
    one_hot = records[records["metric"] == "one-hot variation"]["value"].iloc[0]
    checks = [
        lab.above("variation between seeds less 3 times the late change", mean_of_pairs(pairs, less=3 * late), 0),
        lab.above("share of equal answers", agreement, 0.97),
        lab.holds("variation between seeds", mean_of_pairs(pairs), "reported", True),
        lab.holds("the same over that of one-hot attention", mean_of_pairs(pairs / one_hot), "reported", True),
        lab.holds("variation between seeds before training", mean_of_pairs(before), "reported", True),
        lab.holds("late change within a seed", lab.mean(late), "reported", True),
    ]
    stack = by_seed(records, "distance to the stack", "plain")[good]
    checks.append(lab.holds("distance to a stack's attention", lab.mean(stack), "reported", True))
    for cell in sorted(set(records["cell"]) - {"plain", "late branch", "construction"}):
        rows = accuracy(records, cell)
        chosen = rows.index[rows > ACCURATE].get_level_values("seed")
        if len(chosen) > 1:
            among = mean_of_pairs(matrix(records, "variation", cell, chosen))
            checks.append(lab.holds(f"variation, {cell} ({len(chosen)} accurate)", among, "reported", True))
    share = lab.share(len(good), len(accuracy(records, "plain")))
    return [*checks, lab.holds("share of seeds above 0.97", share, "reported", True)]


def judge_attention_control(records: "DataFrame") -> list[lab.Check]:
    good = accurate(records, "plain", 3)
    apart = by_seed(records, "distance to plain", "late branch").droplevel("cell")
    late = by_seed(records, "late change", "plain").droplevel("cell")
    seeds = apart.index.intersection(good.get_level_values("seed"))
    if len(seeds) < 2:
        raise lab.NotEnough(f"{len(seeds)} accurate models have a late branch, and 2 are needed")
    ratio = lab.bootstrap(lambda x, y, axis: x.mean(axis) / y.mean(axis), apart[seeds], late[seeds], paired=True)
    return [lab.below("variation between late branches over the late change", ratio, 3)]


def judge_balance(records: "DataFrame") -> list[lab.Check]:
    checks = [lab.below("rank correlation with accuracy at 2 N", correlation(records, "violation"), 0)]
    checks.append(lab.holds("at 3 N", correlation(records, "violation", times=3), "reported", True))
    for name, metric in (("violation", "violation"), ("violation of brackets that do not match", "permuted violation")):
        pooled = correlation(records, metric, cells=PLAIN)
        checks.append(lab.holds(f"all initial scales together, {name}", pooled, "reported", True))
    both = correlation(records, "violation", cells=("plain", "complete insertions"))
    return [*checks, lab.holds("with and without insertions together", both, "reported", True)]


def judge_balance_control(records: "DataFrame") -> list[lab.Check]:
    permuted = correlation(records, "permuted violation")
    return [lab.contains("rank correlation of brackets that do not match", permuted, 0)]


def correlation(records: "DataFrame", metric: str, times: int = 2, cells: tuple[str, ...] = ("plain",)) -> lab.Interval:
    """Rank correlation of a metric with accuracy at so many times the training length, over the models that count."""
    good = accurate(records, cells, 24)
    found = by_seed(records, metric, cells)
    if not len(found):
        raise lab.NotEnough("balance is measured only in models of one attention layer over bracket types and levels")
    return lab.bootstrap(lab.rank_correlation, found[good], accuracy(records, cells, times)[good], paired=True)


def judge_insertions(records: "DataFrame") -> list[lab.Check]:
    checks = [
        lab.above("gain of accuracy at 2 N", gain(records, "complete insertions", "plain"), 0),
        lab.below("change of violation", change_of_violation(records, "complete insertions"), 0),
    ]
    for times in (1, 3):
        report = gain(records, "complete insertions", "plain", times)
        checks.append(lab.holds(f"gain of accuracy at {times} N", report, "reported", True))
    lone = gain(records, "lone insertions", "plain")
    return [*checks, lab.holds("gain of accuracy at 2 N by lone brackets", lone, "reported", True)]


def judge_insertions_control(records: "DataFrame") -> list[lab.Check]:
    violation = change_of_violation(records, "lone insertions")
    fallen = violation.high < 0
    return [
        lab.above(
            "gain of accuracy at 2 N over lone brackets", gain(records, "complete insertions", "lone insertions"), 0
        ),
        lab.holds("change of violation by lone brackets", violation, "interval not below 0", not fallen),
    ]


def gain(records: "DataFrame", cell: str, other: str, times: int = 2) -> lab.Interval:
    """Mean difference of accuracy at so many times the training length between equal seeds of two cells."""
    return difference(accuracy(records, cell, times), accuracy(records, other, times))


def change_of_violation(records: "DataFrame", cell: str) -> lab.Interval:
    return difference(by_seed(records, "violation", cell), by_seed(records, "violation", "plain"))


def difference(treated: "Series", plain: "Series") -> lab.Interval:
    return lab.mean((treated.droplevel("cell") - plain.droplevel("cell")).dropna())
