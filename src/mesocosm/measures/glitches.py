"""Where attention looks when a transformer misreads flip-flop strings."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mesocosm.measures.errors import attention_entropy, attention_to_target
from mesocosm.tasks.flip_flop import WRITE

__all__ = ["attends_to_other_write", "attention_at_reads", "wrong_reads"]

SLICE = 2**16
"""Weights of one attention pattern that are kept at once."""


def wrong_reads(logits: Tensor, batch: Any) -> Tensor:
    """Whether each position is a read whose bit is recalled wrongly, `[B, T]` bool, from logits `[B, T, V]`."""
    return (logits.argmax(-1) != batch.targets) & (batch.weights > 0)


def attends_to_other_write(attention: Tensor, inputs: Tensor, last_write: Tensor) -> Tensor:
    """Whether each query of a flip-flop string attends most to a write, its instruction or bit, that is not the last.

    Args:
        attention: `[B, T, T]`, by query and key.
        inputs, last_write: `[B, T]`, as in a batch of `FlipFlop`.

    Returns:
        `[B, T]` bool.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """
    pair = attention.argmax(-1) // 2
    return (inputs[:, ::2] == WRITE).gather(1, pair) & (pair != last_write // 2)


def attention_at_reads(model: Any, familiar: Iterable[Any], strange: Iterable[Any]) -> dict[str, Tensor]:
    """How a transformer attends on flip-flop strings, above all at the reads that it gets wrong.

    Args:
        model: gives its attention patterns as `Transformer` does.
        familiar: batches of `FlipFlop` as in training. On them the mean `attention entropy` is taken, over layers,
            heads and queries, and the one head is found that gives most attention to the last write at reads.
        strange: batches of which only the strings with an error count.

    Returns:
        Scalars: `attention entropy` in nats; the numbers of `wrong reads` and `right reads` in the strange strings with
        an error, and how many of each the head looks `... at another write`. And of the first wrong read all heads'
        attention, `map` `[L, H, T]`, with the `map tokens` `[T]` up to it: -1 after it, or where no read was wrong.

    Source: Liu et al. (2023), Exposing Attention Glitches with Flip-Flop Language Modeling, arXiv 2306.00946
    """
    entropies, on_last_write = [], []
    for batch, _, pattern in _capture(model, familiar):
        entropies.append(attention_entropy(pattern).mean((1, 2, 3)))
        bit, instruction = (attention_to_target(pattern, batch.last_write[:, None] - back) for back in (0, 1))
        on_last_write.append(((bit + instruction) * batch.weights[:, None, None]).sum((0, 3)))
    heads, length = on_last_write[0].shape, pattern.shape[-1]
    best = int(torch.stack(on_last_write).sum(0).argmax())

    counts = torch.zeros(2, 2)
    shown, tokens = torch.zeros(*heads, length), torch.full((length,), -1)
    for batch, logits, pattern in _capture(model, _with_an_error(model, strange)):
        wrong = wrong_reads(logits, batch)
        another = attends_to_other_write(pattern.flatten(1, 2)[:, best], batch.inputs, batch.last_write)
        for i, reads in enumerate((wrong, (batch.weights > 0) & ~wrong)):
            counts[i] += torch.stack([reads.sum(), (reads & another).sum()]).cpu()
        if tokens[0] < 0 and wrong.any():
            row, read = wrong.nonzero()[0].tolist()
            shown, tokens[: read + 1] = pattern[row, :, :, read].cpu(), batch.inputs[row, : read + 1].cpu()
    names = ("wrong reads", "wrong reads at another write", "right reads", "right reads at another write")
    entropy = {"attention entropy": torch.cat(entropies).mean()}
    return {**entropy, **dict(zip(names, counts.flatten())), "map": shown, "map tokens": tokens}


def _capture(model: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Few strings at a time, with their logits and all attention patterns `[B, L, H, T, T]`."""
    names = [name for name in model.hook_names if name.endswith("hook_pattern")]
    for batch in batches:
        rows = max(1, SLICE // batch.inputs.shape[1] ** 2)
        for part in map(batch._make, zip(*(field.split(rows) for field in batch))):
            logits, kept = model(part.inputs, capture=names)
            yield part, logits, torch.stack([kept[name] for name in names], dim=1)


def _with_an_error(model: Any, batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        failing = wrong_reads(model(batch.inputs), batch).any(1)
        if failing.any():
            yield batch._make(field[failing] for field in batch)
