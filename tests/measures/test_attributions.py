import pytest
import torch
from torch import nn

from mesocosm.measures import insertion_areas, label_maps
from mesocosm.models import CNN
from mesocosm.seeding import generator

attr = pytest.importorskip("captum.attr")


class Linear(nn.Module):
    """Logits <w_a, x> of images."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return x.flatten(1) @ self.w.flatten(1).T


def normal(*shape):
    return torch.randn(*shape, generator=generator("attributions", *shape))


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_maps_of_a_linear_model_are_known(shape):
    w, inputs = normal(3, *shape), normal(6, *shape)
    model = Linear(w)
    flat = (lambda maps: maps.sum(-3)) if len(shape) == 3 else (lambda maps: maps)
    contributions = flat(w * inputs[:, None])
    expected = {
        attr.Saliency(model): flat(w.abs()).expand(6, -1, -1, -1),
        attr.InputXGradient(model): contributions,
        attr.IntegratedGradients(model): contributions,
    }
    for method, maps in expected.items():
        torch.testing.assert_close(label_maps(method, inputs, 3, batch_size=4), maps)
    window = (*shape[:-2], 1, 1)
    occluded = label_maps(attr.Occlusion(model), inputs, 3, sliding_window_shapes=window)
    channels = shape[0] if len(shape) == 3 else 1  # captum writes the change down for each of them.
    torch.testing.assert_close(occluded, channels * contributions, atol=1e-5, rtol=1e-5)
    assert not inputs.requires_grad
    assert model.w.grad is None


def test_a_function_sees_every_image_with_every_label():
    seen = []

    def method(inputs, labels, factor):
        seen.append(len(inputs))
        return factor * (inputs + labels[:, None, None])

    inputs = normal(4, 3, 2)
    maps = label_maps(method, inputs, 5, batch_size=6, factor=2.0)
    torch.testing.assert_close(maps, 2 * (inputs[:, None] + torch.arange(5)[:, None, None]))
    assert seen == [6, 6, 6, 2]


def test_coarse_maps_are_upsampled_and_fit_the_evaluation():
    model = CNN(image_shape=(1, 8, 8), n_classes=3, channels=2).eval()
    inputs = normal(2, 1, 8, 8)
    maps = label_maps(attr.LayerGradCam(model, model.conv2), inputs, 3)
    assert maps.shape == (2, 3, 8, 8)
    # Weights and values before ReLU and pooling, by autograd.
    before = model.conv2(torch.max_pool2d(torch.relu(model.conv1(inputs)), 2)).detach().requires_grad_()
    logits = model.head(torch.max_pool2d(torch.relu(before), 2).flatten(1))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), before)
    cam = (gradient.mean((2, 3), keepdim=True) * before).sum(1, keepdim=True).detach()
    expected = nn.functional.interpolate(cam, (8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps[:, 1], expected)
    areas, probabilities = insertion_areas(model, inputs, maps, steps=4)
    assert areas.shape == probabilities.shape == (2, 3)


@pytest.mark.parametrize(
    ("inputs", "method", "message"),
    [
        (torch.ones(2, 4), lambda x, a: x, "must be images"),
        (torch.ones(2, 4, 4), lambda x, a: x[:1], "must be a map for each"),
        (torch.ones(2, 4, 4), lambda x, a: x.flatten(1), "must be a map for each"),
    ],
)
def test_illegal_arguments_are_refused(inputs, method, message):
    with pytest.raises(ValueError, match=message):
        label_maps(method, inputs, 2)
