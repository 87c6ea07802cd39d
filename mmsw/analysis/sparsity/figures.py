"""Figures of sparsity: what is kept, at which distances, and how much work that leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.pattern_tables import shift_slot
from mmsw.ops.work import cross_taps
from mmsw.sparsity import Density
from mmsw.summed import Summed

from ..complexity.operator_work import used_blocks
from ..stages import map_sizes
from .layers import MaskedNetwork, ShiftWiseLayer
from .slak import SLaKLayer, blocks_of

_ARMS = ('horizontal', 'vertical')


@dataclass(frozen=True)
class Placed(Summed):
    """Small kernels that are placed somewhere, and the blocks of the cross kernel there.

    Attributes:
        kept: Placements of kept kernels; every path and every repetition counts.
        total: Placements.
        blocks_left: Blocks, one per channel, where some path and some repetition places a kept one.
        blocks: Blocks.
    """

    kept: int = 0
    total: int = 0
    blocks_left: int = 0
    blocks: int = 0

    @property
    def density(self) -> float:
        """Share of the placed kernels that is kept; 1 where there are none."""
        return self.kept / self.total if self.total else 1.0

    @property
    def block_density(self) -> float:
        """Share of the blocks that block skipping cannot skip; 1 where there are none."""
        return self.blocks_left / self.blocks if self.blocks else 1.0


@dataclass(frozen=True)
class Part:
    """Figures of a layer, a stage or a network; figures of parts add up.

    Attributes:
        paths: What each path keeps, filters and weights.
        slots: Filters of one path, ``C * nk`` summed over the layers.
        shared: Slots whose filter every path keeps.
        covered: Slots whose filter some path keeps.
        unshared_weights: Weights of one path that some paths keep and others do not.
        places: By arm (``'horizontal'``, ``'vertical'``) and offset of the middle of the block from
            the centre of the cross, in positions of the map.
        identity: The same for the groups that the identity branch uses; a group drawn twice counts
            twice.
        dense: Multiply-adds of the operator in its cross form if nothing were pruned, one image.
        used: Of these, what is left when empty blocks are skipped.
        pointwise: Multiply-adds of the pointwise layers in the same blocks.
    """

    paths: tuple[Density, ...] = ()
    slots: int = 0
    shared: int = 0
    covered: int = 0
    unshared_weights: int = 0
    places: dict[tuple[str, int], Placed] = field(default_factory=dict, repr=False)
    identity: Placed = Placed()
    dense: int = 0
    used: int = 0
    pointwise: int = 0

    @property
    def density(self) -> Density:
        """What all paths together keep."""
        return sum(self.paths, Density())

    @property
    def paths_differ(self) -> bool:
        """Whether a filter is kept by some paths only."""
        return self.shared != self.covered

    @property
    def covered_density(self) -> float:
        """Share of the slots whose filter some path keeps: blocks left in the arms if R were 1."""
        return self.covered / self.slots if self.slots else 1.0

    @property
    def arms(self) -> Placed:
        """Both arms, all offsets."""
        return sum(self.places.values(), Placed())

    @property
    def work_left(self) -> float:
        """Share of the operator's multiply-adds that is left; 1 where there are none."""
        return self.used / self.dense if self.dense else 1.0

    def by_distance(self) -> dict[int, Placed]:
        """Both arms and both directions together, by distance from the centre, ascending."""
        found: dict[int, Placed] = {}
        for (_, offset), placed in self.places.items():
            found[abs(offset)] = found.get(abs(offset), Placed()) + placed
        return dict(sorted(found.items()))

    def __add__(self, other: Part) -> Part:
        if not self.paths or not other.paths:
            return self if self.paths else other
        keys = dict.fromkeys([*self.places, *other.places])
        return Part(
            tuple(a + b for a, b in zip(self.paths, other.paths, strict=True)),
            self.slots + other.slots,
            self.shared + other.shared,
            self.covered + other.covered,
            self.unshared_weights + other.unshared_weights,
            {k: self.places.get(k, Placed()) + other.places.get(k, Placed()) for k in keys},
            self.identity + other.identity,
            self.dense + other.dense,
            self.used + other.used,
            self.pointwise + other.pointwise,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; counts as they are, shares beside them."""

        def placed(value: Placed) -> dict[str, Any]:
            shares = dict(density=value.density, block_density=value.block_density)
            return {**asdict(value), **shares}

        return dict(
            **density_data(self.density),
            paths=[density_data(path) for path in self.paths],
            slots=self.slots,
            slots_shared=self.shared,
            slots_covered=self.covered,
            weights_unshared=self.unshared_weights,
            offsets=[
                dict(arm=arm, offset=offset, **placed(value))
                for (arm, offset), value in sorted(self.places.items())
            ],
            identity=placed(self.identity),
            macs_dense=self.dense,
            macs_used=self.used,
            macs_pointwise=self.pointwise,
        )


@dataclass(frozen=True)
class SparsityAnalysis:
    """Figures of a network.

    Attributes:
        network: What was looked at.
        shape: ``(H, W)`` of the image in pixels that the multiply-adds are for.
        layers: One per layer of ``network``, in its order.
    """

    network: MaskedNetwork = field(repr=False)
    shape: tuple[int, int]
    layers: tuple[Part, ...] = field(repr=False)

    @property
    def stages(self) -> tuple[Part, ...]:
        """By stage."""
        return tuple(
            sum(self.layers_of(stage), Part()) for stage in range(len(self.network.shape.depths))
        )

    @property
    def total(self) -> Part:
        """In all. Its offsets mix stages of different focus lengths."""
        return sum(self.layers, Part())

    @property
    def has_single_weights(self) -> bool:
        """Whether a kept filter lacks single weights."""
        paths = [path for part in self.layers for path in part.paths]
        return any(p.weights_kept * p.total != p.kept * p.weights_total for p in paths)

    def layers_of(self, stage: int) -> tuple[Part, ...]:
        """Layers of one stage; the first of them is the stage's first layer."""
        owners = self.network.layers
        return tuple(p for p, own in zip(self.layers, owners, strict=True) if own.stage == stage)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        net, total = self.network, self.total
        whole = total.to_dict()
        del whole['offsets']
        return dict(
            source=net.source,
            network=asdict(net.shape),
            big_kernels=list(net.big_kernels),
            num_reps=net.num_reps,
            notes=list(net.notes),
            shape=list(self.shape),
            parameters=net.parameters,
            parameters_pruned=pruned_parameters(total),
            total=whole,
            stages=[
                dict(stage=stage, first=self.layers_of(stage)[0].to_dict(), **part.to_dict())
                for stage, part in enumerate(self.stages)
            ],
            layers=[
                dict(name=layer.name, **part.to_dict())
                for layer, part in zip(net.layers, self.layers, strict=True)
            ],
        )


def density_data(density: Density) -> dict[str, Any]:
    """Plain data for a JSON file; shares beside the counts."""
    shares = dict(density=density.density, weight_density=density.weight_density)
    return {**asdict(density), **shares}


def pruned_parameters(part: Part) -> int:
    """Weights of small kernels that masks hold at zero."""
    return part.density.weights_total - part.density.weights_kept


def analyze(network: MaskedNetwork, shape: Sequence[int] = (512, 512)) -> SparsityAnalysis:
    """Work out the figures.

    Args:
        network: The layers of a network.
        shape: ``(H, W)`` of an image in pixels, for the multiply-adds.

    Raises:
        ValueError: If the shape is not two positive whole numbers.
    """
    version = getattr(network.shape, 'version', 'v1')  # the maps of SLaK are those of v1
    maps = map_sizes(version, shape, len(network.shape.depths))
    layers = tuple(_figures(layer, *maps[layer.stage]) for layer in network.layers)
    return SparsityAnalysis(network, tuple(shape), layers)


def layer_figures(layer: ShiftWiseLayer, height: int, width: int) -> Part:
    """Figures of one layer.

    Args:
        layer: The layer.
        height: Rows of its map.
        width: Columns of its map.
    """
    filters, pattern = layer.filters, layer.pattern
    positions = height * width
    side = pattern.small_kernel
    return Part(
        paths=layer.paths,
        slots=filters.shape[1],
        shared=int(filters.all(0).sum()),
        covered=int(filters.any(0).sum()),
        unshared_weights=int((layer.masks.any(0) & ~layer.masks.all(0)).sum()),
        places=_places(filters, pattern),
        identity=_identity(filters, pattern),
        dense=pattern.channels * cross_taps(pattern.big_kernel, side) * positions,
        used=used_blocks(filters.any(0), pattern) * side**2 * positions,
        pointwise=layer.pointwise * positions,
    )


def _figures(layer: ShiftWiseLayer | SLaKLayer, height: int, width: int) -> Part:
    figures = slak_figures if isinstance(layer, SLaKLayer) else layer_figures
    return figures(layer, height, width)


def slak_figures(layer: SLaKLayer, height: int, width: int) -> Part:
    """Figures of the large kernel of a block of SLaK; its blocks of N x N stand for the filters.

    Args:
        layer: The layer.
        height: Rows of its map.
        width: Columns of its map.
    """
    positions, n = height * width, layer.small_kernel
    places, identity = {}, Placed()
    for branch, mask in layer.masks.items():
        for offset, blocks in blocks_of(mask, n):
            kept = blocks.flatten(1).any(1)
            number = int(kept.sum())
            placed = Placed(number, len(kept), number, len(kept))
            if branch == 'small':
                identity = identity + placed
            else:
                places[branch, offset] = places.get((branch, offset), Placed()) + placed
    (density,) = layer.paths
    return Part(
        paths=layer.paths,
        slots=density.total,
        shared=density.kept,
        covered=density.kept,
        places=places,
        identity=identity,
        dense=density.weights_total * positions,
        used=sum(layer.used_weights().values()) * positions,
        pointwise=layer.pointwise * positions,
    )


def slot_offset(slot: int, big_kernel: int, small_kernel: int) -> int:
    """Middle of a slot's block, seen from the centre of the cross, in positions of the map."""
    return slot * small_kernel - big_kernel // 2 + small_kernel // 2


def _places(filters: Tensor, pattern: ShiftPattern) -> dict[tuple[str, int], Placed]:
    channels, groups, reps = pattern.channels, pattern.num_groups, pattern.num_reps
    big, side = pattern.big_kernel, pattern.small_kernel
    slot = shift_slot(pattern.shift_hv.long(), big, side).view(channels, groups, 2, reps)
    paths = filters.sum(0).view(channels, groups, 1)  # that keep the filter
    found: dict[tuple[str, int], Placed] = {}
    for arm, name in enumerate(_ARMS):
        count = torch.zeros(channels, groups, dtype=torch.long)
        count.scatter_add_(
            1, slot[:, :, arm].flatten(1), paths.expand(-1, -1, reps).flatten(1).contiguous()
        )
        for index, column in enumerate(count.unbind(1)):
            found[name, slot_offset(index, big, side)] = Placed(
                kept=int(column.sum()),
                total=channels * reps * len(filters),
                blocks_left=int((column > 0).sum()),
                blocks=channels,
            )
    return found


def _identity(filters: Tensor, pattern: ShiftPattern) -> Placed:
    used = filters[:, pattern.identity_index]  # [P, C, R]
    left = int(used.any(2).any(0).sum())
    return Placed(int(used.sum()), used.numel(), left, pattern.channels)
