"""The tables of the runs at full size, beside published scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..page import measured_on, paragraph
from ..report import table
from ..words import NONE
from .page import network_title, number

# What the scores of CamVid are in the papers: name, parameters [M], mIoU [%], start, source.
PUBLISHED = (
    ('ENet', '0.37', '51.3', 'random', 'arXiv 1606.02147'),
    ('FC-DenseNet56', '1.5', '58.9', 'random', 'arXiv 1611.09326'),
    ('FC-DenseNet67', '3.5', '65.8', 'random', 'arXiv 1611.09326'),
    ('FC-DenseNet103', '9.4', '66.9', 'random', 'arXiv 1611.09326'),
    ('FCN-8', '134.5', '57.0', 'ImageNet', 'arXiv 1611.09326'),
    ('SegNet', '29.5', '46.4 to 60.1', 'ImageNet', 'arXiv 1611.09326, 1511.00561'),
    ('Dilation8', '140.8', '65.3', 'ImageNet', 'arXiv 1611.09326'),
)


def full_size_text(result: Mapping[str, Any]) -> str:
    """Everything between the marks of the block.

    Args:
        result: What :func:`~.results.collect_full_size` gave.
    """
    parts = [
        paragraph(measured_on(result['machine'])),
        paragraph(_how_trained(result)),
        _scores(result['runs']),
        paragraph(f'Each class, {network_title(result["runs"][0]["network"])}:'),
        table(
            [
                ['class', *result['classes']],
                ['IoU [%]', *(f'{value:.1f}' for value in result['classes'].values())],
            ]
        ),
        'Beside what others published:',
        _published(result['runs']),
    ]
    return '\n\n'.join(parts) + '\n'


def _how_trained(result: Mapping[str, Any]) -> str:
    asked = result['settings']
    height, width = asked['crop_size']
    return (
        f'Images have 480 x 360 pixels. {asked["iterations"]} iterations of {asked["batch_size"]} '
        f'crops of {width} x {height}, one seed. mIoU is of 11 classes on all 233 test images; '
        'the last column of the scores is the end of the run.'
    )


def _scores(runs: Sequence[Mapping[str, Any]]) -> str:
    """Table of the learning curves: about four points each, the last one included."""
    places = [point['iteration'] for point in runs[0]['curve']]
    step = -(-len(places) // 4)
    places = places[::-1][::step][::-1]
    head = ['network', 'filters kept', 'parameters [M]', 'GMAC']
    lines = [[*head, *(f'mIoU [%], {place}' for place in places), 's / iteration']]
    for run in runs:
        curve = {point['iteration']: point['mIoU'] for point in run['curve']}
        kept = run['density_after']
        lines.append(
            [
                network_title(run['network']),
                f'{kept["not_zero"]:.1%}' if kept['filters'] else NONE,
                f'{run["parameters_used"] / 1e6:.3f}',
                number(run['macs_used'] and run['macs_used'] / 1e9, 3),
                *(f'{curve[place]:.2f}' if place in curve else NONE for place in places),
                number(run['seconds_per_iteration'], 3),
            ]
        )
    return table(lines)


def _published(runs: Sequence[Mapping[str, Any]]) -> str:
    own = [
        [
            network_title(run['network']),
            f'{run["parameters_used"] / 1e6:.2f}',
            f'{run["scores"]["mIoU"]:.1f}',
            'random',
            'measured here',
        ]
        for run in runs
    ]
    head = ['network', 'parameters [M]', 'mIoU [%]', 'starts from', 'source']
    return table([head, *own, *map(list, PUBLISHED)])
