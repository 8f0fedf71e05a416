import pytest
import torch
from torch import nn

from mesocosm.measures import learn_masks
from mesocosm.seeding import generator


class Linear(nn.Module):
    """Logits w.x and 0 of images."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        score = x.flatten(1) @ self.w.flatten()
        return torch.stack((score, torch.zeros_like(score)), dim=1)


def normal(*shape):
    return torch.randn(*shape, generator=generator("masks", *shape), dtype=torch.float64)


def learn(model, inputs, labels, noise, **settings):
    return learn_masks(model, inputs, labels, noise, generator("draws"), **{"steps": 150, "scale": 1} | settings)


def test_masks_of_a_linear_model_show_its_largest_contributions():
    w, gray = normal(6, 6) / 6, torch.zeros(1, 6, 6).double()
    inputs, labels = normal(2, 6, 6), torch.tensor([0, 1])
    contributions = w * inputs * torch.tensor([1, -1])[:, None, None]
    masks = learn(Linear(w), inputs, labels, gray, steps=30, draws=1, l1=0.0, tv=0.0)
    assert torch.equal(masks > 0.5, contributions > 0)
    # -log p + l1 sum(m) falls with m_i exactly where (1 - p) c_i > l1.
    masks = learn(Linear(w), inputs, labels, gray, steps=300, draws=1, l1=0.03, tv=0.0)
    for mask, contribution in zip(masks, contributions):
        p = (mask * contribution).sum().sigmoid()
        assert torch.equal(mask > 0.5, (1 - p) * contribution > 0.03)
        assert 2 < (mask > 0.5).sum() < 18


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4)])
def test_the_first_step_follows_the_loss_written_out(shape):
    model, inputs, noise = Linear(normal(*shape)), normal(1, *shape), normal(5, *shape)
    l1, tv, label = 0.05, 0.3, 1
    drawn = noise[torch.randint(5, (3,), generator=generator("draws"))]

    @torch.no_grad()
    def loss(w):
        mask = 1 / (1 + (-w).exp())
        p = [model((mask * inputs[0] + (1 - mask) * z)[None]).softmax(-1)[0, label] for z in drawn]
        rough = sum((mask[i, j] - mask[i + a, j + b]) ** 2 for i, j, a, b in neighbours(4))
        return float(-(sum(p) / 3).log() + l1 * mask.sum() + tv * rough)

    step = 1e-5
    start = torch.zeros(4, 4, dtype=torch.float64)
    slopes = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            bump = start.clone()
            bump[i, j] = step
            slopes[i, j] = (loss(bump) - loss(-bump)) / (2 * step)
    assert slopes.abs().min() > 1e-4
    found = learn(model, inputs, torch.tensor([label]), noise, steps=1, draws=3, l1=l1, tv=tv, learning_rate=0.1)
    assert torch.equal(found[0] > 0.5, slopes < 0)
    torch.testing.assert_close(found[0], (-0.1 * slopes.sign()).double().sigmoid(), atol=1e-4, rtol=0)


def neighbours(size):
    for i in range(size):
        for j in range(size):
            if i + 1 < size:
                yield i, j, 1, 0
            if j + 1 < size:
                yield i, j, 0, 1


def test_a_mask_does_not_depend_on_its_company():
    model, inputs, labels, noise = Linear(normal(5, 5)), normal(3, 5, 5), torch.tensor([0, 1, 1]), normal(8, 5, 5)
    together = learn(model, inputs, labels, noise, steps=20, scale=2)
    alone = learn(model, inputs[1:2], labels[1:2], noise, steps=20, scale=2)
    torch.testing.assert_close(together[1:2], alone)


def test_penalties_do_what_they_are_for():
    model, inputs, labels, noise = Linear(normal(6, 6)), normal(2, 6, 6), torch.tensor([0, 1]), normal(8, 6, 6)
    plain, sparse, smooth = (
        learn(model, inputs, labels, noise, draws=2, l1=l1, tv=tv) for l1, tv in ((0, 0), (5.0, 0), (0, 5.0))
    )
    assert sparse.max() < 0.05 < plain.mean()
    roughness = [float(m.diff(dim=1).square().sum() + m.diff(dim=2).square().sum()) for m in (plain, smooth)]
    assert roughness[1] < 0.2 * roughness[0]


def test_coarse_masks_are_bilinear_between_their_weights():
    model, inputs, noise = Linear(normal(8, 8)), normal(1, 8, 8), normal(4, 8, 8)
    mask = learn(model, inputs, torch.tensor([0]), noise, steps=10, scale=4)[0]
    # Weights sit at 1.5 and 5.5: constant before and after, a straight line in between.
    torch.testing.assert_close(mask[:2].diff(dim=0), torch.zeros(1, 8).double())
    torch.testing.assert_close(mask[:, 2:6].diff(n=2, dim=1), torch.zeros(8, 2).double())
    assert mask.std() > 0


def test_the_model_stays_as_it_was():
    model = Linear(normal(4, 4))
    before = model.w.detach().clone()
    learn(model, normal(2, 4, 4), torch.tensor([0, 1]), normal(3, 4, 4), steps=3)
    assert model.w.grad is None and torch.equal(model.w, before)


@pytest.mark.parametrize(
    ("inputs", "noise", "scale", "message"),
    [
        (torch.ones(2, 4), torch.ones(2, 4), 1, "must be images"),
        (torch.ones(2, 4, 4), torch.ones(2, 4, 5), 1, "must be images"),
        (torch.ones(2, 4, 4), torch.ones(2, 4, 4), 0, "scale=0"),
    ],
)
def test_illegal_arguments_are_refused(inputs, noise, scale, message):
    with pytest.raises(ValueError, match=message):
        learn(Linear(torch.ones(4, 4)), inputs, torch.tensor([0, 1]), noise, scale=scale)
