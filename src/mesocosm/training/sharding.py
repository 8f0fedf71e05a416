"""One network split over several processes: each holds its shards of weights, gradients and optimiser state."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from mesocosm.models._applied import Applied
from mesocosm.training import parallel
from mesocosm.training.population import Layout, Population, row

__all__: list[str] = []


class Shards(Layout):
    """Where this process's shards of the trainable parameters lie in its rows.

    A parameter of n rows is cut along its first axis: each of N processes has ceil(n / N) rows in turn, the last ones
    fewer or none.

    Args:
        module: after `fully_shard`.
        whole: the layout of the module before.
    """

    def __init__(self, module: nn.Module, whole: Layout) -> None:
        super().__init__(module)
        self.whole = whole

    def _shape(self, parameter: Any) -> torch.Size:
        return parameter.to_local().shape

    def norms(self, rows: Tensor, order: float = 2.0) -> Tensor:
        own = super().norms(rows if rows.shape[1] else rows.new_zeros(len(rows), 1), order)
        return torch.linalg.vector_norm(torch.stack(_of_all(own)), order, dim=0, dtype=torch.float64).to(own.dtype)

    def gathered(self, rows: Tensor) -> Tensor:
        full = torch.zeros(len(rows) if parallel.leads() else 0, self.whole.size)
        views = self.whole.views(full)
        for name in self.shapes:
            parameter = self.joined(name, rows)
            if parallel.leads():
                views[name].copy_(parameter)
        return full

    def scattered(self, rows: Tensor) -> Tensor:
        shards = rows.new_zeros(len(rows), self.size)
        views = self.views(shards)
        for name, parameter in self.whole.views(rows).items():
            first = parallel.place() * self._chunk(name)
            views[name].copy_(parameter[:, first : first + self._chunk(name)])
        return shards

    def joined(self, name: str, rows: Tensor) -> Tensor:
        """A whole parameter `[R, *shape]` of all processes' rows, in every process."""
        shard = self.views(rows)[name]
        own = shard.new_zeros(self._chunk(name), len(rows), *shard.shape[2:])
        own[: shard.shape[1]] = shard.transpose(0, 1)
        return torch.cat(_of_all(own))[: self.whole.shapes[name][0]].transpose(0, 1)

    def _chunk(self, name: str) -> int:
        return -(-self.whole.shapes[name][0] // parallel.processes())


class ShardedPopulation(Population):
    """A population whose replicas are split over the processes, and trained one after the other.

    `theta` `[R, P / N]` holds this process's shards; so do gradients, averages and optimiser state. Weights come
    together layer by layer, while a layer computes. A replica starts with the same weights as in a `Population`, and
    takes the same steps to float tolerance.

    All processes must make, map and train it together.

    Raises:
        ValueError: for a model with a trainable scalar, which can't be cut.

    Source: Rajbhandari et al. (2020), ZeRO, stage 3, arXiv 1910.02054; Zhao et al. (2023), PyTorch FSDP, arXiv
    2304.11277
    """

    layout: Shards
    sharded = True

    def __init__(self, make_model: Callable[[], nn.Module], seeds: Sequence[int | str], device: str = "cpu") -> None:
        super().__init__(make_model, seeds[:1])
        self.mappable, self.reason = False, f"one by one, sharded over {parallel.processes()} processes"
        self._shard(device)
        for seed in seeds[1:]:
            self._add(Population(make_model, [seed]))
        self.seeds, self.index, self.of = list(seeds), list(range(len(seeds))), len(seeds)
        self.to(device)

    def _shard(self, device: str) -> None:
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.fsdp import fully_shard

        whole = self.layout
        scalars = [name for name, shape in whole.shapes.items() if not shape]
        if scalars:
            raise ValueError(f"{scalars[0]} is a scalar and can't be sharded: make it a vector of one number")
        trained = [p for p in self.module.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data = torch.empty(0)
        self.bare = copy.deepcopy(self.module)
        for parameter, view in zip(trained, whole.views(self.theta).values()):
            parameter.data = view[0]
        # The keys and values that a block of a transformer gives too are views, but nothing changes them in place.
        warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(FSDPBlock\) returned a view")
        self.root = Applied(self.module, lambda model: None)
        assert dist.group.WORLD
        mesh = DeviceMesh.from_group(dist.group.WORLD, device)
        frozen = {p for p in self.module.parameters() if not p.requires_grad}
        for unit in [*_units(self.module), self.root]:
            fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=frozen)
            # Losses are weighted by each process's samples, so that gradients are to be summed.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
        self.layout = Shards(self.module, whole)
        self.theta = self.layout.scattered(self.theta)

    def _add(self, one: Population) -> None:
        self.theta = torch.cat([self.theta, self.layout.scattered(one.theta)])
        self.state = {n: torch.cat([t, one.state[n]]) for n, t in self.state.items()}
        self.dropout_keys = {n: torch.cat([t, one.dropout_keys[n]]) for n, t in self.dropout_keys.items()}
        self.noise_keys = torch.cat([self.noise_keys, one.noise_keys])

    def weights(self) -> dict[str, Tensor]:
        return {**{name: self.layout.joined(name, self.theta) for name in self.layout.shapes}, **self.state}

    def replica(self, r: int) -> nn.Module:
        module = copy.deepcopy(self.bare)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.data = self.layout.joined(name, self.theta[[r]])[0].clone()
        module.load_state_dict({n: t[r] for n, t in self.state.items()}, strict=False)
        return module.to(self.device)

    def caller(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a population's, with this process's shards of the parameters."""

        def call(parameters: dict[str, Tensor], state: dict[str, Tensor], *arguments: Any) -> Any:
            with torch.no_grad():
                for name, parameter in self._parameters().items():
                    parameter.to_local().copy_(parameters[name])
            self.root.function = function
            return functional_call(self.root, {f"model.{n}": t for n, t in state.items()}, arguments, tie_weights=False)

        return call

    def gradients(self, objective: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        """`gradients(theta, state, batch)`: this process's shards of the gradients of the whole batch, `[R, P / N]`.

        And the losses `[R]`; `batch` is this process's part of it.
        """
        call = self.caller(objective)

        def of_rows(theta: Tensor, state: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
            shares = parallel.shares(batch).to(theta)
            gradient, losses = torch.zeros_like(theta), torch.zeros_like(shares)
            for r, views in enumerate(self.layout.views(part) for part in gradient):
                with torch.enable_grad():
                    loss = call(self.layout.views(theta[r]), row(state, r), row(batch, r)) * shares[r]
                    loss.backward()
                for name, parameter in self._parameters().items():
                    if parameter.grad is not None:
                        views[name].copy_(parameter.grad.to_local())
                        parameter.grad = None
                losses[r] = loss.detach()
            dist.all_reduce(losses)
            return gradient, losses

        return of_rows

    def _parameters(self) -> dict[str, Any]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


def _of_all(own: Tensor) -> list[Tensor]:
    """A tensor of equal shape from each process."""
    every = [torch.empty_like(own) for _ in range(parallel.processes())]
    dist.all_gather(every, own)
    return every


def _units(module: nn.Module) -> list[Any]:
    """The layers whose weights come together at once: the elements of the largest list of layers."""
    lists = [m for m in module.modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
    layers = max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=nn.ModuleList())
    uses = Counter(id(p) for m in module.modules() for p in m._parameters.values())
    return [
        layer
        for layer in dict.fromkeys(layers.children())
        # A weight that is tied to another layer's comes together with the rest.
        if any(p.requires_grad for p in layer.parameters()) and all(uses[id(p)] == 1 for p in layer.parameters())
    ]
