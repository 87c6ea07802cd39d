"""DynamicSparsity on small networks: starts, exchanges, alignment, scope, state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmsw import sparsity
from mmsw.errors import SparsityError
from mmsw.models import ShiftWiseNet
from mmsw.models.layers import MaskedFilters
from mmsw.sparsity import DynamicSettings, DynamicSparsity


class Paths(nn.Module):
    """One layer of two paths with filters of given norms."""

    def __init__(self, *norms: list[float]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(MaskedFilters(len(row), 3) for row in norms)
        with torch.no_grad():
            for path, row in zip(self.paths, norms, strict=True):
                path.weight.zero_()
                path.weight[:, 0, 1, 1] = torch.tensor(row)


def network(*layers: Paths) -> nn.Module:
    return nn.ModuleDict({f'layer{i}': layer for i, layer in enumerate(layers)})


def dynamic(net: nn.Module, **settings) -> DynamicSparsity:
    return DynamicSparsity(
        net, DynamicSettings(**{'start': 'uniform', 'sparsity': 0.5, **settings})
    )


def started(net: nn.Module, **settings) -> DynamicSparsity:
    made = dynamic(net, **settings)
    made.apply(made.start_masks()[0])
    return made


def filters(mask: Tensor) -> list[int]:
    """Indices of the filters that a mask keeps, all of them whole."""
    flat = mask.flatten(1)
    assert torch.equal(flat.any(1), flat.all(1))
    return flat.all(1).nonzero().flatten().tolist()


def kept(net: nn.Module) -> dict[str, list[int]]:
    return {name: filters(mask) for name, mask in sparsity.masks(net).items()}


def test_a_uniform_start_keeps_the_largest_of_both_paths_together() -> None:
    net = network(Paths([4.0, 1.0, 3.0, 0.1], [0.1, 1.0, 0.2, 9.0]))
    new, least = dynamic(net).start_masks()
    assert least == []
    assert filters(new['layer0.paths.0']) == filters(new['layer0.paths.1']) == [0, 3]
    assert all(mask.all() for mask in sparsity.masks(net).values()), 'nothing is set yet'


def test_erk_start_conserves_the_total() -> None:
    net = network(Paths([1.0] * 8, [1.0] * 8), Paths([1.0] * 4, [1.0] * 4))
    new, _ = dynamic(net, start='erk').start_masks()
    assert sum(len(filters(mask)) for mask in new.values()) == 12


def test_snip_ranks_filters_of_all_layers_by_weight_times_gradient() -> None:
    net = network(Paths([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]), Paths([2.0, 2.0, 2.0], [2.0] * 3))
    gradients = {name: torch.zeros(3, 1, 3, 3) for name in sparsity.masks(net)}

    def set_gradient(name: str, values: list[float]) -> None:
        gradients[name][:, 0, 1, 1] = torch.tensor(values)

    set_gradient('layer0.paths.0', [5.0, -7.0, 1.0])
    set_gradient('layer0.paths.1', [5.0, 0.0, 1.0])  # removed together: 10, 7, 2
    set_gradient('layer1.paths.0', [4.0, 4.0, 3.0])
    set_gradient('layer1.paths.1', [4.0, -4.0, 0.0])  # 16, 0 (they cancel), 6
    gradients['layer1.paths.1'][1, 0, 0, 0] = 100.0  # on a weight of zero: nothing to lose
    new, least = dynamic(net, start='snip').start_masks(gradients)
    assert {name: filters(mask) for name, mask in new.items()} == {
        'layer0.paths.0': [0, 1],
        'layer0.paths.1': [0, 1],
        'layer1.paths.0': [0],
        'layer1.paths.1': [0],
    }
    assert least == []


def test_a_layer_that_snip_would_empty_is_named() -> None:
    net = network(Paths([1.0, 1.0], [1.0, 1.0]), Paths([1.0, 1.0], [1.0, 1.0]))
    gradients = {
        name: torch.full((2, 1, 3, 3), 1.0 if 'layer0' in name else 1e-6)
        for name in sparsity.masks(net)
    }
    new, least = dynamic(net, start='snip').start_masks(gradients)
    assert least == ['layer1']
    assert [len(filters(mask)) for mask in new.values()] == [1, 1, 1, 1]


def test_snip_refuses_a_layer_without_a_gradient() -> None:
    """It would prune it to the bone, in favour of those that took part in the loss."""
    net = network(Paths([1.0, 1.0], [1.0, 1.0]), Paths([1.0, 1.0], [1.0, 1.0]))
    gradients = {name: torch.ones(2, 1, 3, 3) for name in sparsity.masks(net)}
    gradients['layer1.paths.1'].zero_()
    with pytest.raises(SparsityError, match=r'zero in all of 1 of 4 layers \(layer1\.paths\.1\)'):
        dynamic(net, start='snip').start_masks(gradients)
    net['layer1'].paths[1].requires_grad_(False)
    new, _ = dynamic(net, start='snip').start_masks(gradients)
    assert 'layer1.paths.1' not in new


def test_snip_without_gradients_is_an_error() -> None:
    net = network(Paths([1.0], [1.0]))
    with pytest.raises(ValueError, match=r'needs gradients; there are none of layer0'):
        dynamic(net, start='snip').start_masks()


def test_sparsity_close_to_one_leaves_one_filter_per_path() -> None:
    net = network(Paths([1.0, 3.0, 2.0], [1.0, 1.0, 1.0]), Paths([2.0, 1.0], [2.0, 1.0]))
    new, least = dynamic(net, sparsity=0.999).start_masks()
    assert least == ['layer0', 'layer1']
    assert [filters(mask) for mask in new.values()] == [[1], [1], [0], [0]]
    made = started(net, sparsity=0.999, prune_rate=1.0)
    made.apply(made.next_masks(1, 10)[0])
    assert [len(names) for names in kept(net).values()] == [1, 1, 1, 1]


def test_sparsity_zero_stays_dense_and_exchanges_nothing() -> None:
    net = network(Paths([1.0, 2.0], [1.0, 2.0]))
    made = started(net, sparsity=0.0)
    new, _ = made.next_masks(0, 10)
    assert all(mask.all() for mask in new.values())


@pytest.mark.parametrize('granularity', ['filter', 'weight'])
@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('sparsity_', [0.3, 0.5, 0.9])
def test_the_number_that_is_kept_never_changes(granularity, grow, sparsity_) -> None:
    torch.manual_seed(0)
    net = network(
        Paths(torch.rand(37).tolist(), torch.rand(37).tolist()),
        Paths(torch.rand(11).tolist(), torch.rand(11).tolist()),
    )
    for path in net.modules():
        if isinstance(path, MaskedFilters):
            nn.init.normal_(path.weight)
    made = started(net, granularity=granularity, grow=grow, sparsity=sparsity_, align_interval=3)
    number = made.num_kept()
    slots = 48 if granularity == 'filter' else 48 * 9
    assert number == 2 * (slots - round(sparsity_ * slots))
    per_path = {name: int(mask.sum()) for name, mask in sparsity.masks(net).items()}
    changed = False
    for step in range(9):
        gradients = {name: torch.randn(mask.shape) for name, mask in sparsity.masks(net).items()}
        before = sparsity.masks(net)
        made.apply(made.next_masks(step, 9, gradients)[0])
        for path in net.modules():
            if isinstance(path, MaskedFilters):  # training moves what is kept
                path.weight.data += path.mask * torch.randn_like(path.weight)
        after = sparsity.masks(net)
        changed |= any(not torch.equal(before[name], after[name]) for name in after)
        assert {name: int(mask.sum()) for name, mask in after.items()} == per_path
        aligned = torch.equal(after['layer0.paths.0'], after['layer0.paths.1'])
        assert aligned or (step + 1) % 3, 'every third update is shared'
    assert changed
    assert made.num_kept() == number
    assert sparsity.lost_zeros(net.state_dict(), sparsity.masks(net)) == {}


def test_paths_differ_between_alignments() -> None:
    net = network(Paths([1.0] * 40, [1.0] * 40))
    made = started(net, align_interval=None)
    made.apply(made.next_masks(0, 10)[0])
    first, second = sparsity.masks(net).values()
    assert not torch.equal(first, second)


def test_alignment_conserves_a_total_that_the_paths_do_not_divide() -> None:
    net = network(Paths([4.0, 3.0, 2.0, 1.0, 0.5], [4.0, 3.0, 2.0, 1.0, 0.5]))
    whole = (5, 1, 1, 1)
    sparsity.set_masks(
        net,
        {
            'layer0.paths.0': torch.tensor([True, True, True, False, False]).view(whole),
            'layer0.paths.1': torch.tensor([False, False, False, True, True]).view(whole),
        },
    )
    made = started(net, start='from_checkpoint', sparsity=None, align_interval=1, prune_rate=0.5)
    for step in range(4):
        made.apply(made.next_masks(step, 4)[0])
        first, second = (set(row) for row in kept(net).values())
        assert len(first) + len(second) == 5
        assert second < first
        for path in net['layer0'].paths:
            path.weight.data += path.mask * 0.1


def test_growth_by_gradient_takes_the_largest_dense_gradients() -> None:
    net = network(Paths([5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]))
    made = started(net, sparsity=0.4, grow='gradient', prune_rate=0.34, end_rate=0.0)
    gradients = {name: torch.zeros(5, 1, 3, 3) for name in sparsity.masks(net)}
    gradients['layer0.paths.0'][4] = -1.0
    gradients['layer0.paths.1'][3] = 1.0
    made.apply(made.next_masks(0, 10, gradients)[0])
    assert kept(net) == {'layer0.paths.0': [0, 1, 4], 'layer0.paths.1': [0, 1, 3]}
    assert torch.count_nonzero(net['layer0'].paths[0].weight[4]) == 0, 'grown weights start at zero'


@pytest.mark.parametrize('align_interval', [None, 1])
@pytest.mark.parametrize('grow', ['gradient', 'momentum'])
def test_a_layer_without_a_gradient_exchanges_nothing(grow, align_interval) -> None:
    """It would grow the filters of the lowest index."""
    net = network(Paths([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]), Paths([1.0, 2.0], [1.0, 2.0]))
    made = started(net, grow=grow, prune_rate=1.0, align_interval=align_interval)
    gradients = {name: torch.zeros(mask.shape) for name, mask in sparsity.masks(net).items()}
    gradients['layer1.paths.0'] += 1.0
    gradients['layer1.paths.1'] += 1.0
    before = kept(net)
    made.apply(made.next_masks(0, 10, gradients)[0])
    assert {name: rows for name, rows in kept(net).items() if 'layer0' in name} == {
        name: rows for name, rows in before.items() if 'layer0' in name
    }


def test_removed_and_grown_weights_have_no_past_in_the_optimizer() -> None:
    net = network(Paths([5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]))
    made = started(net, grow='gradient', prune_rate=0.5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, amsgrad=True)
    for path in net['layer0'].paths:
        path.weight.grad = torch.ones_like(path.weight)
    optimizer.step()
    path = net['layer0'].paths[0]
    gradients = {name: torch.arange(36.0).view(4, 1, 3, 3) for name in sparsity.masks(net)}
    average = network(Paths([1.0] * 4, [1.0] * 4))
    made.apply(made.next_masks(0, 10, gradients)[0], [optimizer], [average])
    assert filters(path.mask) == [0, 3]
    state = optimizer.state[path.weight]
    for key in ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'):
        assert (state[key][0] != 0).all(), 'what stays keeps its past'
        assert torch.count_nonzero(state[key][1:]) == 0
    assert state['step'] == 1
    assert torch.count_nonzero(path.weight.grad[1:]) == 0
    assert torch.count_nonzero(path.weight[1:]) == 0
    assert torch.equal(average['layer0'].paths[0].mask, path.mask)
    assert torch.count_nonzero(average['layer0'].paths[0].weight[1:3]) == 0


def test_partly_pruned_filters_keep_what_they_have_until_they_go() -> None:
    net = network(Paths([5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]))
    mask = torch.ones(4, 1, 3, 3, dtype=torch.bool)
    mask[0, 0, 0] = False
    mask[3] = False
    sparsity.set_masks(net, {'layer0.paths.0': mask, 'layer0.paths.1': mask})
    made = started(net, start='from_checkpoint', sparsity=None, prune_rate=0.34)
    assert (made.num_kept(), made.num_partial()) == (6, 2)
    made.apply(made.next_masks(0, 10)[0])
    first = net['layer0'].paths[0].mask
    assert first.flatten(1).sum(1).tolist() == [6, 9, 0, 9]


def test_from_checkpoint_refuses_a_dense_network() -> None:
    made = dynamic(network(Paths([1.0], [1.0])), start='from_checkpoint', sparsity=None)
    with pytest.raises(ValueError, match='nothing is pruned in the network: load a sparse'):
        made.start_masks()


def test_scope_prunes_other_layers_and_leaves_the_small_kernels() -> None:
    net = ShiftWiseNet(dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(9, 7, 7, 5))
    made = started(net, scope=r'pointwise_conv1\.weight$', granularity='weight', sparsity=0.25)
    assert len(made.layers) == 4
    assert all('pointwise_conv1' in name for name in made.layers)
    assert made.num_kept() == made.num_units() - round(0.25 * made.num_units())
    dense = [mask for name, mask in sparsity.masks(net).items() if 'paths' in name]
    assert dense
    assert all(mask.all() for mask in dense)


def test_frozen_stages_keep_their_masks() -> None:
    arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    net = ShiftWiseNet(arch, big_kernels=(9, 7, 7, 5), frozen_stages=2)
    made = started(net)
    assert {name.split('.')[1] for name in made.frozen} == {'0', '1'}
    assert {name.split('.')[1] for name in made.layers} == {'2', '3'}
    assert net.stages[0][0].shift_wise.paths[0].mask.all()
    frozen = ShiftWiseNet(arch, big_kernels=(9, 7, 7, 5), frozen_stages=4)
    with pytest.raises(ValueError, match=r'nothing to prune: all of .* are frozen'):
        dynamic(frozen)


def test_a_network_without_shift_wise_layers_is_refused() -> None:
    with pytest.raises(ValueError, match='nothing to prune: no shift-wise layer'):
        dynamic(nn.Sequential(nn.Linear(2, 2)))


def test_weights_that_are_not_finite_are_refused() -> None:
    net = network(Paths([1.0, float('nan')], [1.0, 1.0]))
    with pytest.raises(ValueError, match='finite'):
        dynamic(net).start_masks()


def test_the_state_brings_back_the_same_choices() -> None:
    def make() -> DynamicSparsity:
        return started(network(Paths([1.0] * 40, [1.0] * 40)), align_interval=2)

    one, other = make(), make()
    one.apply(one.next_masks(0, 10)[0])
    other.apply(sparsity.masks(one.net))
    other.load_state_dict(one.state_dict())
    for step in range(1, 4):
        new, expected = other.next_masks(step, 10)[0], one.next_masks(step, 10)[0]
        assert all(torch.equal(new[name], expected[name]) for name in expected)
        one.apply(expected)
        other.apply(new)


def test_global_random_states_are_left_alone() -> None:
    before = torch.get_rng_state()
    made = started(network(Paths([1.0] * 9, [1.0] * 9)))
    made.apply(made.next_masks(0, 10)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(start='magnitude'), r"start must be one of .*, got 'magnitude'"),
        (dict(grow='rigl'), r"grow must be one of .*, got 'rigl'"),
        (dict(granularity='channels'), r"granularity must be one of .*, got 'channels'"),
        (dict(sparsity=1.0), r'sparsity must be in \[0, 1\), got 1.0'),
        (dict(sparsity=-0.3), r'sparsity must be in \[0, 1\), got -0.3'),
        (dict(sparsity=None), r"start='snip' needs sparsity"),
        (dict(start='from_checkpoint'), r'leave sparsity out, got 0.5'),
        (dict(prune_rate=1.2), r'got prune_rate=1.2, end_rate=0.005'),
        (dict(prune_rate=0.001), r'got prune_rate=0.001, end_rate=0.005'),
        (dict(end_rate=-0.1), r'end_rate=-0.1'),
        (dict(align_interval=0), r'align_interval must be at least 1 update, or None, got 0'),
        (dict(seed=-1), r'seed must not be negative, got -1'),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicSettings(**{'sparsity': 0.5, **settings})
