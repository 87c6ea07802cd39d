"""Zeros that the weights of any network have become masks, or it is said why not."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmsw.errors import SparsityError
from mmsw.models import ShiftWiseConv2d
from mmsw.sparsity import (
    attach_masks_of_zeros,
    lost_zeros,
    masked_layers,
    masks,
    masks_copied,
    set_masks,
)
from mmsw.sparsity.foreign_masks import foreign_masks_aside


class Various(nn.Module):
    """Layers of every kind, with zeros in some."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.mixed = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.mixed.weight
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 20)
        self.dense = nn.Linear(20, 20)
        with torch.no_grad():
            self.conv.weight[::2] = 0
            self.mixed.weight[:, :2] = 0
            self.attention.in_proj_weight[:9] = 0
            self.attention.out_proj.weight[:, ::3] = 0
            self.head.weight[3, 3] = 0
            self.norm.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        x = self.tied(self.mixed(x))
        return self.dense(self.head(x + self.attention(x, x, x)[0]))


@pytest.fixture
def net() -> Various:
    return Various()


def steps(net: nn.Module, number: int = 3) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(number):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def test_what_is_found(net) -> None:
    found = attach_masks_of_zeros(net)
    assert {name: pattern.kind for name, pattern in found.kept.items()} == {
        'conv': 'filter',
        'mixed': 'channel',
        'attention.out_proj': 'channel',
    }
    assert (found.scarce, found.dense, found.initial) == ({'head': 1}, ['dense'], [])
    assert list(found.left) == ['attention.in_proj_weight']
    assert found.pruned == 3 * 27 + 12 + 12
    assert found.total == 6 * 27 + 36 + 36
    assert str(found).splitlines() == [
        '3 layers keep 105 of 234 weights (44.87%) at zero; by pattern: channel in 2, filter in 1',
        '1 layers have too few zeros to be meant (1 in all), and are trained: head',
        '1 layers are dense',
    ]


def test_zeros_stay_zero_and_the_rest_is_trained(net) -> None:
    attach_masks_of_zeros(net)
    before, pruned = copy.deepcopy(net.state_dict()), masks(net)
    steps(net)
    assert set(pruned) == {'conv', 'mixed', 'attention.out_proj'}
    assert lost_zeros(net.state_dict(), pruned) == {}
    assert all(
        not torch.equal(net.state_dict()[f'{n}.weight'], before[f'{n}.weight']) for n in pruned
    )
    assert net.tied.weight is net.mixed.weight
    assert torch.count_nonzero(net.attention.in_proj_weight[:9]) > 0


def test_without_masks_they_are_lost(net) -> None:
    """The control."""
    pruned = {name: net.get_submodule(name).weight != 0 for name in ('conv', 'mixed')}
    steps(net)
    assert set(lost_zeros(net.state_dict(), pruned)) == {'conv', 'mixed'}


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=['copy', 'pickle']
)
def test_copies_keep_them_too(net, copied) -> None:
    attach_masks_of_zeros(net)
    other = copied(net).double().float()
    pruned = masks(other)
    steps(other)
    assert len(pruned) == 3
    assert lost_zeros(other.state_dict(), pruned) == {}


def test_calling_it_again_changes_nothing(net) -> None:
    first = attach_masks_of_zeros(net)
    set_masks(net, {'conv': torch.arange(6).view(6, 1, 1, 1) != 1})
    second = attach_masks_of_zeros(net)
    assert first.kept.keys() == second.kept.keys()
    assert int(net.conv.mask.sum()) == 5 * 27, 'a mask that prunes stays as it is'


def test_scope_and_share(net) -> None:
    assert list(attach_masks_of_zeros(net, scope=r'^conv\.').kept) == ['conv']
    assert [name for name, _ in masked_layers(net)] == ['conv']
    found = attach_masks_of_zeros(net, min_share=1 / 120)
    assert 'head' in found.kept
    found = attach_masks_of_zeros(Various(), min_share=0.5)
    assert list(found.kept) == ['conv']
    assert found.scarce == {'mixed': 12, 'attention.out_proj': 12, 'head': 1}


def test_initial_zeros_and_layers_that_need_a_mask(net) -> None:
    found = attach_masks_of_zeros(net, initial={'conv', 'attention.in_proj_weight'})
    assert found.initial == ['conv']
    assert found.left == {}
    found = attach_masks_of_zeros(net, only_masks=True)
    assert set(found.kept) == {'mixed', 'attention.out_proj'}
    assert 'conv.weight' in found.left


def test_layers_that_own_their_mask() -> None:
    layer = ShiftWiseConv2d(8, 8, 5)
    with torch.no_grad():
        layer.paths[0].weight[::2] = 0
    found = attach_masks_of_zeros(layer)
    assert list(found.kept) == ['paths.0']
    assert torch.equal(layer.paths[0].mask, layer.paths[0].weight != 0)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scope='['), r"scope must be a regular expression, got '\['"),
        (
            dict(scope='nowhere'),
            r"scope 'nowhere' matches no weight of .* there are conv\.weight, ",
        ),
        (dict(scope='bias'), r"scope 'bias' matches no weight"),
        (dict(min_share=0), r'min_share must be in \(0, 1\], got 0'),
        (dict(min_share=1.5), r'got 1\.5'),
        (dict(min_share='5%'), r"must be a number in \(0, 1\], got '5%'"),
    ],
)
def test_arguments_that_make_no_sense(net, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        attach_masks_of_zeros(net, **arguments)
    assert not list(masked_layers(net))


@pytest.mark.parametrize('average', [None, get_ema_multi_avg_fn(0.5)], ids=['swa', 'ema'])
def test_averages_of_torch_with_buffers(net, average) -> None:
    attach_masks_of_zeros(net)
    pruned = masks(net)
    averaged = AveragedModel(net, multi_avg_fn=masks_copied(average), use_buffers=True)
    for _ in range(3):
        steps(net, 1)
        averaged.update_parameters(net)
    assert {name: int(mask.sum()) for name, mask in masks(averaged.module).items()} == {
        name: int(mask.sum()) for name, mask in pruned.items()
    }
    assert lost_zeros(averaged.state_dict(), pruned) == {}
    assert not torch.equal(averaged.module.conv.weight, net.conv.weight)
    assert not torch.equal(averaged.module.norm.running_mean, net.norm.running_mean)


def test_without_it_torch_fails(net) -> None:
    """The control; if this fails, torch has learnt it and the function can go."""
    attach_masks_of_zeros(net)
    averaged = AveragedModel(net.conv, use_buffers=True)  # no counter of a batch norm
    averaged.update_parameters(net.conv)
    with pytest.raises(RuntimeError, match=r'bool'):
        averaged.update_parameters(net.conv)


def test_foreign_masks_stand_aside() -> None:
    class Causal(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.register_buffer('mask', torch.full((1, 3), 0.5))

    net = nn.ModuleDict(dict(causal=Causal(), plain=nn.Linear(3, 2), kept=nn.Linear(3, 2)))
    state = dict(net.state_dict())
    state['plain.mask'] = torch.ones(1, 3)
    state['kept.mask'] = torch.ones(2, 1)
    with foreign_masks_aside(state, net) as problems:
        assert [key for key in state if key.endswith('.mask')] == ['kept.mask']
    assert len(problems) == 1
    assert problems[0].startswith('plain.mask is torch.float32 [1, 3]; expected is a mask')
    assert torch.equal(state['causal.mask'], torch.full((1, 3), 0.5))
    assert 'plain.mask' not in state
    attach_masks_of_zeros(net)
    net['plain'].weight.data[0] = 0
    attach_masks_of_zeros(net)
    with foreign_masks_aside({**state, 'plain.mask': torch.ones(1, 3)}, net) as problems:
        assert problems == [], 'the network has a mask there: loading says what is wrong'


def test_a_scope_error_is_one_of_sparsity(net) -> None:
    with pytest.raises(SparsityError):
        attach_masks_of_zeros(net, scope='nowhere')
