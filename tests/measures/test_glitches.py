import pytest
import torch

from mesocosm.measures import attends_to_other_write, attention_at_reads, attention_entropy, wrong_reads
from mesocosm.models import Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop

WRITE = 0
FAMILIAR = FlipFlop(length=16, p_ignore=0.8).sample(7, generator(0))
STRANGE = FlipFlop(length=16, p_ignore=0.1).sample(9, generator(1))
NAMES = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]


def model():
    torch.manual_seed(3)
    return Transformer.for_task(FlipFlop(length=16), d_model=12, n_heads=3, n_layers=2, embedding_std=2.0).eval()


def test_wrong_reads_counts_reads_only():
    logits = torch.nn.functional.one_hot(FAMILIAR.targets, 5).float()
    assert not wrong_reads(logits, FAMILIAR).any()
    assert torch.equal(wrong_reads(-logits, FAMILIAR), FAMILIAR.weights > 0)


def test_attends_to_other_write_equals_looking_by_hand():
    pattern = torch.rand(9, 15, 15, generator=generator(2)).tril()
    expected = torch.zeros(9, 15, dtype=torch.bool)
    for b in range(9):
        string = STRANGE.inputs[b].tolist()
        for t in range(15):
            key = pattern[b, t].tolist().index(pattern[b, t].max())
            writes = [i for i in range(0, t + 1, 2) if string[i] == WRITE and i < t]
            expected[b, t] = key // 2 * 2 in writes[:-1] or (string[t] == WRITE and key == t)
    assert torch.equal(attends_to_other_write(pattern, STRANGE.inputs, STRANGE.last_write), expected)


@torch.no_grad()
def test_attention_at_reads_equals_looking_at_one_string_at_a_time():
    net = model()
    seen = attention_at_reads(net, [FAMILIAR], [STRANGE])

    patterns = torch.cat(list(net(FAMILIAR.inputs, capture=NAMES)[1].values()), dim=1)
    assert seen["attention entropy"] == pytest.approx(attention_entropy(patterns).mean().item(), rel=1e-5)
    mass = torch.zeros(6)
    for b, t in FAMILIAR.weights.nonzero().tolist():
        last = FAMILIAR.last_write[b, t]
        mass += patterns[b, :, t, last - 1] + patterns[b, :, t, last]

    expected = {"wrong": [0, 0], "right": [0, 0]}
    first = None
    for b in range(9):
        string = STRANGE._make(field[b : b + 1] for field in STRANGE)
        wrong = wrong_reads(net(string.inputs), string)
        if not wrong.any():
            continue
        pattern = torch.cat(list(net(string.inputs, capture=NAMES)[1].values()), dim=1)[0]
        other = attends_to_other_write(pattern[mass.argmax()][None], string.inputs, string.last_write)
        for t in string.weights[0].nonzero().flatten().tolist():
            kind = expected["wrong" if wrong[0, t] else "right"]
            kind[0], kind[1] = kind[0] + 1, kind[1] + int(other[0, t])
        if first is None:
            first = int(wrong[0].nonzero()[0]), string.inputs[0], pattern
    assert [seen["wrong reads"], seen["wrong reads at another write"]] == expected["wrong"]
    assert [seen["right reads"], seen["right reads at another write"]] == expected["right"]

    read, tokens, pattern = first
    assert seen["map tokens"].tolist() == [*tokens[: read + 1].tolist(), *[-1] * (14 - read)]
    torch.testing.assert_close(seen["map"].flatten(0, 1), pattern[:, read])


@torch.no_grad()
def test_slices_of_a_batch_count_as_the_whole():
    whole = attention_at_reads(model(), [FAMILIAR], [STRANGE])
    halves = [STRANGE._make(field[rows] for field in STRANGE) for rows in (slice(5), slice(5, None))]
    for name, value in attention_at_reads(model(), [FAMILIAR], halves).items():
        torch.testing.assert_close(value, whole[name])


@torch.no_grad()
def test_without_an_error_there_is_no_map():
    class Perfect(torch.nn.Module):
        hook_names = NAMES

        def forward(self, inputs, capture=()):
            batch = FAMILIAR if torch.equal(inputs, FAMILIAR.inputs) else STRANGE
            logits = torch.nn.functional.one_hot(batch.targets, 5).float()
            return (
                (logits, {name: torch.eye(15).expand(len(inputs), 3, 15, 15) for name in NAMES}) if capture else logits
            )

    seen = attention_at_reads(Perfect(), [FAMILIAR], [STRANGE])
    assert seen["wrong reads"] == 0
    assert (seen["map tokens"] == -1).all()
