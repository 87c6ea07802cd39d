"""Masks for ordinary layers: exact zeros, saved with the layer, copied with it."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.models import ShiftWiseConv2d
from mmsw.sparsity import (
    DenseGradients,
    attach_masks,
    attach_saved_masks,
    lost_zeros,
    masked_layers,
    masks,
    set_masks,
)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))


def half(weight: Tensor) -> Tensor:
    return torch.arange(weight.numel()).view(weight.shape) % 2 == 0


def loss_of(net: nn.Module) -> Tensor:
    return net(torch.arange(12.0).view(2, 6) / 6).square().sum()


def test_only_what_the_pattern_names_gets_a_mask(net) -> None:
    assert attach_masks(net, r'^2\.weight$') == ['2']
    assert [name for name, _ in masked_layers(net)] == ['2']
    assert set(net.state_dict()) == {'0.weight', '0.bias', '2.weight', '2.bias', '2.mask'}


@pytest.mark.parametrize('optimizer', ['AdamW', 'SGD'])
def test_pruned_weights_stay_exactly_zero(net, optimizer) -> None:
    attach_masks(net, r'weight$')
    set_masks(net, {'0': half(net[0].weight), '2': half(net[2].weight)})
    arguments = dict(momentum=0.9) if optimizer == 'SGD' else {}
    optimizer = getattr(torch.optim, optimizer)(
        net.parameters(), lr=0.1, weight_decay=0.1, **arguments
    )
    before = copy.deepcopy(net.state_dict())
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()
    assert lost_zeros(net.state_dict(), masks(net)) == {}
    assert not torch.equal(net[0].weight, before['0.weight'])


def test_without_the_gate_the_zeros_are_lost(net) -> None:
    """The control: the same zeros, nobody to keep them."""
    pruned = {'0': half(net[0].weight)}
    with torch.no_grad():
        net[0].weight.masked_fill_(~pruned['0'], 0.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    loss_of(net).backward()
    optimizer.step()
    assert lost_zeros(net.state_dict(), pruned)['0'] > 10


def test_a_gradient_of_nan_stays_out_of_pruned_weights(net) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    (loss_of(net) * float('nan')).backward()
    assert torch.equal(net[0].weight.grad == 0, ~half(net[0].weight))


def test_copies_have_the_mask_and_their_own(net) -> None:
    attach_masks(net, r'^0\.weight$')
    average = copy.deepcopy(net)
    set_masks(average, {'0': half(net[0].weight)})
    assert net[0].mask.all()
    assert torch.count_nonzero(average[0].weight) == 15


def saved_and_loaded(net: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def lost_in_training(net: nn.Module, compiled: nn.Module | None = None) -> dict[str, int]:
    """Zeros that are gone after some steps of a network that did get trained."""
    pruned, before = masks(net), net[0].weight.detach().clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(net if compiled is None else compiled).backward()
        optimizer.step()
    assert not torch.equal(net[0].weight, before)
    return lost_zeros(net.state_dict(), pruned)


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), saved_and_loaded],
    ids=['deepcopy', 'pickle', 'torch.save'],
)
def test_copies_keep_what_is_pruned(net, copied) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    loss_of(net).backward()
    other = copied(copied(net))
    assert torch.equal(masks(other)['0'], half(net[0].weight))
    assert other[0].mask_gate.layer is other[0]
    assert lost_in_training(other) == {}
    assert torch.equal(net[0].mask, half(net[0].weight))
    set_masks(other, {'0': torch.zeros(5, 1, dtype=torch.bool)})
    assert lost_in_training(net) == {}, 'each has its own mask'
    assert net[0].mask.any()


def _train_elsewhere(net: nn.Module, answers) -> None:
    answers.put((lost_in_training(net), sorted(masks(net))))


def test_another_process_keeps_what_is_pruned(net) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    context = torch.multiprocessing.get_context('spawn')
    answers = context.SimpleQueue()
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # torch would warn of a hook that is left behind
        process = context.Process(target=_train_elsewhere, args=(net, answers))
        process.start()
        process.join(120)
    assert process.exitcode == 0
    assert answers.get() == ({}, ['0'])


def test_weights_that_are_trained_later_are_gated_too(net) -> None:
    net.requires_grad_(False)
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    net.requires_grad_(True)
    assert lost_in_training(net) == {}


def test_weights_that_are_replaced_are_gated_too(net) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    state = copy.deepcopy(net.state_dict())
    net.load_state_dict(state, assign=True)
    net.requires_grad_(True)
    assert lost_in_training(net) == {}


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_networks_keep_what_is_pruned(net, backend) -> None:
    attach_masks(net, r'weight$')
    set_masks(net, {'0': half(net[0].weight), '2': half(net[2].weight)})
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    pruned, before = masks(net), net[0].weight.detach().clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(compiled).backward()
        optimizer.step()
    assert not torch.equal(net[0].weight, before)
    assert lost_zeros(net.state_dict(), pruned) == {}


def _frozen(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net.requires_grad_(False)).requires_grad_(True)


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), saved_and_loaded, _frozen],
    ids=['deepcopy', 'pickle', 'torch.save', 'frozen'],
)
def test_copies_that_only_ever_ran_compiled_keep_what_is_pruned(net, copied, backend) -> None:
    attach_masks(net, r'weight$')
    set_masks(net, {'0': half(net[0].weight), '2': half(net[2].weight)})
    other = copied(copied(net))
    torch._dynamo.reset()
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    assert lost_in_training(other, compiled) == {}
    assert other[0].mask_gate.gated in other[0].weight._backward_hooks.values()
    assert len(other[0].weight._backward_hooks) == 1


def test_what_was_attached_while_frozen_is_gated_in_compiled_code(net) -> None:
    net.requires_grad_(False)
    attach_masks(net, r'weight$')
    assert not net[0].weight.requires_grad
    set_masks(net, {'0': half(net[0].weight), '2': half(net[2].weight)})
    net.requires_grad_(True)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend='eager', fullgraph=True)
    assert lost_in_training(net, compiled) == {}


def test_masks_travel_in_the_state_dict(net) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    other = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))
    attach_masks(other, r'^0\.weight$')
    other.load_state_dict(net.state_dict())
    assert torch.equal(other[0].mask, half(net[0].weight))


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_masks_of_a_file_find_their_layers(net, prefix) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    state = {prefix + key: value for key, value in net.state_dict().items()}
    state['elsewhere.weight'] = torch.ones(2, 2)
    state['elsewhere.mask'] = torch.ones(2, 2, dtype=torch.bool)
    other = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))
    assert attach_saved_masks(other, state, prefix) == ['0']
    assert other[0].mask.all(), 'values come with the state dict'
    assert attach_saved_masks(other, state, prefix) == []
    other.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if 'elsewhere' not in k}
    )
    loss_of(other).backward()
    assert torch.equal(other[0].weight.grad != 0, half(net[0].weight))


def test_masks_of_a_file_that_fit_no_layer_are_left(net) -> None:
    state = {
        '0.weight': torch.ones(6, 5),  # another shape
        '0.mask': torch.ones(6, 5, dtype=torch.bool),
        '2.weight': torch.ones(4, 5),
        '2.scale.mask': torch.ones(4, 5),  # no mask of a weight
    }
    assert attach_saved_masks(net, state) == []
    assert not list(masked_layers(net))


def test_attaching_twice_changes_nothing(net) -> None:
    attach_masks(net, r'^0\.weight$')
    set_masks(net, {'0': half(net[0].weight)})
    assert attach_masks(net, r'weight$') == ['0', '2']
    assert torch.equal(net[0].mask, half(net[0].weight))


def test_layers_that_own_their_mask_are_chosen_but_not_changed() -> None:
    net = nn.ModuleDict({'layer': ShiftWiseConv2d(8, 8, 5)})
    names = attach_masks(net, r'paths\.\d+\.weight$')
    assert names == ['layer.paths.0', 'layer.paths.1']
    assert not any(hasattr(layer, 'mask_gate') for _, layer in masked_layers(net))


@pytest.mark.parametrize(
    ('pattern', 'message'),
    [
        ('[', r"must be a regular expression, got '\['"),
        ('nowhere', r"scope 'nowhere' matches no parameter"),
        ('bias', r'cannot be pruned: 0\.bias, 2\.bias;'),
    ],
)
def test_patterns_that_make_no_sense(net, pattern, message) -> None:
    with pytest.raises(ValueError, match=message):
        attach_masks(net, pattern)
    assert not list(masked_layers(net))


def test_shared_weights_and_taken_names_are_refused(net) -> None:
    net[2] = nn.Linear(6, 5)
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match=r'cannot be pruned: 0\.weight, 2\.weight;'):
        attach_masks(net, 'weight')
    other = nn.Sequential(nn.Linear(2, 2))
    other[0].mask = 'mine'
    with pytest.raises(ValueError, match=r'something else called mask: 0$'):
        attach_masks(other, 'weight')


def test_dense_gradients_of_attached_and_own_masks() -> None:
    """What pruned weights would get is seen, summed over passes, while they get zero."""
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(8, 8, 5, num_paths=1)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), layer)
    attach_masks(net, r'^0\.weight$')
    x = torch.randn(2, 3, 9, 7)

    def gradients() -> dict[str, Tensor]:
        net.zero_grad()
        F.gelu(net(x)).square().mean().backward()
        return {'0': net[0].weight.grad, '1.paths.0': layer.paths[0].weight.grad}

    layers = dict(masked_layers(net))
    chosen = {name: half(la.weight) for name, la in layers.items()}
    set_masks(net, chosen)
    net.eval()  # batch norms that do not see each other's batches
    with torch.no_grad():
        for la in layers.values():
            la.mask.fill_(True)  # weights as pruned, gradients as dense: the truth
    truth = gradients()
    set_masks(net, chosen)
    recorder = DenseGradients(layers)
    recorder.watch()
    for _ in range(2):
        masked = gradients()
    recorder.stop()
    gradients()  # nobody looks any longer
    for name, mask in chosen.items():
        torch.testing.assert_close(recorder.sums[name], 2 * truth[name])
        assert torch.count_nonzero(masked[name][~mask]) == 0
        assert torch.count_nonzero(recorder.sums[name][~mask]) > 0


def test_gradients_are_seen_once_however_often_the_network_ran(net) -> None:
    attach_masks(net, r'^0\.weight$')
    recorder = DenseGradients(dict(masked_layers(net)))
    for _ in range(3):
        loss_of(net)
    recorder.watch()
    loss_of(net).backward()
    recorder.pause()
    torch.testing.assert_close(recorder.sums['0'], net[0].weight.grad)
    seen = recorder.sums['0'].clone()
    loss_of(net).backward()
    assert torch.equal(recorder.sums['0'], seen), 'it looks away'
    recorder.watch()
    assert recorder.sums == {}


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_nobody_watches_a_copy(copied) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), ShiftWiseConv2d(8, 8, 5))
    attach_masks(net, r'^0\.weight$')
    recorder = DenseGradients(dict(masked_layers(net)))
    recorder.watch()
    copied(net)(torch.randn(1, 3, 5, 5)).sum().backward()
    assert recorder.sums == {}
    net(torch.randn(1, 3, 5, 5)).sum().backward()
    assert set(recorder.sums) == {'0', '1.paths.0', '1.paths.1'}


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_is_watched_by_itself(copied) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), ShiftWiseConv2d(8, 8, 5))
    attach_masks(net, r'^0\.weight$')
    other = copied(copied(net))
    recorder = DenseGradients(dict(masked_layers(other)))
    recorder.watch()
    net(torch.randn(1, 3, 5, 5)).sum().backward()
    assert recorder.sums == {}
    other(torch.randn(1, 3, 5, 5)).sum().backward()
    assert set(recorder.sums) == {'0', '1.paths.0', '1.paths.1'}


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_gradients_of_a_compiled_network_are_seen(backend) -> None:
    """Hooks that come after the first pass of compiled code are never called: be there before."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), ShiftWiseConv2d(8, 8, 5)).eval()
    attach_masks(net, r'^0\.weight$')
    layers = dict(masked_layers(net))
    set_masks(net, {name: half(layer.weight) for name, layer in layers.items()})
    x = torch.randn(2, 3, 9, 7)
    recorder = DenseGradients(layers)
    recorder.watch()
    net(x).square().mean().backward()
    truth = recorder.sums
    recorder.pause()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend=backend)
    compiled(x).square().mean().backward()
    recorder.watch()
    compiled(x).square().mean().backward()
    for name in layers:
        torch.testing.assert_close(recorder.sums[name], truth[name])
