"""What a pruning will do: settled and checked before a model is built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.errors import SparsityError, UsageError
from mmsw.sparsity import Pruning, PruningSettings
from mmsw.whole_number import whole_number

from ..checks.folders import check_writable


def settings_of(granularity: str, block: Sequence[int] | None, **settings: Any) -> PruningSettings:
    """Settings of a pruning; ``block`` are the sides of ``granularity='block'``.

    Raises:
        UsageError: If a setting makes no sense.
    """
    try:
        return PruningSettings(granularity=_whole(granularity, block), **settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _whole(granularity: str, block: Sequence[int] | None) -> str:
    if granularity == 'block':
        if block is None:
            raise UsageError(
                "granularity 'block' needs the sides of a block: --block R C (block=(R, C)), R "
                'filters by C of their weights'
            )
        rows, columns = (whole_number(side, 'a side of block', positive=True) for side in block)
        return f'block {rows}x{columns}'
    if block is not None:
        raise UsageError(
            f"--block (block=) is for granularity 'block', got {granularity!r}: leave it out"
        )
    return granularity


def check_plan(
    path: Path, overwrite: bool, snip_batches: int, shape: Sequence[int] | None = None
) -> None:
    """Refuse a file that is there already or cannot be written, and numbers without sense.

    Raises:
        UsageError: If so.
    """
    try:
        whole_number(snip_batches, 'snip_batches', positive=True)
        for side in shape or ():
            whole_number(side, 'a side of shape', positive=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if path.is_dir():
        raise UsageError(f'{path} is a folder: name the file to write')
    if os.path.lexists(path) and not overwrite:
        raise UsageError(
            f'{path} is there already: name another file, or replace it with --overwrite '
            '(overwrite=True)'
        )
    check_writable(path.parent, 'folder of the pruned checkpoint')


def check_not_sparser(pruning: Pruning, filename: str) -> None:
    """Refuse a checkpoint that keeps less than what is asked for already.

    Raises:
        SparsityError: If so.
    """
    kept, total = sum(pruning.numbers().values()), sum(pruning.sizes().values())
    if kept < pruning.target() and not pruning.granularity.is_of_groups:
        raise SparsityError(
            f'{filename} keeps {kept} of {total} {pruning.granularity.unit}s of these layers '
            f'already, which is sparser ({1 - kept / total:.2%}) than asked for '
            f'({pruning.settings.sparsity:.2%}): ask for more'
        )
