"""Why do rewards of cloned policies oscillate between checkpoints, and why does averaging the weights stop it?

Source: Block et al. (2024), Butterfly Effects of SGD Noise: Error Amplification in Behavior Cloning and Autoregression,
arXiv 2310.11428
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from mesocosm import lab
from mesocosm.settings import setting
from mesocosm.studies.gradient_variance_amplification import cells, evaluation
from mesocosm.studies.gradient_variance_amplification.cells import EPISODE, FACTOR
from mesocosm.studies.gradient_variance_amplification.claims import CLAIMS
from mesocosm.studies.gradient_variance_amplification.figures import figures

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(10, "seeds of linear and neural clones", low=1, high=10_000)
    few: int = setting(3, "how many of these seeds the string models and the saturated plant get", low=1, high=10_000)
    parts: tuple[Literal["linear", "neural", "autoregressive"], ...] = setting(
        ("linear", "neural", "autoregressive"), "what to run"
    )
    checkpoints: int = setting(50, "evaluations along each training", low=4, high=100_000)
    starts: int = setting(64, "fixed states that rollouts start from", low=1, high=100_000)
    contraction: float = setting(0.995, "factor by which the expert shrinks the plant's state", low=0, high=1)
    batch_size: int = setting(32, "demonstrations a step, a multiple of 4", low=4, high=65_536)

    noise: float = setting(0.3, "noise of the actions shown to linear clones", low=1e-3, high=100)
    linear_horizon: int = setting(400, "steps of a linear clone's rollout", low=2, high=100_000)
    linear_steps: int = setting(8000, "training steps of linear clones", low=4, high=10_000_000)
    linear_rate: float = setting(0.05, "learning rate eta of linear clones", low=1e-4, high=0.3)
    linear_beta: float = setting(0.001, "beta of linear clones' average", low=1e-5, high=1)
    copies: int = setting(128, "replicas that the laws of the noise are held against", low=1, high=100_000)

    horizon: int = setting(300, "steps of a neural clone's rollout", low=2, high=100_000)
    steps: int = setting(4000, "training steps of neural clones", low=4, high=10_000_000)
    hidden: tuple[int, ...] = setting((64, 64), "hidden layers of neural clones", low=1, high=65_536)
    rate: float = setting(1.25e-3, "learning rate of neural clones", low=0, high=1)
    beta: float = setting(0.002, "least beta of neural clones' average", low=0, high=1)
    episodes: int = setting(60, "demonstrated episodes of 200 steps", low=1, high=100_000)

    base: int = setting(10, "digits of the counters' strings", low=2, high=36)
    numbers: int = setting(8, "numbers in a string, two of them given", low=3, high=1000)
    d_model: int = setting(64, "width of the string models", low=1, high=8192)
    n_heads: int = setting(4, "attention heads, a divisor of d_model", low=1, high=128)
    n_layers: int = setting(2, "layers of the string models", low=1, high=128)
    string_steps: int = setting(1000, "training steps of string models", low=4, high=10_000_000)
    string_batch: int = setting(16, "strings a step", low=1, high=65_536)
    string_rate: float = setting(5e-3, "learning rate of string models", low=0, high=1)
    string_beta: float = setting(0.005, "least beta of string models' average", low=0, high=1)
    prompts: int = setting(128, "fixed prompts to write on from", low=1, high=100_000)

    environments: tuple[str, ...] | None = setting(None, "Gymnasium environments to clone an expert in; none for none")
    demonstrations: str | None = setting(None, "folder of their ENVIRONMENT.npz; none takes the built-in expert")
    environment_horizon: int = setting(1000, "steps of an episode", low=2, high=100_000)

    def check(self) -> None:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts={self.parts} is not legal: each may be given once")
        if self.batch_size % 4:
            raise ValueError(f"batch_size={self.batch_size} is not legal: it must be a multiple of 4")
        if FACTOR * self.batch_size > EPISODE * self.episodes:
            raise ValueError(
                f"batch_size={self.batch_size} is not legal: {FACTOR} times it must be at most the {EPISODE} x "
                f"episodes={self.episodes} demonstrations"
            )
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} is not legal: it must divide d_model={self.d_model}")


PRESETS = {
    "smoke": Config(
        seeds=3, few=2, checkpoints=6, starts=8, linear_horizon=20, linear_steps=120, copies=8, horizon=20, steps=48,
        hidden=(16,), episodes=4, numbers=4, d_model=16, n_heads=2, string_steps=24, prompts=16,
    ),
    "small": Config(),
    "paper": Config(
        few=5, checkpoints=200, starts=256, linear_steps=20_000, steps=50_000, hidden=(256, 256), rate=3e-4, beta=1e-4,
        episodes=240, d_model=512, n_heads=8, n_layers=6, numbers=64, string_steps=50_000, string_batch=64,
        string_rate=3e-4, string_beta=1e-4, prompts=512, environments=("InvertedDoublePendulum-v5",),
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """Linear and neural clones of a plant's expert, counting transformers, and clones of experts in environments."""
    if "linear" in config.parts:
        yield from cells.linear(config)
    if "neural" in config.parts:
        yield from cells.neural(config)
    if "autoregressive" in config.parts:
        yield cells.counter(config)
    for environment in config.environments or ():
        yield from cells.in_environment(config, environment)


def run(config: Config, lab: "Lab") -> None:
    for cell in plan(config):
        population = lab.train(cell).population
        if cell.name.startswith("environment"):
            scales = evaluation.environment_scales(cell.task)
        elif cell.name == "counter":
            scales = {"idle loss": math.log(config.base)}
        elif cell.name == "stationary":
            scales = evaluation.predictions(cell.batch_size, config.linear_rate, config.noise, config.linear_beta)
        elif cell.name.startswith("linear"):
            scales = evaluation.plant_scales(cell.task, config.linear_horizon, config.starts, evaluation.LINEAR_CAP)
        else:
            scales = evaluation.plant_scales(cell.task, config.horizon, config.starts, evaluation.NEURAL_CAP)
        lab.record(cell.name, scales, seed=0)
        if cell.name == "neural":
            policy = population.replica(0).cpu()
            look = partial(evaluation.slices, cell.task, policy, config.horizon, config.starts)
            found = lab.remember("slices", partial(look, population.mappable))
            distance = found.pop("distance").tolist()
            lab.record(cell.name, found, seed=[0] * len(distance), step=cell.steps, distance=distance)


STUDY = lab.Study(
    title="Error amplification in behaviour cloning",
    paper="A. Block, D. J. Foster, A. Krishnamurthy, M. Simchowitz, C. Zhang. Butterfly Effects of SGD Noise: Error "
    "Amplification in Behavior Cloning and Autoregression. ICLR 2024. arXiv 2310.11428",
    question="Why do long-horizon rewards of cloned policies oscillate wildly from one checkpoint to the next while "
    "the cloning loss is flat, and why does an average of the weights remove it?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "Small plants, written in tensors, take the place of MuJoCo's walkers: the expert is known exactly and "
        "thousands of rollouts go together. The paper preset adds an environment of MuJoCo's with a regulator as "
        "expert, and any other with recorded demonstrations.",
        "Experts trained by reinforcement learning are not made here: bring their demonstrations.",
        "Language models learn to count with carry in place of TinyStories and Wikipedia, so that what they write is "
        "right or wrong.",
        "Clones in environments draw their demonstrations with replacement, not in passes.",
        "C1 and C2 ask averaged policies to be near the expert: within 10 % of its reward for linear clones, and at "
        "most at three times its cost for neural ones, whose error of approximation no average removes.",
        "The contracting loop, control of C1, is that of linear clones: there, demonstrations cover the same states in "
        "both loops.",
        "Of the remedies that the paper compares, weight decay, dropout, larger networks and other architectures are "
        "left out.",
    ),
)
