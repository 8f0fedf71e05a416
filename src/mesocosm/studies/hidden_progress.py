"""Does SGD find a sparse parity by blind search, or by steady progress that loss and error do not show?

Networks learn the product of k of n random bits. Their error stays at chance for long, then falls suddenly. The paper
shows that all the while the weights move along the population gradient of the true parity, which differs from that of
wrong ones by a gap between two Fourier coefficients of a neuron.

Source: Barak, Edelman, Goel, Kakade, Malach & Zhang (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near
the Computational Limit, NeurIPS, arXiv 2207.08799
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mesocosm import lab, measures, models, tasks, training
from mesocosm.lab.style import BLUE, COLOURS, GREY, ORANGE
from mesocosm.settings import setting

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Online, Population
    from mesocosm.training.loop import Measure

    Architect = Callable[[Any], nn.Module]

LEARNED, LEFT, FLAT = 0.02, 0.45, 0.48
"""A parity is learned below the first error; the plateau is left below the second and lasts above the third."""
GAPS = ((7, 2), (9, 4), (11, 4), (13, 4), (13, 6))
"""(n, k) at which the Fourier gap is checked by enumeration."""
POWERS = {2: "quadratic", 3: "cubic", 4: "quartic"}

Architecture = Literal[
    "relu-10", "relu-1000", "power-10", "power-100", "power-1000",
    "polynet", "disjoint-polynet", "zigzag", "infinite-zigzag", "sinusoid",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Parities, networks, and how they are trained."""

    seeds: int = setting(16, "seeds of every claim but C4", low=1, high=1000)
    search_seeds: int = setting(64, "seeds of C4, which is about a distribution of times", low=1, high=1000)
    n: int = setting(30, "bits in C1 and C4", low=10, high=100)
    k: int = setting(3, "relevant bits in C1 and C4", low=2, high=4)
    architectures: tuple[Architecture, ...] = setting(
        ("relu-10", "power-100", "polynet", "disjoint-polynet", "zigzag", "sinusoid"),
        "networks in C1 besides the reference, a ReLU MLP of width 100; power-100 has the activation z^k",
    )
    bits_1: tuple[int, ...] = setting((10, 20, 40), "bits of C2's linear targets, k = 1", low=5, high=100)
    bits_2: tuple[int, ...] = setting((10, 20, 40), "bits of C2's parities of k = 2", low=5, high=100)
    bits_3: tuple[int, ...] = setting((10, 15, 20, 30, 40), "bits of C2's parities of k = 3", low=5, high=100)
    bits_4: tuple[int, ...] = setting((10, 20), "bits of C2's parities of k = 4, not judged", low=5, high=100)
    bits_5: tuple[int, ...] = setting((14, 20), "bits of C2's parities of k = 5", low=5, high=100)
    exact_n: int = setting(15, "bits in C3, whose gradients are exact", low=8, high=16)
    wrong_sets: int = setting(20, "wrong sets with which C3 compares the true one", low=2, high=50)
    samples: tuple[int, ...] = setting((200, 250, 300, 400, 1600), "training samples in C6", low=50, high=10_000)
    learning_rate: float = setting(0.1, "learning rate of SGD, constant", low=0, high=10)
    batch_size: int = setting(32, "samples a step", low=1, high=4096)
    weight_decay: float = setting(0.01, "weight decay; none in C3", low=0, high=1)
    steps: int = setting(20_000, "step limit; a network stops when it has learned", low=1, high=10_000_000)
    control_steps: int = setting(2500, "steps of C1's controls, which never learn", low=1, high=10_000_000)

    def check(self) -> None:
        for name in ("architectures", "bits_1", "bits_2", "bits_3", "bits_4", "bits_5", "samples"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={values} is not legal: its values must differ")


PRESETS = {
    "smoke": Config(
        seeds=3, search_seeds=6, n=10, architectures=("power-100", "disjoint-polynet"), bits_1=(5, 10), bits_2=(5, 10),
        bits_3=(5, 7, 10), bits_4=(5, 7), bits_5=(6, 7), exact_n=10, wrong_sets=10, samples=(300, 1600),
        steps=2500, control_steps=300,
    ),
    "small": Config(),
    "paper": Config(
        seeds=25, search_seeds=1000, n=50, architectures=get_args(Architecture), bits_2=(10, 20, 30, 40, 50),
        bits_3=(10, 15, 20, 30, 40, 50), bits_4=(10, 20, 30), bits_5=(14, 20, 30), exact_n=16, wrong_sets=50,
        samples=(100, 150, 200, 250, 300, 400, 800, 1600), steps=100_000, control_steps=20_000,
    ),
}  # fmt: skip


def mlp(task: Any, width: int = 100, activation: str = "relu") -> "nn.Module":
    return models.MLP.for_task(task, hidden=(width,), activation=activation)


def random_features(task: Any) -> "nn.Module":
    """The reference with a first layer that is never trained."""
    model: Any = mlp(task)
    model.layers[0].requires_grad_(False)
    return model


def architecture(name: str) -> "Architect":
    kind, _, width = name.partition("-")
    if kind == "relu":
        return partial(mlp, width=int(width))
    if kind == "power":
        return lambda task: mlp(task, int(width), POWERS[task.k])
    if name == "polynet":
        return lambda task: models.PolyNet.for_task(task, degree=task.k)
    if name == "disjoint-polynet":
        return lambda task: models.DisjointPolyNet.for_task(task, degree=task.k)
    return lambda task: models.SingleNeuron.for_task(task, degree=task.k, activation=name)


def plan(config: Config) -> Iterator[lab.Cell]:
    sgd = partial(training.SGD, config.learning_rate)
    seeds = range(config.seeds)

    def cell(name: str, task: Any, model: "Architect" = mlp, seeds: Sequence[int] = seeds, **changes: Any) -> lab.Cell:
        usual = {
            "objective": training.hinge,
            "optimiser": sgd(weight_decay=config.weight_decay),
            "steps": config.steps,
            "batch_size": config.batch_size,
            "measure": errors(error=fixed_samples("held-out", task, 2000, seeds)),
            "every": 25,
            "stop": lambda values: values["error"] < LEARNED,
            "settings": {"n": task.n, "k": task.k},
        }
        return lab.Cell(name=name, task=task, model=model, seeds=seeds, **{**usual, **changes})

    parity = tasks.SparseParity(n=config.n, k=config.k)
    yield cell("C1/reference", parity)
    for kind in config.architectures:
        other = partial(cell, model=architecture(kind), every=25 if "relu" in kind else 5, swappable=False)
        if kind == "disjoint-polynet":
            blocks = tasks.BlockParity(n=config.n - config.n % config.k, k=config.k)
            held_out = fixed_samples("held-out", blocks, 2000, seeds)
            yield other(f"C1/{kind}", blocks, measure=with_theory(errors(error=held_out)))
        else:
            yield other(f"C1/{kind}", parity)
    yield cell("C1/control/noise labels", replace(parity, noise=1.0), steps=config.control_steps)
    yield cell("C1/control/random features", parity, random_features, steps=config.control_steps, swappable=False)

    for k, every in ((1, 1), (2, 10), (3, 25), (4, 25), (5, 100)):
        for n in getattr(config, f"bits_{k}"):
            yield cell(f"C2/k={k}/n={n}", tasks.SparseParity(n=n, k=k), every=every)

    for name, k, noise in (("k=4", 4, 0.0), ("k=3", 3, 0.0), ("noise labels", 4, 1.0)):
        task, steps = tasks.SparseParity(n=config.exact_n, k=k, noise=noise), 400 if noise else config.steps
        # `run` adds the measure, which needs the weights at step 0.
        yield cell(f"C3/{name}", task, partial(mlp, width=64), optimiser=sgd(), steps=steps, measure=None)

    for name, init in (("random starts", None), ("one start", ["one start"] * config.search_seeds)):
        yield cell(f"C4/{name}", parity, seeds=range(config.search_seeds), init=init)

    task = tasks.SparseParity(n=20, k=3)
    for count in config.samples:
        train, held_out = fixed_samples("train", task, count, seeds), fixed_samples("held-out", task, 2000, seeds)
        yield cell(
            f"C6/samples={count}",
            task,
            stream=passes_over(train, config.batch_size),
            measure=errors(error=held_out, **{"train error": train}),
            every=100,
        )


def fixed_samples(name: str, task: Any, count: int, seeds: Sequence[int]) -> "Online":
    """A stream whose first batch `[R, count, ...]` holds each seed's own samples of this name."""
    return training.Online(task, count, [f"{name} {seed}" for seed in seeds], chunk=1)


def passes_over(samples: "Online", batch_size: int) -> Any:
    """Each replica passes over its own samples, in a fresh order each time."""
    import torch

    replicas, count = len(samples.seeds), samples.batch_size
    data = samples(0, range(replicas), torch.device("cpu"))
    data = data._make(field.flatten(0, 1) for field in data)  # [R, count, ...] -> [R count, ...]
    return training.Epochs(data, batch_size, samples.seeds, torch.arange(len(data.inputs)).view(replicas, count))


def error(model: "nn.Module", batch: Any) -> "Tensor":
    return measures.sign_error(model(batch.inputs), batch.targets, batch.weights)


def errors(**samples: "Online") -> "Measure":
    """Measures the error of each replica on its own samples, by the samples' name."""

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        batches = {name: stream(0, population.index, population.device) for name, stream in samples.items()}
        return {name: population.map(error, batch) for name, batch in batches.items()}

    return measure


def with_theory(measure: "Measure") -> "Measure":
    """Measures besides what error the weights of a disjoint-PolyNet imply."""
    implied = measures.disjoint_polynet_error
    return lambda population, step: {
        **measure(population, step),
        "implied error": implied(population.weights()["weight"]),
    }


def hidden_progress(start: "Population", task: Any, wrong: int) -> "Measure":
    """Measures exact error, the paper's rho, and progress along the exact gradients of the true and of wrong sets."""
    import torch

    from mesocosm.measures.progress import wrong_sets
    from mesocosm.seeding import generator

    cube = task.enumerate()
    cube = cube._make(field.to(start.device) for field in cube)
    parts = [cube._make(part) for part in zip(*(field.split(4096) for field in cube))]
    true, others = torch.arange(task.k), wrong_sets(task.n, task.k, wrong, generator("wrong sets", task.n, task.k))
    sets = torch.cat([true[None], others]).to(start.device)

    def weights(population: "Population") -> "Tensor":
        return torch.cat([w.flatten(1) for w in population.layout.views(population.theta).values()], dim=1)

    @cache
    def gradients() -> "Tensor":
        """At the start, `[R, 1 + wrong, P]`, the true set's first."""
        networks = [start.replica(r).eval() for r in range(len(start))]
        return torch.stack([measures.parity_gradients(network, cube.inputs, sets) for network in networks])

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        now, before = weights(population), weights(start)[population.index]
        progress = measures.projection_progress(now - before, gradients()[population.index])
        of_true, of_wrong = progress[:, 0], progress[:, 1:]
        return {
            "error": torch.stack([population.map(partial(error, batch=part)) for part in parts]).mean(0),
            "rho": measures.max_displacement(now, before),
            "progress": of_true,
            "wrong mean": of_wrong.mean(1),
            "wrong sd": of_wrong.std(1),
            "z": measures.null_z_score(of_true, of_wrong),
        }

    return measure


def fourier_gap(n: int, k: int, seed: int) -> dict[str, Any]:
    """Holds the gradient of a ReLU neuron with random signs as weights, by enumeration, against theory."""
    from mesocosm.seeding import generator
    from mesocosm.tasks.parity import random_signs

    cube = tasks.SparseParity(n=n, k=k).enumerate()
    signs = random_signs(1, n, generator(seed, "signs", n, k))[0].double()
    neuron = lambda weights, inputs: (inputs @ weights["w"]).relu()
    labels = cube.targets.double()[None]
    gradient = measures.population_gradient(neuron, {"w": signs}, cube.inputs.double(), labels)["w"][0]
    inside, outside = (float(2 * part.abs().mean()) for part in gradient.split([k, n - k]))
    return {
        "difference": float((gradient - measures.parity_gradient_of_relu_neuron(signs, k)).abs().max()),
        "ratio difference": abs(inside / outside - (n - k) / (k - 1)),
        "gap over bound": (inside - outside) / (0.03 * (n - 1) ** (-(k - 1) / 2)),
    }


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        if cell.name.startswith("C3/"):
            cell = replace(cell, measure=hidden_progress(lab.population(cell), cell.task, config.wrong_sets))
        lab.train(cell)
    for n, k in GAPS:
        for seed in range(config.seeds):
            lab.record(f"C5/n={n}/k={k}", fourier_gap(n, k, seed), seed=seed, n=n, k=k)


# The rules, from records only


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


CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Networks of many kinds learn a parity abruptly, after a long plateau at chance.",
        rule="9 in 10 seeds of every network reach 2 % error; median share of that time above 45 % error > 0.3 in MLPs",
        paper="15 settings learn n in {10, 20, 30}, k in {2, 3, 4}: flat at 50 % error, then a sharp drop",
        judge=judge_plateau,
        control=lab.Control(
            statement="error on labels of pure noise stays above 45 %, on untrained first-layer features above 40 %",
            judge=judge_plateau_control,
        ),
        unit="of t_c",
        cells=("C1/",),
    ),
    lab.Claim(
        id="C2",
        statement="The time to learn t_c is a power of n, whose exponent grows with k.",
        rule="slope of log median t_c on log n: larger at k = 3 than 2 and at k = 5 than 3; R^2 > 0.9 at k = 3",
        paper="t_c = n^(alpha k) at small n and k",
        judge=judge_scaling,
        control=lab.Control(
            statement="a linear target, k = 1, has no plateau; half of the seeds has the slope of the other half",
            judge=judge_scaling_control,
        ),
        cells=("C2/",),
    ),
    lab.Claim(
        id="C3",
        statement="On the plateau, weights move steadily along the population gradient of the true parity.",
        rule="where error is last > 48 %, z > 3 against wrong sets in 9 of 10 seeds; R^2 of progress over steps > 0.8",
        paper="rho(t) = max |w_t - w_0| grows while loss and error are flat",
        judge=judge_progress,
        control=lab.Control(statement="on labels of pure noise the mean z is 0", judge=judge_progress_control),
        unit="of seeds",
        cells=("C3/",),
    ),
    lab.Claim(
        id="C4",
        statement="Learning is not a memoryless search: its times are concentrated.",
        rule="coefficient of variation of t_c < 0.5; earliest / median > 0.5; from one start no wider than from many",
        paper="times far from the geometric law of a Langevin-like search",
        judge=judge_search,
        control=lab.Control(statement="geometric times of the same median fail the test", judge=judge_search_control),
        cells=("C4/",),
    ),
    lab.Claim(
        id="C5",
        statement="The gradient of a ReLU neuron with signs as weights shows the relevant bits by a Fourier gap.",
        rule="enumeration equals theory to 1e-9, in the gradient and in |xi_(k-1) / xi_(k+1)| = (n-k)/(k-1)",
        paper="|xi_(k-1)| - |xi_(k+1)| >= 0.03 (n-1)^(-(k-1)/2)",
        judge=judge_gap,
        cells=("C5/",),
    ),
    lab.Claim(
        id="C6",
        statement="From few samples, a parity is learned long after all of them are fitted.",
        rule="on the fewest samples from which 9 in 10 seeds learn, median lag t_c / (time to fit all samples) > 2",
        paper="grokking on small samples with weight decay",
        judge=judge_grokking,
        control=lab.Control(statement="on the most samples the median lag is < 2", judge=judge_grokking_control),
        cells=("C6/",),
    ),
]


# The figures, from records only


def figures(records: "DataFrame") -> Iterator[lab.Drawing]:
    yield draw_plateau(records)
    yield draw_progress(records)
    yield draw_scaling(records)
    yield draw_times(records)


def draw_plateau(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    names = sorted(cells(records, "C1/"), key=lambda cell: ("control" in cell, cell != "C1/reference", cell))
    rows = -(-len(names) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(8, 0.5 + 1.8 * rows), sharey=True, squeeze=False)
    for axis, cell in zip(axes.flat, names):
        steps, error = curves(records, cell)
        axis.plot(steps, error, color=GREY if "control" in cell else BLUE, linewidth=0.8, alpha=0.7)
        if cell == "C1/disjoint-polynet":
            axis.plot(*curves(records, cell, "implied error"), color=ORANGE, linestyle=":")
        end = min(float(steps.max()), 4 * np.median(times(records, cell)))
        axis.set(title=cell[3:].removeprefix("control/"), xlim=(0, max(end, 1)), ylim=(0, 0.6))
    for axis in axes.flat[len(names) :]:
        axis.remove()
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("held-out error (share of inputs)", fontsize=10)
    n, k = (int(records.loc[records["cell"] == "C1/reference", column].iloc[0]) for column in "nk")
    caption = (
        "Held-out error by step, a line a seed, until it is below 2 %; an axis ends at four times the median of "
        f"these times at the latest. Networks that learn the parity of {k} of {n} bits are at chance for long, then "
        "their error drops. In grey the controls, which must stay at chance: labels of pure noise, and a first layer "
        "that is not trained. The reference is a ReLU MLP of width 100, or the model that --model names; power-100 "
        "has the activation z^k. Dotted: the error that theory reads off the weights of a disjoint-PolyNet."
    )
    return lab.Drawing("plateau", figure, caption)


def draw_progress(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    titles = {"k=4": "parity of 4 bits", "k=3": "parity of 3 bits", "noise labels": "labels of pure noise"}
    rows = {"error": "exact error", "rho": "largest change\nof a weight, ρ", "progress": "progress along\ngradient, P"}
    figure, axes = pyplot.subplots(3, 3, figsize=(8, 6), sharex=True, sharey="row")
    end, tops = 1.0, [0.55, 1e-3, 1e-3]
    for column, (name, title) in zip(axes.T, titles.items()):
        steps, error = curves(records, f"C3/{name}")
        after = (error > FLAT).flip(0).cumsum(0).flip(0) == 0
        end = max(end, float(steps[~after.all(1)].max()))
        for row, metric in enumerate(rows):
            values = curves(records, f"C3/{name}", metric)[1]
            flat = values.masked_fill(after, np.nan)
            column[row].plot(steps, values, color=BLUE, linewidth=0.8, alpha=0.25)
            column[row].plot(steps, flat, color=BLUE, linewidth=0.8)
            tops[row] = max(tops[row], 1.1 * float(flat.nan_to_num(0.0).max()))
        wrong = (curves(records, f"C3/{name}", f"wrong {what}")[1] for what in ("mean", "sd"))
        mean, sd = (values.masked_fill(after, np.nan).nanmean(1) for values in wrong)
        column[2].fill_between(steps, mean - 2 * sd, mean + 2 * sd, color=ORANGE, alpha=0.7, linewidth=0)
        column[0].set(title=title, xlim=(0, end))
        column[2].set(xlabel="step")
    for axis, label, top, bottom in zip(axes[:, 0], rows.values(), tops, (0, 0, -0.4)):
        axis.set(ylabel=label, ylim=(bottom * top, top))
    caption = (
        "Exact error, the paper's ρ, and progress P along the exact population gradient of step 0 (in units of the "
        "weights), a line a seed, pale from where the error stays below 48 %. The orange band is the progress along "
        "the gradients of wrong sets, mean and two standard deviations over sets, averaged over seeds on the "
        "plateau. Hidden progress is P of the true set leaving the band at chance error; ρ grows on labels of pure "
        "noise too."
    )
    return lab.Drawing("hidden-progress", figure, caption)


def draw_scaling(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 4.8))
    for k, colour, marker in zip((1, 2, 3, 4, 5), (GREY, *COLOURS), "xosD^"):
        by_n = {int(cell.rpartition("=")[2]): times(records, cell) for cell in cells(records, f"C2/k={k}/")}
        by_n = {n: t for n, t in sorted(by_n.items()) if np.isfinite(np.median(t))}
        if not by_n:
            continue
        label = f"k = {k}"
        if len(by_n) > 1:
            line, interval = fit([*by_n], [*by_n.values()]), lab.bootstrap(slope(by_n), *by_n.values())
            axis.plot([*by_n], line.factor * np.array([*by_n]) ** line.exponent, color=colour, linewidth=1)
            label += f": slope {line.exponent:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
        low, at, high = np.array([(m.low, m.estimate, m.high) for m in map(lab.median, by_n.values())]).T
        bars = np.nan_to_num([at - low, high - at], posinf=0)
        axis.errorbar([*by_n], at, bars, fmt=marker, ms=5, color=colour, capsize=2, label=label)
    axis.set(xscale="log", yscale="log", xlabel="bits n", ylabel="median steps to 2 % error, t_c")
    ticks = sorted(int(cell.rpartition("=")[2]) for cell in cells(records, "C2/k=3/"))
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "Median time to learn by the number of bits, both on logarithmic axes, with 95 % intervals over seeds, and "
        "the least-squares power law of each k, whose exponent is the slope. Compare k of one parity: the gradient "
        "needs a Fourier weight of degree k - 1, and ReLU units with small biases have next to none of even degree, "
        "so that k = 3 takes about as long as k = 4."
    )
    return lab.Drawing("scaling", figure, caption)


def draw_times(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4))
    found = {name: times(records, f"C4/{name}") for name in ("random starts", "one start")}
    end = 1.2 * max(t[np.isfinite(t)].max(initial=1) for t in found.values())
    for (name, t), colour in zip(found.items(), (BLUE, ORANGE)):
        learned = np.sort(t[np.isfinite(t)])
        share = np.arange(len(learned) + 1) / len(t)
        left.step([0, *learned, end], [*share, share[-1]], color=colour, where="post", label=name)
    steps, middle = np.linspace(0, end), np.median(found["random starts"])
    left.plot(steps, 1 - 0.5 ** (steps / middle), color=GREY, linestyle="--", label="memoryless search")
    left.set(title="fresh samples", xlabel="step", ylabel="share of networks that have learned", xlim=(0, end))
    left.legend()
    samples = fewest(records) or max(lags(records))
    for metric, colour, label in (("train error", GREY, "training samples"), ("error", BLUE, "held-out samples")):
        lines = right.plot(*curves(records, f"C6/samples={samples}", metric), color=colour, linewidth=0.8, alpha=0.7)
        lines[0].set_label(label)
    right.set(title=f"passes over {samples} samples", xlabel="step", ylabel="error (share of inputs)", ylim=(0, 0.6))
    right.legend()
    caption = (
        "Left: the share of networks that have learned by a step, from random starts, from one start with only the "
        "data differing, and as a memoryless search with the median of the first would: it would rise from the first "
        "step on. Right: error on training samples that are passed over again and again, and on held-out samples, a "
        "line a seed, until the latter is below 2 %."
    )
    return lab.Drawing("times", figure, caption)


STUDY = lab.Study(
    title="Hidden progress",
    paper="Barak, Edelman, Goel, Kakade, Malach & Zhang (2022), Hidden Progress in Deep Learning: SGD Learns Parities "
    "Near the Computational Limit, NeurIPS, arXiv 2207.08799",
    question="Does SGD find a sparse parity by blind search, or by steady progress that loss and error do not show?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=[
        "A parity counts as learned at 2 % error on 2,000 held-out inputs; the paper asks for a batch without error.",
        "C1 is at one (n, k) instead of nine, and asks for 9 in 10 seeds instead of 1 in 5. PolyNets and single "
        "neurons, which can be a parity exactly, must learn too but may leave the plateau early. No transformer.",
        "C2 compares k = 2, 3 and 5, since k = 4 takes about as long as k = 3.",
        "C3 follows all trainable weights, on 15 bits and without weight decay.",
    ],
)
