"""LSTM and GRU against their equations, step by step."""

import pytest
import torch
from torch import Tensor

from mesocosm.models.recurrent import GRU, LSTM

B, T, V, D = 3, 7, 5, 8


def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))


def gates(model: LSTM | GRU, x: Tensor, hidden: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    rnn = model.rnn
    from_input = x @ getattr(rnn, f"weight_ih_l{layer}").T + getattr(rnn, f"bias_ih_l{layer}")
    from_hidden = hidden @ getattr(rnn, f"weight_hh_l{layer}").T + getattr(rnn, f"bias_hh_l{layer}")
    return from_input, from_hidden


def test_lstm_equals_its_equations() -> None:
    torch.manual_seed(0)
    model = LSTM(d_vocab=V, d_model=D, n_layers=2, n_outputs=4)
    x = model.embed(tokens())
    for layer in range(2):
        hidden, cell, outputs = torch.zeros(B, D), torch.zeros(B, D), []
        for t in range(T):
            i, f, g, o = sum(gates(model, x[:, t], hidden, layer)).chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        x = torch.stack(outputs, 1)
    torch.testing.assert_close(model(tokens()), model.unembed(x), rtol=1e-5, atol=1e-5)


def test_gru_equals_its_equations() -> None:
    torch.manual_seed(0)
    model = GRU(d_vocab=V, d_model=D)
    x = model.embed(tokens())
    hidden, outputs = torch.zeros(B, D), []
    for t in range(T):
        from_input, from_hidden = (g.chunk(3, -1) for g in gates(model, x[:, t], hidden, 0))
        reset, update = ((i + h).sigmoid() for i, h in zip(from_input[:2], from_hidden[:2]))
        candidate = (from_input[2] + reset * from_hidden[2]).tanh()
        hidden = (1 - update) * candidate + update * hidden
        outputs.append(hidden)
    torch.testing.assert_close(model(tokens()), model.unembed(torch.stack(outputs, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("sizes", [[T], [1] * T, [2, 4, 1]])
def test_extending_in_any_chunks_is_one_forward_pass(kind: type[LSTM | GRU], sizes: list[int]) -> None:
    torch.manual_seed(0)
    model, cache, logits = kind(d_vocab=V, d_model=D, n_layers=2), None, []
    for chunk in tokens().split(sizes, 1):
        more, cache = model.forward_with_cache(chunk, cache)
        logits.append(more)
    torch.testing.assert_close(torch.cat(logits, 1), model(tokens()), rtol=1e-5, atol=1e-5)
