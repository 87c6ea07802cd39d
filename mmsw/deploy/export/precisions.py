"""Which format runs in which precision on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from mmsw.errors import UsageError

from .formats import FORMATS

TYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
PRECISIONS = (*TYPES, 'int8')
# Found by running onnxruntime 1.32 and OpenVINO 2026.4.
_DOES_NOT_RUN = {
    ('onnx', 'bfloat16'): (
        'onnxruntime has no convolution in bfloat16 for the CPU; choose float16, or the format '
        'torch'
    ),
    ('openvino', 'bfloat16'): (
        'OpenVINO reads no convolution of ONNX in bfloat16; choose float16, or the format torch'
    ),
    ('torch', 'int8'): 'choose format onnx or openvino',
}


def check_form(format: str, precision: str, precisions: Collection[str] = PRECISIONS) -> None:
    """Check that there is such a format and such a precision, and that they go together.

    Args:
        format: Its name.
        precision: Its name.
        precisions: Those to choose from.

    Raises:
        UsageError: If not; says what to choose.
    """
    for name, value, known in (('format', format, FORMATS), ('precision', precision, precisions)):
        if value not in known:
            raise UsageError(f'{name} must be one of {", ".join(known)}, got {value!r}')
    check_precision(format, precision)


def check_precision(format: str, precision: str) -> None:
    """Check that files of a format run in a precision.

    Raises:
        UsageError: If they do not; says what does.
    """
    if why := _DOES_NOT_RUN.get((format, precision)):
        raise UsageError(f'format {format} does not run in {precision}: {why}')


def check_range(tensors: Iterable[Tensor], precision: str, what: str) -> None:
    """Check that a precision can hold weights.

    Args:
        tensors: The weights.
        precision: A name of :data:`TYPES`.
        what: Whose weights they are, for the message.

    Raises:
        UsageError: If one is too large for it.
    """
    largest = torch.finfo(TYPES[precision]).max
    found = max(t.abs().max().item() for t in tensors if t.is_floating_point() and t.numel())
    if not found <= largest:
        raise UsageError(
            f'the {what} has a weight of {found:.3g}, and {precision} holds numbers up to '
            f'{largest:.3g}: choose float32 or bfloat16'
        )
