"""What the operator benchmark measures on: layers of the networks, with maps and kernels."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsw.analysis.complexity.operator_work import cross_taps
from mmsw.ops import ShiftPattern, shift_add
from mmsw.ops.assemble import arm_taps

Tensors = tuple[Tensor, ...]

_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class OperatorShape:
    """One shift-wise layer: where it comes from and its sizes.

    Attributes:
        version: Generation of the network, or a name of one's own.
        crop: Side of the image, in pixels.
        stage: 1 to 4.
        channels: Channels C that take part.
        size: Side of the map, in positions.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R.
    """

    version: str
    crop: int
    stage: int
    channels: int
    size: int
    big_kernel: int
    small_kernel: int
    num_reps: int

    def multiply_adds(self) -> int:
        """Of the fused operator, one image: ``C * H * W * (2 * N * L + N * N)``."""
        taps = cross_taps(self.big_kernel, self.small_kernel, whole_arms=True)
        return self.channels * self.size**2 * taps

    def folded_multiply_adds(self) -> int:
        """Of the folded form, one image: ``C * H * W * 2 * N * L``."""
        taps = arm_taps(self.big_kernel, self.small_kernel)
        return self.channels * self.size**2 * 2 * self.small_kernel * taps

    def __str__(self) -> str:
        return f'{self.version} {self.crop} stage {self.stage}'


def stage_shapes(version: str, crop: int, arch: str = 'tiny') -> list[OperatorShape]:
    """The four stages of a published network, as its own tables give them.

    Raises:
        ValueError: If there is no such network.
    """
    from mmsw.models.backbones import ShiftWiseNet
    from mmsw.ops.ghost_channels import ghost_channels

    key = (version, arch)
    if key not in ShiftWiseNet.arch_settings:
        known = sorted({version for version, _ in ShiftWiseNet.arch_settings})
        raise ValueError(f'version must be one of {known}, got {version!r}')
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(ShiftWiseNet.__init__).parameters.items()
    }
    return [
        OperatorShape(
            version,
            crop,
            stage,
            dim - len(ghost_channels(dim, default['ghost_ratio'], version)),
            crop // stride,
            big_kernel,
            ShiftWiseNet.default_small_kernel[version],
            default['num_reps'],
        )
        for stage, (dim, stride, big_kernel) in enumerate(
            zip(
                ShiftWiseNet.arch_settings[key]['dims'],
                _STRIDES,
                default['big_kernels'],
                strict=True,
            ),
            start=1,
        )
    ]


class Case:
    """Data of one shape: a map, small kernels (some pruned) and what the operator makes of them."""

    def __init__(
        self,
        shape: OperatorShape,
        batch: int,
        device: torch.device,
        seed: int,
        sparsity: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape, self.batch, self.device, self.sparsity = shape, batch, device, sparsity
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)
        self.pattern = ShiftPattern.draw(
            shape.big_kernel, shape.small_kernel, shape.channels, shape.num_reps
        ).to(device)
        n = shape.small_kernel
        self.x = self.randn(batch, shape.channels, shape.size, shape.size)
        filters = shape.channels * self.pattern.num_groups
        weight = self.randn(filters, 1, n, n) / n
        pruned = torch.randperm(filters, generator=self._generator)[: round(sparsity * filters)]
        weight[pruned.to(device)] = 0
        self.weight = weight
        self.kept = torch.ones(filters, dtype=torch.bool, device=device)
        self.kept[pruned.to(device)] = False
        self.expected: dict[str, list[Tensor]] = {}  # by mode: what the reference backend computes

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self._generator).to(self.device, self.dtype)

    def small_conv(self, x: Tensor, weight: Tensor) -> Tensor:
        side = self.shape.small_kernel
        return F.conv2d(x, weight, padding=side - 1, groups=self.shape.channels)

    def definition(self, x: Tensor, weight: Tensor, channels: Tensor) -> Tensors:
        """The operator, literally, for some channels of the pattern."""
        groups = self.pattern.num_groups
        pattern = ShiftPattern(
            self.shape.big_kernel,
            self.shape.small_kernel,
            take(self.pattern.shift_hv, 0, self.shape.channels, channels),
            self.pattern.identity_index[channels] % groups
            + torch.arange(len(channels), device=self.device).unsqueeze(1) * groups,
        )
        side = self.shape.small_kernel
        conv_out = F.conv2d(x, weight, padding=side - 1, groups=len(channels))
        return shift_add(conv_out, pattern, backend='torch')


def take(tensor: Tensor, dim: int, channels: int, chosen: Tensor) -> Tensor:
    """Entries of some channels along a dimension that holds the same number for every channel."""
    split = tensor.detach().unflatten(dim, (channels, -1))
    return split.index_select(dim, chosen).flatten(dim, dim + 1)
