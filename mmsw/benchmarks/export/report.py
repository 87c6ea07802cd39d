"""The tables of the benchmark of exported files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..timing_report import opening, write_files
from ..words import NONE, number, rate_line, table, threads_text
from .rows import Row

_UNITS = {'boxes': ' px'}
_EXPLANATION = """\
Scores are those of the metrics of the config, in per cent, on all of its test images: each file
prepared the images by itself and ran in its own runtime. Errors are the largest ones of each output
of the graph against PyTorch, folded: logits as a share of the largest logit, corners of boxes in
pixels, scores and mask probabilities as they are. "changed" is the share of the pixels with another
class, or of the objects on one side alone, against the model as it was trained. Size is that of the
file, or of the state dict. "zeros" is the share of exact zeros in the weights: folding sums filters
into large kernels that have their own zeros, and int8 rounds small weights to zero.
Time is that of one image from prepared pixels to its result: the median of samples that all rows of
a table took in turns; the spread is the interquartile range over the median, n the number of
samples. "/ folded" is the time over that of PyTorch, folded: below 1 is faster.\
"""


def write_report(result: dict, out: str | os.PathLike[str]) -> None:
    """Write what :func:`~.benchmark.benchmark_export` returns to a folder."""
    write_files(result, out, 'benchmark_export', markdown(result))


def markdown(result: dict) -> str:
    """The whole report as Markdown."""
    rates = [
        rate_line(
            'float32 matrix product of side 2048',
            result['matmul_per_s'],
            'giga-multiply-adds/s',
        )
    ]
    lines = opening('Benchmark of exported files', result, rates if result['matmul_per_s'] else [])
    lines += [f'- {name}: {version}' for name, version in result['packages'].items()]
    lines += ['', '## How to read it', '', _EXPLANATION, *tables(result)]
    return '\n'.join([*lines, ''])


def tables(result: dict) -> list[str]:
    """Lines with a head and a table for each model."""
    rows: list[Row] = result['rows']
    lines: list[str] = []
    for model in dict.fromkeys(row['model'] for row in rows):
        found = [row for row in rows if row['model'] == model]
        size = ' x '.join(map(str, found[0]['size']))
        lines += ['', f'## {model}, {size}, {threads_text(found[0]["threads"])}', '']
        lines += table_of(found)
    return lines


def table_of(rows: Sequence[Row]) -> list[str]:
    """Lines of the table of one model."""
    names = list(rows[0]['scores'])
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ('form', lambda row: f'{row["format"]}, {row["precision"]}'),
        *((name, _score(name)) for name in names),
        *((f'error of {name}', _error(name)) for name in _outputs(rows)),
        ('changed', lambda row: NONE if row['changed'] is None else f'{row["changed"]:.2%}'),
        ('MiB', lambda row: number(row['bytes'] / 2**20)),
        ('zeros', lambda row: f'{row["zeros"] / row["weights"]:.1%}'),
        ('ms', lambda row: number(row['median_ms'])),
        ('/ folded', lambda row: number(row['over_folded'])),
        ('spread', lambda row: f'{row["spread"]:.0%}'),
        ('n', lambda row: str(row['samples'])),
    ]
    return table(
        [head for head, _ in columns], [[cell(row) for _, cell in columns] for row in rows]
    )


def _outputs(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row['errors']))


def _score(name: str) -> Callable[[Row], str]:
    return lambda row: f'{row["scores"][name]:.2f}'


def _error(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        error = row['errors'].get(name)
        if error is None:
            return NONE
        return f'{error["share" if name == "logits" else "largest"]:.0e}{_UNITS.get(name, "")}'

    return cell
