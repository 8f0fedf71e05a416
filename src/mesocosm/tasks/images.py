"""Real images to classify: handwritten digits, Fashion-MNIST and CIFAR-10."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks import image_files
from mesocosm.tasks.base import Task, share_counts

__all__ = ["Images"]

CLASSES = 10
SHAPES = {"digits": (1, 8), "fashion-mnist": (1, 28), "cifar10": (3, 32)}
"""Channels and side of each source's images."""


class ImageBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    row: Tensor
    clean: Tensor


class _Splits(NamedTuple):
    origin: str
    train: ImageBatch
    test: ImageBatch


@dataclass(frozen=True, kw_only=True)
class Images(Task):
    """Small real images of ten classes, standardised by the training split's mean and deviation per channel.

    The digits (1,797 of 8x8, split 1,000 to 797) come with scikit-learn. The four IDX files of Fashion-MNIST (28x28,
    60,000 and 10,000) or the Parquet files `train.parquet` and `test.parquet` of CIFAR-10 (3x32x32, 50,000 and 10,000,
    columns `image` of encoded bytes and `label`) are looked for in `folder`, else in the folder that the environment
    variable MESOCOSM_DATA names and in /usr/share/datasets, where Debian's package dataset-fashion-mnist puts them.
    In each place they lie directly or in a folder named as the source. `folder="hub"` fetches them from the Hugging
    Face hub; nothing else uses the network. Reading happens once in a process.

    Source: Xiao et al. (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, arXiv
    1708.07747; Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images; Alpaydin and Kaynak (1998),
    Optical Recognition of Handwritten Digits; Cui et al. (2019), Class-Balanced Loss Based on Effective Number of
    Samples, section 5.1, arXiv 1901.05555
    """

    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of the files, or hub to fetch them; none looks in the usual places")
    size: int | None = setting(None, "side in pixels after average pooling; none leaves the images as they are", low=1)
    label_noise: float = setting(0.0, "probability that a training label is replaced by a random class", low=0, high=1)
    classes: tuple[int, ...] | None = setting(None, "classes to keep, numbered anew; none keeps all", low=0, high=9)
    count: int | None = setting(None, "training images to keep; none keeps all that the balance allows", low=1)
    imbalance: float = setting(1.0, "training images of the first class for each of the last", low=1, high=1e6)
    draw: int = setting(0, "which random choice of training images, noise and split of the digits", low=0)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, C, H, W] float32: pixels of mean 0 and deviation 1 in each channel of the training split",
        "targets": "[B] int64: the class, label noise included",
        "weights": "[B] float32: 1 everywhere",
        "row": "[B] int64: row of the image in its split",
        "clean": "[B] int64: the class without label noise",
    }

    def check(self) -> None:
        side = SHAPES[self.source][1]
        if self.size and side % self.size:
            raise ValueError(f"size={self.size} is not legal: it must divide {side}, the side of {self.source}")
        if self.classes and (len(set(self.classes)) < len(self.classes) or len(self.classes) < 2):
            raise ValueError(f"classes={self.classes} is not legal: it must name two or more different classes")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, side = SHAPES[self.source]
        return channels, self.size or side, self.size or side

    @property
    def output_shape(self) -> tuple[int]:
        return (len(self.classes) if self.classes else CLASSES,)

    @property
    def origin(self) -> str:
        """What was read and from where."""
        return _load(self.source, self._places(), self.size, self._split).origin

    def train(self) -> ImageBatch:
        """The training split, shared by all callers: do not write into it.

        Raises:
            FileNotFoundError: when the files are in none of the places.
            ValueError: when a file is damaged, or has too few images of a class.
        """
        return _train(self, self._places())

    def test(self) -> ImageBatch:
        """The test split, without label noise; as `train` otherwise."""
        return _test(self, self._places())

    def sample(self, size: int, generator: torch.Generator) -> ImageBatch:
        """`size` images of the training split, drawn uniformly with replacement."""
        train = self.train()
        rows = torch.randint(len(train.targets), (size,), generator=generator)
        return ImageBatch(*(field[rows] for field in train))

    @property
    def _split(self) -> int:
        return self.draw if self.source == "digits" else 0

    def _places(self) -> tuple[str, ...]:
        if self.source == "digits":
            return ()
        if self.folder:
            return (self.folder,)
        named = os.environ.get("MESOCOSM_DATA")
        return (named, "/usr/share/datasets") if named else ("/usr/share/datasets",)


def noisy_labels(labels: Tensor, noise: float, classes: int, generator: torch.Generator) -> Tensor:
    """`labels` [N], each replaced with probability `noise` by a uniformly random class.

    From one generator state, the labels that a small noise replaces are also replaced, and equally, by a larger one.
    """
    replaced = torch.rand(len(labels), generator=generator) < noise
    return torch.where(replaced, torch.randint(classes, labels.shape, generator=generator), labels)


def disjoint_subsets(count: int, size: int, pool: int, generator: torch.Generator) -> Tensor:
    """`[count, size]` indices below `pool`, uniformly drawn, none twice.

    Raises:
        ValueError: when the pool is too small.
    """
    if count * size > pool:
        raise ValueError(f"count={count} subsets of size={size} are not legal: together at most pool={pool}")
    return torch.randperm(pool, generator=generator)[: count * size].view(count, size)


@lru_cache(maxsize=32)
def _train(task: Images, places: tuple[str, ...]) -> ImageBatch:
    whole = _classes(_load(task.source, places, task.size, task._split).train, task.classes)
    key = (task.draw,) if task.draw else ()
    (classes,) = task.output_shape
    noise = seeding.generator("images", task.source, "label noise", *key)
    whole = whole._replace(targets=noisy_labels(whole.targets, task.label_noise, classes, noise))
    if task.count is None and task.imbalance == 1:
        return whole
    order = torch.randperm(len(whole.clean), generator=seeding.generator("images", task.source, "subset", *key))
    return _balanced(whole, classes, task.count, task.imbalance, order)


@lru_cache(maxsize=32)
def _test(task: Images, places: tuple[str, ...]) -> ImageBatch:
    return _classes(_load(task.source, places, task.size, task._split).test, task.classes)


def _classes(split: ImageBatch, classes: tuple[int, ...] | None) -> ImageBatch:
    """Only the images of these classes, which become 0, 1, ..."""
    if classes is None:
        return split
    place = torch.full((CLASSES,), -1).index_copy(0, torch.tensor(classes), torch.arange(len(classes)))[split.clean]
    kept = ImageBatch(*(field[place >= 0] for field in split))
    return kept._replace(targets=place[place >= 0], clean=place[place >= 0])


def _balanced(whole: ImageBatch, classes: int, count: int | None, imbalance: float, order: Tensor) -> ImageBatch:
    """A subset with the asked sizes of its classes: of each, those that come first in a random order of all."""
    there = whole.clean.bincount(minlength=classes)
    shares = imbalance ** -torch.linspace(0, 1, classes, dtype=torch.float64)
    wanted = (shares * (there / shares).min()).long() if count is None else share_counts(count, shares.tolist())
    if (wanted > there).any():
        scarce = int((wanted - there).argmax())
        needs = f"it needs {wanted[scarce]} images of class {scarce}, and there are {there[scarce]}"
        raise ValueError(f"count={count} is not legal: {needs}")
    sorted_by_class = order[whole.clean[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - (there.cumsum(0) - there)[whole.clean[sorted_by_class]]
    kept = sorted_by_class[rank < wanted[whole.clean[sorted_by_class]]].sort().values
    return ImageBatch(*(field[kept] for field in whole))


@lru_cache(maxsize=32)
def _load(source: str, places: tuple[str, ...], size: int | None, draw: int) -> _Splits:
    origin, splits = image_files.read(source, places, draw)
    train, test = (_pooled(source, origin, split, size) for split in splits)
    deviation, mean = torch.std_mean(train.inputs, dim=(0, 2, 3), correction=0, keepdim=True)
    for split in (train, test):
        split.inputs.sub_(mean).div_(deviation)
    return _Splits(f"{source} from {origin}: {len(train.targets)} train, {len(test.targets)} test", train, test)


def _pooled(source: str, origin: str, split: image_files.Labelled, size: int | None) -> ImageBatch:
    channels, side = SHAPES[source]
    count = len(split.labels)
    images = split.images.reshape(len(split.images), -1, *split.images.shape[-2:])
    if images.shape != (count, channels, side, side) or not numpy.isin(split.labels, range(CLASSES)).all():
        raise ValueError(
            f"{source} from {origin} is damaged: images of shape {images.shape} and {count} labels are not "
            f"[N, {channels}, {side}, {side}] with one label from 0 to {CLASSES - 1} each"
        )
    inputs = torch.tensor(images).float().contiguous()
    if size:
        inputs = torch.nn.functional.avg_pool2d(inputs, side // size)
    targets = torch.tensor(split.labels, dtype=torch.int64)
    return ImageBatch(inputs, targets, torch.ones(count), torch.arange(count), targets)
