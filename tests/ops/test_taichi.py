"""The taichi backend against the float64 reference: values, gradients, errors."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error
from torch import Tensor

import mmsw.ops.backends as table
from mmsw.models.layers import ShiftWiseConv2d
from mmsw.ops import (
    BackendUnavailableError,
    ShiftPattern,
    shift_add,
    shift_wise_conv2d,
    use_backend,
)
from mmsw.ops.backends import taichi_backend, torch_backend

needs_taichi = pytest.mark.skipif(
    taichi_backend.unavailable_reason() is not None,
    reason=f'taichi: {taichi_backend.unavailable_reason()}',
)
ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 1.5e-3}
# (M, N, C, R)
SIZES = [
    (13, 3, 3, 2),
    (49, 3, 2, 4),
    (51, 3, 2, 1),
    (51, 5, 2, 3),
    (13, 5, 3, 4),
    (3, 3, 2, 1),
    (7, 1, 2, 2),
    (9, 9, 1, 1),
    (6, 3, 2, 2),
]
# (B, H, W): odd, one position, smaller than the reach, rectangular, larger than the reach
SHAPES = [(2, 5, 7), (1, 1, 1), (2, 4, 2), (1, 3, 70), (1, 70, 3), (1, 37, 62), (2, 16, 16)]


def inputs(
    pattern: ShiftPattern, shape: tuple, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, list[Tensor]]:
    batch, *size = shape
    side = pattern.small_kernel
    x = torch.randn(batch, pattern.channels, *size).to(dtype)
    weight = torch.randn(pattern.channels * pattern.num_groups, 1, side, side).to(dtype)
    return x, weight, [torch.randn_like(x) for _ in range(3)]


def fused(backend, x: Tensor, weight: Tensor, grads: list[Tensor], pattern: ShiftPattern) -> tuple:
    return (
        *backend.shift_wise_conv2d(x, weight, pattern.tables()),
        backend.shift_wise_conv2d_grad_input(grads, weight, pattern.tables()),
        backend.shift_wise_conv2d_grad_weight(grads, x, pattern.tables()),
    )


def added(backend, conv_out: Tensor, grads: list[Tensor], pattern: ShiftPattern) -> tuple:
    return (
        *backend.shift_add(conv_out, pattern.tables()),
        backend.shift_add_grad(grads, pattern.tables()),
    )


def assert_agree(found: tuple, expected: tuple, dtype: torch.dtype) -> None:
    for index, (ours, target) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype == dtype
        assert ours.is_contiguous()
        assert relative_error(ours, target) < ROUNDING[dtype], index


def assert_fused_agrees(
    x: Tensor, weight: Tensor, grads: list[Tensor], pattern: ShiftPattern
) -> None:
    exact = fused(torch_backend, x.double(), weight.double(), [g.double() for g in grads], pattern)
    assert_agree(fused(taichi_backend, x, weight, grads, pattern), exact, x.dtype)


@needs_taichi
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_fused_equals_the_reference(sizes: tuple, shape: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    assert_fused_agrees(*inputs(pattern, shape), pattern)


@needs_taichi
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('shape', [(2, 5, 7), (1, 37, 55)], ids=str)
def test_fused_in_every_dtype(shape: tuple, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    assert_fused_agrees(*inputs(pattern, shape, dtype), pattern)


@needs_taichi
@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('sizes', [(13, 3, 3, 2), (49, 3, 2, 4), (51, 5, 2, 1)], ids=str)
def test_shift_add_equals_the_reference(sizes: tuple, shape: tuple, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(*sizes)
    x, weight, grads = inputs(pattern, shape)
    conv_out = F.conv2d(x, weight, padding=sizes[1] - 1, groups=sizes[2]).to(dtype)
    grads = [grad.to(dtype) for grad in grads]
    exact = added(torch_backend, conv_out.double(), [g.double() for g in grads], pattern)
    assert_agree(added(taichi_backend, conv_out, grads, pattern), exact, dtype)


@needs_taichi
@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize(
    ('wide', 'tall', 'side'), [(17, 17, 3), (53, 53, 3), (17, 17, 5), (1, 7, 5), (5, 3, 7)]
)
def test_cross_equals_the_reference(
    wide: int, tall: int, side: int, dtype: torch.dtype, with_bias: bool
) -> None:
    arms = torch.randn(3, wide, side).to(dtype), torch.randn(3, tall, side).to(dtype)
    bias = torch.randn(3).to(dtype) if with_bias else None
    for shape in SHAPES if dtype == torch.float32 else SHAPES[:2]:
        x = torch.randn(shape[0], 3, *shape[1:]).to(dtype)
        exact = torch_backend.cross_conv2d(
            x.double(), *(arm.double() for arm in arms), bias if bias is None else bias.double()
        )
        assert_agree((taichi_backend.cross_conv2d(x, *arms, bias),), (exact,), dtype)
    assert taichi_backend.cross_conv2d(x[:0], *arms, bias).shape == (0, *x.shape[1:])


@needs_taichi
def test_cross_skips_zero_blocks_of_a_folded_arm() -> None:
    """Slots that a folded layer lost do not touch the map, although N does not divide the taps."""
    arm = torch.zeros(1, 17, 3)  # of M = 13: its five slots begin at tap 2
    x = torch.full((1, 1, 9, 9), float('inf'))
    out = taichi_backend.cross_conv2d(x, arm, arm, torch.ones(1))
    assert torch.equal(out, torch.ones_like(x))
    arm[:, 5:8] = 1  # the second slot; half a slot more would multiply zeros with infinity
    x = torch.zeros(1, 1, 40, 9)
    x[0, 0, 10] = float('inf')
    out = taichi_backend.cross_conv2d(x, torch.zeros_like(arm), arm, None)
    assert not out.isnan().any()
    assert out.isinf().any(3).flatten().nonzero().flatten().tolist() == [11, 12, 13]


@needs_taichi
def test_runs_a_folded_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ShiftWiseConv2d(8, 8, 13, num_reps=1).eval()
    layer.switch_to_deploy()
    x = torch.randn(1, 8, 9, 10)
    calls = []
    real = taichi_backend.cross_conv2d
    monkeypatch.setattr(
        taichi_backend, 'cross_conv2d', lambda *given: calls.append(given) or real(*given)
    )
    with torch.no_grad():
        with use_backend('torch'):
            expected = layer(x)
        with use_backend('taichi'):
            found = layer(x)
    assert len(calls) == 1
    assert relative_error(found, expected.double()) < 4e-6


@needs_taichi
def test_mask_of_small_kernels() -> None:
    for sizes in ((13, 3, 3, 1), (13, 5, 3, 4)):
        pattern = ShiftPattern.draw(*sizes)
        x, weight, grads = inputs(pattern, (2, 9, 12))
        mask = torch.rand(len(weight)) < 0.4
        whole = taichi_backend.shift_wise_conv2d_grad_weight(grads, x, pattern.tables())
        found = taichi_backend.shift_wise_conv2d_grad_weight(grads, x, pattern.tables(), mask)
        assert torch.equal(found[mask], whole[mask])
        assert not found[~mask].any()


@needs_taichi
@pytest.mark.parametrize('case', ['13_5_r4', '47_3_r2', '49_3_r4', '51_5_r1', '51_5_r4'])
def test_golden(case: str, data_dir: Path) -> None:
    with np.load(data_dir / f'shift_add_{case}.npz') as file:
        golden = {key: torch.from_numpy(file[key]) for key in file}
    sizes = golden['big_kernel'].item(), golden['small_kernel'].item()
    pattern = ShiftPattern(*sizes, golden['shift_hv'], golden['identity_index'])
    grads = [golden[f'grad_{name}'] for name in 'hvi']
    found = added(taichi_backend, golden['conv_out'], grads, pattern)
    expected = (*(golden[f'out_{name}'] for name in 'hvi'), golden['grad_conv_out'])
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < 1e-6


@needs_taichi
@pytest.mark.parametrize('sizes', [(13, 3, 3, 1), (49, 3, 2, 4)], ids=str)
def test_pruned_small_kernels(sizes: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    x, weight, grads = inputs(pattern, (2, 9, 12))
    weight[torch.rand(len(weight)) < 0.6] = 0
    assert_fused_agrees(x, weight, grads, pattern)
    weight.zero_()
    assert not any(
        out.any() for out in taichi_backend.shift_wise_conv2d(x, weight, pattern.tables())
    )


@needs_taichi
def test_zero_blocks_are_not_computed() -> None:
    """Inf times a weight of zero is NaN: where a zero block meets Inf, nothing shows."""
    pattern = ShiftPattern.draw(13, 3, 1, 1)
    x, weight, _ = inputs(pattern, (1, 24, 24))
    x.fill_(float('inf'))
    weight.zero_()
    for out in taichi_backend.shift_wise_conv2d(x, weight, pattern.tables()):
        assert not out.any()


@needs_taichi
def test_any_memory_layout() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight, grads = inputs(pattern, (2, 11, 8))
    grads = [
        grads[0][..., :1].expand(x.shape),
        grads[1].mT.contiguous().mT,
        grads[2][:1].expand(x.shape),
    ]
    for layout in (
        x.contiguous(memory_format=torch.channels_last),
        x.mT.contiguous().mT,
        x.repeat_interleave(3, dim=3)[..., ::3],
    ):
        assert not layout.is_contiguous()
        assert_fused_agrees(layout, weight.mT.contiguous().mT, grads, pattern)
    conv_out = torch.randn(2, 15, 13, 10).contiguous(memory_format=torch.channels_last)
    exact = added(torch_backend, conv_out.double(), [g.double() for g in grads], pattern)
    assert_agree(added(taichi_backend, conv_out, grads, pattern), exact, torch.float32)


@needs_taichi
@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_empty_batch(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight, grads = inputs(pattern, (0, 6, 8), dtype)
    results = fused(taichi_backend, x, weight, grads, pattern)
    assert [tuple(result.shape) for result in results] == [(0, 3, 6, 8)] * 4 + [(15, 1, 3, 3)]
    assert not results[4].any()
    results += added(taichi_backend, x.new_empty(0, 15, 8, 10), grads, pattern)
    assert [tuple(result.shape) for result in results[5:]] == [(0, 3, 6, 8)] * 3 + [(0, 15, 8, 10)]
    assert {result.dtype for result in results} == {dtype}


@needs_taichi
@pytest.mark.parametrize('sizes', [(5, 3, 1, 2), (3, 3, 1, 1)], ids=str)
def test_gradcheck(sizes: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table._MODULES, 'taichi', taichi_backend)
    pattern = ShiftPattern.draw(*sizes)
    x, weight, _ = inputs(pattern, (1, 2, 3), torch.float64)
    conv_out = torch.randn(1, len(weight), 4, 3, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, conv_out)]

    def both(x: Tensor, weight: Tensor, conv_out: Tensor) -> tuple:
        return (
            *shift_wise_conv2d(x, weight, pattern, backend='taichi'),
            *shift_add(conv_out, pattern, backend='taichi'),
        )

    assert torch.autograd.gradcheck(both, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(both, leaves, fast_mode=True)


@needs_taichi
def test_inputs_that_require_a_gradient_are_left_alone() -> None:
    """Taichi would allocate ``.grad`` of such tensors."""
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight, _ = inputs(pattern, (1, 6, 8))
    x.requires_grad_()
    weight.requires_grad_()
    taichi_backend.shift_wise_conv2d(x, weight, pattern.tables())
    assert x.grad is None
    assert weight.grad is None


@needs_taichi
def test_repeats_bit_for_bit_in_another_thread() -> None:
    pattern = ShiftPattern.draw(49, 3, 5, 4)
    x, weight, grads = inputs(pattern, (2, 21, 30))
    conv_out = F.conv2d(x, weight, padding=2, groups=5)
    runs = []

    def run() -> None:
        runs.append(
            fused(taichi_backend, x, weight, grads, pattern)
            + added(taichi_backend, conv_out, grads, pattern)
        )

    run()
    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(runs) == 3
    for results in zip(*runs, strict=True):
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@needs_taichi
def test_large_batches_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    arguments = inputs(pattern, (5, 6, 8))
    assert_fused_agrees(*arguments, pattern)
    from mmsw.ops.backends import taichi_kernels

    monkeypatch.setattr(taichi_kernels, 'INDEX_LIMIT', 6000)
    assert_fused_agrees(*arguments, pattern)
    monkeypatch.setattr(taichi_kernels, 'INDEX_LIMIT', 100)
    with pytest.raises(ValueError, match=r'up to 100 elements per sample.*use a smaller map'):
        taichi_backend.shift_wise_conv2d(*arguments[:2], pattern.tables())


@needs_taichi
def test_a_device_that_does_not_fit_is_refused() -> None:
    pattern = ShiftPattern.draw(3, 3, 1, 1)
    taichi_backend.shift_wise_conv2d(*inputs(pattern, (1, 4, 4))[:2], pattern.tables())
    with pytest.raises(
        BackendUnavailableError, match=r'cannot take tensors on meta: Taichi has been started on'
    ):
        taichi_backend.shift_add(torch.empty(1, 1, 5, 5, device='meta'), pattern.tables())
