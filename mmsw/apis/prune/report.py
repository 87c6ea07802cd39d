"""What a pruning did: numbers by layer, kind and part, multiply-adds and scores, as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mmsw.sparsity import PruningSettings
from mmsw.sparsity.granularity import granularity_of
from mmsw.text_table import text_table, wrapped
from mmsw.wording import MAC_UNITS, listed

_PART = re.compile(
    r'(backbone\.\w*\d(?=\.)|backbone\.\w+\.\d+(?=\.)|backbone\.\w+(?=\.)|roi_head\.\w+|\w+)'
)
_LARGE = 10**10  # multiply-adds


@dataclass(frozen=True)
class PrunedLayer:
    """One layer before and after.

    Attributes:
        name: Of the layer.
        kind: For instance ``'conv 3x3'``, ``'depthwise 7x7'`` or ``'linear'``.
        units: Units of the layer: filters, channels, blocks or weights.
        before: Units that it kept before.
        after: Units that it keeps now.
        weights: Weights of the layer.
        weights_before: Weights that it kept before.
        weights_after: Weights that it keeps now.
        macs: Multiply-adds of the layer if nothing were pruned; ``None`` where not counted.
    """

    name: str
    kind: str
    units: int
    before: int
    after: int
    weights: int
    weights_before: int
    weights_after: int
    macs: int | None = None

    @property
    def part(self) -> str:
        """The stage, neck or head that it belongs to: ``'backbone.layer1'``, ``'neck'``."""
        return _PART.match(self.name)[1]


@dataclass(frozen=True)
class PruneReport:
    """What was pruned.

    Attributes:
        path: The file that was written.
        settings: What was asked for.
        layers: The layers that were pruned.
        left_out: By name of the layers that could be pruned but were not, the reason.
        frozen: Pruned layers that the config freezes, so that no training mends them.
        macs: Multiply-adds of the network: if nothing were pruned, by the weights kept before, and
            by those kept now. ``None`` where they could not be counted.
        shape: ``(channels, H, W)`` of the image that they are for; or why there are none.
        scores_before: Metrics on the validation data; ``None`` where not measured.
        scores_after: The same of the pruned model.
        no_scores: Why they were not measured.
        sparse_kernels: For ``'2:4'``: layers whose size all of torch's semi-structured kernels take
            in half precision.
    """

    path: Path
    settings: PruningSettings
    layers: tuple[PrunedLayer, ...]
    left_out: dict[str, str]
    frozen: tuple[str, ...]
    macs: tuple[int, int, int] | None
    shape: tuple[int, int, int] | str
    scores_before: dict[str, float] | None
    scores_after: dict[str, float] | None
    no_scores: str | None
    sparse_kernels: tuple[str, ...] | None = None

    @property
    def density(self) -> float:
        """Share of the units of the pruned layers that is kept."""
        return sum(la.after for la in self.layers) / sum(la.units for la in self.layers)

    @property
    def weight_density(self) -> float:
        """Share of the weights of the pruned layers that is kept."""
        return sum(la.weights_after for la in self.layers) / sum(la.weights for la in self.layers)

    def __str__(self) -> str:
        blocks = [self._head(), self._table(), '\n'.join(map(wrapped, self._notes()))]
        if self.scores_before is not None:
            blocks.append(self._scores())
        return '\n\n'.join(blocks) + f'\n\nwrote {self.path}'

    def _head(self) -> str:
        settings = self.settings
        unit = granularity_of(settings.granularity).unit
        kept, all_ = sum(la.after for la in self.layers), sum(la.units for la in self.layers)
        how = 'in every layer' if settings.per_layer else 'over all layers together'
        return (
            f'{settings.granularity}, by {settings.by}, {how}: {all_ - kept:,} of {all_:,} {unit}s '
            f'of {len(self.layers)} layers are pruned ({1 - kept / all_:.2%})'
        )

    def _table(self) -> str:
        unit = granularity_of(self.settings.granularity).unit
        power = self._power
        head = ['part', 'kind', 'layers', f'{unit}s', 'before', 'now']
        head += [] if unit == 'weight' else ['weights', 'before', 'now']
        head += [MAC_UNITS[power], 'now']
        groups: dict[tuple[str, str], list[PrunedLayer]] = {}
        for layer in self.layers:
            groups.setdefault((layer.part, layer.kind), []).append(layer)
        groups[('in all', '')] = list(self.layers)
        rows = []
        for names, layers in groups.items():
            units, weights = _Row.of_units(layers), _Row.of_weights(layers)
            cells = [*names, str(len(layers)), *units.cells]
            rows.append(
                [*cells, *(weights.cells if unit != 'weight' else []), *_work(layers, power)]
            )
        return text_table(head, rows, left=2)

    @property
    def _power(self) -> int:
        return 9 if self.macs is not None and self.macs[0] >= _LARGE else 6

    def _notes(self) -> list[str]:
        notes = []
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            notes.append(f'left out ({reason}): {listed(names, 8)}')
        if self.frozen:
            notes.append(
                f'pruned, but frozen by the config, so that no training mends them: '
                f'{listed(self.frozen)}'
            )
        if self.macs is None:
            notes.append(f'multiply-adds not counted: {self.shape}')
        else:
            dense, before, now = (f'{count / 10**self._power:,.1f}' for count in self.macs)
            notes.append(
                f'multiply-adds of the whole network at {" x ".join(map(str, self.shape))} that '
                f'weights that are kept take part in: {now} of {dense} {MAC_UNITS[self._power]} '
                f'({self.macs[2] / self.macs[0]:.1%}), before {before}; a dense kernel computes '
                'them all'
            )
        if self.sparse_kernels is not None:
            notes.append(
                f'{len(self.sparse_kernels)} of {len(self.layers)} layers have a size that all '
                'semi-structured kernels of torch take in half precision'
            )
        if self.no_scores is not None:
            notes.append(f'no scores: {self.no_scores}')
        return notes

    def _scores(self) -> str:
        rows = [
            (name, f'{before:.4g}', f'{self.scores_after[name]:.4g}')
            for name, before in self.scores_before.items()
            if name in self.scores_after
        ]
        return text_table(('validation', 'before', 'after'), rows)


@dataclass(frozen=True)
class _Row:
    """Cells of a table: how many there are, and the shares kept before and now."""

    total: int
    before: int
    now: int

    @classmethod
    def of_units(cls, layers: list[PrunedLayer]) -> _Row:
        parts = ((la.units, la.before, la.after) for la in layers)
        return cls(*map(sum, zip(*parts, strict=True)))

    @classmethod
    def of_weights(cls, layers: list[PrunedLayer]) -> _Row:
        parts = ((la.weights, la.weights_before, la.weights_after) for la in layers)
        return cls(*map(sum, zip(*parts, strict=True)))

    @property
    def cells(self) -> list[str]:
        return [f'{self.total:,}', *(f'{n / self.total:.2%}' for n in (self.before, self.now))]


def _work(layers: list[PrunedLayer], power: int) -> list[str]:
    """Multiply-adds of layers, and of what they keep; dashes where none of them is counted."""
    known = [la for la in layers if la.macs is not None]
    if not known:
        return ['-', '-']
    now = sum(la.macs * la.weights_after / la.weights for la in known)
    return [f'{count / 10**power:,.1f}' for count in (sum(la.macs for la in known), now)]


def kind_of(layer: nn.Module) -> str:
    """What a layer is, in two words: ``'conv 3x3'``, ``'depthwise 7x7'``, ``'linear'``."""
    shape = layer.weight.shape
    if len(shape) == 2:
        return 'linear'
    size = 'x'.join(map(str, shape[2:]))
    alone = shape[1] == 1 and getattr(layer, 'groups', shape[0]) == shape[0] > 1
    return f'{"depthwise" if alone else "conv"} {size}'
