"""Natural text, byte by byte."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy
import torch
from torch import Tensor

from mesocosm import seeding
from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["TextBytes"]

BYTES = 256


class TextBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    position: Tensor


class _Text(NamedTuple):
    name: str
    content: Tensor
    """`[N]` uint8."""


@dataclass(frozen=True, kw_only=True)
class TextBytes(Task):
    """Predict the next byte of a text: any file that `path` names, or the help pages of the Python at hand.

    The text is cut into contiguous blocks of equal size, and a random `valid_share` of them, the same whenever the
    settings are, is held out for the split "valid". Windows of T + 1 bytes never cross a block's end. The default text,
    the topics of the standard library's `pydoc_data`, is English of some 470 kB that comes with every Python, but it
    differs between versions.

    Raises:
        ValueError: on first use, when the file cannot be read or is too short to cut.
    """

    path: str | None = setting(None, "file to read; none reads the help pages that come with Python")
    length: int = setting(64, "predicted positions T", low=1, high=65536)
    split: Literal["train", "valid"] = setting("train", "which blocks to draw from")
    blocks: int = setting(100, "contiguous blocks that the text is cut into", low=2)
    valid_share: float = setting(
        0.1, "share of the blocks that is held out; at least one block, and not all", low=0, high=1
    )

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: bytes",
        "targets": "[B, T] int64: the byte after each input",
        "weights": "[B, T] float32: 1",
        "position": "[B] int64: place of the first byte in the text",
    }

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, BYTES)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(chr(byte) if 32 <= byte < 127 else f"<{byte:02x}>" for byte in range(BYTES))

    @property
    def origin(self) -> str:
        """What was read, and how much of it."""
        text = _read(self.path)
        return f"{text.name}: {len(text.content)} bytes"

    @property
    def block_size(self) -> int:
        """Bytes in a block; the last few of the text, less than one byte a block, are left out."""
        text = _read(self.path)
        size = len(text.content) // self.blocks
        if size <= self.length:
            raise ValueError(
                f"blocks={self.blocks} and length={self.length} are not legal for {text.name}: its "
                f"{len(text.content)} bytes give blocks of {size}, but a window needs {self.length + 1}"
            )
        return size

    @property
    def block_starts(self) -> Tensor:
        """Where in the text the blocks of this split start, ascending."""
        held_out = min(max(round(self.valid_share * self.blocks), 1), self.blocks - 1)
        order = torch.randperm(self.blocks, generator=seeding.generator("text", "split", self.blocks))
        chosen = order[:held_out] if self.split == "valid" else order[held_out:]
        return chosen.sort().values * self.block_size

    @property
    def frequencies(self) -> Tensor:
        """Share of each byte in this split, `[256]` float64: the best prediction that ignores the past."""
        blocks = self.block_starts[:, None] + torch.arange(self.block_size)
        counts = torch.bincount(_read(self.path).content[blocks].flatten().long(), minlength=BYTES)
        return counts.double() / counts.sum()

    def sample(self, size: int, generator: torch.Generator) -> TextBatch:
        """Windows of the split, all equally likely."""
        starts = self.block_starts
        block = torch.randint(len(starts), (size,), generator=generator)
        return self._windows(starts[block] + torch.randint(self.block_size - self.length, (size,), generator=generator))

    def whole(self) -> TextBatch:
        """The split as consecutive windows, in its order: every byte is predicted once, but the first of each block
        and those at its end that fill no window."""
        places = torch.arange(0, self.block_size - self.length, self.length)
        return self._windows((self.block_starts[:, None] + places).flatten())

    def _windows(self, position: Tensor) -> TextBatch:
        window = _read(self.path).content[position[:, None] + torch.arange(self.length + 1)].long()
        return TextBatch(window[:, :-1], window[:, 1:], torch.ones(len(window), self.length), position)


@cache
def _read(path: str | None) -> _Text:
    if path is None:
        from pydoc_data.topics import topics

        name, content = "Python's help pages", "\n".join(topics[topic] for topic in sorted(topics)).encode()
    else:
        name = path
        try:
            content = Path(path).expanduser().read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", error)
            raise ValueError(f"path={path!r} is not legal: it must be a file that can be read ({reason})") from error
    return _Text(name, torch.from_numpy(numpy.frombuffer(content, numpy.uint8).copy()))
