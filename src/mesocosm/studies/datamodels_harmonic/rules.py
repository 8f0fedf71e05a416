"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

VARIANTS = ("clean", "flipped", "copies")
JUDGED = ("clean", "flipped")
OUTPUTS = ("margin", "probability", "correctness")


def largest(records: "DataFrame", name: str, cells: str | tuple[str, ...], **settings: object) -> lab.Interval:
    return lab.exact(lab.rows(records, name, cells, **settings)["value"].abs().max())


def small(name: str, found: lab.Interval, bound: float) -> lab.Check:
    """An identity: the largest error is below the bound."""
    return lab.holds(name, found, f"< {bound:g}", found.estimate < bound)


def judge_identities(records: "DataFrame") -> list[lab.Check]:
    return [
        small("largest error of theta", largest(records, "datamodel error", VARIANTS), 1e-8),
        small("largest error of the residual", largest(records, "residual error", VARIANTS), 1e-8),
        small("largest error of the sum of B_d", largest(records, "Parseval error", VARIANTS), 1e-10),
    ]


def judge_identities_control(records: "DataFrame") -> list[lab.Check]:
    least = lab.rows(records, "datamodel error of large subsets", VARIANTS)["value"].min()
    return [lab.holds("least error of theta, large subsets only", lab.exact(least), "> 0.001", least > 1e-3)]


def numbers_of_pairs(records: "DataFrame") -> tuple[int, int]:
    """The smaller and the larger number of pairs at each rho."""
    pairs = lab.rows(records, "R2 estimate", ("clean", "flipped", "many"))["pairs"]
    return int(pairs.min()), int(pairs.max())


def points(records: "DataFrame", cell: str, **settings: object) -> "DataFrame":
    """True R^2 and estimates by output, seed and test point; columns `true`, and the numbers of pairs."""
    keys = ["output", "seed", "point"]
    estimates = lab.rows(records, "R2 estimate", cell, **settings)
    table = estimates.pivot(index=keys, columns="pairs", values="value")
    return table.assign(true=lab.rows(records, "R2", cell, **settings).set_index(keys)["value"]).dropna()


def mean_error(table: "DataFrame", pairs: int) -> "Series":
    """|estimated - true R^2| by seed: mean over test points, then over kinds of output."""
    errors = (table[pairs] - table["true"]).abs()
    return errors.groupby(["seed", "output"]).mean().groupby("seed").mean()


def point_correlation(table: "DataFrame", pairs: int) -> lab.Interval:
    """Spearman's correlation of estimated and true R^2 over test points, mean over kinds of output, by seed."""
    each = table.groupby(["seed", "output"]).apply(lambda t: float(lab.rank_correlation(t[pairs], t["true"])))
    return lab.mean(each.groupby("seed").mean())


def judge_estimates(records: "DataFrame") -> list[lab.Check]:
    few, many = numbers_of_pairs(records)
    checks = []
    for cell in JUDGED:
        table = points(records, cell)
        errors = {pairs: mean_error(table, pairs) for pairs in (few, many)}
        checks += [
            lab.below(f"{cell}: mean error of R^2 with {many:,} pairs a rho", lab.mean(errors[many]), 0.12),
            lab.above(f"{cell}: its fall from {few:,} pairs", lab.mean(errors[few] - errors[many]), 0),
        ]
        correlation = point_correlation(table, many)
        checks.append(lab.holds(f"{cell}: Spearman over test points", correlation, "reported", True))
    for p in sorted(lab.rows(records, "R2", "many")["p"].unique(), reverse=True):
        found = lab.mean(mean_error(points(records, "many", p=p), many))
        checks.append(lab.holds(f"many images, p = {p:g}: mean error of R^2", found, "reported", True))
    return checks


def judge_estimates_control(records: "DataFrame") -> list[lab.Check]:
    parity, linear = (
        lab.mean(lab.rows(records, "R2 estimate", "control", output=name).groupby("seed")["value"].mean())
        for name in ("parity", "linear")
    )
    return [
        lab.below("mean estimate for parities of six points", parity, 0.1),
        lab.above("mean estimate for linear functions", linear, 0.95),
    ]


def linearity_gap(records: "DataFrame", cell: str, smoother: str, rougher: str) -> lab.Interval:
    """R^2 of one kind of output less that of another, mean over the test points where both vary, by seed."""
    rows = lab.rows(records, "R2", cell).pivot(index=["seed", "point"], columns="output", values="value")
    if not {smoother, rougher} <= set(rows):
        raise lab.NotEnough(f"{smoother} or {rougher} never varies")
    return lab.mean((rows[smoother] - rows[rougher]).dropna().groupby("seed").mean())


def judge_smoothness(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above(f"{cell}: R^2 of the {a} less {b}", linearity_gap(records, cell, a, b), 0.1)
        for cell in JUDGED
        for a, b in (("margin", "probability"), ("probability", "correctness"))
    ]


def judge_smoothness_control(records: "DataFrame") -> list[lab.Check]:
    least = lab.rows(records, "R2", JUDGED, output="votes")["value"].min()
    return [small("1 - least R^2 of votes", lab.exact(1 - least), 1e-9)]


def group_deviation(records: "DataFrame", kind: str) -> "Series":
    """Mean over groups of a kind, by seed, of the margin."""
    return lab.rows(records, "group deviation", "copies", kind=kind, output="margin").groupby("seed")["value"].mean()


def judge_groups(records: "DataFrame") -> list[lab.Check]:
    copies, random, label = (group_deviation(records, kind) for kind in ("copies", "random", "one label"))
    rare = largest(records, "pair deviation, rare", "copies", output="margin")
    return [
        lab.above("deviation of near-copies less that of other groups", lab.mean(copies - random), 0),
        lab.above("the same, groups of one label", lab.mean(copies - label), 0),
        small("largest deviation of a pair", largest(records, "pair deviation", "copies", output="margin"), 1e-8),
        small("formula against counting", largest(records, "formula error", "copies", output="margin"), 1e-8),
        lab.holds("largest deviation of a pair at p = 0.2", rare, "reported", True),
    ]


def judge_groups_control(records: "DataFrame") -> list[lab.Check]:
    names = {"group deviation": "a group", "pair deviation": "a pair", "pair deviation, rare": "a pair at p = 0.2"}
    return [
        small(f"largest deviation of {words}, votes", largest(records, name, "copies", output="votes"), 1e-8)
        for name, words in names.items()
    ]


def judge_influence(records: "DataFrame") -> list[lab.Check]:
    checks = [small("largest error over 1 - h", largest(records, "error over 1 - leverage", "influence"), 1e-8)]
    rows = records[records["metric"] == "correlation with averages"]
    for p, values in rows.groupby("p")["value"]:
        told = f"correlation with influences averaged over subsets, p = {p:g}"
        checks.append(lab.holds(told, lab.mean(values), "reported", True))
    return checks


def judge_influence_control(records: "DataFrame") -> list[lab.Check]:
    error, scale = (
        lab.rows(records, name, "influence").set_index("seed")["value"]
        for name in ("error to first order", "largest change")
    )
    least = (error / scale).min()
    return [lab.holds("least relative error to first order", lab.exact(least), "> 0.001", least > 1e-3)]
