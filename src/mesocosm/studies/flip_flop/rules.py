"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Index, Series

# Probabilities of an ignore: training strings, long gaps between writes and reads, many writes.
TRAINED, SPARSE, DENSE = 0.8, 0.98, 0.1
TAILS = (DENSE, SPARSE)
SETS = {TRAINED: "in distribution, FFL(0.8)", SPARSE: "sparse, FFL(0.98)", DENSE: "dense, FFL(0.1)"}
ENOUGH, WEAK = 1.0, 0.5
"""Recency per pair of tokens of the hand-made head, in units of ln 2."""


def error_rates(records: "DataFrame", cell: str, sample: str = "first", floor: bool = False) -> "DataFrame":
    """Read error rates by seed and set; with `floor` at least 3/N, the upper bound of no error in N reads."""
    errors, reads = (counts(records, metric, cell, sample) for metric in ("errors", "reads"))
    return (errors.clip(lower=3) if floor else errors) / reads


def counts(records: "DataFrame", metric: str, cell: str, sample: str = "first") -> "DataFrame":
    chosen = (records["metric"] == metric) & (records["cell"] == cell) & (records["sample"] == sample)
    return records[chosen].pivot(index="seed", columns="p_ignore", values="value")


def worse_tail(records: "DataFrame", cell: str, sample: str = "first", floor: bool = False) -> "Series":
    return error_rates(records, cell, sample, floor)[list(TAILS)].max(axis=1)


def converged(records: "DataFrame", least: int = 2) -> "Index":
    """The seeds whose plain transformer misreads fewer than 1 in 1,000 in distribution."""
    rates = error_rates(records, "transformer")[TRAINED]
    seeds = rates.index[rates < 1e-3]
    if len(seeds) < least:
        many = f"{len(seeds)} of {len(rates)} transformers have a read error below 0.001 in distribution"
        raise lab.NotEnough(f"{many}, and {least} are needed")
    return seeds


def fall(records: "DataFrame", cell: str) -> "Series":
    """log10 of the factor by which an intervention lowers the error on the worse tail, by seed."""
    plain, treated = (worse_tail(records, name, floor=True) for name in ("transformer", cell))
    seeds = converged(records).intersection(treated.index)
    if len(seeds) < 2:
        raise lab.NotEnough(f"{len(seeds)} of the seeds with an intervention converged, and 2 are needed")
    return (plain[seeds] / treated[seeds]).map(np.log10)


def factor(falls: "Series") -> lab.Interval:
    return lab.bootstrap(lambda x, axis: 10 ** np.mean(x, axis=axis), falls)


def spread(x: "Series") -> lab.Interval:
    return lab.bootstrap(lambda x, axis: np.std(x, axis=axis, ddof=1), x)


def judge_tail(records: "DataFrame") -> list[lab.Check]:
    seeds, everyone = converged(records), error_rates(records, "transformer")
    lstm, reads = error_rates(records, "lstm").to_numpy().max(), counts(records, "reads", "lstm").to_numpy().min()
    if reads < 3000:
        raise lab.NotEnough(f"{reads:.0f} reads are too few: 3,000 a set are needed")
    return [
        lab.above("median worse tail of transformers", lab.median(worse_tail(records, "transformer")[seeds]), 1e-3),
        lab.holds("largest error of any LSTM", lab.exact(lstm), "= 0", lstm == 0),
        lab.holds("transformers below 0.001 in distribution", lab.share(len(seeds), len(everyone)), "reported", True),
    ]


def judge_tail_control(records: "DataFrame") -> list[lab.Check]:
    fresh = error_rates(records, "transformer", "fresh")[TRAINED][converged(records)]
    return [
        lab.below("transformers, fresh FFL(0.8)", lab.median(fresh), 1e-3),
        lab.below("LSTMs, worse tail", lab.median(worse_tail(records, "lstm")), 1e-3),
    ]


def judge_spread(records: "DataFrame") -> list[lab.Check]:
    errors = worse_tail(records, "transformer", floor=True)[converged(records, least=8)]
    ratio = lab.bootstrap(lambda x, axis: np.max(x, axis=axis) / np.min(x, axis=axis), errors)
    return [
        lab.above("standard deviation of log10 e", spread(np.log10(errors)), 0.2),
        lab.holds("largest over smallest e", ratio, "reported", True),
    ]


def judge_spread_control(records: "DataFrame") -> list[lab.Check]:
    first, fresh = (worse_tail(records, "transformer", sample, floor=True) for sample in ("first", "fresh"))
    noise = np.log10(first / fresh)[converged(records, least=8)] / np.sqrt(2)
    return [lab.below("standard deviation of log10 e between samples of strings", spread(noise), 0.2)]


def judge_mixture(records: "DataFrame") -> list[lab.Check]:
    gain = factor(fall(records, "mixture"))
    return [
        lab.above("factor by which e falls", gain, 10**0.5),
        lab.holds("the factor itself", gain, "> 10", gain.estimate > 10),
    ]


def judge_mixture_control(records: "DataFrame") -> list[lab.Check]:
    extra = fall(records, "mixture") - fall(records, "more data")
    return [lab.above("log10 of the mixture's factor over that of more data", lab.mean(extra), 0)]


def judge_sharpening(records: "DataFrame") -> list[lab.Check]:
    entropy = records[records["metric"] == "attention entropy"].pivot(index="seed", columns="cell", values="value")
    if not {"transformer", "entropy penalty"} <= set(entropy):
        raise lab.NotEnough("attention is measured only in models that give their attention patterns")
    falls = {cell: fall(records, cell) for cell in ("entropy penalty", "embedding dropout")}
    change = (entropy["entropy penalty"] - entropy["transformer"])[falls["entropy penalty"].index].dropna()
    sharp = error_rates(records, "entropy penalty")
    glitching = ((sharp[TRAINED] < 1e-3) & (worse_tail(records, "entropy penalty") > 0)).sum()
    sums = records[records["cell"] == "entropy penalty"].groupby("metric")["value"].sum()
    elsewhere = lab.share(sums["wrong reads at another write"], sums["wrong reads"])
    return [
        lab.below("change of attention entropy", lab.mean(change), 0),
        lab.holds("converged sharp seeds with errors", lab.share(glitching, len(sharp)), "> 0", glitching > 0),
        *(lab.holds(f"factor by which e falls: {cell}", factor(f), "reported", True) for cell, f in falls.items()),
        lab.holds("share of sharp read errors at another write", elsewhere, "reported", True),
    ]


def judge_sharpening_control(records: "DataFrame") -> list[lab.Check]:
    glitching = worse_tail(records, "lstm") > 0
    return [lab.holds("LSTMs with errors", lab.share(glitching.sum(), len(glitching)), "= 0", not glitching.any())]


def hand_made(records: "DataFrame", recency: float, p_ignore: float) -> "DataFrame":
    """Margin, errors and reads of the hand-made head, by length."""
    rows = records[(records["recency"] == recency) & (records["p_ignore"] == p_ignore)]
    return rows.pivot(index="length", columns="metric", values="value")


def judge_hand_made(records: "DataFrame") -> list[lab.Check]:
    enough, weak = hand_made(records, ENOUGH, 1 / 3), hand_made(records, WEAK, 0.0)
    errors, rate = enough["errors"].sum(), (weak["errors"] / weak["reads"]).min()
    right, wrong = errors == 0 and enough["margin"].min() > 0, rate > 0 and weak["margin"].max() < 0
    return [
        lab.holds("errors where the margin is positive", lab.exact(errors), "= 0", right),
        lab.holds("least error rate on dense strings where it is negative", lab.exact(rate), "> 0", wrong),
    ]


def judge_hand_made_control(records: "DataFrame") -> list[lab.Check]:
    errors = hand_made(records, WEAK, 1.0)["errors"].sum()
    return [lab.holds("errors on strings of one write", lab.exact(errors), "= 0", errors == 0)]
