"""The block of SLaK: a large kernel of parallel branches, layer norm, two linear layers."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmsw.models.layers import DepthwiseConv2d, ShiftWiseLargeKernel
from mmsw.models.layers.folded_operator import affine_of, can_be_folded
from mmsw.ops import cross_conv2d
from mmsw.ops.backends import check_backend

from .folded_block import ARMS
from .residual_block import ConvNeXtLayers, ResidualBlock

_BRANCHES = ('vertical', 'horizontal', 'square', 'small')


class ConvNorm(nn.Module):
    """A depthwise convolution and the norm behind it."""

    def __init__(self, conv: nn.Module, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = conv
        self.norm = build_norm_layer(norm_cfg, channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return self.norm(self.conv(x))

    def merged(self) -> tuple[Tensor, Tensor]:
        """Kernel ``[C, rows, columns]`` and bias ``[C]`` of both in inference, float64."""
        norm = self.norm
        scale, shift = affine_of(
            norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
        )
        return self.conv.weight.squeeze(1).double() * scale.view(-1, 1, 1), shift


class LargeKernelConv2d(nn.Module):
    """Parallel depthwise convolutions of one map, each with its norm, summed (SLaK, section 3).

    Decomposed, they are M x N (``vertical``), N x M (``horizontal``) and N x N (``small``); else M
    x M (``square``) and N x N. The spatial size stays.

    Args:
        channels: Channels C.
        kernel_size: Long side M, odd, in positions of the map.
        small_kernel: Short side N, odd, at most M.
        decomposed: Whether the large kernel is two oblong ones.
        shift_wise: Whether small convolutions and shifts compute the oblong or square kernels, see
            :class:`~mmsw.models.ShiftWiseLargeKernel`: the same function of the same parameters.
        norm_cfg: Norm of the branches.
        backend: Operator backend, see :func:`mmsw.ops.available_backends`.

    Raises:
        ValueError: If a side is even, or the short side exceeds the long one.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        small_kernel: int,
        decomposed: bool,
        shift_wise: bool,
        norm_cfg: dict,
        backend: str | None,
    ) -> None:
        super().__init__()
        _check_sides(kernel_size, small_kernel)
        check_backend(backend)
        self.in_channels = self.num_active = channels
        self.kernel_size = (kernel_size, kernel_size)
        self.small_kernel = small_kernel
        self.backend = backend
        self.deployed = False

        def branch(rows: int, columns: int) -> ConvNorm:
            if shift_wise and max(rows, columns) > small_kernel:
                conv = ShiftWiseLargeKernel(
                    channels, (rows, columns), small_kernel, bias=False, backend=backend
                )
            else:
                conv = DepthwiseConv2d(channels, (rows, columns))
            return ConvNorm(conv, channels, norm_cfg)

        if decomposed:
            self.vertical = branch(kernel_size, small_kernel)
            self.horizontal = branch(small_kernel, kernel_size)
        else:
            self.square = branch(kernel_size, kernel_size)
        self.small = branch(small_kernel, small_kernel)

    def branches(self) -> dict[str, ConvNorm]:
        """The branches by name; none after folding."""
        return {name: self._modules[name] for name in _BRANCHES if name in self._modules}

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if self.deployed:
            return cross_conv2d(x, *(getattr(self, name) for name in ARMS), self.backend)
        first, *others = self.branches().values()
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Merge the branches and their norms into the arms of one cross kernel, for inference.

        A square kernel is a wide arm as tall as it is long, and a tall one without weights.

        Raises:
            TypeError: If a norm cannot be folded; the layer is left as it was.
        """
        if self.deployed:
            return
        for name, branch in self.branches().items():
            if not can_be_folded(branch.norm):
                raise TypeError(
                    'only batch norms with running statistics can be folded: that of '
                    f'{name} is a {type(branch.norm).__name__}; keep the training form'
                )
        merged = {name: branch.merged() for name, branch in self.branches().items()}
        kernels = {name: kernel for name, (kernel, _) in merged.items()}
        dtype = self.small.conv.weight.dtype
        if 'square' in kernels:
            wide = _added_in_the_middle(kernels['square'], kernels['small']).mT
            tall = wide.new_zeros(wide.shape[0], 1, wide.shape[2])
        else:
            wide = kernels['horizontal'].mT
            tall = _added_in_the_middle(kernels['vertical'], kernels['small'])
        bias = sum(shift for _, shift in merged.values())
        for name in merged:
            delattr(self, name)
        for name, tensor in zip(ARMS, (wide, tall, bias), strict=True):
            self.register_buffer(name, tensor.to(dtype).contiguous())
        self.deployed = True

    @property
    def channel_order(self) -> Tensor:
        """Of the folded layer: which channel of the map each one is, ``[C]``: they keep order."""
        return torch.arange(self.in_channels, device=getattr(self, ARMS[0]).device)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, kernel_size={self.kernel_size[0]}, '
            f'small_kernel={self.small_kernel}, backend={self.backend!r}, deployed={self.deployed}'
        )


class SLaKBlock(ConvNeXtLayers, ResidualBlock):
    """Large kernel, layer norm, two linear layers, layer scale (SLaK, arXiv 2207.03620).

    Args:
        channels: Channels C.
        drop_path_rate: Probability of skipping the block for a sample.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        with_cp: Recompute the block in the backward pass to save memory.
        large_kernel: Keyword arguments of :class:`LargeKernelConv2d`.
    """

    operator_name = 'large_kernel'

    def __init__(
        self,
        channels: int,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
        large_kernel: dict,
    ) -> None:
        layer = LargeKernelConv2d(channels, **large_kernel)
        super().__init__(layer, channels, drop_path_rate, layer_scale_init_value, with_cp)
        self._add_layers(channels)

    def _norms_to_fold(self) -> Iterator[tuple[str, nn.Module]]:
        for name, branch in self.large_kernel.branches().items():
            yield f'large_kernel.{name}.norm', branch.norm

    def _is_whole_in(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> bool:
        return f'{prefix}large_kernel.small.conv.weight' in state_dict


def _check_sides(kernel_size: int, small_kernel: int) -> None:
    for name, side in (('big_kernels', kernel_size), ('small_kernel', small_kernel)):
        if side < 1 or side % 2 == 0:
            raise ValueError(
                f'{name} must be odd and positive, so that a map keeps its size, got {side}'
            )
    if small_kernel > kernel_size:
        raise ValueError(
            f'small_kernel must be at most the large kernel, got {small_kernel} and {kernel_size}'
        )


def _added_in_the_middle(kernel: Tensor, small: Tensor) -> Tensor:
    """``kernel`` ``[C, rows, columns]`` and a smaller one about the same centre."""
    rows, columns = (kernel.shape[dim] - small.shape[dim] for dim in (1, 2))
    return kernel + F.pad(small, (columns // 2, columns // 2, rows // 2, rows // 2))
