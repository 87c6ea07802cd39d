"""``.pt2`` files with machine code: a program of ``torch.export`` that AOTInductor compiled.

The code is for the kind of processor that compiled it, so the file lists what that one can do.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsw.errors import DataError, UsageError
from mmsw.whole_file import write_whole
from mmsw.wording import listed, short

from .metadata import EXTRA_FILE, KEY, ExportMetadata

_CODE = '/data/aotinductor/model/'
_ABILITIES = 'processor'  # under this name, beside the metadata of mmsw


def check_compiler() -> None:
    """Check that there is a C++ compiler.

    Raises:
        UsageError: If not.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # torch has an error of its own for each system
        raise UsageError(
            'compiling needs a C++ compiler, and torch finds none: install g++ or clang++, or name '
            'one in the environment variable CXX'
        ) from error


def compile_file(path: Path, compiled: Path, example: Tensor) -> None:
    """Compile a ``.pt2`` file.

    Args:
        path: A file that ``write_program`` wrote.
        compiled: File to write, whole or not at all; it holds the same metadata.
        example: An image ``[B, C, H, W]`` that the program takes.

    Raises:
        UsageError: If torch cannot compile it.
    """
    extra = {EXTRA_FILE: ''}
    graph = torch.export.load(path, extra_files=extra)
    graph.example_inputs = ((example,), {})
    about = {KEY: extra[EXTRA_FILE], _ABILITIES: ' '.join(sorted(_abilities()))}
    # With it, torch 2.13 mixes up the order of memory where a number of maps depends on data, as
    # that of boxes does: from the second convolution of a mask head on, results are wrong.
    # Segmentors have no such number, and it makes them faster.
    reorder = ExportMetadata.from_text(extra[EXTRA_FILE], path).task == 'segmentation'
    settings = {'aot_inductor.metadata': about, 'layout_optimization': reorder}

    def write(file: Path) -> None:
        try:
            torch._inductor.aoti_compile_and_package(
                graph, package_path=os.fspath(file), inductor_configs=settings
            )
        except OSError:
            raise
        except Exception as error:  # it fails in many ways
            raise UsageError(
                f'torch cannot compile this program ({short(error)}): leave --compile out'
            ) from error

    write_whole(compiled, write)


def is_compiled(path: str | os.PathLike[str]) -> bool:
    """Whether a ``.pt2`` file holds machine code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_CODE in name for name in archive.namelist())
    except zipfile.BadZipFile:
        return False  # those who read it say what is wrong


def open_compiled(path: str) -> tuple[Callable[[Tensor], Any], str | None]:
    """What runs a compiled file, and the text of its metadata.

    Raises:
        DataError: If this processor lacks something that the one had that compiled it.
    """
    about = _about(path)
    missing = set(about.get(_ABILITIES, '').split()) - _abilities()
    if missing:
        raise DataError(
            f'{path} was compiled for a processor that has {listed(sorted(missing))}, and this one '
            'has not: compile it here, with --compile of tools/export.py'
        )
    return torch._inductor.aoti_load_package(path), about.get(KEY)


def _about(path: str) -> dict[str, str]:
    """What is stored beside the code; none of it is run."""
    with zipfile.ZipFile(path) as archive:
        found = [
            n for n in archive.namelist() if _CODE in n and n.endswith('wrapper_metadata.json')
        ]
        return json.loads(archive.read(found[0])) if found else {}


def _abilities() -> set[str]:
    """Instruction sets of this processor by the names of Linux; empty on other systems."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, values = line.partition(':')
        if name.strip() in ('flags', 'Features'):
            return set(values.split())
    return set()
