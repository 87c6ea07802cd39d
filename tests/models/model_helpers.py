"""What the tests of networks and layers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.models import ShiftWiseNet

# The architecture of the golden mini networks.
MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
# Long focus lengths cost time and add nothing where only the plumbing is tested.
SHORT_KERNELS = (9, 7, 7, 5)


def mini_net(**kwargs) -> ShiftWiseNet:
    """A small network of either generation; layer scale 1, so that every block matters."""
    return ShiftWiseNet(**{'arch': MINI, 'layer_scale_init_value': 1.0, **kwargs})


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected magnitude."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


@torch.no_grad()
def randomise_batch_norms(module: nn.Module) -> None:
    """Statistics and affine terms as a trained network has them; fresh ones hide mistakes."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
            norm.weight.uniform_(-1.5, 1.5)
            norm.bias.normal_()


@torch.no_grad()
def prune_half(module: nn.Module, seed: int = 0) -> None:
    """Drop about half of the small filters of every path."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if hasattr(layer, 'set_mask'):
            keep = torch.rand(layer.weight.shape[0], 1, 1, 1, generator=generator) < 0.5
            layer.set_mask(keep)


def loss_of(features: tuple[Tensor, ...] | Tensor) -> Tensor:
    features = features if isinstance(features, tuple) else (features,)
    return sum((feature.float() * torch.cos(feature.float())).sum() for feature in features)
