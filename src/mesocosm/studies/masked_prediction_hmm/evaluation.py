"""Twins, Jacobians, ghosts, fits to exact predictors and decompositions of sampled tensors, all in float64."""

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from mesocosm import measures, tasks, training
from mesocosm.models.hidden_markov import unit_columns
from mesocosm.seeding import generator, key
from mesocosm.studies.masked_prediction_hmm.rules import ALL_PAIRS, TASKS, TRIPLES
from mesocosm.tasks.hidden_markov import sinkhorn, state_posterior, token_conditional

if TYPE_CHECKING:
    from mesocosm.studies.masked_prediction_hmm import Config
    from mesocosm.training import Population

__all__: list[str] = []

BALANCING = 30
"""Sinkhorn sweeps of fitted transition matrices."""

Places = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def predictions(places: Places, emission: Tensor, transition: Tensor) -> Tensor:
    """All conditional laws of a discrete HMM that the masked prediction tasks at `places` ask for, as one vector."""
    return torch.cat([token_conditional(emission, transition, *task).flatten() for task in places])


def gap_between(places: Places, model: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    return (predictions(places, *model) - predictions(places, *other)).abs().max()


def compare_twins(config: "Config") -> dict[str, Tensor]:
    """For every model its rotation twin, another rotation of the same angle, and a relabelling: `[models]` each."""
    rows = []
    for seed in range(config.seeds):
        task = tasks.DiscreteHMM(states=config.states, symbols=config.symbols, table=seed)
        model = task.emission, task.transition
        twin, angle = find_twin(config, seed, *model)
        other = random_rotation(config.states, angle, generator(seed, "other rotation"))
        order = torch.arange(config.states).roll(1)
        relabelled = task.emission[:, order], task.transition[order][:, order]
        rows.append(
            {
                "angle": torch.tensor(angle, dtype=torch.float64),
                "pair difference": gap_between(ALL_PAIRS, model, twin),
                "distance": measures.matched_error(*twin, *model),
                **{f"difference {name}": gap_between(TASKS[name], model, twin) for name in TRIPLES},
                "pair difference, other rotation": gap_between(ALL_PAIRS, model, rotate(*model, other)),
                "distance, relabelled": measures.matched_error(*relabelled, *model),
                "triple difference, relabelled": torch.stack(
                    [gap_between(TASKS[name], model, relabelled) for name in TRIPLES]
                ).max(),
            }
        )
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def find_twin(config: "Config", seed: int, emission: Tensor, transition: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    """The twin by the largest angle among `config.angle`, its half, its quarter, ... that leaves no entry negative."""
    angle = config.angle
    while True:
        rotation = measures.rotation_fixing_ones(config.states, angle, generator(seed, "twin"))
        try:
            return measures.rotation_twin(emission, transition, rotation), angle
        except ValueError:
            angle /= 2


def random_rotation(states: int, angle: float, stream: torch.Generator) -> Tensor:
    """A rotation by `angle` radians at most, about no axis in particular."""
    draw = torch.randn(states, states, dtype=torch.float64, generator=stream)
    skew = draw - draw.mT
    return torch.linalg.matrix_exp(angle * skew / torch.linalg.matrix_norm(skew, 2))


def rotate(emission: Tensor, transition: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    return emission @ rotation, rotation.mT @ transition @ rotation


def count_deficiencies(states: int, symbols: int, models: int) -> dict[str, Tensor]:
    """By task `[models, 2]`: deficiency, and the smallest singular value counted as not 0, relative to the largest.

    Last axis: T as drawn, and with the mean of its first two columns in place of both.
    """
    mix = torch.eye(states, dtype=torch.float64)
    mix[:2, :2] = 0.5
    found: dict[str, list[list[float]]] = {f"{m} {n}": [] for n in TASKS for m in ("deficiency", "least")}
    for seed in range(models):
        task = tasks.DiscreteHMM(states=states, symbols=symbols, table=seed)
        for name, places in TASKS.items():
            ranks = []
            for transition in (task.transition, task.transition @ mix):
                free = torch.cat([task.emission[:-1].flatten(), transition[:-1, :-1].flatten()])
                ranks.append(
                    measures.jacobian_rank(lambda p: predictions(places, *unfold(p, states, symbols)), free)  # noqa: B023
                )
            found[f"deficiency {name}"].append([rank.deficiency for rank in ranks])
            found[f"least {name}"].append([float(r.singular_values[r.rank - 1] / r.singular_values[0]) for r in ranks])
    return {name: torch.tensor(values).double() for name, values in found.items()}


def unfold(free: Tensor, states: int, symbols: int) -> tuple[Tensor, Tensor]:
    """O and doubly stochastic T from their free entries: all but O's last row, and T's last row and column."""
    emission, transition = free.split([states * (symbols - 1), (states - 1) ** 2])
    emission, transition = emission.view(symbols - 1, states), transition.view(states - 1, states - 1)
    emission = torch.cat([emission, 1 - emission.sum(0, keepdim=True)])
    transition = torch.cat([transition, 1 - transition.sum(0, keepdim=True)])
    return emission, torch.cat([transition, 1 - transition.sum(1, keepdim=True)], dim=1)


def gaussian_predictions(means: Tensor, transition: Tensor, x: Tensor) -> Tensor:
    return state_posterior(means, x) @ (means @ transition).mT


def compare_ghosts(config: "Config") -> dict[str, Tensor]:
    """For every Gaussian model its Householder ghost, and the reflection in a random direction: `[models]` each."""
    rows = []
    for seed in range(config.seeds):
        task = gaussian_task(config, seed)
        means, transition, x = task.means, task.transition, inputs_of(config, seed)
        ghost, matching = measures.householder_ghost(means, transition)
        random = torch.randn(len(means), 1, dtype=torch.float64, generator=generator(seed, "reflection"))
        other = means - 2 * random @ (random.mT @ means) / random.square().sum()
        difference = gaussian_predictions(means, transition, x) - gaussian_predictions(ghost, matching, x)
        rows.append(
            {
                "posterior difference": largest(state_posterior(means, x) - state_posterior(ghost, x)),
                "predictor difference": largest(difference),
                "column sum + 1": largest(matching.sum(0) + 1),
                "distance": measures.matched_error(ghost, matching, means, transition),
                "posterior difference, other reflection": largest(
                    state_posterior(means, x) - state_posterior(other, x)
                ),
            }
        )
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def largest(difference: Tensor) -> Tensor:
    return difference.abs().max()


def gaussian_task(config: "Config", seed: int) -> Any:
    return tasks.GaussianHMM(states=config.states, dimensions=config.dimensions, table=seed)


def inputs_of(config: "Config", seed: int) -> Tensor:
    """Tokens `[inputs, d]` of a Gaussian model, the same for all fits."""
    return gaussian_task(config, seed).sample(config.inputs, generator(seed, "fit inputs")).inputs.double()


def fit_discrete(config: "Config", places: Places, device: str = "cpu") -> dict[str, Tensor]:
    """Mean squared difference to the exact predictor and distance of parameters, `[models, starts]`, after fitting."""
    k, d = config.states, config.symbols
    models = [tasks.DiscreteHMM(states=k, symbols=d, table=seed) for seed in range(config.fitted_seeds)]
    true = [repeat(models, part, config.starts).to(device) for part in ("emission", "transition")]

    def parameters(theta: Tensor) -> tuple[Tensor, Tensor]:
        emission, transition = theta.split([d * k, k * k])
        return emission.view(d, k).softmax(0), sinkhorn(transition.view(k, k).exp(), BALANCING)

    theta, loss = training.levenberg_marquardt(
        lambda theta, target: predictions(places, *parameters(theta)) - target,
        starts_of(config, (d + k) * k).to(device),
        vmap(partial(predictions, places))(*true),
        steps=config.iterations,
    )
    found = {"loss": loss, "error": measures.matched_error(*vmap(parameters)(theta), *true)}
    return {name: values.view(len(models), -1).cpu() for name, values in found.items()}


def fit_gaussian(config: "Config", stochastic: bool, device: str = "cpu") -> dict[str, Tensor]:
    """As `fit_discrete`, for x_2|x_1 of Gaussian models, with the distance to the ghost's parameters.

    Args:
        stochastic: whether columns of T are softmaxes, or free.
    """
    k, d = config.states, config.dimensions
    models = [gaussian_task(config, seed) for seed in range(config.fitted_seeds)]
    means, transition = (repeat(models, part, config.starts).to(device) for part in ("means", "transition"))
    x = torch.stack([inputs_of(config, seed) for seed in range(len(models))]).to(device)
    x = x.repeat_interleave(config.starts, 0)

    def parameters(theta: Tensor) -> tuple[Tensor, Tensor]:
        directions, weights = theta.split([d * k, k * k])
        columns = weights.view(k, k).softmax(0) if stochastic else weights.view(k, k)
        return unit_columns(directions.view(d, k)), columns

    theta, loss = training.levenberg_marquardt(
        lambda theta, x, target: (gaussian_predictions(*parameters(theta), x) - target).flatten(),
        starts_of(config, (d + k) * k).to(device),
        x,
        vmap(gaussian_predictions)(means, transition, x),
        steps=config.iterations,
    )
    fitted = vmap(parameters)(theta)
    found = {
        "loss": loss,
        "error": measures.matched_error(*fitted, means, transition),
        "ghost error": measures.matched_error(*fitted, *measures.householder_ghost(means, transition)),
    }
    return {name: values.view(len(models), -1).cpu() for name, values in found.items()}


def repeat(models: list[Any], part: str, starts: int) -> Tensor:
    """A parameter of all models, once for every start: `[models x starts, ...]`."""
    return torch.stack([getattr(model, part) for model in models]).repeat_interleave(starts, 0)


def starts_of(config: "Config", size: int) -> Tensor:
    """Standard normal starts `[models x starts, size]`; the first ones do not depend on how many there are."""
    keys = [(seed, start) for seed in range(config.fitted_seeds) for start in range(config.starts)]
    return torch.stack([torch.randn(size, generator=generator(*pair, "start")).double() for pair in keys])


def learn_from_samples(config: "Config") -> dict[str, Tensor]:
    """Distance of the parameters that Jennrich's algorithm finds in sampled triples, `[models, sizes, repeats, 2]`.

    Last axis: O as drawn, and with its second column equal to its first.
    """
    errors = torch.zeros(config.seeds, len(config.samples), config.repeats, 2, dtype=torch.float64)
    for seed in range(config.seeds):
        task = sampled_task(config, seed)
        spoilt = task.emission.clone()
        spoilt[:, 1] = spoilt[:, 0]
        for control, emission in enumerate((task.emission, spoilt)):
            law = token_conditional(emission, task.transition, (), (0, 1, 2))
            for i, size in enumerate(config.samples):
                for r in range(config.repeats):
                    counts = draw_counts(law, size, key(seed, "triples", size, r))
                    found = parameters_of_triples(counts, config.states, generator(seed, "jennrich", r))
                    errors[seed, i, r, control] = measures.matched_error(*found, emission, task.transition)
    return {"error": errors}


def sampled_task(config: "Config", seed: int) -> Any:
    return tasks.DiscreteHMM(
        states=config.states,
        symbols=config.sampled_symbols,
        concentration=config.concentration,
        spread=1.0,
        floor=0.1,
        persistence=config.persistence,
        table=seed,
    )


def draw_counts(law: Tensor, size: int, seed: int) -> Tensor:
    """How often each of all strings comes up in `size` samples: one multinomial draw, of the shape of `law`."""
    flat = law.flatten().numpy()
    counts = np.random.default_rng(seed).multinomial(size, flat / flat.sum())
    return torch.from_numpy(counts).view(law.shape).double()


def parameters_of_triples(counts: Tensor, states: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """O and T from counts of (x_1, x_2, x_3): P(x_2, x_3 | x_1) is the sum of all O_j ⊗ (O T)_j ⊗ (T phi(x_1))_j."""
    conditional = counts / counts.sum((1, 2), keepdim=True).clamp_min(1)
    factors = measures.jennrich(conditional.movedim(0, 2), states, stream)
    # Columns of a tensor of lower rank may be 0.
    emission, next_emission = ((part / part.sum(0)).nan_to_num(0, 0, 0) for part in (factors.first, factors.second))
    return emission, torch.linalg.pinv(emission) @ next_emission


def draw_ghost(points: int = 31) -> dict[str, Tensor]:
    """A ghost in the plane: two means, their reflections, and both posteriors of the first state on a grid."""
    angles = torch.tensor([0.35, 1.75], dtype=torch.float64)
    means = torch.stack([angles.cos(), angles.sin()])
    ghost, _ = measures.householder_ghost(means, torch.eye(2, dtype=torch.float64))
    axis = torch.linspace(-2, 2, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    posteriors = torch.stack([state_posterior(m, grid)[:, 0] for m in (means, ghost)])
    return {"means": torch.stack([means, ghost]), "grid": grid, "posteriors": posteriors}


def track(config: "Config", population: "Population", step: int) -> dict[str, Tensor]:
    """Squared distance to the exact predictor on fixed inputs, and of parameters where the model has them."""
    task = gaussian_task(config, 0)
    x = task.sample(config.inputs, generator("held out")).inputs
    exact = task.optimal(x)

    def excess(model: Any) -> Tensor:
        return (model(x.to(population.device)).double().cpu() - exact).square().sum(1).mean()

    found = {"squared distance to the optimal predictor": population.map(excess)}
    if all(hasattr(population.replica(0), part) for part in ("means", "transition")):
        means, transition = (population.map(attrgetter(part)).double().cpu() for part in ("means", "transition"))
        found["parameter error"] = measures.matched_error(means, transition, task.means, task.transition)
    return found
