from pathlib import Path

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import ImagePairs, Images

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("split", ["train", "test"])
def test_halves_are_images_of_the_classes_that_labels_name(split):
    task = ImagePairs(easy=(4, 2), hard=(9, 7), split=split)
    images = Images().train() if split == "train" else Images().test()
    batch = task.sample(300, generator(0))
    assert torch.equal(batch.inputs[:, :, :8], images.inputs[batch.rows[:, 0]])
    assert torch.equal(batch.inputs[:, :, 8:], images.inputs[batch.rows[:, 1]])
    assert torch.equal(images.targets[batch.rows[:, 0]], torch.tensor([4, 2])[batch.easy_label])
    assert torch.equal(images.targets[batch.rows[:, 1]], torch.tensor([9, 7])[batch.hard_label])


def test_both_halves_tell_the_label_unless_decorrelated():
    batch = ImagePairs().sample(2000, generator(1))
    assert torch.equal(batch.easy_label, batch.targets)
    assert torch.equal(batch.hard_label, batch.targets)
    assert stats.binomtest(int(batch.targets.sum()), 2000).pvalue > 1e-3

    batch = ImagePairs(decorrelated=True).sample(2000, generator(1))
    assert torch.equal(batch.hard_label, batch.targets)
    assert stats.chisquare((2 * batch.easy_label + batch.hard_label).bincount(minlength=4)).pvalue > 1e-3


def test_the_easy_half_may_come_from_another_source(monkeypatch):
    """Colour images in place of CIFAR-10's, which are not everywhere."""
    colours = Images().train()._replace(inputs=torch.rand(1000, 3, 32, 32))
    train = Images.train
    monkeypatch.setattr(Images, "train", lambda self: colours if self.source == "cifar10" else train(self))
    digits = Images().train().inputs

    task = ImagePairs(source="cifar10", easy_source="digits", easy=(0, 1), hard=(1, 9))
    batch = task.sample(20, generator(0))
    assert batch.inputs.shape == (20, *task.input_shape) == (20, 3, 64, 32)
    assert torch.equal(batch.inputs[:, :, 32:], colours.inputs[batch.rows[:, 1]])
    upper = batch.inputs[:, :, :32]
    assert torch.equal(upper, upper[:, :1].expand(-1, 3, -1, -1))
    shrunk = torch.nn.functional.avg_pool2d(upper[:, :1], 4)
    distances = torch.cdist(shrunk.flatten(1), digits.flatten(1))
    assert torch.equal(distances.argmin(1), batch.rows[:, 0])

    task = ImagePairs(easy_source="cifar10")
    batch = task.sample(20, generator(0))
    assert batch.inputs.shape == (20, *task.input_shape) == (20, 1, 16, 8)
    grey = colours.inputs[batch.rows[:, 0]].mean(1, keepdim=True)
    shrunk = torch.nn.functional.interpolate(grey, size=(8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(batch.inputs[:, :, :8], shrunk)


def test_naming_the_same_source_twice_changes_nothing():
    same = ImagePairs(easy_source="digits", size=4).sample(5, generator(0))
    assert torch.equal(same.inputs, ImagePairs(size=4).sample(5, generator(0)).inputs)


def test_images_of_a_class_are_equally_likely():
    batch = ImagePairs().sample(40_000, generator(2))
    of_three = (Images().train().targets == 3).nonzero()[:, 0]
    counts = batch.rows[batch.hard_label == 0, 1].bincount(minlength=1000)
    assert counts.sum() == counts[of_three].sum()
    assert stats.chisquare(counts[of_three]).pvalue > 1e-3


def test_batch_is_what_the_task_declares():
    task = ImagePairs(size=4)
    batch = task.sample(5, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (5, *task.input_shape) == (5, 1, 8, 4)
    assert task.output_shape == (2,)
    assert torch.equal(batch.inputs, task.sample(5, generator(0)).inputs)


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_pairs_of_clothes():
    task = ImagePairs(source="fashion-mnist", size=14, easy=(1, 9), hard=(4, 6))
    assert task.sample(10, generator(0)).inputs.shape == (10, 1, 28, 14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"easy": (1, 1)}, r"easy=\(1, 1\) is not legal.*two different classes"),
        ({"hard": (1, 2, 3)}, r"hard=\(1, 2, 3\) is not legal.*two different classes"),
        ({"size": 3}, "size=3 is not legal.*divide 8"),
        ({"hard": (1, 10)}, r"hard=\(1, 10\) is not legal"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ImagePairs(**settings)
