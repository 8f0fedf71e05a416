"""The rules of the claims, from records alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mesocosm import lab
from mesocosm.training.variation import MODES, Mode

if TYPE_CHECKING:
    from pandas import DataFrame, Series

INTERPOLATES = 0.99
"""Training accuracy, mean over the copies, from which a configuration counts."""
CONFIGURATION = ["cell", "size", "learning_rate", "weight_decay"]
"""What names a configuration in the records; `size` is a width, or a factor of initial weights."""


def ensembles(
    records: "DataFrame", groups: str | tuple[str, ...] = "", modes: Sequence[Mode] = MODES, labels: str | None = "true"
) -> "DataFrame":
    """One row for the ensemble of each configuration, mode, study seed and set of test labels (None: all of them)."""
    mine = records["cell"].str.startswith(groups) & records["mode"].isin(modes) & records["labels"].notna()
    table = records[mine].pivot(index=[*CONFIGURATION, "mode", "labels", "seed"], columns="metric", values="value")
    return table.query("labels == @labels") if labels else table


def interpolating(table: "DataFrame") -> "DataFrame":
    return table[table["train accuracy"] >= INTERPOLATES]


def slope(x: "Series", y: "Series") -> float:
    """Of the regression of y on x through the origin."""
    return (x * y).sum() / max((x * x).sum(), 1e-12)


def ratio(x: "Series", y: "Series") -> float:
    return y.sum() / max(x.sum(), 1e-12)


def correlation(x: "Series", y: "Series") -> float:
    return x.corr(y)


def rank_correlation(x: "Series", y: "Series") -> float:
    return x.rank().corr(y.rank())


def over_seeds(statistic: Callable, table: "DataFrame", x: str = "error", y: str = "disagreement") -> lab.Interval:
    """Mean over study seeds of a statistic of each seed's configurations, with its interval over seeds."""
    found = [statistic(rows[x], rows[y]) for _, rows in table.groupby("seed") if len(rows) >= 3]
    if len(found) < 2:
        raise lab.NotEnough(f"{len(found)} study seeds have 3 configurations to compare; the rule needs 2 such seeds")
    return lab.mean(found)


def judge_equality(records: "DataFrame") -> list[lab.Check]:
    checks = []
    judged: Sequence[Mode] = ["DiffInit"] if set(records["source"]) == {"digits"} else MODES
    for mode in judged:
        dots = interpolating(ensembles(records, "network/", [mode]))
        checks.append(lab.within(f"slope b under {mode}", over_seeds(slope, dots), 0.7, 1.3))
        checks.append(lab.above(f"correlation r under {mode}", over_seeds(correlation, dots), 0.5))
    return checks


def judge_equality_control(records: "DataFrame") -> list[lab.Check]:
    linear = ensembles(records, "logistic/", ["DiffInit"])
    mlp = interpolating(ensembles(records, "mlp/", ["DiffInit"]))
    return [
        lab.below("slope b of logistic regression", over_seeds(slope, linear), 0.7),
        lab.below("slope b of MLPs", over_seeds(slope, mlp), 0.6),
    ]


def judge_theorem(records: "DataFrame") -> list[lab.Check]:
    every = ensembles(records, labels=None)
    beyond_cace, beyond_bound = (every["absolute gap"] - every[bound] for bound in ("cace", "gap bound"))
    return [
        lab.below("largest |err - dis| - CACE", lab.exact(beyond_cace.max()), 1e-9),
        lab.below("largest |err - dis| - tighter bound", lab.exact(beyond_bound.max()), 1e-9),
        lab.below("identity", lab.exact((every["gap"] - every["gap from the curve"]).abs().max()), 1e-9),
    ]


def judge_theorem_control(records: "DataFrame") -> list[lab.Check]:
    example = records[records["cell"] == "example"].set_index("metric")["value"]
    excess = example["absolute gap"] - example["top-label ece"]
    return [lab.above("|err - dis| - top-label ECE", lab.exact(excess), 1e-9)]


def judge_miscalibration(records: "DataFrame") -> list[lab.Check]:
    every = ensembles(records, ("network/", "mlp/", "logistic/"))
    return [lab.above("Spearman correlation", over_seeds(rank_correlation, every, "cace", "absolute gap"), 0)]


def judge_miscalibration_control(records: "DataFrame") -> list[lab.Check]:
    true, permuted = (interpolating(ensembles(records, "network/", labels=kind)) for kind in ("true", "permuted"))
    rise = permuted["cace"].droplevel("labels") - true["cace"].droplevel("labels")
    moved = permuted["disagreement"].droplevel("labels") - true["disagreement"].droplevel("labels")
    return [
        lab.above("smallest rise of CACE", lab.exact(rise.min()), 0),
        lab.within("error", lab.mean(permuted["error"].groupby("seed").mean()), 0.87, 0.93),
        lab.holds("largest change of disagreement", lab.exact(moved.abs().max()), "= 0", not moved.any()),
    ]


def init_over_all(records: "DataFrame", group: str) -> lab.Interval:
    """Disagreement under DiffInit over that under AllDiff, of configurations that interpolate in both."""
    table = interpolating(ensembles(records, group, ["DiffInit", "AllDiff"]))["disagreement"]
    both = table.unstack("mode").reindex(columns=["AllDiff", "DiffInit"]).dropna()
    return over_seeds(ratio, both, "AllDiff", "DiffInit")
