import torch
from torch import nn

from mesocosm.measures import penultimate_features
from mesocosm.models import CNN

INPUTS = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_features_and_outputs_are_those_of_the_forward_pass():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(5, 3))
    features, outputs = penultimate_features(model, INPUTS, chunk=3)
    assert torch.allclose(features, body(INPUTS))
    assert torch.allclose(outputs, model(INPUTS))
    assert not outputs.requires_grad
    assert not model[1]._forward_pre_hooks


def test_maps_are_flattened_and_outputs_stand_in_where_nothing_is_linear():
    torch.manual_seed(0)
    model = CNN(image_shape=(1, 8, 8), n_classes=3)
    features, outputs = penultimate_features(model, INPUTS)
    assert torch.allclose(model.head(features), outputs)
    convolution = nn.Conv2d(1, 2, 3)
    features, outputs = penultimate_features(convolution, INPUTS)
    assert torch.equal(features, outputs)
    assert torch.allclose(outputs, convolution(INPUTS))
