"""Two checkpoints against each other as text for a terminal."""

from __future__ import annotations

from mmsw.checkpoint import NetworkShape
from mmsw.checkpoint.slak_shape import SLaKShape
from mmsw.text_table import text_table, wrapped
from mmsw.wording import listed

from .comparison import Shared, SparsityComparison
from .table import SLAK_FILTERS


def comparison_table(comparison: SparsityComparison) -> str:
    """Per stage, per layer and in all, with what is to be said of it in words."""
    header = [f'A: {comparison.first.source}', f'B: {comparison.second.source}']
    header += _network(comparison.first.shape)
    total = comparison.total
    stages = {f'stage {index}': part for index, part in enumerate(comparison.stages)}
    layers = dict(zip(comparison.names, comparison.layers, strict=True))
    sections = [
        '\n'.join([*header, *map(wrapped, _warnings(comparison))]),
        _table('Stage', stages | {'in all': total}, comparison),
        _table('Layer', layers, comparison),
        '\n'.join(map(wrapped, _remarks(comparison))),
    ]
    return '\n\n'.join(sections)


def _network(shape: NetworkShape | SLaKShape) -> list[str]:
    if isinstance(shape, SLaKShape):
        return [wrapped(str(shape)), wrapped(SLAK_FILTERS)]
    return [
        f'{shape.version}, depths {", ".join(map(str, shape.depths))}, dims '
        f'{", ".join(map(str, shape.dims))}, {shape.num_paths} path(s)'
    ]


def _table(first: str, parts: dict[str, Shared], comparison: SparsityComparison) -> str:
    weights = comparison.has_single_weights
    head = [first, 'filters', 'A keeps', 'B keeps', 'both', 'only A', 'only B', 'overlap']
    head += ['A weights', 'B weights'] if weights else []
    head += ['zeros of A', 'lost', 'gained']
    rows = []
    for name, part in parts.items():
        row = [name, f'{part.first.total:,}']
        row += [f'{side.density:.1%}' for side in (part.first, part.second)]
        row += [f'{number:,}' for number in (part.both, part.only_first, part.only_second)]
        row.append(f'{part.overlap:.1%}')
        if weights:
            row += [f'{side.weight_density:.1%}' for side in (part.first, part.second)]
        numbers = (part.zeros, part.zeros_lost, part.zeros_gained)
        rows.append([*row, *(f'{number:,}' for number in numbers)])
    return text_table(head, rows)


def _warnings(comparison: SparsityComparison) -> list[str]:
    total, lines = comparison.total, []
    if total.zeros_lost:
        where = [
            name
            for name, part in zip(comparison.names, comparison.layers, strict=True)
            if part.zeros_lost
        ]
        lines.append(
            f'ZEROS LOST: B keeps {total.zeros_lost:,} of the {total.zeros:,} weights that A '
            f'prunes ({total.zeros_lost / total.zeros:.1%}), in {len(where)} of '
            f'{len(comparison.layers)} layers: {listed(where)}'
        )
    if comparison.moved:
        lines.append(
            f'PATTERNS DIFFER in {len(comparison.moved)} layers ({listed(comparison.moved)}): A '
            'and B place their filters differently there, so filters of one number are not at '
            'one place'
        )
    return lines


def _remarks(comparison: SparsityComparison) -> list[str]:
    total = comparison.total
    lines = [
        'overlap: of the filters that either keeps, the share that both keep; lost: weights that '
        'A prunes and B keeps; gained: weights that B prunes and A keeps'
    ]
    if not total.zeros:
        lines.append('A prunes nothing, so B has no zeros to keep')
    elif not total.zeros_lost:
        lines.append(f'B keeps every zero of A ({total.zeros:,} weights)')
    elif total.zeros_lost == total.zeros_gained:
        lines.append(
            'As many zeros are gained as are lost: that is what an exchange of dynamic sparse '
            'training does'
        )
    elif not total.second.is_sparse:
        lines.append('B is DENSE: it prunes nothing')
    return lines
