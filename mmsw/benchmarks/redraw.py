"""The picture of a finished benchmark, drawn again from what it wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsw.errors import UsageError
from mmsw.json_file import read_json

from .comparison import Row
from .model.plot import draw as draw_model
from .operator.plot import draw as draw_operator
from .sparse_training.plot import draw as draw_sparsity
from .sparse_training.summary import Cell
from .transfer.plot import draw as draw_transfer

Drawing = Callable[[dict[str, Any], Path], bool]


def redraw(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Draw the picture of a benchmark again; nothing is trained or measured.

    Args:
        folder: With ``results.json`` or ``benchmark.json``.
        path: Picture to write, as SVG and as PNG; ``None``: where the benchmark writes it.

    Returns:
        The SVG.

    Raises:
        UsageError: If there are no such results, they are damaged, or nothing in them is finished.
    """
    folder = Path(folder)
    file = next((folder / name for name in _KINDS if (folder / name).is_file()), None)
    if file is None:
        names = ' nor '.join(_KINDS)
        raise UsageError(f"{folder} holds neither {names}; name the folder of a benchmark's --out")
    found, name, draw = _read(file)
    target = (Path(path) if path is not None else folder / name).with_suffix('.svg')
    try:
        drawn = draw(found, target)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{file} is not what a benchmark writes: {type(error).__name__}: {error}'
        ) from error
    if not drawn:
        raise UsageError(f'{file} holds no finished results, so there is nothing to draw')
    return target


def _read(file: Path) -> tuple[dict[str, Any], str, Drawing]:
    """What a file holds, and what is drawn of it under which name."""
    *others, (last, *drawing) = _KINDS[file.name]
    for kind, name, draw in others:
        try:
            return read_json(file, kind), name, draw
        except UsageError:  # of the other kind, if not worse, which the last attempt says
            continue
    return read_json(file, last), *drawing


def _transfer(found: dict[str, Any], path: Path) -> bool:
    rows = []
    for entry in found['summary']:
        own = f'{entry["task"]}-{entry["network"]}-{entry["start"]}-seed'
        results = _results(found, own)
        rows.append(Row(entry['wanted'], results, entry['network'], entry['task'], entry['start']))
    return draw_transfer(rows, path)


def _sparsity(found: dict[str, Any], path: Path) -> bool:
    cells = []
    for entry in found['summary']:
        method, sparsity = entry['method'], entry['sparsity']
        own = f'{method}-seed' if not sparsity else f'{method}-{sparsity:g}-seed'
        operators = _results(found, own, 'operator')
        cells.append(Cell(entry['wanted'], _results(found, own), method, sparsity, operators))
    return draw_sparsity(cells, path)


def _results(found: dict[str, Any], own: str, key: str = 'result') -> dict[int, dict[str, Any]]:
    """By seed, of the runs whose names begin so."""
    return {
        int(run['name'].removeprefix(own)): run[key]
        for run in found['runs']
        if run['name'].startswith(own) and run.get(key) is not None
    }


_KINDS: dict[str, list[tuple[str, str, Drawing]]] = {
    'results.json': [
        ('benchmark_transfer', 'transfer.svg', _transfer),
        ('benchmark_sparsity', 'sparse_training.svg', _sparsity),
    ],
    'benchmark.json': [
        ('benchmark_ops', 'benchmark.svg', draw_operator),
        ('benchmark_model', 'benchmark.svg', draw_model),
    ],
}
