"""Gradients of every replica at once: mapped over the stack, or one by one where that is the better way."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mesocosm.training import parallel
from mesocosm.training.population import Population, row, seeded, stack
from mesocosm.training.sharding import ShardedPopulation

LARGE = {"cpu": 3e8, "cuda": 3e10}
"""Floating-point operations of a replica's step from which stacking gains nothing. The CPU's figure is measured
(benchmarks/RESULTS.md), the GPU's is an estimate."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Gradients = Callable[[Tensor, dict[str, Tensor], Any], tuple[Tensor, Tensor]]
"""`gradients(theta, state, batch)`: gradients `[R, P]` and losses `[R]` at the weights `theta` `[R, P]`."""


def gradients_of(
    population: Population, objective: Callable[..., Tensor], functional: bool = False, accumulate: int = 1
) -> Gradients:
    """The gradients of `objective(model, batch)`, written for one replica.

    `functional` takes `vmap(grad)`, which `torch.compile` can see through, in place of a mapped forward and one
    backward pass, which are faster eager. With `accumulate` a batch is read in so many parts, one after the other.
    """
    if accumulate > 1:
        return _summed(gradients_of(population, objective, functional), population, accumulate)
    if isinstance(population, ShardedPopulation):
        return population.gradients(objective)
    layout, call = population.layout, population.caller(objective)

    def of_row(theta: Tensor, state: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        return grad_and_value(lambda weights: call(layout.views(weights), state, batch))(theta)

    def mapped(theta: Tensor, state: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        leaves = {name: view.detach().requires_grad_() for name, view in layout.views(theta).items()}
        with torch.enable_grad():
            if theta.dim() > 1:
                # Flat arguments, because vmap takes long to flatten nested ones.
                names, many = list(leaves | state), len(leaves) + len(state)
                flat = lambda *ts: call(dict(zip(names, ts)), {}, batch._make(ts[many:]))
                losses = vmap(flat, randomness="error")(*leaves.values(), *state.values(), *batch)
            else:
                losses = call(leaves, state, batch)
            grads = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return layout.rows(grads), losses.detach()

    def one_by_one(theta: Tensor, state: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        single = of_row if functional else mapped
        return stack([single(*row((theta, state, batch), r)) for r in range(len(theta))])

    if not population.mappable:
        return one_by_one
    return vmap(of_row, randomness="error") if functional else mapped


def part_of(batch: Any, part: int, parts: int) -> Any:
    """One of so many parts of a batch `[R, B, ...]`; what has no axis of samples is in all of them."""
    whole = {name: field for name, field in batch._asdict().items() if field.dim() < 2 or name == "layer_scale"}
    return batch._make(
        whole[name] if name in whole else field.tensor_split(parts, dim=1)[part]
        for name, field in batch._asdict().items()
    )


def _summed(of_part: Gradients, population: Population, parts: int) -> Gradients:
    """Gradients and losses of whole batches, from those of their parts and what these count."""

    def of_whole(theta: Tensor, state: dict[str, Tensor], batch: Any) -> tuple[Tensor, Tensor]:
        pieces = [part_of(batch, part, parts) for part in range(parts)]
        counts = [parallel.counted(piece).to(theta) for piece in pieces]
        if population.sharded:
            counts = [parallel.total(count).to(theta) for count in counts]
        whole = torch.stack(counts).sum(0).clamp_min(1e-12)
        gradient, losses = torch.zeros_like(theta), theta.new_zeros(len(theta))
        for part, (piece, count) in enumerate(zip(pieces, counts)):
            more, loss = of_part(theta, population.part_state(state, part), piece)
            gradient.addcmul_(more, (count / whole)[:, None])
            losses.addcmul_(loss, count / whole)
        return gradient, losses

    return of_whole


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of floating-point operations, to which the CPU's fused attention is known too."""
    fused = {
        _flash: lambda query, key, value, *rest, out_shape=None, **options: sdpa_flop_count(query, key, value),
        _flash_backward: lambda grad, query, key, value, *rest, out_shape=None, **options: sdpa_backward_flop_count(
            grad, query, key, value
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=fused)


def flops_of_step(
    population: Population, objective: Callable[..., Tensor], batch: Any, step: int = 0, accumulate: int = 1
) -> int:
    """Operations of the gradient of one replica alone, the first, on its row of `batch` `[R, B, ...]`."""
    alone = population.select([0])
    alone.mappable = False
    with flop_counter() as counter, seeded(0, population.device):
        gradients = gradients_of(alone, objective, accumulate=accumulate)
        gradients(alone.theta, alone.step_state(step), row(batch, [0]))
    return counter.get_total_flops()


def fitting(flops: float, device: str) -> int:
    """Replicas in lockstep that fill a kind of device, if a step of one takes so many operations; 0 if one does."""
    return int(LARGE[device] // max(flops, 1))


def plan(population: Population, objective: Callable[..., Tensor], batch: Any) -> int:
    """Decide how `population` is to step, and give the number of replicas to step in lockstep.

    Stacking removes overhead, not arithmetic. So a stack grows until its step fills the device, and replicas are
    stepped one by one when a single one does, or when `vmap` can't trace the model; `population.reason` says which.
    Whether replicas are stacked never depends on their number, so that records don't either.
    """
    if population.sharded:
        return 1
    population.mode(training=True)
    flops = flops_of_step(population, objective, batch)
    many = fitting(flops, population.device.type)
    if many < 1:
        population.mappable = False
        population.reason = f"one by one: {flops / 1e6:,.0f} MFLOP a step fill the device"
        return 1
    two = population.select([0, min(1, len(population) - 1)])
    try:
        gradients_of(two, objective)(two.theta, two.step_state(0), row(batch, [0, min(1, len(batch.inputs) - 1)]))
    except (RuntimeError, NotImplementedError) as error:
        population.mappable = False
        population.reason = f"one by one: vmap can't trace this model ({str(error).strip().splitlines()[0][:150]})"
        return 1
    size = max(many, 2)
    # A last replica by itself would step beside an idle twin.
    while len(population) > size and len(population) % size == 1:
        size += 1
    return size
