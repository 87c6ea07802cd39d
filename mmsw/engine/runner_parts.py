"""What the hooks of sparse training need to know about a runner."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from torch import nn


def is_training(runner: Runner) -> bool:
    """Whether the runner trains; one that tests has no more than the settings of a training."""
    return isinstance(runner._train_loop, BaseLoop)


def keeps_bare_zeros(runner: Runner) -> bool:
    """Whether a hook keeps zeros of the loaded weights for which the file has no mask."""
    return any(getattr(hook, 'keeps_zeros', False) for hook in runner.hooks)


def averaged_models(runner: Runner) -> Iterator[nn.Module]:
    """Models that hold averages of the weights of the runner's model."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model'):
            yield hook.ema_model.module


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """mmengine's wrappers of the optimizers that train the model."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def optimizers(runner: Runner) -> list[torch.optim.Optimizer]:
    """The optimizers that train the model."""
    return [wrapper.optimizer for wrapper in optim_wrappers(runner)]


def has_stepped(runner: Runner) -> bool:
    """Whether the iteration that just ended was one in which the optimizer takes its step."""
    return all(wrapper.should_update() for wrapper in optim_wrappers(runner))
