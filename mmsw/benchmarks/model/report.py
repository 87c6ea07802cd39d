"""Table, figures and plot of a benchmark of whole networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmsw.json_file import write_json
from mmsw.whole_file import write_text

from ..words import number, rate_line, table, threads_text
from .kinds import KINDS
from .plot import draw
from .rows import Row, setting_of, title


def write_report(result: dict, out: str | os.PathLike[str]) -> list[Path]:
    """Write ``benchmark.json``, ``benchmark.md`` and, with matplotlib, ``benchmark.png``.

    Args:
        result: What :func:`~mmsw.benchmarks.model.benchmark.benchmark_model` returns.
        out: Folder; existing files of these names are replaced, each of them whole or not at all.

    Returns:
        The files.
    """
    text, figures, plot = (Path(out, f'benchmark.{ending}') for ending in ('md', 'json', 'png'))
    write_text(text, markdown(result))
    write_json(figures, 'benchmark_model', result)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return [text, figures]
    draw(result, plot)
    return [text, figures, plot]


def markdown(result: dict) -> str:
    """The whole report as Markdown."""
    rows: list[Row] = result['rows']
    settings = result['settings']
    lines = ['# Benchmark of whole networks', '']
    lines += [f'- {key}: {value}' for key, value in result['machine'].items()]
    lines += [f'- channels last: {"yes" if settings["channels_last"] else "no"}']
    lines += [f'- duration: {result["seconds"]} s', *_rate_lines(rows)]
    for head, found in (('Errors', result['errors']), ('Left out', result['left_out'])):
        if found:
            lines += ['', f'## {head}', '', *(f'- {item}' for item in found)]
    sources = {row['network']: row['source'] for row in rows}
    lines += ['', '## Whose code a network is', '']
    lines += [f'- {name}: {source}' for name, source in sources.items()]
    lines += ['', '## How to read it', '', _EXPLANATION]
    for key in dict.fromkeys(setting_of(row) for row in rows):
        found = [row for row in rows if setting_of(row) == key]
        lines += ['', f'## {title(key)}', '', *_table_of(found)]
    return '\n'.join([*lines, ''])


def _rate_lines(rows: Sequence[Row]) -> list[str]:
    return [
        rate_line(
            f'float32 matrix product of side 2048, {threads_text(threads)}',
            [row['matmul_per_s'] for row in rows if row['threads'] == threads],
            'giga-multiply-adds/s',
        )
        for threads in dict.fromkeys(row['threads'] for row in rows)
    ]


_EXPLANATION = """\
Every network is a backbone with random weights that gives maps at strides 4, 8, 16 and 32. A name
alone is the form that is trained; in evaluation, "folded" is the same network in the form for
inference, whose maps agreed with the former's before it was timed. Time is the latency of a call:
the median of samples that all contenders of a table took in turns; the spread is the interquartile
range over the median, n the number of samples. "images/s" is the throughput. "x floor" is the time
over the multiply-adds of the network at the rate of a float32 matrix product of side 2048, the
median of samples among the same turns; that of bfloat16 and float16 rows is of the float32 product
as well. All forms of a network have its multiply-adds, the operator counted as one cross kernel; a
training step has three times as many. A training step is the forward pass, a loss of all maps, and
the backward pass to the gradients of all weights, without an optimizer. "/ ConvNeXt-T" and
"/ own training form" are the times over theirs: below 1 is faster.
The peak of memory is the most that torch's allocator held beyond weights and images; that of a
training step includes the gradients.
The shares are of the time of the operators in one profiled call. "products" are matrix products and
convolutions, "operator" the shift-wise operator and depthwise convolutions, "activation" includes
the softmax, "element-wise" are additions, multiplications and sums.\
"""


def _table_of(rows: Sequence[Row]) -> list[str]:
    head = (
        'network', 'ms', 'images/s', 'x floor', '/ ConvNeXt-T', '/ own training form',
        'giga-multiply-adds', 'peak MiB', 'weights MiB', *(f'{kind} %' for kind in KINDS),
        'spread', 'n',
    )  # fmt: skip
    return table(
        head,
        (
            (
                row['name'], number(row['median_ms']), number(row['images_per_s']),
                number(row['ratio']), number(row['over_convnext']),
                number(row['over_training_form']), number(row['multiply_adds'] / 1e9),
                number(row['peak_bytes'] / 2**20), number(row['weight_bytes'] / 2**20),
                *(f'{100 * row["shares"][k]:.0f}' if row['shares'] else '–' for k in KINDS),
                f'{row["spread"]:.0%}', str(row['samples']),
            )
            for row in rows
        ),
    )  # fmt: skip
