"""The plain ConvNeXt: its initial values follow its settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmsw.demo  # noqa: F401, registers DemoNarrowInit
from mmsw.benchmarks.model.convnext import ConvNeXt

DIMS = (16, 24, 32, 64)


def deviations(net: nn.Module, kind: type[nn.Module]) -> list[float]:
    """Of the weights of each layer, times the root of what it adds up, as He's are 2 ** 0.5."""
    weights = [module.weight for module in net.modules() if isinstance(module, kind)]
    return [weight.std().item() * weight[0].numel() ** 0.5 for weight in weights]


@pytest.mark.parametrize('scale', [None, 0.0, 0.5])
def test_layer_scale(scale: float | None) -> None:
    settings = {} if scale is None else {'layer_scale_init_value': scale}
    expected = 1e-6 if scale is None else scale
    net = ConvNeXt((1, 1, 1, 2), DIMS, **settings).eval()
    net.init_weights()
    scales = {name: value for name, value in net.named_parameters() if name.endswith('.scale')}
    assert len(scales) == 5
    for value in scales.values():
        assert value.unique().tolist() == pytest.approx([expected])
    block = net.stages[3][-1]
    x = torch.randn(1, DIMS[3], 3, 5)
    with torch.no_grad():
        block.scale.fill_(1.0)
        whole = block(x) - x
        block.scale.fill_(expected)
        torch.testing.assert_close(block(x), x + whole * expected)


def test_initial_values_are_drawn_and_then_changed_by_init_cfg() -> None:
    plain = ConvNeXt((1, 1, 1, 1), DIMS)
    narrow = ConvNeXt((1, 1, 1, 1), DIMS, init_cfg=dict(type='DemoNarrowInit'))
    filled = ConvNeXt((1, 1, 1, 1), DIMS, init_cfg=dict(type='Constant', layer='Linear', val=0.25))
    for net in (plain, narrow, filled):
        net.init_weights()
    for net in (plain, narrow, filled):
        drawn = [module.weight for module in net.modules() if isinstance(module, nn.Conv2d)]
        deviation = torch.cat([weight.flatten() for weight in drawn]).std()
        assert deviation.item() == pytest.approx(0.02, rel=0.1)
    assert deviations(narrow, nn.Linear) == pytest.approx([2**0.5] * 8, rel=0.1)
    assert max(deviations(plain, nn.Linear)) < 0.5
    linear = [module.weight for module in filled.modules() if isinstance(module, nn.Linear)]
    assert {value for weight in linear for value in weight.unique().tolist()} == {0.25}


def test_maps_of_an_odd_image() -> None:
    net = ConvNeXt((1, 1, 1, 1), DIMS)
    sizes = [tuple(out.shape) for out in net(torch.randn(2, 3, 70, 45))]
    assert sizes == [(2, 16, 17, 11), (2, 24, 8, 5), (2, 32, 4, 2), (2, 64, 2, 1)]
