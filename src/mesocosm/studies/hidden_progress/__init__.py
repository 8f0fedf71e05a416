"""Does SGD find a sparse parity by blind search, or by steady progress that loss and error do not show?

Networks learn the product of k of n random bits. Their error stays at chance for long, then falls suddenly. The paper
shows that all the while the weights move along the population gradient of the true parity, which differs from that of
wrong ones by a gap between two Fourier coefficients of a neuron.

Source: Barak, Edelman, Goel, Kakade, Malach & Zhang (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near
the Computational Limit, NeurIPS, arXiv 2207.08799
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from mesocosm import lab, measures, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.hidden_progress.claims import CLAIMS
from mesocosm.studies.hidden_progress.figures import figures
from mesocosm.studies.hidden_progress.rules import LEARNED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Online, Population
    from mesocosm.training.loop import Measure

    Architect = Callable[[Any], nn.Module]

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
        c3 = partial(cell, optimiser=sgd(), measure=None, complete=False)
        yield c3(f"C3/{name}", task, partial(mlp, width=64), steps=steps)

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

    @lru_cache(maxsize=1)
    def batches(index: tuple[int, ...], device: Any) -> dict[str, Any]:
        return {name: stream(0, index, device) for name, stream in samples.items()}

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        found = batches(tuple(population.index), population.device)
        return {name: population.map(error, batch) for name, batch in found.items()}

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
