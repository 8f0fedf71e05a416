"""What differs between copies of one training: the data, the initial weights, the batch order, or all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from mesocosm.training.streams import Epochs

__all__ = ["copy_draws", "vary_copies"]

Mode = Literal["AllDiff", "DiffData", "DiffInit", "DiffOrder"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Draws(NamedTuple):
    """Number of the draw of each source of randomness."""

    data: int
    init: int
    order: int


def copy_draws(mode: Mode, copy: int) -> Draws:
    """Which training set, initial weights and batch order a copy takes: its own where `mode` varies them, else draw 0.

    So copy 0 is one and the same training in all modes.

    Raises:
        ValueError: for another mode than `MODES` or a copy below 0.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not legal: it must be one of {', '.join(MODES)}")
    if copy < 0:
        raise ValueError(f"copy={copy} is not legal: it must be an integer, at least 0")
    return Draws(*(copy if mode in ("AllDiff", f"Diff{source}") else 0 for source in ("Data", "Init", "Order")))


def vary_copies(
    data: Any, size: int, batch_size: int, *, seeds: Sequence[int], modes: Sequence[Mode], copies: Sequence[int]
) -> "tuple[list[str], Epochs]":
    """Keys of the initial weights, and the stream of batches, of R replicas that are copies of trainings.

    Replica r is copy `copies[r]` in mode `modes[r]`, and its draws depend on its own seed, mode and copy alone. Where a
    seed's copies differ in their training sets, these are disjoint.

    Args:
        data: batch of samples from which the training sets are drawn.
        size: samples in a training set.

    Raises:
        ValueError: when `data` is too small for the disjoint training sets.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    import torch

    from mesocosm.seeding import generator
    from mesocosm.tasks.images import disjoint_subsets
    from mesocosm.training.streams import Epochs

    draws = [copy_draws(mode, copy) for mode, copy in zip(modes, copies)]
    count, pool = 1 + max(draw.data for draw in draws), len(data.inputs)
    subsets = {seed: disjoint_subsets(count, size, pool, generator(seed, "training set")) for seed in set(seeds)}
    stream = Epochs(
        data,
        batch_size,
        seeds=[f"{seed}/{draw.order}" for seed, draw in zip(seeds, draws)],
        subsets=torch.stack([subsets[seed][draw.data] for seed, draw in zip(seeds, draws)]),
    )
    return [f"{seed}/{draw.init}" for seed, draw in zip(seeds, draws)], stream
