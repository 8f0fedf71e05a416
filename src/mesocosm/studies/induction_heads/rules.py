"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

STRATEGIES = ("uniform", "unigram", "bigram", "trigram")
LONG = 0.1
"""Share of the training from which a phase counts."""
MOST = 0.8
"""Share of the seeds in which an order of events must hold."""


def curves(records: "DataFrame", cell: str, metric: str) -> "DataFrame":
    """A metric by step and seed; missing after a seed has stopped."""
    chosen = records[(records["cell"] == cell) & (records["metric"] == metric)]
    return chosen.pivot(index="step", columns="seed", values="value")


def nearest(records: "DataFrame", cell: str) -> "dict[Any, Series]":
    """Each seed's nearest strategy, by step."""
    import pandas

    distances = {name: curves(records, cell, f"KL to {name}") for name in STRATEGIES}
    distances = {name: table for name, table in distances.items() if len(table)}
    return {
        seed: pandas.DataFrame({name: table[seed] for name, table in distances.items()}).dropna().idxmin(axis=1)
        for seed in distances["uniform"]
    }


def phases(strategies: "Series") -> list[tuple[str, int, int]]:
    """Runs of one nearest strategy: its name, its first step, and the first step of the next, or the last of all."""
    steps = [*strategies.index, *strategies.index[-1:]]
    return [(name, steps[first], steps[after]) for name, first, after in measures.phases(list(strategies))]


def time_in(strategy: str, strategies: "Series") -> int:
    """Steps for which this strategy is nearest."""
    return sum(end - start for name, start, end in phases(strategies) if name == strategy)


def arrivals(records: "DataFrame", cell: str) -> "Series":
    """t_big by seed: the first step at which the bigram rule is nearest; infinite where it never is."""
    import pandas

    return pandas.Series({seed: first(s == "bigram") for seed, s in nearest(records, cell).items()})


def first(reached: "Series") -> float:
    """The first step at which a condition holds; infinite where it never does."""
    steps: Any = reached.index[reached]
    return float(steps[0]) if len(steps) else np.inf


def passes_half(values: "Series") -> float:
    """The first step at which a curve passes half of its final value."""
    values = values.dropna()
    return first(values > values.iloc[-1] / 2)


def reference(records: "DataFrame", strategy: str) -> float:
    """KL(truth || strategy) on the held-out chains."""
    chosen = (records["cell"] == "strategies") & (records["metric"] == strategy)
    return float(records[chosen]["value"].iloc[0])


def gap(records: "DataFrame") -> float:
    """By how much the bigram rule is nearer to the truth than the unigram rule."""
    found = reference(records, "unigram") - reference(records, "bigram")
    if found <= 0:
        raise lab.NotEnough("on strings so short the bigram rule is no better than the unigram rule")
    return found


def excess(records: "DataFrame", cell: str) -> "Series":
    """KL(truth || model) at the end above that of the bigram rule, in units of the gap, by seed."""
    final = curves(records, cell, "KL from truth").iloc[-1]
    return (final - reference(records, "bigram")) / gap(records)


def judge_end(records: "DataFrame") -> list[lab.Check]:
    return [lab.below("mean excess of two layers", lab.mean(excess(records, "dirichlet")), 0.2)]


def judge_end_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.above("mean excess of one layer", lab.mean(excess(records, "one layer")), 0.8)]


def in_order(name: str, strategies: "dict[Any, Series]", order: tuple[str, ...], least: float = 0) -> lab.Check:
    """The share of seeds that pass through `order` exactly and are nearest to unigram for `least` of the steps."""
    right = sum(
        tuple(phase[0] for phase in phases(s)) == order and time_in("unigram", s) >= least * s.index[-1]
        for s in strategies.values()
    )
    return lab.holds(name, lab.share(right, len(strategies)), f">= {MOST:g}", right >= MOST * len(strategies))


def judge_phases(records: "DataFrame") -> list[lab.Check]:
    import torch

    curve = curves(records, "dirichlet", "KL from truth").dropna()
    near = measures.plateau_length(
        torch.tensor(curve.index), torch.tensor(curve.to_numpy()), reference(records, "unigram"), 0.1 * gap(records)
    )
    strategies = nearest(records, "dirichlet")
    stay = lab.median([time_in("unigram", s) for s in strategies.values()])
    return [
        in_order("seeds with all phases in order", strategies, STRATEGIES[:3], LONG),
        lab.holds("median steps in the unigram phase", stay, "reported", True),
        lab.holds(
            "median steps within a tenth of the gap around the unigram value", lab.median(near), "reported", True
        ),
    ]


def judge_phases_control(records: "DataFrame") -> list[lab.Check]:
    strategies = nearest(records, "doubly stochastic")
    long = LONG * curves(records, "dirichlet", "KL from truth").index[-1]
    passing = sum(time_in("unigram", s) >= long for s in strategies.values())
    return [lab.holds("seeds with a unigram phase", lab.share(passing, len(strategies)), "= 0", passing == 0)]


def log_ratio(records: "DataFrame", cell: str) -> lab.Interval:
    """Mean over seeds of the log of t_big on Dirichlet chains over t_big in another cell."""
    long, short = arrivals(records, "dirichlet"), arrivals(records, cell)
    neither = int((np.isinf(long) & np.isinf(short)).sum())
    if neither:
        raise lab.NotEnough(f"{neither} of {len(long)} seeds come to the bigram rule on neither kind of chains")
    with np.errstate(divide="ignore"):
        return lab.mean(np.log(long.clip(lower=1) / short.clip(lower=1)))


def judge_delay(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above("mean log ratio", log_ratio(records, "doubly stochastic"), 0),
        lab.holds("median t_big, Dirichlet", lab.median(arrivals(records, "dirichlet")), "reported", True),
        lab.holds(
            "median t_big, doubly stochastic", lab.median(arrivals(records, "doubly stochastic")), "reported", True
        ),
    ]


def judge_delay_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.contains("mean log ratio to other data", log_ratio(records, "other data"), 0)]


def judge_heads(records: "DataFrame") -> list[lab.Check]:
    attention = curves(records, "dirichlet", "layer 1 one back")
    if not len(attention):
        raise lab.NotEnough("attention is measured only in models that give their attention patterns")
    t_big = arrivals(records, "dirichlet")
    t_head = attention.apply(passes_half)[t_big.index]
    there = np.isfinite(t_big) & np.isfinite(t_head)
    if there.sum() < 3:
        raise lab.NotEnough(f"{there.sum()} of {len(t_big)} seeds come to the bigram rule, and 3 are needed")
    close = (there & ((t_head - t_big).abs() < t_big / 4)).sum()
    order = lab.bootstrap(lab.rank_correlation, t_head[there], t_big[there], paired=True)
    matrix = curves(records, "minimal model", "on diagonal") - curves(records, "minimal model", "off diagonal")
    lead = curves(records, "minimal model", "1 back").apply(passes_half) - matrix.apply(passes_half)
    return [
        lab.holds("seeds with both at once", lab.share(close, len(t_big)), f">= {MOST:g}", close >= MOST * len(t_big)),
        lab.above("Spearman correlation of t_head and t_big", order, 0),
        lab.holds("minimal model: steps by which layer 2 is ahead of layer 1", lab.median(lead), "reported", True),
    ]


def judge_heads_control(records: "DataFrame") -> list[lab.Check]:
    back = curves(records, "dirichlet", "layer 1 two back")
    if not len(back):
        raise lab.NotEnough("attention is measured only in models that give their attention patterns")
    return [lab.below("mean attention to two symbols back", lab.mean(back.iloc[-1]), 0.2)]


def judge_second_order(records: "DataFrame") -> list[lab.Check]:
    if records.empty:
        raise lab.NotEnough("chains of order 2 are trained in the paper preset, or with --second-order-seeds")
    return [in_order("seeds with all phases in order", nearest(records, "second order"), STRATEGIES)]
