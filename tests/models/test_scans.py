"""Both scans against a loop over time that autograd records, in double precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from mesocosm.models.scans import diagonal_scan, scalar_scan

R, B, T, H, P, N = 3, 2, 7, 2, 3, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diagonal(*lead: int) -> list[Tensor]:
    """step, rate, drive, write, read, state; the rates have no batch axis"""
    shapes = (T, P), (P, N), (T, P), (T, N), (T, N), (P, N)
    each = [normal(*(lead[:-1] if i == 1 else lead), *shape, seed=i) for i, shape in enumerate(shapes)]
    return [each[0].exp(), each[1].exp(), *each[2:]]


def scalar(*lead: int, length: int = T) -> list[Tensor]:
    """log_decay, drive, write, read, state"""
    shapes = (H, length), (H, length, P), (1, length, N), (1, length, N), (H, P, N)
    log_decay, *others = (normal(*lead, *shape, seed=i) for i, shape in enumerate(shapes))
    return [-log_decay.exp(), *others]


def diagonal_loop(
    step: Tensor, rate: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs, states = [], []
    for t in range(step.shape[1]):
        state = (-step[:, t, :, None] * rate).exp() * state + drive[:, t, :, None] * write[:, t, None, :]
        outputs.append((state * read[:, t, None, :]).sum(-1))
        states.append(state)
    return torch.stack(outputs, 1), torch.stack(states, 1)


def scalar_loop(log_decay: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(log_decay.shape[-1]):
        state = log_decay[:, :, t, None, None].exp() * state + drive[:, :, t, :, None] * write[:, :, t, None, :]
        outputs.append((state * read[:, :, t, None, :]).sum(-1))
    return torch.stack(outputs, 2), state


def scalar_in_chunks(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    return scalar_scan(*tensors, chunk=3)


def gradients(outputs: tuple[Tensor, Tensor], tensors: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(outputs), tensors)


def loss(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """Weighs every number of the outputs differently."""
    return sum(x.flatten().sin() @ torch.linspace(-0.5, 1.5, x.numel(), dtype=x.dtype) for x in outputs)


SCANS = {
    "diagonal": (diagonal_scan, diagonal_loop, diagonal),
    "scalar": (scalar_scan, scalar_loop, scalar),
    "scalar in chunks": (scalar_in_chunks, scalar_loop, scalar),
}


@pytest.mark.parametrize("name", SCANS)
def test_values_and_gradients_equal_the_loop(name: str) -> None:
    scan, loop, make = SCANS[name]
    tensors = [x.requires_grad_() for x in make(B)]
    actual, expected = scan(*tensors), loop(*tensors)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(actual, tensors), gradients(expected, tensors), rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(scan, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(scan, tensors, fast_mode=True)


def loss_of(scan: Callable) -> Callable[..., Tensor]:
    return lambda *tensors: loss(scan(*tensors))


@pytest.mark.parametrize("name", SCANS)
def test_mapped_values_and_gradients_equal_those_of_each_replica(name: str) -> None:
    scan, _, make = SCANS[name]
    tensors = [x.requires_grad_() for x in make(R, B)]
    alone = [scan(*each) for each in zip(*tensors)]
    expected = torch.autograd.grad(sum(map(loss, alone)), tensors)
    mapped = vmap(loss_of(scan), randomness="error")(*tensors)
    torch.testing.assert_close(mapped, torch.stack([loss(x) for x in alone]), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(mapped.sum(), tensors), expected, rtol=0, atol=1e-10)
    inner = vmap(grad(loss_of(scan), argnums=tuple(range(len(tensors)))))(*tensors)
    torch.testing.assert_close(inner, expected, rtol=0, atol=1e-10)


def test_a_scalar_scan_starts_from_nothing_and_crosses_its_default_chunk() -> None:
    *tensors, state = scalar(B, length=150)
    torch.testing.assert_close(scalar_scan(*tensors), scalar_loop(*tensors, 0 * state), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.0, 1e-12, 100.0, 1e4, 1e30, "mixed"])
def test_extreme_decays_neither_overflow_nor_lose_the_answer(rate: float | str, dtype: torch.dtype) -> None:
    log_decay, *others = scalar(B, length=100)
    log_decay = torch.full_like(log_decay, -rate) if rate != "mixed" else log_decay * 10 ** (7 * normal(B, H, 100))
    tensors = [x.to(dtype).requires_grad_() for x in (log_decay, *others)]
    actual, expected = scalar_scan(*tensors), scalar_loop(*(x.double() for x in tensors))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-2
    for ours, theirs in zip(actual, expected):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * theirs.abs().max().item())
    assert all(g.isfinite().all() for g in gradients(tuple(x.double() for x in actual), tensors))


@pytest.mark.parametrize("rate", [0.0, 1e-12, 100.0, 1e30])
def test_extreme_decays_of_the_diagonal_scan(rate: float) -> None:
    tensors = diagonal(B)
    tensors[1] = torch.full_like(tensors[1], rate)
    tensors = [x.requires_grad_() for x in tensors]
    actual, expected = diagonal_scan(*tensors), diagonal_loop(*tensors)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(actual, tensors), gradients(expected, tensors), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCANS)
def test_a_mapped_scan_compiles_to_one_graph(name: str) -> None:
    scan, _, make = SCANS[name]
    tensors = [x.requires_grad_() for x in make(R, B)]
    mapped = vmap(loss_of(scan), randomness="error")
    compiled = torch.compile(mapped, fullgraph=True, dynamic=False, backend="aot_eager")(*tensors)
    expected = mapped(*tensors)
    torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(x.sum(), tensors) for x in (compiled, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
