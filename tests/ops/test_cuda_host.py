"""The programs of the CUDA kernels, run on the CPU, against the float64 reference.

A plain C++ compiler builds ``cuda_host/host_check.cpp``, which includes the very headers that the
kernels are made of and walks over blocks and threads in loops. Scratch memory starts as NaN there,
so a read of what was never written shows.
"""

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_cases import (
    ARMS,
    KERNELS,
    SHAPES,
    SIZES,
    draw,
    draw_arms,
    draw_kernel,
    evaluate,
    evaluate_depthwise,
)
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.backends import cuda_backend, torch_backend
from mmsw.ops.backends.backend import Outputs
from mmsw.ops.pattern_tables import PatternTables

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / 'mmsw' / 'ops' / 'csrc' / 'cuda'
ROUNDING = {torch.float32: 3e-6, torch.float64: 1e-13, torch.bfloat16: 4e-3}
NAN = float('nan')
ORDERS = ('ascending', 'descending', 'shuffled')


def struct(**fields: type) -> type[ctypes.Structure]:
    return type('Struct', (ctypes.Structure,), {'_fields_': list(fields.items())})


INT, ADDRESS = ctypes.c_int, ctypes.c_void_p
# As in tile.cuh, ../pattern.h and host_check.cpp.
MapSizes = struct(batch=INT, channels=INT, height=INT, width=INT)
PatternSizes = struct(big=INT, side=INT, groups=INT, reps=INT)
Pattern = struct(sizes=PatternSizes, channels=INT, shift=ADDRESS, identity=ADDRESS)
Options = struct(generic=INT, most_slots=INT, order=INT)


class HostKernels:
    """The operators, run by the programs of the kernels on the CPU.

    Args:
        library: ``host_check.cpp`` as a shared library.
        generic: Use the loops for sides that are not compiled in, whatever the side.
        most_slots: Slots that a thread block holds in shared memory at a time, at most.
        order: In which the threads of a block take their turns.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        generic: bool = False,
        most_slots: int = 1000,
        order: str = 'ascending',
    ) -> None:
        self.library = library
        self.options = Options(generic, most_slots, ORDERS.index(order))

    def shift_wise_conv2d(self, x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
        outputs = [torch.full_like(x, NAN) for _ in range(3)]
        self._run('conv', x, self._pattern(pattern), x, weight, *outputs)
        return tuple(outputs)

    def shift_wise_conv2d_grad_input(
        self, grads: Outputs, weight: Tensor, pattern: PatternTables
    ) -> Tensor:
        grad = torch.full_like(grads[0], NAN)
        self._run('grad_input', grad, self._pattern(pattern), *grads, weight, grad)
        return grad

    def shift_wise_conv2d_grad_weight(
        self, grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
    ) -> Tensor:
        side = pattern.small_kernel
        grad = x.new_full((pattern.shift_hv.shape[0], 1, side, side), NAN)
        self._run('grad_weight', x, self._pattern(pattern), *grads, x, mask, grad)
        return grad

    def cross_conv2d(self, x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.full_like(x, NAN)
        sizes = PatternSizes(wide.shape[1], wide.shape[2], tall.shape[1], 0)
        self._run('cross', x, Pattern(sizes, x.shape[1], None, None), x, wide, tall, bias, out)
        return out

    def depthwise_conv2d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, side: int, flipped: bool = False
    ) -> Tensor:
        out = torch.full_like(x, NAN)
        sizes = PatternSizes(weight.shape[2], side, weight.shape[3], flipped)
        self._run('depthwise', x, Pattern(sizes, x.shape[1], None, None), x, weight, bias, out)
        return out

    def depthwise_conv2d_grad_input(self, grad: Tensor, weight: Tensor, side: int) -> Tensor:
        return self.depthwise_conv2d(grad, weight, None, side, flipped=True)

    def depthwise_conv2d_grad_weight(
        self, grad: Tensor, x: Tensor, kernel_size: tuple[int, int], side: int
    ) -> Tensor:
        height, width = kernel_size
        found = x.new_full((x.shape[1], 1, height, width), NAN)
        sizes = PatternSizes(height, side, width, 0)
        self._run('depthwise_grad', x, Pattern(sizes, x.shape[1], None, None), grad, x, found)
        return found

    def shift_add(self, conv_out: Tensor, pattern: PatternTables) -> Outputs:
        border = 2 * pattern.margin
        height, width = conv_out.shape[2] - border, conv_out.shape[3] - border
        shape = (conv_out.shape[0], pattern.channels, height, width)
        outputs = [conv_out.new_full(shape, NAN) for _ in range(3)]
        self._run('shift_add', outputs[0], self._pattern(pattern), conv_out, *outputs)
        return tuple(outputs)

    def shift_add_grad(self, grads: Outputs, pattern: PatternTables) -> Tensor:
        like, border = grads[0], 2 * pattern.margin
        height, width = like.shape[2] + border, like.shape[3] + border
        grad = like.new_full((like.shape[0], pattern.shift_hv.shape[0], height, width), NAN)
        self._run('shift_add_grad', like, self._pattern(pattern), *grads, grad)
        return grad

    @staticmethod
    def _pattern(tables: PatternTables) -> ctypes.Structure:
        sizes = PatternSizes(
            tables.big_kernel, tables.small_kernel, tables.num_groups, tables.num_reps
        )
        shift, identity = tables.shift_hv.data_ptr(), tables.identity_index.data_ptr()
        return Pattern(sizes, tables.channels, shift, identity)

    def _run(
        self, name: str, like: Tensor, pattern: ctypes.Structure, *maps: Tensor | None
    ) -> None:
        assert all(tensor is None or tensor.is_contiguous() for tensor in maps)
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in maps]
        failed = self.library.run_program(
            name.encode(),
            like.element_size(),
            ctypes.byref(MapSizes(*like.shape)),
            ctypes.byref(pattern),
            ctypes.byref(self.options),
            (ADDRESS * len(maps))(*addresses),
        )
        assert not failed, name


@pytest.fixture(scope='module')
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
    if compiler is None:
        pytest.skip('compiler: none (c++, g++ or clang++) on PATH')
    target = tmp_path_factory.mktemp('cuda_host') / 'host_check.so'
    flags = ['-std=c++17', '-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC']
    source = HERE / 'cuda_host' / 'host_check.cpp'
    command = [compiler, *flags, f'-I{SOURCES}', str(source), '-o', str(target)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return ctypes.CDLL(str(target))


def error(found: Tensor, expected: Tensor) -> float:
    """Largest error relative to the largest magnitude; NaN where a result was not written."""
    assert found.shape == expected.shape
    if not expected.numel():
        return 0.0
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def draw_pruned(pattern: ShiftPattern, shape: tuple[int, int, int], pruned: float) -> list[Tensor]:
    tensors = draw(pattern, shape)
    tensors[1][torch.rand(len(tensors[1])) < pruned] = 0
    return tensors


def wrong_results(
    kernels: HostKernels,
    pattern: ShiftPattern,
    tensors: list[Tensor],
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    found = evaluate(kernels, pattern, [tensor.to(dtype) for tensor in tensors])
    expected = evaluate(torch_backend, pattern, tensors)
    errors = {name: error(found[name], expected[name]) for name in expected}
    return {name: value for name, value in errors.items() if not value < ROUNDING[dtype]}


@pytest.mark.parametrize(('dtype', 'order'), list(zip(ROUNDING, ORDERS, strict=True)), ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_agrees_with_the_reference(
    library: ctypes.CDLL, sizes: tuple, dtype: torch.dtype, order: str
) -> None:
    """Every class of sizes in every type, with a different order of the threads for each."""
    torch.manual_seed(0)
    pattern = ShiftPattern.draw(*sizes)
    kernels = HostKernels(library, order=order)
    for shape in SHAPES:
        assert not wrong_results(kernels, pattern, draw(pattern, shape, dtype), dtype), shape


@pytest.mark.parametrize('order', ORDERS[1:])
@pytest.mark.parametrize('sizes', [(13, 3, 2, 2), (51, 5, 2, 1)], ids=str)
def test_the_order_of_the_threads_does_not_matter(
    library: ctypes.CDLL, sizes: tuple, order: str
) -> None:
    torch.manual_seed(5)
    pattern = ShiftPattern.draw(*sizes)
    for shape in [(9, 7, 7), (3, 15, 14), (1, 40, 35)]:
        tensors = [tensor.float() for tensor in draw(pattern, shape)]
        straight = evaluate(HostKernels(library), pattern, tensors)
        for name, found in evaluate(HostKernels(library, order=order), pattern, tensors).items():
            assert torch.equal(found, straight[name]), (shape, name)


@pytest.mark.parametrize('sizes', [(13, 3, 2, 2), (49, 3, 1, 4), (13, 5, 2, 3)], ids=str)
@pytest.mark.parametrize('options', [(True, 1000), (False, 1), (False, 3), (True, 2)], ids=str)
def test_generic_sides_and_partial_arms(
    library: ctypes.CDLL, sizes: tuple, options: tuple[bool, int]
) -> None:
    """The loops for any side, and arms that are too long for shared memory."""
    torch.manual_seed(1)
    pattern = ShiftPattern.draw(*sizes)
    for shape in [(2, 9, 12), (1, 40, 35)]:
        assert not wrong_results(HostKernels(library, *options), pattern, draw(pattern, shape))


@pytest.mark.parametrize('most_slots', [1000, 4])
@pytest.mark.parametrize('pruned', [0.5, 0.9, 1.0])
@pytest.mark.parametrize('sizes', [(13, 3, 3, 1), (49, 3, 2, 1), (51, 5, 2, 4)], ids=str)
def test_pruned_patterns(
    library: ctypes.CDLL, sizes: tuple, pruned: float, most_slots: int
) -> None:
    torch.manual_seed(2)
    pattern = ShiftPattern.draw(*sizes)
    kernels = HostKernels(library, most_slots=most_slots)
    for shape in [(2, 9, 12), (1, 40, 35)]:
        assert not wrong_results(kernels, pattern, draw_pruned(pattern, shape, pruned))


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('kept', [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    'sizes', [(13, 3, 3, 1), (49, 3, 2, 2), (51, 5, 2, 4), (21, 7, 2, 1)], ids=str
)
def test_the_gradient_of_masked_filters_is_zero(
    library: ctypes.CDLL, sizes: tuple, kept: float, dtype: torch.dtype
) -> None:
    """Zero where the mask is off, the exact gradient elsewhere."""
    torch.manual_seed(6)
    pattern = ShiftPattern.draw(*sizes)
    for shape in [(9, 7, 7), (1, 40, 35)]:
        x, weight, _, *grads = draw(pattern, shape, dtype)
        mask = torch.rand(len(weight)) < kept
        expected = torch_backend.shift_wise_conv2d_grad_weight(grads, x, pattern.tables())
        ours = [tensor.to(dtype) for tensor in grads]
        found = HostKernels(library).shift_wise_conv2d_grad_weight(
            ours, x.to(dtype), pattern.tables(), mask
        )
        assert not found[~mask].any()
        if mask.any():
            assert error(found[mask], expected[mask]) < ROUNDING[dtype], shape


def test_slots_of_masked_filters_are_not_computed(library: ctypes.CDLL) -> None:
    """A NaN in the gradients of a channel reaches nothing if all its filters are masked."""
    pattern = ShiftPattern.draw(49, 3, 2, 1)
    x, weight, _, *grads = draw(pattern, (1, 40, 35))
    mask = torch.zeros(len(weight), dtype=torch.bool)
    mask[: pattern.num_groups] = True
    grads = [grad.clone() for grad in grads]
    for grad in grads:
        grad[:, 1] = NAN
    found = HostKernels(library).shift_wise_conv2d_grad_weight(grads, x, pattern.tables(), mask)
    assert found.isfinite().all()
    assert found[mask].any()
    assert not found[~mask].any()


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('arms', ARMS, ids=str)
def test_the_folded_form(library: ctypes.CDLL, arms: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    kernels = HostKernels(library, generic=False, order='shuffled')
    for shape in SHAPES:
        x = torch.randn(shape[0], 2, *shape[1:]).to(dtype).double()
        wide, tall, bias = draw_arms(arms, 2, dtype)
        wide[0, : arms[0] // 2] = 0  # blocks that are empty, some of them in part
        for own_bias in (bias, None):
            expected = torch_backend.cross_conv2d(x, wide, tall, own_bias)
            ours = [None if each is None else each.to(dtype) for each in (x, wide, tall, own_bias)]
            found = kernels.cross_conv2d(*ours)
            assert error(found, expected) < ROUNDING[dtype], shape


def test_the_folded_form_of_a_pruned_pattern_lies_on_the_grid_of_its_slots(
    library: ctypes.CDLL,
) -> None:
    """NaN far from the one filter that is kept cannot reach the outputs."""
    side = 3
    for taps, first in ((53, 2), (49, 1), (17, 2), (51, 0)):
        wide, tall = torch.zeros(2, 1, taps, side)
        tall[:, first + side : first + 2 * side] = 1  # slot 1
        x = torch.full((1, 1, 40, 5), NAN)
        row = 30
        low = row + first + side - taps // 2
        x[:, :, max(low, 0) : low + side] = 1
        out = HostKernels(library).cross_conv2d(x.double(), wide.double(), tall.double(), None)
        assert out[0, 0, row].isfinite().all(), taps


def test_what_the_folded_form_pads_never_meets_an_infinite_value(library: ctypes.CDLL) -> None:
    """Zero times infinity: rows beyond an arm that does not fill its first slot."""
    torch.manual_seed(8)
    wide, tall, bias = draw_arms((11, 7, 3), 1)
    x = torch.randn(1, 1, 30, 30).double()
    x[0, 0, 14, 17] = float('inf')
    expected = torch_backend.cross_conv2d(x, wide, tall, bias).isfinite()
    assert torch.equal(HostKernels(library).cross_conv2d(x, wide, tall, bias).isfinite(), expected)


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('case', KERNELS, ids=str)
def test_depthwise_kernels_in_strips(library: ctypes.CDLL, case: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(9)
    *kernel, side = case
    kernels = HostKernels(library, order='shuffled')
    for shape in SHAPES[:-1]:
        tensors = draw_kernel(kernel, shape, dtype)
        expected = evaluate_depthwise(torch_backend, tensors, side)
        found = evaluate_depthwise(kernels, [tensor.to(dtype) for tensor in tensors], side)
        for name, target in expected.items():
            assert error(found[name], target) < ROUNDING[dtype], (name, shape)


@pytest.mark.parametrize('options', [(True, 1000), (False, 1), (False, 2)], ids=str)
def test_strips_of_any_side_and_in_parts(library: ctypes.CDLL, options: tuple[bool, int]) -> None:
    torch.manual_seed(10)
    for case in ((31, 31, 5), (13, 29, 3)):
        *kernel, side = case
        tensors = draw_kernel(kernel, (1, 40, 35))
        expected = evaluate_depthwise(torch_backend, tensors, side)
        ours = [tensor.float() for tensor in tensors]
        found = evaluate_depthwise(HostKernels(library, *options), ours, side)
        for name, target in expected.items():
            assert error(found[name], target) < ROUNDING[torch.float32], (name, case)


@pytest.mark.parametrize('kernel', [(7, 7), (11, 4), (3, 8), (1, 6)], ids=str)
def test_strips_read_nothing_beyond_the_kernel(library: ctypes.CDLL, kernel: tuple) -> None:
    """An infinite value spoils the outputs that the kernel reaches, and no other."""
    torch.manual_seed(11)
    x, weight, bias, _ = draw_kernel(kernel, (1, 30, 30))
    x[0, 0, 14, 17] = float('inf')
    expected = torch_backend.depthwise_conv2d(x, weight, bias, 5).isfinite()
    found = HostKernels(library).depthwise_conv2d(x, weight, bias, 5).isfinite()
    assert torch.equal(found, expected)


def test_zero_slots_are_not_computed(library: ctypes.CDLL) -> None:
    """NaN in the map cannot reach the outputs through slots that are empty."""
    pattern = ShiftPattern.draw(49, 3, 2, 1)
    x, weight, *_ = draw_pruned(pattern, (1, 40, 35), pruned=1.0)
    tables = pattern.tables()
    x = torch.full_like(x, NAN)
    kernels = HostKernels(library)
    for out in kernels.shift_wise_conv2d(x, weight, tables):
        assert not out.any()
    assert not kernels.shift_wise_conv2d_grad_input((x, x, x), weight, tables).any()


def test_a_bad_weight_spoils_its_own_channel_only(library: ctypes.CDLL) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 1)
    x, weight, *_ = draw(pattern, (1, 9, 12))
    weight[pattern.num_groups + 1, 0, 1, 1] = NAN
    h, v, i = HostKernels(library).shift_wise_conv2d(x, weight, pattern.tables())
    assert torch.stack([h, v, i])[:, :, [0, 2]].isfinite().all()
    assert not h[:, 1].isfinite().all()


def test_tables_that_hold_no_pattern_do_no_harm(library: ctypes.CDLL) -> None:
    """Tables on a GPU are not read before the kernels do: no read or write leaves its channel."""
    pattern = ShiftPattern.draw(13, 3, 2, 2)
    tensors = draw(pattern, (1, 9, 12))
    for value in (2**31 - 1, -(2**31), 4, 0):
        tables = pattern.tables()._replace(
            shift_hv=torch.full_like(pattern.shift_hv, value),
            identity_index=torch.full_like(pattern.identity_index, value * 2**20),
        )
        kernels, (x, weight, conv_out, *grads) = HostKernels(library), tensors
        h, v, i = kernels.shift_wise_conv2d(x, weight, tables)
        assert torch.stack([h, v, i]).isfinite().all()
        assert kernels.shift_wise_conv2d_grad_weight(grads, x, tables).isfinite().all()
        assert kernels.shift_add_grad(grads, tables).isfinite().all()
        assert torch.stack(kernels.shift_add(conv_out, tables)).isfinite().all()


@pytest.mark.parametrize('shape', [(70, 8, 8), (9, 40, 33)], ids=str)
def test_the_weight_gradient_adds_chunks(library: ctypes.CDLL, shape: tuple) -> None:
    """Batches that are cut into many chunks, the last one shorter."""
    torch.manual_seed(3)
    pattern = ShiftPattern.draw(13, 3, 2, 2)
    assert not wrong_results(HostKernels(library), pattern, draw(pattern, shape))


def figures(library: ctypes.CDLL, shape: tuple, sizes: tuple, value_bytes: int) -> list[int]:
    """Bytes of shared memory of the forward pass, weight gradient, assembly; gradient's threads."""
    batch, length = shape
    big, side, reps = sizes
    warp_slots = {3: 3, 5: 1}.get(side, 0) if value_bytes == 4 else 0
    results = (ctypes.c_int64 * 4)()
    library.figures(
        ctypes.byref(MapSizes(batch, 3, length, length)),
        ctypes.byref(PatternSizes(big, side, -(-big // side), reps)),
        value_bytes,
        warp_slots,
        results,
    )
    return list(results)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_shared_memory_stays_below_what_every_gpu_grants(
    library: ctypes.CDLL, dtype: torch.dtype
) -> None:
    """Up to the side that the backend takes, and not for the next one."""
    most = cuda_backend._MOST_SIDE.get(dtype, cuda_backend._MOST_SIDE_ELSE)
    for side in (1, 3, 5, 7, 21, most):
        for big in {side, max(side, 51), max(side, 301)}:
            for shape in itertools.product((1, 9), (1, 8, 9, 17, 200)):
                found = figures(library, shape, (big, side, 2), dtype.itemsize)
                assert all(0 < size <= 46 * 1024 for size in found[:3]), (side, big, shape)
                assert 0 < found[3] <= 8 * 32, (side, big, shape)
    assert max(figures(library, (1, 200), (most + 2, most + 2, 1), dtype.itemsize)) > 46 * 1024


def test_the_lists_of_the_most_slots_fit_into_shared_memory(library: ctypes.CDLL) -> None:
    most = cuda_backend._MOST_SLOTS
    for reps in (1, 2, 6):
        assert figures(library, (1, 8), (most // reps, 1, reps), 4)[2] <= 46 * 1024
    assert figures(library, (1, 8), (most + 1, 1, 1), 4)[2] > 46 * 1024
