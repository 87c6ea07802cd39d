"""How much memory a training needs per image, said once."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmsw.registration import register

from ..runner_parts import optimizers

_STATUS = Path('/proc/self/status')
_RESET = Path('/proc/self/clear_refs')  # "5": the peak begins anew


@register(HOOKS)
class MemoryHook(Hook):
    """Logs, after a few iterations, the memory that stays and the memory that each image takes.

    What stays (weights, gradients, state of the optimizer) does not depend on the number of images;
    what an iteration needs on top does. On a GPU these are torch's own figures. On a CPU they are
    what the process has grown by, and only Linux tells. Nothing is said where nothing is known.

    Args:
        iterations: After how many iterations of the run; the first ones are slower and larger.
    """

    priority = 'VERY_HIGH'  # at the start before hooks that look at images, as SNIP does

    def __init__(self, iterations: int = 3) -> None:
        self.iterations = iterations
        self._left = self._before = 0

    def before_train(self, runner: Runner) -> None:
        """Begin anew with the peak."""
        self._left = self.iterations if _begin_peak() else 0
        self._before = 0 if torch.cuda.is_available() or not self._left else _resident('VmRSS')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget what hooks did before the first iteration."""
        if self._left == self.iterations and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count; say it after the last of the first iterations."""
        if self._left == 0:
            return
        self._left -= 1
        last = runner.iter + 1 >= runner.max_iters
        if self._left and not last:
            return
        self._left = 0
        size = getattr(runner.train_dataloader, 'batch_size', None) or _batch_size(runner)
        if size:
            runner.logger.info(memory_line(*self._memory(runner), size))

    def _memory(self, runner: Runner) -> tuple[str, int, int]:
        """Whose memory, the bytes that stay in use, and the most that were."""
        if torch.cuda.is_available():
            return 'GPU memory', torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        # What the process has now says little: the allocator keeps some of what is free again.
        stays = self._before + _bytes_of_training(runner)
        return 'memory of this process', stays, _resident('VmHWM')


def memory_line(whose: str, stays: int, peak: int, size: int) -> str:
    """What is said.

    Args:
        whose: What the memory is of.
        stays: Bytes that stay in use between iterations.
        peak: The most bytes in use in an iteration.
        size: Images per iteration.

    Returns:
        One sentence.
    """
    each = max(0, peak - stays) / size
    return (
        f'{whose}: {_shown(peak)} at most in the first iterations; {_shown(stays)} stay in use, '
        f'and each image of a batch (batch_size={size}) takes about {_shown(each)} on top'
    )


def _shown(number: float) -> str:
    return f'{number / 2**20:.0f} MiB' if number < 2**30 else f'{number / 2**30:.2f} GiB'


def _bytes_of_training(runner: Runner) -> int:
    """Gradients and the state of the optimizers, which are made in the first iteration."""
    grads = (p.grad for p in runner.model.parameters() if p.grad is not None)
    states = (
        value
        for optimizer in optimizers(runner)
        for state in optimizer.state.values()
        for value in (state.values() if isinstance(state, dict) else ())
        if isinstance(value, torch.Tensor)
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in chain(grads, states))


def _batch_size(runner: Runner) -> int | None:
    """Of a loader with a batch sampler of its own."""
    return (runner.cfg.get('train_dataloader') or {}).get('batch_size')


def _begin_peak() -> bool:
    """Let the peak of a process begin with the present; returns whether it can be measured."""
    if torch.cuda.is_available():
        return True
    try:
        _RESET.write_bytes(b'5')
        return 'VmHWM' in _STATUS.read_text(encoding='utf-8')
    except OSError:
        return False


def _resident(name: str) -> int:
    """Bytes under a name in what Linux says of this process."""
    line = next(
        line
        for line in _STATUS.read_text(encoding='utf-8').splitlines()
        if line.startswith(f'{name}:')
    )
    return int(line.split()[1]) * 1024
