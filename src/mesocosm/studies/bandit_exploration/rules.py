"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pandas import DataFrame, Series

EXPLORERS = ("UCB", "Thompson")
MODELS = ("local/", "endpoint/")
"""Prefixes of the cells of language models."""
MOST = 0.8
"""Share of the designs that must fail."""
NOTHING = 0.05
"""A change of SuffFailFreq or K MinFrac that is none."""
Bounds = tuple[float, float]


def middle(rounds: int) -> int:
    """The round from which on a suffix failure is judged, T/2."""
    return max(1, rounds // 2)


def values(records: "DataFrame", cell: str, name: str) -> "Series":
    """A measurement by game: suffix failures from round T/2 on, the rest at round T."""
    rows = records[records["cell"] == cell]
    rounds = int(rows["step"].max()) if len(rows) else 0
    found = rows[(rows["metric"] == name) & (rows["step"] == (middle(rounds) if name == "suffix failure" else rounds))]
    if found.empty:
        raise lab.NotEnough(f"there is no {name} of {cell}")
    return found.set_index("seed")["value"].sort_index()


def place(records: "DataFrame", cell: str) -> tuple[lab.Interval, lab.Interval]:
    """SuffFailFreq(T/2) and K MinFrac(T) of a player."""
    failures = values(records, cell, "suffix failure")
    return lab.share(int(failures.sum()), len(failures)), lab.mean(values(records, cell, "K MinFrac"))


def corner(records: "DataFrame") -> Bounds:
    """Up to where SuffFailFreq and K MinFrac may lie in play that explores: the upper ends of UCB's and Thompson's."""
    failures, least = zip(*(place(records, f"reference/{agent}") for agent in EXPLORERS))
    return max(found.high for found in failures), max(found.high for found in least)


def failures(records: "DataFrame", cell: str, bounds: Bounds) -> tuple[bool, bool]:
    """Whether a player clearly fails by suffix failure, and by playing as if uniformly."""
    suffix, least = place(records, cell)
    return suffix.low > bounds[0], least.low > bounds[1]


def in_corner(records: "DataFrame", cell: str, bounds: Bounds) -> bool | None:
    """Whether a player is where UCB and Thompson are; None where it is neither clearly out of it nor by estimate in."""
    found = place(records, cell)
    if any(one.low > bound for one, bound in zip(found, bounds)):
        return False
    return True if all(one.estimate <= bound for one, bound in zip(found, bounds)) else None


def cells_of(records: "DataFrame", *prefixes: str) -> list[str]:
    found = sorted(cell for cell in records["cell"].unique() if cell.startswith(prefixes))
    if not found:
        raise lab.NotEnough("no language model has played")
    return found


def judge_failures(records: "DataFrame") -> list[lab.Check]:
    cells, bounds = cells_of(records, *MODELS), corner(records)
    found = [in_corner(records, cell, bounds) for cell in cells]
    surely, perhaps = found.count(False) / len(cells), (found.count(False) + found.count(None)) / len(cells)
    verdict = True if surely >= MOST else False if perhaps < MOST else None
    share = lab.Interval(surely, surely, perhaps)
    return [lab.holds("share of the designs that clearly fail", share, f">= {MOST:g}", verdict)]


def judge_failures_control(records: "DataFrame") -> list[lab.Check]:
    checks, bounds = [], corner(records)
    for cell in cells_of(records, *(f"text/{agent}/" for agent in EXPLORERS)):
        clear = in_corner(records, cell, bounds) is not False
        checks.append(lab.holds(f"SuffFailFreq of {cell}", place(records, cell)[0], "no clear failure", clear))
    return checks


def judge_corners(records: "DataFrame") -> list[lab.Check]:
    cells, bounds = cells_of(records, *MODELS), corner(records)
    found = [in_corner(records, cell, bounds) for cell in cells]
    reached, both = found.count(True), sum(all(failures(records, cell, bounds)) for cell in cells)
    none = False if reached else None if None in found else True
    return [
        lab.holds("designs in the corner of UCB and Thompson", lab.exact(reached), "0, and none in doubt", none),
        lab.holds("designs that fail both ways", lab.exact(both), "0", both == 0),
    ]


def judge_corners_control(records: "DataFrame") -> list[lab.Check]:
    expected = {"UCB": (False, False), "Thompson": (False, False), "Greedy": (True, False), "uniform": (False, True)}
    told = {(False, False): "no clear failure", (True, False): "suffix failure alone", (False, True): "uniform alone"}
    checks, bounds = [], corner(records)
    for cell in cells_of(records, "text/"):
        wanted = expected[cell.split("/")[1]]
        right = failures(records, cell, bounds) == wanted
        checks.append(lab.holds(f"K MinFrac of {cell}", place(records, cell)[1], told[wanted], right))
    return checks


def auc(higher: "ArrayLike", lower: "ArrayLike", axis: int = -1) -> np.ndarray:
    """Probability that a draw of `higher` exceeds one of `lower`, ties counting half: 0.5 tells nothing.

    Source: Mann & Whitney (1947), On a test of whether one of two random variables is stochastically larger
    """
    from scipy.stats import rankdata

    higher, lower = (np.moveaxis(np.asarray(sample, dtype=float), axis, -1) for sample in (higher, lower))
    n, m = higher.shape[-1], lower.shape[-1]
    ranks = rankdata(np.concatenate([higher, lower], axis=-1), axis=-1)[..., :n].sum(-1)
    return (ranks - n * (n + 1) / 2) / (n * m)


def reward_auc(records: "DataFrame", higher: str, lower: str) -> lab.Interval:
    samples = [values(records, f"simulated/hard/{agent}", "mean reward") for agent in (higher, lower)]
    return lab.bootstrap(auc, *samples, paired=True)


def suffix_failures(records: "DataFrame", agent: str) -> lab.Interval:
    return place(records, f"simulated/hard/{agent}")[0]


def judge_reward(records: "DataFrame") -> list[lab.Check]:
    greedy, thompson = (suffix_failures(records, agent) for agent in ("Greedy", "Thompson"))
    return [
        lab.within("AUC by reward, Thompson over Greedy", reward_auc(records, "Thompson", "Greedy"), 0.35, 0.65),
        lab.above("SuffFailFreq of Greedy against Thompson's upper end", greedy, thompson.high),
    ]


def judge_reward_control(records: "DataFrame") -> list[lab.Check]:
    one, other = (suffix_failures(records, agent) for agent in ("Thompson", "Thompson again"))
    overlap = one.low <= other.high and other.low <= one.high
    bound = f"overlaps [{one.low:.3g}, {one.high:.3g}]"
    return [
        lab.holds("SuffFailFreq of Thompson with other draws", other, bound, overlap),
        lab.above("AUC by reward, UCB over uniform play", reward_auc(records, "UCB", "uniform"), 0.65),
    ]


def differences(records: "DataFrame", name: str, letter: int, before: str, after: str) -> lab.Interval:
    """Mean change of a measurement when one letter of the design changes, over all such pairs of designs.

    Paired by game, and pairs of designs are averaged before games are resampled.
    """
    changes = []
    for cell in cells_of(records, *MODELS):
        prefix, code = cell.split("/")
        other = f"{prefix}/{code[:letter]}{after}{code[letter + 1 :]}"
        if code[letter] == before and (records["cell"] == other).any():
            changes.append(values(records, other, name) - values(records, cell, name))
    if not changes:
        raise lab.NotEnough(f"no two designs differ in {before} and {after} alone")
    return lab.mean(np.mean(changes, axis=0))


def judge_prompts(records: "DataFrame") -> list[lab.Check]:
    names = {"suffix failure": "SuffFailFreq", "K MinFrac": "K MinFrac"}
    history = {label: differences(records, name, 2, "R", "S") for name, label in names.items()}
    checks = [summaries_count(history)]
    for name, check in (("K MinFrac", lab.above), ("GreedyFrac", lab.below)):
        checks.append(check(f"{name} at temperature 1 less at 0", differences(records, name, 4, "0", "1"), 0))
    return checks


def summaries_count(history: dict[str, lab.Interval]) -> lab.Check:
    """The history's check, on whichever of the measurements changes more."""
    excludes = any(found.low > 0 or found.high < 0 for found in history.values())
    nothing = all(found.low >= -NOTHING and found.high <= NOTHING for found in history.values())
    label = max(history, key=lambda name: abs(history[name].estimate))
    verdict = True if excludes else False if nothing else None
    return lab.holds(f"{label}, summarised less raw", history[label], "an interval excludes 0", verdict)


def judge_prompts_control(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for again in cells_of(records, "again/"):
        for name in ("suffix failure", "K MinFrac"):
            one, other = (values(records, cell, name) for cell in (again.removeprefix("again/"), again))
            found = lab.bootstrap(lambda a, b, axis: np.mean(b, axis) - np.mean(a, axis), one, other)
            checks.append(lab.contains(f"{name} of {again} less before", found, 0))
    return checks


def greedy_likeness(records: "DataFrame", cells: list[str]) -> lab.Interval:
    """GreedyFrac over these cells, 1 being Greedy's and 0 Thompson's at the same horizon."""
    greedy, thompson = (values(records, f"reference/{agent}", "GreedyFrac").mean() for agent in ("Greedy", "Thompson"))
    found = np.mean([values(records, cell, "GreedyFrac") for cell in cells], axis=0)
    return lab.mean((found - thompson) / (greedy - thompson))


def judge_greedy(records: "DataFrame") -> list[lab.Check]:
    if not records["cell"].str.startswith("endpoint/").any():
        raise lab.NotEnough("judged of models behind an endpoint: a small model that likes one name looks greedy too")
    bounds = corner(records)
    failing = [cell for cell in cells_of(records, "endpoint/") if failures(records, cell, bounds)[0]]
    if not failing:
        raise lab.NotEnough("no design fails by suffix failure")
    return [lab.above("likeness to Greedy of designs that fail", greedy_likeness(records, failing), 0.5)]


def judge_greedy_control(records: "DataFrame") -> list[lab.Check]:
    cells = cells_of(records, "text/Thompson/")
    return [lab.below("likeness of Thompson through prompts", greedy_likeness(records, cells), 0.5)]
