"""Closed forms, module comparison and cover as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from mmsw.text_table import text_table, wrapped
from mmsw.wording import MAC_UNITS, mac_power

from .closed_forms import NAMED_LENGTHS, PUBLISHED_SMALL_KERNEL, Ratio
from .cover import Cover, StageCover
from .modules import ModuleComparison


def ratio_table(ratios: Sequence[Ratio], map_size: tuple[int, int] | None = None) -> str:
    """The ratios of equation 8, beside those that the text prints.

    Args:
        ratios: The rows.
        map_size: ``(H, W)`` that they were worked out for, if any.
    """
    head = ['M', 'N', 'SLaK pair', 'shift-wise', 'ratio']
    head += [f'{map_size[0]} x {map_size[1]}'] if map_size else []
    head += ['published']
    rows = []
    for row in ratios:
        cells = [str(row.big_kernel), str(row.small_kernel)]
        cells += [f'{row.slak_parameters:,}', f'{row.shift_wise_parameters:,}', f'{row.ratio:.2f}']
        cells += [f'{row.with_border:.2f}'] if map_size else []
        rows.append([*cells, '' if row.published is None else f'{row.published:.2f}'])
    notes = [
        'weights per channel: 2 * M * N of the pair, ceil(M / N) * N * N of the small '
        'convolutions; without the border, the ratio of the multiply-adds is the same'
    ]
    if map_size:
        height, width = map_size
        notes.append(
            f'{height} x {width}: ratio of the multiply-adds on a map of this size, with the '
            'border that the shifts need around it'
        )
    notes += [
        f'the text names M = {row.big_kernel}, but the ratio that it prints there, '
        f'{other.published:.2f}, belongs to M = {other.big_kernel}'
        for row in ratios
        for other in ratios
        if NAMED_LENGTHS.get(row.big_kernel) == other.big_kernel
        and row.small_kernel == other.small_kernel == PUBLISHED_SMALL_KERNEL
    ]
    return '\n'.join([text_table(head, rows, left=0), *map(wrapped, notes)])


def module_table(comparison: ModuleComparison) -> str:
    """Parameters and multiply-adds of the modules, stage by stage."""
    height, width = comparison.shape
    lines = [
        f'A: SLaK, {comparison.slak}, width {comparison.width_factor:g}; B: {comparison.network}',
        f'image of {height} x {width}; the convolutions of one module of each stage',
    ]
    return '\n'.join([*lines, '', _parameters(comparison), '', _work(comparison)])


def _parameters(comparison: ModuleComparison) -> str:
    head = ['Parameters', 'A: kernels', 'channels', 'parameters']
    head += ['B: kernels', 'channels', 'parameters', 'trained', 'A / B', 'Eq. 8']
    rows = []
    for stage in comparison.stages:
        slak, own = stage.slak, stage.shift_wise
        groups = own.parameters // (own.channels * own.small_kernel**2)
        row = [f'stage {stage.stage}', f'2 x {slak.big_kernel} x {slak.small_kernel}']
        row += [f'{number:,}' for number in (slak.channels, slak.parameters)]
        row.append(f'{groups} x {own.small_kernel} x {own.small_kernel}')
        row += [f'{number:,}' for number in (own.channels, own.parameters, own.trained)]
        rows.append([*row, f'{stage.parameter_ratio:.2f}', f'{stage.equal_channels:.2f}'])
    total = comparison.totals()
    first, second = total['slak_parameters'], total['shift_wise_parameters']
    row = ['all modules', '', '', f'{first:,}', '', '', f'{second:,}', '']
    rows.append([*row, f'{first / second:.2f}', ''])
    notes = (
        'trained: all paths, which merge into one after training. Eq. 8: the ratio of the text, '
        'for the kernel sizes of B and equal channels'
    )
    return '\n'.join([text_table(head, rows), wrapped(notes)])


def _work(comparison: ModuleComparison) -> str:
    total = comparison.totals()
    power = mac_power(total['slak_macs'])

    def number(value: int) -> str:
        return f'{value / 10**power:,.3f}'

    head = ['Multiply-adds', 'map', 'A: pair', 'B: small', 'A / B']
    head += ['B: additions', 'B: cross', 'used']
    rows = []
    for stage in comparison.stages:
        own = stage.shift_wise
        sides = f'{stage.map_size[0]} x {stage.map_size[1]}'
        work = [number(stage.slak.macs), number(own.macs), f'{stage.macs_ratio:.2f}']
        work += map(number, (own.additions, own.cross, own.cross_used))
        rows.append([f'stage {stage.stage}', sides, *work])
    pair, small = total['slak_macs'], total['shift_wise_macs']
    work = [number(pair), number(small), f'{pair / small:.2f}']
    work += map(number, (total['shift_wise_additions'], total['shift_wise_cross']))
    rows.append(['all modules', '', *work, ''])
    notes = (
        f'{MAC_UNITS[power]}. Small: the small convolutions one by one, with their border, as the '
        'text counts. Additions: of the shifts, which the text leaves out of its ratios. Cross: '
        'the same operator as one cross kernel, as mmsw computes it, without these additions. '
        'Used: of it, what is left when empty blocks are skipped'
    )
    return '\n'.join([text_table(head, rows), wrapped(notes)])


def cover_table(stages: Sequence[StageCover], name: str, shape: Sequence[int]) -> str:
    """What the shifts use, stage by stage, and what follows.

    Args:
        stages: The figures.
        name: Of the network.
        shape: ``(H, W)`` of the image in pixels.
    """
    head = ['Cover', 'layers', 'map', 'M', 'N', 'empty slots', 'used', 'per shift', 'inside']
    head += ['idle filters']
    rows = []
    for stage in stages:
        height, width = stage.map_size
        empty = max(stage.empty_slots)
        rows.append(
            [
                f'stage {stage.stage}',
                str(len(stage.layers)),
                f'{height} x {width}',
                str(stage.big_kernel),
                str(stage.small_kernel),
                f'{empty}/{stage.slots}',
                *_shares(stage.total),
            ]
        )
    total = sum((stage.total for stage in stages), Cover())
    rows.append(['in all', str(sum(len(stage.layers) for stage in stages)), *[''] * 4])
    rows[-1] += _shares(total)
    notes = [
        f'{name}, image of {shape[0]} x {shape[1]}. Used: share of the outputs of the small '
        'convolutions that some shift reads. Per shift: share of the outputs of a filter that one '
        'shift reads, mean over slots and branches. Inside: share of what the shifts ask for that '
        'lies inside of these outputs; the rest is zero. Empty slots read nothing on this map '
        '(the larger number of both arms)',
        *_consequences(stages, total),
    ]
    return '\n'.join([text_table(head, rows), *map(wrapped, notes)])


def _shares(found: Cover) -> list[str]:
    shares = (found.used_share, found.share_per_shift, found.inside_share)
    return [*(f'{share:.1%}' for share in shares), f'{found.idle_filters:,}/{found.filters:,}']


def _consequences(stages: Sequence[StageCover], total: Cover) -> list[str]:
    unread = total.outputs - total.used
    lines = [
        f'Computed one by one, the small convolutions write {total.outputs:,} numbers, of which '
        f'{unread:,} ({1 - total.used_share:.1%}) are never read'
    ]
    empty = [stage for stage in stages if any(stage.empty_slots)]
    if empty:
        names = ', '.join(
            f'{max(s.empty_slots)} of {s.slots} in stage {s.stage} '
            f'(M = {s.big_kernel}, map {s.map_size[0]} x {s.map_size[1]})'
            for s in empty
        )
        lines.append(
            f'Slots that read nothing: {names}. Filters there add nothing to this arm, and images '
            'of this size do not train that part of the reach'
        )
    if total.idle_filters:
        lines.append(
            f'{total.idle_filters:,} filters have no slot that reads anything: images of this size '
            'give them no gradient'
        )
    return lines
