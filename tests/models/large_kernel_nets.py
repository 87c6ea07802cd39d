"""Small networks in the manner of those with large kernels, written for the tests."""

import torch
from torch import Tensor, nn


def depthwise(channels: int, *sides: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, sides, groups=channels, **options)


class SlakLike(nn.Module):
    """Two long kernels and a short one side by side, each with its norm."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.tall = depthwise(channels, 51, 5, padding=(25, 2), bias=False)
        self.wide = depthwise(channels, 5, 51, padding=(2, 25), bias=False)
        self.small = depthwise(channels, 5, 5, padding=2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))
        self.head = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branches = self.tall, self.wide, self.small
        outs = (norm(conv(x)) for norm, conv in zip(self.norms, branches, strict=True))
        return self.head(x + sum(outs))


class RepLkLike(nn.Module):
    """A kernel of 31 x 31 with a re-parameterisation of 5 x 5 beside it."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.lkb_origin = nn.Sequential(
            depthwise(channels, 31, 31, padding=15, bias=False), nn.BatchNorm2d(channels)
        )
        self.small_conv = nn.Sequential(
            depthwise(channels, 5, 5, padding=2, bias=False), nn.BatchNorm2d(channels)
        )
        self.strided = depthwise(channels, 13, 13, padding=6, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.strided(torch.relu(self.lkb_origin(x) + self.small_conv(x)))


class UniRepLkLike(nn.Module):
    """A kernel of 13 x 13 with dilated branches that reach as far."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.lk_origin = depthwise(channels, 13, 13, padding=6)
        self.dil_9_1 = depthwise(channels, 9, 9, padding=4, bias=False)
        self.dil_9_2 = depthwise(channels, 9, 9, padding=8, dilation=2, bias=False)
        self.dil_5_2 = depthwise(channels, 5, 5, padding=4, dilation=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.lk_origin(x) + self.dil_9_1(x) + self.dil_9_2(x) + self.dil_5_2(x)


class ConvNextLike(nn.Module):
    """A kernel of 7 x 7 and two pointwise layers."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.depthwise_conv = depthwise(channels, 7, 7, padding=3)
        self.wider = nn.Linear(channels, 2 * channels)
        self.narrower = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        hidden = self.wider(self.depthwise_conv(x).permute(0, 2, 3, 1))
        return x + self.narrower(nn.functional.gelu(hidden)).permute(0, 3, 1, 2)
