"""The figures of a sparsity analysis as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from mmsw.checkpoint.slak_shape import SLaKShape
from mmsw.sparsity import Density
from mmsw.text_table import text_table, wrapped
from mmsw.wording import MAC_UNITS, mac_power

from .figures import Part, SparsityAnalysis, pruned_parameters

SLAK_FILTERS = (
    'large kernels are cut into blocks of N x N, as equ-SLaK computes them; these are called '
    'filters here, and a filter is kept if any of its weights is'
)


def sparsity_table(analysis: SparsityAnalysis) -> str:
    """Every section of the report, separated by empty lines."""
    sections = [_header(analysis), _density(analysis), _layers(analysis)]
    sections += [_offsets(analysis), _work(analysis)]
    return '\n\n'.join(sections)


def first_layer_table(analysis: SparsityAnalysis) -> str:
    """Density and sparsity of the first layer of each stage, as the text has them (its Table 2)."""
    net, weights = analysis.network, analysis.has_single_weights
    slak = isinstance(net.shape, SLaKShape)
    head = ['First layer', 'M', 'filters kept', 'density', 'sparsity', 'per channel']
    head += ['of'] if slak else ['of nk']
    head += ['weights kept', 'density'] if weights else []
    active = net.shape.dims if slak else net.shape.num_active
    rows = []
    for stage, big_kernel in enumerate(net.big_kernels):
        density = analysis.layers_of(stage)[0].density
        channels = active[stage] * net.shape.num_paths
        rows.append([f'stage {stage}', str(big_kernel), f'{density.kept:,}/{density.total:,}'])
        rows[-1] += [f'{density.density:.1%}', f'{1 - density.density:.1%}']
        rows[-1] += [f'{density.kept / channels:.1f}', str(density.total // channels)]
        rows[-1] += _weights(density) if weights else []
    notes = ['per channel: filters that a channel keeps in one path, on average, of its nk']
    if slak:
        notes = [SLAK_FILTERS, 'per channel: filters that a channel keeps, on average, of all']
    table = text_table(head, rows)
    return '\n'.join([f'checkpoint {net.source}', table, *map(wrapped, notes)])


def _header(analysis: SparsityAnalysis) -> str:
    net = analysis.network
    shape = net.shape
    density = analysis.total.density
    lines = [f'checkpoint {net.source}']
    if isinstance(shape, SLaKShape):
        lines += wrapped(str(shape)), wrapped(SLAK_FILTERS)
    else:
        lines += _shift_wise_header(analysis)
    lines += map(wrapped, net.notes)
    if not density.is_sparse:
        lines.append('DENSE: nothing is pruned')
    return '\n'.join(lines)


def _shift_wise_header(analysis: SparsityAnalysis) -> list[str]:
    net, shape = analysis.network, analysis.network.shape
    return [
        f'{shape.version}, depths {_list(shape.depths)}, dims {_list(shape.dims)}, of which '
        f'{_list(shape.num_active)} go through the operator',
        f'big kernels M {_list(net.big_kernels)}, small kernels {shape.small_kernel} x '
        f'{shape.small_kernel}, {shape.num_paths} path(s), {net.num_reps} repetition(s)',
    ]


def _density(analysis: SparsityAnalysis) -> str:
    weights = analysis.has_single_weights
    head = ['Kept', 'filters', '', 'first layer', '']
    head += ['weights', '', 'first layer', ''] if weights else []
    rows = []
    parts = [*((f'stage {s}', part) for s, part in enumerate(analysis.stages))]
    for stage, (name, part) in enumerate(parts):
        first = analysis.layers_of(stage)[0]
        rows.append([name, *_filters(part.density), *_filters(first.density)])
        if weights:
            rows[-1] += [*_weights(part.density), *_weights(first.density)]
    total = analysis.total
    rows.append(['in all', *_filters(total.density), '', ''])
    if weights:
        rows[-1] += [*_weights(total.density), '', '']
    pruned, small = pruned_parameters(total), total.density.weights_total
    every = analysis.network.parameters
    slak = isinstance(analysis.network.shape, SLaKShape)
    kernels = 'large kernels' if slak else 'small kernels'
    return '\n'.join(
        [
            text_table(head, rows),
            f'parameters pruned: {pruned:,} of {small:,} in {kernels} ({pruned / small:.1%}), '
            f'of {every:,} in the backbone ({pruned / every:.1%})',
        ]
    )


def _layers(analysis: SparsityAnalysis) -> str:
    total, net = analysis.total, analysis.network
    several = net.shape.num_paths > 1
    differ = several and total.paths_differ
    weights = analysis.has_single_weights
    head = ['Layer', 'filters', '']
    head += ['weights', ''] if weights else []
    if differ:
        head += [f'path {index}' for index in range(net.shape.num_paths)]
        head += ['in every', 'in some path']
    rows = []
    parts = [(layer.name, part) for layer, part in zip(net.layers, analysis.layers, strict=True)]
    for name, part in [*parts, ('in all', total)]:
        row = [name, *_filters(part.density)]
        row += _weights(part.density) if weights else []
        if differ:
            row += [f'{path.density:.1%}' for path in part.paths]
            row += [f'{part.shared / part.slots:.1%}', f'{part.covered_density:.1%}']
        rows.append(row)
    lines = [text_table(head, rows)]
    if differ:
        note = (
            f'the masks of the paths differ: of {total.slots:,} slots {total.shared:,} are kept by '
            f'every path, {total.covered:,} by some, so they share '
            f'{total.shared / max(1, total.covered):.1%} of what is kept'
        )
        lines.append(wrapped(note))
    elif total.unshared_weights:
        lines.append(
            'the paths of every layer keep the same filters; in them, '
            f'{total.unshared_weights:,} weights are kept by some paths only'
        )
    elif several:
        lines.append('the paths of every layer have the same mask')
    return '\n'.join(lines)


def _offsets(analysis: SparsityAnalysis) -> str:
    stages = analysis.stages
    head, columns = [], []
    for stage, part in enumerate(stages):
        head += [f'stage {stage}', 'kept', 'blocks']
        rows = [
            [str(distance), f'{placed.density:.1%}', f'{placed.block_density:.1%}']
            for distance, placed in part.by_distance().items()
        ]
        identity = part.identity
        columns.append(
            (rows, ['identity', f'{identity.density:.1%}', f'{identity.block_density:.1%}'])
        )
    longest = max(len(rows) for rows, _ in columns)
    table = []
    for index in range(longest + 1):
        row = []
        for rows, identity in columns:
            if index == longest:
                row += identity
            else:
                row += rows[index] if index < len(rows) else ['', '', '']
        table.append(row)
    return '\n'.join(
        [
            'Distance from the centre, in positions of the map, both arms: share of the filters',
            'placed there that is kept, and of the blocks there that are not empty',
            text_table(head, table, left=0),
        ]
    )


def _work(analysis: SparsityAnalysis) -> str:
    total, net = analysis.total, analysis.network
    power = mac_power(total.dense)
    height, width = analysis.shape
    operator = 'large kernels' if isinstance(net.shape, SLaKShape) else 'shift-wise operator'
    head = ['Work', 'dense', 'used', 'left', 'filters kept', 'in some path', 'arm blocks left']
    rows = []
    for name, part in [*((f'stage {s}', p) for s, p in enumerate(analysis.stages)),
                       ('in all', total)]:  # fmt: skip
        rows.append([name, f'{part.dense / 10**power:,.3f}', f'{part.used / 10**power:,.3f}'])
        shares = (part.work_left, part.density.density, part.covered_density)
        rows[-1] += [f'{share:.2%}' for share in (*shares, part.arms.block_density)]
    lines = [
        text_table(head, rows),
        f'multiply-adds of the {operator} in {MAC_UNITS[power]}, for an image of '
        f'{height} x {width}{_of_recipe(analysis.shape)}; empty blocks of the cross kernel '
        f'are skipped. The pointwise layers of the same blocks take '
        f'{total.pointwise / 10**power:,.3f} more, pruned or not',
    ]
    if total.density.is_sparse:
        lines.append(_remark(total, net.num_reps, net.shape.num_paths))
        if analysis.has_single_weights:
            lines.append(
                'Blocks are computed whole: single weights pruned inside a kept filter save nothing'
            )
    return '\n'.join([lines[0], *map(wrapped, lines[1:])])


def _remark(total: Part, num_reps: int, num_paths: int) -> str:
    kept = total.covered_density
    pruned, saved = 1 - total.density.density, 1 - total.work_left
    paths = f' in all {num_paths} paths' if num_paths > 1 else ''
    text = f'Of the filters {pruned:.1%} are pruned, of the work {saved:.2%} falls away. '
    if num_reps == 1:
        return text + f'With R = 1 a block of an arm is empty when its one filter is pruned{paths}'
    chance = 1 - (1 - kept) ** num_reps
    return text + (
        f'A block of an arm is empty only when all of the R = {num_reps} filters that the '
        f'repetitions place there are pruned{paths}: filters pruned at random would leave '
        f'1 - (1 - {kept:.3f})^{num_reps} = {chance:.2%} of the blocks, and '
        f'{total.arms.block_density:.2%} are left here. With R = 1 these masks would leave '
        f'{kept:.2%}'
    )


def _of_recipe(shape: Sequence[int]) -> str:
    return ' (the crop for ADE20K)' if tuple(shape) == (512, 512) else ''


def _filters(density: Density) -> list[str]:
    return [f'{density.kept:,}/{density.total:,}', f'{density.density:.1%}']


def _weights(density: Density) -> list[str]:
    return [f'{density.weights_kept:,}/{density.weights_total:,}', f'{density.weight_density:.1%}']


def _list(numbers: Sequence[int]) -> str:
    return ', '.join(map(str, numbers))
