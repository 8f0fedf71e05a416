import math

import pytest
import torch
import torch.nn.functional as F

from mesocosm.measures import balance_violation
from mesocosm.models import BalancedAttention, BracketAttention
from mesocosm.seeding import generator
from mesocosm.tasks import BoundedDyck, SparseParity
from mesocosm.training import Population

TASK = BoundedDyck(length=64, n_types=3, max_depth=4)
PATTERN = "blocks.0.attn.hook_pattern"


def by_hand(scores, values, tokens):
    """Attention map and attended sum at every position, query by query."""
    length = tokens.shape[1]
    pattern, z = torch.zeros(len(tokens), length, length).to(scores), []
    for row, string in enumerate(tokens.tolist()):
        for t, query in enumerate(string):
            weights = [math.exp(scores[query, token]) for token in string[: t + 1]]
            pattern[row, t, : t + 1] = torch.tensor(weights, dtype=scores.dtype) / sum(weights)
        z.append(pattern[row] @ values[torch.tensor(string)])
    return pattern, torch.stack(z)


def random(balanced=True, seed=0, std=2.0):
    return BalancedAttention.random(
        n_types=3, max_depth=4, std=std, generator=generator("scores", seed), balanced=balanced
    )


@torch.no_grad()
def test_trained_attention_equals_attention_over_positions():
    model, tokens = BracketAttention.for_task(TASK).double(), TASK.sample(3, generator(0)).inputs
    pattern, z = by_hand(model.scores(), model.values(), tokens)
    logits, kept = model(tokens, capture=[PATTERN])
    torch.testing.assert_close(kept[PATTERN][:, 0], pattern)
    normal = z / z.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(logits, model.mlp(normal + model.embed.weight.T[tokens]))
    torch.testing.assert_close(model(tokens), logits)


@torch.no_grad()
def test_built_attention_sums_the_open_brackets():
    model, batch = random(), TASK.sample(3, generator(1))
    pattern, z = by_hand(model.scores(), model.values(), batch.inputs)
    torch.testing.assert_close(model(batch.inputs, capture=[PATTERN])[1][PATTERN][:, 0], pattern)
    expected = z.unflatten(-1, (3, 4)).gather(-1, (batch.depth - 1).clamp(0)[..., None, None].expand(-1, -1, 3, 1))
    expected = expected.squeeze(-1) * batch.weights[..., None]
    torch.testing.assert_close(model(batch.inputs), expected, rtol=0, atol=1e-12)
    left = (expected.abs() > 1e-9) & (batch.weights[..., None] > 0)
    assert torch.equal(left.float(), F.one_hot(batch.targets, 3) * batch.weights[..., None])


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_built_attention_is_exact_for_any_scores_and_wrong_without_its_values(seed):
    batch = TASK.sample(300, generator(2))
    asked = batch.weights > 0
    right = random(seed=seed)(batch.inputs).argmax(-1) == batch.targets
    assert right[asked].all()
    unbalanced = random(balanced=False, seed=seed)(batch.inputs).argmax(-1) == batch.targets
    assert unbalanced[asked].double().mean() < 0.95


def test_built_attention_does_not_violate_balance():
    for balanced in (True, False):
        model = random(balanced)
        violation = balance_violation(model.scores(), model.values(), TASK.pairs)
        assert bool((violation < 1e-12).all()) == balanced


def test_a_population_answers_as_its_replicas_do():
    population = Population(lambda: BracketAttention.for_task(TASK, d_model=8), [0, 1, 2])
    tokens = TASK.sample(5, generator(4)).inputs
    together = population.map(lambda model: model(tokens))
    assert population.mappable
    for r in range(3):
        torch.testing.assert_close(together[r], population.replica(r)(tokens))


def test_a_string_longer_than_the_task_is_read():
    assert BracketAttention.for_task(TASK)(torch.zeros(2, 500, dtype=torch.int64)).shape == (2, 500, 3)


@torch.no_grad()
def test_large_scores_do_not_overflow():
    model = BracketAttention.for_task(TASK, embedding_std=20.0)
    assert model.scores().abs().max() > 500
    assert model(TASK.sample(20, generator(3)).inputs).isfinite().all()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"needs tokens .* but SparseParity"):
        BracketAttention.for_task(SparseParity())
    with pytest.raises(ValueError, match="d_mlp=0 is not legal"):
        BracketAttention.for_task(TASK, d_mlp=0)
    with pytest.raises(ValueError, match="embedding_std=0 is not legal"):
        BracketAttention.for_task(TASK, embedding_std=0)
    with pytest.raises(ValueError, match=r"shapes=\[\[2, 2\], \[2\]\] of scores are not legal"):
        BalancedAttention(torch.zeros(2, 2), torch.zeros(2), n_types=1, max_depth=2)
    with pytest.raises(ValueError, match=r"capture=\['hook_z'\] is not legal"):
        random()(torch.zeros(1, 2, dtype=torch.int64), capture=["hook_z"])
