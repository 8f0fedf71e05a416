"""Real images to classify: handwritten digits, Fashion-MNIST and CIFAR-10."""

import gzip
import importlib
import io
import os
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["Images"]

CLASSES = 10
SHAPES = {"digits": (1, 8), "fashion-mnist": (1, 28), "cifar10": (3, 32)}
"""Channels and side of each source's images."""
FILES = {
    "fashion-mnist": (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
    "cifar10": ("train.parquet", "test.parquet"),
}
HUB = {"fashion-mnist": ("zalando-datasets/fashion_mnist", "image"), "cifar10": ("uoft-cs/cifar10", "img")}
"""Repository on the Hugging Face hub and its column of images."""


class ImageBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    row: Tensor
    clean: Tensor


class _Labelled(NamedTuple):
    images: numpy.ndarray
    """`[N, C, H, W]` bytes, or `[N, H, W]` when there is one channel."""
    labels: numpy.ndarray


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
    Optical Recognition of Handwritten Digits
    """

    source: Literal["digits", "fashion-mnist", "cifar10"] = setting("digits", "which images")
    folder: str | None = setting(None, "folder of the files, or hub to fetch them; none looks in the usual places")
    size: int | None = setting(None, "side in pixels after average pooling; none leaves the images as they are", low=1)
    label_noise: float = setting(0.0, "probability that a training label is replaced by a random class", low=0, high=1)

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

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, side = SHAPES[self.source]
        return channels, self.size or side, self.size or side

    @property
    def output_shape(self) -> tuple[int]:
        return (CLASSES,)

    @property
    def origin(self) -> str:
        """What was read and from where."""
        return _load(self.source, self._places(), self.size).origin

    def train(self) -> ImageBatch:
        """The training split, shared by all callers: do not write into it.

        Raises:
            FileNotFoundError: when the files are in none of the places.
            ValueError: when a file is damaged.
        """
        return _train(self.source, self._places(), self.size, self.label_noise)

    def test(self) -> ImageBatch:
        """The test split, without label noise; as `train` otherwise."""
        return _load(self.source, self._places(), self.size).test

    def sample(self, size: int, generator: torch.Generator) -> ImageBatch:
        """`size` images of the training split, drawn uniformly with replacement."""
        train = self.train()
        rows = torch.randint(len(train.targets), (size,), generator=generator)
        return ImageBatch(*(field[rows] for field in train))

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


@cache
def _train(source: str, places: tuple[str, ...], size: int | None, label_noise: float) -> ImageBatch:
    train = _load(source, places, size).train
    stream = seeding.generator("images", source, "label noise")
    return train._replace(targets=noisy_labels(train.targets, label_noise, CLASSES, stream))


@cache
def _load(source: str, places: tuple[str, ...], size: int | None) -> _Splits:
    if source == "digits":
        origin, splits = "scikit-learn", _read_digits()
    elif places == ("hub",):
        origin, splits = "the Hugging Face hub, " + HUB[source][0], _fetch(source)
    else:
        folder = _find(source, places)
        origin, splits = str(folder), _read_idx(folder) if source == "fashion-mnist" else _read_parquet(folder)

    train, test = (_pooled(source, origin, split, size) for split in splits)
    deviation, mean = torch.std_mean(train.inputs, dim=(0, 2, 3), correction=0, keepdim=True)
    for split in (train, test):
        split.inputs.sub_(mean).div_(deviation)
    return _Splits(f"{source} from {origin}: {len(train.targets)} train, {len(test.targets)} test", train, test)


def _pooled(source: str, origin: str, split: _Labelled, size: int | None) -> ImageBatch:
    channels, side = SHAPES[source]
    count = len(split.labels)
    images = split.images.reshape(len(split.images), -1, *split.images.shape[-2:])
    if images.shape != (count, channels, side, side) or not numpy.isin(split.labels, range(CLASSES)).all():
        raise ValueError(
            f"{source} from {origin} is damaged: images of shape {images.shape} and {count} labels are not "
            f"[N, {channels}, {side}, {side}] with one label from 0 to {CLASSES - 1} each"
        )
    inputs = torch.tensor(images).float()
    if size:
        inputs = torch.nn.functional.avg_pool2d(inputs, side // size)
    targets = torch.tensor(split.labels, dtype=torch.int64)
    return ImageBatch(inputs, targets, torch.ones(count), torch.arange(count), targets)


def _read_digits() -> list[_Labelled]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=seeding.generator("images", "digits", "split")).numpy()
    return [_Labelled(digits.images[rows], digits.target[rows]) for rows in (order[:1000], order[1000:])]


def _find(source: str, places: tuple[str, ...]) -> Path:
    folders = [folder for place in places for folder in (Path(place) / source, Path(place))]
    for folder in folders:
        if all((folder / name).is_file() for name in FILES[source]):
            return folder
    raise FileNotFoundError(
        f"{source} was not found: none of {', '.join(map(str, folders))} holds {' and '.join(FILES[source])}; "
        "name their folder by `folder` or MESOCOSM_DATA, or fetch them with folder='hub'"
    )


def _read_idx(folder: Path) -> list[_Labelled]:
    arrays = []
    for path in (folder / name for name in FILES["fashion-mnist"]):
        packed = path.read_bytes()
        try:
            content = gzip.decompress(packed)
            shape = numpy.frombuffer(content, ">i4", count=content[3], offset=4)
            arrays.append(numpy.frombuffer(content, numpy.uint8, offset=4 + shape.nbytes).reshape(shape))
        except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
            raise ValueError(f"{path} is damaged: it is not a gzipped IDX file ({error})") from error
    return [_Labelled(*arrays[:2]), _Labelled(*arrays[2:])]


def _read_parquet(folder: Path) -> list[_Labelled]:
    import pyarrow
    import pyarrow.parquet

    image = _extra("PIL.Image", "images")
    splits = []
    for path in (folder / name for name in FILES["cifar10"]):
        try:
            table = pyarrow.parquet.read_table(path, columns=["image", "label"])
            pictures = [image.open(io.BytesIO(content)).convert("RGB") for content in table["image"].to_pylist()]
            splits.append(_Labelled(_stack(pictures), table["label"].to_numpy()))
        except (OSError, pyarrow.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: it is not a Parquet file of images and labels ({error})") from error
    return splits


def _fetch(source: str) -> list[_Labelled]:
    _extra("PIL.Image", "images")
    repository, column = HUB[source]
    splits = _extra("datasets", "hub").load_dataset(repository)
    return [_Labelled(_stack(splits[s][column]), numpy.asarray(splits[s]["label"])) for s in ("train", "test")]


def _stack(pictures: Any) -> numpy.ndarray:
    arrays = numpy.stack([numpy.asarray(picture) for picture in pictures])
    return arrays.transpose(0, 3, 1, 2) if arrays.ndim == 4 else arrays


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; install it with: pip install 'mesocosm[{extra}]'") from error
