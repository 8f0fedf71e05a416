"""What is measured: losses on held-out text by difficulty, distance to known laws, scores of passages, label noise."""

from collections import namedtuple
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import measures, models, tasks, training

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from mesocosm.training import Population

__all__: list[str] = []
SLICE = 256
"""Candidate passages that are scored at once."""


def held_out(task: Any, count: int, device: "device | str") -> Any:
    """Passages that no model is trained on; the same for all models."""
    from mesocosm.seeding import generator

    hidden = tasks.TextBytes(path=task.path, length=task.length, split="valid") if hasattr(task, "path") else task
    batch = hidden.sample(count, generator("salt", "held out"))
    return batch._make(field.to(device) for field in batch)


def losses_of(teacher: "Population | nn.Module", inputs: "Tensor", targets: "Tensor", replicas: int) -> "Tensor":
    """Loss of every token `[R, B, T]`; a single module is the teacher of all replicas."""
    from torch import nn

    loss = lambda model: measures.token_losses(model(inputs), targets)
    return loss(teacher).expand(replicas, -1, -1) if isinstance(teacher, nn.Module) else teacher.map(loss)


def track_text(
    task: Any, passages: int, difficulty: "Tensor | None", population: "Population", step: int
) -> "dict[str, Tensor]":
    """Held-out loss, in all and in quarters of the tokens by `difficulty` `[R, B, T]`."""
    batch = held_out(task, passages, population.device)
    losses = losses_of(population, batch.inputs, batch.targets, len(population)).flatten(1)
    values = {"valid loss": losses.mean(1)}
    if difficulty is not None:
        quarters = measures.bucket_means(losses, difficulty[population.index].flatten(1))
        values |= {f"quarter {i + 1}": quarters[:, i] for i in range(quarters.shape[1])}
    return values


def excess_losses(batch: Any, model: "nn.Module") -> "Tensor":
    """Expected loss over the entropy of the true law `[B, T]`: the divergence from the law to the model."""
    log_probabilities = model(batch.inputs).log_softmax(-1)
    return -(batch.probabilities * log_probabilities).sum(-1) - batch.entropy


def track_chain(task: Any, strings: int, population: "Population", step: int) -> "dict[str, Tensor]":
    """Excess loss over all contexts, the easy ones and the hard ones."""
    batch = held_out(task, strings, population.device)
    excess = population.map(partial(excess_losses, batch))
    full = batch.weights > 0
    parts = {"excess loss": full, "easy contexts": full & ~batch.hard, "hard contexts": full & batch.hard}
    return {name: excess[:, part].mean(1) for name, part in parts.items()}


def divergence_and_gain(
    task: Any, strings: int, teacher: "Population", salt: "Population", baseline: "Population"
) -> "dict[str, Tensor]":
    """Per-token total variation between teacher and truth, and what SALT gains there, in ten parts by the former."""
    import torch

    batch = held_out(task, strings, teacher.device)
    full = batch.weights > 0
    truth = batch.probabilities
    variation = teacher.map(lambda model: (model(batch.inputs).softmax(-1) - truth).abs().sum(-1) / 2)[:, full]
    excess = partial(excess_losses, batch)
    gain = (baseline.map(excess) - salt.map(excess))[:, full]
    parts = [measures.bucket_means(values, variation, 10) for values in (variation, gain)]
    return {"variation": torch.stack(list(parts[0])), "gain": torch.stack(list(parts[1]))}


def score(candidates: Any, k: int, scorer: "Population") -> "dict[str, Tensor]":
    """S_k of every candidate by every replica of an early, small model, `[R, N]`."""
    import torch

    def score_slice(inputs: "Tensor", targets: "Tensor") -> "Tensor":
        x, y = inputs.to(scorer.device), targets.to(scorer.device)
        return scorer.map(lambda model: measures.challenging_yet_learnable(model(x), y, k)).cpu()

    slices = zip(candidates.inputs.split(SLICE), candidates.targets.split(SLICE))
    return {"scores": torch.cat([score_slice(*passages) for passages in slices], dim=1)}


def label_noise(
    task: Any, draws: int, weights: Sequence[float], seeds: Sequence[int], teacher: "Population"
) -> "dict[str, Tensor]":
    """How soft labels change mean and variance of a gradient over draws of the labels, with known laws.

    For each seed an untrained network reads one string, and the labels after each context are drawn again and again.

    Returns:
        `[R, W]` each: "variance", that of the mixed loss over that of cross-entropy, in units of (1 - w)^2; "drawn",
        the same where labels are drawn from the teacher with probability w; "bias", that of the mean gradient in the
        logits along sign(q - p), in units of w E|q - p|; "distance", E|q - p|.
    """
    import torch
    from torch import nn

    from mesocosm.seeding import generator

    make_network = partial(models.NgramMLP.for_task, task, context=2, d_embed=8, hidden=(32,))
    rows = []
    for r, seed in enumerate(seeds):
        string = task.sample(1, generator("salt", "label noise", seed))
        truth, own = string.probabilities, teacher.replica(r).cpu()
        with torch.no_grad():
            soft = own(string.inputs).softmax(-1)
        network = training.Population(make_network, [seed]).replica(0)
        # Positions go in as one-hot vectors, so that its weights are logits.
        free = nn.Linear(truth.shape[1], truth.shape[2], bias=False)
        free.weight.data = network(string.inputs)[0].T.detach()
        labels = partial(draw_labels, draws, random=generator("salt", "labels", seed))
        hard = measures.gradient_moments(network, training.cross_entropy, repeat(string, labels(truth), soft, 0.0))
        for w in weights:
            mixed = repeat(string, labels(truth), soft, w)
            variance = measures.gradient_moments(network, training.distil, mixed).variance
            both = repeat(string, labels((1 - w) * truth + w * soft), soft, 0.0)
            drawn = measures.gradient_moments(network, training.cross_entropy, both).variance
            positions = torch.eye(truth.shape[1]).expand(draws, 1, -1, -1)
            mean = measures.gradient_moments(free, training.distil, mixed._replace(inputs=positions)).mean
            share = string.weights.unsqueeze(-1) / string.weights.sum()
            exact = share * (free.weight.detach().T.softmax(-1) - truth)
            bias = mean.view(free.weight.shape).T - exact
            distance = (share * (soft - truth).abs()).sum()
            along = (bias * (truth - soft).sign()).sum() / distance
            unit = hard.variance * (1 - w) ** 2
            rows.append([variance / unit, drawn / unit, along / w, distance])
    table = torch.tensor(rows, dtype=torch.float64).view(len(seeds), len(weights), 4)
    return dict(zip(("variance", "drawn", "bias", "distance"), table.unbind(-1)))


def draw_labels(draws: int, laws: "Tensor", random: Any) -> "Tensor":
    """Labels `[K, 1, T]` from `laws` `[1, T, V]`."""
    return laws[0].multinomial(draws, replacement=True, generator=random).T.unsqueeze(1)


Labelled = namedtuple("Labelled", "inputs targets weights soft soft_weight")


def repeat(string: Any, labels: "Tensor", soft: "Tensor", weight: float) -> Labelled:
    """One string with K draws of its labels."""
    many = lambda field: field.expand(len(labels), *field.shape)
    return Labelled(
        many(string.inputs), labels, many(string.weights), many(soft), soft.new_full((len(labels),), weight)
    )
