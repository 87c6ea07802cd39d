"""The mask of shift_wise_conv2d: which small kernels get a gradient, and nothing else."""

import pytest
import torch
from shift_wise_inputs import inputs
from torch import Tensor

from mmsw.ops import ShiftPattern, shift_wise_conv2d

EVERY_DTYPE = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def pattern() -> ShiftPattern:
    return ShiftPattern.draw(13, 3, 3, 2)


@pytest.fixture
def mask(pattern) -> Tensor:
    kept = torch.rand(3 * pattern.num_groups) < 0.5
    kept[0], kept[1] = True, False
    return kept


def gradients(x: Tensor, weight: Tensor, pattern: ShiftPattern, mask: Tensor | None) -> list:
    """Outputs, gradient of the map, gradient of the weight."""
    torch.manual_seed(7)
    outputs = shift_wise_conv2d(x, weight, pattern, mask=mask)
    grads = [torch.randn(x.shape).to(x.dtype) for _ in outputs]
    return [*outputs, *torch.autograd.grad(outputs, (x, weight), grads)]


@pytest.mark.parametrize('form', [(-1,), (-1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize('dtype', EVERY_DTYPE, ids=str)
def test_kept_gradients_are_those_without_a_mask(
    every_backend: str, pattern, mask: Tensor, dtype: torch.dtype, form: tuple
) -> None:
    x, weight = inputs(pattern, 2, 9, 12, dtype)
    *same, found = gradients(x, weight, pattern, mask.view(form))
    *expected, dense = gradients(x, weight, pattern, None)
    assert all(map(torch.equal, same, expected))
    assert torch.equal(found[mask], dense[mask])
    assert not found[~mask].any()
    assert dense[~mask].any()


@pytest.mark.parametrize('bad', [torch.inf, torch.nan])
def test_the_others_are_zero_whatever_comes_back(
    every_backend: str, pattern, mask: Tensor, bad: float
) -> None:
    x, weight = inputs(pattern, 1, 6, 7)
    outputs = shift_wise_conv2d(x, weight, pattern, mask=mask)
    (grad,) = torch.autograd.grad(outputs, weight, [torch.full_like(x, bad)] * 3)
    assert torch.equal(grad[~mask], torch.zeros_like(grad[~mask]))
    assert not grad[mask].isfinite().all()


def test_nothing_kept_and_everything_kept(every_backend: str, pattern) -> None:
    x, weight = inputs(pattern, 2, 6, 7)
    everything = torch.ones(len(weight), dtype=torch.bool)
    dense = gradients(x, weight, pattern, None)
    assert all(map(torch.equal, gradients(x, weight, pattern, everything), dense))
    *_, grad_x, grad = gradients(x, weight, pattern, ~everything)
    assert torch.equal(grad_x, dense[3])
    assert not grad.any()


def test_second_order(every_backend: str) -> None:
    """With respect to kept kernels; the others are constants, of any order."""
    pattern, mask = ShiftPattern.draw(5, 3, 2, 1), torch.tensor([True, False, False, True])
    x, weight = inputs(pattern, 1, 2, 3)
    kept, rest = weight.detach()[mask].requires_grad_(), weight.detach()

    def call(x: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        whole = rest.index_put((mask.nonzero().squeeze(1),), kept)
        return shift_wise_conv2d(x, whole, pattern, mask=mask)

    assert torch.autograd.gradcheck(call, (x, kept))
    assert torch.autograd.gradgradcheck(call, (x, kept))
    weight = weight.detach().requires_grad_()
    value = sum((out**3).sum() for out in shift_wise_conv2d(x, weight, pattern, mask=mask))
    grads = torch.autograd.grad(value, (x, weight), create_graph=True)
    (second,) = torch.autograd.grad(sum((grad**2).sum() for grad in grads), weight)
    assert not second[~mask].any()
    assert second[mask].any()


def test_compiled(every_backend: str, pattern, mask: Tensor) -> None:
    torch.compiler.reset()
    x, weight = inputs(pattern, 2, 9, 12)
    compiled = torch.compile(shift_wise_conv2d, fullgraph=True, backend='aot_eager')
    outputs = compiled(x, weight, pattern, mask=mask)
    torch.manual_seed(7)
    grads = [torch.randn_like(x) for _ in outputs]
    found = torch.autograd.grad(outputs, (x, weight), grads)
    expected = torch.autograd.grad(shift_wise_conv2d(x, weight, pattern), (x, weight), grads)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1][mask], expected[1][mask])
    assert not found[1][~mask].any()


def test_meta_tensors() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2).to('meta')
    x, weight = torch.empty(2, 3, 7, 9, device='meta'), torch.empty(15, 1, 3, 3, device='meta')
    mask = torch.empty(15, dtype=torch.bool, device='meta')
    outputs = shift_wise_conv2d(x, weight.requires_grad_(), pattern, mask=mask)
    (grad,) = torch.autograd.grad(outputs[0].sum(), weight)
    assert grad.shape == weight.shape


@pytest.mark.parametrize(
    ('mask', 'error', 'message'),
    [
        ([True] * 15, TypeError, r'^mask must be a boolean tensor, got list$'),
        (torch.ones(15), TypeError, r'^mask must be a boolean tensor, got torch\.float32$'),
        (
            torch.ones(14, dtype=torch.bool),
            ValueError,
            r'^mask must be \[15\] or \[15, 1, 1, 1\], one value per small kernel, got \[14\]$',
        ),
        (torch.ones(15, 1, 3, 3, dtype=torch.bool), ValueError, r'got \[15, 1, 3, 3\]$'),
        (
            torch.ones(15, dtype=torch.bool, device='meta'),
            ValueError,
            r'^mask is on meta, the pattern on cpu; move one of them with \.to\(\)$',
        ),
    ],
    ids=['list', 'numbers', 'too few', 'single weights', 'elsewhere'],
)
def test_bad_masks(pattern, mask, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shift_wise_conv2d(*inputs(pattern, 1, 4, 4), pattern, mask=mask)
