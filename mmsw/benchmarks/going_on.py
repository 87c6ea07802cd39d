"""What a training needs to go on exactly where it was stopped: its random generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.runner import Runner


def gathered_states() -> list[dict[str, Any]]:
    """States of the random generators of all processes; every process has to call it."""
    return all_gather_object(_random_states())


def restore_generators(runner: Runner, states: list[dict[str, Any]]) -> None:
    """Set the generators of this process once the batches are skipped that the run has seen.

    Args:
        runner: Of a run that goes on, before its first iteration.
        states: What :func:`gathered_states` gave when it was saved.
    """
    loop = runner.train_loop
    loop.dataloader_iterator = _RestoringIterator(
        loop.dataloader_iterator, runner.iter, states[get_rank()]
    )


class _RestoringIterator:
    """Batches of a run that goes on: the generators are set once the seen ones are skipped."""

    def __init__(self, batches: Any, to_skip: int, states: dict[str, Any]) -> None:
        self._batches = batches
        self._to_skip = to_skip
        self._states = states

    def __iter__(self) -> _RestoringIterator:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._to_skip -= 1
        if self._to_skip == 0:
            _restore(self._states)
        return batch

    def skip_iter(self, num_iters: int) -> None:
        """What onedl's mmengine calls; seen batches are loaded, as their augmentation draws too."""
        for _ in range(num_iters):
            next(self)


def _random_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    states = {
        'python': random.getstate(),
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def _restore(states: dict[str, Any]) -> None:
    version, values, gauss = states['python']
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = states['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())
