"""Make a trained network smaller by setting weights to 0, one shot, without training again.

At home, with a Hugging Face model and calibration texts as token ids `[B, T]`:
`prune(model, 0.5, wanda(input_norms(model, batches)))`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["input_norms", "magnitude", "prune", "random_scores", "wanda"]

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
    squares: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten(0, -2).double().square().sum(0)
            squares[name] = squares[name] + found if name in squares else found

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in _linear_layers(model)]
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
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
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} is not legal: it must be from 0 to 1")
    layers = [(name, weight) for name, weight in _weights(model) if name.rpartition(".")[2] not in skip]
    if not layers:
        raise ValueError(f"there is nothing to prune: no linear layer besides {', '.join(skip) or 'none'}")
    for name, weight in layers:
        if count := round(sparsity * weight.shape[1]):
            least = score(name, weight).argsort(dim=1, stable=True)[:, :count]
            weight.scatter_(1, least, 0)
    zeros = sum(int((weight == 0).sum()) for _, weight in layers)
    return zeros / sum(weight.numel() for _, weight in layers)


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
