"""The block programs of the CUDA kernels, run on the CPU, against the float64 reference.

A plain C++ compiler builds ``host_check.cpp``, which includes the very headers that the kernels are
made of and walks over blocks and threads in loops. Scratch memory starts as NaN there, so a read of
what was never written shows.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_cases import SHAPES, SIZES, draw, evaluate
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.backends import torch_backend
from mmsw.ops.backends.backend import Outputs
from mmsw.ops.pattern_tables import PatternTables

SOURCES = Path(__file__).resolve().parents[2] / 'mmsw' / 'ops' / 'csrc' / 'cuda'
ROUNDING = {torch.float32: 3e-6, torch.float64: 1e-13}


class ConvSizes(ctypes.Structure):
    """The struct of the same name in shift_wise.cuh."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ('batch', 'channels', 'height', 'width', 'side', 'groups', 'reps', 'big')
    ]


class HostKernels:
    """The five operators, run by the block programs on the CPU.

    Args:
        library: ``host_check.cpp`` as a shared library.
        generic: Use the loops for sides that are not compiled in, whatever the side.
        most_slots: Slots that a block holds in shared memory at a time, at most.
    """

    def __init__(self, library: ctypes.CDLL, generic: bool = False, most_slots: int = 1000) -> None:
        self.library = library
        self.generic = int(generic)
        self.most_slots = most_slots

    def shift_wise_conv2d(
        self, x: Tensor, weight: Tensor, pattern: PatternTables
    ) -> tuple[Tensor, ...]:
        outputs = [torch.full_like(x, float('nan')) for _ in range(3)]
        options = (self.generic, self.most_slots)
        self._call('conv', x.shape, pattern, options, (x, weight), outputs)
        return tuple(outputs)

    def shift_wise_conv2d_grad_input(
        self, grads: Outputs, weight: Tensor, pattern: PatternTables
    ) -> Tensor:
        grad = torch.full_like(grads[0], float('nan'))
        options = (self.generic, self.most_slots)
        self._call('conv_grad_input', grads[0].shape, pattern, options, (*grads, weight), [grad])
        return grad

    def shift_wise_conv2d_grad_weight(
        self, grads: Outputs, x: Tensor, pattern: PatternTables
    ) -> Tensor:
        side = pattern.small_kernel
        grad = x.new_full((pattern.shift_hv.shape[0], 1, side, side), float('nan'))
        self._call('conv_grad_weight', x.shape, pattern, (self.generic,), (*grads, x), [grad])
        return grad

    def shift_add(self, conv_out: Tensor, pattern: PatternTables) -> tuple[Tensor, ...]:
        border = 2 * pattern.margin
        height, width = conv_out.shape[2] - border, conv_out.shape[3] - border
        shape = (conv_out.shape[0], pattern.channels, height, width)
        outputs = [conv_out.new_full(shape, float('nan')) for _ in range(3)]
        self._call('shift_add', shape, pattern, (), (conv_out,), outputs)
        return tuple(outputs)

    def shift_add_grad(self, grads: Outputs, pattern: PatternTables) -> Tensor:
        h, border = grads[0], 2 * pattern.margin
        shape = (h.shape[0], pattern.shift_hv.shape[0], h.shape[2] + border, h.shape[3] + border)
        grad = h.new_full(shape, float('nan'))
        self._call('shift_add_grad', h.shape, pattern, (), grads, [grad])
        return grad

    def _call(self, name, map_shape, pattern, options, inputs, outputs) -> None:
        shift_hv, identity_index, big, side = pattern
        channels, reps = identity_index.shape
        groups = shift_hv.shape[0] // channels
        sizes = ConvSizes(*map_shape, side, groups, reps, big)
        assert all(tensor.is_contiguous() for tensor in (*inputs, *outputs))
        address = [ctypes.c_void_p(tensor.data_ptr()) for tensor in inputs]
        address += [
            ctypes.c_void_p(shift_hv.data_ptr()),
            ctypes.c_void_p(identity_index.data_ptr()),
        ]
        address += [ctypes.c_void_p(tensor.data_ptr()) for tensor in outputs]
        suffix = {torch.float32: 'float32', torch.float64: 'float64'}[inputs[0].dtype]
        getattr(self.library, f'{name}_{suffix}')(ctypes.byref(sizes), *options, *address)


@pytest.fixture(scope='module')
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
    if compiler is None:
        pytest.skip('compiler: none (c++, g++ or clang++) on PATH')
    target = tmp_path_factory.mktemp('cuda_host') / 'host_check.so'
    flags = ['-std=c++17', '-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC']
    command = [compiler, *flags, str(SOURCES / 'host_check.cpp'), '-o', str(target)]
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
    dtype: torch.dtype = torch.float64,
) -> dict[str, float]:
    found = evaluate(kernels, pattern, [tensor.to(dtype) for tensor in tensors])
    expected = evaluate(torch_backend, pattern, tensors)
    errors = {name: error(found[name], expected[name]) for name in expected}
    return {name: value for name, value in errors.items() if not value < ROUNDING[dtype]}


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_agrees_with_the_reference(library: ctypes.CDLL, sizes: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    pattern = ShiftPattern.draw(*sizes)
    for shape in SHAPES:
        wrong = wrong_results(HostKernels(library), pattern, draw(pattern, shape), dtype)
        assert not wrong, shape


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


def test_zero_slots_are_not_computed(library: ctypes.CDLL) -> None:
    """NaN in the map cannot reach the outputs through slots that are empty."""
    pattern = ShiftPattern.draw(49, 3, 2, 1)
    x, weight, *_ = draw_pruned(pattern, (1, 40, 35), pruned=1.0)
    tables = pattern.tables()
    x = torch.full_like(x, float('nan'))
    kernels = HostKernels(library)
    for out in kernels.shift_wise_conv2d(x, weight, tables):
        assert not out.any()
    assert not kernels.shift_wise_conv2d_grad_input((x, x, x), weight, tables).any()


def test_a_bad_weight_spoils_its_own_channel_only(library: ctypes.CDLL) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 1)
    x, weight, *_ = draw(pattern, (1, 9, 12))
    weight[pattern.num_groups + 1, 0, 1, 1] = float('nan')
    h, v, i = HostKernels(library).shift_wise_conv2d(x, weight, pattern.tables())
    assert torch.stack([h, v, i])[:, :, [0, 2]].isfinite().all()
    assert not h[:, 1].isfinite().all()


def test_an_empty_batch(library: ctypes.CDLL) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    assert not wrong_results(HostKernels(library), pattern, draw(pattern, (0, 9, 12)))


@pytest.mark.parametrize('shape', [(70, 8, 8), (9, 40, 33)], ids=str)
def test_the_weight_gradient_adds_chunks(library: ctypes.CDLL, shape: tuple) -> None:
    """Batches that are cut into many chunks, the last one shorter."""
    torch.manual_seed(3)
    pattern = ShiftPattern.draw(13, 3, 2, 2)
    assert not wrong_results(HostKernels(library), pattern, draw(pattern, shape))


@pytest.mark.parametrize('value_bytes', [4, 8])
def test_shared_memory_stays_below_what_every_gpu_grants(
    library: ctypes.CDLL, value_bytes: int
) -> None:
    conv, grad = ctypes.c_int64(), ctypes.c_int64()
    for side in (1, 3, 5, 7, 11, 21):
        for big in (side, 13, 51, 101, 301):
            if big < side:
                continue
            groups = -(-big // side)
            for length in (1, 8, 9, 16, 17, 200):
                sizes = ConvSizes(2, 3, length, length, side, groups, 4, big)
                generic = int(side not in (3, 5))
                results = ctypes.byref(conv), ctypes.byref(grad)
                library.shared_bytes(ctypes.byref(sizes), value_bytes, generic, *results)
                assert 0 < conv.value <= 48 * 1024, (side, big, length)
                assert 0 < grad.value <= 48 * 1024, (side, big, length)
