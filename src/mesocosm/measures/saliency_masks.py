"""Saliency maps that are learned, as masks that keep a label's probability."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["learn_masks"]


@torch.enable_grad()
def learn_masks(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    noise: Tensor,
    generator: torch.Generator,
    *,
    steps: int = 2000,
    draws: int = 10,
    l1: float = 2e-5,
    tv: float = 0.01,
    scale: int = 4,
    learning_rate: float = 0.05,
) -> Tensor:
    """For each image and label a mask m = sigmoid(w), with which m x + (1 - m) z has that label for random images z.

    Adam from w = 0 minimises, for each image, -log of the mean probability of its label over the draws of z, plus l1
    sum(m), plus tv times the sum of squared differences between neighbours in m. One draw of images z serves all masks
    of a step, so a mask does not depend on its company. The defaults are those for ImageNet; l1 should grow as images
    get smaller. Departures from the official code: it puts the mean probabilities through a second softmax, draws z
    anew for each image, and leaves the last row and column out of the differences.

    Args:
        model: a classifier in eval mode; takes inputs to logits `[B, A]`. Its weights and their gradients stay as they
            are.
        inputs: `[B, H, W]` or `[B, C, H, W]`. To learn maps for all labels, repeat each image.
        labels: `[B]`.
        noise: `[Z, ...]`, images to draw z from, such as training images.
        draws: images z at each step.
        scale: w has one value for `scale` by `scale` pixels, and m is upsampled bilinearly.

    Returns:
        `[B, H, W]`, from 0 to 1.

    Raises:
        ValueError: for inputs that are not images, noise of another shape than these, or a scale below 1.

    Source: Gupta et al. (2022), New Definitions and Evaluations for Saliency Methods: Staying Intrinsic, Complete and
    Sound, arXiv 2211.02912
    """
    if inputs.dim() not in (3, 4) or noise.shape[1:] != inputs.shape[1:]:
        raise ValueError(f"inputs {tuple(inputs.shape)} and noise {tuple(noise.shape)} must be images of one shape")
    if scale < 1:
        raise ValueError(f"scale={scale} is not legal: it must be at least 1")
    size = inputs.shape[-2:]
    images = inputs.reshape(len(inputs), -1, *size)  # [B, C, H, W]
    w = images.new_zeros(len(inputs), 1, *(-(-length // scale) for length in size), requires_grad=True)
    optimiser = torch.optim.Adam([w], lr=learning_rate)
    for _ in range(steps):
        chosen = torch.randint(len(noise), (draws,), generator=generator).to(noise.device)
        z = noise[chosen].to(images).reshape(draws, 1, *images.shape[1:])
        mask = _upsampled(w, size)
        mixed = mask * images + (1 - mask) * z  # [draws, B, C, H, W]
        logits = model(mixed.reshape(-1, *inputs.shape[1:])).reshape(draws, len(inputs), -1)
        log_p = logits.log_softmax(-1).gather(2, labels.expand(draws, -1)[..., None])
        # The constant log(draws), by which the sum over draws exceeds their mean, has no gradient.
        loss = l1 * mask.sum() + tv * _roughness(mask) - log_p.logsumexp(0).sum()
        (w.grad,) = torch.autograd.grad(loss, w)
        optimiser.step()
    return _upsampled(w.detach(), size)[:, 0]


def _upsampled(w: Tensor, size: torch.Size) -> Tensor:
    mask = w.sigmoid()
    return mask if mask.shape[-2:] == size else F.interpolate(mask, size=size, mode="bilinear", align_corners=False)


def _roughness(mask: Tensor) -> Tensor:
    return mask.diff(dim=-1).square().sum() + mask.diff(dim=-2).square().sum()
