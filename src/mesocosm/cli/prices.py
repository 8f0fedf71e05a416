"""What trainings cost, as dry runs tell it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mesocosm.lab.text import flops, size

if TYPE_CHECKING:
    from mesocosm.lab.cost import Price


def print_prices(
    rows: Sequence[Sequence["Price"]], others: Mapping[str, float], whole: str, device: str, console: Console
) -> None:
    """Print a table of prices and their sum.

    Args:
        rows: trainings of a row are of one shape.
        others: seconds, by name, of what is not training.
        whole: name of the sum.
    """
    from mesocosm.lab.progress import duration

    table = Table("training", "replicas", "steps", "parameters", "computation", "memory", "time")

    def add(name: str, prices: Sequence["Price"], *, shape: tuple[str, str] = ("", ""), besides: float = 0.0) -> None:
        replicas, memory = sum(p.replicas for p in prices), max((p.memory for p in prices), default=0)
        seconds = besides + sum(p.seconds or 0 for p in prices)
        computation = flops(sum(p.flops for p in prices))
        table.add_row(name, f"{replicas:,}", *shape, computation, size(memory), f"about {duration(seconds)}")

    for prices in rows:
        first, times = prices[0], f", {len(prices)} times" if len(prices) > 1 else ""
        add(first.cell + times, prices, shape=(f"{first.steps:,}", f"{first.parameters:,}"))
    for name, seconds in others.items():
        table.add_row(name, *[""] * 5, f"about {duration(seconds)}")
    table.add_section()
    add(whole, [price for prices in rows for price in prices], besides=sum(others.values()))
    console.print(table)
    if rows:
        console.print(f"Time is for training on this machine ({device}), without measuring and early stopping.")
    if others:
        console.print("Times without a number of steps are rules of thumb for a common core.")
