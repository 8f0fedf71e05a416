"""Pictures of two things, each of which tells the label."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task
from mesocosm.tasks.images import CLASSES, SHAPES, Images

__all__ = ["ImagePairs"]


class PairBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    easy_label: Tensor
    hard_label: Tensor
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class ImagePairs(Task):
    """An image of an easy pair of classes above one of a hard pair, both of which tell the label, 0 or 1.

    Label 0 stands for the first class of each pair and label 1 for the second; both are equally likely, and an image
    is uniform among those of its class in the split. When `decorrelated`, the two halves have independent labels, so
    that probes can ask for one without the other's help, and the target is the hard half's.

    An easy image from another source is brought to the hard one's size by bilinear interpolation, and to its channels
    by repeating a grey image or averaging colours; CIFAR-10 with digits above is the paper's kind of composite.

    Source: Springer et al. (2024), Sharpness-Aware Minimization Enhances Feature Quality via Balanced Learning, section
    5, arXiv 2405.20439
    """

    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    easy_source: Literal["digits", "fashion-mnist", "cifar10"] | None = setting(
        None, "images of the upper half, brought to the size and channels of the others; none takes the same source"
    )
    folder: str | None = setting(None, "folder of the files, as for images")
    size: int | None = setting(None, "side in pixels of a half; none leaves the images as they are", low=1)
    easy: tuple[int, ...] = setting((0, 1), "two classes of the upper half", low=0, high=CLASSES - 1)
    hard: tuple[int, ...] = setting((3, 8), "two classes of the lower half", low=0, high=CLASSES - 1)
    decorrelated: bool = setting(False, "whether the halves have independent labels")
    split: Literal["train", "test"] = setting("train", "which images to draw from")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, C, 2 H, W] float32: the easy half above the hard half, pixels standardised as in images",
        "targets": "[B] int64: the label, 0 or 1",
        "weights": "[B] float32: 1 everywhere",
        "easy_label": "[B] int64: label of the easy half",
        "hard_label": "[B] int64: label of the hard half",
        "rows": "[B, 2] int64: rows of the easy and of the hard image in their split",
    }

    def check(self) -> None:
        for name, pair in (("easy", self.easy), ("hard", self.hard)):
            if len(set(pair)) != 2 or len(pair) != 2:
                raise ValueError(f"{name}={pair} is not legal: it must hold two different classes")
        _ = self.images

    @property
    def images(self) -> Images:
        """The task whose images make the hard halves."""
        return Images(source=self.source, folder=self.folder, size=self.size)

    @property
    def easy_images(self) -> Images:
        """The task whose images make the easy halves."""
        if self.easy_source in (None, self.source):
            return self.images
        return Images(source=self.easy_source, folder=self.folder)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, side = SHAPES[self.source]
        return channels, 2 * (self.size or side), self.size or side

    @property
    def output_shape(self) -> tuple[int]:
        return (2,)

    def sample(self, size: int, generator: torch.Generator) -> PairBatch:
        """`size` composites; reads the images, and raises, as `Images` does."""
        sources = self.easy_images, self.images
        images = [source.train() if self.split == "train" else source.test() for source in sources]
        labels = torch.randint(2, (size, 2), generator=generator)
        if not self.decorrelated:
            labels[:, 0] = labels[:, 1]
        halves = zip(images, (self.easy, self.hard), labels.T)
        rows = [_rows(split.targets, torch.tensor(pair)[label], generator) for split, pair, label in halves]
        easy, hard = (split.inputs[chosen] for split, chosen in zip(images, rows))
        inputs = torch.cat([_fitted(easy, hard.shape[1:]), hard], dim=2)
        return PairBatch(inputs, labels[:, 1], torch.ones(size), labels[:, 0], labels[:, 1], torch.stack(rows, dim=1))


def _fitted(images: Tensor, shape: torch.Size) -> Tensor:
    """Images `[B, C, H, W]` with the channels, height and width of `shape`."""
    if images.shape[1:] == shape:
        return images
    if shape[0] == 1:
        images = images.mean(1, keepdim=True)
    resized = F.interpolate(images, size=shape[1:], mode="bilinear", antialias=True)
    return resized.expand(-1, *shape)


def _rows(classes: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """For each class in `wanted` `[B]`, a uniform row of `classes` `[N]` that holds it."""
    counts = classes.bincount(minlength=CLASSES)
    place = (torch.rand(len(wanted), generator=generator, dtype=torch.float64) * counts[wanted]).long()
    return classes.argsort(stable=True)[counts.cumsum(0)[wanted] - counts[wanted] + place]
