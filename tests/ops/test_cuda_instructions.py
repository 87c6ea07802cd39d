"""Counts instructions in the machine code of the CUDA kernels; no GPU is needed.

What feeds a multiply-add decides how fast these kernels can be: shared memory delivers 32 values a
cycle, and one load for every second multiply-add would halve the rate. Local memory would be worse.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_compiler import (
    HERE,
    SOURCES,
    Kernel,
    compile_cuda,
    count,
    disassemble,
    nvcc_or_skip,
    nvdisasm_or_skip,
    parse_figures,
)

INNER = 100  # multiply-adds in a row that make an inner loop
MOST_LOADS = 0.2  # from shared memory, per multiply-add


def check_instructions(kernels: dict[Kernel, list[list[str]]]) -> int:
    """Checks every kernel whose side is compiled in; returns how many inner loops there were."""
    loops = 0
    for kernel, pieces in kernels.items():
        everything = [instruction for piece in pieces for instruction in piece]
        assert count(everything, 'LDL', 'STL') == 0, kernel
        if not kernel.side:
            continue
        inner = [piece for piece in pieces if count(piece, 'FFMA') >= INNER]
        for piece in inner:
            loads, products = count(piece, 'LDS'), count(piece, 'FFMA')
            assert loads <= MOST_LOADS * products, (kernel, loads, products)
        # nearly all arithmetic lies there, and many loads are under way before the first is used
        assert sum(count(piece, 'FFMA') for piece in inner) >= 0.95 * count(everything, 'FFMA')
        assert any(count(piece, 'LDG') >= 8 for piece in joined(pieces)), kernel
        loops += len(inner)
    return loops


def joined(pieces: list[list[str]]) -> list[list[str]]:
    """Neighbouring pieces in twos: loads may be skipped one by one."""
    return [first + second for first, second in zip(pieces, [*pieces[1:], []], strict=True)]


def test_the_inner_loops_of_side_3(tmp_path: Path) -> None:
    nvcc, nvdisasm = nvcc_or_skip(), nvdisasm_or_skip()
    target = tmp_path / 'inner_loops.cubin'
    source = HERE / 'cuda_host' / 'inner_loops.cu'
    done, log = compile_cuda(nvcc, source, target, '-cubin', '-arch=sm_80')
    assert done.returncode == 0, log
    assert not any(figures.local_memory for figures in parse_figures(log))
    kernels = disassemble(nvdisasm, target)
    assert {kernel[:3] for kernel in kernels} == {
        (name, 'float32', 3) for name in ('conv', 'grad_weight')
    }
    assert check_instructions(kernels) >= 4  # one slot, and several side by side


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize('arch', [75, 80, 90])
@pytest.mark.parametrize('name', ['conv.cu', 'grad_weight.cu'])
def test_the_inner_loops_of_every_kernel(tmp_path: Path, name: str, arch: int) -> None:
    nvcc, nvdisasm = nvcc_or_skip(), nvdisasm_or_skip()
    target = tmp_path / 'kernels.cubin'
    done, log = compile_cuda(nvcc, SOURCES / name, target, '-cubin', f'-arch=sm_{arch}')
    assert done.returncode == 0, log
    kernels = disassemble(nvdisasm, target)
    known = [kernel for kernel in kernels if kernel.side]
    assert len(known) == 18
    assert check_instructions(kernels) >= len(known)
