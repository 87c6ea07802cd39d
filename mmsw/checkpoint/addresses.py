"""Checkpoint files by path or address: fetched, and then read as safely as a local file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.fileio import get_local_path
from mmengine.fileio.backends import prefix_to_backends

from mmsw.errors import CheckpointError

from .files import load_checkpoint_file

_ELSEWHERE = '://'
_in_step = ContextVar('all processes read the same checkpoints in the same order', default=False)


def read_checkpoint(source: str | os.PathLike[str]) -> Any:
    """Read a checkpoint onto the CPU without running what is in it.

    Args:
        source: A local file, or an address of any kind that mmengine has a file backend for:
            ``http://``, ``https://``, ``s3://``, ``petrel://`` and those that were registered; or
            ``file://``.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: If the file is missing, cannot be fetched, is damaged, is of a newer format
            of mmsw, or asks for more than data, or if the address is of another kind.
    """
    name = os.fspath(source)
    if _ELSEWHERE not in name:
        return load_checkpoint_file(name)
    check_address(name)
    with ExitStack() as stack:
        return load_checkpoint_file(_fetched(name, stack), name=name)


def check_address(address: str) -> None:
    """Refuse an address of a kind that cannot be read.

    Raises:
        CheckpointError: If it cannot.
    """
    kinds = sorted({'file', *filter(None, prefix_to_backends)})
    _, kind, _ = _parts(address)
    if kind not in kinds or address.count(_ELSEWHERE) != 1:
        raise CheckpointError(
            f'checkpoint {address} cannot be fetched: expected the path of a local file, or an '
            f'address that begins with {", ".join(f"{known}://" for known in kinds)}. Download '
            'the file, and name its path'
        )


@contextmanager
def fetched_once() -> Iterator[None]:
    """Inside, processes of one machine share what is fetched, instead of fetching it each.

    All processes of the run must read the same checkpoints in the same order.
    """
    token = _in_step.set(get_world_size() > 1)
    try:
        yield
    finally:
        _in_step.reset(token)


def _parts(address: str) -> tuple[str, str, str]:
    """What precedes the kind (``cluster:`` of ``cluster:s3://``), the kind, what follows it.

    The kind is as mmengine knows it, which tells capitals apart.
    """
    before, _, rest = address.partition(_ELSEWHERE)
    cluster, colon, kind = before.rpartition(':')
    return cluster + colon, kind if kind in prefix_to_backends else kind.lower(), rest


def _fetched(address: str, stack: ExitStack) -> Path:
    """A local copy, which lives as long as the stack."""
    if _parts(address)[1] == 'file':
        return Path(url2pathname(urlsplit(address).path))
    if not _in_step.get():
        return _fetch(address, stack)
    machine, path, error = socket.gethostname(), None, None
    if int(os.environ.get('LOCAL_RANK', get_rank())) == 0:
        try:
            path = _fetch(address, stack)
        except CheckpointError as problem:
            error = problem
    everywhere = all_gather_object((machine, path, error))
    stack.callback(barrier)  # the copy stays until all have read it
    errors = [problem for _, _, problem in everywhere if problem]
    if errors:
        raise errors[0]
    copies = [copy for where, copy, _ in everywhere if where == machine and copy]
    if copies and copies[0].is_file():
        return copies[0]
    return _fetch(address, stack)


def _fetch(address: str, stack: ExitStack) -> Path:
    cluster, kind, rest = _parts(address)
    try:
        known = f'{cluster}{kind}{_ELSEWHERE}{rest}'
        return Path(stack.enter_context(get_local_path(known)))
    except Exception as error:  # file backends fail in their own ways
        raise CheckpointError(f'checkpoint {address} cannot be fetched: {error}') from error
