"""Real images against the Gaussian that has their mean and covariance."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.images import Images

__all__ = ["ImageContrast"]

LEVELS = {"digits": 17, "fashion-mnist": 256}
"""Values that a pixel can have."""
MARGIN = 0.05
"""How far pixels are kept from 0 and 1 before the logit."""


class ContrastBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class ImageContrast(Task):
    """Images as data and their full-covariance Gaussian as noise, in equal shares.

    Pixels get uniform noise of one grey level and go through a logit. The Gaussian is fitted to the training split, and
    both sides are whitened by it, so that the noise is N(0, I); no density ratio depends on such coordinates.

    Source: noise-contrastive estimation with a Gaussian fitted to images as noise: Liu et al. (2022), Analyzing and
    Improving the Optimization Landscape of Noise-Contrastive Estimation, arXiv 2110.11271
    """

    source: Literal["digits", "fashion-mnist"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of the files, as for images")
    size: int = setting(4, "side in pixels after average pooling", low=1, high=28)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, size^2] float32: images in the first half, then noise",
        "targets": "[B] float32: 1 for images, -1 for noise",
        "weights": "[B] float32: 1 everywhere",
    }

    def check(self) -> None:
        self.images()

    def images(self) -> Images:
        """The images before the contrast.

        Raises:
            ValueError: for a size that does not divide the images' side.
        """
        return Images(source=self.source, folder=self.folder, size=self.size)

    @property
    def input_shape(self) -> tuple[int]:
        return (self.size**2,)

    @property
    def output_shape(self) -> tuple[()]:
        return ()

    def sample(self, size: int, generator: torch.Generator) -> ContrastBatch:
        """Training images with fresh noise in their pixels, and fresh noise against them."""
        count = (size + 1) // 2
        train = self._pixels("train")
        rows = torch.randint(len(train), (count,), generator=generator)
        return self._against_noise(train[rows], size - count, generator)

    def held_out(self, generator: torch.Generator) -> ContrastBatch:
        """The whole test split against as much noise."""
        test = self._pixels("test")
        return self._against_noise(test, len(test), generator)

    def _against_noise(self, pixels: Tensor, count: int, generator: torch.Generator) -> ContrastBatch:
        mean, factor = _gaussian(self)
        data = torch.linalg.solve_triangular(factor, (self._logits(pixels, generator) - mean).T, upper=False).T
        noise = torch.randn(count, data.shape[1], generator=generator)
        targets = torch.cat([torch.ones(len(data)), -torch.ones(count)])
        return ContrastBatch(torch.cat([data, noise]), targets, torch.ones(len(targets)))

    def _pixels(self, split: str) -> Tensor:
        """Pixels `[N, size^2]` from 0 to 1."""
        images: Any = self.images()
        train = images.train().inputs
        chosen = train if split == "train" else images.test().inputs
        return ((chosen - train.min()) / (train.max() - train.min())).clamp(0, 1).flatten(1)

    def _logits(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        levels = LEVELS[self.source]
        smooth = (pixels * (levels - 1) + torch.rand(pixels.shape, generator=generator)) / levels
        return (MARGIN + (1 - 2 * MARGIN) * smooth).logit()


@cache
def _gaussian(task: ImageContrast) -> tuple[Tensor, Tensor]:
    """Mean and lower Cholesky factor of the covariance of the training images' logits."""
    logits = task._logits(task._pixels("train"), seeding.generator("image contrast", "Gaussian")).double()
    return logits.mean(0).float(), torch.linalg.cholesky(logits.T.cov()).float()
