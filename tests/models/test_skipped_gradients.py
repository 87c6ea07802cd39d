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
