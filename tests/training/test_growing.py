"""Growing: which layer copies which, what is taken over, and schedules of equal compute."""

from functools import partial

import pytest
import torch

from mesocosm.models import MLP, Transformer
from mesocosm.tasks import SparseParity
from mesocosm.training import (
    EMA,
    SGD,
    Growth,
    Online,
    Population,
    add_nothing,
    copy_last,
    copy_middle,
    grow_module,
    hinge,
    layer_sources,
    proportional_cost,
    proportional_stages,
    train,
    without_copies,
)


def letters(order: list[int]) -> str:
    return "".join("ABCDEF"[block] for block in order)


def test_which_block_is_copied() -> None:
    assert [letters(copy_middle(n)) for n in range(1, 6)] == ["AA", "AAB", "ABBC", "ABBCD", "ABCCDE"]
    assert [letters(copy_last(n)) for n in range(1, 6)] == ["AA", "ABB", "ABCC", "ABCDD", "ABCDEE"]
    assert copy_middle(2, depth=2) == [0, 1, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="blocks=0, depth=1 is not legal"):
        copy_last(0)


@pytest.mark.parametrize(("power", "share"), [(1, 0.722), (2, 0.808), (3, 0.860)])
def test_proportional_stages_cost_what_the_paper_says(power: int, share: float) -> None:
    steps, stages = 100_000, 6
    changes = [0, *proportional_stages(steps, stages, power), steps]
    cost = sum((i + 1) * (changes[i + 1] - changes[i]) for i in range(stages)) / (stages * steps)
    assert cost == pytest.approx(share, abs=1e-3)
    assert proportional_cost(stages, power) == pytest.approx(share, abs=5e-4)
    head = 1.5
    cost = sum((i + 1 + head) * (changes[i + 1] - changes[i]) for i in range(stages)) / ((stages + head) * steps)
    assert proportional_cost(stages, power, outside=head) == pytest.approx(cost, abs=1e-4)


def test_small_schedules_cost_what_the_closed_form_says() -> None:
    assert [proportional_cost(4, power) for power in (1, 2)] == pytest.approx([0.75, 100 / 120])
    assert proportional_cost(1) == 1


def model(layers: int, width: int = 8) -> Transformer:
    return Transformer(d_vocab=5, max_length=6, d_model=width, n_heads=2, n_layers=layers)


def test_layers_are_copied_and_the_rest_is_taken_over() -> None:
    small, large = model(2), model(4)
    fresh = {name: p.clone() for name, p in large.named_parameters()}
    grow_module(small, large, layer_sources("blocks.{}.", [0, 0, None, 1]))
    for name, parameter in large.named_parameters():
        if name.startswith("blocks.2."):
            assert torch.equal(parameter, fresh[name])
        else:
            for layer, source in ((1, 0), (3, 1)):
                name = name.replace(f"blocks.{layer}.", f"blocks.{source}.")
            assert torch.equal(parameter, small.get_parameter(name))
    large.blocks[0].mlp.fc_in.weight.data.add_(1)
    assert not torch.equal(large.blocks[0].mlp.fc_in.weight, large.blocks[1].mlp.fc_in.weight), "copied, not shared"


@pytest.mark.parametrize(
    ("rule", "depth", "expected"),
    [
        (copy_middle, 1, [0, 1, None, 2]),
        (copy_last, 1, [0, 1, 2, None]),
        (copy_middle, 2, [0, 1, 2, 3, None, None, 4, 5]),
    ],
)
def test_copies_give_their_places_to_fresh_layers(rule, depth: int, expected: list[int | None]) -> None:
    sources = rule(3, depth)
    assert without_copies(sources) == expected
    assert without_copies(without_copies(sources)) == expected


def test_a_layer_that_adds_nothing_leaves_the_function_and_learns() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(5, (4, 6))
    small, large = model(2), model(3)
    grow_module(small, large, layer_sources("blocks.{}.", [0, None, 1]))
    assert not torch.allclose(large(tokens), small(tokens))
    assert add_nothing(large.blocks[1]) is large.blocks[1]
    assert torch.equal(large(tokens), small(tokens))
    large(tokens).sin().sum().backward()
    assert large.blocks[1].attn.out.weight.grad.abs().sum() > 0
    with pytest.raises(AttributeError, match="elsewhere"):
        add_nothing(large.blocks[1], writes=["elsewhere"])


@pytest.mark.parametrize("carry", [True, False])
def test_the_optimisers_memory_is_carried_or_starts_afresh(carry: bool) -> None:
    task, optimiser = SparseParity(n=6, k=2), SGD(0.1, momentum=0.9)
    make = partial(MLP.for_task, task, hidden=(8,))
    stream = Online(task, 4, [0, 1])
    grown = Population(make, [0, 1])
    grow = [Growth(3, make, lambda name: name, carry=carry)]
    grown = train(grown, stream, hinge, optimiser, steps=7, grow=grow, average=EMA(power=1, floor=0)).population
    plain = Population(make, [0, 1])
    if carry:
        train(plain, stream, hinge, optimiser, steps=7, average=EMA(power=1, floor=0))
        torch.testing.assert_close(grown.average, plain.average)
    else:
        train(plain, stream, hinge, optimiser, steps=3)
        train(plain, lambda step, *where: stream(step + 3, *where), hinge, optimiser, steps=4)
    torch.testing.assert_close(grown.theta, plain.theta)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"embed.weight of shape \(5, 16\) can't take over embed.weight: shape \(5, 8\)"
    ):
        grow_module(model(1), model(1, width=16), lambda name: name)
    with pytest.raises(ValueError, match=r"can't take over blocks.3.*: no such parameter"):
        grow_module(model(1), model(2), layer_sources("blocks.{}.", [0, 3]))


def test_hugging_face_models_grow() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 11}
    make = lambda layers: transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=layers, **sizes))
    small, large = make(2).eval(), make(3).eval()
    growth = Growth(1, lambda: large, layer_sources("model.layers.{}.", copy_middle(2)))
    grow_module(small, large, growth.source)
    tokens = torch.randint(11, (2, 5))
    large.model.layers = torch.nn.ModuleList([large.model.layers[0], large.model.layers[2]])
    torch.testing.assert_close(large(tokens, use_cache=False).logits, small(tokens, use_cache=False).logits)
