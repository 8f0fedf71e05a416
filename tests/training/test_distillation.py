"""Soft labels: the loss by its formula, who teaches when, and plain loops with Hugging Face models."""

import pytest
import torch
import torch.nn.functional as F

from mesocosm.models import Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import AdamW, Population, Taught, cross_entropy, distil, from_top, top_of, train
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
