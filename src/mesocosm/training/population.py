"""Replicas of one architecture in lockstep: their parameters are the rows of one matrix."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from mesocosm.models.dropout import Dropout
from mesocosm.seeding import key

ALIGNMENT = 16
"""Each parameter starts at a multiple of this many numbers in its row (64 bytes), so that kernels, and with them the
last bits of a result, do not depend on where a replica sits in the stack."""

LARGE = {"cpu": 4e8, "cuda": 4e10}
"""Parameters times positions of a replica's step from which stacking gains nothing. The CPU's figure is measured
(benchmarks/RESULTS.md), the GPU's is an estimate."""

_ODD = 0x1E3779B97F4A7C15


class Layout:
    """Where each trainable parameter of a module lies in its row of P numbers."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes = {name: p.shape for name, p in module.named_parameters() if p.requires_grad}
        self.widths = [-(-shape.numel() // ALIGNMENT) * ALIGNMENT for shape in self.shapes.values()]
        self.size = sum(self.widths)

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Parameters by name, `[..., *shape]`, as views of `rows` `[..., P]`."""
        parts = rows.split(self.widths, dim=-1)
        return {
            name: part[..., : shape.numel()].unflatten(-1, shape) if shape else part[..., 0]
            for part, (name, shape) in zip(parts, self.shapes.items())
        }


class _Call(nn.Module):
    """`function(model, *arguments)` as a module, so that `functional_call` can put weights into `model`."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(self.model, *arguments)


class Population:
    """R networks of one architecture, each with its own seed.

    Trainable parameters are rows of `theta` `[R, P]`, padded so that every parameter is aligned. Frozen parameters
    and persistent buffers are stacked per replica in `state`; non-persistent buffers (masks, tables) are shared.
    `nn.Dropout` is replaced by keyed dropout, so that a replica's masks do not depend on its company.

    Args:
        make_model: makes one network; called once a seed, with PyTorch's generator seeded by that seed alone.
        seeds: one key a replica; equal keys give equal initial weights.
    """

    def __init__(self, make_model: Callable[[], nn.Module], seeds: Sequence[int | str], device: str = "cpu") -> None:
        if not len(seeds):
            raise ValueError(f"seeds={list(seeds)!r} is not legal: a population needs at least one")
        models = [_make(make_model, seed) for seed in seeds]
        self.seeds = list(seeds)
        self.index = list(range(len(seeds)))
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
        self.state = {n: t.to(device) for n, t in self.state.items()}
        self.dropout_keys = {n: t.to(device) for n, t in self.dropout_keys.items()}
        self.module.to(device)
        return self

    def select(self, rows: Sequence[int]) -> "Population":
        """A population of copies of these rows; `index` still gives each replica's place in the original."""
        chosen = copy.copy(self)
        chosen.seeds = [self.seeds[r] for r in rows]
        chosen.index = [self.index[r] for r in rows]
        at = torch.as_tensor(list(rows), device=self.device)
        chosen.theta = self.theta[at]
        chosen.state = {n: t[at] for n, t in self.state.items()}
        chosen.dropout_keys = {n: t[at] for n, t in self.dropout_keys.items()}
        chosen.noise_keys = self.noise_keys[list(rows)]
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
        with torch.no_grad():
            return self.apply(function, self.theta, *arguments, training=False)

    def apply(self, function: Callable[..., Any], theta: Tensor, *arguments: Any, training: bool) -> Any:
        """As `map`, at the weights `theta`, with gradients where they are enabled."""
        call = self._caller(function, training)
        inputs = (self.layout.views(theta), self.state, *arguments)
        if self.mappable:
            return vmap(call, randomness="error")(*inputs)
        return _stack([call(*_row(inputs, r)) for r in range(len(self))])

    def gradients(
        self, objective: Callable[..., Tensor], theta: Tensor, batch: Any, step: Tensor, functional: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Gradients `[R, P]` and losses `[R]` of `objective(model, batch)` at `theta` `[R, P]`.

        `step`, an integer scalar, keys the randomness inside models. `functional` takes `vmap(grad)`, which
        `torch.compile` can see through, in place of a mapped forward and one backward pass, which are faster eager.
        """
        call = self._caller(objective, training=True)
        state = {**self.state, **{name: keys + step * _ODD for name, keys in self.dropout_keys.items()}}
        if functional and self.mappable:
            loss_of_row = lambda row, *rest: call(self.layout.views(row), *rest)
            return vmap(grad_and_value(loss_of_row), randomness="error")(theta, state, batch)
        if not self.mappable:
            return self._gradients_one_by_one(call, theta, state, batch, step)
        leaves = {n: v.detach().requires_grad_() for n, v in self.layout.views(theta).items()}
        with torch.enable_grad():
            losses = vmap(call, randomness="error")(leaves, state, batch)
            grads = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        rows = torch.zeros_like(theta)
        for view, grad in zip(self.layout.views(rows).values(), grads):
            view.copy_(grad)
        return rows, losses.detach()

    def _gradients_one_by_one(
        self, call: Callable[..., Tensor], theta: Tensor, state: dict[str, Tensor], batch: Any, step: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, losses = torch.zeros_like(theta), []
        for r in range(len(self)):
            leaves = {n: v.detach().requires_grad_() for n, v in self.layout.views(theta[r]).items()}
            with _seeded(int(self.noise_keys[r] + step.cpu() * _ODD), self.device), torch.enable_grad():
                loss = call(leaves, *_row((state, batch), r))
                grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            for view, grad in zip(self.layout.views(rows[r]).values(), grads):
                view.copy_(grad)
            losses.append(loss.detach())
        return rows, torch.stack(losses)

    def plan(self, objective: Callable[..., Tensor], batch: Any) -> int:
        """Decide how to step, and give the number of replicas to step in lockstep.

        Stacking removes overhead, not arithmetic. So a stack grows until its step fills the device, and replicas are
        stepped one by one when a single one does, or when `vmap` can't trace the model; `reason` says which. Whether
        replicas are stacked never depends on their number, so that records don't either.
        """
        inputs = batch.inputs
        positions = inputs.shape[1] if inputs.is_floating_point() else inputs[0].numel()
        fitting = int(LARGE[self.device.type] // (self.layout.size * positions))
        state = {n: t.clone() for n, t in self.state.items()}
        if fitting < 1:
            self.mappable = False
            self.reason = f"one by one: {self.layout.size:,} parameters x {positions:,} positions fill the device"
        else:
            try:
                few = self.select(range(min(2, len(self))))
                few.gradients(objective, few.theta, _row(batch, slice(2)), torch.tensor(0))
            except (RuntimeError, NotImplementedError) as error:
                self.mappable = False
                self.reason = f"one by one: vmap can't trace this model ({str(error).strip().splitlines()[0][:150]})"
        self.state = state
        return max(fitting, 2) if self.mappable else 1

    def _caller(self, function: Callable[..., Any], training: bool) -> Callable[..., Any]:
        module = _Call(self.module, function).train(training)

        def call(parameters: dict[str, Tensor], state: dict[str, Tensor], *arguments: Any) -> Any:
            return functional_call(module, {f"model.{n}": t for n, t in {**parameters, **state}.items()}, arguments)

        return call


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's own generators, and put them back."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _make(make_model: Callable[[], nn.Module], seed: int | str) -> nn.Module:
    with _seeded(key(seed, "init"), torch.device("cpu")):
        model = make_model()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))
    for module in model.modules():
        if isinstance(module, Dropout):
            module.keyed = True
    return model


def _row(tree: Any, r: int | slice) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t[r] if isinstance(t, Tensor) else t, tree)


def _stack(results: list[Any]) -> Any:
    return torch.utils._pytree.tree_map(lambda *ts: torch.stack(ts), *results)
