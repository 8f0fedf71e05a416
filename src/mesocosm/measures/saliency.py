"""Whether a saliency map is evidence: what a classifier says when only the pixels that it ranks high are shown.

A map may come from anywhere, such as `captum.attr`. Where that gives one value for each channel, `[B, C, H, W]`, sum or
average over channels first. Maps are ranked as they are: take absolute values or not before, and say so.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "completeness",
    "deletion_curve",
    "insertion_areas",
    "insertion_curve",
    "saliency_scores",
    "soundness",
]


class SaliencyScores(NamedTuple):
    """Means over images, each from 0 to 1."""

    area: float
    """Insertion area of the predicted label's map."""
    wrong_area: float
    """Insertion area of the other labels' maps, each for its own label."""
    completeness: float
    """Of the predicted label's map."""
    worst_soundness: float
    """Soundness of the label for which its mean over images is least."""
    wrong_soundness: float
    """Soundness of the labels that were not predicted."""
    agreement: float
    """Share of images whose largest insertion area is that of the predicted label."""


def _curve(
    model: nn.Module, inputs: Tensor, maps: Tensor, labels: Tensor, steps: int, fill: Tensor | float, insert: bool
) -> Tensor:
    pixels = maps.shape[1:]
    if len(maps) != len(inputs) or not len(pixels) or inputs.shape[-len(pixels) :] != pixels:
        raise ValueError(f"maps of shape {tuple(maps.shape)} do not fit inputs of shape {tuple(inputs.shape)}")
    if not 1 <= steps <= pixels.numel():
        raise ValueError(f"steps={steps} is not legal: it must be from 1 to the {pixels.numel()} pixels of a map")
    fills = torch.as_tensor(fill, dtype=inputs.dtype, device=inputs.device)
    if fills.dim() < inputs.dim():
        fills = fills.expand(inputs.shape[1:])[None]
    place = maps.detach().flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    channels = (1,) * (inputs.dim() - 1 - len(pixels))
    curve = []
    for k in range(1, steps + 1):
        top = place < k * pixels.numel() // steps
        kept = (top if insert else ~top).reshape(-1, *channels, *pixels)
        logits = torch.stack([model(torch.where(kept, inputs, z)) for z in fills])  # [Z, B, A]
        curve.append(logits.softmax(-1).mean(0).gather(1, labels[:, None])[:, 0])
    return torch.stack(curve, dim=1)


@torch.no_grad()
def insertion_curve(
    model: nn.Module, inputs: Tensor, maps: Tensor, labels: Tensor, steps: int = 16, fill: Tensor | float = 0.0
) -> Tensor:
    """Probability of a label as the pixels that its map ranks highest are shown, in equal steps up to all of them.

    The mean of a curve is its area; its last value is the probability on the whole image. Ties are ranked in the order
    of the pixels.

    Args:
        model: a classifier in eval mode; takes inputs to logits `[B, A]`.
        inputs: `[B, H, W]`, `[B, C, H, W]` or `[B, D]`.
        maps: `[B, H, W]` or `[B, D]`; a pixel shows or hides all its channels.
        labels: `[B]`, the label of each map.
        steps: S; at step k the first k D // S of D pixels are shown.
        fill: what hidden pixels show: a number (0 is the mean, of standardised images), an image without batch axis, or
            Z whole images `[Z, ...]` over which probabilities are averaged.

    Returns:
        `[B, S]`.

    Raises:
        ValueError: when maps do not fit the inputs, or for fewer pixels than steps.

    Source: Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation, arXiv 1806.07421; Gupta et al.
    (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and Sound, arXiv
    2211.02912
    """
    return _curve(model, inputs, maps, labels, steps, fill, insert=True)


@torch.no_grad()
def deletion_curve(
    model: nn.Module, inputs: Tensor, maps: Tensor, labels: Tensor, steps: int = 16, fill: Tensor | float = 0.0
) -> Tensor:
    """Probability of a label as the pixels that its map ranks highest are hidden, in equal steps up to all of them.

    Args:
        model, inputs, maps, labels, steps, fill: as for `insertion_curve`, with shown and hidden changed about.

    Returns:
        `[B, S]`; low where the map found what the label rests on.

    Source: Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation, arXiv 1806.07421
    """
    return _curve(model, inputs, maps, labels, steps, fill, insert=False)


def insertion_areas(
    model: nn.Module, inputs: Tensor, maps: Tensor, steps: int = 16, fill: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """What `saliency_scores` needs: the insertion area of each label's own map, and the label's probability.

    Args:
        model, inputs, steps, fill: as for `insertion_curve`.
        maps: `[B, A, H, W]` or `[B, A, D]`, one for every label, likely or not.

    Returns:
        areas and probabilities on whole images, both `[B, A]`.

    Source: Gupta et al. (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and
    Sound, arXiv 2211.02912
    """
    areas = []
    for label, own in enumerate(maps.unbind(1)):
        labels = torch.full((len(inputs),), label, device=inputs.device)
        areas.append(insertion_curve(model, inputs, own, labels, steps, fill).mean(1))
    with torch.no_grad():
        return torch.stack(areas, dim=1), model(inputs).softmax(-1)


def completeness(areas: Tensor, probabilities: Tensor, floor: float = 0.1, cap: float = 1.0) -> Tensor:
    """How much of a label's probability its map keeps: min(max(floor, area) / min(cap, probability), 1).

    Args:
        areas: `[...]`, insertion areas.
        probabilities: `[...]`, on whole images, of the same labels.

    Source: Gupta et al. (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and
    Sound, arXiv 2211.02912
    """
    return (areas.clamp_min(floor) / probabilities.clamp_max(cap)).clamp_max(1)


def soundness(areas: Tensor, probabilities: Tensor, floor: float = 0.1) -> Tensor:
    """How little a map adds to a label's probability: min(max(floor, probability) / area, 1).

    A map without any effect is sound, so read it beside completeness.

    Args:
        areas: `[...]`, insertion areas.
        probabilities: `[...]`, on whole images, of the same labels.

    Source: Gupta et al. (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and
    Sound, arXiv 2211.02912
    """
    return (probabilities.clamp_min(floor) / areas).clamp_max(1)


def saliency_scores(areas: Tensor, probabilities: Tensor) -> SaliencyScores:
    """Completeness and soundness of a saliency method, from its maps for all labels of some images.

    Args:
        areas, probabilities: `[B, A]`, as from `insertion_areas`; take rows with replacement for intervals over images.

    Raises:
        ValueError: for a single label, of which none can be wrong.

    Source: Gupta et al. (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and
    Sound, arXiv 2211.02912
    """
    if areas.shape[1] < 2:
        raise ValueError("areas is not legal: it must have two labels or more")
    predicted = torch.nn.functional.one_hot(probabilities.argmax(1), areas.shape[1]).bool()
    sound = soundness(areas, probabilities)
    return SaliencyScores(
        area=areas[predicted].mean().item(),
        wrong_area=areas[~predicted].mean().item(),
        completeness=completeness(areas, probabilities)[predicted].mean().item(),
        worst_soundness=sound.mean(0).min().item(),
        wrong_soundness=sound[~predicted].mean().item(),
        agreement=(areas.argmax(1) == probabilities.argmax(1)).double().mean().item(),
    )
