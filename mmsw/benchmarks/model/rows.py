"""A row of the benchmark of whole networks: its times, its floor, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..measure import timing_of
from ..words import threads_text
from .contender import Contender
from .networks import CONVNEXT, NOT_FUSED
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
    timing = timing_of(times)
    median = timing['median_ms'] / 1e3
    arithmetic = batch * contender.multiply_adds(crop, setting['mode'])
    return dict(
        setting,
        name=contender.name,
        network=contender.network.name,
        source=contender.network.source,
        **timing,
        images_per_s=batch / median,
        peak_bytes=peak if kinds else None,  # torch has seen nothing
        weight_bytes=contender.numbers * DTYPES[setting['dtype']].itemsize,
        multiply_adds=arithmetic,
        matmul_per_s=rate,
        floor_ms=arithmetic / rate * 1e3,
        ratio=median * rate / arithmetic,
        shares=dict(kinds),
        deviation=contender.deviation,
    )


def compare(rows: Sequence[Row]) -> None:
    """Add what each row takes beside others, as shares of theirs.

    ``over_convnext``, ``over_training_form``, ``over_not_fused`` (and ``peak_over_not_fused``, of
    the memory) are beside ConvNeXt-T and the network's own forms in the same setting,
    ``over_float32`` is beside itself in float32. ``None`` where there is no such other row.
    """
    found = {(setting_of(row), row['name']): row for row in rows}
    for row in rows:
        here, single = setting_of(row), setting_of(row | dict(dtype='float32'))
        not_fused = here, row['network'] + NOT_FUSED
        for key, what, place in (
            ('over_convnext', 'median_ms', (here, CONVNEXT)),
            ('over_training_form', 'median_ms', (here, row['network'])),
            ('over_not_fused', 'median_ms', not_fused),
            ('peak_over_not_fused', 'peak_bytes', not_fused),
            ('over_float32', 'median_ms', (single, row['name'])),
        ):
            other = found.get(place, row)
            row[key] = None if other is row else row[what] / other[what]


def setting_of(row: Row) -> tuple:
    """What the rows of one table have in common."""
    return tuple(row[name] for name in SETTING)


def title(setting: tuple) -> str:
    """A setting in words."""
    threads, dtype, mode, crop, batch = setting
    return f'{mode}: crop {crop}, batch {batch}, {dtype}, {threads_text(threads)}'
