"""What pages of the documentation have of a run of the operator benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..page import GPU, blocks_by_device, blocks_to_fill, measured_on, paragraph, write_tables
from ..words import number, table, threads_text
from .contenders import SLAK, SLAK_TRANSPOSED, SLICES
from .job import BOTH, FORWARD
from .summary import Row, summary, sweeps

KIND = 'operator_tables'
_FIELDS = (
    *('shape', 'version', 'crop', 'stage', 'channels', 'size', 'big_kernel', 'small_kernel'),
    *('num_reps', 'batch', 'threads', 'mode', 'dtype', 'sweep', 'sparsity', 'name', 'kind'),
    *('median_ms', 'floor_ms', 'arithmetic_floor_ms', 'bytes_floor_ms'),
)
_SQUARE = 'depthwise '
# What the short tables show.
_MAIN = (
    *('mmsw cpp', 'mmsw cpp, direct', 'mmsw cuda', 'mmsw torch', 'mmsw taichi'),
    *('mmsw cpp folded', 'mmsw cuda folded'),
    *('onnxruntime', 'onnxruntime folded', 'OpenVINO', 'OpenVINO folded'),
    *(SLICES, SLAK, SLAK_TRANSPOSED, f'{_SQUARE}7x7'),
)
_LAYERS = (
    *('mmsw cpp', 'mmsw cpp, direct', 'mmsw cuda', 'mmsw cpp folded', 'mmsw cuda folded'),
    *('mmsw torch', 'onnxruntime', 'OpenVINO', SLICES, SLAK),
)
_FASTEST = ('mmsw cpp', 'mmsw cuda')


def page_blocks(device: str) -> list[str]:
    """Names of the blocks that a run on a device has tables for."""
    return blocks_by_device(_FORMS, device)


def update_page(result: dict[str, Any], page: Path) -> None:
    """Put tables into the blocks of a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        result: What :func:`~.benchmark.benchmark_ops` returns.
        page: Markdown with some of the blocks ``operators``, ``pruning``, ``operator-layers``,
            ``large-kernels``, and ``operators-all`` and ``pruning-all`` with every contender; of a
            run on a GPU, ``operators-gpu`` and so on. A block for which the run has no rows stays
            as it is.
    """
    for name in blocks_to_fill(page, page_blocks(result['machine']['device'])):
        form = name.removesuffix(GPU)
        rows = [row for row in result['rows'] if _FORMS[form].takes(row)]
        if _FORMS[form].last_network and rows:
            rows = [row for row in rows if _network(row) == _network(rows[-1])]
        kept = [{key: _short(row[key]) for key in _FIELDS} for row in rows]
        about = {key: result[key] for key in ('machine', 'settings', 'sittings')}
        if kept:
            found = about | dict(form=form, rows=kept)
            write_tables(page, page_text(found), KIND, found, name)


def page_text(found: dict[str, Any]) -> str:
    """What a block has of a run.

    Args:
        found: What the JSON file beside the page holds.
    """
    told = (
        f'{measured_on(found["machine"])} Times are in milliseconds, float32: medians of samples '
        'that all contenders took in turns, summed over the layers, one of each stage.'
    )
    if len(found['sittings']) > 1:
        told += f' The run was taken in {len(found["sittings"])} sittings.'
    return '\n\n'.join([paragraph(told), *_FORMS[found['form']].tables(found['rows'])]) + '\n'


def _operators(rows: Sequence[Row]) -> Iterator[str]:
    """Every network, the layers together."""
    for heading, entries in _networks(rows):
        columns = list(dict.fromkeys((entry['mode'], entry['batch']) for entry in entries))
        times = {(e['name'], e['mode'], e['batch']): e['total_ms'] for e in entries}
        yield heading
        yield _table(
            ['contender', *(f'{mode}, batch {batch}' for mode, batch in columns)],
            [
                [name, *(number(times.get((name, *column))) for column in columns)]
                for name in dict.fromkeys(entry['name'] for entry in entries)
            ],
        )


def _pruned(rows: Sequence[Row]) -> Iterator[str]:
    """What pruning saves, the layers together."""
    swept = [(reps, row) for reps, part in sweeps(rows) for row in part]
    shares = sorted({row['sparsity'] for _, row in swept} - {0})
    body = []
    for reps, mode, batch, name in dict.fromkeys(
        (reps, row['mode'], row['batch'], row['name']) for reps, row in swept
    ):
        own = [row for r, row in swept if (r, row['mode'], row['batch']) == (reps, mode, batch)]
        dense = _total(own, name.removesuffix(', masked'), 0)
        totals = [_total(own, name, share) for share in shares]
        ratios = [number(time / dense if time and dense else None) for time in totals]
        body.append([f'{name}, {mode}, batch {batch}, R = {reps}', *ratios])
    yield 'Time with a share of the filters pruned, divided by the time without pruning:'
    yield _table(['share pruned', *(f'{share:.0%}' for share in shares)], body)


def _total(rows: Sequence[Row], name: str, share: float) -> float | None:
    """Of all layers; None if one is missing."""
    found = [row['median_ms'] for row in rows if (row['name'], row['sparsity']) == (name, share)]
    return sum(found) if found and len(found) == len({row['shape'] for row in rows}) else None


def _layers(rows: Sequence[Row]) -> Iterator[str]:
    """Every layer of the last network; in brackets the time over the floor."""
    for mode in dict.fromkeys(row['mode'] for row in rows):
        timed = [row for row in rows if row['mode'] == mode]
        names = list(dict.fromkeys(row['name'] for row in timed))
        body = []
        for batch in dict.fromkeys(row['batch'] for row in timed):
            group = [row for row in timed if row['batch'] == batch]
            layers = {
                _layer(row): [r for r in group if r['shape'] == row['shape']] for row in group
            }
            for label, part in (layers | {'together': group}).items():
                body.append([label, str(batch), *(_over_floor(part, name) for name in names)])
        yield _heading(_network(rows[-1]), f', {mode}; in brackets the time over the floor')
        yield _table(['C, map, M/N', 'batch', *names], body)


def _layer(row: Row) -> str:
    kernel = f'{row["big_kernel"]}/{row["small_kernel"]}'
    return f'{row["channels"]}, {row["size"]} x {row["size"]}, {kernel}'


def _over_floor(rows: Sequence[Row], name: str) -> str:
    time = _total(rows, name, 0)
    if time is None:
        return number(None)
    floor = sum(row['arithmetic_floor_ms'] for row in rows if row['name'] == name)
    return f'{number(time)} ({number(time / floor)})'


def _large_kernels(rows: Sequence[Row]) -> Iterator[str]:
    """Each kernel by torch and by a backend, side by side."""
    cut = next(
        (row['name'].partition(', mmsw ')[2] for row in rows if ', mmsw ' in row['name']), ''
    )
    columns = [
        f'{mode}: {what}' for mode in (FORWARD, BOTH) for what in ('`F.conv2d`', cut, 'ratio')
    ]
    for heading, entries in _networks(rows):
        for batch in dict.fromkeys(entry['batch'] for entry in entries):
            times = {(e['name'], e['mode']): e['total_ms'] for e in entries if e['batch'] == batch}
            body = []
            for kernel in dict.fromkeys(name for name, _ in times if ', ' not in name):
                cells = [kernel.removeprefix(_SQUARE)]
                for mode in (FORWARD, BOTH):
                    pair = times.get((kernel, mode)), times.get((f'{kernel}, mmsw {cut}', mode))
                    cells += [*map(number, pair), number(pair[0] / pair[1] if all(pair) else None)]
                body.append(cells)
            yield heading.replace(':', f', batch {batch}:')
            yield _table(['kernel', *columns], body)


def _networks(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Totals over the stages of every network and size, and what they are of."""
    entries = summary(rows)
    for key in dict.fromkeys(map(_network, entries)):
        yield _heading(key), [entry for entry in entries if _network(entry) == key]


def _network(row: Row) -> tuple[str, int, int]:
    return row['version'], row['crop'], row['threads']


def _short(value: Any) -> Any:
    """A number with as many digits as tables and their ratios need."""
    return float(f'{value:.6g}') if isinstance(value, float) else value


def _heading(key: tuple[str, int, int], more: str = '') -> str:
    version, crop, threads = key
    return f'SW-T {version}, crop {crop}, {threads_text(threads)}{more}:'


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return '\n'.join(table(head, body))


def _is_plain(row: Row) -> bool:
    return row['dtype'] == 'float32' and not row['sweep']


def _is_swept(row: Row) -> bool:
    return row['sweep'] and row['name'].startswith('mmsw ')


class _Form(NamedTuple):
    """Which rows of a run a block needs, and what it makes of them."""

    takes: Callable[[Row], bool]
    tables: Callable[[Sequence[Row]], Iterator[str]]
    last_network: bool = False  # of all that were measured


_FORMS = {
    'operators': _Form(lambda row: _is_plain(row) and row['name'] in _MAIN, _operators, True),
    'operators-all': _Form(_is_plain, _operators),
    'pruning': _Form(
        lambda row: _is_swept(row) and row['name'].removesuffix(', masked') in _FASTEST, _pruned
    ),
    'pruning-all': _Form(_is_swept, _pruned),
    'operator-layers': _Form(lambda row: _is_plain(row) and row['name'] in _LAYERS, _layers, True),
    'large-kernels': _Form(
        lambda row: _is_plain(row) and row['name'].startswith((SLAK, _SQUARE)),
        _large_kernels,
        True,
    ),
}
