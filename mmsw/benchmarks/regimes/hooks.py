"""Hooks of the regime matrix: one counts lost zeros, one thaws layers, one kills its process."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmsw.engine.model_wrapper import unwrapped
from mmsw.engine.runner_parts import averaged_models

from .zeros import num_lost


class CountHook(Hook):
    """Counts zeros that are lost, after every iteration; the worst count stays.

    Args:
        kept: Where the weights of the start are not zero, by name of the layer.

    Attributes:
        live: Of the model itself.
        averaged: Of averaged models; ``None`` if there are none.
    """

    priority = 'LOWEST'

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        self.kept = kept
        self.live = 0
        self.averaged: int | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Count."""
        self.live = max(self.live, num_lost(unwrapped(runner.model).state_dict(), self.kept))
        for other in averaged_models(runner):
            lost = num_lost(other.state_dict(), self.kept)
            self.averaged = max(self.averaged or 0, lost)


class ThawHook(Hook):
    """Trains layers from some iteration on that were frozen before.

    Args:
        layers: Their names.
        after: Number of iterations without them.
    """

    def __init__(self, layers: Sequence[str], after: int) -> None:
        self.layers, self.after = layers, after

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Thaw them if it is time."""
        if runner.iter == self.after:
            for name in self.layers:
                unwrapped(runner.model).get_submodule(name).requires_grad_(True)


class KillHook(Hook):
    """Kills its own process, which gets no chance to tidy up.

    Args:
        after: Number of iterations before.
    """

    priority = 'VERY_LOW'

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Kill it if it is time."""
        if runner.iter + 1 == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
