"""Compiles the CUDA sources for every GPU generation that counts; no GPU is needed.

``python tests/ops/test_cuda_build.py`` prints registers and spills of every kernel as Markdown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

SOURCES = Path(__file__).resolve().parents[2] / 'mmsw' / 'ops' / 'csrc' / 'cuda'
# PTX of a generation and the machine codes that are made from it.
GENERATIONS = {75: (75,), 80: (80, 86, 89), 90: (90,), 100: (100,)}
TYPES = {'f': 'float32', 'd': 'float64', '6__half': 'float16', '13__nv_bfloat16': 'bfloat16'}
# What each file must hold: (kernel, dtype, side), side 0 for the loops for any side.
HALVES = ('float32', 'float16', 'bfloat16')
EXPECTED = {
    'shift_wise.cu': {
        *(('assemble', dtype, None) for dtype in TYPES.values()),
        *(('conv', dtype, side) for dtype in HALVES for side in (0, 3, 5)),
        ('conv', 'float64', 0),
    },
    'shift_wise_grad_weight.cu': {
        *(('grad_weight', dtype, side) for dtype in HALVES for side in (0, 3, 5)),
        ('grad_weight', 'float64', 0),
        ('reduce_chunks', 'float32', None),
        ('reduce_chunks', 'float64', None),
        *(('gather_grad', dtype, None) for dtype in TYPES.values()),
    },
    'shift_add.cu': {
        *(('shift_add', dtype, None) for dtype in TYPES.values()),
        *(('shift_add_grad', dtype, None) for dtype in TYPES.values()),
    },
}


class Kernel(NamedTuple):
    """What ptxas says of one kernel on one GPU generation; spills in bytes of local memory."""

    name: str
    dtype: str
    side: int | None
    arch: int
    registers: int
    spill_stores: int
    spill_loads: int


def find_nvcc() -> str | None:
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') or '/usr/local/cuda'
    return shutil.which('nvcc') or shutil.which('nvcc', path=str(Path(home) / 'bin'))


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
    """Compiles one file for all generations in one call; the log holds ptxas's figures."""
    command = [nvcc, '-std=c++17', '-c', '--threads', '2', '--ptxas-options=-v']
    command += ['--Werror', 'all-warnings', '-Xcompiler', '-fPIC,-Wall']
    # as torch builds extensions
    command += ['-D__CUDA_NO_HALF_OPERATORS__', '-D__CUDA_NO_HALF_CONVERSIONS__']
    command += ['-D__CUDA_NO_HALF2_OPERATORS__', '-D__CUDA_NO_BFLOAT16_CONVERSIONS__']
    codes = known_codes(nvcc)
    for ptx, machines in GENERATIONS.items():
        known = ','.join(f'sm_{code}' for code in machines if code in codes)
        if known:
            command += ['-gencode', f'arch=compute_{ptx},code=[{known}]']
    done = subprocess.run(
        [*command, str(source), '-o', str(target)], capture_output=True, text=True, check=False
    )
    return done, done.stdout + done.stderr


def parse_figures(log: str) -> Iterator[Kernel]:
    for part in log.split('Compiling entry function ')[1:]:
        mangled, arch = re.match(r"'(\w+)' for 'sm_(\d+)'", part).groups()
        types = '|'.join(TYPES)
        name, dtype, side = re.search(
            rf'\d+([a-z][a-z_]*)_kernelI({types})(?:Li(\d+)E)?E', mangled
        ).groups()
        stores, loads = re.search(
            r'(\d+) bytes spill stores, (\d+) bytes spill loads', part
        ).groups()
        registers = re.search(r'Used (\d+) registers', part).group(1)
        yield Kernel(
            name,
            TYPES[dtype],
            None if side is None else int(side),
            int(arch),
            int(registers),
            int(stores),
            int(loads),
        )


@pytest.fixture(scope='module')
def nvcc() -> str:
    found = find_nvcc()
    if found is None:
        pytest.skip('nvcc: neither on PATH nor under CUDA_HOME')
    return found


def test_every_source_is_compiled() -> None:
    assert {path.name for path in SOURCES.glob('*.cu')} == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize('name', sorted(EXPECTED))
def test_compiles_without_spills(nvcc: str, tmp_path: Path, name: str) -> None:
    done, log = compile_source(nvcc, SOURCES / name, tmp_path / 'kernels.o')
    assert done.returncode == 0, log
    kernels = list(parse_figures(log))
    found = {(kernel.name, kernel.dtype, kernel.side, kernel.arch) for kernel in kernels}
    assert found == {(*kernel, arch) for kernel in EXPECTED[name] for arch in known_codes(nvcc)}
    spilling = [kernel for kernel in kernels if kernel.spill_stores or kernel.spill_loads]
    assert not spilling
    for kernel in kernels:  # as many as a multiprocessor has for one block of the largest size
        threads = {'grad_weight': 640, 'conv': 128, 'assemble': 128}.get(kernel.name, 256)
        assert kernel.registers * threads <= 65536, kernel


def test_no_kernel_uses_atomics() -> None:
    for path in SOURCES.iterdir():
        assert not re.search(r'\batomic\w*\s*\(', path.read_text(encoding='utf-8')), path.name


def test_only_the_binding_knows_torch() -> None:
    for path in SOURCES.iterdir():
        text = path.read_text(encoding='utf-8')
        uses_torch = re.search(r'#include <(torch|ATen|c10)/', text) is not None
        assert uses_torch == (path.name == 'binding.cpp'), path.name


@pytest.mark.slow
@pytest.mark.ci
def test_the_binding_agrees_with_torch_and_with_the_launchers(nvcc: str, tmp_path: Path) -> None:
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
    python_include = Path(sysconfig.get_paths()['include'])
    if compiler is None or cuda_include is None or not (python_include / 'Python.h').is_file():
        pytest.skip("cuda-headers: a C++ compiler, CUDA's headers and Python.h are needed")
    if not (include / 'c10' / 'cuda' / 'CUDAGuard.h').is_file():
        pytest.skip('cuda-headers: this torch comes without the headers of its CUDA part')
    generated = Path('c10', 'cuda', 'impl', 'cuda_cmake_macros.h')
    if not (include / generated).is_file():
        (tmp_path / generated).parent.mkdir(parents=True)
        (tmp_path / generated).write_text('#pragma once\n', encoding='utf-8')
    folders = [tmp_path, include, include / 'torch/csrc/api/include', python_include, cuda_include]
    done = subprocess.run(
        [
            compiler,
            '-std=c++20',
            '-fsyntax-only',
            '-DTORCH_EXTENSION_NAME=_cuda',
            *(f'-isystem{folder}' for folder in folders),
            '-Wall',
            '-Werror',
            str(SOURCES / 'binding.cpp'),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def figures_table() -> str:
    """Markdown: a row per kernel, registers per generation, spilled bytes behind a plus."""
    nvcc = find_nvcc()
    if nvcc is None:
        sys.exit('error: nvcc is neither on PATH nor under CUDA_HOME')
    kernels: list[Kernel] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(EXPECTED):
            done, log = compile_source(nvcc, SOURCES / name, Path(folder) / 'kernels.o')
            if done.returncode:
                sys.exit(log)
            kernels += parse_figures(log)
    archs = sorted({kernel.arch for kernel in kernels})
    lines = ['| kernel | dtype | N | ' + ' | '.join(f'sm_{arch}' for arch in archs) + ' |']
    lines.append('| --- | --- | --- |' + ' ---: |' * len(archs))
    rows = sorted({kernel[:3] for kernel in kernels}, key=lambda row: (row[0], row[1], row[2] or 0))
    for row in rows:
        cells = []
        for arch in archs:
            (kernel,) = (one for one in kernels if one[:4] == (*row, arch))
            spilled = kernel.spill_stores + kernel.spill_loads
            cells.append(f'{kernel.registers}' + (f' + {spilled}' if spilled else ''))
        side = {None: '-', 0: 'any'}.get(row[2], row[2])
        lines.append(f'| {row[0]} | {row[1]} | {side} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(figures_table())
