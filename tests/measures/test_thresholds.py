import pytest
import torch
from torch import nn

from mesocosm.measures import examples_to_threshold, length_generalisation
from mesocosm.seeding import generator
from mesocosm.tasks import StringCopy

STEPS = torch.tensor([0, 10, 20, 40])


def test_the_first_evaluation_at_the_threshold_counts():
    accuracies = torch.tensor([[0.0, 0.95, 0.2], [0.9, 0.1, 0.3], [0.2, 1.0, 0.89], [1.0, 1.0, float("nan")]])
    found = examples_to_threshold(STEPS, accuracies, 0.9, batch_size=8)
    assert found.examples.tolist() == [80, 0, 320]
    assert found.reached.tolist() == [True, True, False]


def test_steps_must_increase():
    with pytest.raises(ValueError, match=r"steps=\[0, 5, 5\] is not legal"):
        examples_to_threshold(torch.tensor([0, 5, 5]), torch.zeros(3, 1), 0.9, batch_size=1)


class Forgetful(nn.Module):
    """Copies by the task's own sources, but takes letter 0 for letter 1 and has nothing after `reach` letters."""

    def __init__(self, batch, reach):
        super().__init__()
        self.batch, self.reach = batch, reach

    def forward(self, inputs):
        source = self.batch.source
        token = inputs.gather(1, source.clamp(min=0))
        offset = source - self.batch.source.amax(1, keepdim=True) + self.batch.length[:, None]
        token = torch.where((token == 1) | (offset > self.reach), 0, token)
        return nn.functional.one_hot(token, 7).float()


@pytest.mark.parametrize(("length", "reach"), [(3, 9), (6, 4)])
def test_strings_and_characters_are_counted_one_by_one(length, reach):
    batch = StringCopy(letters=3, min_length=2, max_length=length).sample(200, generator(1))
    batch = batch._replace(weights=(batch.source >= 0).float())
    found = length_generalisation(Forgetful(batch, reach), [batch, batch])
    right, characters, strings = 0, 0, 0
    for row, count in zip(batch.inputs, batch.length.tolist()):
        string = row[1 : 1 + count].tolist()
        answer = [0 if letter == 1 or place >= reach else letter for place, letter in enumerate(string)]
        right += sum(a == b for a, b in zip(string, answer))
        characters += count
        strings += string == answer
    assert found.shape == (2, 2)
    assert found[:, 0].tolist() == pytest.approx([strings / 200, right / characters])
    assert 0 < found[0, 0] < found[1, 0] < 1
