"""One cell of the regime matrix: a start with zeros in it, trained, and what is left of them."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict
from unittest.mock import patch

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import MmswError

from .hooks import CountHook, KillHook, ThawHook
from .networks import NETWORKS, RandomImages
from .regimes import OPTIMIZERS, REGIMES, Cell
from .zeros import kept_weights, least_moved, liven, make_zeros, num_lost, num_whole

ITERATIONS = 4
_INTERVAL = 2  # iterations between two files
_KILLED_AFTER = 3
_FROZEN = 3  # layers, one of each pattern
_STATES = ('state_dict', 'ema_state_dict')


class Outcome(TypedDict):
    """What is left of the zeros of one training.

    Attributes:
        zeros: How many there were at the start.
        live: Most that were lost in the model after any iteration.
        averaged: Most that were lost in averaged weights; ``None`` without averages.
        saved: Most that were lost in a set of weights of any file.
        files: How many files were looked at.
        whole: Layers that have all of their zeros in the model at the end.
        moved: Share of the other weights that changed, in the layer with the fewest.
        refused: Why there was no training; ``None`` if there was. Then all counts are 0.
    """

    zeros: int
    live: int
    averaged: int | None
    saved: int
    files: int
    whole: int
    moved: float
    refused: str | None


class Start:
    """A network with zeros in it, and the file that holds it.

    Args:
        network: Key of :data:`.networks.NETWORKS`.
        folder: For the file.
    """

    def __init__(self, network: str, folder: Path) -> None:
        torch.manual_seed(0)
        net = NETWORKS[network].build()
        liven(net)
        self.patterns = make_zeros(net)
        self.state = {key: value.clone() for key, value in net.state_dict().items()}
        self.kept = kept_weights(self.state, self.patterns)
        self.path = folder / f'{network}.pth'
        torch.save({'state_dict': self.state, 'meta': {}}, self.path)

    @property
    def zeros(self) -> int:
        """How many zeros it has."""
        return sum(int((~mask).sum()) for mask in self.kept.values())


def keeping_hooks() -> list[dict[str, Any]]:
    """What a config of a user has, to keep zeros and to look after that."""
    return [dict(type='KeepSparsityHook'), dict(type='SparsityReportHook')]


def run_cell(cell: Cell, start: Start, folder: Path) -> Outcome:
    """Train as a cell says; in each of its processes.

    Args:
        cell: The cell.
        start: What it starts from.
        folder: New folder for its runs.

    Returns:
        What is left of the zeros, in all processes together.

    Raises:
        RuntimeError: If a process that was to be killed has ended by itself.
    """
    try:
        counts, last = _STORIES[REGIMES[cell.regime].story](cell, start, folder)
    except MmswError as error:
        nothing = dict(live=0, averaged=None, saved=0, files=0, whole=0, moved=0.0)
        return Outcome(zeros=start.zeros, **nothing, refused=str(error))
    live = _most(max(count.live for count in counts))  # files are whole once all have met here
    files, state = sorted(folder.rglob('*.pth')), unwrapped(last.model).state_dict()
    return Outcome(
        zeros=start.zeros,
        live=live,
        averaged=counts[-1].averaged,
        saved=max((_lost_in(path, start.kept) for path in files), default=0),
        files=len(files),
        whole=num_whole(state, start.kept),
        moved=least_moved(state, start.state, start.kept),
        refused=None,
    )


def _once(cell: Cell, start: Start, folder: Path) -> tuple[list[CountHook], Runner]:
    count = CountHook(start.kept)
    return [count], _train(cell, start, folder, [count], load_from=start.path)


def _again(cell: Cell, start: Start, folder: Path) -> tuple[list[CountHook], Runner]:
    path, counts = start.path, []
    for place in ('first', 'second', 'third'):
        counts.append(CountHook(start.kept))
        runner = _train(
            cell, start, folder / place, counts[-1:], iterations=_INTERVAL, load_from=path
        )
        path = folder / place / f'iter_{_INTERVAL}.pth'
    return counts, runner


def _killed(cell: Cell, start: Start, folder: Path) -> tuple[list[CountHook], Runner]:
    child = os.fork()
    if child == 0:
        try:
            _train(cell, start, folder, [KillHook(_KILLED_AFTER)], load_from=start.path)
        except BaseException:
            traceback.print_exc()
        os._exit(1)  # it was to be killed before
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f'{cell}: the training ended by itself, with status {status}')
    count = CountHook(start.kept)
    runner = _train(cell, start, folder, [count], iterations=ITERATIONS + _INTERVAL, resume=True)
    return [count], runner


_STORIES = {'once': _once, 'again': _again, 'killed': _killed}


def _train(
    cell: Cell,
    start: Start,
    folder: Path,
    hooks: list[Hook],
    iterations: int = ITERATIONS,
    load_from: Path | None = None,
    resume: bool = False,
) -> Runner:
    regime, network = REGIMES[cell.regime], NETWORKS[cell.network]
    torch.manual_seed(1)  # other weights, which the file replaces
    net = network.build(regime.with_cp)
    if regime.frozen:
        frozen = list(start.kept)[:_FROZEN]
        for name in frozen:
            net.get_submodule(name).requires_grad_(False)
        hooks = [*hooks, ThawHook(frozen, after=_INTERVAL)]
    wrapper = dict(
        type='OptimWrapper', optimizer=dict(OPTIMIZERS[cell.optimizer]), **regime.decay_of(network)
    )
    with _amp_without_gpu():
        runner = Runner(
            model=net,
            work_dir=str(folder),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=RandomImages(),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            optim_wrapper={**wrapper, **regime.wrapper},
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=_INTERVAL),
                logger=dict(type='LoggerHook', interval=iterations + 1),
            ),
            custom_hooks=[
                *(dict(hook) for hook in regime.hooks),
                *(keeping_hooks() if cell.guarded else []),
                *hooks,
            ],
            load_from=None if load_from is None else str(load_from),
            resume=resume,
            launcher='pytorch' if regime.processes > 1 else 'none',
            log_level='ERROR',
            randomness=dict(seed=0),
            default_scope='mmengine',
            experiment_name=str(folder),
            cfg=Config(dict(model_wrapper_cfg=dict(regime.model_wrapper or {}))),
        )
        runner.train()
    return runner


@contextmanager
def _amp_without_gpu() -> Iterator[None]:
    """mmengine's wrapper for mixed precision insists on a GPU; torch's scaler for CPUs serves."""
    if is_cuda_available():
        yield
        return
    scaler = partial(torch.amp.GradScaler, 'cpu')
    with patch.multiple(amp_module, is_cuda_available=lambda: True, GradScaler=scaler):
        yield


def _lost_in(path: Path, kept: Mapping[str, Tensor]) -> int:
    checkpoint = load_checkpoint_file(path)
    return max(num_lost(checkpoint[name], kept) for name in _STATES if name in checkpoint)


def _most(number: int) -> int:
    """The largest number of all processes."""
    if not dist.is_initialized():
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
