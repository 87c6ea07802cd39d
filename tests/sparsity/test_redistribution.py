"""Rules to prune by, and numbers that move between layers, against their definition."""

from __future__ import annotations

import random
import weakref
from itertools import pairwise

import pytest
import torch
from literal_exchange import literal_apportion, literal_exchange
from test_dynamic import Paths, network
from torch import Tensor, nn

from mmsw import sparsity
from mmsw.errors import SparsityError
from mmsw.models.layers import MaskedFilters
from mmsw.sparsity import DynamicSettings, DynamicSparsity, apportion, drop_and_grow
from mmsw.sparsity.exchange import even_counts
from mmsw.sparsity.units import kept_units

GRANULARITIES = ['filter', 'weight']
REDISTRIBUTIONS = ['momentum', 'magnitude', 'nonzeros']


def random_network(seed: int) -> nn.Module:
    """Layers of one to three paths, of a few filters each, down to a single one."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(9, 9), (1, 1), (6,), (7, 7, 7), (2, 2), (12, 12)]
    net = network(*(Paths(*([1.0] * count for count in counts)) for counts in shapes))
    for path in net.modules():
        if isinstance(path, MaskedFilters):
            path.weight.data = torch.randn(path.weight.shape, generator=generator)
    return net


def set_density(net: nn.Module, granularity: str, seed: int, *densities: float) -> None:
    """Random masks, another density in each layer: 0 empties it, 1 fills it."""
    generator = torch.Generator().manual_seed(seed)
    new = {}
    for name, mask in sparsity.masks(net).items():
        density = densities[int(name[5]) % len(densities)]
        shape = (len(mask), 1, 1, 1) if granularity == 'filter' else mask.shape
        new[name] = torch.rand(shape, generator=generator) < density
    sparsity.set_masks(net, new)


def dynamic(net: nn.Module, **settings) -> DynamicSparsity:
    settings = {'prune_rate': 0.5, 'end_rate': 0.5, 'align_interval': 3, **settings}
    return DynamicSparsity(net, DynamicSettings(start='from_checkpoint', **settings))


def noise(net: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(m.shape, generator=generator) for n, m in sparsity.masks(net).items()}


def train(net: nn.Module, seed: int) -> None:
    """Move what is kept, but for a part of it: grown units may stay at zero."""
    for name, step in noise(net, seed).items():
        layer = net.get_submodule(name)
        layer.weight.data += layer.mask * step * (step[:, :, :1, :1] > -0.5)


def units(made: DynamicSparsity, new: dict[str, Tensor]) -> dict[str, set[int]]:
    return {
        name: set(kept_units(mask, made.settings.granularity).nonzero().flatten().tolist())
        for name, mask in new.items()
    }


def exchange_and_compare(made: DynamicSparsity, updates: int) -> list[dict[str, int]]:
    """Numbers kept by path, before and after each of the updates, which are as defined."""
    counts = [{name: len(kept) for name, kept in units(made, sparsity.masks(made.net)).items()}]
    for step in range(1, updates + 1):
        gradients, momentum = noise(made.net, 2 * step), noise(made.net, 2 * step + 1)
        aligned = step % made.settings.align_interval == 0
        rate = made.settings.prune_rate
        expected = literal_exchange(made, rate, aligned, gradients, momentum)
        new, _ = made.next_masks(step, updates, gradients, momentum)
        assert units(made, new) == expected, f'update {step}'
        made.apply(new)
        train(made.net, step)
        counts.append({name: len(kept) for name, kept in expected.items()})
    return counts


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('redistribution', [None, *REDISTRIBUTIONS])
@pytest.mark.parametrize('prune', ['magnitude', 'set'])
@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
def test_exchanges_are_as_defined_and_conserve_the_number(
    grow, prune, redistribution, granularity
) -> None:
    net = random_network(0)
    set_density(net, granularity, 1, 0.5, 1.0, 0.4, 0.7)
    made = dynamic(
        net, grow=grow, prune=prune, redistribution=redistribution, granularity=granularity
    )
    counts = exchange_and_compare(made, 6)
    assert len({sum(row.values()) for row in counts}) == 1
    for before, after in pairwise(counts):
        assert all(after[name] >= 1 for name, number in before.items() if number), 'none is emptied'
        if redistribution is None:
            layers = [
                {g: sum(row[n] for n in names) for g, names in made.groups.items()}
                for row in (before, after)
            ]
            assert layers[0] == layers[1]
    if redistribution:
        assert any(row != counts[0] for row in counts)


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('redistribution', REDISTRIBUTIONS)
@pytest.mark.parametrize(
    'densities',
    [(0.9, 1.0, 0.95), (0.0, 0.5), (0.1, 0.05), (1.0, 0.0), (1.0, 0.97)],
    ids=['little-room', 'empty', 'few', 'full-and-empty', 'next-to-none'],
)
def test_layers_that_are_full_empty_or_small(densities, redistribution, granularity) -> None:
    for seed in range(3):
        net = random_network(seed)
        set_density(net, granularity, seed, *densities)
        made = dynamic(net, redistribution=redistribution, granularity=granularity, prune='set')
        counts = exchange_and_compare(made, 3)
        assert len({sum(row.values()) for row in counts}) == 1
        sizes = {n: len(kept_units(m, granularity)) for n, m in sparsity.masks(net).items()}
        for before, after in pairwise(counts):
            assert all(after[name] <= sizes[name] for name in sizes)
            for names in made.groups.values():  # alignment may empty paths where others were empty
                least = min(1, *(before[name] for name in names))
                assert all(after[name] >= least for name in names)


def test_paths_of_a_layer_keep_equal_numbers() -> None:
    """Those that began with one mask differ by one unit at most, whatever moves between layers."""
    net = random_network(2)
    made = DynamicSparsity(
        net,
        DynamicSettings(
            start='uniform', sparsity=0.5, redistribution='magnitude', align_interval=4
        ),
    )
    made.apply(made.start_masks()[0])
    for step in range(8):
        made.apply(made.next_masks(step, 8)[0])
        train(net, step)
        kept = {name: len(kept) for name, kept in units(made, sparsity.masks(net)).items()}
        for names in made.groups.values():
            assert max(kept[n] for n in names) - min(kept[n] for n in names) <= 1


def test_the_layer_of_larger_weights_grows_more() -> None:
    """Eight of 16 kept each, four dropped: mean magnitudes 3 : 1 share eight as 6 : 2."""
    net = network(Paths([3.0] * 16), Paths([1.0] * 16))
    for path in net.modules():
        if isinstance(path, MaskedFilters):
            path.weight.data[:] = path.weight.data[0, 0, 1, 1]
    set_whole(net, [True] * 8 + [False] * 8)
    made = dynamic(net, redistribution='magnitude', prune_rate=0.5)
    new, _ = made.next_masks(0, 10)
    assert {n: len(k) for n, k in units(made, new).items()} == {
        'layer0.paths.0': 10,
        'layer1.paths.0': 6,
    }


def test_momentum_of_pruned_weights_does_not_count() -> None:
    net = network(Paths([1.0] * 16), Paths([1.0] * 16))
    set_whole(net, [True] * 8 + [False] * 8)
    made = dynamic(net, redistribution='momentum')
    momentum = {name: torch.ones(16, 1, 3, 3) for name in sparsity.masks(net)}
    momentum['layer0.paths.0'][8:] = 100.0
    new, _ = made.next_masks(0, 10, momentum=momentum)
    assert {len(kept) for kept in units(made, new).values()} == {8}


def set_whole(net: nn.Module, kept: list[bool]) -> None:
    mask = torch.tensor(kept).view(-1, 1, 1, 1)
    sparsity.set_masks(net, dict.fromkeys(sparsity.masks(net), mask))


def test_a_layer_without_momentum_exchanges_nothing() -> None:
    net = network(Paths([1.0] * 8), Paths([1.0] * 8), Paths([1.0] * 8))
    set_whole(net, [True] * 4 + [False] * 4)
    made = dynamic(net, redistribution='momentum')
    momentum = {name: torch.randn(8, 1, 3, 3) for name in sparsity.masks(net)}
    momentum['layer1.paths.0'].zero_()
    new, _ = made.next_masks(0, 10, momentum=momentum)
    assert torch.equal(new['layer1.paths.0'], sparsity.masks(net)['layer1.paths.0'])
    assert made.num_kept(new) == 12


def test_what_the_settings_need_must_be_given() -> None:
    net = network(Paths([1.0] * 4))
    set_whole(net, [True, True, False, False])
    with pytest.raises(ValueError, match="redistribution='momentum' needs momentum"):
        dynamic(net, redistribution='momentum').next_masks(0, 10)
    with pytest.raises(ValueError, match="grow='gradient' needs gradients"):
        dynamic(net, grow='gradient').next_masks(0, 10)


def test_shares_that_are_not_finite_name_the_layer() -> None:
    net = network(Paths([1.0] * 4), Paths([1.0] * 4))
    set_whole(net, [True, True, False, False])
    momentum = {name: torch.ones(4, 1, 3, 3) for name in sparsity.masks(net)}
    momentum['layer1.paths.0'][0] = float('nan')
    with pytest.raises(SparsityError, match=r'finite numbers .* those of layer1 are not'):
        dynamic(net, redistribution='momentum').next_masks(0, 10, momentum=momentum)


def test_set_drops_both_signs_in_proportion() -> None:
    """Six positive, three negative, three to go: two and one, whatever their sizes are."""
    values = torch.tensor([9.0, 8, 7, 6, 5, 4, -0.1, -0.2, -0.3, 1.0, -1.0, 1.0])
    kept = torch.tensor([True] * 9 + [False] * 3)
    new = drop_and_grow(kept, values.abs(), torch.zeros(12), 3, 0, positive=values > 0)
    assert (kept & ~new).nonzero().flatten().tolist() == [4, 5, 6]
    by_magnitude = drop_and_grow(kept, values.abs(), torch.zeros(12), 3, 0)
    assert (kept & ~by_magnitude).nonzero().flatten().tolist() == [6, 7, 8]


def test_set_drops_units_of_zero_first() -> None:
    values = torch.tensor([1.0, -0.0, 0.0, -1.0, 2.0, -2.0])
    kept = torch.ones(6, dtype=torch.bool)
    new = drop_and_grow(kept, values.abs(), values, 3, 0, positive=values >= 0)
    assert (~new).nonzero().flatten().tolist() == [0, 1, 2], 'a tie goes to the positive ones'


def test_set_refuses_weights_that_are_not_finite() -> None:
    values = torch.tensor([1.0, float('nan'), -1.0])
    with pytest.raises(SparsityError, match='finite'):
        drop_and_grow(torch.ones(3, dtype=torch.bool), values.abs(), values, 1, 0, values > 0)


def test_the_sign_of_a_filter_is_that_of_its_sum() -> None:
    net = network(Paths([5.0, 4.0, -1.0, -2.0, 3.0, 3.0]))
    path = net['layer0'].paths[0]
    path.weight.data[0] = -1.0
    path.weight.data[0, 0, 1, 1] = 5.0  # the largest weight is positive, the sum is not
    set_whole(net, [True] * 4 + [False] * 2)
    made = dynamic(net, prune='set', prune_rate=0.5)
    new, _ = made.next_masks(0, 10)
    assert units(made, new)['layer0.paths.0'] >= {0, 3}, 'one of one positive, one of three others'


@pytest.mark.parametrize('seed', range(200))
def test_apportioned_parts_are_those_of_the_largest_remainder(seed) -> None:
    draw = random.Random(seed)
    names = [f'layer{index}' for index in range(draw.randint(1, 7))]
    limits = {name: draw.choice([0, 1, 2, draw.randint(0, 40)]) for name in names}
    weights = {name: draw.choice([0.0, 1.0, draw.random(), 1e-300, 1e300]) for name in names}
    total = draw.randint(0, sum(limits.values()))
    parts = apportion(total, weights, limits)
    assert parts == literal_apportion(total, weights, limits)
    assert list(parts) == names
    assert sum(parts.values()) == total
    assert all(0 <= parts[name] <= limits[name] for name in names)


@pytest.mark.parametrize(
    ('total', 'weight', 'message'),
    [
        (7, 1.0, 'cannot split 7 into parts of at most 6'),
        (-1, 1.0, 'cannot split -1'),
        (3, -1.0, 'those of b are not'),
        (3, float('inf'), 'those of b are not'),
        (3, float('nan'), 'those of b are not'),
    ],
)
def test_numbers_that_cannot_be_apportioned(total, weight, message) -> None:
    with pytest.raises(ValueError, match=message):
        apportion(total, {'a': 1.0, 'b': weight}, {'a': 2, 'b': 4})


def test_even_counts_fill_the_lowest_first() -> None:
    draw = random.Random(0)
    for _ in range(300):
        low = [draw.randint(0, 9) for _ in range(draw.randint(1, 4))]
        high = [least + draw.randint(0, 9) for least in low]
        total = draw.randint(sum(low), sum(high))
        expected = list(low)
        while sum(expected) < total:
            fits = [index for index in range(len(low)) if expected[index] < high[index]]
            expected[min(fits, key=lambda index: (expected[index], index))] += 1
        assert even_counts(low, high, total) == expected


def test_layers_are_exchanged_one_at_a_time_where_none_depends_on_the_others(monkeypatch) -> None:
    net = random_network(0)
    set_density(net, 'weight', 1, 0.5)
    made = dynamic(net, granularity='weight')
    alive, most = [], []
    built = made._units

    def watched(name: str):
        found = built(name)
        alive.append(weakref.ref(found.importance))
        most.append(sum(ref() is not None for ref in alive))
        return found

    monkeypatch.setattr(made, '_units', watched)
    made.next_masks(1, 10)
    assert len(most) == len(sparsity.masks(net))
    # the previous layer goes when the next one, of at most three paths, is there
    assert max(most) <= 2 * max(map(len, made.groups.values()))
    assert max(most) < len(most)
