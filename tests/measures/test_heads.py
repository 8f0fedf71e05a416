import pytest
import torch

from mesocosm.measures import attention_by_offset, induction_score, previous_token_score
from mesocosm.seeding import generator


def random_pattern(*shape):
    scores = torch.randn(*shape, generator=generator("pattern"))
    return scores.masked_fill(torch.ones(shape[-2:], dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def test_offsets_equal_a_loop():
    pattern = random_pattern(2, 3, 7, 7)
    found = attention_by_offset(pattern, 7)
    for o in range(7):
        expected = sum(pattern[..., t, t - o] for t in range(o, 7)) / (7 - o)
        torch.testing.assert_close(found[..., o], expected)


def test_previous_token_head_scores_one():
    pattern = torch.eye(6).roll(-1, 1)
    assert previous_token_score(pattern) == 1
    assert previous_token_score(torch.eye(6)) == 0


def test_induction_score_equals_a_loop():
    tokens = torch.randint(3, (4, 8), generator=generator("tokens"))
    pattern = random_pattern(4, 2, 8, 8)
    masses = []
    for row, sequence in enumerate(tokens.tolist()):
        for t in range(8):
            keys = [s for s in range(1, t + 1) if sequence[s - 1] == sequence[t]]
            if keys:
                masses.append(pattern[row, :, t, keys].sum(-1))
    torch.testing.assert_close(induction_score(pattern, tokens), torch.stack(masses).mean(0))


def test_perfect_induction_scores_one():
    tokens = torch.tensor([[0, 1, 2, 0, 1, 2]])
    pattern = torch.zeros(1, 1, 6, 6)
    for query, key in ((3, 1), (4, 2), (5, 3)):
        pattern[0, 0, query, key] = 1
    assert induction_score(pattern, tokens).item() == pytest.approx(1)
