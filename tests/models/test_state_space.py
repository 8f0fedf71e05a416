"""The selective state space model against its equations, step by step, and what decoding and training ask of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from mesocosm.models.state_space import SelectiveSSM
from mesocosm.tasks import FlipFlop
from mesocosm.training import AdamW, Population, cross_entropy, train

B, T, V, D, E, N = 3, 11, 5, 8, 16, 3
TASK = FlipFlop(length=12)
decays = pytest.mark.parametrize("decay", ["scalar", "diagonal"])


def make(decay: str, seed: int = 0, **options) -> SelectiveSSM:
    torch.manual_seed(seed)
    return SelectiveSSM(**{"d_vocab": V, "d_model": D, "d_state": N, "d_head": 4, "decay": decay} | options)


def tokens(length: int = T, seed: int = 0) -> Tensor:
    return torch.randint(V, (B, length), generator=torch.Generator().manual_seed(seed))


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def expected_block(block, x: Tensor, decay: str) -> Tensor:
    inner, gate = (rms_norm(x, block.norm.weight) @ block.proj_in.weight.T).split(E, -1)
    past, state, outputs = torch.zeros(len(x), 4, E), torch.zeros(len(x), E, N), []
    for t in range(x.shape[1]):
        past = torch.cat([past[:, 1:], inner[:, t : t + 1]], 1)
        u = F.silu((past * block.conv.weight[:, 0].T).sum(1) + block.conv.bias)
        step, write, read = (u @ block.select.weight.T).split(block.sizes, -1)
        if decay == "diagonal":
            step = step @ block.step.weight.T
        step = (1 + (step + block.step_bias).exp()).log()
        rate = block.log_rate.exp()
        if decay == "scalar":
            step, rate = step.repeat_interleave(4, -1), rate.repeat_interleave(4)[:, None].expand(E, N)
        state = (-step[:, :, None] * rate).exp() * state + (step * u)[:, :, None] * write[:, None, :]
        y = (state * read[:, None, :]).sum(-1) + block.skip * u
        outputs.append((y * F.silu(gate[:, t])) @ block.proj_out.weight.T)
    return x + torch.stack(outputs, 1)


@decays
def test_it_equals_its_equations_step_by_step(decay: str) -> None:
    model = make(decay).requires_grad_(False)
    for parameter in model.parameters():  # away from the start, where some are 0 or 1
        parameter += 0.3 * torch.randn(parameter.shape)
    x = model.embed(tokens())
    for block in model.blocks:
        x = expected_block(block, x, decay)
    expected = rms_norm(x, model.norm.weight) @ model.unembed.weight.T
    torch.testing.assert_close(model(tokens()), expected, rtol=1e-4, atol=1e-4)


@decays
def test_it_starts_with_steps_from_a_thousandth_to_a_tenth_and_decays_as_in_the_papers(decay: str) -> None:
    block = make(decay, d_model=512, d_state=16).blocks[0]
    step = F.softplus(block.step_bias).log()
    assert step.min().exp() >= 0.00099 and step.max().exp() <= 0.101
    assert step.mean().item() == pytest.approx(math.log(0.01), abs=0.3)
    rate = block.log_rate.exp()
    if decay == "diagonal":
        torch.testing.assert_close(rate, torch.arange(1.0, 17).expand(1024, 16))
    else:
        assert rate.shape == (256,) and rate.min() >= 1 and rate.max() <= 16
        assert rate.mean().item() == pytest.approx(8.5, abs=1)
    assert torch.equal(block.skip, torch.ones(1024))


@decays
def test_no_logit_depends_on_a_later_token_and_each_on_the_first(decay: str) -> None:
    model = make(decay, n_layers=1, d_conv=2).double()
    embedded = model.embed(tokens()).detach().requires_grad_()
    model.embed = torch.nn.Identity()
    logits = model(embedded)
    for t in range(T):
        seen = torch.autograd.grad(logits[:, t].sum(), embedded, retain_graph=True)[0].abs().amax((0, 2))
        assert (seen[: t + 1] > 0).all() and (seen[t + 1 :] == 0).all()


@decays
@pytest.mark.parametrize("d_conv", [1, 4])
@pytest.mark.parametrize("cuts", [[1] * T, [3, 1, 7], [T], [2, 9]])
def test_extending_in_pieces_equals_one_pass(decay: str, d_conv: int, cuts: list[int]) -> None:
    model = make(decay, d_conv=d_conv).double()
    cache, pieces = None, []
    for piece in tokens().split(cuts, 1):
        before = cache and [(window.clone(), state.clone()) for window, state in cache]
        logits, after = model.forward_with_cache(piece, cache)
        if cache is not None:
            torch.testing.assert_close(cache, before, rtol=0, atol=0)
        cache = after
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens()), rtol=0, atol=1e-12)
    states = [(B, 4, 4, N)] if decay == "scalar" else [(B, E, N)]
    assert [tuple(x.shape) for pair in cache for x in pair] == 2 * [(B, d_conv - 1, E), *states]


@decays
def test_long_sequences_are_cut_without_a_seam(decay: str) -> None:
    model, long = make(decay).double(), tokens(150)
    _, cache = model.forward_with_cache(long[:, :100])
    logits, _ = model.forward_with_cache(long[:, 100:], cache)
    torch.testing.assert_close(logits, model(long)[:, 100:], rtol=0, atol=1e-12)


@decays
def test_a_mapped_stack_decodes_and_differentiates_as_its_replicas(decay: str) -> None:
    models = [make(decay, seed).double() for seed in range(3)]
    strings = torch.stack([tokens(seed=seed) for seed in range(3)])
    parameters, _ = stack_module_state(models)

    def extend(parameters: dict[str, Tensor], x: Tensor, cache=None):
        method = torch.nn.Module()
        method.model, method.forward = models[0], lambda *arguments: models[0].forward_with_cache(*arguments)
        named = {f"model.{name}": tensor for name, tensor in parameters.items()}
        return functional_call(method, named, (x, cache))

    _, cache = vmap(extend)(parameters, strings[:, :, :6])
    logits, _ = vmap(extend)(parameters, strings[:, :, 6:], cache)
    expected = torch.stack([model(x)[:, 6:] for model, x in zip(models, strings)])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(models[0], parameters, (x,)).sin().sum()

    gradients = vmap(grad(loss), randomness="error")(parameters, strings)
    for model, x in zip(models, strings):
        model(x).sin().sum().backward()
    for name, gradient in gradients.items():
        alone = torch.stack([model.get_parameter(name).grad for model in models])
        torch.testing.assert_close(gradient, alone, rtol=0, atol=1e-10)


@decays
def test_a_mapped_stack_compiles_to_one_graph(decay: str) -> None:
    models = [make(decay, seed, n_layers=1).double() for seed in range(2)]
    parameters, _ = stack_module_state(models)
    forward = vmap(lambda p, x: functional_call(models[0], p, (x,)), in_dims=(0, None))
    compiled = torch.compile(forward, fullgraph=True, dynamic=False, backend="aot_eager")(parameters, tokens())
    expected = forward(parameters, tokens())
    torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(x.sin().sum(), list(parameters.values())) for x in (compiled, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@decays
def test_a_population_is_stacked_and_a_replica_is_the_same_to_the_last_bit_in_any_company(decay: str) -> None:
    def rows(seeds: list[int]) -> dict[int, Tensor]:
        population = Population(lambda: SelectiveSSM.for_task(TASK, d_model=16, d_state=4, decay=decay), seeds)
        train(population, TASK, cross_entropy, AdamW(3e-3, weight_decay=0.1), steps=8, batch_size=8)
        assert population.reason == "stacked"
        return dict(zip(seeds, population.theta))

    reference = rows([0, 1, 2, 3, 4])
    assert not torch.equal(reference[0], reference[1])
    for company in ([3, 4], [3]):
        for seed, row in rows(company).items():
            assert torch.equal(row, reference[seed]), (company, seed)


@decays
def test_it_learns_to_remember(decay: str) -> None:
    """The last bit written in a flip-flop string, after up to five ignored ones."""
    population = Population(lambda: SelectiveSSM.for_task(TASK, d_model=16, d_state=4, decay=decay), [0])
    history = train(population, TASK, cross_entropy, AdamW(2e-2), steps=120, batch_size=32, every=20)
    losses = history.metrics["loss"][:, 0]
    assert losses[-1] < 0.02 < 0.3 < losses[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_head": 3}, "d_head=3 is not legal: it must divide expand \\* d_model = 16"),
        ({"d_conv": 0}, "d_conv=0 is not legal: it must be an integer, at least 1"),
        ({"decay": "vector"}, "decay='vector' is not legal: it must be one of scalar, diagonal"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{"decay": "scalar"} | options)
