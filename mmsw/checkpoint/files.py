"""Reading checkpoint files without running what is in them, and writing them whole or not."""

from __future__ import annotations

import argparse
import codecs
import errno
import functools
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmsw.errors import CheckpointError
from mmsw.whole_file import write_whole

from .format import read_record

PUBLISHED_FILE = (
    "The published SW-tiny v2 (ImageNet-1k, 300 epochs) is linked from the README of its authors' "
    'repository, github.com/lidc54/shift-wiseConv, and networks of SLaK from that of '
    'github.com/VITA-Group/SLaK; they lie on file-sharing sites, so download the one of your '
    'backbone by hand and name it with --pretrained. To train without it: tools/train.py CONFIG '
    '--from-scratch, or init_cfg=None in the backbone of your config'
)

# What torch's messages say where a file asks for more than data; other messages are about damage.
_FORBIDDEN = re.compile(
    r'GLOBAL [\w.]+|unrecognized function .+|unsupported class .+'
    r'|Can only (?:build|create new object) .+|getattr\(.+ is not data'
)


_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory")
_ARCHIVE = b'PK\x03\x04'
_PICKLE = 'data.pkl'  # the record that every archive of torch.save has
# Environment variables that torch.load obeys, whatever its caller asks for.
_DATA_ONLY, _ANYTHING = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


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


@contextmanager
def only_data_is_read() -> Iterator[None]:
    """Inside, no ``torch.load`` of this process runs what a file asks for, whoever calls it.

    Parts of a model that are not of this project read the files that they start from with
    ``torch.load`` as its version or mmengine has it, and older versions unpickle anything.

    Raises:
        CheckpointError: Instead of torch's own error about a file that asks for more than data.
    """
    before = {name: os.environ.pop(name, None) for name in (_DATA_ONLY, _ANYTHING)}
    os.environ[_DATA_ONLY] = '1'
    try:
        with _statistics_kept():
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            'a file that a part of the model starts from cannot be read as tensors and plain data '
            f'({_short(error)}). If you trust its origin, save its state dict alone in a new file '
            'with torch.save, and name that one'
        ) from error
    finally:
        del os.environ[_DATA_ONLY]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextmanager
def _statistics_kept() -> Iterator[None]:
    """Keep the statistics of all histories, which unpickling one history replaces."""
    statistics = HistoryBuffer()._statistics_methods  # the first history of a process fills them in
    before = dict(statistics)
    try:
        yield
    finally:
        statistics.clear()
        statistics.update(before)


def load_checkpoint_file(
    path: str | os.PathLike[str], trust: bool = False, name: str | None = None
) -> Any:
    """Read a checkpoint file onto the CPU.

    Args:
        path: A local file.
        trust: Unpickle whatever the file asks for. That can run any code: for files of known origin
            only.
        name: What messages call the file; its path if left out.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: If the file is missing, damaged, of a newer format of mmsw, or asks for
            more than data.
    """
    path = Path(path)
    what, size = f'checkpoint file {name or path}', None
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise IsADirectoryError
        allow_checkpoint_classes()
        if not trust:
            _check_records(path, size, what)
        with _statistics_kept():
            contents = torch.load(path, map_location='cpu', weights_only=not trust)
        read_record(contents, str(name or path))
        return contents
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        problem = 'is a folder' if path.is_dir() else 'does not exist'
        raise CheckpointError(
            f'{what} {problem} (working folder: {Path.cwd()}). {PUBLISHED_FILE}'
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(_problem(error, what, size, trust)) from error


def _check_records(path: Path, size: int, what: str) -> None:
    """Raise if an archive is none of ``torch.save``, which stores its records as they are.

    Others may unpack to far more bytes than they have.

    Raises:
        CheckpointError: If it is none.
        zipfile.BadZipFile: If the archive is damaged.
    """
    with open(path, 'rb') as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:
            return
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    total = sum(record.file_size for record in records)
    if not any(record.filename.endswith(_PICKLE) for record in records):
        problem, cure = f'it has no {_PICKLE}', 'Name a checkpoint of PyTorch, such as a .pth file'
    elif any(record.compress_type != zipfile.ZIP_STORED for record in records):
        problem = 'its records are compressed, which torch.save never does'
        cure = 'If you trust its origin, read it with torch.load and save it again'
    elif total > size:
        problem = f'its {size} bytes claim to hold {total} bytes of records'
        cure = 'Download or copy it again, from an origin that you trust'
    else:
        return
    raise CheckpointError(f'{what} is not written by torch.save: {problem}. {cure}')


def _problem(error: Exception, what: str, size: int | None, trust: bool) -> str:
    """What to tell about a file that torch cannot read."""
    forbidden = _FORBIDDEN.search(str(error))
    if isinstance(error, pickle.UnpicklingError) and forbidden:
        name = what.removeprefix('checkpoint file ')
        how = 'download it and convert it once' if '://' in name else 'convert it once'
        return (
            f'{what} asks to load more than tensors and plain data, which can run any code '
            f'({forbidden[0]}). If you trust its origin, {how}: python '
            f'tools/convert_checkpoint.py {"SRC.pth" if "://" in name else name} DST.pth --trust'
        )
    if trust and isinstance(error, (ImportError, AttributeError)):
        return f'{what} needs code that is not installed here: {error}'
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return (
            f'{what} ({size} bytes) cannot be read: there is not enough memory for it '
            f'({_short(error)}). Free some, or read it on a machine with more'
        )
    # A file that is cut off may send torch to a place before its beginning: an invalid argument.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return f'{what} cannot be read: {_short(error)}'
    return (
        f'{what} ({size} bytes) cannot be read ({_short(error)}): it is truncated, or no PyTorch '
        'file. Download or copy it again'
    )


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
