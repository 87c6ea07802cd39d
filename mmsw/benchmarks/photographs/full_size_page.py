"""The tables of the runs at full size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..page import measured_on, paragraph
from ..report import table
from ..words import NONE
from .page import network_title, number


def full_size_text(result: Mapping[str, Any]) -> str:
    """Everything between the marks of the block.

    Args:
        result: What :func:`~.results.collect_full_size` gave.
    """
    parts = [
        paragraph(measured_on(result['machine'])),
        paragraph(_how_trained(result)),
        _scores(result['runs']),
        'Each class, IoU in per cent:',
        _classes(result['runs']),
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


def _classes(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = [['network', *runs[0]['classes']]]
    for run in runs:
        scores = (f'{value:.1f}' for value in run['classes'].values())
        lines.append([network_title(run['network']), *scores])
    return table(lines)
