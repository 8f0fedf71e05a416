"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

LEARNED = 0.95
"""Accuracy at which a student of a parity has learned it."""
NAMES = {
    "labels": "labels",
    "one-shot": "final teacher",
    "progressive": "progressive",
    "two-shot": "two-shot, transition",
    "two-shot early": "two-shot, before",
    "two-shot late": "two-shot, after",
}


def chosen(records: "DataFrame", part: str, arm: str, metric: str) -> "DataFrame":
    mine = (records["part"] == part) & (records["arm"] == arm) & (records["metric"] == metric)
    if not mine.any():
        raise lab.NotEnough(f"nothing is recorded of {part}, {arm}: {metric}")
    return records[mine]


def accuracy(records: "DataFrame", part: str, arm: str) -> "DataFrame":
    """Accuracy by step and seed; of a student that had nothing more to learn its last one."""
    return chosen(records, part, arm, "accuracy").pivot(index="step", columns="seed", values="value").ffill()


def times(records: "DataFrame", part: str, arm: str) -> "Series":
    """First measured step at which each seed has learned, infinite where it never has."""
    learned = accuracy(records, part, arm) >= LEARNED
    return learned.idxmax().where(learned.any(), np.inf).astype(float)


def faster(records: "DataFrame", part: str, arm: str, other: str) -> list[lab.Check]:
    """More students of one way than of the other learn within the budget, and they learn earlier."""
    import torch

    from mesocosm import measures

    first, second = times(records, part, arm), times(records, part, other)
    budget = float(accuracy(records, part, other).index.max())
    if len(first) < 2:
        raise lab.NotEnough(f"{len(first)} student is too few: 2 are needed")
    _, p = measures.log_rank(*(torch.tensor(t.to_numpy()) for t in (first, second)), budget)
    earlier = first.median() < second.median()
    return [
        lab.above(f"share that learns, {NAMES[arm]} minus {NAMES[other]}", gain(first, second), 0.3),
        lab.holds("log-rank p of the times", lab.exact(p), "< 0.01, earlier", p < 0.01 and earlier),
        *(
            lab.holds(f"learn with {NAMES[way]}", lab.share(int(np.isfinite(t).sum()), len(t)), "reported", True)
            for way, t in ((arm, first), (other, second))
        ),
    ]


def gain(first: "Series", second: "Series") -> lab.Interval:
    """Difference of the shares of students that learn, paired by seed."""
    return lab.mean(np.isfinite(first).astype(float) - np.isfinite(second).astype(float))


def no_gain(name: str, difference: lab.Interval) -> lab.Check:
    return lab.holds(name, difference, "lower end <= 0", None if np.isnan(difference.low) else difference.low <= 0)


def judge_progressive(records: "DataFrame", part: str = "parity") -> list[lab.Check]:
    alone, labels = times(records, part, "one-shot"), times(records, part, "labels")
    return [
        *faster(records, part, "progressive", "labels"),
        lab.contains("share that learns, final teacher minus labels", gain(alone, labels), 0),
    ]


def judge_wide(records: "DataFrame", part: str = "parity") -> list[lab.Check]:
    wide, labels = times(records, part, "wide progressive"), times(records, part, "teacher")
    return [lab.below("share that learns, as wide as the teacher, progressive minus labels", gain(wide, labels), 0.1)]


def judge_two_shot(records: "DataFrame") -> list[lab.Check]:
    return faster(records, "parity", "two-shot", "labels")


def judge_two_shot_control(records: "DataFrame") -> list[lab.Check]:
    labels, teacher = times(records, "parity", "labels"), accuracy(records, "parity", "teacher")
    begun = chosen(records, "parity", "teacher", "begun").set_index("seed")["value"]
    before = [teacher[seed][teacher.index <= step / 2].iloc[-1] for seed, step in begun.items()]
    early, late = (times(records, "parity", arm) for arm in ("two-shot early", "two-shot late"))
    return [
        no_gain("share that learns, checkpoint before the transition minus labels", gain(early, labels)),
        no_gain("share that learns, checkpoint after it minus labels", gain(late, labels)),
        lab.holds("accuracy of the checkpoint before", lab.mean(before), "< 0.51", np.mean(before) < 0.51),
    ]


def strength(records: "DataFrame", part: str, name: str) -> "Series":
    """Mean |correlation| of teachers by seed, level, degree and step."""
    rows = chosen(records, part, "teacher", name)
    return rows.set_index(["seed", "level", "degree", "step"])["value"].sort_index()


def ratio(records: "DataFrame", part: str, above: str = "on", below: str = "off") -> "Series":
    return strength(records, part, above) / strength(records, part, below)


def best_degree(ratios: "Series") -> float:
    """The degree whose correlations stand out most, in the mean over teachers of their peaks."""
    peaks: Any = ratios.groupby(["seed", "level", "degree"]).max().groupby("degree").mean().idxmax()
    return float(peaks)


def of_degree(ratios: "Series", degree: float) -> "Series":
    return ratios.xs(degree, level="degree")


def judge_spike(records: "DataFrame") -> list[lab.Check]:
    ratios = ratio(records, "parity")
    degree = best_degree(ratios)
    own = of_degree(ratios, degree)
    teacher = accuracy(records, "parity", "teacher")
    peaks = own.groupby("seed").idxmax()
    there = [teacher.loc[step, seed] for seed, _, step in peaks]
    inside = sum(0.55 < value < 0.95 for value in there)
    share = lab.share(inside, len(there))
    ends = own.groupby("seed").last()
    return [
        lab.above(f"peak of c_{degree:.0f} in the support over c outside", lab.mean(own.groupby("seed").max()), 5),
        lab.holds("teachers whose accuracy there is in (0.55, 0.95)", share, ">= 0.8", share.estimate >= 0.8),
        lab.below("the ratio at the end of training", lab.mean(ends), 2),
        lab.holds("accuracy at the peak", lab.mean(there), "reported", True),
    ]


def judge_spike_control(records: "DataFrame") -> list[lab.Check]:
    outside = ratio(records, "parity", "off again").groupby("seed").max()
    start = ratio(records, "parity").xs(0, level="step").groupby("seed").max()
    return [
        lab.below("peak over training and degrees between two samples outside the support", lab.mean(outside), 5),
        lab.below("largest ratio of an untrained teacher", lab.mean(start), 5),
    ]


def judge_hierarchy(records: "DataFrame") -> list[lab.Check]:
    return [*judge_progressive(records, "hierarchy"), *judge_order(records)]


def judge_order(records: "DataFrame") -> list[lab.Check]:
    """Levels whose turns are learned earlier show their bits earlier."""
    ratios = ratio(records, "hierarchy")
    peaks = of_degree(ratios, best_degree(ratios)).groupby(["seed", "level"]).idxmax().map(lambda key: key[-1])
    turns = chosen(records, "hierarchy", "teacher", "right turns")
    half = turns[turns["value"] >= 0.75].groupby(["seed", "level"])["step"].min()
    pairs = [
        (np.sign(half[seed, level] - half[seed, level - 1]), np.sign(peaks[seed, level] - peaks[seed, level - 1]))
        for seed, level in half.index
        if (seed, level - 1) in half.index
    ]
    apart = [(learned, shown) for learned, shown in pairs if learned]
    if not apart:
        raise lab.NotEnough("no teacher learned two levels of the tree one after the other")
    share = lab.share(sum(learned == shown for learned, shown in apart), len(apart))
    return [
        lab.holds("pairs of levels whose spikes come in the order of learning", share, ">= 0.8", share.estimate >= 0.8)
    ]


def by_sentence(records: "DataFrame", part: str, arm: str, metric: str, n: int = 3) -> "DataFrame":
    """A distance between predictions, by step and sentence."""
    rows = chosen(records, part, arm, metric)
    return rows[rows["n"] == n].pivot_table(index="step", columns="sentence", values="value")


def half_budget(records: "DataFrame", part: str) -> lab.Check:
    ways = [accuracy(records, part, arm) for arm in ("progressive", "one-shot")]
    middle = ways[0].index[ways[0].index <= ways[0].index.max() / 2][-1]
    difference = ways[0].loc[middle] - ways[1].loc[middle]
    return lab.above("accuracy at half the budget, progressive minus final teacher", lab.mean(difference), 0)


def in_transition(records: "DataFrame", part: str) -> tuple[float, float]:
    """First and last step of the teacher's transition, if it has learned anything."""
    chance = chosen(records, part, "teacher", "chance")["value"].iloc[0]
    gained = accuracy(records, part, "teacher").max().max() - chance
    if gained < 0.1:
        raise lab.NotEnough(f"the teacher of {part} gained {gained:.2f} over chance, and 0.1 are needed")
    begun, done = (chosen(records, part, "teacher", name)["value"].iloc[0] for name in ("begun", "done"))
    return float(begun), float(done)


def judge_grammar(records: "DataFrame") -> list[lab.Check]:
    close = by_sentence(records, "grammar", "teacher", "closeness")
    begun, done = in_transition(records, "grammar")
    inside = close[(close.index >= begun) & (close.index <= done)].iloc[:, ::2]
    least: Any = inside.mean(axis=1).idxmin() if len(inside) else close.index[0]
    others = close.iloc[:, 1::2]
    reported = [
        lab.holds(f"M_robust({n}) at {name}", lab.mean(dependence.loc[step]), "reported", True)
        for n in (3, 5)
        for dependence in [by_sentence(records, "grammar", "teacher", "dependence", n)]
        for name, step in (("the minimum", least), ("the end", close.index[-1]))
    ]
    return [
        half_budget(records, "grammar"),
        lab.above("M_close(3), start minus minimum", lab.mean(others.iloc[0] - others.loc[least]), 0),
        lab.above("M_close(3), end minus minimum", lab.mean(others.iloc[-1] - others.loc[least]), 0),
        lab.holds("step of the minimum", lab.exact(least), "reported", True),
        *reported,
    ]


def judge_shuffled(records: "DataFrame", part: str) -> list[lab.Check]:
    means = {n: by_sentence(records, part, "shuffled", "dependence", n).iloc[-1] for n in (3, 5)}
    return [lab.below(f"M_robust({n}) of a teacher of shuffled strings", lab.mean(m), 0.1) for n, m in means.items()]


def judge_text(records: "DataFrame") -> list[lab.Check]:
    depends = by_sentence(records, "text", "teacher", "dependence")
    begun, done = in_transition(records, "text")
    before, after = depends[depends.index <= begun].iloc[-1], depends[depends.index >= done].iloc[0]
    return [
        half_budget(records, "text"),
        lab.above("M_robust(3), end of the transition minus its start", lab.mean(after - before), 0),
    ]
