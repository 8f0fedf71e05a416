"""Several cells as one: replicas of one shape become one population, and train to the last bit as they do apart."""

import dataclasses
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mesocosm.lab.study import Cell
from mesocosm.seeding import generator
from mesocosm.training.accounting import COUNTED
from mesocosm.training.optimisers import Rate
from mesocosm.training.population import Population
from mesocosm.training.streams import Online, kinds_of

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab
    from mesocosm.training.history import Saved

DONE = "done, by its own cell's rule"
"""Metric of a joined population that stops replicas; no record."""

EQUAL = ("objective", "steps", "batch_size", "accumulate", "every", "schedule", "clip", "grow", "average")
"""What cells of one population have in common; hyper-parameters that are numbers may differ."""

ASIDE = ("name", "model", "settings", "complete", "swappable")
"""What cells of equal checkpoints need not have in common; that their models are equal is seen from the networks."""


def groups(lab: "Lab", cells: Sequence[Cell]) -> list[list[int]]:
    """Places of the cells that make one population, for each population; all cells are in one."""
    found: list[list[int]] = []
    for place, cell in enumerate(cells):
        mine = next((group for group in found if joinable(lab, cells[group[0]], cell)), None)
        found.append([place]) if mine is None else mine.append(place)
    return found


def joinable(lab: "Lab", one: Cell, other: Cell) -> bool:
    """Whether two cells are sure to train in one population as they do apart; False where it can't be told."""
    return (
        alike([getattr(one, name) for name in EQUAL], [getattr(other, name) for name in EQUAL])
        and _same_rule(one.optimiser, other.optimiser)
        and _same_batches(one, other)
        and _same_network(lab, one, other)
    )


def same(lab: "Lab", one: Cell, other: Cell) -> bool:
    """Whether two cells are sure to give the same checkpoint; False where it can't be told."""
    names = [field.name for field in dataclasses.fields(Cell) if field.name not in ASIDE]
    return all(alike(getattr(one, name), getattr(other, name)) for name in names) and _same_network(lab, one, other)


def join(cells: Sequence[Cell]) -> Cell:
    """One cell of all replicas of `joinable` cells, in their order."""
    first, parts = cells[0], _Parts(cells)
    if len(cells) == 1:
        return first
    return dataclasses.replace(
        first,
        name=f"{first.name} and {len(cells) - 1} more",
        seeds=[seed for cell in cells for seed in cell.seeds],
        init=[key for cell in cells for key in cell.init or cell.seeds],
        start=parts.start if any(cell.start for cell in cells) else None,
        stream=(_CountedStream if any(hasattr(cell.stream, "kinds") for cell in cells) else _Stream)(parts),
        optimiser=_optimiser([cell.optimiser for cell in cells], [len(cell.seeds) for cell in cells]),
        settings={},
        measure=parts.measure if parts.stops or any(cell.measure for cell in cells) else None,
        stop=(lambda values: values[DONE] > 0) if parts.stops else None,
    )


def own(saved: "Saved") -> "Saved":
    """What one of the joined cells saved, without what was measured of others alone."""
    tensors, facts = saved
    others = {f"metric.{DONE}", *(n for n, t in tensors.items() if n.startswith("metric.") and t.isnan().all())}
    others -= {f"metric.{name}" for name in ("loss", *COUNTED)}
    return {name: tensor for name, tensor in tensors.items() if name not in others}, facts


class _Parts:
    """Cells one after another: replica `firsts[i]` of the whole is replica 0 of cell i."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)
        self.firsts = [0, *accumulate(len(cell.seeds) for cell in cells)]
        self.owner = [i for i, cell in enumerate(cells) for _ in cell.seeds]
        self.stops = any(cell.stop for cell in cells)

    def of(self, index: Sequence[int]) -> Iterator[tuple[int, list[int], list[int]]]:
        """Each cell that has replicas at `index`: its number, their places in `index`, and their own numbers in it."""
        for number in dict.fromkeys(self.owner[r] for r in index):
            places = [place for place, r in enumerate(index) if self.owner[r] == number]
            yield number, places, [index[place] - self.firsts[number] for place in places]

    def start(self, population: Population) -> None:
        for number, places, local in self.of(population.index):
            if change := self.cells[number].start:
                mine = _select(population, places, local)
                change(mine)
                population.theta[places] = mine.theta
                for name, tensor in mine.state.items():
                    population.state[name][places] = tensor

    def measure(self, population: Population, step: int) -> dict[str, Tensor]:
        """What each cell measures of its own replicas, NaN for the others, and which of them it would stop."""
        found: dict[str, Tensor] = {}
        for number, places, local in self.of(population.index):
            cell, count = self.cells[number], len(places)
            # A lone replica has an idle twin, as in training.
            twice = 2 if population.mappable and count == 1 else 1
            mine = _select(population, places * twice, local * twice)
            values = cell.measure(mine, step) if cell.measure else {}
            if self.stops:
                done = cell.stop(values) if cell.stop else torch.zeros(count * twice, device=population.device)
                values = {**values, DONE: done}
            for name, value in values.items():
                missing = torch.full((len(population),), torch.nan, dtype=torch.float64, device=value.device)
                found.setdefault(name, missing)[places] = value[:count].double()
        return found


def _select(population: Population, places: list[int], local: list[int]) -> Population:
    mine = population.select(places)
    mine.index = local
    return mine


class _Stream:
    """Every replica's batches from its own cell's stream."""

    def __init__(self, parts: _Parts) -> None:
        self.parts = parts
        self.streams = [cell.stream or Online(cell.task, cell.batch_size, list(cell.seeds)) for cell in parts.cells]

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`."""
        mine = list(self.parts.of(index))
        batches = [self.streams[number](step, local, device) for number, _, local in mine]
        if len(mine) == 1:
            return batches[0]
        order = torch.tensor([place for _, places, _ in mine for place in places], device=device).argsort()
        return batches[0]._make(torch.cat(fields)[order] for fields in zip(*batches))


class _CountedStream(_Stream):
    def kinds(self, step: int, index: Sequence[int]) -> list[Any]:
        """What the cost of a replica's step depends on: its cell, and what that cell's stream says."""
        kinds: list[Any] = [None] * len(index)
        for number, places, local in self.parts.of(index):
            for place, kind in zip(places, kinds_of(self.streams[number], step, local)):
                kinds[place] = (number, kind)
        return kinds


def _rates(optimiser: Any) -> Iterable[str]:
    """Names of the hyper-parameters that may differ between replicas."""
    return [field.name for field in dataclasses.fields(optimiser) if field.type in (Rate, "Rate")]


def _same_rule(one: Any, other: Any) -> bool:
    """Whether two optimisers differ in numbers alone, neither leaving out what a 0 allows it to leave out."""
    if type(one) is not type(other) or not dataclasses.is_dataclass(one):
        return one is other
    rates = _rates(one)
    for name in (field.name for field in dataclasses.fields(one)):
        a, b = getattr(one, name), getattr(other, name)
        if name in rates:
            same = bool(torch.as_tensor(a).any()) == bool(torch.as_tensor(b).any())
        else:
            same = _same_rule(a, b) if hasattr(a, "columns") else alike(a, b)
        if not same:
            return False
    return True


def _optimiser(parts: Sequence[Any], counts: Sequence[int]) -> Any:
    """The optimiser of all replicas, each with the rates that it has in its own part."""
    first, changes = parts[0], {}
    for name in (field.name for field in dataclasses.fields(first)):
        values = [getattr(part, name) for part in parts]
        if hasattr(values[0], "columns"):
            changes[name] = _optimiser(values, counts)
        elif name in _rates(first):
            each = [[v] * n if isinstance(v, int | float) else v for v, n in zip(values, counts)]
            changes[name] = [float(rate) for part in each for rate in part]
    return dataclasses.replace(first, **changes)


def _same_batches(one: Cell, other: Cell) -> bool:
    if alike((one.task, one.stream), (other.task, other.stream)):
        return True
    if type(one.stream) is not type(other.stream):
        return False
    if kinds_of(one.stream, 0, [0]) != kinds_of(other.stream, 0, [0]):  # Of another cost, it might not be stacked.
        return False
    a, b = _sample(one), _sample(other)
    return type(a) is type(b) and [(f.dtype, f.shape) for f in a] == [(f.dtype, f.shape) for f in b]


def _sample(cell: Cell) -> Any:
    if cell.stream is None:
        return cell.task.sample(1, generator(0, "shape"))
    return cell.stream(0, [0], torch.device("cpu"))


def _same_network(lab: "Lab", one: Cell, other: Cell) -> bool:
    """Whether both make the same network from the same seed: of equal modules, attributes, weights and buffers."""
    if alike((one.model, one.task, one.swappable), (other.model, other.task, other.swappable)):
        return True
    a, b = (Population(partial(lab.model, cell), [0]).module for cell in (one, other))
    names = [[name for name, _ in module.named_parameters()] for module in (a, b)]
    return names[0] == names[1] and alike(_attributes(a), _attributes(b))


def _attributes(module: nn.Module) -> dict[str, Any]:
    """By name of the module: its type, and all that it holds but modules."""
    return {
        name: (type(part), {key: value for key, value in vars(part).items() if key != "_modules"})
        for name, part in module.named_modules(remove_duplicate=False)
    }


def alike(a: Any, b: Any) -> bool:
    """Whether two values are sure to act alike: equal plain values, or functions and dataclasses of alike parts."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    match a:
        case bool() | int() | float() | complex() | str() | bytes() | range() | set() | frozenset():
            return bool(a == b)
        case Tensor():
            return a.requires_grad == b.requires_grad and a.dtype == b.dtype and torch.equal(a, b)
        case tuple() | list():
            return len(a) == len(b) and all(map(alike, a, b))
        case dict():
            return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
        case partial():
            return alike((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        case types.MethodType():
            return alike((a.__func__, a.__self__), (b.__func__, b.__self__))
        case types.FunctionType():
            return a.__code__ is b.__code__ and alike(_bound(a), _bound(b))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(alike(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    return False


def _bound(function: Callable[..., Any]) -> tuple:
    """What a function holds besides its code; itself where it calls itself."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    held = ["itself" if content is function else content for content in cells]
    return function.__defaults__, function.__kwdefaults__, held
