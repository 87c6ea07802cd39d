"""Running exported files: an array goes in, named arrays come out, whatever the format."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsw.errors import DataError, UsageError
from mmsw.wording import short

from .compiled import is_compiled, open_compiled
from .formats import FORMATS, check_packages, format_of
from .metadata import EXTRA_FILE, KEY, ExportMetadata
from .openvino_core import openvino_core
from .program import INPUT


class ExportedProgram(ABC):
    """An exported file that is open.

    Attributes:
        path: The file.
        metadata: What it tells of itself.
        channels: Of the image that it takes.
    """

    def __init__(self, path: str, metadata: ExportMetadata) -> None:
        self.path, self.metadata = path, metadata
        self.channels = metadata.image.channels

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program.

        Args:
            image: ``[B, C, H, W]`` float32, prepared as ``metadata.image`` says.

        Returns:
            Outputs by name.

        Raises:
            DataError: If the program does not take an image of this size, or fails.
        """
        image = np.ascontiguousarray(image, dtype=np.float32)
        self._check(image.shape)
        try:
            found = self._outputs(image)
        except Exception as error:  # runtimes fail in their own ways
            raise DataError(
                f'{self.path} fails for an image {list(image.shape)} ({short(error)})'
            ) from error
        return dict(zip(self.metadata.outputs, found, strict=True))

    @abstractmethod
    def _outputs(self, image: np.ndarray) -> Sequence[np.ndarray]:
        """The outputs, in the order of their names in the metadata."""

    def _check(self, shape: tuple[int, ...]) -> None:
        meta = self.metadata
        if len(shape) != 4 or shape[1] != self.channels or 0 in shape:
            raise DataError(
                f'{self.path} takes images [B, {self.channels}, H, W], got {list(shape)}'
            )
        if meta.size is not None and shape[2:] != meta.size:
            height, width = meta.size
            raise DataError(
                f'{self.path} was exported for {height} x {width} pixels, got an image of '
                f'{shape[2]} x {shape[3]}'
            )
        if min(shape[2:]) < meta.smallest:
            raise DataError(
                f'{self.path} takes images of {meta.smallest} x {meta.smallest} pixels or more, '
                f'got {shape[2]} x {shape[3]}; one that is exported with --size takes smaller ones'
            )
        if shape[0] > 1 and not meta.batched:
            raise DataError(f'{self.path} takes one image at a time, got {shape[0]}')


def open_program(path: str | os.PathLike[str], threads: int | None = None) -> ExportedProgram:
    """Open a file that ``tools/export.py`` wrote, to run it on the CPU.

    A ``.pt2`` file is code by nature: open only files of people whom you trust.

    Args:
        path: The file; its ending tells the format.
        threads: How many threads compute; ``None`` for as many as torch has here. A ``.pt2`` file
            runs with those of torch.

    Raises:
        UsageError: If the file is not there, its name tells no format, or what runs it is not
            installed.
        DataError: If it is damaged, or no file of mmsw.
    """
    name = os.fspath(path)
    kind = format_of(name)
    if not Path(name).is_file():
        problem = 'is a folder' if Path(name).is_dir() else 'does not exist'
        raise UsageError(f'exported file {name} {problem} (working folder: {Path.cwd()})')
    if threads is not None and threads < 1:
        raise UsageError(f'threads must be 1 or more, got {threads}')
    check_packages(FORMATS[kind].runs, f'running {name}')
    return _OPENED[kind](name, threads or torch.get_num_threads())


class _Onnx(ExportedProgram):
    """In onnxruntime."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # its threads would wait at full speed, and keep what runs beside it from the processor
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3  # errors; its warnings are about its own optimisations
        with _damage_named(path):
            session = onnxruntime.InferenceSession(
                path, options, providers=['CPUExecutionProvider']
            )
        known = session.get_modelmeta().custom_metadata_map
        super().__init__(path, _metadata(known.get(KEY), path))
        self._session = session

    def _outputs(self, image: np.ndarray) -> Sequence[np.ndarray]:
        return self._session.run(list(self.metadata.outputs), {INPUT: image})


class _OpenVino(ExportedProgram):
    """In OpenVINO."""

    def __init__(self, path: str, threads: int) -> None:
        core = openvino_core()
        if not Path(path).with_suffix('.bin').is_file():
            raise DataError(
                f'{path} has no {Path(path).with_suffix(".bin").name} beside it: an OpenVINO model '
                'is both files'
            )
        with _damage_named(path):
            model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        super().__init__(path, _metadata(text, path))
        options = {
            'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1, 'INFERENCE_PRECISION_HINT': 'f32',
        }  # fmt: skip
        with _damage_named(path):
            self._request = core.compile_model(model, 'CPU', options).create_infer_request()

    def _outputs(self, image: np.ndarray) -> Sequence[np.ndarray]:
        found = self._request.infer({INPUT: image})
        return [np.array(found[name]) for name in self.metadata.outputs]


class _Torch(ExportedProgram):
    """As a program of ``torch.export``, or what AOTInductor made of it."""

    def __init__(self, path: str, threads: int) -> None:
        with _damage_named(path):
            self._module, text = (open_compiled if is_compiled(path) else _open_graph)(path)
        super().__init__(path, _metadata(text, path))

    def _outputs(self, image: np.ndarray) -> Sequence[np.ndarray]:
        with torch.no_grad():
            found = self._module(torch.from_numpy(image))
        found = (found,) if isinstance(found, torch.Tensor) else found
        return [part.numpy() for part in found]


def _open_graph(path: str) -> tuple[Callable[[Tensor], Any], str | None]:
    extra = {EXTRA_FILE: ''}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), extra[EXTRA_FILE] or None


_OPENED: dict[str, Callable[[str, int], ExportedProgram]] = {
    'onnx': _Onnx,
    'openvino': _OpenVino,
    'torch': _Torch,
}


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Inside, an error of a runtime that reads a file becomes one line that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # runtimes fail in their own ways
        raise DataError(
            f'{path} cannot be read ({short(error)}): it is damaged, cut off, or no '
            f'{format_of(path)} file; export it again with tools/export.py'
        ) from error


def _metadata(text: str | bytes | None, path: str) -> ExportMetadata:
    if text is None:
        raise DataError(
            f'{path} has no metadata of mmsw: expected a file that tools/export.py wrote'
        )
    return ExportMetadata.from_text(text if isinstance(text, str) else text.decode(), path)
