"""Replicas of one architecture in lockstep: their parameters are the rows of one matrix."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mesocosm.models._applied import Applied
from mesocosm.models.dropout import Dropout
from mesocosm.seeding import key
from mesocosm.training.parallel import place

ALIGNMENT = 16
"""Each parameter starts at a multiple of this many numbers in its row (64 bytes), so that kernels, and with them the
last bits of a result, do not depend on where a replica sits in the stack."""

_ODD = 0x1E3779B97F4A7C15


class Layout:
    """Where each trainable parameter of a module lies in its row of P numbers."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes = {name: self._shape(p) for name, p in module.named_parameters() if p.requires_grad}
        self.widths = [-(-shape.numel() // ALIGNMENT) * ALIGNMENT for shape in self.shapes.values()]
        self.size = sum(self.widths)
        self.whole = self
        """The layout of whole rows, where rows are sharded over processes."""

    def _shape(self, parameter: Any) -> torch.Size:
        return parameter.shape

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Parameters by name, `[..., *shape]`, as views of `rows` `[..., P]`."""
        parts = rows.split(self.widths, dim=-1)
        return {
            name: part[..., : shape.numel()].unflatten(-1, shape) if shape else part[..., 0]
            for part, (name, shape) in zip(parts, self.shapes.items())
        }

    def norms(self, rows: Tensor, order: float = 2.0) -> Tensor:
        """Norms `[R, 1]` of whole rows, of which `rows` `[R, P]` are this process's shards."""
        return torch.linalg.vector_norm(rows, order, dim=1, keepdim=True)

    def gathered(self, rows: Tensor) -> Tensor:
        """Whole rows from every process's shards, in the leading process; none, `[0, P]`, in others."""
        return rows

    def scattered(self, rows: Tensor) -> Tensor:
        """This process's shards of whole rows."""
        return rows

    def rows(self, tensors: Iterable[Tensor]) -> Tensor:
        """Rows `[..., P]` of one tensor `[..., *shape]` a parameter, in order; the inverse of `views`."""
        parts = []
        for tensor, width, shape in zip(tensors, self.widths, self.shapes.values()):
            part = tensor.flatten(-len(shape)) if shape else tensor.unsqueeze(-1)
            parts.append(part)
            if width > shape.numel():
                parts.append(part.new_zeros(1).expand(*part.shape[:-1], width - shape.numel()))
        return torch.cat(parts, dim=-1)


class Population:
    """R networks of one architecture, each with its own seed.

    Trainable parameters are rows of `theta` `[R, P]`, padded so that every parameter is aligned. Frozen parameters
    and persistent buffers are stacked per replica in `state`; non-persistent buffers (masks, tables) are shared.
    `nn.Dropout` is replaced by keyed dropout, so that a replica's masks do not depend on its company.

    Args:
        make_model: makes one network; called once a seed, with PyTorch's generator seeded by that seed alone.
        seeds: one key a replica; equal keys give equal initial weights.
    """

    sharded = False
    """Whether the replicas are split over several processes (`training.sharding`)."""

    def __init__(self, make_model: Callable[[], nn.Module], seeds: Sequence[int | str], device: str = "cpu") -> None:
        if not len(seeds):
            raise ValueError(f"seeds={list(seeds)!r} is not legal: a population needs at least one")
        models = [_make(make_model, seed) for seed in seeds]
        self.seeds = list(seeds)
        self.index, self.of = list(range(len(seeds))), len(seeds)
        self.module = models[0]
        self.layout = Layout(self.module)
        self.theta = torch.zeros(len(seeds), self.layout.size)
        views = self.layout.views(self.theta)
        with torch.no_grad():
            for r, model in enumerate(models):
                for name, parameter in model.named_parameters():
                    if parameter.requires_grad:
                        views[name][r] = parameter
        frozen = {n for n, p in self.module.named_parameters() if not p.requires_grad}
        stacked = frozen | (dict(self.module.named_buffers()).keys() & self.module.state_dict().keys())
        states = [{**dict(m.named_buffers()), **dict(m.named_parameters())} for m in models]
        self.state = {name: torch.stack([s[name].detach() for s in states]) for name in sorted(stacked)}
        self.dropout_keys = {
            f"{name}.key": torch.tensor([key(seed, "dropout", name) for seed in seeds])
            for name, m in self.module.named_modules()
            if isinstance(m, Dropout) and m.p > 0
        }
        self.noise_keys = torch.tensor([key(seed, "noise") for seed in seeds])
        self.average: Tensor | None = None
        self.mappable, self.reason = True, "stacked"
        self.to(device)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        return self.theta.device

    def to(self, device: str | torch.device) -> Self:
        """Move everything to `device`, in place."""
        self.theta = self.theta.to(device)
        self.average = None if self.average is None else self.average.to(device)
        self.state = {n: t.to(device) for n, t in self.state.items()}
        self.dropout_keys = {n: t.to(device) for n, t in self.dropout_keys.items()}
        self.module.to(device)
        return self

    def select(self, rows: Sequence[int]) -> "Population":
        """A population of copies of these rows; `index` and `of` still say which of how many in the original."""
        chosen = copy.copy(self)
        chosen.seeds = [self.seeds[r] for r in rows]
        chosen.index = [self.index[r] for r in rows]
        at = torch.as_tensor(list(rows), device=self.device)
        chosen.theta = self.theta[at]
        chosen.average = None if self.average is None else self.average[at]
        chosen.state = {n: t[at] for n, t in self.state.items()}
        chosen.dropout_keys = {n: t[at] for n, t in self.dropout_keys.items()}
        chosen.noise_keys = self.noise_keys[list(rows)]
        return chosen

    def averaged(self) -> Self:
        """The same replicas with the averages of their weights along training.

        Raises:
            ValueError: when training kept no average.
        """
        if self.average is None:
            raise ValueError("there is no average of the weights: train with average=EMA()")
        chosen = copy.copy(self)
        chosen.theta = self.average
        return chosen

    def replica(self, r: int) -> nn.Module:
        """Replica `r` as an ordinary module with weights of its own."""
        module = copy.deepcopy(self.module)
        module.load_state_dict({n: t[r] for n, t in self.weights().items()}, strict=False)
        return module

    def weights(self) -> dict[str, Tensor]:
        """All parameters and persistent buffers by name, `[R, *shape]`."""
        return {**self.layout.views(self.theta), **self.state}

    def map(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(model, *arguments)` of every replica in evaluation mode, without gradients.

        `arguments` are tensors or named tuples with a leading axis R; what all replicas share, `function` closes over.
        Results are stacked along R.
        """
        self.mode(training=False)
        call, inputs = self.caller(function), (self.layout.views(self.theta), self.state, *arguments)
        with torch.no_grad():
            if self.mappable:
                return vmap(call, randomness="error")(*inputs)
            return stack([call(*row(inputs, r)) for r in range(len(self))])

    def outputs(self, inputs: Tensor, at_once: int = 8000) -> Tensor:
        """What every replica answers to the same inputs `[N, ...]`: `[R, N, ...]`, on the CPU.

        Args:
            at_once: inputs that all replicas together see at a time.
        """
        parts = inputs.to(self.device).split(max(1, at_once // len(self)))
        return torch.cat([self.map(lambda model, part=part: model(part)).cpu() for part in parts], dim=1)

    def mode(self, training: bool) -> None:
        """Put the module that all replicas share into training or evaluation mode."""
        if self.module.training != training:
            self.module.train(training)

    def caller(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`call(parameters, state, *arguments)`: `function(model, *arguments)` of one replica with those weights."""
        module = Applied(self.module, function)
        # PyTorch's own tying of weights trips over modules that are registered twice.
        places: dict[int, list[str]] = {}
        for prefix, part in module.named_modules():
            for name, tensor in (part._parameters | part._buffers).items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append(f"{prefix}.{name}")
        shared = {names[0]: names for names in places.values() if len(names) > 1}

        def call(parameters: dict[str, Tensor], state: dict[str, Tensor], *arguments: Any) -> Any:
            tensors = {f"model.{n}": t for n, t in (parameters | state).items()}
            for first, names in shared.items():
                if first in tensors:
                    tensors |= dict.fromkeys(names, tensors[first])
            return functional_call(module, tensors, arguments, tie_weights=False)

        return call

    def step_state(self, step: int) -> dict[str, Tensor]:
        """Frozen parameters, buffers and this step's dropout keys by name, `[R, ...]`."""
        if not self.dropout_keys:
            return self.state
        shift = _shift(step)
        return self.state | {name: keys + shift.to(keys.device) for name, keys in self.dropout_keys.items()}

    def part_state(self, state: dict[str, Tensor], part: int) -> dict[str, Tensor]:
        """A step's state for one part of its batch: each drops other activations."""
        shift = (part << 48) * _ODD % 2**64
        # A number and no tensor, which could not be moved to a GPU while a step is recorded.
        shift -= 2**64 * (shift >= 2**63)
        return state | {name: state[name] + shift for name in self.dropout_keys}

    def step_seed(self, step: int) -> int:
        """Seed of the first replica for what draws from PyTorch's own generators in this step."""
        return int(self.noise_keys[0] + _shift(step))


def _shift(step: int) -> Tensor:
    """Between the keys of two steps, and of two processes, which see different samples."""
    return (torch.tensor(step) + (place() << 32)) * _ODD


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's own generators, and put them back."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _make(make_model: Callable[[], nn.Module], seed: int | str) -> nn.Module:
    with seeded(key(seed, "init"), torch.device("cpu")):
        model = make_model()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))
    for module in model.modules():
        if isinstance(module, Dropout):
            module.keyed = True
    return model


def row(tree: Any, r: int | list[int]) -> Any:
    """Replica `r` of tensors `[R, ...]` in any nesting."""
    return torch.utils._pytree.tree_map(lambda t: t[r] if isinstance(t, Tensor) else t, tree)


def stack(results: list[Any]) -> Any:
    """Nestings of tensors as one of tensors `[R, ...]`."""
    return torch.utils._pytree.tree_map(lambda *ts: torch.stack(ts), *results)
