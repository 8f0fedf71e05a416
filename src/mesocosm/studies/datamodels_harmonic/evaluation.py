"""What is measured on the models trained on subsets: tables of outputs, their harmonics, and what pairs say of them."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mesocosm import measures
from mesocosm.studies.datamodels_harmonic import cells

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.studies.datamodels_harmonic import Config
    from mesocosm.training import Population

CONSTANT = 1e-6
"""An output of less variance says nothing of the training points."""
PARITY = 6
"""Points of the parities that have no linear part."""
RARE = 0.2
"""A probability at which the influences of two points need not add up."""
NUMBERS = 10_000_000
"""Entries of all matrices that are factored at once."""


def tests(config: "Config", seed: int) -> "tuple[Tensor, Tensor]":
    """Test images, and their labels as -1 and 1."""
    data = cells.images(config, seed, config.points).test()
    if len(data.targets) < config.tests:
        raise ValueError(f"tests={config.tests} is not legal: there are {len(data.targets)} test images of the classes")
    return data.inputs[: config.tests], data.targets[: config.tests].double() * 2 - 1


def margins_of(config: "Config", seed: int, population: "Population") -> "Tensor":
    """y f(x) of every network on the test images, `[K, M]` float64, with f the difference of the two logits."""
    inputs, labels = tests(config, seed)
    inputs = inputs.to(population.device)
    logits = population.map(lambda model: model(inputs)).cpu().double()
    return (logits[..., 1] - logits[..., 0]) * labels


def kinds(margins: "Tensor") -> "dict[str, Tensor]":
    return {"margin": margins, "probability": margins.sigmoid(), "correctness": (margins > 0).double()}


def votes(config: "Config", variant: str, seed: int) -> "Tensor":
    """Margins of a learner that is linear by construction, `[2^n, M]`: each point in the subset votes by likeness."""
    data = cells.training_set(config, variant, seed)
    inputs, labels = tests(config, seed)
    likeness = (data.inputs.flatten(1) @ inputs.flatten(1).T).double() / inputs[0].numel()
    ballots = (data.targets.double() * 2 - 1)[:, None] * likeness * labels
    return cells.all_subsets(config).double() @ ballots


def linear_share(table: "Tensor") -> "Tensor":
    """R^2 of the best linear datamodel of outputs `[2^n, M]`, from all their harmonics; NaN where they are constant."""
    import torch

    weights = measures.degree_weights(measures.biased_fourier(table.T))[:, 1:]
    total = weights.sum(1)
    return torch.where(total > CONSTANT, weights[:, 0] / total, torch.nan)


def degree_shares(table: "Tensor") -> "Tensor":
    """Share of the variance at each degree from 1 on, mean over the test points that vary, `[n]`."""
    weights = measures.degree_weights(measures.biased_fourier(table.T))[:, 1:]
    weights = weights[weights.sum(1) > CONSTANT]
    return (weights / weights.sum(1, keepdim=True)).mean(0)


def identity_errors(table: "Tensor", masks: "Tensor") -> "dict[str, Tensor]":
    """How far regressions on all subsets, and on the large ones alone, are from the harmonics of `[2^n, M]`."""
    coefficients = measures.biased_fourier(table.T)
    weights = measures.degree_weights(coefficients)
    singles = coefficients[:, [2**i for i in range(masks.shape[1])]].T
    whole = measures.linear_datamodel(masks, table)
    large = masks.sum(1) > masks.shape[1] / 2
    skewed = measures.linear_datamodel(masks[large], table[large])
    return {
        "datamodel error": (whole.theta - singles).abs().max(),
        "residual error": (whole.residual(masks, table) - weights[:, 2:].sum(1)).abs().max(),
        "Parseval error": (weights.sum(1) - table.square().mean(0)).abs().max(),
        "datamodel error of large subsets": (skewed.theta - singles).abs().max(),
    }


def estimates(config: "Config", outputs: "Tensor", partners: "Tensor") -> "dict[int, Tensor]":
    """R^2 estimated from so many pairs at each rho, `[M]`; outputs are `[R, K, M]`."""
    import torch

    rhos = torch.tensor(config.rhos).double()
    return {
        count: measures.datamodel_r2_from_pairs(rhos, outputs[:, :count], partners[:, :count]).r2
        for count in (config.few_pairs, config.pairs)
    }


def rows_of(masks: "Tensor") -> "Tensor":
    """Where the subsets `[..., n]` stand in a table of all."""
    import torch

    return (masks.long() << torch.arange(masks.shape[-1])).sum(-1)


def stability(config: "Config", table: "Tensor", sides: "tuple[Tensor, Tensor]") -> "dict[str, Tensor]":
    """Noise stability over the variance of one output `[2^n]`: as it is, as measured by all pairs, and as fitted."""
    import torch

    rhos, grid = torch.tensor([*config.rhos, 1.0]).double(), torch.linspace(0, 1, 21).double()
    weights = measures.degree_weights(measures.biased_fourier(table))
    outputs, partners = (table[rows_of(side)] for side in sides)
    variance = torch.cat((outputs, partners)).var(unbiased=False)
    measured = torch.cat((measures.noise_stability(outputs, partners), variance[None]))
    fitted = measures.fit_degree_weights(rhos, measured)
    fitted = torch.cat((torch.zeros(1).double(), fitted))
    total = weights[1:].sum()
    return {
        "stability": measures.stability_polynomial(weights, grid) / total,
        "fitted stability": measures.stability_polynomial(fitted, grid) / total,
        "measured stability": measured / total,
    }


def control_estimates(config: "Config", seed: int) -> "dict[str, Tensor]":
    """R^2 estimated of functions whose R^2 is known: random linear ones, 1, and parities of six points, 0."""
    import torch

    from mesocosm.seeding import generator

    sides = cells.pairs(config, config.points, 0.5, config.control_pairs, seed)
    stream = generator(seed, "functions")
    slopes = torch.randn(config.points, config.tests, generator=stream).double()
    chosen = torch.rand(config.points, config.tests, generator=stream).argsort(0) < PARITY
    functions = {"linear": lambda x: x @ slopes, "parity": lambda x: 1 - 2 * (x @ chosen.double() % 2)}
    rhos = torch.tensor(config.rhos).double()
    return {
        name: measures.datamodel_r2_from_pairs(rhos, *(function(side.double()) for side in sides)).r2
        for name, function in functions.items()
    }


def contrast(table: "Tensor", masks: "Tensor", group: Sequence[int]) -> "Tensor":
    """E[f | all of the group in] - E[f | all of it out], by counting, `[M]`."""
    inside = masks[:, list(group)]
    return table[inside.all(1)].mean(0) - table[~inside.any(1)].mean(0)


def groups(config: "Config", seed: int) -> dict[str, list[tuple[int, ...]]]:
    """Groups as large as that of the copies: this one, all among the other points, and those of the other label."""
    alike = cells.group_of_copies(config, seed)
    others = [i for i in range(config.points) if i not in alike]
    targets = cells.images(config, seed, config.points).train().targets
    label = [i for i in others if targets[i] == 1]
    return {
        "copies": [tuple(alike)],
        "random": list(combinations(others, config.copies)),
        "one label": list(combinations(label, config.copies)),
    }


def additivity(table: "Tensor", masks: "Tensor") -> "dict[str, Tensor]":
    """How far the influences of two points are from adding up, largest over all pairs and test points.

    By counting, as the formula has it, and by the formula where points are in rarely.
    """
    import torch

    n = masks.shape[1]
    couples = list(combinations(range(n), 2))
    counted = torch.stack([contrast(table, masks, couple) for couple in couples])
    alone = [contrast(table, masks, [i]) for i in range(n)]
    sums = torch.stack([alone[i] + alone[j] for i, j in couples])

    def formula(p: float, groups: list[Any]) -> "Tensor":
        coefficients = measures.biased_fourier(table.T, p)
        return torch.stack([measures.group_influence(coefficients, group, p) for group in groups])

    rare = formula(RARE, [[i] for i in range(n)])
    return {
        "pair deviation": (counted - sums).abs().max(),
        "formula error": (counted - formula(0.5, couples)).abs().max(),
        "pair deviation, rare": (formula(RARE, couples) - torch.stack([rare[i] + rare[j] for i, j in couples]))
        .abs()
        .max(),
    }


def ridge_scores(inputs: "Tensor", targets: "Tensor", masks: "Tensor", tests: "Tensor", penalty: float) -> "Tensor":
    """Scores `[K, M]` of ridge regressions on the subsets `masks` `[K, N]`, each in closed form.

    They minimise sum over the subset of (theta.x - y)^2 / 2 + penalty |theta|^2 / 2.
    """
    import torch

    kernel, likeness = inputs @ inputs.T, inputs @ tests.T
    ridge = penalty * torch.eye(len(inputs), dtype=inputs.dtype)
    scores = []
    for part in masks.to(inputs.dtype).split(max(1, NUMBERS // len(inputs) ** 2)):
        factors = torch.linalg.cholesky(kernel * part[:, :, None] * part[:, None, :] + ridge)
        scores.append(torch.cholesky_solve((part * targets)[..., None], factors)[..., 0] @ likeness)
    return torch.cat(scores)


def ridge_data(config: "Config", seed: int) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
    """Many images as rows of pixels with labels of -1 and 1, and the test images likewise, in float64."""
    data = cells.images(config, seed, config.many).train()
    inputs, labels = tests(config, seed)
    return data.inputs.flatten(1).double(), data.targets.double() * 2 - 1, inputs.flatten(1).double(), labels


def ridge_margins(config: "Config", seed: int, masks: "Tensor") -> "Tensor":
    inputs, targets, others, labels = ridge_data(config, seed)
    return ridge_scores(inputs, targets, masks, others, config.penalty) * labels


def ridge_influences(config: "Config", seed: int) -> "tuple[Tensor, dict[str, Tensor]]":
    """Influences `[N, M]` on the margins of ridge regression on many images, and what they are held against.

    Leaving point i out changes an output by its influence over 1 - h, with h the point's leverage.
    """
    import torch
    from torch import nn

    inputs, targets, others, labels = ridge_data(config, seed)
    n, d = inputs.shape
    inverse = torch.linalg.inv(inputs.T @ inputs + config.penalty * torch.eye(d).double())
    model = nn.Linear(d, 1, bias=False).double()
    model.weight.data.copy_((inverse @ (inputs.T @ targets))[None])

    def objective(model: "nn.Module", weights: "Tensor") -> "Tensor":
        errors = model(inputs)[:, 0] - targets
        penalty = sum(p.square().sum() for p in model.parameters())
        return ((weights * errors.square()).sum() + config.penalty * penalty) / 2

    influence = measures.influence_functions(
        model, objective, lambda m: m(others)[:, 0] * labels, torch.ones(n).double()
    )
    masks = torch.cat((torch.ones(1, n), 1 - torch.eye(n)))
    margins = ridge_scores(inputs, targets, masks, others, config.penalty) * labels
    left_out, leverage = margins[0] - margins[1:], (inputs @ inverse * inputs).sum(1)
    return influence, {
        "error over 1 - leverage": (influence / (1 - leverage)[:, None] - left_out).abs().max(),
        "error to first order": (influence - left_out).abs().max(),
        "largest change": left_out.abs().max(),
    }


def sampled(config: "Config", p: float, masks: "Tensor", margins: "Tensor") -> "dict[str, Tensor]":
    """R^2 of linear datamodels on held-out random subsets, and as estimated from pairs, `[M]` by kind of output.

    With the influences `[N, M]` on margins, averaged over subsets. Masks and margins are in the order of
    `sampled_subsets`.
    """
    import torch

    found = {}
    fitted, rhos = round(0.8 * config.subsets), len(config.rhos)
    for kind, table in kinds(margins).items():
        alone, left, right = table.split([config.subsets, config.pairs * rhos, config.pairs * rhos])
        datamodel = measures.linear_datamodel(masks[:fitted], alone[:fitted], p)
        variance = alone[fitted:].var(0, unbiased=False)
        left_over = datamodel.residual(masks[fitted : config.subsets], alone[fitted:]) / variance
        found[f"{kind}/R2"] = torch.where(variance > CONSTANT, 1 - left_over, torch.nan)
        sides = (side.unflatten(0, (rhos, config.pairs)) for side in (left, right))
        found |= {f"{kind}/{count}": r2 for count, r2 in estimates(config, *sides).items()}
        if kind == "margin":
            found["influences"] = datamodel.influences
    return found


def sampled_by_ridge(config: "Config", seed: int, p: float, masks: "Tensor") -> "dict[str, Tensor]":
    return sampled(config, p, masks, ridge_margins(config, seed, masks))
