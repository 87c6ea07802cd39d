"""How much of a network is left: filters and weights per layer, per stage and in all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from torch import nn

from mmsw.summed import Summed

from .layer_masks import layer_of, masked_layers
from .parts import by_part

_STAGE = re.compile(r'(?:^|\.)stages\.(\d+)\.')


@dataclass(frozen=True)
class Density(Summed):
    """Kept and existing small filters (and single weights) of a layer, a stage or a network.

    Attributes:
        kept: Filters with at least one weight left.
        total: Filters.
        weights_kept: Weights left.
        weights_total: Weights.
    """

    kept: int = 0
    total: int = 0
    weights_kept: int = 0
    weights_total: int = 0

    @property
    def density(self) -> float:
        """Share of filters kept; 1 where there are none."""
        return self.kept / self.total if self.total else 1.0

    @property
    def weight_density(self) -> float:
        """Share of weights kept; lower than :attr:`density` where single weights are pruned."""
        return self.weights_kept / self.weights_total if self.weights_total else 1.0

    @property
    def is_sparse(self) -> bool:
        """Whether anything is pruned."""
        return self.weights_kept < self.weights_total

    def __str__(self) -> str:
        text = f'{self.kept}/{self.total} filters ({self.density:.2%})'
        if self.weight_density != self.density:
            text += (
                f', {self.weights_kept}/{self.weights_total} weights ({self.weight_density:.2%})'
            )
        return text


@dataclass(frozen=True)
class SparsityReport:
    """Densities of a network.

    Attributes:
        layers: By layer name; the paths of a layer are counted together.
        stages: By stage number; layers outside numbered stages are under -1.
        total: In all.
    """

    layers: dict[str, Density] = field(default_factory=dict)
    stages: dict[int, Density] = field(default_factory=dict)
    total: Density = Density()

    @property
    def parts(self) -> dict[str, Density]:
        """By part of the model, see :func:`mmsw.sparsity.parts.part_of_layer`."""
        return {
            part: sum((self.layers[name] for name in names), Density())
            for part, names in by_part(self.layers).items()
        }

    def __str__(self) -> str:
        if -1 in self.stages:
            rows = list(self.parts.items())
        else:
            rows = [(f'stage {stage}', density) for stage, density in sorted(self.stages.items())]
        rows.append(('in all', self.total))
        width = max(9, *(len(name) for name, _ in rows))
        return '\n'.join(f'{name:<{width}} {density}' for name, density in rows)


def report(net: nn.Module) -> SparsityReport:
    """Count the small filters that the masks of a network keep.

    Args:
        net: A backbone or a model around it; only layers that own a mask count.

    Returns:
        Densities per layer, per stage and in all. Its text is a table of the stages; where layers
        lie outside of numbered stages, of the parts of the model.
    """
    layers: dict[str, Density] = {}
    for name, path in masked_layers(net):
        mask = path.mask.flatten(1)
        density = Density(int(mask.any(1).sum()), mask.shape[0], int(mask.sum()), mask.numel())
        layer = layer_of(name)
        layers[layer] = layers.get(layer, Density()) + density
    stages: dict[int, Density] = {}
    for name, density in layers.items():
        match = _STAGE.search(name + '.')
        stage = int(match[1]) if match else -1
        stages[stage] = stages.get(stage, Density()) + density
    return SparsityReport(layers, stages, sum(layers.values(), Density()))
