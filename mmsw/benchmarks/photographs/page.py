"""The tables of the page on real photographs."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from ..comparison import Comparison, Row, conclude, paired_difference
from ..page import measured_on, paragraph
from ..report import table
from ..words import NONE
from .plan import HEADLINE, PRUNED, SHIFT_WISE
from .results import rows_of

_MIOU, _AP = 'mIoU', 'bbox AP'
_NETWORK = itemgetter('network')
NAMES = {
    'sw_mini': 'shift-wise',
    'equ_slak_mini': 'equ-SLaK',
    'slak_mini': 'SLaK',
    'r18_narrow': 'ResNet-18, narrow',
    'convnext_mini': 'ConvNeXt, small',
    'mit_mini': 'MiT, narrow',
}


def page_text(result: Mapping[str, Any]) -> str:
    """The comparison from random values, and the fine-tuning.

    Args:
        result: What :func:`~.results.collect` gave.
    """
    parts = [
        paragraph(measured_on(result['machine'])),
        '### From random values on CamVid',
        paragraph(_how_compared(result)),
        *_comparison(result),
    ]
    if any(entry['results'] for entry in result['starts']):
        parts += ['### From CamVid to BCCD', *_transfer(result)]
    return '\n\n'.join(parts) + '\n'


def network_title(name: str) -> str:
    """What tables and pictures call a network of the comparison."""
    bare = name.removesuffix('_camvid')
    if bare in NAMES:
        return NAMES[bare] + (', dense' if bare == 'sw_mini' else '')
    method = 'static' if 'static' in bare else 'dynamic'
    return f'shift-wise, {PRUNED[name]}% pruned, {method}'


def _how_compared(result: Mapping[str, Any]) -> str:
    asked = result['settings']
    scale = asked['image_scale']
    size = 'their own size' if scale is None else f'{scale[0]} x {scale[1]} pixels'
    return (
        f'Training and test images have {size}, label maps 480 x 360. {asked["iterations"]} '
        f'iterations of 4 crops, {asked["seeds"]} seeds. mIoU is of 11 classes on all 233 test '
        'images. Differences are paired by seed, in percentage points, with a 95% interval. '
        'GMAC and time are of one image of 480 x 360, head included; GMAC is 10^9 multiply-adds. '
        'The time is that of the folded network on one thread.'
    )


def _comparison(result: Mapping[str, Any]) -> list[str]:
    rows = rows_of(result['networks'], _NETWORK)
    first = next(row for row in rows if row.network == SHIFT_WISE)
    times = result['times']
    lines = [
        [
            'network',
            'mIoU [%]',
            'minus shift-wise, dense',
            'filters kept',
            'parameters [M]',
            'GMAC',
            'folded [ms]',
            'of dense',
            's / iteration',
        ]
    ]
    comparisons = []
    for row in rows:
        difference = paired_difference(row, first, _MIOU)
        if row is not first:
            comparisons.append(Comparison(network_title(row.network), 'shift-wise', difference))
        lines.append(
            [
                network_title(row.network),
                row.score(_MIOU).text(),
                NONE if row is first else difference.signed_text(),
                _kept_filters(row),
                *_costs(times, row.network),
                number(row.mean('seconds_per_iteration'), 3),
            ]
        )
    return [table(lines), f'> {conclude(comparisons)}']


def _costs(times: Mapping[str, Any] | None, name: str) -> list[str]:
    if times is None or name not in times['networks']:
        return [NONE] * 4
    found = times['networks'][name]
    return [
        f'{found["parameters_used"] / 1e6:.3f}',
        number(found['macs_used'] and found['macs_used'] / 1e9, 3),
        f'{found["median_ms"]:.1f}',
        f'{found["relative"]:.2f}',
    ]


def _transfer(result: Mapping[str, Any]) -> list[str]:
    asked = result['settings']
    rows = rows_of(result['starts'], start_title)
    references = {row.start: row for row in rows if row.start in ('scratch', 'dense')}
    lines = [['start', 'seeds', 'box AP [%]', 'minus scratch', 'minus dense', 'filters kept']]
    comparisons = []
    for row in rows:
        differences = []
        for name in ('scratch', 'dense'):
            difference = paired_difference(row, references[name], _AP)
            known = row is not references[name] and row.results
            differences.append(difference.signed_text() if known else NONE)
            if known and row.start != 'scratch':
                comparisons.append(Comparison(f'{row.network} minus {name}', name, difference))
        lines.append(
            [row.network, row.seeds, row.score(_AP).text(), *differences, _kept_filters(row)]
        )
    told = (
        f'RetinaNet on the small shift-wise network, images of 320 x 240, '
        f'{asked["transfer_iterations"]} iterations of 4 images, {asked["transfer_seeds"]} seeds, '
        'AP of the 72 test images. The starts other than scratch are the backbones of the first '
        'seed of the comparison on CamVid above.'
    )
    return [paragraph(told), table(lines), f'> {conclude(comparisons)}']


def start_title(entry: Mapping[str, Any]) -> str:
    """What tables call a start of the fine-tuning."""
    share = f', {entry["share"]}% pruned' if entry['share'] else ''
    names = {'sparse-unmasked': 'sparse, masks opened again'}
    return names.get(entry['start'], entry['start']) + share


def _kept_filters(row: Row) -> str:
    """Share of the small filters of a network that are left; none without such filters."""
    if not row.mean('density_after', 'filters'):
        return NONE
    value = row.mean('density_after', 'not_zero')
    return NONE if value is None else f'{value:.1%}'


def number(value: float | None, digits: int) -> str:
    """A number as tables have it, or none."""
    return NONE if value is None else f'{value:.{digits}f}'


def headline(result: Mapping[str, Any], full_size: Mapping[str, Any] | None = None) -> str:
    """The table of the README: accuracy and cost of some networks of the comparison.

    Args:
        result: What :func:`~.results.collect` gave.
        full_size: What :func:`~.results.collect_full_size` gave; None leaves the column out.
    """
    rows = {row.network: row for row in rows_of(result['networks'], _NETWORK)}
    long = {run['network']: run['scores'] for run in (full_size or {'runs': []})['runs']}
    more = ['mIoU [%], full size'] if long else []
    lines = [['network', 'mIoU [%], short', *more, 'filters kept', 'GMAC', 'ms / image, folded']]
    for name in (name for name in HEADLINE if name in rows):
        found = result['times']['networks'][name]
        scores = [f'{long[name][_MIOU]:.2f}' if name in long else NONE] if long else []
        lines.append(
            [
                network_title(name),
                rows[name].score(_MIOU).text(1),
                *scores,
                _kept_filters(rows[name]),
                f'{found["macs_used"] / 1e9:.2f}',
                f'{found["median_ms"]:.1f}',
            ]
        )
    return f'{table(lines)}\n'
