"""A layer in training leaves out the gradients of pruned filters, unless somebody looks at them."""

import copy

import pytest
import torch
from torch import Tensor

from mmsw import sparsity
from mmsw.models import ShiftWiseConv2d
from mmsw.models.layers import shiftwise_conv


@pytest.fixture
def layer() -> ShiftWiseConv2d:
    """Two paths that prune filters alone and together, and single weights."""
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(8, 8, 13, num_reps=2, backend='torch')
    for path in layer.paths:
        path.set_mask(torch.rand(len(path.mask), 1, 1, 1) < 0.4)
    layer.paths[0].set_mask(layer.paths[0].mask & (torch.rand(path.mask.shape) < 0.8))
    return layer


@pytest.fixture
def given_masks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The masks that the operator got."""
    masks = []
    operator = shiftwise_conv.shift_wise_conv2d

    def record(x: Tensor, weight: Tensor, pattern, backend: str, mask: Tensor | None):
        masks.append(mask)
        return operator(x, weight, pattern, backend, mask)

    monkeypatch.setattr(shiftwise_conv, 'shift_wise_conv2d', record)
    return masks


def train(layer: ShiftWiseConv2d) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    torch.manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(torch.randn(2, 8, 9, 7)) ** 2).mean().backward()
        optimizer.step()
    return layer.state_dict()


def test_the_operator_gets_what_any_path_keeps(layer, given_masks) -> None:
    layer(torch.randn(1, 8, 5, 5))
    (mask,) = given_masks
    kept = torch.stack([path.mask.flatten(1).any(1) for path in layer.paths]).any(0)
    assert torch.equal(mask, kept)
    assert 0 < kept.sum() < len(kept)


def test_training_changes_no_bit(layer, given_masks, monkeypatch) -> None:
    other = copy.deepcopy(layer)
    found = train(layer)
    assert all(mask is not None for mask in given_masks)
    given_masks.clear()
    monkeypatch.setattr(ShiftWiseConv2d, '_may_skip_gradients', lambda self: False)
    expected = train(other)
    assert given_masks == [None] * 3
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_who_looks_at_dense_gradients_gets_them(layer, given_masks) -> None:
    x = torch.randn(2, 8, 9, 7)
    recorder = sparsity.DenseGradients(dict(sparsity.masked_layers(layer)))
    recorder.watch()
    layer(x).square().mean().backward()
    assert given_masks == [None]
    pruned = ~layer.kept_filters()
    for seen in recorder.sums.values():
        assert (seen[pruned] != 0).any()
    recorder.stop()
    layer(x)
    assert given_masks[1] is not None


def test_nothing_to_leave_out_without_training(layer, given_masks) -> None:
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        layer(x)
    layer.eval()
    layer(x)
    assert given_masks == [None, None]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry per look at the values of the masks."""
    looks = []
    look = ShiftWiseConv2d.kept_filters
    monkeypatch.setattr(
        ShiftWiseConv2d, 'kept_filters', lambda layer: (looks.append(None), look(layer))[1]
    )
    return looks


def prune_by_the_mask(layer: ShiftWiseConv2d) -> None:
    for path in layer.paths:
        path.set_mask(torch.arange(len(path.mask)).view(-1, 1, 1, 1) % 2 == 0)


def prune_by_a_file(layer: ShiftWiseConv2d) -> None:
    state = layer.state_dict()
    state |= {key: torch.zeros_like(state[key]) for key in state if key.endswith('mask')}
    layer.load_state_dict(state)


def prune_by_an_assigned_file(layer: ShiftWiseConv2d) -> None:
    state = layer.state_dict()
    state |= {key: torch.zeros_like(state[key]) for key in state if key.endswith('mask')}
    layer.load_state_dict(state, assign=True)


def prune_by_a_hook(layer: ShiftWiseConv2d) -> None:
    def once(layer: ShiftWiseConv2d, inputs: tuple) -> None:
        prune_by_the_mask(layer)
        handle.remove()

    handle = layer.register_forward_pre_hook(once)


def prune_by_a_view(layer: ShiftWiseConv2d) -> None:
    for path in layer.paths:
        path.mask.detach()[3:].zero_()


@pytest.mark.parametrize(
    'prune',
    [
        prune_by_the_mask,
        prune_by_a_file,
        prune_by_an_assigned_file,
        prune_by_a_hook,
        prune_by_a_view,
    ],
)
def test_no_mask_while_nothing_is_pruned(prune, given_masks, looks) -> None:
    layer, x = ShiftWiseConv2d(4, 4, 13, num_reps=2, backend='torch'), torch.randn(1, 4, 5, 5)
    for _ in range(3):
        layer(x)
    assert given_masks == [None] * 3
    assert len(looks) == 1
    prune(layer)
    layer(x)
    kept = layer.paths[0].mask.flatten(1).any(1)
    assert not kept.all()
    assert torch.equal(given_masks[-1], kept)
    for path in layer.paths:
        path.mask.data.fill_(True)  # leaves no version
    layer(x)
    assert given_masks[-1].all()
    for path in layer.paths:
        path.set_mask(torch.ones_like(path.mask))
    layer(x)
    assert given_masks[-1] is None


def test_a_change_that_leaves_no_version_changes_no_gradient(given_masks) -> None:
    layer = ShiftWiseConv2d(4, 4, 13, num_reps=2, backend='torch')
    layer(torch.randn(1, 4, 5, 5))
    pruned = torch.arange(len(layer.paths[0].mask)) % 2 == 0
    for path in layer.paths:
        path.mask.data[pruned] = False
    out = layer(torch.randn(1, 4, 5, 5))
    out.backward(torch.full_like(out, torch.nan))
    assert given_masks == [None, None]
    for path in layer.paths:
        assert torch.equal(path.weight.grad[pruned], torch.zeros_like(path.weight[pruned]))


def test_other_masks_for_one_call(given_masks) -> None:
    """``functional_call`` exchanges the tensors and puts the old ones back."""
    layer, x = ShiftWiseConv2d(4, 4, 13, num_reps=2, backend='torch'), torch.randn(1, 4, 5, 5)
    layer(x)
    masks = {f'paths.{i}.mask': torch.rand(layer.paths[i].mask.shape) < 0.1 for i in range(2)}
    torch.func.functional_call(layer, masks, (x,))
    layer(x)
    one, other = masks.values()
    first, given, last = given_masks
    assert first is None
    assert torch.equal(given, (one | other).flatten(1).any(1))
    assert last is None


def test_masks_that_count_no_changes(given_masks) -> None:
    layer = ShiftWiseConv2d(4, 4, 13, num_reps=2, backend='torch')
    for path in layer.paths:
        path.requires_grad_(False)
    with torch.inference_mode():
        for path in layer.paths:
            path.mask = torch.ones_like(path.mask)
    layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert given_masks[0].all()
