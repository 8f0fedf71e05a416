"""Generation against reading the whole text for each token, and samples against enumerated distributions."""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from mesocosm.models import GRU, LSTM, Transformer, generate
from mesocosm.models.decoding import _sample
from mesocosm.training import Population

B, T, V, N = 4, 5, 7, 12

MODELS = {
    "learned": lambda: Transformer(d_vocab=V, max_length=T + N, d_model=16),
    "relative": lambda: Transformer(d_vocab=V, max_length=T + N, d_model=16, positions="relative", d_mlp=0),
    "rotary": lambda: Transformer(d_vocab=V, max_length=T, d_model=16, positions="rotary", window=6),
    "hard-alibi": lambda: Transformer(d_vocab=V, max_length=T, d_model=16, positions="hard-alibi"),
    "lstm": lambda: LSTM(d_vocab=V, d_model=16, n_layers=2),
    "gru": lambda: GRU(d_vocab=V, d_model=16),
}


class Foreign(nn.Module):
    """A model with `forward` alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def make(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]()


def prompt(*shape: int) -> Tensor:
    return torch.randint(V, shape or (B, T), generator=torch.Generator().manual_seed(0))


def uniforms(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_the_likeliest_token_is_written_again_and_again(name: str) -> None:
    model = make(name)
    text = prompt()
    for _ in range(N):
        text = torch.cat([text, model(text)[:, -1].argmax(-1)[:, None]], 1)
    assert torch.equal(generate(model, prompt(), N), text[:, T:])
    assert torch.equal(generate(Foreign(model), prompt(), N), text[:, T:])


@pytest.mark.parametrize("name", MODELS)
def test_samples_do_not_depend_on_what_the_model_remembers(name: str) -> None:
    model = make(name)
    sampled = generate(model, prompt(), N, 1.5, uniforms(B, N))
    assert torch.equal(sampled, generate(Foreign(model), prompt(), N, 1.5, uniforms(B, N)))
    assert not torch.equal(sampled, generate(model, prompt(), N))
    for n in (1, N - 1):  # the next tokens do not change those before
        assert torch.equal(sampled[:, :n], generate(model, prompt(), n, 1.5, uniforms(B, N)[:, :n]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_texts_are_as_frequent_as_they_are_likely(temperature: float) -> None:
    torch.manual_seed(0)
    model, count = Transformer(d_vocab=3, max_length=5, d_model=8, n_heads=2, n_layers=1), 20_000
    start = torch.tensor([[2, 0]])
    sampled = generate(model, start.expand(count, -1), 3, temperature, uniforms(count, 3))
    texts = torch.tensor(list(itertools.product(range(3), repeat=3)))
    log_p = (model(torch.cat([start.expand(27, -1), texts], 1))[:, 1:-1] / temperature).log_softmax(-1)
    expected = count * log_p.gather(-1, texts[..., None])[..., 0].sum(-1).exp().double()
    observed = torch.bincount(sampled @ torch.tensor([9, 3, 1]), minlength=27)
    expected = expected / expected.sum() * count
    assert stats.chisquare(observed.numpy(), expected.detach().numpy()).pvalue > 1e-3


def test_impossible_tokens_are_never_sampled() -> None:
    below_one = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    logits = torch.tensor([-torch.inf, 0, -torch.inf, 0, -torch.inf]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.499, 0.5, 0.501, below_one])
    assert _sample(logits, uniform).tolist() == [1, 1, 3, 3, 3]
    many = torch.randn(50, 50_000, generator=torch.Generator().manual_seed(0))
    assert _sample(many, below_one.expand(50)).max() < 50_000


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_a_population_writes_what_its_replicas_write(name: str, temperature: float) -> None:
    population = Population(MODELS[name], seeds=[0, 1, 2])
    population.mappable = name not in ("lstm", "gru")
    start, uniform = prompt(), uniforms(3, B, N)
    together = population.map(lambda model, u: generate(model, start, N, temperature, u), uniform)
    alone = [generate(population.replica(r).eval(), start, N, temperature, uniform[r]) for r in range(3)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together[0], together[1])


def test_what_cannot_be_generated_is_refused() -> None:
    model = make("learned")
    with pytest.raises(ValueError, match="length=0 is not legal: it must be an integer, at least 1"):
        generate(model, prompt(), 0)
    with pytest.raises(ValueError, match=r"temperature=-1.0 is not legal: it must be a number, at least 0"):
        generate(model, prompt(), 1, -1.0)
    with pytest.raises(ValueError, match=r"uniform of shape None is not legal: temperature=1.0 needs \[4, 2\]"):
        generate(model, prompt(), 2, 1.0)
    with pytest.raises(ValueError, match=r"uniform of shape \[4, 3\] is not legal"):
        generate(model, prompt(), 2, 1.0, uniforms(B, 3))
    with pytest.raises(ValueError, match=f"{T + N + 1} tokens are more than max_length={T + N}"):
        generate(model, prompt(), N + 2)
