"""What a tool prints, while somebody may stop reading it."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

# Whose warnings are about their own code, which who runs a tool cannot change.
_FOREIGN = (
    *('mmcv', 'mmdet', 'mmengine', 'mmseg', 'torch'),
    *('onnx', 'onnxruntime', 'onnxscript', 'openvino'),
)


@contextlib.contextmanager
def foreign_warnings_are_dropped() -> Iterator[None]:
    """Inside, Python's warnings of the toolboxes, of torch and of other runtimes are not printed.

    Those of mmsw and of a user's own code are, and what ``python -W`` or ``PYTHONWARNINGS`` asks
    for holds.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            module = rf'({"|".join(_FOREIGN)})(\.|$)'
            warnings.filterwarnings('ignore', module=module)
        yield


@contextlib.contextmanager
def unread_output_is_dropped() -> Iterator[None]:
    """Inside, text that nobody reads any longer (``tool | head``) is dropped, and the work goes on.

    Without it the first such line raises ``BrokenPipeError``, and every line of a log prints a
    traceback.
    """
    with (
        contextlib.redirect_stdout(_Output(sys.stdout)),
        contextlib.redirect_stderr(_Output(sys.stderr)),
    ):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Output:
    """A text stream; once its pipe is broken, it leads to the null device."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        # What the stream still holds goes there too, when the interpreter flushes it at its exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
