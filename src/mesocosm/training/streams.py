"""Streams of batches: what each replica sees at each step, as a pure function of its keys and the step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mesocosm.seeding import generator, key, random_words
from mesocosm.tasks.base import Task, WordTask
from mesocosm.training.parallel import share

__all__ = ["Epochs", "Online", "Shared"]


def kinds_of(stream: Any, step: int, index: Sequence[int]) -> list[Any]:
    """What the cost of a step depends on for each replica, where a stream says so by `kinds(step, index)`."""
    return stream.kinds(step, index) if hasattr(stream, "kinds") else [None] * len(index)


class Words(NamedTuple):
    """What the samples of a `WordTask` are read from."""

    words: Tensor


class Online:
    """Fresh samples at every step, drawn in chunks of steps so that sampling stays a small part of a step.

    Of a `WordTask` random words are drawn in chunks, on the device of the replicas. `train` takes the words (`draw`)
    and reads them (`read`) as a part of its step, which may be compiled or recorded.

    Args:
        task: one task for all replicas, or one a replica (of equal shapes).
        batch_size: samples a step and replica.
        seeds: one key a replica.
        chunk: steps drawn at once; part of the stream's identity.
    """

    def __init__(
        self, task: Task | Sequence[Task], batch_size: int, seeds: Sequence[int | str], chunk: int = 32
    ) -> None:
        self.tasks = [task] * len(seeds) if isinstance(task, Task) else list(task)
        if len(self.tasks) != len(seeds):
            raise ValueError(f"{len(self.tasks)} tasks for {len(seeds)} seeds: give one task, or one a replica")
        self.batch_size, self.seeds, self.chunk = batch_size, list(seeds), chunk
        self._keys = torch.tensor([key(seed, "data") for seed in seeds])
        first = self.tasks[0]
        self._reader = first if isinstance(first, WordTask) and all(task == first for task in self.tasks) else None
        self._held: tuple | None = None
        self._chunk: Any = None

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        return self.read(self.draw(step, index, device))

    def draw(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """This step's words, which `read` makes a batch of, or a batch as it is."""
        number, offset = divmod(step, self.chunk)
        if self._held != (number, tuple(index), device):
            self._held, self._chunk = (number, tuple(index), device), self._draw(number, index, device)
        # Steps take turns at the samples, so that the shares of a mixture hold in every batch.
        return share(self._chunk._make(field[:, :, offset].contiguous() for field in self._chunk))

    def read(self, drawn: Any) -> Any:
        """The batch of what was drawn."""
        return self._reader.read(drawn.words) if self._reader else drawn

    def _draw(self, number: int, index: Sequence[int], device: torch.device) -> Any:
        """A chunk of samples, or of the words of samples, `[R, B, C, ...]`."""
        size, shape = self.chunk * self.batch_size, (self.batch_size, self.chunk)
        if self._reader:
            return Words(self._words(number, self._reader, index, device).unflatten(1, shape))
        samples: list[Any] = [self._sample(number, size, r) for r in index]
        return samples[0]._make(torch.stack(parts).to(device).unflatten(1, shape) for parts in zip(*samples))

    def _sample(self, number: int, size: int, r: int) -> Any:
        task = self.tasks[r]
        if isinstance(task, WordTask):
            return task.read(self._words(number, task, [r], torch.device("cpu"))[0])
        return task.sample(size, generator(self.seeds[r], "data", number))

    def _words(self, number: int, task: WordTask, index: Sequence[int], device: torch.device) -> Tensor:
        """The words of a chunk of samples, `[R, samples, words]`."""
        count = self.chunk * self.batch_size * task.words
        words = random_words(self._keys[list(index)].to(device), number << 32, count)
        return words.unflatten(1, (task.words, -1)).mT


class Epochs:
    """Passes over a finite data set in a fresh order each epoch; the last, shorter batch of an epoch is left out.

    Args:
        data: batch of N samples shared by all replicas.
        batch_size: samples a step and replica.
        seeds: key of each replica's order; equal keys give equal orders.
        subsets: `[R, n]` samples each replica trains on; all N where not given.
    """

    def __init__(self, data: Any, batch_size: int, seeds: Sequence[int | str], subsets: Tensor | None = None) -> None:
        self.data, self.batch_size, self.seeds = data, batch_size, list(seeds)
        count = len(data.inputs)
        self.subsets = torch.arange(count).expand(len(seeds), -1) if subsets is None else subsets
        self.per_epoch = self.subsets.shape[1] // batch_size
        if not self.per_epoch:
            raise ValueError(
                f"batch_size={batch_size} is not legal: at most the {self.subsets.shape[1]} training samples"
            )
        self._key: tuple | None = None
        self._order = torch.empty(0)

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        epoch, offset = divmod(step, self.per_epoch)
        if self._key != (epoch, tuple(index), device):
            self._key, self._order = (epoch, tuple(index), device), self._shuffle(epoch, index).to(device)
            self.data = self.data._make(field.to(device) for field in self.data)
        chosen = self._order[:, offset * self.batch_size : (offset + 1) * self.batch_size]
        return share(self.data._make(field[chosen] for field in self.data))

    def _shuffle(self, epoch: int, index: Sequence[int]) -> Tensor:
        size = self.subsets.shape[1]
        orders = [torch.randperm(size, generator=generator(self.seeds[r], "order", epoch)) for r in index]
        return self.subsets[list(index)].gather(1, torch.stack(orders))


class Shared:
    """A stream that gives several replicas the same batches, drawn (and answered by a teacher) once for all of them.

    Args:
        stream: gives the batches.
        source: which of that stream's replicas a replica shares its batches with; all share the first's by default.
    """

    def __init__(self, stream: Callable[..., Any], source: Callable[[int], int] = lambda replica: 0) -> None:
        self.stream, self.source = stream, source

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        sources = [self.source(replica) for replica in index]
        drawn = sorted(set(sources))
        batch = self.stream(step, drawn, device)
        return batch._make(field[[drawn.index(source) for source in sources]] for field in batch)

    def kinds(self, step: int, index: Sequence[int]) -> list[Any]:
        """What the cost of a replica's step depends on: as in the shared stream."""
        return kinds_of(self.stream, step, [self.source(replica) for replica in index])
