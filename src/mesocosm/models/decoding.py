"""Writing on from a prompt, one token after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least

__all__ = ["generate"]


@torch.no_grad()
def generate(
    model: nn.Module, prompt: Tensor, length: int, temperature: float = 0.0, uniform: Tensor | None = None
) -> Tensor:
    """The `length` tokens `[B, length]` that a language model writes after `prompt` `[B, T]`.

    A model with `forward_with_cache(tokens, cache) -> (logits, cache)` reads each token once; any other reads the whole
    text again for each token. The model is used as it is, in training or evaluation mode. Give each replica of a
    population uniforms of its own:
    `population.map(lambda model, uniform: generate(model, prompt, length, 1.0, uniform), uniforms)`.

    Args:
        temperature: the likeliest token when 0, else a sample of softmax(logits / temperature).
        uniform: `[B, length]` numbers from [0, 1), one for each sampled token: the first token whose cumulative
            probability is above it is taken.

    Raises:
        ValueError: for an illegal length or temperature, or without the uniforms that sampling needs.
    """
    check_at_least(1, length=length)
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature!r} is not legal: it must be a number, at least 0")
    needed = (*prompt.shape[:-1], length)
    if temperature > 0 and (uniform is None or uniform.shape != needed):
        given = None if uniform is None else list(uniform.shape)
        raise ValueError(f"uniform of shape {given} is not legal: temperature={temperature} needs {list(needed)}")
    read: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = getattr(model, "forward_with_cache", None)
    text, unread, cache = prompt, prompt, None
    for t in range(length):
        if read:
            logits, cache = read(unread, cache)
        else:
            logits = model(text)
        if uniform is not None and temperature > 0:
            unread = _sample(logits[..., -1, :] / temperature, uniform[..., t])[..., None]
        else:
            unread = logits[..., -1, :].argmax(-1, keepdim=True)
        text = torch.cat([text, unread], -1)
    return text[..., prompt.shape[-1] :]


def _sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token of softmax(logits) `[B, V]` for each of `uniform` `[B]`, by the inverse distribution function."""
    cumulative = logits.softmax(-1).cumsum(-1)
    return (cumulative / cumulative[..., -1:] <= uniform[..., None]).sum(-1)  # rounding leaves the last short of 1
