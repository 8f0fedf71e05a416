"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# Masked prediction tasks, each the sets of seen and of predicted places whose predictors are known together.
TASKS = {
    "x2|x1": (((0,), (1,)),),
    "pairs": (((0,), (1,)), ((1,), (0,)), ((0,), (2,)), ((2,), (0,))),
    "x2x3|x1": (((0,), (1, 2)),),
    "x1x3|x2": (((1,), (0, 2)),),
    "x3|x1x2": (((0, 1), (2,)),),
    "x2|x1x3": (((0, 2), (1,)),),
}
TRIPLES = tuple(TASKS)[2:]
ALL_PAIRS = tuple(pair for gap in range(1, 6) for pair in (((0,), (gap,)), ((gap,), (0,))))
SIZES = ((2, 2), (2, 3), (3, 3), (3, 5), (4, 6))
"""Hidden states and symbols of the models whose Jacobians are looked at."""

CONVERGED = 1e-18
"""Mean squared difference to the exact predictor below which a fit counts."""
FOUND = 1e-6
"""Distance below which a fit of a Gaussian model sits at given parameters."""
LEAST = 3
"""Converged fits that a verdict on them needs."""


def values(records: "DataFrame", cell: str, metric: str) -> "Series":
    return records[(records["cell"] == cell) & (records["metric"] == metric)].set_index("seed")["value"]


def judge_twins(records: "DataFrame") -> list[lab.Check]:
    pairs = values(records, "twin", "pair difference").max()
    triples = np.max([values(records, "twin", f"difference {name}") for name in TRIPLES], axis=0)
    return [
        lab.above("distance of parameters", lab.median(values(records, "twin", "distance")), 0.05),
        lab.holds("largest difference of pair predictors", lab.exact(pairs), "<= 1e-12", pairs <= 1e-12),
        lab.above("difference of triple predictors", lab.median(triples), 1e-4),
    ]


def judge_twins_control(records: "DataFrame") -> list[lab.Check]:
    other = values(records, "twin", "pair difference, other rotation").min()
    same = values(records, "twin", "distance, relabelled").max()
    triples = values(records, "twin", "triple difference, relabelled").max()
    return [
        lab.holds("least pair difference, any rotation", lab.exact(other), "> 1e-6", other > 1e-6),
        lab.holds("largest distance, relabelled", lab.exact(same), "<= 1e-12", same <= 1e-12),
        lab.holds("largest triple difference, relabelled", lab.exact(triples), "<= 1e-12", triples <= 1e-12),
    ]


def expected_deficiency(task: str, states: int) -> int:
    if task == "x2|x1":
        return (states - 1) ** 2
    return (states - 1) * (states - 2) // 2 if task == "pairs" else 0


def deficiencies(records: "DataFrame", transition: str) -> "DataFrame":
    chosen = (records["cell"] == "jacobian") & (records["metric"] == "deficiency")
    return records[chosen & (records["transition"] == transition)]


def judge_deficiency(records: "DataFrame") -> list[lab.Check]:
    drawn = deficiencies(records, "as drawn")
    expected = [expected_deficiency(task, int(k)) for task, k in zip(drawn["task"], drawn["states"])]
    right = drawn["value"].to_numpy() == expected
    checks = []
    for name, tasks in (("x2|x1", ["x2|x1"]), ("two gaps, both directions", ["pairs"]), ("triples", list(TRIPLES))):
        mine = right[drawn["task"].isin(tasks).to_numpy()]
        checks.append(lab.holds(f"as predicted: {name}", lab.share(mine.sum(), len(mine)), "all", mine.all()))
    return [
        lab.holds("Jacobians of the predicted rank", lab.share(right.sum(), len(right)), "all", right.all()),
        *checks,
    ]


def judge_deficiency_control(records: "DataFrame") -> list[lab.Check]:
    singular = deficiencies(records, "two equal columns")
    least = singular[singular["task"].isin(TRIPLES)]["value"].min()
    return [lab.holds("least deficiency of triples, singular T", lab.exact(least), ">= 1", least >= 1)]


def judge_ghost(records: "DataFrame") -> list[lab.Check]:
    largest = {
        metric: values(records, "ghost", metric).max()
        for metric in ("predictor difference", "posterior difference", "column sum + 1")
    }
    checks = [
        lab.holds(f"largest {metric}", lab.exact(value), f"<= {bound:g}", value <= bound)
        for (metric, value), bound in zip(largest.items(), (1e-12, 1e-12, 1e-9))
    ]
    return [*checks, lab.above("distance of parameters", lab.median(values(records, "ghost", "distance")), 0.05)]


def judge_ghost_control(records: "DataFrame") -> list[lab.Check]:
    least = values(records, "ghost", "posterior difference, other reflection").min()
    return [lab.holds("least posterior difference, random reflection", lab.exact(least), "> 1e-3", least > 1e-3)]


def fits(records: "DataFrame", cell: str, task: str) -> "DataFrame":
    """Loss, error and (of Gaussian models) distance to the ghost, by model and start."""
    rows = records[(records["cell"] == cell) & (records["task"] == task)]
    return rows.pivot(index=["seed", "start"], columns="metric", values="value")


def converged(records: "DataFrame", cell: str, task: str) -> "DataFrame":
    table = fits(records, cell, task)
    chosen = table[table["loss"] < CONVERGED]
    if len(chosen) < LEAST:
        raise lab.NotEnough(f"{len(chosen)} of {len(table)} fits to {task} ({cell}) converged, and {LEAST} are needed")
    return chosen


def judge_recovery(records: "DataFrame") -> list[lab.Check]:
    gaussian, everyone = converged(records, "fit gaussian", "x2|x1"), fits(records, "fit gaussian", "x2|x1")
    share, worst = lab.share(len(gaussian), len(everyone)), gaussian["error"].max()
    checks = [
        lab.holds("Gaussian: largest error of converged fits", lab.exact(worst), f"< {FOUND:g}", worst < FOUND),
        lab.holds("Gaussian: converged fits", share, ">= 0.5", share.estimate >= 0.5),
    ]
    pairs = converged(records, "fit discrete", "pairs")["error"].groupby("seed").median()
    checks.append(lab.above("discrete, pairs: median error of converged fits, by model", lab.median(pairs), 0.1))
    for task in TRIPLES:
        worst = converged(records, "fit discrete", task)["error"].max()
        checks.append(
            lab.holds(f"discrete, {task}: largest error of converged fits", lab.exact(worst), "< 1e-4", worst < 1e-4)
        )
    return checks


def judge_recovery_control(records: "DataFrame") -> list[lab.Check]:
    free = converged(records, "fit gaussian, free T", "x2|x1")
    checks = []
    for name, column in (("the ghost", "ghost error"), ("the truth", "error")):
        there = (free[column] < FOUND).sum()
        checks.append(lab.holds(f"free T: fits at {name}", lab.share(there, len(free)), "at least one", there > 0))
    return checks


def slopes(records: "DataFrame", emission: str) -> np.ndarray:
    """Exponent of the error, geometric mean over repeats, in the number of samples, by model."""
    from mesocosm.measures import power_law

    chosen = (records["cell"] == "samples") & (records["metric"] == "error") & (records["emission"] == emission)
    rows = records[chosen].assign(value=records.loc[chosen, "value"].map(np.log))
    logs = rows.pivot_table(index="seed", columns="samples", values="value", aggfunc="mean")
    if logs.shape[1] < 2:
        raise lab.NotEnough("one number of samples gives no slope: give two")
    return power_law(logs.columns.to_numpy(), np.exp(logs.to_numpy())).exponent


def judge_samples(records: "DataFrame") -> list[lab.Check]:
    return [lab.within("exponent of the error", lab.mean(slopes(records, "as drawn")), -0.62, -0.38)]


def judge_samples_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.above("exponent, two equal columns of O", lab.mean(slopes(records, "two equal columns")), -0.15)]
