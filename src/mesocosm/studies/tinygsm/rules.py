"""The rules that judge the claims, from records alone."""

from typing import TYPE_CHECKING

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TAUGHT_RIGHT = ("chain", "comparison")
"""Families on which the teacher is mostly right, so that who imitates it better is right more often."""
REPORTED = "reported, not judged"


def values(records: "DataFrame", cell: str, name: str, n: float | None = None) -> "Series":
    """A metric by seed; with `n`, that of the first n candidates.

    Raises:
        NotEnough: when there is none.
    """
    rows = records[(records["cell"] == cell) & (records["metric"] == name)]
    if n is not None:
        rows = rows[rows["n"] == n]
    if rows.empty:
        raise lab.NotEnough(f"there is no {name} of the {cell}")
    return rows.set_index("seed")["value"].sort_index()


def most(records: "DataFrame") -> float:
    """The largest number of candidates that something is chosen from."""
    if "n" not in records or records["n"].isna().all():
        raise lab.NotEnough("nothing was chosen from any candidates")
    return records["n"].max()


def gain(first: "Series", second: "Series") -> lab.Interval:
    """Mean over the seeds that both have of first - second."""
    return lab.mean((first - second).dropna())


def judge_verifier(records: "DataFrame") -> list[lab.Check]:
    verify = values(records, "verifier", "verify", most(records))
    return [
        lab.above(f"verifier - {other}", gain(verify, values(records, "generator", other)), 0)
        for other in ("greedy", "teacher")
    ]


def judge_blind(records: "DataFrame", variant: str) -> list[lab.Check]:
    """That a verifier which could learn nothing chooses no better and no worse than blindly."""
    cell = f"verifier, {variant}"
    verify = values(records, cell, "verify", most(records))
    return [
        lab.contains("verifier - blind choice", gain(verify, values(records, cell, "blind choice")), 0),
        lab.holds("verifier - mean sample", gain(verify, values(records, cell, "mean sample")), REPORTED, True),
    ]


def judge_shuffled(records: "DataFrame") -> list[lab.Check]:
    return judge_blind(records, "shuffled")


def judge_all_right(records: "DataFrame") -> list[lab.Check]:
    return judge_blind(records, "all right")


def judge_majority(records: "DataFrame") -> list[lab.Check]:
    n = most(records)
    verify, majority, oracle = (values(records, "verifier", name, n) for name in ("verify", "majority", "pass"))
    least = (oracle - verify).min()
    return [
        lab.above("verifier - majority", gain(verify, majority), 0),
        lab.holds("least of oracle - verifier", lab.exact(least), ">= 0", least > -1e-9),
    ]


def judge_independent(records: "DataFrame") -> list[lab.Check]:
    n, cell = most(records), "verifier, independent errors"
    majority, verify = (values(records, cell, name, n) for name in ("majority", "verify"))
    return [lab.above("majority - verifier, independent errors", gain(majority, verify), -0.01)]


def by_examples(records: "DataFrame", families: str = "all") -> "DataFrame":
    """Accuracy of generators on unlimited problems, mean of the families taught right, or of all where there are no
    families: a row for each seed, a column for each number of unique examples.
    """
    rows = records[records["cell"] == "data"]
    by_family = rows["metric"].isin([f"greedy, {f}" for f in TAUGHT_RIGHT])
    rows = rows[by_family if by_family.any() else rows["metric"] == "greedy"]
    rows = rows[rows["families"] == families] if len(rows) else rows
    if rows.empty:
        raise lab.NotEnough("there are no generators on limited examples")
    return rows.groupby(["seed", "examples"])["value"].mean().unstack()


def judge_data(records: "DataFrame") -> list[lab.Check]:
    table = by_examples(records)
    if len(table.columns) < 3:
        raise lab.NotEnough("the gain of more examples needs three numbers of them")
    first, last = table.iloc[:, 1] - table.iloc[:, 0], table.iloc[:, -1] - table.iloc[:, -2]
    trend = float(lab.rank_correlation(table.columns.to_numpy(dtype=float), table.mean().to_numpy()))
    return [
        lab.below("last gain - half of the first", lab.mean((last - first / 2).dropna()), 0),
        lab.holds("rank correlation of examples and mean accuracy", lab.exact(trend), "> 0.9", trend > 0.9),
    ]


def judge_one_family(records: "DataFrame") -> list[lab.Check]:
    table = by_examples(records, "one")
    return [lab.below("accuracy on the families not seen", lab.mean(table.iloc[:, -1].dropna()), 0.5)]


def judge_training(records: "DataFrame") -> list[lab.Check]:
    n = most(records)
    whole = values(records, "verifier", "verify", n)

    def lead(variant: str) -> lab.Interval:
        return gain(whole, values(records, f"verifier, {variant}", "verify", n))

    there = set(records["cell"])
    reported = [variant for variant in ("one checkpoint", "last token") if f"verifier, {variant}" in there]
    return [
        *(lab.above(f"verifier - {variant}", lead(variant), 0) for variant in ("head only", "from scratch")),
        *(lab.holds(f"verifier - {variant}", lead(variant), REPORTED, True) for variant in reported),
    ]


def judge_sizes(records: "DataFrame") -> list[lab.Check]:
    n = most(records)
    better, other = (
        values(records, f"verifier, {sizes}", "verify", n) for sizes in ("large of small", "small of large")
    )
    return [lab.holds("large verifier - large generator", gain(better, other), REPORTED, None)]
