"""Where the images of tasks.images come from: files of a package, a folder or the Hugging Face hub."""

import gzip
import importlib
import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from mesocosm import seeding

__all__: list[str] = []

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


class Labelled(NamedTuple):
    images: numpy.ndarray
    """`[N, C, H, W]` bytes, or `[N, H, W]` when there is one channel."""
    labels: numpy.ndarray


def read(source: str, places: tuple[str, ...], draw: int) -> tuple[str, list[Labelled]]:
    """From where the images came, and their training and test split."""
    if source == "digits":
        return "scikit-learn", _read_digits(draw)
    if places == ("hub",):
        return "the Hugging Face hub, " + HUB[source][0], _fetch(source)
    folder = _find(source, places)
    return str(folder), _read_idx(folder) if source == "fashion-mnist" else _read_parquet(folder)


def _read_digits(draw: int) -> list[Labelled]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    stream = seeding.generator("images", "digits", "split", *((draw,) if draw else ()))
    order = torch.randperm(len(digits.target), generator=stream).numpy()
    return [Labelled(digits.images[rows], digits.target[rows]) for rows in (order[:1000], order[1000:])]


def _find(source: str, places: tuple[str, ...]) -> Path:
    folders = [folder for place in places for folder in (Path(place) / source, Path(place))]
    for folder in folders:
        if all((folder / name).is_file() for name in FILES[source]):
            return folder
    raise FileNotFoundError(
        f"{source} was not found: none of {', '.join(map(str, folders))} holds {' and '.join(FILES[source])}; "
        "name their folder by `folder` or MESOCOSM_DATA, or fetch them with folder='hub'"
    )


def _read_idx(folder: Path) -> list[Labelled]:
    arrays = []
    for path in (folder / name for name in FILES["fashion-mnist"]):
        packed = path.read_bytes()
        try:
            content = gzip.decompress(packed)
            shape = numpy.frombuffer(content, ">i4", count=content[3], offset=4)
            arrays.append(numpy.frombuffer(content, numpy.uint8, offset=4 + shape.nbytes).reshape(shape))
        except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
            raise ValueError(f"{path} is damaged: it is not a gzipped IDX file ({error})") from error
    return [Labelled(*arrays[:2]), Labelled(*arrays[2:])]


def _read_parquet(folder: Path) -> list[Labelled]:
    import pyarrow
    import pyarrow.parquet

    image = _extra("PIL.Image", "images")
    splits = []
    for path in (folder / name for name in FILES["cifar10"]):
        try:
            table = pyarrow.parquet.read_table(path, columns=["image", "label"])
            pictures = [image.open(io.BytesIO(content)).convert("RGB") for content in table["image"].to_pylist()]
            splits.append(Labelled(_stack(pictures), table["label"].to_numpy()))
        except (OSError, pyarrow.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: it is not a Parquet file of images and labels ({error})") from error
    return splits


def _fetch(source: str) -> list[Labelled]:
    _extra("PIL.Image", "images")
    repository, column = HUB[source]
    splits = _extra("datasets", "hub").load_dataset(repository)
    return [Labelled(_stack(splits[s][column]), numpy.asarray(splits[s]["label"])) for s in ("train", "test")]


def _stack(pictures: Any) -> numpy.ndarray:
    arrays = numpy.stack([numpy.asarray(picture) for picture in pictures])
    return arrays.transpose(0, 3, 1, 2) if arrays.ndim == 4 else arrays


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; install it with: pip install 'mesocosm[{extra}]'") from error
