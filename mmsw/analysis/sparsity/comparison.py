"""Two checkpoints of one architecture against each other: what both keep, what only one keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mmsw.sparsity import Density
from mmsw.summed import Summed

from .figures import density_data
from .layers import MaskedNetwork, ShiftWiseLayer
from .slak import SLaKLayer


@dataclass(frozen=True)
class Shared(Summed):
    """What two checkpoints keep of a layer, a stage or a network; counts of parts add up.

    Attributes:
        first: What the first checkpoint keeps, all paths together.
        second: What the second one keeps.
        both: Filters that both keep.
        only_first: Filters that the first one keeps and the second one does not.
        only_second: Filters that the second one keeps and the first one does not.
        zeros_lost: Weights that the first one prunes and the second one does not.
        zeros_gained: Weights that the second one prunes and the first one does not.
    """

    first: Density = field(default_factory=Density)
    second: Density = field(default_factory=Density)
    both: int = 0
    only_first: int = 0
    only_second: int = 0
    zeros_lost: int = 0
    zeros_gained: int = 0

    @property
    def neither(self) -> int:
        """Filters that both prune."""
        return self.first.total - self.both - self.only_first - self.only_second

    @property
    def zeros(self) -> int:
        """Weights that the first checkpoint prunes."""
        return self.first.weights_total - self.first.weights_kept

    @property
    def overlap(self) -> float:
        """Of the filters that either keeps, the share that both keep; 1 where there are none."""
        either = self.both + self.only_first + self.only_second
        return self.both / either if either else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; counts as they are, shares beside them."""
        return {
            **asdict(self),
            **dict(first=density_data(self.first), second=density_data(self.second)),
            **dict(neither=self.neither, zeros=self.zeros, overlap=self.overlap),
        }


@dataclass(frozen=True)
class SparsityComparison:
    """Two checkpoints against each other.

    Attributes:
        first: The first checkpoint, for instance the one before fine-tuning.
        second: The second one.
        layers: One per layer, in the order in which they run.
        moved: Names of layers whose filters the two place differently; none in SLaK.
    """

    first: MaskedNetwork = field(repr=False)
    second: MaskedNetwork = field(repr=False)
    layers: tuple[Shared, ...] = field(repr=False)
    moved: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, ``STAGE.BLOCK``."""
        return tuple(layer.name for layer in self.first.layers)

    @property
    def stages(self) -> tuple[Shared, ...]:
        """By stage."""
        return tuple(
            sum(self.layers_of(stage), Shared()) for stage in range(len(self.first.shape.depths))
        )

    @property
    def total(self) -> Shared:
        """In all."""
        return sum(self.layers, Shared())

    @property
    def has_single_weights(self) -> bool:
        """Whether a kept filter of either checkpoint lacks single weights."""
        sides = [side for layer in self.layers for side in (layer.first, layer.second)]
        return any(s.weights_kept * s.total != s.kept * s.weights_total for s in sides)

    def layers_of(self, stage: int) -> tuple[Shared, ...]:
        """Layers of one stage."""
        owners = self.first.layers
        return tuple(p for p, own in zip(self.layers, owners, strict=True) if own.stage == stage)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(
            first=self.first.source,
            second=self.second.source,
            network=asdict(self.first.shape),
            moved=list(self.moved),
            total=self.total.to_dict(),
            stages=[dict(stage=stage, **part.to_dict()) for stage, part in enumerate(self.stages)],
            layers=[
                dict(name=name, **part.to_dict())
                for name, part in zip(self.names, self.layers, strict=True)
            ],
        )


def compare(first: MaskedNetwork, second: MaskedNetwork) -> SparsityComparison:
    """Put two checkpoints against each other, filter by filter and weight by weight.

    Args:
        first: For instance the checkpoint before fine-tuning.
        second: The one after it.

    Raises:
        ValueError: If they are of different architectures.
    """
    for name in ('family', *first.shape.compared, 'num_paths'):
        own, other = getattr(first.shape, name), getattr(second.shape, name)
        if own != other:
            raise ValueError(
                f'{first.source} and {second.source} are of different networks: {name} is {own} in '
                f'the first and {other} in the second; only checkpoints of one network can be '
                'compared'
            )
    pairs = list(zip(first.layers, second.layers, strict=True))
    moved = tuple(one.name for one, other in pairs if _moved(one, other))
    return SparsityComparison(first, second, tuple(_shared(*pair) for pair in pairs), moved)


def _shared(first: ShiftWiseLayer | SLaKLayer, second: ShiftWiseLayer | SLaKLayer) -> Shared:
    kept, kept_later = first.filters, second.filters
    weights, weights_later = first.weights, second.weights
    return Shared(
        sum(first.paths, Density()),
        sum(second.paths, Density()),
        both=int((kept & kept_later).sum()),
        only_first=int((kept & ~kept_later).sum()),
        only_second=int((~kept & kept_later).sum()),
        zeros_lost=int((~weights & weights_later).sum()),
        zeros_gained=int((weights & ~weights_later).sum()),
    )


def _moved(first: ShiftWiseLayer | SLaKLayer, second: ShiftWiseLayer | SLaKLayer) -> bool:
    if isinstance(first, SLaKLayer):
        return False  # a kernel's blocks have their places
    tables = ('shift_hv', 'identity_index')
    own, other = first.pattern, second.pattern
    return not all(torch.equal(getattr(own, name), getattr(other, name)) for name in tables)
