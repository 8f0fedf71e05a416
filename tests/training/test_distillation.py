"""Soft labels: the loss by its formula, who teaches when, and plain loops with Hugging Face models."""

import pytest
import torch
import torch.nn.functional as F

from mesocosm.models import Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import AdamW, Population, Taught, cross_entropy, distil, from_top, top_of, train, two_stages
from mesocosm.training.streams import Online

TASK = FlipFlop(length=10)
CPU = torch.device("cpu")


def transformer() -> Transformer:
    return Transformer.for_task(TASK, d_model=8, n_heads=2, n_layers=1)


def only(batch, r: int):
    return batch._make(field[r] for field in batch)


def test_the_loss_is_a_mixture_of_labels_and_divergence() -> None:
    torch.manual_seed(0)
    teacher, student = transformer(), transformer()
    batch = only(Taught(Online(TASK, 4, [0]), [teacher], temperature=2.0, weight=0.3)(0, [0], CPU), 0)
    p, q = student(batch.inputs), (teacher(batch.inputs) / 2).softmax(-1)
    entropy = -(q * q.log()).sum(-1)
    soft = F.kl_div(p.log_softmax(-1), q, reduction="none").sum(-1) + entropy
    hard = F.cross_entropy(p.mT, batch.targets, reduction="none")
    expected = ((0.7 * hard + 0.3 * soft) * batch.weights).sum() / batch.weights.sum()
    torch.testing.assert_close(distil(student, batch), expected)


def test_labels_alone_are_plain_training() -> None:
    plain, taught = Population(transformer, range(2)), Population(transformer, range(2))
    train(plain, TASK, cross_entropy, AdamW(1e-2), steps=5, batch_size=4)
    train(taught, Taught(Online(TASK, 4, range(2)), [transformer()], weight=0.0), distil, AdamW(1e-2), steps=5)
    torch.testing.assert_close(plain.theta, taught.theta, atol=1e-6, rtol=1e-5)


def test_each_replica_has_its_own_teacher_and_the_schedule_says_which_checkpoint() -> None:
    early, late = Population(transformer, [10, 11, 12]), Population(transformer, [20, 21, 22])
    weight = lambda step: 0.5 if step < 6 else 0.0
    stream = Taught(Online(TASK, 4, range(3)), [early, late], schedule=lambda step: step // 3, weight=weight)
    for step, teachers in ((0, early), (2, early), (3, late)):
        batch = stream(step, [2, 0], CPU)
        for place, r in enumerate([2, 0]):
            expected = teachers.replica(r)(batch.inputs[place]).softmax(-1)
            torch.testing.assert_close(batch.soft[place], expected.detach())
    assert stream(6, [0], CPU).soft_weight.tolist() == [0.0]


def test_temperature_zero_is_the_teachers_first_choice() -> None:
    teacher = transformer()
    batch = Taught(Online(TASK, 4, [0]), [teacher], temperature=0.0)(0, [0], CPU)
    assert torch.equal(batch.soft.argmax(-1), teacher(batch.inputs[0]).argmax(-1)[None])
    assert batch.soft.sum(-1).eq(1).all()


def test_the_top_of_a_law_keeps_what_it_says_and_spreads_the_rest() -> None:
    law = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.7, 0.1, 0.1, 0.1]])
    assert torch.allclose(from_top(top_of(law, 2), 4), torch.tensor([[0.125, 0.5, 0.125, 0.25], [0.7, 0.1, 0.1, 0.1]]))
    law = torch.randn(3, 5, 7).softmax(-1)
    torch.testing.assert_close(from_top(top_of(law, 7), 7), law)
    for k in range(1, 7):
        again = from_top(top_of(law, k), 7)
        torch.testing.assert_close(again.sum(-1), torch.ones(3, 5))
        assert torch.equal(again.topk(k).values, law.topk(k).values)
    with pytest.raises(ValueError, match="k=8 is not legal: it must be from 1 to the number of classes, 7"):
        top_of(law, 8)


def test_two_stages_switch_or_fade() -> None:
    at_once, slowly = two_stages(0.6, 3), two_stages(0.6, 3, over=3)
    assert [at_once(step) for step in range(6)] == [0.6, 0.6, 0.6, 0.0, 0.0, 0.0]
    assert [slowly(step) for step in range(8)] == pytest.approx([0.6, 0.6, 0.6, 0.45, 0.3, 0.15, 0.0, 0.0])
    by_ratio = [two_stages(0.6, 3, over=3, ratio=True)(step) for step in range(8)]
    odds = [weight / (1 - weight) for weight in by_ratio]
    assert odds == pytest.approx([1.5, 1.5, 1.5, 1.125, 0.75, 0.375, 0.0, 0.0])
    assert two_stages(1.0, 2)(1) == 1.0
    with pytest.raises(ValueError, match=r"weight=1.5 is not legal: it must be from 0 to 1"):
        two_stages(1.5, 3)
    with pytest.raises(ValueError, match=r"weight=1 is not legal: .* below 1 for ratio=True"):
        two_stages(1, 3, over=2, ratio=True)


def test_the_second_stage_is_plain_training_without_the_teacher() -> None:
    stream = Taught(Online(TASK, 4, [0]), [transformer()], weight=two_stages(0.5, 2))
    assert [stream(step, [0], CPU).soft_weight.item() for step in range(4)] == [0.5, 0.5, 0.0, 0.0]
    batch, student = only(stream(2, [0], CPU), 0), transformer()
    torch.testing.assert_close(distil(student, batch), cross_entropy(student, batch))


def test_bad_arguments_are_named() -> None:
    stream = Online(TASK, 4, [0])
    with pytest.raises(ValueError, match=r"teachers=\[\] is not legal: give at least one"):
        Taught(stream, [])
    with pytest.raises(ValueError, match=r"temperature=-1 is not legal"):
        Taught(stream, [transformer()], temperature=-1)


def test_a_small_gpt2_learns_from_a_large_one_in_a_loop_of_ones_own() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"n_positions": 9, "vocab_size": 5, "n_head": 2}
    make = lambda width: transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=width, n_layer=1, **sizes))
    torch.manual_seed(0)
    teacher, student = make(32).eval(), make(8)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-2)
    stream, losses = Taught(Online(TASK, 8, [0]), [teacher]), []
    for step in range(60):
        loss = distil(student, only(stream(step, [0], CPU), 0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
