"""What is pruned in the checkpoint of any network, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmsw.text_table import text_table, wrapped
from mmsw.wording import listed

from .any_network import LayersOfPart, NetworkSparsity, PrunedLayer


def network_table(found: NetworkSparsity) -> str:
    """Every section of the report, separated by empty lines."""
    sections = [_header(found), _parts(found)]
    notable = [layer for layer in found.layers if layer.is_notable]
    if notable:
        sections.append(_layers(notable, len(found.layers) - len(notable)))
    return '\n\n'.join(sections)


def patterns_of(layers: Sequence[PrunedLayer]) -> str:
    """The structures of the zeros of some layers, the most frequent first; a dash for none."""
    kinds = Counter(layer.pattern.kind for layer in layers if layer.is_sparse)
    return ', '.join(f'{kind} ({number})' for kind, number in kinds.most_common()) or '-'


def _header(found: NetworkSparsity) -> str:
    lines = [f'checkpoint {found.source}', *map(wrapped, found.notes)]
    total = found.total
    if total.lost_zeros:
        where = [layer.name for layer in found.layers if layer.lost_zeros]
        lines.append(
            wrapped(
                f'MASKS BROKEN: {total.lost_zeros:,} weights that masks of the file prune are not '
                f'zero, in {len(where)} layers: {listed(where)}'
            )
        )
    if not total.sparse:
        lines.append('DENSE: nothing is pruned')
    empty = [layer.name for layer in found.layers if not layer.density.weights_kept]
    if empty:
        lines.append(wrapped(f'EMPTY: nothing is left of {len(empty)} layers: {listed(empty)}'))
    lines.append(wrapped(_masks(found)))
    if found.others:
        shares = [f'{name} ({share:.1%} zeros)' for name, share in found.others.items()]
        lines.append(
            wrapped(
                f'zeros that no mask can keep, since the weight has another name: {listed(shares)}'
            )
        )
    return '\n'.join(lines)


def _masks(found: NetworkSparsity) -> str:
    total = found.total
    if not total.masked:
        return 'masks: the file has none; what is exactly zero counts as pruned'
    text = f'masks: of {total.masked} of {total.layers} layers'
    bare = total.sparse - sum(layer.is_sparse and layer.has_mask for layer in found.layers)
    if total.kept_zeros:
        where = [layer.name for layer in found.layers if layer.kept_zeros]
        text += (
            f'; they keep {total.kept_zeros:,} weights that are exactly zero, which count as '
            f'pruned ({listed(where)})'
        )
    elif not total.lost_zeros:
        text += ', which agree with the zeros'
    return text + (f'; {bare} layers have zeros and no mask' if bare else '')


def _parts(found: NetworkSparsity) -> str:
    channels = bool(found.total.channels_pruned)
    head = ['Part', 'layers', 'sparse', *_kept_head(channels), 'pattern (layers)']
    rows = []
    for name, layers in [*found.parts.items(), ('in all', found.layers)]:
        counts = LayersOfPart.of(layers)
        row = [name, str(counts.layers), str(counts.sparse), *_kept(counts, channels)]
        rows.append([*row, patterns_of(layers)])
    return text_table(head, rows)


def _kept_head(channels: bool) -> list[str]:
    """Columns of channels stand only where whole channels are pruned somewhere."""
    head = ['weights kept', '', 'filters kept', '']
    return head + (['channels kept', ''] if channels else [])


def _kept(counts: LayersOfPart, channels: bool) -> list[str]:
    density, left = counts.density, counts.channels - counts.channels_pruned
    cells = _share(density.weights_kept, density.weights_total)
    cells += _share(density.kept, density.total)
    return cells + (_share(left, counts.channels) if channels else [])


def _layers(layers: Sequence[PrunedLayer], dense: int) -> str:
    channels = any(layer.pattern.channels_pruned for layer in layers)
    head = ['Layer', 'shape', *_kept_head(channels), 'pattern', 'mask']
    rows = [
        [
            layer.name or '(itself)',
            ' x '.join(map(str, layer.shape)),
            *_kept(LayersOfPart.of([layer]), channels),
            layer.pattern.kind,
            _mask(layer),
        ]
        for layer in layers
    ]
    table = text_table(head, rows)
    return table + (f'\nother layers, which are dense: {dense}' if dense else '')


def _mask(layer: PrunedLayer) -> str:
    if not layer.has_mask:
        return 'none'
    if layer.lost_zeros:
        return f'broken by {layer.lost_zeros:,}'
    return f'keeps {layer.kept_zeros:,} zeros' if layer.kept_zeros else 'agrees'


def _share(kept: int, total: int) -> list[str]:
    return [f'{kept:,}/{total:,}', f'{kept / total:.1%}']
