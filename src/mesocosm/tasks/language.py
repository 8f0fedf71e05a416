"""Natural text: its next byte, or its masked characters."""

import re
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
from mesocosm.tasks.masked import corrupt

__all__ = ["MaskedText", "TextBytes"]

BYTES = 256
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()- "


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
    def _text(self) -> _Text:
        return _read(self.path)

    @property
    def origin(self) -> str:
        """What was read, and how much of it."""
        return f"{self._text.name}: {len(self._text.content)} bytes"

    @property
    def block_size(self) -> int:
        """Bytes in a block; the last few of the text, less than one byte a block, are left out."""
        text = self._text
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
        counts = torch.bincount(self._text.content[blocks].flatten().long(), minlength=len(self.tokens))
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
        window = self._text.content[position[:, None] + torch.arange(self.length + 1)].long()
        return TextBatch(window[:, :-1], window[:, 1:], torch.ones(len(window), self.length), position)


@dataclass(frozen=True, kw_only=True)
class MaskedText(TextBytes):
    """Restore masked characters of a text: any file that `path` names, or the help pages of the Python at hand.

    The text is read in lower case; each run of what is no letter of English, digit or common mark counts as one space.
    Chosen characters are masked, kept or replaced by a random one, and all of them are asked for.

    Source: Devlin et al. (2018), BERT: Pre-training of deep bidirectional transformers, section 3.1, arXiv 1810.04805
    """

    length: int = setting(64, "characters in a window", low=1, high=65536)
    mask_rate: float = setting(0.3, "probability that a character is chosen", low=0, high=1)
    fates: tuple[float, ...] = setting((0.8, 0.1, 0.1), "shares of chosen ones masked, kept, replaced", low=0)
    shuffled: bool = setting(False, "shuffle the characters of each window, so that only their numbers mean anything")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: characters, chosen ones corrupted",
        "targets": "[B, T] int64: the true characters",
        "weights": "[B, T] float32: 1 at chosen characters",
        "position": "[B] int64: place of the first character in the text as it is read",
    }

    def check(self) -> None:
        if len(self.fates) != 3 or sum(self.fates) == 0:
            raise ValueError(f"fates={self.fates} is not legal: it must hold 3 shares of a positive sum")

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return (*CHARACTERS, "MASK")

    @property
    def mask(self) -> int:
        """The token that masks."""
        return len(CHARACTERS)

    @property
    def chance(self) -> float:
        """Share of the commonest character: accuracy of a predictor that sees nothing."""
        return float(self.frequencies.max())

    @property
    def _text(self) -> _Text:
        return _lower(self.path)

    def sample(self, size: int, generator: torch.Generator) -> TextBatch:
        """Windows of the split, all equally likely, each with its own masks."""
        return self._mask(super().sample(size, generator), generator)

    def whole(self) -> TextBatch:
        """The split as consecutive windows, in its order, with masks that are always the same."""
        return self._mask(super().whole(), seeding.generator("text", "masks"))

    def _mask(self, windows: TextBatch, generator: torch.Generator) -> TextBatch:
        text = windows.inputs
        if self.shuffled:
            text = text.gather(1, torch.rand(text.shape, generator=generator).argsort(1))
        shares = tuple(fate / sum(self.fates) for fate in self.fates)
        every = torch.ones(text.shape, dtype=torch.bool)
        inputs, chosen = corrupt(text, every, self.mask_rate, shares, self.mask, self.mask, generator)
        return TextBatch(inputs, text, chosen.float(), windows.position)


@cache
def _lower(path: str | None) -> _Text:
    """The text in lower case, as numbers of `CHARACTERS`."""
    text = _read(path)
    content = bytes(text.content.numpy()).decode(errors="replace").lower()
    known = re.sub(f"[^{re.escape(CHARACTERS.strip())}]+", " ", content)
    codes = numpy.frombuffer(known.encode(), numpy.uint8)
    numbers = numpy.zeros(BYTES, numpy.uint8)
    numbers[list(CHARACTERS.encode())] = numpy.arange(len(CHARACTERS))
    return _Text(text.name, torch.from_numpy(numbers[codes]))


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
