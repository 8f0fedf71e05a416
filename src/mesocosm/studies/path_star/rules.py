"""The rules of the claims, from records alone. Each is applied to every graph G(d, l) of the run."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LEARNED = 0.9
"""Share of right answers from which on a node counts as learned."""

Rule = Callable[["DataFrame", int], list[lab.Check]]


def stars(records: "DataFrame") -> list[tuple[int, int]]:
    """Degree and path length of each graph, without the short ones of the control."""
    pairs = records.loc[records["arm"] != "short", ["degree", "path_length"]].drop_duplicates()
    return [(int(degree), int(length)) for degree, length in sorted(pairs.to_numpy().tolist())]


def on_every_star(rule: Rule) -> Callable[["DataFrame"], list[lab.Check]]:
    """A rule of one graph's records and its degree, applied to each graph."""

    def judge(records: "DataFrame") -> list[lab.Check]:
        checks = []
        for degree, length in (found := stars(records)):
            own = (records["degree"] == degree) & records["path_length"].isin([length, 3])
            named = f"G({degree},{length}): " if len(found) > 1 else ""
            checks += [replace(check, name=named + check.name) for check in rule(records[own], degree)]
        return checks

    return judge


def tested(records: "DataFrame", arm: str, metric: str) -> "Series":
    """One number by seed, on the held-out graphs."""
    chosen = (records["arm"] == arm) & (records["metric"] == metric) & (records["sample"] == "test")
    return records[chosen].set_index("seed")["value"].sort_index()


def later_nodes(records: "DataFrame", arm: str) -> "Series":
    """Share of right answers after the true ones, at the worst node but the first, by seed."""
    chosen = (records["arm"] == arm) & records["metric"].isin(nodes(records)[1:]) & (records["sample"] == "test")
    return records[chosen].groupby("seed")["value"].min()


def nodes(records: "DataFrame") -> list[str]:
    """The metrics of each node's right answers, from the first node after the start to the goal."""
    return [f"right at node {node}" for node in range(1, int(records["path_length"].max()))]


def curve(records: "DataFrame", arm: str, metric: str) -> "DataFrame":
    """A measurement along training, by step and seed."""
    chosen = (records["arm"] == arm) & (records["metric"] == metric) & (records["sample"] != "test")
    return records[chosen].pivot(index="step", columns="seed", values="value")


def backwards(records: "DataFrame", arm: str) -> "Series":
    """Whether every node is learned, and strictly earlier the nearer it is to the goal, by seed."""
    chosen = (records["arm"] == arm) & (records["sample"] != "test")
    right = records[chosen & (records["value"] > LEARNED)]
    steps = right.groupby(["seed", "metric"])["step"].min().unstack()
    steps = steps.reindex(index=records[chosen]["seed"].unique(), columns=nodes(records)).astype(float)
    return (steps.diff(axis=1).iloc[:, 1:] < 0).all(axis=1)  # NaN where a node is never learned


def with_cheat(records: "DataFrame", arm: str) -> "Series":
    """Share of right paths of the seeds that have learned to follow edges; before that no plan can show or fail."""
    return tested(records, arm, "right paths")[later_nodes(records, arm) > 0.99]


def judge_chance(records: "DataFrame", degree: int) -> list[lab.Check]:
    checks = []
    for arm, name in (("standard", "transformer"), ("ssm", "state space model")):
        right, every = with_cheat(records, arm), len(tested(records, arm, "right paths"))
        name += f" ({len(right)} of {every} seeds follow edges)"
        excess = lab.mean(right - 1 / degree)
        checks += [
            lab.below(f"{name}: right paths above 1/d", excess, 0.1),
            lab.holds(f"{name}: distance from 1/d", excess, "< 0.05", abs(excess.estimate) < 0.05),
        ]
    length = int(records["path_length"].max())
    floor = np.log(degree) / (length - 1)
    loss = lab.mean(tested(records, "standard", "loss") - floor)
    checks.append(lab.holds("loss above that of the cheat, ln d / (l - 1)", loss, "reported", True))
    alone = tested(records, "first node", "right at node 1")
    if len(alone):
        checks.append(lab.holds("first node, trained alone, above 1/d", lab.mean(alone - 1 / degree), "reported", True))
    return checks


def judge_chance_control(records: "DataFrame", degree: int) -> list[lab.Check]:
    return [lab.above("right paths of l = 3", lab.mean(tested(records, "short", "right paths")), 0.95)]


def judge_cheat(records: "DataFrame", degree: int) -> list[lab.Check]:
    first = lab.mean(tested(records, "standard", "right at node 1") - 1 / degree)
    followed = lab.mean(tested(records, "standard", "wrong arm followed"))
    neighbour = lab.mean(tested(records, "standard", "first steps to a neighbour"))
    return [
        lab.above("wrong arm followed", followed, 0.95),
        lab.holds("right at the first node, distance from 1/d", first, "< 0.05", abs(first.estimate) < 0.05),
        lab.above("right at the worst later node", lab.mean(later_nodes(records, "standard")), 0.99),
        lab.above("first steps to a neighbour of the start", neighbour, 0.99),
    ]


def judge_cheat_control(records: "DataFrame", degree: int) -> list[lab.Check]:
    return [
        lab.below("wrong arm followed, reversed", lab.mean(tested(records, "reversed", "wrong arm followed")), 0.05)
    ]


def judge_reversed(records: "DataFrame", degree: int) -> list[lab.Check]:
    return [lab.above("right paths, reversed", lab.mean(tested(records, "reversed", "right paths")), 0.95)]


def judge_reversed_control(records: "DataFrame", degree: int) -> list[lab.Check]:
    excess = tested(records, "standard", "right paths") - 1 / degree
    return [lab.below("right paths forwards, above 1/d", lab.mean(excess), 0.1)]


def judge_teacherless(records: "DataFrame", degree: int) -> list[lab.Check]:
    with_teacher, without = (tested(records, arm, "right paths") for arm in ("standard", "teacherless"))
    return [
        lab.above("right paths without minus with a teacher", lab.mean(without - with_teacher), 0.25),
        lab.holds("right paths without a teacher", lab.mean(without), "reported", True),
    ]


def judge_teacherless_control(records: "DataFrame", degree: int) -> list[lab.Check]:
    excess = tested(records, "shallow", "right paths") - 1 / degree
    return [lab.below("right paths of too shallow networks, above 1/d", lab.mean(excess), 0.1)]


def judge_order(records: "DataFrame", degree: int) -> list[lab.Check]:
    solving = tested(records, "teacherless", "right paths") > 0.95
    if solving.sum() < 2:
        raise lab.NotEnough(f"{solving.sum()} of {len(solving)} seeds solve it without a teacher, and 2 are needed")
    ordered = backwards(records, "teacherless")[solving]
    share = lab.share(int(ordered.sum()), len(ordered))
    return [lab.holds("seeds that learn from the goal backwards", share, ">= 0.8", share.estimate >= 0.8)]


def judge_order_control(records: "DataFrame", degree: int) -> list[lab.Check]:
    ordered = backwards(records, "standard")
    share = lab.share(int(ordered.sum()), len(ordered))
    return [lab.holds("seeds that do so with a teacher", share, "= 0", not ordered.any())]
