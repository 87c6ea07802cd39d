"""The taichi backend against the float64 reference: values, gradients, start-up, errors."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operator_process import run_script
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

    assert torch.autograd.gradcheck(both, leaves)
    assert torch.autograd.gradgradcheck(both, leaves)


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


def run_python(script: str, **environment: str | None) -> str:
    """Output of a script in a process of its own that holds the operator only."""
    code, output = run_script(script, **environment)
    assert code == 0, output
    return output


CALL = (
    'import torch\n'
    'from mmsw.ops import ShiftPattern\n'
    'from mmsw.ops.backends import taichi_backend\n'
    'pattern = ShiftPattern.draw(3, 3, 1, 1)\n'
    'taichi_backend.shift_add(torch.ones(1, 1, 3, 3), pattern.tables())\n'
)


@needs_taichi
def test_starts_on_the_first_call_and_in_silence() -> None:
    script = CALL.replace(
        'pattern =',
        'torch.set_num_threads(1)\nassert taichi_backend.unavailable_reason() is None\n'
        "assert 'taichi' not in sys.modules\npattern =",
        1,
    )
    script += "import taichi\nassert taichi.cfg.cpu_max_num_threads == 1\nprint('end')\n"
    assert run_python(script) == 'end\n'


@needs_taichi
def test_denormal_numbers_are_left_alone() -> None:
    small = 'print((torch.tensor([1e-40]) * 1).ne(0).item())\n'
    assert run_python('import torch\n' + small + CALL + small) == 'True\nTrue\n'


FORK = (
    'import multiprocessing\n'
    'from mmsw.ops import available_backends, shift_add, use_backend\n'
    'import mmsw.ops.backends as table\n'
    'def child(_):\n'
    "    print(available_backends()['taichi'])\n"
    '    x = torch.ones(1, 1, 3, 3)\n'
    "    table._MODULES = {'taichi': taichi_backend, 'torch': table.torch_backend}\n"
    "    print(table.choose_backend('auto', table.Call('shift_add', x.device, x.dtype, 3, 3)))\n"
    '    try:\n'
    "        with use_backend('taichi'):\n"
    '            print(shift_add(x, pattern)[0].item())\n'
    '    except Exception as error:\n'
    '        print(type(error).__name__, error)\n'
    '    try:\n'
    '        taichi_backend.shift_add(x, pattern.tables())\n'
    '    except Exception as error:\n'
    '        print(type(error).__name__, error)\n'
    "process = multiprocessing.get_context('fork').Process(target=child, args=(0,))\n"
    'process.start()\n'
    'process.join(60)\n'
    'process.kill()\n'
    'print(process.exitcode)\n'
)


@needs_taichi
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='combination: no fork on this system')
def test_a_process_forked_from_one_that_started_taichi_refuses() -> None:
    available, auto, error, direct, code = run_python(CALL + FORK).splitlines()
    reason = 'this process was forked from one that had started Taichi, whose threads it lacks'
    assert available.startswith(reason)
    assert auto == 'torch'
    for line in (error, direct):
        assert line.startswith('BackendUnavailableError')
        assert reason in line
        assert "'spawn'" in line
        assert "backend='torch'" in line
    assert code == '0'


@needs_taichi
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='combination: no fork on this system')
def test_a_forked_process_may_start_taichi_itself() -> None:
    script = CALL[: CALL.index('taichi_backend.shift_add')] + FORK
    assert run_python(script).splitlines() == ['True', 'taichi', '1.0', '0']


END = (
    'import taichi as ti\n'
    "print(ti.cfg.offline_cache, ti.cfg.cpu_max_num_threads, ti.cfg.fast_math, 'end')\n"
)


@needs_taichi
@pytest.mark.parametrize(
    ('home', 'reason'),
    [
        (None, 'neither HOME nor XDG_CACHE_HOME is set'),
        ('/dev/null', "Not a directory: '/dev/null/.cache/taichi/ticache'"),
    ],
)
def test_runs_without_a_home_folder(home: str | None, reason: str, tmp_path: Path) -> None:
    environment = dict(HOME=home, XDG_CACHE_HOME=None, TMPDIR=str(tmp_path))
    environment.update(TI_OFFLINE_CACHE_FILE_PATH=None)
    call = 'import torch\ntorch.set_num_threads(1)\n' + CALL + END
    warning, end = run_python(call, **environment).splitlines()
    assert reason in warning
    assert 'Set TI_OFFLINE_CACHE_FILE_PATH' in warning
    assert end == 'False 1 False end'
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []
    environment.update(TI_OFFLINE_CACHE_FILE_PATH=str(tmp_path / 'kernels'))
    assert run_python(call, **environment) == 'True 1 False end\n'
    assert list((tmp_path / 'kernels').glob('*.tic'))


@needs_taichi
def test_the_environment_of_the_user_comes_first() -> None:
    environment = dict(TI_OFFLINE_CACHE='0', TI_CPU_MAX_NUM_THREADS='2', TI_FAST_MATH='1')
    assert run_python(CALL + END, **environment) == 'False 2 True end\n'


@needs_taichi
def test_an_environment_that_taichi_cannot_take_is_named() -> None:
    script = (
        "from mmsw.ops import available_backends\nprint(available_backends()['taichi'])\ntry:\n"
    ) + ''.join(f'    {line}\n' for line in CALL.splitlines())
    script += 'except Exception as error:\n    print(type(error).__name__, error)\n'
    reason, error = run_python(script, TI_ARCH='vulkan').splitlines()
    assert reason == "TI_ARCH is 'vulkan'; set it to one of x64, arm64, cuda, or unset it"
    assert error.startswith('BackendUnavailableError')
    assert reason in error
    found = run_python(script, TI_CPU_MAX_NUM_THREADS='many')
    assert 'BackendUnavailableError' in found
    assert 'Taichi does not start' in found
    assert "'many'" in found


@needs_taichi
def test_keeps_a_runtime_that_the_program_started() -> None:
    script = (
        'import taichi as ti\n'
        'ti.init(arch=ti.cpu, random_seed=7)\n'
        'program = ti.lang.impl.get_runtime().prog\n'
    )
    script += CALL + "assert ti.lang.impl.get_runtime().prog is program\nprint('end')\n"
    assert run_python(script).endswith('end\n')


def test_reason_without_taichi() -> None:
    script = (
        'import importlib.util\n'
        'find = importlib.util.find_spec\n'
        "importlib.util.find_spec = lambda name, *a: None if name == 'taichi' else find(name, *a)\n"
        'from mmsw.ops.backends import taichi_backend\n'
        'print(taichi_backend.unavailable_reason())\n'
    )
    expected = 'the package taichi is not installed; install it with "pip install taichi"\n'
    assert run_python(script) == expected
