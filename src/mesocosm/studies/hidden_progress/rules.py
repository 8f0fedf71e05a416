"""The rules of the claims, from records alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab, measures

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

LEARNED, LEFT, FLAT = 0.02, 0.45, 0.48
"""A parity is learned below the first error; the plateau is left below the second and lasts above the third."""


def cells(records: "DataFrame", prefix: str) -> list[str]:
    return sorted(cell for cell in records["cell"].unique() if cell.startswith(prefix))


def curves(records: "DataFrame", cell: str, metric: str = "error") -> "tuple[Tensor, Tensor]":
    """The steps `[E]` at which a cell was measured, and a metric `[E, seeds]`."""
    import torch

    mine = records[(records["cell"] == cell) & (records["metric"] == metric)]
    wide = mine.pivot(index="step", columns="seed", values="value")
    return torch.tensor(wide.index.to_numpy()), torch.tensor(wide.to_numpy())


def times(records: "DataFrame", cell: str, metric: str = "error", threshold: float = LEARNED) -> np.ndarray:
    """t_c, each seed's first step with an error below the threshold; infinite where there is none."""
    return measures.time_to_threshold(*curves(records, cell, metric), threshold).numpy()


def plateau(records: "DataFrame", cell: str) -> lab.Interval:
    """Median share of t_c that is plateau; 0 for a seed that never learns."""
    return lab.median(measures.plateau_share(*curves(records, cell), LEFT, LEARNED).nan_to_num(0.0).tolist())


def nine_in_ten(name: str, good: np.ndarray) -> lab.Check:
    share = lab.share(good.sum(), len(good))
    return lab.holds(f"share of seeds {name}", share, ">= 0.9", share.estimate >= 0.9)


def judge_plateau(records: "DataFrame") -> list[lab.Check]:
    """C1."""
    names = [cell[3:] for cell in cells(records, "C1/") if "control" not in cell]
    mlps = [name for name in names if name.startswith(("reference", "relu", "power"))]
    long = [lab.above(f"plateau's share of t_c, {name}", plateau(records, f"C1/{name}"), 0.3) for name in mlps[::-1]]
    return long + [nine_in_ten(f"that learn, {name}", np.isfinite(times(records, f"C1/{name}"))) for name in names]


def judge_plateau_control(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for name, bound in (("noise labels", 0.45), ("random features", 0.40)):
        lowest = float(curves(records, f"C1/control/{name}")[1].nan_to_num(1.0).min())
        checks.append(lab.holds(f"lowest error, {name}", lab.exact(lowest), f">= {bound}", lowest >= bound))
    return checks


def times_by_n(records: "DataFrame", k: int) -> dict[int, np.ndarray]:
    """t_c of all seeds for C2's parities of k bits, by n."""
    found = {int(cell.rpartition("=")[2]): times(records, cell) for cell in cells(records, f"C2/k={k}/")}
    for n, t in found.items():
        if np.isinf(t).mean() > 0.1:
            raise lab.NotEnough(f"{np.isinf(t).sum()} of {len(t)} seeds did not learn k={k}, n={n}: 1 in 10 may fail")
    return dict(sorted(found.items()))


def slope(by_n: dict[int, np.ndarray]) -> Callable:
    """The exponent of the power law of median t_c over n, as a statistic of resampled t_c."""
    if len(by_n) < 2:
        raise lab.NotEnough(f"a slope needs two sizes n, there is only n={[*by_n]}")
    return lambda *t, axis=-1: fit([*by_n], t).exponent


def fit(n: Sequence[int], t: Sequence[np.ndarray]) -> Any:
    return measures.power_law(np.array(n), np.stack([np.median(of_n, axis=-1).clip(1) for of_n in t], axis=-1))


def steeper(less: dict[int, np.ndarray], more: dict[int, np.ndarray]) -> lab.Interval:
    """By how much the slope is larger for the second."""
    first, second, split = slope(less), slope(more), len(less)
    difference = lambda *t, axis=-1: second(*t[split:]) - first(*t[:split])
    return lab.bootstrap(difference, *less.values(), *more.values())


def judge_scaling(records: "DataFrame") -> list[lab.Check]:
    """C2."""
    k2, k3, k5 = (times_by_n(records, k) for k in (2, 3, 5))
    if len(k3) < 3:
        raise lab.NotEnough(f"R^2 at k = 3 needs three sizes n, there is only n={[*k3]}")
    return [
        lab.above("slope at k = 3 - slope at k = 2", steeper(k2, k3), 0),
        lab.above("slope at k = 5 - slope at k = 3", steeper(k3, k5), 0),
        lab.above("R^2 at k = 3", lab.bootstrap(lambda *t, axis=-1: fit([*k3], t).r2, *k3.values()), 0.9),
    ]


def judge_scaling_control(records: "DataFrame") -> list[lab.Check]:
    k3 = times_by_n(records, 3)
    halves = [{n: t[half::2] for n, t in k3.items()} for half in (0, 1)]
    if min(map(len, halves[1].values()), default=0) < 2:
        raise lab.NotEnough("halves of the seeds need at least two each")
    linear = cells(records, "C2/k=1/")
    flat = [lab.below(f"plateau's share of t_c, {cell[3:]}", plateau(records, cell), 0.3) for cell in linear]
    return [*flat, lab.contains("difference of slopes between halves of the seeds, k = 3", steeper(*halves), 0)]


def on_plateau(records: "DataFrame", cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Each seed's z at its last evaluation on the plateau, and R^2 of the line through its progress up to there."""
    table = records[records["cell"] == cell].pivot(index=["seed", "step"], columns="metric", values="value")
    table = table.reindex(columns=["error", "progress", "z"]).reset_index("step")
    z, r2 = [], []
    for _, curve in table.groupby("seed"):
        flat = curve[curve["step"] <= curve["step"][curve["error"] > FLAT].max()]
        z.append(flat["z"].iloc[-1] if len(flat) else np.nan)
        r2.append(flat["step"].corr(flat["progress"], min_periods=3) ** 2)
    return np.array(z), np.nan_to_num(r2)


def judge_progress(records: "DataFrame") -> list[lab.Check]:
    """C3."""
    checks = []
    for cell in ("k=4", "k=3"):
        z, r2 = on_plateau(records, f"C3/{cell}")
        checks.append(nine_in_ten(f"with z > 3, {cell}", z > 3))
        checks.append(lab.above(f"median R^2 of progress over steps, {cell}", lab.median(r2), 0.8))
    return checks


def judge_progress_control(records: "DataFrame") -> list[lab.Check]:
    mean = lab.mean(on_plateau(records, "C3/noise labels")[0])
    small = lab.holds("size of the mean z", mean, "< 1", abs(mean.estimate) < 1)
    return [lab.contains("mean z", mean, 0), small]


def variation(t: np.ndarray, axis: int = -1) -> Any:
    return np.std(t, axis=axis, ddof=1) / np.mean(t, axis=axis)


def earliest(t: np.ndarray, axis: int = -1) -> Any:
    return np.min(t, axis=axis) / np.median(t, axis=axis)


def search_times(records: "DataFrame", cell: str) -> np.ndarray:
    t = times(records, f"C4/{cell}")
    if np.isinf(t).any() or len(t) < 2:
        raise lab.NotEnough(f"{np.isfinite(t).sum()} of {len(t)} networks learned; the rule needs all, and at least 2")
    return t


def judge_search(records: "DataFrame") -> list[lab.Check]:
    """C4."""
    t, deviation = search_times(records, "random starts"), partial(np.std, ddof=1)
    most, of_order = (lab.bootstrap(deviation, of) for of in (t, search_times(records, "one start")))
    bound = "<= upper end with random starts"
    return [
        lab.below("coefficient of variation of t_c", lab.bootstrap(variation, t), 0.5),
        lab.above("earliest / median t_c", lab.bootstrap(earliest, t), 0.5),
        lab.holds("standard deviation of t_c from one start", of_order, bound, of_order.estimate <= most.high),
    ]


def judge_search_control(records: "DataFrame") -> list[lab.Check]:
    t = search_times(records, "random starts")
    blind = np.random.default_rng(0).geometric(1 - 0.5 ** (1 / np.median(t)), len(t))
    return [
        lab.above("coefficient of variation, geometric times", lab.bootstrap(variation, blind), 0.5),
        lab.below("earliest / median, geometric times", lab.bootstrap(earliest, blind), 0.5),
    ]


def judge_gap(records: "DataFrame") -> list[lab.Check]:
    """C5."""
    low, high = (getattr(records.groupby("metric")["value"], end)() for end in ("min", "max"))
    off, ratio, gap = high["difference"], high["ratio difference"], low["gap over bound"]
    return [
        lab.holds("largest difference of gradients", lab.exact(off), "<= 1e-9", off <= 1e-9),
        lab.holds("largest difference of the ratio from (n-k)/(k-1)", lab.exact(ratio), "<= 1e-9", ratio <= 1e-9),
        lab.holds("smallest gap over the paper's bound", lab.exact(gap), ">= 1", gap >= 1),
    ]


def lags(records: "DataFrame") -> dict[int, np.ndarray]:
    """t_c over the time to fit all training samples of each seed, by number of samples."""
    found = {}
    for cell in cells(records, "C6/"):
        learned, fitted = times(records, cell), times(records, cell, "train error", 1e-9)
        found[int(cell.rpartition("=")[2])] = learned / fitted.clip(1, 1e12)
    return dict(sorted(found.items()))


def fewest(records: "DataFrame") -> int | None:
    """The smallest number of samples from which 9 in 10 seeds learn."""
    return min((m for m, lag in lags(records).items() if np.isfinite(lag).mean() >= 0.9), default=None)


def judge_grokking(records: "DataFrame") -> list[lab.Check]:
    """C6."""
    samples = fewest(records)
    if samples is None:
        raise lab.NotEnough("9 in 10 seeds learned on no number of samples")
    return [lab.above(f"median lag on {samples} samples", lab.median(lags(records)[samples]), 2)]


def judge_grokking_control(records: "DataFrame") -> list[lab.Check]:
    samples, lag = max(lags(records).items())
    return [lab.below(f"median lag on {samples} samples", lab.median(lag), 2)]
