"""Choices among labelled answers from the scores that a language model gives them."""

import torch
from torch import Tensor

from mesocosm.models.decoding import _sample

__all__ = ["calibrate", "choose"]


def calibrate(scores: Tensor, neutral: Tensor) -> Tensor:
    """Log-probabilities `[B, K]` of K answers without the model's liking for their labels.

    log p(k | prompt) - log p(k | neutral prompt), normalised over k, where the neutral prompts hold no evidence
    ("N/A" in place of the history): an answer counts for what the evidence adds to it.

    Args:
        scores: `[B, K]` log-probabilities in nats, as `LanguageModel.score` gives them.
        neutral: `[N, K]` those after N neutral prompts; their probabilities, normalised over k, are averaged.

    Raises:
        ValueError: when the numbers of answers differ.

    Source: Zhao et al. (2021), Calibrate Before Use: Improving Few-Shot Performance of Language Models, section 5,
    arXiv 2102.09690
    """
    if neutral.dim() != 2 or not len(neutral) or neutral.shape[-1] != scores.shape[-1]:
        raise ValueError(f"neutral of shape {list(neutral.shape)} is not legal: it must be [N, {scores.shape[-1]}]")
    liking = neutral.log_softmax(-1).logsumexp(0)
    return (scores - liking).log_softmax(-1)


def choose(scores: Tensor, temperature: float = 0.0, uniform: Tensor | None = None) -> Tensor:
    """The index `[B]` of the best of K answers by `scores` `[B, K]`, or a sample of softmax(scores / temperature).

    Args:
        uniform: `[B]` numbers from [0, 1), one for each sample.

    Raises:
        ValueError: for a negative temperature, or without the uniforms that sampling needs.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature!r} is not legal: it must be a number, at least 0")
    if temperature == 0:
        return scores.argmax(-1)
    if uniform is None or uniform.shape != scores.shape[:-1]:
        given = None if uniform is None else list(uniform.shape)
        needed = list(scores.shape[:-1])
        raise ValueError(f"uniform of shape {given} is not legal: temperature={temperature} needs {needed}")
    return _sample(scores.to(torch.float64) / temperature, uniform)
