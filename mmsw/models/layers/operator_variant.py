"""The operator of the ablations: learned branch weights, constants, a spread identity, padding.

They change how the cross kernel is assembled, what is added to the outputs, and what is left out at
the border of a map. The loops over the map are those of :mod:`mmsw.ops` on every backend.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsw.errors import StateDictError
from mmsw.ops import ShiftPattern, depthwise_conv2d, shift_wise_conv2d
from mmsw.ops.assemble import BranchFactors, CrossKernels, assemble
from mmsw.ops.blur import blur_inside, blur_kernel, check_blur_index, draw_blur
from mmsw.ops.map_border import leave_out_tall, leave_out_wide
from mmsw.ops.position import PositionSums, position_maps, sinusoids, sum_positions

from .variant_options import VariantOptions

Outputs = tuple[Tensor, Tensor, Tensor]


class OperatorVariant(nn.Module):
    """What a shift-wise layer has beside small kernels and pattern, and how it then runs.

    Args:
        options: Which options are on.
        pattern: The pattern of the layer.
    """

    options: Tensor
    _version = 1

    def __init__(self, options: VariantOptions, pattern: ShiftPattern) -> None:
        super().__init__()
        self.chosen = options
        channels, reps = pattern.channels, pattern.num_reps
        rows = dict(h=channels * pattern.num_groups, v=channels * pattern.num_groups, i=channels)
        self.num_groups = pattern.num_groups
        for branch, count in rows.items():
            if options.branch_weights:
                self.register_parameter(f'weight_{branch}', nn.Parameter(torch.ones(count, reps)))
            if options.position:
                constants = sinusoids(count, reps).to(torch.empty(0).device)
                self.register_buffer(f'position_{branch}', constants)
        if options.identity == 'blur':
            drawn = draw_blur(pattern.big_kernel, channels, reps)
            self.register_buffer('blur_index', drawn.to(torch.empty(0).device))
        self.register_buffer('options', options.as_tensor())

    @torch.no_grad()
    def init_weights(self) -> None:
        """Every branch weighs all small kernels alike."""
        for weight in self.parameters():
            weight.fill_(1.0)

    def factors(self) -> BranchFactors | None:
        """The branch weights, where there are some."""
        if not self.chosen.branch_weights:
            return None
        return BranchFactors(self.weight_h, self.weight_v, self.weight_i)

    def positions(self, pattern: ShiftPattern) -> PositionSums | None:
        """The constants by slot, where there are some."""
        if not self.chosen.position:
            return None
        own = self.position_h, self.position_v, self.position_i
        return sum_positions(*own, pattern.tables())

    def kernels(self, weight: Tensor, pattern: ShiftPattern) -> CrossKernels:
        """The kernels of the three outputs, whatever the padding and without the constants.

        Args:
            weight: Small kernels ``[C * nk, 1, N, N]``.
            pattern: Where they are placed.

        Returns:
            Both arms, and the identity kernel ``[C, N, N]``, or ``[C, 9, 9]`` where it is spread.
        """
        factors = self.factors()
        if factors is not None:
            factors = BranchFactors(*(factor.to(weight.dtype) for factor in factors))
        wide, tall, small = assemble(weight, pattern.tables(), factors=factors)
        if self.chosen.identity == 'blur':
            small = blur_kernel(weight, self.blur_index, None if factors is None else factors.i)
        return CrossKernels(wide, tall, small)

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        pattern: ShiftPattern,
        backend: str | None = None,
        mask: Tensor | None = None,
    ) -> Outputs:
        """Horizontal, vertical and identity output, see :func:`mmsw.ops.shift_wise_conv2d`."""
        chosen = self.chosen
        blurred = chosen.identity == 'blur'
        if chosen._replace(position=False) != VariantOptions():
            kernels = self.kernels(weight, pattern)
        if chosen.branch_weights:
            h = run_kernel(x, kernels.wide.mT, backend)
            v = run_kernel(x, kernels.tall, backend)
            i = None if blurred else run_kernel(x, kernels.small, backend)
        else:
            h, v, i = shift_wise_conv2d(x, weight, pattern, backend, mask)
        if blurred:
            i = run_spread(x, kernels.small, chosen, backend)
        if chosen.padding == 'same':
            h = leave_out_wide(h, x, kernels.wide, pattern.big_kernel)
            v = leave_out_tall(v, x, kernels.tall, pattern.big_kernel)
        sums = self.positions(pattern)
        if sums is not None:
            sizes = pattern.big_kernel, pattern.small_kernel
            maps = constant_maps(sums, x.shape[2:], chosen, *sizes)
            h, v, i = (out + one.to(out.dtype) for out, one in zip((h, v, i), maps, strict=True))
        return h.contiguous(), v.contiguous(), i.contiguous()

    def extra_repr(self) -> str:
        return str(self.chosen)

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        index = state_dict.get(f'{prefix}blur_index')
        if index is not None and self.chosen.identity == 'blur':
            try:
                check_blur_index(index, self.blur_index, self.num_groups)
            except ValueError as error:
                raise StateDictError(f'"{prefix[:-1]}" cannot be loaded: {error}') from error
            key = f'{prefix}blur_index'
            state_dict = {**state_dict, key: index.to(torch.int64).contiguous()}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def run_kernel(x: Tensor, kernel: Tensor, backend: str | None) -> Tensor:
    """Depthwise convolution with ``[C, rows, columns]``, zeros around the map."""
    short = min(kernel.shape[1:])
    return depthwise_conv2d(x, kernel.unsqueeze(1), small_kernel=short, backend=backend)


def run_spread(x: Tensor, kernel: Tensor, options: VariantOptions, backend: str | None) -> Tensor:
    """The spread identity output with its kernel ``[C, 9, 9]``."""
    if options.padding == 'full':
        return run_kernel(x, kernel, backend)
    return blur_inside(x, kernel, lambda x, strip: run_kernel(x, strip, backend))


def constant_maps(
    sums: PositionSums,
    size: tuple[int, int],
    options: VariantOptions,
    big_kernel: int,
    small_kernel: int,
) -> Outputs:
    """Constant maps of the outputs, see :func:`mmsw.ops.position.position_maps`."""
    margin = options.margin(small_kernel)
    spread = options.spread(big_kernel, small_kernel)
    return position_maps(sums, size, big_kernel, small_kernel, margin, spread)
