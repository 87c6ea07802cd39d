"""mmsw.sparsity: reading masks, setting them, and counting zeros that were lost."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mmsw import sparsity
from mmsw.checkpoint import CheckpointError
from mmsw.checkpoint.pruned import plain_weights
from mmsw.checkpoint.trained import take_form
from mmsw.engine.loaded_zeros import keep_loaded_zeros
from mmsw.errors import SparsityError
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.models.layers import MaskedFilters
from mmsw.sparsity.layer_masks import normalised_masks


@pytest.fixture
def net() -> nn.Module:
    """Two masked layers of two filters of 3 x 3 each, beside layers that have none."""
    first, second = MaskedFilters(2, 3), MaskedFilters(2, 3)
    for layer in (first, second):
        nn.init.ones_(layer.weight)
    return nn.ModuleDict(
        {'first': first, 'plain': nn.Conv2d(2, 2, 3), 'inner': nn.ModuleDict({'second': second})}
    )


@pytest.fixture
def one_filter() -> Tensor:
    return torch.tensor([False, True]).view(2, 1, 1, 1)


@pytest.fixture
def one_weight() -> Tensor:
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    mask[1, 0, 2, 2] = False
    return mask


def test_masks_names_every_masked_layer_and_copies(net) -> None:
    found = sparsity.masks(net)
    assert list(found) == ['first', 'inner.second']
    assert all(mask.all() and mask.shape == (2, 1, 3, 3) for mask in found.values())
    found['first'].fill_(False)
    assert net['first'].mask.all()


def test_masks_of_a_network_are_one_per_path() -> None:
    arch = dict(depths=[1, 1, 2, 1], dims=[8, 8, 8, 8])
    net = ShiftWiseNet(arch, big_kernels=(9, 7, 7, 5), num_paths=3)
    names = [
        f'stages.{s}.{b}.shift_wise.paths.{p}'
        for s, b in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))
        for p in range(3)
    ]
    assert list(sparsity.masks(net)) == names
    assert list(sparsity.masks(nn.ModuleDict({'backbone': net}))) == [
        f'backbone.{n}' for n in names
    ]


def test_a_deployed_network_has_no_masks() -> None:
    layer = ShiftWiseConv2d(8, 8, 5)
    layer.eval().switch_to_deploy()
    assert sparsity.masks(layer) == {}


def test_set_masks_of_some_layers(net, one_filter, one_weight) -> None:
    sparsity.set_masks(net, {'inner.second': one_filter})
    sparsity.set_masks(net, {'first': one_weight})
    assert torch.equal(net['first'].mask, one_weight)
    assert torch.equal(net['first'].weight != 0, one_weight)
    assert torch.equal(net['inner']['second'].mask, one_filter.expand(2, 1, 3, 3))
    assert (net['inner']['second'].weight[0] == 0).all()
    assert (net['inner']['second'].weight[1] == 1).all()


def test_masks_can_be_carried_over(net, one_filter, one_weight) -> None:
    sparsity.set_masks(net, {'first': one_weight, 'inner.second': one_filter})
    saved = sparsity.masks(net)
    for name in saved:
        net.get_submodule(name).mask.fill_(True)
    sparsity.set_masks(net, saved)
    assert all(torch.equal(mask, saved[name]) for name, mask in sparsity.masks(net).items())


def test_unknown_names_set_nothing(net, one_filter) -> None:
    with pytest.raises(KeyError, match=r'no masked layers of these names: plain; known are'):
        sparsity.set_masks(net, {'first': one_filter, 'plain': one_filter})
    assert net['first'].mask.all()


def test_lost_zeros_counts_per_layer(net, one_filter, one_weight) -> None:
    sparsity.set_masks(net, {'first': one_weight, 'inner.second': one_filter})
    pruned = sparsity.masks(net)
    assert sparsity.lost_zeros(net.state_dict(), pruned) == {}
    with torch.no_grad():
        net['first'].weight[1, 0, 2, 2] = 1e-30
        net['inner']['second'].weight[0, 0, 0] = -1.0
        net['inner']['second'].weight[1] = 5.0  # kept, free to change
    assert sparsity.lost_zeros(net.state_dict(), pruned) == {'first': 1, 'inner.second': 3}


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e-40])
def test_lost_zeros_sees_odd_values(net, one_weight, value) -> None:
    sparsity.set_masks(net, {'first': one_weight})
    with torch.no_grad():
        net['first'].weight[~one_weight] = value
    assert sparsity.lost_zeros(net.state_dict(), sparsity.masks(net)) == {'first': 1}


def test_negative_zero_is_zero(net, one_weight) -> None:
    sparsity.set_masks(net, {'first': one_weight})
    with torch.no_grad():
        net['first'].weight[~one_weight] = -0.0
    assert sparsity.lost_zeros(net.state_dict(), sparsity.masks(net)) == {}


def test_lost_zeros_knows_the_prefix_of_averaged_models(net, one_filter) -> None:
    sparsity.set_masks(net, {'first': one_filter})
    pruned = sparsity.masks(net)
    state = {f'module.{key}': torch.ones_like(t) for key, t in net.state_dict().items()}
    assert sparsity.lost_zeros(state, pruned) == {'first': 9}


def test_lost_zeros_in_half_precision(net, one_filter) -> None:
    sparsity.set_masks(net, {'first': one_filter})
    pruned = sparsity.masks(net)
    assert sparsity.lost_zeros(net.half().state_dict(), pruned) == {}


def test_a_state_dict_without_the_weights_proves_nothing(net) -> None:
    state = {f'other.{key}': tensor for key, tensor in net.state_dict().items()}
    with pytest.raises(KeyError, match="no weight of the masked layer 'first'"):
        sparsity.lost_zeros(state, sparsity.masks(net))


def test_the_guard_looks_at_weights_not_at_the_masks_of_the_moment(net, one_filter) -> None:
    sparsity.set_masks(net, {'first': one_filter})
    pruned = sparsity.masks(net)
    net['first'].mask.fill_(True)
    with torch.no_grad():
        net['first'].weight.fill_(2.0)
    assert sparsity.lost_zeros(net.state_dict(), pruned) == {'first': 9}


def test_zeros_under_an_open_mask_become_masks() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    state = {
        'a.weight': weight,
        'a.mask': mask,
        'b.weight': torch.ones(2, 2),  # nothing is zero
        'b.mask': torch.tensor([[True, False], [True, True]]),
        'c.weight': torch.zeros(2),  # not a mask of the weight
        'c.mask': torch.zeros(2),
        'd.mask': mask,
    }
    before = {key: value.clone() for key, value in state.items()}
    new = sparsity.masks_from_zeros(state)
    assert list(new) == ['a.mask']
    assert new['a.mask'].tolist() == [[True, False], [False, False], [True, True]]
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert sparsity.masks_from_zeros({**state, **new}) == {}


KEPT = torch.tensor([[True, False, True], [False, True, True]])
ROWS = torch.tensor([[True], [False]])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.uint8, torch.int64])
@pytest.mark.parametrize('mask', [KEPT, ROWS], ids=['whole', 'rows'])
def test_masks_of_other_programs_become_as_ours(mask, dtype) -> None:
    state = {'n.a.weight': torch.ones(2, 3), 'n.a.mask': mask.to(dtype), 'a.b.mask': 'other'}
    new = normalised_masks(state)
    assert list(new) == list(normalised_masks(state, 'n.')) == ['n.a.mask']
    assert new['n.a.mask'].dtype == torch.bool
    assert torch.equal(new['n.a.mask'], mask.expand(2, 3))
    assert state['n.a.mask'].dtype == dtype
    assert normalised_masks({**state, **new}) == {}
    assert normalised_masks(state, 'elsewhere.') == {}


def test_boolean_masks_of_rows_become_whole() -> None:
    new = normalised_masks({'a.weight': torch.ones(2, 3), 'a.mask': ROWS})
    assert torch.equal(new['a.mask'], ROWS.expand(2, 3))


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (
            torch.full((2, 3), 0.5),
            r'n\.a\.mask \(torch\.float32 \[2, 3\]\) has other values than 0',
        ),
        (torch.full((2, 3), float('nan')), r'has other values than 0 and 1; expected is a mask'),
        (torch.ones(1, 3), r'n\.a\.mask is torch\.float32 \[1, 3\]; .*, \[2, 3\] or \[2, 1\]\.'),
        (KEPT.T, r'n\.a\.mask is torch\.bool \[3, 2\]; .*, \[2, 3\] or \[2, 1\]\.'),
        (KEPT.tolist(), r'n\.a\.mask is list; expected is a mask'),
    ],
)
def test_what_is_no_mask_of_its_weight_is_refused(mask, message) -> None:
    state = {'n.a.weight': torch.ones(2, 3), 'n.a.mask': mask}
    with pytest.raises(SparsityError, match=message):
        normalised_masks(state)


@pytest.mark.parametrize('weight', [torch.ones(3), None, 'text'], ids=['vector', 'none', 'text'])
def test_other_things_called_mask_are_left_alone(weight) -> None:
    state = {'a.mask': torch.full((2, 3), 0.5), 'mask': torch.ones(7)}
    assert normalised_masks({**state, 'a.weight': weight} if weight is not None else state) == {}


OTHER_FORMS = pytest.mark.parametrize(
    'form', [lambda m: m.float(), lambda m: m[:, :1].to(torch.uint8)], ids=['float', 'rows']
)


@OTHER_FORMS
def test_every_route_keeps_the_zeros_of_such_masks(form) -> None:
    """The runner's, that of trained models, and that of backbone files."""
    rows = ROWS.expand(2, 3)
    state = {'0.weight': torch.ones(2, 3) * rows, '0.bias': torch.ones(2), '0.mask': form(rows)}

    def filled(given: dict[str, Tensor]) -> nn.Module:
        net = nn.Sequential(nn.Linear(3, 2))
        sparsity.attach_saved_masks(net, given)
        net.load_state_dict(given)
        return net

    of_runner = dict(state)
    runner = SimpleNamespace(model=nn.Sequential(nn.Linear(3, 2)), hooks=[], _train_loop=None)
    keep_loaded_zeros(runner, {'state_dict': of_runner})
    of_model = dict(state)
    take_form(nn.Sequential(nn.Linear(3, 2)), of_model)
    for given in (of_runner, of_model, plain_weights(state, 'file.pth')):
        assert torch.equal(filled(given)[0].mask, rows)


@OTHER_FORMS
def test_small_kernels_take_such_masks(net, form, one_filter) -> None:
    mask = one_filter.expand(2, 1, 3, 3)
    state = {'weight': torch.ones(2, 1, 3, 3), 'mask': form(mask.flatten(1)).float()}
    state['mask'] = state['mask'].view(2, 1, *([3, 3] if state['mask'].numel() > 2 else [1, 1]))
    net['first'].load_state_dict(state)
    assert torch.equal(net['first'].mask, mask)
    assert torch.equal(net['first'].weight != 0, mask)
    with pytest.raises(RuntimeError, match=r'mask .* has other values than 0 and 1'):
        net['first'].load_state_dict({**state, 'mask': mask * 0.5})


def test_a_backbone_file_with_no_mask_of_its_weight_is_refused() -> None:
    state = {'a.weight': torch.ones(2, 3), 'a.mask': torch.ones(3, 2)}
    with pytest.raises(CheckpointError, match=r'file\.pth: a\.mask is torch\.float32 \[3, 2\]'):
        plain_weights(state, 'file.pth')


def test_factors_of_torch_prune_that_are_no_tensors_are_left() -> None:
    state = {'a.weight_orig': 'text', 'a.weight_mask': torch.ones(2, 3)}
    assert sparsity.from_torch_prune(state) == state


def test_a_mask_beside_those_of_torch_prune_may_be_numbers() -> None:
    state = {'a.weight_orig': torch.ones(2, 3), 'a.weight_mask': KEPT.float(), 'a.mask': ROWS.int()}
    assert torch.equal(sparsity.from_torch_prune(state)['a.mask'], KEPT & ROWS)


@pytest.mark.parametrize('told', [True, False], ids=['optimizer-told', 'control'])
@pytest.mark.parametrize('name', ['SGD', 'AdamW'])
@pytest.mark.parametrize('attached', [True, False], ids=['attached', 'own'])
def test_weights_pruned_during_training_stay_zero(net, one_filter, attached, name, told) -> None:
    """What the optimizer remembers of a weight moves it off zero, unless it is told to forget."""
    if attached:
        net = nn.ModuleDict({'plain': nn.Linear(4, 2)})
        sparsity.attach_masks(net, r'plain\.weight$')
    layer = net['plain'] if attached else net['first']
    arguments = dict(momentum=0.9) if name == 'SGD' else {}
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1, **arguments)

    def step() -> None:
        optimizer.zero_grad()
        (layer(torch.ones(1, 4)) if attached else layer()).square().sum().backward()
        optimizer.step()

    step()
    pruned = {'plain' if attached else 'first': one_filter.view(2, 1) if attached else one_filter}
    sparsity.set_masks(net, pruned, [optimizer] if told else ())
    kept = layer.weight[1].clone()
    step()
    assert not torch.equal(layer.weight[1], kept)
    lost = sparsity.lost_zeros(net.state_dict(), sparsity.masks(net))
    assert bool(lost) == (not told)


def test_no_function_hides_a_file() -> None:
    """``import mmsw.sparsity.NAME as module`` gives a module, whatever the package hands on."""
    names = [path.stem for path in Path(sparsity.__file__).parent.glob('[!_]*.py')]
    assert 'layer_masks' in names
    assert [name for name in names if not isinstance(getattr(sparsity, name), ModuleType)] == []
