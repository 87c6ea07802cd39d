"""N of M weights in dynamic sparse training: exchanges stay inside of groups, number by number."""

from __future__ import annotations

import pytest
import torch
from test_dynamic import Paths, network
from torch import Tensor, nn

from mmsw import sparsity
from mmsw.errors import SparsityError
from mmsw.sparsity import DynamicSettings, DynamicSparsity
from mmsw.sparsity.exchange import num_exchanged


def linear_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 5), nn.Conv2d(5, 4, 1), nn.Conv2d(8, 3, (1, 3)))


def dynamic(net: nn.Module, **settings) -> DynamicSparsity:
    settings = {'start': 'uniform', 'granularity': '2:4', 'scope': 'weight', **settings}
    return DynamicSparsity(net, DynamicSettings(**settings))


def groups(values: Tensor, size: int) -> list[list]:
    return values.flatten(1).flatten().reshape(-1, size).tolist()


def literal_exchange(
    layer: nn.Module, gradient: Tensor, rate: float, size: int
) -> list[list[bool]]:
    """Drop the least of what may go, at most so many of a group as can grow there; then grow."""
    kept, norms = groups(layer.mask, size), groups(layer.weight.detach().double().abs(), size)
    growth = groups(gradient.double().abs(), size)
    may_go = []
    for g, row in enumerate(kept):
        own = [p for p in range(size) if row[p]]
        ranked = sorted(own, key=lambda p: (norms[g][p], -p))
        may_go += [(g, p) for p in ranked[: min(len(own), size - len(own))]]
    total = sum(map(sum, kept))
    number = min(num_exchanged(total, len(kept) * size, rate), len(may_go))
    may_go.sort(key=lambda place: (norms[place[0]][place[1]], -place[0] * size - place[1]))
    new = [list(row) for row in kept]
    for g, p in may_go[:number]:
        new[g][p] = False
    for g, row in enumerate(kept):
        others = sorted((p for p in range(size) if not row[p]), key=lambda p: (-growth[g][p], p))
        for p in others[: sum(row) - sum(new[g])]:
            new[g][p] = True
    return new


@pytest.mark.parametrize('granularity', ['2:4', '1:4', '3:4', '1:2'])
@pytest.mark.parametrize('rate', [0.1, 0.5, 1.0])
def test_exchanges_are_as_defined(granularity, rate) -> None:
    least, size = map(int, granularity.split(':'))
    net = linear_net()
    net[1] = nn.Linear(4, 7)
    made = dynamic(net, granularity=granularity, grow='gradient', prune_rate=rate, end_rate=rate)
    made.apply(made.start_masks()[0])
    for step in range(1, 4):
        generator = torch.Generator().manual_seed(step)
        gradients = {
            name: torch.randn(la.weight.shape, generator=generator)
            for name, la in made.layers.items()
        }
        expected = {
            name: literal_exchange(la, gradients[name], rate, size)
            for name, la in made.layers.items()
        }
        new, _ = made.next_masks(step, 4, gradients)
        for name, mask in new.items():
            assert groups(mask, size) == expected[name], f'{name}, update {step}'
            assert {sum(row) for row in groups(mask, size)} == {least}
        changed = any(not torch.equal(mask, made.layers[n].mask) for n, mask in new.items())
        assert changed
        made.apply(new)
        for la in made.layers.values():
            noise = torch.randn(la.weight.shape, generator=generator)
            la.weight.data += noise * la.mask


def test_the_start_keeps_the_best_of_every_group() -> None:
    net = nn.Sequential(nn.Linear(8, 2))
    rows = [[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0, -1.0, 2.0, -3.0, 4.0]]
    net[0].weight.data = torch.tensor(rows)
    new, least = dynamic(net).start_masks()
    assert least == []
    expected = [[0, 1, 1, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 1]]
    assert new['0'].int().tolist() == expected
    gradient = torch.tensor([[9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 9.0], [1.0] * 8])
    by_snip, _ = dynamic(net, start='snip').start_masks({'0': gradient})
    assert by_snip['0'].int().tolist() == [[1, 1, 0, 0, 1, 0, 1, 0], expected[1]]


def test_masks_of_a_checkpoint_must_have_the_pattern() -> None:
    net = nn.Sequential(nn.Linear(8, 2))
    made = dynamic(net, start='from_checkpoint')
    fine = torch.tensor([[1, 1, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 1]]).bool()
    sparsity.set_masks(net, {'0': fine})
    new, _ = made.start_masks()
    made.apply(new)
    for step in range(5):  # a group that keeps fewer goes on doing so
        made.apply(made.next_masks(step, 5)[0])
        assert [sum(row) for row in groups(net[0].mask, 4)] == [2, 1, 0, 2]
    sparsity.set_masks(net, {'0': torch.tensor([[1, 1, 1, 0, 0, 1, 0, 0]] * 2).bool()})
    with pytest.raises(SparsityError, match=r'2 of 4 groups of 0 keep more weights than 2:4'):
        made.start_masks()


def test_the_sparsity_follows_from_the_pattern() -> None:
    assert DynamicSettings(granularity='1:4').sparsity == 0.75
    assert DynamicSettings(granularity='2:4', sparsity=0.5).sparsity == 0.5
    assert DynamicSettings(granularity='2:4', start='from_checkpoint').sparsity is None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(sparsity=0.6), "'2:4' has a sparsity of 0.5 by itself"),
        (dict(start='erk'), "start='erk' does not go with granularity='2:4'.*share of its own"),
        (dict(prune='set'), "prune='set' does not go with .*signs in a whole layer"),
        (dict(redistribution='nonzeros'), "redistribution='nonzeros' .* between layers"),
    ],
)
def test_what_does_not_go_with_groups_is_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicSettings(granularity='2:4', **settings)


@pytest.mark.parametrize(
    ('granularity', 'message'),
    [
        ('2:4', r"'2:4' does not fit 2 of 3 layers: 0, 2; of 0, 6 weights per filter"),
        ('channel', r"'channel' does not fit 1 of 3 layers: 2; of 2, .*depthwise"),
        ('block 4x1', r"'block 4x1' does not fit 2 of 3 layers: 0, 2; of 0, 5 filters"),
    ],
)
def test_layers_that_do_not_fit_are_named(granularity, message) -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Conv2d(8, 4, 1), nn.Conv2d(9, 9, 3, groups=9))
    share = None if ':' in granularity else 0.5
    with pytest.raises(SparsityError, match=message):
        dynamic(net, granularity=granularity, sparsity=share)


def test_paths_that_share_a_mask_have_no_groups() -> None:
    net = network(Paths([1.0, 2.0], [2.0, 1.0]))
    with pytest.raises(
        SparsityError, match=r"'1:3' is for layers of one path; layer0 have several"
    ):
        dynamic(net, granularity='1:3', scope=None)


@pytest.mark.parametrize('granularity', ['channel', 'block 2x2', 'block 1x4'])
@pytest.mark.parametrize('prune', ['magnitude', 'set'])
@pytest.mark.parametrize('redistribution', [None, 'magnitude'])
def test_channels_and_blocks_are_exchanged_whole(granularity, prune, redistribution) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 6, 2), nn.Linear(12, 8))
    made = dynamic(
        net, granularity=granularity, sparsity=0.5, prune=prune, redistribution=redistribution
    )
    made.apply(made.start_masks()[0])
    number = made.num_kept()
    assert number == made.num_units() - round(0.5 * made.num_units())
    before = sparsity.masks(net)
    for step in range(4):
        made.apply(made.next_masks(step, 5)[0])
        assert made.num_kept() == number
        assert made.num_partial() == 0
        for la in made.layers.values():
            la.weight.data += torch.randn_like(la.weight) * la.mask
    assert any(not torch.equal(before[name], mask) for name, mask in sparsity.masks(net).items())
