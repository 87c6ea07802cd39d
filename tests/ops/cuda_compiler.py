"""nvcc and a disassembler, for tests of what the CUDA sources become; no GPU is needed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / 'mmsw' / 'ops' / 'csrc' / 'cuda'
TYPES = {'f': 'float32', 'd': 'float64', '6__half': 'float16', '13__nv_bfloat16': 'bfloat16'}
_NAME = re.compile(rf'\d+([a-z][a-z_]*)_kernel(?:I({"|".join(TYPES)})(?:Li(\d+)ELi(\d+)E)?E)?')
_JUMPS = ('BRA', 'BRX', 'JMP', 'EXIT', 'RET', 'BSYNC', 'BREAK', 'CALL')


class Kernel(NamedTuple):
    """A kernel by what it was made for; side and tile are None where it has no such argument."""

    name: str
    dtype: str | None = None
    side: int | None = None
    tile: int | None = None


class Figures(NamedTuple):
    """What ptxas says of one kernel on one GPU generation; local memory in bytes."""

    kernel: Kernel
    arch: int
    registers: int
    local_memory: int


def find_tool(name: str) -> str | None:
    """A program of the CUDA toolkit: on PATH, in the toolkit, or as Triton's wheel brings it."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') or '/usr/local/cuda'
    folders = [Path(home) / 'bin']
    triton = importlib.util.find_spec('triton')
    if triton is not None:
        folders += [
            Path(folder) / 'backends' / 'nvidia' / 'bin'
            for folder in triton.submodule_search_locations
        ]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def nvcc_or_skip() -> str:
    found = find_tool('nvcc')
    if found is None:
        pytest.skip('nvcc: neither on PATH nor under CUDA_HOME')
    return found


def nvdisasm_or_skip() -> str:
    found = find_tool('nvdisasm')
    if found is None:
        pytest.skip('disassembler: no nvdisasm on PATH, under CUDA_HOME or in a Triton wheel')
    return found


def kernel_of(mangled: str) -> Kernel:
    name, dtype, side, tile = _NAME.search(mangled).groups()
    numbers = (None if value is None else int(value) for value in (side, tile))
    return Kernel(name, TYPES.get(dtype), *numbers)


def compile_cuda(
    nvcc: str, source: Path, target: Path, *arguments: str
) -> tuple[subprocess.CompletedProcess, str]:
    """Compiles as torch builds extensions, warnings as errors; the log holds ptxas's figures."""
    command = [nvcc, '-std=c++17', '--ptxas-options=-v', f'-I{SOURCES}']
    command += ['--Werror', 'all-warnings', '-Xcompiler', '-fPIC,-Wall']
    command += ['-D__CUDA_NO_HALF_OPERATORS__', '-D__CUDA_NO_HALF_CONVERSIONS__']
    command += ['-D__CUDA_NO_HALF2_OPERATORS__', '-D__CUDA_NO_BFLOAT16_CONVERSIONS__']
    done = subprocess.run(
        [*command, *arguments, str(source), '-o', str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done, done.stdout + done.stderr


def parse_figures(log: str) -> Iterator[Figures]:
    for part in log.split('Compiling entry function ')[1:]:
        mangled, arch = re.match(r"'(\w+)' for 'sm_(\d+)'", part).groups()
        stack, stores, loads = re.search(
            r'(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads', part
        ).groups()
        registers = re.search(r'Used (\d+) registers', part).group(1)
        yield Figures(
            kernel_of(mangled), int(arch), int(registers), int(stack) + int(stores) + int(loads)
        )


def disassemble(nvdisasm: str, cubin: Path) -> dict[Kernel, list[list[str]]]:
    """The instructions of every kernel, cut where control may come or go."""
    text = subprocess.run(
        [nvdisasm, '-c', str(cubin)], capture_output=True, text=True, check=True
    ).stdout
    kernels = {}
    for part in re.split(r'\n\s*//-+ \.text\.', text)[1:]:
        pieces: list[list[str]] = [[]]
        for line in part.splitlines():
            instruction = re.match(
                r'\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)', line
            )
            if instruction is not None:
                pieces[-1].append(instruction.group(1))
            if line.startswith('.L_') or (
                instruction is not None and instruction.group(1).split('.')[0] in _JUMPS
            ):
                pieces.append([])
        kernels[kernel_of(part.split(None, 1)[0])] = [piece for piece in pieces if piece]
    return kernels


def count(instructions: list[str], *names: str) -> int:
    """How many instructions have one of the names, of any width; packed ones count twice."""
    doubled = {'FFMA2'}
    return sum(
        2 if name in doubled else 1
        for name in (instruction.split('.')[0] for instruction in instructions)
        if name.removesuffix('2') in names or name in names
    )
