"""Convolutional networks for small images."""

from itertools import pairwise
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, image_sizes
from mesocosm.tasks.base import Task

__all__ = ["CNN", "ResNet"]


class _Classifier(nn.Module):
    image_shape: tuple[int, int, int]

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Image shape and classes from a task of images `(H, W)` or `(C, H, W)` with outputs `(K,)`."""
        image_shape, n_classes = image_sizes(task, cls)
        return cls(**{"image_shape": image_shape, "n_classes": n_classes} | sizes)

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.image_shape)  # [B, H, W] or [B, C, H, W] -> [B, C, H, W]

    def _start(self) -> None:
        """He et al. (2015), Delving deep into rectifiers, equation 10."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class CNN(_Classifier):
    """Two 3x3 convolutions, each with ReLU and 2x2 max pooling, and a linear head.

    The second convolution has twice the `channels` of the first. Weights start normal with
    variance 2 / fan-in, biases 0.

    Args:
        image_shape: channels, height and width of an image.

    Raises:
        ValueError: for images smaller than 4x4 or a size below 1.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], n_classes: int, channels: int = 8) -> None:
        super().__init__()
        colours, height, width = self.image_shape = image_shape
        check_at_least(1, colours=colours, n_classes=n_classes, channels=channels)
        check_at_least(4, height=height, width=width)
        self.conv1 = nn.Conv2d(colours, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.head = nn.Linear(2 * channels * (height // 4) * (width // 4), n_classes)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]` of images `[B, H, W]` or `[B, C, H, W]`."""
        x = F.max_pool2d(F.relu(self.conv1(self._images(x))), 2)  # [B, C, H, W] -> [B, channels, H / 2, W / 2]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(x.flatten(1))


class ResNet(_Classifier):
    """ResNet-18 in its form for small images, with group norm: batch statistics do not map over replicas.

    A 3x3 convolution; four stages of two residual blocks with 1, 2, 4 and 8 times `width` channels, of which the last
    three halve the image; the mean over places; a linear head. Groups have 8 channels. Weights start as the CNN's.

    Args:
        image_shape: channels, height and width of an image.
        width: channels of the first stage, 64 in the paper, a multiple of 8.

    Raises:
        ValueError: for an illegal size.

    Source: He et al. (2016), Deep residual learning for image recognition; Wu & He (2018), Group normalization
    """

    def __init__(self, *, image_shape: tuple[int, int, int], n_classes: int, width: int = 64) -> None:
        super().__init__()
        self.image_shape = image_shape
        check_at_least(1, n_classes=n_classes, **dict(zip(("colours", "height", "width of images"), image_shape)))
        check_at_least(8, width=width)
        if width % 8:
            raise ValueError(f"width={width} is not legal: it must be a multiple of 8")
        self.conv = _conv3x3(image_shape[0], width)
        self.norm = _norm(width)
        widths = [width * times for times in (1, 1, 1, 2, 2, 4, 4, 8, 8)]
        self.blocks = nn.Sequential(*(_ResidualBlock(c_in, c_out) for c_in, c_out in pairwise(widths)))
        self.head = nn.Linear(8 * width, n_classes)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]` of images `[B, H, W]` or `[B, C, H, W]`."""
        x = self.blocks(F.relu(self.norm(self.conv(self._images(x)))))
        return self.head(x.mean((-2, -1)))


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; where channels double, the first halves the image."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        stride = c_out // c_in
        self.conv1, self.norm1 = _conv3x3(c_in, c_out, stride), _norm(c_out)
        self.conv2, self.norm2 = _conv3x3(c_out, c_out), _norm(c_out)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), _norm(c_out)) if stride > 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


def _conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 8, channels)
