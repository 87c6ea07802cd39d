"""Choosing masks on a device that has no float64, as Apple's GPUs have none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmsw.models.layers import MaskedFilters
from mmsw.sparsity import (
    DynamicSettings,
    DynamicSparsity,
    magnitude_masks,
    masked_layers,
    masks,
    set_masks,
)


class OnDevice(Tensor):
    """Stands for a tensor there: so does all that comes of it, until it is brought to the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        if func is Tensor.cpu:
            return out.as_subclass(Tensor)
        if isinstance(out, OnDevice) and out.dtype == torch.float64:
            raise TypeError('the device has no float64')
        return out


def on_device(net: nn.Module) -> nn.Module:
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().as_subclass(OnDevice)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.as_subclass(OnDevice))
    return net


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.ModuleDict({f'layer{number}': MaskedFilters(8, 3) for number in range(2)})
    for layer in net.values():
        nn.init.normal_(layer.weight)
    return net


def test_the_stand_in_refuses_float64_until_it_is_on_the_cpu(net) -> None:
    """The control."""
    weight = on_device(net)['layer0'].weight
    assert type((weight * 2).flatten(1)) is OnDevice
    for ask in (Tensor.double, lambda w: w.to('cpu', torch.float64), lambda w: w.to(torch.float64)):
        with pytest.raises(TypeError, match='no float64'):
            ask(weight.detach())
    assert type(weight.cpu().double()) is Tensor


def test_magnitude_masks(net) -> None:
    expected = magnitude_masks(net, 0.5)
    found = magnitude_masks(on_device(net), 0.5)
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize('granularity', ['filter', 'weight'])
@pytest.mark.parametrize('start', ['snip', 'uniform', 'erk'])
def test_dynamic_sparsity(net, start, granularity) -> None:
    settings = DynamicSettings(
        start=start,
        sparsity=0.5,
        grow='gradient',
        prune='set',
        redistribution='momentum',
        prune_rate=0.5,
        granularity=granularity,
    )
    gradients = {name: torch.randn_like(layer.weight) for name, layer in masked_layers(net)}

    def chosen() -> dict[str, Tensor]:
        dynamic = DynamicSparsity(net, settings)
        there = {
            name: gradient.as_subclass(type(dynamic.layers[name].mask))
            for name, gradient in gradients.items()
        }
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        dynamic.apply(dynamic.start_masks(there)[0], [optimizer])
        dynamic.apply(dynamic.next_masks(1, 10, there, there)[0], [optimizer])
        return masks(net)

    expected = chosen()
    set_masks(net, {name: torch.ones_like(mask) for name, mask in expected.items()})
    torch.manual_seed(0)
    for layer in net.values():
        nn.init.normal_(layer.weight)
    on_device(net)
    found = chosen()
    assert all(torch.equal(found[name], mask) for name, mask in expected.items())
