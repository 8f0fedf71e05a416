"""What every task is: a distribution one can sample from, with what is known of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from mesocosm.seeding import generator
from mesocosm.settings import Settings


class Batch(Protocol):
    """A named tuple of tensors whose first axis is the sample; hidden state follows under the task's own names."""

    @property
    def inputs(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor: ...
    @property
    def _fields(self) -> tuple[str, ...]: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def _replace(self, *args: Any, **fields: Any) -> Self: ...
    @property
    def _make(self) -> Callable[..., Self]: ...


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """A distribution over batches. Subclasses are frozen dataclasses of its parameters.

    `version` is raised when the same parameters and generator would give other samples.
    """

    version: ClassVar[int] = 1
    fields: ClassVar[dict[str, str]]
    """Name, shape and meaning of each tensor in a batch."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample's inputs, without the batch axis."""
        raise NotImplementedError

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of a model's output for one sample: `()` for a score, `(K,)` for classes, `(T, V)` for tokens."""
        raise NotImplementedError

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The vocabulary as text, one string per token id; None where inputs are not tokens."""
        return None

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` independent samples, all randomness from `generator` (on the CPU)."""
        raise NotImplementedError

    def as_dataset(self, batch_size: int, seed: int = 0) -> torch.utils.data.IterableDataset:
        """An endless dataset of batches for `DataLoader(dataset, batch_size=None)`; workers draw distinct streams."""
        return _Endless(self, batch_size, seed)

    def to_huggingface(self, count: int, seed: int = 0) -> Any:
        """`count` samples as a `datasets.Dataset` (needs `mesocosm[hub]`)."""
        import datasets

        batch = self.sample(count, generator(seed, "sample"))
        return datasets.Dataset.from_dict({name: field.numpy() for name, field in zip(batch._fields, batch)})


@dataclass(frozen=True, kw_only=True)
class WordTask(Task):
    """A task whose samples are functions of random words, drawn on any device for many replicas at once."""

    @property
    def words(self) -> int:
        """How many 64-bit words one sample needs."""
        raise NotImplementedError

    def read(self, words: Tensor) -> Batch:
        """The samples of random words `[..., words]` int64."""
        raise NotImplementedError

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        drawn = torch.empty(self.words, size, dtype=torch.int64)
        return self.read(drawn.random_(-(2**63), None, generator=generator).T)


def share_counts(size: int, shares: Sequence[float]) -> Tensor:
    """How many of `size` samples belong to each of `shares`, in proportion and in sum `size`; int64."""
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0)
    return (size * ends / ends[-1]).round().long().diff(prepend=torch.zeros(1, dtype=torch.int64))


class _Endless(torch.utils.data.IterableDataset):
    def __init__(self, task: Task, batch_size: int, seed: int) -> None:
        self.task, self.batch_size, self.seed = task, batch_size, seed

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        stream = generator(self.seed, "dataset", worker.id if worker else 0)
        while True:
            yield self.task.sample(self.batch_size, stream)
