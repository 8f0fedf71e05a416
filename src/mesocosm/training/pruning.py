"""Make a trained network smaller by setting weights to 0, one shot, without training again.

At home, with a Hugging Face model and calibration texts as token ids `[B, T]`:
`prune(model, 0.5, wanda(input_norms(model, batches)))`, or `sparsegpt(model, 0.5, batches)`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["input_norms", "magnitude", "prune", "random_scores", "sparsegpt", "wanda"]

Score = Callable[[str, Tensor], Tensor]
"""Importance of each weight of a named layer, of the shape `[out, in]` of the weights; the least are pruned."""


def magnitude(name: str, weight: Tensor) -> Tensor:
    """|W|, the plainest score.

    Source: Han et al. (2015), Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626
    """
    return weight.abs()


def wanda(norms: dict[str, Tensor]) -> Score:
    """|W_ij| times the norm of input j, from `input_norms` of the same model.

    Source: Sun et al. (2024), A Simple and Effective Pruning Approach for Large Language Models, equation 1, arXiv
    2306.11695
    """
    return lambda name, weight: weight.abs() * norms[name].to(weight)


def random_scores(generator: torch.Generator) -> Score:
    """Uniform scores: a control that knows nothing of the weights."""
    return lambda name, weight: torch.rand(weight.shape, generator=generator).to(weight)


@torch.no_grad()
def input_norms(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """||x_j||_2 of each input of each linear layer over all positions of calibration batches, by name, `[in]` float64.

    Args:
        model: in eval mode; called with each batch.

    Source: Sun et al. (2024), A Simple and Effective Pruning Approach for Large Language Models, arXiv 2306.11695
    """
    squares = _sums(model, batches, [name for name, _ in _weights(model)], lambda inputs: inputs.square().sum(0))
    return {name: found.sqrt() for name, found in squares.items()}


@torch.no_grad()
def prune(model: nn.Module, sparsity: float, score: Score, skip: Sequence[str] = ("lm_head",)) -> float:
    """Set the weights of least score to 0, the same share in each row (output) of each linear layer, in place.

    Biases, embeddings and the layers of `skip` stay as they are. Ties go by position, so that the share is met exactly
    even where many weights are equal, as in a quantised model.

    Args:
        sparsity: share of a row's weights to remove; `round(sparsity * in)` of them.
        skip: last parts of the names of layers to leave whole.

    Returns:
        The share of 0 among the weights of all layers that were pruned.

    Raises:
        ValueError: unless 0 <= sparsity <= 1, and when there is no layer to prune.
    """
    layers = _chosen(model, sparsity, skip)
    for name, weight in layers.items():
        weight[_least(score(name, weight), round(sparsity * weight.shape[1]))] = 0
    return _share_of_zeros(layers)


@torch.no_grad()
def sparsegpt(
    model: nn.Module,
    sparsity: float,
    batches: Sequence[Tensor],
    skip: Sequence[str] = ("lm_head",),
    *,
    block: int = 128,
    damping: float = 0.01,
) -> float:
    """Prune linear layers in place and let the weights that stay make up for those that go: SparseGPT.

    A layer keeps its outputs W x on calibration inputs as well as it can, by the inverse of H = sum over x x^T: going
    through the columns, each weight that is removed moves those to its right as optimal brain surgeon has it. In each
    block of columns the weights of least w^2 / [H^-1]_jj are removed, over all rows together. Layers whose names begin
    alike up to a number, as `model.layers.3` does, are pruned together, on the inputs that all before them, already
    pruned, give them.

    Args:
        model: in eval mode; called with each batch, once for each such group.
        sparsity: share of weights to remove in each block of columns.
        skip: last parts of the names of layers to leave whole.
        block: columns that choose their weights together.
        damping: added to the diagonal of H, in units of its mean.

    Returns:
        The share of 0 among the weights of all layers that were pruned.

    Raises:
        ValueError: unless 0 <= sparsity <= 1, and when there is no layer to prune.

    Source: Frantar & Alistarh (2023), SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot,
    algorithm 1, arXiv 2301.00774
    """
    layers = _chosen(model, sparsity, skip)
    for _, group in groupby(layers, key=_place):
        names = list(group)
        hessians = _sums(model, batches, names, lambda inputs: inputs.T @ inputs)
        for name in names:
            layers[name].copy_(_reconstructed(layers[name].double(), hessians[name], sparsity, block, damping))
    return _share_of_zeros(layers)


def _reconstructed(weight: Tensor, hessian: Tensor, sparsity: float, block: int, damping: float) -> Tensor:
    diagonal = hessian.diagonal()
    weight[:, diagonal == 0] = 0
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    # Row j of this factor is that of the inverse of H without the columns before j, over the root of its corner.
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        corner = factor.diagonal()[start:end]
        scores = (weight[:, start:end] / corner).square()
        removed = _least(scores.view(1, -1), round(sparsity * scores.numel())).view_as(scores)
        errors = torch.zeros_like(scores)
        for j in range(start, end):
            errors[:, j - start] = torch.where(removed[:, j - start], weight[:, j] / factor[j, j], 0)
            weight[:, j:end] -= errors[:, j - start, None] * factor[j, j:end]
        weight[:, start:end][removed] = 0
        weight[:, end:] -= errors @ factor[start:end, end:]
    return weight


def _sums(
    model: nn.Module, batches: Iterable[Tensor], names: Sequence[str], of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Sums over batches of a function of the inputs `[N, in]`, float64, of named layers."""
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = of(inputs[0].flatten(0, -2).double())
            sums[name] = sums[name] + found if name in sums else found

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def _least(scores: Tensor, count: int) -> Tensor:
    """Where the `count` least scores of each row stand, of equal ones the first; bool of the shape of `scores`."""
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    border = _of_rank(scores, count)
    least = scores <= border
    if least.count_nonzero() > count * len(scores):  # Some are equal.
        below, equal = scores < border, scores == border
        least = below | (equal & (equal.cumsum(1) <= count - below.sum(1, keepdim=True)))
    return least


def _of_rank(scores: Tensor, count: int) -> Tensor:
    """The greatest of the `count` least scores of each row `[N, 1]`."""
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        # NumPy is several times faster.
        return torch.from_numpy(np.partition(scores.numpy(), count - 1, axis=1)[:, count - 1 : count])
    return scores.kthvalue(count, dim=1, keepdim=True).values


def _chosen(model: nn.Module, sparsity: float, skip: Sequence[str]) -> dict[str, Tensor]:
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} is not legal: it must be from 0 to 1")
    layers = {name: weight for name, weight in _weights(model) if name.rpartition(".")[2] not in skip}
    if not layers:
        raise ValueError(f"there is nothing to prune: no linear layer besides {', '.join(skip) or 'none'}")
    return layers


def _share_of_zeros(layers: dict[str, Tensor]) -> float:
    zeros = sum(int((weight == 0).sum()) for weight in layers.values())
    return zeros / sum(weight.numel() for weight in layers.values())


def _place(name: str) -> str:
    """A layer's name up to its first number."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: first + 1])


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        # GPT-2 of Hugging Face has Conv1D, a linear layer whose weights are [in, out].
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            yield name, module


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Views `[out, in]` of the weights of all linear layers."""
    for name, module in _linear_layers(model):
        weight: Tensor = module.weight.data  # type: ignore[assignment]
        yield name, weight if isinstance(module, nn.Linear) else weight.T
