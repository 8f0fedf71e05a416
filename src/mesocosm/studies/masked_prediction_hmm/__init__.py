"""Does a masked predictor that is optimal and of the right form have the parameters of the hidden Markov model?

Source: Liu et al. (2022), Masked Prediction: A Parameter Identifiability View, arXiv 2202.09305
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.masked_prediction_hmm.claims import CLAIMS
from mesocosm.studies.masked_prediction_hmm.figures import figures
from mesocosm.studies.masked_prediction_hmm.rules import SIZES, TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Population

TRANSITIONS = EMISSIONS = ("as drawn", "two equal columns")


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(10, "models whose twins, ghosts and samples are looked at", low=1, high=1000)
    fitted_seeds: int = setting(5, "how many of these models get Jacobians and fits too", low=1, high=50)
    states: int = setting(3, "hidden states k", low=3, high=10)
    symbols: int = setting(4, "symbols of the discrete models", low=3, high=20)
    dimensions: int = setting(5, "dimensions of the Gaussian models", low=3, high=50)
    angle: float = setting(
        0.8, "largest angle of a twin in radians, halved until no entry is negative", low=0.01, high=1
    )
    starts: int = setting(16, "random starts of each fit", low=1, high=200)
    iterations: int = setting(300, "steps of a fit at most", low=1, high=1000)
    inputs: int = setting(3000, "tokens that fits of Gaussian models see", low=10, high=20_000)
    samples: tuple[int, ...] = setting((10**4, 10**5, 10**6), "sampled triples", low=100, high=10**12)
    repeats: int = setting(8, "draws of the samples, averaged for each model", low=1, high=100)
    sampled_symbols: int = setting(6, "symbols of the models that are sampled", low=3, high=64)
    concentration: float = setting(0.3, "Dirichlet concentration of their emissions", low=0.05, high=100)
    persistence: float = setting(4.0, "what the diagonal of their T gets before balancing", low=0, high=100)
    trained_seeds: int = setting(5, "predictors trained on samples of one Gaussian model", low=1, high=200)
    steps: int = setting(4000, "their training steps", low=1, high=10**7)
    batch_size: int = setting(512, "pairs of tokens a step", low=1, high=10_000)
    learning_rate: float = setting(0.01, "learning rate, falling to 0", low=0, high=1)

    def check(self) -> None:
        for name in ("symbols", "dimensions", "sampled_symbols"):
            if getattr(self, name) < self.states:
                raise ValueError(f"{name}={getattr(self, name)} is not legal: it must be at least states={self.states}")
        if self.fitted_seeds > self.seeds:
            raise ValueError(f"fitted_seeds={self.fitted_seeds} is not legal: it must be at most seeds={self.seeds}")
        if len(set(self.samples)) < len(self.samples):
            raise ValueError(f"samples={self.samples} is not legal: the numbers must differ")


PRESETS = {
    "smoke": Config(
        seeds=3,
        fitted_seeds=2,
        starts=3,
        iterations=10,
        inputs=200,
        repeats=2,
        trained_seeds=2,
        steps=20,
        batch_size=64,
    ),
    "small": Config(),
    "paper": Config(
        seeds=25,
        fitted_seeds=5,
        states=10,
        symbols=20,
        dimensions=50,
        starts=32,
        iterations=1000,
        sampled_symbols=50,
        samples=(10**6, 10**7, 10**8),
        repeats=25,
        trained_seeds=25,
        steps=20_000,
        batch_size=4096,
        learning_rate=3e-3,
    ),
}


def plan(config: Config) -> Iterable[lab.Cell]:
    """Predictors of the optimal form, trained on samples of one Gaussian model; all else is exact or fitted."""
    yield lab.Cell(
        name="trained",
        task=tasks.GaussianHMM(states=config.states, dimensions=config.dimensions),
        model=partial(models.GaussianHMMPredictor.for_task, n_states=config.states),
        seeds=range(config.trained_seeds),
        objective=training.square,
        optimiser=training.AdamW(config.learning_rate),
        schedule=training.linear(config.steps),
        steps=config.steps,
        batch_size=config.batch_size,
        measure=partial(track, config),
        every=max(1, config.steps // 20),
    )


def track(config: Config, population: "Population", step: int) -> "dict[str, Tensor]":
    from mesocosm.studies.masked_prediction_hmm import evaluation

    return evaluation.track(config, population, step)


def run(config: Config, lab: "Lab") -> None:
    from mesocosm.studies.masked_prediction_hmm import evaluation

    seeds, fitted = list(range(config.seeds)), range(config.fitted_seeds)
    lab.record("twin", lab.remember("twin", partial(evaluation.compare_twins, config)), seed=seeds)
    lab.record("ghost", lab.remember("ghost", partial(evaluation.compare_ghosts, config)), seed=seeds)
    for states, symbols in dict.fromkeys([*SIZES, (config.states, config.symbols)]):
        count = partial(evaluation.count_deficiencies, states, symbols, config.fitted_seeds)
        found = lab.remember(f"jacobian {states} {symbols}", count)
        for task in TASKS:
            for i, transition in enumerate(TRANSITIONS):
                metrics = {"deficiency": found[f"deficiency {task}"][:, i], "least": found[f"least {task}"][:, i]}
                place: Any = {"states": states, "symbols": symbols, "task": task, "transition": transition}
                lab.record("jacobian", metrics, seed=list(fitted), **place)
    record_fits(config, lab)
    errors = lab.remember("samples", partial(evaluation.learn_from_samples, config))["error"]
    for i, size in enumerate(config.samples):
        for r in range(config.repeats):
            for j, emission in enumerate(EMISSIONS):
                drawn: Any = {"samples": size, "repeat": r, "emission": emission}
                lab.record("samples", {"error": errors[:, i, r, j]}, seed=seeds, **drawn)
    record_picture(lab)
    for cell in plan(config):
        lab.train(cell)


def record_fits(config: Config, lab: "Lab") -> None:
    from mesocosm.studies.masked_prediction_hmm import evaluation

    discrete = partial(evaluation.fit_discrete, config, device=lab.device)
    gaussian = partial(evaluation.fit_gaussian, config, device=lab.device)
    jobs = {("fit discrete", task): partial(discrete, places) for task, places in TASKS.items()}
    jobs["fit gaussian", "x2|x1"] = partial(gaussian, True)
    jobs["fit gaussian, free T", "x2|x1"] = partial(gaussian, False)
    for (cell, task), job in jobs.items():
        found = lab.remember(f"{cell} {task}", job)
        for start in range(config.starts):
            metrics = {name: values[:, start] for name, values in found.items()}
            lab.record(cell, metrics, seed=list(range(config.fitted_seeds)), task=task, start=start)


def record_picture(lab: "Lab") -> None:
    from mesocosm.studies.masked_prediction_hmm import evaluation

    found = lab.remember("picture", evaluation.draw_ghost)
    for i, kind in enumerate(("means", "ghost")):
        for state in range(2):
            x, y = found["means"][i, :, state].tolist()
            lab.record("picture", {"x": x, "y": y}, seed=0, kind=kind, state=state)
        points = list(range(len(found["grid"])))
        grid = {"x": found["grid"][:, 0], "y": found["grid"][:, 1], "posterior": found["posteriors"][i]}
        lab.record("picture grid", grid, seed=[0] * len(points), kind=kind, point=points)


STUDY = lab.Study(
    title="Masked prediction and the parameters of hidden Markov models",
    paper="B. Liu, D. Hsu, P. Ravikumar, A. Risteski. Masked Prediction: A Parameter Identifiability View. "
    "NeurIPS 2022. arXiv 2202.09305",
    question="When a masked predictor is optimal and has the right form, are its parameters those of the data?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=[
        "The paper proves theorems and has no experiments; sizes, fits and samples are chosen here.",
        "Fits use damped Gauss-Newton steps (Levenberg-Marquardt) from all starts at once, which solve these small "
        "problems to machine precision and are deterministic.",
        "The models that are sampled have well-separated states: on others, Jennrich's algorithm needs far more than a "
        "million triples.",
        "The training on samples is descriptive and judged by no claim.",
    ],
)
