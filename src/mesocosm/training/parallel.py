"""One training on several processes: each takes its share of every batch, and their gradients are averaged."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__: list[str] = []


def launched() -> bool:
    """Whether this is one of several processes that `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def place() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return place() == 0


@contextmanager
def together(device: str) -> Iterator[None]:
    """Train with the other processes that `torchrun` started, over NCCL on GPUs and Gloo on the CPU."""
    if not launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(hours=1))
    try:
        yield
    finally:
        dist.destroy_process_group()


def from_leader(make: Any) -> Any:
    """What `make()` gives in the leading process, in all of them."""
    if processes() == 1:
        return make()
    found = [make() if leads() else None]
    dist.broadcast_object_list(found)
    return found[0]


def share(batch: Any) -> Any:
    """This process's part of a batch `[R, B, ...]`: its samples are shared out as evenly as can be.

    Raises:
        ValueError: when there are fewer samples than processes.
    """
    count = processes()
    if count == 1:
        return batch
    if batch[0].shape[1] < count:
        raise ValueError(f"batch_size={batch[0].shape[1]} is not legal: {count} processes need a sample each")
    return batch._make(field.tensor_split(count, dim=1)[place()] for field in batch)


def averaged(gradient: Tensor, losses: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """Gradients `[R, P]` and losses `[R]` of the whole batch from those of this process's part of it.

    Objectives are means over the samples or tokens that `weights` count, or over samples where there are none.
    """
    if processes() == 1:
        return gradient, losses
    size = counted(batch).to(losses)
    sums = torch.cat([gradient, losses[:, None], torch.ones_like(losses)[:, None]], 1) * size[:, None]
    dist.all_reduce(sums)
    means = sums / sums[:, -1:].clamp_min(1e-12)
    return means[:, :-2].contiguous(), means[:, -2]


def shares(batch: Any) -> Tensor:
    """This process's part of what the means over the whole batch `[R, B, ...]` count, `[R]`; they sum to 1."""
    own = counted(batch)
    whole = own.clone()
    dist.all_reduce(whole)
    return own / whole.clamp_min(1e-12)


def counted(batch: Any) -> Tensor:
    """Samples or tokens that the mean over a batch `[R, B, ...]` counts, `[R]`."""
    if hasattr(batch, "weights"):
        return batch.weights.flatten(1).sum(1)
    replicas, samples = batch[0].shape[:2]
    return torch.full((replicas,), float(samples), device=batch[0].device)


def agreed(answer: bool) -> bool:
    """The leading process's answer, in all of them."""
    return bool(total(torch.tensor(int(answer and leads()))))


def total(counts: Tensor) -> Tensor:
    """The sum over all processes of what each has counted."""
    if processes() == 1:
        return counts
    counts = counts.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
    dist.all_reduce(counts)
    return counts.cpu()
