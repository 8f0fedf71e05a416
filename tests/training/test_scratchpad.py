import pytest
import torch
from torch import nn

from mesocosm.models import LSTM, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import Automaton
from mesocosm.training import AdamW, Population, ScratchpadTask, cross_entropy, own_states, train

TASK = ScratchpadTask(automaton=Automaton(name="dihedral", n=3, length=12))


class Exact(nn.Module):
    """Reads the next state off the pair, and errs on `wrong`."""

    def __init__(self, task, wrong=-1):
        super().__init__()
        self.next, self.wrong = task.automaton.machine.next, wrong

    def forward(self, tokens):
        symbol, state = tokens // len(self.next), tokens % len(self.next)
        found = torch.where(tokens == self.wrong, 0, self.next[state, symbol])
        return nn.functional.one_hot(found, len(self.next)).float()


def test_inputs_pair_each_symbol_with_the_state_before_it():
    batch = TASK.sample(50, generator(0))
    states = TASK.automaton.n_states
    assert torch.equal(batch.inputs // states, batch.symbols)
    assert torch.equal(batch.inputs[:, 1:] % states, batch.state[:, :-1])
    assert (batch.inputs[:, 0] % states == 0).all()
    assert torch.equal(batch.symbols, TASK.automaton.sample(50, generator(0)).inputs)
    assert batch._fields == tuple(TASK.fields)
    assert len(TASK.tokens) == 2 * 6 and TASK.output_shape == (12, 6)
    assert TASK.tokens[batch.inputs[0, 0]] == f"{TASK.automaton.tokens[batch.symbols[0, 0]]} after 0"


def test_the_first_state_is_the_start():
    task = ScratchpadTask(automaton=Automaton(name="abab", length=5))
    assert (task.sample(20, generator(0)).inputs[:, 0] % 5 == 3).all()


def test_an_exact_step_runs_freely_without_error():
    symbols = TASK.automaton.sample(100, generator(1)).inputs
    assert torch.equal(own_states(Exact(TASK), TASK, symbols), TASK.automaton.states(symbols))


def test_own_states_feeds_back_errors():
    """A wrong step is built upon: it goes on from state 0, as teacher forcing would not."""
    symbols = torch.tensor([[1, 1, 1, 1]])
    wrong = Exact(TASK, wrong=1 * 6 + 1)  # driving from 1 ends in 0
    assert own_states(wrong, TASK, symbols).tolist() == [[1, 0, 1, 0]]


@pytest.mark.parametrize("model", [Transformer, LSTM])
def test_own_states_equal_feeding_back_by_hand(model):
    torch.manual_seed(0)
    network = model.for_task(TASK, d_model=16)
    symbols = TASK.automaton.sample(20, generator(2)).inputs
    state, tokens = torch.zeros(20, dtype=torch.long), torch.zeros(20, 0, dtype=torch.long)
    for t in range(12):
        tokens = torch.cat([tokens, (symbols[:, t] * 6 + state)[:, None]], dim=1)
        state = network(tokens)[:, -1].argmax(-1)
        assert torch.equal(own_states(network, TASK, symbols[:, : t + 1])[:, t], state)


def test_a_network_learns_the_step_and_runs_twice_as_long():
    task = ScratchpadTask(automaton=Automaton(name="parity", length=8))
    population = Population(lambda: Transformer.for_task(task, d_model=16, n_heads=2, positions="none"), range(2))
    train(population, task, cross_entropy, AdamW(0.01), steps=80, batch_size=16)
    symbols = Automaton(name="parity", length=16).sample(200, generator(3)).inputs
    found = population.map(lambda model: own_states(model, task, symbols))
    assert found.shape == (2, 200, 16)
    assert (found == symbols.cumsum(1) % 2).float().mean() > 0.9


@pytest.mark.parametrize("settings", [{"label": "position"}, {"p_label": 0.5}])
def test_labels_must_be_all_states(settings):
    with pytest.raises(ValueError, match=r"automaton=.* is not legal: its labels must be its states, all revealed"):
        ScratchpadTask(automaton=Automaton(name="dihedral", **settings))
