"""Choosing filters by magnitude: exact counts, ties, and what is pruned already."""

import pytest
import torch
from torch import nn

from mmsw.models.layers.masked_filters import MaskedFilters
from mmsw.sparsity import keep_largest, magnitude_masks, masks, report, set_masks


def filters(norms: list[float]) -> MaskedFilters:
    """A layer whose filter ``i`` has one weight other than zero, ``norms[i]``."""
    layer = MaskedFilters(len(norms), 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 0, 1, 1] = torch.tensor(norms)
    return layer


def kept(mask: torch.Tensor) -> list[bool]:
    flat = mask.flatten(1)
    assert torch.equal(flat.any(1), flat.all(1)), 'filters must be whole'
    return flat.all(1).tolist()


@pytest.mark.parametrize(
    ('count', 'sparsity', 'pruned'),
    [
        (10, 0.0, 0),
        (10, 0.3, 3),
        (100, 0.29, 29),
        (7, 0.5, 4),
        (3, 0.4, 1),
        (10, 0.99, 9),
        (1, 0.9, 0),
    ],
)
def test_exact_counts(count, sparsity, pruned):
    scores = torch.rand(count)
    keep = keep_largest(scores, sparsity)
    assert int((~keep).sum()) == pruned
    if pruned:
        assert scores[keep].min() > scores[~keep].max()


def test_ties_keep_the_lower_index():
    scores = torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 1.0])
    assert keep_largest(scores, 0.5).tolist() == [True, True, False, False, True, False]
    assert keep_largest(torch.zeros(1000), 0.5).tolist() == [True] * 500 + [False] * 500


@pytest.mark.parametrize('sparsity', [-0.1, 1.0, 1.5, float('nan')])
def test_sparsity_out_of_range(sparsity):
    with pytest.raises(ValueError, match=r'sparsity must be in \[0, 1\), got'):
        keep_largest(torch.ones(3), sparsity)


def test_scores_that_are_none():
    with pytest.raises(ValueError, match='at least one entry'):
        keep_largest(torch.ones(0), 0.5)
    with pytest.raises(ValueError, match='must be finite'):
        keep_largest(torch.tensor([1.0, float('nan')]), 0.5)


def test_smallest_filters_of_every_layer_go():
    net = nn.ModuleDict({'a': filters([3, -1, 2, -4]), 'b': filters([0.1, 0.4, 0.3, 0.2])})
    chosen = magnitude_masks(net, 0.5)
    assert kept(chosen['a']) == [True, False, False, True]
    assert kept(chosen['b']) == [False, True, True, False]
    assert report(net).total.density == 1, 'choosing must change nothing'
    set_masks(net, chosen)
    assert report(net).total.kept == 4
    assert net['a'].weight.detach().flatten(1).norm(dim=1).tolist() == [3, 0, 0, 4]


def test_magnitude_is_the_l2_norm():
    layer = filters([1.5, 0.0])
    with torch.no_grad():
        layer.weight[1, 0] = 0.6  # 9 weights: L2 norm 1.8, largest weight 0.6
    assert kept(magnitude_masks(nn.Sequential(layer), 0.5)['0']) == [False, True]


def test_what_is_pruned_stays_pruned():
    net = nn.Sequential(filters([5, 4, 3, 2, 1, 0]))
    first = torch.tensor([False, True, True, True, True, True]).view(-1, 1, 1, 1)
    set_masks(net, {'0': first})
    assert kept(magnitude_masks(net, 0.5)['0']) == [False, True, True, True, False, False]
    assert torch.equal(magnitude_masks(net, 0.0)['0'], masks(net)['0'])


def test_filters_that_are_pruned_go_before_filters_that_are_zero():
    net = nn.Sequential(filters([1, 0, 0]))
    set_masks(net, {'0': torch.tensor([True, False, True]).view(-1, 1, 1, 1)})
    assert kept(magnitude_masks(net, 1 / 3)['0']) == [True, False, True]


def test_single_pruned_weights_do_not_come_back():
    net = nn.Sequential(filters([2, 1]))
    fine = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    fine[:, 0, 0, 0] = False
    set_masks(net, {'0': fine})
    chosen = magnitude_masks(net, 0.5)['0']
    assert not chosen[1].any()
    assert torch.equal(chosen[0], fine[0])


def test_a_layer_keeps_one_filter():
    net = nn.Sequential(filters([1, 3, 2]))
    assert kept(magnitude_masks(net, 0.999)['0']) == [False, True, False]


def test_broken_weights_are_named():
    net = nn.ModuleDict({'fine': filters([1, 2]), 'broken': filters([1, float('inf')])})
    with pytest.raises(ValueError, match='broken: scores must be finite'):
        magnitude_masks(net, 0.5)
