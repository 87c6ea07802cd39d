"""MaskedFilters: what is pruned is zero, gets a zero gradient, and is saved as pruned."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmsw.models.layers import MaskedFilters


@pytest.fixture
def filters() -> MaskedFilters:
    layer = MaskedFilters(6, 3)
    nn.init.normal_(layer.weight)
    return layer


@pytest.fixture
def keep_filters() -> torch.Tensor:
    return torch.tensor([True, False, True, True, False, True]).view(6, 1, 1, 1)


@pytest.fixture
def keep_weights() -> torch.Tensor:
    keep = torch.ones(6, 1, 3, 3, dtype=torch.bool)
    keep[0, 0, 1, 2] = keep[3, 0, 0, 0] = False
    return keep


def test_new_filters_are_dense(filters) -> None:
    assert filters.mask.dtype == torch.bool
    assert filters.mask.all()
    assert torch.equal(filters(), filters.weight)
    assert [name for name, _ in filters.named_parameters()] == ['weight']


def test_whole_filters_or_single_weights_can_be_pruned(filters, keep_filters, keep_weights) -> None:
    before = filters.weight.detach().clone()
    for keep in (keep_weights, keep_filters):
        filters.set_mask(keep)
        assert torch.equal(filters.mask, keep.expand(6, 1, 3, 3))
        assert (filters.weight[~filters.mask] == 0).all()
    both = keep_weights & keep_filters
    assert torch.equal(filters.weight[both], before[both])


def test_set_mask_copies(filters, keep_weights) -> None:
    filters.set_mask(keep_weights)
    keep_weights.fill_(False)
    assert filters.mask.sum() == 6 * 9 - 2


@pytest.mark.parametrize(
    'shape', [(6,), (6, 1), (1, 1, 1, 1), (5, 1, 1, 1), (6, 1, 3, 1), (6, 1, 5, 5)]
)
def test_masks_of_other_shapes_are_refused(filters, shape) -> None:
    with pytest.raises(ValueError, match=r'mask must be \[6, 1, 3, 3\] or \[6, 1, 1, 1\], got'):
        filters.set_mask(torch.ones(shape, dtype=torch.bool))
    assert filters.mask.all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.uint8, torch.int64])
def test_masks_must_be_boolean(filters, dtype) -> None:
    with pytest.raises(TypeError, match=r'mask must be boolean \(True = keep\), got torch'):
        filters.set_mask(torch.ones(6, 1, 1, 1, dtype=dtype))


@pytest.mark.parametrize('poison', [1.0, float('inf'), float('nan')])
def test_gradient_of_pruned_weights_is_exactly_zero(filters, keep_weights, poison) -> None:
    filters.set_mask(keep_weights)
    grad = torch.randn(6, 1, 3, 3)
    grad[~keep_weights] = poison
    filters().backward(grad)
    assert (filters.weight.grad[~keep_weights] == 0).all()
    assert torch.equal(filters.weight.grad[keep_weights], grad[keep_weights])


def test_pruned_weights_take_part_as_zero_whatever_they_hold(filters, keep_weights) -> None:
    filters.set_mask(keep_weights)
    with torch.no_grad():
        filters.weight.fill_(float('inf'))
    assert (filters()[~keep_weights] == 0).all()


@pytest.mark.parametrize('optimizer', ['adamw', 'sgd'])
def test_optimizers_leave_pruned_weights_at_zero(filters, keep_filters, optimizer) -> None:
    filters.set_mask(keep_filters)
    start = filters.weight.detach().clone()
    make = {
        'adamw': lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
        'sgd': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.5, nesterov=True),
    }
    optim = make[optimizer](filters.parameters())
    for _ in range(3):
        optim.zero_grad()
        (filters() * torch.randn(6, 1, 3, 3)).sum().backward()
        optim.step()
    kept = keep_filters.expand(6, 1, 3, 3)
    assert (filters.weight[~kept] == 0).all()
    assert (filters.weight[kept] != start[kept]).all()


def test_zeros_of_a_state_dict_become_the_mask(filters, keep_filters, keep_weights) -> None:
    for keep in (keep_filters.expand(6, 1, 3, 3), keep_weights):
        weight = torch.where(keep, torch.randn(6, 1, 3, 3), 0.0)
        result = filters.load_state_dict({'weight': weight})
        assert not result.missing_keys
        assert torch.equal(filters.mask, keep)
        assert torch.equal(filters.weight, weight)


def test_a_dense_state_dict_makes_the_filters_dense_again(filters, keep_filters) -> None:
    filters.set_mask(keep_filters)
    filters.load_state_dict({'weight': torch.randn(6, 1, 3, 3)})
    assert filters.mask.all()


def test_a_saved_mask_wins_over_zeros(filters, keep_filters) -> None:
    """A kept weight that happens to be zero goes on training."""
    weight = torch.where(keep_filters, torch.randn(6, 1, 3, 3), 0.0)
    weight[0] = 0
    filters.load_state_dict({'weight': weight, 'mask': keep_filters.expand(6, 1, 3, 3)})
    assert torch.equal(filters.mask, keep_filters.expand(6, 1, 3, 3))
    filters().sum().backward()
    assert (filters.weight.grad[0] == 1).all()


def test_a_weight_that_violates_its_mask_is_zeroed_and_says_so(
    filters, keep_filters, caplog
) -> None:
    logger = MMLogger.get_instance('violation')
    logger.addHandler(caplog.handler)
    net = nn.ModuleDict({'path': filters})
    state = {
        'path.weight': torch.ones(6, 1, 3, 3),
        'path.mask': keep_filters.expand(6, 1, 3, 3),
    }
    net.load_state_dict(state)
    assert (filters.weight[~filters.mask] == 0).all()
    assert (filters.weight[filters.mask] == 1).all()
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        'path.weight has 18 non-zero values where its mask prunes; they are set to zero'
    ]
    assert (state['path.weight'] == 1).all(), "the caller's state dict was changed"


@pytest.mark.parametrize('assign', [False, True])
def test_a_mask_without_a_weight_prunes_the_weight_that_is_there(
    filters, keep_weights, assign
) -> None:
    before = filters.weight.detach().clone()
    result = filters.load_state_dict({'mask': keep_weights}, strict=False, assign=assign)
    assert result.missing_keys == ['weight']
    assert torch.equal(filters.mask, keep_weights)
    assert torch.equal(filters.weight, torch.where(keep_weights, before, 0.0))


def test_loading_is_strict(filters) -> None:
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "weight"\. $'):
        filters.load_state_dict({})
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        filters.load_state_dict({'weight': torch.zeros(6, 1, 5, 5)})
    weight = torch.zeros(6, 1, 3, 3)
    with pytest.raises(RuntimeError, match=r'mask is torch\.bool \[6, 1, 2, 2\]; expected is'):
        filters.load_state_dict({'weight': weight, 'mask': torch.ones(6, 1, 2, 2).bool()})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"bias"'):
        filters.load_state_dict({'weight': weight, 'bias': weight})


def test_the_mask_follows_the_filters(filters, keep_filters) -> None:
    filters.set_mask(keep_filters)
    expected = filters.mask.clone()
    copied = copy.deepcopy(filters)
    copied.mask.fill_(False)
    assert torch.equal(filters.mask, expected)
    for moved in (
        copy.deepcopy(filters).half(),
        copy.deepcopy(filters).to(torch.float64),
        copy.deepcopy(filters).to('cpu', torch.bfloat16),
    ):
        assert moved.mask.dtype == torch.bool
        assert torch.equal(moved.mask, expected)
        assert moved().dtype == moved.weight.dtype
    other = MaskedFilters(6, 3)
    other.load_state_dict(filters.state_dict())
    assert torch.equal(other.mask, expected)
    assert torch.equal(other.weight, filters.weight)
