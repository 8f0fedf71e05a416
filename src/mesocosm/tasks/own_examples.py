"""Your own labelled examples: a table of numbers or of pictures, or a folder of pictures with a folder a class."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

__all__ = ["OwnExamples"]

SMALLEST_SIDE, LARGEST_SIDE = 4, 32
"""Pixels of pictures' sides: the least that a CNN takes, and the most unless a side is given."""

MOST_TEXTS = 20
"""Different texts of a column that becomes one number for each of them."""


class OwnBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    row: Tensor


class _Labelled(NamedTuple):
    inputs: Tensor
    labels: list[str]
    names: list[str]
    sources: list[Path | bytes] | None
    """The files of pictures, or their bytes; None for a table of numbers."""


@dataclass(frozen=True, kw_only=True)
class OwnExamples(Task):
    """The labelled examples of a file or folder of yours, to classify.

    `data` is a folder that holds a folder of pictures for each class: an example's name is the path of its file.

    Or it is a table (.csv, .tsv, .parquet) with a column `label`: columns of numbers are standardised, and a column of
    at most 20 different texts becomes a number, 0 or 1, for each. An example's name is its row, counted from 0.

    Or it is a Parquet file with one column of encoded pictures (bytes, or `{"bytes": ...}` as on the Hugging Face hub)
    and a column `label`; other columns are not looked at.

    Pictures are turned as their camera says, put on white where they are transparent, resized to squares by averaging,
    grey if all are and else RGB, and standardised in each channel. Reading happens once for an object.
    """

    data: str | None = setting(None, "your examples: a table (.csv, .tsv, .parquet) or a folder with a folder a class")
    label: str = setting("label", "column of a table that holds the label")
    side: int | None = setting(
        None, "side of pictures in pixels (default: of the smallest one, at most 32)", low=SMALLEST_SIDE
    )

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, D] or [B, C, H, W] float32: standardised numbers or pixels",
        "targets": "[B] int64: the label's place in `classes`",
        "weights": "[B] float32: 1 everywhere",
        "row": "[B] int64: the example's place in `names`",
    }

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self._read.inputs.shape[1:])

    @property
    def output_shape(self) -> tuple[int]:
        return (len(self.classes),)

    @property
    def origin(self) -> str:
        """`1797 examples of 10 classes in photos, 1 x 8 x 8 pixels each`."""
        kind = "numbers" if self._read.sources is None else "pixels"
        shape = " x ".join(map(str, self.input_shape))
        return f"{len(self.names)} examples of {len(self.classes)} classes in {self.data}, {shape} {kind} each"

    @property
    def names(self) -> list[str]:
        """Of each example: its row, or its file."""
        return self._read.names

    @cached_property
    def classes(self) -> list[str]:
        """The labels in order: of their values where all are integers, else of the alphabet."""
        found = set(self._read.labels)
        return sorted(found, key=int if all(map(_is_integer, found)) else str)

    def all(self) -> OwnBatch:
        """All N examples, shared by all callers: do not write into them.

        Raises:
            FileNotFoundError: when there is no such file or folder.
            ValueError: when it holds something else than examples, saying where.
        """
        return self._all

    def picture(self, row: int) -> "Image | None":
        """An example's picture as it is in the file; None in a table of numbers."""
        read = self._read
        return None if read.sources is None else _picture(read.sources[row], read.names[row])

    def sample(self, size: int, generator: torch.Generator) -> OwnBatch:
        """`size` examples, drawn uniformly with replacement."""
        rows = torch.randint(len(self.names), (size,), generator=generator)
        return OwnBatch(*(field[rows] for field in self.all()))

    @cached_property
    def _all(self) -> OwnBatch:
        read, place = self._read, {name: i for i, name in enumerate(self.classes)}
        targets, count = torch.tensor([place[label] for label in read.labels]), len(read.labels)
        return OwnBatch(read.inputs, targets, torch.ones(count), torch.arange(count))

    @cached_property
    def _read(self) -> _Labelled:
        if self.data is None:
            raise ValueError("data=None is not legal: it must be a table (.csv, .tsv, .parquet) or a folder of classes")
        path = Path(self.data)
        if not path.exists():
            raise FileNotFoundError(f"data={self.data} is not legal: there is no such file or folder")
        found = _read_folder(path, self.side) if path.is_dir() else _read_table(path, self.label, self.side)
        return _checked(found, self.data)


def _checked(found: _Labelled, data: str) -> _Labelled:
    counts: dict[str, int] = {}
    for label in found.labels:
        counts[label] = counts.get(label, 0) + 1
    if len(counts) < 2:
        raise ValueError(f"{data} holds {len(counts)} class{'' if len(counts) == 1 else 'es'}: it needs at least 2")
    lone = [label for label, count in counts.items() if count == 1]
    if lone:
        more = f" (nor have {len(lone) - 1} other classes)" if len(lone) > 1 else ""
        raise ValueError(
            f"class {lone[0]!r} of {data} has no second example{more}: each of the classes needs 2 or more"
        )
    return found


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _read_table(path: Path, label: str, side: int | None) -> _Labelled:
    import pandas

    kinds = {".csv": ",", ".tsv": "\t", ".parquet": None}
    if path.suffix not in kinds:
        raise ValueError(f"data={path} is not legal: a table ends in {', '.join(kinds)}, and anything else is a folder")
    try:
        separator = kinds[path.suffix]
        table = pandas.read_csv(path, sep=separator) if separator else pandas.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a table: {reason}") from error
    if label not in table:
        names = ", ".join(str(name) for name in table)
        raise ValueError(f"label={label} is not legal: {path} has the columns {names}")
    if not len(table):
        raise ValueError(f"{path} holds no rows")
    _refuse_gaps(table[label].isna(), label)
    labels, features = [_as_label(value) for value in table[label].tolist()], table.drop(columns=label)
    rows = [str(row) for row in range(len(table))]
    pictures = [column for column in features if features[column].map(_content).notna().any()]
    if len(pictures) > 1:
        raise ValueError(f"{path} has {len(pictures)} columns of pictures, {pictures[0]!r} and others: leave one")
    if pictures:
        column = features[pictures[0]].map(_content)
        _refuse_gaps(column.isna(), column.name)
        sources = column.tolist()
        return _Labelled(_pixels(sources, rows, side), labels, rows, sources)
    columns = [numbers for column in features for numbers in _numbers(features[column])]
    if not columns:
        raise ValueError(f"{path} has no column but {label!r}: it needs features too")
    return _Labelled(torch.tensor(numpy.stack(columns, axis=1), dtype=torch.float32), labels, rows, None)


def _as_label(value: Any) -> str:
    """A label as a text; whole numbers without the point that a table with gaps or floats gives them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _content(value: Any) -> bytes | None:
    """The bytes of an encoded picture, if the value has some."""
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None


def _numbers(column: "pandas.Series") -> list[numpy.ndarray]:
    """A column as one or more columns of numbers."""
    from pandas.api.types import is_numeric_dtype

    _refuse_gaps(column.isna(), column.name)
    if is_numeric_dtype(column):
        values = column.to_numpy(dtype=numpy.float64)
        _refuse_gaps(~numpy.isfinite(values), column.name, "is infinite")
        deviation = values.std()
        return [(values - values.mean()) / (deviation if deviation > 0 else 1.0)]
    column = column.astype(object)
    if not all(isinstance(value, str) for value in column):
        kind = type(column.iloc[0]).__name__
        raise ValueError(f"column {column.name!r} holds values of kind {kind}, not numbers or texts: leave it out")
    texts = sorted(column.unique())
    if len(texts) > MOST_TEXTS:
        raise ValueError(
            f"column {column.name!r} holds {len(texts)} different texts, more than {MOST_TEXTS}: make it numbers, or "
            "leave it out of the table"
        )
    return [(column == text).to_numpy(dtype=numpy.float64) for text in texts]


def _refuse_gaps(gaps: Any, column: Any, what: str = "has no value") -> None:
    if gaps.any():
        rows = numpy.flatnonzero(gaps)
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(f"column {column!r} {what} in row {rows[0]}{more}, counted from 0: fill or remove it")


def _read_folder(path: Path, side: int | None) -> _Labelled:
    from PIL import Image

    endings = Image.registered_extensions()
    labels, files = [], []
    for folder in sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.name.startswith(".") and file.suffix.lower() in endings:
                labels.append(folder.name)
                files.append(file)
    if not files:
        raise ValueError(
            f"data={path} is not legal: it must hold a folder of pictures (.png, .jpg, ...) for each class"
        )
    names = [file.relative_to(path).as_posix() for file in files]
    sources: list[Path | bytes] = list(files)
    return _Labelled(_pixels(sources, names, side), labels, names, sources)


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator["Image"]:
    """A picture's file, of which only the head has been read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            yield file
    except Exception as error:
        raise ValueError(f"{_called(source, name)} cannot be read as a picture: {error}") from error


def _picture(source: Path | bytes, name: str) -> "Image":
    from PIL import Image, ImageOps

    with _opened(source, name) as file:
        picture = ImageOps.exif_transpose(file)
        picture.load()
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"{_called(source, name)} has pixels of kind {picture.mode}: only 8 bits a channel are legal")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _called(source: Path | bytes, name: str) -> str:
    return f"row {name}, counted from 0," if isinstance(source, bytes) else str(source)


def _pixels(sources: list[Path | bytes], names: list[str], side: int | None) -> Tensor:
    """Pictures as `[N, C, side, side]`, of mean 0 and deviation 1 in each channel."""
    from PIL.Image import Resampling

    side = side or _usual_side(sources, names)
    pictures = [_picture(source, name).resize((side, side), Resampling.BOX) for source, name in zip(sources, names)]
    kind = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    pixels = numpy.stack([numpy.asarray(p.convert(kind)).reshape(side, side, -1) for p in pictures])
    inputs = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    deviation, mean = torch.std_mean(inputs, dim=(0, 2, 3), correction=0, keepdim=True)
    return (inputs - mean) / deviation.clamp_min(1e-6)


def _usual_side(sources: list[Path | bytes], names: list[str]) -> int:
    smallest = LARGEST_SIDE
    for source, name in zip(sources, names):
        with _opened(source, name) as file:
            smallest = min(smallest, *file.size)
    return max(smallest, SMALLEST_SIDE)
