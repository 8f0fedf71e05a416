"""The rules of the claims, from records alone."""

import math
from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

THRESHOLD, LEARNED = 0.9, 0.98
"""String accuracy whose cost in examples is compared, and at which training ends."""
REACH = (1, 1.5, 2, 4, 8)
"""Tested lengths, as multiples of the greatest training length."""


def by_seed(records: "DataFrame", cell: str, metric: str) -> "Series":
    chosen = (records["cell"] == cell) & (records["metric"] == metric)
    return records[chosen].set_index("seed")["value"]


def accuracies(records: "DataFrame", cell: str, metric: str, duplicated: int = 0) -> "DataFrame":
    """Accuracies of a cell on plain strings, or on those with one n-gram twice; a row a seed, a column a length."""
    chosen = (records["cell"] == cell) & (records["metric"] == metric) & (records["duplicated"] == duplicated)
    return records[chosen].pivot(index="seed", columns="length", values="value").rename(columns=int)


def at_reach(records: "DataFrame", cell: str, metric: str, factor: float) -> "Series":
    """By seed, the accuracy at one of the tested multiples of the greatest training length."""
    return accuracies(records, cell, metric).iloc[:, REACH.index(factor)]


def gap(records: "DataFrame", kind: str, other: str) -> "Series":
    """By seed, log of the examples that another model needs over those of the transformer.

    Where the other does not get there within its budget, the gap is a lower bound; where the transformer does not, it
    counts as at most 0.
    """
    ours, theirs = (by_seed(records, f"{kind}/{model}", "examples") for model in ("hard-alibi", other))
    reached = by_seed(records, f"{kind}/hard-alibi", "reached") > 0
    ratio = (theirs / ours).dropna().map(math.log)
    return ratio.where(reached[ratio.index], ratio.clip(upper=0))


def both(one: "Series", other: "Series") -> "Series":
    """The difference by seed, where both are known."""
    difference = (one - other).dropna()
    if len(difference) < 2:
        raise lab.NotEnough(f"{len(difference)} seed(s) have both numbers, and 2 are needed")
    return difference


def ratio(gaps: "Series") -> lab.Interval:
    """Geometric mean of the ratios whose logs are given."""
    return lab.bootstrap(lambda x, axis: np.exp(np.mean(x, axis=axis)), gaps)


def judge_examples(records: "DataFrame") -> list[lab.Check]:
    learned = by_seed(records, "copy/hard-alibi", "reached")
    if learned.mean() < 0.5:
        raise lab.NotEnough(
            f"{learned.sum():.0f} of {len(learned)} transformers get there, and half of them are needed"
        )
    late = {model: 1 - by_seed(records, f"copy/{model}", "reached") for model in ("ssm", "lstm")}
    return [
        lab.above("ratio of examples, state space model", ratio(gap(records, "copy", "ssm")), 1),
        lab.holds("ratio of examples, LSTM", ratio(gap(records, "copy", "lstm")), "reported", True),
        *(
            lab.holds(f"{model}: seeds that do not get there", lab.share(int(x.sum()), len(x)), "reported", True)
            for model, x in late.items()
        ),
    ]


def judge_examples_control(records: "DataFrame") -> list[lab.Check]:
    prefix = ratio(gap(records, "prefix", "ssm"))
    return [lab.holds("ratio of examples, prefix key", prefix, "interval not above 1", not prefix.low > 1)]


def judge_length(records: "DataFrame") -> list[lab.Check]:
    def lead(metric: str, factor: float) -> "Series":
        ours, theirs = (at_reach(records, f"short/{m}", metric, factor) for m in ("hard-alibi", "ssm"))
        return both(ours, theirs)

    others = {
        code: lab.mean(at_reach(records, f"short/{code}", "character accuracy", 2))
        for code in ("alibi", "none", "rotary", "lstm")
    }
    return [
        lab.above("lead in character accuracy at twice the length", lab.mean(lead("character accuracy", 2)), 0.3),
        lab.holds("lead in string accuracy", lab.mean(lead("string accuracy", 2)), "reported", True),
        *(lab.holds(f"character accuracy, {code}", value, "reported", True) for code, value in others.items()),
    ]


def judge_length_control(records: "DataFrame") -> list[lab.Check]:
    ours, theirs = (at_reach(records, f"short/{m}", "character accuracy", 1) for m in ("hard-alibi", "ssm"))
    return [lab.within("lead at the training length", lab.mean(both(ours, theirs)), -0.05, 0.05)]


def copier(records: "DataFrame") -> "DataFrame":
    """States, accuracy and bound of the constructed machine, by the letters it keeps."""
    return records[records["cell"] == "copier"].pivot(index="kept", columns="metric", values="value")


def tracked(records: "DataFrame", cell: str, step: int) -> "Series":
    """By seed, the character accuracy after so many steps; a seed that has stopped before keeps its last one."""
    chosen = (records["cell"] == cell) & (records["metric"] == "characters")
    return records[chosen].pivot(index="step", columns="seed", values="value").ffill().loc[:step].iloc[-1]


def sweep_end(records: "DataFrame") -> int:
    """Steps after which sizes of the state are compared."""
    return int(records[records["cell"].str.startswith("state/")]["step"].max())


def by_state(records: "DataFrame") -> "DataFrame":
    """Character accuracy of state space models after as many steps; a row a seed, a column a size of the state."""
    import pandas

    rows = records[(records["metric"] == "characters") & records["d_state"].notna()]
    cells = rows.groupby("d_state")["cell"].first()
    last = sweep_end(records)
    return pandas.DataFrame({size: tracked(records, cell, last) for size, cell in cells.items()}).dropna()


def judge_state(records: "DataFrame") -> list[lab.Check]:
    machine, trained = copier(records), by_state(records)
    off = (machine["accuracy"] - machine["bound"]).abs().max()
    ranks = trained.corrwith(trained.columns.to_series().set_axis(trained.columns), axis=1, method="spearman")
    return [
        lab.holds("distance of the constructed copier from the bound", lab.exact(off), "= 0", off < 1e-12),
        lab.above("Spearman correlation of accuracy and state size", lab.mean(ranks.fillna(0)), 0),
    ]


def judge_state_control(records: "DataFrame") -> list[lab.Check]:
    bound = copier(records)["bound"].iloc[-2]
    strings = lab.mean(at_reach(records, "copy/hard-alibi", "string accuracy", 1))
    return [lab.above("string accuracy of transformers, against the bound of a state one letter short", strings, bound)]


def lookup_lead(records: "DataFrame", key: str) -> lab.Interval:
    """Lead of transformers over state space models in whole answers, at twice the length."""
    ours, theirs = (at_reach(records, f"{key}/{model}", "string accuracy", 2) for model in ("hard-alibi", "ssm"))
    return lab.mean(both(ours, theirs))


def judge_shape(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above("lead of transformers, suffix key", lookup_lead(records, "suffix"), 0),
        lab.holds("lead of transformers, prefix key", lookup_lead(records, "prefix"), "reported", True),
    ]


def judge_shape_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.below("lead of transformers, prefix key", lookup_lead(records, "prefix"), 0.05)]


def fall(records: "DataFrame", model: str, start: int, end: int) -> lab.Interval:
    """How much the string accuracy falls from one length of the duplicated n-gram to another; 0 is no duplicate."""
    tables = (accuracies(records, f"copy/{model}", "string accuracy", n) for n in (start, end))
    one, other = (table.iloc[:, 0] for table in tables)
    return lab.mean(both(one, other))


def shortest_and_longest(records: "DataFrame") -> tuple[int, int]:
    """Letters of the shortest and of the longest duplicated n-gram."""
    lengths = {int(n) for n in records["duplicated"].dropna() if n > 0}
    if len(lengths) < 2:
        raise lab.NotEnough("n-grams of one length are duplicated, and 2 lengths are needed")
    return min(lengths), max(lengths)


def judge_duplicates(records: "DataFrame") -> list[lab.Check]:
    shortest, longest = shortest_and_longest(records)
    return [lab.above("fall from the shortest to the longest", fall(records, "hard-alibi", shortest, longest), 0.1)]


def judge_duplicates_control(records: "DataFrame") -> list[lab.Check]:
    shortest, longest = shortest_and_longest(records)
    return [
        lab.below("fall from no duplicate to the shortest", fall(records, "hard-alibi", 0, shortest), 0.1),
        lab.below("fall of state space models, shortest to longest", fall(records, "ssm", shortest, longest), 0.1),
    ]
