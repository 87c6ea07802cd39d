"""Compiles the CUDA sources for every GPU generation that counts; no GPU is needed.

``python tests/ops/test_cuda_build.py`` prints registers of every kernel as Markdown.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from cuda_compiler import (
    SOURCES,
    TYPES,
    Figures,
    Kernel,
    compile_cuda,
    find_tool,
    nvcc_or_skip,
    parse_figures,
)

# PTX of a generation and the machine codes that are made from it.
GENERATIONS = {75: (75,), 80: (80, 86, 89), 90: (90,), 100: (100,)}
HALVES = ('float32', 'float16', 'bfloat16')


def _per_tile(name: str) -> set[Kernel]:
    """A kernel that knows some sides, with every tile, and one for any other side."""
    known = {
        Kernel(name, dtype, side, tile)
        for dtype in HALVES
        for side in (3, 5)
        for tile in (8, 16, 32)
    }
    return known | {Kernel(name, dtype, 0, 0) for dtype in TYPES.values()}


def _per_type(*names: str, types: tuple[str, ...] = tuple(TYPES.values())) -> set[Kernel]:
    return {Kernel(name, dtype) for name in names for dtype in types}


# What each file must hold.
EXPECTED = {
    'depthwise.cu': {
        *_per_tile('strips'),
        *_per_tile('strips_grad'),
        *_per_type('assemble_strips', 'gather_strips'),
        *_per_type('reduce_chunks', types=('float32', 'float64')),
    },
    'conv.cu': _per_tile('conv') | _per_type('assemble', 'assemble_arms'),
    'grad_weight.cu': {
        Kernel('mark_active'),
        *_per_tile('grad_weight'),
        *_per_type('gather_grad'),
        *_per_type('reduce_chunks', types=('float32', 'float64')),
    },
    'shift_add.cu': _per_type('shift_add', 'shift_add_grad'),
}
# The most threads of a block.
THREADS = {
    'conv': 64,
    'strips': 64,
    'assemble': 128,
    'assemble_arms': 128,
    'assemble_strips': 128,
}
# What is compiled with the headers of torch.
OPERATORS = ('operators.cpp', 'depthwise_operators.cpp')


def known_codes(nvcc: str) -> set[int]:
    """Generations, of those asked for, that this nvcc can compile for."""
    listed = subprocess.run(
        [nvcc, '--list-gpu-code'], capture_output=True, text=True, check=True
    ).stdout
    wanted = {code for codes in GENERATIONS.values() for code in codes}
    return wanted & set(map(int, re.findall(r'sm_(\d+)\b', listed)))


def compile_source(
    nvcc: str, source: Path, target: Path
) -> tuple[subprocess.CompletedProcess, str]:
    """Compiles one file for all generations in one call."""
    codes = known_codes(nvcc)
    arguments = ['-c', '--threads', '2']
    for ptx, machines in GENERATIONS.items():
        known = ','.join(f'sm_{code}' for code in machines if code in codes)
        if known:
            arguments += ['-gencode', f'arch=compute_{ptx},code=[{known}]']
    return compile_cuda(nvcc, source, target, *arguments)


@pytest.fixture(scope='module')
def nvcc() -> str:
    return nvcc_or_skip()


def test_every_source_is_compiled() -> None:
    assert {path.name for path in SOURCES.glob('*.cu')} == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_compiles_without_spills(nvcc: str, tmp_path: Path, name: str) -> None:
    done, log = compile_source(nvcc, SOURCES / name, tmp_path / 'kernels.o')
    assert done.returncode == 0, log
    figures = list(parse_figures(log))
    found = {(each.kernel, each.arch) for each in figures}
    assert found == {(kernel, arch) for kernel in EXPECTED[name] for arch in known_codes(nvcc)}
    assert not [each for each in figures if each.local_memory]
    for each in figures:  # as many as a multiprocessor has for one block of the largest size
        assert each.registers * THREADS.get(each.kernel.name, 256) <= 65536, each


def test_no_kernel_uses_atomics() -> None:
    for path in SOURCES.iterdir():
        assert not re.search(r'\batomic\w*\s*\(', path.read_text(encoding='utf-8')), path.name


def test_only_the_operators_know_torch() -> None:
    for path in SOURCES.iterdir():
        text = path.read_text(encoding='utf-8')
        uses_torch = re.search(r'#include <(torch|ATen|c10)/', text) is not None
        assert uses_torch == (path.name in (*OPERATORS, 'tensors.h')), path.name


@pytest.mark.slow
@pytest.mark.ci
def test_the_operators_agree_with_torch_and_with_the_launchers(nvcc: str, tmp_path: Path) -> None:
    """Types only. An empty file stands in for a generated header that CPU builds of torch lack."""
    compiler = next(filter(None, map(shutil.which, ('g++', 'c++'))), None)
    include = Path(torch.__file__).parent / 'include'
    toolkit = Path(nvcc).resolve().parents[1]
    cuda_include = next(
        (
            path
            for path in (toolkit / 'include', Path('/usr/local/cuda/include'))
            if (path / 'cuda_runtime_api.h').is_file()
        ),
        None,
    )
    if compiler is None or cuda_include is None:
        pytest.skip("cuda-headers: a C++ compiler and CUDA's headers are needed")
    if not (include / 'c10' / 'cuda' / 'CUDAGuard.h').is_file():
        pytest.skip('cuda-headers: this torch comes without the headers of its CUDA part')
    generated = Path('c10', 'cuda', 'impl', 'cuda_cmake_macros.h')
    if not (include / generated).is_file():
        (tmp_path / generated).parent.mkdir(parents=True)
        (tmp_path / generated).write_text('#pragma once\n', encoding='utf-8')
    folders = [tmp_path, include, include / 'torch/csrc/api/include', cuda_include]
    done = subprocess.run(
        [
            compiler,
            '-std=c++20',
            '-fsyntax-only',
            *(f'-isystem{folder}' for folder in folders),
            '-Wall',
            '-Werror',
            *(str(SOURCES / name) for name in OPERATORS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def figures_table() -> str:
    """Markdown: a row per kernel, type and side; registers of the tile with most."""
    nvcc = find_tool('nvcc')
    if nvcc is None:
        sys.exit('error: nvcc is neither on PATH nor under CUDA_HOME')
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(EXPECTED):
            done, log = compile_source(nvcc, SOURCES / name, Path(folder) / 'kernels.o')
            if done.returncode:
                sys.exit(log)
            figures += parse_figures(log)
    archs = sorted({each.arch for each in figures})
    lines = ['| kernel | dtype | N | ' + ' | '.join(f'sm_{arch}' for arch in archs) + ' |']
    lines.append('| --- | --- | --- |' + ' ---: |' * len(archs))
    rows = {each.kernel[:3] for each in figures}
    for name, dtype, side in sorted(rows, key=lambda row: (row[0], row[1] or '', row[2] or 0)):
        cells = []
        for arch in archs:
            found = [
                each
                for each in figures
                if each.kernel[:3] == (name, dtype, side) and each.arch == arch
            ]
            local = sum(each.local_memory for each in found)
            registers = max(each.registers for each in found)
            cells.append(f'{registers}' + (f' + {local}' if local else ''))
        shown = {None: '-', 0: 'any'}.get(side, side)
        lines.append(f'| {name} | {dtype or "-"} | {shown} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(figures_table())
