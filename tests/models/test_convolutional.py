"""The convolutional nets against convolutions written out, known sizes and their start."""

import pytest
import torch
import torch.nn.functional as F

from mesocosm.models.convolutional import CNN, ResNet, _ResidualBlock


def test_cnn_is_its_formula() -> None:
    torch.manual_seed(0)
    model = CNN(image_shape=(2, 8, 9), n_classes=3, channels=4)
    x = torch.randn(5, 2, 8, 9)
    maps = x
    for layer in (model.conv1, model.conv2):
        height, width = maps.shape[-2:]
        patches = F.unfold(maps, 3, padding=1)  # [B, C * 9, H * W]
        maps = (layer.weight.flatten(1) @ patches + layer.bias[:, None]).relu().unflatten(-1, (height, width))
        maps = maps[..., : height // 2 * 2, : width // 2 * 2].unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
        maps = maps.amax((-3, -1))  # [B, C, H / 2, 2, W / 2, 2] -> [B, C, H / 2, W / 2]
    expected = maps.flatten(1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (1, 14, 14), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize(("model", "size"), [(CNN, {"channels": 4}), (ResNet, {"width": 8})])
def test_images_of_the_studies_fit(model: type[CNN | ResNet], size: dict, image_shape: tuple[int, int, int]) -> None:
    net = model(image_shape=image_shape, n_classes=10, **size)
    images = torch.randn(2, *image_shape)
    assert net(images).shape == (2, 10)
    if image_shape[0] == 1:
        assert torch.equal(net(images[:, 0]), net(images))


def test_known_parameter_counts() -> None:
    def count(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    assert count(CNN(image_shape=(1, 14, 14), n_classes=10, channels=8)) == 80 + 1168 + (3 * 3 * 16 + 1) * 10
    # The CIFAR form of ResNet-18 with batch norm, whose affine parameters are as many as group norm's.
    assert count(ResNet(image_shape=(3, 32, 32), n_classes=10)) == 11_173_962


def test_a_resnet_halves_the_image_three_times() -> None:
    net = ResNet(image_shape=(3, 32, 32), n_classes=10, width=8)
    assert net.blocks(torch.randn(1, 8, 32, 32)).shape == (1, 64, 4, 4)


def test_a_residual_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = _ResidualBlock(8, 16)
    x = torch.randn(2, 8, 6, 6)

    def norm(x: torch.Tensor) -> torch.Tensor:
        groups = x.unflatten(1, (-1, 8))  # [B, C, H, W] -> [B, C / 8, 8, H, W]
        mean, var = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, correction=0)
        return ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)

    hidden = norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1)).relu()
    expected = norm(F.conv2d(hidden, block.conv2.weight, padding=1))
    expected = (expected + norm(F.conv2d(x, block.shortcut[0].weight, stride=2))).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_weights_start_as_he_et_al() -> None:
    torch.manual_seed(0)
    net = ResNet(image_shape=(3, 32, 32), n_classes=10, width=32)
    weight = net.blocks[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert net.head.bias.abs().max() == 0
