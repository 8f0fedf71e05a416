"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pandas import DataFrame, Series

LOSSES = ("NCE", "eNCE")
METHODS = ("GD NCE", "GD eNCE", "NGD NCE", "NGD eNCE")
SHARES = tuple(i / 100 for i in range(100))
"""Places on the segment from noise to data, whose parameters are 0 and tau*, as shares of tau*."""
FLAT, FAR = (0.5, 0.95), 4
"""Between which shares the least gradient is looked for, and from which distance on its slope is taken."""
JUDGED = 0.5
"""Distance from tau* at which a descent has arrived."""
EXACT, ROUTES, OFF = 1e-10, 1e-8, 1e-3
"""Relative errors of identities, of gradients by two routes, and the least relative gradient off the optimum."""


def largest(records: "DataFrame", *names: str) -> lab.Interval:
    """Over distances and over these identities."""
    return lab.exact(max(lab.rows(records, name, "identities")["value"].max() for name in names))


def judge_identities(records: "DataFrame") -> list[lab.Check]:
    kinds = {
        "eNCE at tau* is the Bhattacharyya coefficient": (
            "eNCE value", "eNCE value, closed form", "Bhattacharyya coefficient",
        ),
        "gradients at tau*": ("NCE gradient", "eNCE gradient"),
        "Hessian of eNCE at tau* and its condition number": ("eNCE Hessian", "eNCE condition"),
        "NCE at tau* is log 2 less the Jensen-Shannon divergence": ("NCE value",),
    }  # fmt: skip
    errors = {name: largest(records, *names) for name, names in kinds.items()}
    routes = largest(records, "NCE gradient routes", "eNCE gradient routes")
    checks = [lab.holds(name, error, f"<= {EXACT:g}", error.estimate <= EXACT) for name, error in errors.items()]
    return [*checks, lab.holds("gradients by two routes", routes, f"<= {ROUTES:g}", routes.estimate <= ROUTES)]


def judge_identities_control(records: "DataFrame") -> list[lab.Check]:
    least = {
        loss: lab.rows(records, f"{loss} gradient off the optimum", "identities")["value"].min() for loss in LOSSES
    }
    return [
        lab.holds(f"least gradient of {loss} at a wrong c", lab.exact(value), f"> {OFF:g}", value > OFF)
        for loss, value in least.items()
    ]


def slope(squares: "ArrayLike", values: "ArrayLike") -> float:
    """Least squares slope of values against squared distances.

    Raises:
        NotEnough: for fewer than two distances.
    """
    x, y = np.asarray(squares, dtype=float), np.asarray(values, dtype=float)
    if len(x) < 2:
        raise lab.NotEnough(f"a slope needs two distances, and there are {len(x)}")
    return float(np.polyfit(x, y, 1)[0])


def flatness(records: "DataFrame", loss: str, cell: str = "landscape", by: str = "distance") -> "Series":
    """Log of the least gradient norm on the segment, by distance (or shift)."""
    rows = lab.rows(records, "gradient norm", cell)
    rows = rows[(rows["loss"] == loss) & rows["share"].between(FLAT[0] - 1e-9, FLAT[1] + 1e-9)]
    return rows.groupby(by)["value"].min().map(np.log)


def judge_flatness(records: "DataFrame") -> list[lab.Check]:
    slopes = {}
    for loss in LOSSES:
        least = flatness(records, loss).loc[FAR:]
        slopes[loss] = lab.exact(slope(least.index**2, least))
    return [lab.within(f"slope of log gradient, {loss}", found, -0.150, -0.110) for loss, found in slopes.items()]


def judge_flatness_control(records: "DataFrame") -> list[lab.Check]:
    checks = []
    for loss in LOSSES:
        least = flatness(records, loss, "moved together", "shift")
        found = lab.exact(slope(least.index**2, least))
        checks.append(lab.within(f"slope against the squared shift, {loss}", found, -0.005, 0.005))
    return checks


def best_steps(records: "DataFrame", method: str) -> "DataFrame":
    """Fewest steps over the rates and the rate that took them, by distance; overflowed runs do not count.

    Columns are `steps`, `rate` and `arrived`, which is 0 where steps are the budget, a lower bound.
    """
    rows = records[(records["cell"] == "descent") & (records["method"] == method)]
    table = rows.pivot(index=["distance", "rate"], columns="metric", values="value").reset_index()
    if not {"steps", "arrived"} <= set(table):
        raise lab.NotEnough(f"no descent by {method} stayed finite")
    table = table.dropna(subset=["steps"]).sort_values(["steps", "rate"], ascending=[True, False], kind="stable")
    return table.groupby("distance")[["steps", "rate", "arrived"]].first()


def growth(records: "DataFrame", method: str) -> lab.Interval:
    """Slope of log steps against squared distance, between its extremes when any one distance is left out."""
    steps = best_steps(records, method)["steps"].clip(lower=1)
    squares, logs = steps.index.to_numpy() ** 2, np.log(steps.to_numpy())
    whole = slope(squares, logs)
    if len(logs) < 3:
        raise lab.NotEnough(f"the spread of a slope needs three distances, and there are {len(logs)}")
    parts = [slope(np.delete(squares, i), np.delete(logs, i)) for i in range(len(logs))]
    return lab.Interval(whole, min(parts), max(parts))


def path_lengths(records: "DataFrame", method: str) -> "Series":
    """Steps times rate over |tau*|, by distance: 1 would be a straight line."""
    best = best_steps(records, method)
    squares = best.index.to_numpy() ** 2
    return best["steps"] * best["rate"] / np.sqrt(squares + squares**2 / 4)


def judge_descent(records: "DataFrame") -> list[lab.Check]:
    slopes = {method: growth(records, method) for method in ("GD NCE", "GD eNCE")}
    longest = lab.exact(path_lengths(records, "NGD eNCE").max())
    everywhere = best_steps(records, "NGD eNCE")["arrived"].min() == 1
    return [
        *(lab.above(f"slope of log steps, {method}", found, 0.10) for method, found in slopes.items()),
        lab.holds("longest path of NGD eNCE over |tau*|", longest, "<= 3", everywhere and longest.estimate <= 3),
    ]


def judge_descent_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.below("slope of log steps, NGD eNCE", growth(records, "NGD eNCE"), 0.10)]


def step_ratio(records: "DataFrame", distance: float) -> lab.Interval:
    """Steps of NGD on NCE over those on eNCE; a lower bound where the budget ended the former."""
    nce, ence = (best_steps(records, f"NGD {loss}") for loss in LOSSES)
    if distance not in nce.index.intersection(ence.index):
        raise lab.NotEnough(f"there is no descent at distance {distance:g}")
    if not ence["arrived"][distance]:
        raise lab.NotEnough(f"NGD on eNCE did not arrive at distance {distance:g}")
    return lab.exact(nce["steps"][distance] / ence["steps"][distance])


def judge_losses(records: "DataFrame") -> list[lab.Check]:
    return [lab.above(f"ratio at distance {far}", step_ratio(records, far), 1.5) for far in (6, 5)]


def judge_losses_control(records: "DataFrame") -> list[lab.Check]:
    return [lab.within("ratio at distance 2", step_ratio(records, 2), 0.8, 1.25)]


def sampled(records: "DataFrame", near: bool = False) -> float:
    """The distance of the sampled Gaussians, or that of their control."""
    found = records[records["cell"].str.startswith("sampled/")]["distance"]
    if found.nunique() < 2:
        raise lab.NotEnough("the sampled Gaussians need a distance and a nearer control")
    return float(found.min() if near else found.max())


def ended(records: "DataFrame", cell: str, name: str = "distance to optimum") -> "Series":
    """The last measurement by seed, at the rate whose mean over seeds is best; rates at which a seed diverged are out.

    Raises:
        NotEnough: where no rate is left.
    """
    rows = lab.rows(records, name, cell)
    last = rows[rows["step"] == rows["step"].max()].pivot(index="seed", columns="rate", values="value")
    last = last.reindex(rows["seed"].unique()).dropna(axis=1)
    if last.empty:
        raise lab.NotEnough(f"{cell} diverged at every rate")
    return last[last.mean().idxmin()].rename(last.mean().idxmin())


def advantage(records: "DataFrame", distance: float, other: str) -> lab.Interval:
    """Distance to the optimum that GD on NCE has left, less what the other method has left, paired by seed."""
    plain, treated = (ended(records, f"sampled/distance={distance:g}/{method}") for method in ("GD NCE", other))
    return lab.mean(plain - treated)


def judge_sampled(records: "DataFrame") -> list[lab.Check]:
    distance = sampled(records)
    return [
        lab.above("GD NCE less NGD eNCE", advantage(records, distance, "NGD eNCE"), 0),
        lab.above("GD NCE less NGD NCE", advantage(records, distance, "NGD NCE"), 0),
    ]


def judge_sampled_control(records: "DataFrame") -> list[lab.Check]:
    distance = sampled(records, near=True)
    found = advantage(records, distance, "NGD eNCE")
    small = None if np.isnan(found.low) else found.low <= 0 or found.estimate < 0.1 * distance
    bound = f"interval reaches 0, or < {0.1 * distance:g}"
    return [lab.holds(f"GD NCE less NGD eNCE at distance {distance:g}", found, bound, small)]
