"""Table, figures and plot of a benchmark of whole networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from ..timing_report import opening, write_files
from ..words import NONE, number, rate_line, table, threads_text
from .kinds import KINDS
from .plot import draw
from .rows import Row, setting_of, title


def write_report(result: dict, out: str | os.PathLike[str]) -> None:
    """Write what :func:`~.benchmark.benchmark_model` returns to a folder."""
    write_files(result, out, 'benchmark_model', markdown(result), partial(draw, result))


def markdown(result: dict) -> str:
    """The whole report as Markdown."""
    rows: list[Row] = result['rows']
    settings = result['settings']
    layout = f'- channels last: {"yes" if settings["channels_last"] else "no"}'
    lines = opening('Benchmark of whole networks', result, [layout, *_rate_lines(rows)])
    sources = {row['network']: row['source'] for row in rows}
    lines += ['', '## Whose code a network is', '']
    lines += [f'- {name}: {source}' for name, source in sources.items()]
    lines += ['', '## How to read it', '', _EXPLANATION]
    for key in dict.fromkeys(setting_of(row) for row in rows):
        found = [row for row in rows if setting_of(row) == key]
        lines += ['', f'## {title(key)}', '', *table_of(found)]
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
inference. "torch.export", "torch.compile", "onnxruntime" and "OpenVINO" run what torch exports of
the folded network for the size of the table, as it comes: what it takes to export and compile is
not counted. In training, "not fused" has its blocks layer by layer, and "recomputed" saves memory.
The maps of every form agreed with those of the training form before it was timed; of a form for
training the gradients did, too.
Time is the latency of a call: the median of samples that all contenders of a table took in turns;
the spread is the interquartile range over the median, n the number of samples. "images/s" is the
throughput. "x floor" is the time over the multiply-adds of the network at the rate of a float32
matrix product of side 2048, the median of samples among the same turns; that of bfloat16 and
float16 rows is of the float32 product as well. All forms of a network have its multiply-adds, the
operator counted as one cross kernel; a training step has three times as many. A training step is
the forward pass, a loss of all maps, and the backward pass to the gradients of all weights, without
an optimizer. "/ ConvNeXt-T", "/ own training form", "/ not fused" and "/ float32" (the same
contender in float32) are the times over theirs: below 1 is faster.
The peak of memory is the most that torch's allocator held beyond weights and images; that of a
training step includes the gradients. Other runtimes have allocators of their own.
The shares are of the time of the operators in one profiled call. "products" are matrix products and
convolutions, "operator" the shift-wise operator and depthwise convolutions, "activation" includes
the softmax, "element-wise" are additions, multiplications and sums. What torch.compile has
generated is "other".
A processor without bfloat16 instructions, see above, has no fast products for bfloat16 rows.\
"""


def _share(kind: str, row: Row) -> str:
    return f'{100 * row["shares"][kind]:.0f}' if row['shares'] else NONE


Column = tuple[str, Callable[[Row], str]]
COLUMNS: Sequence[Column] = (
    ('network', lambda row: row['name']),
    ('ms', lambda row: number(row['median_ms'])),
    ('images/s', lambda row: number(row['images_per_s'])),
    ('x floor', lambda row: number(row['ratio'])),
    ('/ ConvNeXt-T', lambda row: number(row['over_convnext'])),
    ('/ own training form', lambda row: number(row['over_training_form'])),
    ('/ not fused', lambda row: number(row['over_not_fused'])),
    ('peak / not fused', lambda row: number(row['peak_over_not_fused'])),
    ('/ float32', lambda row: number(row['over_float32'])),
    ('giga-multiply-adds', lambda row: number(row['multiply_adds'] / 1e9)),
    ('peak MiB', lambda row: number(row['peak_bytes'] and row['peak_bytes'] / 2**20)),
    ('weights MiB', lambda row: number(row['weight_bytes'] / 2**20)),
    *((f'{kind} %', partial(_share, kind)) for kind in KINDS),
    ('spread', lambda row: f'{row["spread"]:.0%}'),
    ('n', lambda row: str(row['samples'])),
)


def table_of(rows: Sequence[Row], shown: Sequence[Column] = COLUMNS) -> list[str]:
    """Lines of a table of the rows; a column in which nobody has a figure is left out."""
    columns = [[head, *map(cell, rows)] for head, cell in shown]
    columns = [cells for cells in columns if set(cells[1:]) != {NONE}]
    head, *body = zip(*columns, strict=True)
    return table(head, body)
