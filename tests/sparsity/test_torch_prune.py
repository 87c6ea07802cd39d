"""Files of ``torch.nn.utils.prune``: its two factors become a weight and a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from mmsw.sparsity import attach_saved_masks, from_torch_prune, masks
from mmsw.sparsity.torch_prune import without_a_mask


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))


def pruned() -> tuple[nn.Module, dict[str, Tensor]]:
    net = network()
    prune.ln_structured(net[0], 'weight', amount=0.5, n=2, dim=0)
    prune.l1_unstructured(net[2], 'bias', amount=1)
    return net, net.state_dict()


def test_the_factors_become_a_weight_and_a_mask() -> None:
    net, state = pruned()
    before = dict(state)
    new = from_torch_prune(state)
    assert set(new) == {*network().state_dict(), '0.mask'}
    assert torch.equal(new['0.weight'], net[0].weight)
    assert new['0.mask'].dtype == torch.bool
    assert int(new['0.mask'].flatten(1).any(1).sum()) == 4
    assert torch.equal(new['2.bias'], net[2].bias)
    assert list(state) == list(before)
    assert without_a_mask(state) == ['2.bias']


def test_a_fresh_network_takes_them() -> None:
    net, state = pruned()
    other = network()
    new = from_torch_prune(state)
    assert attach_saved_masks(other, new) == ['0']
    other.load_state_dict(new)
    assert torch.equal(masks(other)['0'], net[0].weight_mask.bool())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(other.eval()(x), net.eval()(x))


def test_a_mask_that_is_there_prunes_as_well() -> None:
    state = {
        'a.weight_orig': torch.ones(2, 2),
        'a.weight_mask': torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        'a.mask': torch.tensor([[True, True], [False, True]]),
    }
    for order in (list(state), list(reversed(state))):
        new = from_torch_prune({key: state[key] for key in order})
        assert new['a.mask'].tolist() == [[True, False], [False, True]]


def test_other_files_are_left_as_they_are() -> None:
    spectral = nn.utils.spectral_norm(nn.Linear(3, 3)).state_dict()
    assert 'weight_orig' in spectral
    assert list(from_torch_prune(spectral)) == list(spectral)
