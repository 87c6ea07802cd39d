"""Two checkpoints of any network against each other: which zeros the second one keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmsw.sparsity.parts import by_part
from mmsw.text_table import text_table, wrapped
from mmsw.wording import listed

from .any_network import NetworkSparsity, PrunedLayer
from .comparison import Shared

_BACKBONE = 'backbone.'


@dataclass(frozen=True)
class NetworkComparison:
    """Two checkpoints against each other.

    Attributes:
        first: The first checkpoint, for instance the one before fine-tuning.
        second: The second one.
        layers: By name in the second checkpoint, each layer that both have.
        only_first: Layers that only the first one has, or has in another shape.
        only_second: The same of the second one.
    """

    first: NetworkSparsity = field(repr=False)
    second: NetworkSparsity = field(repr=False)
    layers: dict[str, Shared] = field(repr=False)
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Shared]:
        """By part of the model."""
        return {
            part: sum((self.layers[name] for name in names), Shared())
            for part, names in by_part(self.layers).items()
        }

    @property
    def total(self) -> Shared:
        """In all."""
        return sum(self.layers.values(), Shared())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(
            first=self.first.source,
            second=self.second.source,
            total=self.total.to_dict(),
            parts=[dict(name=name, **part.to_dict()) for name, part in self.parts.items()],
            layers=[dict(name=name, **part.to_dict()) for name, part in self.layers.items()],
            only_first=list(self.only_first),
            only_second=list(self.only_second),
        )


def compare_networks(first: NetworkSparsity, second: NetworkSparsity) -> NetworkComparison:
    """Put two checkpoints against each other, weight by weight.

    A backbone alone is compared with the backbone of a whole model.

    Args:
        first: For instance the checkpoint before fine-tuning.
        second: The one after it.

    Raises:
        ValueError: If no layer of the one is in the other.
    """
    own = {layer.name: layer for layer in first.layers}
    if _has_backbone(second) and not _has_backbone(first):
        own = {_BACKBONE + name: layer for name, layer in own.items()}
    other = {layer.name: layer for layer in second.layers}
    if _has_backbone(first) and not _has_backbone(second):
        other = {_BACKBONE + name: layer for name, layer in other.items()}
    common = [name for name in other if name in own and own[name].shape == other[name].shape]
    if not common:
        raise ValueError(
            f'{first.source} and {second.source} have no layer in common: the first has '
            f'{listed(own, 2)}, the second {listed(other, 2)}; only checkpoints of one network can '
            'be compared'
        )
    return NetworkComparison(
        first,
        second,
        {name: _shared(own[name], other[name]) for name in common},
        tuple(own[name].name for name in own if name not in common),
        tuple(other[name].name for name in other if name not in common),
    )


def _has_backbone(found: NetworkSparsity) -> bool:
    return any(layer.name.startswith(_BACKBONE) for layer in found.layers)


def _shared(first: PrunedLayer, second: PrunedLayer) -> Shared:
    kept, kept_later = (layer.kept.flatten(1).any(1) for layer in (first, second))
    return Shared(
        first.density,
        second.density,
        both=int((kept & kept_later).sum()),
        only_first=int((kept & ~kept_later).sum()),
        only_second=int((~kept & kept_later).sum()),
        zeros_lost=int((~first.kept & second.kept).sum()),
        zeros_gained=int((first.kept & ~second.kept).sum()),
    )


def network_comparison_table(comparison: NetworkComparison) -> str:
    """Per part, per layer that has zeros, and in all, with what is to be said of it in words."""
    header = [f'A: {comparison.first.source}', f'B: {comparison.second.source}']
    total = comparison.total
    layers = {
        name: part
        for name, part in comparison.layers.items()
        if part.first.is_sparse or part.second.is_sparse
    }
    sections = [
        '\n'.join([*header, *map(wrapped, _warnings(comparison))]),
        _table('Part', comparison.parts | {'in all': total}),
        _table('Layer', layers) if layers else '',
        '\n'.join(map(wrapped, _remarks(comparison, len(comparison.layers) - len(layers)))),
    ]
    return '\n\n'.join(filter(None, sections))


def _table(first: str, parts: dict[str, Shared]) -> str:
    head = [first, 'weights', 'A keeps', 'B keeps', 'zeros of A', 'lost', 'gained']
    head += ['filters', 'A keeps', 'B keeps']
    rows = []
    for name, part in parts.items():
        numbers = (part.zeros, part.zeros_lost, part.zeros_gained)
        rows.append(
            [
                name,
                f'{part.first.weights_total:,}',
                *(f'{side.weight_density:.1%}' for side in (part.first, part.second)),
                *(f'{number:,}' for number in numbers),
                f'{part.first.total:,}',
                *(f'{side.density:.1%}' for side in (part.first, part.second)),
            ]
        )
    return text_table(head, rows)


def _warnings(comparison: NetworkComparison) -> list[str]:
    total = comparison.total
    if not total.zeros_lost:
        return []
    where = [name for name, part in comparison.layers.items() if part.zeros_lost]
    return [
        f'ZEROS LOST: B keeps {total.zeros_lost:,} of the {total.zeros:,} weights that A prunes '
        f'({total.zeros_lost / total.zeros:.2%}), in {len(where)} of {len(comparison.layers)} '
        f'layers: {listed(where)}'
    ]


def _remarks(comparison: NetworkComparison, dense: int) -> list[str]:
    total = comparison.total
    lines = ['lost: weights that A prunes and B keeps; gained: weights that B prunes and A keeps']
    if dense:
        lines.append(f'layers that are dense in both: {dense}')
    if not total.zeros:
        lines.append('A prunes nothing, so B has no zeros to keep')
    elif not total.zeros_lost:
        lines.append(f'B keeps every zero of A ({total.zeros:,} weights)')
    elif not total.second.is_sparse:
        lines.append('B is DENSE: it prunes nothing')
    for side, names in (('A', comparison.only_first), ('B', comparison.only_second)):
        if names:
            lines.append(f'layers only in {side}: {listed(names)}')
    return lines
