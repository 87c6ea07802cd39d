"""What is zero in the file of a backbone is still zero after real training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import Tensor
from torch.nn.utils import prune
from toy import ARCH, build_runner

from mmsw.checkpoint import load_checkpoint_file
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks, masked_layers, report, set_masks

SCOPE = r'pointwise_conv\d\.weight'


def half(weight: Tensor) -> Tensor:
    """Every second filter, and a tenth of the others' weights."""
    keep = torch.rand(weight.shape) < 0.9
    keep[::2] = False
    return keep


@torch.no_grad()
def by_hand(net: ShiftWiseNet) -> dict[str, Tensor]:
    state = net.state_dict()
    for name, layer in masked_layers(net):
        state[f'{name}.weight'] = torch.where(half(layer.weight), layer.weight, 0.0)
    return state


def with_scope(net: ShiftWiseNet) -> dict[str, Tensor]:
    names = attach_masks(net, SCOPE)
    set_masks(net, {name: half(net.get_submodule(name).weight) for name in names})
    return net.state_dict()


def with_torch_prune(net: ShiftWiseNet) -> dict[str, Tensor]:
    for name in ('stages.0.0.shift_wise.paths.0', 'stages.1.0.pointwise_conv1'):
        prune.random_unstructured(net.get_submodule(name), 'weight', amount=0.5)
    return net.state_dict()


class KeepDensity(Hook):
    """Notes how much is kept when training starts."""

    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        self.found = report(runner.model).total


@pytest.mark.parametrize('zeroed', [by_hand, with_scope, with_torch_prune])
def test_zeros_of_the_file_survive(zeroed: Callable, tmp_path: Path) -> None:
    state = zeroed(ShiftWiseNet(ARCH, layer_scale_init_value=1.0))
    torch.save({'meta': {}, 'state_dict': state}, tmp_path / 'start.pth')
    zeros = {
        key.removesuffix('_orig'): (tensor * state.get(key.replace('_orig', '_mask'), 1) == 0)
        for key, tensor in state.items()
        if key.endswith(('.weight', '.weight_orig')) and tensor.ndim > 1
    }
    zeros = {key: pruned for key, pruned in zeros.items() if pruned.any()}
    assert zeros

    density = KeepDensity()
    hooks = [dict(type='SparsityReportHook', require_sparse=True), density]
    build_runner(tmp_path, tmp_path / 'start.pth', max_iters=2, hooks=hooks).train()
    found = density.found
    assert found.weights_total - found.weights_kept == sum(int(p.sum()) for p in zeros.values())
    saved = load_checkpoint_file(tmp_path / 'iter_2.pth')['state_dict']
    for key, pruned in zeros.items():
        assert not saved[f'backbone.{key}'][pruned].any(), key
        assert saved[f'backbone.{key}'][~pruned].all(), key
