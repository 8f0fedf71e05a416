"""Linear recurrences h_t = a_t h_{t-1} + b_t of selective state space models, without an autograd node per step."""

import math
from typing import Any

import torch
from torch import Tensor

__all__: list[str] = []


def diagonal_scan(
    step: Tensor, rate: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, T, E]` and states `[B, T, E, N]` of E channels whose N numbers each decay at rates of their own.

    The state S_t = exp(-step_t rate) * S_{t-1} + drive_t write_t' gives the output S_t read_t. A loop over time with a
    backward pass of its own, which computes decays again rather than keep them. It has no forward-mode derivative.

    Args:
        step, drive: `[B, T, E]`.
        rate: `[E, N]`.
        write, read: `[B, T, N]`.
        state: S_{-1}, `[B, E, N]`.

    Source: Gu & Dao (2023), Mamba, section 3, arXiv 2312.00752
    """
    loop = _loop if torch.compiler.is_compiling() else _DiagonalScan.apply
    return loop(step, rate, drive, write, read, state)


def _loop(
    step: Tensor, rate: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs, states = [], []
    for dt, x, b, c in zip(*(sequence.unbind(1) for sequence in (step, drive, write, read))):
        state = torch.addcmul(x[..., None] * b[:, None], (dt[..., None] * -rate).exp(), state)
        states.append(state)
        outputs.append((state @ c[..., None]).squeeze(-1))
    return torch.stack(outputs, 1), torch.stack(states, 1)


class _DiagonalScan(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(_loop)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor, d_states: Tensor) -> tuple[Tensor, ...]:
        step, rate, drive, write, read, state, states = ctx.saved_tensors
        d_state, d_rate, d_steps, d_drives, d_writes = torch.zeros_like(state), torch.zeros_like(rate), [], [], []
        past = (state, *states.unbind(1)[:-1])
        sequences = [sequence.unbind(1) for sequence in (step, drive, write, read, d_outputs, d_states)]
        for dt, x, b, c, d_y, d_h, h in reversed(list(zip(*sequences, past))):
            d_h = torch.addcmul(d_h + d_state, d_y[..., None], c[:, None])  # now of all that h_t acts on
            d_drives.append((d_h @ b[..., None]).squeeze(-1))
            d_writes.append((x[:, None] @ d_h).squeeze(1))
            d_state = d_h * (dt[..., None] * -rate).exp()
            d_exponent = -d_state * h
            d_steps.append((d_exponent * rate).sum(-1))
            d_rate = d_rate + (d_exponent * dt[..., None]).sum(0)
        d_step, d_drive, d_write = (torch.stack(ds[::-1], 1) for ds in (d_steps, d_drives, d_writes))
        d_read = (d_outputs[..., None, :] @ states).squeeze(-2)
        return d_step, d_rate, d_drive, d_write, d_read, d_state


def scalar_scan(
    log_decay: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, H, T, P]` and the last state `[B, H, P, N]` of heads that decay by one number a step each.

    The state S_t = exp(log_decay_t) S_{t-1} + drive_t write_t' of a head gives the output S_t read_t. Within a `chunk`
    of time, outputs are `drive` times a `[T, T]` matrix as in attention; the state is carried from chunk to chunk.

    Args:
        log_decay: `[B, H, T]`, at most 0; below -100, where its exponential vanishes in float32, taken as -100.
        drive: `[B, H, T, P]`.
        write, read: `[B, 1, T, N]`, shared by all heads.
        state: S_{-1}, 0 when None.

    Source: Dao & Gu (2024), Transformers are SSMs, section 6, arXiv 2405.21060
    """
    log_decays = log_decay.clamp_min(-100).split(chunk, -1)
    sequences = (sequence.split(chunk, -2) for sequence in (drive, write, read))
    outputs = []
    for a, x, b, c in zip(log_decays, *sequences):
        output, state = _chunk(a, x, b, c, state)
        outputs.append(output)
    assert state is not None
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -2), state


def _chunk(
    log_decay: Tensor, drive: Tensor, write: Tensor, read: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    # Only differences of the cumulative sum are exponentiated, all of them at most 0: none overflows.
    total = log_decay.cumsum(-1)  # [B, H, T]
    future = torch.full(2 * total.shape[-1:], -math.inf, dtype=total.dtype, device=total.device).triu(1)
    kept = (total[..., :, None] + (-total)[..., None, :] + future).exp()  # [B, H, T, T]
    output = (kept * (read @ write.mT)) @ drive
    written = (drive * kept[..., -1, :, None]).mT @ write  # [B, H, P, N]
    if state is not None:
        output = output + total.exp()[..., None] * (read @ state.mT)
        written = written + total[..., -1, None, None].exp() * state
    return output, written
