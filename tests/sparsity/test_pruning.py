"""Which units a pruning keeps, against the definition in loops; layers that it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from literal_units import GRANULARITIES, literal_groups, literal_units
from torch import Tensor, nn

from mmsw import sparsity
from mmsw.errors import SparsityError
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import Pruning, PruningSettings

BYS = ['magnitude', 'snip', 'random']


class Odd(nn.Module):
    """Layers of odd shapes, some of which do not fit a granularity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 5, groups=4),
            nn.Conv2d(4, 9, (1, 3)),
            nn.Linear(9, 8),
        )
        self.decode_head = nn.ModuleDict(
            dict(conv_seg=nn.Conv2d(8, 5, 1), fuse=nn.Conv2d(8, 8, 1), table=nn.Embedding(4, 8))
        )


def gradients_of(net: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(layer.weight.shape, generator=generator)
        for name, layer in net.named_modules()
        if getattr(layer, 'weight', None) is not None
    }


def settings(granularity: str, share: float = 0.5, **others) -> PruningSettings:
    return PruningSettings(None if ':' in granularity else share, granularity, **others)


def literal_scores(pruning: Pruning, gradients: dict[str, Tensor]) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(pruning.settings.seed)
    scores = {}
    for name, layer in pruning.layers.items():
        weight = (layer.weight.detach() * layer.mask).double().numpy()
        units = literal_units(weight.shape, pruning.settings.granularity)
        if pruning.settings.by == 'magnitude':
            own = [np.sqrt(np.mean([weight[p] ** 2 for p in unit])) for unit in units]
        elif pruning.settings.by == 'snip':
            gradient = gradients[name].double().numpy()
            own = [sum(abs(weight[p] * gradient[p]) for p in unit) for unit in units]
        else:
            own = torch.rand(len(units), generator=generator, dtype=torch.float64).tolist()
        scores[name] = own
    return scores


def literal_choice(
    scores: dict[str, list[float]], granularity: str, share: float, per_layer: bool
) -> dict[str, set[int]]:
    """Units that stay: what must, then the best ones until the number is reached."""
    pools = [[name] for name in scores] if per_layer else [list(scores)]
    kept: dict[str, set[int]] = {name: set() for name in scores}
    for names in pools:
        total = sum(len(scores[name]) for name in names)
        wanted = max(len(names), total - round(share * total))
        for name in names:
            groups = literal_groups(len(scores[name]), granularity) or [range(len(scores[name]))]
            least = int(granularity.split(':')[0]) if ':' in granularity else 1
            for group in groups:
                kept[name] |= set(sorted(group, key=lambda u: (-scores[name][u], u))[:least])
        rest = sorted(
            (-scores[name][u], names.index(name), u, name)
             for name in names for u in range(len(scores[name])) if u not in kept[name]
        )  # fmt: skip
        missing = wanted - sum(len(kept[name]) for name in names)
        for _, _, unit, name in rest[: max(0, missing)]:
            kept[name].add(unit)
    return kept


@pytest.mark.parametrize('per_layer', [True, False], ids=['per-layer', 'global'])
@pytest.mark.parametrize('by', BYS)
@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_choices_and_counts_are_as_defined(granularity, by, per_layer) -> None:
    for share in (0.5,) if ':' in granularity else (0.0, 0.31, 0.5, 0.97):
        net = Odd()
        made = Pruning(
            net, settings(granularity, share, by=by, per_layer=per_layer, include_all=True, seed=3)
        )
        gradients = gradients_of(net)
        share = made.settings.sparsity
        expected = literal_choice(literal_scores(made, gradients), granularity, share, per_layer)
        new = made.masks(gradients=gradients)
        for name, mask in new.items():
            literal = np.zeros(tuple(mask.shape), bool)
            units = literal_units(tuple(mask.shape), granularity)
            for unit in expected[name]:
                literal[tuple(np.transpose(units[unit]))] = True
            np.testing.assert_array_equal(mask, literal, err_msg=f'{name} at {share}')
        assert sum(made.numbers(new).values()) == made.target()
        assert all(mask.any() for mask in new.values()), 'never all of a layer'
        sparsity.set_masks(net, new)
        assert sparsity.lost_zeros(net.state_dict(), new) == {}


@pytest.mark.parametrize('granularity', GRANULARITIES)
def test_the_layers_are_those_that_fit(granularity) -> None:
    net = Odd()
    made = Pruning(net, settings(granularity, include_all=True))
    for name in ('backbone.0', 'backbone.1', 'backbone.3', 'backbone.4', 'backbone.5',
                 'decode_head.conv_seg', 'decode_head.fuse'):  # fmt: skip
        fits = literal_units(tuple(net.get_submodule(name).weight.shape), granularity) is not None
        assert (name in made.layers) == fits
        assert (name in made.left_out) != fits
    assert not hasattr(net.decode_head.table, 'mask')


@pytest.mark.parametrize('per_layer', [True, False], ids=['per-layer', 'global'])
@pytest.mark.parametrize('granularity', ['filter', 'block 2x3', '2:4', 'weight'])
def test_more_sparsity_only_takes_more(granularity, per_layer) -> None:
    """Also on the way to N:M, whose groups never lose more than the pattern does."""
    net = Odd()
    made = Pruning(net, settings(granularity, 0.8, per_layer=per_layer, scope='backbone'))
    before = sparsity.masks(net)
    for share in np.linspace(0, made.settings.sparsity, 7):
        new = made.masks(float(share))
        assert sum(made.numbers(new).values()) == made.target(float(share))
        for name, mask in new.items():
            assert not (mask & ~before[name]).any()
            if granularity == '2:4':
                assert mask.flatten(1).unflatten(1, (-1, 4)).sum(2).min() >= 2
            before[name] = mask
        sparsity.set_masks(net, new)
    if granularity == '2:4':
        for name, mask in new.items():
            assert (mask.flatten(1).unflatten(1, (-1, 4)).sum(2) == 2).all(), name


def test_what_is_pruned_already_counts_and_stays() -> None:
    net = Odd()
    made = Pruning(net, settings('weight', 0.6, scope=r'backbone\.[14]'))
    old = torch.rand(4, 6, 3, 3) < 0.7
    sparsity.set_masks(net, {'backbone.1': old})
    new = made.masks()
    assert not (new['backbone.1'] & ~old).any()
    assert made.numbers(new) == {'backbone.1': 216 - round(0.6 * 216), 'backbone.4': 108 - 65}


@pytest.mark.parametrize('per_layer', [True, False], ids=['per-layer', 'global'])
def test_groups_that_keep_less_already_leave_nothing_to_others(per_layer) -> None:
    net = nn.Sequential(nn.Linear(8, 1), nn.Linear(8, 1))
    values = [3.0, 1.0, 2.0, 4.0, 8.0, 5.0, 6.0, 7.0]
    for layer in net:
        layer.weight.data = torch.tensor([values])
    made = Pruning(net, settings('2:4', include_all=True, per_layer=per_layer))
    old = torch.tensor([[False, True, False, False, True, True, True, True]])
    sparsity.set_masks(net, {'0': old})
    new = made.masks()
    assert new['0'].int().tolist() == [[0, 1, 0, 0, 1, 0, 0, 1]]
    assert new['1'].int().tolist() == [[1, 0, 0, 1, 1, 0, 0, 1]]


def test_paths_of_a_shift_wise_layer_lose_the_same_filters() -> None:
    torch.manual_seed(0)
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 3))
    made = Pruning(net, settings('filter', 0.4, scope='paths'))
    new = made.masks()
    layers = {sparsity.layer_of(name) for name in new}
    assert len(layers) == 4
    for layer in layers:
        first, second = (mask for name, mask in new.items() if sparsity.layer_of(name) == layer)
        assert torch.equal(first, second)
        assert len(first) - int(first.flatten(1).any(1).sum()) == round(0.4 * len(first))


def test_first_and_last_layers_are_left_out_by_default() -> None:
    made = Pruning(Odd(), settings('weight'))
    assert made.left_out == {
        'backbone.0': 'first layer, which sees the image',
        'decode_head.conv_seg': 'one of the last layers, which predict',
    }
    assert 'decode_head.conv_seg' in Pruning(Odd(), settings('weight', scope='head')).layers
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert list(Pruning(plain, settings('filter')).layers) == ['1']


def test_heads_without_known_names_keep_their_last_layer() -> None:
    net = nn.ModuleDict(
        dict(
            backbone=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)),
            roi_head=nn.ModuleDict(
                dict(
                    bbox_head=nn.ModuleDict(dict(fc_cls=nn.Linear(4, 2), shared=nn.Linear(4, 4))),
                    mask_head=nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)),
                )
            ),
            neck=nn.Sequential(nn.Conv2d(4, 4, 1)),
            decoder=nn.Sequential(nn.Linear(4, 4)),
            bbox_head=nn.ModuleDict(
                dict(
                    cls_convs=nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1))),
                    reg_branches=nn.Sequential(nn.Linear(4, 4)),
                    fc_layers=nn.Linear(4, 4),
                    rpn_obj=nn.Conv2d(4, 1, 1),
                )
            ),
            classifier=nn.Linear(4, 2),
        )
    )
    made = Pruning(net, settings('weight'))
    assert list(made.layers) == [
        'backbone.1', 'roi_head.bbox_head.shared', 'roi_head.mask_head.0', 'neck.0', 'decoder.0',
        'bbox_head.fc_layers',
    ]  # fmt: skip


def test_weights_that_layers_share_are_left_out() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    net[2].weight = net[1].weight
    made = Pruning(net, settings('weight', include_all=True))
    assert list(made.layers) == ['0', '3']
    assert set(made.left_out.values()) == {'several layers share its weight'}


def test_transposed_convolutions_have_no_groups() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(8, 8, 2), nn.Conv2d(8, 8, 1))
    made = Pruning(net, settings('2:4', include_all=True))
    assert list(made.layers) == ['1']
    assert 'does not sum over the rows' in made.left_out['0']


def test_frozen_layers() -> None:
    net = Odd()
    net.backbone[1].requires_grad_(False)
    assert 'backbone.1' in Pruning(net, settings('weight')).layers
    for made in (
        Pruning(net, settings('weight'), only_trained=True),
        Pruning(net, settings('weight', by='snip')),
    ):
        assert made.left_out['backbone.1'] == 'frozen'
    net.requires_grad_(False)
    with pytest.raises(SparsityError, match=r'nothing to prune: .* are frozen'):
        Pruning(net, settings('weight'), only_trained=True)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(sparsity=1.0), r'sparsity must be in \[0, 1\), got 1.0'),
        (dict(sparsity=-0.1), r'sparsity must be in \[0, 1\), got -0.1'),
        (dict(sparsity='0.5'), r"sparsity must be a number in \[0, 1\), got '0.5'"),
        (dict(sparsity=None), "granularity 'weight' needs sparsity"),
        (dict(granularity='2:4', sparsity=0.6), "'2:4' has a sparsity of 0.5 by itself"),
        (dict(by='gradient'), r"by must be one of .*, got 'gradient'"),
        (dict(scope='x', include_all=True), 'include_all is for a pruning without scope'),
        (dict(seed=-1), 'seed must not be negative, got -1'),
        (dict(seed=2**32), r'seed must be below 2\*\*32, got 4294967296'),
    ],
)
def test_settings_that_make_no_sense_are_named(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        PruningSettings(**{'sparsity': 0.5, **given})


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(scope='neck'), r"scope 'neck' matches no layer of the Odd .* backbone\.0\.weight"),
        (dict(scope='('), r"scope must be a regular expression, got '\('"),
        (
            dict(scope=r'backbone\.3', granularity='channel'),
            r"'channel' fits none of 1 layers.*backbone\.3: .*depthwise",
        ),
        (dict(granularity='block 7x1'), "'block 7x1' fits none of 7 layers.* do not divide into"),
    ],
)
def test_layers_that_cannot_be_pruned_are_named(given, message) -> None:
    with pytest.raises(SparsityError, match=message):
        Pruning(Odd(), PruningSettings(**{'sparsity': 0.5, **given}))


def test_weights_and_gradients_that_say_nothing_are_named() -> None:
    net = Odd()
    made = Pruning(net, settings('weight', by='snip'))
    with pytest.raises(ValueError, match=r"by='snip' needs gradients; .* none of backbone\.1"):
        made.masks()
    silent = {**gradients_of(net), 'backbone.5': torch.zeros(8, 9)}
    with pytest.raises(SparsityError, match=r'zero in all of 1 of 5 layers \(backbone\.5\)'):
        made.masks(gradients=silent)
    net.backbone[1].weight.data[0, 0, 0, 0] = float('nan')
    with pytest.raises(SparsityError, match=r'backbone\.1: scores must be finite'):
        Pruning(net, settings('weight')).masks()
