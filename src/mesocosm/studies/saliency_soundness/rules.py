"""The rules of the claims, from records alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame

EXISTING = ("gradient x input", "integrated gradients", "mask")
MASKS = ("mask", "mask with TV", "coarse mask", "coarse mask with TV")
FILLED = "soundness, images as fill"


@dataclass(frozen=True)
class Network:
    """One network's measurements.

    A method of another cell than that of the trained network's maps goes by `shuffled mask`, say.
    """

    tables: dict[tuple[str, str], np.ndarray]
    """`[B, A]` by method and metric."""
    targets: np.ndarray
    """`[B]`, classes of the images."""

    def of(self, method: str, metric: str) -> np.ndarray:
        if (method, metric) not in self.tables:
            raise lab.NotEnough(f"there is no {metric} of {method}")
        return self.tables[method, metric]

    def split(self, method: str, metric: str, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """At the predicted label, or at these, and the mean over all others, `[B]` each."""
        values = self.of(method, metric)
        chosen = self.of(method, "probability").argmax(1) if labels is None else labels
        own = values[np.arange(len(values)), chosen]
        return own, (values.sum(1) - own) / (values.shape[1] - 1)


Statistic = Callable[[Network, np.ndarray], np.ndarray]
"""Of a network and weights of its images `[..., B]`, which sum to 1."""


def networks(records: "DataFrame") -> list[Network]:
    """Raises NotEnough when there are none."""
    if "image" not in records:
        raise lab.NotEnough("there are no maps: every network diverged")
    rows = records[records["image"].notna()]
    names = rows["method"].where(rows["cell"] == "maps", rows["cell"] + " " + rows["method"])
    found = []
    for _, own in rows.assign(method=names).groupby("seed"):
        shape = own["image"].nunique(), own["label"].nunique()
        own = own.sort_values(["image", "label"])
        tables = {
            (str(method), str(metric)): one["value"].to_numpy().reshape(shape)
            for (method, metric), one in own.groupby(["method", "metric"])
        }
        found.append(Network(tables, own.groupby("image")["target"].first().to_numpy(dtype=int)))
    return found


def over_images(nets: list[Network], statistic: Statistic) -> lab.Interval:
    """Mean over networks of a statistic, with an interval over the images of each network."""
    images = [np.arange(len(net.targets)) for net in nets]

    def mean(*drawn: np.ndarray, axis: int) -> np.ndarray:
        weights = [(rows[..., None] == own).mean(axis=-2) for rows, own in zip(drawn, images)]
        return np.mean([statistic(net, w) for net, w in zip(nets, weights)], axis=0)

    return lab.bootstrap(mean, *images)


def predicted(method: str, metric: str) -> Statistic:
    """Mean over images at the predicted label."""
    return lambda net, weights: weights @ net.split(method, metric)[0]


def wrong(method: str, metric: str = "insertion area") -> Statistic:
    """Mean over images and all labels but the predicted."""
    return lambda net, weights: weights @ net.split(method, metric)[1]


def worst(method: str, metric: str = "soundness") -> Statistic:
    """Mean over images at the label where it is least on all of them.

    The label is not chosen anew in a bootstrap sample: the least of noisy means lies lower than the mean that is least.
    """

    def at_worst(net: Network, weights: np.ndarray) -> np.ndarray:
        values = net.of(method, metric)
        return weights @ values[:, values.mean(axis=0).argmin()]

    return at_worst


def less(one: Statistic, other: Statistic) -> Statistic:
    return lambda net, weights: one(net, weights) - other(net, weights)


def judge_existing(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    checks = []
    for method in EXISTING:
        checks += [
            lab.below(f"{method}: worst soundness", over_images(nets, worst(method)), 0.3),
            lab.above(f"{method}: completeness", over_images(nets, predicted(method, "completeness")), 0.9),
        ]
    filled = [over_images(nets, worst(method, FILLED)) for method in EXISTING]
    return checks + [
        lab.holds(f"{method}: worst soundness with images as fill", found, "reported", True)
        for method, found in zip(EXISTING, filled)
    ]


def judge_existing_control(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    constant = [net.of("constant random", metric) for net in nets for metric in ("completeness", "soundness")]
    least = lab.exact(min(values.min() for values in constant))
    return [
        lab.below("random map: completeness", over_images(nets, predicted("random", "completeness")), 0.7),
        lab.above("random map: worst soundness", over_images(nets, worst("random")), 0.3),
        lab.holds("constant classifier: least completeness and soundness", least, "1", least.estimate > 1 - 1e-6),
    ]


def judge_regularised(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    checks = []
    for mask in reversed(MASKS[1:]):
        sounder = over_images(nets, less(worst(mask), worst("mask")))
        spelled = over_images(nets, less(wrong(mask), wrong("mask")))
        checks += [
            lab.above(f"{mask}: gain in worst soundness", sounder, 0),
            lab.below(f"{mask}: change of the wrong labels' insertion area", spelled, 0),
        ]
    best = MASKS[-1]
    cost = over_images(nets, less(predicted(best, "completeness"), predicted("mask", "completeness")))
    filled = over_images(nets, less(worst(best, FILLED), worst("mask", FILLED)))
    return [
        *checks,
        lab.holds(f"{best}: change of completeness", cost, "reported", True),
        lab.holds(f"{best}: gain in worst soundness with images as fill", filled, "reported", True),
    ]


def judge_regularised_control(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    checks = []
    for mask in (MASKS[-1], MASKS[0]):
        learned, random, mixed = (predicted(name, "completeness") for name in (mask, "random", f"shuffled {mask}"))
        nearer = over_images(nets, less(less(mixed, random), less(learned, mixed)))
        checks.append(
            lab.below(f"{mask}: completeness from random to shuffled, less from shuffled to learned", nearer, 0)
        )
    gain = over_images(nets, less(worst(f"shuffled {MASKS[-1]}"), worst(f"shuffled {MASKS[0]}")))
    return [*checks, lab.holds("gain in worst soundness between shuffled masks", gain, "low end <= 0", gain.low <= 0)]


def judge_competitive(records: "DataFrame") -> list[lab.Check]:
    """Of the mask whose nearer bound is cleared by most."""
    nets = networks(records)

    def both(mask: str) -> tuple[lab.Interval, lab.Interval]:
        complete = less(predicted(mask, "completeness"), predicted("|gradient|", "completeness"))
        return over_images(nets, complete), over_images(nets, less(worst(mask), worst("integrated gradients")))

    found = {mask: both(mask) for mask in MASKS}
    best = max(MASKS, key=lambda mask: min(interval.low for interval in found[mask]))
    sound = over_images(nets, less(worst(best), worst("|gradient|")))
    return [
        lab.above(f"{best}: completeness less that of |gradient|", found[best][0], 0),
        lab.above(f"{best}: worst soundness less that of integrated gradients", found[best][1], 0),
        lab.holds(f"{best}: worst soundness less that of |gradient|", sound, "reported", True),
    ]


def judge_competitive_control(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)

    def advantage(net: Network, weights: np.ndarray) -> np.ndarray:
        own, others = net.split("untrained mask", "insertion area", net.targets)
        return weights @ (own - others)

    return [
        lab.within(
            "untrained network: insertion area at the true label less that at others",
            over_images(nets, advantage),
            -0.1,
            0.1,
        )
    ]


def methods(net: Network) -> list[str]:
    """Of the trained network's maps, those that are not random, in a fixed order."""
    others = ("random", "shuffled ", "untrained ", "constant ")
    return sorted({method for method, _ in net.tables if not method.startswith(others)})


def agreement(nets: list[Network], *statistics: Callable[[str], Statistic]) -> lab.Interval:
    """Spearman's correlation over methods between two statistics."""

    def correlation(net: Network, weights: np.ndarray) -> np.ndarray:
        one, other = (np.stack([of(name)(net, weights) for name in methods(net)], axis=-1) for of in statistics)
        return lab.rank_correlation(one, other)

    return over_images(nets, correlation)


def judge_ranking(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    spelled = over_images(nets, less(wrong("greedy"), wrong("gradient x input")))
    hidden = agreement(nets, partial(predicted, metric="deletion area"), worst)
    return [
        lab.below("correlation of insertion area and worst soundness", agreement(nets, inserted, worst), 0),
        lab.above("wrong labels' insertion area: greedy less gradient x input", spelled, 0),
        lab.holds("correlation of deletion area and worst soundness", hidden, "reported", True),
    ]


def judge_ranking_control(records: "DataFrame") -> list[lab.Check]:
    nets = networks(records)
    complete = agreement(nets, inserted, partial(predicted, metric="completeness"))
    return [lab.above("correlation of insertion area and completeness", complete, 0)]


inserted = partial(predicted, metric="insertion area")
