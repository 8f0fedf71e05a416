"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

HIGH, LOW = 0.8, 0.2
"""Scores above are memorised, scores below are not."""
SHRINKING = ("flat", "decreasing")
PROXIES = ("1 - cumulative confidence", "EL2N")
"""Those that are judged; early EL2N and the margin are reported."""
EXACT = 1e-10


def table(records: "DataFrame", arm: str, metric: str = "memorisation") -> "DataFrame":
    """One number of every training example, by (seed, example) and width.

    Raises:
        NotEnough: where there is none.
    """
    rows = records[(records["cell"] == arm) & (records["metric"] == metric)]
    if rows.empty:
        raise lab.NotEnough(
            f"there is no {metric} of {arm}: it needs 5 networks that saw an example, and 5 that did not"
        )
    return rows.pivot(index=["seed", "example"], columns="width", values="value")


def flipped(records: "DataFrame") -> "Series":
    """Whether the label of each (seed, example) was flipped."""
    rows = records[(records["cell"] == "networks") & (records["metric"] == "memorisation")]
    return rows.groupby(["seed", "example"])["flipped"].first().astype(bool)


def by_seed(values: "DataFrame | Series", statistic: Any = "mean") -> Any:
    return values.groupby("seed").agg(statistic)


def trajectories(scores: "DataFrame") -> "Series":
    """The class of each (seed, example)'s scores over widths; those without a score at some width are left out."""
    from pandas import Series

    found = Series(measures.trajectory_classes(scores.T.to_numpy()), index=scores.index)
    return found[found != "unknown"]


def growth(values: "DataFrame") -> "Series":
    """From the second-smallest to the largest width, by seed; `values` are of seeds and widths."""
    if values.shape[1] < 3:
        raise lab.NotEnough(f"the smallest width does not count, and there are {values.shape[1]}")
    return values[values.columns[-1]] - values[values.columns[1]]


def high_share(scores: "DataFrame") -> "DataFrame":
    """Share of the examples with a high score, by seed and width."""
    return by_seed((scores > HIGH).where(scores.notna()).astype(float))


def middle_share(scores: "DataFrame") -> "DataFrame":
    between = (scores > LOW) & (scores < HIGH)
    return by_seed(between.where(scores.notna()).astype(float))


def judge_ends(records: "DataFrame") -> list[lab.Check]:
    scores = table(records, "networks")
    middle = lab.mean(growth(middle_share(scores)))
    return [
        lab.above(f"growth of the share above {HIGH:g}", lab.mean(growth(high_share(scores))), 0),
        lab.above("growth of the standard deviation", lab.mean(growth(by_seed(scores, "std"))), 0),
        lab.holds(f"growth of the share from {LOW:g} to {HIGH:g}", middle, "reported", True),
    ]


def judge_wrong_subsets(records: "DataFrame") -> list[lab.Check]:
    scores = table(records, "networks", "memorisation, wrong subsets").iloc[:, -1].dropna()
    chance = table(records, "networks", "chance deviation").iloc[:, -1].reindex(scores.index)
    ratio = by_seed(scores, "std") / by_seed(chance**2).pow(0.5)
    share = by_seed((scores > HIGH).astype(float))
    return [
        lab.within("standard deviation over that of chance", lab.mean(ratio), 0.8, 1.25),
        lab.holds(f"share above {HIGH:g}", lab.mean(share), "0", bool(share.max() == 0)),
    ]


def judge_trajectories(records: "DataFrame") -> list[lab.Check]:
    classes, noise = trajectories(table(records, "networks")), flipped(records)
    noise = noise.reindex(classes.index)
    if not noise.any():
        raise lab.NotEnough("no label was flipped")
    rising = (classes == "increasing").astype(float)
    shares = {label: lab.mean(by_seed(rising[noise == label])) for label in (True, False)}
    difference = by_seed(rising[noise]) - by_seed(rising[~noise])
    return [
        lab.above("share of increasing scores, flipped less true labels", lab.mean(difference), 0.5),
        lab.above(
            "share of true labels whose score is flat, decreasing or a cap", lab.mean(1 - by_seed(rising[~noise])), 0.5
        ),
        lab.holds("share of increasing scores, flipped labels", shares[True], "reported", True),
        lab.holds("share of increasing scores, true labels", shares[False], "reported", True),
    ]


def judge_true_labels(records: "DataFrame") -> list[lab.Check]:
    clean, noisy = table(records, "true labels"), table(records, "networks")
    rising = [by_seed((trajectories(some[clean.columns]) == "increasing").astype(float)) for some in (clean, noisy)]
    return [lab.below("share of increasing scores, without flips less with them", lab.mean(rising[0] - rising[1]), 0)]


def slopes(values: "DataFrame") -> "Series":
    """Change of the mean over examples for a doubling of the width, by seed."""
    means = by_seed(values).dropna()
    if means.empty:
        raise lab.NotEnough("no example's score increases")
    doublings = np.log2(means.columns.to_numpy(dtype=float))
    return means.apply(lambda row: np.polyfit(doublings, row.to_numpy(), 1)[0], axis=1)


def of_class(values: "DataFrame | Series", classes: "Series", *wanted: str) -> Any:
    """Rows of the examples in one of these classes."""
    return values.loc[values.index.intersection(classes[classes.isin(wanted)].index)]


def correlation(records: "DataFrame", metric: str) -> lab.Interval:
    """Spearman's correlation of the score and a proxy over all examples at the largest width, mean over seeds."""
    both = [table(records, "networks", name).iloc[:, -1].rename(name) for name in ("memorisation", metric)]
    pairs = both[0].to_frame().join(both[1]).dropna()
    return lab.mean(
        [
            lab.rank_correlation(one["memorisation"].to_numpy(), one[metric].to_numpy())
            for _, one in pairs.groupby("seed")
        ]
    )


def judge_proxies(records: "DataFrame") -> list[lab.Check]:
    scores = table(records, "networks")
    classes = trajectories(scores)

    def slope(metric: str) -> lab.Interval:
        return lab.mean(slopes(of_class(table(records, "networks", metric), classes, "increasing")))

    checks = [lab.above("slope of the score", slope("memorisation"), 0)]
    checks += [lab.below(f"slope of {name}", slope(name), 0) for name in PROXIES]
    checks += [lab.above(f"correlation of the score and {name}", correlation(records, name), 0.4) for name in PROXIES]
    checks.append(lab.holds("slope of early EL2N", slope("early EL2N"), "reported", True))
    return checks


def judge_halves(records: "DataFrame") -> list[lab.Check]:
    one, other = (table(records, "networks", f"memorisation, {half} half") for half in ("one", "other"))
    slope = slopes(of_class(other, trajectories(one), "increasing").dropna())
    return [lab.above("slope of the score by the other half of the networks", lab.mean(slope), 0)]


def reductions(records: "DataFrame", arm: str, width: float) -> "Series":
    """By how much students of a width memorise each example less than networks that learned from labels."""
    students = table(records, arm)
    if width not in students:
        raise lab.NotEnough(f"there are no students of width {width:g}")
    return (table(records, "networks")[width] - students[width]).dropna()


def student_widths(records: "DataFrame") -> list[float]:
    """Largest first."""
    return sorted(map(float, table(records, "distilled").columns), reverse=True)


def judge_distillation(records: "DataFrame") -> list[lab.Check]:
    classes, checks = trajectories(table(records, "networks")), []
    for width in student_widths(records):
        less = reductions(records, "distilled", width)
        rising, shrinking = (by_seed(of_class(less, classes, *kinds)) for kinds in (("increasing",), SHRINKING))
        better = accuracy(records, "distilled", "test")[width] - accuracy(records, "networks", "test")[width]
        checks += [
            lab.above(f"width {width:g}: reduction of the score", lab.mean(by_seed(less)), 0),
            lab.above(
                f"width {width:g}: reduction on increasing less that on flat or decreasing examples",
                lab.mean((rising - shrinking).dropna()),
                0,
            ),
            lab.holds(f"width {width:g}: change of the test accuracy", lab.mean(better), "reported", True),
        ]
    return checks


def judge_hard_labels(records: "DataFrame") -> list[lab.Check]:
    classes, checks = trajectories(table(records, "networks")), []
    for width in student_widths(records):
        hard, soft = (
            by_seed(of_class(reductions(records, arm, width), classes, "increasing")) for arm in ("argmax", "distilled")
        )
        share = lab.bootstrap(lambda a, b, axis: a.mean(axis) / b.mean(axis), hard, soft, paired=True)
        checks.append(lab.below(f"width {width:g}: reduction over that of soft labels", share, 0.2))
    return checks


def accuracy(records: "DataFrame", arm: str, images: str) -> "DataFrame":
    """Mean over networks on "train" or "test" images, by seed and width."""
    rows = records[(records["cell"] == arm) & (records["metric"] == f"{images} accuracy")]
    return rows.pivot(index="seed", columns="width", values="value")


def references(records: "DataFrame", metric: str) -> "Series":
    rows = records[(records["cell"] == "reference") & (records["metric"] == metric)]
    if rows.empty:
        raise lab.NotEnough("there is no reference")
    return rows.set_index(["seed", "example"])["value"]


def agreement(records: "DataFrame", metric: str) -> lab.Interval:
    """Pearson's correlation with the exact scores, mean over seeds."""
    exact, other = references(records, "exact"), references(records, metric)
    return lab.mean([np.corrcoef(exact[seed], other[seed])[0, 1] for seed in exact.index.unique("seed")])


def judge_reference(records: "DataFrame") -> list[lab.Check]:
    error = lab.exact((references(records, "exact") - references(records, "closed form")).abs().max())
    return [
        lab.above("correlation of exact and subsampled scores", agreement(records, "subsampled"), 0.8),
        lab.holds("exact scores less their closed form", error, f"<= {EXACT:g}", error.estimate <= EXACT),
    ]


def judge_reference_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.within("correlation with wrong subsets", agreement(records, "wrong subsets"), -0.4, 0.4)]
