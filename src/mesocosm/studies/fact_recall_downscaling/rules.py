"""The rules of the claims, from records alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame, Series

JUDGED = 0.5
"""Sparsity at which models are compared."""
LISTED, TWO = 1 / 30, 1 / 2
"""Chance of an answer among thirty candidates, and among two."""
CHANCE = {"recall": LISTED, "override": LISTED, "retrieval": TWO, "function": TWO, "trivia": 0, "trivia, open book": 0}
FURTHER = 0.1 - 1e-9
"""By how much more sparsity the use of the context must tolerate; levels are a tenth apart, up to rounding."""
KNOWN = 0.9
"""Accuracy from which a trained network has an ability."""
FEWER = 16
"""How many times fewer facts the control of C4 has."""


def language_models(records: "DataFrame") -> list[str]:
    return sorted(records["model"].dropna().unique()) if "model" in records else []


def each_model(judge: Callable[["DataFrame"], list[lab.Check]]) -> Callable[["DataFrame"], list[lab.Check]]:
    """The same for every language model that was asked: all of them must have an effect, and none that of a control."""

    def judged(records: "DataFrame") -> list[lab.Check]:
        names = language_models(records)
        if len(names) < 2:
            return judge(records)
        checks = [(name, judge(records[records["model"] == name])) for name in names]
        return [replace(check, name=f"{name}: {check.name}") for name, found in checks for check in found]

    return judged


def answers(records: "DataFrame", cell: str, metric: str = "right", method: str = "wanda") -> "DataFrame":
    """What each question (column) was answered at each sparsity (row) by a method; the dense model has sparsity 0.

    Raises:
        NotEnough: without these answers of the dense model, or of any pruned one.
    """
    rows = records[(records["cell"] == cell) & (records["metric"] == metric)]
    if rows.empty:
        raise lab.NotEnough("no language model was asked: name one with --language-model")
    table = rows[rows["method"].isin(["dense", method])].pivot(index="sparsity", columns="seed", values="value")
    if 0 not in table.index or len(table) < 2:
        raise lab.NotEnough(f"{cell} needs answers of the dense model and of one that is pruned by {method}")
    return table


def at(table: "DataFrame", sparsity: float) -> "Series":
    if sparsity not in table.index:
        raise lab.NotEnough(f"there are no answers at sparsity {sparsity:g}")
    return table.T[sparsity]


def able(table: "DataFrame", ability: str) -> None:
    """Refuse to speak of what is left of an ability that the dense model does not have."""
    dense = lab.mean(table.loc[0])
    if not dense.low > CHANCE[ability]:
        raise lab.NotEnough(
            f"the dense model is at chance in {ability}: {dense.estimate:.2f} [{dense.low:.2f}, {dense.high:.2f}]"
        )


class Kept:
    """What is left of an ability, for resampled questions: indices `[..., n]` of the table's columns."""

    def __init__(self, records: "DataFrame", ability: str, method: str = "wanda", metric: str = "right") -> None:
        self.ability, self.table = ability, answers(records, ability, metric, method)
        self.questions = np.arange(self.table.shape[1])

    def accuracy(self, sparsity: float, index: Any, axis: int) -> Any:
        return at(self.table, sparsity).to_numpy()[np.asarray(index, dtype=int)].mean(axis=axis)

    def share(self, index: Any, axis: int = -1, sparsity: float = JUDGED) -> Any:
        """Accuracy above chance at a sparsity, over that of the dense model."""
        chance = CHANCE[self.ability]
        with np.errstate(divide="ignore", invalid="ignore"):
            pruned, dense = (self.accuracy(level, index, axis) - chance for level in (sparsity, 0))
            return pruned / dense

    def tolerated(self, index: Any, axis: int = -1) -> Any:
        """The largest sparsity that keeps 95 % of the accuracy."""
        import torch

        levels = [self.accuracy(level, index, axis) for level in self.table.index]
        sparsities = torch.tensor(self.table.index.to_numpy())
        return measures.tolerated_sparsity(sparsities, torch.from_numpy(np.stack(levels, axis=-1))).numpy()


def lead(kind: str, context: Kept, recall: Kept) -> lab.Interval:
    """What is left (`share` or `tolerated`) of an ability in context, less that of recall; over questions of each."""

    def difference(first: Any, second: Any, axis: int) -> Any:
        return getattr(context, kind)(first, axis) - getattr(recall, kind)(second, axis)

    return lab.bootstrap(difference, context.questions, recall.questions)


@each_model
def judge_recall_first(records: "DataFrame") -> list[lab.Check]:
    context, recall = Kept(records, "retrieval"), Kept(records, "recall")
    able(context.table, "retrieval")
    able(recall.table, "recall")
    return [
        lab.above(f"share kept at sparsity {JUDGED}, look-up less recall", lead("share", context, recall), 0.2),
        lab.above("tolerated sparsity, look-up less recall", lead("tolerated", context, recall), FURTHER),
    ]


@each_model
def judge_recall_first_control(records: "DataFrame") -> list[lab.Check]:
    unknown = answers(records, "invented")
    change = lab.mean(at(unknown, JUDGED) - unknown.loc[0])
    masked = {name: Kept(records, name, "random") for name in ("recall", "retrieval")}
    kept = {name: lab.bootstrap(mine.share, mine.questions) for name, mine in masked.items()}
    return [
        lab.contains("change of accuracy on countries that do not exist", change, 0),
        *(lab.below(f"share of {name} kept under a random mask", found, 0.5) for name, found in kept.items()),
    ]


def ratio(records: "DataFrame", ability: str) -> lab.Interval:
    """Accuracy at the judged sparsity over that of the dense model."""
    kept = Kept(records, ability)
    able(kept.table, ability)

    def of(index: Any, axis: int) -> Any:
        return kept.accuracy(JUDGED, index, axis) / kept.accuracy(0, index, axis)

    return lab.bootstrap(of, kept.questions)


@each_model
def judge_override(records: "DataFrame") -> list[lab.Check]:
    return [
        lab.above("answers from the context, pruned over dense", ratio(records, "override"), 0.95 - 1e-9),
        lab.below("recall, pruned over dense", ratio(records, "recall"), 0.8 + 1e-9),
    ]


@each_model
def judge_override_control(records: "DataFrame") -> list[lab.Check]:
    said = answers(records, "recall", "other")
    checks = []
    for sparsity in (0, JUDGED):
        found = lab.share(int(at(said, sparsity).sum()), said.shape[1])
        name = f"counterfactual answers without context, sparsity {sparsity:g}"
        checks.append(lab.holds(name, found, "interval reaches 1/30", found.low <= LISTED))
    return checks


@each_model
def judge_function(records: "DataFrame") -> list[lab.Check]:
    context, recall = Kept(records, "function"), Kept(records, "recall")
    able(context.table, "function")
    able(recall.table, "recall")
    return [lab.above("tolerated sparsity, functions less recall", lead("tolerated", context, recall), FURTHER)]


@each_model
def judge_function_control(records: "DataFrame") -> list[lab.Check]:
    shares = answers(records, "function, shuffled labels").mean()
    return [lab.contains("accuracy with shuffled labels, mean over sparsities", lab.mean(shares), TWO)]


def thresholds(records: "DataFrame", facts: float) -> "DataFrame":
    """The smallest width with an accuracy above `KNOWN`, by seed: of recall and in context; infinite for none.

    Raises:
        NotEnough: when nothing was trained on so many facts.
    """
    rows = records[records["metric"].isin(["recall", "in context"]) & (records.get("facts") == facts)]
    if rows.empty:
        raise lab.NotEnough(f"there is no network trained on {facts:g} facts")
    last = rows[rows["step"] == rows["step"].max()]
    widths = last["width"].where(last["value"] > KNOWN, math.inf)
    return widths.groupby([last["seed"], last["metric"]]).min().unstack()


def widest(records: "DataFrame") -> float:
    return records["width"].max()


def most_facts(records: "DataFrame") -> float:
    if "facts" not in records:
        raise lab.NotEnough("there are no trained networks")
    return records["facts"].max()


def judge_widths(records: "DataFrame") -> list[lab.Check]:
    found = thresholds(records, most_facts(records))
    if np.isinf(found["in context"]).any():
        raise lab.NotEnough(f"no width up to {widest(records):g} reads the context in every seed")
    # Where no width recalls, the threshold lies beyond the widest, and the ratio is a lower bound.
    ratios = found["recall"].clip(upper=widest(records)) / found["in context"]
    beyond = np.isinf(found["recall"])
    met = None if (beyond & (ratios < 2)).any() else bool((ratios >= 2).all())
    return [lab.holds("least ratio of widths, recall over context", lab.exact(ratios.min()), ">= 2 in each seed", met)]


def judge_widths_control(records: "DataFrame") -> list[lab.Check]:
    few = most_facts(records) / FEWER
    found, last = thresholds(records, few), widest(records[records["facts"] == few])
    if np.isinf(found["recall"]).any():
        raise lab.NotEnough(f"no width up to {last:g} recalls {FEWER} times fewer facts in every seed")
    # Where no width reads the context, the threshold lies beyond the widest, and the ratio is an upper bound.
    ratios = found["recall"] / found["in context"].clip(upper=last)
    met = bool((ratios <= 1).all())
    return [
        lab.holds("largest ratio of widths, recall over context", lab.exact(ratios.max()), "<= 1 in each seed", met)
    ]
