"""What a training of any benchmark does beside learning: measure, save, go on, report."""

from __future__ import annotations

import math
import os
import statistics
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmsw.engine.model_wrapper import unwrapped
from mmsw.json_file import write_json
from mmsw.whole_file import write_text, write_whole

from .digests import tensor_digest
from .going_on import gathered_states, restore_generators
from .memory import resident_peak
from .runs import FINAL, PROGRESS, RESULT

LATEST = 'latest.pth'
_SEEN_BATCHES = 3
_KEY = 'benchmark'  # in a checkpoint


class MeasuringHook(Hook, ABC):
    """Time the iterations, keep the learning curve, and write weights and result at the end.

    After each evaluation the whole state is saved, random generators included; a run that goes on
    from there ends with the same weights as one that was never stopped.

    A benchmark says in a subclass what a run begins with, what its scores are, and what else goes
    into the result.

    Args:
        digest: Of the settings of the run; goes into the result.
        begun: When the run was started, in seconds since the epoch.

    Attributes:
        kept: What travels with the checkpoint.
        noted: The part of it that goes into the result as it is.
        losses: Of the iterations since the last evaluation.
    """

    def __init__(self, digest: str, begun: float) -> None:
        self.digest = digest
        self.kept: dict[str, Any] = {'curve': [], 'seconds': [], 'elapsed': 0.0, 'peak': 0}
        self.kept['noted'] = {'first_batches': []}
        self.losses: list[float] = []
        self._clock: float | None = None
        self._begun = begun
        self._told = 0.0

    @abstractmethod
    def begin(self, runner: Runner, model: nn.Module) -> None:
        """Before a training that is not gone on with."""

    @abstractmethod
    def look(self, batch: dict[str, Any]) -> Any:
        """What tells a batch apart; the first ones are noted."""

    @abstractmethod
    def scores(self, metrics: dict[str, float]) -> dict[str, float]:
        """Scores of an evaluation by name, in per cent; raises where the evaluator gave none."""

    @abstractmethod
    def result(self, runner: Runner, model: nn.Module) -> dict[str, Any]:
        """What else goes into the result; the final weights are written already."""

    @property
    def noted(self) -> dict[str, Any]:
        """What goes into the result as it is."""
        return self.kept['noted']

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take over what was measured before the run was stopped."""
        self.kept = checkpoint.get(_KEY, self.kept)

    def before_train(self, runner: Runner) -> None:
        """Begin; or, in a run that goes on, restore the random generators."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if runner.iter:
            restore_generators(runner, self.kept['random'])
        else:
            self.begin(runner, unwrapped(runner.model))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Note what the run began with and what the first batches were."""
        if runner.iter == 0:
            self.noted['random_at_start'] = generators_digest(unwrapped(runner.model))
        if runner.iter < _SEEN_BATCHES:
            self.noted['first_batches'].append(self.look(data_batch))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Time the iteration before this call, data included, and tell how far the run is."""
        self.losses.append(outputs['loss'].item())
        now = time.perf_counter()
        if self._clock is not None:
            self.kept['seconds'].append(now - self._clock)
        self._clock = now
        if now - self._told > 1:
            self._tell(runner, runner.iter + 1)
            self._told = now

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add a point to the learning curve and save the state."""
        point = {'iteration': runner.iter, 'loss': finite_mean(self.losses)}
        self.kept['curve'].append({**point, **self.scores(metrics or {})})
        self.losses = []
        self._spend()
        self.kept['peak'] = max([self.kept['peak'], *all_gather_object(_peak_memory())])
        self.kept['random'] = gathered_states()
        _save(runner, LATEST)
        if is_main_process():
            folder = Path(runner.work_dir)
            write_text(folder / 'last_checkpoint', str(folder / LATEST))
        self._tell(runner, runner.iter)
        self._clock = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """What was measured goes into the file that a stopped run goes on from."""
        if 'optimizer' in checkpoint:
            checkpoint[_KEY] = self.kept

    def after_train(self, runner: Runner) -> None:
        """Write the final weights and the result."""
        _save(runner, FINAL, save_optimizer=False, save_param_scheduler=False)
        if not is_main_process():
            return
        self._spend()
        curve, seconds = self.kept['curve'], self.kept['seconds']
        if not curve or curve[-1]['iteration'] != runner.max_iters:
            raise RuntimeError(f'there was no evaluation at the last iteration, {runner.max_iters}')
        folder = Path(runner.work_dir)
        write_json(
            folder / RESULT,
            'training_result',
            {
                'digest': self.digest,
                'scores': scores_in(curve[-1]),
                'curve': curve,
                'seconds_per_iteration': statistics.median(seconds) if seconds else None,
                'iterations_timed': len(seconds),
                'wall_seconds': self.kept['elapsed'],
                'threads': torch.get_num_threads(),
                'peak_memory': self.kept['peak'],
                'memory': 'GPU, allocated' if torch.cuda.is_available() else 'process, resident',
                **self.noted,
                **self.result(runner, unwrapped(runner.model)),
            },
        )
        for name in (LATEST, 'last_checkpoint'):
            (folder / name).unlink(missing_ok=True)

    def _spend(self) -> None:
        now = time.time()
        self.kept['elapsed'] += now - self._begun
        self._begun = now

    def _tell(self, runner: Runner, done: int) -> None:
        if not is_main_process():
            return
        curve = self.kept['curve']
        state = {'done': done, 'of': runner.max_iters, 'last': curve[-1] if curve else None}
        write_json(Path(runner.work_dir, PROGRESS), 'training_progress', state)


def scores_in(point: dict[str, Any]) -> dict[str, float]:
    """The scores of a point of a learning curve."""
    return {name: value for name, value in point.items() if name not in ('iteration', 'loss')}


def finite_mean(values: list[float]) -> float | None:
    """Mean; None where it diverged, or of nothing."""
    mean = statistics.fmean(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def generators_digest(model: nn.Module) -> str:
    """Digest of torch's generator and of the states of generators that a model carries."""
    carried = [buffer for buffer in model.buffers() if buffer.dtype == torch.uint8]
    return tensor_digest([torch.get_rng_state(), *carried])


def _save(runner: Runner, name: str, **parts: bool) -> None:
    """Save a checkpoint in the working folder, whole or not at all.

    Every process of the run has to call it: in the first one the file is written, the others wait
    for its verdict, see ``PortableRunner.save_checkpoint``.

    Args:
        runner: Of the run.
        name: Of the file.
        parts: What goes into it, as ``Runner.save_checkpoint`` takes it.
    """

    def save(path: Path) -> None:
        meta = dict(epoch=0, iter=runner.iter)
        runner.save_checkpoint(os.fspath(path.parent), path.name, meta=meta, **parts)

    path = Path(runner.work_dir, name)
    if is_main_process():
        write_whole(path, save)
    else:
        save(path)


def _peak_memory() -> int:
    """Most memory so far, in bytes: of torch on the GPU, or of this process on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident_peak()
