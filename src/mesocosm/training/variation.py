"""What differs between copies of one training: the data, the initial weights, the batch order, or all of them."""

from typing import Literal, NamedTuple, get_args

__all__ = ["copy_draws"]

Mode = Literal["AllDiff", "DiffData", "DiffInit", "DiffOrder"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Draws(NamedTuple):
    """Number of the draw of each source of randomness."""

    data: int
    init: int
    order: int


def copy_draws(mode: Mode, copy: int) -> Draws:
    """Which training set, initial weights and batch order a copy takes: its own where `mode` varies them, else draw 0.

    Key each draw by a seed and its number, as in `generator(seed, "order", draws.order)`. Copy 0 is then one and the
    same training in all modes, and the copies of a mode never depend on how many there are.

    Raises:
        ValueError: for another mode than `MODES` or a copy below 0.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not legal: it must be one of {', '.join(MODES)}")
    if copy < 0:
        raise ValueError(f"copy={copy} is not legal: it must be an integer, at least 0")
    return Draws(*(copy if mode in ("AllDiff", f"Diff{source}") else 0 for source in ("Data", "Init", "Order")))
