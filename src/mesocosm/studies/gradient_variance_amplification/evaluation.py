"""What is measured at every checkpoint, of the weights and of their average alike."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures, training

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.training import Population
    from mesocosm.training.loop import Measure

__all__: list[str] = []

Evaluate = Callable[["Population"], "dict[str, Tensor]"]
"""Numbers `[R]` by name."""
LINEAR_CAP, NEURAL_CAP = 1e6, 100.0
"""Largest squared norm of a state that counts."""
MARGINS = (0.5, 1.0, 1.5, 2.0)
"""Distances of the cliff, in standard deviations of the weights."""
TESTED = 2000
"""Expert states on which the cloning loss is measured."""
RADIUS, POINTS = 0.05, 101
"""Reach and number of points of the slices through the landscape."""


def of_both(evaluate: Evaluate) -> "Measure":
    """The measurement of the weights, and of their average under names that start with EMA."""

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        averaged = {f"EMA {name}": values for name, values in evaluate(population.averaged()).items()}
        return evaluate(population) | averaged

    return measure


def plant_reward(task: Any, states: "Tensor", cap: float) -> "Tensor":
    """Mean over starts of the reward of states `[H + 1, B, 4]`: survival of the saturated plant."""
    if task.plant == "saturated":
        return measures.survival(states).mean()
    return measures.quadratic_reward(states, cap).mean()


def plant_samples(task: Any, starts: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Fixed starts `[B, 4]`, and held-out expert states with the expert's actions; the same for all models."""
    from mesocosm.seeding import generator

    held_out = task.sample(TESTED, generator("gradient variance amplification", "held out"))
    return task.starts(starts, generator("gradient variance amplification", "starts")), held_out.inputs, held_out.action


def on_plant(task: Any, horizon: int, starts: int, cap: float) -> Evaluate:
    """Rewards at the full horizon and after one step, and the cloning loss."""
    start, inputs, actions = plant_samples(task, starts)

    def evaluate(population: "Population") -> "dict[str, Tensor]":
        here = [tensor.to(population.device) for tensor in (start, inputs, actions)]
        return population.map(partial(plant_metrics, task, horizon, cap, *here))

    return evaluate


def plant_metrics(
    task: Any, horizon: int, cap: float, start: "Tensor", inputs: "Tensor", actions: "Tensor", policy: Any
) -> "dict[str, Tensor]":
    states = measures.rollout(task, policy, start, horizon)
    return {
        "reward": plant_reward(task, states, cap),
        "first reward": plant_reward(task, states[:2], cap),
        "cloning loss": (policy(inputs) - actions).square().sum(-1).mean(),
    }


def plant_scales(task: Any, horizon: int, starts: int, cap: float) -> dict[str, float]:
    """The expert's rewards, and the cloning loss of the policy that does nothing."""
    start, inputs, actions = plant_samples(task, starts)
    expert = plant_metrics(task, horizon, cap, start, inputs, actions, task.expert)
    return {
        "expert reward": expert["reward"].item(),
        "expert first reward": expert["first reward"].item(),
        "idle loss": actions.square().sum(-1).mean().item(),
    }


def growth(task: Any, horizon: int, starts: int, population: "Population") -> "dict[str, Tensor]":
    """log of the mean |x_H| over starts, and what the spectral radius of A - K says of it: H log rho; both `[R]`."""
    import torch

    start = plant_samples(task, starts)[0].to(population.device)
    last = population.map(lambda policy: measures.rollout(task, policy, start, horizon)[-1])
    loop = task.step(torch.eye(4), torch.zeros(4, 4)).T - population.weights()["weight"].cpu()  # A - K
    radius = torch.linalg.eigvals(loop.double()).abs().amax(-1)
    return {"log norm": last.norm(dim=-1).mean(1).log(), "log growth": horizon * radius.log()}


def on_linear_plant(task: Any, horizon: int, starts: int) -> Evaluate:
    plant = on_plant(task, horizon, starts, LINEAR_CAP)
    return lambda population: plant(population) | growth(task, horizon, starts, population)


def predictions(batch: int, rate: float, noise: float, beta: float) -> dict[str, float]:
    """Variance of every weight of the linear clone and of its average, and the rewards at cliffs, by formula."""
    variance = measures.stationary_variance(rate, noise**2, batch, 4)
    return {
        "predicted variance": variance,
        "EMA predicted variance": variance * measures.ema_variance_factor(rate, beta),
        "uncorrelated EMA variance": variance * beta / (2 - beta),
    } | {f"predicted cliff {margin:g}": measures.expected_cliff_reward(margin, 1.0) for margin in MARGINS}


def on_linear_weights(task: Any, predicted: dict[str, float]) -> "Measure":
    """Mean squared deviation of the 16 weights from the expert's, and rewards at cliffs across each of them.

    Cliffs stand at so many predicted standard deviations, of the weights or of their average.
    """
    import torch

    gain = task.gain

    def of(population: "Population", name: str) -> "dict[str, Tensor]":
        deviation = (population.weights()["weight"] - gain.to(population.device)).flatten(1)  # [R, 16]
        normal, sd = torch.ones(1, device=population.device), predicted[f"{name}predicted variance"] ** 0.5
        cliffs = {m: measures.cliff_reward(deviation[..., None], normal, m * sd).mean(1) for m in MARGINS}
        return {f"{name}variance": deviation.square().mean(1)} | {f"{name}cliff {m:g}": c for m, c in cliffs.items()}

    return lambda population, step: of(population, "") | of(population.averaged(), "EMA ")


def on_strings(task: Any, prompts: int) -> Evaluate:
    """Share of prompts that are not written on without a mistake, and the loss of the next digit."""
    from mesocosm.seeding import generator

    fixed = task.sample(prompts, generator("gradient variance amplification", "prompts"))

    def evaluate(population: "Population") -> "dict[str, Tensor]":
        batch = fixed._make(field.to(population.device) for field in fixed)
        return population.map(partial(string_metrics, batch))

    return evaluate


def string_metrics(batch: Any, model: "nn.Module") -> "dict[str, Tensor]":
    written = measures.free_running(model, batch)
    return {
        "free-running error": 1 - measures.exact_match(written, batch.targets, batch.weights),
        "next-digit loss": training.cross_entropy(model, batch),
    }


def in_environment(task: Any, horizon: int, seeds: Sequence[int]) -> Evaluate:
    """The same as `on_plant`, in a Gymnasium environment, one replica after another."""
    import torch

    def evaluate(population: "Population") -> "dict[str, Tensor]":
        (observations, actions), rows = demonstrated(task), []
        for r in range(len(population)):
            policy = population.replica(r).cpu().eval()
            rewards = measures.environment_rewards(policy, task.environment, seeds, horizon).mean(1)
            with torch.no_grad():
                loss = (policy(observations) - actions).square().sum(-1).mean()
            rows.append({"reward": rewards.sum(), "first reward": rewards[0], "cloning loss": loss})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    return evaluate


def demonstrated(task: Any) -> "tuple[Tensor, Tensor]":
    """Observations and actions from all over the recording."""
    observations, actions, _ = task.recording
    apart = max(1, len(observations) // TESTED)
    return observations[::apart], actions[::apart]


def environment_scales(task: Any) -> dict[str, float]:
    idle = demonstrated(task)[1].square().sum(-1).mean().item()
    return {"expert reward": task.recording.returns.mean().item(), "idle loss": idle}


def slices(task: Any, policy: "nn.Module", horizon: int, starts: int, together: bool) -> "dict[str, Tensor]":
    """Reward and cloning loss along a minibatch's gradient and a random direction, `[POINTS]` each."""
    import torch

    from mesocosm.seeding import generator

    samples = plant_samples(task, starts)
    batch = task.sample(32, generator("gradient variance amplification", "slice"))
    lines = {
        "gradient": measures.gradient_direction(policy, training.square, batch),
        "random": measures.random_direction(policy, generator("gradient variance amplification", "direction")),
    }
    found = {"distance": torch.linspace(-RADIUS, RADIUS, POINTS)}
    metrics = partial(plant_metrics, task, horizon, NEURAL_CAP, *samples)
    for name, direction in lines.items():
        values = measures.weight_slice(policy, direction, found["distance"], metrics, together)
        found |= {f"{name} {metric}": values[metric] for metric in ("reward", "cloning loss")}
    return found
