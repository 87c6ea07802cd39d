"""The options of the ablations against the literal formula, with gradients, on every backend."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from literal_variant import literal_variant
from torch import Tensor

from mmsw.models.layers.operator_variant import OperatorVariant
from mmsw.models.layers.variant_options import VariantOptions
from mmsw.ops import ShiftPattern, available_backends

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(reason is not True, reason=f'{name}: {reason}'))
    for name, reason in available_backends().items()
]
ALL = [
    VariantOptions(*values)
    for values in itertools.product(
        ('full', 'same'), (False, True), (False, True), ('centre', 'blur')
    )
][1:]
IDS = ['-'.join(f'{key}={value}' for key, value in options.changed().items()) for options in ALL]


def built(
    options: VariantOptions, big_kernel: int = 13, small_kernel: int = 3, num_reps: int = 2
) -> tuple[OperatorVariant, ShiftPattern, Tensor]:
    """A variant in float64 with branch weights of its own, its pattern and small kernels."""
    pattern = ShiftPattern.draw(big_kernel, small_kernel, 2, num_reps)
    variant = OperatorVariant(options, pattern).double()
    with torch.no_grad():
        for weight in variant.parameters():
            weight.normal_()
    filters = 2 * pattern.num_groups
    weight = torch.randn(filters, 1, small_kernel, small_kernel, dtype=torch.float64)
    return variant, pattern, weight.requires_grad_()


def literal(variant: OperatorVariant, pattern: ShiftPattern, x: Tensor, weight: Tensor) -> tuple:
    chosen = variant.chosen
    weights = constants = None
    if chosen.branch_weights:
        weights = variant.weight_h, variant.weight_v, variant.weight_i
    if chosen.position:
        constants = variant.position_h, variant.position_v, variant.position_i
    return literal_variant(
        x,
        weight,
        pattern.shift_hv,
        pattern.identity_index,
        same=chosen.padding == 'same',
        branch_weights=weights,
        constants=constants,
        blur_index=variant.blur_index if chosen.identity == 'blur' else None,
    )


def assert_same(variant, pattern, x, weight, backend, tolerance=1e-12) -> None:
    inputs = [x, weight, *variant.parameters()]
    expected = literal(variant, pattern, x, weight)
    grads = [torch.randn_like(out) for out in expected]
    found = variant(x, weight, pattern, backend)
    wanted = torch.autograd.grad(expected, inputs, grads)
    gradients = torch.autograd.grad(found, inputs, grads)
    for own, other in zip((*found, *gradients), (*expected, *wanted), strict=True):
        assert own.shape == other.shape
        largest = max(1.0, float(other.detach().abs().max()))
        assert float((own - other).detach().abs().max()) < tolerance * largest
    assert all(out.is_contiguous() for out in found)


@pytest.mark.parametrize('options', ALL, ids=IDS)
def test_literal_formula_with_gradients(options) -> None:
    variant, pattern, weight = built(options)
    for size in ((9, 14), (1, 1)):
        x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
        assert_same(variant, pattern, x, weight, 'torch')


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('options', [o for o in ALL if len(o.changed()) in (1, 4)], ids=str)
def test_every_backend(options, backend) -> None:
    variant, pattern, weight = built(options)
    x = torch.randn(2, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    assert_same(variant, pattern, x, weight, backend)


@pytest.mark.parametrize('options', [VariantOptions('same'), VariantOptions('same', True, True)])
@pytest.mark.parametrize(
    'sizes', [(11, 5), (12, 5), (7, 7), (5, 1), (3, 3), (9, 7)], ids='{0[0]}x{0[1]}'.format
)
def test_every_small_kernel_and_a_map_narrower_than_its_half(options, sizes) -> None:
    variant, pattern, weight = built(options, *sizes)
    for height, width in ((2, 17), (8, 1)):
        x = torch.randn(1, 2, height, width, dtype=torch.float64, requires_grad=True)
        assert_same(variant, pattern, x, weight, 'torch')


@pytest.mark.parametrize('options', [o for o in ALL if o.identity == 'blur'][-3:], ids=str)
@pytest.mark.parametrize('size', [(2, 12), (5, 3)])
def test_blur_of_nine_groups(options, size) -> None:
    variant, pattern, weight = built(options, 31)
    assert variant.blur_index.shape == (2, 2, 9)
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert_same(variant, pattern, x, weight, 'torch')


@pytest.mark.parametrize('options', [ALL[-1], VariantOptions('same')], ids=str)
@pytest.mark.parametrize('layout', ['channels_last', 'strided', 'empty'])
def test_layouts(options, layout) -> None:
    variant, pattern, weight = built(options)
    x = torch.randn(2, 2, 7, 8, dtype=torch.float64)
    x = {
        'channels_last': x.to(memory_format=torch.channels_last),
        'strided': x.repeat(1, 1, 2, 2)[:, :, ::2, 1::2],
        'empty': x[:0],
    }[layout].requires_grad_()
    found = variant(x, weight, pattern)
    if layout == 'empty':
        assert [out.shape for out in found] == [x.shape] * 3
    else:
        assert_same(variant, pattern, x.detach().requires_grad_(), weight, 'torch')


@pytest.mark.parametrize('options', [ALL[-1], VariantOptions('same')], ids=str)
def test_gradcheck_of_both_orders(options) -> None:
    variant, pattern, weight = built(options, num_reps=1)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return sum((out * out).sum() for out in variant(x, weight, pattern, 'torch'))

    assert torch.autograd.gradcheck(run, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, weight), fast_mode=True)


def test_the_gradient_of_the_map_does_not_see_the_constants() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    weight = torch.randn(15, 1, 3, 3)
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    both = [
        torch.autograd.grad(sum(out.sum() for out in run(x, weight, pattern)), x)[0]
        for run in (
            OperatorVariant(VariantOptions(position=True), pattern),
            OperatorVariant(VariantOptions(branch_weights=True), pattern),
        )
    ]
    assert torch.allclose(*both, rtol=1e-5, atol=1e-5)


def test_constants_are_sinusoids_over_the_repetitions() -> None:
    pattern = ShiftPattern.draw(7, 3, 3, 4)
    variant = OperatorVariant(VariantOptions(position=True), pattern)
    assert torch.equal(variant.position_h, variant.position_v)
    for found, features in ((variant.position_h, 9), (variant.position_i, 3)):
        assert found.shape == (features, 4)
        for f in range(features):
            wave = np.sin if f % 2 == 0 else np.cos
            expected = [wave(r / 10000 ** (2 * (f // 2) / features)) for r in range(4)]
            assert np.allclose(found[f].numpy(), expected, rtol=0, atol=1e-6)


def test_blur_is_drawn_by_a_private_generator() -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    pattern = ShiftPattern.draw(31, 3, 5, 2)
    index = OperatorVariant(VariantOptions(identity='blur'), pattern).blur_index
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert random.getstate() == states[2]
    generator = np.random.RandomState(123)
    for r, c in itertools.product(range(2), range(5)):
        drawn = generator.choice(11, 9, replace=False)
        assert index[c, r].tolist() == (drawn + 11 * c).tolist()


def test_pruned_small_kernels_bring_their_constants_alone() -> None:
    variant, pattern, weight = built(VariantOptions(position=True))
    x = torch.randn(1, 2, 6, 9, dtype=torch.float64)
    found = variant(x, torch.zeros_like(weight), pattern)
    expected = literal(variant, pattern, x, torch.zeros_like(weight))
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own, other, rtol=0, atol=1e-12)
    assert all(out.abs().max() > 0.1 for out in found)


@pytest.mark.parametrize('sizes', [(51, 5), (49, 3), (13, 3)], ids=str)
def test_padding_changes_what_is_near_the_border_only(sizes) -> None:
    """Where no block straddles the border, the two paddings agree; and where one does, they differ.

    The centres of the blocks are ``i * N + N // 2 - M // 2``.
    """
    big_kernel, side = sizes
    pattern = ShiftPattern.draw(big_kernel, side, 2, 2)
    weight = torch.randn(2 * pattern.num_groups, 1, side, side, dtype=torch.float64)
    x = torch.randn(1, 2, 40, 70, dtype=torch.float64)
    plain = VariantOptions(branch_weights=True)
    full, same = (
        OperatorVariant(options, pattern).double()(x, weight, pattern)
        for options in (plain, plain._replace(padding='same'))
    )
    centres = [i * side + side // 2 - big_kernel // 2 for i in range(pattern.num_groups)]
    half = side // 2
    for out, other, dim, length in zip(full[:2], same[:2], (3, 2), (70, 40), strict=True):
        found = ((out - other).abs().amax(dim=[d for d in range(4) if d != dim]) > 1e-9).tolist()
        assert found == [
            any(-half <= z + d < 0 or length <= z + d < length + half for d in centres)
            for z in range(length)
        ]
    assert torch.equal(full[2], same[2])
