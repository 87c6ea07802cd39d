"""What the backends in C++ and in CUDA share: loading a library, and its operators by name.

The operators of a library check their arguments and bring derivatives of any order
(``mmsw/ops/csrc``); what compilers have to know of their shapes stands in ``library.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import compiled
from ..pattern_tables import PatternTables
from .backend import Outputs


def load(backend: str) -> str | None:
    """Load the library of this torch.

    Args:
        backend: ``'cpp'`` or ``'cuda'``.

    Returns:
        Why that is not possible, or ``None``.
    """
    path = compiled.library_path(torch.__version__, backend=backend)
    if not path.exists():
        return compiled.missing_reason(backend, torch.__version__)
    try:
        torch.ops.load_library(str(path))
        found = getattr(torch.ops, f'mmsw_{backend}').compiled_for_torch()
    except (OSError, AttributeError, RuntimeError) as error:
        return f'{path.name} cannot be loaded ({error}); {compiled.REBUILD}'
    if compiled.release(found) != compiled.release(torch.__version__):  # a file that was renamed
        return (
            f'{path.name} was compiled for torch {found}, this is torch {torch.__version__}; '
            f'{compiled.REBUILD}'
        )
    return None


class CompiledOperators:
    """The operators of a loaded library as the functions of a backend.

    Args:
        backend: ``'cpp'`` or ``'cuda'``.
    """

    def __init__(self, backend: str) -> None:
        self._library = getattr(torch.ops, f'mmsw_{backend}')

    def shift_add(self, conv_out: Tensor, pattern: PatternTables) -> Outputs:
        """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
        return self._library.shift_add(conv_out, *pattern)

    def shift_add_grad(self, grads: Outputs, pattern: PatternTables) -> Tensor:
        """Gradient of :meth:`shift_add`."""
        return self._library.shift_add_grad(*grads, *pattern)

    def shift_wise_conv2d(self, x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
        """Both steps at once."""
        return self._library.shift_wise_conv2d(x, weight, None, *pattern)

    def shift_wise_conv2d_grad_input(
        self, grads: Outputs, weight: Tensor, pattern: PatternTables
    ) -> Tensor:
        """Gradient of :meth:`shift_wise_conv2d` with respect to ``x``."""
        return self._library.shift_wise_conv2d_grad_input(*grads, weight, None, *pattern)

    def shift_wise_conv2d_grad_weight(
        self, grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
    ) -> Tensor:
        """Gradient of :meth:`shift_wise_conv2d` with respect to the small kernels."""
        return self._library.shift_wise_conv2d_grad_weight(*grads, x, mask, *pattern)

    def cross_conv2d(self, x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
        """The folded form."""
        return self._library.cross_conv2d(x, wide, tall, bias)
