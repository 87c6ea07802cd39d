"""Reading checkpoint files without running what is in them, and writing them whole or not."""

from __future__ import annotations

import argparse
import codecs
import functools
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmsw.errors import MmswError
from mmsw.whole_file import write_whole

PUBLISHED_FILE = (
    "The published SW-tiny v2 (ImageNet-1k, 300 epochs) is linked from the README of the authors' "
    'repository, github.com/lidc54/shift-wiseConv; it lies on a file-sharing site, so download it '
    'by hand and name it with --pretrained. To train without it: tools/train.py CONFIG '
    '--from-scratch, or init_cfg=None in the backbone of your config'
)

# What torch's messages say where a file asks for more than data; other messages are about damage.
_FORBIDDEN = re.compile(
    r'GLOBAL [\w.]+|unrecognized function .+|unsupported class .+'
    r'|Can only (?:build|create new object) .+|getattr\(.+ is not data'
)


class CheckpointError(MmswError, ValueError):
    """A checkpoint file is missing, damaged, unsafe or of another network; the message tells."""


def allow_checkpoint_classes() -> None:
    """Tell torch which harmless classes mmengine's and the release's checkpoints hold.

    Since torch 2.6 ``torch.load`` refuses every class it does not know, and mmengine 0.10.7 cannot
    resume from its own files. Only data containers are added: log histories, numpy arrays, and the
    command line of the release. mmengine pickles the names of four statistics as
    ``getattr(HistoryBuffer, name)``; that ``getattr`` is replaced by a function that answers for
    these four and nothing else.
    """
    torch.serialization.add_safe_globals(list(_harmless()))


@functools.cache
def _harmless() -> tuple[Any, ...]:
    codes = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '?')
    rebuild = (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0])
    return (
        argparse.Namespace,
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(code)) for code in codes),
        *(
            _known_as(f'numpy.{core}.multiarray', function.__name__, function)
            for function in rebuild
            for core in ('core', '_core')  # numpy 1 and 2
        ),
        _known_as('_codecs', 'encode', codecs.encode),  # bytes; torch 2.4 does not know it
        _known_as('builtins', 'getattr', _history_statistic),
        _known_as('__builtin__', 'getattr', _history_statistic),
    )


def _known_as(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under the name by which files ask for it; torch before 2.6 knows no aliases."""

    def stand_in(*args: Any) -> Any:
        return function(*args)

    stand_in.__module__, stand_in.__name__, stand_in.__qualname__ = module, name, name
    return stand_in


def _history_statistic(owner: type, name: str) -> Any:
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not data')


def load_checkpoint_file(path: str | os.PathLike[str], trust: bool = False) -> Any:
    """Read a checkpoint file onto the CPU.

    Args:
        path: A local file.
        trust: Unpickle whatever the file asks for. That can run any code: for files of known origin
            only.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: If the file is missing, damaged, or asks for more than data.
    """
    path = Path(path)
    if not path.is_file():
        what = 'is a folder' if path.is_dir() else 'does not exist'
        raise CheckpointError(
            f'checkpoint file {path} {what} (working folder: {Path.cwd()}). {PUBLISHED_FILE}'
        )
    allow_checkpoint_classes()
    try:
        return torch.load(path, map_location='cpu', weights_only=not trust)
    except Exception as error:  # a damaged pickle can fail in any way
        forbidden = _FORBIDDEN.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and forbidden:
            raise CheckpointError(
                f'checkpoint file {path} asks to load more than tensors and plain data, which can '
                f'run any code ({forbidden[0]}). If you trust its origin, convert it once: '
                f'python tools/convert_checkpoint.py {path} DST.pth --trust'
            ) from error
        if trust and isinstance(error, (ImportError, AttributeError)):
            raise CheckpointError(
                f'checkpoint file {path} needs code that is not installed here: {error}'
            ) from error
        raise CheckpointError(
            f'checkpoint file {path} ({path.stat().st_size} bytes) cannot be read '
            f'({_short(error)}): it is truncated, or no PyTorch file. Download or copy it again'
        ) from error


def save_checkpoint_file(checkpoint: Any, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint under a temporary name, then rename: a file of this name is always whole.

    Args:
        checkpoint: What ``torch.save`` accepts.
        path: Destination; its folder is created.
    """
    write_whole(Path(path), lambda temporary: torch.save(checkpoint, temporary))


def _short(error: Exception) -> str:
    first_sentence = ' '.join(str(error).split()).split('. ')[0][:120]
    return f'{type(error).__name__}: {first_sentence}' if first_sentence else type(error).__name__
