"""What a backend is: the one place where the signatures of the operators stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..pattern_tables import PatternTables
from .call import Call

Outputs = tuple[Tensor, Tensor, Tensor]  # horizontal, vertical, identity; each [B, C, H, W]


class Backend(Protocol):
    """A module (or an object) that runs the operators.

    It is cheap to import: what it needs (the Taichi runtime, a CUDA context) starts inside the
    functions that run operators. Their tensors are on one device, hold one of float64, float32,
    float16 and bfloat16, and fit together in size; they may have any strides and require gradients.
    Results are contiguous, of the same dtype, and no views of the arguments.

    Attributes:
        NEEDS_CHECK: Whether it is compared with ``torch`` at its first use on a device.
    """

    NEEDS_CHECK: bool

    def unavailable_reason(self) -> str | None:
        """Why it cannot run here at all, or ``None``; cheap when it is asked again."""

    def refuses(self, call: Call) -> str | None:
        """Why it cannot run this call, or ``None``: its device, dtype or sizes.

        Asked while ``torch.compile`` traces, and of backends that are not available. A function
        that the module lacks is never called: ``cross_conv2d`` may be left to the other backends.
        """

    def shift_add(self, conv_out: Tensor, pattern: PatternTables) -> Outputs:
        """See :func:`mmsw.ops.shift_add`."""

    def shift_add_grad(self, grads: Outputs, pattern: PatternTables) -> Tensor:
        """Gradient of :meth:`shift_add` with respect to ``conv_out``."""

    def shift_wise_conv2d(self, x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
        """See :func:`mmsw.ops.shift_wise_conv2d`."""

    def shift_wise_conv2d_grad_input(
        self, grads: Outputs, weight: Tensor, pattern: PatternTables
    ) -> Tensor:
        """Gradient of :meth:`shift_wise_conv2d` with respect to ``x``."""

    def shift_wise_conv2d_grad_weight(
        self, grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
    ) -> Tensor:
        """Gradient of :meth:`shift_wise_conv2d` with respect to the small kernels.

        ``mask`` is boolean, ``[C * nk]``. The gradient of a small kernel whose mask is off is
        exactly zero and need not be computed.
        """

    def cross_conv2d(self, x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
        """See :func:`mmsw.ops.cross_conv2d`."""

    def depthwise_conv2d(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int
    ) -> Tensor:
        """See :func:`mmsw.ops.depthwise_conv2d`.

        A backend that has this one has the two below as well.
        """

    def depthwise_conv2d_grad_input(
        self, grad: Tensor, weight: Tensor, small_kernel: int
    ) -> Tensor:
        """Gradient of :meth:`depthwise_conv2d` with respect to ``x``."""

    def depthwise_conv2d_grad_weight(
        self, grad: Tensor, x: Tensor, kernel_size: tuple[int, int], small_kernel: int
    ) -> Tensor:
        """Gradient of :meth:`depthwise_conv2d` with respect to ``weight``."""

    def bias_gelu(self, hidden: Tensor, bias: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """See :func:`mmsw.ops.bias_gelu`; ``bias`` is in the type that is computed in.

        ``hidden`` may be overwritten unless it is to be kept. This and those below may be left to
        the other backends, and need no derivative.
        """

    def gelu_grad(
        self, grad: Tensor, hidden: Tensor, bias: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(grad + factor * gelu(y)) * gelu'(y)`` for ``y = hidden + bias``, and its sums.

        ``factor`` is ``[B, K]``, as are the sums over the positions. ``grad`` may be overwritten.
        """

    def channel_norm(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, keep: bool = True
    ) -> Tensor:
        """See :func:`mmsw.ops.channel_norm.channel_norm`.

        ``weight`` and ``bias`` are in the type that is computed in. A backend with this function
        has the two below as well; of ``torch``, this one is differentiable instead.
        """

    def channel_norm_statistics(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The norm, never in place, and means and reciprocal deviations ``[B, P]``."""

    def channel_norm_grad(
        self, grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the map, of the weight and of the bias."""

    def row_moments(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Means of the rows of up to five maps, and the covariances of every two of them.

        A row is one channel of one sample, at every position. Maps are ``[B, C, P]`` of one dtype.
        The first one has the most channels; a later one with fewer counts as nothing beyond them.
        This and the two below may be left to the other backends, and need no derivative.

        Returns:
            Means ``[n, B, C]`` and covariances ``[n, n, B, C]``, divided by P, both float64 and
            zero where a map has no such row.
        """

    def row_products(self, grad: Tensor, maps: Sequence[Tensor], mean: Tensor) -> Tensor:
        """Sums over the positions of ``grad * (map - mean)`` for each map, and last of ``grad``.

        ``grad`` has the shape of the first map; ``mean`` is ``[n, B, C]``, float64.

        Returns:
            ``[n + 1, B, C]``, float64, zero where a map has no such row.
        """

    def row_sums(
        self, maps: Sequence[Tensor], mean: Tensor, factors: Tensor, channels: Sequence[int]
    ) -> list[Tensor]:
        """Maps whose rows are sums over ``factor * (map - mean)``, plus a number.

        Args:
            maps: n of them, as in :meth:`row_moments`.
            mean: ``[n, B, C]``, float64.
            factors: ``[m, n + 1, B, C]``, float64; the last one of each row is the number.
            channels: How many of the C channels each of the m maps has.

        Returns:
            m maps ``[B, channels, P]``, contiguous, of the dtype of the first map.
        """
