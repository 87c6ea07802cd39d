"""The modules of a shift-wise network beside those of a SLaK, stage by stage (the text's Table 4).

Convolutions count, norms and biases do not, as in :mod:`.closed_forms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmsw.models import ShiftWiseNet

from ..stages import map_sizes, stage_layers
from .closed_forms import (
    complexity_ratio,
    shift_additions,
    shift_wise_macs,
    shift_wise_parameters,
    slak_pair_macs,
    slak_pair_parameters,
)
from .operator_work import layer_work

PUBLISHED_WIDTH = 1.3  # of SLaK, times the channels of ConvNeXt
SLAK_KERNELS = (51, 49, 47, 13)
SLAK_SIZES = ('tiny', 'small', 'base')
_SLAK_SMALL_KERNEL = 5


@dataclass(frozen=True)
class SlakModule:
    """SLaK's pair of convolutions in a stage, small branch folded into it.

    Attributes:
        channels: Channels, which all take part.
        big_kernel: Long side M.
        small_kernel: Short side N.
        parameters: Weights of the pair.
        macs: Multiply-adds of the pair for one image.
        blocks: Such modules in the stage.
    """

    channels: int
    big_kernel: int
    small_kernel: int
    parameters: int
    macs: int
    blocks: int


@dataclass(frozen=True)
class ShiftWiseModule:
    """A shift-wise module, the first of its stage, paths merged.

    Attributes:
        channels: Channels that take part, without ghost channels.
        big_kernel: Focus length M.
        small_kernel: Side N.
        parameters: Weights of the small convolutions.
        trained: Weights of all paths, which merge after training.
        macs: Multiply-adds of the small convolutions, border included, for one image.
        additions: Additions of the shifts.
        cross: Multiply-adds of the same operator as one cross kernel, as this project computes it.
        cross_used: Of these, what is left when empty blocks are skipped.
        blocks: Such modules in the stage.
    """

    channels: int
    big_kernel: int
    small_kernel: int
    parameters: int
    trained: int
    macs: int
    additions: int
    cross: int
    cross_used: int
    blocks: int


@dataclass(frozen=True)
class StageComparison:
    """Modules of one stage.

    Attributes:
        stage: Its number, from 0.
        map_size: ``(H, W)`` of its map.
        slak: The module of the SLaK.
        shift_wise: The module of the network.
        equal_channels: Equation 8: what the ratio would be with equal channels, without the border.
    """

    stage: int
    map_size: tuple[int, int]
    slak: SlakModule
    shift_wise: ShiftWiseModule
    equal_channels: float

    @property
    def parameter_ratio(self) -> float:
        """Parameters of SLaK's module over those of the shift-wise module."""
        return self.slak.parameters / self.shift_wise.parameters

    @property
    def macs_ratio(self) -> float:
        """The same for multiply-adds, border included, additions left out."""
        return self.slak.macs / self.shift_wise.macs


@dataclass(frozen=True)
class ModuleComparison:
    """A network's modules beside a SLaK's.

    Attributes:
        network: Name of the network.
        slak: Size of the SLaK, ``'tiny'``, ``'small'`` or ``'base'``.
        width_factor: Its width, times the channels of ConvNeXt.
        shape: ``(H, W)`` of the image in pixels.
        stages: By stage.
    """

    network: str
    slak: str
    width_factor: float
    shape: tuple[int, int]
    stages: tuple[StageComparison, ...]

    def totals(self) -> dict[str, int]:
        """Sums over all modules of all stages."""
        pairs = [(stage.slak, stage.shift_wise) for stage in self.stages]
        return dict(
            slak_parameters=sum(slak.blocks * slak.parameters for slak, _ in pairs),
            slak_macs=sum(slak.blocks * slak.macs for slak, _ in pairs),
            **{
                f'shift_wise_{name}': sum(own.blocks * getattr(own, name) for _, own in pairs)
                for name in ('parameters', 'macs', 'additions', 'cross')
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(
            network=self.network,
            slak=self.slak,
            width_factor=self.width_factor,
            shape=list(self.shape),
            total=self.totals(),
            stages=[
                dict(
                    asdict(stage),
                    map_size=list(stage.map_size),
                    parameter_ratio=stage.parameter_ratio,
                    macs_ratio=stage.macs_ratio,
                )
                for stage in self.stages
            ],
        )


def compare_modules(
    net: ShiftWiseNet,
    shape: Sequence[int],
    slak: str = 'tiny',
    width_factor: float = PUBLISHED_WIDTH,
    name: str = 'network',
) -> ModuleComparison:
    """Put the first module of each stage of a network beside that of a SLaK.

    The figures of SLaK are in closed form. Those of the network are of its layers as they are.

    Args:
        net: A network of four stages in its training form.
        shape: ``(H, W)`` of an image in pixels.
        slak: Size of the SLaK: ``'tiny'``, ``'small'`` or ``'base'``.
        width_factor: Width of the SLaK, times the channels of ConvNeXt; 1.3 is published.
        name: Of the network, for the table.

    Raises:
        ValueError: If the network is folded or has not four stages, or an argument is out of range.
    """
    if slak not in SLAK_SIZES:
        raise ValueError(f'slak must be one of {", ".join(SLAK_SIZES)}, got {slak!r}')
    if not 0 < width_factor < float('inf'):
        raise ValueError(f'width_factor must be positive, got {width_factor}')
    if len(net.stages) != len(SLAK_KERNELS):
        raise ValueError(
            f'the network has {len(net.stages)} stages, but a SLaK has {len(SLAK_KERNELS)}'
        )
    sizes = map_sizes(net.version, shape, len(net.stages))
    stages = []
    for index, ours, theirs in zip(
        range(len(sizes)),
        _shift_wise_modules(net, sizes),
        _slak_modules(slak, width_factor, shape),
        strict=True,
    ):
        equal = complexity_ratio(ours.big_kernel, ours.small_kernel)
        stages.append(StageComparison(index, sizes[index], theirs, ours, equal))
    return ModuleComparison(name, slak, width_factor, tuple(shape), tuple(stages))


def _slak_modules(slak: str, width_factor: float, shape: Sequence[int]) -> Iterator[SlakModule]:
    arch = ShiftWiseNet.arch_settings['v1', slak]  # both are built as ConvNeXt
    sizes = map_sizes('v1', shape)
    for depth, dim, big, size in zip(
        arch['depths'], arch['dims'], SLAK_KERNELS, sizes, strict=True
    ):
        kernel = (int(dim * width_factor), big, _SLAK_SMALL_KERNEL)
        work = (slak_pair_parameters(*kernel), slak_pair_macs(*kernel, *size))
        yield SlakModule(*kernel, *work, depth)


def _shift_wise_modules(
    net: ShiftWiseNet, sizes: Sequence[tuple[int, int]]
) -> Iterator[ShiftWiseModule]:
    for layers, size in zip(stage_layers(net), sizes, strict=True):
        layer = layers[0]
        pattern = layer.pattern
        kernel = (layer.num_active, pattern.big_kernel, pattern.small_kernel)
        cross, used, _ = layer_work(layer, 1, *size)
        yield ShiftWiseModule(
            *kernel,
            parameters=shift_wise_parameters(*kernel),
            trained=sum(path.weight.numel() for path in layer.paths),
            macs=shift_wise_macs(*kernel, *size),
            additions=shift_additions(*kernel, pattern.num_reps, *size),
            cross=cross,
            cross_used=used,
            blocks=len(layers),
        )
