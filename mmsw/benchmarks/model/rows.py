"""A row of the benchmark of whole networks: its times, its floor, and what it is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..words import threads_text
from .contender import Contender
from .networks import CONVNEXT
from .settings import DTYPES

Row = dict
SETTING = ('threads', 'dtype', 'mode', 'crop', 'batch')


def make_row(
    contender: Contender,
    setting: Mapping[str, object],
    times: Sequence[float],
    rate: float,
    peak: int,
    kinds: Mapping[str, float],
) -> Row:
    """What ``benchmark.json`` says of a contender.

    Args:
        contender: Who.
        setting: Values of ``SETTING``.
        times: Samples, in seconds.
        rate: Multiply-adds per second of the matrix product among the same samples.
        peak: Most bytes that a call held beyond weights and images.
        kinds: Share of each kind of work in the time of the operators.
    """
    crop, batch = setting['crop'], setting['batch']
    median = statistics.median(times)
    quarter = statistics.quantiles(times, n=4, method='inclusive') if len(times) > 1 else [0.0] * 3
    arithmetic = batch * contender.multiply_adds(crop, setting['mode'])
    return dict(
        setting,
        name=contender.name,
        network=contender.network.name,
        source=contender.network.source,
        median_ms=median * 1e3,
        min_ms=min(times) * 1e3,
        max_ms=max(times) * 1e3,
        spread=(quarter[2] - quarter[0]) / median,
        samples=len(times),
        images_per_s=batch / median,
        peak_bytes=peak,
        weight_bytes=contender.numbers * DTYPES[setting['dtype']].itemsize,
        multiply_adds=arithmetic,
        matmul_per_s=rate,
        floor_ms=arithmetic / rate * 1e3,
        ratio=median * rate / arithmetic,
        shares=dict(kinds),
        deviation=contender.deviation,
    )


def compare(rows: Sequence[Row]) -> None:
    """Add what each row takes beside ConvNeXt-T and beside its own training form.

    ``over_convnext`` and ``over_training_form`` are the times over theirs; ``None`` in their own
    rows, and where they have none of the setting.
    """
    times = {(setting_of(row), row['name']): row['median_ms'] for row in rows}
    for row in rows:
        for key, other in (
            ('over_convnext', CONVNEXT),
            ('over_training_form', row['network']),
        ):
            base = times.get((setting_of(row), other))
            same = base is None or row['name'] == other
            row[key] = None if same else row['median_ms'] / base


def setting_of(row: Row) -> tuple:
    """What the rows of one table have in common."""
    return tuple(row[name] for name in SETTING)


def title(setting: tuple) -> str:
    """A setting in words."""
    threads, dtype, mode, crop, batch = setting
    return f'{mode}: crop {crop}, batch {batch}, {dtype}, {threads_text(threads)}'
