"""The model of two branches against its formula, its start, and what a population makes of it."""

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from mesocosm.models import TwoBranches
from mesocosm.tasks import RedundantFeatures, SparseParity

TASK = RedundantFeatures(d=6)


def model(seed: int = 0) -> TwoBranches:
    torch.manual_seed(seed)
    made = TwoBranches.for_task(TASK, reader_std=1.0)
    made.head.data = torch.tensor([0.7, -1.3])
    return made


def test_it_is_its_formula() -> None:
    made, x = model(), torch.randn(5, 2, 6)
    expected = [0.7 * torch.dot(made.easy, row[0]) - 1.3 * torch.dot(made.hard, row[1]) for row in x]
    torch.testing.assert_close(made(x), torch.stack(expected))


def test_readers_carry_the_sign_that_makes_scores_agree_with_them() -> None:
    made, x = model(), torch.randn(5, 2, 6)
    parts = (made.readers * x).sum(-1) * made.head.abs()
    torch.testing.assert_close(parts.sum(1), made(x))


def test_it_starts_as_it_says() -> None:
    torch.manual_seed(0)
    made = TwoBranches(d=4000, reader_std=0.05, head_start=0.3)
    assert made.head.tolist() == pytest.approx([0.3, 0.3])
    for reader in (made.easy, made.hard):
        assert reader.norm().item() == pytest.approx(0.05, rel=0.05)
    assert abs(torch.cosine_similarity(made.easy, made.hard, dim=0)) < 0.1


def test_a_mapped_stack_equals_its_replicas() -> None:
    models, inputs = [model(seed) for seed in range(3)], torch.randn(3, 4, 2, 6)
    parameters, buffers = stack_module_state(models)

    def loss(weights, x):
        return functional_call(models[0], (weights, buffers), x).sin().sum()

    mapped = vmap(grad(loss))(parameters, inputs)
    for r, (alone, x) in enumerate(zip(models, inputs)):
        alone(x).sin().sum().backward()
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(mapped[name][r], parameter.grad)


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"TwoBranches needs inputs \(2, d\), but SparseParity has \(10,\)"):
        TwoBranches.for_task(SparseParity(n=10, k=2))
    with pytest.raises(ValueError, match="d=0 is not legal: it must be an integer, at least 1"):
        TwoBranches(d=0)
