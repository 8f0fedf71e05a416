"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SOLVED = 0.7
"""Accuracy at depth 1 at which it counts as learned."""


def tested(records: "DataFrame", cell: str, metric: str) -> "Series":
    """One number by seed, on the held-out rows of the verdicts."""
    chosen = (records["cell"] == cell) & (records["metric"] == metric) & (records["sample"] == "test")
    return records[chosen].set_index("seed")["value"].sort_index()


def curve(records: "DataFrame", cell: str, metric: str) -> "DataFrame":
    """A measurement along training, by step and seed."""
    chosen = (records["cell"] == cell) & (records["metric"] == metric) & (records["sample"] != "test")
    return records[chosen].pivot(index="step", columns="seed", values="value")


def reasoning(records: "DataFrame", cell: str) -> "DataFrame":
    """Mean accuracy at depths of at least 1 along training, by step and seed."""
    deep = records["metric"].str.startswith("accuracy, depth ") & (records["metric"] != "accuracy, depth 0")
    if not deep.any():
        raise lab.NotEnough("no assignment has a depth of at least 1")
    chosen = deep & (records["cell"] == cell) & (records["sample"] != "test")
    return records[chosen].pivot_table(index="step", columns="seed", values="value", aggfunc="mean")


def at_equal_loss(records: "DataFrame", scores: "DataFrame", base_scores: "DataFrame") -> "Series":
    """MIDAS's mean excess in `scores` over the baseline at equal filler loss, once it has all layers, by seed."""
    import torch

    loss, base_loss = (curve(records, cell, "filler loss") for cell in ("midas", "baseline"))
    layers = curve(records, "midas", "layers").min(axis=1)
    whole = layers.index[layers == layers.max()]
    excess = {}
    for seed in loss.columns.intersection(base_loss.columns):
        curves = (loss[seed][whole], scores[seed][whole], base_loss[seed], base_scores[seed])
        found = measures.iso_loss_excess(*(torch.tensor(values.to_numpy()) for values in curves))
        excess[seed] = found.nanmean().item()
    known = loss.columns.to_series().map(excess).dropna()
    if len(known) < 2:
        raise lab.NotEnough(f"in {len(known)} seeds both have had the same filler loss, and 2 are needed")
    return known


def cost_of_depth_1(records: "DataFrame", cell: str) -> "Series":
    """Operations until the accuracy at depth 1 is first at least 0.7, infinite where it never is, by seed."""
    accuracy, flops = (curve(records, cell, name) for name in ("accuracy, depth 1", "flops"))
    return flops.where(accuracy >= SOLVED, np.inf).min()


def judge_loss(records: "DataFrame") -> list[lab.Check]:
    loss = {cell: tested(records, cell, "validation loss") for cell in ("midas", "baseline", "gradstack")}
    spent = {cell: curve(records, cell, "flops").iloc[-1] for cell in ("midas", "baseline")}
    ratio = lab.mean(spent["baseline"] / spent["midas"])
    if abs(ratio.estimate - 1) > 0.02:
        raise lab.NotEnough(f"the baseline took {ratio.estimate:.2f} times MIDAS's operations: not an equal cost")
    filler = tested(records, "midas", "filler loss") - tested(records, "baseline", "filler loss")
    return [
        lab.below("loss, MIDAS minus baseline", lab.mean(loss["midas"] - loss["baseline"]), 0),
        lab.below("loss, MIDAS minus GradStack", lab.mean(loss["midas"] - loss["gradstack"]), 0),
        lab.holds("filler loss, MIDAS minus baseline", lab.mean(filler), "reported", True),
        lab.holds("operations, baseline over MIDAS", ratio, "within 2 % of 1", True),
    ]


def judge_random(records: "DataFrame") -> list[lab.Check]:
    loss, copied = (tested(records, cell, "validation loss") for cell in ("random", "midas"))
    return [lab.above("loss, random blocks minus MIDAS", lab.mean(loss - copied), 0)]


def judge_reasoning(records: "DataFrame") -> list[lab.Check]:
    excess = at_equal_loss(records, *(reasoning(records, cell) for cell in ("midas", "baseline")))
    checks = [lab.above("excess accuracy at depths of at least 1", lab.mean(excess), 0.03)]
    if "accuracy, depth 1" in set(records["metric"]):
        cost = {cell: cost_of_depth_1(records, cell) for cell in ("midas", "baseline")}
        both = np.isfinite(cost["midas"]) & np.isfinite(cost["baseline"])
        ratio = lab.median((cost["midas"] / cost["baseline"])[both])
        checks.append(lab.holds("operations to 0.7 at depth 1, MIDAS over baseline", ratio, "reported", True))
        for cell, reached in cost.items():
            share = lab.share(int(np.isfinite(reached).sum()), len(reached))
            checks.append(lab.holds(f"seeds that get there, {cell}", share, "reported", True))
    return checks


def judge_memory(records: "DataFrame") -> list[lab.Check]:
    excess = at_equal_loss(records, *(curve(records, cell, "accuracy, facts") for cell in ("midas", "baseline")))
    return [lab.within("excess accuracy on facts", lab.mean(excess), -0.03, 0.03)]


def fine_tuned(records: "DataFrame", arm: str, examples: int) -> "DataFrame":
    """Held-out accuracy at the greatest depth before and after fine-tuning, two columns by seed."""
    chosen = (records["arm"] == arm) & (records["examples"] == examples)
    chosen &= records["metric"].str.startswith("accuracy, depth")
    table = records[chosen].pivot(index="seed", columns="step", values="value")
    return table[[table.columns.min(), table.columns.max()]].set_axis(["before", "after"], axis=1)


def judge_fine_tuning(records: "DataFrame") -> list[lab.Check]:
    checks: list[lab.Check] = []
    for count in sorted(records["examples"].dropna().unique().astype(int)):
        midas, baseline = (fine_tuned(records, arm, count) for arm in ("midas", "baseline"))
        gap = lab.mean((midas - baseline)["after"])
        if not checks:
            checks = [lab.above(f"{count} examples, MIDAS minus baseline", gap, 0)]
            before = lab.mean((midas - baseline)["before"])
            checks.append(lab.holds("before fine-tuning, MIDAS minus baseline", before, "reported", True))
        else:
            checks.append(lab.holds(f"{count} examples, MIDAS minus baseline", gap, "reported", True))
    return checks


def similarity(records: "DataFrame", cell: str) -> "DataFrame":
    """Similarity of every two blocks, by seed; columns are pairs of blocks from 0."""
    chosen = (records["cell"] == cell) & (records["metric"] == "similarity")
    if not chosen.any():
        raise lab.NotEnough("the similarity of blocks is measured in the study's own networks only")
    return (
        records[chosen]
        .astype({"block": int, "other": int})
        .pivot(index="seed", columns=["block", "other"], values="value")
    )


def judge_similarity(records: "DataFrame") -> list[lab.Check]:
    pairs = {cell: similarity(records, cell) for cell in ("midas", "baseline", "gradstack")}
    last = int(records["block"].max())
    if last < 3:
        raise lab.NotEnough(f"{last + 1} blocks have no two in the middle: 4 are needed")
    inner = [(i, j) for i in range(1, last) for j in range(i + 1, last)]
    middle = {cell: table[inner].mean(axis=1) for cell, table in pairs.items()}
    lopsided = {cell: table[(last - 1, last)] - table[(0, 1)] for cell, table in pairs.items()}
    return [
        lab.above("middle blocks, MIDAS minus baseline", lab.mean(middle["midas"] - middle["baseline"]), 0.1),
        lab.above("lopsidedness, GradStack minus MIDAS", lab.mean(lopsided["gradstack"] - lopsided["midas"]), 0),
        lab.holds("lopsidedness of MIDAS", lab.mean(lopsided["midas"]), "reported", True),
        lab.holds("middle blocks of GradStack", lab.mean(middle["gradstack"]), "reported", True),
    ]


def judge_copies(records: "DataFrame") -> list[lab.Check]:
    def found(name: str) -> "Series":
        return records[records["metric"] == f"similarity of a {name} block"].set_index("seed")["value"]

    error = (found("copy") - 1).abs().max()
    return [
        lab.holds("distance of a copy's similarity from 1", lab.exact(error), "< 0.00001", error < 1e-5),
        lab.below("similarity of a fresh block", lab.mean(found("fresh")), 0.1),
    ]
