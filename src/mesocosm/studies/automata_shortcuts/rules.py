"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

EASY = ("flip-flop", "grid-4")
"""Automata without groups, tried at every depth."""
ALWAYS = (*EASY, "parity", "dihedral-4")
"""Automata that claims are about."""
DOUBLED = "symmetric-5"
P_ONES = (0.05, 0.1, 0.25, 0.75, 0.9, 0.95)
"""Frequencies of symbol 1 in test strings; one half in training."""
SHIFTED = "p=0.9"


def setup(records: "DataFrame", metric: str) -> "Series":
    """What does not depend on seeds: the rank of each automaton, or one number."""
    rows = records[(records["cell"] == "setup") & (records["metric"] == metric)]
    return rows.set_index("automaton")["value"]


def by_position(records: "DataFrame", cell: str, sample: str = "test", metric: str = "accuracy") -> "DataFrame":
    """Accuracy by seed and position."""
    chosen = (records["cell"] == cell) & (records["sample"] == sample) & (records["metric"] == metric)
    return records[chosen].pivot(index="seed", columns="position", values="value")


def accuracy(records: "DataFrame", cell: str, sample: str = "test") -> "Series":
    """Accuracy over all positions by seed."""
    return by_position(records, cell, sample).mean(axis=1)


def beyond(records: "DataFrame", cell: str) -> "Series":
    """Accuracy at positions T + 1 to 2 T by seed."""
    long = by_position(records, cell, "long")
    return long[long.columns[long.shape[1] // 2 :]].mean(axis=1)


def compared(records: "DataFrame", kind: str, name: str) -> str:
    """The cell of a kind of model on an automaton, with as many layers as all automata are compared at."""
    return f"lstm/{name}" if kind == "lstm" else f"{kind}/{name}/L={setup(records, 'layers').iloc[0]:.0f}"


def depths(records: "DataFrame", name: str) -> list[int]:
    rows = records[records["cell"].str.startswith(f"transformer/{name}/")]
    return sorted({int(layers) for layers in rows["layers"].dropna()})


def normalised(records: "DataFrame", cell: str, last: bool = False) -> "Series":
    """(accuracy - chance) / (1 - chance) by seed, over all positions or at the last."""
    right, chance = by_position(records, cell), by_position(records, cell, metric="chance")
    if last:
        right, chance = right[right.columns[-1:]], chance[chance.columns[-1:]]
    guess = chance.to_numpy().mean()
    return (right.mean(axis=1) - guess) / (1 - guess)


def correlation(records: "DataFrame", kind: str, last: bool = False) -> lab.Interval:
    """Spearman's, over automata, between their algebraic rank and the seeds' mean normalised accuracy."""
    ranks = setup(records, "rank")
    if ranks.nunique() < 3:
        raise lab.NotEnough(f"automata of {ranks.nunique()} algebraic ranks are too few: 3 are needed")

    def spearman(*samples: Any, axis: int) -> Any:
        return lab.rank_correlation(np.stack([sample.mean(axis=axis) for sample in samples], axis=-1), ranks)

    samples = [normalised(records, compared(records, kind, name), last) for name in ranks.index]
    return lab.bootstrap(spearman, *samples, paired=True)


def judge_shallow(records: "DataFrame") -> list[lab.Check]:
    length = by_position(records, compared(records, "transformer", "grid-4")).shape[1]
    tried = depths(records, "grid-4")
    shallow, deep = tried[0], max((d for d in tried if 2**d <= length), default=tried[0])
    if deep == shallow:
        raise lab.NotEnough(f"of the depths {tried} two up to log2 T are needed")
    found = {n: {d: accuracy(records, f"transformer/{n}/L={d}") for d in (shallow, deep)} for n in EASY}
    least = min(found[name][deep].max() for name in EASY)
    gain = sum(found[name][deep] - found[name][shallow] for name in EASY) / len(EASY)
    middle = min((lab.median(found[name][deep]) for name in EASY), key=lambda interval: interval.estimate)
    return [
        lab.holds(f"best seed at L = {deep}, the worse automaton", lab.exact(least), "> 0.99", least > 0.99),
        lab.above(f"gain from L = {shallow}, both automata", lab.mean(gain), 0),
        lab.holds("median seed, the worse automaton", middle, "reported", True),
    ]


def judge_shallow_control(records: "DataFrame") -> list[lab.Check]:
    cell = next(cell for cell in records["cell"].unique() if cell.startswith("strangers/"))
    right, chance = by_position(records, cell), by_position(records, cell, metric="chance")
    guess = chance.to_numpy()[0, -1]
    error = np.sqrt(guess * (1 - guess) / setup(records, "strings").iloc[0])
    off = abs(right.to_numpy()[:, -1] - guess).max() / error
    bound = "<= 3 standard errors"
    return [lab.holds("final accuracy off the most common state's rate", lab.exact(off), bound, off <= 3)]


def judge_algebra(records: "DataFrame") -> list[lab.Check]:
    over_all, at_last = correlation(records, "transformer"), correlation(records, "transformer", last=True)
    return [
        lab.below("rank correlation", over_all, 0),
        lab.holds("the correlation itself", over_all, "< -0.6", over_all.estimate < -0.6),
        lab.holds("rank correlation at the last position", at_last, "reported", True),
    ]


def judge_algebra_control(records: "DataFrame") -> list[lab.Check]:
    ranks = setup(records, "rank")
    solvable = {name: lab.mean(accuracy(records, f"lstm/{name}")) for name in ranks.index[ranks < 4]}
    worst = min(solvable, key=lambda name: solvable[name].estimate)
    return [
        lab.above(f"LSTM's accuracy on its worst solvable automaton, {worst}", solvable[worst], 0.99),
        lab.holds("LSTM's rank correlation", correlation(records, "lstm"), "reported", True),
    ]


def judge_brittle(records: "DataFrame") -> list[lab.Check]:
    cells = {kind: compared(records, kind, "parity") for kind in ("direct", "lstm")}
    fall = {kind: accuracy(records, cell) - accuracy(records, cell, SHIFTED) for kind, cell in cells.items()}
    late = {kind: accuracy(records, cell) - beyond(records, cell) for kind, cell in cells.items()}
    grid = compared(records, "transformer", "grid-4")
    walk = accuracy(records, grid) - accuracy(records, grid, SHIFTED)
    return [
        lab.above("transformer's fall", lab.mean(fall["direct"]), 0.1),
        lab.above("its fall less the LSTM's", lab.mean((fall["direct"] - fall["lstm"]).dropna()), 0),
        lab.holds("transformer's fall at positions beyond T", lab.mean(late["direct"]), "reported", True),
        lab.holds("LSTM's fall at positions beyond T", lab.mean(late["lstm"]), "reported", True),
        lab.holds("transformer's fall on grid-4", lab.mean(walk), "reported", True),
        lab.holds(
            "its fall on grid-4 beyond T", lab.mean(accuracy(records, grid) - beyond(records, grid)), "reported", True
        ),
    ]


def judge_brittle_control(records: "DataFrame") -> list[lab.Check]:
    cell = compared(records, "direct", "parity")
    fall = accuracy(records, cell) - accuracy(records, cell, "fresh")
    return [lab.within("transformer's fall on fresh strings", lab.mean(fall), -0.02, 0.02)]


def falls_beyond(records: "DataFrame") -> "dict[str, Series]":
    """By how much accuracy falls at positions beyond T, by kind of training on parity and by seed."""
    kinds = ("direct", "scratchpad", "recent scratchpad")
    cells = {kind: compared(records, kind, "parity") for kind in kinds}
    return {kind: accuracy(records, cell) - beyond(records, cell) for kind, cell in cells.items()}


def judge_scratchpad(records: "DataFrame") -> list[lab.Check]:
    falls, cell = falls_beyond(records), compared(records, "recent scratchpad", "parity")
    return [
        lab.above("direct fall less that with scratchpad", lab.mean(falls["direct"] - falls["recent scratchpad"]), 0.1),
        lab.above("accuracy beyond T with scratchpad", lab.mean(beyond(records, cell)), 0.99),
    ]


def judge_scratchpad_control(records: "DataFrame") -> list[lab.Check]:
    falls = falls_beyond(records)
    recent, plain, direct = (falls[kind].mean() for kind in ("recent scratchpad", "scratchpad", "direct"))
    between = recent - 0.005 <= plain <= direct
    return [lab.holds("fall without recency", lab.mean(falls["scratchpad"]), f"{recent:.3g} to {direct:.3g}", between)]


def judge_exact(records: "DataFrame") -> list[lab.Check]:
    wrong = records[(records["cell"] == "constructions") & (records["metric"] == "wrong")]["value"].sum()
    return [lab.holds("wrong strings, all constructions", lab.exact(wrong), "= 0", wrong == 0)]


def judge_exact_control(records: "DataFrame") -> list[lab.Check]:
    rows = records[records["cell"] == "doubling"].pivot(index="layers", columns="position", values="value")
    last = rows.to_numpy()[-2, -1]
    return [lab.holds("final accuracy with one layer too few", lab.exact(last), "< 1", last < 1)]


def change_with_few(records: "DataFrame", name: str) -> "Series":
    """Accuracy with few labels less that with all, by seed."""
    return accuracy(records, compared(records, "few labels", name)) - accuracy(
        records, compared(records, "transformer", name)
    )


def judge_labels(records: "DataFrame") -> list[lab.Check]:
    direct, indirect = (
        normalised(records, compared(records, kind, "dihedral-4")) for kind in ("transformer", "indirect labels")
    )
    return [
        lab.below("change of accuracy with few labels", lab.mean(change_with_few(records, "dihedral-4")), 0),
        lab.holds("change of normalised accuracy, position for state", lab.mean(indirect - direct), "reported", True),
    ]


def judge_labels_control(records: "DataFrame") -> list[lab.Check]:
    change = lab.mean(change_with_few(records, "flip-flop"))
    return [lab.within("change on flip-flop", change, -0.01, 0.01)]
