"""Steps of a stack are PyTorch's, row by row."""

import pytest
import torch

from mesocosm.training import AdamW

RATES = [0.1, 0.01, 0.003, 0.03]


def stepped(rows: list[int], threads: int) -> torch.Tensor:
    """The weights of these rows of four after three steps, of a size that is shared out to threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    draws = torch.randn(4, 4, 40_016, generator=torch.Generator().manual_seed(0))
    theta, optimiser = draws[0, rows], AdamW([RATES[r] for r in rows], weight_decay=0.1)
    state, columns = optimiser.init(theta), optimiser.columns(len(rows), theta.device)
    for t, gradient in enumerate(draws[1:], 1):
        optimiser.update(theta, gradient[rows].contiguous(), state, columns, torch.tensor(t), None)
    torch.set_num_threads(before)
    return theta


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 1], [2]])
def test_a_row_is_the_same_to_the_last_bit_in_any_company_and_on_any_threads(rows: list[int]) -> None:
    reference = stepped([0, 1, 2, 3], threads=1)
    for threads in (1, 2, 3):
        assert torch.equal(stepped(rows, threads), reference[rows])


def test_every_row_steps_as_pytorchs_optimiser_does_at_its_rate() -> None:
    draws = torch.randn(4, 4, 40_016, generator=torch.Generator().manual_seed(0))
    for r, row in enumerate(stepped([0, 1, 2, 3], threads=1)):
        alone = draws[0, r].clone().requires_grad_()
        theirs = torch.optim.AdamW([alone], lr=RATES[r], weight_decay=0.1)
        for gradients in draws[1:]:
            alone.grad = gradients[r]
            theirs.step()
        torch.testing.assert_close(row, alone.detach(), rtol=1e-6, atol=1e-6)
